//! Training sets larger than memory: users or items in blocks by a hash of their ids, on disk, read back a few blocks at a
//! time.
//!
//! The rows of a block are sorted, so what training sees does not depend on the order in which the engine made them. An
//! epoch shuffles the blocks, reads as many as a window of memory holds, and shuffles the rows within; ids lie in blocks
//! by chance, so each window is a fair sample. What fits into one window is read once and stays.
//!
//! The files have no names: whatever becomes of the process, nothing is left of them.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use super::columns::Rows;
use crate::config::Config;
use crate::failure::{Failure, Result};

/// A window is this share of `train.memory_bytes_max`: one is cut into batches while the next is read (twice its size
/// while its blocks are joined), and the held-out ones have one of their own.
const WINDOWS: u64 = 4;
/// Blocks of a window, so that windows can be put together in many ways.
const BLOCKS_PER_WINDOW: u64 = 8;
/// Each is an open file.
const BLOCKS_MAX: u64 = 128;

/// Rows in blocks.
#[derive(Debug)]
pub struct Blocks<R> {
    schema: SchemaRef,
    source: Source<R>,
    rows: usize,
    window_bytes: u64,
    fingerprint: String,
    /// All of them, where a window holds them.
    whole: OnceLock<R>,
}

#[derive(Debug)]
enum Source<R> {
    Held(R),
    Kept(Vec<Block>),
}

#[derive(Debug)]
struct Block {
    file: File,
    bytes: u64,
}

impl<R: Rows> Blocks<R> {
    /// Rows that are in memory anyway.
    pub fn held(rows: R) -> Result<Self> {
        let rows = rows.sorted()?;
        let mut hash = Hash::new();
        hash.add(&rows)?;
        Ok(Self {
            schema: rows.batch().schema(),
            rows: rows.len(),
            window_bytes: u64::MAX,
            fingerprint: hash.finish(),
            whole: OnceLock::new(),
            source: Source::Held(rows),
        })
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Of every number and id.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Numbers of blocks, window by window; in an order that `rng` decides, or in their own.
    pub fn windows(&self, rng: Option<&mut ChaCha8Rng>) -> Vec<Vec<usize>> {
        let Source::Kept(blocks) = &self.source else { return vec![vec![0]] };
        if self.fits() {
            return vec![(0..blocks.len()).collect()];
        }
        let mut order: Vec<usize> = (0..blocks.len()).collect();
        if let Some(rng) = rng {
            order.shuffle(rng);
        }
        let (mut windows, mut bytes) = (vec![Vec::new()], 0);
        for block in order {
            bytes += blocks[block].bytes;
            if bytes > self.window_bytes && !windows[windows.len() - 1].is_empty() {
                windows.push(Vec::new());
                bytes = blocks[block].bytes;
            }
            let last = windows.len() - 1;
            windows[last].push(block);
        }
        windows
    }

    /// The rows of a window's blocks.
    pub fn read(&self, window: &[usize]) -> Result<R> {
        let blocks = match &self.source {
            Source::Held(rows) => return Ok(rows.clone()),
            Source::Kept(blocks) => blocks,
        };
        if let Some(whole) = self.whole.get() {
            return Ok(whole.clone());
        }
        let read = window.iter().map(|&block| read_block(&blocks[block].file, &self.schema));
        let rows = R::concat(&self.schema, &read.collect::<Result<Vec<_>>>()?)?;
        match self.fits() {
            true => Ok(self.whole.get_or_init(|| rows).clone()),
            false => Ok(rows),
        }
    }

    /// Every window in the blocks' own order.
    pub fn each(&self) -> impl Iterator<Item = Result<R>> {
        self.windows(None).into_iter().map(|window| self.read(&window))
    }

    /// At most `rows_max` of the rows that are `wanted`, and no more than a window holds, each as likely as another; in the
    /// blocks' own order.
    pub fn sample(&self, rows_max: usize, rng: &mut ChaCha8Rng, wanted: impl Fn(&R) -> Vec<usize>) -> Result<R> {
        let (mut kept, mut places) = (R::concat(&self.schema, &[])?, Vec::<u64>::new());
        for window in self.each() {
            let window = window?;
            let rows = wanted(&window);
            places.extend(rows.iter().map(|_| rng.random::<u64>()));
            kept = R::concat(&self.schema, &[kept, window.take(&rows)?])?;
            let held_max =
                (u128::from(self.window_bytes) * kept.len() as u128 / u128::from(kept.bytes().max(1))).max(1);
            let rows_max = rows_max.min(held_max.min(usize::MAX as u128) as usize);
            if kept.len() > rows_max {
                let mut order: Vec<usize> = (0..kept.len()).collect();
                order.sort_by_key(|&row| places[row]);
                order.truncate(rows_max);
                order.sort_unstable();
                (kept, places) = (kept.take(&order)?, order.iter().map(|&row| places[row]).collect());
            }
        }
        Ok(kept)
    }

    fn fits(&self) -> bool {
        match &self.source {
            Source::Held(_) => true,
            Source::Kept(blocks) => blocks.iter().map(|b| b.bytes).sum::<u64>() <= self.window_bytes,
        }
    }
}

/// Takes rows in any order and puts each into its block.
pub struct BlockWriter<R> {
    schema: SchemaRef,
    files: Vec<StreamWriter<BufWriter<File>>>,
    window_bytes: u64,
    rows: usize,
    of: PhantomData<R>,
}

impl<R: Rows> BlockWriter<R> {
    /// Room for about `bytes_expected` bytes of such rows, below `engine.spill_folder`.
    pub fn new(config: &Config, schema: SchemaRef, bytes_expected: u64) -> Result<Self> {
        let window_bytes = (config.train.memory_bytes_max / WINDOWS).max(1);
        let block_bytes = (window_bytes / BLOCKS_PER_WINDOW).max(1);
        let blocks = bytes_expected.div_ceil(block_bytes).clamp(1, BLOCKS_MAX) as usize;
        let folder = match config.engine.spill_folder.as_str() {
            "" => std::env::temp_dir(),
            place => place.into(),
        };
        let files = (0..blocks).map(|_| {
            let file = tempfile::tempfile_in(&folder)
                .map_err(|e| scratch::<R>(&format_args!("none can be made below {}: {e}", folder.display())))?;
            StreamWriter::try_new_buffered(file, &schema).map_err(|e| scratch::<R>(&e))
        });
        let files = files.collect::<Result<_>>()?;
        Ok(Self { files, schema, window_bytes, rows: 0, of: PhantomData })
    }

    pub fn add(&mut self, rows: &R) -> Result<()> {
        self.rows += rows.len();
        let mut of_blocks: Vec<Vec<usize>> = vec![Vec::new(); self.files.len()];
        (0..rows.len()).for_each(|row| of_blocks[block_of(rows.id(row), self.files.len())].push(row));
        for (block, of_block) in of_blocks.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let part = rows.take(of_block)?;
            self.files[block].write(part.batch()).map_err(|e| scratch::<R>(&e))?;
        }
        Ok(())
    }

    /// Sorts each block, so that the blocks are the same whatever order the rows came in.
    pub fn finish(self) -> Result<Blocks<R>> {
        let mut blocks = Vec::new();
        let mut hash = Hash::new();
        for mut writer in self.files {
            writer.finish().map_err(|e| scratch::<R>(&e))?;
            let mut file =
                writer.into_inner().map_err(|e| scratch::<R>(&e))?.into_inner().map_err(|e| scratch::<R>(e.error()))?;
            let sorted = read_block::<R>(&file, &self.schema)?.sorted()?;
            hash.add(&sorted)?;
            file.set_len(0).and_then(|()| file.rewind()).map_err(|e| scratch::<R>(&e))?;
            write(BufWriter::new(&file), &self.schema, sorted.batch()).map_err(|e| scratch::<R>(&e))?;
            blocks.push(Block { file, bytes: sorted.bytes() });
        }
        Ok(Blocks {
            schema: self.schema,
            source: Source::Kept(blocks),
            rows: self.rows,
            window_bytes: self.window_bytes,
            fingerprint: hash.finish(),
            whole: OnceLock::new(),
        })
    }
}

/// Of blocks, one after the other.
struct Hash(blake3::Hasher);

impl Hash {
    fn new() -> Self {
        Self(blake3::Hasher::new())
    }

    fn add(&mut self, rows: &impl Rows) -> Result<()> {
        // A stream of rows that are contiguous has the same bytes for the same rows.
        Ok(write(&mut self.0, &rows.batch().schema(), rows.batch())?)
    }

    fn finish(self) -> String {
        self.0.finalize().to_hex()[..32].to_string()
    }
}

fn write(to: impl std::io::Write, schema: &SchemaRef, rows: &RecordBatch) -> Result<(), arrow::error::ArrowError> {
    let mut file = StreamWriter::try_new(to, schema)?;
    file.write(rows)?;
    file.finish()?;
    file.flush()
}

fn read_block<R: Rows>(file: &File, schema: &SchemaRef) -> Result<R> {
    let reader =
        StreamReader::try_new(BufReader::new(FromStart { file, at: 0 }), None).map_err(|e| scratch::<R>(&e))?;
    let parts = reader.map(|rows| R::from_batch(rows.map_err(|e| scratch::<R>(&e))?, schema));
    R::concat(schema, &parts.collect::<Result<Vec<_>>>()?)
}

/// Reads a file from its start, whoever else reads it: a place of its own, not the file's.
struct FromStart<'a> {
    file: &'a File,
    at: u64,
}

impl Read for FromStart<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(to, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// The block of an id at every date: other bytes of the hash than splits and parts look at.
fn block_of(id: &str, blocks: usize) -> usize {
    let hash = blake3::hash(id.as_bytes());
    let word = u32::from_le_bytes([24, 25, 26, 27].map(|byte| hash.as_bytes()[byte]));
    word as usize % blocks
}

fn scratch<R: Rows>(error: &dyn std::fmt::Display) -> Failure {
    Failure::passing(format!("training: scratch files of {}: {error}", R::OF))
        .hint("look at the space below engine.spill_folder (the system's temporary folder where that is empty)")
}

#[cfg(test)]
mod tests {
    use super::super::user_columns::UserColumns;
    use super::super::user_columns::tests::{day, random};
    use super::*;
    use rand::SeedableRng;
    use std::collections::BTreeSet;

    fn columns(users: usize) -> UserColumns {
        UserColumns::of(&random(users, 20, 4), 1, day()).unwrap()
    }

    fn config(memory_bytes_max: u64) -> Config {
        let mut config = Config::default();
        config.train.memory_bytes_max = memory_bytes_max;
        config
    }

    /// The users in several writes, in an order of their own.
    fn written(users: &UserColumns, order: &[usize], memory_bytes_max: u64) -> Blocks<UserColumns> {
        let mut writer = BlockWriter::new(&config(memory_bytes_max), UserColumns::schema(1), users.bytes()).unwrap();
        order.chunks(70).for_each(|rows| writer.add(&users.take(rows).unwrap()).unwrap());
        writer.finish().unwrap()
    }

    #[test]
    fn blocks_hold_every_user_once_and_do_not_depend_on_the_order_of_arrival() {
        let users = columns(300);
        let (forth, back): (Vec<usize>, Vec<usize>) = ((0..300).collect(), (0..300).rev().collect());
        let memory = users.bytes() * 2;
        let (one, other) = (written(&users, &forth, memory), written(&users, &back, memory));
        assert_eq!((one.len(), one.fingerprint()), (300, other.fingerprint()));
        let all: Vec<UserColumns> = one.each().map(Result::unwrap).collect();
        assert!(all.len() > 1, "twice the users' bytes are four windows of half of them");
        assert_eq!(all, other.each().map(Result::unwrap).collect::<Vec<_>>());
        let joined = UserColumns::concat(&UserColumns::schema(1), &all).unwrap().sorted().unwrap();
        assert_eq!(joined, users.sorted().unwrap());
        assert_ne!(written(&columns(299), &forth[..299], memory).fingerprint(), one.fingerprint());
    }

    #[test]
    fn a_window_stays_within_its_share_of_the_memory_and_epochs_differ() {
        let users = columns(2000);
        let order: Vec<usize> = (0..2000).collect();
        let blocks = written(&users, &order, users.bytes());
        let largest = blocks.each().map(|window| window.unwrap().bytes()).max().unwrap();
        assert!(largest <= users.bytes() / WINDOWS, "{largest} of {}", users.bytes());
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (first, second) = (blocks.windows(Some(&mut rng)), blocks.windows(Some(&mut rng)));
        assert_ne!(first, second);
        let held = |windows: &[Vec<usize>]| windows.iter().flatten().copied().collect::<BTreeSet<usize>>();
        assert_eq!((held(&first), held(&first).len()), (held(&second), first.iter().flatten().count()));
    }

    #[test]
    fn what_fits_is_one_window_and_is_read_once() {
        let users = columns(50);
        let order: Vec<usize> = (0..50).collect();
        let blocks = written(&users, &order, users.bytes() * 100);
        assert_eq!(blocks.windows(Some(&mut ChaCha8Rng::seed_from_u64(1))).len(), 1);
        assert_eq!(blocks.each().next().unwrap().unwrap().len(), 50);
        let Source::Kept(files) = &blocks.source else { panic!("on disk") };
        files.iter().for_each(|block| block.file.set_len(0).unwrap());
        assert_eq!(blocks.each().next().unwrap().unwrap().len(), 50);
    }

    #[test]
    fn scratch_files_that_cannot_be_made_or_read_are_a_passing_fault() {
        let mut config = config(1000);
        config.engine.spill_folder = "/nowhere/at/all".into();
        let failure = BlockWriter::<UserColumns>::new(&config, UserColumns::schema(1), 100).err().unwrap();
        assert!(failure.message.contains("/nowhere/at/all") && failure.hint.is_some(), "{failure}");
        assert_eq!(failure.kind.exit_code(), 75);
        let users = columns(50);
        let blocks = written(&users, &(0..50).collect::<Vec<_>>(), users.bytes());
        let Source::Kept(files) = &blocks.source else { panic!("on disk") };
        files[0].file.set_len(files[0].file.metadata().unwrap().len() / 2).unwrap();
        let failure = blocks.each().find_map(Result::err).unwrap();
        assert!(failure.message.contains("scratch files"), "{failure}");
    }

    #[test]
    fn a_sample_is_of_what_is_wanted_as_large_as_asked_for_and_within_a_window() {
        let users = columns(400);
        let blocks = written(&users, &(0..400).collect::<Vec<_>>(), users.bytes());
        let even = |rows: &UserColumns| {
            (0..rows.len()).filter(|&row| rows.id(row).ends_with(['0', '2', '4', '6', '8'])).collect()
        };
        let drawn = |rows_max: usize, seed: u64| {
            let sample = blocks.sample(rows_max, &mut ChaCha8Rng::seed_from_u64(seed), even).unwrap();
            (0..sample.len()).map(|row| sample.id(row).to_string()).collect::<Vec<_>>()
        };
        let some = drawn(30, 1);
        assert_eq!((some.len(), some.iter().collect::<BTreeSet<_>>().len()), (30, 30));
        assert!(some.iter().all(|id| id.ends_with(['0', '2', '4', '6', '8'])));
        assert_eq!(drawn(30, 1), some);
        assert_ne!(drawn(30, 2), some);
        // Each as likely as another: of 200 that are wanted, 30 drawn forty times over, nearly every one comes.
        let met: BTreeSet<String> = (0..40).flat_map(|seed| drawn(30, seed)).collect();
        assert!(met.len() > 190, "{}", met.len());
        let most = blocks.sample(1000, &mut ChaCha8Rng::seed_from_u64(1), even).unwrap();
        // By the bytes of a mean row.
        assert!(
            most.bytes() as f64 <= users.bytes() as f64 / WINDOWS as f64 * 1.1 && most.len() < 200,
            "{} rows",
            most.len()
        );
    }
}
