//! Opens a publisher's file, plain or packed with gzip or zstd, as a stream of rows of text in the order of the columns
//! that are wanted.

use csv::StringRecord;
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
    /// Comma-separated without a header.
    Csv(Layouts),
    /// Split by runs of blanks, without a header.
    Blanks(Layouts),
    /// One JSON object a line; nested values as JSON text.
    JsonLines,
}

/// The names of the fields of a file without a header: the layout with as many names as a row has fields counts.
pub type Layouts = &'static [&'static [&'static str]];

/// Why a row can not be had.
#[derive(Debug)]
pub enum Trouble {
    /// This row is none; the next may be one.
    Damaged(String),
    /// The file can not be read on: nobody knows how much is missing.
    Unreadable(String),
}

/// A value for each wanted column; blank and absent ones are `None`.
pub type Row = Result<Vec<Option<String>>, Trouble>;

/// The names in the header; `None` where the format has none.
pub fn header(path: &Path, format: Format) -> Result<Option<Vec<String>>> {
    match format {
        Format::CsvWithHeader => header_of(&mut csv(unpacked(path, &ProgressBar::hidden())?, true), path).map(Some),
        _ => Ok(None),
    }
}

/// Streams the rows of a file.
pub fn rows(
    path: &Path,
    format: Format,
    wanted: &[String],
    bar: &ProgressBar,
) -> Result<Box<dyn Iterator<Item = Row>>> {
    let plain = unpacked(path, bar)?;
    Ok(match format {
        Format::CsvWithHeader => {
            let mut reader = csv(plain, true);
            let names = header_of(&mut reader, path)?;
            let places = places(&names, wanted);
            Box::new(reader.into_records().map(move |record| {
                let record = record.map_err(trouble)?;
                match record.len() == names.len() {
                    true => Ok(pick(&record.iter().collect::<Vec<_>>(), &places)),
                    false => Err(Trouble::Damaged(format!("expected {} fields, got {}", names.len(), record.len()))),
                }
            }))
        }
        Format::Csv(layouts) => {
            let layouts = Layout::all(layouts, wanted);
            let records = csv(plain, false).into_records();
            Box::new(records.filter_map(move |record: Result<StringRecord, _>| match record {
                Ok(record) => by_layout(&layouts, &record.iter().collect::<Vec<_>>()),
                Err(e) => Some(Err(trouble(e))),
            }))
        }
        Format::Blanks(layouts) => {
            let layouts = Layout::all(layouts, wanted);
            Box::new(lines(plain).filter_map(move |line| match line {
                Ok(line) => by_layout(&layouts, &line.split_whitespace().collect::<Vec<_>>()),
                Err(trouble) => Some(Err(trouble)),
            }))
        }
        Format::JsonLines => {
            let wanted = wanted.to_vec();
            Box::new(lines(plain).map(move |line| json(&line?, &wanted)))
        }
    })
}

fn unpacked(path: &Path, bar: &ProgressBar) -> Result<Box<dyn Read>> {
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

fn header_of(reader: &mut csv::Reader<BufReader<Box<dyn Read>>>, path: &Path) -> Result<Vec<String>> {
    let found = reader
        .headers()
        .map_err(|e| Failure::input(format!("{}: no header line: {e}", path.display())).hint("fetch the file again"))?;
    Ok(found.iter().map(|h| h.trim_start_matches('\u{feff}').trim().to_string()).collect())
}

fn trouble(error: csv::Error) -> Trouble {
    match error.is_io_error() {
        true => Trouble::Unreadable(error.to_string()),
        false => Trouble::Damaged("not text".into()),
    }
}

/// Where each wanted column stands among `names`.
fn places(names: &[impl AsRef<str>], wanted: &[String]) -> Vec<Option<usize>> {
    wanted.iter().map(|w| names.iter().position(|n| n.as_ref() == w)).collect()
}

fn pick(fields: &[&str], places: &[Option<usize>]) -> Vec<Option<String>> {
    places.iter().map(|place| place.and_then(|at| fields.get(at)).and_then(|text| value(text))).collect()
}

fn value(text: &str) -> Option<String> {
    (!text.trim().is_empty()).then(|| text.into())
}

/// One layout of a file without a header.
struct Layout {
    names: &'static [&'static str],
    places: Vec<Option<usize>>,
}

impl Layout {
    fn all(layouts: Layouts, wanted: &[String]) -> Vec<Layout> {
        layouts.iter().map(|names| Layout { names, places: places(names, wanted) }).collect()
    }
}

/// `None` for a line of names: some copies begin with one.
fn by_layout(layouts: &[Layout], fields: &[&str]) -> Option<Row> {
    match layouts.iter().find(|l| l.names.len() == fields.len()) {
        Some(layout) if layout.names == fields => None,
        Some(layout) => Some(Ok(pick(fields, &layout.places))),
        None => {
            let counts: Vec<_> = layouts.iter().map(|l| l.names.len().to_string()).collect();
            Some(Err(Trouble::Damaged(format!("expected {} fields, got {}", counts.join(" or "), fields.len()))))
        }
    }
}

/// Lines that are not blank.
fn lines(plain: Box<dyn Read>) -> impl Iterator<Item = Result<String, Trouble>> {
    let lines = BufReader::new(plain).split(b'\n').map(|line| {
        let line = line.map_err(|e| Trouble::Unreadable(e.to_string()))?;
        String::from_utf8(line).map_err(|_| Trouble::Damaged("not text".into()))
    });
    lines.filter(|l| l.as_ref().map_or(true, |l| !l.trim().is_empty()))
}

fn json(line: &str, wanted: &[String]) -> Row {
    let mut parsed: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(line).map_err(|_| Trouble::Damaged("not a JSON object".into()))?;
    let text = |found| match found {
        serde_json::Value::Null => None,
        serde_json::Value::String(s) => value(&s),
        other => Some(other.to_string()),
    };
    Ok(wanted.iter().map(|name| parsed.remove(name).and_then(text)).collect())
}
