//! The planner's report of a published night: a page, an order sheet, and the same rows as CSV and JSON.
//!
//! In: a night's session (see [`crate::workspace::Workspace::night_session`]), the views of `sql/report/` and the night's row of
//! `runs`. Out: the report's files as bytes. Nothing is written here; the verb `report` is the only caller.

mod columns;
mod csv_sheet;
mod data;
mod labels;
mod page;
mod workbook;

use crate::config::Language;
use crate::failure::Result;
use labels::Labels;

pub(crate) use data::Report;

/// One file of a report.
#[derive(Debug)]
pub(crate) struct ReportFile {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// Makes the files of a report.
pub(crate) fn files(report: &Report, language: Language) -> Result<Vec<ReportFile>> {
    let labels = Labels::load(language)?;
    Ok(vec![
        ReportFile { name: "index.html", bytes: page::render(report, language, &labels)?.into_bytes() },
        ReportFile { name: "orders.xlsx", bytes: workbook::write(report, &labels)? },
        ReportFile { name: "orders.csv", bytes: csv_sheet::write(report.view("order_lines")?)? },
    ])
}
