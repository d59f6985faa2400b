//! What must hold at the end.

use std::ops::Bound;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use millstream_client::{Client, Entry, EntryId, Range};

use crate::orders::Order;
use crate::processors::{Group, history};
use crate::{ORDERS, Outcome};

/// Histories read at the same time.
const READS_AT_ONCE: usize = 32;

/// Waits for the last acknowledgements: an order may be pending again that was handled before, and the consumers are
/// still at work.
pub(crate) async fn nothing_is_pending(client: &Client, groups: &[Group]) -> Outcome<()> {
    for group in groups {
        while 0 < client.get_pending(ORDERS, group.name).await?.count {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    for info in client.list_groups_all(ORDERS).await? {
        if (info.pending, info.lag) != (0, Some(0)) {
            return Err(format!("group {} has {} pending and lags by {:?}", info.group, info.pending, info.lag).into());
        }
        println!("  ok: {} has no pending entry and none to come", info.group);
    }
    Ok(())
}

/// Every acknowledged order is in the stream once, in the order of the appends, with the id that was acknowledged.
pub(crate) async fn stream_is_what_was_acknowledged(client: &Client, orders: &[Order], ids: &[EntryId]) -> Outcome<()> {
    let entries: Vec<Entry> = client.range_all(Range::of(ORDERS)).try_collect().await?;
    if entries.len() != ids.len() || ids.len() != orders.len() {
        return Err(
            format!("{} orders, {} acknowledged, {} in the stream", orders.len(), ids.len(), entries.len()).into()
        );
    }
    for ((entry, order), id) in entries.iter().zip(orders).zip(ids) {
        let expected = [("order_id", &order.id), ("order", &order.json)];
        let same_fields = entry.fields.iter().map(|(name, value)| (&**name, &**value));
        if entry.id != *id || !same_fields.eq(expected.map(|(name, value)| (name.as_bytes(), value.as_bytes()))) {
            return Err(
                format!("order {} was acknowledged as {id}, and in its place stands {entry:?}", order.id).into()
            );
        }
    }
    if !ids.is_sorted_by(|low, high| low < high) {
        return Err("ids do not increase".into());
    }
    println!("  ok: all {} acknowledged orders are in the stream, once, in order, byte for byte", ids.len());
    Ok(())
}

/// The history of every order tells that each group has handled it, and tells of each attempt that the consumers
/// remember.
pub(crate) async fn every_order_was_handled(client: &Client, orders: &[Order], groups: &[Group; 2]) -> Outcome<()> {
    let histories = futures::stream::iter(orders).map(async |order| {
        let events: Vec<Entry> = client.range_all(Range::of(history(&order.id))).try_collect().await?;
        for group in groups {
            let told = events.iter().filter(|event| is(event, group.handled)).count();
            let remembered = group.tally().handled.get(&order.id).copied().unwrap_or(0);
            if told == 0 || told != remembered as usize {
                let Order { id, .. } = order;
                return Err(format!("{id}: {} {remembered} times, {told} times in its history", group.handled).into());
            }
        }
        Outcome::Ok(events.len())
    });
    let events: usize = histories.buffer_unordered(READS_AT_ONCE).try_fold(0, async |sum, next| Ok(sum + next)).await?;
    println!("  ok: each group has handled each order at least once: {events} events in {} histories", orders.len());
    Ok(())
}

/// Replays the order that took most attempts.
pub(crate) async fn history_can_be_replayed(
    client: &Client,
    orders: &[Order],
    ids: &[EntryId],
    groups: &[Group],
) -> Outcome<()> {
    let failures = |order: &Order| groups.iter().map(|group| group.tally().failed.get(&order.id).copied()).sum();
    let hardest = orders.iter().zip(ids).max_by_key(|(order, _)| -> Option<u32> { failures(order) });
    let Some((order, id)) = hardest else { return Err("no orders".into()) };
    let only = Range::of(ORDERS).start(Bound::Included(*id)).end(Bound::Included(*id));
    let placed = client.range(only).await?.entries;
    if placed.len() != 1 || placed[0].get("order").is_none_or(|json| json != order.json.as_bytes()) {
        return Err(format!("{id} is not {}", order.id).into());
    }
    println!("  ok: the history of {} can be replayed by range:", order.id);
    println!("      {id} placed: {}", order.json.chars().take(80).collect::<String>());
    for event in client.range(Range::of(history(&order.id))).await?.entries {
        let text = |name| event.get(name).map(|value| String::from_utf8_lossy(value)).unwrap_or_default();
        println!("      {} {} by {}", event.id, text("event"), text("by"));
    }
    Ok(())
}

fn is(event: &Entry, what: &str) -> bool {
    event.get("event").is_some_and(|event| event == what.as_bytes())
}
