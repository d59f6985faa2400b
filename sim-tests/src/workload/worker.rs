//! One client of the workload: it makes calls, and each goes into the history.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millstream_client::{Client, ClientOptions, Error};
use tokio::time::Instant;

use super::door::DoorClient;
use super::perform::{failed, perform};
use super::{Stage, Workload};
use crate::entropy::Rng;
use crate::history::{Action, Outcome, Put};
use crate::net::SimNet;

/// How long a client bears with the cluster before it gives up, and if it is in a hurry.
const DEADLINE: Duration = Duration::from_secs(10);
const HURRY: Duration = Duration::from_millis(1_500);
/// Longest pause between two calls once there is no more work to come.
const HASTE: Duration = Duration::from_millis(40);
/// Every so often all clients rest.
const REST_EVERY: Duration = Duration::from_secs(10);
/// Whoever leaves does so within this time.
const LEAVE_MAX_MS: u64 = 60;

/// What came of a call, and the log index that the answer names.
pub(super) struct Told {
    pub outcome: Outcome,
    pub index: Option<u64>,
}

/// A client of the workload.
pub(super) struct Worker {
    pub name: String,
    pub rng: Rng,
    pub workload: Workload,
    client: Client,
    /// If it is one of those who use the Redis door, for all that the door can do.
    door: Option<DoorClient>,
    sessions: bool,
    began: Instant,
    /// Numbers the contents it writes.
    serial: u64,
    /// How many clients it has been.
    lives: u64,
}

impl Worker {
    /// The client `name`, whose changes have `sessions` or not.
    pub(super) fn new(workload: &Workload, name: &str, sessions: bool) -> Result<Self, Error> {
        let mut rng = Rng::stream(workload.seed, name);
        let (client, door) = connect_anew(workload, name, sessions, 0, &mut rng)?;
        let (name, workload) = (name.to_owned(), workload.clone());
        Ok(Self { name, rng, workload, client, door, sessions, began: Instant::now(), serial: 0, lives: 0 })
    }

    /// Becomes another client, as a process that starts anew.
    pub(super) fn start_anew(&mut self) -> Result<(), Error> {
        self.lives += 1;
        let anew = connect_anew(&self.workload, &self.name, self.sessions, self.lives, &mut self.rng)?;
        (self.client, self.door) = anew;
        Ok(())
    }

    /// How often it has started anew.
    pub(super) fn lives(&self) -> u64 {
        self.lives
    }

    /// Makes a call and writes it down. Now and then it leaves before the answer.
    pub(super) async fn call(&mut self, action: Action) -> Told {
        let leaves = self.workload.load.leave_one_in;
        let leaves = self.stage() == Stage::Work && 0 < leaves && self.rng.one_in(leaves);
        let patience = Duration::from_millis(self.rng.below(LEAVE_MAX_MS));
        let at_door = self.door.as_mut().and_then(|door| Some((door, DoorClient::suited(&action)?)));
        let (door, action) = match at_door {
            Some((door, action)) => (Some(door), action),
            None => (None, action),
        };
        let call = self.workload.history.made(&self.name, action.clone());
        let answer = async {
            match door {
                Some(door) => Ok((None, door.perform(&action).await)),
                None => perform(&self.client, &action).await,
            }
        };
        let answer = match leaves {
            true => tokio::time::timeout(patience, answer).await.ok(),
            false => Some(answer.await),
        };
        let (index, outcome) = match answer {
            Some(Ok(told)) => told,
            Some(Err(error)) => (None, failed(&error)),
            None => (None, Outcome::Unknown("the client has left".into())),
        };
        self.workload.history.answered(call, index, outcome.clone());
        Told { outcome, index }
    }

    /// An entry for `stream` that nobody else writes.
    pub(super) fn put(&mut self, stream: &str) -> Put {
        self.serial += 1;
        // Mostly small, now and then larger than a network packet, or than a frame.
        let large = self.workload.load.large_one_in;
        let padding = match self.rng.below(20) {
            0 => self.rng.below(9_000),
            1 if 0 < large && self.rng.one_in((large / 20).max(1)) => 16_000 + self.rng.below(60_000),
            _ => self.rng.below(200),
        };
        let content = format!("{}/{}/{}", self.name, self.serial, "x".repeat(padding as usize)).into_bytes();
        Put { stream: stream.to_owned(), content, ..Put::default() }
    }

    /// Rests a little; longer if it is time for all to rest.
    pub(super) async fn pause(&mut self) {
        let load = &self.workload.load;
        let rest = Duration::from_millis(load.rest_ms);
        // What is left at the end is not to take long, however lazy the clients.
        let pause_max = if self.stage() == Stage::Work { load.pause_max() } else { load.pause_max().min(HASTE) };
        let pause = self.rng.duration(Duration::from_millis(1), pause_max);
        tokio::time::sleep(pause).await;
        let since = self.began.elapsed().as_millis() % REST_EVERY.as_millis();
        if self.stage() == Stage::Work && since < rest.as_millis() {
            tokio::time::sleep(rest).await;
        }
    }

    pub(super) fn stage(&self) -> Stage {
        self.workload.stage()
    }
}

/// A client whose patience is as the load says, and one of the Redis door if it says so.
fn connect_anew(
    workload: &Workload,
    name: &str,
    sessions: bool,
    life: u64,
    rng: &mut Rng,
) -> Result<(Client, Option<DoorClient>), Error> {
    let numbers = Rng::stream(workload.seed, &format!("client {name} {life}"));
    let client = connect(&workload.net, workload.endpoints.clone(), numbers, sessions)?;
    let hurry = workload.load.hurry_one_in;
    let is_in_a_hurry = 0 < hurry && rng.one_in(hurry);
    let patience = if is_in_a_hurry { HURRY } else { DEADLINE };
    // Draws of its own: nobody else does anything else because of the door.
    let mut rng = Rng::stream(workload.seed, &format!("door {name} {life}"));
    let one_in = workload.load.door_one_in;
    let at_door = (0 < one_in && rng.one_in(one_in)).then(|| {
        let Workload { net, endpoints, marks, .. } = workload;
        DoorClient::new(net.clone(), endpoints, rng, patience, marks.clone())
    });
    Ok((client.with_deadline(patience), at_door))
}

/// A client whose connections and random numbers are the simulation's.
pub(super) fn connect(net: &SimNet, endpoints: Vec<String>, rng: Rng, sessions: bool) -> Result<Client, Error> {
    let net = net.clone();
    let rng = Mutex::new(rng);
    Client::connect(ClientOptions {
        connector: Arc::new(move |address: String| {
            let net = net.clone();
            async move { net.open(&address).await }
        }),
        random: Arc::new(move || rng.lock().unwrap_or_else(PoisonError::into_inner).next_u64()),
        sessions,
        ..ClientOptions::new(endpoints)
    })
}

/// Repeats until it succeeds; the driver bounds the time.
pub(super) async fn insist<T>(attempt: impl AsyncFn() -> Result<T, Error>) -> T {
    loop {
        match attempt().await {
            Ok(value) => return value,
            Err(error) => tracing::debug!(%error, "again"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
