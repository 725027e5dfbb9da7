//! Users' TorchScript modules: one loaded copy of each per process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use tch::{CModule, Device, Tensor};

use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::ids::ContentHash;
use crate::score::devices;
use crate::score::load_cache::LoadCache;
use crate::score::permitted::permitted_module;

/// Modules that a process keeps for later sessions. A function keeps its module as long as it exists.
const LOADED_MAX: usize = 16;

/// A module on its device, in evaluation mode.
#[derive(Debug)]
pub struct Module {
    /// Hash of the file's bytes.
    pub(crate) hash: String,
    pub(crate) device: Device,
    pub forward_passes: AtomicU64,
    module: CModule,
}

/// By the hash of the file, and device. Kept for the process, as sessions are many: training has one per past date.
static LOADED: LazyLock<LoadCache<(String, Device), Arc<Module>>> = LazyLock::new(|| LoadCache::new(LOADED_MAX));

/// Reads and loads the module at `uri`, unless its bytes were loaded before.
pub(super) async fn load(uri: &str, config: &Config) -> Result<Arc<Module>> {
    let place = permitted_module(uri, config)?;
    let bytes = place.read_if_there("").await?.ok_or_else(|| {
        Failure::model(format!("{uri}: no such module")).hint("save it there with torch.jit.save, or fix the AS clause")
    })?;
    let device = devices::choose(&config.score)?;
    let uri = uri.to_string();
    // Loads, and waits for another caller's load, on a thread that may block. A function of a plan blocks its query's thread
    // until its module is there, so a load that needed that thread would never end.
    let load = move || {
        let hash = ContentHash::from_bytes(&bytes).long();
        let module = async { Module::from_bytes(&uri, &hash, &bytes, device).map(Arc::new) };
        futures::executor::block_on(LOADED.get_or_load((hash.clone(), device), Box::pin(module)))
    };
    tokio::task::spawn_blocking(load).await.map_err(Failure::bug)?
}

/// The module of a hash, if this process has it; refuses a `uri` that is not permitted.
pub(super) fn find(uri: &str, hash: &str, config: &Config) -> Result<Option<Arc<Module>>> {
    permitted_module(uri, config)?;
    Ok(LOADED.find(&(hash.to_string(), devices::choose(&config.score)?)))
}

impl Module {
    fn from_bytes(uri: &str, hash: &str, mut bytes: &[u8], device: Device) -> Result<Self> {
        let refused = |e: tch::TchError| {
            Failure::model(format!("{uri}: not a TorchScript module: {}", reason(&e.to_string())))
                .hint("save it with torch.jit.script(module).save(path) or torch.jit.trace(...).save(path)")
        };
        let mut module = CModule::load_data_on_device(&mut bytes, device).map_err(refused)?;
        module.f_set_eval().map_err(refused)?;
        Ok(Self { hash: hash.to_string(), device, forward_passes: AtomicU64::new(0), module })
    }

    /// One forward pass without gradients; the error is the module's message.
    pub(super) fn forward(&self, inputs: &[Tensor]) -> Result<Tensor, String> {
        let _guard = tch::no_grad_guard();
        self.forward_passes.fetch_add(1, Ordering::Relaxed);
        match catch_unwind(AssertUnwindSafe(|| self.module.forward_ts(inputs))) {
            Ok(done) => done.map_err(|e| reason(&e.to_string())),
            Err(_) => Err("libtorch's bindings panicked".into()),
        }
    }
}

/// The line of a libtorch error that says what failed, without the traces of the interpreter and of C++.
fn reason(text: &str) -> String {
    let names_error = |line: &&str| line.contains("Error: ");
    let line = text.lines().find(names_error).or_else(|| text.lines().find(|line| !line.trim().is_empty()));
    line.unwrap_or("unknown").trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    #[tokio::test]
    async fn a_process_keeps_the_modules_that_were_loaded_last() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.functions.folders = vec![folder.path().display().to_string()];
        config.score.device = "cpu".into();
        let mut loaded = Vec::new();
        for number in 0..=LOADED_MAX as i64 {
            let path = folder.path().join(format!("{number}.pt"));
            let example = [Tensor::ones([2], (Kind::Float, Device::Cpu))];
            let mut plus = |xs: &[Tensor]| vec![&xs[0] + number];
            let traced = CModule::create_by_tracing("Plus", "forward", &example, &mut plus).unwrap();
            traced.save(&path).unwrap();
            let uri = path.display().to_string();
            let hash = load(&uri, &config).await.unwrap().hash.clone();
            loaded.push((uri, hash));
        }
        let is_kept = |(uri, hash): &(String, String)| find(uri, hash, &config).unwrap().is_some();
        assert_eq!((is_kept(&loaded[0]), is_kept(&loaded[LOADED_MAX])), (false, true));
    }

    #[test]
    fn the_line_that_names_the_error_is_found() {
        let text = "The following operation failed in the TorchScript interpreter.\nTraceback (most recent call last):\n\
                    RuntimeError: index out of range in self\n";
        assert_eq!(reason(text), "RuntimeError: index out of range in self");
        assert_eq!(reason("\nno file\nframe #0"), "no file");
    }
}
