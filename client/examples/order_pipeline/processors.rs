//! The consumers: read, handle, acknowledge; and take over what others left pending.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millstream_client::{Append, AutoClaim, Client, Entry, ReadGroup};
use tokio::sync::watch;

use crate::{ORDERS, Outcome, orders};

/// The share of handlings that fail.
const FAILURES: f64 = 0.1;

/// An entry that has been pending for so long was given up by its consumer: its handling failed, or it was cut off.
const GIVEN_UP: Duration = Duration::from_secs(1);

/// How often a consumer looks for entries that were given up.
const CLAIM_EVERY: Duration = Duration::from_millis(300);

/// A group of consumers and what they have achieved. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    /// What a consumer's name starts with.
    pub(crate) consumer: &'static str,
    /// The event in the history of an order that was handled.
    pub(crate) handled: &'static str,
    /// The event in the history of an order whose handling failed.
    failed: &'static str,
    tally: Arc<Mutex<Tally>>,
    /// How many orders are still to be handled.
    missing: watch::Sender<usize>,
    /// The consumers shall finish what they have in hand, and end.
    stop: watch::Sender<bool>,
}

/// What a group's consumers have done.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How often each order was handled to the end.
    pub(crate) handled: BTreeMap<String, u32>,
    /// How often each order's handling failed.
    pub(crate) failed: BTreeMap<String, u32>,
    /// Entries that came by auto-claim.
    pub(crate) claimed: u64,
    /// Orders handled to the end, by consumer.
    by_consumer: BTreeMap<String, u64>,
}

impl Group {
    /// The group that takes the money.
    pub(crate) fn payment(orders: usize) -> Self {
        Self::new("payment-processors", "payment", "paid", "payment failed", orders)
    }

    /// The group that sends the goods.
    pub(crate) fn shipping(orders: usize) -> Self {
        Self::new("shipping-processors", "shipping", "shipped", "shipping failed", orders)
    }

    fn new(
        name: &'static str,
        consumer: &'static str,
        handled: &'static str,
        failed: &'static str,
        orders: usize,
    ) -> Self {
        Self {
            name,
            consumer,
            handled,
            failed,
            tally: Arc::default(),
            missing: watch::Sender::new(orders),
            stop: watch::Sender::new(false),
        }
    }

    /// What has been done so far.
    pub(crate) fn tally(&self) -> MutexGuard<'_, Tally> {
        // A std mutex: it is held for a few steps and never across an await.
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when each order has been handled at least once.
    pub(crate) async fn all_handled(&self) {
        // It fails only if the sender is gone, and that is `self`.
        let _ = self.missing.subscribe().wait_for(|missing| *missing == 0).await;
    }

    /// Lets the consumers finish what they have in hand, and end.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Prints the numbers.
    pub(crate) fn print(&self) {
        let Tally { handled, failed, claimed, by_consumer } = &*self.tally();
        let failures: u32 = failed.values().sum();
        let handlings: u32 = handled.values().sum();
        println!(
            "{}: {} orders handled, {} of them more than once; {failures} of {} handlings failed; {claimed} entries \
             came by auto-claim; {by_consumer:?}",
            self.name,
            handled.len(),
            handled.values().filter(|times| 1 < **times).count(),
            handlings + failures,
        );
    }
}

/// The stream that holds the history of an order.
pub(crate) fn history(order_id: &str) -> String {
    format!("order-history/{order_id}")
}

/// Works as one consumer of a group, until the group is stopped.
pub(crate) async fn consume(client: Client, group: Group, consumer: String) -> Outcome<()> {
    let mut claimed_at = Instant::now();
    while !*group.stop.borrow() {
        let read = ReadGroup::new(group.name, &consumer).new_entries(ORDERS).count(10).wait(CLAIM_EVERY);
        for delivered in client.read_group(read).await?.streams.into_iter().flat_map(|delivery| delivery.entries) {
            handle(&client, &group, &consumer, &delivered.entry).await?;
        }
        if claimed_at.elapsed() < CLAIM_EVERY {
            continue;
        }
        claimed_at = Instant::now();
        let claimed = client.auto_claim(AutoClaim::new(ORDERS, group.name, &consumer, GIVEN_UP).count(10)).await?;
        group.tally().claimed += claimed.entries.len() as u64;
        for entry in &claimed.entries {
            handle(&client, &group, &consumer, entry).await?;
        }
    }
    Ok(client.close().await?)
}

/// Handles one order and acknowledges it; or fails, as one handling in ten does, and leaves it pending.
async fn handle(client: &Client, group: &Group, consumer: &str, entry: &Entry) -> Outcome<()> {
    let order_id = orders::parse(entry)?;
    let fails = rand::random_bool(FAILURES);
    let event = if fails { group.failed } else { group.handled };
    client.append(Append::to(history(&order_id)).field("event", event).field("by", consumer.to_owned())).await?;
    if fails {
        *group.tally().failed.entry(order_id).or_default() += 1;
        return Ok(());
    }
    client.ack(ORDERS, group.name, [entry.id]).await?;
    let mut tally = group.tally();
    *tally.by_consumer.entry(consumer.to_owned()).or_default() += 1;
    let times = tally.handled.entry(order_id).or_default();
    *times += 1;
    if *times == 1 {
        group.missing.send_modify(|missing| *missing -= 1);
    }
    Ok(())
}
