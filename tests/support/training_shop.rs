//! Training sets of a tiny simulated lake, gathered once, for tests that train networks in this process.

use intentcast::config::Config;
use intentcast::ids::RunDate;
use intentcast::lake::stores::Location;
use intentcast::simulation::{self, SimulateOptions, signal::Signal};
use intentcast::training::bundle::{self, TrainingSets};
use std::sync::LazyLock;

use super::device;

pub const DATE: &str = "2026-02-20";
pub const HORIZON_DAYS: usize = 7;

/// A lake of 200 users, 20 items and 60 days, and its training sets; made once.
pub struct TrainingShop {
    pub folder: tempfile::TempDir,
    pub sets: TrainingSets,
}

pub static SHOP: LazyLock<TrainingShop> = LazyLock::new(|| {
    // On a new thread, because the first test may already run in a runtime.
    std::thread::spawn(simulated).join().unwrap()
});

fn simulated() -> TrainingShop {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let sets = runtime.block_on(async {
        let config = tiny(&folder);
        let lake = Location::open(&config.lake.uri, &config.s3).unwrap();
        let start = "2026-01-01".parse::<RunDate>().unwrap().0;
        let options = SimulateOptions {
            users: 200,
            items: 20,
            days: 60,
            seed: 5,
            faults: false,
            signal: Signal::Mixed,
            active_share: None,
            start,
        };
        simulation::simulate(&lake, &options).await.unwrap();
        bundle::gather_training_sets(&config, date()).await.unwrap()
    });
    TrainingShop { folder, sets }
}

pub fn date() -> RunDate {
    DATE.parse().unwrap()
}

/// Returns settings of width 8, one epoch and batches larger than the whole set.
pub fn tiny(folder: &tempfile::TempDir) -> Config {
    let mut config = Config::default();
    config.lake.uri = folder.path().join("lake").display().to_string();
    config.output.uri = folder.path().join("out").display().to_string();
    (config.model.width, config.model.layers, config.model.heads) = (8, 2, 2);
    config.model.item_buckets = 100;
    (config.demand.width, config.demand.layers, config.demand.horizon_days) = (8, 2, HORIZON_DAYS as u32);
    (config.train.as_of_dates, config.demand.as_of_dates) = (2, 2);
    (config.train.epochs_max, config.train.batch_rows) = (1, 100_000);
    config.score.device = device::device();
    config
}
