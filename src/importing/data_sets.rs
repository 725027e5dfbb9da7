//! The known public data sets: how their files are parsed, and the settings of the lake made from them.
//!
//! The meaning of the columns is declared in `sql/lakes/<name>/`, not here.

use super::readers::Format;
use crate::config::{Arrival, Partition};
use crate::failure::{Failure, Result};
use crate::lake::lake_file::LakeSettings;

/// A data set, named like its folder under `sql/lakes/`.
#[derive(Debug)]
pub(crate) struct DataSet {
    pub(crate) name: &'static str,
    pub(crate) format: Format,
    /// The shop's zone; the lake has the shop's days.
    pub(crate) time_zone: &'static str,
}

const TAOBAO: Format = Format::Csv(&[&["user_id", "item_id", "category_id", "behavior", "unix_seconds"]]);
const CDNOW: Format = Format::Blanks(&[
    &["customer_id", "date", "number_of_cds", "dollar_value"],
    &["customer_id", "sample_id", "date", "number_of_cds", "dollar_value"],
]);

const DATA_SETS: [DataSet; 8] = [
    DataSet { name: "taobao", format: TAOBAO, time_zone: "Asia/Shanghai" },
    DataSet { name: "tmall", format: Format::CsvWithHeader, time_zone: "UTC" },
    DataSet { name: "rees46", format: Format::CsvWithHeader, time_zone: "UTC" },
    DataSet { name: "retailrocket", format: Format::CsvWithHeader, time_zone: "UTC" },
    DataSet { name: "online-retail-ii", format: Format::CsvWithHeader, time_zone: "Europe/London" },
    DataSet { name: "complete-journey", format: Format::CsvWithHeader, time_zone: "UTC" },
    DataSet { name: "cdnow", format: CDNOW, time_zone: "UTC" },
    DataSet { name: "amazon-all-beauty", format: Format::JsonLines, time_zone: "UTC" },
];

impl DataSet {
    /// The settings of the lake: files by local event day, and no arrival times.
    pub(crate) fn settings(&self) -> LakeSettings {
        LakeSettings {
            name: Some(self.name.into()),
            time_zone: Some(self.time_zone.into()),
            partition: Some(Partition::EventDateLocal),
            arrival: Some(Arrival::None),
        }
    }
}

/// Returns the data set of a name; refuses an unknown name.
pub(crate) fn find(name: &str) -> Result<&'static DataSet> {
    DATA_SETS.iter().find(|s| s.name == name).ok_or_else(|| {
        let known: Vec<_> = DATA_SETS.iter().map(|s| s.name).collect();
        Failure::usage(format!("import: unknown data set {name:?}")).hint(format!("known: {}", known.join(", ")))
    })
}
