//! `intentcast simulate`: a seeded behaviour lake with known truth, written day by day in bounded memory.
//!
//! Between days it holds one small record per user and one line of stock per item. The same seed gives the same bytes.

mod catalogue;
mod events;
mod faults;
mod intent;
mod options;
mod people;
mod random;
mod sessions;
pub mod signal;
mod stock;
mod tables;
mod writer;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float32Array, Float64Array, Int64Array, StringArray, StringBuilder,
};
use arrow::datatypes::DataType;
use chrono::{Datelike, NaiveDate};
use rand::Rng;
use std::fmt::{self, Write};
use std::sync::Arc;

use crate::failure::{Failure, Result};
use crate::ids::date32;
use crate::lake::stores::Location;
use crate::progress;
use catalogue::Catalogue;
use events::{Columns, Event, events_schema, item_id};
use intent::{after_absence, purchase_probability};
use options::{BATCH_ROWS, DAY_MICROS};
use people::{NEVER, Person};
use random::{Purpose, coin, stream};
use stock::Stock;
use writer::{ParquetSink, schema};

pub use options::SimulateOptions;

/// Traffic by weekday, Monday first.
const WEEK: [f32; 7] = [0.9, 0.88, 0.92, 0.95, 1.05, 1.2, 1.15];
/// Window of the written propensities.
const PROPENSITY_DAYS: u32 = 7;

/// Counts of what was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SimulateReport {
    pub events: u64,
    pub purchases: u64,
    pub(crate) bytes: u64,
    pub(crate) faults: u64,
}

impl fmt::Display for SimulateReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} events ({} purchases) in {} bytes", self.events, self.purchases, self.bytes)?;
        match self.faults {
            0 => Ok(()),
            n => write!(f, "; {n} bad rows and files planted, listed in faults.json"),
        }
    }
}

/// Writes a lake to `to`. Days count from zero; day d is `start + d`, and lake time is UTC.
pub async fn simulate(to: &Location, options: &SimulateOptions) -> Result<SimulateReport> {
    if options.users == 0 || options.items == 0 || options.days == 0 {
        return Err(Failure::usage("simulate: expected at least one user, item and day"));
    }
    if let Some(share) = options.active_share.filter(|share| !(0.001..=0.5).contains(share)) {
        return Err(Failure::usage(format!("--active-share: expected 0.001 to 0.5, got {share}")));
    }
    if !to.folder("events").list().await?.is_empty() {
        return Err(Failure::usage(format!("{}: a lake exists already", to.url)).hint("choose an empty folder"));
    }
    let mut world = World::new(options);
    let bar = progress::bar("days", options.days.into());
    let mut report = SimulateReport::default();
    let mut inventory = ParquetSink::open(to, "inventory/part-00000.parquet", &tables::inventory_schema())?;
    let mut demand = ParquetSink::open(to, "truth/demand/part-00000.parquet", &demand_schema())?;
    for day in 0..options.days {
        world.start_day(day);
        report.bytes += world.write_propensity(to, day).await?;
        world.stock.morning(day);
        inventory.write(tables::inventory(&world.stock, &world.catalogue, day, world.date32(day))).await?;
        let rates = world.write_events(to, day, &mut report).await?;
        demand.write(world.demand_rows(day, &rates)).await?;
        world.stock.evening(day);
        bar.inc(1);
    }
    report.bytes += inventory.close().await? + demand.close().await?;
    report.bytes += tables::write_masters(to, &world.catalogue, options).await?;
    if options.faults {
        report.faults = faults::plant(to, options, report.events).await?;
    }
    bar.finish_and_clear();
    Ok(report)
}

struct World<'a> {
    options: &'a SimulateOptions,
    catalogue: Catalogue,
    people: Vec<Person>,
    stock: Stock,
}

impl<'a> World<'a> {
    fn new(options: &'a SimulateOptions) -> Self {
        let mut catalogue = Catalogue::new(options.seed, options.items, options.days, options.signal);
        catalogue.start_day(0, options.start.weekday().num_days_from_monday());
        let categories = catalogue.categories();
        let people: Vec<Person> =
            (0..options.users).map(|n| Person::new(options.seed, n, options.days, categories)).collect();
        // About one unit a day for every 60 users.
        let daily: Vec<f64> =
            (0..options.items as u32).map(|i| catalogue.share(i) * options.users as f64 / 60.0).collect();
        let stock = Stock::new(options.seed, &daily);
        Self { options, catalogue, people, stock }
    }

    fn date(&self, day: u32) -> NaiveDate {
        self.options.start + chrono::Days::new(day.into())
    }

    fn date32(&self, day: u32) -> i32 {
        date32(self.date(day))
    }

    fn season(&self, day: u32) -> f32 {
        let weekday = self.date(day).weekday().num_days_from_monday();
        let year = f64::from(self.date(day).ordinal0()) / 365.25 * std::f64::consts::TAU;
        self.options.traffic() * WEEK[weekday as usize] * (1.0 + 0.08 * year.cos() as f32)
    }

    fn start_day(&mut self, day: u32) {
        let weekday = self.date(day).weekday().num_days_from_monday();
        self.catalogue.start_day(day, weekday);
    }

    /// Writes each user's chance of a purchase in the days from `day` on, under the id that the shop knows when the day begins.
    async fn write_propensity(&self, to: &Location, day: u32) -> Result<u64> {
        let seasons: Vec<f32> = (day..day + PROPENSITY_DAYS).map(|d| self.season(d)).collect();
        let columns =
            schema(&[("user_id", DataType::Utf8), ("as_of", DataType::Date32), ("p_purchase_7d", DataType::Float32)]);
        let file = format!("truth/propensity/dt={}/part-00000.parquet", self.date(day));
        let mut sink = ParquetSink::open_sorted(to, &file, &columns)?;
        for (chunk, people) in self.people.chunks(BATCH_ROWS).enumerate() {
            let (mut ids, mut chances) = (StringBuilder::new(), Vec::with_capacity(people.len()));
            for (i, person) in people.iter().enumerate().filter(|(_, p)| p.is_active(day)) {
                let number = (chunk * BATCH_ROWS + i) as u64;
                // Written in place, because a million users a day would be a million strings.
                write!(ids, "{}{number:07}", prefix(person, day.saturating_sub(1))).map_err(Failure::bug)?;
                ids.append_value("");
                chances.push(purchase_probability(person.state, &person.habits, &seasons, 1.0));
            }
            let days = Date32Array::from(vec![self.date32(day); chances.len()]);
            sink.write(vec![Arc::new(ids.finish()), Arc::new(days), Arc::new(Float32Array::from(chances))]).await?;
        }
        sink.close().await
    }

    /// Plays a day and writes its events; returns each item's expected units.
    async fn write_events(&mut self, to: &Location, day: u32, report: &mut SimulateReport) -> Result<Vec<f64>> {
        let season = self.season(day);
        let midnight = i64::from(self.date32(day)) * DAY_MICROS;
        let seed = self.options.seed;
        let categories = self.catalogue.categories();
        let mut mass = vec![vec![0.0; catalogue::BRAND_SLOTS]; categories];
        let mut sink =
            ParquetSink::open(to, &format!("events/dt={}/part-00000.parquet", self.date(day)), &events_schema())?;
        let mut batch = Batch { day, midnight, sequence: 0, columns: Columns::default() };
        for number in 0..self.people.len() {
            let person = &mut self.people[number];
            let due = person.review_day == day || person.return_day == day;
            if !person.is_active(day) && !due {
                continue;
            }
            let chance = person.habits.visits(person.state, season);
            add_mass(person, f64::from(chance) * sessions::attempts(person), &mut mass);
            let (draw, lapse) = coin(seed, number as u64, day.into());
            if draw >= chance && !due {
                person.state = after_absence(person.state, lapse);
                continue;
            }
            let mut rng = stream(seed, Purpose::Session, number as u64, day.into());
            let user = user_id(number as u64, person, day);
            let session = format!("s{number}-{day}");
            if draw < chance && person.is_active(day) {
                let visit = sessions::visit(person, day, midnight, &self.catalogue, &mut self.stock, &mut rng);
                report.purchases += u64::from(visit.bought);
                batch.add(Some(&user), &session, &visit.events, &mut rng);
            }
            if due {
                let person = &mut self.people[number];
                let events =
                    sessions::after_purchase(person, day, midnight, &self.catalogue, &mut self.stock, &mut rng);
                batch.add(Some(&user), &format!("{session}-after"), &events, &mut rng);
            }
            if batch.columns.rows >= BATCH_ROWS {
                report.events += batch.columns.rows as u64;
                sink.write(batch.columns.finish()).await?;
            }
        }
        self.play_guests(day, midnight, season, &mut mass, &mut batch, report);
        report.events += batch.columns.rows as u64;
        sink.write(batch.columns.finish()).await?;
        report.bytes += sink.close().await?;
        Ok(sessions::demand_rates(&mass, &self.catalogue))
    }

    /// Plays visitors without any id, who count only for demand.
    fn play_guests(
        &mut self,
        day: u32,
        midnight: i64,
        season: f32,
        mass: &mut [Vec<f64>],
        batch: &mut Batch,
        report: &mut SimulateReport,
    ) {
        let mut rng = stream(self.options.seed, Purpose::Guests, day.into(), 0);
        let guests = (self.options.users as f64 * 0.008 * f64::from(season)) as u64;
        for guest in 0..guests {
            let mut person = Person::new(
                self.options.seed ^ 0x6775_6573,
                guest + u64::from(day) * 1_000_003,
                1,
                self.catalogue.categories(),
            );
            person.habits.impulse = 0.08;
            add_mass(&person, sessions::attempts(&person), mass);
            let visit = sessions::visit(&mut person, day, midnight, &self.catalogue, &mut self.stock, &mut rng);
            report.purchases += u64::from(visit.bought);
            batch.add(None, &format!("a{guest}-{day}"), &visit.events, &mut rng);
        }
    }

    fn demand_rows(&self, day: u32, rates: &[f64]) -> Vec<ArrayRef> {
        let lines = &self.stock.lines;
        vec![
            Arc::new((0..lines.len() as u32).map(|i| Some(item_id(i))).collect::<StringArray>()),
            Arc::new(Date32Array::from(vec![self.date32(day); lines.len()])),
            Arc::new(Float64Array::from(rates.to_vec())),
            Arc::new(lines.iter().map(|l| Some(l.wanted)).collect::<Int64Array>()),
            Arc::new(lines.iter().map(|l| Some(l.sold)).collect::<Int64Array>()),
            Arc::new(lines.iter().map(|l| Some(l.wanted == l.sold)).collect::<BooleanArray>()),
        ]
    }
}

fn demand_schema() -> arrow::datatypes::SchemaRef {
    schema(&[
        ("item_id", DataType::Utf8),
        ("date", DataType::Date32),
        ("rate", DataType::Float64),
        ("units_wanted", DataType::Int64),
        ("units_sold", DataType::Int64),
        ("in_stock", DataType::Boolean),
    ])
}

/// Returns the id by which the shop knows a user on a day: `u…`, or `g…` before the login.
fn user_id(number: u64, person: &Person, day: u32) -> String {
    format!("{}{number:07}", prefix(person, day))
}

fn prefix(person: &Person, day: u32) -> char {
    if person.logs_in == NEVER || day < person.logs_in { 'g' } else { 'u' }
}

/// Spreads the chance of a purchase attempt over the categories in which it can happen.
fn add_mass(person: &Person, chance: f64, mass: &mut [Vec<f64>]) {
    let slot = usize::from(person.brand_slot);
    if person.state == intent::State::Ready {
        mass[usize::from(person.category)][slot] += chance;
    } else if chance > 0.0 {
        let mut rest = 1.0;
        for (share, category) in people::TASTES.iter().zip(person.tastes) {
            mass[usize::from(category)][slot] += chance * share;
            rest -= share;
        }
        let each = chance * rest / mass.len() as f64;
        mass.iter_mut().for_each(|m| m[slot] += each);
    }
}

/// The events of a day that are not written yet.
struct Batch {
    day: u32,
    midnight: i64,
    sequence: u64,
    columns: Columns,
}

impl Batch {
    fn add(&mut self, user: Option<&str>, session: &str, events: &[Event], rng: &mut impl Rng) {
        for event in events {
            // A file has one UTC day; events of a visit past midnight move to its end.
            let ts = event.ts.min(self.midnight + DAY_MICROS - 1);
            let late = if rng.random_bool(0.003) { rng.random_range(6i64..30) * 3_600_000_000 } else { 0 };
            let arrived_at = ts + rng.random_range(1_000_000i64..240_000_000) + late;
            let id = format!("e{:05}-{:09}", self.day, self.sequence);
            self.sequence += 1;
            self.columns.push(&id, user, session, arrived_at, &Event { ts, ..event.clone() });
        }
    }
}
