//! `group …` and `read-group`.

use std::time::Duration;

use clap::{Args, Subcommand};
use millstream_client::{Client, CreateGroup, GroupPosition};
use serde_json::json;

use crate::Failure;
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
    pub(crate) async fn run(self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        match self {
            Group::Create { stream, group, position, create_stream, entries_read } => {
                let mut create = CreateGroup::new(stream, group, position);
                if create_stream {
                    create = create.create_stream();
                }
                if let Some(entries) = entries_read {
                    create = create.entries_read(entries);
                }
                let receipt = client.create_group(create).await?;
                out.result("created", json!({ "log_index": receipt.log_index }))?;
            }
            Group::Destroy { stream, group } => {
                let done = client.delete_group(stream, group).await?;
                let text = if done.existed { "deleted" } else { "there was no such group" };
                out.result(text, json!({ "deleted": done.existed, "log_index": done.receipt.log_index }))?;
            }
            Group::SetId { stream, group, position, entries_read } => {
                let receipt = client.set_group_position(stream, group, position, entries_read).await?;
                out.result("moved", json!({ "log_index": receipt.log_index }))?;
            }
            Group::List { stream } => {
                let rows = client.list_groups(stream).await?.into_iter().map(|info| {
                    let last = info.last_delivered_id.to_string().into();
                    let (consumers, pending) = (info.consumers.into(), info.pending.into());
                    [info.group.into(), consumers, pending, last, info.entries_read.into(), info.lag.into()]
                });
                let header = ["group", "consumers", "pending", "last_delivered_id", "entries_read", "lag"];
                out.table(header, rows.collect())?;
            }
            Group::Consumers { stream, group } => {
                let rows = client.list_consumers(stream, group).await?.into_iter().map(|info| {
                    [info.consumer.into(), info.pending.into(), info.idle_ms.into(), info.inactive_ms.into()]
                });
                out.table(["consumer", "pending", "idle_ms", "inactive_ms"], rows.collect())?;
            }
            Group::CreateConsumer { stream, group, consumer } => {
                let done = client.create_consumer(stream, group, consumer).await?;
                let text = if done.created { "created" } else { "it exists already" };
                out.result(text, json!({ "created": done.created, "log_index": done.receipt.log_index }))?;
            }
            Group::DeleteConsumer { stream, group, consumer } => {
                let done = client.delete_consumer(stream, group, consumer).await?;
                let text = format!("deleted, with {} pending entries", done.pending);
                out.result(text, json!({ "pending": done.pending, "log_index": done.receipt.log_index }))?;
            }
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
    /// At most N entries of each stream
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: Option<u32>,
    /// If nothing is there, wait up to MS milliseconds; 0 is an hour
    #[arg(long, value_name = "MS", value_parser = parse::block)]
    block: Option<Duration>,
    /// Count as acknowledged on delivery
    #[arg(long)]
    no_ack: bool,
}

impl ReadGroup {
    pub(crate) async fn run(self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        let Self { group, consumer, streams, count, block, no_ack } = self;
        let several = 1 < streams.len();
        let mut read = millstream_client::ReadGroup::new(group, consumer).count(count.unwrap_or(0));
        for ReadFrom { stream, from } in streams {
            read = match from {
                From::After(id) => read.pending_after(stream, id),
                From::New | From::Last => read.new_entries(stream),
            };
        }
        if let Some(block) = block {
            read = read.wait(block);
        }
        if no_ack {
            read = read.no_ack();
        }
        for delivery in client.read_group(read).await? {
            for delivered in &delivery.entries {
                let stream = several.then_some(delivery.stream.as_str());
                if delivered.deleted {
                    let id = delivered.entry.id.to_string();
                    let text = [stream.unwrap_or_default(), &id, "(deleted)"].join(" ");
                    let json = json!({ "stream": delivery.stream, "id": id, "deleted": true });
                    out.result(text.trim_start(), json)?;
                } else {
                    out.entry(stream, &delivered.entry)?;
                }
            }
        }
        Ok(())
    }
}
