//! The binary in a folder of its own: how tests of trainings that need no lake call it.

use std::process::{Command, Output};

use super::device;

/// Settings stand before the verb, `--output` is `out` in the folder.
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
        let mut command = Command::new(env!("CARGO_BIN_EXE_intentcast"));
        command.args(["--set", &device::setting()]);
        for setting in self.settings.iter().chain(settings) {
            command.args(["--set", setting]);
        }
        // Networks this small gain nothing from threads, which wait for one another where cores are busy.
        command.env("OMP_NUM_THREADS", "1").args(arguments).args(["--output", &self.path("out")]).output().unwrap()
    }

    /// What it printed, and its log.
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

    /// The last number of a trained model's head is another: whatever calls it is refused.
    pub fn damaged_head_is_refused(&self, version: &str, call: &str) {
        let head = self.path(&format!("out/models/{version}/head.safetensors"));
        let bytes = std::fs::read(&head).unwrap();
        std::fs::write(&head, [&bytes[..bytes.len() - 4], &[0, 0, 192, 127]].concat()).unwrap();
        let asked = format!("SELECT {call}");
        self.refused(&[], &["sql", "-c", &asked], 6, &["not the bytes that were trained", "train again"]);
    }
}
