//! Every rpc has a method of the client, and answers that need more than a copy are understood.

mod support;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::Duration;

use futures::TryStreamExt;
use millstream_client::{
    AckAndDelete, Append, AutoClaim, Batch, Claim, ConfigureStream, CreateGroup, DeleteEntries, EntryId, Error,
    ErrorReason, GroupPosition, InspectStream, ListPending, Nack, Operation, OperationResult, Range, Read, ReadGroup,
    Removal, SetLastId, Trim,
};
use prost::Message;
use support::{Cluster, Step};

/// `Append` as `append`, `DeleteEntries` as `delete_entries`.
fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[tokio::test(start_paused = true)]
async fn every_rpc_has_a_method() {
    let cluster = Cluster::new(&["a:1"]);
    let client = cluster.client(&["a:1"]);
    let id = EntryId::new(1, 1);
    // What the fakes answer does not matter here: only what they were asked.
    let _ = client.append(Append::to("s").field("f", "v")).await;
    let _ = client.range(Range::of("s")).await;
    let _ = client.read(Read::new().after("s", id)).await;
    let _ = client.delete_entries(DeleteEntries::of("s", [id])).await;
    let _ = client.trim("s", Trim::max_length(1)).await;
    let _ = client.get_stream("s").await;
    let _ = client.inspect_stream(InspectStream::of("s")).await;
    let _ = client.set_last_id(SetLastId::new("s", id)).await;
    let _ = client.configure_stream(ConfigureStream::of("s").idempotency_keys_max(1)).await;
    let _ = client.record_idempotency("s", "p", "k", id).await;
    let _ = client.list_streams("", None).await;
    let _ = client.delete_stream("s").await;
    let _ = client.delete_all().await;
    let _ = client.create_group(CreateGroup::new("s", "g", GroupPosition::End)).await;
    let _ = client.set_group_position("s", "g", GroupPosition::End, None).await;
    let _ = client.delete_group("s", "g").await;
    let _ = client.create_consumer("s", "g", "c").await;
    let _ = client.delete_consumer("s", "g", "c").await;
    let _ = client.read_group(ReadGroup::new("g", "c").new_entries("s")).await;
    let _ = client.ack("s", "g", [id]).await;
    let _ = client.ack_and_delete(AckAndDelete::new("s", "g", [id])).await;
    let _ = client.nack(Nack::new("s", "g", [id])).await;
    let _ = client.claim(Claim::new("s", "g", "c").ids([id])).await;
    let _ = client.auto_claim(AutoClaim::new("s", "g", "c", Duration::ZERO)).await;
    let _ = client.get_pending("s", "g").await;
    let _ = client.list_pending(ListPending::of("s", "g")).await;
    let _ = client.list_groups("s", None).await;
    let _ = client.list_consumers("s", "g", None).await;
    let _ = client.batch(Batch::new().add(Operation::delete_all())).await;
    let _ = client.close().await;

    let files = prost_types::FileDescriptorSet::decode(millstream_proto::DESCRIPTORS).expect("descriptors");
    let public = files.file.iter().filter(|file| file.package() == "millstream.v1");
    let methods = public.flat_map(|file| &file.service).flat_map(|service| &service.method);
    let expected: BTreeSet<String> = methods.map(|method| snake(method.name())).collect();
    let unused: Vec<&String> = expected.iter().filter(|call| cluster.seen(call).is_empty()).collect();
    assert!(unused.is_empty(), "not called: {unused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_batch_is_asked_for_again_under_the_same_number() {
    let cluster = Cluster::new(&["a:1", "b:1"]);
    cluster.script("a:1", "batch", [Step::Cut]);
    let client = cluster.client(&["a:1", "b:1"]);
    let batch = Batch::new()
        .absent("orders")
        .add(Append::to("orders").field("item", "tea"))
        .add(Operation::ack("orders", "g", [EntryId::new(1, 1)]))
        .add(Operation::get_stream("orders"));
    let done = client.batch(batch).await.expect("done");
    assert_eq!(cluster.told("batch"), ["a:1:100/1<1", "b:1:100/1<1"]);
    assert_eq!((done.receipt.log_index, done.results.len()), (17, 3));
    let Ok(OperationResult::Append(appended)) = &done.results[0] else { panic!("{done:?}") };
    assert_eq!((appended.id, appended.receipt), (EntryId::new(1, 1), done.receipt));
    let Err(error @ Error::Refused { reason: ErrorReason::GroupNotFound, .. }) = &done.results[1] else {
        panic!("{done:?}")
    };
    assert_eq!(error.metadata("group"), Some("g"));
    let Ok(OperationResult::GetStream(info)) = &done.results[2] else { panic!("{done:?}") };
    assert_eq!(info.stream, "orders");
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_does_not_hold_is_a_refusal_with_its_facts() {
    let cluster = Cluster::new(&["a:1"]);
    let facts: &[_] = &[("guard", "0"), ("last_change_index", "9")];
    cluster.script("a:1", "batch", [Step::Refuse(ErrorReason::GuardFailed, facts)]);
    let batch = Batch::new().unchanged("orders", 5).add(Operation::delete_stream("orders"));
    let error = cluster.client(&["a:1"]).batch(batch).await.expect_err("refused");
    assert_eq!((error.reason(), error.metadata("last_change_index")), (Some(ErrorReason::GuardFailed), Some("9")));
    assert!(!error.is_retryable() && error.has_no_side_effects());
}

#[tokio::test(start_paused = true)]
async fn an_operation_by_itself_is_its_own_call() {
    let cluster = Cluster::new(&["a:1"]);
    let client = cluster.client(&["a:1"]);
    let result = client.perform(Nack::new("s", "g", [EntryId::new(1, 1)]).into()).await.expect("done");
    let OperationResult::Nack(nacked) = result else { panic!("{result:?}") };
    assert_eq!(nacked.released, 2);
    assert_eq!(cluster.told("nack"), ["a:1:100/1<1"]);
    assert!(cluster.seen("batch").is_empty());
}

#[tokio::test(start_paused = true)]
async fn lists_of_groups_are_read_page_by_page() {
    let cluster = Cluster::new(&["a:1"]);
    let client = cluster.client(&["a:1"]);
    let page = client.list_groups("s", None).await.expect("listed");
    assert_eq!(page.groups.len(), 1);
    let groups = client.list_groups_all("s").await.expect("listed");
    let names: Vec<&str> = groups.iter().map(|info| info.group.as_str()).collect();
    assert_eq!(names, ["0", "1", "2"]);
    assert!(groups.iter().all(|info| info.released == 1));
}

#[tokio::test(start_paused = true)]
async fn pending_entries_are_listed_page_by_page() {
    let cluster = Cluster::new(&["a:1"]);
    let client = cluster.client(&["a:1"]);
    let id = |seq| EntryId::new(1, seq);
    let first = client.list_pending(ListPending::of("s", "g")).await.expect("listed");
    assert_eq!((first.entries.len(), first.more, first.next_start), (1, true, None));
    assert_eq!(first.next(), Some(Bound::Excluded(id(1))));
    // Without a single entry, the next page begins where the store says.
    let start = first.next().expect("more");
    let second = client.list_pending(ListPending::of("s", "g").start(start)).await.expect("listed");
    assert_eq!((second.entries.len(), second.next()), (0, Some(Bound::Included(id(5)))));

    let all: Vec<_> = client.list_pending_all(ListPending::of("s", "g")).try_collect().await.expect("listed");
    assert_eq!(all.iter().map(|pending| pending.id).collect::<Vec<_>>(), [id(1), id(9)]);
    assert_eq!(cluster.seen("list_pending").len(), 5);
}

#[tokio::test(start_paused = true)]
async fn answers_that_were_full_say_so() {
    let cluster = Cluster::new(&["a:1"]);
    let client = cluster.client(&["a:1"]);
    let id = EntryId::new(1, 1);
    let read = client.read(Read::new().after("orders", id).after("refunds", id)).await.expect("read");
    assert_eq!(read.iter().map(|read| (read.more, read.next_after)).collect::<Vec<_>>(), [(true, id), (false, id)]);
    let delivered = client.read_group(ReadGroup::new("g", "c").new_entries("orders")).await.expect("delivered");
    assert_eq!((delivered.streams.len(), delivered.more, delivered.receipt), (1, true, None));
    assert!(client.claim(Claim::new("s", "g", "c").ids([id])).await.expect("claimed").more);
    assert!(client.get_pending("s", "g").await.expect("summarised").more_consumers);
}

#[tokio::test(start_paused = true)]
async fn each_id_has_its_result() {
    let cluster = Cluster::new(&["a:1"]);
    let ids = [EntryId::new(1, 1), EntryId::new(1, 2), EntryId::new(1, 3)];
    let done = cluster.client(&["a:1"]).delete_entries(DeleteEntries::of("s", ids)).await.expect("done");
    assert_eq!((done.deleted, done.results), (1, vec![Removal::Deleted, Removal::NotFound, Removal::Referenced]));
}
