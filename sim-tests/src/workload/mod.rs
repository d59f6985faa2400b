//! What the clients do, one file for each kind: producers append, readers read, consumers work for groups, and others
//! trim, delete and change what these work on.
//!
//! All of it goes through the client library, except what clients of the Redis door ask for there. All clients live on
//! one host: what matters is the links to the nodes, and idle hosts cost as much as busy ones.

mod admin;
mod changers;
mod consumers;
mod deleters;
pub(crate) mod door;
mod drain;
mod guarded;
mod keyed;
mod load;
mod observer;
mod perform;
mod producers;
mod readers;
mod tailers;
mod trimmers;
mod worker;

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use millstream_client::Error;
use tokio::task::JoinSet;

use crate::checks::{Ending, Evidence};
use crate::history::{GroupName, History};
use crate::marks::Marks;
use crate::net::SimNet;
use worker::Worker;

pub use admin::{Admin, Order, Told};
pub use load::Load;
pub use observer::Observer;

/// The stream that gets most of the entries.
const HOT: &str = "orders";
/// What guarded clients append to, and what takes ids of theirs.
const GUARDED: &str = "guarded";
const EXPLICIT: &str = "explicit";
/// What is appended to under keys.
const KEYED: &str = "keyed";
/// What is trimmed.
const TRIMMED: &str = "trimmed";
/// What is deleted from.
const DELETED: &str = "deleted";
/// Every cluster has so many nodes from the beginning.
const NODES_MIN: usize = 3;

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

/// The driver's hold on the clients. Cheap to clone.
#[derive(Clone)]
pub struct Workload {
    net: SimNet,
    endpoints: Vec<String>,
    load: Load,
    seed: u64,
    history: History,
    marks: Marks,
    stage: Arc<AtomicU8>,
    /// How often the driver wants everything to be read.
    readings: Arc<AtomicU64>,
    endings: Arc<Mutex<Vec<Ending>>>,
    /// What the drain waits for, in words.
    waits_for: Arc<Mutex<String>>,
}

impl Workload {
    /// Clients of the nodes at `endpoints`, reached over `net`.
    pub fn new(net: SimNet, endpoints: Vec<String>, load: Load, seed: u64, history: History, marks: Marks) -> Self {
        let stage = Arc::new(AtomicU8::new(Stage::Work as u8));
        let readings = Arc::new(AtomicU64::new(1));
        Self {
            net,
            endpoints,
            load,
            seed,
            history,
            marks,
            stage,
            readings,
            endings: Arc::default(),
            waits_for: Arc::default(),
        }
    }

    /// From now on nothing is appended. When the groups are empty, everything is read.
    pub fn drain(&self) {
        self.enter(Stage::Drain);
    }

    /// Once more, everything is read, after the drain.
    pub fn read_again(&self) {
        self.readings.fetch_add(1, Ordering::Relaxed);
    }

    /// How often everything has been read.
    pub fn readings(&self) -> usize {
        self.lock().len()
    }

    /// Whether everything has been read as often as it is to be.
    pub fn has_read(&self) -> bool {
        self.readings.load(Ordering::Relaxed) <= self.readings() as u64
    }

    /// What must come to pass before everything is read, for people.
    pub fn waits_for(&self) -> String {
        self.waits_for.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn wait_for(&self, what: String) {
        *self.waits_for.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// What was found first when all was done; `None` until then.
    pub fn ending(&self) -> Option<Ending> {
        self.lock().first().cloned()
    }

    /// What the clients did.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// All that the clients can testify. The driver adds what it knows itself.
    pub fn evidence(&self) -> Evidence {
        let mut endings = self.lock().clone().into_iter();
        let end = endings.next().unwrap_or_default();
        Evidence { calls: self.history.calls(), end, later: endings.collect(), ..Evidence::default() }
    }

    /// Lives the clients' lives, then reads everything as often as it is told to. Does not return.
    pub async fn run(self) -> Result<(), Error> {
        drain::set_up(&self).await?;
        let mut workers = JoinSet::new();
        let mut consumers = JoinSet::new();
        for number in 1..=self.load.producers {
            workers.spawn(producers::run(Worker::new(&self, &format!("p{number}"), true)?, number));
        }
        for number in 1..=self.load.careless {
            workers.spawn(producers::run(Worker::new(&self, &format!("careless{number}"), false)?, number));
        }
        for number in 1..=self.load.keyed {
            workers.spawn(keyed::run(Worker::new(&self, &format!("keyed{number}"), false)?));
        }
        for number in 1..=self.load.guarded {
            workers.spawn(guarded::run(Worker::new(&self, &format!("guarded{number}"), true)?));
        }
        for number in 1..=self.load.readers {
            // Every other one stays with one node, which has to ask the leader how far it must have come.
            let place = if number % 2 == 1 { self.at(number) } else { self.clone() };
            workers.spawn(readers::run(Worker::new(&place, &format!("r{number}"), true)?));
        }
        for number in 1..=self.load.tailers {
            workers.spawn(tailers::run(Worker::new(&self, &format!("tail{number}"), true)?));
        }
        for number in 1..=self.load.trimmers {
            workers.spawn(trimmers::run(Worker::new(&self, &format!("trim{number}"), true)?));
        }
        for number in 1..=self.load.deleters {
            workers.spawn(deleters::run(Worker::new(&self, &format!("del{number}"), true)?));
        }
        for number in 1..=self.load.changers {
            workers.spawn(changers::run(Worker::new(&self, &format!("change{number}"), true)?, number));
        }
        for group in 1..=self.load.groups {
            for number in 1..=self.load.consumers {
                let name = format!("c{group}-{number}");
                consumers.spawn(consumers::run(Worker::new(&self, &name, true)?, format!("g{group}"), false));
            }
        }
        for number in 1..=self.load.claimers {
            let group = format!("g{}", 1 + number % self.load.groups.max(1));
            let worker = Worker::new(&self, &format!("claim{number}"), true)?;
            consumers.spawn(consumers::run(worker, group, true));
        }
        self.wait_for("those who append and read to finish".into());
        finish(workers).await?;
        drain::until_empty(&self).await?;
        self.enter(Stage::Done);
        self.wait_for("consumers to finish".into());
        finish(consumers).await?;
        drain::read_as_told(&self).await
    }

    /// The same for clients that know one of the first nodes only.
    fn at(&self, number: u64) -> Self {
        let first = self.endpoints.iter().take(NODES_MIN);
        let endpoints = first.cycle().skip(number as usize).take(1).cloned().collect();
        Self { endpoints, ..self.clone() }
    }

    /// The groups that are drained.
    fn groups(&self) -> Vec<GroupName> {
        let streams = [HOT.to_owned()].into_iter().chain((0 < self.load.small_streams).then(|| small(1)));
        let groups = |stream: String| (1..=self.load.groups).map(move |group| (stream.clone(), format!("g{group}")));
        streams.flat_map(groups).collect()
    }

    /// All streams whose entries are accounted for.
    fn streams(&self) -> Vec<String> {
        let named = [HOT, GUARDED, EXPLICIT, KEYED, TRIMMED, DELETED].map(str::to_owned);
        let small = (1..=self.load.small_streams).map(small);
        let changed = (1..=self.load.changers).map(changed);
        named.into_iter().chain(small).chain(changed).collect()
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

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Ending>> {
        self.endings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The small stream of this number, from 1.
fn small(number: u64) -> String {
    format!("small-{number}")
}

/// The stream on which the changer of this number has its groups.
fn changed(number: u64) -> String {
    format!("changed-{number}")
}

/// Waits for all of them. One that fails takes the others along.
async fn finish(workers: JoinSet<Result<(), Error>>) -> Result<(), Error> {
    workers.join_all().await.into_iter().collect()
}
