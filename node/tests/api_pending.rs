//! Pending entries: giving them back, taking them over while waiting, and the lists of who has what.

mod api_support;

use std::time::Duration;

use api_support::{Clients, Node, check_refused, delivered_ids, eventually, history, id, new_entries, seconds};
use millstream_proto::v1 as pb;
use tokio::task::JoinHandle;
use tonic::Status;

fn spawn_read(c: &Clients, request: pb::ReadGroupRequest) -> JoinHandle<Result<pb::ReadGroupResponse, Status>> {
    let mut groups = c.groups.clone();
    tokio::spawn(async move { Ok(groups.read_group(request).await?.into_inner()) })
}

/// Waits for an entry, or for one that has been idle for so long; a test that runs into the deadline has failed.
fn claiming(consumer: &str, min_idle_ms: u64) -> pb::ReadGroupRequest {
    pb::ReadGroupRequest {
        wait: seconds(60),
        count: 1,
        claim_min_idle_ms: Some(min_idle_ms),
        ..new_entries("g", consumer, "s")
    }
}

fn nack(ids: Vec<pb::EntryId>) -> pb::NackRequest {
    pb::NackRequest { stream: "s".into(), group: "g".into(), ids, ..Default::default() }
}

const AN_HOUR_MS: u64 = 3_600_000;

#[tokio::test]
async fn what_is_given_back_belongs_to_nobody_until_it_is_claimed() {
    let node = Node::start(|_| ()).await;
    let mut c = node.clients.clone();
    c.create_group("s", "g").await;
    let (first, second) = (c.append("s", "1").await, c.append("s", "2").await);
    c.deliver("g", "ada", "s").await;
    let answer = c.groups.nack(nack(vec![second, id(1, 1)])).await.expect("given back").into_inner();
    assert_eq!((answer.released, answer.receipt.is_some()), (1, true));
    let own = c.groups.read_group(history("g", "ada", "s")).await.expect("repeated").into_inner();
    assert_eq!(delivered_ids(&own), [first]);
    let list = pb::ListPendingRequest { stream: "s".into(), group: "g".into(), ..Default::default() };
    let rows = c.groups.list_pending(list).await.expect("listed").into_inner().entries;
    assert_eq!((rows[1].id, rows[1].consumer.as_deref(), rows[1].idle_ms), (Some(second), None, None));
    assert!(rows[0].idle_ms.is_some());
    let list = pb::ListGroupsRequest { stream: "s".into(), ..Default::default() };
    let groups = c.groups.list_groups(list).await.expect("listed").into_inner().groups;
    assert_eq!((groups[0].pending, groups[0].released), (2, 1));

    let read = pb::ReadGroupRequest { wait: None, ..claiming("bob", AN_HOUR_MS) };
    let answer = c.groups.read_group(read.clone()).await.expect("claimed").into_inner();
    let delivered = &answer.streams[0].entries[0];
    assert_eq!(delivered_ids(&answer), [second]);
    let before = delivered.redelivery.expect("it says what it was");
    assert_eq!(before.delivery_count, 1);
    assert!(AN_HOUR_MS < before.idle_ms, "since the epoch");
    let third = c.append("s", "3").await;
    let answer = c.groups.read_group(read.clone()).await.expect("delivered").into_inner();
    let redelivery = answer.streams[0].entries[0].redelivery;
    assert_eq!((delivered_ids(&answer), redelivery), (vec![third], Some(pb::Redelivery::default())));
    assert_eq!(c.groups.read_group(read).await.expect("nothing").into_inner().receipt, None);

    let none = pb::NackRequest { group: "none".into(), ..nack(vec![first]) };
    check_refused(c.groups.nack(none).await, "GROUP_NOT_FOUND", &[("stream", "s"), ("group", "none")]);
}

#[tokio::test]
async fn what_is_given_back_goes_to_those_who_wait_and_claim() {
    let node = Node::start(|_| ()).await;
    let mut c = node.clients.clone();
    c.create_group("s", "g").await;
    let entries = [c.append("s", "1").await, c.append("s", "2").await];
    c.deliver("g", "ada", "s").await;
    // Known already, so that waiting needs no entry in the log.
    for consumer in ["plain", "bob", "eve"] {
        c.deliver("g", consumer, "s").await;
    }
    let plain = spawn_read(&c, pb::ReadGroupRequest { claim_min_idle_ms: None, ..claiming("plain", 0) });
    node.waiting(1).await;
    let bob = spawn_read(&c, claiming("bob", AN_HOUR_MS));
    node.waiting(2).await;
    let eve = spawn_read(&c, claiming("eve", AN_HOUR_MS));
    node.waiting(3).await;
    for (waiter, entry) in [(bob, entries[0]), (eve, entries[1])] {
        c.groups.nack(nack(vec![entry])).await.expect("given back");
        assert_eq!(delivered_ids(&waiter.await.expect("not aborted").expect("claimed")), [entry]);
    }
    let new = c.append("s", "3").await;
    assert_eq!(delivered_ids(&plain.await.expect("not aborted").expect("delivered")), [new]);
}

#[tokio::test]
async fn what_lies_idle_goes_to_those_who_wait_when_its_time_has_come() {
    let node = Node::start(|_| ()).await;
    let c = node.clients.clone();
    c.create_group("s", "g").await;
    let entries = [c.append("s", "1").await, c.append("s", "2").await];
    let delivered = tokio::time::Instant::now();
    c.deliver("g", "ada", "s").await;
    c.deliver("g", "bob", "s").await;
    c.deliver("g", "eve", "s").await;
    let before = node.trace().0;
    let waiters = ["bob", "eve"].map(|consumer| spawn_read(&c, claiming(consumer, 500)));
    let mut claimed = Vec::new();
    for waiter in waiters {
        let answer = waiter.await.expect("not aborted").expect("claimed");
        let redelivery = answer.streams[0].entries[0].redelivery.expect("it says what it was");
        assert!(500 <= redelivery.idle_ms && redelivery.delivery_count == 1, "{redelivery:?}");
        claimed.extend(delivered_ids(&answer));
    }
    claimed.sort_by_key(|id| (id.ms, id.seq));
    assert_eq!(claimed, entries);
    // Both clocks are read, and the wall's is cut to milliseconds.
    assert!(Duration::from_millis(498) <= delivered.elapsed());
    assert!(node.trace().0 <= before + 4, "two claims, and few attempts in vain");
}

#[tokio::test]
async fn a_claim_waits_also_for_entries_that_are_not_yet_delivered() {
    let node = Node::start(|_| ()).await;
    let c = node.clients.clone();
    c.create_group("s", "g").await;
    c.deliver("g", "bob", "s").await;
    let bob = spawn_read(&c, claiming("bob", 300));
    node.waiting(1).await;
    // Nobody who waits gets it: it is delivered within the batch that appends it.
    let append = pb::AppendRequest { fields: vec![api_support::field("f", "v")], ..api_support::append_to("s") };
    let operations = vec![
        api_support::op(pb::batch_operation::Operation::Append(append)),
        api_support::op(pb::batch_operation::Operation::ReadGroup(new_entries("g", "ada", "s"))),
    ];
    c.batches.clone().batch(pb::BatchRequest { operations, ..Default::default() }).await.expect("done");
    let answer = bob.await.expect("not aborted").expect("claimed");
    assert_eq!(answer.streams[0].entries[0].redelivery.map(|before| before.delivery_count), Some(1));
}

#[tokio::test]
async fn a_pending_entry_that_is_gone_keeps_nobody_busy() {
    let node = Node::start(|_| ()).await;
    let mut c = node.clients.clone();
    c.create_group("s", "g").await;
    let entries = [c.append("s", "1").await, c.append("s", "2").await, c.append("s", "3").await];
    c.deliver("g", "ada", "s").await;
    c.deliver("g", "bob", "s").await;
    let ids = vec![entries[0], entries[2]];
    let ack = pb::AckRequest { stream: "s".into(), group: "g".into(), ids, request: None };
    c.groups.ack(ack).await.expect("acknowledged");
    let delete = pb::DeleteEntriesRequest { stream: "s".into(), ids: vec![entries[1]], ..Default::default() };
    c.streams.delete_entries(delete).await.expect("deleted");
    let before = node.trace().0;
    let wait = api_support::millis(1_500);
    let answer = c.groups.read_group(pb::ReadGroupRequest { wait, ..claiming("bob", 0) }).await.expect("nothing");
    assert_eq!(delivered_ids(&answer.into_inner()), []);
    assert!(node.trace().0 <= before + 5, "{} attempts", node.trace().0 - before);
}

#[tokio::test]
async fn those_who_wait_for_what_is_deleted_with_all_are_told() {
    let node = Node::start(|_| ()).await;
    let mut c = node.clients.clone();
    c.create_group("s", "g").await;
    let waiters = [
        spawn_read(&c, claiming("ada", 500)),
        spawn_read(&c, pb::ReadGroupRequest { claim_min_idle_ms: None, ..claiming("bob", 0) }),
    ];
    node.waiting(2).await;
    c.streams.delete_all(pb::DeleteAllRequest::default()).await.expect("deleted");
    for waiter in waiters {
        let answer = waiter.await.expect("not aborted");
        check_refused(answer, "GROUP_NOT_FOUND", &[("stream", "s"), ("group", "g")]);
    }
}

#[tokio::test]
async fn what_is_acknowledged_can_be_removed_with_it() {
    let node = Node::start(|_| ()).await;
    let mut c = node.clients.clone();
    for group in ["g", "other"] {
        c.create_group("s", group).await;
    }
    let entries = [c.append("s", "1").await, c.append("s", "2").await];
    c.deliver("g", "ada", "s").await;
    let call = |references: pb::References, ids| pb::AckAndDeleteRequest {
        stream: "s".into(),
        group: "g".into(),
        ids,
        references: references.into(),
        request: None,
    };
    let [not_found, deleted, referenced] =
        [pb::Removal::NotFound, pb::Removal::Deleted, pb::Removal::Referenced].map(i32::from);
    let acked = call(pb::References::Acked, vec![entries[0]]);
    let answer = c.groups.ack_and_delete(acked).await.expect("answered").into_inner();
    assert_eq!((answer.results, answer.receipt.is_some()), (vec![referenced], true), "the other has yet to read it");
    let keep = call(pb::References::Keep, vec![entries[0], entries[1]]);
    let answer = c.groups.ack_and_delete(keep).await.expect("answered").into_inner();
    assert_eq!(answer.results, [not_found, deleted]);
    assert_eq!(c.ids("s").await, [entries[0]]);
    let missing = pb::AckAndDeleteRequest { group: "none".into(), ..call(pb::References::Keep, vec![entries[0]]) };
    assert_eq!(c.groups.ack_and_delete(missing).await.expect("answered").into_inner().results, [not_found]);
}

#[tokio::test]
async fn groups_and_consumers_come_in_pages_and_may_have_empty_names() {
    for response_bytes_max in [2 << 20, 150] {
        let node = Node::start(|config| config.limits.response_bytes_max = response_bytes_max).await;
        let mut c = node.clients.clone();
        let names = ["", "a", "b", "c", "d"];
        for name in names {
            c.create_group("s", name).await;
            c.deliver("", name, "s").await;
        }
        for page_size in [0, 1, 2, 5, 9] {
            let (mut groups, mut consumers) = (Vec::new(), Vec::new());
            let mut page_token = Default::default();
            loop {
                let list = pb::ListGroupsRequest { stream: "s".into(), page_size, page_token, options: None };
                let page = c.groups.list_groups(list).await.expect("a page").into_inner();
                groups.extend(page.groups.into_iter().map(|info| info.group));
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            loop {
                let list = pb::ListConsumersRequest {
                    stream: "s".into(),
                    group: String::new(),
                    page_size,
                    page_token,
                    options: None,
                };
                let page = c.groups.list_consumers(list).await.expect("a page").into_inner();
                consumers.extend(page.consumers.into_iter().map(|info| info.consumer));
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            assert_eq!((&groups[..], &consumers[..]), (&names.map(str::to_owned)[..], &names.map(str::to_owned)[..]));
        }
    }
}

#[tokio::test]
async fn a_batch_that_leaves_nothing_wakes_nobody_for_good() {
    let node = Node::start(|_| ()).await;
    let mut c = node.clients.clone();
    c.create_group("s", "g").await;
    c.deliver("g", "ada", "s").await;
    let ada = spawn_read(&c, pb::ReadGroupRequest { claim_min_idle_ms: None, ..claiming("ada", 0) });
    node.waiting(1).await;
    let fields = vec![api_support::field("f", "v")];
    let explicit = pb::new_entry_id::Choice::Explicit(id(7, 0));
    let append = pb::AppendRequest {
        fields,
        id: Some(pb::NewEntryId { choice: Some(explicit) }),
        ..api_support::append_to("s")
    };
    let delete = pb::DeleteEntriesRequest { stream: "s".into(), ids: vec![id(7, 0)], ..Default::default() };
    let operations = vec![
        api_support::op(pb::batch_operation::Operation::Append(append)),
        api_support::op(pb::batch_operation::Operation::DeleteEntries(delete)),
    ];
    let before = node.trace().0;
    c.batches.batch(pb::BatchRequest { operations, ..Default::default() }).await.expect("done");
    eventually("the batch", || node.trace().0 == before + 1).await;
    node.waiting(1).await;
    let entry = c.append("s", "x").await;
    assert_eq!(delivered_ids(&ada.await.expect("not aborted").expect("delivered")), [entry]);
}
