//! Checkpoints and curves that running trainings write, and trainings that are killed.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Returns all files below a folder, sorted.
pub fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        entries.flat_map(|e| if e.path().is_dir() { below(&e.path()) } else { vec![e.path()] }).collect();
    found.sort();
    found
}

pub fn checkpoints(output: &Path) -> Vec<String> {
    let files = below(&output.join("state/training")).into_iter();
    files
        .map(|p| p.file_name().unwrap().to_string_lossy().into_owned())
        .filter(|n| n.ends_with(".checkpoint"))
        .collect()
}

/// Starts a training and kills it once a checkpoint of `task` with at least `step` steps exists.
pub fn kill_at(mut train: Command, output: &Path, (task, step): (&str, u64)) {
    let mut child = train.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let number = |name: &str| -> Option<u64> {
        name.strip_prefix(task)?.strip_prefix('-')?.strip_suffix(".checkpoint")?.parse().ok()
    };
    while !checkpoints(output).iter().filter_map(|name| number(name)).any(|n| n >= step) {
        assert!(child.try_wait().unwrap().is_none(), "ended before its checkpoint at {task} {step}");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    let died = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&died), Some(9));
    assert!(!output.join("models").exists(), "killed before there was a model");
}

/// Returns the only file of this name among all curves.
fn file(output: &Path, name: &str) -> PathBuf {
    let found: Vec<_> = below(&output.join("training")).into_iter().filter(|p| p.ends_with(name)).collect();
    let [only] = found.as_slice() else { panic!("expected one {name}, got {found:?}") };
    only.clone()
}

/// Returns the folder of the only run.
pub fn run_folder(output: &Path) -> PathBuf {
    file(output, "metrics.jsonl").parent().unwrap().to_path_buf()
}

/// Returns the lines of the only run.
pub fn metrics(output: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file(output, "metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Returns the scalars of the only run by tag, as TensorBoard's own reader sees them.
pub fn events(output: &Path) -> Value {
    events_of(&run_folder(output))
}

/// Returns the scalars of the run whose curves are in this folder.
pub fn events_of(run: &Path) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join(".venv/bin/python");
    assert!(python.exists(), "no .venv: run `make readers` (infra/setup/python.sh)");
    let script = root.join("tests/support/read_events.py");
    let read = Command::new(python).arg(script).arg(run).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    serde_json::from_slice(&read.stdout).unwrap()
}
