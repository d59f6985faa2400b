//! What the clients do: producers append, one entry or two at once; the consumers of one group read, acknowledge, remove,
//! give back, forget and take over.
//!
//! All of it goes through the client library with its defaults, sessions included. All clients live on one host: what
//! matters is the links to the nodes, and idle hosts cost as much as busy ones.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use millstream_client::{
    AckAndDelete, Append, AutoClaim, Batch, Client, ClientOptions, CreateGroup, EntryId, Error, ErrorReason,
    GroupPosition, Nack, NodeStatus, OperationResult, Range, ReadGroup, Removal,
};
use tokio::task::JoinSet;

use crate::checks::GroupEnd;
use crate::entropy::{Rng, Time};
use crate::history::{Action, Entry, History, Id, Outcome};
use crate::net::SimNet;

const STREAM: &str = "orders";
const GROUP: &str = "workers";
const CONTENT: &str = "content";

/// How many of whom.
#[derive(Debug, Clone)]
pub struct Load {
    /// Clients that append.
    pub producers: u64,
    /// Clients that read as the group.
    pub consumers: u64,
    /// Longest pause of a client between two calls.
    pub pause_max: Duration,
    /// How long an entry must lie idle until another consumer takes it.
    pub idle_min: Duration,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            producers: 4,
            consumers: 3,
            pause_max: Duration::from_millis(40),
            idle_min: Duration::from_millis(1_500),
        }
    }
}

/// What the clients are told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
#[repr(u8)]
pub enum Stage {
    /// Append and consume.
    Work,
    /// Append no more; consume until nothing is left.
    Drain,
    /// Nothing is left.
    Done,
}

/// What the clients found when all was done.
#[derive(Debug, Clone)]
pub struct Ending {
    /// The whole stream.
    pub stream: Vec<Entry>,
    /// The group.
    pub group: GroupEnd,
}

/// The driver's hold on the clients. Cheap to clone.
#[derive(Clone)]
pub struct Workload {
    net: SimNet,
    endpoints: Vec<String>,
    load: Load,
    seed: u64,
    history: History,
    stage: Arc<AtomicU8>,
    ending: Arc<Mutex<Option<Ending>>>,
}

impl Workload {
    /// Clients of the nodes at `endpoints`, reached over `net`.
    pub fn new(net: SimNet, endpoints: Vec<String>, load: Load, seed: u64, history: History) -> Self {
        let stage = Arc::new(AtomicU8::new(Stage::Work as u8));
        Self { net, endpoints, load, seed, history, stage, ending: Arc::default() }
    }

    /// From now on nothing is appended.
    pub fn drain(&self) {
        self.enter(Stage::Drain);
    }

    /// What was found at the end; `None` until then.
    pub fn ending(&self) -> Option<Ending> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What the clients did.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Lives the clients' lives. Returns when all is done.
    pub async fn run(self) -> Result<(), Error> {
        let client = self.client("setup")?;
        let group = CreateGroup::new(STREAM, GROUP, GroupPosition::After(EntryId::MIN)).create_stream();
        insist(async || match client.create_group(group.clone()).await {
            // An attempt whose answer was lost has made it.
            Err(error) if error.reason() == Some(ErrorReason::GroupExists) => Ok(()),
            result => result.map(drop),
        })
        .await;

        let mut producers = JoinSet::new();
        for number in 1..=self.load.producers {
            let name = format!("p{number}");
            // Some give up before an outage ends, so that some outcomes stay unknown.
            let deadline = Duration::from_secs(if number % 2 == 0 { 2 } else { 10 });
            let client = self.client(&name)?.with_deadline(deadline);
            producers.spawn(self.clone().produce(name, client));
        }
        let mut consumers = JoinSet::new();
        for number in 1..=self.load.consumers {
            let name = format!("c{number}");
            let client = self.client(&name)?;
            consumers.spawn(self.clone().consume(name, client));
        }
        producers.join_all().await;

        loop {
            let groups = insist(async || client.list_groups_all(STREAM).await).await;
            let left = groups.iter().find(|info| info.group == GROUP).map(|info| (info.pending, info.lag));
            if left == Some((0, Some(0))) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.enter(Stage::Done);
        consumers.join_all().await;

        let stream = insist(async || {
            let entries: Vec<_> = client.range_all(Range::of(STREAM).page_size(200)).collect().await;
            entries.into_iter().map(|entry| entry.map(seen)).collect::<Result<Vec<_>, _>>()
        })
        .await;
        let pending = insist(async || client.get_pending(STREAM, GROUP).await).await.count;
        insist(async || client.close().await).await;
        let ending = Ending { stream, group: GroupEnd { pending } };
        *self.ending.lock().unwrap_or_else(PoisonError::into_inner) = Some(ending);
        Ok(())
    }

    async fn produce(self, name: String, client: Client) {
        let mut rng = Rng::stream(self.seed, &name);
        let mut serial = 0;
        while self.stage() == Stage::Work {
            let is_batch = rng.one_in(4);
            let contents: Vec<_> = (0..if is_batch { 2 } else { 1 })
                .map(|_| {
                    serial += 1;
                    // Mostly small, now and then larger than a network packet.
                    let padding = if rng.one_in(20) { rng.below(9_000) } else { rng.below(200) };
                    format!("{name}/{serial}/{}", "x".repeat(padding as usize)).into_bytes()
                })
                .collect();
            // Some batches end with what is refused, so that nothing of them may be left.
            let is_refused = is_batch && rng.one_in(4);
            let call = self.history.made(&name, Action::Append { contents: contents.clone() });
            let appended = match &contents[..] {
                [content] => client.append(append(content)).await.map(|appended| vec![seen_id(appended.id)]),
                _ => append_all(&client, &contents, is_refused).await,
            };
            let outcome = match appended {
                Ok(ids) => Outcome::Appended(ids),
                Err(error) => failed(&error),
            };
            self.history.answered(call, outcome);
            self.pause(&mut rng).await;
        }
    }

    async fn consume(self, name: String, client: Client) {
        let mut rng = Rng::stream(self.seed, &name);
        while self.stage() != Stage::Done {
            let entries = if rng.one_in(5) {
                let call = self.history.made(&name, Action::AutoClaim);
                let claim = AutoClaim::new(STREAM, GROUP, &name, self.load.idle_min).count(20);
                let result = client.auto_claim(claim).await;
                let entries = result.map(|claimed| claimed.entries.into_iter().map(seen).collect());
                self.delivered(call, entries)
            } else {
                let call = self.history.made(&name, Action::ReadGroup);
                let count = 1 + rng.below(10) as u32;
                let wait = Duration::from_millis(50 * rng.below(10));
                let read = ReadGroup::new(GROUP, &name).new_entries(STREAM).count(count).wait(wait);
                let result = client.read_group(read).await;
                let entries = result.map(|answer| {
                    let delivered = answer.streams.into_iter().flat_map(|delivery| delivery.entries);
                    delivered.map(|delivered| seen(delivered.entry)).collect()
                });
                self.delivered(call, entries)
            };
            self.pause(&mut rng).await;
            // A consumer that dies with its entries in hand leaves them to the others.
            let forgets = self.stage() == Stage::Work && rng.one_in(15);
            if entries.is_empty() || forgets {
                continue;
            }
            let ids: Vec<_> = entries.iter().map(|entry| entry.id).collect();
            let named = ids.iter().map(|id| EntryId::new(id.ms, id.seq));
            // Only while there is work, or the drain would not end.
            let gives_back = self.stage() == Stage::Work && rng.one_in(12);
            let action = match rng.one_in(8) {
                _ if gives_back => Action::Nack { ids: ids.clone() },
                true => Action::AckAndDelete { ids: ids.clone() },
                false => Action::Ack { ids: ids.clone() },
            };
            let call = self.history.made(&name, action.clone());
            let result = match action {
                Action::Nack { .. } => {
                    let nacked = client.nack(Nack::new(STREAM, GROUP, named)).await;
                    nacked.map(|nacked| Outcome::Released(nacked.released))
                }
                Action::AckAndDelete { .. } => {
                    let removed = client.ack_and_delete(AckAndDelete::new(STREAM, GROUP, named)).await;
                    removed.map(|removed| {
                        let acknowledged = removed.results.iter().filter(|result| **result != Removal::NotFound);
                        Outcome::Acknowledged(acknowledged.count() as u64)
                    })
                }
                _ => {
                    let acked = client.ack(STREAM, GROUP, named).await;
                    acked.map(|acked| Outcome::Acknowledged(acked.acknowledged))
                }
            };
            self.history.answered(call, result.unwrap_or_else(|error| failed(&error)));
        }
    }

    fn delivered(&self, call: crate::history::Outstanding, result: Result<Vec<Entry>, Error>) -> Vec<Entry> {
        let (entries, outcome) = match result {
            Ok(entries) => (entries.clone(), Outcome::Delivered(entries)),
            Err(error) => (Vec::new(), failed(&error)),
        };
        self.history.answered(call, outcome);
        entries
    }

    async fn pause(&self, rng: &mut Rng) {
        tokio::time::sleep(rng.duration(Duration::from_millis(1), self.load.pause_max)).await;
    }

    fn client(&self, name: &str) -> Result<Client, Error> {
        client(&self.net, self.endpoints.clone(), Rng::stream(self.seed, &format!("client {name}")))
    }

    fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            stage if stage == Stage::Work as u8 => Stage::Work,
            stage if stage == Stage::Drain as u8 => Stage::Drain,
            _ => Stage::Done,
        }
    }
}

fn append(content: &[u8]) -> Append {
    Append::to(STREAM).field(CONTENT, content.to_vec())
}

/// Appends all or none. `is_refused`: together with something that cannot be.
async fn append_all(client: &Client, contents: &[Vec<u8>], is_refused: bool) -> Result<Vec<Id>, Error> {
    let mut batch = contents.iter().fold(Batch::new(), |batch, content| batch.add(append(content)));
    if is_refused {
        batch = batch.add(Append::to("nowhere").field(CONTENT, "x").no_create());
    }
    let done = client.batch(batch).await?;
    let appended = done.results.into_iter().filter_map(|result| match result {
        Ok(OperationResult::Append(appended)) => Some(seen_id(appended.id)),
        _ => None,
    });
    Ok(appended.collect())
}

/// A client whose connections and random numbers are the simulation's.
fn client(net: &SimNet, endpoints: Vec<String>, rng: Rng) -> Result<Client, Error> {
    let net = net.clone();
    let rng = Mutex::new(rng);
    Client::connect(ClientOptions {
        connector: Arc::new(move |address: String| {
            let net = net.clone();
            async move { net.open(&address).await }
        }),
        random: Arc::new(move || rng.lock().unwrap_or_else(PoisonError::into_inner).next_u64()),
        ..ClientOptions::new(endpoints)
    })
}

/// Repeats until it succeeds; the driver bounds the time.
async fn insist<T>(attempt: impl AsyncFn() -> Result<T, Error>) -> T {
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => tracing::debug!(%error, "again"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn failed(error: &Error) -> Outcome {
    let text = error.to_string();
    if error.has_no_side_effects() { Outcome::NothingChanged(text) } else { Outcome::Unknown(text) }
}

fn seen(entry: millstream_client::Entry) -> Entry {
    let content = entry.get(CONTENT).map(|content| content.to_vec()).unwrap_or_default();
    Entry { id: seen_id(entry.id), content }
}

fn seen_id(id: EntryId) -> Id {
    Id { ms: id.ms, seq: id.seq }
}

/// What the nodes last said of themselves, and when. Cheap to clone.
///
/// The observer asks them over links that no scenario cuts: it is the driver's eye, not a client.
#[derive(Clone, Default)]
pub struct Observer(Arc<Mutex<BTreeMap<String, (Duration, NodeStatus)>>>);

impl Observer {
    /// Asks every node at `endpoints` in turn, for ever.
    pub async fn run(self, net: SimNet, endpoints: Vec<String>, time: Time, seed: u64) -> Result<(), Error> {
        let mut tasks = JoinSet::new();
        for endpoint in endpoints {
            let rng = Rng::stream(seed, &format!("observer {endpoint}"));
            let client = client(&net, vec![endpoint.clone()], rng)?.with_deadline(Duration::from_millis(500));
            let (observer, time) = (self.clone(), time.clone());
            tasks.spawn(async move {
                loop {
                    if let Ok(status) = client.status(&endpoint).await {
                        let mut seen = observer.0.lock().unwrap_or_else(PoisonError::into_inner);
                        seen.insert(endpoint.clone(), (time.elapsed(), status));
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
        tasks.join_all().await;
        Ok(())
    }

    /// What the node at `endpoint` said at `since` or later.
    pub fn status(&self, endpoint: &str, since: Duration) -> Option<NodeStatus> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(endpoint).filter(|(at, _)| since <= *at).map(|(_, status)| status.clone())
    }
}
