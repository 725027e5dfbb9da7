//! The binary: parse, call one verb, map the failure to an exit code.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match intentcast::cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.kind.exit_code())
        }
    }
}
