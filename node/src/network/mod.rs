//! The network between nodes: openraft's messages over gRPC, on a port of its own.
//!
//! [`Peers`] keeps three channels to each peer, so that none waits behind another's bytes: one for replication, one for
//! votes, heartbeats and the other small calls, one for snapshots. A channel that is found dead is dropped and the next
//! call dials anew; openraft's backoff decides when that is. [`NetworkFactory`] hands the channels to openraft as its
//! clients. [`raft_service`] is the other end: it decodes, checks and passes on to [`RaftCalls`].
//!
//! Replication is one long-lived bidirectional stream per session with answers in request order; a heartbeat is a unary
//! call. The bytes of a proposal pass through unchanged: they are copied once, into the socket's buffer.
//!
//! What clients ask of a follower and only the leader can do goes over a fourth channel ([`CommandCalls`]).
//!
//! Every request and every answer carries an envelope that says who speaks to whom; [`PeerContext`] judges it. The peer
//! port has no other protection: it belongs on a private network.
//!
//! Nothing here retries and nothing here queues: a call is answered or fails within its deadline, and openraft goes on
//! from there.

mod calls;
mod commands;
mod convert;
mod digest;
mod factory;
mod fetch_snapshot;
mod identity;
mod link;
mod options;
mod peers;
mod receive_snapshot;
mod replication;
mod send_snapshot;
mod service;
mod snapshot;
mod throttle;

pub use calls::{RaftCalls, ReadIndexRefused, RegisterOutcome};
pub use commands::{CommandCalls, Execute, Executed, NotExecuted, Stored};
pub use digest::{Sample, StateDigest};
pub use factory::{NetworkFactory, PeerNetwork};
pub use identity::{IdentityError, PeerContext};
pub use options::NetworkOptions;
pub use peers::{PeerError, Peers};
pub use service::{RaftApi, raft_service, server_builder};
pub use snapshot::{Reception, SnapshotBytes, SnapshotOffer, SnapshotSink, SnapshotSource};
