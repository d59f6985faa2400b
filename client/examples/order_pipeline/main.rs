//! An order pipeline that survives its failures.
//!
//! One producer appends orders to the stream `orders`. Two groups, payment and shipping, of three consumers each work
//! on every order; one handling in ten fails, its entry stays pending, and auto-claim brings it to a consumer again.
//! Half way through the leader is killed, and later started again. What each attempt came to is appended to a stream of
//! the order, its history. At the end nothing may be missing, doubled, out of order or left pending.
//!
//! Handling is *at least once*: a consumer that handles an order and is cut off before the acknowledgement arrives
//! leaves it to be handled again. Handlers must therefore be repeatable; these count their repeats.
//!
//! Not started by hand: `deploy/local/run.sh --demo` provides the cluster, and kills and starts nodes when asked.

mod nodes;
mod orders;
mod processors;
mod verify;

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use millstream_client::{Append, Client, ClientOptions, CreateGroup, EntryId, GroupPosition};
use tokio::sync::watch;

use crate::nodes::Nodes;
use crate::orders::Order;
use crate::processors::Group;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The stream that the orders are appended to.
const ORDERS: &str = "orders";

/// The demo hangs rather than fails if a cluster loses data; this is how long it may take.
const TIME_MAX: Duration = Duration::from_secs(180);

/// How long a call may take: longer than an election on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Debug, Parser)]
struct Arguments {
    /// Client addresses of the nodes 1, 2, 3.
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    /// Where the nodes' keeper looks for N.kill and N.start (deploy/local/cluster.sh).
    #[arg(long)]
    cluster_dir: PathBuf,
    /// The orders, one JSON object a line.
    #[arg(long)]
    orders: PathBuf,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    tokio::time::timeout(TIME_MAX, run(arguments)).await.map_err(|_| format!("not done within {TIME_MAX:?}"))?
}

async fn run(arguments: Arguments) -> Outcome<()> {
    let began = Instant::now();
    let orders = orders::load(&arguments.orders)?;
    let nodes = Nodes::new(&arguments.endpoints, arguments.cluster_dir)?;
    let connect = || {
        let options = ClientOptions { deadline: DEADLINE, ..ClientOptions::new(&arguments.endpoints) };
        Client::connect(options)
    };
    let client = connect()?;

    let groups = [Group::payment(orders.len()), Group::shipping(orders.len())];
    let mut consumers = tokio::task::JoinSet::new();
    for group in &groups {
        let from_first = GroupPosition::After(EntryId::MIN);
        client.create_group(CreateGroup::new(ORDERS, group.name, from_first).create_stream()).await?;
        for number in 1..=3 {
            consumers.spawn(processors::consume(connect()?, group.clone(), format!("{}-{number}", group.consumer)));
        }
    }
    println!("one producer, {} groups of 3 consumers, {} orders", groups.len(), orders.len());

    let (progress, mut acknowledged) = watch::channel(0);
    let mut producer = tokio::spawn(produce(connect()?, orders.clone(), progress));
    let nodes_fail = async {
        acknowledged.wait_for(|acknowledged| orders.len() / 2 <= *acknowledged).await?;
        let killed = nodes.leader().await?;
        nodes.kill(killed).await?;
        println!("killed the leader, node {killed} (kill -9), after {} acknowledged orders", *acknowledged.borrow());
        acknowledged.wait_for(|acknowledged| orders.len() * 4 / 5 <= *acknowledged).await?;
        println!("{} orders acknowledged; starting node {killed} again", *acknowledged.borrow());
        nodes.start(killed)?;
        Outcome::Ok(killed)
    };
    let work = async {
        let (killed, produced) = tokio::join!(nodes_fail, &mut producer);
        let produced = produced??;
        for group in &groups {
            group.all_handled().await;
        }
        Outcome::Ok((killed?, produced))
    };
    let (killed, produced) = tokio::select! {
        done = work => done?,
        // Before they are stopped, consumers end only with an error.
        Some(consumer) = consumers.join_next() => return Err(consumer?.err().unwrap_or_else(|| "a consumer left".into())),
    };
    println!("appended {} orders; the longest append took {:.2} s", produced.ids.len(), produced.longest.as_secs_f64());

    verify::nothing_is_pending(&client, &groups).await?;
    groups.iter().for_each(Group::stop);
    while let Some(consumer) = consumers.join_next().await {
        consumer??;
    }
    groups.iter().for_each(Group::print);
    verify::stream_is_what_was_acknowledged(&client, &orders, &produced.ids).await?;
    verify::every_order_was_handled(&client, &orders, &groups).await?;
    verify::history_can_be_replayed(&client, &orders, &produced.ids, &groups).await?;
    client.close().await?;
    let status = nodes.agreed().await?;
    println!(
        "  ok: node {killed} has caught up: all nodes have applied index {} and digest {}",
        status.applied_index, status.state_digest
    );
    println!("the order pipeline is verified, in {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// What the producer knows in the end.
struct Produced {
    /// The ids of the orders, in their order.
    ids: Vec<EntryId>,
    /// The longest that one append took: the failover, as a producer sees it.
    longest: Duration,
}

/// Appends one order after the other. The client repeats an append until it is acknowledged, under a number that the
/// store applies at most once.
async fn produce(client: Client, orders: Vec<Order>, progress: watch::Sender<usize>) -> Outcome<Produced> {
    let mut produced = Produced { ids: Vec::with_capacity(orders.len()), longest: Duration::ZERO };
    for Order { id, json } in orders {
        let began = Instant::now();
        let appended = client.append(Append::to(ORDERS).field("order_id", id).field("order", json)).await?;
        produced.longest = produced.longest.max(began.elapsed());
        produced.ids.push(appended.id);
        progress.send_replace(produced.ids.len());
    }
    client.close().await?;
    Ok(produced)
}
