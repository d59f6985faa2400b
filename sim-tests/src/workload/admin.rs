//! What an operator does: members, leadership, backups. The driver orders it, a task on the clients' host does it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millstream_client::{Client, Error};
use tokio::sync::Notify;

use super::HOT;
use super::perform::{failed, perform};
use super::worker::connect;
use crate::entropy::Rng;
use crate::history::{Action, Fresh, History, Outcome};
use crate::net::SimNet;

/// How long an operator waits for an answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long learners may take to catch up before they vote.
const CATCH_UP: Duration = Duration::from_secs(10);

/// What an operator is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Add a node that waits to be added.
    AddLearner {
        /// Its id.
        id: u64,
        /// Where other nodes reach it.
        address: String,
    },
    /// Give votes, and remove members.
    ChangeVoters {
        /// Who is to vote.
        add: Vec<u64>,
        /// Who is to leave.
        remove: Vec<u64>,
    },
    /// Hand leadership over.
    Transfer {
        /// To whom.
        to: u64,
    },
    /// Make a backup, and keep its bytes.
    Backup,
    /// Read the newest entry of the hot stream, linearizably, by this node alone. It goes into the history.
    ReadAt {
        /// Where clients reach it.
        endpoint: String,
    },
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// The members, and whether each votes.
    Members(BTreeMap<u64, bool>),
    /// Leadership was handed over, in this term.
    Leads(u64),
    /// A backup up to this log index.
    Backup {
        /// It holds the effect of all commands up to here.
        log_index: u64,
        /// The file.
        bytes: Vec<u8>,
    },
    /// The read was answered with so many entries.
    Read(usize),
}

/// The driver's hold on the operator. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    net: SimNet,
    endpoints: Vec<String>,
    seed: u64,
    history: History,
    desk: Arc<Mutex<Desk>>,
    news: Arc<Notify>,
}

#[derive(Default)]
struct Desk {
    count: u64,
    to_do: Vec<(u64, Order)>,
    told: BTreeMap<u64, Result<Told, String>>,
}

impl Admin {
    /// An operator of the nodes at `endpoints`, with nothing to do.
    pub fn new(net: SimNet, endpoints: Vec<String>, seed: u64, history: History) -> Self {
        Self { net, endpoints, seed, history, desk: Arc::default(), news: Arc::default() }
    }

    /// Has this done. Returns a number to ask for the answer by.
    pub fn order(&self, order: Order) -> u64 {
        let mut desk = self.lock();
        desk.count += 1;
        let number = desk.count;
        desk.to_do.push((number, order));
        self.news.notify_one();
        number
    }

    /// What came of an order, or the error in words; `None`: nothing yet.
    pub fn told(&self, number: u64) -> Option<Result<Told, String>> {
        self.lock().told.get(&number).cloned()
    }

    /// Carries out orders, each in a task of its own. Does not return.
    pub async fn run(self) {
        loop {
            self.news.notified().await;
            let to_do = std::mem::take(&mut self.lock().to_do);
            for (number, order) in to_do {
                let admin = self.clone();
                tokio::spawn(async move {
                    let told = admin.carry_out(number, order).await.map_err(|error| error.to_string());
                    admin.lock().told.insert(number, told);
                });
            }
        }
    }

    async fn carry_out(&self, number: u64, order: Order) -> Result<Told, Error> {
        let endpoints = match &order {
            Order::ReadAt { endpoint } => vec![endpoint.clone()],
            _ => self.endpoints.clone(),
        };
        let rng = Rng::stream(self.seed, &format!("admin {number}"));
        let client = connect(&self.net, endpoints, rng, true)?.with_deadline(DEADLINE);
        let members = |members: Vec<millstream_client::Member>| {
            Told::Members(members.into_iter().map(|member| (member.node_id, member.voter)).collect())
        };
        Ok(match order {
            Order::AddLearner { id, address } => members(client.add_learner(id, address).await?),
            Order::ChangeVoters { add, remove } => members(client.change_voters(add, remove, CATCH_UP).await?),
            Order::Transfer { to } => Told::Leads(client.transfer_leader(to).await?),
            Order::Backup => backup(&client).await?,
            Order::ReadAt { .. } => Told::Read(self.read(&client, number).await?),
        })
    }

    async fn read(&self, client: &Client, number: u64) -> Result<usize, Error> {
        let stream = HOT.to_owned();
        let action = Action::Range { stream, reverse: true, beyond: None, count: 1, fresh: Fresh::Linearizable };
        let call = self.history.made(&format!("operator{number}"), action.clone());
        match perform(client, &action).await {
            Ok((index, outcome)) => {
                let count = match &outcome {
                    Outcome::Read { entries, .. } => entries.len(),
                    _ => 0,
                };
                self.history.answered(call, index, outcome);
                Ok(count)
            }
            Err(error) => {
                self.history.answered(call, None, failed(&error));
                Err(error)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn backup(client: &Client) -> Result<Told, Error> {
    let mut backup = client.backup().await?;
    let mut bytes = Vec::new();
    while let Some(part) = backup.next().await? {
        bytes.extend_from_slice(&part);
    }
    Ok(Told::Backup { log_index: backup.log_index, bytes })
}
