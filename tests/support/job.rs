//! The binary in a folder of its own, for tests of trainings that need no lake.

use std::path::PathBuf;
use std::process::{Command, Output};

use super::{device, journal};

/// Runs the binary with settings before the verb and `out` in its folder as `--output`.
pub struct Job {
    folder: tempfile::TempDir,
    settings: &'static [&'static str],
}

impl Job {
    pub fn new(settings: &'static [&'static str]) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), settings }
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub fn run(&self, settings: &[&str], arguments: &[&str]) -> Output {
        self.command(settings, arguments).output().unwrap()
    }

    fn command(&self, settings: &[&str], arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_intentcast"));
        command.args(["--set", &device::setting()]);
        for setting in self.settings.iter().chain(settings) {
            command.args(["--set", setting]);
        }
        // Networks this small gain nothing from threads, which wait for one another on busy cores.
        command.env("OMP_NUM_THREADS", "1").args(arguments).args(["--output", &self.path("out")]);
        command
    }

    /// Runs a verb that must succeed; returns its standard output and its log.
    pub fn done(&self, settings: &[&str], arguments: &[&str]) -> (String, String) {
        let ran = self.run(settings, arguments);
        let log = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success(), "{settings:?} {arguments:?}\n{log}");
        (String::from_utf8(ran.stdout).unwrap(), log)
    }

    pub fn refused(&self, settings: &[&str], arguments: &[&str], code: i32, parts: &[&str]) {
        let ran = self.run(settings, arguments);
        let errors = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(code), "{arguments:?}\n{errors}");
        parts.iter().for_each(|part| assert!(errors.contains(part), "{arguments:?}: expected {part} in\n{errors}"));
    }

    /// Asserts that a training that is killed at each of `kills` (task, step) ends as an undisturbed one: same
    /// weights, whole curves, no checkpoints left. `card`: the file of a model that holds the hash of its weights.
    pub fn resumes_after_kills(&self, (settings, arguments): (&[&str], &[&str]), kills: &[(&str, u64)], card: &str) {
        let settings = [settings, &["train.checkpoint_steps=1", "train.checkpoint_seconds=0"]].concat();
        let output = PathBuf::from(self.path("out"));
        let outcome = || -> (serde_json::Value, Vec<usize>) {
            let models: Vec<_> = std::fs::read_dir(output.join("models")).unwrap().map(|m| m.unwrap().path()).collect();
            let [model] = models.as_slice() else { panic!("expected one model, got {models:?}") };
            let card: serde_json::Value = serde_json::from_slice(&std::fs::read(model.join(card)).unwrap()).unwrap();
            assert!(journal::checkpoints(&output).is_empty(), "they are removed once the model exists");
            assert_eq!(journal::metrics(&output).last().unwrap()["version"], card["version"]);
            let events = journal::events(&output);
            let epochs = |task: &str| events[format!("{task}/loss_valid")].as_array().unwrap().len();
            (card["weights_hash"].clone(), kills.iter().map(|(task, _)| epochs(task)).collect())
        };
        for kill in kills {
            journal::kill_at(self.command(&settings, arguments), &output, *kill);
        }
        let (_, log) = self.done(&settings, arguments);
        kills.iter().for_each(|(task, _)| assert!(log.contains(&format!("{task}: resuming from")), "{log}"));
        let resumed = outcome();
        std::fs::remove_dir_all(&output).unwrap();
        self.done(&settings, arguments);
        assert_eq!(outcome(), resumed);
    }

    /// Changes the last number of a trained model's head, and asserts that a call of the model is refused.
    pub fn damaged_head_is_refused(&self, version: &str, call: &str) {
        let head = self.path(&format!("out/models/{version}/head.safetensors"));
        let bytes = std::fs::read(&head).unwrap();
        std::fs::write(&head, [&bytes[..bytes.len() - 4], &[0, 0, 192, 127]].concat()).unwrap();
        let asked = format!("SELECT {call}");
        self.refused(&[], &["sql", "-c", &asked], 6, &["checksum mismatch", "train again"]);
    }
}
