//! The calls that manage and list groups and consumers.

use bytes::Bytes;
use millstream_proto::v1 as pb;

use crate::types::{Answer, id, receipt, to_id};
use crate::{Client, ConsumerInfo, EntryId, Error, Receipt, requests};

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupPosition {
    /// Delivers entries with ids greater than this; 0-0 means from the first.
    After(EntryId),
    /// Delivers entries appended from now on (`$`).
    End,
}

impl From<GroupPosition> for pb::GroupPosition {
    fn from(position: GroupPosition) -> Self {
        let position = match position {
            GroupPosition::After(id) => pb::group_position::Position::After(to_id(id)),
            GroupPosition::End => pb::group_position::Position::End(true),
        };
        Self { position: Some(position) }
    }
}

/// A group to create (XGROUP CREATE).
#[derive(Debug, Clone, PartialEq)]
pub struct CreateGroup(pub(crate) pb::CreateGroupRequest);

impl CreateGroup {
    /// A group of `stream`.
    pub fn new(stream: impl Into<String>, group: impl Into<String>, position: GroupPosition) -> Self {
        let position = Some(position.into());
        Self(pb::CreateGroupRequest { stream: stream.into(), group: group.into(), position, ..Default::default() })
    }

    /// Creates the stream if it is missing (MKSTREAM).
    pub fn create_stream(mut self) -> Self {
        self.0.create_stream = true;
        self
    }

    /// How many entries the group counts as read, for its lag. Default: unknown.
    pub fn entries_read(mut self, entries: u64) -> Self {
        self.0.entries_read = Some(entries);
        self
    }
}

impl Answer for pb::CreateGroupResponse {
    type Value = Receipt;

    fn value(self) -> Receipt {
        receipt(self.receipt)
    }
}

impl Answer for pb::SetGroupPositionResponse {
    type Value = Receipt;

    fn value(self) -> Receipt {
        receipt(self.receipt)
    }
}

/// What became of a group's deletion (XGROUP DESTROY).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupDeleted {
    /// Whether it existed.
    pub existed: bool,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

impl Answer for pb::DeleteGroupResponse {
    type Value = GroupDeleted;

    fn value(self) -> GroupDeleted {
        GroupDeleted { existed: self.deleted, receipt: receipt(self.receipt) }
    }
}

/// A consumer exists (XGROUP CREATECONSUMER).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerCreated {
    /// Whether this call created it.
    pub created: bool,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

impl Answer for pb::CreateConsumerResponse {
    type Value = ConsumerCreated;

    fn value(self) -> ConsumerCreated {
        ConsumerCreated { created: self.created, receipt: receipt(self.receipt) }
    }
}

/// A consumer is gone (XGROUP DELCONSUMER).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerDeleted {
    /// How many pending entries were dropped with it.
    pub pending: u64,
    /// Where the command stands in the log.
    pub receipt: Receipt,
}

impl Answer for pb::DeleteConsumerResponse {
    type Value = ConsumerDeleted;

    fn value(self) -> ConsumerDeleted {
        ConsumerDeleted { pending: self.pending, receipt: receipt(self.receipt) }
    }
}

/// One group of a stream (XINFO GROUPS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// The group's name.
    pub group: String,
    /// Number of consumers.
    pub consumers: u64,
    /// Number of pending entries.
    pub pending: u64,
    /// The last delivered id.
    pub last_delivered_id: EntryId,
    /// How many entries the group has read; `None` if unknown.
    pub entries_read: Option<u64>,
    /// How many entries wait to be delivered; `None` if unknown.
    pub lag: Option<u64>,
    /// Number of pending entries that were given back and belong to nobody.
    pub released: u64,
}

/// Some groups of a stream, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPage {
    /// The groups.
    pub groups: Vec<GroupInfo>,
    /// For the next page; `None` after the last.
    pub next: Option<Bytes>,
}

impl Answer for pb::ListGroupsResponse {
    type Value = GroupPage;

    fn value(self) -> GroupPage {
        let groups = self.groups.into_iter().map(|info| GroupInfo {
            group: info.group,
            consumers: info.consumers,
            pending: info.pending,
            last_delivered_id: id(info.last_delivered_id),
            entries_read: info.entries_read,
            lag: info.lag,
            released: info.released,
        });
        GroupPage { groups: groups.collect(), next: next(self.next_page_token) }
    }
}

/// Some consumers of a group, by name.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerPage {
    /// The consumers.
    pub consumers: Vec<ConsumerInfo>,
    /// For the next page; `None` after the last.
    pub next: Option<Bytes>,
}

impl Answer for pb::ListConsumersResponse {
    type Value = ConsumerPage;

    fn value(self) -> ConsumerPage {
        ConsumerPage { consumers: self.consumers, next: next(self.next_page_token) }
    }
}

fn next(token: Bytes) -> Option<Bytes> {
    Some(token).filter(|token| !token.is_empty())
}

impl Client {
    /// Creates a group.
    pub async fn create_group(&self, create: CreateGroup) -> Result<Receipt, Error> {
        self.ask(create.0).await
    }

    /// Moves a group's position; pending entries stay. `entries_read`: how many entries the group counts as read;
    /// `None` if unknown (XGROUP SETID).
    pub async fn set_group_position(
        &self,
        stream: impl Into<String>,
        group: impl Into<String>,
        position: GroupPosition,
        entries_read: Option<u64>,
    ) -> Result<Receipt, Error> {
        self.ask(requests::set_group_position(stream, group, position, entries_read)).await
    }

    /// Removes a group with its pending entries.
    pub async fn delete_group(
        &self,
        stream: impl Into<String>,
        group: impl Into<String>,
    ) -> Result<GroupDeleted, Error> {
        self.ask(requests::delete_group(stream, group)).await
    }

    /// Creates a consumer. Reading as an unknown consumer creates it too.
    pub async fn create_consumer(
        &self,
        stream: impl Into<String>,
        group: impl Into<String>,
        consumer: impl Into<String>,
    ) -> Result<ConsumerCreated, Error> {
        self.ask(requests::create_consumer(stream, group, consumer)).await
    }

    /// Removes a consumer and drops its pending entries: claim them first if they matter.
    pub async fn delete_consumer(
        &self,
        stream: impl Into<String>,
        group: impl Into<String>,
        consumer: impl Into<String>,
    ) -> Result<ConsumerDeleted, Error> {
        self.ask(requests::delete_consumer(stream, group, consumer)).await
    }

    /// Lists the groups of a stream by name, at most 1,000: the first page, or the one after a page whose
    /// [`GroupPage::next`] is `page`.
    pub async fn list_groups(&self, stream: impl Into<String>, page: Option<Bytes>) -> Result<GroupPage, Error> {
        self.ask(requests::list_groups(stream, page)).await
    }

    /// Lists all groups of a stream by name. The pages are read at different times: groups created or removed meanwhile
    /// may or may not be there.
    pub async fn list_groups_all(&self, stream: impl Into<String>) -> Result<Vec<GroupInfo>, Error> {
        let stream = stream.into();
        let (mut groups, mut page) = (Vec::new(), None);
        loop {
            let answer = self.list_groups(&stream, page).await?;
            groups.extend(answer.groups);
            page = answer.next;
            if page.is_none() {
                return Ok(groups);
            }
        }
    }

    /// Lists the consumers of a group by name, at most 1,000: the first page, or the one after a page whose
    /// [`ConsumerPage::next`] is `page`.
    pub async fn list_consumers(
        &self,
        stream: impl Into<String>,
        group: impl Into<String>,
        page: Option<Bytes>,
    ) -> Result<ConsumerPage, Error> {
        self.ask(requests::list_consumers(stream, group, page)).await
    }

    /// Lists all consumers of a group by name. The pages are read at different times: consumers created or removed
    /// meanwhile may or may not be there.
    pub async fn list_consumers_all(
        &self,
        stream: impl Into<String>,
        group: impl Into<String>,
    ) -> Result<Vec<ConsumerInfo>, Error> {
        let (stream, group) = (stream.into(), group.into());
        let (mut consumers, mut page) = (Vec::new(), None);
        loop {
            let answer = self.list_consumers(&stream, &group, page).await?;
            consumers.extend(answer.consumers);
            page = answer.next;
            if page.is_none() {
                return Ok(consumers);
            }
        }
    }
}
