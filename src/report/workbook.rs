//! The order sheet: a workbook whose reorder points, orders and risks are formulas over cells that a planner may edit.
//!
//! The formulas follow `sql/tables/replenishment.sql`: unedited, they give the published numbers. An edited lead time scales the
//! published forecast, because the sheet has no other: the mean grows with the days, the distance from the median with their
//! root, as for independent days.

use rust_xlsxwriter::{
    DataValidation, DataValidationRule, Format, FormatBorder, Formula, Workbook, Worksheet, XlsxError,
};
use serde_json::{Map, Value};

use super::data::{Report, is_order};
use super::labels::Labels;
use crate::failure::{Failure, Result};

/// Largest number of rows of the sheet of items without an order: 20,000 of them would take 10 MB.
const OTHERS_MAX: usize = 5_000;
/// Excel refuses longer texts.
const TEXT_CHARS_MAX: usize = 32_000;

type Line = Map<String, Value>;

/// Content of a column's cells.
#[derive(Clone, Copy)]
enum CellContent {
    /// Text of a column of `order_lines`.
    Text,
    /// Published number that the planner may edit, between two bounds.
    Input(f64, f64),
    /// Published number.
    Published,
    /// Formula with `{key}` for the cell of another column in the same row, and the column that has its published result.
    Formula(&'static str),
    /// Formula that gives a text.
    TextFormula,
}

/// Number format of a column.
#[derive(Clone, Copy)]
enum NumberFormat {
    Text,
    Whole,
    OneDecimal,
    Percent,
}

struct SheetColumn {
    /// Name in formulas, and of the column of `order_lines` with the value or the published result.
    key: &'static str,
    width: f64,
    show: NumberFormat,
    content: CellContent,
}

const fn column(key: &'static str, width: f64, show: NumberFormat, content: CellContent) -> SheetColumn {
    SheetColumn { key, width, show, content }
}

/// Quantile of lead-time demand at the service level, as in `lead_time_quantile` of the SQL.
macro_rules! service_quantile {
    () => {
        "IF({e_level}<=0.05,{s05}*{e_level}/0.05,\
         IF({e_level}<=0.1,{s05}+({s10}-{s05})*({e_level}-0.05)/0.05,\
         IF({e_level}<=0.25,{s10}+({s25}-{s10})*({e_level}-0.1)/0.15,\
         IF({e_level}<=0.5,{s25}+({s50}-{s25})*({e_level}-0.25)/0.25,\
         IF({e_level}<=0.75,{s50}+({s75}-{s50})*({e_level}-0.5)/0.25,\
         IF({e_level}<=0.9,{s75}+({s90}-{s75})*({e_level}-0.75)/0.15,\
         IF({e_level}<=0.95,{s90}+({s95}-{s90})*({e_level}-0.9)/0.05,\
         {s95}+({s95}-{s90})/0.363*(SQRT(-2*LN(1-{e_level}))-SQRT(-2*LN(0.05))))))))))"
    };
}

/// The service-level quantile over the lead times covered: c = (lead time + review period - 1) / lead time. `quantile + q50 (c - 1) +
/// (quantile - q50) (√c - 1)`, written with one quantile. -INT(-x) rounds up.
const REORDER_POINT: &str = concat!(
    "MAX(0,-INT(-(",
    service_quantile!(),
    "*SQRT(({e_lead}+{e_review}-1)/{e_lead})",
    "+{s50}*(({e_lead}+{e_review}-1)/{e_lead}",
    "-SQRT(({e_lead}+{e_review}-1)/{e_lead}))-0.000001)))"
);
const ORDER_QUANTITY: &str = "IF(OR({on_hand}+{on_order}>{reorder_point},{reorder_point}<=0),0,\
     MAX(1,-INT(-(MAX({reorder_point}+{s_mean}-{on_hand}-{on_order},{min_order_quantity})-0.000001)/{e_pack}))*{e_pack})";
const STOCK_OUT_RISK: &str = "IF({on_hand}+{on_order}<0,1,MIN({s_mean}/({on_hand}+{on_order}+1),\
     IF({on_hand}+{on_order}+0.6<{s05},1-0.05*({on_hand}+{on_order}+0.6)/{s05},\
     IF({on_hand}+{on_order}+0.6<{s10},0.95-0.05*({on_hand}+{on_order}+0.6-{s05})/({s10}-{s05}),\
     IF({on_hand}+{on_order}+0.6<{s25},0.9-0.15*({on_hand}+{on_order}+0.6-{s10})/({s25}-{s10}),\
     IF({on_hand}+{on_order}+0.6<{s50},0.75-0.25*({on_hand}+{on_order}+0.6-{s25})/({s50}-{s25}),\
     IF({on_hand}+{on_order}+0.6<{s75},0.5-0.25*({on_hand}+{on_order}+0.6-{s50})/({s75}-{s50}),\
     IF({on_hand}+{on_order}+0.6<{s90},0.25-0.15*({on_hand}+{on_order}+0.6-{s75})/({s90}-{s75}),\
     IF({on_hand}+{on_order}+0.6<{s95},0.1-0.05*({on_hand}+{on_order}+0.6-{s90})/({s95}-{s90}),\
     EXP(-0.5*(SQRT(-2*LN(0.05))+0.363*MAX({on_hand}+{on_order}-{s95},0)/MAX({s95}-{s90},0.5))^2))))))))))";
const DAYS_OF_COVER: &str = "IF({s_mean}>0,{on_hand}/({s_mean}/{e_lead}),\"\")";

/// A published quantile after an edit of the lead time.
macro_rules! scaled {
    ($quantile:literal) => {
        concat!(
            "IF({e_lead}={published_lead_time},{",
            $quantile,
            "},MAX(0,{lead_time_demand_q50}*{e_lead}/{published_lead_time}+({",
            $quantile,
            "}-{lead_time_demand_q50})*SQRT({e_lead}/{published_lead_time})))"
        )
    };
}

#[rustfmt::skip]
const COLUMNS: [SheetColumn; 44] = [
    column("item_id", 16.0, NumberFormat::Text, CellContent::Text),
    column("title", 36.0, NumberFormat::Text, CellContent::Text),
    column("category", 24.0, NumberFormat::Text, CellContent::Text),
    column("order_quantity", 10.0, NumberFormat::Whole, CellContent::Formula(ORDER_QUANTITY)),
    column("stock_out_risk", 10.0, NumberFormat::Percent, CellContent::Formula(STOCK_OUT_RISK)),
    column("days_of_cover", 9.0, NumberFormat::OneDecimal, CellContent::Formula(DAYS_OF_COVER)),
    column("on_hand", 9.0, NumberFormat::Whole, CellContent::Input(-2_147_483_648.0, 2_147_483_647.0)),
    column("on_order", 9.0, NumberFormat::Whole, CellContent::Input(-2_147_483_648.0, 2_147_483_647.0)),
    column("lead_time_days", 9.0, NumberFormat::Whole, CellContent::Input(1.0, 3650.0)),
    column("review_period_days", 9.0, NumberFormat::Whole, CellContent::Input(1.0, 3650.0)),
    column("service_level", 9.0, NumberFormat::Percent, CellContent::Input(0.000_1, 0.999_9)),
    column("pack_size", 9.0, NumberFormat::Whole, CellContent::Input(1.0, 2_147_483_647.0)),
    column("min_order_quantity", 9.0, NumberFormat::Whole, CellContent::Input(0.0, 2_147_483_647.0)),
    column("reorder_point", 9.0, NumberFormat::Whole, CellContent::Formula(REORDER_POINT)),
    column("safety_stock", 9.0, NumberFormat::OneDecimal, CellContent::Formula("{reorder_point}-{s50}")),
    column("edited", 22.0, NumberFormat::Text, CellContent::TextFormula),
    column("reason", 80.0, NumberFormat::Text, CellContent::Text),
    column("published_lead_time", 9.0, NumberFormat::Whole, CellContent::Published),
    column("published_level", 9.0, NumberFormat::Percent, CellContent::Published),
    column("published_on_hand", 9.0, NumberFormat::Whole, CellContent::Published),
    column("published_on_order", 9.0, NumberFormat::Whole, CellContent::Published),
    column("published_review", 9.0, NumberFormat::Whole, CellContent::Published),
    column("published_pack", 9.0, NumberFormat::Whole, CellContent::Published),
    column("published_minimum", 9.0, NumberFormat::Whole, CellContent::Published),
    // A cell that was emptied, or has a text or a number out of bounds, counts as published, or as 1.
    column("e_lead", 9.0, NumberFormat::Whole, CellContent::Formula("IF(N({lead_time_days})>=1,{lead_time_days},{published_lead_time})")),
    column("e_review", 9.0, NumberFormat::Whole, CellContent::Formula("MAX(1,N({review_period_days}))")),
    column("e_level", 9.0, NumberFormat::Percent, CellContent::Formula("IF(AND(N({service_level})>0,N({service_level})<1),{service_level},{published_level})")),
    column("e_pack", 9.0, NumberFormat::Whole, CellContent::Formula("MAX(1,N({pack_size}))")),
    column("lead_time_demand_mean", 9.0, NumberFormat::OneDecimal, CellContent::Published),
    column("lead_time_demand_q05", 9.0, NumberFormat::OneDecimal, CellContent::Published),
    column("lead_time_demand_q10", 9.0, NumberFormat::OneDecimal, CellContent::Published),
    column("lead_time_demand_q25", 9.0, NumberFormat::OneDecimal, CellContent::Published),
    column("lead_time_demand_q50", 9.0, NumberFormat::OneDecimal, CellContent::Published),
    column("lead_time_demand_q75", 9.0, NumberFormat::OneDecimal, CellContent::Published),
    column("lead_time_demand_q90", 9.0, NumberFormat::OneDecimal, CellContent::Published),
    column("lead_time_demand_q95", 9.0, NumberFormat::OneDecimal, CellContent::Published),
    column("s_mean", 9.0, NumberFormat::OneDecimal, CellContent::Formula("IF({e_lead}={published_lead_time},{lead_time_demand_mean},{lead_time_demand_mean}*{e_lead}/{published_lead_time})")),
    column("s05", 9.0, NumberFormat::OneDecimal, CellContent::Formula(scaled!("lead_time_demand_q05"))),
    column("s10", 9.0, NumberFormat::OneDecimal, CellContent::Formula(scaled!("lead_time_demand_q10"))),
    column("s25", 9.0, NumberFormat::OneDecimal, CellContent::Formula(scaled!("lead_time_demand_q25"))),
    column("s50", 9.0, NumberFormat::OneDecimal, CellContent::Formula(scaled!("lead_time_demand_q50"))),
    column("s75", 9.0, NumberFormat::OneDecimal, CellContent::Formula(scaled!("lead_time_demand_q75"))),
    column("s90", 9.0, NumberFormat::OneDecimal, CellContent::Formula(scaled!("lead_time_demand_q90"))),
    column("s95", 9.0, NumberFormat::OneDecimal, CellContent::Formula(scaled!("lead_time_demand_q95"))),
];

/// Columns that a planner rarely looks at, folded away: from the published lead time on.
const FOLDED_FROM: usize = 17;
/// Columns that stay in view: item and title.
const FROZEN_COLUMNS: u16 = 2;

/// Writes the workbook: the items to order, the other items, and how to read both.
pub(super) fn write(report: &Report, labels: &Labels) -> Result<Vec<u8>> {
    let lines = report.view("order_lines")?;
    // An item without an inventory row has no line.
    let is_other = |line: &Line| !is_order(line) && published(line, "reorder_point").is_number();
    let others = lines.rows().filter(is_other).count();
    let is_value = |line: &Line| published(line, "reorder_point").is_number() && !is_computable(line);
    let has_values =
        lines.rows().next().is_some() && (!report.follows_formulas || lines.rows().any(|line| is_value(&line)));
    let written = write_sheets(
        lines.rows().filter(is_order),
        lines.rows().filter(is_other).take(OTHERS_MAX),
        &about(report, labels, others, has_values),
        (labels, report.follows_formulas),
    );
    written.map_err(|e| match e {
        XlsxError::IoError(e) => Failure::transient(format!("orders.xlsx: no temporary file: {e}")),
        other => Failure::bug(other),
    })
}

fn about(report: &Report, labels: &Labels, others: usize, has_values: bool) -> Vec<String> {
    let night = &report.night.run;
    let published = night.made_visible_at.format("%Y-%m-%d %H:%M UTC").to_string();
    let model = night.model_version.as_ref().map(ToString::to_string).unwrap_or_default();
    let mut sentences = vec![
        labels.get("night").replace("{date}", &report.night.run_date().to_string()),
        labels.get("published").replace("{time}", &published).replace("{model}", &model),
    ];
    let help = ["sheet_help_1", "sheet_help_2", "sheet_help_3", "sheet_help_4"];
    sentences.extend(help.iter().map(|key| labels.get(key).to_string()));
    if has_values {
        sentences.push(labels.get("sheet_old").into());
    }
    if others > OTHERS_MAX {
        let cut = labels.get("sheet_cut");
        sentences.push(cut.replace("{shown}", &OTHERS_MAX.to_string()).replace("{count}", &others.to_string()));
    }
    sentences
}

fn write_sheets(
    orders: impl Iterator<Item = Line>,
    others: impl Iterator<Item = Line>,
    about: &[String],
    (labels, has_formulas): (&Labels, bool),
) -> Result<Vec<u8>, XlsxError> {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet_with_constant_memory()?.set_name(labels.get("sheet_orders"))?;
    write_lines(sheet, orders, (labels, has_formulas))?;
    let sheet = workbook.add_worksheet_with_constant_memory()?.set_name(labels.get("sheet_others"))?;
    write_lines(sheet, others, (labels, has_formulas))?;
    let sheet = workbook.add_worksheet().set_name(labels.get("sheet_about"))?;
    sheet.set_column_width(0, 110)?;
    let wrapped = Format::new().set_text_wrap();
    for (row, sentence) in (0..).zip(about) {
        sheet.write_with_format(row, 0, sentence, &wrapped)?;
    }
    workbook.save_to_buffer()
}

fn write_lines(
    sheet: &mut Worksheet,
    lines: impl Iterator<Item = Line>,
    (labels, has_formulas): (&Labels, bool),
) -> Result<(), XlsxError> {
    let header = Format::new().set_bold().set_text_wrap().set_border_bottom(FormatBorder::Medium);
    let formats: Vec<Format> = COLUMNS.iter().map(format_of).collect();
    for (at, column) in (0..).zip(&COLUMNS) {
        sheet.set_column_width(at, column.width)?;
        sheet.write_with_format(0, at, header_of(column.key, labels), &header)?;
    }
    sheet.set_row_height(0, 45)?;
    let last_column = (COLUMNS.len() - 1) as u16;
    sheet.group_columns_collapsed(FOLDED_FROM as u16, last_column)?;
    sheet.set_freeze_panes(1, FROZEN_COLUMNS)?;
    sheet.set_landscape().set_print_fit_to_pages(1, 0).set_repeat_rows(0, 0)?;
    let mut row = 0;
    for line in lines {
        row += 1;
        let is_computed = has_formulas && is_computable(&line);
        for ((at, column), format) in (0..).zip(&COLUMNS).zip(&formats) {
            write_cell(sheet, (row, at), (column, format), (&line, labels), is_computed)?;
        }
    }
    if row > 0 {
        sheet.autofilter(0, 0, row, last_column)?;
        // On paper there is no room for the reason.
        sheet.set_print_area(0, 0, row, FOLDED_FROM as u16 - 2)?;
        for (at, column) in (0..).zip(&COLUMNS) {
            if let CellContent::Input(from, to) = column.content {
                let rule = DataValidation::new().allow_decimal_number(DataValidationRule::Between(from, to));
                let text =
                    labels.get("sheet_bounds").replace("{from}", &from.to_string()).replace("{to}", &to.to_string());
                let rule = rule.ignore_blank(false).set_error_message(text)?;
                sheet.add_data_validation(1, at, row, at, &rule)?;
            }
        }
    }
    Ok(())
}

fn header_of(key: &str, labels: &Labels) -> String {
    let scaled = |quantile: &str| format!("{quantile}, {}", labels.get("sheet_scaled"));
    let as_published = |key: &str| format!("{}, {}", labels.get(key), labels.get("sheet_published"));
    let in_effect = |key: &str| format!("{}, {}", labels.get(key), labels.get("sheet_in_effect"));
    match key {
        "title" => labels.get("item_title").into(),
        "item_id" => labels.get("item").into(),
        "edited" => labels.get("sheet_edited").into(),
        "published_lead_time" => as_published("lead_time_days"),
        "published_level" => as_published("service_level"),
        "published_on_hand" => as_published("on_hand"),
        "published_on_order" => as_published("on_order"),
        "published_review" => as_published("review_period_days"),
        "published_pack" => as_published("pack_size"),
        "published_minimum" => as_published("min_order_quantity"),
        "e_lead" => in_effect("lead_time_days"),
        "e_review" => in_effect("review_period_days"),
        "e_level" => in_effect("service_level"),
        "e_pack" => in_effect("pack_size"),
        "lead_time_demand_mean" => labels.get("lead_time_demand").into(),
        "s_mean" => scaled(labels.get("lead_time_demand")),
        key => match (key.strip_prefix("lead_time_demand_"), key.strip_prefix('s').filter(|rest| rest.len() == 2)) {
            (Some(quantile), _) => quantile.into(),
            (None, Some(level)) => scaled(&format!("q{level}")),
            (None, None) => labels.get(key).into(),
        },
    }
}

fn format_of(column: &SheetColumn) -> Format {
    let format = match column.show {
        NumberFormat::Text => Format::new(),
        NumberFormat::Whole => Format::new().set_num_format("#,##0"),
        NumberFormat::OneDecimal => Format::new().set_num_format("#,##0.0"),
        NumberFormat::Percent => Format::new().set_num_format("0.0%"),
    };
    match (column.content, column.key) {
        (CellContent::Input(..), _) => format.set_background_color("DDEBF7").set_border(FormatBorder::Hair),
        (_, "order_quantity") => format.set_bold(),
        _ => format,
    }
}

/// Returns the value of `order_lines` that a column shows, or the published result of its formula.
fn published<'a>(line: &'a Line, key: &str) -> &'a Value {
    let name = match key {
        "published_lead_time" => "lead_time_days",
        "published_on_hand" => "on_hand",
        "published_on_order" => "on_order",
        "published_minimum" => "min_order_quantity",
        "published_level" | "e_level" => "service_level",
        "e_lead" => "lead_time_days",
        "published_review" | "e_review" => "review_period_days",
        "published_pack" | "e_pack" => "pack_size",
        "s_mean" => "lead_time_demand_mean",
        "s05" => "lead_time_demand_q05",
        "s10" => "lead_time_demand_q10",
        "s25" => "lead_time_demand_q25",
        "s50" => "lead_time_demand_q50",
        "s75" => "lead_time_demand_q75",
        "s90" => "lead_time_demand_q90",
        "s95" => "lead_time_demand_q95",
        key => key,
    };
    line.get(name).unwrap_or(&Value::Null)
}

/// Returns whether a line has every number that the formulas need; nights of older versions lack some.
fn is_computable(line: &Line) -> bool {
    let needed =
        COLUMNS.iter().filter(|column| matches!(column.content, CellContent::Input(..) | CellContent::Published));
    needed.into_iter().all(|column| published(line, column.key).is_number())
}

fn write_cell(
    sheet: &mut Worksheet,
    (row, at): (u32, u16),
    (column, format): (&SheetColumn, &Format),
    (line, labels): (&Line, &Labels),
    is_computed: bool,
) -> Result<(), XlsxError> {
    let value = published(line, column.key);
    match column.content {
        CellContent::Text => {
            let text: String = value.as_str().unwrap_or_default().chars().take(TEXT_CHARS_MAX).collect();
            sheet.write_string_with_format(row, at, text, format)?;
        }
        CellContent::TextFormula if !is_computed => {}
        CellContent::Input(..) | CellContent::Published => write_number(sheet, (row, at), value, format)?,
        CellContent::Formula(_) if !is_computed => write_number(sheet, (row, at), value, format)?,
        CellContent::Formula(text) => {
            // The published result, for viewers that do not compute.
            let result = value.as_f64().map(|number| number.to_string()).unwrap_or_default();
            let formula = Formula::new(format!("={}", in_row(text, row))).set_result(result);
            sheet.write_formula_with_format(row, at, formula, format)?;
        }
        CellContent::TextFormula => {
            let text = format!(
                "IF({{e_lead}}<>{{published_lead_time}},\"{}\",IF(OR(\
                 {{on_hand}}<>{{published_on_hand}},{{on_order}}<>{{published_on_order}},\
                 {{review_period_days}}<>{{published_review}},{{service_level}}<>{{published_level}},\
                 {{pack_size}}<>{{published_pack}},{{min_order_quantity}}<>{{published_minimum}}),\"{}\",\"\"))",
                labels.get("sheet_estimate"),
                labels.get("sheet_changed")
            );
            // An empty result would be written as 0.
            let formula = Formula::new(format!("={}", in_row(&text, row))).set_result(" ");
            sheet.write_formula_with_format(row, at, formula, format)?;
        }
    }
    Ok(())
}

fn write_number(sheet: &mut Worksheet, (row, at): (u32, u16), value: &Value, format: &Format) -> Result<(), XlsxError> {
    match value.as_f64() {
        Some(number) => sheet.write_number_with_format(row, at, number, format)?,
        None => sheet.write_blank(row, at, format)?,
    };
    Ok(())
}

/// Replaces each `{key}` by the cell of that column in a row, counted from 0.
fn in_row(formula: &str, row: u32) -> String {
    let mut text = formula.to_string();
    for (at, column) in COLUMNS.iter().enumerate() {
        let name = format!("{{{}}}", column.key);
        if text.contains(&name) {
            text = text.replace(&name, &format!("{}{}", letters(at), row + 1));
        }
    }
    text
}

/// Returns the letters of a column, counted from 0: A to Z, then AA and so on.
fn letters(at: usize) -> String {
    let last = char::from(b'A' + (at % 26) as u8);
    match at / 26 {
        0 => last.to_string(),
        before => format!("{}{last}", letters(before - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_the_letters_of_a_spreadsheet() {
        assert_eq!([0, 25, 26, 51, 52, 701, 702].map(letters), ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]);
    }

    #[test]
    fn formulas_name_columns_that_exist() {
        for column in &COLUMNS {
            if let CellContent::Formula(text) = column.content {
                assert!(!in_row(text, 1).contains('{'), "{}: {}", column.key, in_row(text, 1));
            }
        }
    }
}
