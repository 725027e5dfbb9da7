//! Lakes of random rows in files of random shape, and the same rows as plain JSON for an independent count.
//!
//! Everything follows from one seed. A row has at most one fault, and repeated event ids have one copy that arrived first, so that
//! the documents alone decide what is counted.

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeZone, Utc};
use chrono_tz::Tz;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use super::random_files::{Column, Ids, Kind, Row, Shape, Value, to_json};
use super::random_refusals::{self, Planted};
use super::random_rows::{
    ARRIVED, DAY, EVENT_ID, EVENT_TYPE, PRICE, SECOND, TS, TYPES, USER, columns, ids, spoil, text,
};

/// One event file, with the rows that it holds.
pub struct LakeFile {
    /// Below the lake.
    pub path: String,
    pub dt: Option<NaiveDate>,
    pub shape: Shape,
    pub rows: Vec<Row>,
    pub bytes: Vec<u8>,
}

/// A lake and what a session over it is told.
pub struct RandomLake {
    pub run_date: NaiveDate,
    pub zone: Tz,
    pub partition: &'static str,
    pub arrival: &'static str,
    /// `lake.currency`.
    pub currency: &'static str,
    /// `engine.partitions` and `engine.batch_rows`.
    pub engine: (u32, u32),
    /// True where an earlier night left rollups.
    pub stored_before: bool,
    pub columns: [Column; 14],
    pub files: Vec<LakeFile>,
    others: Vec<(&'static str, Vec<Column>, Vec<Row>)>,
    /// Objects that are no data: paths and bytes.
    pub decoys: Vec<(String, Vec<u8>)>,
    pub planted: Option<Planted>,
    pub user_ids: Vec<String>,
    item_ids: Vec<String>,
    taken: HashSet<i64>,
    id_kinds: [Ids; 4],
}

impl RandomLake {
    /// Makes a lake; about a third of them have a fault for which a file is refused.
    pub fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut lake = Self::sound(&mut rng);
        if rng.random_bool(0.3) {
            lake.planted = Some(random_refusals::plant(&mut rng, &mut lake));
        }
        lake
    }

    /// Makes a lake without a refused file; its rows may be bad.
    pub fn sound(rng: &mut ChaCha8Rng) -> Self {
        let zones = [
            Tz::UTC,
            Tz::UTC,
            Tz::Europe__Paris,
            Tz::America__New_York,
            Tz::Asia__Kolkata,
            Tz::Pacific__Auckland,
            Tz::America__St_Johns,
        ];
        let times = [
            ("event_date_utc", "column"),
            ("event_date_utc", "none"),
            ("event_date_local", "column"),
            ("event_date_local", "none"),
            ("ingest_date", "ingest_date"),
            ("ingest_date", "column"),
            ("none", "column"),
            ("none", "none"),
            ("none", "ingest_date"),
        ];
        let (partition, arrival) = *times.choose(rng).unwrap();
        let kinds = [Ids::Text, Ids::Text, Ids::Small, Ids::Large, Ids::Uuid];
        let id_kinds = [(); 4].map(|()| *kinds.choose(rng).unwrap());
        let (users, items) = (rng.random_range(1..10), rng.random_range(1..7));
        let mut lake = Self {
            run_date: NaiveDate::from_ymd_opt(2025, 2, 1).unwrap() + Days::new(rng.random_range(0..300)),
            zone: *zones.choose(rng).unwrap(),
            partition,
            arrival,
            currency: ["", "", "EUR"].choose(rng).unwrap(),
            engine: (rng.random_range(1..4), *[3, 64, 8_192].choose(rng).unwrap()),
            stored_before: rng.random_bool(0.3),
            columns: columns(id_kinds),
            files: Vec::new(),
            others: Vec::new(),
            decoys: Vec::new(),
            planted: None,
            user_ids: ids(rng, id_kinds[0], users),
            item_ids: ids(rng, id_kinds[1], items),
            taken: HashSet::new(),
            id_kinds,
        };
        lake.add_files(rng);
        lake.add_copies(rng);
        lake.add_others(rng);
        for at in 0..lake.files.len() {
            let LakeFile { shape, rows, .. } = &lake.files[at];
            lake.files[at].bytes = shape.encode(rng, rows);
        }
        lake.add_decoys(rng);
        lake
    }

    fn local_midnight(&self, date: NaiveDate) -> i64 {
        let midnight = self.zone.from_local_datetime(&date.and_time(NaiveTime::MIN)).earliest().unwrap();
        midnight.timestamp_micros()
    }

    fn local_day(&self, micros: i64) -> NaiveDate {
        DateTime::<Utc>::from_timestamp_micros(micros).unwrap().with_timezone(&self.zone).date_naive()
    }

    /// Returns a time that no other event has, near the bounds of days, parts of days and look-back windows.
    fn moment(&mut self, rng: &mut ChaCha8Rng) -> i64 {
        let back = *[0, 1, 1, 1, 2, 3, 7, 7, 8, 28, 28, 29, 90, 90, 91, 200].choose(rng).unwrap();
        let midnight = self.local_midnight(self.run_date - Days::new(back));
        let hours = *[0, 0, 5, 6, 11, 12, 17, 18, 23, 24].choose(rng).unwrap();
        let near = midnight + hours * 3_600 * SECOND - rng.random_range(0..2) * SECOND;
        let mut at = if rng.random_bool(0.5) { near } else { midnight + rng.random_range(0..86_400) * SECOND };
        while !self.taken.insert(at / SECOND) {
            at += SECOND;
        }
        at + *[0, 0, 999_999, rng.random_range(0..SECOND)].choose(rng).unwrap()
    }

    fn id(&self, rng: &mut ChaCha8Rng, from: &[String], none: f64) -> Value {
        if !rng.random_bool(none) {
            return Value::Text(from.choose(rng).unwrap().clone());
        }
        [Value::Null, text(""), text(" "), text("\t"), text("\u{a0}")].choose(rng).unwrap().clone()
    }

    fn event(&mut self, rng: &mut ChaCha8Rng, number: usize) -> Row {
        let ts = self.moment(rng);
        let weights = [(0, 5), (1, 2), (2, 3), (3, 1), (4, 3), (5, 1), (6, 6), (7, 1)];
        let kind = weights.choose_weighted(rng, |(_, weight)| *weight).unwrap().0;
        let event_id = match self.id_kinds[2] {
            Ids::Text => format!("e{number}"),
            Ids::Small => (number % 100).to_string(),
            Ids::Large => (9_007_199_254_740_993 + number).to_string(),
            Ids::Uuid => uuid::Uuid::from_u128(rng.random()).to_string(),
        };
        let has_id = rng.random_bool(0.7) && (self.id_kinds[2] != Ids::Small || number < 100);
        let sessions = ids(&mut ChaCha8Rng::seed_from_u64(7), self.id_kinds[3], 6);
        let delay = *[-60, 0, 30, 3_600, 5 * 3_600, 40 * 3_600, 9 * 86_400].choose(rng).unwrap();
        let prices = [0.0, 19.99, 5.0, 0.1, 0.00004, 12.3456, 123_456.78, 9e13, rng.random_range(0.0..100.0)];
        let some = |rng: &mut ChaCha8Rng, share: f64, value: Value| match rng.random_bool(share) {
            true => value,
            false => Value::Null,
        };
        let quantity = *[0, 1, 1, 2, 5, 300, -1, -2].choose(rng).unwrap();
        let price = *prices.choose(rng).unwrap();
        let currency = ["EUR", "eur", "EUR", "", " "].choose(rng).unwrap();
        let (dwell, rating) = (rng.random_range(0..600_000), rng.random_range(1..6));
        let arrived = ts + delay * SECOND + rng.random_range(0..SECOND);
        let words = ["shoe", "red shoe", "🎁", "a\"b", "7"].choose(rng).unwrap();
        vec![
            Value::Time(ts),
            text(TYPES[kind]),
            self.id(rng, &self.user_ids, 0.12),
            self.id(rng, &self.item_ids, 0.15),
            if has_id { Value::Text(event_id) } else { self.id(rng, &[String::new()], 0.5) },
            self.id(rng, &sessions, 0.5),
            some(rng, 0.7, Value::Time(arrived)),
            some(rng, if kind == 2 { 0.8 } else { 0.1 }, text(words)),
            some(rng, 0.5, Value::Whole(dwell)),
            some(rng, if kind == 6 { 0.85 } else { 0.2 }, Value::Whole(quantity)),
            some(rng, 0.8, Value::Number(price)),
            some(rng, 0.6, text(currency)),
            some(rng, if kind == 7 { 0.9 } else { 0.0 }, Value::Whole(rating)),
            some(rng, 0.1, text("good")),
        ]
    }

    /// Returns the date of the folder of an event's file, as the lake's partitioning means it.
    fn folder_date(&self, rng: &mut ChaCha8Rng, row: &Row) -> Option<NaiveDate> {
        let Value::Time(ts) = row[TS] else { unreachable!("events are made with a time") };
        let arrived = if let Value::Time(arrived) = row[ARRIVED] { arrived } else { ts };
        let misplaced = match rng.random_range(0..30) {
            0 => 1,
            1 => -1,
            2 => 4,
            3 => -4,
            _ => 0,
        };
        let day = match self.partition {
            "event_date_utc" => DateTime::<Utc>::from_timestamp_micros(ts)?.date_naive(),
            "event_date_local" => self.local_day(ts),
            _ => self.local_day(arrived),
        };
        let needs_date = self.partition == "ingest_date" || self.arrival == "ingest_date";
        match self.partition {
            "none" | "ingest_date" if needs_date => Some(day),
            "none" => rng.random_bool(0.5).then_some(day),
            _ => rng.random_bool(0.95).then(|| day + chrono::Duration::days(misplaced)),
        }
    }

    fn add_files(&mut self, rng: &mut ChaCha8Rng) {
        let mut by_date: BTreeMap<Option<NaiveDate>, Vec<Row>> = BTreeMap::new();
        for number in 0..rng.random_range(60..220) {
            let mut row = self.event(rng, number);
            let date = self.folder_date(rng, &row);
            if rng.random_bool(0.12) {
                spoil(rng, &mut row, self.currency);
            }
            by_date.entry(date).or_default().push(row);
        }
        for (dt, rows) in by_date {
            let parts = if rows.len() > 4 { rng.random_range(1..3) } else { 1 };
            for rows in rows.chunks(rows.len().div_ceil(parts)) {
                let shape = Shape::random(rng, &self.columns);
                let rows: Vec<Row> = rows.iter().map(|row| shape.hold(row)).collect();
                let path = self.path(rng, dt);
                self.files.push(LakeFile { path, dt, shape, rows, bytes: Vec::new() });
            }
        }
        // A file without rows.
        let shape = Shape::random(rng, &self.columns);
        let dt = self.files[0].dt;
        self.files.push(LakeFile { path: self.path(rng, dt), dt, shape, rows: Vec::new(), bytes: Vec::new() });
    }

    fn path(&self, rng: &mut ChaCha8Rng, dt: Option<NaiveDate>) -> String {
        let names = [
            "part-{}.parquet",
            "{}.PARQUET",
            "{}.parq",
            "00000{}_0",
            "{}.parquet.gzip",
            "part ({}).parquet",
            "a%20{}.pq",
        ];
        let folder = match (dt, rng.random_range(0..6)) {
            (Some(dt), 0) => format!("DT={dt}/"),
            (Some(dt), 1) => format!("region=eu/dt={dt}/hour=03/"),
            (Some(dt), _) => format!("dt={dt}/"),
            (None, 0) => "2025/07/".into(),
            (None, _) => String::new(),
        };
        let name = names.choose(rng).unwrap().replace("{}", &self.files.len().to_string());
        format!("events/{folder}{name}")
    }

    /// Repeats event ids: the same row again, and other rows under the id that arrived later or happened on another day.
    fn add_copies(&mut self, rng: &mut ChaCha8Rng) {
        let originals: Vec<(usize, Row)> = self
            .files
            .iter()
            .enumerate()
            .flat_map(|(at, file)| file.rows.iter().map(move |row| (at, row.clone())))
            .collect();
        for (at, row) in originals {
            let is_blank = |id: &str| id.trim().is_empty();
            let (Value::Time(ts), Value::Text(id)) = (&row[TS], &row[EVENT_ID]) else { continue };
            let arrived = if let Value::Time(arrived) = row[ARRIVED] { arrived } else { *ts };
            if is_blank(id) || !rng.random_bool(0.15) || (arrived - ts).abs() > 30 * DAY {
                continue;
            }
            let (ts, mut copy, mut to) = (*ts, row.clone(), at);
            let mut must_arrive = false;
            match rng.random_range(0..3) {
                0 => {}
                1 => copy[TS] = Value::Time(ts - DAY),
                _ => {
                    let dt = self.files[at].dt;
                    let later: Vec<usize> = (0..self.files.len())
                        .filter(|&other| match self.arrival {
                            "column" => self.files[other].dt == dt && self.files[other].shape.has(ARRIVED),
                            "ingest_date" => self.files[other].dt > dt,
                            _ => false,
                        })
                        .collect();
                    let Some(&other) = later.choose(rng) else { continue };
                    to = other;
                    must_arrive = self.arrival == "column";
                    copy[USER] = self.id(rng, &self.user_ids, 0.1);
                    copy[PRICE] = Value::Number(1.5);
                    copy[EVENT_TYPE] = text("purchase");
                    copy[TS] = Value::Time(ts - rng.random_range(0..3) * SECOND);
                    let delay = rng.random_range(2 * DAY..6 * DAY);
                    copy[ARRIVED] = Value::Time(arrived + delay);
                }
            }
            let held = self.files[to].shape.hold(&copy);
            // Without the time of its arrival, nothing says which of the two rows was first.
            if held[EVENT_ID] == copy[EVENT_ID] && !(must_arrive && held[ARRIVED] == Value::Null) {
                self.files[to].rows.push(held);
            }
        }
    }

    /// Adds users, the catalogue, stock and erasures.
    fn add_others(&mut self, rng: &mut ChaCha8Rng) {
        let column = |name, kind, optional| Column { name, kind, optional };
        let [user, item, ..] = self.id_kinds.map(Kind::Id);
        let as_of = self.local_midnight(self.run_date);
        let signed_up = [Value::Null, Value::Time(as_of - 9 * DAY), Value::Time(as_of - SECOND), Value::Time(as_of)];
        let flag = |rng: &mut ChaCha8Rng, yes: f64| match rng.random_range(0..3) {
            0 => Value::Null,
            _ => Value::Flag(rng.random_bool(yes)),
        };
        // The first half are logins, to which some ids of the second half belong.
        let logins = self.user_ids.len().div_ceil(2);
        let mut users = Vec::new();
        for (at, id) in self.user_ids.iter().enumerate() {
            if rng.random_bool(0.3) {
                continue;
            }
            let login = if at >= logins && rng.random_bool(0.6) { self.user_ids[..logins].choose(rng) } else { None };
            let login = login.map_or(Value::Null, |login| text(login));
            users.push(vec![text(id), login, signed_up.choose(rng).unwrap().clone(), flag(rng, 0.9), flag(rng, 0.1)]);
        }
        let names = [("user_id", user, false), ("canonical_user_id", user, false), ("signed_up_at", Kind::Time, false)];
        let mut columns: Vec<Column> = names.map(|(name, kind, optional)| column(name, kind, optional)).into();
        columns.extend([column("consent", Kind::Flag, false), column("excluded", Kind::Flag, false)]);
        self.others.push(("users", columns, users));

        let categories = [Value::Null, text("shoes"), text("shoes/red"), text("hats")];
        let known: Vec<&String> = self.item_ids.iter().filter(|_| rng.random_bool(0.8)).collect();
        let items = known.iter().map(|id| vec![text(id), categories.choose(rng).unwrap().clone()]).collect();
        self.others.push(("items", vec![column("item_id", item, false), column("category", Kind::Text, false)], items));

        let today = (self.run_date - NaiveDate::default()).num_days() as i32;
        let mut stock = Vec::new();
        for id in known {
            for back in [0, 1, 40] {
                stock.push(vec![text(id), Value::Date(today - back), Value::Whole(rng.random_range(0..100))]);
            }
        }
        let columns = [("item_id", item), ("as_of", Kind::Date), ("on_hand", Kind::Whole)];
        self.others.push(("inventory", columns.map(|(name, kind)| column(name, kind, false)).into(), stock));

        let erased = self.user_ids.iter().filter(|_| rng.random_bool(0.05)).map(|id| vec![text(id)]).collect();
        self.others.push(("erasures", vec![column("user_id", user, false)], erased));
    }

    /// Adds copies in staging folders, markers and other objects that are no data.
    fn add_decoys(&mut self, rng: &mut ChaCha8Rng) {
        let copy = self.files.choose(rng).unwrap().bytes.clone();
        let decoys = [
            ("events/_temporary/0/attempt_1/dt=2025-01-05/part-0.parquet", copy.clone()),
            ("events/.staging-7/part-0.parquet", copy.clone()),
            ("events/.part-0.parquet.crc", vec![1, 2, 3]),
            ("events/_SUCCESS", Vec::new()),
            ("events/dt=2025-01-05_$folder$", Vec::new()),
            ("events/readme.txt", b"about this folder".to_vec()),
            ("events/_delta_log_old/part-0.parquet", copy),
        ];
        let chosen = decoys.into_iter().filter(|_| rng.random_bool(0.5));
        self.decoys.extend(chosen.map(|(path, bytes)| (path.to_string(), bytes)));
    }

    /// Writes the lake to `<folder>/lake` and its rows to `<folder>/rows`.
    pub fn write(&self, folder: &Path, seed: u64) {
        let put = |path: &str, bytes: &[u8]| {
            let path = folder.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        for file in &self.files {
            put(&format!("lake/{}", file.path), &file.bytes);
        }
        for (path, bytes) in &self.decoys {
            put(&format!("lake/{path}"), bytes);
        }
        let mut events = String::new();
        for file in &self.files {
            for row in &file.rows {
                let mut line = to_json(&self.columns, row);
                line.insert("dt".into(), json!(file.dt.map(|dt| dt.to_string())));
                events += &format!("{}\n", serde_json::Value::Object(line));
            }
        }
        put("rows/events.json", events.as_bytes());
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        for (view, columns, rows) in &self.others {
            let shape = Shape::random(rng, columns);
            let held: Vec<Row> = rows.iter().map(|row| shape.hold(row)).collect();
            put(&format!("lake/{view}/part-0.parquet"), &shape.encode(rng, &held));
            let lines: Vec<String> =
                held.iter().map(|row| serde_json::Value::Object(to_json(columns, row)).to_string()).collect();
            put(&format!("rows/{view}.json"), (lines.join("\n") + "\n").as_bytes());
        }
        let settings = json!({
            "run_date": self.run_date.to_string(), "zone": self.zone.name(), "partition": self.partition,
            "arrival": self.arrival, "currency": self.currency,
        });
        put("rows/settings.json", settings.to_string().as_bytes());
    }

    /// Returns the settings of a session over the lake.
    pub fn settings(&self) -> Vec<String> {
        let mut settings = vec![
            format!("lake.time_zone={}", self.zone.name()),
            format!("lake.partition={}", self.partition),
            format!("lake.arrival={}", self.arrival),
            "lake.quarantine_share_max=1.0".into(),
            format!("engine.partitions={}", self.engine.0),
            format!("engine.batch_rows={}", self.engine.1),
        ];
        if !self.currency.is_empty() {
            settings.push(format!("lake.currency={}", self.currency));
        }
        settings
    }
}
