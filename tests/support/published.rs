//! The published tables of a night, and their comparison with those of another night.
//!
//! Nights that ran elsewhere, or in two attempts, batch their rows differently: numbers agree within 1e-5, not bit by
//! bit. Everything else is exact.

use datafusion::prelude::SessionContext;
use intentcast::config::S3Config;
use intentcast::lake::stores::Location;
use intentcast::publish::{readers, runs};
use intentcast::tables::schemas::{self, NIGHT_TABLES};
use std::collections::BTreeMap;

/// Every table of the latest visible night as CSV, ordered by its key.
pub type Published = BTreeMap<&'static str, String>;

/// Tables that have no rows with the default settings.
pub const WITHOUT_ROWS: [&str; 1] = ["intent_shadow"];

const TOLERANCE: f64 = 1e-5;

/// Returns a query for all columns of a table, in an order that is the same for every night.
fn rows_of(table: &str) -> String {
    let columns = schemas::table_schema(table).unwrap();
    let order = match schemas::spec(table).unwrap().key {
        [] => columns.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", "),
        key => key.join(", "),
    };
    let columns = columns.fields().iter().map(|field| match field.name().as_str() {
        // Copies of a lake have different roots; the paths below them are the same.
        "source_file" => "regexp_replace(source_file, '^.*/lake/', '') AS source_file".into(),
        name => name.to_string(),
    });
    format!("SELECT {} FROM {table} ORDER BY {order}", columns.collect::<Vec<_>>().join(", "))
}

/// Returns all of [`NIGHT_TABLES`] as readers see them. All but [`WITHOUT_ROWS`] must have rows, so that no comparison is empty.
pub fn published(output: &Location) -> Published {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let ctx = SessionContext::new();
        let nights = runs::visible_nights(output).await.unwrap();
        readers::register_visible(&ctx, output, &nights).await.unwrap();
        let mut tables = Published::new();
        for table in NIGHT_TABLES {
            let rows = ctx.sql(&rows_of(table)).await.unwrap().collect().await.unwrap();
            let mut csv = Vec::new();
            let mut writer = arrow::csv::Writer::new(&mut csv);
            rows.iter().for_each(|batch| writer.write(batch).unwrap());
            drop(writer);
            let csv = String::from_utf8(csv).unwrap();
            let has_rows = csv.lines().count() > 1;
            assert!(has_rows || WITHOUT_ROWS.contains(&table), "{table} of {} has no rows", output.url);
            tables.insert(table, csv);
        }
        tables
    })
}

/// Returns the tables of an output on local files.
pub fn published_at(folder: &str) -> Published {
    published(&Location::open(folder, &S3Config::default()).unwrap())
}

/// Counts the rows that readers see of a table on local files; a half-published night has none.
pub fn rows_visible(folder: &str, table: &str) -> usize {
    let output = Location::open(folder, &S3Config::default()).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let ctx = SessionContext::new();
        let nights = runs::visible_nights(&output).await.unwrap();
        readers::register_visible(&ctx, &output, &nights).await.unwrap();
        ctx.table(table).await.unwrap().count().await.unwrap()
    })
}

pub fn assert_same_night(left: &Published, right: &Published, place: &str) {
    for (table, rows) in left {
        let place = format!("{place}: {table}");
        match *table {
            "recommendation" => assert_same_recommendations(rows, &right[table], &place),
            _ => assert_equal_rows(rows, &right[table], &place),
        }
    }
}

/// Asserts equal tables: keys and text exact, numbers within 1e-5 of one another (relative above 1).
pub fn assert_equal_rows(left: &str, right: &str, place: &str) {
    assert_eq!(left.lines().count(), right.lines().count(), "{place}");
    for (a, b) in left.lines().zip(right.lines()) {
        let (of_a, of_b): (Vec<&str>, Vec<&str>) = (a.split(',').collect(), b.split(',').collect());
        assert_eq!(of_a.len(), of_b.len(), "{place}:\n{a}\n{b}");
        for (x, y) in of_a.iter().zip(&of_b) {
            assert!(x == y || near(x, y), "{place}: {x} and {y} in\n{a}\n{b}");
        }
    }
}

fn near(x: &str, y: &str) -> bool {
    match (x.parse::<f64>(), y.parse::<f64>()) {
        (Ok(x), Ok(y)) => (x - y).abs() <= TOLERANCE * x.abs().max(1.0),
        _ => false,
    }
}

/// Asserts equal recommendations by rank: users, ranks and scores as in [`assert_equal_rows`]. Items whose scores are nearer
/// than the tolerance may swap ranks, and the last one may be replaced by the next.
fn assert_same_recommendations(left: &str, right: &str, place: &str) {
    let scores = |table: &str| -> String {
        table
            .lines()
            .map(|line| {
                line.split(',').enumerate().filter(|(i, _)| *i != 2).map(|(_, v)| format!("{v},")).collect::<String>()
                    + "\n"
            })
            .collect()
    };
    assert_equal_rows(&scores(left), &scores(right), place);
    let rows: Vec<Vec<&str>> = left.lines().map(|line| line.split(',').collect()).collect();
    let apart = |a: usize, b: usize| -> bool {
        rows[a][0] != rows[b][0] || {
            let score = |row: usize| rows[row][3].parse::<f64>().unwrap();
            (score(a) - score(b)).abs() > 2.0 * TOLERANCE * score(a).abs().max(1.0)
        }
    };
    let mut exact = 0;
    for (row, other) in right.lines().enumerate().skip(1) {
        let last = row + 1 == rows.len() || rows[row + 1][0] != rows[row][0];
        if !last && apart(row, row + 1) && (row == 1 || apart(row, row - 1)) {
            assert_eq!(rows[row][2], other.split(',').nth(2).unwrap(), "{place}: {other}");
            exact += 1;
        }
    }
    assert!(exact > 0, "{place}: every item is tied with its neighbour");
}

#[test]
fn only_last_digits_and_tied_items_may_differ() {
    let refused = |left: &str, right: &str| {
        let (left, right) = (left.to_string(), right.to_string());
        std::panic::catch_unwind(move || assert_same_recommendations(&left, &right, "here")).is_err()
    };
    let rows = |items: [&str; 4], score: f64| {
        let scores = [0.9, 0.5, 0.4999999, score];
        let lines = items.iter().zip(scores).enumerate().map(|(i, (item, s))| format!("u1,{},{item},{s}\n", i + 1));
        format!("user_id,rank,item_id,score\n{}", lines.collect::<String>())
    };
    let one = rows(["a", "b", "c", "d"], 0.1);
    assert!(!refused(&one, &rows(["a", "c", "b", "e"], 0.100001)));
    assert!(refused(&one, &rows(["b", "a", "c", "d"], 0.1)));
    assert!(refused(&one, &rows(["a", "b", "c", "d"], 0.2)));
    assert!(std::panic::catch_unwind(|| assert_equal_rows("a,1.0", "b,1.0", "here")).is_err());
}
