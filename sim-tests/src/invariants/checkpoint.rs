//! The log index that a node's durable state covers.
//!
//! Read from the files of the engine `memory`, which the simulator uses; of another engine nothing is known.

use std::path::{Path, PathBuf};

use crate::disk::{Disk, Durable};

const ROWS_MAGIC: [u8; 8] = *b"MILROWS\x01";
/// The stored key of the first piece of the row `00 01`, which says what the state covers.
const COVERAGE: [u8; 9] = [0x00, 0xff, 0x01, 0, 0, 0, 0, 0, 0];
/// Before a row's value in its first piece: checksum, number of pieces, length.
const PIECE_HEADER: usize = 12;

/// Where the checkpoint of a node was read.
pub struct CheckpointReader {
    state: PathBuf,
    seen: Option<u64>,
    /// Inode and version of the file that was read last.
    file: Option<(u64, u64)>,
    /// Index of the last entry that the durable state covers. `None`: there is no state, or it cannot be read.
    pub index: Option<u64>,
}

impl CheckpointReader {
    /// Has read nothing of the state in the directory `state`.
    pub fn new(state: &Path) -> Self {
        Self { state: state.to_owned(), seen: None, file: None, index: None }
    }

    /// Reads it again if it may have changed. Whether it did.
    pub fn read(&mut self, disk: &Disk) -> bool {
        let version = disk.durable_version();
        if self.seen == Some(version) {
            return false;
        }
        self.seen = Some(version);
        disk.durable(|platter| {
            let file = rows(platter, &self.state).map(|inode| (inode, platter.file_version(inode)));
            if file == self.file {
                return false;
            }
            self.file = file;
            let before = self.index;
            self.index = file.and_then(|(inode, _)| covered(platter.file(inode)?));
            self.index != before
        })
    }
}

/// The file with the rows of the generation that counts.
fn rows(platter: &Durable<'_>, state: &Path) -> Option<u64> {
    let find = |directory: &Path, name: &str| platter.list(directory).find(|file| file.name == name);
    let current = platter.file(find(state, "CURRENT")?.inode)?;
    let mut words = std::str::from_utf8(current).ok()?.split(' ');
    let (generation, engine) = (words.next()?, words.next()?);
    Some(find(&state.join(generation).join(engine), "rows")?.inode)
}

/// The index in the row that says what the state covers.
fn covered(content: &[u8]) -> Option<u64> {
    let mut rest = content.strip_prefix(&ROWS_MAGIC)?;
    // It is among the first rows: only the number of the last batch sorts before it.
    for _ in 0..4 {
        let key_length = u32_of(&mut rest)? as usize;
        let value_length = u32_of(&mut rest)? as usize;
        let (key, after) = rest.split_at_checked(key_length)?;
        let (value, after) = after.split_at_checked(value_length)?;
        if key == COVERAGE {
            let mut value = value.get(PIECE_HEADER..)?;
            let length = u32_of(&mut value)? as usize;
            return index_of(value.get(..length)?);
        }
        rest = after;
    }
    None
}

/// The index of a log id in protobuf: field 2. A field that is 0 is absent.
fn index_of(mut log_id: &[u8]) -> Option<u64> {
    let mut index = 0;
    if log_id.is_empty() {
        return None;
    }
    while !log_id.is_empty() {
        let tag = varint(&mut log_id)?;
        match (tag >> 3, tag & 7) {
            (2, 0) => index = varint(&mut log_id)?,
            (_, 0) => drop(varint(&mut log_id)?),
            (_, 2) => {
                let length = usize::try_from(varint(&mut log_id)?).ok()?;
                log_id = log_id.get(length..)?;
            }
            _ => return None,
        }
    }
    Some(index)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn u32_of(bytes: &mut &[u8]) -> Option<u32> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    *bytes = rest;
    Some(u32::from_le_bytes(*number))
}

#[cfg(test)]
mod tests {
    use millstream_node::world::{Fs, OpenMode};

    use super::*;
    use crate::entropy::Rng;

    /// A file of rows: the number of the last batch, then what the state covers.
    fn rows_that_cover(log_id: &[u8]) -> Vec<u8> {
        let row = |key: &[u8], value: &[u8]| {
            [&(key.len() as u32).to_le_bytes()[..], &(value.len() as u32).to_le_bytes(), key, value].concat()
        };
        let coverage = [&[0; PIECE_HEADER][..], &(log_id.len() as u32).to_le_bytes(), log_id, b"membership"].concat();
        [&ROWS_MAGIC[..], &row(&[0], &[0; 12]), &row(&COVERAGE, &coverage), b"more rows"].concat()
    }

    #[test]
    fn the_index_is_found_among_the_rows() {
        // Field 1 is the leader: term 3, node 2. Field 2 is the index.
        assert_eq!(covered(&rows_that_cover(&[0x0a, 4, 0x08, 3, 0x10, 2, 0x10, 0xac, 0x02])), Some(300));
        assert_eq!(covered(&rows_that_cover(&[0x0a, 0])), Some(0), "a field that is 0 is absent");
        assert_eq!(covered(&rows_that_cover(&[])), None, "nothing was applied");
        assert_eq!(covered(b"something else"), None);
    }

    #[test]
    fn only_what_is_durable_counts() {
        let disk = Disk::new("n1", Rng::stream(1, "disk"), None);
        let fs = disk.mount();
        fs.create_dir_all(Path::new("/state/1/memory")).expect("created");
        fs.write_atomically(Path::new("/state/CURRENT"), b"1 memory 00000000\n").expect("written");
        for directory in ["/", "/state", "/state/1"] {
            fs.sync_dir(Path::new(directory)).expect("synced");
        }
        let mut reader = CheckpointReader::new(Path::new("/state"));
        let index = |reader: &mut CheckpointReader| {
            reader.read(&disk);
            reader.index
        };
        assert_eq!(index(&mut reader), None);
        let file = fs.open(Path::new("/state/1/memory/rows"), OpenMode::CreateNew).expect("created");
        file.write_all_at(&rows_that_cover(&[0x10, 7]), 0).expect("written");
        file.sync().expect("synced");
        assert_eq!(index(&mut reader), None, "the name is not durable");
        fs.sync_dir(Path::new("/state/1/memory")).expect("synced");
        assert_eq!(index(&mut reader), Some(7));
        file.write_all_at(&rows_that_cover(&[0x10, 9]), 0).expect("written");
        assert_eq!(index(&mut reader), Some(7), "the content is not durable");
        file.sync().expect("synced");
        assert_eq!(index(&mut reader), Some(9));
    }
}
