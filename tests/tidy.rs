//! Reads the repository itself: file openings, SQL headers, leftovers.

use std::fs;
use std::path::{Path, PathBuf};

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
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
    assert!(!found.is_empty(), "no .{extension} under {folder}");
    found
}

#[test]
fn every_source_file_says_what_it_is_for() {
    for path in files("src", "rs").into_iter().chain(files("tests", "rs")) {
        assert!(fs::read_to_string(&path).unwrap().starts_with("//! "), "{}: expected a //! opening", path.display());
    }
}

#[test]
fn every_sql_file_states_its_grain() {
    for path in files("sql", "sql") {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("-- "), "{}: expected a first line that states the grain", path.display());
    }
}

#[test]
fn nothing_is_left_to_do_in_silence() {
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["unimplemented", "!("].concat()];
    for path in files("src", "rs").into_iter().chain(files("sql", "sql")) {
        let text = fs::read_to_string(&path).unwrap();
        for mark in &marks {
            assert!(!text.contains(mark), "{}: {mark}", path.display());
        }
    }
}
