//! `bounds`: holds one real node to its bounds of memory, disk and time.
//!
//! Holds 10,000 idle connections to its Redis door ([`idle`]). Fills a node in batches: one hot stream, others, one that will be deleted, and many slow streams that get an entry
//! every now and then; leaves a group with many pending entries; reads old and new; trims half and fills again; deletes a
//! large stream while appends go on; stops and kills it and waits until it serves again. Every figure stands beside its
//! bound, and a broken bound is the exit code. With `--catch-up` it measures instead how a node of three that is far
//! behind catches up while writes go on ([`catch_up`]).
//!
//! Bounds of rates and of memory are the full ones from 50 million entries on; smaller runs have smaller ones, so that
//! they fail for a reason rather than for a slow machine.

mod catch_up;
mod idle;
mod load;
mod single;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use millstream_sim_tests::real::{Outcome, Scratch, node, until_interrupted};

use crate::table::Table;

/// Measures a real node's memory, disk and times, and holds them to their bounds.
#[derive(Parser, Debug, Clone)]
#[command(name = "bounds", version)]
pub(crate) struct Cli {
    /// Entries to fill in
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(10_000..))]
    entries: u64,
    /// Pending entries of one group
    #[arg(long)]
    pending: Option<u64>,
    /// Streams that get an entry every now and then
    #[arg(long)]
    slow_streams: Option<u64>,
    /// Bytes of an entry's one value
    #[arg(long, default_value_t = 100)]
    payload: usize,
    /// The engine of the state store
    #[arg(long, default_value = "redb")]
    engine: String,
    /// How often to trim half and fill again
    #[arg(long, default_value_t = 1)]
    rounds: u64,
    /// Measure how a node of three catches up
    #[arg(long)]
    catch_up: bool,
    /// With --catch-up: not a node that was away, but a new one that joins
    #[arg(long, requires = "catch_up")]
    new_node: bool,
    /// The nodes' program [default: millstream-node beside this program]
    #[arg(long, value_name = "PROGRAM")]
    node: Option<PathBuf>,
    /// More arguments for the nodes
    #[arg(long, value_name = "ARGUMENT", allow_hyphen_values = true)]
    node_argument: Vec<String>,
    /// Where to put the data
    #[arg(long, value_name = "DIRECTORY", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Leave data and logs behind
    #[arg(long)]
    keep: bool,
}

impl Cli {
    /// Pending entries: as told, or in the proportion of the full run.
    fn pending(&self) -> u64 {
        self.pending.unwrap_or(self.entries / 50)
    }

    /// Slow streams: as told, or in the proportion of the full run.
    fn slow_streams(&self) -> u64 {
        self.slow_streams.unwrap_or(self.entries / 500)
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match until_interrupted(run(&cli)).await {
        Ok(table) if table.broken().is_empty() => ExitCode::SUCCESS,
        Ok(table) => {
            eprintln!("bounds: broken: {}", table.broken().join("; "));
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bounds: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Outcome<Table> {
    let program = node::program(cli.node.as_deref())?;
    let scratch = Scratch::create(&cli.dir, "millstream-bounds")?;
    let mut table = Table::default();
    let outcome = if cli.catch_up {
        catch_up::measure(cli, &program, scratch.path(), &mut table).await
    } else {
        single::measure(cli, &program, scratch.path(), &mut table).await
    };
    if cli.keep {
        println!("data and logs are in {}", scratch.keep().display());
    }
    outcome.map(|()| table)
}
