//! Checks of the labels before training.

use crate::failure::{Failure, Result};
use crate::model::targets::{CHURN, INTENTS, LABELS};
use crate::training::datasets::UserStatistics;

/// Refuses training users without any positive intent, or without a known churn label. Warns of labels with one class
/// only, which the network learns as never (or always).
pub(crate) fn require_labels(users: &UserStatistics, horizon_days: u32) -> Result<()> {
    let UserStatistics { labelled, known, positives, .. } = users;
    if positives[..INTENTS.len()].iter().all(|&n| n == 0) {
        return Err(Failure::input(format!(
            "training: none of {labelled} users did anything within {horizon_days} days after the training dates; \
             there is no positive label"
        ))
        .hint("check the last days of the lake's events, or train on an earlier --date"));
    }
    if known[CHURN as usize] == 0 {
        return Err(Failure::input("training: churn is not known for any user")
            .hint("train on a later --date, or lower intents.churn_days: the lake has to be older than that"));
    }
    let mut one_class = Vec::new();
    for (label, (positive, known)) in LABELS.iter().zip(positives.iter().zip(known)) {
        if *positive == 0 || positive == known {
            one_class.push(*label);
        }
    }
    if !one_class.is_empty() {
        tracing::warn!("training: no figures for {}: all labels have the same class", one_class.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::targets::{BINARY, PURCHASE};

    /// Users of whom some purchased and did nothing else.
    fn users(labelled: usize, purchased: usize) -> UserStatistics {
        let mut positives = [0; BINARY];
        positives[PURCHASE] = purchased;
        UserStatistics { labelled, known: [labelled; BINARY], positives, ..UserStatistics::default() }
    }

    #[test]
    fn no_positive_label_is_refused_but_one_class_is_not() {
        let refused = require_labels(&users(29, 0), 7).unwrap_err();
        assert_eq!(refused.kind.exit_code(), 3);
        assert!(refused.message.contains("none of 29 users did anything within 7 days"), "{refused}");
        let mut too_young = users(30, 10);
        too_young.known[CHURN as usize] = 0;
        let refused = require_labels(&too_young, 7).unwrap_err();
        assert!(refused.message.contains("churn is not known") && refused.kind.exit_code() == 3, "{refused}");
        require_labels(&users(30, 10), 7).unwrap();
        require_labels(&users(30, 30), 7).unwrap();
    }
}
