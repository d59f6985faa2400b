//! What nodes tell of themselves while they are at work.

use std::sync::{Arc, Mutex, PoisonError};

use millstream_node::world::Probe;
use millstream_streams::{Blocks, Outcome, State};

use crate::trace::fingerprint;

/// What a node said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Id of the node.
    pub node: u64,
    /// What it said.
    pub told: Told,
}

/// What a node may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It knows that the entry at `index` of `term` is committed, with all before.
    Committed {
        /// Index of the entry.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// It applies the entry at `index` to its state.
    Applied {
        /// Index of the entry.
        index: u64,
        /// Its term.
        term: u64,
        /// Fingerprint of the proposal's bytes, which are none in a blank entry or a membership.
        proposal: u64,
    },
    /// Its state is now one that was stored or received, with all up to `index` applied.
    Restored {
        /// Index of the last entry in it.
        index: u64,
    },
}

/// What all nodes say, in order. Cheap to clone; a node's [`Listener`] has one end, the driver the other.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Mutex<Vec<Event>>>);

impl Events {
    /// Takes note of what a node says.
    pub fn push(&self, node: u64, told: Told) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Event { node, told });
    }

    /// What was said since the last call, in order.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The probe of a node.
    pub fn listener(&self, node: u64) -> Listener {
        Listener { node, events: self.clone() }
    }
}

/// A node's probe that passes on what the invariants need.
#[derive(Debug, Clone)]
pub struct Listener {
    node: u64,
    events: Events,
}

impl Probe for Listener {
    fn applied(&self, index: u64, term: u64, proposal: &[u8], _: Option<&Outcome>, _: bool) {
        self.events.push(self.node, Told::Applied { index, term, proposal: fingerprint(proposal) });
    }

    fn committed(&self, index: u64, term: u64) {
        self.events.push(self.node, Told::Committed { index, term });
    }

    fn restored(&self, index: u64, _: &State, _: &dyn Blocks) {
        self.events.push(self.node, Told::Restored { index });
    }
}
