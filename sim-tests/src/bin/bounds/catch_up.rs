//! A node that is far behind catches up by a snapshot while writes go on: one of three, or one that joins them.

use std::path::Path;
use std::time::{Duration, Instant};

use millstream_client::Client;
use millstream_sim_tests::real::node::{NodeProcess, NodeSpec, agreed, client, leader};
use millstream_sim_tests::real::{Outcome, loopback, wait_for};

use crate::Cli;
use crate::load::{Filling, Probe, Waits, fill};
use crate::table::{Bound, Table, Unit};

/// However slow.
const PATIENCE: Duration = Duration::from_secs(1_200);
/// How long the waits of a cluster at rest are measured.
const CALM: Duration = Duration::from_secs(10);
/// Clients that append one entry after the other.
const WRITERS: usize = 8;
/// What a node says of a snapshot that it installs.
const INSTALLING: &str = "installing a snapshot";
/// The log that is kept for a node that is behind, in commands and in bytes: less than it has missed.
const ARGUMENTS: [&str; 2] = ["--log-entries-kept", "10"];
/// Less than this behind, in log indices, a node has caught up: writes go on.
const CLOSE: u64 = 2_000;

/// Measures it.
pub(crate) async fn measure(cli: &Cli, program: &Path, directory: &Path, table: &mut Table) -> Outcome<()> {
    let members: Vec<_> = (1..=3).map(|id| (id, loopback(id))).collect();
    let spec = |id: u64| NodeSpec {
        program: program.to_owned(),
        id,
        address: loopback(id),
        data_dir: directory.join(format!("data-{id}")),
        members: members.clone(),
        engine: cli.engine.clone(),
        arguments: ARGUMENTS.iter().map(|argument| (*argument).to_owned()).chain(cli.node_argument.clone()).collect(),
        log: directory.join(format!("node-{id}.log")),
    };
    let mut nodes = (1..=3).map(|id| spec(id).start()).collect::<Result<Vec<_>, _>>()?;
    let endpoints: Vec<_> = (1..=3).map(|id| spec(id).endpoint()).collect();
    let outcome = run(cli, &mut nodes, &endpoints, table).await;
    if outcome.is_err() {
        nodes.iter().for_each(|node| println!("node {}:\n{}", node.spec().id, node.log_tail()));
    }
    outcome
}

async fn run(cli: &Cli, nodes: &mut Vec<NodeProcess>, endpoints: &[String], table: &mut Table) -> Outcome<()> {
    println!("{} entries of {} bytes on three nodes, engine {}", cli.entries, cli.payload, cli.engine);
    let (leading, _) = leader(endpoints, PATIENCE).await?;
    agreed(endpoints, PATIENCE).await?;
    let Some(behind) = endpoints.iter().position(|endpoint| *endpoint != leading) else {
        return Err("there is no follower".into());
    };
    let mut spec = nodes[behind].spec().clone();
    let client = client(endpoints, PATIENCE)?;
    if cli.new_node {
        spec.id = 4;
        spec.address = loopback(4);
        spec.members.clear();
        spec.arguments.push("--join".to_owned());
        spec.data_dir.set_file_name("data-4");
        spec.log.set_file_name("node-4.log");
    } else {
        nodes[behind].kill()?;
    }
    let filling = Filling {
        streams: vec![("hot".to_owned(), cli.entries)],
        slow_streams: cli.slow_streams(),
        slow_rounds: 1,
        payload: cli.payload,
    };
    let filled = fill(&client, &filling).await?;
    let rate = filled.entries as f64 / filled.time.as_secs_f64();
    table.add("entries appended before", filled.entries as f64, Unit::Count, Bound::None);
    table.add("filling: rate", rate, Unit::PerSecond, Bound::None);

    let probe = Probe::start(&client, "probed", cli.payload, WRITERS);
    tokio::time::sleep(CALM).await;
    let (before, _) = probe.stop().await?;

    let probe = Probe::start(&client, "probed", cli.payload, WRITERS);
    let start = Instant::now();
    let node = spec.start()?;
    if cli.new_node {
        nodes.push(node);
        add(&client, &spec).await?;
    } else {
        nodes[behind] = node;
    }
    let endpoint = spec.endpoint();
    let status = client.with_deadline(Duration::from_secs(2));
    let mut index_at_start = None;
    wait_for("the end of catching up", PATIENCE, async || {
        nodes.iter_mut().try_for_each(NodeProcess::check)?;
        let (Ok(ahead), Ok(behind)) = (status.status(&leading).await, status.status(&endpoint).await) else {
            return Ok(None);
        };
        index_at_start.get_or_insert(ahead.committed_index);
        let is_close = ahead.committed_index.saturating_sub(behind.applied_index) < CLOSE;
        Ok((is_close && Some(behind.applied_index) >= index_at_start).then_some(()))
    })
    .await?;
    let time = start.elapsed();
    // And it stays there.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let (during, unanswered) = probe.stop().await?;
    let all: Vec<_> = nodes.iter().map(|node| node.spec().endpoint()).collect();
    agreed(&all, PATIENCE).await?;

    let log = std::fs::read_to_string(&spec.log)?;
    let snapshots = log.matches(INSTALLING).count();
    table.add("catching up", time.as_secs_f64(), Unit::Seconds, Bound::None);
    table.add("entries fetched a second", filled.entries as f64 / time.as_secs_f64(), Unit::PerSecond, Bound::None);
    if snapshots == 0 {
        println!("note: no snapshot was needed; the log still held everything");
    }
    table.add("snapshots installed", snapshots as f64, Unit::Count, Bound::AtMost(1.0));
    if let Some(longest) = numbers(&log, "swapped_us=").max() {
        let bound = Bound::AtMost(20.0);
        table.add("longest that installing kept applying waiting", longest as f64 / 1e3, Unit::Ms, bound);
    }
    waits(table, "before", &before);
    waits(table, "during", &during);
    table.add("appends without an answer", unanswered as f64, Unit::Count, Bound::AtMost(0.0));
    for node in nodes {
        let memory = node.memory()?;
        let name = format!("resident of node {}, peak", node.spec().id);
        table.add(&name, memory.peak as f64, Unit::Bytes, Bound::AtMost(f64::from(1 << 30)));
    }
    Ok(())
}

/// Makes the node a member, as soon as it answers.
async fn add(client: &Client, spec: &NodeSpec) -> Outcome<()> {
    wait_for("the new member", PATIENCE, async || match client.add_learner(spec.id, spec.peer_address()).await {
        Ok(_) => Ok(Some(())),
        Err(error) if error.is_retryable() => Ok(None),
        Err(error) => Err(error.into()),
    })
    .await
}

/// The numbers that follow `name` in a log.
fn numbers(log: &str, name: &str) -> impl Iterator<Item = u64> {
    log.split(name).skip(1).filter_map(|rest| {
        let digits = rest.split(|digit: char| !digit.is_ascii_digit()).next()?;
        digits.parse().ok()
    })
}

fn waits(table: &mut Table, when: &str, waits: &Waits) {
    let mut add = |name: &str, wait: Duration| {
        table.add(&format!("append waits {when}: {name}"), wait.as_secs_f64() * 1e3, Unit::Ms, Bound::None);
    };
    add("p50", waits.per_mille(500));
    add("p99", waits.per_mille(990));
    add("longest", waits.longest());
    table.add(&format!("appends {when}"), waits.count() as f64, Unit::Count, Bound::None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_name() {
        let log = "a swapped_us=12 b\nc swapped_us=7\nd swapped_us=x";
        assert_eq!(numbers(log, "swapped_us=").collect::<Vec<_>>(), [12, 7]);
    }
}
