//! Tells the linker where libtorch lies, so that the binary finds it without LD_LIBRARY_PATH.
use std::{env, path::PathBuf};

#[allow(clippy::disallowed_methods)] // a build script has no other way in
fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Some(root) = env::var_os("LIBTORCH") {
        let lib = PathBuf::from(root).join("lib");
        let lib = std::fs::canonicalize(&lib).unwrap_or(lib);
        println!("cargo:rustc-link-arg=-Wl,-rpath={}", lib.display());
    }
}
