//! The Millstream server. The map and its floors are in `ARCHITECTURE.md`.

pub mod api;
pub mod config;
mod front;
pub mod network;
pub mod offline;
pub mod replica;
pub mod resp;
pub mod server;
pub mod storage;
pub mod types;
pub mod watch;
pub mod world;
