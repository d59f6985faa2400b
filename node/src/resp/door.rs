//! What all connections of a node share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::clients::Clients;
use super::keys::Scans;
use super::reply::Reply;
use super::settings::Settings;
use crate::config::RespOptions;
use crate::front::{self, Anywhere, Denied, Front};
use crate::replica::{Freshness, Unavailable};
use crate::world::World;

/// Before a read is tried again while there is no leader.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The door of one node.
pub(super) struct Door {
    pub(super) world: World,
    pub(super) options: RespOptions,
    pub(super) anywhere: Anywhere,
    pub(super) clients: Arc<Clients>,
    pub(super) settings: Settings,
    pub(super) scans: Scans,
    pub(super) since: Instant,
    /// Tells one run of a node from another: 40 hexadecimal digits, as in Redis.
    pub(super) run_id: String,
    pub(super) commands: AtomicU64,
    pub(super) errors: AtomicU64,
    pub(super) refused_connections: AtomicU64,
}

impl Door {
    pub(super) fn new(front: Front, world: World, options: RespOptions) -> Arc<Self> {
        let mut id = [0; 20];
        id.chunks_mut(8).for_each(|part| {
            let drawn = world.random.next_u64().to_le_bytes();
            part.iter_mut().zip(drawn).for_each(|(to, from)| *to = from);
        });
        Arc::new(Self {
            settings: Settings::new(&options),
            clients: Arc::new(Clients::of(front.replica.position().node_id, options.clients_bytes_max)),
            anywhere: Anywhere::new(front),
            scans: Scans::default(),
            since: Instant::now(),
            run_id: id.iter().map(|byte| format!("{byte:02x}")).collect(),
            commands: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            refused_connections: AtomicU64::new(0),
            world,
            options,
        })
    }

    /// This node.
    pub(super) fn front(&self) -> &Front {
        self.anywhere.front()
    }

    /// How long a command waits for a leader.
    pub(super) fn patience(&self) -> Duration {
        self.options.wait
    }

    /// Waits until this node's state is as new as anything that was acknowledged. Without a leader, for as long as the door
    /// is patient.
    pub(super) async fn barrier(&self) -> front::Result<()> {
        if millstream_streams::mutant!(DoorReadsAlone) {
            return Ok(());
        }
        let end = Instant::now() + self.patience();
        loop {
            let changed = self.front().replica.leadership_changed();
            let denied = match self.front().barrier(Freshness::Linearizable).await {
                Err(Denied::Unavailable(unavailable)) if self.front().replica.is_ready() => unavailable,
                reached => return reached,
            };
            let pause = Instant::now() + RETRY_PAUSE;
            if end <= pause {
                return Err(denied.into());
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(pause) => {}
            }
        }
    }

    /// Why something was not done, in the words of the protocol. Refusals of the core are told elsewhere.
    pub(super) fn denied(&self, denied: &Denied) -> Reply {
        Reply::Error(match denied {
            Denied::Refused(refusal) => format!("ERR {refusal}"),
            Denied::Unavailable(unavailable) => match unavailable {
                Unavailable::NoLeader | Unavailable::NotLeader(_) => {
                    "CLUSTERDOWN no leader was found in time; nothing was done".into()
                }
                Unavailable::NotReady => {
                    "LOADING this node is starting, stopping or far behind; nothing was done".into()
                }
                Unavailable::CommitUnknown(problem) => {
                    format!("UNKNOWN nobody knows whether this was done, or will be: {problem}")
                }
                Unavailable::Stopped => {
                    "UNKNOWN nobody knows whether this was done, or will be: the node has stopped".into()
                }
                Unavailable::DiskFull { nodes } => {
                    let nodes = nodes.iter().map(u64::to_string).collect::<Vec<_>>().join(",");
                    format!(
                        "OOM nothing more can be stored, as the disk is nearly full on node {nodes}; nothing was done"
                    )
                }
                Unavailable::Overloaded { .. } => "TRYAGAIN too many calls are under way; nothing was done".into(),
            },
            Denied::Full(_) => "TRYAGAIN too many calls wait already; nothing was done".into(),
            Denied::Block(error) => format!("ERR the store cannot be read: {error}"),
            Denied::Broken(problem) => format!("ERR {problem}; this is a fault of the program, please report it"),
        })
    }

    pub(super) fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
