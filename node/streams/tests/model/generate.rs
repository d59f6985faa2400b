//! Random commands, close enough to each other and to what is there that they meet in every corner.
//!
//! Small domains: three streams, two groups, three consumers, ids around those that are there. The model says what is
//! there. The commands do not depend on it any more once they are made, so that a script can be cut down.

use bytes::Bytes;
use millstream_streams::limits::*;
use millstream_streams::*;

use super::random::Random;
use super::run::Event;
use millstream_streams_model::{Group, Model, Stream};

/// What one run is like.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    /// Entries so large that a block holds two or three of them.
    large_entries: bool,
    /// Checkpoints, and restarts from them.
    restarts: bool,
    /// Ids near the greatest.
    ends: bool,
    /// Idempotent appends, mostly.
    producers: bool,
}

pub(crate) struct Generator {
    random: Random,
    profile: Profile,
    /// What proposers' clocks say. Unlike the state's clock it may step back.
    at_ms: u64,
    names: Names,
}

struct Names {
    streams: Vec<StreamName>,
    groups: Vec<GroupName>,
    consumers: Vec<ConsumerName>,
    producers: Vec<ProducerId>,
    keys: Vec<IdempotencyKey>,
}

#[derive(Clone, Copy)]
enum Kind {
    Append,
    DeleteEntries,
    Trim,
    DeleteStream,
    CreateGroup,
    SetGroupPosition,
    DeleteGroup,
    CreateConsumer,
    DeleteConsumer,
    ReadGroup,
    Ack,
    Claim,
    AutoClaim,
    SetLastId,
    ConfigureStream,
    RecordIdempotency,
    AckAndDelete,
    Nack,
    DeleteAll,
    EnforceRetention,
    Query,
    Batch,
}

const KINDS: &[(u64, Kind)] = &[
    (300, Kind::Append),
    (40, Kind::DeleteEntries),
    (40, Kind::Trim),
    (4, Kind::DeleteStream),
    (40, Kind::CreateGroup),
    (30, Kind::SetGroupPosition),
    (6, Kind::DeleteGroup),
    (10, Kind::CreateConsumer),
    (8, Kind::DeleteConsumer),
    (180, Kind::ReadGroup),
    (50, Kind::Ack),
    (60, Kind::Claim),
    (50, Kind::AutoClaim),
    (20, Kind::SetLastId),
    (15, Kind::ConfigureStream),
    (15, Kind::RecordIdempotency),
    (40, Kind::AckAndDelete),
    (50, Kind::Nack),
    (1, Kind::DeleteAll),
    (25, Kind::EnforceRetention),
    (30, Kind::Query),
    (45, Kind::Batch),
];

impl Generator {
    pub(crate) fn new(seed: u64) -> Generator {
        let mut random = Random::new(seed);
        let profile = Profile {
            large_entries: random.once_in(8),
            restarts: random.once_in(8),
            ends: random.once_in(12),
            producers: random.once_in(6),
        };
        let at_ms = random.pick(&[0, 3, 1000, 5000]);
        let names = Names {
            streams: ["orders", "returns", "log"].map(|name| StreamName::new(name).unwrap()).to_vec(),
            groups: ["billing", ""].map(|name| GroupName::new(name).unwrap()).to_vec(),
            consumers: ["alice", "bob", ""].map(|name| ConsumerName::new(name).unwrap()).to_vec(),
            producers: ["till", "web"].map(|name| ProducerId::new(Bytes::from(name)).unwrap()).to_vec(),
            keys: ["1", "2", "3", "4"].map(|key| IdempotencyKey::new(Bytes::from(key)).unwrap()).to_vec(),
        };
        Generator { random, profile, at_ms, names }
    }

    pub(crate) fn event(&mut self, model: &Model) -> Event {
        if self.profile.restarts && self.random.once_in(12) {
            return if self.random.once_in(3) { Event::Restart } else { Event::Checkpoint };
        }
        self.at_ms = match self.random.below(40) {
            0..20 => self.at_ms,
            20..33 => self.at_ms + self.random.between(1, 9),
            33..36 => self.at_ms + self.random.between(10, 400),
            36 => self.at_ms + self.random.between(400, 2500),
            37 | 38 => self.boundary_ms(model).unwrap_or(self.at_ms),
            _ => self.at_ms.saturating_sub(self.random.between(1, 500)),
        };
        let command = self.command(model);
        let bytes_max = self.answer_bytes_max(&command);
        Event::Propose(Proposal { at_ms: self.at_ms, request: None, command, bytes_max })
    }

    /// When something expires, or a millisecond to either side.
    fn boundary_ms(&mut self, model: &Model) -> Option<u64> {
        let name = self.stream();
        let stream = model.streams.get(&name)?;
        let (id, duration_ms) = match stream.config.retention.max_age_ms {
            Some(max_age_ms) if self.random.once_in(2) => (stream.entries.first()?.id, max_age_ms),
            _ if stream.producers.keys.is_empty() => return None,
            _ => {
                let id = self.random.pick(&stream.producers.keys).id;
                (id, u64::from(stream.config.idempotency_duration_s) * 1000)
            }
        };
        let at_ms = id.ms.checked_add(duration_ms)? + self.random.pick(&[0, 0, 1]) - self.random.below(2);
        // Not so far ahead that all idle times become alike.
        (at_ms < self.at_ms + 3000).then_some(at_ms)
    }

    fn command(&mut self, model: &Model) -> Command {
        let kind = self.random.weighted(KINDS);
        match kind {
            Kind::Batch => self.batch(model).into(),
            kind => self.simple(kind, model),
        }
    }

    fn simple(&mut self, kind: Kind, model: &Model) -> Command {
        let (mut name, mut group) = (self.stream(), self.group());
        // Mostly a group that is there.
        for _ in 0..2 {
            if model.streams.get(&name).is_some_and(|stream| stream.groups.contains_key(&group)) {
                break;
            }
            (name, group) = (self.stream(), self.group());
        }
        let stream = model.streams.get(&name);
        let consumer = self.random.pick(&self.names.consumers);
        let in_vain = self.random.once_in(6);
        match kind {
            Kind::Append => self.append(name, stream).into(),
            Kind::DeleteEntries => {
                let references = self.references();
                DeleteEntries { stream: name, ids: self.ids(stream), references }.into()
            }
            Kind::Trim => Trim { stream: name, policy: self.policy(stream) }.into(),
            Kind::DeleteStream => DeleteStream { stream: name }.into(),
            Kind::CreateGroup => {
                let (position, entries_read) = (self.position(stream), self.entries_read(stream));
                let create_stream = self.random.once_in(2);
                CreateGroup { stream: name, group, position, create_stream, entries_read }.into()
            }
            Kind::SetGroupPosition => {
                let (position, entries_read) = (self.position(stream), self.entries_read(stream));
                SetGroupPosition { stream: name, group, position, entries_read }.into()
            }
            Kind::DeleteGroup => DeleteGroup { stream: name, group }.into(),
            Kind::CreateConsumer => CreateConsumer { stream: name, group, consumer }.into(),
            Kind::DeleteConsumer => DeleteConsumer { stream: name, group, consumer }.into(),
            Kind::ReadGroup => self.read_group(group, consumer, model).into(),
            Kind::Ack => Ack { stream: name, group, ids: self.ids(stream) }.into(),
            Kind::AckAndDelete => {
                let references = self.references();
                AckAndDelete { stream: name, group, ids: self.ids(stream), references }.into()
            }
            Kind::Nack => Nack {
                stream: name,
                group,
                ids: self.ids(stream),
                mode: self.random.pick(&[NackMode::Silent, NackMode::Fail, NackMode::Fail, NackMode::Fatal]),
                delivery_count: self.delivery_count(),
                force: self.random.once_in(3),
            }
            .into(),
            Kind::Claim => Claim {
                min_idle_ms: self.min_idle_ms(model.clock_ms, stream, &group),
                stream: name,
                group,
                consumer,
                ids: if self.random.once_in(30) { Vec::new() } else { self.ids(stream) },
                delivery_time: match self.random.below(6) {
                    0 => DeliveryTime::IdleMs(self.random.below(20)),
                    1 => DeliveryTime::IdleMs(self.random.below(10_000)),
                    2 => DeliveryTime::UnixMs(self.random.below(model.clock_ms + 20)),
                    3 => DeliveryTime::UnixMs(self.random.pick(&[0, u64::MAX])),
                    _ => DeliveryTime::Now,
                },
                delivery_count: self.delivery_count(),
                force: self.random.once_in(3),
                ids_only: self.random.once_in(3),
                last_id: self.random.once_in(5).then(|| self.id(stream)),
            }
            .into(),
            Kind::AutoClaim => AutoClaim {
                min_idle_ms: if in_vain { 10_000_000 } else { self.min_idle_ms(model.clock_ms, stream, &group) },
                stream: name,
                group,
                consumer,
                start: if in_vain || self.random.once_in(2) { EntryId::MIN } else { self.id(stream) },
                count: match self.random.below(40) {
                    // Many are looked at in vain.
                    _ if in_vain => 1,
                    0 => 0,
                    1 => COUNT_MAX + 1,
                    2 | 3 => COUNT_MAX,
                    _ => self.random.between(1, 4) as u32,
                },
                ids_only: self.random.once_in(3),
            }
            .into(),
            Kind::SetLastId => self.set_last_id(name, stream).into(),
            Kind::ConfigureStream => self.configure_stream(name, model).into(),
            Kind::RecordIdempotency => RecordIdempotency {
                stream: name,
                producer: self.random.pick(&self.names.producers),
                key: self.random.pick(&self.names.keys),
                id: self.id(stream),
            }
            .into(),
            Kind::DeleteAll => DeleteAll {}.into(),
            Kind::EnforceRetention => {
                let count = if self.random.once_in(20) { 0 } else { self.random.between(1, 3) };
                EnforceRetention { streams: (0..count).map(|_| self.stream()).collect() }.into()
            }
            Kind::Query => self.query(name, group, consumer, model).into(),
            // Not in a batch; and a batch in a batch cannot even be written down.
            Kind::Batch => OpenSession {}.into(),
        }
    }

    fn append(&mut self, stream: StreamName, there: Option<&Stream>) -> Append {
        let last_id = there.map_or(EntryId::MIN, |there| there.last_id);
        let id = match self.random.below(20) {
            0 => NewId::Explicit(self.id(there)),
            1..5 => NewId::Explicit(near_after(last_id, &mut self.random)),
            5 => NewId::Ms(last_id.ms),
            6 => NewId::Ms(self.random.below(self.at_ms + 10)),
            _ => NewId::Auto,
        };
        let often = if self.profile.producers { 2 } else { 12 };
        let keyed = self.random.once_in(often) && (id == NewId::Auto || self.random.once_in(30));
        let idempotency = keyed.then(|| Idempotency {
            producer: self.random.pick(&self.names.producers),
            key: if self.random.once_in(3) { None } else { Some(self.random.pick(&self.names.keys)) },
        });
        let crowded = there.is_some_and(|there| there.entries.len() > 20);
        let trim = self.random.once_in(if crowded { 2 } else { 10 }).then(|| self.policy(there));
        let (fields, no_create) = (self.fields(), self.random.once_in(8));
        Append { stream, id, fields, no_create, trim, idempotency }
    }

    fn fields(&mut self) -> Fields {
        let random = &mut self.random;
        if self.profile.large_entries && !random.once_in(4) {
            let size = random.pick(&[3000, 4000, 5000, 13_000]);
            return Fields::from_pairs([("n", vec![b'x'; size])]).unwrap();
        }
        let mut pairs = vec![("n", random.pick(&["1", "2", ""]))];
        if random.once_in(3) {
            pairs.push(("m", random.pick(&["1", "2"])));
        }
        if random.once_in(6) {
            pairs.push(pairs[0]);
        }
        if random.once_in(2) {
            pairs.reverse();
        }
        Fields::from_pairs(pairs).unwrap()
    }

    fn policy(&mut self, stream: Option<&Stream>) -> TrimPolicy {
        let length = stream.map_or(0, Stream::length);
        let threshold = match self.random.below(8) {
            0 => TrimThreshold::MaxLength(0),
            1..5 => TrimThreshold::MaxLength(self.random.below(length + 2)),
            _ => TrimThreshold::MinId(self.id(stream)),
        };
        let approximate = self.random.once_in(3);
        let limit = (self.random.once_in(2) && (approximate || self.random.once_in(20))).then(|| self.random.below(6));
        TrimPolicy { threshold, approximate, limit, references: self.references() }
    }

    fn references(&mut self) -> References {
        self.random.weighted(&[(3, References::Keep), (2, References::Delete), (4, References::Acked)])
    }

    fn position(&mut self, stream: Option<&Stream>) -> GroupPosition {
        match self.random.below(8) {
            0..3 => GroupPosition::After(EntryId::MIN),
            3 => GroupPosition::End,
            _ => GroupPosition::After(self.id(stream)),
        }
    }

    fn entries_read(&mut self, stream: Option<&Stream>) -> Option<u64> {
        let added = stream.map_or(0, |stream| stream.entries_added);
        self.random.seldom(
            3,
            |random| {
                if random.once_in(10) { u64::MAX } else { random.below(added.saturating_add(3)) }
            },
        )
    }

    fn read_group(&mut self, group: GroupName, consumer: ConsumerName, model: &Model) -> ReadGroup {
        let count = if self.random.once_in(60) { 0 } else { self.random.weighted(&[(6, 1), (2, 2), (1, 3)]) };
        let mut streams = Vec::new();
        for _ in 0..count {
            // Mostly streams that have the group.
            let mut stream = self.stream();
            for _ in 0..3 {
                if model.streams.get(&stream).is_some_and(|stream| stream.groups.contains_key(&group)) {
                    break;
                }
                stream = self.stream();
            }
            let from = if self.random.once_in(4) {
                let id = if self.random.once_in(2) { EntryId::MIN } else { self.id(model.streams.get(&stream)) };
                GroupReadFrom::PendingAfter(id)
            } else {
                GroupReadFrom::New
            };
            streams.push(GroupRead { stream, from });
        }
        let claim_min_idle_ms = self.random.once_in(3).then(|| {
            let stream = streams.first().and_then(|read: &GroupRead| model.streams.get(&read.stream));
            self.min_idle_ms(model.clock_ms, stream, &group)
        });
        let count = match self.random.below(30) {
            0..4 => 0,
            4 => COUNT_MAX + 1,
            5..8 => 30,
            _ => self.random.between(1, 6) as u32,
        };
        ReadGroup {
            group,
            consumer,
            streams,
            count,
            no_ack: self.random.once_in(6),
            bytes_max: self.bytes_max(),
            total_max: self.total_max(count),
            claim_min_idle_ms,
        }
    }

    fn set_last_id(&mut self, name: StreamName, there: Option<&Stream>) -> SetLastId {
        if let Some(there) = there
            && self.random.once_in(2)
        {
            return self.lower_last_id(name, there);
        }
        let mut last_id = self.id(there);
        if let Some(there) = there {
            // Mostly something that is accepted.
            let least = there.entries.last().map_or(EntryId::MIN, |last| last.id).max(there.max_deleted_id);
            if last_id < least && !self.random.once_in(4) {
                let after = near_after(there.last_id, &mut self.random);
                last_id = self.random.pick(&[least, there.last_id, after]);
            }
            if !self.profile.ends && last_id > EntryId::new(u64::MAX / 2, 0) {
                last_id = there.last_id;
            }
        }
        let (length, added) = there.map_or((0, 0), |there| (there.length(), there.entries_added));
        let entries_added = self.random.seldom(3, |random| match random.below(20) {
            0 => u64::MAX,
            1 => ENTRIES_ADDED_MAX,
            2..8 => random.below(length + 2),
            _ => random.between(added.saturating_sub(2), added.saturating_add(3)),
        });
        let max_deleted_id =
            self.random.once_in(3).then(|| if self.random.once_in(4) { EntryId::MIN } else { self.id(there) });
        SetLastId { stream: name, last_id, entries_added, max_deleted_id }
    }

    /// Down as far as it goes, so that ids come again; first the greatest deleted id, which is in the way.
    fn lower_last_id(&mut self, stream: StreamName, there: &Stream) -> SetLastId {
        let last = there.entries.last().map_or(EntryId::MIN, |last| last.id);
        if last < there.max_deleted_id {
            let max_deleted_id = Some(self.random.pick(&[EntryId::new(0, 1), there.first_id(), last]));
            return SetLastId { stream, last_id: there.last_id, entries_added: None, max_deleted_id };
        }
        let last_id = self.random.pick(&[last, last.next().unwrap_or(last)]);
        SetLastId { stream, last_id, entries_added: None, max_deleted_id: None }
    }

    fn configure_stream(&mut self, stream: StreamName, model: &Model) -> ConfigureStream {
        let there = model.streams.get(&stream);
        let min_id = self.random.once_in(3).then(|| self.id(there));
        let references = self.references();
        let bytes = there.map_or(0, Stream::bytes);
        let random = &mut self.random;
        let retention = random.seldom(2, |random| Retention {
            max_length: random.seldom(3, |random| random.below(12)),
            min_id,
            max_age_ms: random.seldom(3, |random| if random.once_in(20) { 0 } else { random.between(1, 60) }),
            max_bytes: random.seldom(3, |random| random.below(bytes + 100)),
            references,
        });
        ConfigureStream {
            stream,
            create_stream: random.once_in(2),
            idempotency_duration_s: random.seldom(3, |random| random.pick(&[1, 1, 1, 2, 2, 100, 86_400, 0, 86_401])),
            idempotency_keys_max: random.seldom(3, |random| random.pick(&[1, 2, 2, 3, 100, 10_000, 0, 10_001])),
            retention,
        }
    }

    fn query(&mut self, stream: StreamName, group: GroupName, consumer: ConsumerName, model: &Model) -> Query {
        let there = model.streams.get(&stream);
        let count = match self.random.below(36) {
            0..3 => 0,
            3 => COUNT_MAX + 1,
            _ => self.random.between(1, 8) as u32,
        };
        match self.random.below(9) {
            0 => {
                let (start, end) = (self.id(there), self.id(there));
                let (start, end) = if self.random.once_in(6) { (start, end) } else { (start.min(end), start.max(end)) };
                Query::Range(RangeQuery { stream, start, end, reverse: self.random.once_in(2), count })
            }
            1 => {
                let reads = if self.random.once_in(30) { 0 } else { self.random.between(1, 3) };
                let reads = (0..reads).map(|_| {
                    let stream = self.stream();
                    let from = match self.random.below(4) {
                        0 => ReadFrom::New,
                        1 => ReadFrom::Last,
                        _ => ReadFrom::After(self.id(model.streams.get(&stream))),
                    };
                    StreamRead { stream, from }
                });
                let streams = reads.collect();
                let count = count.clamp(1, 3);
                let (total_max, bytes_max) = (self.total_max(count), self.bytes_max());
                Query::Read(ReadStreams { streams, count, total_max, bytes_max })
            }
            2 => Query::Stream(stream),
            3 => Query::Details { stream, count },
            4 => Query::PendingSummary { stream, group },
            5 | 6 => Query::Pending(PendingQuery {
                min_idle_ms: self.min_idle_ms(model.clock_ms, there, &group),
                stream,
                group,
                start: if self.random.once_in(2) { EntryId::MIN } else { self.id(there) },
                end: if self.random.once_in(2) { EntryId::MAX } else { self.id(there) },
                count,
                consumer: self.random.seldom(3, |_| consumer),
            }),
            7 => {
                let after = self.random.once_in(3).then(|| self.group());
                Query::Groups { stream, after, count }
            }
            _ => {
                let after = self.random.once_in(3).then(|| self.random.pick(&self.names.consumers));
                Query::Consumers { stream, group, after, count }
            }
        }
    }

    fn batch(&mut self, model: &Model) -> Batch {
        if self.random.once_in(12) {
            return self.ids_again(model);
        }
        let mut operations = Vec::new();
        let count = if self.random.once_in(50) { 0 } else { self.random.between(1, 7) };
        for _ in 0..count {
            let operation = match self.random.weighted(KINDS) {
                // These do not belong there.
                kind @ (Kind::Batch | Kind::EnforceRetention) if self.random.once_in(20) => self.simple(kind, model),
                Kind::Batch | Kind::EnforceRetention => self.simple(Kind::Append, model),
                kind => self.simple(kind, model),
            };
            operations.push(operation);
        }
        let guards = (0..self.random.weighted(&[(3, 0), (3, 1), (1, 2)])).map(|_| {
            let stream = self.stream();
            let holds = !self.random.once_in(6);
            match model.streams.get(&stream) {
                Some(there) if holds => Guard::Unchanged { stream, last_change_index: there.last_change_index },
                None if holds => Guard::Absent { stream },
                _ if self.random.once_in(2) => Guard::Absent { stream },
                there => {
                    let last_change_index = there.map_or(1, |there| there.last_change_index - 1);
                    Guard::Unchanged { stream, last_change_index }
                }
            }
        });
        let guards = guards.collect();
        let mode = self.random.pick(&[BatchMode::AllOrNothing, BatchMode::ContinueOnError]);
        Batch { operations, guards, mode }
    }

    /// Deletes the last entry and lowers the last id below it, so that its id may come again: rare by chance.
    fn ids_again(&mut self, model: &Model) -> Batch {
        let stream = self.stream();
        let entries = model.streams.get(&stream).map_or(&[][..], |stream| &stream.entries);
        let mut newest = entries.iter().rev().map(|entry| entry.id);
        let (last, before) = (newest.next().unwrap_or_default(), newest.next().unwrap_or_default());
        let set = |last_id, max_deleted_id| {
            SetLastId { stream: stream.clone(), last_id, entries_added: None, max_deleted_id }.into()
        };
        let last_id = model.streams.get(&stream).map_or(last, |stream| stream.last_id);
        let operations = vec![
            DeleteEntries { stream: stream.clone(), ids: vec![last], references: References::Keep }.into(),
            set(last_id, Some(EntryId::new(0, 1))),
            set(before, None),
        ];
        let mode = self.random.pick(&[BatchMode::AllOrNothing, BatchMode::ContinueOnError]);
        Batch { operations, guards: Vec::new(), mode }
    }

    fn stream(&mut self) -> StreamName {
        let at: usize = self.random.weighted(&[(4, 0), (2, 1), (1, 2)]);
        self.names.streams[at].clone()
    }

    fn group(&mut self) -> GroupName {
        let at: usize = self.random.weighted(&[(3, 0), (1, 1)]);
        self.names.groups[at].clone()
    }

    fn delivery_count(&mut self) -> Option<u64> {
        self.random.seldom(6, |random| match random.below(12) {
            0 => DELIVERY_COUNT_MAX + 1,
            1 | 2 => DELIVERY_COUNT_MAX,
            _ => random.below(4),
        })
    }

    /// Often no bound, else one that two or three entries reach.
    fn bytes_max(&mut self) -> u64 {
        if self.random.once_in(6) { self.small_bytes() } else { 0 }
    }

    /// Mostly no bound, else one that a few entries or rows reach.
    fn answer_bytes_max(&mut self, command: &Command) -> u64 {
        let often = if matches!(command, Command::Batch(_) | Command::Query(_)) { 2 } else { 5 };
        if !self.random.once_in(often) {
            0
        } else if self.random.once_in(2) {
            self.random.between(60, 600)
        } else {
            self.small_bytes()
        }
    }

    /// What two or three entries come to.
    fn small_bytes(&mut self) -> u64 {
        if self.profile.large_entries { self.random.below(20_000) } else { self.random.pick(&[1, 8, 10, 12, 15, 24]) }
    }

    /// Often no bound, else seldom one smaller than the count, which is refused.
    fn total_max(&mut self, count: u32) -> u32 {
        match self.random.below(40) {
            0 => 1,
            1..8 => count + self.random.below(3) as u32,
            _ => 0,
        }
    }

    /// Often exactly how long an entry has been idle, or a millisecond to either side.
    fn min_idle_ms(&mut self, now_ms: u64, stream: Option<&Stream>, group: &GroupName) -> u64 {
        let pending = stream.and_then(|stream| stream.groups.get(group)).map_or(&[][..], |group| &group.pending);
        match self.random.below(6) {
            0..2 => 0,
            2..5 if !pending.is_empty() => {
                let idle_ms = now_ms - self.random.pick(pending).delivered_ms;
                self.random.pick(&[idle_ms, idle_ms, idle_ms + 1, idle_ms.saturating_sub(1)])
            }
            _ => self.random.below(20),
        }
    }

    fn ids(&mut self, stream: Option<&Stream>) -> Vec<EntryId> {
        let count = if self.random.once_in(60) { 0 } else { self.random.weighted(&[(5, 1), (3, 2), (2, 4), (1, 7)]) };
        (0..count).map(|_| self.id(stream)).collect()
    }

    /// The id of an entry, or of a pending one, or one beside a mark of the stream.
    fn id(&mut self, stream: Option<&Stream>) -> EntryId {
        let random = &mut self.random;
        let at_random = |random: &mut Random| EntryId::new(random.below(20), random.below(3));
        let Some(stream) = stream else { return at_random(random) };
        let groups: Vec<&Group> = stream.groups.values().collect();
        let mark = match random.below(20) {
            0..8 if !stream.entries.is_empty() => return random.pick(&stream.entries).id,
            8..14 if !groups.is_empty() => {
                let group = random.pick(&groups);
                if group.pending.is_empty() {
                    group.last_id
                } else {
                    return random.pick(&group.pending).id;
                }
            }
            14 => stream.last_id,
            15 => stream.max_deleted_id,
            16 => stream.first_id(),
            17 if self.profile.ends => {
                return random.pick(&[EntryId::MAX, EntryId::new(u64::MAX, u64::MAX - 2), EntryId::new(7, u64::MAX)]);
            }
            18 if random.once_in(8) => return random.pick(&[EntryId::MIN, EntryId::MAX]),
            _ => return at_random(random),
        };
        match random.below(4) {
            0 => mark.next().unwrap_or(mark),
            1 => mark.prev().unwrap_or(mark),
            _ => mark,
        }
    }
}

/// An id a little greater.
fn near_after(id: EntryId, random: &mut Random) -> EntryId {
    match random.below(8) {
        0 => EntryId::new(id.ms, u64::MAX),
        1 => EntryId::new(id.ms.saturating_add(random.between(1, 3)), random.below(2)),
        2 => id,
        _ => EntryId::new(id.ms, id.seq.saturating_add(random.between(1, 2))),
    }
}
