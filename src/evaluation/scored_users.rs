//! Users with the scores of one or two models as of past dates, and what they did then.

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use futures::TryStreamExt;
use std::collections::HashMap;

use super::known_outcomes::KnownOutcomes;
use crate::failure::Result;
use crate::features::Scope;
use crate::features::contract::register_model_input;
use crate::features::parts::Part;
use crate::ids::RunDate;
use crate::model::targets::{BINARY, CHURN, TARGETS, Target};
use crate::workspace::Workspace;

/// One row per user and date.
#[derive(Debug, Default)]
pub(super) struct ScoredUsers {
    /// The number of each row's user; rows of one user at several dates have the same.
    pub(super) users: Vec<usize>,
    numbers: HashMap<String, usize>,
    /// By binary target, then row: whether it came; NaN where that is not known yet.
    pub(super) outcomes: Vec<Vec<f32>>,
    /// By model, then binary target, then row: probabilities.
    pub(super) scores: Vec<Vec<Vec<f32>>>,
}

impl ScoredUsers {
    pub(super) fn new(models: usize) -> Self {
        Self { outcomes: vec![Vec::new(); BINARY], scores: vec![vec![Vec::new(); BINARY]; models], ..Self::default() }
    }

    /// Number of different users.
    pub(super) fn user_count(&self) -> usize {
        self.numbers.len()
    }

    fn number(&mut self, user_id: &str) -> usize {
        let next = self.numbers.len();
        *self.numbers.entry(user_id.to_string()).or_insert(next)
    }

    /// Appends the rows of other dates.
    pub(super) fn append(&mut self, other: Self) {
        let mut numbers = vec![0; other.numbers.len()];
        for (user_id, number) in &other.numbers {
            numbers[*number] = self.number(user_id);
        }
        self.users.extend(other.users.iter().map(|user| numbers[*user]));
        for (to, from) in self.outcomes.iter_mut().zip(other.outcomes) {
            to.extend(from);
        }
        for (to, from) in self.scores.iter_mut().flatten().zip(other.scores.into_iter().flatten()) {
            to.extend(from);
        }
    }

    /// Appends rows of [`sql`].
    fn add(&mut self, rows: &RecordBatch, churn_known: bool) -> Result<()> {
        let ids = cast(rows.column(0), &DataType::Utf8)?;
        for id in ids.as_string::<i32>().iter().map(Option::unwrap_or_default) {
            let number = self.number(id);
            self.users.push(number);
        }
        let numbers = |column: &ArrayRef| -> Result<Vec<f32>> {
            let values = cast(column, &DataType::Float64)?;
            Ok(values.as_primitive::<Float64Type>().iter().map(|value| value.unwrap_or_default() as f32).collect())
        };
        for (target, outcomes) in self.outcomes.iter_mut().enumerate() {
            match target == CHURN as usize && !churn_known {
                true => outcomes.extend(std::iter::repeat_n(f32::NAN, rows.num_rows())),
                false => outcomes.extend(numbers(rows.column(1 + target))?),
            }
        }
        for (place, scores) in self.scores.iter_mut().flatten().enumerate() {
            scores.extend(numbers(rows.column(1 + BINARY + place))?);
        }
        Ok(())
    }
}

/// Selects user, outcomes and each model's probabilities.
fn sql(versions: &[String]) -> String {
    let binary = &TARGETS[..BINARY];
    let outcomes: Vec<String> = binary.iter().map(Target::label_sql).collect();
    let calls: Vec<String> = versions
        .iter()
        .enumerate()
        .map(|(model, version)| format!("score_intents(features, '{}') AS s{model}", version.replace('\'', "''")))
        .collect();
    let scores: Vec<String> = (0..versions.len())
        .flat_map(|model| binary.iter().map(move |target| format!("m.s{model}['{}']", target.output)))
        .collect();
    format!(
        "SELECT m.user_id, {}, {} \
         FROM (SELECT user_id, {} FROM model_input WHERE events_lifetime > 0) m \
         LEFT JOIN intent_labels l ON m.user_id = l.user_id",
        outcomes.join(", "),
        scores.join(", "),
        calls.join(", ")
    )
}

/// Scores the users that had an event before `date`, part by part.
pub(super) async fn read(
    workspace: &Workspace,
    known: &KnownOutcomes,
    date: RunDate,
    versions: &[String],
) -> Result<ScoredUsers> {
    let mut users = ScoredUsers::new(versions.len());
    let churn_known = date.plus_days(workspace.config.intents.churn_days.into()) <= known.end;
    for part in Part::for_night(&workspace.config, &known.rollups) {
        let scope = Scope { run_date: date, labels_end: known.end, users: part, items: Part::ALL };
        let ctx = workspace.session_as_of(&known.rollups, scope).await?;
        register_model_input(&ctx).await?;
        let mut batches = ctx.sql(&sql(versions)).await?.execute_stream().await?;
        while let Some(batch) = batches.try_next().await? {
            users.add(&batch, churn_known)?;
        }
    }
    Ok(users)
}
