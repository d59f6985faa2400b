//! Keeps a log readable while a peer goes on doing the same wrong thing.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::types::NodeId;

/// Peers remembered at most. Ids on the wire may be made up, so the memory for them is bounded.
const PEERS_MAX: usize = 256;

/// Lets one event per peer and interval through.
pub(super) struct Throttle {
    interval: Duration,
    last: Mutex<BTreeMap<NodeId, Instant>>,
}

impl Throttle {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, last: Mutex::default() }
    }

    /// Whether this event may be logged.
    pub(super) fn admits(&self, peer: NodeId) -> bool {
        let now = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.get(&peer).is_some_and(|&last| now < last + self.interval) {
            return false;
        }
        if PEERS_MAX <= last.len() {
            last.clear();
        }
        last.insert(peer, now);
        true
    }
}
