//! What each verb of the command line does with the rooms, and what it prints at its end.

use arrow::array::{Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::prelude::SessionContext;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::dry_run;
use crate::engine;
use crate::failure::{Failure, Result};
use crate::features::{self, contract, rollups, rollups::Rollups, user_functions, views};
use crate::ids::RunDate;
use crate::importing;
use crate::lake::{Lake, stores::Location};
use crate::model::bundle::{BundleCard, Registry};
use crate::model::table::bundle::TableCard;
use crate::model::text::bundle::TextCard;
use crate::model::vision::ImageModelCard;
use crate::nightly::{self, NightOptions, NightReport};
use crate::publish::{checks, earlier::EarlierNights, gc, night::FaultPoint, readers, runs};
use crate::score::{models::Models, operator};
use crate::shell::{self, Format};
use crate::simulation::{self, SimulateOptions};
use crate::sql_files::SqlFiles;
use crate::training;
use crate::training::labelled::InputOptions;
use crate::training::sweep::{Sweep, Trial};
use crate::training::table::TableOptions;

pub async fn simulate(config: &Config, to: &str, options: &SimulateOptions) -> Result<()> {
    let report = simulation::run(&Location::open(to, &config.s3)?, options).await?;
    println!("{report}");
    Ok(())
}

pub async fn import(config: &Config, name: &str, files: &[PathBuf], to: &str) -> Result<()> {
    let report = importing::run(config, name, files, to).await?;
    println!("{report}");
    println!("next: intentcast sql --lake {to} -c 'SELECT event_type, count(*) FROM events GROUP BY event_type'");
    Ok(())
}

/// Runs the nights of a range, oldest first; stops at the first that fails.
pub async fn nightly(
    config: &Config,
    (from, to): (RunDate, RunDate),
    deadline_seconds: Option<u64>,
    only_plan: bool,
    format: Format,
    die_at: Option<String>,
) -> Result<()> {
    let models = Arc::new(Models::new(config)?);
    let mut run_date = from;
    while run_date <= to {
        if only_plan {
            let plan = dry_run::plan(config, run_date).await.map_err(|f| f.at(format!("night of {run_date}")))?;
            match format {
                Format::Json => println!("{}", serde_json::to_string(&plan).map_err(Failure::bug)?),
                _ => print!("{plan}"),
            }
        } else {
            let deadline = deadline_seconds.map(Duration::from_secs);
            let options = NightOptions { run_date, deadline, fault: FaultPoint(die_at.clone()) };
            let report = nightly::run(config, &models, &options).await;
            let report = report.map_err(|f| f.at(format!("night of {run_date}")))?;
            summarise(config, &report, format)?;
        }
        run_date = run_date.plus_days(1);
    }
    Ok(())
}

fn summarise(config: &Config, report: &NightReport, format: Format) -> Result<()> {
    if format == Format::Json {
        println!("{}", serde_json::to_string(report).map_err(Failure::bug)?);
        return Ok(());
    }
    if !report.published {
        println!("night of {}: already published, nothing changed", report.run_date);
        return Ok(());
    }
    println!(
        "night of {} published as generation {} by model {}",
        report.run_date, report.generation, report.model_version
    );
    println!(
        "read {} files ({} bytes, {} rows), skipped {} files ({} bytes); encoded {} users, kept {}",
        report.read.files_read,
        report.read.bytes_read,
        report.read.rows_read,
        report.read.files_skipped,
        report.read.bytes_skipped,
        report.users_encoded,
        report.users_kept
    );
    let tables = report.table_rows.keys();
    let names: StringArray = tables.clone().map(|t| Some(t.as_str())).collect();
    let rows: StringArray = report.table_rows.values().map(|n| Some(n.to_string())).collect();
    let paths: StringArray = tables.map(|t| report.table_paths.get(t).map(String::as_str)).collect();
    print_columns(&[("table", names), ("rows", rows), ("path", paths)], format)?;
    let (lake, output) = (&config.lake.uri, &config.output.uri);
    println!(
        "next: intentcast sql --lake {lake} --output {output} -c 'SELECT * FROM replenishment ORDER BY stock_out_risk DESC LIMIT 10'"
    );
    Ok(())
}

fn print_columns(columns: &[(&str, StringArray)], format: Format) -> Result<()> {
    let fields: Vec<Field> = columns.iter().map(|(name, _)| Field::new(*name, DataType::Utf8, true)).collect();
    let arrays = columns.iter().map(|(_, a)| Arc::new(a.clone()) as _).collect();
    shell::print(&[RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?], format)
}

pub async fn rollback(config: &Config, date: RunDate) -> Result<()> {
    let output = Location::open(&config.output.uri, &config.s3)?;
    match runs::rollback(&output, date, &config.lock).await? {
        Some(night) => println!("visible now: {} generation {}", night.run_date(), night.run.generation),
        None => println!("no night is visible now"),
    }
    Ok(())
}

pub async fn train(config: &Config, date: RunDate, sweep: Option<PathBuf>) -> Result<()> {
    let sweep = sweep.map(|file| Sweep::read(&file)).transpose()?;
    let (card, trials) = training::run(config, date, sweep.as_ref()).await?;
    if !trials.is_empty() {
        print_trials(&trials)?;
    }
    println!("model {} (as of {}; labels end before {})", card.version, card.as_of_dates.join(", "), card.labels_end);
    print_figures(&card.figures)
}

pub async fn train_table(config: &Config, options: &TableOptions) -> Result<()> {
    let card = training::table::run(config, options).await?;
    println!("table model {} ({})", card.version, card.split);
    print_figures(&card.figures)?;
    let columns: Vec<String> = card.columns.0.iter().map(|c| format!("'{0}', \"{0}\"", c.name)).collect();
    let label = &card.labels[0].name;
    println!("in SQL: predict_table(named_struct({}), '{}', '{label}')", columns.join(", "), card.version);
    Ok(())
}

pub async fn train_text(config: &Config, table: &TableOptions, inputs: &InputOptions) -> Result<()> {
    let card = training::text::run(config, table, inputs).await?;
    println!("text model {} ({}; {})", card.version, card.strategy, card.split);
    print_figures(&card.figures)?;
    let (column, version, labels) = (&card.text_column, &card.version, card.labels.join(", "));
    println!("in SQL: classify_text(\"{column}\", '{version}', '{}'), of the labels {labels}", card.labels[0]);
    Ok(())
}

pub async fn train_image(config: &Config, table: &TableOptions, inputs: &InputOptions) -> Result<()> {
    let card = training::image::run(config, table, inputs).await?;
    println!("image model {} ({}; {})", card.version, card.strategy, card.split);
    print_figures(&card.figures)?;
    let (version, labels) = (&card.version, card.labels.join(", "));
    println!("in SQL, of bytes: classify_image(image, '{version}', '{}'), of the labels {labels}", card.labels[0]);
    Ok(())
}

/// Best first within each rung.
fn print_trials(trials: &[Trial]) -> Result<()> {
    let text = |of: &dyn Fn(&Trial) -> String| -> StringArray { trials.iter().map(|t| Some(of(t))).collect() };
    let settings = |t: &Trial| t.settings.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ");
    let value = |t: &Trial| t.value.map_or_else(|| t.failure.clone().unwrap_or("none".into()), |v| format!("{v:.5}"));
    let columns = [
        ("rung", text(&|t| t.rung.to_string())),
        ("trial", text(&|t| t.number.to_string())),
        ("epochs", text(&|t| t.epochs_max.to_string())),
        ("value", text(&value)),
        ("seconds", text(&|t| format!("{:.1}", t.seconds))),
        ("settings", text(&settings)),
    ];
    print_columns(&columns, Format::Table)
}

fn print_figures(figures: &BTreeMap<String, f64>) -> Result<()> {
    let names: StringArray = figures.keys().map(|k| Some(k.as_str())).collect();
    let values: StringArray = figures.values().map(|v| Some(format!("{v:.4}"))).collect();
    print_columns(&[("figure", names), ("value", values)], Format::Table)
}

pub async fn models(config: &Config, promote: Option<String>, format: Format) -> Result<()> {
    let registry = Registry(Location::open(&config.output.uri, &config.s3)?.folder("models"));
    if let Some(version) = promote {
        registry.promote(&version).await?;
    }
    let (cards, champion) = (registry.versions().await?, registry.champion().await?);
    let tables = registry.cards_of::<TableCard>().await?.into_iter().map(|c| (c.version, "table", c.figures));
    let texts = registry.cards_of::<TextCard>().await?.into_iter().map(|c| (c.version, "text", c.figures));
    let images = registry.cards_of::<ImageModelCard>().await?.into_iter().map(|c| (c.version, "image", c.figures));
    let others: Vec<(String, &str, BTreeMap<String, f64>)> = tables.chain(texts).chain(images).collect();
    let figures = || cards.iter().map(|c| &c.figures).chain(others.iter().map(|(.., figures)| figures));
    let figure = |name: &str| -> Float64Array { figures().map(|f| f.get(name).copied()).collect() };
    let text = |of: &dyn Fn(&BundleCard) -> String, of_other: &dyn Fn(&str, &str) -> String| -> StringArray {
        let others = others.iter().map(|(version, kind, _)| of_other(version, kind));
        cards.iter().map(of).chain(others).map(Some).collect()
    };
    let schema = Schema::new(vec![
        Field::new("version", DataType::Utf8, true),
        Field::new("kind", DataType::Utf8, true),
        Field::new("champion", DataType::Utf8, true),
        Field::new("labels_end", DataType::Utf8, true),
        Field::new("auc_test_purchase", DataType::Float64, true),
        Field::new("pinball_test", DataType::Float64, true),
    ]);
    let none = |_: &str, _: &str| String::new();
    let rows = RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(text(&|c| c.version.clone(), &|version, _| version.into())),
            Arc::new(text(&|_| "night".into(), &|_, kind| kind.into())),
            Arc::new(text(
                &|c| if champion.as_ref() == Some(&c.version) { "yes".into() } else { String::new() },
                &none,
            )),
            Arc::new(text(&|c| c.labels_end.clone(), &none)),
            Arc::new(figure("auc_test_purchase")),
            Arc::new(figure("pinball_test")),
        ],
    )?;
    shell::print(&[rows], format)
}

pub async fn sql(config: &Config, query: Option<String>, date: Option<RunDate>, format: Format) -> Result<()> {
    let ctx = sql_session(config, date).await?;
    match query {
        Some(query) => shell::query(&ctx, &query, format).await,
        None => shell::prompt(&ctx, format).await,
    }
}

/// A session with everything that is there, so that any file under sql/ runs when pasted: lake, state, features and
/// scores where a lake is given, tables where an output is.
pub async fn sql_session(config: &Config, date: Option<RunDate>) -> Result<SessionContext> {
    let ctx = operator::install(&engine::session(config)?, Arc::new(Models::new(config)?));
    let output = match config.output.uri.as_str() {
        "" => None,
        uri => Some(Location::open(uri, &config.s3)?),
    };
    let latest = match &output {
        Some(output) => readers::register_visible(&ctx, output).await?.map(|n| n.run_date()),
        None => None,
    };
    let files = SqlFiles::load(config)?;
    user_functions::create(&ctx, &files).await?;
    if config.lake.uri.is_empty() {
        return Ok(ctx);
    }
    let lake = Lake::open(config, &files).await?;
    let after_last = lake.files("events").iter().filter_map(|f| f.dt).max().map(|d| RunDate(d).plus_days(1));
    let date = date.or(latest).or(after_last).unwrap_or(RunDate(chrono::Utc::now().date_naive()));
    let Some(output) = output else {
        features::functions::register(&ctx, config, date)?;
        lake.register(&ctx, date).await?;
        return Ok(ctx);
    };
    let rollups = Rollups::refresh(&ctx, config, &files, &lake, date).await?;
    let nights = runs::visible_nights(&output).await?;
    EarlierNights::before(date, &nights, config).register(&ctx, &output).await?;
    features::register(&ctx, config, &files, &lake, &rollups, features::Scope::night(date)).await?;
    contract::register_model_input(&ctx).await?;
    rollups::register_no_known_ids(&ctx).await?;
    views::register(&ctx, &files, &["rollups", "score"]).await?;
    let users = ctx.sql("SELECT user_id FROM user_features").await?;
    checks::register_bounds(&ctx, &output, date, users, &config.checks).await?;
    Ok(ctx)
}

pub async fn gc(config: &Config, dry_run: bool) -> Result<()> {
    let output = Location::open(&config.output.uri, &config.s3)?;
    let plan = gc::plan(&output, &config.gc).await?;
    if !dry_run {
        gc::execute(&output, &plan, &config.lock).await?;
    }
    let (state_files, state_bytes) = plan.old_state();
    println!(
        "{} {} nights, {} files that nobody reads ({} bytes), {state_files} files of old state ({state_bytes} bytes), {} old lock objects",
        if dry_run { "would remove" } else { "removed" },
        plan.expired_nights.len(),
        plan.orphan_files.len(),
        plan.orphan_bytes(),
        plan.lock_objects.len()
    );
    Ok(())
}
