//! `intentcast erase`: forgets persons, and proves that they are gone.

use async_trait::async_trait;
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use clap::Args;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::command::{Command, Needs, Places};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::publish::erase::{self, Done, Erasure, LakeToRewrite, Proof, Wanted};
use crate::score::models::Models;
use crate::workspace::{Access, Workspace};

/// Ids that a summary prints at most.
const SHOWN_MAX: usize = 20;

/// Forget persons: take them out of the output, its history included, and prove that they are gone.
///
/// The person is every id that the lake's users connect with the one named. From the beginning on, no session and no server shows
/// the person, and rows of later files are dropped. The lake itself is changed only with --rewrite-lake. A command that was
/// interrupted is finished by the same one.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("who").required(true).multiple(true).args(["user", "file", "requests"]))]
pub struct Erase {
    #[command(flatten)]
    places: Places,
    /// Erase this user; can be given several times.
    #[arg(long, value_name = "ID")]
    user: Vec<String>,
    /// Erase the users of this file, one id per line.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Erase all users of the lake's view `erasures`.
    #[arg(long)]
    requests: bool,
    /// Erase all ids of a person with more than erase.group_max of them, too.
    #[arg(long)]
    group: bool,
    /// Take the ids out of the lake's own files, too: each is replaced by one with its other rows as they are.
    #[arg(long)]
    rewrite_lake: bool,
    /// Print the ids, files and rows that would go, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print each file below the output that holds one of the ids; with --dry-run before anything is erased.
    #[arg(long)]
    prove: bool,
}

#[async_trait(?Send)]
impl Command for Erase {
    fn needs(&self) -> Needs<'_> {
        Needs { places: Some(&self.places), lake: true, tensors: false }
    }

    async fn run(&self, config: &Config) -> Result<()> {
        let models = Arc::new(Models::new(config)?);
        let workspace = Workspace::open(config, models, Access::ReadOnly).await?;
        let requests = self.requested(&workspace, config).await?;
        let ids: BTreeSet<String> = requests.keys().cloned().collect();
        let output = workspace.output()?;
        let session = workspace.session();
        let lake = match self.rewrite_lake {
            true => Some(LakeToRewrite { ctx: &session, source: workspace.source()? }),
            false => None,
        };
        let grace = TimeDelta::hours(config.erase.grace_hours.into());
        let wanted = Wanted { requests: &requests, grace, lake };
        if self.dry_run {
            print_ids("would erase", &ids)?;
            print_erasure("would go", &erase::survey(output, &wanted).await?)?;
            if self.prove {
                let is_meant = |id: &str| ids.contains(id);
                print_proof(&erase::search(output, &is_meant, ids.iter().map(String::as_str)).await?)?;
            }
            return Ok(());
        }
        let done = erase::erase(output, &config.lock, &wanted).await?;
        print_ids(if done.waiting.is_some() { "hidden" } else { "erased" }, &ids)?;
        print_erasure("gone", &done.erasure)?;
        if self.prove {
            print_proof(&done.proof)?;
        }
        done.refuse_unfinished(config)
    }
}

impl Done {
    /// Fails where ids are left, or will be for a while.
    fn refuse_unfinished(&self, config: &Config) -> Result<()> {
        let proof = &self.proof;
        if let Some(first) = proof.found.keys().next() {
            return Err(Failure::check(format!(
                "{} of {} files below the output still hold an erased id, {first} among them",
                proof.found.len(),
                proof.files,
            ))
            .hint(
                "run it again with --prove, which lists them; files that intentcast did not write are yours to remove",
            ));
        }
        if let Some((path, version)) = self.kept_versions.first() {
            return Err(Failure::check(format!(
                "{}: the bucket keeps {} older versions of files that held an erased id, version {version} of {path} among them",
                config.lake.uri,
                self.kept_versions.len()
            ))
            .hint("delete these versions (kept_versions in state/erasure/people.json lists them), then run the same command again"));
        }
        match self.waiting {
            Some((ids, first)) => Err(Failure::transient(format!(
                "{ids} ids are hidden, and their files stay until {} (erase.grace_hours)",
                first.format("%Y-%m-%d %H:%M:%SZ")
            ))
            .hint("run the same command after that time")),
            None => Ok(()),
        }
    }
}

impl Erase {
    /// Returns all ids of the persons named, each with the time of the request.
    async fn requested(&self, workspace: &Workspace, config: &Config) -> Result<BTreeMap<String, DateTime<Utc>>> {
        let now = Utc::now();
        let mut named: BTreeMap<String, DateTime<Utc>> = BTreeMap::new();
        for id in &self.user {
            if id.trim().is_empty() {
                return Err(Failure::usage("--user: expected an id, got a blank"));
            }
            named.insert(id.clone(), now);
        }
        if let Some(file) = &self.file {
            named.extend(read_ids(file)?.into_iter().map(|id| (id, now)));
        }
        if self.requests {
            for (id, requested_at) in workspace.requested_erasures().await? {
                named.insert(id, parse_time(&requested_at).unwrap_or(now));
            }
        }
        if named.is_empty() {
            eprintln!("note: no id is named; only what an interrupted erasure left is finished");
        }
        let groups = Groups::new(workspace.connected_ids().await?);
        let mut all = BTreeMap::new();
        for (id, requested_at) in named {
            let person = groups.of(&id);
            if person.len() > config.erase.group_max as usize && !self.group {
                return Err(Failure::usage(format!(
                    "user {id}: expected at most {} ids of one person (erase.group_max), found {}; nothing was erased",
                    config.erase.group_max,
                    person.len()
                ))
                .hint("so many ids are rather a shared device than a person; --group erases all of them"));
            }
            for id in person {
                all.entry(id).or_insert(requested_at);
            }
        }
        Ok(all)
    }
}

/// Ids that belong together.
struct Groups {
    neighbours: BTreeMap<String, Vec<String>>,
}

impl Groups {
    fn new(pairs: Vec<(String, String)>) -> Self {
        let mut neighbours: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (id, login) in pairs {
            neighbours.entry(login.clone()).or_default().push(id.clone());
            neighbours.entry(id).or_default().push(login);
        }
        Self { neighbours }
    }

    /// Returns all ids that are connected with one, itself included.
    fn of(&self, id: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::from([id.to_string()]);
        let mut pending = vec![id];
        while let Some(id) = pending.pop() {
            for next in self.neighbours.get(id).into_iter().flatten() {
                if found.insert(next.clone()) {
                    pending.push(next);
                }
            }
        }
        found
    }
}

/// Reads one id per line, as it is written: blanks around an id belong to it, as they do in the lake. A byte order mark, carriage
/// returns and the quotes of CSV do not.
fn read_ids(file: &Path) -> Result<BTreeSet<String>> {
    let at = |text: String| Failure::usage(format!("{}: {text}", file.display()));
    let bytes = std::fs::read(file).map_err(|e| at(e.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|e| at(format!("expected UTF-8: {e}")))?;
    let text = text.trim_start_matches('\u{feff}');
    let ids: BTreeSet<String> = text.lines().map(unquoted).filter(|id| !id.trim().is_empty()).collect();
    match ids.is_empty() {
        true => Err(at("expected an id per line, found none".into())),
        false => Ok(ids),
    }
}

/// Takes the quotes of a CSV field away, and undoubles those within.
fn unquoted(line: &str) -> String {
    let inner = line.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner.filter(|inner| !inner.replace("\"\"", "").contains('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => line.into(),
    }
}

/// Parses a time as the engine writes it.
fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let text = text.trim_end_matches('Z').replace(' ', "T");
    Some(text.parse::<NaiveDateTime>().ok()?.and_utc())
}

fn print_ids(what: &str, ids: &BTreeSet<String>) -> Result<()> {
    let shown: Vec<&str> = ids.iter().take(SHOWN_MAX).map(String::as_str).collect();
    let more = match ids.len() > SHOWN_MAX {
        true => format!(" and {} more", ids.len() - SHOWN_MAX),
        false => String::new(),
    };
    say!("{what} {} ids: {}{more}", ids.len(), shown.join(", "));
    Ok(())
}

fn print_erasure(what: &str, erasure: &Erasure) -> Result<()> {
    for (place, gone) in [
        ("tables and their history", erasure.tables),
        ("rollup units", erasure.units),
        ("states of nights", erasure.night_states),
    ] {
        say!("{what} from {place}: {} rows in {} files", gone.rows, gone.files);
    }
    if let Some(gone) = erasure.lake {
        say!("{what} from the lake: {} rows in {} files", gone.rows, gone.files);
    }
    if erasure.rows() == 0 {
        say!("no file has a row of these ids; rows of later files will be dropped");
    }
    if !erasure.models.is_empty() {
        say!("models that were trained on days of these persons: {}", erasure.models.join(", "));
        say!("they stay as they are; a new training leaves the persons out");
    }
    Ok(())
}

fn print_proof(proof: &Proof) -> Result<()> {
    say!("searched {} files ({} bytes) below the output", proof.files, proof.bytes);
    for (file, places) in &proof.found {
        say!("found: {file}: {places} places");
    }
    say!("{} files hold one of the ids", proof.found.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_ids_are_read_whatever_program_wrote_them() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |bytes: &[u8]| {
            std::fs::write(file.path(), bytes).unwrap();
            read_ids(file.path())
        };
        let ids = read("\u{feff}u1\r\n\r\n\"u2\"\r\nu1\n\"say \"\"x\"\"\"\nu3 \n\"a\"b\"".as_bytes()).unwrap();
        assert_eq!(ids.into_iter().collect::<Vec<_>>(), ["\"a\"b\"", "say \"x\"", "u1", "u2", "u3 "]);
        for bad in [&b"\xff\xfe"[..], b"", b"\n \n"] {
            assert!(read(bad).is_err());
        }
    }

    #[test]
    fn a_person_is_all_connected_ids() {
        let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
        let groups = Groups::new(vec![pair("g1", "u1"), pair("g2", "u1"), pair("g3", "g2"), pair("g9", "u9")]);
        let all: Vec<String> = groups.of("g3").into_iter().collect();
        assert_eq!(all, ["g1", "g2", "g3", "u1"]);
        assert_eq!(groups.of("alone").len(), 1);
    }

    #[test]
    fn times_of_the_engine_are_parsed() {
        for text in ["2026-03-01T10:00:00Z", "2026-03-01 10:00:00", "2026-03-01T10:00:00.000000Z"] {
            assert_eq!(parse_time(text).unwrap().to_rfc3339(), "2026-03-01T10:00:00+00:00", "{text}");
        }
        assert!(parse_time("").is_none());
    }
}
