//! Rows over an engine: checksums, and large values in pieces.
//!
//! ```text
//! key    row key with 00 written as 00 ff, 00 00, number of the piece u32 big-endian
//! value  piece 0: crc32c u32 (of row key, then all that follows), pieces u32, length u32, first bytes
//!        others:  more bytes
//! ```
//! The escaped key keeps the order of row keys and keeps the pieces of one row apart from any other row. The checksum
//! covers the key, so a value that turns up under another key does not pass.
//!
//! Each batch also puts its number, under the raw key 00, which comes before all others: crc32c u32, number u64.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use bytes::Bytes;

use super::{Batch, DAMAGED_MAX, Rows, StateStore, StoreError, Verified};

/// Bytes of a value per piece. sled keeps up to 16 values in a leaf and moves a leaf above a quarter of its segment out
/// of its log; with 24 KiB a leaf stays far below the 2 MiB that our segments allow.
pub(super) const PIECE_BYTES: usize = 24 << 10;

const HEADER: usize = 12;
const NUMBER_KEY: &[u8] = &[0];
/// Longer than any key: as many bytes ff come after all keys.
const KEY_BYTES_MAX: usize = 16 << 10;

/// Raw pieces to put and to delete.
pub(super) type RawBatch = Vec<(Vec<u8>, Option<Bytes>)>;

/// An engine. Keys are at most a few KiB, values a little more than [`PIECE_BYTES`].
pub(super) trait RawStore: Send + Sync + 'static {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    fn scan(&self, start: Vec<u8>, end: Vec<u8>) -> Rows<'_>;
    /// Writes all of the batch or nothing, at the latest when [`Self::sync`] returns.
    fn apply(&self, batch: RawBatch) -> Result<(), StoreError>;
    /// Returns when what was applied is on stable storage.
    fn sync(&self) -> Result<(), StoreError>;
    /// Bytes that the engine's files take on disk.
    fn disk_bytes(&self) -> Result<u64, StoreError>;
}

/// Rows in an engine.
pub(super) struct RowStore<E> {
    engine: E,
    /// Taken for writing while pieces change. A reader that finds pieces that do not match looks again under it.
    pieces: RwLock<()>,
    /// Number of the last batch.
    batches: AtomicU64,
}

impl<E: RawStore> RowStore<E> {
    pub(super) fn open(engine: E) -> Result<Self, StoreError> {
        let number = read_number(&engine)?;
        Ok(Self { engine, pieces: RwLock::new(()), batches: AtomicU64::new(number) })
    }

    /// Reads all pieces of a row while they do not change. An error says what is wrong with them.
    fn verify_row(&self, key: &[u8]) -> Result<(), StoreError> {
        let _still = self.pieces.read().unwrap_or_else(PoisonError::into_inner);
        let mut row = PiecesOfRow::new(key.to_vec());
        for piece in self.engine.scan(piece_key(key, 0), piece_key_after(key)) {
            let (raw_key, value) = piece?;
            if let Some((_, piece)) = row_key(&raw_key) {
                row.add(piece, &value);
            }
        }
        row.verify()
    }

    /// Ends one row of a verifying scan. What changed during the scan is looked at again.
    fn finish_row(&self, row: Option<PiecesOfRow>, step: &mut Verified) -> Result<(), StoreError> {
        let Some(row) = row else { return Ok(()) };
        step.rows += 1;
        if row.verify().is_ok() {
            return Ok(());
        }
        match self.verify_row(&row.key) {
            Err(StoreError::Corrupt { what }) => step.found(what),
            result => result?,
        }
        Ok(())
    }

    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let Some(first) = self.engine.get(&piece_key(key, 0))? else { return Ok(None) };
        let header = Header::read(key, &first)?;
        if header.pieces == 1 {
            return header.verify(key, first.slice(HEADER..)).map(Some);
        }
        let mut value = Vec::with_capacity(first.len());
        value.extend_from_slice(&first[HEADER..]);
        for piece in 1..header.pieces {
            let more = self.engine.get(&piece_key(key, piece))?;
            value.extend_from_slice(&more.ok_or_else(|| damaged(key, "a piece is missing"))?);
        }
        header.verify(key, value.into()).map(Some)
    }

    /// Adds the deletion of those of a row's pieces that the new value does not replace.
    fn delete_pieces(&self, key: &[u8], from: u32, raw: &mut RawBatch) -> Result<(), StoreError> {
        let first = self.engine.get(&piece_key(key, 0))?;
        let stored = match first.as_ref().map(|first| Header::read(key, first)) {
            None => return Ok(()),
            Some(Ok(header)) => header.pieces,
            // A damaged row can be replaced, too.
            Some(Err(_)) => u32::MAX,
        };
        if stored == 1 && from == 0 {
            raw.push((piece_key(key, 0), None));
        } else if from < stored {
            for found in self.engine.scan(piece_key(key, from), piece_key(key, u32::MAX)) {
                raw.push((found?.0, None));
            }
        }
        Ok(())
    }
}

impl<E: RawStore> StateStore for RowStore<E> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.read(key) {
            Err(StoreError::Corrupt { .. }) => {
                // Perhaps the pieces were being replaced.
                let _still = self.pieces.read().unwrap_or_else(PoisonError::into_inner);
                self.read(key)
            }
            result => result,
        }
    }

    fn scan(&self, start: &[u8], end: &[u8]) -> Rows<'_> {
        let pieces = self.engine.scan(piece_key(start, 0), piece_key(end, 0));
        let rows = pieces.filter_map(|piece| {
            let (raw_key, value) = match piece {
                Ok(piece) => piece,
                Err(error) => return Some(Err(error)),
            };
            let Some((key, piece)) = row_key(&raw_key) else {
                return Some(Err(StoreError::corrupt(format!("a key of {} bytes makes no sense", raw_key.len()))));
            };
            if piece != 0 {
                return None;
            }
            let whole = match Header::read(&key, &value) {
                Ok(header) if header.pieces == 1 => header.verify(&key, value.slice(HEADER..)).map(Some),
                Ok(_) => self.get(&key),
                Err(error) => Err(error),
            };
            // A row that was deleted meanwhile is not there.
            whole.map(|value| value.map(|value| (key, value))).transpose()
        });
        Box::new(rows)
    }

    fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut raw = RawBatch::with_capacity(batch.len());
        // Of two values for one key only the later may leave pieces. Engines like sorted keys, too.
        let batch: BTreeMap<_, _> = batch.into_iter().collect();
        for (key, value) in batch {
            match value {
                None => self.delete_pieces(&key, 0, &mut raw)?,
                Some(value) => {
                    let pieces = put_pieces(&key, &value, &mut raw)?;
                    self.delete_pieces(&key, pieces, &mut raw)?;
                }
            }
        }
        let number = self.batches.load(Ordering::Acquire) + 1;
        let crc = crc32c::crc32c(&number.to_le_bytes());
        let numbered = [&crc.to_le_bytes()[..], &number.to_le_bytes()].concat();
        raw.push((NUMBER_KEY.to_vec(), Some(numbered.into())));
        {
            let _changing = self.pieces.write().unwrap_or_else(PoisonError::into_inner);
            self.engine.apply(raw)?;
        }
        self.engine.sync()?;
        self.batches.store(number, Ordering::Release);
        Ok(())
    }

    fn disk_bytes(&self) -> Result<u64, StoreError> {
        self.engine.disk_bytes()
    }

    fn verify(&self, start: &[u8], bytes_max: u64) -> Result<Verified, StoreError> {
        let mut step = Verified::default();
        if start.is_empty()
            && let Err(StoreError::Corrupt { what }) = read_number(&self.engine)
        {
            step.found(what);
        }
        let mut row: Option<PiecesOfRow> = None;
        for piece in self.engine.scan(piece_key(start, 0), vec![0xff; KEY_BYTES_MAX]) {
            let (raw_key, value) = piece?;
            let parsed = row_key(&raw_key);
            let same = matches!((&row, &parsed), (Some(row), Some((key, _))) if row.key == *key);
            if !same {
                self.finish_row(row.take(), &mut step)?;
            }
            match parsed {
                Some((key, _)) if !same && bytes_max <= step.bytes => {
                    step.next = Some(key);
                    return Ok(step);
                }
                Some((key, piece)) => row.get_or_insert_with(|| PiecesOfRow::new(key)).add(piece, &value),
                None => step.found(format!("a key of {} bytes makes no sense", raw_key.len())),
            }
            step.bytes += (raw_key.len() + value.len()) as u64;
        }
        self.finish_row(row, &mut step)?;
        Ok(step)
    }
}

impl Verified {
    fn found(&mut self, what: String) {
        if self.damaged.len() < DAMAGED_MAX {
            self.damaged.push(what);
        }
    }
}

/// The number of a store's last batch; 0 if there was none.
fn read_number(engine: &impl RawStore) -> Result<u64, StoreError> {
    match engine.get(NUMBER_KEY)?.as_deref().map(<[u8; HEADER]>::try_from) {
        None => Ok(0),
        Some(Ok([a, b, c, d, number @ ..])) if u32::from_le_bytes([a, b, c, d]) == crc32c::crc32c(&number) => {
            Ok(u64::from_le_bytes(number))
        }
        Some(_) => Err(StoreError::corrupt("the number of its last batch does not verify")),
    }
}

/// The pieces of one row as a scan finds them, checked without keeping them.
struct PiecesOfRow {
    key: Vec<u8>,
    header: Option<Header>,
    found: u32,
    bytes: u64,
    crc: u32,
    problem: Option<&'static str>,
}

impl PiecesOfRow {
    fn new(key: Vec<u8>) -> Self {
        Self { key, header: None, found: 0, bytes: 0, crc: 0, problem: None }
    }

    fn add(&mut self, piece: u32, value: &[u8]) {
        if piece != self.found {
            self.problem = Some("a piece is missing or belongs to no row");
        }
        self.found = piece.saturating_add(1);
        let value = match piece {
            0 => match Header::read(&self.key, value) {
                Ok(header) => {
                    self.crc = header.checksum_before_value(&self.key);
                    self.header = Some(header);
                    &value[HEADER..]
                }
                Err(_) => return self.problem = Some("it is cut off"),
            },
            _ => value,
        };
        self.bytes += value.len() as u64;
        self.crc = crc32c::crc32c_append(self.crc, value);
    }

    fn verify(&self) -> Result<(), StoreError> {
        let problem = match &self.header {
            _ if self.problem.is_some() => self.problem,
            // Deleted meanwhile.
            None if self.found == 0 => None,
            None => Some("a piece belongs to no row"),
            Some(header) if header.pieces != self.found => Some("it has other pieces than it says"),
            Some(header) if u64::from(header.length) != self.bytes || header.crc != self.crc => {
                Some("its checksum does not match")
            }
            Some(_) => None,
        };
        problem.map_or(Ok(()), |problem| Err(damaged(&self.key, problem)))
    }
}

/// A store that counts its batches.
pub(super) trait Counted: StateStore {
    /// Number of the last batch.
    fn batches(&self) -> u64;
}

impl<E: RawStore> Counted for RowStore<E> {
    fn batches(&self) -> u64 {
        self.batches.load(Ordering::Acquire)
    }
}

/// What piece 0 says about the whole.
struct Header {
    crc: u32,
    pieces: u32,
    length: u32,
}

impl Header {
    fn read(key: &[u8], piece: &[u8]) -> Result<Self, StoreError> {
        let number = |at: usize| piece.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes);
        match (number(0), number(4), number(8)) {
            (Some(crc), Some(pieces), Some(length)) if 0 < pieces => Ok(Self { crc, pieces, length }),
            _ => Err(damaged(key, "it is cut off")),
        }
    }

    /// The checksum of all that it covers before the value.
    fn checksum_before_value(&self, key: &[u8]) -> u32 {
        let crc = crc32c::crc32c_append(crc32c::crc32c(key), &self.pieces.to_le_bytes());
        crc32c::crc32c_append(crc, &self.length.to_le_bytes())
    }

    fn verify(&self, key: &[u8], value: Bytes) -> Result<Bytes, StoreError> {
        if value.len() == self.length as usize && self.crc == checksum(key, self.pieces, &value) {
            return Ok(value);
        }
        Err(damaged(key, "its checksum does not match"))
    }
}

fn checksum(key: &[u8], pieces: u32, value: &[u8]) -> u32 {
    let crc = crc32c::crc32c_append(crc32c::crc32c(key), &pieces.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &(value.len() as u32).to_le_bytes()), value)
}

/// Adds the pieces of a row; returns how many there are.
fn put_pieces(key: &[u8], value: &Bytes, raw: &mut RawBatch) -> Result<u32, StoreError> {
    let length = u32::try_from(value.len()).map_err(|_| std::io::Error::other("a row of more than 4 GiB"))?;
    let pieces = value.len().div_ceil(PIECE_BYTES).max(1) as u32;
    let mut first = Vec::with_capacity(HEADER + value.len().min(PIECE_BYTES));
    first.extend_from_slice(&checksum(key, pieces, value).to_le_bytes());
    first.extend_from_slice(&pieces.to_le_bytes());
    first.extend_from_slice(&length.to_le_bytes());
    first.extend_from_slice(&value[..value.len().min(PIECE_BYTES)]);
    raw.push((piece_key(key, 0), Some(first.into())));
    for piece in 1..pieces {
        let start = piece as usize * PIECE_BYTES;
        let end = value.len().min(start + PIECE_BYTES);
        raw.push((piece_key(key, piece), Some(value.slice(start..end))));
    }
    Ok(pieces)
}

fn piece_key(key: &[u8], piece: u32) -> Vec<u8> {
    let mut raw = Vec::with_capacity(key.len() + 8);
    for byte in key {
        raw.push(*byte);
        if *byte == 0 {
            raw.push(0xff);
        }
    }
    raw.extend_from_slice(&[0, 0]);
    raw.extend_from_slice(&piece.to_be_bytes());
    raw
}

/// Comes after all pieces of a row and before any other row.
fn piece_key_after(key: &[u8]) -> Vec<u8> {
    let mut raw = piece_key(key, u32::MAX);
    raw.push(0);
    raw
}

fn row_key(raw: &[u8]) -> Option<(Vec<u8>, u32)> {
    let (escaped, piece) = raw.split_last_chunk::<4>()?;
    let escaped = escaped.strip_suffix(&[0, 0])?;
    let mut key = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(byte) = bytes.next() {
        key.push(*byte);
        if *byte == 0 && bytes.next() != Some(&0xff) {
            return None;
        }
    }
    Some((key, u32::from_be_bytes(*piece)))
}

fn damaged(key: &[u8], what: &str) -> StoreError {
    let shown: String = key.iter().take(64).map(|byte| byte.escape_ascii().to_string()).collect();
    StoreError::corrupt(format!("row \"{shown}\": {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_keys_keep_the_order_of_row_keys() {
        let keys: [&[u8]; 9] = [b"", b"\0", b"\0\0", b"\0\x01", b"\0\xff", b"\x01", b"a", b"a\0", b"a\0\0"];
        for pair in keys.windows(2) {
            assert!(piece_key(pair[0], 0) < piece_key(pair[0], 7));
            assert!(piece_key(pair[0], u32::MAX) < piece_key(pair[1], 0), "{pair:?}");
        }
        for key in keys {
            assert_eq!(row_key(&piece_key(key, 5)), Some((key.to_vec(), 5)));
        }
        assert_eq!(row_key(b"abc"), None);
    }
}
