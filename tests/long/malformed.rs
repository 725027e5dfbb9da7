//! Malformed Parquet files: each is read to the right rows or refused with exit 3 by name, and no process panics.
//!
//! `INTENTCAST_CASES=300` runs more files; `INTENTCAST_SEED=7` runs one and keeps its folder.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value as Json};
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::process::{Command, Output};

use crate::support::cases;
use crate::support::malformed_files::{MUTATIONS, mutate};
use crate::support::random_files::{Column, Kind, to_json};
use crate::support::random_lake::RandomLake;

/// All columns as numbers and texts that JSON can hold, and a query with filters, which read statistics and indexes.
const ALL_ROWS: &str = "SELECT CAST(ts AS BIGINT) AS ts, event_type, user_id, item_id, event_id, session_id, \
    CAST(arrived_at AS BIGINT) AS arrived_at, query, dwell_ms, quantity, CAST(price AS VARCHAR) AS price, currency, rating, \
    text FROM events; \
    SELECT count(*) AS filtered FROM events WHERE ts > TIMESTAMP '2000-01-01' AND user_id > '1' AND price > 1 AND quantity = 1";
const COUNTS: &str = "SELECT (SELECT count(*) FROM unit_event) + (SELECT count(*) FROM unit_quarantine) AS n";
const FILE: &str = "events/part-0.parquet";

/// Seconds after which a read counts as endless.
const SECONDS_MAX: &str = "120";

fn run(folder: &Path, places: &[&str], sql: &str) -> Output {
    let mut command = Command::new("timeout");
    command.args([SECONDS_MAX, env!("CARGO_BIN_EXE_intentcast")]);
    for setting in ["lake.partition=none", "lake.arrival=none", "lake.quarantine_share_max=1.0"] {
        command.args(["--set", setting]);
    }
    command.arg("sql");
    for place in places {
        command.arg(format!("--{place}")).arg(folder.join(place));
    }
    cases::VARIABLES.iter().for_each(|name| _ = command.env_remove(name));
    command.args(["--date", "2026-01-01", "--format", "json", "-c", sql]).output().unwrap()
}

/// Returns the row as text, with one spelling of each price.
fn row_text(columns: &[Column], row: &Map<String, Json>) -> String {
    let cells = columns.iter().map(|column| match row.get(column.name) {
        None | Some(Json::Null) => "-".into(),
        Some(Json::String(price)) if column.kind == Kind::Number => format!("{:?}", price.parse::<f64>().unwrap()),
        Some(value) => value.to_string(),
    });
    cells.collect::<Vec<String>>().join(" ")
}

fn printed_rows(columns: &[Column], printed: &str) -> Vec<String> {
    let rows = printed.lines().map(|line| serde_json::from_str::<Map<String, Json>>(line).unwrap());
    // Null columns are not printed, so that a row may have none.
    let rows = rows.filter(|row| !row.contains_key("filtered")).map(|row| row_text(columns, &row));
    sorted(rows.collect())
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

/// Returns the rows that the parquet crate alone reads from the bytes.
fn rows_directly(columns: &[Column], bytes: &[u8]) -> Option<Vec<String>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes.to_vec())).ok()?.build().ok()?;
    let mut rows = Vec::new();
    for batch in reader {
        let batch = batch.ok()?;
        let mut objects = vec![Map::new(); batch.num_rows()];
        for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
            let Some(column) = columns.iter().find(|c| c.name.eq_ignore_ascii_case(field.name())) else { continue };
            for (object, value) in objects.iter_mut().zip(values(column, array)?) {
                object.insert(column.name.into(), value);
            }
        }
        rows.extend(objects.iter().map(|row| row_text(columns, row)));
    }
    Some(sorted(rows))
}

fn values(column: &Column, array: &ArrayRef) -> Option<Vec<Json>> {
    let wholes = |array: &ArrayRef| -> Option<Vec<Json>> {
        Some(cast(array, &DataType::Int64).ok()?.as_primitive::<Int64Type>().iter().map(Json::from).collect())
    };
    match column.kind {
        Kind::Time => wholes(&cast(array, &DataType::Timestamp(TimeUnit::Microsecond, None)).ok()?),
        Kind::Whole => wholes(array),
        Kind::Number => {
            let numbers = cast(array, &DataType::Float64).ok()?;
            Some(numbers.as_primitive::<Float64Type>().iter().map(|x| x.map(|x| format!("{x:?}")).into()).collect())
        }
        _ if *array.data_type() == DataType::FixedSizeBinary(16) => {
            let ids = array.as_fixed_size_binary().iter();
            Some(ids.map(|id| id.map(|id| uuid::Uuid::from_slice(id).unwrap().to_string()).into()).collect())
        }
        _ => Some(cast(array, &DataType::Utf8).ok()?.as_string::<i32>().iter().map(Json::from).collect()),
    }
}

fn check(seed: u64) -> Result<(), String> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let lake = RandomLake::sound(&mut rng);
    let file = lake.files.iter().max_by_key(|file| file.rows.len()).unwrap();
    let mutation = MUTATIONS[seed as usize % MUTATIONS.len()];
    let bytes = mutate(&mut rng, file, mutation);
    let folder = tempfile::Builder::new().disable_cleanup(cases::is_repeated()).tempdir().unwrap();
    let path = folder.path().join("lake").join(FILE);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, &bytes).unwrap();

    let read = || panic::catch_unwind(AssertUnwindSafe(|| rows_directly(&lake.columns, &bytes))).ok().flatten();
    let printed = refused_by_name(&run(folder.path(), &["lake"], ALL_ROWS))
        .map_err(|e| format!("{mutation}: {e}"))?
        .unwrap_or_default();
    if !printed.is_empty() {
        let found = printed_rows(&lake.columns, &printed);
        let written = file.rows.iter().map(|row| row_text(&lake.columns, &to_json(&lake.columns, row)));
        // Pages have no checksum: other bytes may be another value. Then the rows must be those of the bytes.
        if found != sorted(written.collect()) && Some(&found) != read().as_ref() {
            return Err(format!("{mutation}: expected the rows of the file {:?}, found {found:?}", read()));
        }
    }
    if seed.is_multiple_of(6) {
        let counted = refused_by_name(&run(folder.path(), &["lake", "output"], COUNTS));
        let rows = printed_rows(&lake.columns, &printed).len();
        match counted.map_err(|e| format!("{mutation}: rollups: {e}"))? {
            Some(counted) if printed.is_empty() || counted.trim() != format!("{{\"n\":{rows}}}") => {
                return Err(format!("{mutation}: expected {rows} rows in the rollups, found {counted}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns what was printed; `None` for a refusal that names the file. Anything else is a fault.
fn refused_by_name(output: &Output) -> Result<Option<String>, String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    let fault = |what: &str| Err(format!("{what}: {:?}\n{errors}", output.status));
    match output.status.code() {
        Some(0) => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        Some(3) if !errors.contains(FILE) => fault("the refusal does not name the file"),
        Some(3) if errors.contains("bug in intentcast") => fault("a damaged file is no bug"),
        Some(3) => Ok(None),
        _ => fault("expected exit 0 or 3"),
    }
}

#[test]
fn malformed_files_are_read_right_or_refused_by_name() {
    cases::check_all(&cases::seeds(60), check);
}
