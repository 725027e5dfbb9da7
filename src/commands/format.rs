//! Prints rows to standard output as a table, JSON lines or CSV.

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use arrow::util::pretty::pretty_format_batches;
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

/// Prints rows as they come, except for a table, whose column widths depend on all of them.
pub(crate) async fn print_rows(rows: DataFrame, format: Format) -> Result<()> {
    let schema = Arc::new(rows.schema().as_arrow().clone());
    if format == Format::Table {
        let mut batches = rows.collect().await?;
        // Without a batch the table would lack its header.
        batches.push(RecordBatch::new_empty(schema));
        return print(&batches, format);
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

/// A reader that has seen enough (`| head`) is no fault.
fn ignore_closed_pipe(error: std::io::Error) -> Result<()> {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Failure::transient(format!("standard output: {error}"))),
    }
}
