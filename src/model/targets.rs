//! Declares what the behaviour network predicts of each user: the intents, churn, units and spend.
//!
//! Labels, outputs, published columns, figures and the check of probabilities follow from [`TARGETS`]. To add an intent: a
//! line here, its label in `sql/labels/intent_labels.sql`, its column in `sql/score/intent_scores.sql` and
//! `sql/tables/intent.sql`, then `make docs`; a test names the SQL file that lacks a column.

/// One thing that the network predicts of a user.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub(crate) name: &'static str,
    /// Column of `sql/labels/intent_labels.sql` (churn is the absence of a row there).
    pub(crate) label: &'static str,
    /// Field of `score_intents(…)` and column of the table `intent`.
    pub output: &'static str,
    pub(crate) kind: TargetKind,
    /// Completes "makes … likelier".
    pub(crate) event: &'static str,
    /// Describes the column in docs/reference/tables.md.
    pub(crate) meaning: &'static str,
}

/// Decides the loss and the range of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetKind {
    /// A probability, trained together with the other intents by `model.loss` through `model.head`.
    Intent,
    /// A probability, trained on its own by cross-entropy.
    Churn,
    /// An amount at or above zero, trained by `model.amount_loss`.
    Amount,
}

impl Target {
    /// Returns the SQL of the label of a user: of a row `l` of `intent_labels`, which users without any outcome don't have.
    pub(crate) fn label_sql(&self) -> String {
        match self.kind {
            TargetKind::Churn => format!("CASE WHEN l.user_id IS NULL THEN 1 ELSE 0 END AS {}", self.label),
            TargetKind::Intent | TargetKind::Amount => format!("l.{}", self.label),
        }
    }

    /// Returns the name of the figure that holds the threshold of its probability, which training chose on validation users.
    pub(crate) fn threshold_name(&self) -> String {
        format!("threshold_f1_{}", self.name)
    }
}

macro_rules! intent {
    ($name:literal, $event:literal) => {
        Target {
            name: $name,
            label: concat!("y_", $name),
            output: concat!("p_", $name),
            kind: TargetKind::Intent,
            event: $event,
            meaning: concat!("probability, 0 to 1, of ", $event, " within `intents.horizon_days` from the run date"),
        }
    };
}

macro_rules! amount {
    ($name:literal, $meaning:literal) => {
        Target {
            name: $name,
            label: concat!("y_", $name),
            output: concat!("expected_", $name),
            kind: TargetKind::Amount,
            event: concat!("more ", $name),
            meaning: $meaning,
        }
    };
}

/// Every target, in the order of the network's outputs: the intents in the order of the chain, churn, the amounts.
pub const TARGETS: &[Target] = &[
    intent!("view", "a view or click"),
    intent!("search", "a search"),
    intent!("favorite", "a favourite"),
    intent!("cart", "a cart add"),
    intent!("purchase", "a purchase"),
    intent!("review", "a review"),
    Target {
        name: "churn",
        label: "y_churn",
        output: "p_churn",
        kind: TargetKind::Churn,
        event: "staying away",
        meaning: "probability, 0 to 1, of no event at all within `intents.churn_days` from the run date",
    },
    amount!("units", "expected number of units bought within `intents.horizon_days`"),
    amount!("spend", "expected spend within `intents.horizon_days`, in the lake's currency"),
];

/// The values of one field of the first targets.
macro_rules! field_of_first {
    ($count:expr, $field:ident) => {{
        let mut values = [""; $count];
        let mut at = 0;
        while at < $count {
            values[at] = TARGETS[at].$field;
            at += 1;
        }
        values
    }};
}

/// Names of the intents, in the order of the chain and of the published columns.
pub(crate) const INTENTS: [&str; count(TargetKind::Intent)] = field_of_first!(count(TargetKind::Intent), name);
/// Columns of a user's labels, in the order of [`TARGETS`].
pub(crate) const LABELS: [&str; TARGETS.len()] = field_of_first!(TARGETS.len(), label);
/// Outputs of the heads, in the order of [`TARGETS`].
pub const OUTPUTS: [&str; TARGETS.len()] = field_of_first!(TARGETS.len(), output);

/// Position of purchases among the targets.
pub(crate) const PURCHASE: usize = position("purchase");
/// Position of churn among the targets; the intents are before it, the amounts after it.
pub(crate) const CHURN: i64 = INTENTS.len() as i64;
/// Number of binary targets: the intents and churn. They come first.
pub const BINARY: usize = INTENTS.len() + 1;
/// Number of amounts. They come last.
pub(crate) const AMOUNTS: usize = count(TargetKind::Amount);

const fn count(kind: TargetKind) -> usize {
    let (mut found, mut at) = (0, 0);
    while at < TARGETS.len() {
        if TARGETS[at].kind as u8 == kind as u8 {
            found += 1;
        }
        at += 1;
    }
    found
}

const fn position(name: &str) -> usize {
    let mut at = 0;
    while at < TARGETS.len() {
        if TARGETS[at].name.eq_ignore_ascii_case(name) {
            return at;
        }
        at += 1;
    }
    panic!("no such target")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::sql_files::SqlFiles;

    #[test]
    fn intents_come_first_then_churn_then_amounts() {
        let kinds: Vec<TargetKind> = TARGETS.iter().map(|target| target.kind).collect();
        let expected =
            [vec![TargetKind::Intent; INTENTS.len()], vec![TargetKind::Churn], vec![TargetKind::Amount; AMOUNTS]];
        assert_eq!(kinds, expected.concat());
        assert_eq!((INTENTS[PURCHASE], OUTPUTS[CHURN as usize], LABELS[BINARY]), ("purchase", "p_churn", "y_units"));
    }

    #[test]
    fn every_sql_file_on_the_way_of_a_target_names_it() {
        let sql = SqlFiles::load(&Config::default()).unwrap();
        let names = |path: &str, wanted: &str| {
            let text = sql.get(path).unwrap();
            let found = text.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == wanted);
            assert!(found, "sql/{path}.sql: expected the column {wanted} of src/model/targets.rs");
        };
        for target in TARGETS {
            names("score/intent_scores", target.output);
            names("score/shadow_scores", target.output);
            names("tables/intent", target.output);
            match target.kind {
                TargetKind::Churn => {}
                TargetKind::Intent | TargetKind::Amount => names("labels/intent_labels", target.label),
            }
        }
    }
}
