//! The whole state: what applies commands, and what checkpoints read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::block::{Block, BlockError, Blocks};
use crate::budget::Budget;
use crate::codec::{self, Proposal, RequestId};
use crate::commands::{Command, Context, Reply};
use crate::digest::{self, Summary};
use crate::entry::Entry;
use crate::error::{ApplyError, Outcome};
use crate::freeze::{Frozen, FrozenBody, Piece};
use crate::names::{GroupName, StreamName};
use crate::rows::RowKey;
use crate::session::{Admission, Sessions};
use crate::streams::Streams;

/// What applying a proposal came to.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The log index of the proposal.
    pub index: u64,
    /// The reply or refusal, equal on every replica.
    pub outcome: Outcome,
    /// Answered from the session's record: the command was applied before, and not again now.
    pub repeated: bool,
    /// The payloads of the ids in the reply, in its order (streams one after the other); `None` for an entry that is no
    /// longer in the stream. Empty unless payloads were asked for and the reply carries some: that of a group read, a
    /// query, a claim or an auto-claim without `ids_only`, or a batch of such.
    pub entries: Vec<Option<Entry>>,
    /// What waiters may want to know. Empty for repeats and refusals.
    pub changes: Vec<Change>,
}

/// Something that a waiter may have waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A stream grew.
    Appended {
        /// Which.
        stream: StreamName,
        /// By how many entries.
        entries: u64,
    },
    /// A stream is gone, and its groups with it.
    StreamDeleted {
        /// Which.
        stream: StreamName,
    },
    /// All streams are gone.
    AllDeleted,
    /// Pending entries of a group were given back.
    Released {
        /// Of which stream.
        stream: StreamName,
        /// Which group.
        group: GroupName,
        /// How many.
        entries: u64,
    },
    /// A group is gone.
    GroupDeleted {
        /// Of which stream.
        stream: StreamName,
        /// Which.
        group: GroupName,
    },
}

/// Where a node is reached.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NodeRecord {
    /// The node's id; never reused.
    #[n(0)]
    pub node_id: u64,
    /// The random number of its data directory.
    #[n(1)]
    pub incarnation: u64,
    /// Where other nodes reach it: `host:port`.
    #[n(2)]
    pub peer_address: String,
    /// Where clients reach it: `host:port`.
    #[n(3)]
    pub client_address: String,
}

/// The meta row.
#[derive(Debug, Clone, Default, Encode, Decode)]
pub(crate) struct Meta {
    /// See [`State::clock_ms`].
    #[n(0)]
    pub(crate) clock_ms: u64,
    /// See [`State::digest`].
    #[n(1)]
    #[cbor(with = "codec::wide")]
    pub(crate) digest: u128,
    /// See [`State::applied_index`].
    #[n(2)]
    pub(crate) applied: u64,
    /// See [`State::cluster_id`].
    #[n(3)]
    pub(crate) cluster_id: Option<String>,
    /// How many incarnations of streams and groups were given.
    #[n(4)]
    pub(crate) incarnations: u64,
}

/// Whether a repeat may be applied again: a delivery of nothing moved nothing, and a reader that goes on waiting under the
/// same number must not be answered with it.
fn is_fruitless(outcome: &Outcome) -> bool {
    matches!(outcome, Ok(Reply::Delivered(delivered)) if delivered.is_empty() || crate::mutant!(DeliveriesNotRecorded))
}

/// Streams, groups, sessions, and what the cluster knows of itself.
#[derive(Debug, Default)]
pub struct State {
    meta: Meta,
    nodes: BTreeMap<u64, NodeRecord>,
    pub(crate) streams: Streams,
    pub(crate) sessions: Sessions,
    /// Something was applied since the last freeze.
    dirty_meta: bool,
    /// Nodes that registered since the last freeze.
    dirty_nodes: BTreeSet<u64>,
    dirty_bytes: u64,
}

/// What a command costs a checkpoint beside its own bytes and those of its outcome: heads, keys, and the like.
const DIRTY_OVERHEAD: u64 = 64;

impl State {
    /// The state before the first command.
    pub fn new() -> State {
        State::default()
    }

    /// Applies the proposal at log index `index`, which is greater than those before. With `serve`, collects the
    /// payloads of the reply ([`Applied::entries`]): wanted only where a client waits.
    ///
    /// After an error the state may be half changed and must not be used again.
    pub fn apply(
        &mut self,
        index: u64,
        proposal: &Bytes,
        blocks: &dyn Blocks,
        serve: bool,
    ) -> Result<Applied, ApplyError> {
        let (Proposal { at_ms, request, command, bytes_max }, fingerprint) = codec::decode_proposal(proposal)?;
        debug_assert!(self.meta.applied < index);
        let at_ms = at_ms + u64::from(serve && crate::mutant!(NodeLocalTime));
        self.meta.clock_ms = if crate::mutant!(ClockGoesBack) { at_ms } else { self.meta.clock_ms.max(at_ms) };

        let admission = match request {
            Some(request) => self.sessions.admit(request, fingerprint, self.meta.clock_ms),
            None => Admission::New,
        };
        let (mut changes, mut entries) = (Vec::new(), Vec::new());
        let (outcome, repeated) = match admission {
            Admission::New => {
                let payloads = serve.then_some(&mut entries);
                let (now_ms, budget) = (self.meta.clock_ms, Budget::shared(bytes_max));
                let changes = &mut changes;
                let mut context = Context { state: self, index, now_ms, blocks, changes, budget, payloads };
                let outcome = context.run(&command)?;
                if let Some(request) = request
                    && !is_fruitless(&outcome)
                {
                    let encoded = codec::encode_outcome(&outcome);
                    self.dirty_bytes += encoded.len() as u64;
                    self.sessions.record(request, fingerprint, encoded);
                }
                (outcome, false)
            }
            Admission::Repeated(encoded) => {
                let outcome = codec::decode_outcome(&encoded)?;
                if serve && let Ok(reply) = &outcome {
                    self.collect_payloads(&command, reply, blocks, &mut entries)?;
                }
                (outcome, true)
            }
            Admission::Refused(refusal) => (Err(refusal), false),
        };

        let mut summary = Summary::default();
        summary.outcome(&command, &outcome);
        self.meta.digest = digest::chain(self.meta.digest, index, proposal, &summary);
        self.meta.applied = index;
        self.dirty_meta = true;
        self.dirty_bytes += (proposal.len() + summary.len()) as u64 + DIRTY_OVERHEAD;

        Ok(Applied { index, outcome, repeated, entries, changes })
    }

    /// Adds the payloads of the ids in a reply, in its order, as they are now.
    pub(crate) fn collect_payloads(
        &self,
        command: &Command,
        reply: &Reply,
        blocks: &dyn Blocks,
        payloads: &mut Vec<Option<Entry>>,
    ) -> Result<(), BlockError> {
        for (stream, ids) in command.delivered(reply) {
            // The stream may be gone if the reply is a repeat.
            let mut cursor = self.streams.get(stream).map(|stream| stream.entries.cursor(blocks));
            for id in ids {
                payloads.push(match &mut cursor {
                    Some(cursor) => cursor.get(*id)?.cloned(),
                    None => None,
                });
            }
        }
        Ok(())
    }

    /// Milliseconds since the Unix epoch, as of the last command; never runs backwards.
    pub fn clock_ms(&self) -> u64 {
        self.meta.clock_ms
    }

    /// Chained over every applied proposal and what came of it: equal on replicas that have applied the same log.
    pub fn digest(&self) -> u128 {
        self.meta.digest
    }

    /// The log index of the last proposal applied; 0 before the first.
    pub fn applied_index(&self) -> u64 {
        self.meta.applied
    }

    /// Whether a request was applied before and would only be answered again.
    pub fn request_recorded(&self, request: &RequestId) -> bool {
        self.sessions.is_recorded(request)
    }

    /// The cluster's id; `None` until it is created.
    pub fn cluster_id(&self) -> Option<&str> {
        self.meta.cluster_id.as_deref()
    }

    /// Gives the cluster its id, unless it has one; returns the one it has.
    pub(crate) fn create_cluster(&mut self, cluster_id: &str) -> &str {
        self.meta.cluster_id.get_or_insert_with(|| cluster_id.to_owned())
    }

    /// The nodes that have registered, by id.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeRecord> {
        self.nodes.values()
    }

    /// A node; `None` if it never registered.
    pub fn node(&self, node_id: u64) -> Option<&NodeRecord> {
        self.nodes.get(&node_id)
    }

    /// Records a node, or its new addresses.
    pub(crate) fn set_node(&mut self, node: NodeRecord) {
        self.dirty_nodes.insert(node.node_id);
        self.nodes.insert(node.node_id, node);
    }

    /// About how many bytes a checkpoint would write. An upper bound for most loads: rows that are written over many
    /// times are counted each time.
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes + self.streams.dirty_bytes() + self.sessions.dirty_bytes()
    }

    /// Begins to take what changed since the last freeze: as it is now, whatever is applied until that is done. Quick,
    /// however much it is, so that commands need not wait. A freeze that has begun must be finished, see
    /// [`State::continue_freeze`], or what it took is lost.
    pub fn begin_freeze(&mut self) {
        let mut frozen = Piece::default();
        if std::mem::take(&mut self.dirty_meta) {
            frozen.put(RowKey::meta(), self.meta_row());
        }
        for node_id in std::mem::take(&mut self.dirty_nodes) {
            if let Some(node) = self.nodes.get(&node_id) {
                frozen.put(RowKey::node(node_id), codec::encode(node).into());
            }
        }
        self.sessions.freeze(&mut frozen);
        self.streams.begin_freeze(frozen);
        self.dirty_bytes = 0;
    }

    /// Goes on with a freeze, by so many streams: some microseconds for each. Returns all that was taken when it is done.
    /// A command that changes a stream takes it before, so commands may be applied in between.
    pub fn continue_freeze(&mut self, streams_max: usize) -> Option<Frozen> {
        self.streams.continue_freeze(streams_max)
    }

    /// Takes all that changed since the last freeze. Nothing is lost to memory until [`State::thaw`].
    pub fn freeze(&mut self) -> Frozen {
        self.begin_freeze();
        self.continue_freeze(usize::MAX).unwrap_or_default()
    }

    /// The frozen rows are on stable storage: those entries leave memory, if their blocks have not been replaced since.
    /// Returns what held them, to be freed where there is time. May be told piece by piece.
    #[must_use = "freeing it takes time: not under a lock"]
    pub fn thaw(&mut self, bodies: &[FrozenBody]) -> Vec<Arc<Block>> {
        bodies.iter().filter_map(|body| self.streams.thaw(body)).collect()
    }

    /// Everything, bodies of blocks included, in key order: for tests and scrubs. Which entries are in memory, and in how
    /// many rows the body of a block is stored, does not show.
    pub fn all_rows(&self, blocks: &dyn Blocks) -> Result<Vec<(RowKey, Bytes)>, BlockError> {
        let mut all = Piece::default();
        all.put(RowKey::meta(), self.meta_row());
        for node in self.nodes.values() {
            all.put(RowKey::node(node.node_id), codec::encode(node).into());
        }
        self.streams.all_rows(blocks, &mut all)?;
        self.sessions.all_rows(&mut all);
        Ok(Frozen::from(all).into_rows().rows.into_iter().filter_map(|(key, value)| Some((key, value?))).collect())
    }

    /// A hash of [`State::all_rows`].
    pub fn logical_hash(&self, blocks: &dyn Blocks) -> Result<u128, BlockError> {
        Ok(digest::rows(&self.all_rows(blocks)?))
    }

    fn meta_row(&self) -> Bytes {
        codec::encode(&Meta { incarnations: self.streams.incarnations(), ..self.meta.clone() }).into()
    }

    /// Begins a state that is read from rows.
    pub(crate) fn from_meta(meta: Meta, nodes: Vec<NodeRecord>) -> State {
        let nodes = nodes.into_iter().map(|node| (node.node_id, node)).collect();
        State { streams: Streams::restore(meta.incarnations), meta, nodes, ..State::default() }
    }
}
