//! What a lake's folder of SQL says: the columns of its raw files, its canonical views, and the facts that an import
//! adds. `sql/lakes/canonical/` stands in, file by file, for what a lake's own folder does not have.

use datafusion::prelude::SessionContext;
use std::collections::BTreeMap;

use super::VIEWS;
use super::declared::Declared;
use crate::failure::{Failure, Result};
use crate::sql_files::SqlFiles;

/// The SQL of every view of one lake.
#[derive(Debug, Clone)]
pub struct LakeSql {
    pub name: String,
    views: BTreeMap<&'static str, ViewSql>,
}

/// The SQL of one view.
#[derive(Debug, Clone)]
pub struct ViewSql {
    /// What its raw files are read as.
    pub declared: Declared,
    /// Whether the lake's own folder declares them.
    pub own: bool,
    /// `import_<view>.sql`: place and query whose rows an import writes as this view's raw files, once, from the events.
    pub facts: Option<(String, String)>,
    place: String,
    text: String,
}

impl LakeSql {
    /// Reads `lakes/<name>/`; a name without a folder is refused.
    pub async fn load(name: &str, sql: &SqlFiles) -> Result<Self> {
        if sql.folder(&format!("lakes/{name}")).next().is_none() {
            return Err(Failure::usage(format!("lake.name: no SQL files in sql/lakes/{name}/"))
                .hint(format!("known: {}; an own folder goes below sql.folder", sql.folders("lakes").join(", "))));
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
                own: sql.get(&own).is_ok(),
                facts: sql.get(&facts).ok().map(|text| (format!("sql/{facts}.sql"), text.into())),
                place,
                text,
            };
            views.insert(view, found);
        }
        Ok(Self { name: name.into(), views })
    }

    pub fn view(&self, view: &str) -> Result<&ViewSql> {
        self.views.get(view).ok_or_else(|| Failure::bug(format!("no SQL for {view}")))
    }

    /// Registers `<view>` over the `raw_<view>` that `ctx` has.
    pub async fn register(&self, ctx: &SessionContext, view: &str) -> Result<()> {
        let ViewSql { place, text, .. } = self.view(view)?;
        let plan = ctx.sql(text).await.map_err(|e| Failure::from(e).at(place))?;
        ctx.register_table(view, plan.into_view())?;
        Ok(())
    }
}

/// Place and text of a lake's own file, or of the canonical one.
fn text(sql: &SqlFiles, name: &str, file: &str) -> Result<(String, String)> {
    let own = format!("lakes/{name}/{file}");
    let path = if sql.get(&own).is_ok() { own } else { format!("lakes/canonical/{file}") };
    Ok((format!("sql/{path}.sql"), sql.get(&path)?.into()))
}
