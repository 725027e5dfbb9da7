//! Reads a table from CSV or Parquet, draws a sample where it is too large, and splits its rows.

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch};
use arrow::compute::{cast, concat_batches, filter, filter_record_batch};
use arrow::datatypes::{DataType, Float64Type, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::{CsvReadOptions, DataFrame, ParquetReadOptions, SessionContext};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use std::collections::HashSet;
use std::sync::Arc;

use super::{TableOptions, csv};
use crate::config::Config;
use crate::engine;
use crate::failure::{Failure, FailureKind, Result};
use crate::lake::{stores::Location, unreadable};
use crate::training::datasets::{Split, split};
use crate::training::fitting::TrainingFingerprint;

const SPLIT_BY_HASH: &str = "split 80/10/10 by a hash of the row";

/// A table in memory, each row with its part.
#[derive(Debug)]
pub struct Table {
    pub rows: RecordBatch,
    /// Where each row stands among all that were found, from 1.
    pub numbers: Vec<usize>,
    parts: Vec<Split>,
    /// How the parts were made, for people.
    pub split_by: String,
    /// Rows that lacked a label, or the one column that is read.
    pub left_out: usize,
    /// Of the one column that is read: its values on rows without a label, but for values that validation or test rows have,
    /// and for rows that would lie among those. None where nobody asked for them.
    pub unlabelled: Option<ArrayRef>,
}

impl Table {
    pub fn rows_of(&self, part: Split) -> Vec<usize> {
        (0..self.parts.len()).filter(|&row| self.parts[row] == part).collect()
    }

    /// Splits by other keys than a hash of the row: what is equal for whoever looks at it lies in one part. A split by time
    /// stays.
    pub fn split_by_keys(&mut self, keys: &[String]) {
        if self.split_by == SPLIT_BY_HASH {
            self.parts = keys.iter().map(|key| split(key)).collect();
        }
    }

    /// Notes rows, how they are split, and what is asked of them.
    pub fn fingerprint(&self, options: &TableOptions, fingerprint: &mut TrainingFingerprint) -> Result<()> {
        fingerprint.add_debug(&(&options.label, &options.category, &options.exclude, &self.parts))?;
        // As rows: a long array prints its ends alone.
        if let Some(unlabelled) = &self.unlabelled {
            fingerprint.add_rows(&RecordBatch::try_from_iter([("unlabelled", Arc::clone(unlabelled))])?)?;
        }
        fingerprint.add_rows(&self.rows)
    }

    /// The keys of rows that are not trained on.
    fn held_out<'a>(&self, keys: &'a [String]) -> HashSet<&'a str> {
        keys.iter().zip(&self.parts).filter(|(_, part)| **part != Split::Train).map(|(key, _)| key.as_str()).collect()
    }
}

pub async fn read(config: &Config, options: &TableOptions) -> Result<Table> {
    read_by(config, options, None).await
}

/// The one column that a task reads beside the labels.
#[derive(Debug, Clone, Copy)]
pub struct Only<'a> {
    /// What names it on the command line.
    pub flag: &'a str,
    pub column: &'a str,
    /// What it holds: `a text`.
    pub what: &'a str,
    /// Whether its values on rows without a label are wanted, too.
    pub spare: bool,
}

/// With `only`, that column is the one input, its hash splits the rows, and rows without it are left out.
pub async fn read_by(config: &Config, options: &TableOptions, only: Option<Only<'_>>) -> Result<Table> {
    // One partition: with more, rows come in another order each time, and the weights follow the order.
    let ctx = engine::session(&config.with(&[("engine.partitions".into(), "1".into())])?)?;
    let Opened { mut frame, parquet } = open(&ctx, config, options).await?;
    refuse_unknown(frame.schema().as_arrow(), options, only)?;
    if let Some(only) = only {
        let mut wanted: Vec<&str> = vec![only.column];
        wanted.extend(options.label.iter().chain(&options.time_column).map(String::as_str));
        wanted.sort_unstable();
        wanted.dedup();
        frame = frame.select_columns(&wanted)?;
    }
    let schema = frame.schema().as_arrow().clone();
    let features = match only {
        Some(only) => vec![only.column.to_string()],
        None => feature_names(&schema, options)?,
    };
    let needed: Vec<&str> = options.label.iter().map(String::as_str).chain(only.map(|only| only.column)).collect();
    let found = frame.clone().count().await.map_err(damaged)?;
    let share = f64::from(config.train.rows_max) / found.max(1) as f64;
    if share < 1.0 {
        tracing::info!("training: {found} rows, of which about {} are read (train.rows_max)", config.train.rows_max);
    }
    let (mut batches, mut keys, mut left_out) = (Vec::new(), Vec::new(), 0);
    let (mut numbers, mut seen) = (Vec::new(), 0);
    let spared = only.filter(|only| only.spare).map(|only| only.column);
    let (mut spare_batches, mut spare_keys) = (Vec::new(), Vec::new());
    let mut stream = frame.execute_stream().await?;
    while let Some(batch) = stream.try_next().await.transpose() {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) => return Err(named(&ctx, &parquet, &schema, damaged(error)).await),
        };
        let known = whole(&batch, &needed)?;
        left_out += known.iter().filter(|known| !**known).count();
        let of_batch = row_keys(&batch, &features)?;
        let chosen = |row: usize| share >= 1.0 || in_share(&of_batch[row], share);
        let mask: Vec<bool> = (0..batch.num_rows()).map(|row| known[row] && chosen(row)).collect();
        if let Some(column) = spared {
            let there = whole(&batch, &[column])?;
            let mask: Vec<bool> = (0..batch.num_rows()).map(|row| there[row] && !known[row] && chosen(row)).collect();
            spare_keys.extend(of_batch.iter().zip(&mask).filter(|(_, kept)| **kept).map(|(key, _)| key.clone()));
            spare_batches.push(filter_record_batch(&batch, &mask.into())?);
        }
        numbers.extend((0..batch.num_rows()).filter(|&row| mask[row]).map(|row| seen + row + 1));
        seen += batch.num_rows();
        keys.extend(of_batch.into_iter().zip(&mask).filter(|(_, kept)| **kept).map(|(key, _)| key));
        batches.push(filter_record_batch(&batch, &mask.into())?);
    }
    let schema = std::sync::Arc::new(schema);
    let rows = concat_batches(&schema, &batches)?;
    if left_out > 0 {
        let lack = only.map_or("a label".into(), |only| format!("a label or {}", only.what));
        tracing::warn!("training: {left_out} rows without {lack} are left out");
    }
    let (parts, split_by, first_valid) = match &options.time_column {
        Some(column) => {
            let (parts, first_valid) = by_time(column, &rows)?;
            (parts, format!("split by {column}: 80 % earlier, 10 %, 10 % later"), Some((column.as_str(), first_valid)))
        }
        None => {
            let parts = keys.iter().map(|key| split(key)).collect();
            (parts, SPLIT_BY_HASH.into(), None)
        }
    };
    let mut table = Table { rows, parts, split_by, numbers, left_out, unlabelled: None };
    if let Some(column) = spared {
        let spare = concat_batches(&schema, &spare_batches)?;
        let mask = spare_rows(&spare, &spare_keys, &table.held_out(&keys), first_valid)?;
        table.unlabelled = Some(filter(spare.column(spare.schema().index_of(column)?), &mask.into())?);
    }
    Ok(table)
}

/// Which rows without a label may be read in training: what validation and test will show is not among them.
fn spare_rows(
    spare: &RecordBatch,
    keys: &[String],
    held_out: &HashSet<&str>,
    first_valid: Option<(&str, f64)>,
) -> Result<Vec<bool>> {
    let early: Vec<bool> = match first_valid {
        // A row without a time is in no part.
        Some((column, first)) => times(column, spare)?.iter().map(|time| time.is_some_and(|t| t < first)).collect(),
        None => keys.iter().map(|key| split(key) == Split::Train).collect(),
    };
    Ok(early.into_iter().zip(keys).map(|(early, key)| early && !held_out.contains(key.as_str())).collect())
}

/// The input columns: all but labels, the time column and what is left out.
pub fn feature_names(schema: &Schema, options: &TableOptions) -> Result<Vec<String>> {
    let left_out = |name: &String| {
        options.label.contains(name) || options.exclude.contains(name) || options.time_column.as_ref() == Some(name)
    };
    let names: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).filter(|name| !left_out(name)).collect();
    match names.is_empty() {
        false => Ok(names),
        true => Err(Failure::usage("--table: expected a column to learn from, all are labels or left out")),
    }
}

/// The rows of all tables.
struct Opened {
    frame: DataFrame,
    /// The files, where they are Parquet's.
    parquet: Vec<String>,
}

/// The failure with the file and the column that do not decode: Parquet's reader names neither.
async fn named(ctx: &SessionContext, parquet: &[String], schema: &Schema, failure: Failure) -> Failure {
    if !unreadable::undecoded(&failure) {
        return failure;
    }
    let columns: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    for url in parquet {
        let Ok(file) = ctx.read_parquet(url, ParquetReadOptions::default()).await else { continue };
        if let Ok(Some(column)) = unreadable::undecoded_column(&file, &columns).await {
            return failure
                .at(format!("{url}: column {column}"))
                .hint("mend or leave out the file, or make a column of bytes of it");
        }
    }
    failure
}

/// Opens files and folders of one kind.
async fn open(ctx: &SessionContext, config: &Config, options: &TableOptions) -> Result<Opened> {
    let (mut urls, mut kinds, mut files) = (Vec::new(), Vec::new(), Vec::new());
    for uri in &options.table {
        let place = Location::open(uri, &config.s3)?;
        ctx.register_object_store(&place.store_url()?, std::sync::Arc::clone(&place.store));
        // An object is listed below its own name by no store: what is listed lies in a folder.
        let objects = match place.store.head(&place.prefix).await {
            Ok(file) => vec![file],
            Err(_) => place.list().await?,
        };
        let of = |kind: &str| objects.iter().filter(|o| o.location.as_ref().ends_with(kind)).collect::<Vec<_>>();
        let (csv, parquet) = (of(".csv"), of(".parquet"));
        let chosen = if csv.is_empty() { parquet } else { csv };
        let Some(first) = chosen.first() else {
            return Err(Failure::input(format!("--table {uri}: expected .csv or .parquet files, found none"))
                .hint("unpack packed files first, such as by zstd -d or gunzip"));
        };
        kinds.push(first.location.as_ref().ends_with(".csv"));
        urls.extend(chosen.iter().map(|o| place.full_url(&o.location)));
        files.extend(chosen.into_iter().map(|o| (std::sync::Arc::clone(&place.store), o.location.clone())));
    }
    let csv = match kinds.as_slice() {
        [] => return Err(Failure::usage("train: pass --table and the files to learn from")),
        [first, rest @ ..] if rest.iter().all(|kind| kind == first) => *first,
        _ => return Err(Failure::usage("--table: expected CSV or Parquet, got both")),
    };
    let opened = match csv {
        true => {
            let delimiter = config.table.delimiter.as_bytes().first().copied().unwrap_or(b',');
            let schema = csv::schema(ctx, &files, delimiter).await.map_err(damaged)?;
            let format = CsvReadOptions::new().delimiter(delimiter).schema(&schema).newlines_in_values(true);
            ctx.read_csv(urls.clone(), format).await
        }
        false => ctx.read_parquet(urls.clone(), ParquetReadOptions::default()).await,
    };
    let parquet = if csv { Vec::new() } else { urls };
    Ok(Opened { frame: opened.map_err(damaged)?, parquet })
}

/// What a reader says of a file is about the file.
fn damaged(error: datafusion::error::DataFusionError) -> Failure {
    let failure = Failure::from(error).at("--table");
    match failure.kind {
        FailureKind::Bug => Failure { kind: FailureKind::Input, ..failure }
            .hint("look at the file; CSV needs a header line, and table.delimiter what stands between its fields"),
        _ => failure,
    }
}

fn refuse_unknown(schema: &Schema, options: &TableOptions, only: Option<Only<'_>>) -> Result<()> {
    if options.label.is_empty() {
        return Err(Failure::usage("train: pass --label and the column to learn"));
    }
    let flags = [("--label", &options.label), ("--category", &options.category), ("--exclude", &options.exclude)];
    let named = flags.iter().flat_map(|(flag, names)| names.iter().map(move |name| (*flag, name)));
    let named = named.map(|(flag, name)| (flag, name.as_str()));
    let time = options.time_column.as_deref().map(|name| ("--time-column", name));
    for (flag, name) in named.chain(time).chain(only.map(|only| (only.flag, only.column))) {
        if schema.index_of(name).is_err() {
            let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            return Err(Failure::usage(format!("{flag}: expected a column of the table, got {name:?}"))
                .hint(format!("its columns are {}", names.join(", "))));
        }
    }
    Ok(())
}

/// Whether a row has a value in every one of these columns.
fn whole(batch: &RecordBatch, columns: &[&str]) -> Result<Vec<bool>> {
    let mut known = vec![true; batch.num_rows()];
    for column in columns {
        if let Some(nulls) = batch.column(batch.schema().index_of(column)?).logical_nulls() {
            known.iter_mut().zip(nulls.iter()).for_each(|(known, valid)| *known &= valid);
        }
    }
    Ok(known)
}

/// A hash of each row's inputs: rows that look the same lie in one part, so that no test row was seen in training.
fn row_keys(batch: &RecordBatch, features: &[String]) -> Result<Vec<String>> {
    let options = FormatOptions::default().with_null("\u{1}");
    let columns = features.iter().filter_map(|name| batch.column_by_name(name));
    let columns: Vec<ArrayFormatter> =
        columns.map(|column| Ok(ArrayFormatter::try_new(column, &options)?)).collect::<Result<_>>()?;
    let key = |row: usize| {
        let mut hasher = blake3::Hasher::new();
        for column in &columns {
            hasher.update(column.value(row).to_string().as_bytes()).update(&[0]);
        }
        hasher.finalize().to_hex().to_string()
    };
    Ok((0..batch.num_rows()).map(key).collect())
}

/// Whether a key lies in a share of all. The end of the hash: its beginning splits the rows.
fn in_share(key: &str, share: f64) -> bool {
    let end = u64::from_str_radix(&key[key.len() - 8..], 16).unwrap_or_default();
    (end as f64) < share * 2f64.powi(32)
}

/// Earlier, later and last rows, and the first time of the later ones; equal times lie in one part.
fn by_time(column: &str, rows: &RecordBatch) -> Result<(Vec<Split>, f64)> {
    let times = times(column, rows)?;
    if times.null_count() > 0 || times.values().iter().any(|t| t.is_nan()) {
        return Err(no_times(column, "nulls"));
    }
    let mut sorted = times.values().to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |tenths: usize| sorted.get(sorted.len() * tenths / 10).copied().unwrap_or_default();
    let (valid, test) = (at(8), at(9));
    let part = |t: &f64| match t {
        t if *t < valid => Split::Train,
        t if *t < test => Split::Valid,
        _ => Split::Test,
    };
    Ok((times.values().iter().map(part).collect(), valid))
}

/// A time column as numbers.
fn times(column: &str, rows: &RecordBatch) -> Result<Float64Array> {
    let array = rows.column(rows.schema().index_of(column)?);
    let array = match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Boolean => {
            return Err(no_times(column, "text"));
        }
        DataType::Date32 => cast(&cast(array, &DataType::Int32)?, &DataType::Float64)?,
        other if other.is_temporal() => cast(&cast(array, &DataType::Int64)?, &DataType::Float64)?,
        _ => cast(array, &DataType::Float64)?,
    };
    Ok(array.as_primitive::<Float64Type>().clone())
}

fn no_times(column: &str, got: &str) -> Failure {
    Failure::input(format!("--time-column {column}: expected dates, times or numbers on every row, got {got}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Date32Array, StringArray};

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
    }

    #[test]
    fn later_rows_are_tested_and_equal_times_stay_together() {
        let days: Vec<i32> = (0..100).rev().map(|i| i / 4).collect();
        let (parts, first) = by_time("day", &batch(vec![("day", Arc::new(Date32Array::from(days.clone())))])).unwrap();
        let of = |part: Split| -> Vec<i32> {
            days.iter().zip(&parts).filter(|(_, p)| **p == part).map(|(day, _)| *day).collect()
        };
        let (train, valid, test) = (of(Split::Train), of(Split::Valid), of(Split::Test));
        assert_eq!((train.len(), valid.len(), test.len()), (80, 8, 12));
        assert!(train.iter().max() < valid.iter().min() && valid.iter().max() < test.iter().min());
        assert_eq!(valid.iter().min().map(|day| f64::from(*day)), Some(first));
        let text: ArrayRef = Arc::new(StringArray::from(vec!["Feb"]));
        let refused = by_time("month", &batch(vec![("month", text)])).unwrap_err();
        assert!(refused.message.contains("--time-column month: expected dates"), "{refused}");
    }

    #[test]
    fn equal_rows_have_equal_keys_and_null_is_not_the_word() {
        let a: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), Some("x"), None, Some("null"), Some("")]));
        let b: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 1.0, 1.0, 1.0, 1.0]));
        let keys = row_keys(&batch(vec![("a", a), ("b", b)]), &["a".into(), "b".into()]).unwrap();
        assert_eq!(keys[0], keys[1]);
        let different: std::collections::BTreeSet<&String> = keys.iter().collect();
        assert_eq!(different.len(), 4);
    }

    #[test]
    fn a_value_in_the_middle_of_rows_or_of_what_has_no_label_gives_another_fingerprint() {
        let texts = |changed: Option<usize>| -> ArrayRef {
            let of = |row| if changed == Some(row) { "another".to_string() } else { format!("text {row}") };
            Arc::new(StringArray::from_iter_values((0..100).map(of)))
        };
        let of = |rows: ArrayRef, unlabelled: ArrayRef| {
            let table = Table {
                rows: batch(vec![("text", rows)]),
                numbers: (1..=100).collect(),
                parts: vec![Split::Train; 100],
                split_by: SPLIT_BY_HASH.into(),
                left_out: 0,
                unlabelled: Some(unlabelled),
            };
            let mut fingerprint = TrainingFingerprint::new(&Config::default(), &()).unwrap();
            table.fingerprint(&TableOptions::default(), &mut fingerprint).unwrap();
            fingerprint.finish()
        };
        let whole = of(texts(None), texts(None));
        assert_eq!(whole, of(texts(None), texts(None)));
        assert_ne!(whole, of(texts(Some(50)), texts(None)));
        assert_ne!(whole, of(texts(None), texts(Some(50))));
    }

    #[test]
    fn rows_without_a_label_are_read_unless_validation_or_test_show_them() {
        let keys: Vec<String> =
            (0..200).map(|i| blake3::hash(format!("{i}").as_bytes()).to_hex().to_string()).collect();
        let days: ArrayRef = Arc::new(Float64Array::from_iter((0..200).map(|i| (i % 4 > 0).then_some(f64::from(i)))));
        let spare = batch(vec![("day", days)]);
        let held_out: HashSet<&str> = keys[10..20].iter().map(String::as_str).collect();
        for (row, read) in spare_rows(&spare, &keys, &held_out, None).unwrap().into_iter().enumerate() {
            assert_eq!(read, split(&keys[row]) == Split::Train && !(10..20).contains(&row), "{row}");
        }
        for (row, read) in spare_rows(&spare, &keys, &held_out, Some(("day", 100.0))).unwrap().into_iter().enumerate() {
            assert_eq!(read, row < 100 && row % 4 > 0 && !(10..20).contains(&row), "{row}");
        }
    }

    #[test]
    fn a_share_holds_its_share() {
        let keys = (0..10_000).map(|i| blake3::hash(format!("{i}").as_bytes()).to_hex().to_string());
        let kept = keys.filter(|key| in_share(key, 0.3)).count();
        assert!((2_800..3_200).contains(&kept), "{kept}");
    }
}
