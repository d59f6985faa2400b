//! XSETID: set a stream's last id and counters.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::entry_id::EntryId;
use crate::error::{LastIdBound, Refusal};
use crate::lag::Counters;
use crate::limits::ENTRIES_ADDED_MAX;
use crate::names::StreamName;

/// Sets a stream's last id, and if given its counters (XSETID). Wakes nobody.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SetLastId {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
    /// The new last id; not smaller than the last entry's, the greatest deleted one's, or `max_deleted_id`.
    #[n(1)]
    pub last_id: EntryId,
    /// Entries ever appended, not fewer than there are, at most [`ENTRIES_ADDED_MAX`](crate::limits::ENTRIES_ADDED_MAX).
    /// `None`: as before.
    #[n(2)]
    pub entries_added: Option<u64>,
    /// The greatest deleted id. `None` or 0-0: as before.
    #[n(3)]
    pub max_deleted_id: Option<EntryId>,
}

/// The last id is set.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LastIdSet {}

impl Apply for SetLastId {
    type Reply = LastIdSet;

    fn check(&self) -> Result<(), Refusal> {
        Refusal::check_limit("entries_added", self.entries_added.unwrap_or(0), ENTRIES_ADDED_MAX)
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<LastIdSet, Stop> {
        let stream = context.state.streams.find_mut(&self.stream)?;
        let &Counters { length, max_deleted_id, entries_added, .. } = stream.entries.counters();
        let given_max_deleted_id = self.max_deleted_id.filter(|id| !id.is_zero());
        let bounds = [
            (LastIdBound::GivenMaxDeletedId, given_max_deleted_id),
            (LastIdBound::MaxDeletedId, Some(max_deleted_id)),
            (LastIdBound::LastEntry, stream.entries.last_live()),
        ];
        for (bound, id) in bounds {
            if let Some(id) = id
                && self.last_id < id
            {
                return Err(Refusal::LastIdTooSmall { bound, id }.into());
            }
        }
        let entries_added = self.entries_added.unwrap_or(entries_added);
        if entries_added < length {
            return Err(Refusal::EntriesAddedTooSmall { length }.into());
        }
        // One that is given may also be smaller than before, as in Redis.
        let max_deleted_id = given_max_deleted_id.unwrap_or(max_deleted_id);
        if stream.entries.set_last_id(self.last_id, entries_added, max_deleted_id) {
            stream.touch(context.index);
        }
        Ok(LastIdSet {})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::NoBlocks;
    use crate::entry::Fields;
    use crate::state::State;

    fn id(ms: u64) -> EntryId {
        EntryId::new(ms, 0)
    }

    #[test]
    fn refuses_what_would_contradict_the_entries() {
        let too_small = |bound, ms| Err(Refusal::LastIdTooSmall { bound, id: id(ms) });
        // Of the entries 1, 2, 3 and 5, the second and the last were deleted and then the first was trimmed. Last id,
        // entries added and greatest deleted id are given; the last two as they are afterwards follow.
        let cases = [
            (5, None, None, Ok((4, 5))),
            (9, None, None, Ok((4, 5))),
            (9, Some(1), None, Ok((1, 5))),
            (9, Some(0), None, Err(Refusal::EntriesAddedTooSmall { length: 1 })),
            (9, None, Some(9), Ok((4, 9))),
            (9, None, Some(0), Ok((4, 5))),
            (9, None, Some(2), Ok((4, 2))),
            (9, None, Some(10), too_small(LastIdBound::GivenMaxDeletedId, 10)),
            (4, None, None, too_small(LastIdBound::MaxDeletedId, 5)),
            (4, None, Some(4), too_small(LastIdBound::MaxDeletedId, 5)),
            (4, None, Some(5), too_small(LastIdBound::GivenMaxDeletedId, 5)),
        ];
        for (last_id, entries_added, max_deleted_id, expected) in cases {
            let mut state = State::new();
            let stream = StreamName::new("s").unwrap();
            let entries = &mut state.streams.get_or_create(&stream).entries;
            for ms in [1, 2, 3, 5] {
                entries.append(id(ms), &Fields::from_pairs([("f", "v")]).unwrap());
            }
            entries.delete(id(2), &NoBlocks).unwrap();
            entries.delete(id(5), &NoBlocks).unwrap();
            entries.trim(crate::trim::Bound::Length(1), None, &NoBlocks).unwrap();
            let command = SetLastId {
                stream: stream.clone(),
                last_id: id(last_id),
                entries_added,
                max_deleted_id: max_deleted_id.map(id),
            };
            let mut changes = Vec::new();
            let mut context = Context {
                state: &mut state,
                index: 7,
                now_ms: 0,
                blocks: &NoBlocks,
                changes: &mut changes,
                budget: crate::budget::Budget::shared(0),
                payloads: None,
            };
            let outcome = match command.apply(&mut context) {
                Ok(LastIdSet {}) => Ok(()),
                Err(Stop::Refused(refusal)) => Err(refusal),
                Err(Stop::Failed(error)) => panic!("{error}"),
            };
            let found = state.streams.get(&stream).unwrap();
            let counters = found.entries.counters();
            let is_changed = last_id != 5 && expected.is_ok();
            assert_eq!(found.last_change_index() == 7, is_changed, "{command:?}");
            let now = outcome.map(|()| (counters.entries_added, counters.max_deleted_id.ms));
            assert_eq!(now, expected, "{command:?}");
        }
    }
}
