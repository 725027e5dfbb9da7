//! The planner's report of a published night: a page, an order sheet, and the same rows as CSV and JSON.
//!
//! In: a night's session (see [`crate::workspace::Workspace::night_session`]), the views of `sql/report/` and the night's row of
//! `runs`. Out: the report's files as bytes. Nothing is written here; the verb `report` is the only caller.

mod columns;
mod csv_sheet;
mod data;
mod labels;
mod page;
mod reason;
mod workbook;

use crate::config::Language;
use crate::failure::Result;
use labels::Labels;

pub(crate) use data::Report;

/// One file of a report.
#[derive(Debug)]
pub(crate) struct ReportFile {
    pub(crate) name: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) bytes: Vec<u8>,
}

/// Makes the files of a report, the page after those that it links to.
pub(crate) fn files(mut report: Report, language: Language) -> Result<Vec<ReportFile>> {
    let labels = Labels::load(language)?;
    let reasons =
        report.view("order_lines")?.rows().map(|line| reason::reason(&line, language, &labels).into()).collect();
    report.replace("order_lines", "reason", reasons);
    let report = &report;
    Ok(vec![
        ReportFile {
            name: "orders.xlsx",
            content_type: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            bytes: workbook::write(report, &labels)?,
        },
        ReportFile {
            name: "orders.csv",
            content_type: "text/csv; charset=utf-8",
            bytes: csv_sheet::write(report.view("order_lines")?)?,
        },
        ReportFile {
            name: "index.html",
            content_type: "text/html; charset=utf-8",
            bytes: page::render(report, language, &labels)?.into_bytes(),
        },
    ])
}
