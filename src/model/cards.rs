//! Models that no night can take, one kind a card: what is read of them, listed and refused is the same for all of them.
//! `table` and `text` say what stands in their cards, and bring the weights.

use serde::de::DeserializeOwned;

use super::bundle::Registry;
use crate::failure::{Failure, FailureKind, Result};

/// A JSON file that makes a folder `models/KIND-DATE-HASH/` a model of a kind, and says everything but its weights.
pub trait Card: DeserializeOwned {
    /// What `train --task` calls it.
    const KIND: &'static str;
    const FILE: &'static str;
    /// The format that is written and read.
    const FORMAT: u32;

    fn trained_at(&self) -> &str;
}

impl Registry {
    /// The card of a version; the type says of which kind.
    pub async fn card_of<C: Card>(&self, version: &str) -> Result<C> {
        let (kind, folder) = (C::KIND, self.0.folder(version));
        let hint = format!("`intentcast models` lists the versions; `intentcast train --task {kind}` makes one");
        if version.is_empty() {
            return Err(Failure::usage(format!("expected the version of a {kind} model, got nothing")).hint(hint));
        }
        let Some(bytes) = folder.read_if_there(C::FILE).await? else {
            return Err(Failure::model(format!("{}: no such {kind} model", folder.url)).hint(hint));
        };
        let refuse = |text: String| damaged(Failure::model(format!("models/{version}/{}: {text}", C::FILE)));
        let card: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| refuse(e.to_string()))?;
        match card.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format != u64::from(C::FORMAT) => {
                Err(refuse(format!("expected format {}, got {format}", C::FORMAT)))
            }
            _ => serde_json::from_value(card).map_err(|e| refuse(e.to_string())),
        }
    }

    /// The cards of a kind that can be read, oldest first; the log names the others.
    pub async fn cards_of<C: Card>(&self) -> Result<Vec<C>> {
        let (mut cards, prefix) = (Vec::<C>::new(), format!("{}-", C::KIND));
        for version in self.0.children().await?.0.iter().filter(|version| version.starts_with(&prefix)) {
            match self.card_of(version).await {
                Ok(card) => cards.push(card),
                Err(failure) => tracing::warn!("{}", failure.message),
            }
        }
        cards.sort_by(|a, b| a.trained_at().cmp(b.trained_at()));
        Ok(cards)
    }
}

/// What is wrong with a model's files is wrong with the model.
pub fn damaged(failure: Failure) -> Failure {
    Failure { kind: FailureKind::Model, ..failure }.hint("train again")
}
