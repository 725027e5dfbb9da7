//! The binary: parse, call one verb, map the failure to an exit code.

use clap::Parser;
use std::process::ExitCode;

/// Gives back what a stage of the night frees; glibc's keeps it (docs/decisions/0005-user-parts.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match intentcast::commands::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.log_causes();
            ExitCode::from(failure.kind.exit_code())
        }
    }
}
