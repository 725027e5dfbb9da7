//! Chooses the device that scores and trains.
//!
//! In: `score.device` and the machine. Out: the device, its batch size, and why there is no GPU. Everything that loads a model
//! chooses its device here; `doctor` reports what was found. The submodules open the CUDA half of libtorch, so that one
//! binary serves both kinds of machine, and query the NVIDIA driver.

mod cuda;
mod driver;
mod libtorch;
mod no_cuda;

use std::sync::Once;
use tch::Device;

use crate::config::ScoreConfig;
use crate::failure::{Failure, Result};

pub use self::cuda::Cuda;
pub use self::cuda::find_cuda;
pub(crate) use self::libtorch::{libtorch_version, loaded_libtorch};

/// Padded tokens of a forward pass. More of them gain nothing on a core; an H100 scored 1.4 to 2.4 times as many users and texts
/// with the larger passes (docs/howto/gpu.md).
const CPU_BATCH_TOKENS: u32 = 2048;
const GPU_BATCH_TOKENS: u32 = 32_768;

/// The device that `score.device` asks for. `cuda` fails where there is none; `auto` falls back to the CPU and logs why, once.
pub fn choose(settings: &ScoreConfig) -> Result<Device> {
    if settings.device == "cpu" {
        return Ok(Device::Cpu);
    }
    match &find_cuda().devices {
        Ok(_) => Ok(Device::Cuda(0)),
        Err(why) if settings.device == "cuda" => {
            Err(Failure::usage(format!("score.device: expected a CUDA device, found none: {why}")).hint(why.hint()))
        }
        Err(why) => {
            static LOGGED: Once = Once::new();
            LOGGED.call_once(|| tracing::info!("scoring uses the CPU, there is no GPU to use ({why})"));
            Ok(Device::Cpu)
        }
    }
}

/// Padded tokens in one forward pass on a device: `score.batch_tokens_max`, or what suits the device where that is 0.
pub(crate) fn batch_tokens(settings: &ScoreConfig, device: Device) -> usize {
    let tokens = match (settings.batch_tokens_max, device.is_cuda()) {
        (0, false) => CPU_BATCH_TOKENS,
        (0, true) => GPU_BATCH_TOKENS,
        (set, _) => set,
    };
    tokens as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_reads_more_tokens_at_once_unless_configured() {
        let tokens = |batch_tokens_max, device| {
            batch_tokens(&ScoreConfig { batch_tokens_max, ..ScoreConfig::default() }, device)
        };
        assert_eq!([tokens(0, Device::Cpu), tokens(0, Device::Cuda(0)), tokens(7, Device::Cuda(0))], [2048, 32_768, 7]);
    }
}
