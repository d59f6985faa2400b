//! `power`: cuts the power of real nodes while they work, and looks whether all they acknowledged is there.
//!
//! Three nodes, each on an ext4 of its own, and clients that append, trim, read as consumers, acknowledge, give back,
//! claim and delete, one stream each, so that each knows exactly what must be there ([`model`]). Then the power of one
//! node, of a majority or of all is cut ([`cluster`]), often while a checkpoint is being written. The file systems are
//! mounted again, the nodes start, and everything is compared: first with only two of the three nodes, where chance
//! allows it, because any two must know what was acknowledged; then with all three, each asked for what it holds itself.
//! The next cut follows on the same data. After a failure, the next cluster starts from nothing.
//!
//! Needs root, to mount; without it, says so and is content. Each cut is a line in the file of `--results`, and with
//! `--resume` the count goes on where that file ends, so that a hundred cuts can be made in many sittings.

mod actor;
mod cluster;
mod model;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use millstream_client::Freshness;
use millstream_sim_tests::entropy::Rng;
use millstream_sim_tests::real::disk::missing;
use millstream_sim_tests::real::node::{agreed, client, leader, program};
use millstream_sim_tests::real::{Outcome, until_interrupted};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::actor::{Actor, Tally, Verified};
use crate::cluster::Cluster;

/// Cuts the power of real nodes, and looks whether everything acknowledged is there.
#[derive(Parser)]
#[command(name = "power", version)]
struct Cli {
    /// How many cuts, those of a resumed file included
    #[arg(long, default_value_t = 10)]
    cuts: u64,
    /// The engine of the state store
    #[arg(long, default_value = "redb")]
    engine: String,
    /// Decides who is cut and when, and what the clients do
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Append a line for each cut to this file, and count those that are there
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// The nodes' program [default: millstream-node beside this program]
    #[arg(long, value_name = "PROGRAM")]
    node: Option<PathBuf>,
    /// Where to put the disks
    #[arg(long, value_name = "DIRECTORY", default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    /// Copy the disks and logs of clusters that failed to this directory
    #[arg(long, value_name = "DIRECTORY")]
    keep: Option<PathBuf>,
    /// Cut only this: one, majority or all
    #[arg(long)]
    only: Option<Kind>,
}

/// Whose power is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// One node; the others go on, or another process dies at the same instant.
    One,
    /// Two nodes.
    Majority,
    /// All nodes.
    All,
}

/// A cut, as a line of the results.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Line {
    cut: u64,
    seed: u64,
    engine: String,
    kind: Kind,
    /// The nodes that lost their power.
    nodes: Vec<u64>,
    /// A checkpoint was being written on one of them.
    checkpoint: bool,
    /// The node that was kept away until the others had been verified; 0: none.
    away: u64,
    /// Commands acknowledged since the cut before.
    commands: u64,
    /// Entries whose append was acknowledged since the cut before.
    appended: u64,
    /// Commands in doubt.
    unknown: u64,
    /// Entries found right on every node.
    entries: u64,
    /// Pending entries found right on every node.
    pending: u64,
    /// From the start of the nodes until there was a leader.
    leader_ms: u64,
    /// The whole cut.
    total_ms: u64,
    /// What went wrong; empty if nothing did.
    problem: String,
}

const ACTORS: usize = 4;
/// Elections, replays and a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(reason) = missing() {
        println!("skipped: {reason}");
        return ExitCode::SUCCESS;
    }
    match until_interrupted(run(&cli)).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("power: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Outcome<bool> {
    let program = program(cli.node.as_deref())?;
    let mut lines = cli.resume.as_deref().map_or(Ok(Vec::new()), read_lines)?;
    let mut results = match &cli.resume {
        Some(path) => Some(File::options().create(true).append(true).open(path)?),
        None => None,
    };
    while (lines.len() as u64) < cli.cuts {
        // Each cluster has a seed of its own, by the number of its first cut.
        let first = lines.len() as u64 + 1;
        let mut trial = Trial::start(cli, &program, first).await?;
        loop {
            let line = trial.cut(cli, lines.len() as u64 + 1).await;
            println!("{}", describe(&line));
            if let Some(results) = &mut results {
                writeln!(results, "{}", serde_json::to_string(&line)?)?;
            }
            let is_over = !line.problem.is_empty();
            lines.push(line);
            if is_over {
                if let Some(keep) = &cli.keep {
                    let path = trial.cluster.keep(&keep.join(format!("cut-{}-seed-{}", lines.len(), cli.seed)))?;
                    println!("    disks and logs are in {}", path.display());
                }
                break;
            }
            if cli.cuts <= lines.len() as u64 {
                break;
            }
        }
    }
    Ok(summarize(&lines, &cli.engine))
}

fn read_lines(path: &Path) -> Outcome<Vec<Line>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn describe(line: &Line) -> String {
    let Line { cut, seed: _, engine: _, kind, nodes, checkpoint, away, problem, .. } = line;
    let during = if *checkpoint { " during a checkpoint" } else { "" };
    let away = if *away == 0 { String::new() } else { format!(", node {away} away at first") };
    let what = format!(
        "cut {cut}: {kind:?} {nodes:?}{during}{away}: {} commands, {} entries appended, {} in doubt; leader after {} ms; \
         {} entries and {} pending right on each node; {:.1} s",
        line.commands,
        line.appended,
        line.unknown,
        line.leader_ms,
        line.entries,
        line.pending,
        line.total_ms as f64 / 1e3,
    );
    if problem.is_empty() { what } else { format!("{what}\n  FAILED: {problem}") }
}

fn summarize(lines: &[Line], engine: &str) -> bool {
    let count = |kind: Kind| lines.iter().filter(|line| line.kind == kind).count();
    let failed: Vec<_> = lines.iter().filter(|line| !line.problem.is_empty()).map(|line| line.cut).collect();
    let during = lines.iter().filter(|line| line.checkpoint).count();
    println!(
        "{} cuts with {engine}: {} of one node, {} of a majority, {} of all; {during} during a checkpoint; {} commands \
         acknowledged; {} failed{}",
        lines.len(),
        count(Kind::One),
        count(Kind::Majority),
        count(Kind::All),
        lines.iter().map(|line| line.commands).sum::<u64>(),
        failed.len(),
        if failed.is_empty() { String::new() } else { format!(": {failed:?}") },
    );
    failed.is_empty()
}

/// A cluster and its clients, from one failure to the next.
struct Trial {
    cluster: Cluster,
    actors: Vec<Actor>,
    rng: Rng,
}

impl Trial {
    async fn start(cli: &Cli, program: &Path, first: u64) -> Outcome<Self> {
        let mut cluster = Cluster::create(program, &cli.engine, &cli.dir)?;
        let seed = cli.seed.wrapping_add(first << 32);
        let mut rng = Rng::stream(seed, "cuts");
        cluster.start(&[0, 1, 2], &mut rng)?;
        let endpoints = cluster.endpoints();
        leader(&endpoints, PATIENCE).await?;
        let actor = |number| Ok(Actor::new(number, client(&endpoints, Duration::from_secs(20))?, seed));
        let actors = (0..ACTORS).map(actor).collect::<Outcome<Vec<_>>>()?;
        Ok(Self { cluster, actors, rng })
    }

    /// One cut, with all that belongs to it.
    async fn cut(&mut self, cli: &Cli, cut: u64) -> Line {
        let start = Instant::now();
        let kind = cli.only.unwrap_or_else(|| [Kind::One, Kind::Majority, Kind::All][self.rng.below(3) as usize]);
        let mut order = [0, 1, 2];
        for at in (1..3).rev() {
            order.swap(at, self.rng.below(at as u64 + 1) as usize);
        }
        let victims = match kind {
            Kind::One => &order[..1],
            Kind::Majority => &order[..2],
            Kind::All => &order[..],
        };
        // Any two nodes must know all that was acknowledged, so the third may come later. Of two nodes that were not
        // cut, one dies at the same instant and stays away; else what the cut one has promised would not matter.
        let away =
            self.rng.one_in(2).then(|| order[if kind == Kind::Majority { 1 + self.rng.below(2) as usize } else { 2 }]);
        let mut line = Line {
            cut,
            seed: cli.seed,
            engine: cli.engine.clone(),
            kind,
            nodes: victims.iter().map(|at| *at as u64 + 1).collect(),
            checkpoint: false,
            away: away.map_or(0, |at| at as u64 + 1),
            commands: 0,
            appended: 0,
            unknown: 0,
            entries: 0,
            pending: 0,
            leader_ms: 0,
            total_ms: 0,
            problem: String::new(),
        };
        if let Err(problem) = self.try_cut(kind, victims, away, &mut line).await {
            line.problem = problem.to_string();
            for log in self.cluster.logs() {
                println!("    {}", log.replace('\n', "\n    "));
            }
        }
        line.total_ms = start.elapsed().as_millis() as u64;
        line
    }

    async fn try_cut(&mut self, kind: Kind, victims: &[usize], away: Option<usize>, line: &mut Line) -> Outcome<()> {
        let (stop, stopped) = watch::channel(false);
        let work: Vec<_> = self.actors.drain(..).map(|actor| tokio::spawn(actor.work(stopped.clone()))).collect();

        let ms = Duration::from_millis;
        tokio::time::sleep(self.rng.duration(ms(500), ms(2_500))).await;
        if self.rng.below(3) != 0 {
            line.checkpoint = self.cluster.checkpoint_begins(victims[0], Duration::from_secs(2)).await?;
            tokio::time::sleep(Duration::from_micros(self.rng.below(12_000))).await;
        }
        self.cluster.check()?;
        let killed: Vec<_> = away.into_iter().filter(|away| !victims.contains(away)).collect();
        self.cluster.strike(victims, &killed)?;
        if kind == Kind::One && away.is_none() {
            tokio::time::sleep(self.rng.duration(ms(500), ms(2_500))).await;
        }
        stop.send_replace(true);
        for actor in work {
            let mut actor = actor.await??;
            let Tally { commands, appended, unknown } = std::mem::take(&mut actor.tally);
            line.commands += commands;
            line.appended += appended;
            line.unknown += unknown;
            self.actors.push(actor);
        }

        let start = Instant::now();
        let first: Vec<_> = victims.iter().chain(&killed).copied().filter(|at| Some(*at) != away).collect();
        self.cluster.start(&first, &mut self.rng)?;
        let endpoints = self.cluster.endpoints();
        let led = leader(&endpoints, PATIENCE).await;
        self.cluster.check()?;
        led?;
        line.leader_ms = start.elapsed().as_millis() as u64;
        let verified = self.verify(&endpoints, Freshness::Linearizable).await;
        self.cluster.check()?;
        verified?;

        if let Some(away) = away {
            self.cluster.start(&[away], &mut self.rng)?;
        }
        let agreement = agreed(&endpoints, PATIENCE).await;
        self.cluster.check()?;
        agreement?;
        for endpoint in endpoints {
            let verified = self.verify(std::slice::from_ref(&endpoint), Freshness::Local).await;
            let verified = verified.map_err(|problem| format!("by what {endpoint} itself holds: {problem}"))?;
            line.entries = verified.entries;
            line.pending = verified.pending;
        }
        Ok(())
    }

    async fn verify(&mut self, endpoints: &[String], freshness: Freshness) -> Outcome<Verified> {
        let client = client(endpoints, PATIENCE)?.with_freshness(freshness);
        let mut sum = Verified::default();
        for actor in &mut self.actors {
            if freshness == Freshness::Linearizable {
                actor.fence().await?;
            }
            let Verified { entries, pending } = actor.verify(&client).await?;
            sum.entries += entries;
            sum.pending += pending;
        }
        Ok(sum)
    }
}
