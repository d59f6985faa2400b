//! The bytes of a log file (drawn in the [module](super)): batch headers and frames.

use std::io;

use bytes::Bytes;
use openraft::vote::RaftLeaderId;

use super::payload;
use crate::types::{CommittedLeaderId, LogEntry, LogId, Vote};

/// Bytes of a batch header.
pub(super) const BATCH_HEADER: usize = 32;
/// Bytes of a frame header.
pub(super) const FRAME_HEADER: usize = 36;
/// Batches start at multiples of this many bytes.
pub(super) const ALIGNMENT: u64 = 8;

const BATCH_MAGIC: u32 = 0x3142_534d;

/// The next place where a batch may start.
pub(super) fn align(offset: u64) -> u64 {
    offset.next_multiple_of(ALIGNMENT)
}

/// What a verified batch header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchHeader {
    /// Bytes of frames after the header, without padding.
    pub(super) length: u32,
    /// Number of the batch, over all segments.
    pub(super) sequence: u64,
    frames_crc: u32,
}

impl BatchHeader {
    /// Reads and verifies a header. `None` if these bytes are not the header of a batch of this segment.
    pub(super) fn read(bytes: &[u8], segment: u64, seed: u32) -> Option<Self> {
        let bytes: &[u8; BATCH_HEADER] = bytes.get(..BATCH_HEADER)?.try_into().ok()?;
        // The magic number comes first because most of what is tried is zeros.
        if u32_at(bytes, 0) != BATCH_MAGIC
            || u32_at(bytes, 28) != crc32c::crc32c_append(seed, &bytes[..28])
            || u64_at(bytes, 8) != segment
        {
            return None;
        }
        Some(Self { length: u32_at(bytes, 4), sequence: u64_at(bytes, 16), frames_crc: u32_at(bytes, 24) })
    }

    /// Whether these are the frames the header was written for.
    pub(super) fn verifies(&self, frames: &[u8], seed: u32) -> bool {
        frames.len() == self.length as usize && crc32c::crc32c_append(seed, frames) == self.frames_crc
    }
}

/// Fills in the header of a batch whose frames start at byte [`BATCH_HEADER`] of `batch`.
pub(super) fn seal_batch(batch: &mut [u8], segment: u64, seed: u32, sequence: u64) -> io::Result<()> {
    let Some((header, frames)) = batch.split_first_chunk_mut::<BATCH_HEADER>() else {
        return Err(io::Error::other("a batch without room for its header"));
    };
    let length = u32::try_from(frames.len()).map_err(|_| too_large(frames.len()))?;
    header[0..4].copy_from_slice(&BATCH_MAGIC.to_le_bytes());
    header[4..8].copy_from_slice(&length.to_le_bytes());
    header[8..16].copy_from_slice(&segment.to_le_bytes());
    header[16..24].copy_from_slice(&sequence.to_le_bytes());
    header[24..28].copy_from_slice(&crc32c::crc32c_append(seed, frames).to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &header[..28]);
    header[28..32].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// What a frame is. The numbers are on disk: never change or reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A log entry; `flag` is the kind of its payload.
    Append = 1,
    /// A vote; `flag` 1 if it is committed.
    Vote = 2,
    /// Entries after this one are gone; `flag` 0 if all are.
    Truncate = 3,
    /// Entries up to this one are gone.
    Purge = 4,
    /// Entries up to this one are committed; `flag` 0 if none is known to be.
    Committed = 5,
    /// In the first batch of a segment: the group's next entry has this index.
    Next = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Append, Self::Vote, Self::Truncate, Self::Purge, Self::Committed, Self::Next]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }
}

/// A frame without its payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) group: u32,
    pub(super) kind: Kind,
    pub(super) flag: u8,
    pub(super) log_id: LogId,
    /// Bytes of payload that follow the frame's header.
    pub(super) length: usize,
}

impl Frame {
    /// Reads the frame at `offset` of a verified batch.
    pub(super) fn read(frames: &[u8], offset: usize) -> io::Result<Self> {
        let header: &[u8; FRAME_HEADER] = offset
            .checked_add(FRAME_HEADER)
            .and_then(|end| frames.get(offset..end))
            .and_then(|header| header.try_into().ok())
            .ok_or_else(|| malformed("a frame is cut off"))?;
        let kind = Kind::from_byte(header[8])
            .ok_or_else(|| malformed("a frame of unknown kind, perhaps written by a newer version"))?;
        let length = u32_at(header, 0) as usize;
        if frames.len() - offset - FRAME_HEADER < length {
            return Err(malformed("a frame is longer than its batch"));
        }
        let leader_id = CommittedLeaderId::new(u64_at(header, 20), u64_at(header, 28));
        let log_id = LogId { leader_id, index: u64_at(header, 12) };
        Ok(Self { group: u32_at(header, 4), kind, flag: header[9], log_id, length })
    }

    /// Where the frame after this one starts.
    pub(super) fn end(&self, offset: usize) -> usize {
        offset + FRAME_HEADER + self.length
    }

    /// The log entry of an append frame at `offset`. Its payload is a view of `frames`.
    pub(super) fn entry(&self, frames: &Bytes, offset: usize) -> io::Result<LogEntry> {
        let payload = frames.slice(offset + FRAME_HEADER..self.end(offset));
        Ok(LogEntry { log_id: self.log_id, payload: payload::decode(self.flag, payload)? })
    }

    /// The vote of a vote frame.
    pub(super) fn vote(&self) -> Vote {
        Vote { leader_id: self.log_id.leader_id, committed: self.flag != 0 }
    }

    /// The log id of a frame that may name none.
    pub(super) fn optional_log_id(&self) -> Option<LogId> {
        (self.flag != 0).then_some(self.log_id)
    }
}

/// Appends the frame of a log entry; returns its length in bytes.
pub(super) fn put_entry(buffer: &mut Vec<u8>, group: u32, entry: &LogEntry) -> io::Result<usize> {
    let start = buffer.len();
    put_header(buffer, group, Kind::Append, 0, &entry.log_id);
    let encoded = payload::encode(&entry.payload, buffer).and_then(|flag| {
        let length = buffer.len() - start - FRAME_HEADER;
        Ok((flag, u32::try_from(length).map_err(|_| too_large(length))?))
    });
    let (flag, length) = encoded.inspect_err(|_| buffer.truncate(start))?;
    buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
    buffer[start + 9] = flag;
    Ok(buffer.len() - start)
}

/// Appends the frame of a vote.
pub(super) fn put_vote(buffer: &mut Vec<u8>, group: u32, vote: &Vote) {
    let log_id = LogId { leader_id: vote.leader_id, index: 0 };
    put_header(buffer, group, Kind::Vote, u8::from(vote.committed), &log_id);
}

/// Appends a frame that holds nothing but a log id, or the absence of one.
pub(super) fn put_log_id(buffer: &mut Vec<u8>, group: u32, kind: Kind, log_id: Option<&LogId>) {
    let none = LogId { leader_id: CommittedLeaderId::new(0, 0), index: 0 };
    put_header(buffer, group, kind, u8::from(log_id.is_some()), log_id.unwrap_or(&none));
}

/// Appends the frame that says which entry is a group's next.
pub(super) fn put_next(buffer: &mut Vec<u8>, group: u32, next: u64) {
    let log_id = LogId { leader_id: CommittedLeaderId::new(0, 0), index: next };
    put_header(buffer, group, Kind::Next, 0, &log_id);
}

fn put_header(buffer: &mut Vec<u8>, group: u32, kind: Kind, flag: u8, log_id: &LogId) {
    let mut header = [0; FRAME_HEADER];
    header[4..8].copy_from_slice(&group.to_le_bytes());
    header[8] = kind as u8;
    header[9] = flag;
    header[12..20].copy_from_slice(&log_id.index.to_le_bytes());
    header[20..28].copy_from_slice(&log_id.leader_id.term.to_le_bytes());
    header[28..36].copy_from_slice(&log_id.leader_id.node_id.to_le_bytes());
    buffer.extend_from_slice(&header);
}

pub(super) fn u32_at<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

pub(super) fn u64_at<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

fn too_large(length: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{length} bytes are too many for the log"))
}

pub(super) fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
