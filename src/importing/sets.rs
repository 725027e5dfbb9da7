//! The known public data sets: how their files are read, and what the lake made of them says of itself.
//!
//! What a column means stands in `sql/lakes/<name>/`, nowhere here.

use super::readers::Format;
use crate::config::{Arrival, Partition};
use crate::failure::{Failure, Result};
use crate::lake::lake_file::OwnSettings;

/// A set, by the name of its folder under `sql/lakes/`.
#[derive(Debug)]
pub struct Set {
    pub name: &'static str,
    pub format: Format,
    /// The shop's own zone: its days are the lake's.
    pub time_zone: &'static str,
}

const TAOBAO: Format = Format::Csv(&[&["user_id", "item_id", "category_id", "behavior", "unix_seconds"]]);
const CDNOW: Format = Format::Blanks(&[
    &["customer_id", "date", "number_of_cds", "dollar_value"],
    &["customer_id", "sample_id", "date", "number_of_cds", "dollar_value"],
]);

const SETS: [Set; 8] = [
    Set { name: "taobao", format: TAOBAO, time_zone: "Asia/Shanghai" },
    Set { name: "tmall", format: Format::CsvWithHeader, time_zone: "UTC" },
    Set { name: "rees46", format: Format::CsvWithHeader, time_zone: "UTC" },
    Set { name: "retailrocket", format: Format::CsvWithHeader, time_zone: "UTC" },
    Set { name: "online-retail-ii", format: Format::CsvWithHeader, time_zone: "Europe/London" },
    Set { name: "complete-journey", format: Format::CsvWithHeader, time_zone: "UTC" },
    Set { name: "cdnow", format: CDNOW, time_zone: "UTC" },
    Set { name: "amazon-all-beauty", format: Format::JsonLines, time_zone: "UTC" },
];

impl Set {
    /// Events lie under their own local day, and nobody knows when they arrived.
    pub fn settings(&self) -> OwnSettings {
        OwnSettings {
            name: Some(self.name.into()),
            time_zone: Some(self.time_zone.into()),
            partition: Some(Partition::EventDateLocal),
            arrival: Some(Arrival::None),
        }
    }
}

pub fn find(name: &str) -> Result<&'static Set> {
    SETS.iter().find(|s| s.name == name).ok_or_else(|| {
        let known: Vec<_> = SETS.iter().map(|s| s.name).collect();
        Failure::usage(format!("import: unknown set {name:?}")).hint(format!("known: {}", known.join(", ")))
    })
}
