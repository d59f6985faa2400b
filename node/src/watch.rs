//! Who waits for what: blocking reads sleep here and are woken by what the log brings, never by a timer.
//!
//! Two kinds of waiters. A [`Reader`] waits for any of its streams to grow, and every reader of a stream is woken. A
//! [`GroupWaiter`] waits for work of a group, in a queue for each stream and group: first come, first served, and as many
//! are woken as there are new entries. Those of them that claim are woken by entries that were given back, too. Both
//! register *before* they look at the state, so that nothing falls between the look and the wait.
//!
//! A wake is a promise that somebody looks. A group waiter that leaves without having looked (its client is gone, its
//! proposal failed) hands its wake to the next in the queue; one that looks and finds nothing keeps its place.
//!
//! What is absent: no task, no time, no knowledge of Raft. Whoever gives up simply drops its waiter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream_streams::{Change, GroupName, StreamName};
use tokio::sync::Notify;

/// Who stands further back than this in a queue counts as standing here.
const PLACES_COUNTED: usize = 64;

/// All who wait at one node.
#[derive(Debug)]
pub struct Watch {
    places_max: usize,
    // A std mutex: it is held for map operations only, never across an await.
    waiting: Mutex<Waiting>,
}

/// No more waiters fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} places to wait are taken")]
pub struct Full {
    /// How many places there are. A waiter takes one for each of its streams.
    pub limit: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    places: usize,
    last_ticket: u64,
    readers: BTreeMap<StreamName, BTreeMap<u64, Arc<Notify>>>,
    /// Tickets in the order in which they were drawn, by stream and group.
    queues: BTreeMap<StreamName, BTreeMap<GroupName, BTreeSet<u64>>>,
    in_queue: BTreeMap<u64, InQueue>,
}

#[derive(Debug)]
struct InQueue {
    notify: Arc<Notify>,
    /// Wants pending entries as well as new ones.
    claims: bool,
    /// Woken, and has not looked since.
    woken: bool,
    /// Woken, and has neither asked for a delivery nor given up since: those behind it wait for that.
    ahead: bool,
    /// Waits until nobody before it is ahead, woken or not; told by this when one of them no longer is.
    waits_for_turn: bool,
    turn: Arc<Notify>,
    /// A stream whose group is gone.
    gone: Option<StreamName>,
}

impl InQueue {
    fn wake(&mut self) {
        (self.woken, self.ahead) = (true, true);
        self.notify.notify_one();
    }
}

impl Watch {
    /// A watch with this many places. A waiter takes one for each stream that it waits for.
    pub fn new(places_max: usize) -> Arc<Self> {
        Arc::new(Self { places_max, waiting: Mutex::default() })
    }

    /// Wakes whom these changes concern. Called after they were applied, in the order of the log.
    pub fn notify(&self, changes: &[Change]) {
        if changes.is_empty() || millstream_streams::mutant!(ReadersNotWoken) {
            return;
        }
        let mut waiting = self.waiting();
        if waiting.places == 0 {
            return;
        }
        for change in changes {
            match change {
                Change::Appended { stream, entries } => waiting.appended(stream, *entries),
                Change::Released { stream, group, entries } => waiting.released(stream, group, *entries),
                Change::StreamDeleted { stream } => waiting.gone(stream, None),
                Change::GroupDeleted { stream, group } => waiting.gone(stream, Some(group)),
                Change::AllDeleted => waiting.all_gone(),
            }
        }
    }

    /// Wakes everyone, because everything may have changed: a snapshot was installed.
    pub fn notify_all(&self) {
        let mut waiting = self.waiting();
        for notify in waiting.readers.values().flat_map(BTreeMap::values) {
            notify.notify_one();
        }
        waiting.in_queue.values_mut().for_each(InQueue::wake);
    }

    /// Registers a reader of these streams.
    pub fn reader<'a>(self: &Arc<Self>, streams: impl IntoIterator<Item = &'a StreamName>) -> Result<Reader, Full> {
        let streams: BTreeSet<StreamName> = streams.into_iter().cloned().collect();
        let notify = Arc::new(Notify::new());
        let mut waiting = self.waiting();
        let ticket = waiting.take_places(streams.len(), self.places_max)?;
        for stream in &streams {
            waiting.readers.entry(stream.clone()).or_default().insert(ticket, notify.clone());
        }
        drop(waiting);
        Ok(Reader { watch: self.clone(), ticket, streams, notify })
    }

    /// Registers a waiter of this group on these streams, behind those that are there already. `claims`: it wants pending
    /// entries that were given back as well as new ones.
    pub fn group_waiter<'a>(
        self: &Arc<Self>,
        group: &GroupName,
        streams: impl IntoIterator<Item = &'a StreamName>,
        claims: bool,
    ) -> Result<GroupWaiter, Full> {
        let streams: BTreeSet<StreamName> = streams.into_iter().cloned().collect();
        let (notify, turn) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let mut waiting = self.waiting();
        let ticket = waiting.take_places(streams.len(), self.places_max)?;
        for stream in &streams {
            let groups = waiting.queues.entry(stream.clone()).or_default();
            groups.entry(group.clone()).or_default().insert(ticket);
        }
        let in_queue = InQueue {
            notify: notify.clone(),
            claims,
            woken: false,
            ahead: false,
            waits_for_turn: false,
            turn: turn.clone(),
            gone: None,
        };
        waiting.in_queue.insert(ticket, in_queue);
        drop(waiting);
        let group = group.clone();
        Ok(GroupWaiter { watch: self.clone(), ticket, group, streams, notify, turn, claims, owes_a_look: false })
    }

    /// How many places are taken.
    pub fn places_taken(&self) -> usize {
        self.waiting().places
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take_places(&mut self, count: usize, places_max: usize) -> Result<u64, Full> {
        if places_max.saturating_sub(self.places) < count {
            return Err(Full { limit: places_max as u64 });
        }
        self.places += count;
        self.last_ticket += 1;
        Ok(self.last_ticket)
    }

    fn appended(&mut self, stream: &StreamName, entries: u64) {
        for notify in self.readers.get(stream).into_iter().flat_map(BTreeMap::values) {
            notify.notify_one();
        }
        for queue in self.queues.get(stream).into_iter().flat_map(BTreeMap::values) {
            wake_next(&mut self.in_queue, queue, entries, |_| true);
        }
    }

    /// Only those who claim can get what was given back.
    fn released(&mut self, stream: &StreamName, group: &GroupName, entries: u64) {
        if let Some(queue) = self.queues.get(stream).and_then(|groups| groups.get(group)) {
            wake_next(&mut self.in_queue, queue, entries, |waiter| waiter.claims);
        }
    }

    fn all_gone(&mut self) {
        for stream in self.queues.keys().cloned().collect::<Vec<_>>() {
            self.gone(&stream, None);
        }
    }

    /// Says that a waiter is no longer ahead, to those behind it who wait for that.
    fn passed(&mut self, ticket: u64, group: &GroupName, streams: &BTreeSet<StreamName>) {
        if let Some(waiter) = self.in_queue.get_mut(&ticket) {
            waiter.ahead = false;
        }
        for queue in streams.iter().filter_map(|stream| self.queues.get(stream)?.get(group)) {
            let behind = queue.range(ticket + 1..).filter_map(|ticket| self.in_queue.get(ticket));
            behind.filter(|waiter| waiter.waits_for_turn).for_each(|waiter| waiter.turn.notify_one());
        }
    }

    /// Readers stay when their stream goes: it may come back. A group does not.
    fn gone(&mut self, stream: &StreamName, group: Option<&GroupName>) {
        for (name, queue) in self.queues.get(stream).into_iter().flatten() {
            if group.is_some_and(|group| group != name) {
                continue;
            }
            for ticket in queue {
                if let Some(waiter) = self.in_queue.get_mut(ticket) {
                    waiter.gone.get_or_insert_with(|| stream.clone());
                    waiter.wake();
                }
            }
        }
    }
}

/// Wakes the first `count` of a queue that are `wanted` and not awake already.
fn wake_next(
    in_queue: &mut BTreeMap<u64, InQueue>,
    queue: &BTreeSet<u64>,
    count: u64,
    wanted: impl Fn(&InQueue) -> bool,
) {
    let mut left = count;
    for ticket in queue {
        if left == 0 {
            return;
        }
        if let Some(waiter) = in_queue.get_mut(ticket).filter(|waiter| !waiter.woken && wanted(waiter)) {
            waiter.wake();
            left -= 1;
        }
    }
}

/// Waits for streams to grow. Registered until dropped.
#[derive(Debug)]
pub struct Reader {
    watch: Arc<Watch>,
    ticket: u64,
    streams: BTreeSet<StreamName>,
    notify: Arc<Notify>,
}

impl Reader {
    /// Resolves when one of the streams has grown since the registration or the last time this resolved. May resolve
    /// for nothing: look again.
    pub async fn changed(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut waiting = self.watch.waiting();
        waiting.places -= self.streams.len();
        for stream in &self.streams {
            let Some(readers) = waiting.readers.get_mut(stream) else { continue };
            readers.remove(&self.ticket);
            if readers.is_empty() {
                waiting.readers.remove(stream);
            }
        }
    }
}

/// Waits for work of a group. Registered until dropped, and keeps its place as long.
#[derive(Debug)]
pub struct GroupWaiter {
    watch: Arc<Watch>,
    ticket: u64,
    group: GroupName,
    streams: BTreeSet<StreamName>,
    notify: Arc<Notify>,
    turn: Arc<Notify>,
    claims: bool,
    /// It took a wake and has not yet told what came of it.
    owes_a_look: bool,
}

impl GroupWaiter {
    /// To be called before each look at the state: what changes from now on wakes again. Returns the stream whose group
    /// is gone since the registration, if there is one; it may exist anew by now, but it is not the one waited for.
    pub fn begin_look(&mut self) -> Option<StreamName> {
        let mut waiting = self.watch.waiting();
        let waiter = waiting.in_queue.get_mut(&self.ticket)?;
        self.owes_a_look |= std::mem::take(&mut waiter.woken);
        waiter.gone.clone()
    }

    /// The look is over: there was nothing, or what there was has been delivered.
    pub fn end_look(&mut self) {
        self.owes_a_look = false;
        self.passed();
    }

    /// Resolves when nobody who stands before this one was woken and has still to ask for a delivery: so deliveries are asked
    /// for in the order of the queue, though many are woken at once.
    pub async fn turn(&self) {
        while self.waits_for_turn() {
            self.turn.notified().await;
        }
    }

    fn waits_for_turn(&self) -> bool {
        let mut waiting = self.watch.waiting();
        let is_ahead = |ticket: &u64| waiting.in_queue.get(ticket).is_some_and(|waiter| waiter.ahead);
        let queues = self.streams.iter().filter_map(|stream| waiting.queues.get(stream)?.get(&self.group));
        let mut before = queues.flat_map(|queue| queue.range(..self.ticket));
        let waits = before.any(is_ahead);
        if let Some(waiter) = waiting.in_queue.get_mut(&self.ticket) {
            waiter.waits_for_turn = waits;
        }
        waits
    }

    /// It has asked for a delivery, or will not: those behind it may.
    pub fn passed(&self) {
        self.watch.waiting().passed(self.ticket, &self.group, &self.streams);
    }

    /// How many who claim stand before this one, in the longest of its queues. Counts to [`PLACES_COUNTED`] at most.
    pub fn claims_before(&self) -> usize {
        let waiting = self.watch.waiting();
        let claims = |ticket: &&u64| waiting.in_queue.get(ticket).is_some_and(|waiter| waiter.claims);
        let queues = self.streams.iter().filter_map(|stream| waiting.queues.get(stream)?.get(&self.group));
        let before = queues.map(|queue| queue.range(..self.ticket).take(PLACES_COUNTED).filter(claims).count());
        before.max().unwrap_or(0)
    }

    /// Resolves when woken since the last [`GroupWaiter::begin_look`]. May resolve for nothing: look again.
    pub async fn woken(&self) {
        self.notify.notified().await;
    }
}

impl Drop for GroupWaiter {
    fn drop(&mut self) {
        let mut guard = self.watch.waiting();
        let waiting = &mut *guard;
        waiting.places -= self.streams.len();
        waiting.passed(self.ticket, &self.group, &self.streams);
        let woken = waiting.in_queue.remove(&self.ticket).is_some_and(|waiter| waiter.woken);
        for stream in &self.streams {
            let Some(groups) = waiting.queues.get_mut(stream) else { continue };
            if let Some(queue) = groups.get_mut(&self.group) {
                queue.remove(&self.ticket);
                if woken || self.owes_a_look {
                    wake_next(&mut waiting.in_queue, queue, 1, |_| true);
                    // It may have been woken for what only those who claim can take.
                    if self.claims {
                        wake_next(&mut waiting.in_queue, queue, 1, |waiter| waiter.claims);
                    }
                }
                if queue.is_empty() {
                    groups.remove(&self.group);
                }
            }
            if groups.is_empty() {
                waiting.queues.remove(stream);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn stream(name: &str) -> StreamName {
        StreamName::new(name).unwrap()
    }

    fn group(name: &str) -> GroupName {
        GroupName::new(name).unwrap()
    }

    fn appended(name: &str, entries: u64) -> [Change; 1] {
        [Change::Appended { stream: stream(name), entries }]
    }

    fn is_woken(waiter: &GroupWaiter) -> bool {
        waiter.woken().now_or_never().is_some()
    }

    fn queue(watch: &Arc<Watch>, group_name: &str, streams: &[&str]) -> GroupWaiter {
        let streams: Vec<_> = streams.iter().map(|name| stream(name)).collect();
        watch.group_waiter(&group(group_name), &streams, false).unwrap()
    }

    fn claiming(watch: &Arc<Watch>, group_name: &str, name: &str) -> GroupWaiter {
        watch.group_waiter(&group(group_name), &[stream(name)], true).unwrap()
    }

    fn released(name: &str, group_name: &str, entries: u64) -> [Change; 1] {
        [Change::Released { stream: stream(name), group: group(group_name), entries }]
    }

    #[track_caller]
    fn check_empty(watch: &Watch) {
        let waiting = watch.waiting();
        assert_eq!(waiting.places, 0);
        assert!(waiting.readers.is_empty() && waiting.queues.is_empty() && waiting.in_queue.is_empty());
    }

    #[test]
    fn those_who_were_woken_together_ask_in_the_order_of_the_queue() {
        let watch = Watch::new(10);
        let (mut first, mut second, third) =
            (queue(&watch, "g", &["s", "t"]), queue(&watch, "g", &["s"]), queue(&watch, "g", &["s"]));
        let has_turn = |waiter: &GroupWaiter| waiter.turn().now_or_never().is_some();
        assert!(has_turn(&third), "nobody was woken");
        watch.notify(&appended("s", 3));
        assert!(has_turn(&first) && !has_turn(&second) && !has_turn(&third));
        first.begin_look();
        assert!(!has_turn(&second), "it looks, and may ask");
        first.passed();
        assert!(has_turn(&second) && !has_turn(&third));
        second.begin_look();
        second.end_look();
        assert!(has_turn(&third));
        // Somebody who has just come waits for those who were woken, too.
        let newcomer = queue(&watch, "g", &["t"]);
        watch.notify(&appended("t", 1));
        let mut turn = Box::pin(newcomer.turn());
        assert!(turn.as_mut().now_or_never().is_none());
        first.begin_look();
        first.end_look();
        assert!(turn.now_or_never().is_some());
        // Woken again, and gone.
        watch.notify(&appended("t", 1));
        assert!(!has_turn(&third));
        drop(first);
        assert!(has_turn(&second) && !has_turn(&third), "its wake went to the next");
        drop(second);
        assert!(has_turn(&third));
    }

    #[test]
    fn every_reader_of_a_stream_is_woken_and_no_other() {
        let watch = Watch::new(10);
        let ada = watch.reader([&stream("orders"), &stream("orders")]).unwrap();
        let bob = watch.reader([&stream("orders"), &stream("mail")]).unwrap();
        let eve = watch.reader([&stream("mail")]).unwrap();
        assert_eq!(watch.places_taken(), 4, "a stream named twice takes one place");
        watch.notify(&appended("orders", 1));
        // The wake came before the wait and is not lost.
        assert!(ada.changed().now_or_never().is_some());
        assert!(bob.changed().now_or_never().is_some());
        assert!(eve.changed().now_or_never().is_none());
        assert!(ada.changed().now_or_never().is_none(), "one wake, one look");
        watch.notify(&[Change::StreamDeleted { stream: stream("mail") }]);
        assert!(eve.changed().now_or_never().is_none(), "a stream may come back");
        watch.notify_all();
        assert!(eve.changed().now_or_never().is_some());
        drop((ada, bob, eve));
        check_empty(&watch);
    }

    #[test]
    fn as_many_are_woken_as_entries_came_first_come_first_served() {
        let watch = Watch::new(10);
        let waiters: Vec<_> = (0..4).map(|_| queue(&watch, "billing", &["orders"])).collect();
        let other_group = queue(&watch, "", &["orders"]);
        watch.notify(&appended("orders", 2));
        assert_eq!(waiters.iter().map(is_woken).collect::<Vec<_>>(), [true, true, false, false]);
        assert!(is_woken(&other_group), "each group gets every entry");
        watch.notify(&appended("orders", 1));
        assert_eq!(waiters.iter().map(is_woken).collect::<Vec<_>>(), [false, false, true, false]);
    }

    #[test]
    fn who_finds_nothing_keeps_the_place() {
        let watch = Watch::new(10);
        let mut ada = queue(&watch, "billing", &["orders"]);
        let bob = queue(&watch, "billing", &["orders"]);
        watch.notify(&appended("orders", 1));
        assert!(is_woken(&ada));
        assert_eq!(ada.begin_look(), None);
        ada.end_look();
        watch.notify(&appended("orders", 1));
        assert!(is_woken(&ada) && !is_woken(&bob), "ada still stands before bob");
    }

    #[test]
    fn a_wake_that_led_to_no_look_goes_to_the_next() {
        let watch = Watch::new(10);
        let ada = queue(&watch, "billing", &["orders", "mail"]);
        let mut bob = queue(&watch, "billing", &["orders"]);
        let mut eve = queue(&watch, "billing", &["orders"]);
        watch.notify(&appended("orders", 1));
        // Ada's client is gone before she could look.
        drop(ada);
        assert!(is_woken(&bob) && !is_woken(&eve));
        // Bob looks, proposes, and is gone before the delivery came.
        bob.begin_look();
        drop(bob);
        assert!(is_woken(&eve));
        // Eve is served, and another entry came meanwhile: that wake is not lost either.
        eve.begin_look();
        let zoe = queue(&watch, "billing", &["orders"]);
        watch.notify(&appended("orders", 1));
        eve.end_look();
        assert!(!is_woken(&zoe));
        drop(eve);
        assert!(is_woken(&zoe));
        drop(zoe);
        check_empty(&watch);
    }

    #[test]
    fn who_was_served_wakes_nobody() {
        let watch = Watch::new(10);
        let mut ada = queue(&watch, "billing", &["orders"]);
        let bob = queue(&watch, "billing", &["orders"]);
        watch.notify(&appended("orders", 1));
        ada.begin_look();
        ada.end_look();
        drop(ada);
        assert!(!is_woken(&bob));
    }

    #[test]
    fn those_who_wait_for_what_is_gone_are_told() {
        let watch = Watch::new(10);
        let mut billing = queue(&watch, "billing", &["orders", "mail"]);
        let mut audit = queue(&watch, "audit", &["orders"]);
        watch.notify(&[Change::GroupDeleted { stream: stream("mail"), group: group("billing") }]);
        assert!(is_woken(&billing) && !is_woken(&audit));
        assert_eq!(billing.begin_look(), Some(stream("mail")));
        watch.notify(&[Change::StreamDeleted { stream: stream("orders") }]);
        assert_eq!(audit.begin_look(), Some(stream("orders")));
        assert_eq!(billing.begin_look(), Some(stream("mail")), "the first loss stands");
    }

    #[test]
    fn what_was_given_back_wakes_those_who_claim() {
        let watch = Watch::new(10);
        let plain = queue(&watch, "billing", &["orders"]);
        let claiming = ["billing", "billing", "billing", "audit"].map(|group| claiming(&watch, group, "orders"));
        let elsewhere = self::claiming(&watch, "billing", "mail");
        assert_eq!(claiming.iter().map(GroupWaiter::claims_before).collect::<Vec<_>>(), [0, 1, 2, 0]);
        watch.notify(&released("orders", "billing", 2));
        assert_eq!(claiming.iter().map(is_woken).collect::<Vec<_>>(), [true, true, false, false]);
        assert!(!is_woken(&plain) && !is_woken(&elsewhere));
        // New entries are for all, in their order.
        watch.notify(&appended("orders", 2));
        assert!(is_woken(&plain) && is_woken(&claiming[2]), "the two before have yet to look");
    }

    #[test]
    fn a_wake_for_what_was_given_back_goes_to_the_next_who_claims() {
        let watch = Watch::new(10);
        let ada = claiming(&watch, "billing", "orders");
        let plain = queue(&watch, "billing", &["orders"]);
        let bob = claiming(&watch, "billing", "orders");
        watch.notify(&released("orders", "billing", 1));
        drop(ada);
        assert!(is_woken(&bob), "ada has not looked");
        assert!(is_woken(&plain), "it may have been new entries as well");
    }

    #[test]
    fn when_everything_goes_all_consumers_are_told_and_readers_stay() {
        let watch = Watch::new(10);
        let reader = watch.reader([&stream("orders")]).unwrap();
        let mut billing = queue(&watch, "billing", &["orders"]);
        let mut audit = claiming(&watch, "audit", "mail");
        watch.notify(&[Change::AllDeleted]);
        assert!(is_woken(&billing) && is_woken(&audit));
        assert_eq!((billing.begin_look(), audit.begin_look()), (Some(stream("orders")), Some(stream("mail"))));
        assert!(reader.changed().now_or_never().is_none(), "the stream may come back");
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let watch = Watch::new(3);
        let reader = watch.reader([&stream("orders")]).unwrap();
        let waiter = queue(&watch, "billing", &["orders", "mail"]);
        assert_eq!(watch.reader([&stream("mail")]).unwrap_err(), Full { limit: 3 });
        drop(waiter);
        assert!(watch.group_waiter(&group("g"), [&stream("a"), &stream("b"), &stream("c")], false).is_err());
        drop(reader);
        check_empty(&watch);
    }
}
