//! `intentcast promote`: makes a better model the champion.

use arrow::array::{ArrayRef, StringArray};
use async_trait::async_trait;
use clap::Args;
use std::sync::Arc;

use super::command::{Command, Needs, Places};
use super::format::{self, Format};
use crate::config::Config;
use crate::evaluation::{self, Comparison, Judge, Verdict};
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::bundle::{BundleCard, Registry};
use crate::model::promotions::{Decision, NEWEST, Promotion};
use crate::score::models::Models;
use crate::workspace::{Access, Workspace};

/// Make a model the champion, which nights use, if it is better than the present one.
///
/// Both models score the users as of the newest date whose outcomes are complete and from which neither has learnt. The model becomes
/// champion if it is better by promotion.better and not worse by any of promotion.guard, beyond the 95 % interval of the difference.
/// Otherwise the command ends with exit code 4. Without a champion it has to be better than the baselines of its training.
#[derive(Debug, Args)]
pub struct Promote {
    #[command(flatten)]
    places: Places,
    /// Version to promote; `newest` for the newest that can be judged (with --force: the newest).
    #[arg(value_name = "VERSION")]
    version: String,
    /// Promote without judging; needs no lake.
    #[arg(long)]
    force: bool,
}

#[async_trait(?Send)]
impl Command for Promote {
    fn needs(&self) -> Needs<'_> {
        match self.force {
            true => Needs::output(&self.places),
            false => Needs::lake_and_models(&self.places),
        }
    }

    async fn run(&self, config: &Config) -> Result<()> {
        let registry = Registry(Location::open(&config.output.uri, &config.s3)?.folder("models"));
        if !config.model.version.is_empty() {
            tracing::warn!(
                "nights use {}, which model.version names, whichever model is champion",
                config.model.version
            );
        }
        match (self.force, registry.champion().await?) {
            (true, champion) => self.promote_unjudged(&registry, champion).await,
            (false, None) => self.promote_first(&registry).await,
            (false, Some(champion)) => self.promote_better(config, &registry, champion).await,
        }
    }
}

impl Promote {
    /// Returns the named version; `None` where there is no model at all.
    async fn named(&self, registry: &Registry) -> Result<Option<BundleCard>> {
        match self.version.as_str() {
            NEWEST => Ok(registry.versions().await?.pop()),
            version => registry.resolve(version).await.map(Some),
        }
    }

    async fn promote_unjudged(&self, registry: &Registry, champion: Option<String>) -> Result<()> {
        let Some(card) = self.named(registry).await? else { return Err(no_model(registry)) };
        if champion.as_ref() == Some(&card.version) {
            return print_is_champion(&card.version);
        }
        registry.decide(&Promotion::new(Decision::Forced, &card.version, champion)).await?;
        say!("champion: {}, without being judged", card.version);
        Ok(())
    }

    async fn promote_first(&self, registry: &Registry) -> Result<()> {
        let Some(challenger) = self.named(registry).await? else {
            say!("there is no model yet");
            return Ok(());
        };
        let comparison = evaluation::compare_with_baselines(&challenger.figures);
        decide(registry, &challenger, None, &comparison).await
    }

    async fn promote_better(&self, config: &Config, registry: &Registry, champion: String) -> Result<()> {
        if self.version == champion {
            return print_is_champion(&champion);
        }
        let models = Arc::new(Models::new(config)?);
        let workspace = Workspace::open(config, models, Access::ReadOnly).await?;
        let judge = Judge::new(&workspace).await?;
        let champion_card = registry.resolve(&champion).await.map_err(|failure| {
            Failure { message: format!("the champion {champion} cannot be read: {}", failure.message), ..failure }
                .hint("restore its folder, or promote another version with --force")
        })?;
        let challenger = match self.version.as_str() {
            NEWEST => match newest(registry, &champion, &judge).await? {
                Some(card) => card,
                None => return print_is_champion(&champion),
            },
            version => registry.resolve(version).await?,
        };
        let comparison = judge.compare(&challenger, &champion_card).await?;
        decide(registry, &challenger, Some(champion), &comparison).await
    }
}

/// Returns the newest model that can be judged, of those that were trained after the champion and not rolled back. `None` where there is
/// none of these; fails where they cannot be judged yet.
async fn newest(registry: &Registry, champion: &str, judge: &Judge<'_>) -> Result<Option<BundleCard>> {
    let newer = registry.challengers(champion).await?;
    let Some(first) = newer.first() else { return Ok(None) };
    judge.require_outcomes(first)?;
    let mut newest = None;
    for card in newer {
        if judge.can_judge(&card)? {
            newest = Some(card);
        }
    }
    Ok(newest)
}

fn no_model(registry: &Registry) -> Failure {
    Failure::model(format!("{}: there is no model yet", registry.0.url))
        .hint("run `intentcast train` with the same --lake and --output")
}

fn print_is_champion(version: &str) -> Result<()> {
    say!("{version} is the champion already");
    Ok(())
}

/// Prints and records a comparison. Fails where the model does not become champion.
async fn decide(
    registry: &Registry,
    challenger: &BundleCard,
    champion: Option<String>,
    comparison: &Comparison,
) -> Result<()> {
    let version = &challenger.version;
    print_comparison(comparison)?;
    let is_better = comparison.is_better();
    let decision = if is_better { Decision::Promoted } else { Decision::Refused };
    let promotion = Promotion {
        run_date: comparison.run_date.map(|date| date.to_string()),
        compared: serde_json::to_value(&comparison.compared).map_err(Failure::bug)?,
        ..Promotion::new(decision, version, champion.clone())
    };
    registry.decide(&promotion).await?;
    if is_better {
        say!("champion: {version}");
        return Ok(());
    }
    let stays = champion.map_or(String::new(), |champion| format!("{champion} stays the champion; "));
    Err(Failure::check(format!("model {version}: not promoted: {}", comparison.objections().join(", ")))
        .hint(format!("{stays}--force promotes without judging")))
}

fn print_comparison(comparison: &Comparison) -> Result<()> {
    if let Some(date) = comparison.run_date {
        say!("outcomes of the days from {date} on, which neither model has learnt from");
    }
    let rows = &comparison.compared;
    let column = |text: &dyn Fn(&evaluation::Compared) -> String| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(text(row))).collect::<StringArray>())
    };
    let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.4}"));
    let difference = |row: &evaluation::Compared| {
        let interval = row.interval.map_or(String::new(), |(low, high)| format!(" ({low:.4} to {high:.4})"));
        let both = row.challenger.zip(row.champion);
        both.map_or(String::new(), |(challenger, champion)| format!("{:.4}{interval}", challenger - champion))
    };
    let verdict = |row: &evaluation::Compared| {
        match row.verdict {
            Verdict::Better => "better",
            Verdict::NotBetter => "not better",
            Verdict::NotWorse => "not worse",
            Verdict::Worse => "worse",
            Verdict::NotJudged => "not judged",
        }
        .to_string()
    };
    let other = if comparison.run_date.is_some() { "champion" } else { "baseline" };
    let columns = [
        ("figure", column(&|row| row.figure.clone())),
        ("challenger", column(&|row| number(row.challenger))),
        (other, column(&|row| number(row.champion))),
        ("difference", column(&difference)),
        ("verdict", column(&verdict)),
    ];
    format::print_columns(&columns, Format::Table)
}
