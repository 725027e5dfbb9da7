//! Reads a table: samples it if it is too large, ignores incomplete rows, and splits the rest.

use arrow::array::ArrayRef;
use arrow::compute::filter;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::prelude::{DataFrame, SessionContext};
use futures::TryStreamExt;
use std::sync::Arc;

use super::files::{self, OpenedFiles, unreadable_file};
use super::options::TableOptions;
use super::row_filter::{FilteredRows, KeyedRows, RowFilter};
use super::splits::RowSplits;
use super::table::{FlatTable, held_out_keys};
use crate::config::Config;
use crate::engine;
use crate::failure::{Failure, Result};

/// The one input column of a task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InputColumn<'a> {
    /// The flag that names the column.
    pub(crate) flag: &'a str,
    pub(crate) name: &'a str,
    /// Describes one value for messages, such as `a text`.
    pub(crate) description: &'a str,
    /// Also reads the values on rows without a label.
    pub(crate) with_unlabelled: bool,
}

/// Reads all columns; those that are neither labels nor excluded are the inputs. Rows without a label are ignored.
pub(crate) async fn read_all_columns(config: &Config, options: &TableOptions) -> Result<FlatTable> {
    let source = TableSource::open(config, options).await?;
    let schema = source.schema();
    refuse_unknown_columns(&schema, options, None)?;
    let filter = RowFilter {
        key_columns: feature_names(&schema, options)?,
        required_columns: options.label.clone(),
        unlabelled_input: None,
        sampled_share: 1.0,
    };
    let rows = source.read_rows(config, source.files.frame.clone(), filter).await?;
    warn_of_ignored_rows(&rows, "a label");
    split_rows(&schema, rows, options)
}

/// Reads the labels and one input column, which alone decides the split of a row. Rows without the column or a label
/// are ignored.
pub(crate) async fn read_input_column(
    config: &Config,
    options: &TableOptions,
    input: InputColumn<'_>,
) -> Result<FlatTable> {
    let source = TableSource::open(config, options).await?;
    refuse_unknown_columns(&source.schema(), options, Some(input))?;
    let mut selected: Vec<&str> = vec![input.name];
    selected.extend(options.label.iter().chain(&options.time_column).map(String::as_str));
    selected.sort_unstable();
    selected.dedup();
    let frame = source.files.frame.clone().select_columns(&selected)?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let filter = RowFilter {
        key_columns: vec![input.name.to_string()],
        required_columns: options.label.iter().cloned().chain([input.name.to_string()]).collect(),
        unlabelled_input: input.with_unlabelled.then(|| input.name.to_string()),
        sampled_share: 1.0,
    };
    let mut rows = source.read_rows(config, frame, filter).await?;
    warn_of_ignored_rows(&rows, &format!("a label or {}", input.description));
    let unlabelled = std::mem::take(&mut rows.unlabelled);
    let labelled_keys = rows.labelled.keys.clone();
    let mut table = split_rows(&schema, rows, options)?;
    if input.with_unlabelled {
        table.unlabelled = Some(unlabelled_inputs(&schema, &unlabelled, input.name, &table.splits, &labelled_keys)?);
    }
    Ok(table)
}

struct TableSource {
    ctx: SessionContext,
    files: OpenedFiles,
}

impl TableSource {
    async fn open(config: &Config, options: &TableOptions) -> Result<Self> {
        // One partition: with more, the order of rows differs from run to run, and weights depend on the order.
        let ctx = engine::session(&config.with(&[("engine.partitions".into(), "1".into())])?)?;
        let files = files::open(&ctx, config, &options.table).await?;
        Ok(Self { ctx, files })
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(self.files.frame.schema().as_arrow().clone())
    }

    /// Reads the rows that the filter selects; if there are too many, about `train.rows_max` of them.
    async fn read_rows(&self, config: &Config, frame: DataFrame, mut filter: RowFilter) -> Result<FilteredRows> {
        let found = frame.clone().count().await.map_err(unreadable_file)?;
        filter.sampled_share = f64::from(config.train.rows_max) / found.max(1) as f64;
        if filter.sampled_share < 1.0 {
            tracing::info!("training: sampling about {} of {found} rows (train.rows_max)", config.train.rows_max);
        }
        let schema = frame.schema().as_arrow().clone();
        let mut rows = FilteredRows::default();
        let mut stream = frame.execute_stream().await?;
        while let Some(batch) = stream.try_next().await.transpose() {
            match batch {
                Ok(batch) => rows.add(&batch, &filter)?,
                Err(error) => return Err(self.files.locate(&self.ctx, &schema, unreadable_file(error)).await),
            }
        }
        Ok(rows)
    }
}

fn split_rows(schema: &SchemaRef, filtered: FilteredRows, options: &TableOptions) -> Result<FlatTable> {
    let rows = filtered.labelled.concat(schema)?;
    let splits = match &options.time_column {
        Some(column) => RowSplits::by_time(column, &rows)?,
        None => RowSplits::by_hash(&filtered.labelled.keys),
    };
    let numbers = filtered.labelled.numbers;
    Ok(FlatTable { rows, numbers, splits, ignored_rows: filtered.ignored, unlabelled: None })
}

/// Returns the input column's values on unlabelled rows that training may use.
fn unlabelled_inputs(
    schema: &SchemaRef,
    unlabelled: &KeyedRows,
    column: &str,
    splits: &RowSplits,
    labelled_keys: &[String],
) -> Result<ArrayRef> {
    let rows = unlabelled.concat(schema)?;
    let held_out = held_out_keys(labelled_keys, splits);
    let mask = splits.usable_in_training(&rows, &unlabelled.keys, &held_out)?;
    Ok(filter(rows.column(rows.schema().index_of(column)?), &mask.into())?)
}

fn warn_of_ignored_rows(rows: &FilteredRows, lacking: &str) {
    if rows.ignored > 0 {
        tracing::warn!("training: ignored {} rows without {lacking}", rows.ignored);
    }
}

/// Returns the input columns: all except labels, excluded columns and the time column.
pub(crate) fn feature_names(schema: &Schema, options: &TableOptions) -> Result<Vec<String>> {
    let is_feature = |name: &String| {
        !options.label.contains(name) && !options.exclude.contains(name) && options.time_column.as_ref() != Some(name)
    };
    let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).filter(is_feature).collect();
    match names.is_empty() {
        false => Ok(names),
        true => Err(Failure::usage("--table: expected an input column, but all columns are labels or excluded")),
    }
}

fn refuse_unknown_columns(schema: &Schema, options: &TableOptions, input: Option<InputColumn<'_>>) -> Result<()> {
    if options.label.is_empty() {
        return Err(Failure::usage("train: pass --label and the column to learn"));
    }
    let mut named: Vec<(&str, &str)> = Vec::new();
    for (flag, names) in
        [("--label", &options.label), ("--category", &options.category), ("--exclude", &options.exclude)]
    {
        named.extend(names.iter().map(|name| (flag, name.as_str())));
    }
    named.extend(options.time_column.as_deref().map(|name| ("--time-column", name)));
    named.extend(input.map(|input| (input.flag, input.name)));
    for (flag, name) in named {
        if schema.index_of(name).is_err() {
            let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            return Err(Failure::usage(format!("{flag}: expected a column of the table, got {name:?}"))
                .hint(format!("its columns are {}", columns.join(", "))));
        }
    }
    Ok(())
}
