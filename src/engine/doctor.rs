//! `intentcast doctor`: what this machine and configuration can do, and why not where it cannot.

use crate::config::Config;
use crate::failure::{Failure, Result};

/// Prints one line a fact. Fails (exit 2) where the configured device is not to be had.
pub fn print(config: &Config) -> Result<()> {
    println!("intentcast  {}", env!("CARGO_PKG_VERSION"));
    println!("cores       {}", std::thread::available_parallelism().map_or(1, |n| n.get()));
    println!("partitions  {}", config.partitions());
    println!("memory      {} MiB for the engine (engine.memory_bytes_max)", config.engine.memory_bytes_max >> 20);
    println!("libtorch    CPU, {} threads", tch::get_num_threads());
    let gpus = if tch::Cuda::is_available() { tch::Cuda::device_count() } else { 0 };
    match gpus {
        0 => println!("GPU         none: libtorch_cuda is not loaded or no CUDA device answers"),
        n => println!("GPU         {n} CUDA device(s)"),
    }
    if config.score.device == "cuda" && gpus == 0 {
        return Err(Failure::usage("score.device: expected a CUDA device, found none")
            .hint("set score.device=auto, or install the CUDA wheels of torch 2.11.0"));
    }
    Ok(())
}
