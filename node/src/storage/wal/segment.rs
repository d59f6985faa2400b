//! One file of the log.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::frame::{u32_at, u64_at};
use crate::world::{File, Fs, OpenMode};

/// Bytes before a segment's first batch.
pub(super) const SEGMENT_HEADER: u64 = 64;

/// Its highest byte is the version of the format.
const MAGIC: u64 = 0x0100_4c41_574c_494d;
/// Zeros are written and synced in steps of this many bytes, so that a new segment does not hold up the syncs of the
/// one in use for long.
const ZEROS: usize = 1 << 20;

/// An open segment.
pub(super) struct Segment {
    /// The number of the segment: its name, and part of the seed of its checksums.
    pub(super) sequence: u64,
    /// Seed of all checksums in the segment. It depends on a number that no client knows, so no payload can pass for a
    /// batch.
    pub(super) seed: u32,
    /// Length of the file in bytes.
    pub(super) size: u64,
    pub(super) path: PathBuf,
    pub(super) file: Arc<dyn File>,
    /// Everything before this byte was synced.
    synced: AtomicU64,
}

impl Segment {
    /// A segment that holds nothing but its header.
    pub(super) fn new(path: PathBuf, file: Arc<dyn File>, header: &SegmentHeader) -> Self {
        let SegmentHeader { sequence, size, .. } = *header;
        Self { sequence, seed: header.seed(), size, path, file, synced: AtomicU64::new(SEGMENT_HEADER) }
    }

    /// Everything before this byte was synced.
    pub(super) fn synced(&self) -> u64 {
        self.synced.load(Ordering::Acquire)
    }

    /// Takes note of a sync.
    pub(super) fn set_synced(&self, end: u64) {
        self.synced.store(end, Ordering::Release);
    }
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Segment({})", self.sequence)
    }
}

/// What the header of a segment says.
#[derive(Debug, Clone, Copy)]
pub(super) struct SegmentHeader {
    pub(super) sequence: u64,
    pub(super) size: u64,
    pub(super) salt: u64,
}

impl SegmentHeader {
    /// Reads and verifies a segment's header. `None` if these bytes are none.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; SEGMENT_HEADER as usize] = bytes.get(..SEGMENT_HEADER as usize)?.try_into().ok()?;
        let valid = u64_at(bytes, 0) == MAGIC && u32_at(bytes, 32) == crc32c::crc32c(&bytes[..32]);
        valid.then(|| Self { sequence: u64_at(bytes, 8), salt: u64_at(bytes, 16), size: u64_at(bytes, 24) })
    }

    fn write(&self) -> [u8; SEGMENT_HEADER as usize] {
        let mut bytes = [0; SEGMENT_HEADER as usize];
        bytes[0..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.salt.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.size.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..32]);
        bytes[32..36].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The seed of the segment's checksums.
    fn seed(&self) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.salt.to_le_bytes()), &self.sequence.to_le_bytes())
    }
}

/// The file of a segment.
pub(super) fn path_of(directory: &Path, sequence: u64) -> PathBuf {
    directory.join(format!("{sequence:016x}.wal"))
}

/// The segment a file name stands for. `None` if the file is not a segment.
pub(super) fn sequence_of(name: &str) -> Option<u64> {
    number_of(name, ".wal")
}

/// The file that segment `sequence` becomes when it is no longer needed, and that a new one is until it is ready.
pub(super) fn spare_path_of(directory: &Path, sequence: u64) -> PathBuf {
    directory.join(format!("{sequence:016x}.spare"))
}

/// Whether this is the name of a file that is no part of the log: a spare one, or one that was not ready yet.
pub(super) fn is_spare(name: &str) -> bool {
    number_of(name, ".spare").is_some()
}

fn number_of(name: &str, extension: &str) -> Option<u64> {
    let digits = name.strip_suffix(extension).filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}

/// Creates a segment full of zeros, durable with its name. If that fails, nothing is left of it.
///
/// The zeros are written now so that the sync of a batch later has no new blocks and no new length to record.
pub(super) fn create(fs: &dyn Fs, directory: &Path, header: &SegmentHeader) -> io::Result<Segment> {
    let draft = spare_path_of(directory, header.sequence);
    if fs.exists(&draft)? {
        fs.remove_file(&draft)?;
    }
    let file = fs.open(&draft, OpenMode::CreateNew)?;
    let made =
        write_zeros(&*file, SEGMENT_HEADER, header.size).and_then(|()| adopt(fs, directory, &draft, file, header));
    made.inspect_err(|_| {
        // Room, perhaps. What stays behind is removed at the next start.
        let _ = fs.remove_file(&draft);
    })
}

/// Makes a segment of a spare file of the right length, durable with its name.
pub(super) fn reuse(fs: &dyn Fs, directory: &Path, spare: &Path, header: &SegmentHeader) -> io::Result<Segment> {
    let file = fs.open(spare, OpenMode::Write)?;
    adopt(fs, directory, spare, file, header)
}

/// Gives a file its header and then its name, in this order: a file with the name of a segment has the right header.
fn adopt(
    fs: &dyn Fs,
    directory: &Path,
    draft: &Path,
    file: Arc<dyn File>,
    header: &SegmentHeader,
) -> io::Result<Segment> {
    file.write_all_at(&header.write(), 0)?;
    if !millstream_streams::mutant!(SegmentHeaderNotSynced) {
        file.sync()?;
    }
    let path = path_of(directory, header.sequence);
    fs.rename(draft, &path)?;
    if !millstream_streams::mutant!(SegmentNameNotSynced) {
        fs.sync_dir(directory)?;
    }
    Ok(Segment::new(path, file, header))
}

/// Writes zeros from `start` to `end`, syncing as it goes.
pub(super) fn write_zeros(file: &dyn File, start: u64, end: u64) -> io::Result<()> {
    let zeros = vec![0; ZEROS.min(end.saturating_sub(start) as usize)];
    let mut at = start;
    while at < end {
        let step = zeros.len().min((end - at) as usize);
        file.write_all_at(&zeros[..step], at)?;
        file.sync()?;
        at += step as u64;
    }
    Ok(())
}
