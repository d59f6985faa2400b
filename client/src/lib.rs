//! The client of Millstream.
//!
//! A [`Client`] is a cheap handle to a cluster. It starts with any of its endpoints, learns who leads from what the
//! nodes answer, and repeats a call until it has an answer or its deadline has passed, as far as that is safe:
//!
//! - A call that only reads is repeated freely.
//! - A call that changes something carries, by default, a number in a *session*. The store applies each number at most
//!   once and answers a repeat with the first answer, so such a call is repeated as well, even when its first answer
//!   was lost.
//! - Without a session ([`ClientOptions::sessions`]), a changing call whose answer was lost ends with
//!   [`Error::OutcomeUnknown`].
//!
//! The price of a session is one command when it is opened, another when it is closed ([`Client::close`]), and a few
//! bytes of replicated state for each call in flight.
//!
//! What is absent: the library keeps no process-global state, starts no threads, reads no clock but tokio's, and draws
//! chance and connections from what [`ClientOptions`] hands it. Many clients of many clusters live in one process, and
//! a simulator can own all of their world.
//!
//! The parts, from the ground: `backoff` spaces repeats, `transport` holds one HTTP/2 connection per address,
//! `endpoints` knows whom to ask, `session` numbers calls, `call` joins them into one loop, and `streams`, `reads`,
//! `describe`, `settings`, `groups`, `deliveries`, `pending`, `batch` and `cluster` dress each rpc in types. [`Client::call`]
//! takes the messages of [`proto`] directly.

mod backoff;
mod backup;
mod batch;
mod call;
mod client;
mod cluster;
mod connect;
mod deliveries;
mod describe;
mod endpoints;
mod error;
mod groups;
mod pages;
mod pending;
mod reads;
mod requests;
mod rpc;
mod session;
mod settings;
mod streams;
mod transport;
mod types;

pub use backup::Backup;
pub use batch::{Batch, BatchDone, BatchMode, Operation, OperationResult};
pub use client::{Client, ClientOptions, Random};
pub use connect::{BoxedIo, Connect, Connector, TcpConnector};
pub use deliveries::{
    AckAndDelete, Acked, AckedAndDeleted, Delivered, DeliveredEntry, Nack, NackMode, Nacked, ReadGroup, Redelivery,
    StreamDelivery,
};
pub use describe::{
    ConsumerDetails, GroupDetails, InspectStream, PendingDetails, ProducerInfo, StreamDetails, StreamInfo,
};
pub use error::Error;
pub use groups::{
    ConsumerCreated, ConsumerDeleted, ConsumerPage, CreateGroup, GroupDeleted, GroupInfo, GroupPage, GroupPosition,
};
pub use millstream_proto::admin::v1::{GetStatusResponse as NodeStatus, Member, NodeRole};
pub use millstream_proto::v1::{ConsumerInfo, ConsumerPending, ErrorReason};
pub use millstream_streams::EntryId;
pub use pending::{AutoClaim, AutoClaimed, Claim, Claimed, ListPending, PendingEntry, PendingPage, PendingSummary};
pub use reads::{Range, RangePage, Read, StreamEntries};
pub use rpc::Rpc;
pub use settings::{ConfigureStream, IdempotencyRecorded, Retention, StreamConfig, StreamConfigured};
pub use streams::{
    AllDeleted, Append, Appended, DeleteEntries, EntriesDeleted, SetLastId, StreamDeleted, StreamPage, StreamSummary,
    Trimmed,
};
pub use types::{Entry, Freshness, Receipt, References, Removal, Trim};

/// The messages of the wire, for [`Client::call`].
pub mod proto {
    pub use millstream_proto::admin::v1 as admin;
    pub use millstream_proto::v1::*;
}
