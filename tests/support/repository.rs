//! The files of the repository, for tests that read it.

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the folder of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns the files with an extension below a folder of the repository; there must be some.
pub fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let found = find_files(folder, extension);
    assert!(!found.is_empty(), "no .{extension} under {folder}");
    found
}

/// Returns the files with an extension below a folder of the repository.
pub fn find_files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|e| e == extension) {
                found.push(entry);
            }
        }
    }
    found
}

/// Reads a file of the repository.
pub fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}
