//! Where tests train and score.

use intentcast::score::devices;

/// `cpu`; on a machine with a GPU, `TEST_DEVICE=cuda` asks the same of it (docs/howto/gpu.md).
#[allow(clippy::disallowed_methods)] // no setting of the job
pub fn device() -> String {
    let device = std::env::var("TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    if device != "cpu" {
        // Tests that train in this process: before its first tensor.
        devices::find_cuda();
    }
    device
}

/// Whether the same data and seed give the same weights to the bit: a GPU adds in whatever order its threads come.
pub fn repeats_to_the_bit() -> bool {
    device() == "cpu"
}

/// The device as a setting of the binary.
pub fn setting() -> String {
    format!("score.device={}", device())
}
