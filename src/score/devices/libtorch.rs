//! The libtorch that this process runs on: where it is, its version, and settings that tch has no call for.

use std::ffi::c_void;
use std::fs;
use std::path::PathBuf;

use super::no_cuda::{CPU_LIBRARY, NoCuda};

pub(super) const CUDA_LIBRARY: &str = "libtorch_cuda.so";
/// Mangled names of `at::globalContext()` and `at::Context::setAllowTF32CuDNN(bool)`.
const CONTEXT: &str = "_ZN2at13globalContextEv";
const ALLOW_TF32: &str = "_ZN2at7Context17setAllowTF32CuDNNEb";
/// `at::Context::setSDPUseCuDNN(bool)`.
const CUDNN_ATTENTION: &str = "_ZN2at7Context14setSDPUseCuDNNEb";

/// Disables TF32, so that float32 is full precision: by default cuDNN multiplies with ten bits of mantissa, and on an H100 a
/// ResNet's vectors (largest number 12) were off by 4e-3 instead of 9e-6. Use `bf16` for speed. Disables cuDNN's attention too,
/// which plans for each shape of a batch, and hardly two batches have the same.
pub(super) fn configure_cudnn() -> Result<(), NoCuda> {
    for setter in [ALLOW_TF32, CUDNN_ATTENTION] {
        // SAFETY: both take one bool, as their mangled names say.
        let set = unsafe { context_method::<unsafe extern "C" fn(*mut c_void, bool)>(setter)? };
        // SAFETY: a method takes `this` first (Itanium C++ ABI). The context is a static of the libtorch that this binary is linked
        // to, and nothing computes yet.
        unsafe { set(context()?, false) };
    }
    Ok(())
}

/// Looks up a method of libtorch's context.
///
/// # Safety
/// `F` must be the function's type, `this` first.
unsafe fn context_method<F: Copy>(symbol: &'static str) -> Result<F, NoCuda> {
    let missing = |e: libloading::Error| NoCuda::NoContext { symbol, error: e.to_string() };
    // SAFETY: the caller's promise; libtorch stays loaded.
    unsafe { libloading::os::unix::Library::this().get::<F>(symbol.as_bytes()).map(|found| *found).map_err(missing) }
}

fn context() -> Result<*mut c_void, NoCuda> {
    // SAFETY: the mangled name says that it takes nothing; a reference is returned as a pointer.
    unsafe { Ok(context_method::<unsafe extern "C" fn() -> *mut c_void>(CONTEXT)?()) }
}

/// The CUDA half next to the `libtorch_cpu.so` that this process runs on, with links resolved.
pub(super) fn cuda_library() -> Option<PathBuf> {
    loaded_libtorch().map(|cpu| cpu.with_file_name(CUDA_LIBRARY))
}

/// The real path of the loaded `libtorch_cpu.so`; the kernel's map of the process names files, not links.
pub(crate) fn loaded_libtorch() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().filter_map(|line| line.get(line.find('/')?..)).find(|p| p.ends_with(CPU_LIBRARY))?;
    Some(path.into())
}

/// The version of the loaded libtorch as its package states it, such as 2.11.0+cu130.
pub(crate) fn libtorch_version() -> Option<String> {
    let root = loaded_libtorch()?.parent()?.parent()?.to_path_buf();
    let zip_version = fs::read_to_string(root.join("build-version")).ok().map(|text| text.trim().to_string());
    zip_version.or_else(|| {
        let text = fs::read_to_string(root.join("version.py")).ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
        Some(value.trim_matches(['\'', '"']).to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cudnn_neither_rounds_nor_computes_attention() {
        // `at::Context::allowTF32CuDNN(std::optional<at::Float32Op>)`; an empty one fills a register with zeros.
        const ALLOWS: &str = "_ZNK2at7Context14allowTF32CuDNNESt8optionalINS_9Float32OpEE";
        const ATTENDS: &str = "_ZNK2at7Context19userEnabledCuDNNSDPEv";
        // SAFETY: as the mangled names say.
        let (allows, attends) = unsafe {
            let allows = context_method::<unsafe extern "C" fn(*mut c_void, u64) -> bool>(ALLOWS).unwrap();
            (allows, context_method::<unsafe extern "C" fn(*mut c_void) -> bool>(ATTENDS).unwrap())
        };
        let ask = || unsafe { (allows(context().unwrap(), 0), attends(context().unwrap())) };
        assert_eq!(ask(), (true, true), "the defaults that this is for");
        configure_cudnn().unwrap();
        assert_eq!(ask(), (false, false));
    }

    #[test]
    fn the_cuda_library_is_next_to_the_real_libtorch() {
        // Any call into libtorch, so that the linker keeps it.
        assert!(tch::get_num_threads() > 0);
        let cpu = loaded_libtorch().unwrap();
        assert_eq!(cpu, cpu.canonicalize().unwrap(), "no link on the way");
        assert_eq!(cuda_library().unwrap().parent(), cpu.parent());
        assert!(libtorch_version().unwrap().starts_with("2.11.0"));
    }
}
