//! Prints rows to standard output as a table, JSON lines or CSV.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use arrow::util::pretty::pretty_format_batches;
use datafusion::common::runtime::SpawnedTask;
use datafusion::prelude::DataFrame;
use futures::TryStreamExt;
use std::io::Write;
use std::sync::Arc;

use crate::failure::{Failure, Result};

/// Output format of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Human-readable table.
    Table,
    /// One JSON object per line.
    Json,
    /// Comma-separated values with a header line.
    Csv,
}

/// Layout of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One line per row.
    Table,
    /// One line per column of each row.
    Expanded,
    /// [`Layout::Table`] where the terminal is wide enough, else [`Layout::Expanded`].
    Fitting,
}

/// Prints rows as they come, except for a table, whose column widths depend on all of them.
pub(crate) async fn print_rows(rows: DataFrame, format: Format, layout: Layout) -> Result<()> {
    let schema = Arc::new(rows.schema().as_arrow().clone());
    if format == Format::Table {
        // In a task of its own, so that a prompt can stop waiting for a query that never yields.
        let collected = SpawnedTask::spawn(async move { rows.collect().await }).join().await;
        let mut batches = collected.map_err(|e| Failure::bug(format!("the query's task: {e}")))??;
        // Without a batch the table would lack its header.
        batches.push(RecordBatch::new_empty(schema));
        return print_table(&batches, layout);
    }
    if let Some(nested) = schema.fields().iter().find(|f| format == Format::Csv && f.data_type().is_nested()) {
        return Err(Failure::usage(format!("column {}: CSV cannot hold {}", nested.name(), nested.data_type()))
            .hint("array_to_string(…) turns a list into text, struct['name'] takes a field; --format json holds all"));
    }
    let mut batches = rows.execute_stream().await?;
    let mut out = std::io::stdout().lock();
    // Before the first rows, so that an empty result has its header too.
    let mut text = encode(&[RecordBatch::new_empty(schema)], format, true)?;
    loop {
        if let Err(e) = out.write_all(&text) {
            return ignore_closed_pipe(e);
        }
        match batches.try_next().await? {
            Some(batch) => text = encode(&[batch], format, false)?,
            None => return Ok(()),
        }
    }
}

/// Prints batches that are in memory.
pub(crate) fn print(batches: &[RecordBatch], format: Format) -> Result<()> {
    std::io::stdout().lock().write_all(&encode(batches, format, true)?).or_else(ignore_closed_pipe)
}

fn print_table(batches: &[RecordBatch], layout: Layout) -> Result<()> {
    let columns_max = console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns));
    let text = table_text(batches, layout, columns_max)?;
    std::io::stdout().lock().write_all(text.as_bytes()).or_else(ignore_closed_pipe)
}

/// Writes a table for a terminal of so many columns; `None` without a terminal.
fn table_text(batches: &[RecordBatch], layout: Layout, columns_max: Option<usize>) -> Result<String> {
    let table = format!("{}\n", pretty_format_batches(batches)?);
    let width = table.lines().next().map_or(0, |line| line.chars().count());
    let is_expanded = match layout {
        Layout::Table => false,
        Layout::Expanded => true,
        Layout::Fitting => columns_max.is_some_and(|columns| width > columns),
    };
    if !is_expanded {
        return Ok(table);
    }
    let options = FormatOptions::default();
    let mut text = String::new();
    let mut number = 0;
    for batch in batches {
        let schema = batch.schema();
        let names: Vec<&String> = schema.fields().iter().map(|field| field.name()).collect();
        let name_width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let values = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            number += 1;
            text.push_str(&format!("-[ row {number} ]\n"));
            for (name, value) in names.iter().zip(&values) {
                text.push_str(&format!("{name:name_width$} | {}\n", value.value(row)));
            }
        }
    }
    if number == 0 {
        text.push_str("(no rows)\n");
    }
    Ok(text)
}

/// Prints columns of equal length under their names.
pub(crate) fn print_columns(columns: &[(&str, ArrayRef)], format: Format) -> Result<()> {
    let fields: Vec<Field> = columns.iter().map(|(name, a)| Field::new(*name, a.data_type().clone(), true)).collect();
    let arrays = columns.iter().map(|(_, array)| Arc::clone(array)).collect();
    print(&[RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?], format)
}

fn encode(batches: &[RecordBatch], format: Format, header: bool) -> Result<Vec<u8>> {
    match format {
        Format::Table => Ok(format!("{}\n", pretty_format_batches(batches)?).into_bytes()),
        Format::Json => {
            let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
            writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
            writer.finish()?;
            Ok(writer.into_inner())
        }
        Format::Csv => {
            let mut writer = arrow::csv::WriterBuilder::new().with_header(header).build(Vec::new());
            batches.iter().try_for_each(|b| writer.write(b))?;
            Ok(writer.into_inner())
        }
    }
}

/// Prints a line of text.
pub(crate) fn print_line(text: std::fmt::Arguments<'_>) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").or_else(ignore_closed_pipe)
}

/// A reader that has seen enough (`| head`) is no fault.
fn ignore_closed_pipe(error: std::io::Error) -> Result<()> {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Failure::transient(format!("standard output: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};

    #[test]
    fn a_table_that_is_too_wide_is_written_row_by_row() {
        let names: ArrayRef = Arc::new(StringArray::from(vec![Some("lamp"), None]));
        let units: ArrayRef = Arc::new(Int64Array::from(vec![3, 40]));
        let rows = RecordBatch::try_from_iter([("item", names), ("units_sold", units)]).unwrap();
        let expanded = "-[ row 1 ]\nitem       | lamp\nunits_sold | 3\n-[ row 2 ]\nitem       | \nunits_sold | 40\n";
        let text = |layout, columns_max| table_text(std::slice::from_ref(&rows), layout, columns_max).unwrap();
        assert_eq!(text(Layout::Fitting, Some(20)), expanded);
        assert_eq!(text(Layout::Expanded, None), expanded);
        let none = table_text(&[rows.slice(0, 0)], Layout::Expanded, None).unwrap();
        assert_eq!(none, "(no rows)\n");
        for (layout, columns_max) in [(Layout::Fitting, Some(21)), (Layout::Fitting, None), (Layout::Table, Some(5))] {
            assert!(text(layout, columns_max).starts_with("+------+------------+\n"));
        }
    }
}
