//! The queries whose rows a night checkpoints, and the folder of those rows: a second attempt of the same night reads them.

use datafusion::error::DataFusionError;
use datafusion::prelude::{DataFrame, SessionContext};

use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::lake::stores::Location;
use crate::sql_files::SqlFiles;

/// A query by its path below sql/; the last part of the path names the table and the folder of its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckpointedQuery {
    /// A view that every session registers, with the columns that an overlay adds to its file.
    View(&'static str),
    /// A file that only the night runs.
    File(&'static str),
}

impl CheckpointedQuery {
    pub(crate) const USER_FEATURES: Self = Self::View("features/user_features");
    pub(crate) const INTENT_SCORES: Self = Self::File("score/intent_scores");
    pub(crate) const SHADOW_SCORES: Self = Self::File("score/shadow_scores");
    pub(crate) const DEMAND_FORECASTS: Self = Self::File("score/demand_forecasts");
    /// State tables that a night checkpoints once for all parts of its users.
    pub(crate) const GUEST_STATE: [Self; 5] = [
        Self::View("state/stitched"),
        Self::View("state/person"),
        Self::View("state/person_consent"),
        Self::View("state/guest_day"),
        Self::View("state/guest_event"),
    ];

    fn path(self) -> &'static str {
        match self {
            Self::View(path) | Self::File(path) => path,
        }
    }

    /// Returns the name of the table and of the folder.
    pub(crate) fn name(self) -> &'static str {
        let path = self.path();
        path.rsplit('/').next().unwrap_or(path)
    }

    /// Returns the name of the file in messages.
    pub(crate) fn place(self) -> String {
        format!("sql/{}.sql", self.path())
    }

    /// Plans the query in a session.
    pub(crate) async fn plan(self, ctx: &SessionContext, sql: &SqlFiles) -> Result<DataFrame> {
        let in_file = |e: DataFusionError| Failure::from(e).at(self.place());
        match self {
            Self::View(_) => ctx.table(self.name()).await.map_err(in_file),
            Self::File(path) => ctx.sql(sql.get(path)?).await.map_err(in_file),
        }
    }
}

/// Returns the folder of a night's checkpoints.
pub(crate) fn checkpoint_folder(output: &Location, run_date: RunDate, manifest_hash: &str) -> Location {
    output.folder(&format!("state/features/{run_date}/{manifest_hash}"))
}
