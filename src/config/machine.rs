//! Settings of how a night runs: scoring, SQL functions, engine, locks, retention. They do not change its result beyond
//! rounding.

use std::path::PathBuf;

use super::declare::{choices, settings};
use super::networks::Precision;
use crate::failure::{Failure, Result};

/// Returns the number of cores, within the quota of the process's control group.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

settings! {
    /// Scoring with models.
    ScoreConfig {
        /// Device: `cpu`, `cuda` (fails if there is no GPU) or `auto` (falls back to the CPU with a warning).
        device: String = "auto".into();
        /// Precision of text and image encoders; must be the same on all machines of a cluster.
        precision: Precision = Precision::F32;
        /// Largest number of tokens in a forward pass, padding included. 0: 2048 on a CPU, 32768 on a GPU.
        batch_tokens_max: u32 = 0, 0..=10_000_000;
        /// Rows that are pooled before they are sorted by length and cut into batches.
        pool_rows_max: u32 = 16_384, 1..=100_000_000;
        /// Threads that run the model, sharing its weights. 0: one per core. A GPU has one.
        owner_threads: u32 = 0, 0..=1024;
        /// Scoring requests in flight per partition.
        in_flight_max: u32 = 2, 1..=1024;
        /// Size in bytes of the cache of encoder outputs, per text or image network. 0: no cache.
        answers_bytes_max: u64 = 64 << 20;
    }
}

impl ScoreConfig {
    pub(super) fn check(&self) -> Result<()> {
        if !["cpu", "cuda", "auto"].contains(&self.device.as_str()) {
            return Err(Failure::usage(format!("score.device: expected cpu, cuda or auto, got {:?}", self.device)));
        }
        Ok(())
    }
}

settings! {
    /// Your own SQL functions: `CREATE FUNCTION … LANGUAGE TORCH` (docs/models/functions.md).
    FunctionsConfig {
        /// Folders from which TorchScript modules may be loaded, `s3://…` or paths. Empty: none, because modules are programs.
        folders: Vec<String> = Vec::new();
        /// Largest number of values in a forward pass: rows times values per row.
        batch_values_max: u32 = 1 << 18, 1..=1_000_000_000;
    }
}

settings! {
    /// The query engine.
    EngineConfig {
        /// `local`, or the address of a Ballista scheduler, `df://host:port`.
        cluster: String = "local".into();
        /// Partitions that are processed in parallel. 0: one per core.
        partitions: u32 = 0, 0..=4096;
        /// Memory in bytes for queries; what needs more spills to disk. Models and caches are not included.
        memory_bytes_max: u64 = 1536 << 20;
        /// User partitions that are processed in sequence, which bounds memory. 0: as many as `memory_bytes_max` requires.
        user_parts: u32 = 0, 0..=65_536;
        /// Item partitions that are processed in sequence, which bounds memory. 0: as many as `memory_bytes_max` requires.
        item_parts: u32 = 0, 0..=65_536;
        /// Folder for spilled data and scratch files. Empty: the system's temporary folder.
        spill_folder: String = String::new();
        /// Rows per batch between operators.
        batch_rows: u32 = 8192, 1..=1_000_000;
    }
}

impl EngineConfig {
    /// Returns the folder for spilled data and scratch files.
    pub(crate) fn spill_path(&self) -> PathBuf {
        match self.spill_folder.as_str() {
            "" => std::env::temp_dir(),
            folder => folder.into(),
        }
    }
}

settings! {
    /// The lock by which one process at a time works on a night.
    LockConfig {
        /// Heartbeat interval in seconds.
        heartbeat_seconds: u32 = 10, 1..=3600;
        /// Seconds without a heartbeat after which another process may take the night; more than `heartbeat_seconds`.
        expiry_seconds: u32 = 120, 2..=86_400;
    }
}

impl LockConfig {
    pub(super) fn check(&self) -> Result<()> {
        if self.expiry_seconds <= self.heartbeat_seconds {
            return Err(Failure::usage(format!(
                "lock.expiry_seconds: expected more than lock.heartbeat_seconds ({}), got {}",
                self.heartbeat_seconds, self.expiry_seconds
            )));
        }
        Ok(())
    }
}

choices! {
    /// Consequence of an erasure for a model that was trained on the person's days.
    Retrain {
        /// nights warn
        Warn = "warn",
        /// nights stop (exit 6) until another model is champion
        Refuse = "refuse",
    }
}

settings! {
    /// Erasure of persons (`intentcast erase`).
    EraseConfig {
        /// Consequence of an erasure for nights whose model was trained on the person's days.
        retrain: Retrain = Retrain::Warn;
        /// Ids of one person at most: a larger group of stitched ids is a shared device and is refused without `--group`.
        group_max: u32 = 20, 1..=1_000_000;
        /// Hours for which files stay after a person is hidden, so that what reads them can end; then the same command removes them.
        grace_hours: u32 = 0, 0..=87_600;
    }
}

settings! {
    /// Retention (`intentcast gc`).
    GcConfig {
        /// Newest nights that stay visible; older ones are hidden, then removed.
        nights_kept: u32 = 30, 1..=36_500;
        /// Hours after which a file that no night needs is removed. A running night may still need younger ones.
        orphan_age_hours: u32 = 48, 0..=87_600;
    }
}
