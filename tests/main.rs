//! Integration tests: they run the binary as its users do.
//!
//! `cases` need no trained model and are part of `make check`; `long` need none either, but take long; `trained` train models or use
//! one that was trained for all tests.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that fails here should say so loudly

// As in the binary; many tests call the library, and glibc's allocator takes a fifth of their time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

mod cases;
mod long;
mod support;
mod trained;

use support::intentcast;

#[test]
fn doctor_reports_the_machine_and_why_there_is_no_gpu() {
    let output = intentcast(&["doctor"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let line =
        |name: &str| text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no {name} in\n{text}"));
    assert!(line("libtorch").contains("2.11.0") && line("libtorch").contains("libtorch_cpu.so"), "{text}");
    assert!(line("LightGBM").ends_with("lightgbm/lib/lib_lightgbm.so"), "{text}");
    assert!(line("CUDA").contains("libtorch_cuda.so") || line("CUDA").contains("no libtorch"), "{text}");
    if line("GPU").contains("none") {
        // The reason names a file, a driver, a device or the linker's own words; never just "none".
        let why = line("GPU").split_once("none: ").unwrap().1;
        let known = ["no such file", "no NVIDIA driver: libcuda.so.1: ", "finds no device: ", "libtorch_cuda.so: "];
        assert!(known.iter().any(|k| why.contains(k)), "{text}");
        assert!(line("scores on").contains("CPU (score.device=auto)"), "{text}");
    } else {
        assert!(line("CUDA").contains(", open") && line("driver").contains("CUDA "), "{text}");
        assert!(line("scores on").contains("GPU"), "{text}");
    }
}

#[test]
fn a_training_without_lightgbm_is_refused_before_it_reads_the_lake() {
    let library = ["--set", "train.lightgbm_library=/nowhere/lib_lightgbm.so"];
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().to_str().unwrap();
    let places = ["train", "--lake", "no/lake", "--output", output, "--date", "2026-03-01"];
    let output = intentcast(&[library.as_slice(), places.as_slice()].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("/nowhere/lib_lightgbm.so") && errors.contains("intents.trees=false"), "{errors}");
    let doctor = intentcast(&["doctor", "--set", "train.lightgbm_library=/nowhere/lib_lightgbm.so"]);
    assert!(doctor.status.success() && String::from_utf8_lossy(&doctor.stdout).contains("cannot be loaded"));
}

#[test]
fn an_unknown_setting_exits_2_and_is_named() {
    let output = intentcast(&["doctor", "--set", "lake.url=x"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("lake.url"));
}

#[test]
fn settings_on_both_sides_of_the_verb_are_refused() {
    let output = intentcast(&["--set", "engine.partitions=2", "doctor", "--set", "score.device=cpu"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--set"));
}

#[test]
fn a_missing_gpu_is_refused_with_the_reason() {
    let output = intentcast(&["doctor", "--set", "score.device=cuda"]);
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if text.contains("GPU         none") {
        assert_eq!(output.status.code(), Some(2));
        assert!(errors.contains("score.device: expected a CUDA device, found none: "), "{errors}");
        assert!(errors.contains("hint: "), "{errors}");
    } else {
        assert!(output.status.success(), "{errors}");
    }
}
