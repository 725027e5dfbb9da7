//! `intentcast sql`: one query or a prompt over lake, features, published tables and functions.

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use std::io::Write;

use crate::failure::{Failure, Result};

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

/// Runs `query` and prints its rows to standard output.
pub async fn query(ctx: &SessionContext, query: &str, format: Format) -> Result<()> {
    let batches = ctx.sql(query).await?.collect().await?;
    print(&batches, format)
}

/// Prints batches; an empty result prints a header at most.
pub fn print(batches: &[RecordBatch], format: Format) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let printed = match format {
        Format::Table => writeln!(out, "{}", pretty_format_batches(batches)?),
        Format::Json => {
            let mut writer = arrow::json::LineDelimitedWriter::new(Vec::new());
            writer.write_batches(&batches.iter().collect::<Vec<_>>())?;
            writer.finish()?;
            out.write_all(&writer.into_inner())
        }
        Format::Csv => {
            let mut writer = arrow::csv::Writer::new(Vec::new());
            batches.iter().try_for_each(|b| writer.write(b))?;
            out.write_all(&writer.into_inner())
        }
    };
    match printed {
        // A reader that has seen enough (`| head`) is no fault.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Failure::passing(format!("standard output: {e}"))),
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
