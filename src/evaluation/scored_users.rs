//! Users with the scores of one or two models as of past dates, and what they did then.

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use futures::TryStreamExt;

use super::known_outcomes::KnownOutcomes;
use crate::failure::{Failure, Result};
use crate::features::Scope;
use crate::features::contract::register_model_input;
use crate::features::parts::Part;
use crate::ids::RunDate;
use crate::model::blend::ACTIVE_EVENTS;
use crate::model::targets::{BINARY, CHURN, TARGETS, Target};
use crate::workspace::Workspace;

/// Groups of users: those whose first event is less than 28 days old; of the others, those with fewer than ten events within 28 days,
/// and those with more.
pub(super) const USER_GROUPS: [&str; 3] = ["new", "light", "heavy"];

/// Selects the place of a user among [`USER_GROUPS`].
fn group_sql() -> String {
    format!(
        "CASE WHEN features['age_days'] < 28 THEN 0 WHEN features['events_28d'] < {ACTIVE_EVENTS} THEN 1 ELSE 2 END"
    )
}

/// One row per user and date.
#[derive(Debug, Default)]
pub(super) struct ScoredUsers {
    pub(super) user_ids: Vec<String>,
    /// Places among [`USER_GROUPS`]; all are 0 where groups are not asked for.
    pub(super) groups: Vec<usize>,
    /// By binary target, then row: whether it came; NaN where that is not known yet.
    pub(super) outcomes: Vec<Vec<f32>>,
    /// By model, then binary target, then row: probabilities.
    pub(super) scores: Vec<Vec<Vec<f32>>>,
}

impl ScoredUsers {
    pub(super) fn new(models: usize) -> Self {
        Self { outcomes: vec![Vec::new(); BINARY], scores: vec![vec![Vec::new(); BINARY]; models], ..Self::default() }
    }

    /// Appends the rows of other dates.
    pub(super) fn append(&mut self, other: Self) {
        self.user_ids.extend(other.user_ids);
        self.groups.extend(other.groups);
        for (to, from) in self.outcomes.iter_mut().zip(other.outcomes) {
            to.extend(from);
        }
        for (to, from) in self.scores.iter_mut().flatten().zip(other.scores.into_iter().flatten()) {
            to.extend(from);
        }
    }

    /// Orders the rows by user: the engine returns them in any order, which sums and draws would show.
    fn sorted(mut self) -> Self {
        let mut order: Vec<usize> = (0..self.user_ids.len()).collect();
        order.sort_by(|&a, &b| self.user_ids[a].cmp(&self.user_ids[b]));
        let columns = self.outcomes.iter_mut().chain(self.scores.iter_mut().flatten());
        columns.for_each(|column| *column = order.iter().map(|&row| column[row]).collect());
        self.user_ids = order.iter().map(|&row| std::mem::take(&mut self.user_ids[row])).collect();
        self.groups = order.iter().map(|&row| self.groups[row]).collect();
        self
    }

    /// Appends rows of [`sql`].
    fn add(&mut self, rows: &RecordBatch, churn_known: bool) -> Result<()> {
        let ids = cast(rows.column(0), &DataType::Utf8)?;
        self.user_ids.extend(ids.as_string::<i32>().iter().map(|id| id.unwrap_or_default().to_string()));
        let numbers = |column: &ArrayRef| -> Result<Vec<f32>> {
            let values = cast(column, &DataType::Float64)?;
            Ok(values.as_primitive::<Float64Type>().iter().map(|value| value.unwrap_or_default() as f32).collect())
        };
        self.groups.extend(numbers(rows.column(1))?.into_iter().map(|group| group as usize));
        for (target, outcomes) in self.outcomes.iter_mut().enumerate() {
            match target == CHURN as usize && !churn_known {
                true => outcomes.extend(std::iter::repeat_n(f32::NAN, rows.num_rows())),
                false => outcomes.extend(numbers(rows.column(2 + target))?),
            }
        }
        for (place, scores) in self.scores.iter_mut().flatten().enumerate() {
            scores.extend(numbers(rows.column(2 + BINARY + place))?);
        }
        Ok(())
    }
}

/// Selects user, group, outcomes and each model's probabilities.
fn sql(versions: &[String], groups: bool) -> String {
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
        "SELECT m.user_id, m.user_group, {}, {} \
         FROM (SELECT user_id, {} AS user_group, {} FROM model_input WHERE events_lifetime > 0) m \
         LEFT JOIN intent_labels l ON m.user_id = l.user_id",
        outcomes.join(", "),
        scores.join(", "),
        if groups { group_sql() } else { "0".into() },
        calls.join(", ")
    )
}

/// Memory that a row of two models takes.
const ROW_BYTES: u64 = 200;

/// Refuses more rows than half of the engine's memory holds.
pub(super) fn refuse_too_many(workspace: &Workspace, rows: usize, date: RunDate) -> Result<()> {
    let bytes_max = workspace.config.engine.memory_bytes_max / 2;
    if rows as u64 * ROW_BYTES <= bytes_max {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "evaluation as of {date}: {rows} users over the dates so far need more than {bytes_max} bytes of memory, half of \
         engine.memory_bytes_max"
    ))
    .hint("evaluate fewer dates at once, or raise engine.memory_bytes_max"))
}

/// Scores the users that had an event before `date`, part by part. `rows_before` rows of earlier dates are in memory. Tells their
/// groups only where asked for: other features may not have the columns that it takes.
pub(super) async fn read(
    workspace: &Workspace,
    known: &KnownOutcomes,
    date: RunDate,
    versions: &[String],
    groups: bool,
    rows_before: usize,
) -> Result<ScoredUsers> {
    let mut users = ScoredUsers::new(versions.len());
    let churn_known = date.plus_days(workspace.config.intents.churn_days.into()) <= known.end;
    for part in Part::for_night(&workspace.config, &known.rollups) {
        let scope = Scope { run_date: date, labels_end: known.arrived, users: part, items: Part::ALL };
        let ctx = workspace.session_as_of(&known.rollups, scope).await?;
        workspace.check_added_features(&ctx).await?;
        register_model_input(&ctx).await?;
        let mut batches = ctx.sql(&sql(versions, groups)).await?.execute_stream().await?;
        while let Some(batch) = batches.try_next().await? {
            users.add(&batch, churn_known)?;
            refuse_too_many(workspace, rows_before + users.user_ids.len(), date)?;
        }
    }
    Ok(users.sorted())
}
