//! How many bytes the entries of a log take, at 16 bytes of memory per 64 KiB.

use std::collections::VecDeque;

/// Bytes of entries between two marks.
const STEP: u64 = 64 << 10;

/// The running total of entry sizes, remembered exactly at marks and interpolated between them.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    /// An entry, and the bytes before it.
    marks: VecDeque<(u64, u64)>,
    total: u64,
    /// Whether what follows the last mark was cut, so that the next entry needs a mark of its own.
    cut: bool,
}

impl Sizes {
    /// Counts the entry at `index`, which follows those before.
    pub(super) fn append(&mut self, index: u64, bytes: u64) {
        if self.cut || self.marks.back().is_none_or(|(_, before)| STEP <= self.total - before) {
            self.cut = false;
            self.marks.push_back((index, self.total));
        }
        self.total += bytes;
    }

    /// Forgets entries from `from` on, of those before `next`.
    pub(super) fn truncate(&mut self, from: u64, next: u64) {
        self.total = self.before(from, next);
        self.cut = true;
        while self.marks.back().is_some_and(|(first, _)| from <= *first) {
            self.marks.pop_back();
        }
    }

    /// Forgets marks that are not needed for entries from `first` on.
    pub(super) fn purge(&mut self, first: u64) {
        while self.marks.get(1).is_some_and(|(next_mark, _)| *next_mark <= first) {
            self.marks.pop_front();
        }
    }

    /// Bytes of the entries `first..next`, where `next` is the end of the log.
    pub(super) fn bytes(&self, first: u64, next: u64) -> u64 {
        self.total - self.before(first, next)
    }

    /// Bytes before entry `index` in a log that ends at `next`.
    fn before(&self, index: u64, next: u64) -> u64 {
        if next <= index {
            return self.total;
        }
        let after = self.marks.partition_point(|(first, _)| *first <= index);
        let Some((first, before)) = after.checked_sub(1).and_then(|at| self.marks.get(at)).copied() else {
            return self.marks.front().map_or(self.total, |(_, before)| *before);
        };
        let (end, total) = self.marks.get(after).copied().unwrap_or((next, self.total));
        let share = u128::from(total - before) * u128::from(index - first) / u128::from((end - first).max(1));
        before + share as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_entries_are_counted_exactly() {
        let mut sizes = Sizes::default();
        for index in 10..10_010 {
            sizes.append(index, 100);
        }
        assert_eq!(sizes.bytes(10, 10_010), 1_000_000);
        assert_eq!(sizes.bytes(4_010, 10_010), 600_000);
        sizes.purge(4_010);
        assert_eq!(sizes.bytes(4_010, 10_010), 600_000);
        sizes.truncate(8_010, 10_010);
        assert_eq!(sizes.bytes(4_010, 8_010), 400_000);
        sizes.truncate(4_010, 8_010);
        assert_eq!(sizes.bytes(4_010, 4_010), 0);
        sizes.append(4_010, 7);
        assert_eq!(sizes.bytes(4_010, 4_011), 7);
    }
}
