//! `intentcast models`: lists the registry, or promotes a bundle.

use arrow::array::{ArrayRef, Float64Array, StringArray};
use async_trait::async_trait;
use clap::Args;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::command::{Command, Needs, Places};
use super::format::{self, Format};
use crate::config::Config;
use crate::failure::Result;
use crate::lake::stores::Location;
use crate::model::bundle::Registry;
use crate::model::table::bundle::TableCard;
use crate::model::text::bundle::TextCard;
use crate::model::vision::ImageModelCard;

/// List the models, or promote one to champion.
#[derive(Debug, Args)]
pub struct Models {
    #[command(flatten)]
    places: Places,
    /// Promote this version: nights use it from now on.
    #[arg(long, value_name = "VERSION")]
    promote: Option<String>,
    /// Print the list in this format.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
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
        Needs::output(&self.places)
    }

    async fn run(&self, config: &Config) -> Result<()> {
        let registry = Registry(Location::open(&config.output.uri, &config.s3)?.folder("models"));
        if let Some(version) = &self.promote {
            registry.promote(version).await?;
        }
        let lines = list(&registry).await?;
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
        format::print_columns(&columns, self.format)
    }
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
