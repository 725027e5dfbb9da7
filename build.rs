//! Passes two values to the compilation: the folder of libtorch and a hash of the training's source.
//!
//! The folder becomes an rpath, so that the binary finds libtorch without LD_LIBRARY_PATH. A training resumes from a
//! checkpoint only if the checkpoint records the same hash.
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs};

#[allow(clippy::disallowed_methods)] // cargo passes values to build scripts only in the environment
fn main() {
    // torch-sys sets this to the libtorch that it found: by LIBTORCH, or in Python's torch package (LIBTORCH_USE_PYTORCH).
    if let Some(lib) = env::var_os("DEP_TCH_LIBTORCH_LIB") {
        let lib = PathBuf::from(lib);
        let lib = std::fs::canonicalize(&lib).unwrap_or(lib);
        println!("cargo:rustc-link-arg=-Wl,-rpath={}", lib.display());
    }

    let mut hasher = DefaultHasher::new();
    for folder in ["src/model", "src/training"] {
        println!("cargo:rerun-if-changed={folder}");
        hash(Path::new(folder), &mut hasher);
    }
    // The name must not begin with INTENTCAST_, the prefix of settings: tests inherit it from cargo and pass it to the binary.
    println!("cargo:rustc-env=TRAINING_SOURCE_HASH={:016x}", hasher.finish());
}

/// Hashes the path and content of every file below a folder, in order of path.
fn hash(folder: &Path, hasher: &mut DefaultHasher) {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        match path.is_dir() {
            true => hash(&path, hasher),
            false => (path.display().to_string(), fs::read(&path).unwrap_or_default()).hash(hasher),
        }
    }
}
