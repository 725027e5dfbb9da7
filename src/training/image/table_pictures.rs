//! Decodes the pictures of a table once and keeps them as squares of levels. Rows whose picture cannot be read are
//! ignored, with a warning that gives the first reason.

use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use tch::{Kind, Tensor};

use super::picture_source::PictureSource;
use super::square_store::SquareStore;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::ids::ContentHash;
use crate::model::vision::{PictureError, PictureLimits, Preprocess, decode, map_in_parallel};
use crate::training::flat_table::FlatTable;

/// Rows whose encoded pictures are in memory at once.
const CHUNK_ROWS: usize = 64;

/// The pictures of all rows.
#[derive(Debug)]
pub(crate) struct TablePictures {
    /// The side of a square.
    side: i64,
    squares: SquareStore,
    /// Offset of each row's square, or `None` if its picture cannot be read.
    offsets: Vec<Option<u64>>,
    /// Hash of each row's picture. Rows with equal pictures are in the same split.
    pub(crate) keys: Vec<String>,
    /// The number of rows without a square.
    pub(crate) unreadable: usize,
    /// The first of them, with the reason.
    pub(crate) first_unreadable: Option<String>,
}

/// The offset of a picture's square, or the reason why it has none, by the picture's hash.
type DecodedPictures = HashMap<String, Result<u64, String>>;

impl TablePictures {
    /// Fetches and decodes all pictures of a table.
    pub(crate) async fn load(
        config: &Config,
        table: &FlatTable,
        source: &PictureSource,
        preprocess: &Preprocess,
    ) -> Result<Self> {
        source.check_paths(&table.numbers)?;
        let rows = table.rows.num_rows();
        let side = preprocess.resize;
        let mut pictures = Self {
            side,
            squares: SquareStore::new(config, rows as u64 * square_bytes(side))?,
            offsets: Vec::with_capacity(rows),
            keys: Vec::with_capacity(rows),
            unreadable: 0,
            first_unreadable: None,
        };
        let mut decoded = DecodedPictures::new();
        for start in (0..rows).step_by(CHUNK_ROWS) {
            let chunk = start..rows.min(start + CHUNK_ROWS);
            let fetched = source.fetch(chunk.clone()).await?;
            let hashes: Vec<Option<String>> = fetched.iter().map(|picture| picture.as_ref().ok().map(hash)).collect();
            pictures.decode_new(&hashes, &fetched, preprocess, &mut decoded)?;
            for ((row, picture), hash) in chunk.zip(fetched).zip(hashes) {
                // Rows without a file have no picture that could equal another.
                let key = hash.unwrap_or_else(|| format!("row {row}"));
                let square = match picture {
                    Err(reason) => Err(reason),
                    Ok(_) => decoded.get(&key).cloned().ok_or_else(|| Failure::bug("a picture was not decoded"))?,
                };
                pictures.push_row(table.numbers[row], key, square);
            }
        }
        if let Some(first) = &pictures.first_unreadable {
            let count = pictures.unreadable;
            tracing::warn!("training: ignored {count} rows whose picture cannot be read; first: {first}");
        }
        Ok(pictures)
    }

    /// Decodes the pictures of a chunk that no earlier row had, each once, in the order of their hashes.
    fn decode_new(
        &mut self,
        hashes: &[Option<String>],
        fetched: &[Result<Bytes, String>],
        preprocess: &Preprocess,
        decoded: &mut DecodedPictures,
    ) -> Result<()> {
        let mut new: BTreeMap<&String, &Bytes> = BTreeMap::new();
        for (hash, picture) in hashes.iter().zip(fetched) {
            if let (Some(hash), Ok(bytes)) = (hash, picture)
                && !decoded.contains_key(hash)
            {
                new.insert(hash, bytes);
            }
        }
        let distinct: Vec<(&String, &Bytes)> = new.into_iter().collect();
        let squares = map_in_parallel(&distinct, |(_, bytes)| decode_square(bytes, preprocess))?;
        for ((hash, _), square) in distinct.into_iter().zip(squares) {
            let offset = match square? {
                Ok(levels) => Ok(self.squares.push(&levels)?),
                Err(error) => Err(error.to_string()),
            };
            decoded.insert(hash.clone(), offset);
        }
        Ok(())
    }

    /// Adds the next row, which has this number in the table.
    fn push_row(&mut self, number: usize, key: String, square: Result<u64, String>) {
        if let Err(reason) = &square {
            self.unreadable += 1;
            self.first_unreadable.get_or_insert_with(|| format!("row {number}: {reason}"));
        }
        self.keys.push(key);
        self.offsets.push(square.ok());
    }

    /// True if a row has a picture.
    pub(crate) fn has(&self, row: usize) -> bool {
        self.offsets[row].is_some()
    }

    /// Returns the squares of some rows: uint8 [rows, 3, side, side].
    pub(crate) fn squares(&self, rows: &[usize]) -> Result<Tensor> {
        let bytes = square_bytes(self.side) as usize;
        let mut levels = vec![0; rows.len() * bytes];
        for (&row, square) in rows.iter().zip(levels.chunks_mut(bytes)) {
            let offset = self.offsets[row].ok_or_else(|| Failure::bug(format!("row {row} has no picture")))?;
            self.squares.read(offset, square)?;
        }
        Ok(Tensor::f_from_data_size(&levels, &[rows.len() as i64, 3, self.side, self.side], Kind::Uint8)?)
    }
}

fn hash(bytes: &Bytes) -> String {
    ContentHash::from_bytes(bytes).full()
}

fn square_bytes(side: i64) -> u64 {
    3 * (side * side) as u64
}

/// Returns the levels of a picture's square, or the reason why it has none.
fn decode_square(bytes: &[u8], preprocess: &Preprocess) -> Result<Result<Vec<u8>, PictureError>> {
    match decode(bytes, &PictureLimits::default()) {
        Err(error) => Ok(Err(error)),
        Ok(picture) => {
            let flat = preprocess.resized_square(&picture)?.f_contiguous()?.f_view([-1])?;
            Ok(Ok(Vec::try_from(&flat)?))
        }
    }
}
