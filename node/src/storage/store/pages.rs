//! The file below redb: pages of 4 KiB with checksums of ours.
//!
//! redb verifies its own checksums only when it repairs a file; what it reads afterwards it believes. A changed byte in a
//! page of its tree would hide rows. So every page is verified here when it is read from the file.
//!
//! ```text
//! file        groups of 1,025 pages of 4,096 bytes: a page of sums, then up to 1,024 pages of redb's
//! sums        for each page of the group u32 little-endian: 0, never written, all zeros;
//!             else crc32c of the page's number (u64 little-endian, counted without pages of sums) and content,
//!             with 1 in place of 0. The first of the first group is not used
//! page 0      redb's header, at most 508 bytes, zeros; crc32c u32 little-endian of the first 508 bytes, at byte 508
//! ```
//! The header is overwritten in place; its checksum stands in the same sector, so both change at once. Other pages are
//! written only while redb has them free, and are read again only after a sync, before which their sums are written: a
//! crash in between leaves sums that do not match pages that nobody reads. A sector of sums that is torn from its
//! neighbours repeats what it said about the pages that did not change.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use redb::StorageBackend;

use crate::world::File;

const PAGE: usize = 4096;
const PAGE_BYTES: u64 = PAGE as u64;
/// Pages of redb's in a group.
const GROUP_PAGES: u64 = 1024;
/// The sector that holds redb's header and its checksum.
const SECTOR: usize = 512;
const HEADER_MAX: usize = SECTOR - 4;

/// The file, as redb sees it.
pub(super) struct CheckedFile {
    file: Arc<dyn File>,
    /// Length as redb sees it.
    len: AtomicU64,
    sums: Mutex<Sums>,
    /// What was found damaged first. redb itself says only "previous error" from then on.
    damage: Arc<OnceLock<String>>,
}

#[derive(Default)]
struct Sums {
    /// Pages of sums by group, as far as they were needed: 1/1,024 of the file at most.
    groups: BTreeMap<u64, Vec<u8>>,
    /// Those that the file does not have yet.
    changed: BTreeSet<u64>,
}

impl fmt::Debug for CheckedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedFile").finish_non_exhaustive()
    }
}

impl CheckedFile {
    pub(super) fn new(file: Arc<dyn File>, damage: Arc<OnceLock<String>>) -> io::Result<Self> {
        let len = AtomicU64::new(inner_len(file.len()?));
        Ok(Self { file, len, sums: Mutex::default(), damage })
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn damaged(&self, what: String) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, self.damage.get_or_init(|| what).clone())
    }

    fn read_header(&self, out: &mut [u8]) -> io::Result<()> {
        let mut sector = [0; SECTOR];
        self.file.read_exact_at(&mut sector, place(0))?;
        let (header, crc) = sector.split_at(HEADER_MAX);
        if sector != [0; SECTOR] && crc != crc32c::crc32c(header).to_le_bytes() {
            return Err(self.damaged("the header does not match its checksum".into()));
        }
        out.copy_from_slice(header.get(..out.len()).ok_or_else(not_pages)?);
        Ok(())
    }

    fn write_header(&self, data: &[u8]) -> io::Result<()> {
        let mut sector = [0; SECTOR];
        let (header, crc) = sector.split_at_mut(HEADER_MAX);
        header.get_mut(..data.len()).ok_or_else(not_pages)?.copy_from_slice(data);
        crc.copy_from_slice(&crc32c::crc32c(header).to_le_bytes());
        self.file.write_all_at(&sector, place(0))
    }

    /// Reads pages of one group.
    fn read_run(&self, first: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, place(first))?;
        let mut sums = self.sums();
        let group = sums.group(&*self.file, first / GROUP_PAGES)?;
        for (number, page) in (first..).zip(out.chunks_exact(PAGE)) {
            let expected = sum_at(group, number);
            let fine = match expected {
                0 => page.iter().all(|byte| *byte == 0),
                _ => expected == sum(number, page),
            };
            if !fine {
                return Err(self.damaged(format!("page {number} does not match its checksum")));
            }
        }
        Ok(())
    }

    /// Writes pages of one group.
    fn write_run(&self, first: u64, data: &[u8]) -> io::Result<()> {
        {
            let mut sums = self.sums();
            let group = sums.group(&*self.file, first / GROUP_PAGES)?;
            for (number, page) in (first..).zip(data.chunks_exact(PAGE)) {
                set_sum(group, number, sum(number, page));
            }
            sums.changed.insert(first / GROUP_PAGES);
        }
        self.file.write_all_at(data, place(first))
    }
}

impl StorageBackend for CheckedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len.load(Ordering::Acquire))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.len.load(Ordering::Acquire) < offset.saturating_add(out.len() as u64) {
            return Err(self.damaged(format!("the file ends before byte {offset} and {} more", out.len())));
        }
        if offset == 0 && out.len() <= HEADER_MAX {
            return self.read_header(out);
        }
        let mut first = whole_pages(offset, out.len())?;
        let mut rest = out;
        while !rest.is_empty() {
            let len = run_len(first, rest.len());
            let (run, after) = rest.split_at_mut(len);
            self.read_run(first, run)?;
            first += (run.len() / PAGE) as u64;
            rest = after;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let before = self.len.load(Ordering::Acquire);
        let mut sums = self.sums();
        if len < before {
            // What is cut off comes back as zeros, if it comes back.
            let end = len.div_ceil(PAGE_BYTES);
            let last = end / GROUP_PAGES;
            sums.groups.retain(|group, _| *group <= last);
            sums.changed.retain(|group| *group <= last);
            if !end.is_multiple_of(GROUP_PAGES) {
                let group = sums.group(&*self.file, last)?;
                for number in end..(last + 1) * GROUP_PAGES {
                    set_sum(group, number, 0);
                }
                sums.changed.insert(last);
            } else {
                sums.groups.remove(&last);
                sums.changed.remove(&last);
            }
        }
        self.file.set_len(outer_len(len))?;
        self.len.store(len, Ordering::Release);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        {
            let mut sums = self.sums();
            for group in std::mem::take(&mut sums.changed) {
                let content = sums.group(&*self.file, group)?;
                self.file.write_all_at(content, place_of_sums(group))?;
            }
        }
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset == 0 && data.len() <= HEADER_MAX {
            return self.write_header(data);
        }
        let mut first = whole_pages(offset, data.len())?;
        let mut rest = data;
        while !rest.is_empty() {
            let (run, after) = rest.split_at(run_len(first, rest.len()));
            self.write_run(first, run)?;
            first += (run.len() / PAGE) as u64;
            rest = after;
        }
        Ok(())
    }
}

impl Sums {
    /// The page of sums of a group: zeros if the file ends before it.
    fn group(&mut self, file: &dyn File, group: u64) -> io::Result<&mut [u8]> {
        let content = match self.groups.entry(group) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(unknown) => {
                let mut content = vec![0; PAGE];
                if place_of_sums(group) + PAGE_BYTES <= file.len()? {
                    file.read_exact_at(&mut content, place_of_sums(group))?;
                }
                unknown.insert(content)
            }
        };
        Ok(content)
    }
}

fn sum(number: u64, page: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&number.to_le_bytes()), page).max(1)
}

fn slot(number: u64) -> usize {
    (number % GROUP_PAGES) as usize * 4
}

fn sum_at(group: &[u8], number: u64) -> u32 {
    let bytes = group.get(slot(number)..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn set_sum(group: &mut [u8], number: u64, sum: u32) {
    if let Some(bytes) = group.get_mut(slot(number)..).and_then(|rest| rest.first_chunk_mut()) {
        *bytes = sum.to_le_bytes();
    }
}

fn place_of_sums(group: u64) -> u64 {
    group * (GROUP_PAGES + 1) * PAGE_BYTES
}

/// Where a page of redb's is in the file.
fn place(number: u64) -> u64 {
    place_of_sums(number / GROUP_PAGES) + (number % GROUP_PAGES + 1) * PAGE_BYTES
}

/// The file's length for a length of redb's.
fn outer_len(len: u64) -> u64 {
    match len % (GROUP_PAGES * PAGE_BYTES) {
        0 => place_of_sums(len / (GROUP_PAGES * PAGE_BYTES)),
        rest => place_of_sums(len / (GROUP_PAGES * PAGE_BYTES)) + PAGE_BYTES + rest,
    }
}

/// The reverse of [`outer_len`].
fn inner_len(len: u64) -> u64 {
    let group_bytes = (GROUP_PAGES + 1) * PAGE_BYTES;
    len / group_bytes * GROUP_PAGES * PAGE_BYTES + (len % group_bytes).saturating_sub(PAGE_BYTES)
}

/// The first of some whole pages.
fn whole_pages(offset: u64, len: usize) -> io::Result<u64> {
    if !offset.is_multiple_of(PAGE_BYTES) || !len.is_multiple_of(PAGE) || offset == 0 {
        return Err(not_pages());
    }
    Ok(offset / PAGE_BYTES)
}

/// How many of `len` bytes from page `first` on are in its group.
fn run_len(first: u64, len: usize) -> usize {
    len.min((GROUP_PAGES - first % GROUP_PAGES) as usize * PAGE)
}

fn not_pages() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "redb is expected to read and write whole pages")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{OpenMode, World};

    /// A checked file in a directory of its own, and the file below it.
    fn file() -> (tempfile::TempDir, Arc<dyn File>, CheckedFile) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = World::real().fs.open(&directory.path().join("file"), OpenMode::CreateNew).expect("creates");
        let checked = CheckedFile::new(Arc::clone(&file), Arc::default()).expect("opens");
        (directory, file, checked)
    }

    fn pages(count: usize, seed: usize) -> Vec<u8> {
        (0..count * PAGE).map(|at| (at / 7 + at + seed) as u8).collect()
    }

    fn read(file: &CheckedFile, page: u64, count: usize) -> io::Result<Vec<u8>> {
        let mut out = vec![0; count * PAGE];
        file.read(page * PAGE_BYTES, &mut out).map(|()| out)
    }

    #[test]
    fn lengths_are_translated_and_back() {
        let group = GROUP_PAGES * PAGE_BYTES;
        for len in [0, PAGE_BYTES, group - PAGE_BYTES, group, group + PAGE_BYTES, 5 * group, 5 * group + 7 * PAGE_BYTES]
        {
            assert_eq!(inner_len(outer_len(len)), len);
        }
    }

    #[test]
    fn what_is_written_across_groups_is_read_after_a_reopen() {
        let (_directory, below, file) = file();
        file.set_len(3 * GROUP_PAGES * PAGE_BYTES).expect("grows");
        file.write(0, &[7; 320]).expect("writes");
        let content = pages(8, 1);
        file.write((GROUP_PAGES - 3) * PAGE_BYTES, &content).expect("writes");
        file.sync_data().expect("syncs");
        let again = CheckedFile::new(below, Arc::default()).expect("opens");
        assert_eq!(again.len().expect("looks"), 3 * GROUP_PAGES * PAGE_BYTES);
        assert_eq!(read(&again, GROUP_PAGES - 3, 8).expect("verifies"), content);
        assert_eq!(read(&again, 2 * GROUP_PAGES - 1, 2).expect("verifies"), vec![0; 2 * PAGE], "never written: zeros");
        let mut header = [0; 320];
        again.read(0, &mut header).expect("verifies");
        assert_eq!(header, [7; 320]);
        assert!(read(&again, 3 * GROUP_PAGES - 1, 2).is_err(), "beyond the end");
        assert!(again.write(5, &[0; PAGE]).is_err(), "not a page");
    }

    #[test]
    fn each_changed_byte_is_noticed_and_remembered() {
        for place_of_change in [place(5) + 17, place_of_sums(0) + 5 * 4, place(0) + 3, place(0) + SECTOR as u64 - 1] {
            let (_directory, below, file) = file();
            file.set_len(10 * PAGE_BYTES).expect("grows");
            file.write(0, &[7; 320]).expect("writes");
            file.write(5 * PAGE_BYTES, &pages(2, 2)).expect("writes");
            file.sync_data().expect("syncs");
            let mut byte = [0];
            below.read_exact_at(&mut byte, place_of_change).expect("reads");
            below.write_all_at(&[byte[0] ^ 4], place_of_change).expect("writes");
            let damage = Arc::new(OnceLock::new());
            let again = CheckedFile::new(below, Arc::clone(&damage)).expect("opens");
            let failed = read(&again, 5, 2).is_err() || again.read(0, &mut [0; 320]).is_err();
            assert!(failed && damage.get().is_some(), "byte {place_of_change}");
        }
    }

    #[test]
    fn a_page_in_anothers_place_is_noticed() {
        let (_directory, below, file) = file();
        file.set_len(10 * PAGE_BYTES).expect("grows");
        file.write(5 * PAGE_BYTES, &pages(1, 3)).expect("writes");
        file.write(6 * PAGE_BYTES, &pages(1, 4)).expect("writes");
        below.write_all_at(&pages(1, 3), place(6)).expect("writes");
        assert!(read(&file, 5, 1).is_ok() && read(&file, 6, 1).is_err());
    }

    #[test]
    fn what_is_cut_off_comes_back_as_zeros() {
        let (_directory, below, file) = file();
        file.set_len(2 * GROUP_PAGES * PAGE_BYTES).expect("grows");
        for page in [3, 9, GROUP_PAGES + 3] {
            file.write(page * PAGE_BYTES, &pages(1, page as usize)).expect("writes");
        }
        file.sync_data().expect("syncs");
        file.set_len(5 * PAGE_BYTES).expect("shrinks");
        file.set_len(2 * GROUP_PAGES * PAGE_BYTES).expect("grows");
        file.sync_data().expect("syncs");
        let again = CheckedFile::new(below, Arc::default()).expect("opens");
        for file in [&file, &again] {
            assert_eq!(read(file, 3, 1).expect("verifies"), pages(1, 3));
            assert_eq!(read(file, 9, 1).expect("verifies"), vec![0; PAGE]);
            assert_eq!(read(file, GROUP_PAGES + 3, 1).expect("verifies"), vec![0; PAGE]);
        }
    }
}
