//! A client that works on a stream of its own, one command after the other, and knows what must be there.

use futures::TryStreamExt;
use millstream_client::{
    Append, Batch, Claim, Client, CreateGroup, DeleteEntries, EntryId, Error, ErrorReason, GroupPosition, ListPending,
    Nack, NackMode, OperationResult, Range, ReadGroup, Trim,
};
use millstream_sim_tests::entropy::Rng;
use millstream_sim_tests::real::Outcome;
use tokio::sync::watch;

use crate::model::{CONSUMERS, Content, Length, Model, Op, Said, fields, pending, recognise};

const GROUP: &str = "workers";
/// Entries that a stream keeps, by its number: small streams churn, large ones have blocks that lie still.
const LENGTHS: [usize; 4] = [4_000, 2_000, 500, 20_000];
/// Entries that one command appends at most. The last stream's fill checkpoints of many megabytes, in one of which a
/// store may use the same space twice.
const BATCHES: [u64; 4] = [40, 40, 40, 500];
/// Bytes that a read is to deliver at most: more might not fit into its answer.
const READ_BYTES_MAX: usize = 1_000_000;
/// Pending entries beyond which an actor only acknowledges.
const PENDING_MAX: usize = 1_500;

/// What was done and seen, over all actors.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    /// Commands acknowledged.
    pub(crate) commands: u64,
    /// Entries whose append was acknowledged.
    pub(crate) appended: u64,
    /// Commands whose outcome nobody told.
    pub(crate) unknown: u64,
}

/// What was found to be right.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Verified {
    /// Entries.
    pub(crate) entries: u64,
    /// Pending entries.
    pub(crate) pending: u64,
}

/// One client with one stream.
pub(crate) struct Actor {
    number: usize,
    stream: String,
    client: Client,
    model: Model,
    /// Applied or not, nobody knows.
    doubt: Option<Op>,
    rng: Rng,
    pub(crate) tally: Tally,
}

impl Actor {
    pub(crate) fn new(number: usize, client: Client, seed: u64) -> Self {
        let stream = format!("stream-{number}");
        let rng = Rng::stream(seed, &stream);
        Self { number, stream, client, model: Model::default(), doubt: None, rng, tally: Tally::default() }
    }

    /// Works until it is told to stop. A command that is under way then is in doubt.
    pub(crate) async fn work(mut self, mut stop: watch::Receiver<bool>) -> Outcome<Self> {
        while !*stop.borrow() {
            let op = self.choose();
            let done = tokio::select! {
                done = self.perform(&op) => Some(done),
                _ = stop.wait_for(|stop| *stop) => None,
            };
            match done {
                Some(Ok(said)) => {
                    self.tally.commands += 1;
                    self.tally.appended += said.ids.len() as u64;
                    self.model.apply(&op, &said);
                }
                Some(Err(Failed::Wrong(problem))) => return Err(problem.into()),
                Some(Err(Failed::Call(error))) if error.has_no_side_effects() && error.is_retryable() => {}
                Some(Err(Failed::Call(Error::OutcomeUnknown { .. }))) | None => {
                    self.tally.unknown += 1;
                    self.doubt = Some(op);
                    break;
                }
                Some(Err(Failed::Call(error))) => return Err(format!("{}: {op:?}: {error}", self.stream).into()),
            }
        }
        Ok(self)
    }

    /// Makes sure that what is in doubt cannot be applied any more from now on: a later command of the same session has
    /// been.
    pub(crate) async fn fence(&self) -> Outcome<()> {
        match self.client.create_consumer(&*self.stream, GROUP, "fence").await {
            Ok(_) | Err(Error::Refused { .. }) => Ok(()),
            Err(error) => Err(format!("{}: {error}", self.stream).into()),
        }
    }

    /// Holds what `client` finds against what must be there.
    pub(crate) async fn verify(&mut self, client: &Client) -> Outcome<Verified> {
        let found = self.find(client).await?;
        let doubt = self.doubt.take();
        self.model.settle(doubt.as_ref(), found.as_ref()).map_err(|problem| format!("{}: {problem}", self.stream))?;
        Ok(found.map_or(Verified::default(), |content| Verified {
            entries: content.entries.len() as u64,
            pending: content.pending.len() as u64,
        }))
    }

    async fn find(&self, client: &Client) -> Outcome<Option<Content>> {
        let stream = || self.stream.clone();
        let length = match client.get_stream(stream()).await {
            Ok(info) => info.length,
            Err(Error::Refused { reason: ErrorReason::StreamNotFound, .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let mut content = Content::default();
        let mut entries = std::pin::pin!(client.range_all(Range::of(stream())));
        while let Some(entry) = entries.try_next().await? {
            let kept = recognise(self.number, &entry).map_err(|problem| format!("{}: {problem}", self.stream))?;
            content.entries.push_back(kept);
        }
        if length != content.entries.len() as u64 {
            return Err(format!("{}: the length is {length}, not {}", self.stream, content.entries.len()).into());
        }
        let groups = client.list_groups_all(stream()).await?;
        let Some(group) = groups.iter().find(|group| group.group == GROUP) else {
            return Err(format!("{}: the group is gone", self.stream).into());
        };
        content.position = group.last_delivered_id;
        let mut listed = std::pin::pin!(client.list_pending_all(ListPending::of(stream(), GROUP)));
        while let Some(entry) = listed.try_next().await? {
            let (id, pending) = pending(&entry).map_err(|problem| format!("{}: {problem}", self.stream))?;
            content.pending.insert(id, pending);
        }
        if group.pending != content.pending.len() as u64 {
            let listed = content.pending.len();
            return Err(format!("{}: {} entries are pending, not {listed}", self.stream, group.pending).into());
        }
        Ok(Some(content))
    }

    /// The next command: one that makes sense now.
    fn choose(&mut self) -> Op {
        let rng = &mut self.rng;
        let Some(content) = &self.model.content else { return Op::Create };
        let consumer = rng.below(CONSUMERS.len() as u64) as usize;
        if PENDING_MAX < content.pending.len() {
            return Op::Ack { ids: content.pending.keys().copied().take(400).collect() };
        }
        let some_pending = |rng: &mut Rng, max: u64| -> Vec<EntryId> {
            let count = 1 + rng.below(max) as usize;
            let skip = rng.below(1 + content.pending.len() as u64) as usize;
            content.pending.keys().copied().skip(skip).take(count).collect()
        };
        let read = |count: usize| Op::Read { consumer, count: content.fitting(count, READ_BYTES_MAX) };
        let op = match rng.below(100) {
            0..45 => {
                let sizes = (0..1 + rng.below(BATCHES[self.number % BATCHES.len()]))
                    .map(|_| 20 + rng.below(2_000) as usize)
                    .collect();
                // Rarely a large one, which is stored in pieces.
                let sizes = if rng.one_in(60) { vec![200_000 + rng.below(100_000) as usize] } else { sizes };
                let trim = Length { max: LENGTHS[self.number % LENGTHS.len()], exact: rng.one_in(2) };
                Op::Append { sizes, trim: Some(trim) }
            }
            45..65 => read(1 + rng.below(60) as usize),
            65..80 => Op::Ack { ids: some_pending(rng, 60) },
            80..86 => {
                let ids = some_pending(rng, 10);
                Op::Nack { ids, silent: rng.one_in(2) }
            }
            86..92 => {
                let ids = some_pending(rng, 10);
                let there = |id: &EntryId| {
                    let at = content.entries.binary_search_by_key(id, |kept| kept.id);
                    at.is_ok_and(|at| content.entries[at].size < READ_BYTES_MAX / 100)
                };
                Op::Claim { consumer, ids: ids.into_iter().filter(there).collect() }
            }
            92..99 => {
                let picked = (0..1 + rng.below(20)).filter_map(|_| {
                    content.entries.get(rng.below(content.entries.len().max(1) as u64) as usize).map(|kept| kept.id)
                });
                let mut ids: Vec<_> = picked.collect();
                ids.sort_unstable();
                ids.dedup();
                Op::Delete { ids }
            }
            _ if rng.one_in(8) => Op::DeleteStream,
            _ => read(500),
        };
        match &op {
            Op::Ack { ids } | Op::Nack { ids, .. } | Op::Claim { ids, .. } | Op::Delete { ids } if ids.is_empty() => {
                read(50)
            }
            _ => op,
        }
    }

    async fn perform(&self, op: &Op) -> Result<Said, Failed> {
        let (client, stream) = (&self.client, self.stream.as_str());
        let mut said = Said::default();
        match op {
            Op::Create => {
                let create = CreateGroup::new(stream, GROUP, GroupPosition::After(EntryId::MIN)).create_stream();
                client.create_group(create).await?;
            }
            Op::Append { sizes, trim } => self.append(sizes, *trim, &mut said).await?,
            Op::Read { consumer, count } => {
                let read = ReadGroup::new(GROUP, CONSUMERS[*consumer]).new_entries(stream).count(*count as u32);
                let delivered = client.read_group(read).await?;
                let entries = delivered.streams.iter().flat_map(|stream| &stream.entries);
                let (found, wanted): (Vec<_>, _) =
                    (entries.map(|entry| entry.entry.id).collect(), self.model.undelivered(*count));
                wrong_unless(stream, op, found == wanted, || format!("{found:?} was delivered, not {wanted:?}"))?;
            }
            Op::Ack { ids } => {
                let found = client.ack(stream, GROUP, ids.iter().copied()).await?.acknowledged;
                wrong_unless(stream, op, found == ids.len() as u64, || format!("{found} were acknowledged"))?;
            }
            Op::Nack { ids, silent } => {
                let mode = if *silent { NackMode::Silent } else { NackMode::Fail };
                let found = client.nack(Nack::new(stream, GROUP, ids.iter().copied()).mode(mode)).await?.released;
                wrong_unless(stream, op, found == ids.len() as u64, || format!("{found} were given back"))?;
            }
            Op::Claim { consumer, ids } => {
                let claim = Claim::new(stream, GROUP, CONSUMERS[*consumer]).ids(ids.iter().copied());
                let found: Vec<_> = client.claim(claim).await?.entries.iter().map(|entry| entry.id).collect();
                wrong_unless(stream, op, found == *ids, || format!("{found:?} was claimed"))?;
            }
            Op::Delete { ids } => {
                let found = client.delete_entries(DeleteEntries::of(stream, ids.iter().copied())).await?.deleted;
                wrong_unless(stream, op, found == ids.len() as u64, || format!("{found} were removed"))?;
            }
            Op::DeleteStream => {
                let found = client.delete_stream(stream).await?.existed;
                wrong_unless(stream, op, found, || "there was none".to_owned())?;
            }
        }
        Ok(said)
    }

    async fn append(&self, sizes: &[usize], trim: Option<Length>, said: &mut Said) -> Result<(), Failed> {
        let mut batch = Batch::new();
        for (at, size) in sizes.iter().enumerate() {
            let mut append = Append::to(&*self.stream);
            for (name, value) in fields(self.number, self.model.next + at as u64, *size) {
                append = append.field(name, value);
            }
            if let Some(length) = trim.filter(|_| at + 1 == sizes.len()) {
                let trim = Trim::max_length(length.max as u64);
                append = append.trim(if length.exact { trim } else { trim.approximate() });
            }
            batch = batch.add(append);
        }
        for result in self.client.batch(batch).await?.results {
            if let OperationResult::Append(appended) = result? {
                said.ids.push(appended.id);
                said.trimmed += appended.trimmed as usize;
            }
        }
        let last = self.model.content.as_ref().and_then(|content| content.entries.back()).map(|kept| kept.id);
        let ids_grow = last.into_iter().chain(said.ids.iter().copied()).is_sorted_by(|left, right| left < right);
        let trimmed = trim.map_or(0, |length| self.model.trimmable(sizes.len(), length));
        let is_exact = trim.is_none_or(|length| length.exact);
        let is_right = said.ids.len() == sizes.len()
            && ids_grow
            && if is_exact { said.trimmed == trimmed } else { said.trimmed <= trimmed };
        let op = Op::Append { sizes: sizes.to_vec(), trim };
        wrong_unless(&self.stream, &op, is_right, || format!("{said:?} after {last:?}, {trimmed} to trim"))
    }
}

/// Why a command has no answer that can be believed.
enum Failed {
    Call(Error),
    Wrong(String),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Call(error)
    }
}

fn wrong_unless(stream: &str, op: &Op, is_right: bool, what: impl FnOnce() -> String) -> Result<(), Failed> {
    if is_right { Ok(()) } else { Err(Failed::Wrong(format!("{stream}: {op:?}: {}", what()))) }
}
