//! A process of its own that writes batches until it is killed.
//!
//! The test binary starts itself with one test, [`the_writer_that_gets_killed`], which does nothing when it is run as a
//! test. It says `ack <number>` when a batch is committed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use millstream_node::config::Engine;

use crate::support::{Churn, NUMBER, Noise, engine_of, name_of, open};

const ORDER: &str = "MILLSTREAM_TEST_WRITER";

/// A writer, and what it has said.
pub struct Writer {
    process: Child,
    said: Receiver<u64>,
}

impl Writer {
    /// Starts a writer on a store that may have batches already.
    pub fn start(state: &Path, engine: Engine, churn: Churn) -> Self {
        let Churn { blocks, live, block_bytes, pages } = churn;
        let order = format!("{} {blocks} {live} {block_bytes} {pages} {}", name_of(engine), state.display());
        let mut process = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "child::the_writer_that_gets_killed", "--nocapture"])
            .env(ORDER, order)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        let (sender, said) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(number) = line.strip_prefix("ack ").and_then(|number| number.parse().ok()) {
                    let _ = sender.send(number);
                }
            }
        });
        Self { process, said }
    }

    /// Waits for a batch. False if none came in time, or the writer has ended.
    pub fn wait_for_a_batch(&self, patience: Duration) -> bool {
        self.said.recv_timeout(patience).is_ok()
    }

    /// Kills the writer, and tells the last batch that it has acknowledged, if any.
    pub fn kill(mut self, before: u64) -> u64 {
        let _ = self.process.kill();
        let _ = self.process.wait();
        self.said.iter().max().unwrap_or(before).max(before)
    }
}

#[test]
fn the_writer_that_gets_killed() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let mut parts = order.splitn(6, ' ');
    let mut next = || parts.next().expect("six parts");
    let engine = engine_of(next());
    let [blocks, live, block_bytes, pages] = [(); 4].map(|()| next().parse().expect("a number"));
    let churn = Churn { blocks, live, block_bytes, pages };
    let noise = Noise::new();
    let (_dir, store) = open(Path::new(next()), engine).expect("opens");
    let number = store.get(NUMBER).expect("reads");
    let mut number = number.map_or(0, |number| u64::from_be_bytes((*number).try_into().expect("eight bytes")));
    // The test's own output comes before it on the line.
    println!("\nack {number}");
    // A writer that nobody kills must not write for ever.
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(60) {
        number += 1;
        store.commit(churn.batch(number, &noise)).expect("commits");
        println!("ack {number}");
    }
}
