//! `intentcast models`: lists the registry, compares two models, or goes back to the champion before.

use arrow::array::{ArrayRef, Float64Array, StringArray};
use async_trait::async_trait;
use clap::{Args, Subcommand};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::command::{Command, Needs, Places};
use super::format::{self, Format};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::bundle::{BundleCard, Registry};
use crate::model::promotions::{Decision, Promotion};
use crate::model::table::bundle::TableCard;
use crate::model::text::bundle::TextCard;
use crate::model::vision::ImageModelCard;

/// List the models; see what differs between two; go back to the champion before.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Models {
    #[command(flatten)]
    places: Places,
    /// Print the list in this format.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make the champion before the present one the champion again; needs no lake.
    Rollback {
        #[command(flatten)]
        places: Places,
    },
    /// Print what differs between the cards of two models: features, settings and figures.
    Diff {
        #[command(flatten)]
        places: Places,
        /// The first version.
        #[arg(value_name = "A")]
        first: String,
        /// The second version.
        #[arg(value_name = "B")]
        second: String,
        /// Print in this format.
        #[arg(long, value_enum, default_value = "table")]
        format: Format,
    },
}

/// One line of the list.
struct Line {
    version: String,
    kind: &'static str,
    champion: &'static str,
    labels_end: String,
    figures: BTreeMap<String, f64>,
}

impl Line {
    fn labelled(version: String, kind: &'static str, figures: BTreeMap<String, f64>) -> Self {
        Self { version, kind, champion: "", labels_end: String::new(), figures }
    }
}

#[async_trait(?Send)]
impl Command for Models {
    fn needs(&self) -> Needs<'_> {
        Needs::output(match &self.action {
            None => &self.places,
            Some(Action::Rollback { places } | Action::Diff { places, .. }) => places,
        })
    }

    async fn run(&self, config: &Config) -> Result<()> {
        let registry = Registry(Location::open(&config.output.uri, &config.s3)?.folder("models"));
        match &self.action {
            None => print_list(&registry, self.format).await,
            Some(Action::Rollback { .. }) => roll_back(&registry).await,
            Some(Action::Diff { first, second, format, .. }) => {
                let cards = [registry.resolve(first).await?, registry.resolve(second).await?];
                print_differences(&cards, *format)
            }
        }
    }
}

async fn print_list(registry: &Registry, format: Format) -> Result<()> {
    let lines = list(registry).await?;
    let text = |of: &dyn Fn(&Line) -> &str| -> ArrayRef {
        Arc::new(lines.iter().map(|line| Some(of(line))).collect::<StringArray>())
    };
    let figure = |name: &str| -> ArrayRef {
        Arc::new(lines.iter().map(|line| line.figures.get(name).copied()).collect::<Float64Array>())
    };
    let columns = [
        ("version", text(&|line| &line.version)),
        ("kind", text(&|line| line.kind)),
        ("champion", text(&|line| line.champion)),
        ("labels_end", text(&|line| &line.labels_end)),
        ("auc_test_purchase", figure("auc_test_purchase")),
        ("pinball_test", figure("pinball_test")),
    ];
    format::print_columns(&columns, format)
}

async fn roll_back(registry: &Registry) -> Result<()> {
    let champion = registry.champion().await?.ok_or_else(|| {
        Failure::input(format!("{}champion: there is no champion", registry.0.url))
            .hint("`intentcast promote VERSION` makes one")
    })?;
    let before = registry.champion_before(&champion).await?.ok_or_else(|| {
        Failure::input(format!("{}: no champion before {champion} is on record", registry.0.url))
            .hint("`intentcast models` lists the versions; `intentcast promote VERSION --force` promotes one")
    })?;
    registry.decide(&Promotion::new(Decision::RolledBack, &before, Some(champion.clone()))).await?;
    say!("champion: {before}, as before {champion}");
    Ok(())
}

/// The parts of a card that are compared, by name: one number or text each.
fn parts(card: &BundleCard) -> Result<BTreeMap<String, String>> {
    let mut parts = BTreeMap::from([
        ("as_of_dates".to_string(), card.as_of_dates.join(" ")),
        ("labels_end".to_string(), card.labels_end.clone()),
        ("features_fingerprint".to_string(), card.features_fingerprint.clone()),
        ("horizon_days".to_string(), card.horizon_days.to_string()),
        ("churn_days".to_string(), card.churn_days.to_string()),
        ("sql_fingerprint".to_string(), card.sql_fingerprint.clone()),
        ("weights_hash".to_string(), card.weights_hash.clone()),
        ("trees_hash".to_string(), card.trees_hash.clone().unwrap_or_default()),
        ("demand_trees_hash".to_string(), card.demand_trees_hash.clone().unwrap_or_default()),
    ]);
    for (name, blend) in &card.blend.0 {
        parts.insert(format!("blend.{name}"), serde_json::to_string(blend).map_err(Failure::bug)?);
    }
    parts.insert("demand.blend".into(), serde_json::to_string(&card.demand.blend).map_err(Failure::bug)?);
    parts.insert("demand.calibration".into(), serde_json::to_string(&card.demand.calibration).map_err(Failure::bug)?);
    for feature in &card.features.0 {
        parts.insert(format!("feature.{}", feature.name), feature.dtype.clone());
    }
    for (section, settings) in card.settings.as_object().into_iter().flatten() {
        for (key, value) in settings.as_object().into_iter().flatten() {
            parts.insert(format!("{section}.{key}"), value.to_string());
        }
    }
    // Times always differ.
    let figures = card.figures.iter().filter(|(name, _)| !name.contains("second"));
    parts.extend(figures.map(|(name, value)| (format!("figure.{name}"), format!("{value:.6}"))));
    Ok(parts)
}

fn print_differences(cards: &[BundleCard; 2], format: Format) -> Result<()> {
    let [first, second] = [parts(&cards[0])?, parts(&cards[1])?];
    let names: BTreeSet<&String> = first.keys().chain(second.keys()).collect();
    let differing: Vec<&String> = names.into_iter().filter(|name| first.get(*name) != second.get(*name)).collect();
    let column = |of: &dyn Fn(&String) -> Option<String>| -> ArrayRef {
        Arc::new(differing.iter().map(|name| of(name)).collect::<StringArray>())
    };
    let columns = [
        ("part", column(&|name| Some(name.clone()))),
        (cards[0].version.as_str(), column(&|name| first.get(name).cloned())),
        (cards[1].version.as_str(), column(&|name| second.get(name).cloned())),
    ];
    format::print_columns(&columns, format)
}

async fn list(registry: &Registry) -> Result<Vec<Line>> {
    let champion = registry.champion().await?;
    let mut lines = Vec::new();
    for card in registry.versions().await? {
        lines.push(Line {
            champion: if champion.as_ref() == Some(&card.version) { "yes" } else { "" },
            kind: "night",
            version: card.version,
            labels_end: card.labels_end,
            figures: card.figures,
        });
    }
    let tables = registry.cards_of::<TableCard>().await?.into_iter();
    lines.extend(tables.map(|card| Line::labelled(card.version, "table", card.figures)));
    let texts = registry.cards_of::<TextCard>().await?.into_iter();
    lines.extend(texts.map(|card| Line::labelled(card.version, "text", card.figures)));
    let images = registry.cards_of::<ImageModelCard>().await?.into_iter();
    lines.extend(images.map(|card| Line::labelled(card.version, "image", card.figures)));
    Ok(lines)
}
