//! A reference model of the core: a second implementation, written from the specification of Redis Streams and not from
//! the core, without any cleverness: vectors, searched from end to end.
//!
//! [`Model::step`] does a command and judges what the core said of it. Where the core is free to choose (an approximate
//! trim removes whole blocks, of which the model knows nothing), the model checks the promise and follows. A section number
//! in a comment is one of the specification, which stands in the repository's reference material.
//!
//! Two hold the core against it: `tests/model` of millstream-streams, command by command and down to everything that can
//! be asked; and the simulator's witness, which replays the log of a cluster. For the latter there are the sessions and
//! what the cluster knows of its nodes ([`Cluster`]), which the former leaves out.
//!
//! What is absent: the bounds on what one command looks at (`LOOKS_MAX`, `TRIM_SCAN_MAX` and the like). Who drives the
//! model stays below them.

#![allow(clippy::unwrap_used, reason = "a model that contradicts itself must not go on")]

mod batch;
mod cluster;
mod groups;
mod idempotency;
mod lag;
mod queries;
mod state;
mod step;
mod streams;
mod trimming;

pub use cluster::{Cluster, Done, Session};
pub use idempotency::expire;
pub use state::{Consumer, Corners, Group, Key, Model, Pending, Producers, Remembered, Stream};
pub use trimming::retain;
