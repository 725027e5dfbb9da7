//! The binary: parse, call one verb, map the failure to an exit code.

use clap::Parser;
use std::ffi::c_int;
use std::io::Write;

/// Gives back what a stage of the night frees; glibc's keeps it (docs/decisions/0005-user-parts.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let code = match intentcast::commands::Cli::parse().run() {
        Ok(()) => 0,
        Err(failure) => {
            // Standard error may be closed; the exit code still counts.
            let _ = writeln!(std::io::stderr(), "error: {failure}");
            failure.log_causes();
            failure.kind.exit_code()
        }
    };
    leave(code)
}

/// Ends the process without the destructors of shared libraries: those of libtorch took a quarter of the CPU time of a short query,
/// and everything of ours was dropped or flushed before.
fn leave(code: u8) -> ! {
    unsafe extern "C" {
        fn _exit(code: c_int) -> !;
    }
    // An error means that the reader closed the pipe, so there is no place left to report it.
    let _ = std::io::stdout().flush();
    unsafe { _exit(code.into()) }
}
