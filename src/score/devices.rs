//! Which device scores and trains: opens the CUDA half of libtorch where there is a GPU, so that one binary serves both.
//!
//! The binary is linked against `libtorch_cpu.so` alone. `libtorch_cuda.so` is opened by its real path (it finds its own
//! libraries relative to that, and a link would move it) with RTLD_NOW | RTLD_GLOBAL, once, before anything asks libtorch
//! for a GPU: libtorch remembers its first answer for the life of the process. Where there is no GPU nothing is opened.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};
use tch::Device;

use crate::config::ScoreConfig;
use crate::failure::{Failure, Result};

const CPU_LIBRARY: &str = "libtorch_cpu.so";
const CUDA_LIBRARY: &str = "libtorch_cuda.so";
/// Decompositions of matrices, which draw the first weights of recurrent networks.
const LINALG_LIBRARY: &str = "libtorch_cuda_linalg.so";
const DRIVER_LIBRARY: &str = "libcuda.so.1";
/// `at::globalContext()` and `at::Context::setAllowTF32CuDNN(bool)`, as the compiler of libtorch names them.
const CONTEXT: &str = "_ZN2at13globalContextEv";
const ALLOW_TF32: &str = "_ZN2at7Context17setAllowTF32CuDNNEb";
/// `at::Context::setSDPUseCuDNN(bool)`.
const CUDNN_ATTENTION: &str = "_ZN2at7Context14setSDPUseCuDNNEb";
/// Padded tokens of a forward pass: more gain nothing on a core, and an H100 scored 1.4 to 2.4 times as many users and texts in
/// passes of so many more (docs/howto/gpu.md).
const CPU_BATCH_TOKENS: u32 = 2048;
const GPU_BATCH_TOKENS: u32 = 32_768;

/// Why no GPU can be used; each says what it looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCuda {
    #[error("{CPU_LIBRARY} is not loaded in this process, so its CUDA half cannot be found beside it")]
    NoLibtorch,
    #[error("{}: no such file", .0.display())]
    NoLibrary(PathBuf),
    #[error("no NVIDIA driver: {0}")]
    NoDriver(String),
    #[error("the NVIDIA driver finds no device: {0}")]
    NoDevice(String),
    #[error("{}: {error}", library.display())]
    NotOpened { library: PathBuf, error: String },
    #[error("{CPU_LIBRARY} has no {symbol}, by which cuDNN is told how to compute: {error}")]
    NoContext { symbol: &'static str, error: String },
    #[error("libtorch finds no CUDA device, though {} is open and the driver (CUDA {driver}) has one", library.display())]
    Refused { library: PathBuf, driver: String },
}

impl NoCuda {
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoLibtorch | Self::NoLibrary(_) => "this libtorch is a CPU build: use the CUDA 13 build of 2.11.0",
            Self::NoDriver(_) => {
                "install the NVIDIA driver, in a container start it with its GPUs; or set score.device=cpu"
            }
            Self::NoDevice(_) => "see that nvidia-smi lists the GPU and CUDA_VISIBLE_DEVICES does not hide it",
            Self::NoContext { .. } => "use the CUDA 13 build of 2.11.0; or set score.device=cpu",
            Self::NotOpened { .. } => "install the CUDA wheels of torch 2.11.0: infra/setup/libtorch.sh --cuda",
            Self::Refused { .. } => "libtorch 2.11.0 needs a driver for CUDA 13; update the driver",
        }
    }
}

/// The NVIDIA driver, asked directly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// The newest CUDA that it serves, such as 13.0.
    pub cuda: String,
    /// The version of the kernel's module, where it says.
    pub module: Option<String>,
    /// The names of its devices.
    pub devices: Vec<String>,
}

/// What this process found at its first look, which holds for its life.
#[derive(Debug, Clone)]
pub struct Cuda {
    /// Where the CUDA half of libtorch should lie.
    pub library: Option<PathBuf>,
    pub driver: Result<Driver, NoCuda>,
    /// The number of devices that libtorch can use.
    pub devices: Result<i64, NoCuda>,
}

/// Opens what there is to open; the first call decides. Call it before the first tensor.
pub fn look() -> &'static Cuda {
    // The dynamic linker and libtorch keep this once a process, so it is kept once a process here too.
    static FOUND: OnceLock<Cuda> = OnceLock::new();
    FOUND.get_or_init(|| {
        let library = beside_libtorch();
        let driver = driver();
        let devices = open_all(library.as_deref(), &driver);
        Cuda { library, driver, devices }
    })
}

/// The device that `score.device` asks for. `cuda` fails where there is none; `auto` falls back and says so once.
pub fn choose(settings: &ScoreConfig) -> Result<Device> {
    if settings.device == "cpu" {
        return Ok(Device::Cpu);
    }
    match &look().devices {
        Ok(_) => Ok(Device::Cuda(0)),
        Err(why) if settings.device == "cuda" => {
            Err(Failure::usage(format!("score.device: expected a CUDA device, found none: {why}")).hint(why.hint()))
        }
        Err(why) => {
            static SAID: Once = Once::new();
            SAID.call_once(|| tracing::info!("score.device=auto: using the CPU: {why}"));
            Ok(Device::Cpu)
        }
    }
}

/// Padded tokens in one forward pass on a device: `score.batch_tokens_max`, or what suits the device where that is 0.
pub fn batch_tokens(settings: &ScoreConfig, device: Device) -> usize {
    let tokens = match (settings.batch_tokens_max, device.is_cuda()) {
        (0, false) => CPU_BATCH_TOKENS,
        (0, true) => GPU_BATCH_TOKENS,
        (set, _) => set,
    };
    tokens as usize
}

/// In the order of cost: a file that is not there, a driver that is not there, then half a gigabyte of library.
fn open_all(library: Option<&Path>, driver: &Result<Driver, NoCuda>) -> Result<i64, NoCuda> {
    let library = library.ok_or(NoCuda::NoLibtorch)?;
    if !library.exists() {
        return Err(NoCuda::NoLibrary(library.into()));
    }
    let driver = driver.as_ref().map_err(NoCuda::clone)?;
    open(library)?;
    // libtorch would open it at the first decomposition, and fails where two threads come to that at once.
    let linalg = library.with_file_name(LINALG_LIBRARY);
    if linalg.exists() {
        open(&linalg)?;
    }
    tell_cudnn()?;
    match tch::Cuda::is_available() {
        true => Ok(tch::Cuda::device_count()),
        false => Err(NoCuda::Refused { library: library.into(), driver: driver.cuda.clone() }),
    }
}

/// Opens a library for all of the process and for ever.
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

/// What tch has no call for. Float32 shall mean float32: out of the box cuDNN multiplies it as TF32 (ten bits of mantissa), and a
/// ResNet's vectors were off by 4e-3 of a largest number of 12 on an H100, instead of by 9e-6; who wants speed for that says
/// `bf16`. And attention shall not be cuDNN's, which makes a plan for each shape of a batch, where hardly two are alike.
fn tell_cudnn() -> Result<(), NoCuda> {
    for setter in [ALLOW_TF32, CUDNN_ATTENTION] {
        // SAFETY: both take one bool, as their mangled names say.
        let set = unsafe { of_context::<unsafe extern "C" fn(*mut c_void, bool)>(setter)? };
        // SAFETY: a method takes `this` first (Itanium C++ ABI); the context is a static of the libtorch that this binary is linked
        // to, and nothing computes yet.
        unsafe { set(context()?, false) };
    }
    Ok(())
}

/// A method of libtorch's context.
///
/// # Safety
/// `F` must be the function's type, `this` first.
unsafe fn of_context<F: Copy>(symbol: &'static str) -> Result<F, NoCuda> {
    let missing = |e: libloading::Error| NoCuda::NoContext { symbol, error: e.to_string() };
    // SAFETY: the caller's promise; libtorch stays loaded.
    unsafe { libloading::os::unix::Library::this().get::<F>(symbol.as_bytes()).map(|found| *found).map_err(missing) }
}

fn context() -> Result<*mut c_void, NoCuda> {
    // SAFETY: the mangled name says that it takes nothing; a reference is returned as a pointer.
    unsafe { Ok(of_context::<unsafe extern "C" fn() -> *mut c_void>(CONTEXT)?()) }
}

/// The CUDA half beside the `libtorch_cpu.so` that this process runs on, links resolved.
fn beside_libtorch() -> Option<PathBuf> {
    loaded_libtorch().map(|cpu| cpu.with_file_name(CUDA_LIBRARY))
}

/// The real path of the loaded `libtorch_cpu.so`; the kernel's map of the process names files, not links.
pub fn loaded_libtorch() -> Option<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let path = maps.lines().filter_map(|line| line.get(line.find('/')?..)).find(|p| p.ends_with(CPU_LIBRARY))?;
    Some(path.into())
}

/// The version of the loaded libtorch as its package states it: 2.11.0+cu130.
pub fn libtorch_version() -> Option<String> {
    let root = loaded_libtorch()?.parent()?.parent()?.to_path_buf();
    let of_zip = fs::read_to_string(root.join("build-version")).ok().map(|text| text.trim().to_string());
    of_zip.or_else(|| {
        let text = fs::read_to_string(root.join("version.py")).ok()?;
        let value = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
        Some(value.trim_matches(['\'', '"']).to_string())
    })
}

/// Asks the driver itself, which costs little and tells more than libtorch does.
fn driver() -> Result<Driver, NoCuda> {
    type One = unsafe extern "C" fn(*mut c_int) -> c_int;
    let missing = |e: libloading::Error| NoCuda::NoDriver(e.to_string());
    // SAFETY: the names and signatures are those of the CUDA driver interface, unchanged since CUDA 6; each pointer is
    // to a live local of the stated type. The driver must not be unloaded once initialised, hence `forget`.
    unsafe {
        let driver = libloading::Library::new(DRIVER_LIBRARY).map_err(missing)?;
        let init = *driver.get::<unsafe extern "C" fn(c_uint) -> c_int>(b"cuInit\0").map_err(missing)?;
        let version = *driver.get::<One>(b"cuDriverGetVersion\0").map_err(missing)?;
        let count = *driver.get::<One>(b"cuDeviceGetCount\0").map_err(missing)?;
        let name = *driver
            .get::<unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int>(b"cuDeviceGetName\0")
            .map_err(missing)?;
        let error_name = *driver
            .get::<unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int>(b"cuGetErrorName\0")
            .map_err(missing)?;
        std::mem::forget(driver);
        let checked = |call: &str, code: c_int| {
            let mut text: *const c_char = std::ptr::null();
            match code {
                0 => Ok(()),
                _ if error_name(code, &mut text) == 0 && !text.is_null() => {
                    Err(NoCuda::NoDevice(format!("{call}: {}", CStr::from_ptr(text).to_string_lossy())))
                }
                _ => Err(NoCuda::NoDevice(format!("{call}: error {code}"))),
            }
        };
        checked("cuInit", init(0))?;
        let (mut number, mut devices) = (0, 0);
        checked("cuDriverGetVersion", version(&mut number))?;
        checked("cuDeviceGetCount", count(&mut devices))?;
        if devices == 0 {
            return Err(NoCuda::NoDevice("it counts 0".into()));
        }
        let named = (0..devices).map(|device| {
            let mut text = [0 as c_char; 256];
            // A device's handle is its ordinal.
            checked("cuDeviceGetName", name(text.as_mut_ptr(), 255, device))?;
            Ok(CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned())
        });
        let devices = named.collect::<Result<_, NoCuda>>()?;
        Ok(Driver { cuda: format!("{}.{}", number / 1000, number % 1000 / 10), module: module_version(), devices })
    }
}

/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  …` → `580.65.06`.
fn module_version() -> Option<String> {
    let text = fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let word = text.lines().next()?.split_whitespace().find(|w| w.contains('.') && w.starts_with(char::is_numeric))?;
    Some(word.into())
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_file_that_is_no_library_gives_the_linkers_own_words() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CUDA_LIBRARY);
        fs::write(&path, "no library").unwrap();
        let why = open_all(Some(&path), &driver()).unwrap_err().to_string();
        assert!(why.starts_with(&path.display().to_string()), "{why}");
        assert!(why.contains("file too short") || why.contains("invalid ELF header"), "{why}");
    }

    #[test]
    fn without_a_driver_the_library_is_not_even_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(CUDA_LIBRARY);
        fs::write(&path, "no library").unwrap();
        let none = NoCuda::NoDriver("libcuda.so.1: not here".into());
        assert_eq!(open_all(Some(&path), &Err(none.clone())).unwrap_err(), none);
    }

    #[test]
    fn cudnn_is_told_to_round_nothing_and_to_leave_attention_alone() {
        // `at::Context::allowTF32CuDNN(std::optional<at::Float32Op>)`; an empty one fills a register with zeros.
        const ALLOWS: &str = "_ZNK2at7Context14allowTF32CuDNNESt8optionalINS_9Float32OpEE";
        const ATTENDS: &str = "_ZNK2at7Context19userEnabledCuDNNSDPEv";
        // SAFETY: as the mangled names say.
        let (allows, attends) = unsafe {
            let allows = of_context::<unsafe extern "C" fn(*mut c_void, u64) -> bool>(ALLOWS).unwrap();
            (allows, of_context::<unsafe extern "C" fn(*mut c_void) -> bool>(ATTENDS).unwrap())
        };
        let ask = || unsafe { (allows(context().unwrap(), 0), attends(context().unwrap())) };
        assert_eq!(ask(), (true, true), "else this would be for nothing");
        tell_cudnn().unwrap();
        assert_eq!(ask(), (false, false));
    }

    #[test]
    fn a_gpu_reads_more_tokens_at_once_unless_told() {
        let tokens = |batch_tokens_max, device| {
            batch_tokens(&ScoreConfig { batch_tokens_max, ..ScoreConfig::default() }, device)
        };
        assert_eq!([tokens(0, Device::Cpu), tokens(0, Device::Cuda(0)), tokens(7, Device::Cuda(0))], [2048, 32_768, 7]);
    }

    #[test]
    fn the_library_is_looked_for_beside_the_real_libtorch() {
        // Any call into libtorch, so that the linker keeps it.
        assert!(tch::get_num_threads() > 0);
        let cpu = loaded_libtorch().unwrap();
        assert_eq!(cpu, cpu.canonicalize().unwrap(), "no link on the way");
        assert_eq!(beside_libtorch().unwrap().parent(), cpu.parent());
        assert!(libtorch_version().unwrap().starts_with("2.11.0"));
    }
}
