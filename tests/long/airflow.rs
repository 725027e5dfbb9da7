//! The DAGs of jobs/airflow/, loaded by Airflow itself.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// Runs a verb of Airflow's command line over the DAG files of one folder.
fn airflow(dags: &Path, arguments: &[&str]) -> Output {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join(".airflow");
    let python = installed.join("bin/python");
    assert!(python.exists(), "no .airflow: run `make airflow` (infra/setup/airflow.sh)");
    Command::new(python)
        .args(["-m", "airflow"])
        .args(arguments)
        .env("AIRFLOW_HOME", installed.join("home"))
        .env("AIRFLOW__CORE__DAGS_FOLDER", dags)
        .env("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        // No __pycache__ among the DAGs of the checkout.
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONWARNINGS", "ignore")
        .output()
        .unwrap()
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
