//! Opens a publisher's file, plain or packed with gzip or zstd, as rows of named fields.

use indicatif::ProgressBar;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::failure::{Failure, Result};

/// How a set's rows lie in its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated with a header line.
    CsvWithHeader,
    /// Comma-separated; fields are named `0`, `1`, …
    Csv,
    /// Split by runs of blanks; fields are named `0`, `1`, …
    Blanks,
    /// One JSON object a line; nested values as JSON text.
    JsonLines,
}

/// How the reason begins when the file itself, not a row, can not be read on.
pub const UNREADABLE: &str = "unreadable file";

/// One row: the fields that it has, by name.
pub type Fields = BTreeMap<String, String>;
/// A row, or why it is none.
pub type Row = Result<Fields, String>;

/// Streams the rows of a file.
pub fn open(path: &Path, format: Format, bar: &ProgressBar) -> Result<Box<dyn Iterator<Item = Row>>> {
    let place = path.display().to_string();
    let file = File::open(path).map_err(|e| Failure::input(format!("{place}: {e}")))?;
    let raw = bar.wrap_read(file);
    let plain: Box<dyn Read> = match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(raw)),
        Some("zst") => Box::new(zstd::Decoder::new(raw).map_err(|e| Failure::input(format!("{place}: {e}")))?),
        _ => Box::new(raw),
    };
    match format {
        Format::Csv | Format::CsvWithHeader => csv(plain, format == Format::CsvWithHeader, &place),
        Format::Blanks => Ok(Box::new(lines(plain).map(|line| Ok(numbered(line?.split_whitespace()))))),
        Format::JsonLines => Ok(Box::new(lines(plain).map(|line| json(&line?)))),
    }
}

fn csv(plain: Box<dyn Read>, header: bool, place: &str) -> Result<Box<dyn Iterator<Item = Row>>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(header).flexible(true).from_reader(BufReader::new(plain));
    let names: Option<Vec<String>> = match header {
        true => {
            let found = reader.headers().map_err(|e| Failure::input(format!("{place}: {e}")))?;
            Some(found.iter().map(|h| h.trim_start_matches('\u{feff}').to_string()).collect())
        }
        false => None,
    };
    Ok(Box::new(reader.into_records().map(move |record| {
        let record =
            record.map_err(|e| if e.is_io_error() { format!("{UNREADABLE}: {e}") } else { "not text".to_string() })?;
        match &names {
            None => Ok(numbered(record.iter())),
            Some(names) if names.len() == record.len() => {
                Ok(names.iter().cloned().zip(record.iter().map(String::from)).collect())
            }
            Some(names) => Err(format!("expected {} fields, got {}", names.len(), record.len())),
        }
    })))
}

fn lines(plain: Box<dyn Read>) -> impl Iterator<Item = Result<String, String>> {
    let lines = BufReader::new(plain).lines().map(|l| l.map_err(|e| format!("{UNREADABLE}: {e}")));
    lines.filter(|l| l.as_ref().map_or(true, |l| !l.trim().is_empty()))
}

fn numbered<'a>(fields: impl Iterator<Item = &'a str>) -> Fields {
    fields.enumerate().map(|(i, f)| (i.to_string(), f.to_string())).collect()
}

fn json(line: &str) -> Row {
    let parsed: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(line).map_err(|_| "not a JSON object".to_string())?;
    let text = |v: serde_json::Value| match v {
        serde_json::Value::String(s) => s,
        other => other.to_string(),
    };
    Ok(parsed.into_iter().map(|(name, value)| (name, text(value))).collect())
}
