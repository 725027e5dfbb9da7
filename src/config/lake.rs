//! Settings of the places that a night reads from and writes to: the lake, the output, SQL files, S3.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

use super::declare::{choices, settings};
use crate::failure::{Failure, Result};

choices! {
    /// Meaning of the `dt=` folder of an event file.
    Partition {
        /// the day of the events in UTC
        EventDateUtc = "event_date_utc",
        /// the day of the events in `lake.time_zone`
        EventDateLocal = "event_date_local",
        /// the day on which the file was written
        IngestDate = "ingest_date",
        /// no meaning
        None = "none",
    }
}

choices! {
    /// Source of an event's arrival time.
    Arrival {
        /// a column of the event files
        Column = "column",
        /// the `dt=` folder
        IngestDate = "ingest_date",
        /// unknown: an event arrives when it happens
        None = "none",
    }
}

settings! {
    /// The Parquet lake that is read. A file `lake.toml` in the lake, which `import` writes, wins over the defaults of `name`,
    /// `time_zone`, `partition` and `arrival`; a value given here wins over that file.
    LakeConfig {
        /// Root of the lake: `s3://…`, `file://…` or a path.
        uri: String = String::new();
        /// Folder under `sql/lakes/` whose files turn raw files into the canonical views.
        name: String = "canonical".into();
        /// IANA time zone of the shop. A night of date D is computed as of D 00:00 there.
        time_zone: String = "UTC".into();
        /// Meaning of the `dt=` folders of event files.
        partition: Partition = Partition::EventDateUtc;
        /// Source of an event's arrival time.
        arrival: Arrival = Arrival::Column;
        /// Tolerance in hours: a row is quarantined if its time is further than this outside its partition, or in the future.
        time_tolerance_hours: u32 = 24, 0..=8_760;
        /// First date that is plausible: an earlier time, such as 1970-01-01 of a failed conversion, is quarantined.
        first_date: String = "1990-01-01".into();
        /// Currency of all prices, an ISO code such as EUR; exchange rates convert others. Empty: the lake's only one; a lake with
        /// two is refused.
        currency: String = String::new();
        /// Largest number of ids that are merged into one person. A larger group, such as a shared device, is not stitched.
        stitched_max: u32 = 100, 2..=1_000_000;
        /// Largest accepted age in days of the newest event: more stops the night with exit code 4, unless it is accepted.
        freshness_days_max: u32 = 3, 0..=36_500;
        /// Smallest accepted number of events of a day of the last week, as a share of the median of the same weekday in the four
        /// weeks before: less stops the night with exit code 4, unless it is accepted.
        volume_share_min: f64 = 0.3, 0.0..=1.0;
        /// Largest accepted share of the last 90 days, or of the days since the lake's first event, on which events are missing: more
        /// stops the night with exit code 4, unless it is accepted.
        missing_day_share: f64 = 0.1, 0.0..=1.0;
        /// Largest accepted share of bad rows. Above it the night stops with exit code 4.
        quarantine_share_max: f64 = 0.01, 0.0..=1.0;
    }
}

impl LakeConfig {
    pub(super) fn check(&self) -> Result<()> {
        if self.time_zone.parse::<chrono_tz::Tz>().is_err() {
            return Err(Failure::usage(format!(
                "lake.time_zone: expected an IANA zone such as Europe/London, got {:?}",
                self.time_zone
            )));
        }
        if self.first_date.parse::<NaiveDate>().is_err() {
            return Err(Failure::usage(format!(
                "lake.first_date: expected a date such as 1990-01-01, got {:?}",
                self.first_date
            )));
        }
        let is_code = self.currency.len() == 3 && self.currency.chars().all(|c| c.is_ascii_uppercase());
        if !self.currency.is_empty() && !is_code {
            return Err(Failure::usage(format!(
                "lake.currency: expected an ISO code such as EUR, or nothing, got {:?}",
                self.currency
            )));
        }
        Ok(())
    }

    /// Returns the first plausible instant.
    pub(crate) fn first_at(&self) -> DateTime<Utc> {
        let date = self.first_date.parse::<NaiveDate>().unwrap_or_default();
        date.and_time(NaiveTime::MIN).and_utc()
    }
}

settings! {
    /// The folder to which everything is written.
    OutputConfig {
        /// Root of the output, with `tables/`, `state/` and `models/` below it: `s3://…`, `file://…` or a path.
        uri: String = String::new();
    }
}

settings! {
    /// Privacy of customers.
    PrivacyConfig {
        /// Mask e-mail addresses, phone numbers, card numbers and IBANs in the texts of searches and reviews, before any feature,
        /// model or table sees them.
        mask_text: bool = true;
        /// Users who must be behind a published number: segments of fewer are left out, and `intent_units` of items of fewer are null and
        /// in no sum. More: docs/models/demand.md. 1: all are published.
        k_min: u32 = 5, 1..=1_000_000;
    }
}

settings! {
    /// Your own SQL files.
    SqlConfig {
        /// Folder whose files replace or extend the built-in SQL files, by relative path. Empty: built-in files only.
        folder: String = String::new();
        /// File with the statements typed at the prompt of `intentcast sql`, kept from session to session and readable by you
        /// alone. Empty: `intentcast/sql_history` below `$XDG_STATE_HOME` or `~/.local/state`; `none`: no file.
        history_file: String = String::new();
    }
}

settings! {
    /// Access to S3. Values that are empty here come from the usual AWS environment variables, profile or instance role.
    S3Config {
        /// URL of the server. Empty: AWS.
        endpoint: String = String::new();
        /// Region, such as `eu-central-1`.
        region: String = String::new();
        /// Access key. Prefer the environment (`AWS_ACCESS_KEY_ID`) to writing it here.
        access_key_id: String = String::new();
        /// Secret key. Prefer the environment (`AWS_SECRET_ACCESS_KEY`) to writing it here.
        #[serde(skip_serializing)]
        secret_access_key: String = String::new();
        /// Profile in `~/.aws/credentials` and `~/.aws/config`. Empty: `AWS_PROFILE`, or `default` if nothing else gives
        /// credentials.
        profile: String = String::new();
        /// Address buckets as `endpoint/bucket` instead of `bucket.endpoint`. Most servers other than AWS need true.
        path_style: bool = false;
        /// Allow plain HTTP, for a server on the same machine.
        allow_http: bool = false;
    }
}
