//! What a stream with its group must hold: every acknowledged command applied, in order, and at most one more whose
//! outcome nobody knows.

use std::collections::{BTreeMap, VecDeque};

use millstream_client::{Entry, EntryId, PendingEntry};
use millstream_sim_tests::entropy::Rng;

/// The consumers of a group.
pub(crate) const CONSUMERS: [&str; 3] = ["alice", "bob", "carol"];

/// A command of an actor.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// Creates the group, and the stream with it.
    Create,
    /// Appends entries of these sizes, and trims.
    Append { sizes: Vec<usize>, trim: Option<Length> },
    /// Reads new entries as a consumer.
    Read { consumer: usize, count: usize },
    /// Acknowledges pending entries.
    Ack { ids: Vec<EntryId> },
    /// Gives pending entries back.
    Nack { ids: Vec<EntryId>, silent: bool },
    /// Moves pending entries that are still in the stream to a consumer.
    Claim { consumer: usize, ids: Vec<EntryId> },
    /// Removes entries.
    Delete { ids: Vec<EntryId> },
    /// Removes the stream with its group.
    DeleteStream,
}

/// A length to trim to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Length {
    pub(crate) max: usize,
    pub(crate) exact: bool,
}

/// An entry: its number in its actor's life, which with the stream decides its payload, and the payload's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) id: EntryId,
    pub(crate) number: u64,
    pub(crate) size: usize,
}

/// Who has a pending entry, by position in [`CONSUMERS`], and how often it was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) owner: Option<usize>,
    pub(crate) deliveries: u64,
}

/// A stream and its group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Content {
    pub(crate) entries: VecDeque<Kept>,
    pub(crate) position: EntryId,
    pub(crate) pending: BTreeMap<EntryId, Pending>,
}

impl Content {
    /// How many of the next `count` entries to deliver fit into so many bytes; at least 1.
    pub(crate) fn fitting(&self, count: usize, bytes: usize) -> usize {
        let start = self.entries.partition_point(|kept| kept.id <= self.position);
        let mut sum = 0;
        let fit = self.entries.range(start..).take(count).take_while(|kept| {
            sum += kept.size + 100;
            sum <= bytes
        });
        fit.count().max(1)
    }
}

/// What there must be; `None`: no stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Model {
    pub(crate) content: Option<Content>,
    /// The number of the next entry.
    pub(crate) next: u64,
}

/// What the answer to a command said, as far as it cannot be foretold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Said {
    /// The ids of what was appended.
    pub(crate) ids: Vec<EntryId>,
    /// How many were trimmed.
    pub(crate) trimmed: usize,
}

impl Model {
    /// The entries that a read delivers next.
    pub(crate) fn undelivered(&self, count: usize) -> Vec<EntryId> {
        let Some(content) = &self.content else { return Vec::new() };
        let start = content.entries.partition_point(|kept| kept.id <= content.position);
        content.entries.range(start..).take(count).map(|kept| kept.id).collect()
    }

    /// How many entries a trim removes at most, after so many were appended. An exact one removes that many.
    pub(crate) fn trimmable(&self, appended: usize, length: Length) -> usize {
        let entries = self.content.as_ref().map_or(0, |content| content.entries.len());
        (entries + appended).saturating_sub(length.max)
    }

    /// Applies a command that was answered.
    pub(crate) fn apply(&mut self, op: &Op, said: &Said) {
        match op {
            Op::Create => self.content = Some(Content::default()),
            Op::DeleteStream => self.content = None,
            Op::Append { sizes, .. } => {
                let content = self.content.get_or_insert_default();
                for (id, size) in said.ids.iter().zip(sizes) {
                    content.entries.push_back(Kept { id: *id, number: self.next, size: *size });
                    self.next += 1;
                }
                content.entries.drain(..said.trimmed.min(content.entries.len()));
            }
            Op::Read { consumer, count } => {
                let ids = self.undelivered(*count);
                let Some(content) = &mut self.content else { return };
                content.position = ids.last().copied().unwrap_or(content.position);
                let pending = Pending { owner: Some(*consumer), deliveries: 1 };
                content.pending.extend(ids.into_iter().map(|id| (id, pending)));
            }
            Op::Ack { ids } => self.each_pending(ids, |_| None),
            Op::Nack { ids, silent } => self.each_pending(ids, |pending| {
                let deliveries = pending.deliveries.saturating_sub((*silent).into());
                Some(Pending { owner: None, deliveries })
            }),
            Op::Claim { consumer, ids } => self.each_pending(ids, |pending| {
                Some(Pending { owner: Some(*consumer), deliveries: pending.deliveries + 1 })
            }),
            Op::Delete { ids } => {
                let Some(content) = &mut self.content else { return };
                content.entries.retain(|kept| !ids.contains(&kept.id));
            }
        }
    }

    fn each_pending(&mut self, ids: &[EntryId], change: impl Fn(Pending) -> Option<Pending>) {
        let Some(content) = &mut self.content else { return };
        for id in ids {
            if let Some(pending) = content.pending.remove(id)
                && let Some(pending) = change(pending)
            {
                content.pending.insert(*id, pending);
            }
        }
    }

    /// What the answer to `op` must have been if it was applied, by what was found afterwards. `None`: it was not.
    fn said(&self, op: &Op, found: Option<&Content>) -> Option<Said> {
        let Op::Append { sizes, trim } = op else { return Some(Said::default()) };
        let found = found?;
        let ids: Vec<_> = found.entries.iter().filter(|kept| self.next <= kept.number).map(|kept| kept.id).collect();
        // All of a batch or nothing, but for what its own trim took.
        let kept = trim.map_or(sizes.len(), |length| sizes.len().min(length.max));
        if ids.len() < kept.max(1) {
            return None;
        }
        let trimmed = match trim {
            None => 0,
            Some(length) if length.exact => self.trimmable(sizes.len(), *length),
            Some(length) => {
                let before = self.content.as_ref().map_or(0, |content| content.entries.len()) + sizes.len();
                before.saturating_sub(found.entries.len()).min(self.trimmable(sizes.len(), *length))
            }
        };
        Some(Said { ids, trimmed })
    }

    /// Holds what was found against what must be there, where `doubt` may have been applied or not; takes over which of
    /// both it was.
    pub(crate) fn settle(&mut self, doubt: Option<&Op>, found: Option<&Content>) -> Result<(), String> {
        let without = difference(self.content.as_ref(), found);
        let Some(first) = without else { return Ok(()) };
        let Some(op) = doubt else { return Err(first) };
        let Some(said) = self.said(op, found) else {
            return Err(format!("{first} (and {op:?} was not applied)"));
        };
        let mut with = self.clone();
        with.apply(op, &said);
        match difference(with.content.as_ref(), found) {
            None => {
                *self = with;
                Ok(())
            }
            Some(second) => Err(format!("without {op:?}: {first}; with it: {second}")),
        }
    }
}

/// The first difference; `None` if there is none.
fn difference(wanted: Option<&Content>, found: Option<&Content>) -> Option<String> {
    let (wanted, found) = match (wanted, found) {
        (None, None) => return None,
        (Some(wanted), None) => return Some(format!("the stream with {} entries is gone", wanted.entries.len())),
        (None, Some(found)) => {
            return Some(format!("the deleted stream is there, with {} entries", found.entries.len()));
        }
        (Some(wanted), Some(found)) => (wanted, found),
    };
    let lengths = (wanted.entries.len(), found.entries.len());
    if let Some(at) = first_difference(&mut wanted.entries.iter(), &mut found.entries.iter()) {
        return Some(format!(
            "entry {at} (of {lengths:?}) is {:?}, not {:?}",
            found.entries.get(at),
            wanted.entries.get(at)
        ));
    }
    if wanted.position != found.position {
        return Some(format!("the group stands at {}, not {}", found.position, wanted.position));
    }
    let lengths = (wanted.pending.len(), found.pending.len());
    first_difference(&mut wanted.pending.iter(), &mut found.pending.iter()).map(|at| {
        let (wanted, found) = (wanted.pending.iter().nth(at), found.pending.iter().nth(at));
        format!("pending entry {at} (of {lengths:?}) is {found:?}, not {wanted:?}")
    })
}

fn first_difference<T: PartialEq>(
    left: &mut dyn Iterator<Item = T>,
    right: &mut dyn Iterator<Item = T>,
) -> Option<usize> {
    for at in 0.. {
        match (left.next(), right.next()) {
            (None, None) => return None,
            (left, right) if left == right => {}
            _ => return Some(at),
        }
    }
    None
}

/// The fields of an entry.
pub(crate) fn fields(stream: usize, number: u64, size: usize) -> [(String, Vec<u8>); 2] {
    let mut bytes = Rng::stream(number, ["a", "b", "c", "d", "e", "f", "g", "h"][stream % 8]);
    let payload = (0..size.div_ceil(8)).flat_map(|_| bytes.next_u64().to_le_bytes()).take(size).collect();
    [("number".to_owned(), number.to_string().into_bytes()), ("payload".to_owned(), payload)]
}

/// What an entry of `stream` is, or that it is not one.
pub(crate) fn recognise(stream: usize, entry: &Entry) -> Result<Kept, String> {
    let number = entry.get("number").and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
    let payload = entry.get("payload");
    if let (Some(number), Some(payload)) = (number, payload)
        && fields(stream, number, payload.len())[1].1 == payload[..]
    {
        return Ok(Kept { id: entry.id, number, size: payload.len() });
    }
    Err(format!("entry {} has not the payload that was appended", entry.id))
}

/// A pending entry as the model has it.
pub(crate) fn pending(entry: &PendingEntry) -> Result<(EntryId, Pending), String> {
    let owner = match &entry.consumer {
        None => None,
        Some(name) => {
            let known = CONSUMERS.iter().position(|consumer| consumer == name);
            Some(known.ok_or_else(|| format!("entry {} is pending for {name:?}, who has read nothing", entry.id))?)
        }
    };
    Ok((entry.id, Pending { owner, deliveries: entry.delivery_count }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EntryId {
        EntryId::new(ms, 0)
    }

    fn appended(model: &mut Model, ids: std::ops::Range<u64>) {
        let op = Op::Append { sizes: vec![10; ids.clone().count()], trim: None };
        model.apply(&op, &Said { ids: ids.map(id).collect(), trimmed: 0 });
    }

    fn three() -> Model {
        let mut model = Model::default();
        model.apply(&Op::Create, &Said::default());
        appended(&mut model, 1..4);
        model.apply(&Op::Read { consumer: 0, count: 2 }, &Said::default());
        model
    }

    #[test]
    fn what_was_acknowledged_must_be_there_once() {
        let mut model = three();
        let found = model.content.clone();
        assert_eq!(model.settle(None, found.as_ref()), Ok(()));
        let damages: [fn(&mut Content); 5] = [
            |content| _ = content.entries.pop_back(),
            |content| content.entries.push_back(content.entries[2]),
            |content| content.position = id(1),
            |content| _ = content.pending.pop_first(),
            |content| content.pending.values_mut().for_each(|pending| pending.deliveries += 1),
        ];
        for damage in damages {
            let mut found = found.clone();
            found.as_mut().map(damage);
            assert!(model.settle(None, found.as_ref()).is_err(), "{found:?}");
        }
        assert!(model.settle(None, None).is_err());
    }

    #[test]
    fn a_command_in_doubt_is_there_as_a_whole_or_not_at_all() {
        let length = Length { max: 3, exact: true };
        let doubt = Op::Append { sizes: vec![10; 2], trim: Some(length) };
        let (mut without, mut with) = (three(), three());
        let found = without.content.clone();
        assert_eq!(without.settle(Some(&doubt), found.as_ref()), Ok(()));
        assert_eq!(without, three());

        let mut applied = three();
        applied.apply(&doubt, &Said { ids: vec![id(7), id(8)], trimmed: 2 });
        assert_eq!(with.settle(Some(&doubt), applied.content.as_ref()), Ok(()));
        assert_eq!(with, applied);

        let mut half = applied.content.clone();
        half.as_mut().map(|content| content.entries.pop_back());
        assert!(three().settle(Some(&doubt), half.as_ref()).is_err());
    }

    #[test]
    fn reads_acknowledgements_and_claims_move_what_is_pending() {
        let mut model = three();
        assert_eq!(model.undelivered(9), [id(3)]);
        model.apply(&Op::Nack { ids: vec![id(1)], silent: true }, &Said::default());
        model.apply(&Op::Claim { consumer: 2, ids: vec![id(2)] }, &Said::default());
        let content = model.content.clone().expect("it is there");
        assert_eq!(content.pending[&id(1)], Pending { owner: None, deliveries: 0 });
        assert_eq!(content.pending[&id(2)], Pending { owner: Some(2), deliveries: 2 });
        model.apply(&Op::Ack { ids: vec![id(1), id(2)] }, &Said::default());
        assert!(model.content.expect("it is there").pending.is_empty());
    }

    #[test]
    fn payloads_are_recognised() {
        let [number, payload] = fields(3, 77, 100);
        let mut entry =
            Entry { id: id(5), fields: [number, payload].map(|(name, value)| (name.into(), value.into())).to_vec() };
        assert_eq!(recognise(3, &entry), Ok(Kept { id: id(5), number: 77, size: 100 }));
        assert!(recognise(2, &entry).is_err());
        entry.fields[0].1 = "78".into();
        assert!(recognise(3, &entry).is_err());
    }
}
