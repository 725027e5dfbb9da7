//! `intentcast sql`: statements given at once or at a prompt, over lake, features, published tables and functions.

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::{DataFrame, SessionContext};
use datafusion::sql::parser::DFParser;
use futures::TryStreamExt;
use std::io::Write;
use std::sync::Arc;

use crate::failure::{Failure, Result};
use crate::score::torch_functions;

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Boxes for people.
    Table,
    /// One JSON object a line.
    Json,
    /// With a header line.
    Csv,
}

/// Runs statements parted by `;`, each after the one before it, and prints their rows to standard output.
pub async fn query(ctx: &SessionContext, text: &str, format: Format) -> Result<()> {
    let statements = DFParser::parse_sql(text)?;
    if statements.is_empty() {
        return Err(Failure::usage("expected a query, got nothing"));
    }
    for statement in statements {
        let plan = torch_functions::checked(ctx, ctx.state().statement_to_plan(statement).await?)?;
        let rows = ctx.execute_logical_plan(plan).await?;
        // CREATE and DROP have no columns, and nothing to print.
        if !rows.schema().fields().is_empty() {
            print_rows(rows, format).await?;
        }
    }
    Ok(())
}

/// Prints rows as they come, but for boxes, whose widths need all of them.
async fn print_rows(rows: DataFrame, format: Format) -> Result<()> {
    if format == Format::Table {
        return print(&rows.collect().await?, format);
    }
    let schema = Arc::new(rows.schema().as_arrow().clone());
    if let Some(nested) = schema.fields().iter().find(|f| format == Format::Csv && f.data_type().is_nested()) {
        return Err(Failure::usage(format!("column {}: CSV holds no {}", nested.name(), nested.data_type()))
            .hint("array_to_string(…) makes text of a list, struct['name'] takes a field; --format json holds all"));
    }
    let mut batches = rows.execute_stream().await?;
    let mut out = std::io::stdout().lock();
    // Before the first rows, so that an empty result has its header too.
    let mut text = encode(&[RecordBatch::new_empty(schema)], format, true)?;
    loop {
        if let Err(e) = out.write_all(&text) {
            return closed(e);
        }
        match batches.try_next().await? {
            Some(batch) => text = encode(&[batch], format, false)?,
            None => return Ok(()),
        }
    }
}

/// Prints batches that are in memory.
pub fn print(batches: &[RecordBatch], format: Format) -> Result<()> {
    std::io::stdout().lock().write_all(&encode(batches, format, true)?).or_else(closed)
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
fn closed(error: std::io::Error) -> Result<()> {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(Failure::passing(format!("standard output: {error}"))),
    }
}

/// Reads queries until end of input; an error is printed and the prompt goes on.
pub async fn prompt(ctx: &SessionContext, format: Format) -> Result<()> {
    let mut editor = rustyline::DefaultEditor::new().map_err(|e| Failure::bug(format!("no prompt: {e}")))?;
    eprintln!("tables: SHOW TABLES; columns: DESCRIBE name; end: Ctrl-D");
    let mut pending = String::new();
    loop {
        match editor.readline(if pending.is_empty() { "intentcast> " } else { "        ... " }) {
            Ok(line) => pending.push_str(&format!("{line}\n")),
            Err(rustyline::error::ReadlineError::Interrupted) => pending.clear(),
            Err(_) => return Ok(()),
        }
        let text = pending.trim();
        if matches!(text, "\\q" | "exit" | "quit") {
            return Ok(());
        }
        if let Some(sql) = text.strip_suffix(';') {
            editor.add_history_entry(text).unwrap_or_default();
            if let Err(failure) = query(ctx, sql, format).await {
                eprintln!("error: {failure}");
            }
            pending.clear();
        }
    }
}
