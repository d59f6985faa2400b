//! Sections 4.9 and 4.11 to 4.17: groups, and what is pending in them. Times by section 5.

use millstream_streams::limits::{AUTOCLAIM_SCAN_FACTOR, COUNT_MAX, DELIVERY_COUNT_MAX};
use millstream_streams::*;

use crate::lag::entries_read_after;
use crate::state::{Corners, Group, Model, Pending, Stream};
use crate::step::Step;

/// A bound in bytes, and what was spent of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Level {
    /// 0: no bound.
    max: u64,
    spent: u64,
    /// The first thing always goes.
    started: bool,
    /// Something did not fit: nothing does any more.
    pub(crate) full: bool,
}

impl Level {
    /// 0: no bound.
    pub(crate) fn new(max: u64) -> Level {
        Level { max, ..Level::default() }
    }

    fn has_room(&mut self, bytes: u64) -> bool {
        if self.max > 0 && self.started && bytes > self.max.saturating_sub(self.spent) {
            self.full = true;
        }
        !self.full
    }

    fn spend(&mut self, bytes: u64) {
        self.spent += bytes;
        self.started = true;
    }
}

/// The bounds over a whole reply (section 4.10, MAXCOUNT and MAXSIZE), and that over all replies of a batch.
pub(crate) struct Budget<'a> {
    entries: u64,
    /// 0: no bound.
    entries_max: u64,
    own: Level,
    shared: &'a mut Level,
    /// Bytes were not enough.
    pub(crate) cut: bool,
}

impl Budget<'_> {
    /// 0: no bound.
    pub(crate) fn new(entries_max: u64, bytes_max: u64, shared: &mut Level) -> Budget<'_> {
        Budget { entries: 0, entries_max, own: Level::new(bytes_max), shared, cut: false }
    }

    /// Whether one more entry may go, and if so counts it.
    pub(crate) fn admit(&mut self, bytes: u64) -> bool {
        let has_all = self.entries_max > 0 && self.entries == self.entries_max;
        if has_all || !self.take(bytes) {
            return false;
        }
        self.entries += 1;
        true
    }

    /// Whether one more row with this name may go, and if so counts it.
    pub(crate) fn admit_row(&mut self, name: &str) -> bool {
        self.take(64 + name.len() as u64)
    }

    fn take(&mut self, bytes: u64) -> bool {
        // What is too much for a command of a batch does not make the batch full.
        let fits = self.own.has_room(bytes) && self.shared.has_room(bytes);
        if fits {
            self.own.spend(bytes);
            self.shared.spend(bytes);
        } else {
            self.cut = true;
        }
        fits
    }
}

fn packed_len(entry: &Entry) -> u64 {
    entry.fields.packed_len() as u64
}

fn one_more(delivery_count: u64) -> u64 {
    if delivery_count == DELIVERY_COUNT_MAX { delivery_count } else { delivery_count + 1 }
}

fn group_not_found(stream: &StreamName, group: &GroupName) -> Refusal {
    Refusal::GroupNotFound { stream: stream.clone(), group: group.clone() }
}

impl Model {
    /// A group that XGROUP speaks of: a missing stream is another error than a missing group (section 4.9).
    fn named_stream(&mut self, name: &StreamName) -> Result<&mut Stream, Refusal> {
        self.streams.get_mut(name).ok_or_else(|| Refusal::StreamNotFound { stream: name.clone() })
    }

    /// Section 4.9, CREATE.
    pub(crate) fn create_group(&mut self, index: u64, command: &CreateGroup) -> Step<GroupCreated> {
        let CreateGroup { stream: name, group, position, create_stream, entries_read } = command;
        if *create_stream && !self.streams.contains_key(name) {
            self.corners.reach("4.9 MKSTREAM made the stream");
            self.streams.insert(name.clone(), Stream::default());
        }
        let stream = self.named_stream(name)?;
        if stream.groups.contains_key(group) {
            return Err(Refusal::GroupExists { stream: name.clone(), group: group.clone() }.into());
        }
        let (last_id, entries_read) = stream.place(*position, *entries_read);
        stream.groups.insert(group.clone(), Group { last_id, entries_read, ..Group::default() });
        stream.last_change_index = index;
        Ok(GroupCreated {})
    }

    /// Section 4.9, SETID.
    pub(crate) fn set_group_position(&mut self, index: u64, command: &SetGroupPosition) -> Step<GroupPositionSet> {
        let SetGroupPosition { stream: name, group: group_name, position, entries_read } = command;
        let stream = self.named_stream(name)?;
        let (last_id, entries_read) = stream.place(*position, *entries_read);
        let group = stream.groups.get_mut(group_name).ok_or_else(|| group_not_found(name, group_name))?;
        let backwards = last_id < group.last_id;
        if (last_id, entries_read) != (group.last_id, group.entries_read) {
            (group.last_id, group.entries_read) = (last_id, entries_read);
            stream.last_change_index = index;
        }
        self.corners.reach_if(backwards, "4.9 group moved backwards");
        Ok(GroupPositionSet {})
    }

    /// Section 4.9, DESTROY.
    pub(crate) fn delete_group(&mut self, index: u64, command: &DeleteGroup) -> Step<GroupDeleted> {
        let stream = self.named_stream(&command.stream)?;
        let existed = stream.groups.remove(&command.group).is_some();
        if existed {
            stream.last_change_index = index;
            self.changes.push(Change::GroupDeleted { stream: command.stream.clone(), group: command.group.clone() });
        }
        Ok(GroupDeleted { existed })
    }

    /// Section 4.9, CREATECONSUMER.
    pub(crate) fn create_consumer(&mut self, index: u64, command: &CreateConsumer) -> Step<ConsumerCreated> {
        let CreateConsumer { stream: name, group, consumer } = command;
        let now_ms = self.clock_ms;
        let stream = self.named_stream(name)?;
        let group = stream.groups.get_mut(group).ok_or_else(|| group_not_found(name, group))?;
        let created = !group.consumers.contains_key(consumer);
        if created {
            group.see(consumer, now_ms);
            stream.last_change_index = index;
        }
        Ok(ConsumerCreated { created })
    }

    /// Section 4.9, DELCONSUMER: what was pending for the consumer is dropped.
    pub(crate) fn delete_consumer(&mut self, index: u64, command: &DeleteConsumer) -> Step<ConsumerDeleted> {
        let DeleteConsumer { stream: name, group, consumer } = command;
        let stream = self.named_stream(name)?;
        let group = stream.groups.get_mut(group).ok_or_else(|| group_not_found(name, group))?;
        let before = group.pending.len();
        if group.consumers.remove(consumer).is_some() {
            group.pending.retain(|pending| pending.consumer.as_ref() != Some(consumer));
            stream.last_change_index = index;
        }
        let pending = (before - group.pending.len()) as u64;
        self.corners.reach_if(pending > 0, "4.9 deleted consumer lost pending entries");
        Ok(ConsumerDeleted { pending })
    }

    /// Section 4.11.
    pub(crate) fn read_group(&mut self, index: u64, command: &ReadGroup) -> Step<Delivered> {
        let ReadGroup { group: group_name, consumer, streams, count, no_ack, bytes_max, total_max, claim_min_idle_ms } =
            command;
        // One bad stream fails the whole call before anything is served (section 4.10).
        for GroupRead { stream, .. } in streams {
            if self.group_mut(stream, group_name).is_none() {
                return Err(group_not_found(stream, group_name).into());
            }
        }
        let now_ms = self.clock_ms;
        let count = if *count == 0 { COUNT_MAX as usize } else { *count as usize };
        let mut budget = Budget::new((*total_max).into(), *bytes_max, &mut self.shared);
        let mut deliveries = Vec::new();
        for GroupRead { stream, from } in streams {
            let stream = self.streams.get_mut(stream).unwrap();
            stream.last_change_index = index;
            // The group is taken out while it is worked on, so that the stream can be looked at.
            let mut group = stream.groups.remove(group_name).unwrap();
            group.see(consumer, now_ms);
            let mut reader =
                Reader { stream, group: &mut group, consumer, now_ms, budget: &mut budget, corners: &mut self.corners };
            let delivery = match from {
                GroupReadFrom::PendingAfter(after) => reader.repeat(*after, count),
                GroupReadFrom::New => {
                    let mut delivery = Delivery::default();
                    if let Some(min_idle_ms) = claim_min_idle_ms {
                        reader.claim(*min_idle_ms, count, &mut delivery);
                    }
                    reader.deliver(count, *no_ack, &mut delivery);
                    delivery
                }
            };
            stream.groups.insert(group_name.clone(), group);
            deliveries.push(delivery);
        }
        Ok(Delivered { streams: deliveries, more: budget.cut })
    }

    /// Section 4.12.
    pub(crate) fn ack(&mut self, index: u64, command: &Ack) -> Step<Acked> {
        let Ack { stream, group, ids } = command;
        let Some(stream) = self.streams.get_mut(stream) else { return Ok(Acked { acknowledged: 0 }) };
        let Some(group) = stream.groups.get_mut(group) else { return Ok(Acked { acknowledged: 0 }) };
        let mut acknowledged = 0;
        for id in ids {
            if let Some(pending) = group.take(*id) {
                self.corners.reach_if(pending.consumer.is_none(), "4.12 acknowledged one that was given back");
                acknowledged += 1;
                stream.last_change_index = index;
            }
        }
        Ok(Acked { acknowledged })
    }

    /// Section 4.13.
    pub(crate) fn ack_and_delete(&mut self, index: u64, command: &AckAndDelete) -> Step<AckedAndDeleted> {
        let AckAndDelete { stream, group: group_name, ids, references } = command;
        let nothing = AckedAndDeleted { results: vec![Removal::NotFound; ids.len()] };
        let Some(stream) = self.streams.get_mut(stream) else { return Ok(nothing) };
        if !stream.groups.contains_key(group_name) {
            return Ok(nothing);
        }
        let mut results = Vec::new();
        for id in ids {
            let acknowledged = stream.groups.get_mut(group_name).unwrap().take(*id).is_some();
            if !acknowledged {
                results.push(Removal::NotFound);
                continue;
            }
            stream.last_change_index = index;
            let dangling = !stream.is_live(*id);
            let result = match stream.delete(*id, *references, &mut self.corners).0 {
                Removal::Referenced => {
                    self.corners.reach_if(!dangling, "4.13 acknowledged, and referenced elsewhere");
                    self.corners.reach_if(dangling, "4.13 dangling, and referenced elsewhere");
                    Removal::Referenced
                }
                // "Also if the entry was dangling."
                Removal::NotFound | Removal::Deleted => {
                    self.corners.reach_if(dangling, "4.13 acknowledged a dangling one");
                    Removal::Deleted
                }
            };
            results.push(result);
        }
        Ok(AckedAndDeleted { results })
    }

    /// Section 4.14.
    pub(crate) fn nack(&mut self, index: u64, command: &Nack) -> Step<Nacked> {
        let Nack { stream: name, group: group_name, ids, mode, delivery_count, force } = command;
        let missing = || group_not_found(name, group_name);
        let stream = self.streams.get_mut(name).ok_or_else(missing)?;
        let mut group = stream.groups.remove(group_name).ok_or_else(missing)?;
        let mut released = 0;
        for id in ids {
            let count = match group.take(*id) {
                Some(pending) => {
                    self.corners.reach_if(pending.consumer.is_none(), "4.14 given back again");
                    self.corners.reach_if(!stream.is_live(*id), "4.14 gave back a dangling one");
                    pending.delivery_count
                }
                None if *force && stream.is_live(*id) => {
                    self.corners.reach("4.14 FORCE");
                    self.corners.reach_if(*id > group.last_id, "4.14 FORCE beyond the group's position");
                    0
                }
                None => continue,
            };
            let by_mode = match mode {
                NackMode::Silent => count.saturating_sub(1),
                NackMode::Fail => count,
                NackMode::Fatal => DELIVERY_COUNT_MAX,
            };
            let delivery_count = delivery_count.unwrap_or(by_mode);
            group.put(Pending { id: *id, consumer: None, delivered_ms: 0, delivery_count });
            released += 1;
        }
        stream.groups.insert(group_name.clone(), group);
        if released > 0 {
            stream.last_change_index = index;
            self.changes.push(Change::Released { stream: name.clone(), group: group_name.clone(), entries: released });
        }
        Ok(Nacked { released })
    }

    /// Section 4.16.
    pub(crate) fn claim(&mut self, index: u64, command: &Claim) -> Step<Claimed> {
        let Claim {
            stream: name,
            group: group_name,
            consumer,
            min_idle_ms,
            ids,
            delivery_time,
            delivery_count,
            force,
            ids_only,
            last_id,
        } = command;
        let now_ms = self.clock_ms;
        let missing = || group_not_found(name, group_name);
        let stream = self.streams.get_mut(name).ok_or_else(missing)?;
        let mut group = stream.groups.remove(group_name).ok_or_else(missing)?;
        stream.last_change_index = index;

        self.corners.reach_if(last_id.is_some_and(|id| id > group.last_id), "4.16 LASTID moved the group");
        group.last_id = group.last_id.max(last_id.unwrap_or_default());
        // "If < 0 or > now: now."
        let delivered_ms = match *delivery_time {
            DeliveryTime::Now => now_ms,
            DeliveryTime::IdleMs(idle_ms) => now_ms.checked_sub(idle_ms).unwrap_or(now_ms),
            DeliveryTime::UnixMs(unix_ms) => unix_ms.min(now_ms),
        };
        group.see(consumer, now_ms);

        let mut budget = Budget::new(0, 0, &mut self.shared);
        let mut claimed = Vec::new();
        for id in ids {
            let Some(entry) = stream.entry(*id) else {
                let dropped = group.take(*id).is_some();
                self.corners.reach_if(dropped, "4.16 dropped a dangling one");
                continue;
            };
            let before = match group.find(*id) {
                Some(pending) => {
                    let idle_ms = now_ms - pending.delivered_ms;
                    if pending.consumer.is_some() && idle_ms < *min_idle_ms {
                        self.corners.reach("4.16 not idle for long enough");
                        continue;
                    }
                    self.corners
                        .reach_if(pending.consumer.is_some() && idle_ms == *min_idle_ms, "4.16 just idle enough");
                    self.corners.reach_if(pending.consumer.is_none(), "4.16 claimed one that was given back");
                    pending.delivery_count
                }
                None if *force => {
                    self.corners.reach("4.16 FORCE");
                    self.corners.reach_if(*id > group.last_id, "4.16 FORCE beyond the group's position");
                    1
                }
                None => continue,
            };
            // Without payloads there are no bytes to bound.
            if !ids_only && !budget.admit(packed_len(entry)) {
                self.corners.reach("4.16 stopped by size");
                break;
            }
            let by_claim = if *ids_only { before } else { one_more(before) };
            group.take(*id);
            group.put(Pending {
                id: *id,
                consumer: Some(consumer.clone()),
                delivered_ms,
                delivery_count: delivery_count.unwrap_or(by_claim),
            });
            group.activate(consumer, now_ms);
            claimed.push(*id);
        }
        stream.groups.insert(group_name.clone(), group);
        Ok(Claimed { ids: claimed, more: budget.cut })
    }

    /// Section 4.17.
    pub(crate) fn auto_claim(&mut self, index: u64, command: &AutoClaim) -> Step<AutoClaimed> {
        let AutoClaim { stream: name, group: group_name, consumer, min_idle_ms, start, count, ids_only } = command;
        let now_ms = self.clock_ms;
        let missing = || group_not_found(name, group_name);
        let stream = self.streams.get_mut(name).ok_or_else(missing)?;
        let mut group = stream.groups.remove(group_name).ok_or_else(missing)?;
        stream.last_change_index = index;
        group.see(consumer, now_ms);

        let walk: Vec<Pending> = group.by_id().into_iter().filter(|pending| pending.id >= *start).cloned().collect();
        let mut budget = Budget::new(0, 0, &mut self.shared);
        let mut left = *count;
        let mut reply = AutoClaimed { cursor: EntryId::MIN, ids: Vec::new(), deleted: Vec::new() };
        for (looked_at, pending) in walk.into_iter().enumerate() {
            if left == 0 || looked_at == AUTOCLAIM_SCAN_FACTOR * *count as usize {
                self.corners.reach_if(left > 0, "4.17 looked at ten times the count");
                reply.cursor = pending.id;
                break;
            }
            let Some(entry) = stream.entry(pending.id) else {
                group.take(pending.id);
                reply.deleted.push(pending.id);
                left -= 1;
                continue;
            };
            let idle_ms = now_ms - pending.delivered_ms;
            if pending.consumer.is_some() && idle_ms < *min_idle_ms {
                continue;
            }
            // Without payloads there are no bytes to bound.
            if !ids_only && !budget.admit(packed_len(entry)) {
                self.corners.reach("4.17 stopped by size");
                reply.cursor = pending.id;
                break;
            }
            self.corners.reach_if(pending.consumer.is_none(), "4.17 claimed one that was given back");
            group.take(pending.id);
            let delivery_count = if *ids_only { pending.delivery_count } else { one_more(pending.delivery_count) };
            group.put(Pending {
                id: pending.id,
                consumer: Some(consumer.clone()),
                delivered_ms: now_ms,
                delivery_count,
            });
            group.activate(consumer, now_ms);
            reply.ids.push(pending.id);
            left -= 1;
        }
        self.corners.reach_if(!reply.cursor.is_zero(), "4.17 stopped before the end");
        self.corners.reach_if(!reply.deleted.is_empty(), "4.17 dropped a dangling one");
        stream.groups.insert(group_name.clone(), group);
        Ok(reply)
    }
}

impl Stream {
    /// Where a group is put, and how many entries it counts as read (section 4.9).
    fn place(&self, position: GroupPosition, entries_read: Option<u64>) -> (EntryId, Option<u64>) {
        let last_id = match position {
            GroupPosition::After(id) => id,
            GroupPosition::End => self.last_id,
        };
        (last_id, entries_read.map(|read| read.min(self.entries_added)))
    }
}

/// One stream of a group read, at work.
struct Reader<'a, 'b> {
    stream: &'a Stream,
    group: &'a mut Group,
    consumer: &'a ConsumerName,
    now_ms: u64,
    budget: &'a mut Budget<'b>,
    corners: &'a mut Corners,
}

impl Reader<'_, '_> {
    /// "Any other ID (history)".
    fn repeat(&mut self, after: EntryId, count: usize) -> Delivery {
        let own = |pending: &&Pending| pending.consumer.as_ref() == Some(self.consumer) && pending.id > after;
        let own: Vec<Pending> = self.group.by_id().into_iter().filter(own).cloned().collect();
        let mut delivery = Delivery::default();
        for pending in own.into_iter().take(count) {
            let entry = self.stream.entry(pending.id);
            if !self.budget.admit(entry.map_or(0, packed_len)) {
                self.corners.reach("4.11 history stopped by size or total");
                break;
            }
            delivery.ids.push(pending.id);
            if entry.is_none() {
                self.corners.reach("4.11 history of a dangling one");
                continue;
            }
            self.group.take(pending.id);
            self.group.put(Pending {
                delivered_ms: self.now_ms,
                delivery_count: one_more(pending.delivery_count),
                ..pending
            });
        }
        delivery
    }

    /// "CLAIM min-idle".
    fn claim(&mut self, min_idle_ms: u64, count: usize, delivery: &mut Delivery) {
        // What is put behind the tail meanwhile is not looked at.
        let walk = self.group.pending.clone();
        for pending in walk {
            let idle_ms = self.now_ms - pending.delivered_ms;
            if delivery.ids.len() == count || (pending.consumer.is_some() && idle_ms < min_idle_ms) {
                break;
            }
            let Some(entry) = self.stream.entry(pending.id) else {
                self.corners.reach("4.11 CLAIM passed over a dangling one");
                continue;
            };
            if !self.budget.admit(packed_len(entry)) {
                self.corners.reach("4.11 CLAIM stopped by size or total");
                break;
            }
            self.corners.reach("4.11 CLAIM");
            self.corners.reach_if(pending.consumer.is_none(), "4.11 CLAIM took one that was given back");
            self.corners.reach_if(
                pending.consumer.is_some() && idle_ms == min_idle_ms && min_idle_ms > 0,
                "4.11 CLAIM: just idle enough",
            );
            delivery.ids.push(pending.id);
            delivery.claimed.push(Redelivery { idle_ms, delivery_count: pending.delivery_count });
            self.group.take(pending.id);
            self.group.put(Pending {
                id: pending.id,
                consumer: Some(self.consumer.clone()),
                delivered_ms: self.now_ms,
                delivery_count: one_more(pending.delivery_count),
            });
            self.group.activate(self.consumer, self.now_ms);
        }
    }

    /// "`>` (new messages)".
    fn deliver(&mut self, count: usize, no_ack: bool, delivery: &mut Delivery) {
        for entry in &self.stream.entries {
            if entry.id <= self.group.last_id {
                continue;
            }
            if delivery.ids.len() == count {
                break;
            }
            if !self.budget.admit(packed_len(entry)) {
                self.corners.reach("4.11 new entries stopped by size or total");
                break;
            }
            self.corners.reach_if(delivery.ids.contains(&entry.id), "4.11 returned twice, as claimed and as new");
            self.group.entries_read = entries_read_after(self.stream, self.group, entry.id);
            self.group.last_id = entry.id;
            delivery.ids.push(entry.id);
            if no_ack {
                self.corners.reach_if(self.group.find(entry.id).is_some(), "4.11 NOACK left one pending");
                continue;
            }
            let was_pending = self.group.take(entry.id).is_some();
            self.corners.reach_if(was_pending, "4.11 new to the group, but pending");
            self.group.put(Pending {
                id: entry.id,
                consumer: Some(self.consumer.clone()),
                delivered_ms: self.now_ms,
                delivery_count: 1,
            });
            self.group.activate(self.consumer, self.now_ms);
        }
    }
}
