//! Removing entries with regard to the groups that refer to them (KEEPREF, DELREF, ACKED).

use minicbor::{Decode, Encode};

use crate::block::{BlockError, Blocks};
use crate::entry_id::EntryId;
use crate::group::Group;
use crate::names::GroupName;
use crate::stream::Stream;
use crate::trim::{Bound, TrimPolicy, Verdict};

/// What becomes of the references that groups hold to an entry when it is removed from the stream.
///
/// A group refers to an entry that it has yet to deliver, and to one that is pending.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum References {
    /// They stay: the entry remains pending without being there (KEEPREF).
    #[default]
    #[n(0)]
    Keep,
    /// It is pending no more, in any group (DELREF).
    #[n(1)]
    Delete,
    /// Entries to which a group refers are not removed (ACKED).
    #[n(2)]
    Acked,
}

/// What became of an entry that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Removal {
    /// It is not in the stream now.
    #[n(0)]
    Deleted,
    /// There was none.
    #[n(1)]
    NotFound,
    /// It stays, because a group refers to it. Only with [`References::Acked`].
    #[n(2)]
    Referenced,
}

impl Removal {
    /// For the digest.
    pub(crate) fn number(self) -> u64 {
        match self {
            Removal::Deleted => 0,
            Removal::NotFound => 1,
            Removal::Referenced => 2,
        }
    }
}

impl Stream {
    /// Removes the entry; says what became of it.
    ///
    /// With [`References::Delete`] it is pending no more, even if it was gone from the stream already. With
    /// [`References::Acked`] an id that a group may yet come to counts as referenced, even if there is no such entry.
    pub(crate) fn remove_entry(
        &mut self,
        id: EntryId,
        references: References,
        blocks: &dyn Blocks,
    ) -> Result<Removal, BlockError> {
        match references {
            References::Keep => {}
            References::Delete => self.forget(id),
            References::Acked => {
                let is_undelivered = self.smallest_position().is_some_and(|position| position < id);
                if is_undelivered || self.is_pending(id) {
                    return Ok(Removal::Referenced);
                }
            }
        }
        let deleted = self.entries.delete(id, blocks)?;
        Ok(if deleted { Removal::Deleted } else { Removal::NotFound })
    }

    /// Trims the stream; says how many entries went. `passes`: see [`Stream::trim_to`].
    pub(crate) fn trim(
        &mut self,
        policy: &TrimPolicy,
        passes: &mut u64,
        blocks: &dyn Blocks,
    ) -> Result<u64, BlockError> {
        let (bound, limit) = (policy.threshold.into(), policy.limit());
        match policy.references {
            References::Keep if policy.approximate => Ok(self.entries.trim_blocks(bound, limit)),
            references => self.trim_to(bound, limit, references, passes, blocks),
        }
    }

    /// Removes entries, the oldest first, until the bound holds or `limit` are gone; says how many. With
    /// [`References::Acked`] the bound may not hold after it: it passes over at most so many entries as `passes` says, which
    /// tells then how many of those are left.
    pub(crate) fn trim_to(
        &mut self,
        bound: Bound,
        limit: Option<u64>,
        references: References,
        passes: &mut u64,
        blocks: &dyn Blocks,
    ) -> Result<u64, BlockError> {
        match references {
            References::Keep => self.entries.trim(bound, limit, blocks),
            References::Delete => self.trim_and_forget(bound, limit, blocks),
            References::Acked => self.trim_acked(bound, limit, passes, blocks),
        }
    }

    fn trim_and_forget(&mut self, bound: Bound, limit: Option<u64>, blocks: &dyn Blocks) -> Result<u64, BlockError> {
        if self.groups.values().all(|group| group.pending().len() == 0) {
            return self.entries.trim(bound, limit, blocks);
        }
        let mut victims = Vec::new();
        let removed = self.entries.trim_where(bound, limit, blocks, |id| {
            victims.push(id);
            Verdict::Remove
        })?;
        for id in victims {
            self.forget(id);
        }
        Ok(removed)
    }

    fn trim_acked(
        &mut self,
        bound: Bound,
        limit: Option<u64>,
        passes: &mut u64,
        blocks: &dyn Blocks,
    ) -> Result<u64, BlockError> {
        let Some(position) = self.smallest_position() else { return self.entries.trim(bound, limit, blocks) };
        let groups = &self.groups;
        self.entries.trim_where(bound, limit, blocks, |id| {
            // Every entry from here on waits for the group that is furthest behind.
            if position < id {
                return Verdict::Stop;
            }
            if groups.values().all(|group| group.pending().get(id).is_none()) {
                return Verdict::Remove;
            }
            *passes = passes.saturating_sub(1);
            if *passes > 0 { Verdict::PassOver } else { Verdict::Stop }
        })
    }

    /// Whether the entry is pending in any group.
    pub(crate) fn is_pending(&self, id: EntryId) -> bool {
        self.groups.values().any(|group| group.pending().get(id).is_some())
    }

    /// The last id of the group that is furthest behind; `None` if there is no group. Every group has been at or beyond
    /// this id, so an entry up to there is referenced only if it is pending.
    pub(crate) fn smallest_position(&self) -> Option<EntryId> {
        self.groups.values().map(|group| group.last_id()).min()
    }

    /// Makes the entry pending no more, in any group.
    fn forget(&mut self, id: EntryId) {
        let holds = |(name, group): (&GroupName, &Group)| group.pending().get(id).map(|_| name.clone());
        let holders: Vec<GroupName> = self.groups.iter().filter_map(holds).collect();
        for name in holders {
            if let Some((_, group)) = self.with_group(&name) {
                group.remove_pending(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TRIM_SCAN_MAX;
    use crate::*;

    /// A stream `s` with the entries 1-0, 2-0 and so on, and groups that have read up to an id and acknowledged some.
    struct Story {
        state: State,
        stream: StreamName,
    }

    impl Story {
        fn new(entries: u64, groups: &[(&str, u32, &[u64])]) -> Story {
            let mut story = Story { state: State::new(), stream: StreamName::new("s").unwrap() };
            let stream = story.stream.clone();
            for ms in 1..=entries {
                story.apply(Append {
                    stream: stream.clone(),
                    id: NewId::Explicit(EntryId::new(ms, 0)),
                    fields: Fields::from_pairs([("f", "v")]).unwrap(),
                    no_create: false,
                    trim: None,
                    idempotency: None,
                });
            }
            for (name, read, acked) in groups {
                let group = GroupName::new(name).unwrap();
                story.apply(CreateGroup {
                    stream: stream.clone(),
                    group: group.clone(),
                    position: GroupPosition::After(EntryId::MIN),
                    create_stream: false,
                    entries_read: None,
                });
                if *read > 0 {
                    story.apply(ReadGroup {
                        group: group.clone(),
                        consumer: ConsumerName::new("c").unwrap(),
                        streams: vec![GroupRead { stream: stream.clone(), from: GroupReadFrom::New }],
                        count: *read,
                        no_ack: false,
                        bytes_max: 0,
                        total_max: 0,
                        claim_min_idle_ms: None,
                    });
                }
                if !acked.is_empty() {
                    story.apply(Ack { stream: stream.clone(), group, ids: ids(acked) });
                }
            }
            story
        }

        fn apply(&mut self, command: impl Into<Command>) -> Reply {
            let index = self.state.applied_index() + 1;
            let proposal = Proposal { at_ms: 0, request: None, command: command.into(), bytes_max: 0 }.encode();
            self.state.apply(index, &proposal, &NoBlocks, false).unwrap().outcome.unwrap()
        }

        fn remove(&mut self, id: u64, references: References) -> Removal {
            let stream = self.stream.clone();
            match self.apply(DeleteEntries { stream, ids: ids(&[id]), references }) {
                Reply::EntriesDeleted(reply) => reply.results[0],
                other => panic!("{other:?}"),
            }
        }

        /// What is left in the stream, and in the groups by name.
        fn left(&self) -> (Vec<u64>, Vec<Vec<u64>>) {
            let stream = self.state.streams.get(&self.stream).unwrap();
            let mut entries = Vec::new();
            stream
                .entries
                .scan(EntryId::MIN, &NoBlocks, |entry| {
                    entries.push(entry.id.ms);
                    true
                })
                .unwrap();
            let pending_of = |group: &Group| group.pending().iter_from(EntryId::MIN).map(|p| p.id.ms).collect();
            (entries, stream.groups.values().map(pending_of).collect())
        }

        fn last_change_index(&self) -> u64 {
            self.state.streams.get(&self.stream).unwrap().last_change_index()
        }
    }

    fn ids(ms: &[u64]) -> Vec<EntryId> {
        ms.iter().map(|ms| EntryId::new(*ms, 0)).collect()
    }

    #[test]
    fn entries_go_with_regard_to_groups() {
        use References::{Acked, Delete, Keep};
        use Removal::{Deleted, NotFound, Referenced};
        // Of the entries 1 to 4, one group has read three and acknowledged the first, the other has read two and
        // acknowledged both.
        let groups: &[(&str, u32, &[u64])] = &[("a", 3, &[1]), ("b", 2, &[1, 2])];
        let cases = [
            (1, Keep, Deleted, vec![2, 3, 4], vec![2, 3]),
            (2, Keep, Deleted, vec![1, 3, 4], vec![2, 3]),
            (2, Delete, Deleted, vec![1, 3, 4], vec![3]),
            (9, Delete, NotFound, vec![1, 2, 3, 4], vec![2, 3]),
            (1, Acked, Deleted, vec![2, 3, 4], vec![2, 3]),
            (2, Acked, Referenced, vec![1, 2, 3, 4], vec![2, 3]),
            // Not pending, but one group has not read it; nor has it read what was never there.
            (4, Acked, Referenced, vec![1, 2, 3, 4], vec![2, 3]),
            (9, Acked, Referenced, vec![1, 2, 3, 4], vec![2, 3]),
        ];
        for (id, references, removal, entries, pending) in cases {
            let mut story = Story::new(4, groups);
            let before = story.last_change_index();
            assert_eq!(story.remove(id, references), removal, "{id} {references:?}");
            assert_eq!(story.left(), (entries, vec![pending, vec![]]), "{id} {references:?}");
            assert_eq!(before < story.last_change_index(), removal == Deleted, "{id} {references:?}");
        }
        assert_eq!(Story::new(1, &[]).remove(1, Acked), Deleted);
        assert_eq!(Story::new(1, &[]).remove(2, Acked), NotFound);
    }

    #[test]
    fn references_go_even_if_the_entry_is_gone() {
        let mut story = Story::new(2, &[("a", 2, &[])]);
        assert_eq!(story.remove(1, References::Keep), Removal::Deleted);
        assert_eq!(story.left(), (vec![2], vec![vec![1, 2]]));
        let before = story.last_change_index();
        assert_eq!(story.remove(1, References::Delete), Removal::NotFound);
        assert_eq!(story.left(), (vec![2], vec![vec![2]]));
        // A reference less is a change; nothing less is none.
        let after = story.last_change_index();
        assert!(before < after);
        assert_eq!(story.remove(1, References::Delete), Removal::NotFound);
        assert_eq!(story.last_change_index(), after);
    }

    #[test]
    fn trims_go_with_regard_to_groups() {
        use References::{Acked, Delete, Keep};
        use TrimThreshold::{MaxLength, MinId};
        // Of 250 entries, the group has read 240 and acknowledged the first 5, and 100 to 200.
        let acked: Vec<u64> = (1..=5).chain(100..=200).collect();
        let min_id = |ms| MinId(EntryId::new(ms, 0));
        // Threshold, whether approximate, limit; then how many go, the oldest left, and how many are pending.
        let cases = [
            (MaxLength(200), false, None, Keep, 50, 51, 134),
            (MaxLength(200), true, None, Keep, 0, 1, 134),
            (MaxLength(140), true, None, Keep, 100, 101, 134),
            (MaxLength(200), false, None, Delete, 50, 51, 89),
            (MaxLength(200), true, None, Delete, 50, 51, 89),
            (MaxLength(200), true, Some(20), Delete, 20, 21, 119),
            (MaxLength(200), true, Some(0), Delete, 50, 51, 89),
            (min_id(4), true, None, Acked, 3, 4, 134),
            (min_id(50), true, None, Acked, 5, 6, 134),
            (MaxLength(200), true, None, Acked, 50, 6, 134),
            (MaxLength(200), true, Some(7), Acked, 7, 6, 134),
            // What the group has yet to read stays.
            (MaxLength(0), false, None, Acked, 106, 6, 134),
            (MaxLength(0), false, None, Delete, 250, 0, 0),
        ];
        for (threshold, approximate, limit, references, trimmed, oldest, pending) in cases {
            let mut story = Story::new(250, &[("a", 240, &acked)]);
            let before = story.last_change_index();
            let policy = TrimPolicy { threshold, approximate, limit, references };
            let stream = story.stream.clone();
            assert_eq!(story.apply(Trim { stream, policy }), Trimmed { trimmed }.into(), "{policy:?}");
            let (entries, groups) = story.left();
            assert_eq!(entries.len() as u64, 250 - trimmed, "{policy:?}");
            assert_eq!(entries.first().copied().unwrap_or(0), oldest, "{policy:?}");
            assert_eq!(groups[0].len(), pending, "{policy:?}");
            assert_eq!(before < story.last_change_index(), trimmed > 0, "{policy:?}");
            let counters = *story.state.streams.get(&story.stream).unwrap().entries.counters();
            assert_eq!(counters.max_deleted_id, EntryId::MIN, "{policy:?}");
        }
    }

    /// A trim gives up after so many references, so that one stuck consumer does not cost every append a long walk.
    #[test]
    fn a_trim_passes_over_so_many_references() {
        // The last entry is the only one that is not pending, and the group is past it.
        for (pending, trimmed) in [(TRIM_SCAN_MAX - 1, 1), (TRIM_SCAN_MAX, 0)] {
            let mut story = Story::new(pending + 1, &[("a", pending as u32, &[])]);
            let (stream, group) = (story.stream.clone(), GroupName::new("a").unwrap());
            story.apply(SetGroupPosition { stream, group, position: GroupPosition::End, entries_read: None });
            let threshold = TrimThreshold::MaxLength(0);
            let policy = TrimPolicy { threshold, approximate: false, limit: None, references: References::Acked };
            let stream = story.stream.clone();
            assert_eq!(story.apply(Trim { stream, policy }), Trimmed { trimmed }.into());
        }
    }
}
