//! The items to order as CSV.

use serde_json::Value;

use super::columns::{Columns, rounded};
use super::data::is_order;
use crate::failure::{Failure, Result};

const COLUMNS: [&str; 13] = [
    "item_id",
    "title",
    "category",
    "order_quantity",
    "stock_out_risk",
    "days_of_cover",
    "on_hand",
    "on_order",
    "reorder_point",
    "lead_time_days",
    "pack_size",
    "min_order_quantity",
    "reason",
];

/// By this mark spreadsheets read the file as UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Writes a header, and one line per item with an order, the most urgent first.
pub(super) fn write(lines: &Columns) -> Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(BYTE_ORDER_MARK.to_vec());
    writer.write_record(COLUMNS).map_err(Failure::bug)?;
    for line in lines.rows().filter(is_order) {
        let cells = COLUMNS.map(|name| match line.get(name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => harmless(text),
            Some(other) => rounded(other).to_string(),
        });
        writer.write_record(cells).map_err(Failure::bug)?;
    }
    writer.into_inner().map_err(|e| Failure::bug(e.to_string()))
}

/// Puts an apostrophe before a text that a spreadsheet would run as a formula (OWASP, "CSV injection"). Numbers stay.
fn harmless(text: &str) -> String {
    const STARTS: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠'];
    let is_formula = text.starts_with(STARTS) && text.parse::<f64>().is_err();
    if is_formula { format!("'{text}") } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_a_spreadsheet_would_run_is_made_harmless() {
        for (text, expected) in [
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-2+3", "'-2+3"),
            ("-12", "-12"),
            ("lamp = light", "lamp = light"),
        ] {
            assert_eq!(harmless(text), expected);
        }
    }
}
