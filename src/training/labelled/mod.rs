//! What `train --task text` and `--task image` share: a network that makes vectors of rows, and a head that is taught labels
//! by them. Each task brings its rows and a [`Reader`]; figures come back, and the weights lie in the store.
//!
//! `labels` says what is learnt and `goal` by which loss; `probe` teaches the head alone (with `lbfgs`), `lesson` everything
//! together, `figures` measures. `parts` says where the weights lie.

mod figures;
pub mod goal;
pub mod labels;
mod lbfgs;
pub mod lesson;
pub mod parts;
mod probe;

use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use tch::{Device, Tensor, nn};

use self::goal::Goal;
use self::lesson::LabelledLesson;
use super::table::TableOptions;
use super::table::source::Table;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::model::labels::LabelHead;
use crate::model::weights::parameter_count;
use crate::progress;
use crate::training::datasets::Split;
use crate::training::fitting::{self, FitSettings, Journal, StepOptions};

/// With fewer rows to learn from, figures mean nothing.
const ROWS_MIN: usize = 20;

/// What the two tasks read beside a table and its labels.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct InputOptions {
    /// --task text: the column that is read. Rows without a text are left out.
    #[arg(long, value_name = "COLUMN")]
    pub text_column: Option<String>,
    /// --task image: the column of pictures: bytes of JPEG, PNG or WebP, or paths of such files below --image-folder. Rows
    /// without a picture are left out, and so are those whose picture can not be read.
    #[arg(long, value_name = "COLUMN")]
    pub image_column: Option<String>,
    /// --task image: where the paths of the column begin, local or s3://…; by default where the table lies.
    #[arg(long, value_name = "FOLDER")]
    pub image_folder: Option<String>,
    /// --task text: a Hugging Face folder with the pretrained encoder, local or s3://…, or the text/ folder of an earlier
    /// text model. --task image: a folder of weights as docs/models/vision.md says, or the image/ folder of an earlier image
    /// model; without it, image.network starts with random weights.
    #[arg(long, value_name = "FOLDER")]
    pub encoder: Option<String>,
}

/// Refuses the first flag that is given and belongs to another task.
pub fn refuse_others(task: &str, table: &TableOptions, others: &[(&str, bool)]) -> Result<()> {
    let of_table = [("--category", !table.category.is_empty()), ("--exclude", !table.exclude.is_empty())];
    match of_table.iter().chain(others).find(|(_, given)| *given) {
        None => Ok(()),
        Some((flag, _)) => Err(Failure::usage(format!("{flag}: belongs to another --task than {task}"))
            .hint(format!("--task {task} reads one column, and the labels"))),
    }
}

/// What of a batch needs no network, and can be made ahead on another thread.
pub trait Making: Send + 'static {
    /// On the CPU.
    type Inputs: Send + 'static;

    fn make(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Result<Self::Inputs>;
}

/// What makes vectors of a task's rows, and the head upon them.
pub trait Reader {
    type Making: Making;

    fn making(&self) -> Self::Making;

    /// Of the task, for messages: `text`.
    fn name(&self) -> &'static str;

    fn head(&self) -> &LabelHead;

    /// Where weights and vectors lie.
    fn device(&self) -> Device;

    /// Rows in batches; which ones are together, and in which order, `rng` decides.
    fn grouped(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Vec<Vec<usize>>;

    /// Vectors of a batch as training sees them, with gradients: float32 [rows, width].
    fn learnt(&self, inputs: &<Self::Making as Making>::Inputs) -> Result<Tensor>;

    /// What `part` makes of the vectors of any number of rows, without gradients, batch by batch: on the CPU and in the rows'
    /// order.
    fn in_batches(&self, rows: &[usize], part: &dyn Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor>;
}

/// How a classifier is taught.
#[derive(Debug)]
pub struct Teaching<'a> {
    /// Rows of training, validation and test.
    pub parts: &'a [Vec<usize>; 3],
    /// Steps of the head alone, for each penalty; 0 leaves it at random.
    pub head_epochs_max: u32,
    /// 0 where nothing but the head learns.
    pub epochs_max: u32,
    pub learning_rate: f64,
    pub step_options: StepOptions,
    /// What figures over several labels are called by.
    pub column: &'a str,
}

/// Teaches first the head alone, then all weights of the store that are trained; gives figures of the test rows.
pub fn teach(
    config: &Config,
    reader: &impl Reader,
    store: &mut nn::VarStore,
    goal: &Goal,
    teaching: Teaching<'_>,
    journal: &mut Journal,
) -> Result<BTreeMap<String, f64>> {
    let (clock, seed) = (std::time::Instant::now(), config.train.seed);
    let [train, valid, test] = teaching.parts;
    let mut figures = BTreeMap::new();
    if teaching.head_epochs_max > 0 {
        figures.extend(probe::teach(config, reader, (store, teaching.head_epochs_max), goal, [train, valid])?);
    }
    let plan = FitSettings {
        epochs_max: teaching.epochs_max,
        patience_epochs: config.train.patience_epochs,
        learning_rate: teaching.learning_rate,
        weight_decay: config.train.weight_decay,
        seed,
    };
    let mut lesson = LabelledLesson { reader, goal, train, valid, config, step_options: teaching.step_options };
    let bar = progress::bar(reader.name(), 1);
    let fitted = fitting::fit(&mut lesson, store, &plan, journal, &bar)?;
    bar.finish_and_clear();
    figures.insert("epochs".into(), fitted.epochs.into());
    figures.insert("steps".into(), fitted.steps as f64);
    figures.insert("loss_valid".into(), fitted.loss);
    // The head's part is among them.
    figures.insert("train_seconds".into(), clock.elapsed().as_secs_f64());
    let raw = lesson::evaluated(reader, test)?;
    figures.extend(figures::figures((reader.head(), &raw), (&goal.targets, test), teaching.column, seed)?);
    for (name, rows) in ["rows_train", "rows_valid", "rows_test"].iter().zip(teaching.parts) {
        figures.insert((*name).into(), rows.len() as f64);
    }
    Ok(figures)
}

/// How many weights a store has, without those of a part that is of no use afterwards, and how many of them are trained.
pub fn count_weights(store: &nn::VarStore, without: Option<&str>) -> Result<BTreeMap<String, f64>> {
    let trained: i64 = store.variables().values().filter(|w| w.requires_grad()).map(|w| w.numel() as i64).sum();
    let unused: i64 = match without {
        Some(part) => parts::taken(store, part)?.iter().map(|(_, w)| w.numel() as i64).sum(),
        None => 0,
    };
    Ok(BTreeMap::from([
        ("parameters".to_string(), (parameter_count(store) - unused) as f64),
        ("parameters_trained".to_string(), trained as f64),
    ]))
}

/// Rows of each part, of those that `keep` takes.
pub fn parts_of(table: &Table, keep: impl Fn(usize) -> bool) -> [Vec<usize>; 3] {
    let of = |part| table.rows_of(part).into_iter().filter(|&row| keep(row)).collect();
    [Split::Train, Split::Valid, Split::Test].map(of)
}

/// Refuses parts that are too small; `lacks` says how many rows are left out, and why.
pub fn enough([train, valid, test]: [&[usize]; 3], lacks: &str) -> Result<()> {
    if train.len() >= ROWS_MIN && !valid.is_empty() && !test.is_empty() {
        return Ok(());
    }
    Err(Failure::input(format!(
        "training: expected at least {ROWS_MIN} rows to train on and some to validate and to test on, got {}, {} and {}; \
         {lacks}",
        train.len(),
        valid.len(),
        test.len(),
    ))
    .hint("give it more rows; a --time-column needs at least three different times"))
}
