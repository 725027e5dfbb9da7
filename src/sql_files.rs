//! The SQL that the night runs: the files under `sql/`, built into the binary, overlaid by a configured folder.
//!
//! A file is found by its path without extension (`features/user_features`). An analyst changes a night by putting a
//! changed file into `sql.folder`; its text is part of the fingerprints, so everything that depends on it is recomputed.

use include_dir::{Dir, include_dir};
use std::collections::BTreeMap;

use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::ids::ContentHash;

static BUILT_IN: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/sql");

/// All SQL files by path without extension, in path order.
#[derive(Debug, Clone)]
pub struct SqlFiles(BTreeMap<String, String>);

impl SqlFiles {
    pub fn load(config: &Config) -> Result<Self> {
        let mut files = BTreeMap::new();
        collect(&BUILT_IN, &mut files);
        if !config.sql.folder.is_empty() {
            overlay(config.sql.folder.as_ref(), config.sql.folder.as_ref(), &mut files)?;
        }
        Ok(Self(files))
    }

    pub fn get(&self, path: &str) -> Result<&str> {
        self.0.get(path).map(String::as_str).ok_or_else(|| {
            Failure::usage(format!("sql/{path}.sql: no such file")).hint("check sql.folder and lake.name")
        })
    }

    /// Returns a file as it was built into the binary, whatever an overlay has at its path.
    pub fn built_in(path: &str) -> Result<&'static str> {
        let file = BUILT_IN.get_file(format!("{path}.sql")).and_then(|file| file.contents_utf8());
        file.ok_or_else(|| Failure::bug(format!("sql/{path}.sql is not built in")))
    }

    /// Returns (file name without extension, text) of every file directly in `folder`, by name.
    pub fn folder<'a>(&'a self, folder: &str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let prefix = format!("{folder}/");
        self.0.iter().filter_map(move |(path, text)| {
            let name = path.strip_prefix(&prefix)?;
            (!name.contains('/')).then_some((name, text.as_str()))
        })
    }

    /// Returns the names of the folders directly in `folder`.
    pub(crate) fn folders(&self, folder: &str) -> Vec<String> {
        let below = self.0.keys().filter_map(|path| path.strip_prefix(folder)?.strip_prefix('/')?.split_once('/'));
        let mut names: Vec<String> = below.map(|(name, _)| name.into()).collect();
        // Paths are sorted, so that repeats are adjacent.
        names.dedup();
        names
    }

    /// Returns a hash of the paths and texts of the named folders; it changes when anything that they compute may change.
    pub(crate) fn fingerprint(&self, folders: &[&str]) -> String {
        let mut hasher = blake3::Hasher::new();
        for (path, text) in self.0.iter().filter(|(p, _)| folders.iter().any(|f| p.starts_with(&format!("{f}/")))) {
            hasher.update(path.as_bytes()).update(&[0]).update(text.as_bytes()).update(&[0]);
        }
        ContentHash::from_hasher(&hasher).short()
    }
}

fn collect(dir: &Dir<'static>, files: &mut BTreeMap<String, String>) {
    for file in dir.files() {
        if let (Some(path), Some(text)) =
            (file.path().to_str().and_then(|p| p.strip_suffix(".sql")), file.contents_utf8())
        {
            files.insert(path.into(), text.into());
        }
    }
    dir.dirs().for_each(|d| collect(d, files));
}

fn overlay(root: &std::path::Path, folder: &std::path::Path, files: &mut BTreeMap<String, String>) -> Result<()> {
    let unreadable = |e: std::io::Error| Failure::usage(format!("sql.folder {}: {e}", folder.display()));
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            overlay(root, &path, files)?;
        } else if path.extension().is_some_and(|e| e == "sql") {
            let text = std::fs::read_to_string(&path).map_err(unreadable)?;
            if let Some(key) =
                path.strip_prefix(root).ok().and_then(|p| p.with_extension("").to_str().map(String::from))
            {
                files.insert(key, text);
            }
        }
    }
    Ok(())
}
