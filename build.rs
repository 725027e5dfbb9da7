//! Tells the linker where libtorch lies, so that the binary finds it without LD_LIBRARY_PATH; and the code, a hash of
//! its own source, which decides whose checkpoints a training may go on from.
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs};

#[allow(clippy::disallowed_methods)] // a build script has no other way in
fn main() {
    // What torch-sys has found, by LIBTORCH or in the Python package that LIBTORCH_USE_PYTORCH asks for.
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
    // No name that begins as our settings do: cargo hands it on to the tests, and they to the binary.
    println!("cargo:rustc-env=TRAINING_SOURCE_HASH={:016x}", hasher.finish());
}

/// Every file below a folder, in order of names.
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
