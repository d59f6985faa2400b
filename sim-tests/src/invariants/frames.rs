//! The bytes of log files, as they are drawn in `docs/storage.md` and at the head of the node's `storage/wal`.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::log::{Entry, Frame, LeaderId, LogId, Vote, Voters};
use crate::trace::fingerprint;

const SEGMENT_MAGIC: [u8; 8] = *b"MILWAL\0\x01";
const BATCH_MAGIC: [u8; 4] = *b"MSB1";
/// Bytes before the first batch of a segment.
pub(super) const SEGMENT_HEADER: usize = 64;
const BATCH_HEADER: usize = 32;
const FRAME_HEADER: usize = 36;
/// The group whose frames are of interest.
const GROUP: u32 = 0;

/// The seed of the checksums in a segment, if its header verifies and says that it is segment `sequence`.
pub(super) fn segment_seed(content: &[u8], sequence: u64) -> Option<u32> {
    let header = content.get(..SEGMENT_HEADER)?;
    let verifies = header[..8] == SEGMENT_MAGIC && u32_at(header, 32)? == crc32c::crc32c(&header[..32]);
    if !verifies || u64_at(header, 8)? != sequence {
        return None;
    }
    let salt = u64_at(header, 16)?;
    Some(crc32c::crc32c_append(crc32c::crc32c(&salt.to_le_bytes()), &sequence.to_le_bytes()))
}

/// A batch that verifies.
pub(super) struct Batch<'c> {
    /// Its number, over all segments.
    pub(super) number: u64,
    /// Where the next batch starts.
    pub(super) end: usize,
    frames: &'c [u8],
}

impl<'c> Batch<'c> {
    /// The batch at `offset` of a segment, if there is one that verifies.
    pub(super) fn at(content: &'c [u8], offset: usize, sequence: u64, seed: u32) -> Option<Self> {
        let batch = content.get(offset..)?;
        let header = batch.get(..BATCH_HEADER)?;
        let header_verifies = header[..4] == BATCH_MAGIC
            && u64_at(header, 8)? == sequence
            && u32_at(header, 28)? == crc32c::crc32c_append(seed, &header[..28]);
        if !header_verifies {
            return None;
        }
        let length = u32_at(header, 4)? as usize;
        let frames = batch.get(BATCH_HEADER..BATCH_HEADER.checked_add(length)?)?;
        if u32_at(header, 24)? != crc32c::crc32c_append(seed, frames) {
            return None;
        }
        let end = (offset + BATCH_HEADER + length).next_multiple_of(8);
        Some(Self { number: u64_at(header, 16)?, end, frames })
    }

    /// The frames, in order. One that makes no sense ends them.
    pub(super) fn frames(&self) -> impl Iterator<Item = Result<Frame, String>> + use<'c> {
        let mut rest = self.frames;
        std::iter::from_fn(move || {
            while !rest.is_empty() {
                let Some((frame, length)) = frame(rest) else {
                    rest = &[];
                    return Some(Err("a frame of a batch that verifies makes no sense".to_owned()));
                };
                rest = rest.get(length..).unwrap_or_default();
                if let Some(frame) = frame {
                    return Some(Ok(frame));
                }
            }
            None
        })
    }
}

/// The frame at the start of `bytes`, unless it is of another group, and its length.
fn frame(bytes: &[u8]) -> Option<(Option<Frame>, usize)> {
    let header = bytes.get(..FRAME_HEADER)?;
    let length = FRAME_HEADER.checked_add(u32_at(header, 0)? as usize)?;
    let payload = bytes.get(FRAME_HEADER..length)?;
    if u32_at(header, 4)? != GROUP {
        return Some((None, length));
    }
    let (kind, flag, index) = (header[8], header[9], u64_at(header, 12)?);
    let leader = LeaderId { term: u64_at(header, 20)?, node: u64_at(header, 28)? };
    let log_id = LogId { leader, index };
    let frame = match kind {
        1 => Frame::Append { index, entry: entry(leader, flag, payload)? },
        2 => Frame::Vote(Vote { leader, committed: flag != 0 }),
        3 => Frame::Truncate((flag != 0).then_some(index)),
        4 => Frame::Purge(log_id),
        5 => Frame::Committed((flag != 0).then_some(log_id)),
        6 => Frame::Next(index),
        _ => return None,
    };
    Some((Some(frame), length))
}

fn entry(leader: LeaderId, kind: u8, payload: &[u8]) -> Option<Entry> {
    let voters = match kind {
        0 | 1 => None,
        2 => Some(Arc::new(voters(payload)?)),
        _ => return None,
    };
    let proposal = fingerprint(if kind == 1 { payload } else { &[] });
    Some(Entry { leader, fingerprint: fingerprint(payload) ^ u64::from(kind), proposal, voters })
}

/// The sets of voters in a membership: CBOR, `[1, [[id, ..], ..], {id: address}]`.
fn voters(bytes: &[u8]) -> Option<Voters> {
    let mut at = bytes;
    let parts = head(&mut at, 4)?;
    let version = head(&mut at, 0)?;
    if parts != 3 || version != 1 {
        return None;
    }
    let sets = head(&mut at, 4)?;
    let mut voters = Voters::new();
    for _ in 0..sets {
        let mut set = BTreeSet::new();
        for _ in 0..head(&mut at, 4)? {
            set.insert(head(&mut at, 0)?);
        }
        voters.push(set);
    }
    Some(voters)
}

/// The number in the head of a CBOR item, which must be of this major type.
fn head(at: &mut &[u8], major: u8) -> Option<u64> {
    let (first, rest) = at.split_first()?;
    if first >> 5 != major {
        return None;
    }
    let bytes = match first & 31 {
        small @ 0..24 => {
            *at = rest;
            return Some(u64::from(small));
        }
        size @ 24..28 => 1 << (size - 24),
        _ => return None,
    };
    let (number, rest) = rest.split_at_checked(bytes)?;
    *at = rest;
    Some(number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEQUENCE: u64 = 7;

    fn frame_bytes(kind: u8, flag: u8, index: u64, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_le_bytes();
        let numbers = [index, 3, 2].map(u64::to_le_bytes);
        [&length[..], &GROUP.to_le_bytes(), &[kind, flag, 0, 0], numbers.as_flattened(), payload].concat()
    }

    /// A segment with one batch, drawn by hand.
    fn segment(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut header =
            [&SEGMENT_MAGIC[..], &SEQUENCE.to_le_bytes(), &99_u64.to_le_bytes(), &4_096_u64.to_le_bytes()].concat();
        header.extend(crc32c::crc32c(&header).to_le_bytes());
        header.resize(SEGMENT_HEADER, 0);
        let seed = segment_seed(&header, SEQUENCE).expect("the header verifies");
        let frames = frames.concat();
        let length = (frames.len() as u32).to_le_bytes();
        let mut batch = [&BATCH_MAGIC[..], &length, &SEQUENCE.to_le_bytes(), &1_u64.to_le_bytes()].concat();
        batch.extend(crc32c::crc32c_append(seed, &frames).to_le_bytes());
        batch.extend(crc32c::crc32c_append(seed, &batch).to_le_bytes());
        [header, batch, frames].concat()
    }

    fn read(content: &[u8]) -> Option<Result<Vec<Frame>, String>> {
        let seed = segment_seed(content, SEQUENCE)?;
        Some(Batch::at(content, SEGMENT_HEADER, SEQUENCE, seed)?.frames().collect())
    }

    #[test]
    fn frames_are_read_as_drawn() {
        // [1, [[1, 2], [300]], {1: "a"}]
        let membership = [0x83, 1, 0x82, 0x82, 1, 2, 0x81, 0x19, 0x01, 0x2c, 0xa1, 1, 0x61, b'a'];
        let frames = [
            frame_bytes(2, 1, 0, b""),
            frame_bytes(1, 1, 5, b"proposal"),
            frame_bytes(1, 2, 6, &membership),
            frame_bytes(3, 1, 5, b""),
            frame_bytes(5, 0, 0, b""),
        ];
        let leader = LeaderId { term: 3, node: 2 };
        let found = read(&segment(&frames)).expect("verifies").expect("makes sense");
        let [
            Frame::Vote(vote),
            Frame::Append { index: 5, entry },
            Frame::Append { index: 6, entry: members },
            rest @ ..,
        ] = &found[..]
        else {
            panic!("{found:?}");
        };
        assert_eq!(*vote, Vote { leader, committed: true });
        assert_eq!((entry.leader, entry.proposal), (leader, fingerprint(b"proposal")));
        let voters = vec![BTreeSet::from([1, 2]), BTreeSet::from([300])];
        assert_eq!(members.voters.as_deref(), Some(&voters));
        assert_eq!(rest, [Frame::Truncate(Some(5)), Frame::Committed(None)]);
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let content = segment(&[frame_bytes(1, 1, 5, b"proposal")]);
        let zeros = 36..SEGMENT_HEADER;
        for at in (0..content.len()).filter(|at| !zeros.contains(at)) {
            let mut changed = content.clone();
            changed[at] ^= 1;
            assert!(read(&changed).is_none(), "byte {at}");
        }
        for length in 0..content.len() {
            assert!(read(&content[..length]).is_none(), "cut at {length}");
        }
    }

    #[test]
    fn a_frame_that_makes_no_sense_is_an_error() {
        for frame in
            [frame_bytes(9, 0, 0, b""), frame_bytes(1, 2, 5, b"\x83"), frame_bytes(2, 0, 0, b"")[..30].to_vec()]
        {
            assert!(read(&segment(&[frame])).expect("verifies").is_err());
        }
    }
}
