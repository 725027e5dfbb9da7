//! Random lakes: every count of an event that a night derives equals a count by DuckDB, and a planted fault is refused by name.
//!
//! `INTENTCAST_CASES=200` runs more lakes; `INTENTCAST_SEED=7` runs one and keeps its folder.

use chrono::{DateTime, Days, NaiveDate};
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::cases;
use crate::support::random_lake::RandomLake;

type Object = Map<String, Json>;

/// The rows of a lake's counts, by part and key.
type Counts = BTreeMap<String, Object>;

/// Returns the statements of which each row has a name of its part, as `tests/support/count_lakes.py` has them.
fn statements(lake: &RandomLake) -> String {
    let wanted = lake.user_ids[0].replace('\'', "''");
    let counts = "CAST(sum(units) AS DOUBLE) AS units, CAST(sum(returns) AS DOUBLE) AS returns, \
                  CAST(sum(revenue) AS DOUBLE) AS revenue, sum(views) AS views, sum(carts) AS carts, \
                  CAST(sum(price_sum) AS DOUBLE) AS price_sum, sum(price_events) AS price_events";
    format!(
        "SELECT 'user' AS part, * FROM user_features;
        SELECT 'item_day' AS part, item_id, event_day, {counts} FROM item_day GROUP BY item_id, event_day;
        SELECT 'unit_item_day' AS part, {counts} FROM unit_item_day;
        SELECT 'quarantine' AS part, reason, coalesce(column_name, '') AS column_name, count(*) AS n
        FROM unit_quarantine GROUP BY reason, coalesce(column_name, '');
        SELECT 'inventory' AS part, item_id, as_of, on_hand FROM inventory;
        SELECT 'filtered' AS part, '{wanted}' AS wanted, count(*) AS n FROM events
        WHERE user_id = '{wanted}' AND ts >= as_of() - INTERVAL '30 days' AND ts < as_of() AND (quantity >= 1 OR price > 5)"
    )
}

fn run(lake: &RandomLake, folder: &Path, date: NaiveDate, flags: &[&str]) -> Output {
    let settings = lake.settings();
    let place = |name: &str| folder.join(name).display().to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_intentcast"));
    settings.iter().for_each(|setting| {
        command.args(["--set", setting]);
    });
    command.args(["sql", "--lake", &place("lake"), "--output", &place("out"), "--date", &date.to_string()]);
    cases::VARIABLES.iter().for_each(|name| _ = command.env_remove(name));
    command.args(["--format", "json"]).args(flags).output().unwrap()
}

/// Reads lines of JSON objects; a row is found by its part and its texts.
fn read(lines: &str) -> Counts {
    let mut counts = Counts::new();
    for line in lines.lines() {
        let row: Object = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        let keys = ["part", "user_id", "item_id", "event_day", "as_of", "reason", "column_name", "wanted"];
        let key: Vec<&str> = keys.iter().filter_map(|key| row.get(*key)?.as_str()).collect();
        let key = key.join("|");
        assert!(counts.insert(key.clone(), row).is_none(), "{key}: twice");
    }
    counts
}

fn equal(found: &Json, expected: &Json) -> bool {
    match (found.as_f64(), expected.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0),
        _ => found == expected,
    }
}

fn micros(time: &Json) -> Json {
    match time.as_str() {
        Some(text) => {
            DateTime::parse_from_rfc3339(&format!("{}Z", text.trim_end_matches('Z'))).unwrap().timestamp_micros().into()
        }
        None => Json::Null,
    }
}

/// Returns the last events of a user as sorted texts: time, type, item, category, price and dwell time.
fn events(list: &Json, value: impl Fn(&Json, usize) -> Json) -> Vec<String> {
    let mut events: Vec<String> = Vec::new();
    for event in list.as_array().into_iter().flatten() {
        let cells = (0..6).map(|at| match value(event, at) {
            Json::Null => "-".into(),
            Json::String(text) => text.parse::<f64>().map_or(text, |number| number.to_string()),
            number => number.as_f64().unwrap().to_string(),
        });
        events.push(cells.collect::<Vec<String>>().join(" "));
    }
    events.sort();
    events
}

fn same_events(found: &Json, expected: &Json) -> bool {
    let names = ["ts", "event_type", "item_id", "category", "price", "dwell_ms"];
    let ours = events(found, |event, at| match at {
        0 => micros(&event["ts"]),
        _ => event[names[at]].clone(),
    });
    ours == events(expected, |event, at| event[at].clone())
}

/// Compares the rows and all columns of ours with the independent count.
fn compare(found: &Counts, expected: &Counts) -> Result<(), String> {
    let mut faults = Vec::new();
    let missing = |row: &str| !row.starts_with("filtered") && !found.contains_key(row);
    faults.extend(expected.keys().filter(|row| missing(row)).map(|row| format!("{row}: missing")));
    for (key, row) in found {
        let Some(counted) = expected.get(key) else {
            let is_zero = key.starts_with("filtered") && row["n"] == 0;
            faults.extend(
                (!is_zero).then(|| format!("{key}: expected no such row, found {}", Json::Object(row.clone()))),
            );
            continue;
        };
        // Null columns are not printed.
        for name in row.keys().chain(counted.keys().filter(|name| !row.contains_key(*name))) {
            let ours = row.get(name).unwrap_or(&Json::Null);
            let Some(theirs) = counted.get(name) else {
                faults.push(format!("{key}: column {name}: count it in tests/support/count_lakes.py"));
                continue;
            };
            let same = match name.as_str() {
                "recent" => same_events(ours, theirs),
                "last_at" => equal(&micros(ours), theirs),
                _ => equal(ours, theirs),
            };
            faults.extend((!same).then(|| format!("{key}: {name}: expected {theirs}, found {ours}")));
        }
    }
    match faults.is_empty() {
        true => Ok(()),
        false => {
            Err(format!("{} differences, such as\n  {}", faults.len(), faults[..faults.len().min(8)].join("\n  ")))
        }
    }
}

fn check(lake: &RandomLake, folder: &Path) -> Result<(), String> {
    if lake.stored_before && lake.planted.is_none() {
        // The files that a night three weeks ago knew are rolled up and stored; the counts are of these and newer units.
        let before = run(lake, folder, lake.run_date - Days::new(21), &["--refresh", "-c", "SELECT 1"]);
        if !before.status.success() {
            return Err(format!("three weeks ago: {}", String::from_utf8_lossy(&before.stderr)));
        }
    }
    let output = run(lake, folder, lake.run_date, &["-c", &statements(lake)]);
    let (printed, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let about = format!("{} {} {} on {}", lake.partition, lake.arrival, lake.zone, lake.run_date);
    if let Some(planted) = &lake.planted {
        let named = planted.expected.iter().all(|text| errors.contains(text));
        return match output.status.code() == Some(3) && named && printed.is_empty() {
            true => Ok(()),
            false => Err(format!(
                "{about}: {}: expected {:?}, found {:?}\n{errors}",
                planted.fault, planted.expected, output.status
            )),
        };
    }
    if !output.status.success() {
        return Err(format!("{about}: {:?}\n{errors}", output.status));
    }
    let expected = read(&std::fs::read_to_string(folder.join("expected.json")).unwrap());
    compare(&read(&printed), &expected).map_err(|what| format!("{about}: {what}"))
}

#[test]
fn counts_of_random_lakes_equal_those_of_duckdb() {
    let seeds = cases::seeds(20);
    let root = tempfile::Builder::new().disable_cleanup(seeds.len() == 1).tempdir().unwrap();
    let folder = |seed: u64| root.path().join(seed.to_string());
    let lakes: BTreeMap<u64, RandomLake> = seeds.iter().map(|&seed| (seed, RandomLake::new(seed))).collect();
    lakes.iter().for_each(|(&seed, lake)| lake.write(&folder(seed), seed));
    let counted: Vec<PathBuf> = seeds.iter().filter(|s| lakes[s].planted.is_none()).map(|&s| folder(s)).collect();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let counter = Command::new(repository.join(".venv/bin/python"))
        .arg(repository.join("tests/support/count_lakes.py"))
        .args(&counted)
        .output()
        .unwrap();
    assert!(counter.status.success(), "{}", String::from_utf8_lossy(&counter.stderr));
    if let [seed] = seeds[..] {
        eprintln!("the lake of seed {seed} is in {}", folder(seed).display());
    }
    cases::check_all(&seeds, |seed| check(&lakes[&seed], &folder(seed)));
}
