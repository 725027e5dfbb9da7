//! Keeps numbers behind which there are few users out of the published tables.
//!
//! `sql/suppressed/` says which: `intent_units` of items and of sums over items, with further ones so that no suppressed number
//! follows from the others (complementary suppression; Cox 1980, "Suppression methodology and statistical disclosure control"). Checks and
//! the night's own tables read all numbers; what is not published stays below the output's `state/`, for later nights.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::MemTable;
use datafusion::prelude::{DataFrame, SessionContext};
use object_store::path::Path;
use std::sync::Arc;

use crate::engine::places;
use crate::failure::{Failure, Result};
use crate::features::night_units::parse_night;
use crate::ids::{Generation, RunDate};
use crate::lake::files_table::ListedFile;
use crate::lake::stores::Location;
use crate::lake::{files_table, parquet_files};
use crate::publish::night::StagedTables;
use crate::publish::runs::VisibleNight;
use crate::sql_files::SqlFiles;
use crate::tables::write_files::table_location;
use crate::tables::{materialise, write_files};

/// Folder below the output with one folder a night.
const FOLDER: &str = "state/intent_units";

/// Tables with numbers that may be suppressed, and the queries that publish them.
const TABLES: [(&str, &str); 2] = [("demand", "published_demand"), ("demand_total", "published_demand_total")];

fn folder_of(output: &Location, run_date: RunDate, generation: Generation) -> Location {
    output.folder(&format!("{FOLDER}/night={run_date}-{generation}"))
}

fn night_of(folder: &str) -> Option<(RunDate, Generation)> {
    parse_night(folder.strip_prefix("night=")?)
}

/// Replaces the staged files of the tables that have such numbers. `ctx` has the night's tables as they were staged.
pub(crate) async fn suppress(
    ctx: &SessionContext,
    sql: &SqlFiles,
    output: &Location,
    tag: (RunDate, Generation),
    staged: &mut StagedTables,
) -> Result<()> {
    // Each is read several times; they have a row per item at most.
    for name in ["item_users", "suppressed_categories", "suppressed_items"] {
        let rows = query(ctx, sql, name).await?;
        let plan = rows.create_physical_plan().await?;
        let schema = plan.schema();
        let batches = places::run(ctx, plan).await.map_err(|f| f.at(place(name)))?;
        if name == "suppressed_items" && batches.iter().all(|batch| batch.num_rows() == 0) {
            return Ok(());
        }
        ctx.register_table(name, Arc::new(MemTable::try_new(schema, vec![batches])?))?;
    }
    let kept = query(ctx, sql, "kept_intent_units").await?;
    let folder = folder_of(output, tag.0, tag.1);
    materialise::write(ctx, "part", kept, &folder).await?;
    let mut replaced: Vec<Path> = Vec::new();
    let mut published = Vec::new();
    for (table, file) in TABLES {
        let rows = query(ctx, sql, file).await?;
        let files = write_files::stage(ctx, rows, output, table, tag).await.map_err(|f| f.at(place(file)))?;
        published.push((table, files));
    }
    for (table, files) in published {
        let all = staged.insert(table.into(), files).unwrap_or_default();
        replaced.extend(all.iter().map(|file| table_location(output, table).path(&file.path)));
    }
    output.delete(replaced).await
}

fn place(file: &str) -> String {
    format!("sql/suppressed/{file}.sql")
}

async fn query(ctx: &SessionContext, sql: &SqlFiles, file: &str) -> Result<DataFrame> {
    ctx.sql(sql.get(&format!("suppressed/{file}"))?).await.map_err(|e| Failure::from(e).at(place(file)))
}

/// Returns the numbers that these nights did not publish: `item_id`, `target_date`, `intent_units` and the run date as `_dt`; `None`
/// where they published all.
pub(crate) async fn kept_units(
    ctx: &SessionContext,
    output: &Location,
    nights: &[VisibleNight],
) -> Result<Option<DataFrame>> {
    let mut listed: Vec<ListedFile> = Vec::new();
    for (name, files) in output.folder(FOLDER).list_by_folder().await? {
        let night = night_of(&name);
        let is_read = |read: &&VisibleNight| night == Some((read.run_date(), read.run.generation));
        let Some(night) = nights.iter().find(is_read) else { continue };
        let location = output.folder(FOLDER);
        listed.extend(
            files
                .into_iter()
                .map(|file| parquet_files::listed(&location, file.location, file.size, Some(night.run_date().0))),
        );
    }
    if listed.is_empty() {
        return Ok(None);
    }
    Ok(Some(ctx.read_table(files_table(ctx, output, schema(), listed)?)?))
}

fn schema() -> SchemaRef {
    let column = |name, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        column("item_id", DataType::Utf8),
        column("target_date", DataType::Date32),
        column("intent_units", DataType::Float64),
    ]))
}

/// Keeps for a generation of a night what another one did not publish.
pub(crate) async fn copy(output: &Location, run_date: RunDate, from: Generation, to: Generation) -> Result<()> {
    let (from, to) = (folder_of(output, run_date, from), folder_of(output, run_date, to));
    for file in from.list().await? {
        let Some(name) = file.location.filename() else { continue };
        if let Some(rows) = from.read_if_there(name).await? {
            to.write(name, rows).await?;
        }
    }
    Ok(())
}

/// Returns all files, each with its night.
pub(crate) async fn files(output: &Location) -> Result<Vec<((RunDate, Generation), object_store::ObjectMeta)>> {
    let folders = output.folder(FOLDER).list_by_folder().await?.into_iter();
    let of_night = |(name, files): (String, Vec<object_store::ObjectMeta>)| {
        night_of(&name).map(|night| files.into_iter().map(move |file| (night, file)))
    };
    Ok(folders.filter_map(of_night).flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::features::{functions, views};
    use arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const K_MIN: usize = 5;

    type Users = BTreeSet<u8>;

    /// Returns what is not published of items, each with its category and its users: items, and levels with categories.
    async fn suppressed(items: &[(u8, Users)]) -> (BTreeSet<usize>, BTreeSet<(String, String)>) {
        let ctx = SessionContext::new();
        functions::register(&ctx, &Config::default(), "2026-03-01".parse().unwrap()).unwrap();
        let text = |values: Vec<String>| Arc::new(StringArray::from(values)) as arrow::array::ArrayRef;
        let numbers = (0..items.len()).map(|item| item.to_string()).collect();
        let categories = items.iter().map(|(category, _)| format!("c{category}")).collect();
        let demand = RecordBatch::try_from_iter([("item_id", text(numbers)), ("category", text(categories))]);
        ctx.register_batch("demand", demand.unwrap()).unwrap();
        let pairs =
            || items.iter().enumerate().flat_map(|(item, (_, users))| users.iter().map(move |user| (item, *user)));
        let users = Int64Array::from_iter_values(pairs().map(|(_, user)| user.into()));
        let recommended = pairs().map(|(item, _)| item.to_string()).collect();
        let recommendation = RecordBatch::try_from_iter([
            ("item_id", text(recommended)),
            ("user_id", Arc::new(users) as arrow::array::ArrayRef),
        ]);
        ctx.register_batch("recommendation", recommendation.unwrap()).unwrap();
        let sql = SqlFiles::load(&Config::default()).unwrap();
        for view in ["item_users", "suppressed_categories", "suppressed_items"] {
            views::register_one(&ctx, &sql, &format!("suppressed/{view}")).await.unwrap();
        }
        let rows = async |sql: &str| {
            let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
            let text = |batch: &RecordBatch, column: usize, row: usize| {
                let texts = arrow::compute::cast(batch.column(column), &DataType::Utf8).unwrap();
                texts.as_string::<i32>().value(row).to_string()
            };
            let pairs = batches.iter().flat_map(|batch| {
                (0..batch.num_rows()).map(move |row| (text(batch, 0, row), text(batch, 1, row))).collect::<Vec<_>>()
            });
            pairs.collect::<Vec<_>>()
        };
        let found = rows("SELECT item_id, '' AS nothing FROM suppressed_items").await;
        let found_items: BTreeSet<usize> = found.iter().map(|(item, _)| item.parse().unwrap()).collect();
        assert_eq!(found.len(), found_items.len(), "each item once");
        let found = rows("SELECT level, category FROM suppressed_categories").await;
        let categories: BTreeSet<(String, String)> = found.iter().cloned().collect();
        assert_eq!(found.len(), categories.len(), "each category once");
        (found_items, categories)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_number_of_few_users_follows_from_the_published_ones(
            items in prop::collection::vec((0u8..4, prop::collection::btree_set(0u8..30, 0..9)), 1..14)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (left_out, categories) = runtime.block_on(suppressed(&items));
            let is_small = |users: &Users| (1..K_MIN).contains(&users.len());
            for (item, (_, users)) in items.iter().enumerate() {
                prop_assert!(!is_small(users) || left_out.contains(&item));
            }
            if !items.iter().any(|(_, users)| is_small(users)) {
                prop_assert!(left_out.is_empty() && categories.is_empty());
            }
            // What is known of suppressed items are sums: one for each published category, and one for all others.
            let total_is_known = !categories.contains(&("total".to_string(), String::new()));
            let mut sums: BTreeMap<Option<u8>, (usize, Users)> = BTreeMap::new();
            for item in left_out {
                let (category, users) = &items[item];
                let is_published = !categories.contains(&("category".to_string(), format!("c{category}")));
                let sum = sums.entry(is_published.then_some(*category)).or_default();
                sum.0 += 1;
                sum.1.extend(users);
            }
            for (category, (count, users)) in sums {
                if category.is_some() || total_is_known {
                    prop_assert!(count >= 2 && users.len() >= K_MIN, "{category:?}: {count} items of {users:?}");
                }
            }
        }
    }
}
