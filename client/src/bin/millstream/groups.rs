//! `group …` and `read-group`.

use std::time::Duration;

use clap::{Args, Subcommand};
use millstream_client::{Client, ConsumerPage, CreateGroup, GroupPage, GroupPosition, Operation, OperationResult};
use serde_json::json;

use crate::Failure;
use crate::operation::{Verb, mismatch};
use crate::output::Output;
use crate::parse::{self, From, ReadFrom};

/// Consumer groups.
#[derive(Subcommand)]
pub(crate) enum Group {
    /// Creates a group (XGROUP CREATE)
    Create {
        /// The stream
        stream: String,
        /// The group
        group: String,
        /// Where to start: after this id, 0 for the first entry, or $ for new ones
        #[arg(default_value = "$", value_parser = parse::group_position)]
        position: GroupPosition,
        /// Create the stream if it is missing
        #[arg(long)]
        create_stream: bool,
        /// How many entries the group counts as read, for its lag
        #[arg(long, value_name = "N")]
        entries_read: Option<u64>,
    },
    /// Removes a group with its pending entries (XGROUP DESTROY)
    Destroy {
        /// The stream
        stream: String,
        /// The group
        group: String,
    },
    /// Moves a group's position (XGROUP SETID)
    SetId {
        /// The stream
        stream: String,
        /// The group
        group: String,
        /// Go on after this id, or with new entries ($)
        #[arg(value_parser = parse::group_position)]
        position: GroupPosition,
        /// How many entries the group counts as read, for its lag
        #[arg(long, value_name = "N")]
        entries_read: Option<u64>,
    },
    /// Lists the groups of a stream (XINFO GROUPS)
    List {
        /// The stream
        stream: String,
    },
    /// Lists the consumers of a group (XINFO CONSUMERS)
    Consumers {
        /// The stream
        stream: String,
        /// The group
        group: String,
    },
    /// Creates a consumer (XGROUP CREATECONSUMER)
    CreateConsumer {
        /// The stream
        stream: String,
        /// The group
        group: String,
        /// The consumer
        consumer: String,
    },
    /// Removes a consumer and drops its pending entries (XGROUP DELCONSUMER)
    DeleteConsumer {
        /// The stream
        stream: String,
        /// The group
        group: String,
        /// The consumer
        consumer: String,
    },
}

impl Group {
    /// All pages of a list; the other verbs have none.
    pub(crate) async fn all_pages(&self, client: &Client) -> Result<Option<OperationResult>, Failure> {
        Ok(match self {
            Group::List { stream } => {
                let groups = client.list_groups_all(stream).await?;
                Some(OperationResult::ListGroups(GroupPage { groups, next: None }))
            }
            Group::Consumers { stream, group } => {
                let consumers = client.list_consumers_all(stream, group).await?;
                Some(OperationResult::ListConsumers(ConsumerPage { consumers, next: None }))
            }
            _ => None,
        })
    }
}

impl Verb for Group {
    fn operation(&self) -> Result<Operation, Failure> {
        Ok(match self {
            Group::Create { stream, group, position, create_stream, entries_read } => {
                let mut create = CreateGroup::new(stream, group, *position);
                if *create_stream {
                    create = create.create_stream();
                }
                if let Some(entries) = entries_read {
                    create = create.entries_read(*entries);
                }
                create.into()
            }
            Group::Destroy { stream, group } => Operation::delete_group(stream, group),
            Group::SetId { stream, group, position, entries_read } => {
                Operation::set_group_position(stream, group, *position, *entries_read)
            }
            Group::List { stream } => Operation::list_groups(stream, None),
            Group::Consumers { stream, group } => Operation::list_consumers(stream, group, None),
            Group::CreateConsumer { stream, group, consumer } => Operation::create_consumer(stream, group, consumer),
            Group::DeleteConsumer { stream, group, consumer } => Operation::delete_consumer(stream, group, consumer),
        })
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        let mut more = false;
        match result {
            OperationResult::CreateGroup(receipt) => {
                out.result("created", json!({ "log_index": receipt.log_index }))?;
            }
            OperationResult::DeleteGroup(done) => {
                let text = if done.existed { "deleted" } else { "there was no such group" };
                out.result(text, json!({ "deleted": done.existed, "log_index": done.receipt.log_index }))?;
            }
            OperationResult::SetGroupPosition(receipt) => {
                out.result("moved", json!({ "log_index": receipt.log_index }))?;
            }
            OperationResult::ListGroups(page) => {
                let rows = page.groups.into_iter().map(|info| {
                    let last = info.last_delivered_id.to_string().into();
                    let (consumers, pending) = (info.consumers.into(), info.pending.into());
                    let (read, lag, released) = (info.entries_read.into(), info.lag.into(), info.released.into());
                    [info.group.into(), consumers, pending, released, last, read, lag]
                });
                let header = ["group", "consumers", "pending", "released", "last_delivered_id", "entries_read", "lag"];
                out.table(header, rows.collect())?;
                more = page.next.is_some();
            }
            OperationResult::ListConsumers(page) => {
                let rows = page.consumers.into_iter().map(|info| {
                    [info.consumer.into(), info.pending.into(), info.idle_ms.into(), info.inactive_ms.into()]
                });
                out.table(["consumer", "pending", "idle_ms", "inactive_ms"], rows.collect())?;
                more = page.next.is_some();
            }
            OperationResult::CreateConsumer(done) => {
                let text = if done.created { "created" } else { "it exists already" };
                out.result(text, json!({ "created": done.created, "log_index": done.receipt.log_index }))?;
            }
            OperationResult::DeleteConsumer(done) => {
                let text = format!("deleted, with {} pending entries", done.pending);
                out.result(text, json!({ "pending": done.pending, "log_index": done.receipt.log_index }))?;
            }
            _ => return Err(mismatch()),
        }
        if more {
            out.more()?;
        }
        Ok(())
    }
}

/// Delivers entries to a consumer of a group (XREADGROUP)
#[derive(Args)]
pub(crate) struct ReadGroup {
    /// The group, the same on every stream
    group: String,
    /// The consumer; created if missing
    consumer: String,
    /// > for entries never delivered (quote it), or an id for the consumer's own pending entries after it
    #[arg(value_name = "STREAM=ID", required = true, value_parser = parse::group_read_from)]
    streams: Vec<ReadFrom>,
    /// At most N entries of each stream [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// At most N entries of all streams together; not fewer than --count [default: no limit of its own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=640_000))]
    total_count: Option<u32>,
    /// At most this many bytes of fields of all streams together, but at least one entry [default: the server's limit]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    max_bytes: Option<u64>,
    /// Before new entries, deliver pending ones of any consumer that were not delivered for at least MS milliseconds,
    /// or that were given back; with --claim, entries tell how often they were delivered before
    #[arg(long, value_name = "MS")]
    claim: Option<u64>,
    /// If nothing is there, wait up to MS milliseconds; 0 is an hour
    #[arg(long, value_name = "MS", value_parser = parse::block)]
    block: Option<Duration>,
    /// Count as acknowledged on delivery
    #[arg(long)]
    no_ack: bool,
}

impl Verb for ReadGroup {
    fn operation(&self) -> Result<Operation, Failure> {
        let mut read = millstream_client::ReadGroup::new(&self.group, &self.consumer).count(self.count.unwrap_or(0));
        for ReadFrom { stream, from } in &self.streams {
            read = match from {
                From::After(id) => read.pending_after(stream, *id),
                From::New | From::Last => read.new_entries(stream),
            };
        }
        if let Some(block) = self.block {
            read = read.wait(block);
        }
        if let Some(ms) = self.claim {
            read = read.claim(Duration::from_millis(ms));
        }
        if self.no_ack {
            read = read.no_ack();
        }
        Ok(read.total_count(self.total_count.unwrap_or(0)).max_bytes(self.max_bytes.unwrap_or(0)).into())
    }

    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure> {
        let OperationResult::ReadGroup(answer) = result else { return Err(mismatch()) };
        let several = 1 < self.streams.len();
        for delivery in &answer.streams {
            for delivered in &delivery.entries {
                out.delivered(several.then_some(&delivery.stream), delivered)?;
            }
        }
        if answer.more {
            out.more()?;
        }
        Ok(())
    }
}
