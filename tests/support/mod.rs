//! Set-up that the integration tests share.

pub mod approved;
pub mod canaries;
pub mod cases;
pub mod clients;
pub mod device;
pub mod job;
pub mod journal;
pub mod lakes;
pub mod malformed_files;
pub mod nights;
pub mod pages;
pub mod pictures;
pub mod published;
pub mod random_files;
pub mod random_lake;
pub mod random_model;
pub mod random_refusals;
pub mod random_rows;
pub mod regression;
pub mod replenish;
pub mod repository;
pub mod s3;
pub mod server;
pub mod sessions;
pub mod shop;
pub mod small_lake;
pub mod stopping_store;
pub mod training_shop;

use std::process::{Command, Output};

/// Runs the binary.
pub fn intentcast(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_intentcast")).args(arguments).output().expect("the binary starts");
    canaries::refuse_persons(arguments, &String::from_utf8_lossy(&output.stderr));
    output
}
