//! Plans that compute one user's features, made once for a run date and run for each request.
//!
//! They are the SQL files of a night, over tables whose rows a request brings along: the new events, what the night's state
//! has of the user, and what the lake says of the user and of the items.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::prelude::{DataFrame, Expr, SessionContext, ident, lit};
use std::sync::Arc;

use crate::config::Config;
use crate::engine::request_rows::{PreparedPlan, RequestRows, RequestTable, settle};
use crate::failure::{Failure, Result};
use crate::features::functions::{self, Constant};
use crate::features::rollups::{self, Rollups};
use crate::features::{self, LakeSource, Scope, contract, rates, views};
use crate::ids::RunDate;

/// The request's own events, as the lake's view `events` has them.
const EVENTS: &str = "events";
/// The ids and days of stored events, among which a request's events may repeat one.
const KNOWN_EVENT_IDS: &str = "known_event_ids";
/// The request's good events, as a rollup unit has them.
const NEW_EVENT: &str = "new_event";
/// Event rows of the user: those of the request are added to the stored ones.
pub(crate) const UNIT_EVENT: &str = "unit_event";
/// Day rows of the user, of stored events alone.
pub(crate) const UNIT_USER_DAY: &str = "unit_user_day";
const UNIT_ITEM_DAY: &str = "unit_item_day";

/// Tables of the night that a request brings the rows of one user, or of the items of the user's events, from.
pub(crate) const STITCHED: &str = "stitched";
pub(crate) const PERSON: &str = "person";
pub(crate) const PERSON_CONSENT: &str = "person_consent";
pub(crate) const USERS: &str = "users";
pub(crate) const ERASURES: &str = "erasures";
pub(crate) const ITEM_CONTENTS: &str = "item_contents";
const OF_THE_NIGHT: [&str; 6] = [STITCHED, PERSON, PERSON_CONSENT, USERS, ERASURES, ITEM_CONTENTS];

/// Plans of one user's features as of a run date.
#[derive(Debug)]
pub(crate) struct OneUserPlans {
    /// Columns of the request's events.
    pub(crate) events: SchemaRef,
    good: PreparedPlan,
    bad: PreparedPlan,
    features: PreparedPlan,
}

/// An event of a request that a night would put into quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadEvent {
    /// Value of the event's `_file`.
    pub(crate) place: String,
    pub(crate) reason: String,
}

/// One user's features.
#[derive(Debug)]
pub(crate) struct OneUser {
    /// The user's id: that of the login, for a guest who became one.
    pub(crate) user_id: String,
    /// One row: `features` as `score_intents` takes them, and `exclude`, the items that are not recommended.
    pub(crate) row: RecordBatch,
}

impl OneUserPlans {
    /// Divides a request's events into good ones, as a rollup unit has them, and bad ones. `stored` are the user's event rows.
    pub(crate) async fn check(
        &self,
        events: RecordBatch,
        stored: &[RecordBatch],
    ) -> Result<(Vec<RecordBatch>, Vec<BadEvent>)> {
        let mut request = RequestRows::default();
        request.add(EVENTS, [events]);
        request.add(KNOWN_EVENT_IDS, stored.iter().cloned());
        let request = Arc::new(request);
        let mut bad = Vec::new();
        for rows in self.bad.run(&request).await? {
            let text = |column: usize| cast(rows.column(column), &DataType::Utf8);
            let (places, reasons) = (text(0)?, text(1)?);
            for (place, reason) in places.as_string::<i32>().iter().zip(reasons.as_string::<i32>()) {
                let owned = |text: Option<&str>| text.unwrap_or_default().to_string();
                bad.push(BadEvent { place: owned(place), reason: owned(reason) });
            }
        }
        Ok((self.good.run(&request).await?, bad))
    }

    /// Computes the user's features with good events of a request; `None` for someone who may not be scored. `stored` has rows of
    /// every table that this module names.
    pub(crate) async fn features(&self, mut stored: RequestRows, new: Vec<RecordBatch>) -> Result<Option<OneUser>> {
        stored.add(NEW_EVENT, new.iter().cloned());
        stored.add(UNIT_EVENT, new);
        let found = self.features.run(&Arc::new(stored)).await?;
        let Some(first) = found.first() else { return Ok(None) };
        let rows = concat_batches(&first.schema(), &found)?;
        match rows.num_rows() {
            0 => Ok(None),
            1 => {
                let ids = cast(rows.column(0), &DataType::Utf8)?;
                Ok(Some(OneUser { user_id: ids.as_string::<i32>().value(0).into(), row: rows.project(&[1, 2])? }))
            }
            rows => Err(Failure::bug(format!("features of one user: expected one row, got {rows}"))),
        }
    }
}

/// Makes the plans. `open` makes sessions without tables; `night` has the tables of the published night, and `ctx` is a session for
/// the features, with the demand of earlier nights.
pub(crate) async fn prepare(
    open: impl Fn() -> SessionContext,
    source: LakeSource<'_>,
    rollups: &Rollups,
    night: &SessionContext,
    ctx: &SessionContext,
    run_date: RunDate,
) -> Result<OneUserPlans> {
    settle(ctx);
    features::register_inputs(ctx, source, rollups, Scope::night(run_date)).await?;
    let days = open();
    settle(&days);
    functions::register(&days, source.config, run_date)?;
    days.register_table(UNIT_EVENT, RequestTable::provider(NEW_EVENT, table_schema(ctx, UNIT_EVENT).await?))?;
    let stored_days = RequestTable::provider(UNIT_USER_DAY, table_schema(ctx, UNIT_USER_DAY).await?);
    for (name, stored) in [(UNIT_USER_DAY, stored_days), (UNIT_ITEM_DAY, ctx.table_provider(UNIT_ITEM_DAY).await?)] {
        views::register_one(&days, source.sql, &format!("rollups/{name}")).await?;
        let new = like(days.table(name).await?, &stored.schema())?;
        let all = ctx.read_table(stored)?.union(new)?;
        replace(ctx, name, all.into_view())?;
    }
    replace(ctx, UNIT_EVENT, RequestTable::provider(UNIT_EVENT, table_schema(ctx, UNIT_EVENT).await?))?;
    for name in OF_THE_NIGHT {
        replace(ctx, name, RequestTable::provider(name, table_schema(night, name).await?))?;
    }
    views::register(ctx, source.sql, &["master", "state", "features"]).await?;
    contract::register_model_input(ctx).await?;
    let features = ctx
        .sql(
            "SELECT model_input.user_id, model_input.features, \
             CASE WHEN recommendation_exclude_bought() THEN user_bought.bought END AS exclude FROM model_input LEFT JOIN user_bought ON model_input.user_id = user_bought.user_id",
        )
        .await?;
    let events = events_session(open(), source, run_date).await?;
    Ok(OneUserPlans {
        events: table_schema(&events, EVENTS).await?,
        good: PreparedPlan::new(events.table(UNIT_EVENT).await?).await?,
        bad: PreparedPlan::new(events.sql("SELECT source_file, reason FROM unit_quarantine").await?).await?,
        features: PreparedPlan::new(features).await?,
    })
}

/// Opens a session in which the SQL of rollups checks the events of a request.
async fn events_session(ctx: SessionContext, source: LakeSource<'_>, run_date: RunDate) -> Result<SessionContext> {
    let LakeSource { config, sql, lake } = source;
    settle(&ctx);
    functions::register(&ctx, config, run_date)?;
    // The server compares times with its clock when a request comes, not when a plan is made.
    ctx.register_udf(Constant::new("read_at", as_of(config, run_date)).into());
    lake.register_unit(&ctx, Vec::new()).await?;
    rates::register_daily(&ctx, sql, lake).await?;
    let rates = ctx.table("daily_rates").await?;
    let schema = Arc::new(rates.schema().as_arrow().clone());
    replace(&ctx, "daily_rates", Arc::new(MemTable::try_new(schema, vec![rates.collect().await?])?))?;
    let schema = table_schema(&ctx, EVENTS).await?;
    replace(&ctx, EVENTS, RequestTable::provider(EVENTS, schema))?;
    rollups::register_no_known_ids(&ctx).await?;
    let schema = table_schema(&ctx, KNOWN_EVENT_IDS).await?;
    replace(&ctx, KNOWN_EVENT_IDS, RequestTable::provider(KNOWN_EVENT_IDS, schema))?;
    views::register(&ctx, sql, &["rollups"]).await?;
    Ok(ctx)
}

fn as_of(config: &Config, run_date: RunDate) -> ScalarValue {
    let at = run_date.as_of(config.time_zone());
    ScalarValue::TimestampMicrosecond(Some(at.timestamp_micros()), Some("UTC".into()))
}

/// Returns a table's columns, of which any may be null in a request.
async fn table_schema(ctx: &SessionContext, name: &str) -> Result<SchemaRef> {
    let schema = ctx.table_provider(name).await?.schema();
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    Ok(Arc::new(Schema::new(fields.collect::<Vec<Field>>())))
}

fn replace(ctx: &SessionContext, name: &str, table: Arc<dyn datafusion::catalog::TableProvider>) -> Result<()> {
    ctx.deregister_table(name)?;
    ctx.register_table(name, table)?;
    Ok(())
}

/// Returns rows with the columns of `schema`; null where they have none of the name.
fn like(rows: DataFrame, schema: &SchemaRef) -> Result<DataFrame> {
    let has = |name: &str| rows.schema().fields().iter().any(|field| field.name() == name);
    let columns = schema.fields().iter().map(|field| {
        Ok(match has(field.name()) {
            true => ident(field.name()),
            false => lit(ScalarValue::try_from(field.data_type())?).alias(field.name()),
        })
    });
    let columns: Vec<Expr> = columns.collect::<Result<_>>()?;
    Ok(rows.select(columns)?)
}
