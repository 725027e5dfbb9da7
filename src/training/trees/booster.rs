//! Gradient boosting of one target through LightGBM's C interface, with early stopping.

use std::ffi::{CStr, CString, c_int};
use std::ptr;

use super::dump;
use super::library::{FLOAT32, Handle, LightGbm};
use crate::failure::{Failure, Result};
use crate::model::trees::Ensemble;

/// Rows from which bins are made. The library copies them as f64, so its default of 200,000 would need more than the features do.
const BIN_SAMPLE_ROWS: u32 = 50_000;

/// The quantity that trees predict, with its loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Objective {
    /// The log-odds of a label of 0 or 1.
    Binary,
    /// The quantile of this level.
    Quantile(f64),
    /// The logarithm of a mean of numbers that are not negative, many of them zero (Tweedie distribution).
    Mean,
}

impl Objective {
    /// Returns the loss in LightGBM's words.
    fn parameters(self) -> String {
        match self {
            Self::Binary => "objective=binary metric=binary_logloss".into(),
            Self::Quantile(level) => format!("objective=quantile metric=quantile alpha={level}"),
            Self::Mean => "objective=tweedie metric=tweedie tweedie_variance_power=1.3".into(),
        }
    }
}

/// Settings of a boosting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TreeSettings {
    pub(crate) objective: Objective,
    /// Largest number of trees.
    pub(crate) rounds_max: u32,
    /// Trees without a better validation loss before boosting stops.
    pub(crate) patience_rounds: u32,
    pub(crate) learning_rate: f64,
    /// Largest number of leaves of a tree, at most 64.
    pub(crate) leaves_max: u32,
    /// Smallest number of rows of a leaf.
    pub(crate) leaf_rows_min: u32,
    pub(crate) seed: u64,
}

impl TreeSettings {
    /// Chooses the size of the trees by the number of rows: with few rows, many leaves would be noise.
    pub(crate) fn for_rows(objective: Objective, rows: usize, seed: u64) -> Self {
        let (leaves_max, leaf_rows_min) = match rows {
            0..3_000 => (7, 20),
            3_000..20_000 => (15, 40),
            20_000..100_000 => (31, 80),
            _ => (63, 100),
        };
        Self { objective, rounds_max: 200, patience_rounds: 15, learning_rate: 0.05, leaves_max, leaf_rows_min, seed }
    }

    /// Returns the parameters in LightGBM's words. One thread and fixed seeds: the same rows make the same trees.
    fn parameters(&self) -> Result<CString> {
        let Self { learning_rate, leaves_max, leaf_rows_min, .. } = self;
        let seed = self.seed % (1 << 31);
        let objective = self.objective.parameters();
        let text = format!(
            "{objective} max_depth=6 num_leaves={leaves_max} min_data_in_leaf={leaf_rows_min} \
             learning_rate={learning_rate} feature_fraction=0.5 bagging_fraction=0.8 bagging_freq=1 lambda_l2=5 \
             num_threads=1 deterministic=true force_row_wise=true bin_construct_sample_cnt={BIN_SAMPLE_ROWS} seed={seed} verbosity=-1"
        );
        CString::new(text).map_err(Failure::bug)
    }
}

/// Rows of features, which several targets may share, in the library's memory.
pub(crate) struct TreeData<'a> {
    library: &'a LightGbm,
    handle: Handle,
    rows: usize,
}

impl<'a> TreeData<'a> {
    /// Copies `tabular`, row-major [rows, features] with NaN for null. `reference` is the training data whose bins validation
    /// data use.
    pub(crate) fn new(
        library: &'a LightGbm,
        tabular: &[f32],
        features: usize,
        settings: &TreeSettings,
        reference: Option<&TreeData<'_>>,
    ) -> Result<Self> {
        let rows = tabular.len() / features.max(1);
        let too_large = |_| Failure::bug(format!("trees: {rows} rows are more than LightGBM takes"));
        let (count, width) = (i32::try_from(rows).map_err(too_large)?, i32::try_from(features).map_err(too_large)?);
        let parameters = settings.parameters()?;
        let mut handle: Handle = ptr::null_mut();
        let bins_of = reference.map_or(ptr::null_mut(), |data| data.handle);
        // SAFETY: `tabular` has count × width numbers, and the library copies them before it returns.
        let code = unsafe {
            let data = tabular.as_ptr().cast();
            (library.dataset_from_matrix)(data, FLOAT32, count, width, 1, parameters.as_ptr(), bins_of, &mut handle)
        };
        library.check("reading rows", code)?;
        Ok(Self { library, handle, rows })
    }

    fn set_labels(&self, labels: &[f32]) -> Result<()> {
        self.set_field(c"label", labels)
    }

    /// Sets how much each row counts.
    pub(crate) fn set_weights(&self, weights: &[f32]) -> Result<()> {
        self.set_field(c"weight", weights)
    }

    fn set_field(&self, name: &CStr, values: &[f32]) -> Result<()> {
        if values.len() != self.rows {
            return Err(Failure::bug(format!("trees: {name:?}: expected {} numbers, got {}", self.rows, values.len())));
        }
        // SAFETY: the library copies the numbers before it returns; how many there are was checked.
        let code = unsafe {
            let data = values.as_ptr().cast();
            (self.library.set_field)(self.handle, name.as_ptr(), data, values.len() as c_int, FLOAT32)
        };
        self.library.check(&format!("reading {}s", name.to_string_lossy()), code)
    }
}

impl Drop for TreeData<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle came from the library and is freed once.
        unsafe { (self.library.free_dataset)(self.handle) };
    }
}

struct Booster<'a> {
    library: &'a LightGbm,
    handle: Handle,
}

impl<'a> Booster<'a> {
    fn new(data: &TreeData<'a>, settings: &TreeSettings) -> Result<Self> {
        let library = data.library;
        let parameters = settings.parameters()?;
        let mut handle: Handle = ptr::null_mut();
        // SAFETY: the data outlive the booster, which `boost` drops first.
        library
            .check("starting", unsafe { (library.create_booster)(data.handle, parameters.as_ptr(), &mut handle) })?;
        Ok(Self { library, handle })
    }

    /// Adds a tree. Returns false if no split improves the training loss any more.
    fn add_tree(&self) -> Result<bool> {
        let mut finished = 0;
        // SAFETY: a live booster and a live number.
        self.library.check("adding a tree", unsafe { (self.library.update)(self.handle, &mut finished) })?;
        Ok(finished == 0)
    }

    /// The loss of the validation data.
    fn validation_loss(&self) -> Result<f64> {
        let (mut count, mut loss) = (0, [f64::NAN; 1]);
        // SAFETY: one metric is configured, so the library writes one number.
        let code = unsafe { (self.library.evaluate)(self.handle, 1, &mut count, loss.as_mut_ptr()) };
        self.library.check("validating", code)?;
        Ok(loss[0])
    }

    /// The first trees, as the library describes them.
    fn ensemble(&self, trees: u32) -> Result<Ensemble> {
        let mut bytes = 0i64;
        let dump = |length: i64, needed: &mut i64, text: *mut std::ffi::c_char| {
            // SAFETY: the library writes at most `length` bytes to `text`.
            let code = unsafe { (self.library.dump)(self.handle, 0, trees as c_int, 0, length, needed, text) };
            self.library.check("describing the trees", code)
        };
        dump(0, &mut bytes, ptr::null_mut())?;
        let mut text = vec![0u8; bytes.max(1) as usize];
        dump(bytes, &mut bytes, text.as_mut_ptr().cast())?;
        // The text ends with a zero byte.
        dump::ensemble(text.split(|&byte| byte == 0).next().unwrap_or_default())
    }
}

impl Drop for Booster<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle came from the library and is freed once.
        unsafe { (self.library.free_booster)(self.handle) };
    }
}

/// Boosts trees for one target. `valid` holds the validation data and their labels: the trees up to their lowest loss stay. Without
/// them all `rounds_max` trees do.
pub(crate) fn boost(
    train: &TreeData<'_>,
    labels: &[f32],
    valid: Option<(&TreeData<'_>, &[f32])>,
    settings: &TreeSettings,
) -> Result<Ensemble> {
    train.set_labels(labels)?;
    let booster = Booster::new(train, settings)?;
    if let Some((data, valid_labels)) = valid {
        data.set_labels(valid_labels)?;
        // SAFETY: both handles are live, and the data outlive the booster.
        let code = unsafe { (train.library.add_validation)(booster.handle, data.handle) };
        train.library.check("reading validation rows", code)?;
    }
    let mut best = (0, f64::INFINITY);
    for round in 1..=settings.rounds_max {
        if !booster.add_tree()? {
            break;
        }
        let loss = if valid.is_some() { booster.validation_loss()? } else { -f64::from(round) };
        if loss < best.1 {
            best = (round, loss);
        } else if round - best.0 >= settings.patience_rounds {
            break;
        }
    }
    // Without any split there is one leaf, the base rate.
    booster.ensemble(best.0.max(1))
}

#[cfg(test)]
mod tests {
    use super::super::library::LightGbm;
    use super::*;
    use crate::config::TrainConfig;
    use crate::model::targets::{BINARY, PURCHASE};
    use crate::model::trees::IntentTrees;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const FEATURES: usize = 12;
    const SETTINGS: TreeSettings = TreeSettings {
        objective: Objective::Binary,
        rounds_max: 20,
        patience_rounds: 20,
        learning_rate: 0.1,
        leaves_max: 64,
        leaf_rows_min: 20,
        seed: 1,
    };

    fn library() -> LightGbm {
        assert!(tch::get_num_threads() > 0, "libtorch is loaded first");
        LightGbm::open(&TrainConfig::default()).unwrap()
    }

    /// Rows of counts, numbers and nulls, and labels that depend on three of the features.
    fn rows(count: usize) -> (Vec<f32>, Vec<f32>) {
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let mut cell = |feature: usize| match (feature % 4, rng.random::<f32>()) {
            (3, draw) if draw < 0.2 => f32::NAN,
            (0, draw) => (draw * 20.0).floor(),
            (_, draw) => draw * 3.0 - 1.0,
        };
        let tabular: Vec<f32> = (0..count * FEATURES).map(|at| cell(at % FEATURES)).collect();
        let label = |row: &[f32]| row[0] / 10.0 + row[1] * row[2] + if row[3].is_nan() { 0.7 } else { 0.0 } > 1.2;
        let labels = tabular.chunks(FEATURES).map(|row| f32::from(u8::from(label(row)))).collect();
        (tabular, labels)
    }

    /// LightGBM's own scores.
    fn predicted(booster: &Booster<'_>, tabular: &[f32], trees: u32) -> Vec<f64> {
        const RAW: c_int = 1;
        let rows = tabular.len() / FEATURES;
        let (mut scores, mut written) = (vec![0.0; rows], 0);
        let code = unsafe {
            (booster.library.predict)(
                booster.handle,
                tabular.as_ptr().cast(),
                FLOAT32,
                rows as i32,
                FEATURES as i32,
                1,
                RAW,
                0,
                trees as c_int,
                c"num_threads=1".as_ptr(),
                &mut written,
                scores.as_mut_ptr(),
            )
        };
        booster.library.check("predicting", code).unwrap();
        assert_eq!(written as usize, rows);
        scores
    }

    #[test]
    fn perfect_trees_score_as_lightgbm_does_on_hostile_rows() {
        let library = library();
        let (train, labels) = rows(5_000);
        let data = TreeData::new(&library, &train, FEATURES, &SETTINGS, None).unwrap();
        data.set_labels(&labels).unwrap();
        let booster = Booster::new(&data, &SETTINGS).unwrap();
        for _ in 0..SETTINGS.rounds_max {
            booster.add_tree().unwrap();
        }
        let ensemble = booster.ensemble(SETTINGS.rounds_max).unwrap();
        assert_eq!(ensemble.trees().len(), 20);
        let tests = || ensemble.trees().iter().flat_map(|tree| tree.null_left);
        assert!(tests().any(|left| left) && tests().any(|left| !left), "nulls go both ways");
        // Values of the training, thresholds and their neighbours, zero, infinities, and null also where training had none.
        let thresholds: Vec<f32> = ensemble.trees().iter().flat_map(|tree| tree.threshold).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(10);
        let hostile: Vec<f32> = (0..100_000 * FEATURES)
            .map(|at| {
                let threshold = thresholds[rng.random_range(0..thresholds.len())];
                match rng.random_range(0..9) {
                    0..3 => train[rng.random_range(0..train.len() / FEATURES) * FEATURES + at % FEATURES],
                    3 => threshold,
                    4 => threshold.next_up(),
                    5 => threshold.next_down(),
                    6 => 0.0,
                    7 => [f32::INFINITY, f32::NEG_INFINITY][at % 2],
                    _ => f32::NAN,
                }
            })
            .collect();
        let expected = predicted(&booster, &hostile, SETTINGS.rounds_max);
        let mut ensembles = [const { None }; BINARY];
        ensembles[PURCHASE] = Some(ensemble);
        let scores = IntentTrees::new(FEATURES, ensembles).log_odds(&hostile);
        for (row, expected) in expected.iter().enumerate() {
            let score = scores[row * BINARY + PURCHASE];
            assert!((score - expected).abs() <= 1e-6 * expected.abs().max(1.0), "row {row}: {score}, {expected}");
        }
    }

    #[test]
    fn boosting_stops_at_the_best_validation_loss_and_repeats_to_the_bit() {
        let library = library();
        let settings = TreeSettings { rounds_max: 200, patience_rounds: 5, learning_rate: 0.5, ..SETTINGS };
        let (tabular, mut labels) = rows(2_000);
        // Noise that trees learn by heart: the validation loss soon rises.
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        labels.iter_mut().filter(|_| rng.random_bool(0.3)).for_each(|label| *label = 1.0 - *label);
        let (train_rows, train_labels) = (&tabular[..1_500 * FEATURES], &labels[..1_500]);
        let (valid_rows, valid_labels) = (&tabular[1_500 * FEATURES..], &labels[1_500..]);
        let boosted = || {
            let train = TreeData::new(&library, train_rows, FEATURES, &settings, None).unwrap();
            let valid = TreeData::new(&library, valid_rows, FEATURES, &settings, Some(&train)).unwrap();
            boost(&train, train_labels, Some((&valid, valid_labels)), &settings).unwrap()
        };
        let ensemble = boosted();
        assert!((1..100).contains(&ensemble.trees().len()), "{} trees", ensemble.trees().len());
        assert_eq!(ensemble, boosted());
    }

    #[test]
    fn a_failure_of_the_library_says_what_it_said() {
        let library = library();
        let (tabular, labels) = rows(100);
        let data = TreeData::new(&library, &tabular, FEATURES, &SETTINGS, None).unwrap();
        let impossible = TreeSettings { leaves_max: 1, ..SETTINGS };
        let failure = boost(&data, &labels, None, &impossible).unwrap_err();
        assert!(failure.message.starts_with("LightGBM: ") && failure.message.contains("num_leaves"), "{failure}");
        assert!(data.set_labels(&labels[1..]).is_err());
    }
}
