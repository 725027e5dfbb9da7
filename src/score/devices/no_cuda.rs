//! The reasons for which no GPU is used, and what to do about each.

use std::path::PathBuf;

/// The half of libtorch that this binary is linked against.
pub(super) const CPU_LIBRARY: &str = "libtorch_cpu.so";

/// The reason why no GPU can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoCuda {
    #[error("{CPU_LIBRARY} is not loaded in this process, so its CUDA half cannot be found")]
    NoLibtorch,
    #[error("{}: no such file", .0.display())]
    NoLibrary(PathBuf),
    #[error("no NVIDIA driver: {0}")]
    NoDriver(String),
    #[error("the NVIDIA driver finds no device: {0}")]
    NoDevice(String),
    #[error("{}: {error}", library.display())]
    NotOpened { library: PathBuf, error: String },
    #[error("{CPU_LIBRARY} has no {symbol}, which configures cuDNN: {error}")]
    NoContext { symbol: &'static str, error: String },
    #[error("libtorch finds no CUDA device, though {} is open and the driver (CUDA {driver}) has one", library.display())]
    Refused { library: PathBuf, driver: String },
}

impl NoCuda {
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::NoLibtorch | Self::NoLibrary(_) => "this libtorch is a CPU build: use the CUDA 13 build of 2.11.0",
            Self::NoDriver(_) => {
                "install the NVIDIA driver, in a container start it with its GPUs; or set score.device=cpu"
            }
            Self::NoDevice(_) => "check that nvidia-smi lists the GPU and that CUDA_VISIBLE_DEVICES does not hide it",
            Self::NoContext { .. } => "use the CUDA 13 build of 2.11.0; or set score.device=cpu",
            Self::NotOpened { .. } => "install the CUDA wheels of torch 2.11.0: infra/setup/libtorch.sh --cuda",
            Self::Refused { .. } => "libtorch 2.11.0 needs a driver for CUDA 13; update the driver",
        }
    }
}
