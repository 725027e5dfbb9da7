//! Records which rollup units a night read, so that its history can be read again without the lake.
//!
//! A note is one small file below `state/nights/`, named by run date and generation. It is written before the night becomes
//! visible. Nights of versions before this note have none.

use datafusion::prelude::SessionContext;
use object_store::{ObjectMeta, path::Path};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};

use super::lake_source::LakeSource;
use super::rollups::Rollups;
use super::units::Unit;
use crate::failure::{Failure, Result};
use crate::ids::{Generation, RunDate};
use crate::lake::stores::Location;

/// Folder of the notes below the output.
pub(crate) const FOLDER: &str = "state/nights";

/// The units of one night.
#[derive(Debug, Serialize, Deserialize)]
struct NightUnits {
    /// Name of the folder below `state/rollups/` that holds them.
    rollups: String,
    units: BTreeSet<String>,
}

fn file_name(run_date: RunDate, generation: Generation) -> String {
    format!("{run_date}-{generation}.json")
}

/// Returns the date and generation that a note's name has.
pub(crate) fn night_of(note: &ObjectMeta) -> Option<(RunDate, Generation)> {
    parse_night(note.location.filename()?.strip_suffix(".json")?)
}

/// Parses a date and a generation, `2026-03-01-12`.
pub(crate) fn parse_night(name: &str) -> Option<(RunDate, Generation)> {
    let (date, generation) = name.rsplit_once('-')?;
    Some((date.parse().ok()?, Generation(generation.parse().ok()?)))
}

/// Writes down the units of a night.
pub(crate) async fn write(
    output: &Location,
    rollups: &Rollups,
    run_date: RunDate,
    generation: Generation,
) -> Result<()> {
    let units = rollups.units.iter().map(|unit| unit.id.clone()).collect();
    let note = NightUnits { rollups: rollups.folder_name(), units };
    let name = file_name(run_date, generation);
    output.folder(FOLDER).write(&name, serde_json::to_vec(&note).map_err(Failure::bug)?).await
}

/// Notes for a generation of a night that it read what another one did.
pub(crate) async fn copy(output: &Location, run_date: RunDate, from: Generation, to: Generation) -> Result<()> {
    let folder = output.folder(FOLDER);
    match folder.read_if_there(&file_name(run_date, from)).await? {
        Some(note) => folder.write(&file_name(run_date, to), note).await,
        None => Ok(()),
    }
}

/// Opens the rollups that a night read. `None` if the night left no note, or a unit is no longer there.
///
/// Only the declared columns of the lake in `source` are used, none of its files.
pub(crate) async fn open(
    ctx: &SessionContext,
    source: LakeSource<'_>,
    output: &Location,
    (run_date, generation): (RunDate, Generation),
) -> Result<Option<Rollups>> {
    let folder = output.folder(FOLDER);
    let name = file_name(run_date, generation);
    let Some(bytes) = folder.read_if_there(&name).await? else { return Ok(None) };
    let note: NightUnits = serde_json::from_slice(&bytes).map_err(|e| {
        Failure::input(format!("{}: damaged record of the night's rollups: {e}", folder.display(&folder.path(&name))))
            .hint("delete this file and pass --lake")
    })?;
    let location = output.folder(&format!("state/rollups/{}", note.rollups));
    let mut stored: HashMap<String, Unit> = HashMap::new();
    for unit in super::rollups::read_manifests(&location).await? {
        stored.insert(unit.id.clone(), unit);
    }
    let units: Option<Vec<Unit>> = note.units.iter().map(|id| stored.remove(id)).collect();
    let Some(units) = units else { return Ok(None) };
    let files: BTreeSet<Path> = location.folder("units").list().await?.into_iter().map(|file| file.location).collect();
    let is_complete = units.iter().all(|unit| unit.files(&location).all(|file| files.contains(&file)));
    match is_complete {
        true => Ok(Some(Rollups::over_units(ctx, source, location, units, run_date).await?)),
        false => Ok(None),
    }
}

/// Makes rollups without any unit, for a night whose state is gone.
pub(crate) async fn without_units(
    ctx: &SessionContext,
    source: LakeSource<'_>,
    output: &Location,
    run_date: RunDate,
) -> Result<Rollups> {
    Rollups::over_units(ctx, source, output.folder("state/rollups/none"), Vec::new(), run_date).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_note_says_its_night() {
        let (date, generation) = ("2026-03-01".parse().unwrap(), Generation(12));
        let location = Path::from(format!("out/{FOLDER}/{}", file_name(date, generation)));
        let note = ObjectMeta { location, last_modified: chrono::Utc::now(), size: 1, e_tag: None, version: None };
        assert_eq!(night_of(&note), Some((date, generation)));
    }
}
