//! Keeps numbers behind which there are few users out of the published tables.
//!
//! `sql/suppressed/` says which: `intent_units` of items, with further ones so that none follows from what the forecasts tell of a
//! category (complementary suppression; Cox 1980, "Suppression methodology and statistical disclosure control"). Sums are over what is
//! published. Checks and the night's own tables read all numbers; what is not published stays below the output's `state/`, for later
//! nights.

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::prelude::{DataFrame, SessionContext};
use object_store::path::Path;
use std::collections::BTreeSet;
use std::sync::Arc;

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

/// Places where the files of a night's tables are staged.
pub(crate) struct Staging {
    output: Location,
    /// Place below `state/` of the tables whose numbers may be suppressed; `None` where all numbers are published.
    unsuppressed: Option<Location>,
}

impl Staging {
    /// Keeps the tables whose numbers may be suppressed below `checkpoints`, so that a night that stops before [`suppress`] leaves no
    /// number of fewer than `users_min` users among the published files.
    pub(crate) fn new(output: &Location, checkpoints: &Location, users_min: u32) -> Self {
        let unsuppressed = (users_min > 1).then(|| checkpoints.folder("unsuppressed"));
        Self { output: output.clone(), unsuppressed }
    }

    /// Returns the root below which a table is staged.
    pub(crate) fn of(&self, table: &str) -> &Location {
        let has_numbers = TABLES.iter().any(|(name, _)| *name == table);
        self.unsuppressed.as_ref().filter(|_| has_numbers).unwrap_or(&self.output)
    }
}

fn folder_of(output: &Location, run_date: RunDate, generation: Generation) -> Location {
    output.folder(&format!("{FOLDER}/night={run_date}-{generation}"))
}

fn night_of(folder: &str) -> Option<(RunDate, Generation)> {
    parse_night(folder.strip_prefix("night=")?)
}

/// Stages in the output what is published of the tables whose numbers may be suppressed. `ctx` has the night's tables with all numbers;
/// what is read several times is written to the folder `scratch`.
pub(crate) async fn suppress(
    ctx: &SessionContext,
    sql: &SqlFiles,
    (staging, scratch): (&Staging, &Location),
    tag: (RunDate, Generation),
    staged: &mut StagedTables,
) -> Result<()> {
    let Some(unsuppressed) = &staging.unsuppressed else { return Ok(()) };
    let output = &staging.output;
    // Both are read several times.
    for name in ["item_users", "suppressed_items"] {
        let rows = query(ctx, sql, name).await?;
        let written = materialise::materialise(ctx, name, rows, scratch).await.map_err(|f| f.at(place(name)))?;
        if name == "suppressed_items" && written.rows == 0 {
            return publish_all(unsuppressed, output, staged).await;
        }
    }
    let kept = query(ctx, sql, "kept_intent_units").await?;
    let folder = folder_of(output, tag.0, tag.1);
    let (_, files) = materialise::write(ctx, "part", kept, &folder).await?;
    // A task that a cluster ran twice leaves its rows twice.
    let written: BTreeSet<Path> = files.iter().map(|file| folder.path(&file.path)).collect();
    let found = folder.list().await?.into_iter().map(|file| file.location);
    output.delete(found.filter(|file| !written.contains(file)).collect()).await?;
    let mut published = Vec::new();
    for (table, file) in TABLES {
        let rows = query(ctx, sql, file).await?;
        let files = write_files::stage(ctx, rows, output, table, tag).await.map_err(|f| f.at(place(file)))?;
        published.push((table, files));
    }
    staged.extend(published.into_iter().map(|(table, files)| (table.to_string(), files)));
    unsuppressed.delete(unsuppressed.list().await?.into_iter().map(|file| file.location).collect()).await
}

/// Moves the files of the tables to the output as they are.
async fn publish_all(unsuppressed: &Location, output: &Location, staged: &StagedTables) -> Result<()> {
    for (table, _) in TABLES {
        let (from, to) = (table_location(unsuppressed, table), table_location(output, table));
        for file in staged.get(table).into_iter().flatten() {
            from.move_file(&file.path, &to).await?;
        }
    }
    Ok(())
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
    let location = output.folder(FOLDER);
    let mut listed: Vec<ListedFile> = Vec::new();
    for (night, file) in files(output).await? {
        if nights.iter().any(|read| night == (read.run_date(), read.run.generation)) {
            listed.push(parquet_files::listed(&location, file.location, file.size, Some(night.0.0)));
        }
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
    use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::Int64Type;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const K_MIN: usize = 5;

    type Users = BTreeSet<u8>;

    /// Returns which items, each with its category and its users, don't publish their number, and the published sums by category.
    async fn published(items: &[(u8, Users)]) -> (BTreeSet<usize>, BTreeMap<String, Option<f64>>) {
        let ctx = SessionContext::new();
        functions::register(&ctx, &Config::default(), "2026-03-01".parse().unwrap()).unwrap();
        let text = |values: Vec<String>| Arc::new(StringArray::from(values)) as ArrayRef;
        let names: Vec<String> = (0..items.len()).map(|item| item.to_string()).collect();
        let categories: Vec<String> = items.iter().map(|(category, _)| format!("c{category}")).collect();
        let days = || Arc::new(arrow::array::Date32Array::from(vec![20_000; items.len()])) as ArrayRef;
        // Item i stands for 2^i, so that a sum tells its items.
        let units = Arc::new(Float64Array::from_iter_values((0..items.len()).map(|item| 2f64.powi(item as i32))));
        let demand = [
            ("item_id", text(names)),
            ("category", text(categories.clone())),
            ("target_date", days()),
            ("intent_units", Arc::clone(&units) as ArrayRef),
        ];
        ctx.register_batch("demand", RecordBatch::try_from_iter(demand).unwrap()).unwrap();
        let totals = [
            ("level", text(vec!["category".into(); items.len()])),
            ("category", text(categories)),
            ("target_date", days()),
            ("intent_units", units),
        ];
        ctx.register_batch("demand_total", RecordBatch::try_from_iter(totals).unwrap()).unwrap();
        let pairs =
            || items.iter().enumerate().flat_map(|(item, (_, users))| users.iter().map(move |user| (item, *user)));
        let users = Int64Array::from_iter_values(pairs().map(|(_, user)| user.into()));
        let recommended = pairs().map(|(item, _)| item.to_string()).collect();
        let recommendation = [("item_id", text(recommended)), ("user_id", Arc::new(users) as ArrayRef)];
        ctx.register_batch("recommendation", RecordBatch::try_from_iter(recommendation).unwrap()).unwrap();
        let sql = SqlFiles::load(&Config::default()).unwrap();
        for view in ["item_users", "suppressed_items", "published_demand", "published_demand_total"] {
            views::register_one(&ctx, &sql, &format!("suppressed/{view}")).await.unwrap();
        }
        let rows = async |sql: &str| {
            let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
            let pairs = batches.iter().flat_map(|batch| {
                let names = arrow::compute::cast(batch.column(0), &DataType::Utf8).unwrap();
                let numbers = batch.column(1).as_primitive::<arrow::datatypes::Float64Type>().iter();
                names.as_string::<i32>().iter().map(|name| name.unwrap().to_string()).zip(numbers).collect::<Vec<_>>()
            });
            pairs.collect::<Vec<_>>()
        };
        let found = rows("SELECT item_id, intent_units FROM published_demand").await;
        assert_eq!(found.len(), items.len(), "each item once");
        let left_out = found.into_iter().filter(|(_, units)| units.is_none()).map(|(item, _)| item.parse().unwrap());
        let sums = rows("SELECT category, intent_units FROM published_demand_total").await;
        (left_out.collect(), sums.into_iter().collect())
    }

    #[tokio::test]
    async fn a_segment_covers_few_users_of_others() {
        let segments = async |sizes: &str| {
            let ctx = SessionContext::new();
            functions::register(&ctx, &Config::default(), "2026-03-01".parse().unwrap()).unwrap();
            let intent = format!(
                "CREATE VIEW intent AS SELECT s.segment, 0.5 AS p_purchase, 0.5 AS p_churn, 1.0 AS expected_units, \
                 1.0 AS expected_spend, 0.0 AS anomaly_score, 1 AS events_seen \
                 FROM (VALUES {sizes}) AS s(segment, users) JOIN generate_series(1, 200) AS n ON n.value <= s.users"
            );
            ctx.sql(&intent).await.unwrap();
            let sql = SqlFiles::load(&Config::default()).unwrap();
            let rows = ctx.sql(sql.get("tables/segment").unwrap()).await.unwrap();
            let rows = rows.sort_by(vec![datafusion::prelude::col("segment")]).unwrap().collect().await.unwrap();
            let names = rows.iter().flat_map(|batch| {
                let names = arrow::compute::cast(batch.column(0), &DataType::Utf8).unwrap();
                names.as_string::<i32>().iter().map(|name| name.unwrap().to_string()).collect::<Vec<_>>()
            });
            names.collect::<String>()
        };
        // Three users follow from the means of all and of the published segments; seven may.
        assert_eq!(segments("('a', 100), ('b', 40), ('c', 3)").await, "a");
        assert_eq!(segments("('a', 100), ('b', 40), ('c', 7)").await, "ab");
        assert_eq!(segments("('a', 100), ('b', 40)").await, "ab");
        assert_eq!(segments("('a', 100), ('c', 3)").await, "a", "the report leaves the three out");
    }

    /// With a single published segment, the mean of all users would tell that of the few others.
    #[tokio::test]
    async fn the_reports_means_leave_few_users_of_unpublished_segments_out() {
        let ctx = SessionContext::new();
        functions::register(&ctx, &Config::default(), "2026-03-03".parse().unwrap()).unwrap();
        let intents = ["view", "search", "favorite", "cart", "purchase", "review", "churn"]
            .map(|intent| format!("n.value / 10.0 AS p_{intent}"))
            .join(", ");
        for view in [
            format!(
                "intent_history AS SELECT CAST(s.night AS DATE) AS run_date, s.segment, {intents} FROM (VALUES \
                 ('2026-03-01', 'a', 9), ('2026-03-01', 'c', 3), ('2026-03-02', 'a', 9), ('2026-03-02', 'c', 3), \
                 ('2026-03-02', 'd', 4), ('2026-03-03', 'a', 9)) AS s(night, segment, users) \
                 JOIN generate_series(1, 9) AS n ON n.value <= s.users"
            ),
            "segment_history AS SELECT DISTINCT run_date, segment FROM intent_history WHERE segment = 'a'".into(),
        ] {
            ctx.sql(&format!("CREATE VIEW {view}")).await.unwrap();
        }
        let sql = SqlFiles::load(&Config::default()).unwrap();
        let rows = ctx.sql(sql.get("report/intent_days").unwrap()).await.unwrap().collect().await.unwrap();
        let users = rows.iter().flat_map(|batch| batch["users"].as_primitive::<Int64Type>().values().to_vec());
        assert_eq!(users.collect::<Vec<_>>(), [9, 16, 9]);
    }

    /// The factor by which a category's forecasts move tells the sum of its intents.
    #[tokio::test]
    async fn intents_of_few_users_move_no_forecasts() {
        let ctx = SessionContext::new();
        functions::register(&ctx, &Config::default(), "2026-03-01".parse().unwrap()).unwrap();
        // Each item with its category, its forecast and its users.
        let items = "(VALUES ('a1', 'a', 4.0, 5), ('a2', 'a', 4.0, 2), ('b1', 'b', 4.0, 2), ('b2', 'b', 4.0, 0), \
                     ('c1', 'c', 0.0, 5), ('c2', 'c', 0.0, 1), ('d1', 'd', 0.0, 6), ('e1', 'e', 4.0, 0)) \
                     AS i(item_id, category, mean, users)";
        let quantiles =
            ["q05", "q10", "q25", "q50", "q75", "q90", "q95"].map(|name| format!("mean AS {name}")).join(", ");
        for view in [
            format!("demand_forecasts AS SELECT item_id, 1 AS step, mean, {quantiles} FROM {items}"),
            format!("item_category AS SELECT item_id, category FROM {items}"),
            format!(
                "recommendation AS SELECT concat(item_id, n.value) AS user_id, 1 AS rank, item_id, 0.5 AS score \
                 FROM {items} JOIN generate_series(1, 9) AS n ON n.value <= i.users"
            ),
            "intent AS SELECT user_id, 1.0 AS p_purchase FROM recommendation".into(),
            "intent_weight AS SELECT 0.5 AS intent_weight".into(),
        ] {
            ctx.sql(&format!("CREATE VIEW {view}")).await.unwrap();
        }
        let sql = SqlFiles::load(&Config::default()).unwrap();
        for view in ["demand", "demand_total"] {
            views::register_one(&ctx, &sql, &format!("tables/{view}")).await.unwrap();
        }
        let rows = ctx.sql("SELECT concat(item_id, ' ', mean) AS said FROM demand ORDER BY item_id").await.unwrap();
        let rows = rows.collect().await.unwrap();
        let said = rows.iter().flat_map(|batch| {
            let texts = arrow::compute::cast(batch.column(0), &DataType::Utf8).unwrap();
            texts.as_string::<i32>().iter().map(|text| text.unwrap().to_string()).collect::<Vec<_>>()
        });
        // Two users are behind b, and one behind c2 alone; a has 7 of its 8 units, d has 6, e none.
        let wanted = ["a1 3.75", "a2 3.75", "b1 4.0", "b2 4.0", "c1 0.0", "c2 0.0", "d1 3.0", "e1 2.0"];
        assert_eq!(said.collect::<Vec<_>>(), wanted);
        let faults = ctx.sql(sql.get("checks/sums").unwrap()).await.unwrap().collect().await.unwrap();
        assert_eq!(faults.iter().map(RecordBatch::num_rows).sum::<usize>(), 0, "{faults:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..Default::default() })]

        #[test]
        fn no_number_of_few_users_follows_from_the_published_ones(
            items in prop::collection::vec((0u8..4, prop::collection::btree_set(0u8..30, 0..9)), 1..14)
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (left_out, sums) = runtime.block_on(published(&items));
            let is_small = |users: &Users| (1..K_MIN).contains(&users.len());
            let mut wanted: BTreeMap<String, Option<f64>> = BTreeMap::new();
            for (item, (category, users)) in items.iter().enumerate() {
                prop_assert!(!is_small(users) || left_out.contains(&item));
                let sum = wanted.entry(format!("c{category}")).or_default();
                if !left_out.contains(&item) {
                    *sum = Some(sum.unwrap_or_default() + 2f64.powi(item as i32));
                }
            }
            prop_assert_eq!(sums, wanted, "sums are over the published items");
            prop_assert!(items.iter().any(|(_, users)| is_small(users)) || left_out.is_empty());
            // What the forecasts may tell: the sum of a category, and so of all of its items that are left out.
            let mut categories: BTreeMap<u8, (usize, Users)> = BTreeMap::new();
            for item in left_out {
                let (category, users) = &items[item];
                let known = categories.entry(*category).or_default();
                known.0 += 1;
                known.1.extend(users);
            }
            for (category, (count, users)) in categories {
                let has_large = items.iter().any(|(of, users)| *of == category && users.len() >= K_MIN);
                prop_assert!(!has_large || count >= 2 && users.len() >= K_MIN, "{category}: {count} items of {users:?}");
            }
        }
    }
}
