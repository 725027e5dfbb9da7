//! The NVIDIA driver, queried directly: it costs little and says more than libtorch does.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::fs;

use super::no_cuda::NoCuda;

const DRIVER_LIBRARY: &str = "libcuda.so.1";

/// The driver's report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Driver {
    /// The newest CUDA that it supports, such as 13.0.
    pub(crate) cuda: String,
    /// Version of the kernel module, if known.
    pub(crate) module: Option<String>,
    /// The names of its devices.
    pub(crate) devices: Vec<String>,
}

pub(super) fn query_driver() -> Result<Driver, NoCuda> {
    type OneNumber = unsafe extern "C" fn(*mut c_int) -> c_int;
    let missing = |e: libloading::Error| NoCuda::NoDriver(e.to_string());
    // SAFETY: the names and signatures are those of the CUDA driver interface, unchanged since CUDA 6; each pointer is
    // to a live local of the stated type. The driver must not be unloaded once initialised, hence `forget`.
    unsafe {
        let driver = libloading::Library::new(DRIVER_LIBRARY).map_err(missing)?;
        let init = *driver.get::<unsafe extern "C" fn(c_uint) -> c_int>(b"cuInit\0").map_err(missing)?;
        let version = *driver.get::<OneNumber>(b"cuDriverGetVersion\0").map_err(missing)?;
        let count = *driver.get::<OneNumber>(b"cuDeviceGetCount\0").map_err(missing)?;
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
