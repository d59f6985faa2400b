//! `millstream`: the command line of Millstream. One verb of the store is one verb here.
//!
//! Output is text for people and one JSON object a line for programs; errors go to stderr. Bytes that are not UTF-8 are
//! shown escaped in text, and as `{"$base64": "…"}` in JSON.

mod append;
mod backup;
mod batch;
mod bench;
mod cluster;
mod cpu;
mod groups;
mod info;
mod jsonl;
mod operation;
mod output;
mod parse;
mod pending;
mod read;
mod settings;
mod streams;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use millstream_client::{Client, ClientOptions, Error};

use crate::output::{Format, Output};

const AFTER_HELP: &str = "\
Exit codes: 0 done, 1 refused by the store, 2 usage, 3 unavailable or outcome unknown.
In JSON, bytes that are not UTF-8 are written {\"$base64\": \"...\"}, and fields are [name, value] pairs in their order.";

/// Talks to a Millstream cluster.
#[derive(Parser)]
#[command(name = "millstream", version, after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Args)]
struct Global {
    /// Some nodes of the cluster as host:port, separated by commas; the others are found
    #[arg(
        long,
        global = true,
        env = "MILLSTREAM_ENDPOINTS",
        default_value = "127.0.0.1:7420",
        value_delimiter = ',',
        value_name = "HOST:PORT"
    )]
    endpoints: Vec<String>,
    /// How to print; json by default when stdout is not a terminal
    #[arg(long, global = true, value_enum)]
    output: Option<Format>,
    /// How long one call may take with all its repeats, beyond its --block: 500ms, 10s, 1m
    #[arg(long, global = true, default_value = "10s", value_parser = parse::duration)]
    timeout: Duration,
}

#[derive(Subcommand)]
enum Verb {
    #[command(flatten)]
    Operation(operation::OperationVerb),
    Batch(batch::Batch),
    Tail(read::Tail),
    Streams(streams::Streams),
    /// Describes the cluster
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    Backup(backup::Backup),
    /// Measures
    #[command(subcommand)]
    Bench(bench::Bench),
}

/// Why the command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Client(#[from] Error),
    /// An operation of a batch, and with it the batch.
    #[error("line {line}: {error}")]
    Line { line: u64, error: Error },
    #[error("{0}")]
    Usage(String),
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
    /// Some of the work was refused; each has been reported.
    #[error("{0} refused")]
    SomeRefused(u64),
    /// Said already; the code remains.
    #[error("stopped: {0}")]
    Stopped(Error),
    #[error("no node answered")]
    NobodyAnswered,
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Failure::Client(error) | Failure::Stopped(error) | Failure::Line { error, .. } => match error {
                Error::Refused { .. } => 1,
                Error::InvalidEndpoint { .. } => 2,
                _ => 3,
            },
            Failure::SomeRefused(_) => 1,
            Failure::Usage(_) => 2,
            // The reader has seen enough.
            Failure::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Failure::Io(_) => 2,
            Failure::NobodyAnswered => 3,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("millstream: cannot start: {error}");
            return ExitCode::from(2);
        }
    };
    let outcome = runtime.block_on(run(cli));
    // A thread may still be waiting for stdin.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = failure.exit_code();
            if code != 0 {
                eprintln!("millstream: {failure}");
            }
            ExitCode::from(code)
        }
    }
}

async fn run(cli: Cli) -> Result<(), Failure> {
    let Global { endpoints, output, timeout } = cli.global;
    let mut out = Output::new(output);
    let options = ClientOptions { deadline: timeout, ..ClientOptions::new(endpoints) };
    let client = Client::connect(options.clone())?;
    match cli.verb {
        Verb::Operation(verb) => verb.run(&client, &mut out).await,
        Verb::Batch(verb) => verb.run(&client, &mut out).await,
        Verb::Tail(verb) => verb.run(&client, &mut out).await,
        Verb::Streams(verb) => verb.run(&client, &mut out).await,
        Verb::Cluster(verb) => verb.run(&client, &mut out).await,
        Verb::Backup(verb) => verb.run(&client, &mut out).await,
        Verb::Bench(verb) => verb.run(&options, &mut out).await,
    }?;
    out.flush()?;
    // A courtesy to the cluster, which would otherwise remember the session until it expires; not worth waiting for.
    let _ = client.with_deadline(Duration::from_secs(1)).close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
