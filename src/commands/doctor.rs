//! `intentcast doctor`: reports what this machine and configuration can do, and why not where it cannot.

use async_trait::async_trait;
use clap::Args;

use super::command::{Command, Needs};
use crate::config::{self, Config};
use crate::failure::Result;
use crate::score::devices::{self, Cuda};
use crate::training::trees::LightGbm;

/// Report what this machine and configuration can do: libtorch, GPU, cores, memory limits.
#[derive(Debug, Args)]
pub struct Doctor;

#[async_trait(?Send)]
impl Command for Doctor {
    fn needs(&self) -> Needs<'_> {
        Needs { tensors: true, ..Needs::default() }
    }

    async fn run(&self, config: &Config) -> Result<()> {
        print_report(config)
    }
}

/// Prints one line per fact. Fails (exit 2) where `score.device` is cuda and there is none.
fn print_report(config: &Config) -> Result<()> {
    let cuda = devices::find_cuda();
    say!("intentcast  {}", env!("CARGO_PKG_VERSION"));
    say!("cores       {}", config::cores());
    say!("partitions  {}", config.partitions());
    say!("memory      {} MiB for the engine (engine.memory_bytes_max)", config.engine.memory_bytes_max >> 20);
    say!("libtorch    {}", libtorch());
    say!("LightGBM    {}", lightgbm(config));
    say!("CUDA        {}", library(cuda));
    say!("driver      {}", driver(cuda));
    say!("GPU         {}", gpu(cuda));
    let device = devices::choose(&config.score)?;
    say!("scores on   {} (score.device={})", if device.is_cuda() { "GPU" } else { "CPU" }, config.score.device);
    Ok(())
}

fn libtorch() -> String {
    let version = devices::libtorch_version().unwrap_or_else(|| "version unknown".into());
    let path = devices::loaded_libtorch().map_or_else(|| "path unknown".into(), |p| p.display().to_string());
    format!("{version}, {} threads, {path}", tch::get_num_threads())
}

/// The library that training needs, unless `intents.trees` is false.
fn lightgbm(config: &Config) -> String {
    match LightGbm::open(&config.train) {
        Ok(library) => library.path.display().to_string(),
        Err(failure) => failure.to_string().replace('\n', "\n            "),
    }
}

fn library(cuda: &Cuda) -> String {
    match (&cuda.library, &cuda.devices) {
        // The runtime may only be asked where it is: without CUDA the question itself fails.
        (Some(path), Ok(_)) => format!("{}, open, runtime {}", path.display(), tch::utils::version_cudart()),
        (Some(path), Err(_)) if path.exists() => format!("{}, not used", path.display()),
        (Some(path), Err(_)) => format!("{}, no such file", path.display()),
        (None, _) => "libtorch was not found, so there is no folder to search".into(),
    }
}

fn driver(cuda: &Cuda) -> String {
    match &cuda.driver {
        Ok(driver) => {
            format!("{}, up to CUDA {}", driver.module.as_deref().unwrap_or("version unknown"), driver.cuda)
        }
        Err(why) => why.to_string(),
    }
}

fn gpu(cuda: &Cuda) -> String {
    let names = cuda.driver.as_ref().map(|d| d.devices.join(", ")).unwrap_or_default();
    match &cuda.devices {
        Ok(n) => format!("{n} CUDA device(s): {names}"),
        Err(why) => format!("none: {why}\n            hint: {}", why.hint()),
    }
}
