//! Users' TorchScript modules: the folders they may come from, and one loaded copy of each per process.
//!
//! A TorchScript file is a program, and loading it runs it. So modules are read from the folders that
//! `functions.folders` names, and from nowhere else.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use tch::{CModule, Device, Tensor};

use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::ids::ContentHash;
use crate::lake::stores::Location;
use crate::score::devices;

/// A module on its device, in evaluation mode.
#[derive(Debug)]
pub struct Module {
    /// Hash of the file's bytes.
    pub hash: String,
    pub device: Device,
    pub forward_passes: AtomicU64,
    module: CModule,
}

/// Modules by the hash of their files, and how often each was loaded.
#[derive(Debug, Default)]
struct Loaded {
    modules: HashMap<String, Arc<Module>>,
    loads: HashMap<String, u64>,
}

// Kept for the process, as sessions are many: training has one per past date.
static LOADED: LazyLock<Mutex<Loaded>> = LazyLock::new(Mutex::default);

/// How often this process has loaded the module of a hash.
pub fn loads(hash: &str) -> u64 {
    loaded().loads.get(hash).copied().unwrap_or_default()
}

fn loaded() -> std::sync::MutexGuard<'static, Loaded> {
    LOADED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads and loads the module at `uri`, unless its bytes were loaded before.
pub(super) async fn load(uri: &str, config: &Config) -> Result<Arc<Module>> {
    let place = permitted(uri, config)?;
    let bytes = place.read_if_there("").await?.ok_or_else(|| {
        Failure::model(format!("{uri}: no such module")).hint("save it there with torch.jit.save, or fix the AS clause")
    })?;
    let hash = ContentHash::from_bytes(&bytes).long();
    let device = devices::choose(&config.score)?;
    // Locked while loading, so that other callers of the module wait for the load instead of starting a second one.
    let mut all = loaded();
    if let Some(module) = all.modules.get(&hash) {
        return Ok(Arc::clone(module));
    }
    let refused = |e: tch::TchError| {
        Failure::model(format!("{uri}: not a TorchScript module: {}", reason(&e.to_string())))
            .hint("save it with torch.jit.script(module).save(path) or torch.jit.trace(...).save(path)")
    };
    let mut module = CModule::load_data_on_device(&mut bytes.as_ref(), device).map_err(refused)?;
    module.f_set_eval().map_err(refused)?;
    let module = Arc::new(Module { hash: hash.clone(), device, forward_passes: AtomicU64::new(0), module });
    all.modules.insert(hash.clone(), Arc::clone(&module));
    *all.loads.entry(hash).or_default() += 1;
    Ok(module)
}

/// The module of a hash, if this process has it; refuses a `uri` that is not permitted.
pub(super) fn find(uri: &str, hash: &str, config: &Config) -> Result<Option<Arc<Module>>> {
    permitted(uri, config)?;
    Ok(loaded().modules.get(hash).cloned())
}

/// The location of a module in one of `functions.folders`, once `.`, `..` and links are resolved; refuses others.
fn permitted(uri: &str, config: &Config) -> Result<Location> {
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
pub(crate) fn permitted_folder(uri: &str, config: &Config) -> Result<Location> {
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

impl Module {
    /// One forward pass without gradients; the error is the module's message.
    pub(super) fn forward(&self, inputs: &[Tensor]) -> Result<Tensor, String> {
        let _guard = tch::no_grad_guard();
        self.forward_passes.fetch_add(1, Ordering::Relaxed);
        match catch_unwind(AssertUnwindSafe(|| self.module.forward_ts(inputs))) {
            Ok(done) => done.map_err(|e| reason(&e.to_string())),
            Err(_) => Err("libtorch's bindings panicked".into()),
        }
    }
}

/// The line of a libtorch error that says what failed, without the traces of the interpreter and of C++.
fn reason(text: &str) -> String {
    let names_error = |line: &&str| line.contains("Error: ");
    let line = text.lines().find(names_error).or_else(|| text.lines().find(|line| !line.trim().is_empty()));
    line.unwrap_or("unknown").trim().to_string()
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
        let of = |uri: &str, folders: &[&str]| permitted(uri, &config(folders)).map(|place| place.prefix.to_string());
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
        assert_eq!(permitted(link.to_str().unwrap(), &config).unwrap_err().kind.exit_code(), 2);
    }

    #[test]
    fn the_line_that_names_the_error_is_found() {
        let text = "The following operation failed in the TorchScript interpreter.\nTraceback (most recent call last):\n\
                    RuntimeError: index out of range in self\n";
        assert_eq!(reason(text), "RuntimeError: index out of range in self");
        assert_eq!(reason("\nno file\nframe #0"), "no file");
    }
}
