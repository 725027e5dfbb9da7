//! The device on which tests train and score.

use intentcast::score::devices;

/// Returns `cpu`, or the device that `TEST_DEVICE=cuda` names on a machine with a GPU (docs/howto/gpu.md).
#[allow(clippy::disallowed_methods)] // no setting of the job
pub fn device() -> String {
    let device = std::env::var("TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    if device != "cpu" {
        // Tests that train in this process need the GPU found before the first tensor.
        devices::find_cuda();
    }
    device
}

/// Returns true where the same data and seed give the same weights to the bit. A GPU adds in any order of its threads.
pub fn repeats_to_the_bit() -> bool {
    device() == "cpu"
}

/// Returns the device as a setting of the binary.
pub fn setting() -> String {
    format!("score.device={}", device())
}
