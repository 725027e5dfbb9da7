//! Exchange rates: the lake's view `rates`, checked, and `daily_rates`, by which rollups convert prices.

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Float64Type};
use chrono::NaiveDate;
use datafusion::prelude::SessionContext;

use super::master::first_row;
use super::views;
use crate::failure::{Failure, Result};
use crate::ids::ContentHash;
use crate::lake::{Lake, RATES};
use crate::sql_files::SqlFiles;

const FAULTS_SQL: &str = "SELECT min(_file), count(*), fault FROM (SELECT _file, CASE \
    WHEN non_blank(currency) IS NULL THEN 'without a currency' \
    WHEN day IS NULL THEN 'without a day' \
    WHEN rate IS NULL OR isnan(rate) OR rate <= 0 OR rate = CAST('Infinity' AS DOUBLE) THEN 'without a positive rate' \
    WHEN upper(currency) = lake_currency() AND rate <> 1 THEN 'with a rate other than 1 for the lake''s own currency' \
    END AS fault FROM rates) WHERE fault IS NOT NULL GROUP BY fault ORDER BY fault LIMIT 1";
const CONFLICTS_SQL: &str = "SELECT min(_file), max(_file), concat(upper(currency), ' on ', CAST(day AS VARCHAR)) AS rated, \
    min(rate), max(rate) FROM rates GROUP BY upper(currency), day HAVING min(rate) <> max(rate) ORDER BY rated LIMIT 1";
const SORTED_SQL: &str = "SELECT DISTINCT upper(currency) AS currency, day, rate FROM rates \
    WHERE lake_currency() <> '' AND upper(currency) <> lake_currency() ORDER BY day, currency";

/// Registers `daily_rates` over the registered view `rates`; without rows where the lake has no rates, so that the engine removes
/// the join with it.
pub(crate) async fn register_daily(ctx: &SessionContext, sql: &SqlFiles, lake: &Lake) -> Result<()> {
    if lake.has_rates() {
        return views::register_one(ctx, sql, "rollups/daily_rates").await;
    }
    let none =
        "SELECT CAST(NULL AS VARCHAR) AS currency, CAST(NULL AS DATE) AS day, CAST(NULL AS DOUBLE) AS rate WHERE false";
    ctx.register_table("daily_rates", ctx.sql(none).await?.into_view())?;
    Ok(())
}

/// Checked rates up to each day, as hashes: a later rate changes no earlier hash.
#[derive(Debug)]
pub(super) struct RateHistory {
    days: Vec<(NaiveDate, String)>,
}

impl RateHistory {
    /// Reads the registered view `rates` and refuses (exit 3) wrong ones; none where the lake has no rates.
    pub(super) async fn load(ctx: &SessionContext, lake: &Lake) -> Result<Option<Self>> {
        if !lake.has_rates() {
            return Ok(None);
        }
        check(ctx, lake).await?;
        let mut rates = Vec::new();
        for batch in ctx.sql(SORTED_SQL).await?.collect().await? {
            let currencies = cast(batch.column(0), &DataType::Utf8)?;
            let (days, values) =
                (batch.column(1).as_primitive::<Date32Type>(), batch.column(2).as_primitive::<Float64Type>());
            for (row, currency) in currencies.as_string::<i32>().iter().enumerate() {
                let day = Date32Type::to_naive_date_opt(days.value(row));
                rates.push((
                    currency.unwrap_or_default().to_string(),
                    day.unwrap_or(NaiveDate::MIN),
                    values.value(row),
                ));
            }
        }
        Ok(Some(Self::from_sorted(rates.into_iter())))
    }

    /// Hashes currency, day and rate of each row; the rows are sorted by day.
    pub(super) fn from_sorted(rates: impl Iterator<Item = (String, NaiveDate, f64)>) -> Self {
        let mut hasher = blake3::Hasher::new();
        let mut days: Vec<(NaiveDate, String)> = Vec::new();
        for (currency, day, rate) in rates {
            hasher.update(format!("{currency}\0{day}\0{rate:?}\0").as_bytes());
            if days.last().is_some_and(|(last, _)| *last == day) {
                days.pop();
            }
            days.push((day, ContentHash::from_hasher(&hasher).short()));
        }
        Self { days }
    }

    /// Returns the hash of the rates up to a day, or of all; none where there is no rate.
    pub(super) fn fingerprint(&self, last_day: Option<NaiveDate>) -> Option<String> {
        let known = match last_day {
            Some(last) => &self.days[..self.days.partition_point(|(day, _)| *day <= last)],
            None => &self.days[..],
        };
        known.last().map(|(_, hash)| hash.clone())
    }
}

/// Refuses (exit 3) rates by which prices would be converted wrongly.
pub(crate) async fn check(ctx: &SessionContext, lake: &Lake) -> Result<()> {
    if !lake.has_rates() {
        return Ok(());
    }
    let place = lake.view_place(RATES)?;
    // Rows that do not come from a file are the SQL's own.
    let place_of = |file: String| if file == "null" { place.to_string() } else { file };
    let hint = "correct the rows and run the same command again; a rate is the price of one unit of its currency in lake.currency";
    if let Some([file, bad, fault]) = first_row(ctx, FAULTS_SQL).await.map_err(|f| f.at(place))? {
        return Err(Failure::input(format!("{}: {bad} rows {fault}", place_of(file))).hint(hint));
    }
    if let Some([first, second, rated, low, high]) = first_row(ctx, CONFLICTS_SQL).await? {
        let (first, second) = (place_of(first), place_of(second));
        let files = if first == second { first } else { format!("{first}, {second}") };
        return Err(Failure::input(format!("{files}: {rated}: expected one rate, found {low} and {high}")).hint(hint));
    }
    Ok(())
}
