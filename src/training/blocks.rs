//! Training sets larger than memory: users in blocks by a hash of their ids, on disk, read back a few blocks at a time.
//!
//! The rows of a block are sorted, so what training sees does not depend on the order in which the engine made them. An
//! epoch shuffles the blocks, reads as many as a window of memory holds, and shuffles the rows within; users lie in blocks
//! by chance, so each window is a fair sample. What fits into one window is read once and stays.
//!
//! The files have no names: whatever becomes of the process, nothing is left of them.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use super::columns::UserColumns;
use crate::config::Config;
use crate::failure::{Failure, Result};

/// A window is this share of `train.memory_bytes_max`: one is cut into batches while the next is read (twice its size
/// while its blocks are joined), and the held-out users have one of their own.
const WINDOWS: u64 = 4;
/// Blocks of a window, so that windows can be put together in many ways.
const BLOCKS_PER_WINDOW: u64 = 8;
/// Each is an open file.
const BLOCKS_MAX: u64 = 128;

/// Users in blocks.
#[derive(Debug)]
pub struct UserBlocks {
    schema: SchemaRef,
    source: Source,
    users: usize,
    window_bytes: u64,
    fingerprint: String,
    /// All of them, where a window holds them.
    whole: OnceLock<UserColumns>,
}

#[derive(Debug)]
enum Source {
    Held(UserColumns),
    Kept(Vec<Block>),
}

#[derive(Debug)]
struct Block {
    file: File,
    bytes: u64,
}

impl UserBlocks {
    /// Users that are in memory anyway.
    pub fn held(users: UserColumns) -> Result<Self> {
        let users = users.sorted()?;
        let mut hash = Hash::new();
        hash.add(&users)?;
        Ok(Self {
            schema: users.batch().schema(),
            users: users.len(),
            window_bytes: u64::MAX,
            fingerprint: hash.finish(),
            whole: OnceLock::new(),
            source: Source::Held(users),
        })
    }

    pub fn len(&self) -> usize {
        self.users
    }

    pub fn is_empty(&self) -> bool {
        self.users == 0
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
    pub fn read(&self, window: &[usize]) -> Result<UserColumns> {
        let blocks = match &self.source {
            Source::Held(users) => return Ok(users.clone()),
            Source::Kept(blocks) => blocks,
        };
        if let Some(whole) = self.whole.get() {
            return Ok(whole.clone());
        }
        let read = window.iter().map(|&block| read_block(&blocks[block].file, &self.schema));
        let users = UserColumns::concat(&self.schema, &read.collect::<Result<Vec<_>>>()?)?;
        match self.fits() {
            true => Ok(self.whole.get_or_init(|| users).clone()),
            false => Ok(users),
        }
    }

    /// Every window in the blocks' own order.
    pub fn each(&self) -> impl Iterator<Item = Result<UserColumns>> {
        self.windows(None).into_iter().map(|window| self.read(&window))
    }

    fn fits(&self) -> bool {
        match &self.source {
            Source::Held(_) => true,
            Source::Kept(blocks) => blocks.iter().map(|b| b.bytes).sum::<u64>() <= self.window_bytes,
        }
    }
}

/// Takes users in any order and puts each into its block.
pub struct BlockWriter {
    schema: SchemaRef,
    files: Vec<StreamWriter<BufWriter<File>>>,
    window_bytes: u64,
    users: usize,
}

impl BlockWriter {
    /// Room for about `bytes_expected` bytes of users with so many features, below `engine.spill_folder`.
    pub fn new(config: &Config, features: usize, bytes_expected: u64) -> Result<Self> {
        let window_bytes = (config.train.memory_bytes_max / WINDOWS).max(1);
        let block_bytes = (window_bytes / BLOCKS_PER_WINDOW).max(1);
        let blocks = bytes_expected.div_ceil(block_bytes).clamp(1, BLOCKS_MAX) as usize;
        let folder = match config.engine.spill_folder.as_str() {
            "" => std::env::temp_dir(),
            place => place.into(),
        };
        let schema = UserColumns::schema(features);
        let files = (0..blocks).map(|_| {
            let file = tempfile::tempfile_in(&folder)
                .map_err(|e| scratch(&format_args!("none can be made below {}: {e}", folder.display())))?;
            StreamWriter::try_new_buffered(file, &schema).map_err(|e| scratch(&e))
        });
        let files = files.collect::<Result<_>>()?;
        Ok(Self { files, schema, window_bytes, users: 0 })
    }

    pub fn add(&mut self, users: &UserColumns) -> Result<()> {
        self.users += users.len();
        let mut rows: Vec<Vec<usize>> = vec![Vec::new(); self.files.len()];
        (0..users.len()).for_each(|row| rows[block_of(users.user_id(row), self.files.len())].push(row));
        for (block, rows) in rows.iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let part = users.take(rows)?;
            self.files[block].write(part.batch()).map_err(|e| scratch(&e))?;
        }
        Ok(())
    }

    /// Sorts each block, so that the blocks are the same whatever order the users came in.
    pub fn finish(self) -> Result<UserBlocks> {
        let mut blocks = Vec::new();
        let mut hash = Hash::new();
        for mut writer in self.files {
            writer.finish().map_err(|e| scratch(&e))?;
            let mut file =
                writer.into_inner().map_err(|e| scratch(&e))?.into_inner().map_err(|e| scratch(e.error()))?;
            let sorted = read_block(&file, &self.schema)?.sorted()?;
            hash.add(&sorted)?;
            file.set_len(0).and_then(|()| file.rewind()).map_err(|e| scratch(&e))?;
            write(BufWriter::new(&file), &self.schema, sorted.batch()).map_err(|e| scratch(&e))?;
            blocks.push(Block { file, bytes: sorted.bytes() });
        }
        Ok(UserBlocks {
            schema: self.schema,
            source: Source::Kept(blocks),
            users: self.users,
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

    fn add(&mut self, users: &UserColumns) -> Result<()> {
        // A stream of rows that are contiguous has the same bytes for the same rows.
        Ok(write(&mut self.0, &users.batch().schema(), users.batch())?)
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

fn read_block(file: &File, schema: &SchemaRef) -> Result<UserColumns> {
    let reader = StreamReader::try_new(BufReader::new(FromStart { file, at: 0 }), None).map_err(|e| scratch(&e))?;
    let parts = reader.map(|rows| UserColumns::from_batch(rows.map_err(|e| scratch(&e))?, schema));
    UserColumns::concat(schema, &parts.collect::<Result<Vec<_>>>()?)
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

/// A user's block at every date: other bytes of the hash than splits and parts look at.
fn block_of(user_id: &str, blocks: usize) -> usize {
    let hash = blake3::hash(user_id.as_bytes());
    let word = u32::from_le_bytes([24, 25, 26, 27].map(|byte| hash.as_bytes()[byte]));
    word as usize % blocks
}

fn scratch(error: &dyn std::fmt::Display) -> Failure {
    Failure::passing(format!("training: scratch files of users: {error}"))
        .hint("look at the space below engine.spill_folder (the system's temporary folder where that is empty)")
}

#[cfg(test)]
mod tests {
    use super::super::columns::tests::{day, random};
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
    fn written(users: &UserColumns, order: &[usize], memory_bytes_max: u64) -> UserBlocks {
        let mut writer = BlockWriter::new(&config(memory_bytes_max), 1, users.bytes()).unwrap();
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
        let failure = BlockWriter::new(&config, 1, 100).err().unwrap();
        assert!(failure.message.contains("/nowhere/at/all") && failure.hint.is_some(), "{failure}");
        assert_eq!(failure.kind.exit_code(), 75);
        let users = columns(50);
        let blocks = written(&users, &(0..50).collect::<Vec<_>>(), users.bytes());
        let Source::Kept(files) = &blocks.source else { panic!("on disk") };
        files[0].file.set_len(files[0].file.metadata().unwrap().len() / 2).unwrap();
        let failure = blocks.each().find_map(Result::err).unwrap();
        assert!(failure.message.contains("scratch files"), "{failure}");
    }
}
