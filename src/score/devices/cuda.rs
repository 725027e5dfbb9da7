//! Opens the CUDA half of libtorch where there is a GPU.
//!
//! The binary is linked only against `libtorch_cpu.so`. `libtorch_cuda.so` is opened by its real path (it finds its own
//! libraries relative to that, and a link would change it) with RTLD_NOW | RTLD_GLOBAL, once, before anything asks libtorch
//! for a GPU: libtorch keeps its first answer for the life of the process. Where there is no GPU nothing is opened.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::driver::{Driver, query_driver};
use super::libtorch::{configure_cudnn, cuda_library};
use super::no_cuda::NoCuda;

/// Matrix decompositions, which initialise the weights of recurrent networks.
const LINALG_LIBRARY: &str = "libtorch_cuda_linalg.so";

/// The result of this process's first look for a GPU; it holds until the process ends.
#[derive(Debug, Clone)]
pub struct Cuda {
    /// Path where the CUDA half of libtorch is expected.
    pub(crate) library: Option<PathBuf>,
    pub(crate) driver: Result<Driver, NoCuda>,
    /// The number of devices that libtorch can use.
    pub(crate) devices: Result<i64, NoCuda>,
}

/// Opens the CUDA half of libtorch if there is a GPU; later calls return what the first one found. Call it before the first tensor.
pub fn find_cuda() -> &'static Cuda {
    // Once per process, like the state of the dynamic linker and of libtorch.
    static FOUND: OnceLock<Cuda> = OnceLock::new();
    FOUND.get_or_init(|| {
        let library = cuda_library();
        let driver = query_driver();
        let devices = open_all(library.as_deref(), &driver);
        Cuda { library, driver, devices }
    })
}

/// Checks in the order of cost: a missing file, a missing driver, then half a gigabyte of library.
fn open_all(library: Option<&Path>, driver: &Result<Driver, NoCuda>) -> Result<i64, NoCuda> {
    let library = library.ok_or(NoCuda::NoLibtorch)?;
    if !library.exists() {
        return Err(NoCuda::NoLibrary(library.into()));
    }
    let driver = driver.as_ref().map_err(NoCuda::clone)?;
    open(library)?;
    // libtorch would open it for the first decomposition, and fails if two threads do so at once.
    let linalg = library.with_file_name(LINALG_LIBRARY);
    if linalg.exists() {
        open(&linalg)?;
    }
    configure_cudnn()?;
    match tch::Cuda::is_available() {
        true => Ok(tch::Cuda::device_count()),
        false => Err(NoCuda::Refused { library: library.into(), driver: driver.cuda.clone() }),
    }
}

/// Opens a library for the whole process, until it ends.
fn open(path: &Path) -> Result<(), NoCuda> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
    // SAFETY: libtorch's initialisers register its CUDA kernels with the libtorch_cpu.so that is loaded; nothing else
    // runs in them. The library is never closed, so what they registered stays valid.
    match unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) } {
        Ok(library) => {
            std::mem::forget(library);
            Ok(())
        }
        Err(error) => Err(NoCuda::NotOpened { library: path.into(), error: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::super::libtorch::CUDA_LIBRARY;
    use super::*;
    use std::fs;

    fn driver() -> Result<Driver, NoCuda> {
        Ok(Driver { cuda: "13.0".into(), module: None, devices: vec!["any".into()] })
    }

    #[test]
    fn a_missing_library_is_named_by_its_path() {
        let path = Path::new("/nowhere/libtorch_cuda.so");
        let why = open_all(Some(path), &driver()).unwrap_err();
        assert_eq!(why.to_string(), "/nowhere/libtorch_cuda.so: no such file");
    }

    #[test]
    fn a_file_that_is_no_library_gives_the_linkers_message() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CUDA_LIBRARY);
        fs::write(&path, "no library").unwrap();
        let why = open_all(Some(&path), &driver()).unwrap_err().to_string();
        assert!(why.starts_with(&path.display().to_string()), "{why}");
        assert!(why.contains("file too short") || why.contains("invalid ELF header"), "{why}");
    }

    #[test]
    fn without_a_driver_the_library_is_not_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CUDA_LIBRARY);
        fs::write(&path, "no library").unwrap();
        let none = NoCuda::NoDriver("libcuda.so.1: not here".into());
        assert_eq!(open_all(Some(&path), &Err(none.clone())).unwrap_err(), none);
    }
}
