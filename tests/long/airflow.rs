//! The DAGs of jobs/airflow/, loaded by Airflow itself.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::lakes;
use crate::support::shop::{query, shop};

/// Runs a verb of Airflow's command line over the DAG files of one folder.
fn airflow(dags: &Path, arguments: &[&str]) -> Output {
    command(dags).args(arguments).output().unwrap()
}

fn installed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".airflow")
}

fn command(dags: &Path) -> Command {
    let installed = installed();
    let python = installed.join("bin/python");
    assert!(python.exists(), "no .airflow: run `make airflow` (infra/setup/airflow.sh)");
    let mut command = Command::new(python);
    command
        .args(["-m", "airflow"])
        .env("AIRFLOW_HOME", installed.join("home"))
        .env("AIRFLOW__CORE__DAGS_FOLDER", dags)
        .env("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        // No __pycache__ among the DAGs of the checkout.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONWARNINGS", "ignore");
    command
}

/// Returns the last line of the output; Airflow logs to standard output too.
fn json(output: &Output) -> Value {
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}\n{text}\n{errors}"))
}

/// Runs Airflow's own import check: exit code 0 and an empty list, or 1 and one entry per broken file.
fn import_errors(dags: &Path) -> (Option<i32>, Value) {
    let output = airflow(dags, &["dags", "list-import-errors", "--local", "--output", "json"]);
    (output.status.code(), json(&output))
}

fn shipped() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/airflow")
}

#[test]
fn airflow_imports_the_shipped_dags_with_their_tasks() {
    assert_eq!(import_errors(&shipped()), (Some(0), Value::Array(vec![])));
    let dags = json(&airflow(&shipped(), &["dags", "list", "--local", "--output", "json"]));
    let mut names: Vec<&str> = dags.as_array().unwrap().iter().map(|d| d["dag_id"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["intentcast_nightly", "intentcast_training"]);
    for (dag, expected) in
        [("intentcast_nightly", vec!["night", "report"]), ("intentcast_training", vec!["gc", "promote", "train"])]
    {
        let listed = airflow(&shipped(), &["tasks", "list", dag]);
        let text = String::from_utf8_lossy(&listed.stdout);
        let mut tasks: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        tasks.sort_unstable();
        assert_eq!(tasks, expected, "{dag}: {}", String::from_utf8_lossy(&listed.stderr));
    }
}

#[test]
fn a_broken_dag_is_reported_by_the_same_check() {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(shipped()).unwrap().map(|e| e.unwrap()) {
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    let training = folder.path().join("intentcast_training.py");
    let text = std::fs::read_to_string(&training).unwrap();
    // A misspelt argument of an operator is no syntax error, so only an import by Airflow finds it.
    let broken = text.replace("retry_delay=", "retry_dealy=");
    assert_ne!(broken, text);
    std::fs::write(&training, broken).unwrap();
    let (code, errors) = import_errors(folder.path());
    assert_eq!(code, Some(1), "{errors}");
    let [only] = errors.as_array().unwrap().as_slice() else { panic!("expected one error, got {errors}") };
    assert!(only["filepath"].as_str().unwrap().ends_with("intentcast_training.py"), "{only}");
    assert!(only["error"].as_str().unwrap().contains("retry_dealy"), "{only}");
}

/// Airflow's own run of a DAG in one process, with a night that takes real data to a published table and a report.
#[test]
#[allow(clippy::disallowed_methods)] // the search path of the scheduler, no setting of the job
fn airflow_runs_a_real_night_of_the_shipped_dag() {
    let (own, lake, output) = shop();
    let settings = own.path().join("nightly.toml");
    let text = format!(
        "[lake]\nuri = \"{lake}\"\n[output]\nuri = \"{output}\"\n[demand]\nhorizon_days = 14\n\
         [lock]\nheartbeat_seconds = 1\nexpiry_seconds = 8\n"
    );
    std::fs::write(&settings, text).unwrap();
    // A database of its own: other tests read the shared one.
    lakes::copy(&installed().join("home"), own.path());
    let bin = Path::new(env!("CARGO_BIN_EXE_intentcast")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run = |date: &str| {
        let output = command(&shipped())
            .args(["dags", "test", "intentcast_nightly", date])
            .env("AIRFLOW_HOME", own.path().join("home"))
            .env("AIRFLOW_VAR_INTENTCAST_CONFIG", &settings)
            .env("PATH", &path)
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        (output.status.success(), text)
    };
    let (succeeded, text) = run("2026-02-21");
    assert!(succeeded && text.contains("Marking run") && text.contains("successful"), "{text}");
    assert_ne!(query(&output, "SELECT count(*) AS n FROM intent WHERE run_date = DATE '2026-02-21'"), "n\n0\n");
    assert!(Path::new(&output).join("reports/2026-02-21/index.html").exists(), "{text}");
    // Run again by hand, the night is as it was.
    let (succeeded, text) = run("2026-02-21");
    assert!(succeeded, "{text}");
    assert_eq!(
        query(&output, "SELECT count(*) AS n FROM runs WHERE status = 'published'").lines().nth(1),
        Some("1"),
        "{text}"
    );
}
