//! Training sets larger than memory: users or items on disk, in blocks by a hash of their ids, read back a few blocks at
//! a time.
//!
//! The rows of a block are sorted, so training does not depend on the order in which the engine made them. An epoch
//! shuffles the blocks, reads as many as a window of memory holds, and shuffles the rows within. Ids are spread over the
//! blocks at random, so each window is a fair sample. Blocks that fit into one window are read once and cached.
//!
//! The files have no names, so the system removes them however the process ends.

use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::fs::File;
use std::io::{BufWriter, Seek};
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use super::block_files::{RowsHash, read_block, scratch_failure, write_stream};
use super::block_rows::BlockRows;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::ids::ContentHash;

/// Windows that fit into `train.memory_bytes_max`: one is made into batches while the next is read (which takes twice its
/// size while its blocks are joined), and one holds held-out rows.
const WINDOWS: u64 = 4;
/// Blocks of a window; several, so that each epoch combines them differently.
const BLOCKS_PER_WINDOW: u64 = 8;
/// Limit on blocks; each is an open file.
const BLOCKS_MAX: u64 = 128;

/// Rows in blocks, on disk or in memory.
#[derive(Debug)]
pub struct Blocks<R> {
    schema: SchemaRef,
    blocks: Vec<Block<R>>,
    rows: usize,
    window_bytes: u64,
    fingerprint: String,
    /// Caches all rows, if they fit into one window.
    whole: OnceLock<R>,
}

#[derive(Debug, Clone)]
struct Block<R> {
    source: Source<R>,
    bytes: u64,
}

#[derive(Debug, Clone)]
enum Source<R> {
    InMemory(R),
    OnDisk(Arc<File>),
}

impl<R: BlockRows> Blocks<R> {
    /// Wraps rows that are already in memory.
    pub fn in_memory(rows: R) -> Result<Self> {
        let rows = rows.sorted()?;
        let mut hash = RowsHash::new();
        hash.add(&rows)?;
        Ok(Self {
            schema: rows.batch().schema(),
            rows: rows.len(),
            window_bytes: u64::MAX,
            fingerprint: hash.finish(),
            whole: OnceLock::new(),
            blocks: vec![Block { bytes: rows.bytes(), source: Source::InMemory(rows) }],
        })
    }

    /// All rows of several blocks of one schema. The files are shared.
    pub(crate) fn union(parts: &[&Self]) -> Result<Self> {
        let schema = parts.first().ok_or_else(|| Failure::bug("training: a union of no blocks"))?.schema.clone();
        let mut fingerprint = blake3::Hasher::new();
        parts.iter().for_each(|part| {
            fingerprint.update(part.fingerprint.as_bytes());
        });
        Ok(Self {
            schema,
            blocks: parts.iter().flat_map(|part| part.blocks.iter().cloned()).collect(),
            rows: parts.iter().map(|part| part.rows).sum(),
            window_bytes: parts.iter().map(|part| part.window_bytes).min().unwrap_or(u64::MAX),
            fingerprint: ContentHash::from_hasher(&fingerprint).long(),
            whole: OnceLock::new(),
        })
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Hash of every number and id.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Indices of the blocks of each window, in the order of the blocks or, with `rng`, shuffled.
    pub fn windows(&self, rng: Option<&mut ChaCha8Rng>) -> Vec<Vec<usize>> {
        if self.fits() {
            return vec![(0..self.blocks.len()).collect()];
        }
        let mut order: Vec<usize> = (0..self.blocks.len()).collect();
        if let Some(rng) = rng {
            order.shuffle(rng);
        }
        let mut windows = vec![Vec::new()];
        let mut bytes = 0;
        for block in order {
            bytes += self.blocks[block].bytes;
            if bytes > self.window_bytes && !windows[windows.len() - 1].is_empty() {
                windows.push(Vec::new());
                bytes = self.blocks[block].bytes;
            }
            let last = windows.len() - 1;
            windows[last].push(block);
        }
        windows
    }

    /// Reads the rows of a window's blocks.
    pub(crate) fn read_window(&self, window: &[usize]) -> Result<R> {
        if let [Block { source: Source::InMemory(rows), .. }] = self.blocks.as_slice() {
            return Ok(rows.clone());
        }
        if let Some(whole) = self.whole.get() {
            return Ok(whole.clone());
        }
        let read = window.iter().map(|&block| match &self.blocks[block].source {
            Source::InMemory(rows) => Ok(rows.clone()),
            Source::OnDisk(file) => read_block(file, &self.schema),
        });
        let rows = R::concat(&self.schema, &read.collect::<Result<Vec<_>>>()?)?;
        match self.fits() {
            true => Ok(self.whole.get_or_init(|| rows).clone()),
            false => Ok(rows),
        }
    }

    /// Reads every window, in the order of the blocks.
    pub fn each_window(&self) -> impl Iterator<Item = Result<R>> {
        self.windows(None).into_iter().map(|window| self.read_window(&window))
    }

    /// Draws at most `rows_max` of the `wanted` rows, and no more than a window holds, each with the same probability; in
    /// the order of the blocks.
    pub(crate) fn sample(&self, rows_max: usize, rng: &mut ChaCha8Rng, wanted: impl Fn(&R) -> Vec<usize>) -> Result<R> {
        let mut sample = R::concat(&self.schema, &[])?;
        // A random rank for each row of the sample; the lowest ranks stay.
        let mut ranks: Vec<u64> = Vec::new();
        for window in self.each_window() {
            let window = window?;
            let rows = wanted(&window);
            ranks.extend(rows.iter().map(|_| rng.random::<u64>()));
            sample = R::concat(&self.schema, &[sample, window.take(&rows)?])?;
            let window_rows =
                (u128::from(self.window_bytes) * sample.len() as u128 / u128::from(sample.bytes().max(1))).max(1);
            let limit = rows_max.min(window_rows.min(usize::MAX as u128) as usize);
            if sample.len() > limit {
                let mut order: Vec<usize> = (0..sample.len()).collect();
                order.sort_by_key(|&row| ranks[row]);
                order.truncate(limit);
                order.sort_unstable();
                sample = sample.take(&order)?;
                ranks = order.iter().map(|&row| ranks[row]).collect();
            }
        }
        Ok(sample)
    }

    /// Returns whether all rows fit into one window.
    fn fits(&self) -> bool {
        self.blocks.iter().map(|block| block.bytes).sum::<u64>() <= self.window_bytes
    }
}

/// Writes rows, in any order, each to its block.
pub(crate) struct BlockWriter<R> {
    schema: SchemaRef,
    files: Vec<StreamWriter<BufWriter<File>>>,
    window_bytes: u64,
    rows: usize,
    kind: PhantomData<R>,
}

impl<R: BlockRows> BlockWriter<R> {
    /// Creates the scratch files for about `bytes_expected` bytes of rows, below `engine.spill_folder`.
    pub(crate) fn new(config: &Config, schema: SchemaRef, bytes_expected: u64) -> Result<Self> {
        let window_bytes = (config.train.memory_bytes_max / WINDOWS).max(1);
        let block_bytes = (window_bytes / BLOCKS_PER_WINDOW).max(1);
        let blocks = bytes_expected.div_ceil(block_bytes).clamp(1, BLOCKS_MAX) as usize;
        let folder = config.engine.spill_path();
        let create_file = |_| {
            let file = tempfile::tempfile_in(&folder)
                .map_err(|e| scratch_failure::<R>(&format_args!("cannot create below {}: {e}", folder.display())))?;
            StreamWriter::try_new_buffered(file, &schema).map_err(|e| scratch_failure::<R>(&e))
        };
        let files = (0..blocks).map(create_file).collect::<Result<_>>()?;
        Ok(Self { files, schema, window_bytes, rows: 0, kind: PhantomData })
    }

    pub(crate) fn add(&mut self, rows: &R) -> Result<()> {
        self.rows += rows.len();
        let mut rows_by_block: Vec<Vec<usize>> = vec![Vec::new(); self.files.len()];
        for row in 0..rows.len() {
            rows_by_block[block_of(rows.id(row), self.files.len())].push(row);
        }
        for (block, block_rows) in rows_by_block.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let part = rows.take(block_rows)?;
            self.files[block].write(part.batch()).map_err(|e| scratch_failure::<R>(&e))?;
        }
        Ok(())
    }

    /// Sorts each block, so that the order in which the rows came does not matter.
    pub(crate) fn finish(self) -> Result<Blocks<R>> {
        let mut blocks = Vec::new();
        let mut hash = RowsHash::new();
        for mut writer in self.files {
            writer.finish().map_err(|e| scratch_failure::<R>(&e))?;
            let buffered = writer.into_inner().map_err(|e| scratch_failure::<R>(&e))?;
            let mut file = buffered.into_inner().map_err(|e| scratch_failure::<R>(e.error()))?;
            let sorted = read_block::<R>(&file, &self.schema)?.sorted()?;
            hash.add(&sorted)?;
            file.set_len(0).and_then(|()| file.rewind()).map_err(|e| scratch_failure::<R>(&e))?;
            write_stream(BufWriter::new(&file), &self.schema, sorted.batch()).map_err(|e| scratch_failure::<R>(&e))?;
            blocks.push(Block { bytes: sorted.bytes(), source: Source::OnDisk(Arc::new(file)) });
        }
        Ok(Blocks {
            schema: self.schema,
            blocks,
            rows: self.rows,
            window_bytes: self.window_bytes,
            fingerprint: hash.finish(),
            whole: OnceLock::new(),
        })
    }
}

/// The block of an id, the same at every date. Uses other bytes of the hash than splits and parts.
fn block_of(id: &str, blocks: usize) -> usize {
    let hash = blake3::hash(id.as_bytes());
    let word = u32::from_le_bytes([24, 25, 26, 27].map(|byte| hash.as_bytes()[byte]));
    word as usize % blocks
}

#[cfg(test)]
mod tests {
    use super::super::user_columns::tests::{day, random};
    use super::super::user_columns::{UserBlocks, UserColumns};
    use super::*;
    use rand::SeedableRng;
    use std::collections::BTreeSet;

    fn columns(users: usize) -> UserColumns {
        UserColumns::from_users(&random(users, 20, 4), 1, day()).unwrap()
    }

    fn config(memory_bytes_max: u64) -> Config {
        let mut config = Config::default();
        config.train.memory_bytes_max = memory_bytes_max;
        config
    }

    /// Writes the users to blocks in several steps, in a given order.
    fn written(users: &UserColumns, order: &[usize], memory_bytes_max: u64) -> Blocks<UserColumns> {
        let mut writer = BlockWriter::new(&config(memory_bytes_max), UserColumns::schema(1), users.bytes()).unwrap();
        order.chunks(70).for_each(|rows| writer.add(&users.take(rows).unwrap()).unwrap());
        writer.finish().unwrap()
    }

    #[test]
    fn blocks_hold_every_user_once_in_any_order_of_arrival() {
        let users = columns(300);
        let forth: Vec<usize> = (0..300).collect();
        let back: Vec<usize> = (0..300).rev().collect();
        let memory = users.bytes() * 2;
        let one = written(&users, &forth, memory);
        let other = written(&users, &back, memory);
        assert_eq!((one.len(), one.fingerprint()), (300, other.fingerprint()));
        let all: Vec<UserColumns> = one.each_window().map(Result::unwrap).collect();
        assert!(all.len() > 1, "twice the users' bytes are four windows of half of them");
        assert_eq!(all, other.each_window().map(Result::unwrap).collect::<Vec<_>>());
        let joined = UserColumns::concat(&UserColumns::schema(1), &all).unwrap().sorted().unwrap();
        assert_eq!(joined, users.sorted().unwrap());
        assert_ne!(written(&columns(299), &forth[..299], memory).fingerprint(), one.fingerprint());
    }

    #[test]
    fn windows_stay_within_their_memory_and_differ_by_epoch() {
        let users = columns(2000);
        let order: Vec<usize> = (0..2000).collect();
        let blocks = written(&users, &order, users.bytes());
        let largest = blocks.each_window().map(|window| window.unwrap().bytes()).max().unwrap();
        assert!(largest <= users.bytes() / WINDOWS, "{largest} of {}", users.bytes());
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let first = blocks.windows(Some(&mut rng));
        let second = blocks.windows(Some(&mut rng));
        assert_ne!(first, second);
        let held = |windows: &[Vec<usize>]| windows.iter().flatten().copied().collect::<BTreeSet<usize>>();
        assert_eq!((held(&first), held(&first).len()), (held(&second), first.iter().flatten().count()));
    }

    #[test]
    fn rows_that_fit_into_one_window_are_read_once() {
        let users = columns(50);
        let order: Vec<usize> = (0..50).collect();
        let blocks = written(&users, &order, users.bytes() * 100);
        assert_eq!(blocks.windows(Some(&mut ChaCha8Rng::seed_from_u64(1))).len(), 1);
        assert_eq!(blocks.each_window().next().unwrap().unwrap().len(), 50);
        blocks.blocks.iter().for_each(|block| file_of(block).set_len(0).unwrap());
        assert_eq!(blocks.each_window().next().unwrap().unwrap().len(), 50);
    }

    fn file_of(block: &Block<UserColumns>) -> &File {
        match &block.source {
            Source::OnDisk(file) => file,
            Source::InMemory(_) => panic!("expected a file"),
        }
    }

    #[test]
    fn a_union_has_the_rows_of_all_parts() {
        let users = columns(300);
        let memory = users.bytes() * 2;
        let on_disk = written(&users, &(0..200).collect::<Vec<_>>(), memory);
        let rest = UserBlocks::in_memory(users.take(&(200..300).collect::<Vec<_>>()).unwrap()).unwrap();
        let union = UserBlocks::union(&[&on_disk, &rest]).unwrap();
        let windows: Vec<UserColumns> = union.each_window().map(Result::unwrap).collect();
        assert!(windows.len() > 1, "the smaller window counts");
        let joined = UserColumns::concat(&UserColumns::schema(1), &windows).unwrap().sorted().unwrap();
        assert_eq!((union.len(), joined), (300, users.sorted().unwrap()));
        assert_ne!(union.fingerprint(), on_disk.fingerprint());
    }

    #[test]
    fn unusable_scratch_files_are_a_transient_failure() {
        let mut config = config(1000);
        config.engine.spill_folder = "/nowhere/at/all".into();
        let failure = BlockWriter::<UserColumns>::new(&config, UserColumns::schema(1), 100).err().unwrap();
        assert!(failure.message.contains("/nowhere/at/all") && failure.hint.is_some(), "{failure}");
        assert_eq!(failure.kind.exit_code(), 75);
        let users = columns(50);
        let blocks = written(&users, &(0..50).collect::<Vec<_>>(), users.bytes());
        let file = file_of(&blocks.blocks[0]);
        file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        let failure = blocks.each_window().find_map(Result::err).unwrap();
        assert!(failure.message.contains("scratch files"), "{failure}");
    }

    #[test]
    fn a_sample_has_wanted_rows_up_to_its_limit_and_a_window() {
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
        // All with the same probability: 30 of 200, drawn forty times, cover nearly all.
        let covered: BTreeSet<String> = (0..40).flat_map(|seed| drawn(30, seed)).collect();
        assert!(covered.len() > 190, "{}", covered.len());
        let most = blocks.sample(1000, &mut ChaCha8Rng::seed_from_u64(1), even).unwrap();
        // The limit goes by the bytes of a mean row.
        assert!(
            most.bytes() as f64 <= users.bytes() as f64 / WINDOWS as f64 * 1.1 && most.len() < 200,
            "{} rows",
            most.len()
        );
    }
}
