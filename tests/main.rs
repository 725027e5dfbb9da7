//! Integration tests: they drive the binary as its users do.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that fails here should say so loudly

mod accounts;
mod cluster;
mod features;
mod future;
mod importing;
mod killed;
mod nightly;
mod plans;
mod publishing;
mod publishing_s3;
mod read_back;
mod scoring;
mod simulation;
mod support;
mod tidy;
mod truth;

use std::process::{Command, Output};

fn intentcast(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_intentcast")).args(arguments).output().expect("the binary starts")
}

#[test]
fn doctor_reports_the_machine() {
    let output = intentcast(&["doctor"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("libtorch"));
}

#[test]
fn an_unknown_setting_exits_2_and_is_named() {
    let output = intentcast(&["doctor", "--set", "lake.url=x"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("lake.url"));
}

#[test]
fn settings_on_both_sides_of_the_verb_are_refused_not_lost() {
    let output = intentcast(&["--set", "engine.partitions=2", "doctor", "--set", "score.device=cpu"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--set"));
}

#[test]
fn a_missing_gpu_is_refused_when_asked_for() {
    if !tch::Cuda::is_available() {
        assert_eq!(intentcast(&["doctor", "--set", "score.device=cuda"]).status.code(), Some(2));
    }
}
