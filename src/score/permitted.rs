//! The folders that users' modules and encoders may come from.
//!
//! A TorchScript file is a program, and loading it runs it. So modules are read from the folders that
//! `functions.folders` names, and from nowhere else.

use std::path::Path;

use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;

/// The location of a module in one of `functions.folders`, once `.`, `..` and links are resolved; refuses others.
pub(super) fn permitted_module(uri: &str, config: &Config) -> Result<Location> {
    among_folders(uri, config, false)?.ok_or_else(|| {
        Failure::usage(format!(
            "{uri}: expected a module in one of functions.folders, which are: {}",
            join_names(&config.functions.folders)
        ))
        .hint("a module is a program: put it into such a folder, or name its folder in functions.folders")
    })
}

/// The location of a folder of weights, which are no program: a configured encoder's, one of `functions.folders`, or a folder
/// below one.
pub(super) fn permitted_folder(uri: &str, config: &Config) -> Result<Location> {
    let encoders = [&config.model.text_encoder, &config.model.image_encoder];
    let place = Location::open(uri, &config.s3)?;
    for encoder in encoders.into_iter().filter(|encoder| !encoder.is_empty()) {
        let encoder = Location::open(encoder, &config.s3)?;
        if place.prefix == encoder.prefix && place.store_url()? == encoder.store_url()? {
            return Ok(place);
        }
    }
    among_folders(uri, config, true)?.ok_or_else(|| {
        let encoders = encoders.map(String::as_str).into_iter().filter(|encoder| !encoder.is_empty());
        let known: Vec<&str> = encoders.chain(config.functions.folders.iter().map(String::as_str)).collect();
        Failure::usage(format!(
            "{uri}: expected model.text_encoder, model.image_encoder, or a folder in one of functions.folders, which are: {}",
            join_names(&known)
        ))
        .hint("name the encoder's folder, or one above it, in functions.folders")
    })
}

/// The location, if it is below one of `functions.folders` or, where `itself` is set, is one of them.
fn among_folders(uri: &str, config: &Config, itself: bool) -> Result<Option<Location>> {
    let place = Location::open(uri, &config.s3)?;
    for folder in &config.functions.folders {
        let folder = Location::open(folder, &config.s3)?;
        let within = place.prefix.prefix_match(&folder.prefix).is_some_and(|mut rest| itself || rest.next().is_some());
        if within && place.store_url()? == folder.store_url()? && is_really_in(&place, &folder) {
            return Ok(Some(place));
        }
    }
    Ok(None)
}

fn join_names<S: AsRef<str>>(folders: &[S]) -> String {
    match folders {
        [] => "none".into(),
        folders => folders.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "),
    }
}

/// Reports whether a local file is in its folder when links are followed; other stores have no links.
fn is_really_in(place: &Location, folder: &Location) -> bool {
    let real = |place: &Location| Path::new(&place.display(&place.prefix)).canonicalize();
    match place.url.scheme() {
        // A missing file is reported when it is read.
        "file" => match (real(place), real(folder)) {
            (Ok(file), Ok(folder)) => file.starts_with(folder),
            (Err(_), _) => true,
            (_, Err(_)) => false,
        },
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(folders: &[&str]) -> Config {
        let mut config = Config::default();
        config.functions.folders = folders.iter().map(ToString::to_string).collect();
        config
    }

    #[test]
    fn modules_come_only_from_the_configured_folders() {
        let of =
            |uri: &str, folders: &[&str]| permitted_module(uri, &config(folders)).map(|place| place.prefix.to_string());
        assert_eq!(of("s3://shop/modules/a/m.pt", &["s3://shop/modules"]).unwrap(), "modules/a/m.pt");
        assert_eq!(of("/srv/modules/a/../m.pt", &["/srv/modules/"]).unwrap(), "srv/modules/m.pt");
        // A configured folder that is the module itself does not hide another one that holds it.
        assert_eq!(of("/srv/modules/m.pt", &["/srv/modules/m.pt", "/srv/modules"]).unwrap(), "srv/modules/m.pt");
        for (uri, folders) in [
            ("s3://shop/modules/m.pt", &[][..]),
            ("s3://shop/modules/../secret/m.pt", &["s3://shop/modules"]),
            ("s3://shop/modules/%2e%2e/m.pt", &["s3://shop/modules"]),
            ("s3://shop/modules%2F..%2Fm.pt", &["s3://shop/modules"]),
            ("s3://other/modules/m.pt", &["s3://shop/modules"]),
            ("s3://shop/modules-of-others/m.pt", &["s3://shop/modules"]),
            ("s3://shop/modules", &["s3://shop/modules"]),
            ("/srv/modules/../m.pt", &["/srv/modules"]),
            ("file:///srv/modules/a/../../m.pt", &["/srv/modules"]),
            ("http://shop/modules/m.pt", &["s3://shop/modules"]),
        ] {
            let refused = of(uri, folders).unwrap_err();
            assert_eq!(refused.kind.exit_code(), 2, "{uri}: {refused}");
        }
    }

    #[test]
    fn an_encoder_is_configured_or_in_a_configured_folder() {
        let mut config = config(&["/srv/encoders"]);
        config.model.text_encoder = "/srv/minilm".into();
        for (uri, permitted) in [
            ("/srv/minilm", true),
            ("/srv/encoders", true),
            ("/srv/./minilm/", true),
            ("file:///srv/minilm", true),
            ("/srv/minilm/below", false),
            ("/srv/encoders/resnet18", true),
            ("/srv/encoders/../bert", false),
            ("/srv/encoders-of-others", false),
        ] {
            match permitted_folder(uri, &config) {
                Ok(_) => assert!(permitted, "{uri}"),
                Err(refused) => {
                    assert!(!permitted && refused.kind.exit_code() == 2, "{uri}: {refused}");
                    assert!(refused.message.ends_with("which are: /srv/minilm, /srv/encoders"), "{refused}");
                }
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_out_of_the_folder_is_refused() {
        let (inside, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("m.pt"), "m").unwrap();
        let link = inside.path().join("m.pt");
        std::os::unix::fs::symlink(outside.path().join("m.pt"), &link).unwrap();
        let config = config(&[inside.path().to_str().unwrap()]);
        assert_eq!(permitted_module(link.to_str().unwrap(), &config).unwrap_err().kind.exit_code(), 2);
    }
}
