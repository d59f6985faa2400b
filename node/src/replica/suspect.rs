//! A stored state that cannot be relied on. It is marked so, durably, and the node stops with a sentence; its next start
//! sets the state aside and builds it anew, from the log or from another node.
//!
//! Two ways lead here: something that was stored does not verify (found by a query, by apply, or by the scrub), or the
//! state differs from what the other replicas have (`compare`).

use std::sync::atomic::{AtomicBool, Ordering};

use millstream_streams::ApplyError;

use super::Replica;
use super::shared::Shared;

/// Whether the stored state is suspect. Only ever becomes true.
#[derive(Default)]
pub(crate) struct Suspicion(AtomicBool);

impl Shared {
    /// Marks the stored state as not to be relied on, and stops this node. Writes a small file: where it is called from
    /// no longer matters, as nothing goes on. The first reason counts.
    pub(crate) fn suspect(&self, what: &str) {
        if self.suspicion.0.swap(true, Ordering::AcqRel) {
            return;
        }
        self.world.probe.mark("state_suspect");
        let remedy = match self.state_dir.mark_suspect(what) {
            Ok(()) => {
                "start it again: it sets this state aside and builds it anew from its log or from another node".into()
            }
            Err(error) => format!(
                "this could not be noted on disk ({error}): mend the disk, or give the node an empty data directory \
                 and a new node id"
            ),
        };
        self.fail(format!("the stored state of this node cannot be relied on ({what}); {remedy}"));
    }

    /// An entry of the log could not be applied. What the state names and the store does not have is damage.
    pub(crate) fn cannot_apply(&self, error: &ApplyError) {
        match error {
            ApplyError::Block(error) => self.suspect(&error.to_string()),
            ApplyError::Undecodable(_) => {}
        }
    }

    /// Whether the stored state is suspect: then nothing is added to it, and nobody gets a copy.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspicion.0.load(Ordering::Acquire)
    }
}

/// Takes no more calls once this node must stop, however long its operator takes to stop it.
pub(crate) fn stop_serving(replica: &Replica) {
    let replica = replica.clone();
    let (mut failure, mut ready) = (replica.inner.shared.failure.subscribe(), replica.inner.ready.subscribe());
    tokio::spawn(async move {
        tokio::select! {
            failed = failure.wait_for(Option::is_some) => drop(failed),
            stopping = ready.wait_for(|ready| !ready) => drop(stopping),
        }
        replica.inner.ready.send_replace(false);
    });
}
