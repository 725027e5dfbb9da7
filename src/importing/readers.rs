//! Opens a publisher's file, plain or compressed with gzip or zstd, as a stream of text rows with the wanted columns.

use csv::StringRecord;
use indicatif::ProgressBar;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::failure::{Failure, Result};

/// File format of a data set's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Comma-separated with a header line.
    CsvWithHeader,
    /// Comma-separated without a header.
    Csv(Layouts),
    /// Separated by runs of blanks, without a header.
    Blanks(Layouts),
    /// One JSON object per line; nested values become JSON text.
    JsonLines,
}

/// The possible lists of field names of a file without a header; a row has the one with as many names as it has fields.
pub(crate) type Layouts = &'static [&'static [&'static str]];

/// Reason why a row cannot be read.
#[derive(Debug)]
pub(crate) enum RowError {
    /// This row is damaged; the next one may be good.
    Damaged(String),
    /// The rest of the file cannot be read, and how much is missing is unknown.
    Unreadable(String),
}

/// A value for each wanted column; blank and absent ones are `None`.
pub(crate) type Row = Result<Vec<Option<String>>, RowError>;

/// Reads the names in the header; `None` if the format has no header.
pub(crate) fn header(path: &Path, format: Format) -> Result<Option<Vec<String>>> {
    match format {
        Format::CsvWithHeader => {
            read_header(&mut csv(decompressed(path, &ProgressBar::hidden())?, true), path).map(Some)
        }
        _ => Ok(None),
    }
}

/// Streams the rows of a file.
pub(crate) fn rows(
    path: &Path,
    format: Format,
    wanted: &[String],
    bar: &ProgressBar,
) -> Result<Box<dyn Iterator<Item = Row>>> {
    let plain = decompressed(path, bar)?;
    Ok(match format {
        Format::CsvWithHeader => {
            let mut reader = csv(plain, true);
            let names = read_header(&mut reader, path)?;
            let positions = positions(&names, wanted);
            Box::new(reader.into_records().map(move |record| {
                let record = record.map_err(row_error)?;
                match record.len() == names.len() {
                    true => Ok(pick(&record.iter().collect::<Vec<_>>(), &positions)),
                    false => Err(RowError::Damaged(format!("expected {} fields, got {}", names.len(), record.len()))),
                }
            }))
        }
        Format::Csv(layouts) => {
            let layouts = Layout::all(layouts, wanted);
            let records = csv(plain, false).into_records();
            Box::new(records.filter_map(move |record: Result<StringRecord, _>| match record {
                Ok(record) => parse_by_layout(&layouts, &record.iter().collect::<Vec<_>>()),
                Err(e) => Some(Err(row_error(e))),
            }))
        }
        Format::Blanks(layouts) => {
            let layouts = Layout::all(layouts, wanted);
            Box::new(lines(plain).filter_map(move |line| match line {
                Ok(line) => parse_by_layout(&layouts, &line.split_whitespace().collect::<Vec<_>>()),
                Err(error) => Some(Err(error)),
            }))
        }
        Format::JsonLines => {
            let wanted = wanted.to_vec();
            Box::new(lines(plain).map(move |line| parse_json(&line?, &wanted)))
        }
    })
}

fn decompressed(path: &Path, bar: &ProgressBar) -> Result<Box<dyn Read>> {
    let unopened = |e: std::io::Error| Failure::input(format!("{}: {e}", path.display()));
    let raw = bar.wrap_read(File::open(path).map_err(unopened)?);
    Ok(match path.extension().and_then(|e| e.to_str()) {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(raw)),
        Some("zst") => Box::new(zstd::Decoder::new(raw).map_err(unopened)?),
        _ => Box::new(raw),
    })
}

fn csv(plain: Box<dyn Read>, header: bool) -> csv::Reader<BufReader<Box<dyn Read>>> {
    csv::ReaderBuilder::new().has_headers(header).flexible(true).from_reader(BufReader::new(plain))
}

fn read_header(reader: &mut csv::Reader<BufReader<Box<dyn Read>>>, path: &Path) -> Result<Vec<String>> {
    let found = reader
        .headers()
        .map_err(|e| Failure::input(format!("{}: no header line: {e}", path.display())).hint("fetch the file again"))?;
    Ok(found.iter().map(|h| h.trim_start_matches('\u{feff}').trim().to_string()).collect())
}

fn row_error(error: csv::Error) -> RowError {
    match error.is_io_error() {
        true => RowError::Unreadable(error.to_string()),
        false => RowError::Damaged("not text".into()),
    }
}

/// Returns the position of each wanted column among `names`.
fn positions(names: &[impl AsRef<str>], wanted: &[String]) -> Vec<Option<usize>> {
    wanted.iter().map(|w| names.iter().position(|n| n.as_ref() == w)).collect()
}

fn pick(fields: &[&str], positions: &[Option<usize>]) -> Vec<Option<String>> {
    positions.iter().map(|position| position.and_then(|at| fields.get(at)).and_then(|text| value(text))).collect()
}

/// Returns a value; `None` if it is blank.
fn value(text: &str) -> Option<String> {
    (!text.trim().is_empty()).then(|| text.into())
}

/// One layout of a file without a header.
struct Layout {
    names: &'static [&'static str],
    positions: Vec<Option<usize>>,
}

impl Layout {
    fn all(layouts: Layouts, wanted: &[String]) -> Vec<Layout> {
        layouts.iter().map(|names| Layout { names, positions: positions(names, wanted) }).collect()
    }
}

/// Parses a row by the layout that fits it; `None` for a line of field names, with which some copies begin.
fn parse_by_layout(layouts: &[Layout], fields: &[&str]) -> Option<Row> {
    match layouts.iter().find(|l| l.names.len() == fields.len()) {
        Some(layout) if layout.names == fields => None,
        Some(layout) => Some(Ok(pick(fields, &layout.positions))),
        None => {
            let counts: Vec<_> = layouts.iter().map(|l| l.names.len().to_string()).collect();
            Some(Err(RowError::Damaged(format!("expected {} fields, got {}", counts.join(" or "), fields.len()))))
        }
    }
}

/// Returns the lines that are not blank.
fn lines(plain: Box<dyn Read>) -> impl Iterator<Item = Result<String, RowError>> {
    let lines = BufReader::new(plain).split(b'\n').map(|line| {
        let line = line.map_err(|e| RowError::Unreadable(e.to_string()))?;
        String::from_utf8(line).map_err(|_| RowError::Damaged("not text".into()))
    });
    lines.filter(|l| l.as_ref().map_or(true, |l| !l.trim().is_empty()))
}

fn parse_json(line: &str, wanted: &[String]) -> Row {
    let mut parsed: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(line).map_err(|_| RowError::Damaged("not a JSON object".into()))?;
    let text = |found| match found {
        serde_json::Value::Null => None,
        serde_json::Value::String(s) => value(&s),
        other => Some(other.to_string()),
    };
    Ok(wanted.iter().map(|name| parsed.remove(name).and_then(text)).collect())
}
