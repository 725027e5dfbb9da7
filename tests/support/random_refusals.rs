//! Faults of random lakes for which a file is refused by name.

use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;

use super::random_lake::{LakeFile, RandomLake};
use super::random_rows::{EVENT_TYPE, PRICE, QUANTITY, TS, USER};

/// A fault, and the texts that the refusal has.
#[derive(Debug)]
pub struct Planted {
    pub fault: &'static str,
    pub expected: Vec<String>,
}

/// Plants one fault in a file that a night of the lake's run date reads.
pub fn plant(rng: &mut ChaCha8Rng, lake: &mut RandomLake) -> Planted {
    // The day before the run date in UTC may not have begun two days before midnight in the lake's zone.
    let read: Vec<usize> = (0..lake.files.len())
        .filter(|&at| lake.files[at].dt.is_none_or(|dt| lake.run_date - dt > chrono::Duration::days(2)))
        .filter(|&at| !lake.files[at].rows.is_empty())
        .collect();
    let file = &mut lake.files[*read.choose(rng).unwrap()];
    let rows = file.rows.len();
    let texts = || Arc::new(StringArray::from(vec!["1"; rows])) as ArrayRef;
    let flags = || Arc::new(BooleanArray::from(vec![true; rows])) as ArrayRef;
    let numbers = || Arc::new(Float64Array::from(vec![1.0; rows])) as ArrayRef;
    let wholes = || Arc::new(Int64Array::from(vec![1; rows])) as ArrayRef;
    match rng.random_range(0..11) {
        0 => {
            let kept = rng.random_range(5..file.bytes.len());
            file.bytes.truncate(kept);
            planted("a cut file", file, "expected a whole Parquet file")
        }
        1 => {
            file.path = format!("{}.parquet", file.path);
            file.bytes.clear();
            planted("a file of 0 bytes", file, "0 bytes")
        }
        2 => replace(rng, file, (TS, "ts", texts()), "column ts: expected"),
        3 => replace(rng, file, (TS, "ts", wholes()), "column ts: expected"),
        4 => replace(rng, file, (USER, "user_id", numbers()), "column user_id: expected"),
        5 => replace(rng, file, (QUANTITY, "quantity", numbers()), "column quantity: expected"),
        6 => replace(rng, file, (PRICE, "price", flags()), "column price: expected"),
        7 => {
            // A name of another case, in addition to the column itself.
            let name = if file.shape.name_of(TS) == Some("Ts") { "tS" } else { "Ts" };
            file.bytes = file.shape.encode_with(rng, &file.rows, Some((usize::MAX, name, wholes())));
            planted("a column twice", file, "column ts: expected once, found 2 times")
        }
        8 => replace(rng, file, (EVENT_TYPE, "kind", texts()), "column event_type is missing"),
        9 => {
            file.path = file.path.replace("events/", "events/event_type=view/");
            let found = replace(rng, file, (EVENT_TYPE, "kind", texts()), "column event_type is in the folder's name");
            Planted { fault: "a column in the folder's name only", ..found }
        }
        _ => {
            let values = ["20250105", "2025-1-5", "__HIVE_DEFAULT_PARTITION__", "2025-02-30"];
            file.path = format!("events/dt={}/part-0.parquet", values.choose(rng).unwrap());
            planted("a partition that is no ISO date", file, "partition dt: expected an ISO date")
        }
    }
}

fn replace(rng: &mut ChaCha8Rng, file: &mut LakeFile, replaced: (usize, &str, ArrayRef), expected: &str) -> Planted {
    file.bytes = file.shape.encode_with(rng, &file.rows, Some(replaced));
    planted("a column of another type or name", file, expected)
}

fn planted(fault: &'static str, file: &LakeFile, expected: &str) -> Planted {
    // The name as it is in the store: `a%20b` is shown as it is.
    Planted { fault, expected: vec![file.path.clone(), expected.into()] }
}
