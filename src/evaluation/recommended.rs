//! Recommendations of one or two models as of past dates, against the items of the events that followed.
//!
//! Each user with an item event within `intents.horizon_days` counts once per date. The list is the one that a night would publish:
//! over all items that can be recommended then, without those bought before where `recommendation.exclude_bought` says so.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use std::collections::BTreeMap;
use std::collections::HashSet;

use super::judged::Judged;
use super::known_outcomes::KnownOutcomes;
use super::scored_users::refuse_too_many;
use crate::failure::Result;
use crate::features::Scope;
use crate::features::contract::register_model_input;
use crate::features::parts::Part;
use crate::ids::RunDate;
use crate::metrics::bootstrap_interval_over_indices;
use crate::score::service::as_struct;
use crate::workspace::Workspace;

/// Lengths of the lists that are judged.
pub(super) const LENGTHS: [usize; 3] = [5, 10, 20];
const LONGEST: usize = 20;
const BOOTSTRAP_ROUNDS: usize = 200;

/// Figures of the first `length` recommendations of each user, as means over users.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RecommendationFigures {
    pub(crate) run_date: Option<RunDate>,
    pub(crate) model_version: String,
    pub(crate) in_training: bool,
    pub(crate) length: usize,
    pub(crate) users: u64,
    /// Share of a user's next items that were recommended.
    pub(crate) recall: f64,
    /// Normalised discounted cumulative gain, one for each next item (Järvelin and Kekäläinen 2002).
    pub(crate) ndcg: f64,
    /// 95 % interval over users drawn with replacement.
    pub(crate) ndcg_interval: Option<(f64, f64)>,
    /// Mean of one over the rank of the first next item; zero where none was recommended.
    pub(crate) mrr: f64,
}

/// The first model's NDCG minus the second's.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RecommendationDifference {
    pub(crate) length: usize,
    pub(crate) difference: f64,
    /// 95 % interval over users drawn with replacement, the same users for both models.
    pub(crate) interval: Option<(f64, f64)>,
}

/// Recall, NDCG and reciprocal rank of one user's list.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Gains {
    recall: f64,
    ndcg: f64,
    reciprocal_rank: f64,
}

impl Gains {
    fn of(ranked: &[&str], wanted: &HashSet<&str>, length: usize) -> Self {
        let discount = |place: usize| 1.0 / (place as f64 + 2.0).log2();
        let found: Vec<usize> = ranked
            .iter()
            .take(length)
            .enumerate()
            .filter(|(_, item)| wanted.contains(*item))
            .map(|(at, _)| at)
            .collect();
        let best: f64 = (0..wanted.len().min(length)).map(discount).sum();
        Self {
            recall: found.len() as f64 / wanted.len() as f64,
            ndcg: found.iter().map(|&place| discount(place)).sum::<f64>() / best,
            reciprocal_rank: found.first().map_or(0.0, |&place| 1.0 / (place as f64 + 1.0)),
        }
    }
}

/// Users with what the lists of each model were worth to them.
#[derive(Debug, Default)]
pub(super) struct Recommended {
    user_ids: Vec<String>,
    /// By model, then user, then length of the list.
    gains: Vec<Vec<[Gains; LENGTHS.len()]>>,
}

impl Recommended {
    pub(super) fn new(models: usize) -> Self {
        Self { user_ids: Vec::new(), gains: vec![Vec::new(); models] }
    }

    pub(super) fn users(&self) -> usize {
        self.user_ids.len()
    }

    /// Appends the users of another date.
    pub(super) fn append(&mut self, other: Self) {
        self.user_ids.extend(other.user_ids);
        for (to, from) in self.gains.iter_mut().zip(other.gains) {
            to.extend(from);
        }
    }

    /// Orders the users by id: the engine returns them in any order, which sums and draws would show.
    fn sorted(mut self) -> Self {
        let mut order: Vec<usize> = (0..self.user_ids.len()).collect();
        order.sort_by(|&a, &b| self.user_ids[a].cmp(&self.user_ids[b]));
        self.gains.iter_mut().for_each(|gains| *gains = order.iter().map(|&row| gains[row]).collect());
        self.user_ids = order.iter().map(|&row| std::mem::take(&mut self.user_ids[row])).collect();
        self
    }

    /// Appends rows of [`sql`].
    fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        let ids = cast(rows.column(0), &DataType::Utf8)?;
        let wanted = cast(rows.column(1), &DataType::new_list(DataType::Utf8, true))?;
        self.user_ids.extend(ids.as_string::<i32>().iter().map(|id| id.unwrap_or_default().to_string()));
        for (model, gains) in self.gains.iter_mut().enumerate() {
            let lists = rows.column(2 + model).as_list::<i32>();
            for row in 0..rows.num_rows() {
                let next = wanted.as_list::<i32>().value(row);
                let next: HashSet<&str> = next.as_string::<i32>().iter().flatten().collect();
                let picks = lists.value(row);
                // They come by rank.
                let ranked: Vec<&str> = as_struct(&picks)?.column(1).as_string::<i32>().iter().flatten().collect();
                gains.push(LENGTHS.map(|length| Gains::of(&ranked, &next, length)));
            }
        }
        Ok(())
    }

    /// The places of each user's rows: those of one user at several dates are drawn together.
    fn by_user(&self) -> Vec<Vec<usize>> {
        let mut rows: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (row, user) in self.user_ids.iter().enumerate() {
            rows.entry(user).or_default().push(row);
        }
        rows.into_values().collect()
    }

    fn interval(&self, seed: u64, value: impl Fn(usize) -> f64) -> Option<(f64, f64)> {
        let users = self.by_user();
        bootstrap_interval_over_indices(users.len(), BOOTSTRAP_ROUNDS, seed, |drawn| {
            let rows: Vec<usize> = drawn.iter().flat_map(|&user| users[user].iter().copied()).collect();
            Some(rows.iter().map(|&row| value(row)).sum::<f64>() / rows.len() as f64)
        })
    }

    /// Figures of one model for each length; none without users.
    pub(super) fn figures(&self, model: usize, judged: Judged<'_>, seed: u64) -> Vec<RecommendationFigures> {
        let gains = &self.gains[model];
        let of_length = |place: usize| {
            let mean =
                |of: fn(&Gains) -> f64| gains.iter().map(|gains| of(&gains[place])).sum::<f64>() / gains.len() as f64;
            RecommendationFigures {
                run_date: judged.run_date,
                model_version: judged.model_version.into(),
                in_training: judged.in_training,
                length: LENGTHS[place],
                users: gains.len() as u64,
                recall: mean(|gains| gains.recall),
                ndcg: mean(|gains| gains.ndcg),
                ndcg_interval: self.interval(seed, |row| gains[row][place].ndcg),
                mrr: mean(|gains| gains.reciprocal_rank),
            }
        };
        (0..LENGTHS.len()).filter(|_| !gains.is_empty()).map(of_length).collect()
    }

    /// Differences of the NDCG between the first and the second model.
    pub(super) fn differences(&self, seed: u64) -> Vec<RecommendationDifference> {
        let [first, second] = &self.gains[..] else { return Vec::new() };
        let of_length = |place: usize| {
            let difference = |row: usize| first[row][place].ndcg - second[row][place].ndcg;
            RecommendationDifference {
                length: LENGTHS[place],
                difference: (0..first.len()).map(difference).sum::<f64>() / first.len() as f64,
                interval: self.interval(seed, difference),
            }
        };
        (0..LENGTHS.len()).filter(|_| !first.is_empty()).map(of_length).collect()
    }
}

/// Selects user, next items and each model's recommendations, of users with a next item.
fn sql(versions: &[String]) -> String {
    let quoted: Vec<String> = versions.iter().map(|version| version.replace('\'', "''")).collect();
    let scores: Vec<String> = quoted
        .iter()
        .enumerate()
        .map(|(model, version)| {
            format!(
                "score_intents(features, '{version}')['taste'] AS taste{model}, \
                 latest_items(features, '{version}') AS latest{model}"
            )
        })
        .collect();
    let picks: Vec<String> = quoted
        .iter()
        .enumerate()
        .map(|(model, version)| {
            format!("recommend(m.taste{model}, m.latest{model}, m.exclude, {LONGEST}, '{version}')")
        })
        .collect();
    format!(
        "SELECT m.user_id, m.next_items, {} FROM ( \
         SELECT model_input.user_id, next_items.next_items, \
         CASE WHEN recommendation_exclude_bought() THEN user_bought.bought END AS exclude, {} \
         FROM next_items JOIN model_input ON model_input.user_id = next_items.user_id \
         LEFT JOIN user_bought ON model_input.user_id = user_bought.user_id \
         WHERE model_input.events_lifetime > 0) m",
        picks.join(", "),
        scores.join(", ")
    )
}

/// Ranks items for the users that had an event before `date` and one with an item within the horizon, part by part. `rows_before` rows
/// of earlier dates are in memory.
pub(super) async fn read(
    workspace: &Workspace,
    known: &KnownOutcomes,
    date: RunDate,
    versions: &[String],
    rows_before: usize,
) -> Result<Recommended> {
    let mut recommended = Recommended::new(versions.len());
    for part in Part::for_night(&workspace.config, &known.rollups) {
        let scope = Scope { run_date: date, labels_end: known.arrived, users: part, items: Part::ALL };
        let ctx = workspace.session_as_of(&known.rollups, scope).await?;
        workspace.check_added_features(&ctx).await?;
        register_model_input(&ctx).await?;
        let mut batches = ctx.sql(&sql(versions)).await?.execute_stream().await?;
        while let Some(batch) = batches.try_next().await? {
            recommended.add(&batch)?;
            refuse_too_many(workspace, rows_before + recommended.users(), date)?;
        }
    }
    Ok(recommended.sorted())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gains(ranked: &[&str], wanted: &[&str], length: usize) -> Gains {
        Gains::of(ranked, &wanted.iter().copied().collect(), length)
    }

    /// scikit-learn 1.7: ndcg_score([[0, 1, 0, 1, 1]], [[5, 4, 3, 2, 1]], k=4), where the fifth item is not in the list.
    #[test]
    fn gains_are_those_of_the_published_formulas() {
        let found = gains(&["a", "b", "c", "d"], &["b", "d", "z"], 4);
        assert!((found.ndcg - 0.498_189_257_254_6).abs() < 1e-9, "{found:?}");
        assert!((found.recall - 2.0 / 3.0).abs() < 1e-12 && (found.reciprocal_rank - 0.5).abs() < 1e-12, "{found:?}");
        assert_eq!(gains(&["b", "d"], &["d", "b"], 5), Gains { recall: 1.0, ndcg: 1.0, reciprocal_rank: 1.0 });
        assert_eq!(gains(&["a", "b"], &["b"], 1), Gains::default());
        assert_eq!(gains(&[], &["b"], 5), Gains::default());
    }

    #[test]
    fn rows_of_one_user_are_drawn_together() {
        let of_user = |ndcg: f64| [Gains { recall: ndcg, ndcg, reciprocal_rank: ndcg }; LENGTHS.len()];
        let mut all = Recommended::new(2);
        for (user, first, second) in [("a", 1.0, 0.5), ("b", 0.0, 0.5), ("a", 1.0, 0.0)] {
            all.user_ids.push(user.into());
            all.gains[0].push(of_user(first));
            all.gains[1].push(of_user(second));
        }
        let all = all.sorted();
        assert_eq!(all.by_user(), [vec![0, 1], vec![2]]);
        let judged = Judged { run_date: None, model_version: "v", in_training: false, trained: None };
        let figures = all.figures(0, judged, 1);
        assert_eq!((figures.len(), figures[0].users, figures[2].length), (3, 3, 20));
        assert!((figures[0].ndcg - 2.0 / 3.0).abs() < 1e-12 && figures[0].ndcg_interval == Some((0.0, 1.0)));
        assert!((all.differences(1)[0].difference - 1.0 / 3.0).abs() < 1e-12);
        assert!(Recommended::new(1).figures(0, judged, 1).is_empty());
    }
}
