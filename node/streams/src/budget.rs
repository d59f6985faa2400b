//! How much a command may return and look at: bounds of its own, and those that it shares with the rest of its batch.
//!
//! What is asked for says little about what it costs: a count of one may pass over a hundred thousand entries. So what is
//! done is counted, where it is done, and it is the same on every replica.

use crate::limits::LOOKS_MAX;

/// Bytes of a row of an answer, beside its name: about what it takes on the wire.
const ROW_BYTES: u64 = 64;

/// What may still be returned and looked at.
///
/// Bytes are counted in two levels, the command's own and that of its batch. They are checked before each entry, but never
/// before the first of a level: a single entry that is too large is still returned, or it could never be read. What comes
/// after the first that does not fit does not fit either, so that nothing is served out of turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    own: Level,
    shared: Level,
    /// Entries that may still be returned; `None`: any number.
    entries_left: Option<u64>,
    /// Things that may still be looked at.
    looks_left: u64,
    /// Something did not fit.
    is_cut: bool,
}

#[derive(Debug, Clone, Copy)]
struct Level {
    /// `None`: any number.
    bytes_left: Option<u64>,
    started: bool,
    full: bool,
}

impl Level {
    /// 0: no limit.
    fn new(bytes_max: u64) -> Level {
        Level { bytes_left: (bytes_max > 0).then_some(bytes_max), started: false, full: false }
    }

    fn has_room(&mut self, bytes: u64) -> bool {
        self.full |= self.started && self.bytes_left.is_some_and(|left| left < bytes);
        !self.full
    }

    fn spend(&mut self, bytes: u64) {
        self.bytes_left = self.bytes_left.map(|left| left.saturating_sub(bytes));
        self.started = true;
    }
}

impl Budget {
    /// For a command, with its whole batch if it is one: at most `bytes_max` bytes, 0: no limit; and [`LOOKS_MAX`] looks.
    pub(crate) fn shared(bytes_max: u64) -> Budget {
        Budget {
            own: Level::new(0),
            shared: Level::new(bytes_max),
            entries_left: None,
            looks_left: LOOKS_MAX,
            is_cut: false,
        }
    }

    /// For a command within this budget: at most `bytes_max` bytes and `entries_max` entries; 0: no limit of its own.
    pub(crate) fn narrowed(&self, bytes_max: u64, entries_max: u32) -> Budget {
        let entries_left = (entries_max > 0).then_some(entries_max.into());
        Budget { own: Level::new(bytes_max), entries_left, is_cut: false, ..*self }
    }

    /// Takes over what a command spent of [`Budget::narrowed`].
    pub(crate) fn settle(&mut self, spent: &Budget) {
        self.shared = spent.shared;
        self.looks_left = spent.looks_left;
    }

    /// Whether one more thing may be looked at; counts it if so.
    pub(crate) fn look(&mut self) -> bool {
        match self.looks_left.checked_sub(1) {
            Some(left) => self.looks_left = left,
            None => self.is_cut = true,
        }
        !self.is_cut
    }

    /// Whether an entry of this size may be returned; counts it if so.
    pub(crate) fn admit(&mut self, bytes: u64) -> bool {
        if self.entries_left == Some(0) {
            return false;
        }
        self.is_cut |= !self.own.has_room(bytes) || !self.shared.has_room(bytes);
        if self.is_cut || !self.look() {
            return false;
        }
        self.entries_left = self.entries_left.map(|left| left - 1);
        self.own.spend(bytes);
        self.shared.spend(bytes);
        true
    }

    /// Whether a row that holds this name may be returned; counts its bytes if so. Rows are looked at before: see
    /// [`Budget::look`].
    pub(crate) fn admit_row(&mut self, name: &str) -> bool {
        let bytes = ROW_BYTES + name.len() as u64;
        self.is_cut |= !self.own.has_room(bytes) || !self.shared.has_room(bytes);
        if !self.is_cut {
            self.own.spend(bytes);
            self.shared.spend(bytes);
        }
        !self.is_cut
    }

    /// Whether nothing more can be returned, whatever its size.
    pub(crate) fn is_spent(&self) -> bool {
        self.looks_left == 0 || self.shared.full || self.own.full || self.entries_left == Some(0)
    }

    /// Whether something did not fit: bytes or looks were not enough. That all entries asked for were returned is not it.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// How many things may be looked at, if `max` are wanted. [`Budget::looked`] says how many were.
    pub(crate) fn looks(&self, max: u64) -> u64 {
        self.looks_left.min(max)
    }

    /// Counts so many looks.
    pub(crate) fn looked(&mut self, looks: u64) {
        self.looks_left = self.looks_left.saturating_sub(looks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_goes_whatever_its_size() {
        let mut budget = Budget::shared(0).narrowed(10, 0);
        assert!(budget.admit(50) && !budget.is_cut() && !budget.admit(1) && budget.is_cut());
    }

    #[test]
    fn nothing_is_served_out_of_turn() {
        let mut budget = Budget::shared(0).narrowed(10, 0);
        assert!(budget.admit(6) && !budget.admit(5) && !budget.admit(1) && budget.is_spent());
    }

    #[test]
    fn a_batch_is_bounded_as_a_whole() {
        let mut batch = Budget::shared(10);
        let mut first = batch.narrowed(0, 0);
        assert!(first.admit(8));
        batch.settle(&first);
        let mut second = batch.narrowed(100, 0);
        assert!(second.admit(2) && !second.admit(1));
        batch.settle(&second);
        let mut third = batch.narrowed(0, 0);
        assert!(third.is_spent() && !third.admit(0) && third.is_cut(), "nothing is the first any more");
    }

    #[test]
    fn entries_and_looks_are_counted() {
        let mut batch = Budget::shared(0);
        let mut budget = batch.narrowed(0, 2);
        assert!(budget.admit(1) && budget.admit(1) && !budget.admit(0) && !budget.is_cut());
        batch.settle(&budget);
        assert_eq!(batch.looks(u64::MAX), LOOKS_MAX - 2);
        batch.looked(LOOKS_MAX - 3);
        let mut budget = batch.narrowed(0, 0);
        assert!(budget.look() && !budget.look() && !budget.admit(1) && budget.is_cut());
    }
}
