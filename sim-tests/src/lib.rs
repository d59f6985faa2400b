//! Deterministic simulation: a whole Millstream cluster in one thread, under one seed.
//!
//! Three real nodes and their clients run on turmoil hosts. What a node takes from outside (its `World`) is simulated:
//! the network ([`net`], and single calls between nodes, [`rpc`]), the disk ([`disk`]), the clock and randomness ([`entropy`]). A scenario ([`scenarios`]) drives
//! the simulation step by step and injects faults between the steps ([`cluster`]) while clients work ([`workload`]) and
//! write down what they saw ([`history`]). After each step Raft's promises are held against what is durable on all disks
//! ([`invariants`]). At the end every property in [`checks`] is held against the history, and the log that the nodes applied
//! is replayed by the [`witness`].
//!
//! The same seed gives the same run, byte for byte: [`trace`] folds every event into one hash, and `sim meta` compares
//! two processes. One seed is one process: tokio numbers its tasks per process, and the order in which a crash
//! destroys them depends on those numbers.
//!
//! The floors, from the ground: `entropy`, `trace`, `history` → `disk`, `net`, `rpc`, `checks` → `invariants`, `witness`, `workload`
//! → `cluster` → `nemesis` → `scenarios`, `run` →
//! `scenarios` → the binary `sim`, which alone interposes the C library's clock and random source.
//!
//! What no simulation can show runs on real processes: [`real`] and the binaries `power` and `bounds`. Of the
//! simulation they share nothing but the pseudo-random numbers.

// The flag is tokio's; cargo does not know it.
#![expect(unexpected_cfgs)]

// Without this flag turmoil leaves tokio's own random numbers unseeded, and a RUSTFLAGS variable in the environment
// silently replaces the flags of .cargo/config.toml. rustdoc has flags of its own and runs nothing.
#[cfg(not(any(tokio_unstable, doc)))]
compile_error!("build with --cfg tokio_unstable (see .cargo/config.toml; is RUSTFLAGS set in the environment?)");

pub mod checks;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod entropy;
pub mod generate;
pub mod history;
pub mod invariants;
pub mod marks;
pub mod mutants;
pub mod nemesis;
pub mod net;
pub mod plan;
pub mod real;
pub mod rpc;
pub mod run;
pub mod scenarios;
pub mod trace;
pub mod witness;
pub mod workload;
