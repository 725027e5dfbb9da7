//! Reads a lake's folder of SQL: the columns of its raw files, its canonical views, and the facts that an import adds.
//! `sql/lakes/canonical/` supplies each file that the lake's folder does not have.

use datafusion::prelude::SessionContext;
use std::collections::BTreeMap;

use super::declared::Declared;
use super::view_names::VIEWS;
use crate::failure::{Failure, Result};
use crate::sql_files::SqlFiles;

/// The SQL of every view of one lake.
#[derive(Debug, Clone)]
pub(crate) struct LakeSql {
    views: BTreeMap<&'static str, ViewSql>,
}

/// The SQL of one view.
#[derive(Debug, Clone)]
pub(crate) struct ViewSql {
    /// The columns as which its raw files are read.
    pub(crate) declared: Declared,
    /// True if the lake's folder declares them, false if `canonical/` does.
    pub(crate) declared_by_lake: bool,
    /// `import_<view>.sql`: place and text of the query that an import runs once over the events to get this view's raw rows.
    pub(crate) facts: Option<(String, String)>,
    place: String,
    text: String,
}

impl LakeSql {
    /// Reads `lakes/<name>/`; a name without a folder is refused.
    pub(crate) async fn load(name: &str, sql: &SqlFiles) -> Result<Self> {
        if sql.folder(&format!("lakes/{name}")).next().is_none() {
            return Err(Failure::usage(format!("lake.name: no SQL files in sql/lakes/{name}/"))
                .hint(format!("known: {}; put your own folder under sql.folder", sql.folders("lakes").join(", "))));
        }
        let ctx = SessionContext::new();
        let mut views = BTreeMap::new();
        for view in VIEWS {
            let own = format!("lakes/{name}/raw_{view}");
            let (raw_place, raw_text) = text(sql, name, &format!("raw_{view}"))?;
            let (place, text) = text(sql, name, view)?;
            let facts = format!("lakes/{name}/import_{view}");
            let found = ViewSql {
                declared: Declared::parse(&ctx, &raw_place, &raw_text).await?,
                declared_by_lake: sql.get(&own).is_ok(),
                facts: sql.get(&facts).ok().map(|text| (format!("sql/{facts}.sql"), text.into())),
                place,
                text,
            };
            views.insert(view, found);
        }
        Ok(Self { views })
    }

    pub(crate) fn view(&self, view: &str) -> Result<&ViewSql> {
        self.views.get(view).ok_or_else(|| Failure::bug(format!("no SQL for {view}")))
    }

    /// Registers `<view>` over the registered `raw_<view>`.
    pub(crate) async fn register(&self, ctx: &SessionContext, view: &str) -> Result<()> {
        let ViewSql { place, text, .. } = self.view(view)?;
        let plan = ctx.sql(text).await.map_err(|e| Failure::from(e).at(place))?;
        ctx.register_table(view, plan.into_view())?;
        Ok(())
    }
}

/// Returns place and text of a lake's file, or else of the canonical one.
fn text(sql: &SqlFiles, name: &str, file: &str) -> Result<(String, String)> {
    let own = format!("lakes/{name}/{file}");
    let path = if sql.get(&own).is_ok() { own } else { format!("lakes/canonical/{file}") };
    Ok((format!("sql/{path}.sql"), sql.get(&path)?.into()))
}
