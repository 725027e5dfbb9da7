//! MLflow and Weights & Biases read a training's journal with the Python of docs/howto/trackers.md, offline.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::support::clients::{self, Client};
use crate::support::journal::{metrics, run_folder};
use crate::support::repository::root;
use crate::support::server::python;
use crate::support::shop::shop;

/// The blocks of Python on the page.
fn blocks() -> Vec<String> {
    let page = std::fs::read_to_string(root().join("docs/howto/trackers.md")).unwrap();
    let after = page.split("```python\n").skip(1);
    after.map(|block| block.split_once("```").unwrap().0.to_string()).collect()
}

#[test]
fn the_journal_of_a_training_imports_with_the_documented_python() {
    let stamp = root().join(".clients/python/stamp");
    if !clients::all_here("the_journal_of_a_training_imports_with_the_documented_python", &[Client::File(&stamp)]) {
        return;
    }
    let (own, _lake, output) = shop();
    let output = Path::new(&output);
    let [reading, to_mlflow, to_wandb] = &blocks()[..] else { panic!("three blocks") };
    let mlruns = own.path().join("mlruns");
    for block in [to_mlflow, to_wandb] {
        let mut importing = Command::new(python());
        importing.args(["-c", &format!("{reading}{block}")]).current_dir(run_folder(output));
        // The package without a database keeps runs in files, which it calls old.
        importing
            .env("MLFLOW_ALLOW_FILE_STORE", "true")
            .env("MLFLOW_TRACKING_URI", format!("file://{}", mlruns.display()));
        importing.env("WANDB_MODE", "offline").env("WANDB_DIR", own.path());
        let ended = importing.output().unwrap();
        assert!(ended.status.success(), "{block}\n{}", String::from_utf8_lossy(&ended.stderr));
    }
    let mut reading = Command::new(python());
    reading.arg(root().join("tests/support/read_trackers.py")).arg(&mlruns).arg(own.path());
    let kept = clients::run(reading.env("MLFLOW_ALLOW_FILE_STORE", "true"));

    let rows = metrics(output);
    let mut curves: BTreeMap<&String, Vec<Value>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row["step"].is_number()) {
        for (key, value) in row.as_object().unwrap().iter().filter(|(key, value)| key.contains('/') && !value.is_null())
        {
            curves.entry(key).or_default().push(json!([row["step"], value]));
        }
    }
    assert!(curves.len() > 8 && curves.values().any(|points| points.len() > 1), "{curves:?}");
    let figures = rows.last().unwrap()["figures"].as_object().unwrap();
    let figures: Vec<(&String, f64)> = figures.iter().filter_map(|(key, value)| Some((key, value.as_f64()?))).collect();
    assert!(figures.len() > 50, "{figures:?}");
    for tracker in ["mlflow", "wandb"] {
        let kept = &kept[tracker];
        for (&key, points) in &curves {
            assert_eq!(kept["curves"][key], json!(points), "{tracker}: {key}");
        }
        for &(key, value) in &figures {
            assert_eq!(kept["figures"][key].as_f64(), Some(value), "{tracker}: {key}");
        }
        let width = &rows[0]["settings"]["model"]["width"];
        let of_tracker = &kept["settings"]["model.width"];
        assert!(of_tracker == width || of_tracker.as_str() == Some(&width.to_string()), "{tracker}: {of_tracker}");
    }
}
