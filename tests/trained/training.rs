//! Checkpoints, from which a killed training resumes to the same bits, and curves that TensorBoard reads; also on a full disk.

use intentcast::config::{Config, S3Config};
use intentcast::lake::stores::Location;
use intentcast::model::bundle::BundleCard;
use intentcast::training::bundle;
use intentcast::training::fitting::{Journal, JournalLocation};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

use crate::support::journal::{below, checkpoints, events, events_of, kill_at, metrics};
use crate::support::stopping_store::StoppingStore;
use crate::support::training_shop::{DATE, SHOP, tiny};
use crate::support::{device, lakes};

/// Settings with dropout, augmentation and a checkpoint after every step; long enough to kill the training in between.
const SETTINGS: &str = "model.width=8 model.layers=1 model.heads=2 model.item_buckets=100 demand.width=8 \
                        demand.horizon_days=7 train.as_of_dates=2 demand.as_of_dates=2 train.epochs_max=8 train.patience_epochs=8 \
                        train.batch_rows=32 train.augmentation=both train.item_dropout=0.1 \
                        train.checkpoint_steps=1 train.checkpoint_seconds=0";

fn train(output: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_intentcast"));
    command.args(["--set", &device::setting()]);
    command.args(SETTINGS.split_whitespace().chain(more.iter().copied()).flat_map(|pair| ["--set", pair]));
    command.args(["train", "--date", DATE, "--lake"]).arg(SHOP.folder.path().join("lake"));
    command.arg("--output").arg(output);
    command
}

/// Trains to the end; returns the output.
fn trained(output: &Path, more: &[&str]) -> String {
    let done = train(output, more).output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{errors}");
    errors
}

fn champion(output: &Path) -> BundleCard {
    let champion = std::fs::read_to_string(output.join("models/champion")).unwrap();
    let card = output.join("models").join(champion.trim()).join("bundle.json");
    serde_json::from_slice(&std::fs::read(card).unwrap()).unwrap()
}

#[test]
fn a_killed_training_resumes_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    trained(&whole, &[]);
    let card = champion(&whole);
    assert!(checkpoints(&whole).is_empty(), "they are removed once the bundle exists");

    let killed = folder.path().join("killed");
    for (task, step) in [("intents", 2), ("intents", 17), ("demand", 3)] {
        kill_at(train(&killed, &[]), &killed, (task, step));
    }
    // Other settings start from the beginning and report the old checkpoints.
    let output = folder.path().join("other");
    std::fs::create_dir_all(output.join("state")).unwrap();
    lakes::copy(&killed.join("state/training"), &output.join("state"));
    let said = trained(&output, &["train.learning_rate=0.002"]);
    assert!(said.contains("ignored: checkpoints of other settings, data or code"), "{said}");
    assert!(!said.contains("resuming from"), "{said}");
    assert_ne!(champion(&output).weights_hash, card.weights_hash);

    let said = trained(&killed, &[]);
    assert!(said.contains("intents: resuming from") && said.contains("demand: resuming from"), "{said}");
    let resumed = champion(&killed);
    assert_eq!(resumed.weights_hash, card.weights_hash);
    for (name, figure) in &card.figures {
        let timed = name.contains("second");
        assert!(timed || resumed.figures[name] == *figure, "{name}: {figure} {}", resumed.figures[name]);
    }
    // The curves are whole too.
    let losses = |output: &Path| -> Vec<Value> {
        let lines = metrics(output);
        lines[1..lines.len() - 1]
            .iter()
            .map(|l| Value::from_iter([l["intents/loss_train"].clone(), l["demand/loss_train"].clone()]))
            .collect()
    };
    assert_eq!(losses(&killed), losses(&whole));
    assert_eq!(events(&killed)["intents/loss_valid"].as_array().unwrap().len(), 8);
}

#[test]
fn a_killed_pretraining_resumes_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let settings =
        ["train.pretraining=masked", "train.pretraining_epochs=3", "train.epochs_max=2", "demand.as_of_dates=1"];
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    trained(&whole, &settings);
    for (task, step) in [("pretraining", 2), ("pretraining", 9), ("intents", 1)] {
        kill_at(train(&killed, &settings), &killed, (task, step));
    }
    let said = trained(&killed, &settings);
    assert!(said.contains("pretraining: resuming from") && said.contains("intents: resuming from"), "{said}");
    assert_eq!(champion(&killed).weights_hash, champion(&whole).weights_hash);
    assert_eq!(champion(&killed).version, champion(&whole).version, "the trees too");
    assert_eq!(events(&killed)["pretraining/loss_valid"].as_array().unwrap().len(), 3);
}

#[test]
fn a_diverging_training_stops_and_leaves_the_champion() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    trained(&output, &["train.epochs_max=1"]);
    let models = || -> Vec<_> {
        let files = below(&output.join("models")).into_iter();
        files.map(|file| (std::fs::read(&file).unwrap(), file)).collect()
    };
    let before = models();
    let stopped = train(&output, &["train.learning_rate=10"]).output().unwrap();
    let errors = String::from_utf8_lossy(&stopped.stderr);
    assert_eq!(stopped.status.code(), Some(6), "{errors}");
    assert!(errors.contains("training of intents stopped at step ") && errors.contains("batch "), "{errors}");
    assert!(errors.contains("lower train.learning_rate"), "{errors}");
    assert!(models() == before, "a file of the models has changed");
}

#[test]
fn each_guard_against_overfitting_changes_the_training() {
    let folder = tempfile::tempdir().unwrap();
    let plain = [
        "train.epochs_max=1",
        "train.augmentation=none",
        "train.item_dropout=0",
        "model.dropout=0",
        "model.weight_decay=0",
    ];
    let guards = [
        "train.epochs_max=1",
        "train.augmentation=crop",
        "train.augmentation=mask",
        "train.augmentation=reorder",
        "train.item_dropout=0.5",
        "train.label_smoothing=0.1",
        "model.dropout=0.5",
        "model.weight_decay=1",
    ];
    let weights = guards.map(|guard| {
        let output = folder.path().join(guard);
        trained(&output, &[&plain[..], &[guard]].concat());
        champion(&output).weights_hash
    });
    let different: std::collections::BTreeSet<&String> = weights.iter().collect();
    assert_eq!(different.len(), guards.len(), "{weights:?}");
}

#[test]
fn a_sweep_trains_with_the_best_settings_and_repeats_no_trial() {
    let folder = tempfile::tempdir().unwrap();
    let (output, file) = (folder.path().join("out"), folder.path().join("sweep.toml"));
    let text = "[sweep]\ntrials = 4\neta = 2\n[space]\n\"model.dropout\" = [0.0, 0.2]\n\
                \"train.learning_rate\" = { low = 1e-4, high = 1e-2, log = true }\n";
    std::fs::write(&file, text).unwrap();
    let sweep = |more: &[&'static str]| {
        let done =
            train(&output, &[&["train.epochs_max=1"], more].concat()).arg("--sweep").arg(&file).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    };
    let said = sweep(&[]);
    let trials = below(&output.join("state/sweeps"));
    assert_eq!(trials.len(), 4 + 2, "four trials of one epoch, two of two");
    let card = champion(&output);
    let rates: Vec<&str> =
        said.lines().filter_map(|l| l.split_once("train.learning_rate=")?.1.split(' ').next()).collect();
    assert_eq!(rates.len(), 6, "{said}");
    let won: f64 = rates[4].parse().unwrap();
    assert_eq!(card.settings["train"]["learning_rate"].as_f64(), Some(won), "the best of the last rung");

    // Curves of each trial and of the best one; no checkpoints.
    let runs = std::fs::read_dir(output.join("training")).unwrap().map(|run| run.unwrap().path()).collect::<Vec<_>>();
    let of_trials = runs.iter().filter(|run| run.file_name().unwrap().to_string_lossy().starts_with("sweep-2"));
    assert_eq!((of_trials.count(), runs.len()), (6, 7), "{runs:?}");
    for run in &runs {
        assert!(!events_of(run)["intents/loss_valid"].as_array().unwrap().is_empty(), "{}", run.display());
    }
    assert!(checkpoints(&output).is_empty());

    let written: Vec<_> = trials.iter().map(|p| p.metadata().unwrap().modified().unwrap()).collect();
    let untimed = |said: &str| -> Vec<String> {
        said.lines().filter(|l| l.contains("learning_rate=")).map(String::from).collect()
    };
    assert_eq!(untimed(&sweep(&[])), untimed(&said));
    assert!(trials.iter().zip(written).all(|(p, at)| p.metadata().unwrap().modified().unwrap() == at));

    // With more events per history than any user has, the rows stay the same but the network differs.
    sweep(&["features.last_events=300"]);
    let kept = std::fs::read_dir(output.join("state/sweeps")).unwrap().count();
    assert_eq!((kept, below(&output.join("state/sweeps")).len()), (2, 12));
}

#[test]
fn tensorboard_and_metrics_jsonl_hold_the_same_curves() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    trained(&output, &["train.epochs_max=3", "train.checkpoint_steps=0"]);
    // The same run again replaces its curves.
    trained(&output, &["train.epochs_max=3", "train.checkpoint_steps=0"]);
    let (lines, events) = (metrics(&output), events(&output));
    assert_eq!(lines[0]["settings"]["train"]["epochs_max"], 3);
    let card = champion(&output);
    let last = lines.last().unwrap();
    assert_eq!(last["version"], card.version.as_str());
    assert_eq!(last["figures"]["auc_test_search"], card.figures["auc_test_search"]);

    // Three epochs of intents; demand has three times as many, and may stop early.
    for task in ["intents", "demand"] {
        let prefix = format!("{task}/");
        let of_task: Vec<_> = events.as_object().unwrap().iter().filter(|(t, _)| t.starts_with(&prefix)).collect();
        let mut tags: Vec<&str> = of_task.iter().map(|(tag, _)| tag.split_once('/').unwrap().1).collect();
        // So few validation users may be of one class and then have no AUC.
        tags.retain(|tag| *tag != "auc_valid_purchase");
        assert_eq!(tags, ["learning_rate", "loss_train", "loss_valid", "samples_per_second", "waiting_share"]);
        for (tag, points) in of_task {
            let lines: Vec<&Value> = lines.iter().filter(|line| line.get(tag).is_some()).collect();
            let points = points.as_array().unwrap();
            assert_eq!(points.len(), lines.len(), "{tag}");
            assert!(if task == "intents" { points.len() == 3 } else { points.len() >= 3 }, "{tag}: {points:?}");
            for (point, line) in points.iter().zip(lines) {
                assert_eq!(point[0], line["step"], "{tag}");
                let near = |a: &Value, b: &Value| {
                    (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() <= 1e-6 * b.as_f64().unwrap().abs()
                };
                assert!(near(&point[1], &line["wall_time"]) && near(&point[2], &line[tag]), "{tag}: {point} {line}");
            }
        }
    }
}

/// Trains the shop in this process, below `output`.
async fn fitted(config: Config, output: Location) -> BundleCard {
    let places = JournalLocation::new(&output, "print", "run", tokio::runtime::Handle::current());
    let mut journal = Journal::new(Some(places), &config.train, Value::Null);
    let fit = move || bundle::fit_networks(&config, &SHOP.sets, &mut journal).map(|(card, _)| card);
    tokio::task::spawn_blocking(fit).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_on_a_full_disk_continues_and_counts_failed_writes() {
    let mut config = tokio::task::spawn_blocking(|| tiny(&SHOP.folder)).await.unwrap();
    (config.train.checkpoint_steps, config.train.checkpoint_seconds) = (1, 0);
    let output = Location::open("memory://full-disk/out", &S3Config::default()).unwrap();
    let (full, _) = StoppingStore::full(&output, "state/training");
    let card = fitted(config.clone(), full).await;
    // Each network's steps and its end.
    assert!(card.figures["journal_writes_failed"] >= 4.0, "{:?}", card.figures);
    let left: Vec<String> = output.list().await.unwrap().iter().map(|m| m.location.to_string()).collect();
    assert!(left.iter().any(|p| p.ends_with("metrics.jsonl")) && !left.iter().any(|p| p.contains("state")), "{left:?}");

    let roomy = Location::open("memory://roomy-disk/out", &S3Config::default()).unwrap();
    let card = fitted(config, roomy).await;
    assert!(!card.figures.contains_key("journal_writes_failed"));
}
