//! All streams: by name, and what a freeze has to look at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::block::{Block, BlockError, Blocks};
use crate::entries::Entries;
use crate::error::Refusal;
use crate::freeze::{Frozen, FrozenBody, Piece};
use crate::group::Group;
use crate::names::{GroupName, StreamName};
use crate::stream::Stream;

/// What a stream counts for when it becomes dirty, in bytes, beside what commands say: the rows of its head and of its open
/// block.
const STREAM_DIRTY_BYTES: u64 = 384;

/// Streams in one piece of what a freeze takes.
const PIECE_STREAMS: usize = 128;

/// All streams.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// By incarnation.
    streams: BTreeMap<u64, Box<Stream>>,
    /// Incarnations by name.
    numbers: BTreeMap<StreamName, u64>,
    /// How many incarnations were given: the next is one more.
    incarnations: u64,
    changes: Changes,
    /// Streams from which time may remove something.
    retained: BTreeSet<StreamName>,
    /// Streams that were deleted since the last freeze, as they were deleted.
    gone: Vec<BTreeMap<u64, Box<Stream>>>,
}

/// What is noted of each stream that changes.
#[derive(Debug, Default)]
struct Changes {
    /// The number of the next freeze.
    freeze: u64,
    /// Incarnations of streams that may have changed since the last freeze. Some may be gone.
    dirty: Vec<u64>,
    /// Of those that had changed when the last freeze began, and that it has yet to look at.
    awaiting: Vec<u64>,
    /// What it took from the others.
    taken: Frozen,
    /// What became dirty since the last freeze, in bytes, beside what commands say.
    dirty_bytes: u64,
    /// How to undo what was done since [`Streams::begin`].
    journal: Option<StreamsJournal>,
}

impl Changes {
    /// A stream is about to change.
    fn open(&mut self, stream: &mut Stream) {
        // What the last freeze has not taken yet it must get as it is now: before a journal remembers what there was.
        self.take(stream);
        if let Some(journal) = &mut self.journal
            && stream.begin()
        {
            journal.undo.push(StreamsUndo::Opened(stream.incarnation()));
        }
        if stream.dirty_for.is_none() {
            stream.dirty_for = Some(self.freeze);
            self.dirty.push(stream.incarnation());
            self.dirty_bytes += STREAM_DIRTY_BYTES;
        }
    }

    /// Takes what the last freeze has yet to take of a stream, if there is something.
    fn take(&mut self, stream: &mut Stream) {
        if stream.dirty_for.is_some_and(|freeze| freeze < self.freeze) {
            if self.taken.pieces.last().is_none_or(|piece| piece.heads.len() == PIECE_STREAMS) {
                self.taken.pieces.push(Piece::default());
            }
            if let Some(piece) = self.taken.pieces.last_mut() {
                stream.freeze(piece);
            }
        }
    }
}

#[derive(Debug)]
struct StreamsJournal {
    incarnations: u64,
    /// In the order in which it was done.
    undo: Vec<StreamsUndo>,
}

#[derive(Debug)]
enum StreamsUndo {
    /// The stream of this incarnation was created.
    Created(u64),
    /// The last of those that are gone were deleted.
    Deleted,
    /// The stream of this incarnation was opened for changes.
    Opened(u64),
}

impl Streams {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// The stream, to look at.
    pub(crate) fn get(&self, name: &StreamName) -> Option<&Stream> {
        self.streams.get(self.numbers.get(name)?).map(|stream| &**stream)
    }

    /// The stream, to look at; refused if it is missing.
    pub(crate) fn find(&self, name: &StreamName) -> Result<&Stream, Refusal> {
        self.get(name).ok_or_else(|| Refusal::StreamNotFound { stream: name.clone() })
    }

    /// The stream, to change.
    pub(crate) fn get_mut(&mut self, name: &StreamName) -> Option<&mut Stream> {
        let stream = self.streams.get_mut(self.numbers.get(name)?)?;
        self.changes.open(stream);
        Some(stream)
    }

    /// The stream, to change; refused if it is missing.
    pub(crate) fn find_mut(&mut self, name: &StreamName) -> Result<&mut Stream, Refusal> {
        self.get_mut(name).ok_or_else(|| Refusal::StreamNotFound { stream: name.clone() })
    }

    /// The group, to look at; refused with `GroupNotFound` if it or its stream is missing.
    pub(crate) fn find_group(&self, stream: &StreamName, group: &GroupName) -> Result<(&Stream, &Group), Refusal> {
        self.get(stream)
            .and_then(|found| Some((found, found.groups.get(group)?)))
            .ok_or_else(|| group_not_found(stream, group))
    }

    /// The group and the entries of its stream, to change the group; refused with `GroupNotFound` if either is missing.
    pub(crate) fn find_group_mut(
        &mut self,
        stream: &StreamName,
        group: &GroupName,
    ) -> Result<(&Entries, &mut Group), Refusal> {
        self.get_mut(stream).and_then(|found| found.with_group(group)).ok_or_else(|| group_not_found(stream, group))
    }

    /// Notes that the command at `index` changed the stream or one of its groups.
    pub(crate) fn touch(&mut self, name: &StreamName, index: u64) {
        if let Some(stream) = self.numbers.get(name).and_then(|number| self.streams.get_mut(number)) {
            stream.touch(index);
            self.changes.dirty_bytes += std::mem::take(&mut stream.dirty_bytes);
        }
    }

    /// A number for a stream or a group, never given before.
    pub(crate) fn next_incarnation(&mut self) -> u64 {
        self.incarnations += 1;
        self.incarnations
    }

    /// The stream, created if it is missing.
    pub(crate) fn get_or_create(&mut self, name: &StreamName) -> &mut Stream {
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None => {
                let number = self.next_incarnation();
                self.numbers.insert(name.clone(), number);
                if let Some(journal) = &mut self.changes.journal {
                    journal.undo.push(StreamsUndo::Created(number));
                }
                number
            }
        };
        let stream = self.streams.entry(number).or_insert_with(|| Box::new(Stream::new(number, name.clone())));
        self.changes.open(stream);
        stream
    }

    /// Deletes the stream and its groups; false if there is none.
    pub(crate) fn delete(&mut self, name: &StreamName) -> bool {
        let Some(number) = self.numbers.remove(name) else { return false };
        self.retained.remove(name);
        let stream = self.streams.remove(&number);
        self.bury(stream.into_iter().map(|stream| (number, stream)).collect());
        true
    }

    /// Deletes all streams; says how many there were.
    pub(crate) fn delete_all(&mut self) -> u64 {
        let all = std::mem::take(&mut self.streams);
        let streams = all.len() as u64;
        self.numbers.clear();
        self.retained.clear();
        if streams > 0 {
            self.bury(all);
        }
        streams
    }

    fn bury(&mut self, streams: BTreeMap<u64, Box<Stream>>) {
        if let Some(journal) = &mut self.changes.journal {
            journal.undo.push(StreamsUndo::Deleted);
        }
        self.gone.push(streams);
    }

    /// The streams by name, from the first whose name is not less than `from`.
    pub(crate) fn iter_from<'a>(&'a self, from: &str) -> impl Iterator<Item = (&'a StreamName, &'a Stream)> {
        let numbers = self.numbers.range::<str, _>((std::ops::Bound::Included(from), std::ops::Bound::Unbounded));
        numbers.filter_map(|(name, number)| Some((name, &**self.streams.get(number)?)))
    }

    /// The streams from which time may remove something, by name, those after `after`.
    pub(crate) fn retained_after(&self, after: Option<&StreamName>) -> impl Iterator<Item = (&StreamName, &Stream)> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let names = self.retained.range::<StreamName, _>((from, std::ops::Bound::Unbounded));
        names.filter_map(|name| Some((name, self.get(name)?)))
    }

    /// Notes whether time may remove something from the stream. To be called by every command that may change that:
    /// those that change its settings or its producers.
    pub(crate) fn refresh_retained(&mut self, name: &StreamName) {
        match self.get(name) {
            Some(stream) if stream.is_retained() => self.retained.insert(name.clone()),
            _ => self.retained.remove(name),
        };
    }
}

/// Taking back what was done: for batches that are done as a whole or not at all.
impl Streams {
    /// From now on, remembers how to undo what is done.
    pub(crate) fn begin(&mut self) {
        self.changes.journal = Some(StreamsJournal { incarnations: self.incarnations, undo: Vec::new() });
    }

    /// What was done stands.
    pub(crate) fn commit(&mut self) {
        for undo in self.changes.journal.take().map(|journal| journal.undo).unwrap_or_default() {
            if let StreamsUndo::Opened(number) = undo
                && let Some(stream) = self.streams.get_mut(&number)
            {
                stream.commit();
            }
        }
    }

    /// Undoes what was done since [`Streams::begin`].
    pub(crate) fn rollback(&mut self) {
        let Some(StreamsJournal { incarnations, undo }) = self.changes.journal.take() else { return };
        self.incarnations = incarnations;
        for undo in undo.into_iter().rev() {
            match undo {
                StreamsUndo::Created(number) => {
                    if let Some(stream) = self.streams.remove(&number) {
                        self.numbers.remove(stream.name());
                        self.retained.remove(stream.name());
                    }
                }
                StreamsUndo::Deleted => {
                    for (number, stream) in self.gone.pop().unwrap_or_default() {
                        let name = stream.name().clone();
                        self.numbers.insert(name.clone(), number);
                        self.streams.insert(number, stream);
                        self.refresh_retained(&name);
                    }
                }
                StreamsUndo::Opened(number) => {
                    if let Some(stream) = self.streams.get_mut(&number) {
                        stream.rollback();
                        let name = stream.name().clone();
                        self.refresh_retained(&name);
                    }
                }
            }
        }
    }
}

/// Rows.
impl Streams {
    /// How many incarnations were given. Part of the meta row.
    pub(crate) fn incarnations(&self) -> u64 {
        self.incarnations
    }

    /// The stream of this incarnation, or of the next that there is, or of the first; `None`: there are no streams.
    pub(crate) fn nearest(&self, incarnation: u64) -> Option<&Stream> {
        let next = self.streams.range(incarnation..).next();
        next.or_else(|| self.streams.first_key_value()).map(|(_, stream)| &**stream)
    }

    /// What became dirty since the last freeze, in bytes, beside what commands say.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.changes.dirty_bytes
    }

    /// See [`crate::State::begin_freeze`].
    pub(crate) fn begin_freeze(&mut self, mut piece: Piece) {
        self.continue_freeze(usize::MAX);
        piece.gone_streams = std::mem::take(&mut self.gone);
        self.changes.taken = piece.into();
        self.changes.freeze += 1;
        self.changes.awaiting = std::mem::take(&mut self.changes.dirty);
        self.changes.dirty_bytes = 0;
    }

    /// See [`crate::State::continue_freeze`].
    pub(crate) fn continue_freeze(&mut self, streams_max: usize) -> Option<Frozen> {
        let from = self.changes.awaiting.len().saturating_sub(streams_max);
        for number in self.changes.awaiting.split_off(from) {
            // Deleted since, it is as it was when the freeze began: or it had been taken before.
            let deleted = self.gone.iter_mut().find_map(|gone| gone.get_mut(&number));
            if let Some(stream) = self.streams.get_mut(&number).or(deleted) {
                self.changes.take(stream);
            }
        }
        self.changes.awaiting.is_empty().then(|| std::mem::take(&mut self.changes.taken))
    }

    /// See [`crate::State::thaw`].
    pub(crate) fn thaw(&mut self, body: &FrozenBody) -> Option<Arc<Block>> {
        // Not a change: the stream need not be written for it.
        self.streams.get_mut(&body.key.stream)?.entries.thaw(body)
    }

    /// All of them.
    pub(crate) fn all_rows(&self, blocks: &dyn Blocks, frozen: &mut Piece) -> Result<(), BlockError> {
        self.streams.values().try_for_each(|stream| stream.all_rows(blocks, frozen))
    }

    /// Begins with the meta row; streams follow.
    pub(crate) fn restore(incarnations: u64) -> Streams {
        Streams { incarnations, ..Streams::default() }
    }

    /// Adds a stream that was read from rows; false if there is one of that name or incarnation.
    pub(crate) fn restore_stream(&mut self, stream: Stream) -> bool {
        let (number, name) = (stream.incarnation(), stream.name().clone());
        if stream.is_retained() {
            self.retained.insert(name.clone());
        }
        number <= self.incarnations
            && self.streams.insert(number, Box::new(stream)).is_none()
            && self.numbers.insert(name, number).is_none()
    }

    /// The stream of this incarnation, while reading rows.
    pub(crate) fn restoring(&mut self, incarnation: u64) -> Option<&mut Stream> {
        self.streams.get_mut(&incarnation).map(|stream| &mut **stream)
    }
}

/// The refusal for a missing group.
pub(crate) fn group_not_found(stream: &StreamName, group: &GroupName) -> Refusal {
    Refusal::GroupNotFound { stream: stream.clone(), group: group.clone() }
}
