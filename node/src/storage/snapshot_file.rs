//! Rows as one file, to be sent to another node.
//!
//! ```text
//! magic u64
//! blocks   length u32, crc32c u32 (seeded with the checksum before), rows ..
//!          row: key length u32, value length u32, key, value
//! trailer  ffffffff u32, crc32c u32 (seeded likewise, of the count), count of rows u64
//! ```
//! All numbers are little-endian. As each checksum continues the one before, a block that is missing, doubled or in the
//! wrong place does not verify; and without its trailer a file is not a snapshot.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::world::{File, OpenMode, World};

const MAGIC: &[u8; 8] = b"MILSNAP\x01";
/// A block is written once it holds this many bytes.
const BLOCK_BYTES: usize = 256 << 10;
/// No block is larger: that of one row of the largest size.
const BLOCK_BYTES_MAX: u32 = 1 << 30;
const BLOCK_HEADER: usize = 8;
const TRAILER: u32 = u32::MAX;
const TRAILER_BYTES: u64 = 16;

/// Writes rows to a file.
pub struct SnapshotWriter {
    world: World,
    path: PathBuf,
    file: Arc<dyn File>,
    /// Header and rows of the block being filled.
    block: Vec<u8>,
    /// Where it goes.
    offset: u64,
    crc: u32,
    rows: u64,
}

impl SnapshotWriter {
    /// Begins a file, replacing what is there.
    pub fn create(world: &World, path: &Path) -> io::Result<Self> {
        if world.fs.exists(path)? {
            world.fs.remove_file(path)?;
        }
        let file = world.fs.open(path, OpenMode::CreateNew)?;
        file.write_all_at(MAGIC, 0)?;
        let (world, path, offset) = (world.clone(), path.to_owned(), MAGIC.len() as u64);
        Ok(Self { world, path, file, block: vec![0; BLOCK_HEADER], offset, crc: 0, rows: 0 })
    }

    /// Adds a row.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "a row too large for a snapshot");
        let bytes = key.len().saturating_add(value.len());
        if (BLOCK_BYTES_MAX as usize - BLOCK_BYTES) <= bytes {
            return Err(too_large());
        }
        self.block.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.block.extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.block.extend_from_slice(key);
        self.block.extend_from_slice(value);
        self.rows += 1;
        if BLOCK_BYTES <= self.block.len() { self.write_block() } else { Ok(()) }
    }

    fn write_block(&mut self) -> io::Result<()> {
        let (header, rows) = self.block.split_at_mut(BLOCK_HEADER);
        self.crc = crc32c::crc32c_append(self.crc, rows);
        header[..4].copy_from_slice(&(rows.len() as u32).to_le_bytes());
        header[4..].copy_from_slice(&self.crc.to_le_bytes());
        self.file.write_all_at(&self.block, self.offset)?;
        self.offset += self.block.len() as u64;
        self.block.truncate(BLOCK_HEADER);
        Ok(())
    }

    /// Ends the file and returns its length in bytes; it is on stable storage, with its name.
    pub fn finish(mut self) -> io::Result<u64> {
        if BLOCK_HEADER < self.block.len() {
            self.write_block()?;
        }
        let mut trailer = [0; TRAILER_BYTES as usize];
        let count = self.rows.to_le_bytes();
        trailer[..4].copy_from_slice(&TRAILER.to_le_bytes());
        trailer[4..8].copy_from_slice(&crc32c::crc32c_append(self.crc, &count).to_le_bytes());
        trailer[8..].copy_from_slice(&count);
        self.file.write_all_at(&trailer, self.offset)?;
        self.file.sync()?;
        if let Some(directory) = self.path.parent() {
            self.world.fs.sync_dir(directory)?;
        }
        Ok(self.offset + TRAILER_BYTES)
    }
}

/// The rows of a file, in the order they were written. The last item is an error if anything is not as it was written;
/// until the end has been reached without one, the rows may not be taken for complete.
pub struct SnapshotFile {
    path: PathBuf,
    file: Arc<dyn File>,
    len: u64,
    /// Where the next block is.
    offset: u64,
    crc: u32,
    /// Rows seen so far.
    rows: u64,
    /// What is left of the block at hand.
    block: Bytes,
    ended: bool,
}

impl SnapshotFile {
    /// Opens a file. Its content is verified as it is read.
    pub fn open(world: &World, path: &Path) -> io::Result<Self> {
        let file = world.fs.open(path, OpenMode::Read)?;
        let (len, offset) = (file.len()?, MAGIC.len() as u64);
        let path = path.to_owned();
        let snapshot = Self { path, file, len, offset, crc: 0, rows: 0, block: Bytes::new(), ended: false };
        if len < offset + TRAILER_BYTES {
            return Err(snapshot.damaged("it is too short"));
        }
        let mut magic = [0; MAGIC.len()];
        snapshot.file.read_exact_at(&mut magic, 0)?;
        if magic != *MAGIC {
            return Err(snapshot.damaged("it is no snapshot, or from a newer version"));
        }
        Ok(snapshot)
    }

    fn damaged(&self, what: &str) -> io::Error {
        let message = format!("the snapshot {} is damaged: {what}", self.path.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    }

    fn next_row(&mut self) -> io::Result<Option<(Vec<u8>, Bytes)>> {
        while self.block.is_empty() {
            if self.ended || self.read_block()? {
                self.ended = true;
                return Ok(None);
            }
        }
        if self.block.len() < 8 {
            return Err(self.damaged("a row is cut off"));
        }
        let (key, value) = (self.block.get_u32_le() as usize, self.block.get_u32_le() as usize);
        if self.block.len() < key.saturating_add(value) {
            return Err(self.damaged("a row is cut off"));
        }
        let row = (self.block.split_to(key).to_vec(), self.block.split_to(value));
        self.rows += 1;
        Ok(Some(row))
    }

    /// Reads and verifies the next block; returns whether that was the trailer.
    fn read_block(&mut self) -> io::Result<bool> {
        let left = self.len.saturating_sub(self.offset);
        if left < TRAILER_BYTES {
            return Err(self.damaged("its end is missing"));
        }
        let mut header = [0; BLOCK_HEADER];
        self.file.read_exact_at(&mut header, self.offset)?;
        let mut header = &header[..];
        let (length, crc) = (header.get_u32_le(), header.get_u32_le());
        let is_trailer = length == TRAILER;
        let length = if is_trailer { TRAILER_BYTES as u32 - BLOCK_HEADER as u32 } else { length };
        if BLOCK_BYTES_MAX < length || left < BLOCK_HEADER as u64 + u64::from(length) {
            return Err(self.damaged("a block is cut off"));
        }
        let mut content = vec![0; length as usize];
        self.file.read_exact_at(&mut content, self.offset + BLOCK_HEADER as u64)?;
        self.crc = crc32c::crc32c_append(self.crc, &content);
        self.offset += BLOCK_HEADER as u64 + u64::from(length);
        if self.crc != crc {
            return Err(self.damaged("a block does not match its checksum"));
        }
        let mut block = Bytes::from(content);
        if !is_trailer {
            self.block = block;
            return Ok(false);
        }
        let complete = block.get_u64_le() == self.rows && self.offset == self.len;
        if complete { Ok(true) } else { Err(self.damaged("rows are missing or added")) }
    }
}

impl Iterator for SnapshotFile {
    type Item = io::Result<(Vec<u8>, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.next_row().transpose();
        if matches!(row, Some(Err(_))) {
            self.ended = true;
            self.block = Bytes::new();
        }
        row
    }
}
