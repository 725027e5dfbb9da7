//! Decisions about champions, with their reasons: one object each below `models/promotions/`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use super::bundle::BundleCard;
use super::registry::Registry;
use crate::failure::{Failure, Result};

/// The word for the newest version, by the date that it was trained on.
pub(crate) const NEWEST: &str = "newest";

/// The folder of the decisions.
const FOLDER: &str = "promotions";

/// Outcome of a decision about a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Decision {
    /// It became champion because there was none.
    First,
    /// It became champion because it was better.
    Promoted,
    /// It became champion without being judged.
    Forced,
    /// It became champion again.
    RolledBack,
    /// It did not become champion.
    Refused,
}

/// A decision about a version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Promotion {
    pub(crate) decided_at: String,
    pub(crate) decision: Decision,
    pub(crate) version: String,
    /// The champion before.
    pub(crate) champion_before: Option<String>,
    /// The date whose outcomes were compared.
    pub(crate) run_date: Option<String>,
    /// Figures that were compared, with their verdicts.
    #[serde(default)]
    pub(crate) compared: serde_json::Value,
}

impl Promotion {
    /// Returns a decision made now, without a comparison.
    pub(crate) fn new(decision: Decision, version: &str, champion_before: Option<String>) -> Self {
        Self {
            decided_at: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
            decision,
            version: version.into(),
            champion_before,
            run_date: None,
            compared: serde_json::Value::Null,
        }
    }
}

impl Registry {
    /// Records a decision, and makes its version champion unless it was refused. The record comes first: a champion always has one.
    /// Refuses a decision about a champion that has changed meanwhile.
    pub(crate) async fn decide(&self, promotion: &Promotion) -> Result<()> {
        self.card(&promotion.version).await?;
        let champion = self.champion().await?;
        if champion != promotion.champion_before {
            let text = |champion: &Option<String>| champion.clone().unwrap_or("none".into());
            return Err(Failure::check(format!(
                "{}champion: expected {}, got {}: another command changed it meanwhile",
                self.0.url,
                text(&promotion.champion_before),
                text(&champion)
            ))
            .hint("run the command again"));
        }
        // Colons are no part of file names on every system.
        let name = format!("{}-{}.json", promotion.decided_at.replace(':', ""), promotion.version);
        self.0.folder(FOLDER).write(&name, serde_json::to_vec_pretty(promotion).map_err(Failure::bug)?).await?;
        match promotion.decision {
            Decision::Refused => Ok(()),
            _ => self.promote(&promotion.version).await,
        }
    }

    /// Returns the version that was champion before `champion` was promoted. Going back changes nothing about that, so that going
    /// back twice reaches an even earlier one.
    pub(crate) async fn champion_before(&self, champion: &str) -> Result<Option<String>> {
        let promotions = self.promotions().await?;
        let promoted = promotions.into_iter().rev().find(|promotion| {
            let made = !matches!(promotion.decision, Decision::Refused | Decision::RolledBack);
            made && promotion.version == champion
        });
        Ok(promoted.and_then(|promotion| promotion.champion_before))
    }

    /// Returns the versions that were champion until it was rolled back.
    pub(crate) async fn rolled_back(&self) -> Result<BTreeSet<String>> {
        let promotions = self.promotions().await?.into_iter();
        let from = promotions.filter(|promotion| promotion.decision == Decision::RolledBack);
        Ok(from.filter_map(|promotion| promotion.champion_before).collect())
    }

    /// Returns the models that were trained after `champion` and not rolled back, oldest first.
    pub(crate) async fn challengers(&self, champion: &str) -> Result<Vec<BundleCard>> {
        let rolled_back = self.rolled_back().await?;
        let versions = self.versions().await?;
        let later = versions.iter().position(|card| card.version == champion).map_or(0, |place| place + 1);
        let newer = versions.into_iter().skip(later);
        Ok(newer.filter(|card| !rolled_back.contains(&card.version)).collect())
    }

    /// Returns all decisions, oldest first.
    async fn promotions(&self) -> Result<Vec<Promotion>> {
        let folder = self.0.folder(FOLDER);
        let (_, objects) = folder.children().await?;
        let mut names: Vec<&str> = objects.iter().filter_map(|object| object.location.filename()).collect();
        names.sort_unstable();
        let mut promotions = Vec::new();
        for name in names {
            let promotion = serde_json::from_slice(&folder.read(name).await?).map_err(|e| {
                Failure::model(format!("{}{name}: {e}", folder.url)).hint("restore the file, or remove it")
            })?;
            promotions.push(promotion);
        }
        Ok(promotions)
    }
}
