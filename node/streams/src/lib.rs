//! The core of Millstream: streams, consumer groups and sessions as a deterministic state machine.
//!
//! In goes a [`Proposal`], taken from the replicated log; out comes an [`Applied`]: a [`Reply`] or a [`Refusal`], equal
//! on every replica. The semantics are those of Redis Streams.
//!
//! - [`State`] is all of it; [`commands`] change it, [`queries`] look at it.
//! - [`Block`]s hold the entries by the hundred. The state keeps their index and the newest of them; older bodies lie in
//!   the node's store and come back through [`Blocks`].
//! - [`RowKey`] and [`Frozen`] say what a checkpoint writes; [`State::restore`] reads it back.
//!
//! What is absent: there is no I/O, no clock, no randomness, no thread and no hash map here. Time is in the proposal. A
//! command cannot fail; it is answered or refused. Only a log or a store that cannot be read stops it ([`ApplyError`]),
//! and then this replica stops with it.

pub mod commands;
pub mod limits;
pub mod queries;
pub mod rows;

mod block;
mod budget;
mod codec;
mod config;
mod describe;
mod digest;
mod entries;
mod entry;
mod entry_id;
mod error;
mod freeze;
mod group;
mod lag;
#[cfg(feature = "mutants")]
pub mod mutants;
mod names;
mod pending;
mod producers;
mod removal;
mod restore;
mod retention;
mod sample;
mod session;
mod state;
mod stream;
mod streams;
mod trim;

pub use block::{Block, BlockError, BlockFormatError, BlockKey, Blocks, NoBlocks};
pub use codec::{Proposal, RequestId, decode_applied, decode_outcome, encode_applied, encode_outcome};
pub use commands::*;
pub use config::{Retention, StreamConfig};
pub use describe::{describe, describe_proposal};
pub use entry::{Entry, Fields, FieldsBuilder, FieldsError};
pub use entry_id::{EntryId, ParseEntryIdError};
pub use error::{ApplyError, DecodeError, LastIdBound, Outcome, Refusal, RestoreError};
pub use freeze::{Frozen, FrozenBody, FrozenRows};
pub use names::{ConsumerName, GroupName, NameError, StreamName};
pub use producers::{Idempotency, IdempotencyKey, ProducerId};
pub use queries::*;
pub use removal::{References, Removal};
pub use rows::RowKey;
pub use sample::{SAMPLE_VERSION, SamplePlan};
pub use state::{Applied, Change, NodeRecord, State};
pub use trim::{TrimPolicy, TrimThreshold};

/// Whether a planted bug is on: `mutant!(DedupOff)`. It is `false`, and nothing is left of it, unless this crate is built
/// with its feature `mutants`. Planted here, in the node and in the client.
#[cfg(feature = "mutants")]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutants::on($crate::mutants::Mutant::$name)
    };
}

/// Whether a planted bug is on: not in this build.
#[cfg(not(feature = "mutants"))]
#[macro_export]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}
