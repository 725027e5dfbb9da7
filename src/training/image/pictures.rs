//! The pictures of a table: bytes of a column, or files that a column names, decoded once and kept as squares of levels.
//! What can not be read is left out, and said with its reason and first row.
//!
//! Squares that are more than `train.memory_bytes_max` together wait in a file that nobody finds afterwards.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use tch::{Kind, Tensor};

use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::text::text_column;
use crate::model::vision::{PictureError, PictureLimits, Preprocess, decode, map_in_parallel};
use crate::training::table::source::Table;

/// Rows whose encoded bytes are held at once.
const CHUNK_ROWS: usize = 64;
/// Files that are fetched at once.
const FETCHED_MAX: usize = 16;
/// Files whose names end so are tables; what else is named is a folder of them.
const TABLE_ENDS: [&str; 2] = [".csv", ".parquet"];

/// Where a table's pictures come from.
#[derive(Debug)]
pub enum Source {
    Bytes(ArrayRef),
    Files { paths: Vec<String>, folder: Location },
}

/// The pictures of all rows, as training sees them.
#[derive(Debug)]
pub struct Pictures {
    /// The side of a square.
    side: i64,
    squares: Squares,
    /// Where a row's square lies; none where its picture can not be read.
    places: Vec<Option<u64>>,
    /// A hash of each row's picture: equal ones lie in one part of a split.
    pub keys: Vec<String>,
    /// Rows without a square.
    pub refused: usize,
    /// The first of them, and why.
    pub first_refused: Option<String>,
}

impl Source {
    /// `named` is what `--image-folder` says; paths begin there, or else where the table lies.
    pub fn of(config: &Config, array: &ArrayRef, tables: &[String], named: Option<&str>) -> Result<Self> {
        match array.data_type() {
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => match named {
                None => Ok(Self::Bytes(ArrayRef::clone(array))),
                Some(_) => Err(Failure::usage("--image-folder: the column holds pictures, not paths; leave it out")),
            },
            of if text_column::is_text_type(of) && *of != DataType::Null => {
                let paths =
                    text_column::read_texts("--image-column", array)?.into_iter().map(Option::unwrap_or_default);
                let uri = match named {
                    Some(uri) => uri.to_string(),
                    None => folder_of(tables)?,
                };
                Ok(Self::Files { paths: paths.collect(), folder: Location::open(&uri, &config.s3)? })
            }
            other => Err(Failure::usage(format!(
                "--image-column: expected bytes of pictures, or text with the paths of their files, got {other}"
            ))),
        }
    }

    /// Refuses a path that leads elsewhere; `numbers` is where each row stands in the table.
    fn check(&self, numbers: &[usize]) -> Result<()> {
        let Self::Files { paths, folder } = self else { return Ok(()) };
        match paths.iter().zip(numbers).find(|(path, _)| leads_elsewhere(path)) {
            None => Ok(()),
            Some((path, number)) => Err(Failure::input(format!(
                "--image-column: row {number}: expected a path below {}, got {path:?}",
                folder.url
            ))
            .hint("name the folder above all of them by --image-folder, and leave it out of the paths")),
        }
    }

    /// The bytes of some rows' pictures, or why a row has none.
    async fn fetch(&self, rows: std::ops::Range<usize>) -> Result<Vec<Result<Bytes, String>>> {
        match self {
            Self::Bytes(array) => {
                let bytes = cast(&array.slice(rows.start, rows.len()), &DataType::LargeBinary)?;
                let bytes = bytes.as_binary::<i64>().iter();
                Ok(bytes.map(|bytes| Ok(Bytes::copy_from_slice(bytes.unwrap_or_default()))).collect())
            }
            Self::Files { paths, folder } => {
                let fetched = paths[rows].iter().map(|name| async move {
                    let Some(path) = folder.path_as_is(name) else { return Ok(Err(format!("{name:?} is no path"))) };
                    let found = folder.read_at(&path).await?;
                    Ok(found.ok_or_else(|| format!("{}: not found", folder.display(&path))))
                });
                let fetched: Vec<Result<_>> = stream::iter(fetched).buffered(FETCHED_MAX).collect().await;
                fetched.into_iter().collect()
            }
        }
    }
}

/// The one folder that all tables lie in.
fn folder_of(tables: &[String]) -> Result<String> {
    let above = |uri: &String| match TABLE_ENDS.iter().any(|end| uri.ends_with(end)) {
        true => uri.rsplit_once('/').map_or(".", |(folder, _)| folder).to_string(),
        false => uri.trim_end_matches('/').to_string(),
    };
    let mut folders: Vec<String> = tables.iter().map(above).collect();
    folders.dedup();
    match folders.as_slice() {
        [one] => Ok(one.clone()),
        several => Err(Failure::usage(format!(
            "--image-folder: pass it, as the tables lie in {} folders, and paths could begin in any",
            several.len()
        ))),
    }
}

/// From the root, by a scheme, or out of the folder.
fn leads_elsewhere(path: &str) -> bool {
    path.starts_with('/') || path.contains("://") || path.split('/').any(|part| part == "..")
}

impl Pictures {
    /// Fetches and decodes all pictures of a table.
    pub async fn read(config: &Config, table: &Table, source: &Source, preprocess: &Preprocess) -> Result<Self> {
        source.check(&table.numbers)?;
        let (rows, side) = (table.rows.num_rows(), preprocess.resize);
        let mut found = Self {
            side,
            squares: Squares::new(config, rows as u64 * bytes_of(side))?,
            places: Vec::with_capacity(rows),
            keys: Vec::with_capacity(rows),
            refused: 0,
            first_refused: None,
        };
        // Where the square of a picture lies, or why it has none, by its hash.
        let mut known: HashMap<String, Result<u64, String>> = HashMap::new();
        for start in (0..rows).step_by(CHUNK_ROWS) {
            let chunk = start..rows.min(start + CHUNK_ROWS);
            let fetched = source.fetch(chunk.clone()).await?;
            let hash = |bytes: &Bytes| blake3::hash(bytes).to_hex().to_string();
            let hashes: Vec<Option<String>> = fetched.iter().map(|found| found.as_ref().ok().map(hash)).collect();
            let there =
                hashes.iter().zip(&fetched).filter_map(|(hash, found)| Some((hash.as_ref()?, found.as_ref().ok()?)));
            let new: BTreeMap<&String, &Bytes> = there.filter(|(hash, _)| !known.contains_key(*hash)).collect();
            let new: Vec<(&String, &Bytes)> = new.into_iter().collect();
            for ((hash, _), square) in
                new.iter().zip(map_in_parallel(&new, |(_, bytes)| resized_square(bytes, preprocess))?)
            {
                let place = match square? {
                    Ok(levels) => Ok(found.squares.push(&levels)?),
                    Err(refused) => Err(refused.to_string()),
                };
                known.insert((*hash).clone(), place);
            }
            for ((row, fetched), hash) in chunk.zip(&fetched).zip(hashes) {
                // Rows whose files are not there are no pictures that could be equal.
                let key = hash.unwrap_or_else(|| format!("row {row}"));
                let place = match fetched {
                    Err(why) => Err(why.clone()),
                    Ok(_) => known.get(&key).cloned().ok_or_else(|| Failure::bug("a picture was not decoded"))?,
                };
                if let Err(why) = &place {
                    found.refuse(table.numbers[row], why);
                }
                found.keys.push(key);
                found.places.push(place.ok());
            }
        }
        if let Some(first) = &found.first_refused {
            tracing::warn!(
                "training: {} rows whose picture can not be read are left out; the first: {first}",
                found.refused
            );
        }
        Ok(found)
    }

    fn refuse(&mut self, number: usize, why: &str) {
        self.refused += 1;
        self.first_refused.get_or_insert_with(|| format!("row {number}: {why}"));
    }

    /// Whether a row has a picture.
    pub fn has(&self, row: usize) -> bool {
        self.places[row].is_some()
    }

    /// Squares of some rows, uint8 [rows, 3, side, side].
    pub fn squares(&self, rows: &[usize]) -> Result<Tensor> {
        let size = bytes_of(self.side) as usize;
        let mut levels = vec![0; rows.len() * size];
        for (&row, to) in rows.iter().zip(levels.chunks_mut(size)) {
            let place = self.places[row].ok_or_else(|| Failure::bug(format!("row {row} has no picture")))?;
            self.squares.read(place, to)?;
        }
        Ok(Tensor::f_from_data_size(&levels, &[rows.len() as i64, 3, self.side, self.side], Kind::Uint8)?)
    }
}

/// A picture's levels, or why it has none.
fn resized_square(bytes: &[u8], preprocess: &Preprocess) -> Result<Result<Vec<u8>, PictureError>> {
    match decode(bytes, &PictureLimits::default()) {
        Err(refused) => Ok(Err(refused)),
        Ok(picture) => Ok(Ok(Vec::try_from(&preprocess.resized_square(&picture)?.f_contiguous()?.f_view([-1])?)?)),
    }
}

fn bytes_of(side: i64) -> u64 {
    3 * (side * side) as u64
}

/// Squares one behind the other, in memory or in a file.
#[derive(Debug)]
struct Squares {
    kept: Kept,
    /// Bytes so far: where the next one begins.
    end: u64,
}

#[derive(Debug)]
enum Kept {
    Memory(Vec<u8>),
    File(File),
}

impl Squares {
    /// For at most so many bytes.
    fn new(config: &Config, bytes_most: u64) -> Result<Self> {
        let kept = match bytes_most > config.train.memory_bytes_max {
            false => Kept::Memory(Vec::new()),
            true => {
                let folder = match config.engine.spill_folder.as_str() {
                    "" => std::env::temp_dir(),
                    folder => folder.into(),
                };
                Kept::File(tempfile::tempfile_in(folder).map_err(unusable)?)
            }
        };
        Ok(Self { kept, end: 0 })
    }

    fn push(&mut self, levels: &[u8]) -> Result<u64> {
        match &mut self.kept {
            Kept::Memory(all) => all.extend_from_slice(levels),
            Kept::File(file) => file.write_all(levels).map_err(unusable)?,
        }
        self.end += levels.len() as u64;
        Ok(self.end - levels.len() as u64)
    }

    fn read(&self, place: u64, to: &mut [u8]) -> Result<()> {
        match &self.kept {
            Kept::Memory(all) => to.copy_from_slice(&all[place as usize..place as usize + to.len()]),
            Kept::File(file) => file.read_exact_at(to, place).map_err(unusable)?,
        }
        Ok(())
    }
}

fn unusable(error: std::io::Error) -> Failure {
    Failure::passing(format!("pictures in training: {error}"))
        .hint("look at the space below engine.spill_folder (the system's temporary folder where that is empty)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn paths_that_lead_elsewhere_are_known() {
        for path in ["/etc/passwd", "../a.jpg", "a/../../b.jpg", "s3://b/a.jpg"] {
            assert!(leads_elsewhere(path), "{path}");
        }
        for path in ["a.jpg", "images/a b.jpg", "images/..a.jpg", "a..b/c.png"] {
            assert!(!leads_elsewhere(path), "{path}");
        }
    }

    #[test]
    fn paths_begin_where_the_table_lies() {
        let of = |tables: &[&str]| folder_of(&tables.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(of(&["shop/styles.csv"]).unwrap(), "shop");
        assert_eq!(of(&["styles.csv"]).unwrap(), ".");
        assert_eq!(of(&["s3://shop/tables/"]).unwrap(), "s3://shop/tables");
        assert_eq!(of(&["shop/a.csv", "shop/b.csv"]).unwrap(), "shop");
        assert!(of(&["a/a.csv", "b/b.csv"]).unwrap_err().message.contains("--image-folder: pass it"));
    }

    #[test]
    fn squares_are_the_same_in_memory_and_in_a_file() {
        let mut config = Config::default();
        for bytes_max in [1 << 20, 1] {
            config.train.memory_bytes_max = bytes_max;
            let mut squares = Squares::new(&config, 100).unwrap();
            assert_eq!(matches!(squares.kept, Kept::File(_)), bytes_max == 1);
            let places = [squares.push(&[1, 2, 3]).unwrap(), squares.push(&[4, 5, 6]).unwrap()];
            let mut read = [0; 3];
            squares.read(places[1], &mut read).unwrap();
            assert_eq!(read, [4, 5, 6]);
            squares.read(places[0], &mut read).unwrap();
            assert_eq!(read, [1, 2, 3]);
        }
    }

    #[test]
    fn a_column_of_another_type_is_refused() {
        let of = |array: ArrayRef, folder| Source::of(&Config::default(), &array, &["a.csv".into()], folder);
        let refused = of(Arc::new(Int64Array::from(vec![1])), None).unwrap_err();
        assert!(refused.message.contains("expected bytes of pictures, or text") && refused.message.ends_with("Int64"));
        assert!(matches!(of(Arc::new(StringArray::from(vec!["a.jpg"])), Some("x")), Ok(Source::Files { .. })));
        let bytes: ArrayRef = Arc::new(arrow::array::BinaryArray::from(vec![&b"x"[..]]));
        assert_eq!(of(bytes, Some("x")).unwrap_err().kind.exit_code(), 2);
    }
}
