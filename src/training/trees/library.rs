//! LightGBM's library: where it is, and the functions of its C interface that training calls.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;

use crate::config::TrainConfig;
use crate::failure::{Failure, Result};
use crate::score::devices::loaded_libtorch;

const FILE: &str = "lib_lightgbm.so";

/// A data set or a booster of LightGBM.
pub(super) type Handle = *mut c_void;

/// Types of numbers in LightGBM's interface.
pub(super) const FLOAT32: c_int = 0;

/// The functions of the opened library. It stays loaded until the process ends.
#[derive(Debug, Clone)]
pub struct LightGbm {
    /// The file that was opened, or the name by which the system found it.
    pub path: PathBuf,
    last_error: unsafe extern "C" fn() -> *const c_char,
    pub(super) dataset_from_matrix: DatasetFromMatrix,
    pub(super) set_field: SetField,
    pub(super) free_dataset: unsafe extern "C" fn(Handle) -> c_int,
    pub(super) create_booster: unsafe extern "C" fn(Handle, *const c_char, *mut Handle) -> c_int,
    pub(super) add_validation: unsafe extern "C" fn(Handle, Handle) -> c_int,
    pub(super) update: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    pub(super) evaluate: unsafe extern "C" fn(Handle, c_int, *mut c_int, *mut f64) -> c_int,
    pub(super) dump: DumpModel,
    pub(super) free_booster: unsafe extern "C" fn(Handle) -> c_int,
    #[cfg(test)]
    pub(super) predict: PredictMatrix,
}

/// Data, its type, rows, columns, whether rows follow one another, parameters, a data set whose bins to use, result.
pub(super) type DatasetFromMatrix =
    unsafe extern "C" fn(*const c_void, c_int, i32, i32, c_int, *const c_char, Handle, *mut Handle) -> c_int;
/// Data set, name, data, number of values, their type.
pub(super) type SetField = unsafe extern "C" fn(Handle, *const c_char, *const c_void, c_int, c_int) -> c_int;
/// Booster, first iteration, iterations, kind of importance, size of the buffer, bytes needed, buffer.
pub(super) type DumpModel = unsafe extern "C" fn(Handle, c_int, c_int, c_int, i64, *mut i64, *mut c_char) -> c_int;
/// Booster, data, its type, rows, columns, whether rows follow one another, kind of prediction, first iteration, iterations,
/// parameters, values written, result.
#[cfg(test)]
pub(super) type PredictMatrix = unsafe extern "C" fn(
    Handle,
    *const c_void,
    c_int,
    i32,
    i32,
    c_int,
    c_int,
    c_int,
    c_int,
    *const c_char,
    *mut i64,
    *mut f64,
) -> c_int;

impl LightGbm {
    /// Opens the library that `train.lightgbm_library` names; without that, the one of the `lightgbm` package next to libtorch's
    /// package, or else the system's. Call it after libtorch is in use, so that both share one OpenMP runtime.
    pub fn open(config: &TrainConfig) -> Result<Self> {
        let mut failures = Vec::new();
        for path in candidates(config) {
            match Self::open_file(path.clone()) {
                Ok(library) => return Ok(library),
                Err(error) => failures.push(format!("{}: {error}", path.display())),
            }
        }
        Err(Failure::usage(format!("training needs LightGBM's library, which cannot be loaded: {}", failures.join("; ")))
            .hint(
                "`make setup` installs it; or set train.lightgbm_library to the lib_lightgbm.so of a lightgbm 4.7 package (it \
                 needs libgomp1); or train without trees: intents.trees=false demand.trees=false table.trees=false",
            ))
    }

    fn open_file(path: PathBuf) -> Result<Self, libloading::Error> {
        // SAFETY: loading runs the library's initialisers, as any program that links it does. Names and signatures are those of
        // LightGBM's c_api.h since version 4.0. The library must outlive the functions, hence `forget`.
        unsafe {
            let library = libloading::Library::new(&path)?;
            let opened = Self {
                path,
                last_error: *library.get(b"LGBM_GetLastError\0")?,
                dataset_from_matrix: *library.get(b"LGBM_DatasetCreateFromMat\0")?,
                set_field: *library.get(b"LGBM_DatasetSetField\0")?,
                free_dataset: *library.get(b"LGBM_DatasetFree\0")?,
                create_booster: *library.get(b"LGBM_BoosterCreate\0")?,
                add_validation: *library.get(b"LGBM_BoosterAddValidData\0")?,
                update: *library.get(b"LGBM_BoosterUpdateOneIter\0")?,
                evaluate: *library.get(b"LGBM_BoosterGetEval\0")?,
                dump: *library.get(b"LGBM_BoosterDumpModel\0")?,
                free_booster: *library.get(b"LGBM_BoosterFree\0")?,
                #[cfg(test)]
                predict: *library.get(b"LGBM_BoosterPredictForMat\0")?,
            };
            std::mem::forget(library);
            Ok(opened)
        }
    }

    /// Turns the return code of a call into a result.
    pub(super) fn check(&self, call: &str, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: the library returns a text that ends with zero and is valid until its next failure on this thread.
        let text = unsafe { CStr::from_ptr((self.last_error)()) }.to_string_lossy().into_owned();
        Err(Failure::model(format!("LightGBM: {call}: {text}")))
    }
}

/// The places where the library may be, best first.
fn candidates(config: &TrainConfig) -> Vec<PathBuf> {
    if !config.lightgbm_library.is_empty() {
        return vec![config.lightgbm_library.clone().into()];
    }
    // <packages>/torch/lib/libtorch_cpu.so → <packages>/lightgbm/lib/lib_lightgbm.so.
    let packages = loaded_libtorch().and_then(|libtorch| Some(libtorch.parent()?.parent()?.parent()?.to_path_buf()));
    packages.map(|packages| packages.join("lightgbm/lib").join(FILE)).into_iter().chain([FILE.into()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_found_next_to_libtorch_and_shares_its_openmp() {
        assert!(tch::get_num_threads() > 0, "libtorch is in use");
        let library = LightGbm::open(&TrainConfig::default()).unwrap();
        assert!(library.path.ends_with("lightgbm/lib/lib_lightgbm.so"), "{}", library.path.display());
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut copies: Vec<&str> =
            maps.lines().filter_map(|line| line.get(line.find('/')?..)).filter(|path| path.contains("gomp")).collect();
        copies.dedup();
        assert_eq!(copies.len(), 1, "{copies:?}");
    }

    #[test]
    fn a_missing_library_is_refused_with_what_to_do() {
        let config = TrainConfig { lightgbm_library: "/nowhere/lib_lightgbm.so".into(), ..TrainConfig::default() };
        let failure = LightGbm::open(&config).unwrap_err();
        assert_eq!(failure.kind.exit_code(), 2);
        assert!(failure.message.contains("/nowhere/lib_lightgbm.so"), "{failure}");
        assert!(failure.hint.unwrap().contains("intents.trees=false demand.trees=false"));
    }
}
