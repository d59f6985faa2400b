//! The Redis door: clients of Redis Streams, as they are.
//!
//! A request is read ([`request`]), found in the [`table`] of commands and understood ([`dispatch`], [`streams`]); what it
//! asks of the core is done wherever the leader is ([`crate::front`]), and told in Redis's words ([`reply`]). Any node takes
//! any command; what a [`connection`] is and has begun is known to the node that holds it, and to nobody else.
//!
//! - [`streams`], [`keys`]: the commands on streams, and on keys, all of which are streams.
//! - [`transactions`]: MULTI and WATCH, one entry of the log.
//! - [`waiting`]: the two that may wait.
//! - [`here`], [`commands`], [`info`], [`settings`]: about the connection and the node.
//! - [`clients`], [`client_commands`]: who is connected, and what they may do to one another.
//!
//! What is absent: no other type than streams, no users, no scripts, no subscriptions.

mod arguments;
mod client_commands;
mod clients;
mod commands;
mod connection;
mod dispatch;
mod door;
mod glob;
mod here;
mod info;
mod keys;
mod ops;
mod reply;
mod request;
mod settings;
mod streams;
mod table;
mod transactions;
mod waiting;
mod wire;

use futures::StreamExt;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::config::RespOptions;
use crate::front::Front;
use crate::world::{Incoming, World};
use door::Door;

/// Serves the door until `stop` says so. Connections end with it.
pub(crate) fn serve(
    front: Front,
    world: World,
    options: RespOptions,
    mut incoming: Incoming,
    stop: watch::Receiver<bool>,
) -> JoinHandle<()> {
    let door = Door::new(front, world, options);
    tokio::spawn(async move {
        let mut stopping = stop.clone();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                // The sender is gone only when the whole node is.
                _ = stopping.wait_for(|stop| *stop) => break,
                accepted = incoming.next() => match accepted {
                    Some(Ok(io)) => drop(connections.spawn(connection::serve(door.clone(), io, stop.clone()))),
                    Some(Err(error)) => tracing::debug!(%error, "a connection to the Redis door was not made"),
                    None => break,
                },
                Some(_) = connections.join_next() => {}
            }
        }
        // Each ends by itself once it has answered what it is at.
        while connections.join_next().await.is_some() {}
    })
}
