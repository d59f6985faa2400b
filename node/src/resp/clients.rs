//! Who is connected: what CLIENT LIST tells, and how one connection reaches another.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::reply::Version;

/// All connections of a node.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// What all ids have in common: those of other nodes have something else.
    base: u64,
    last: AtomicU64,
    blocked: AtomicUsize,
    here: Mutex<BTreeMap<u64, Arc<Client>>>,
    /// Bytes that all of them hold, and may.
    held: AtomicUsize,
    held_max: usize,
}

/// One connection, as others see it.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: u64,
    pub(super) peer: Option<SocketAddr>,
    pub(super) since: Instant,
    facts: Mutex<Facts>,
    /// Resolves when somebody wants it closed.
    pub(super) killed: Notify,
    is_killed: AtomicBool,
    /// Somebody wants its wait to end.
    pub(super) unblocked: Notify,
    /// Bytes of requests and replies that it holds.
    held: AtomicUsize,
}

/// What a connection says of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub(super) name: String,
    pub(super) library: String,
    pub(super) library_version: String,
    pub(super) version: Version,
    /// The last command, and which of its subcommands.
    pub(super) command: (&'static str, Option<&'static str>),
    pub(super) last_used: Option<Instant>,
    /// Commands queued by MULTI; `None` outside.
    pub(super) queued: Option<usize>,
    pub(super) watching: usize,
    /// CLIENT NO-EVICT: others are closed first when all hold too much.
    pub(super) no_evict: bool,
    /// What CLIENT NO-TOUCH was told. It has no effect: no key is evicted.
    pub(super) no_touch: bool,
    /// It waits; and how its wait is to end, if somebody has said.
    pub(super) blocked: bool,
    pub(super) unblock: Option<Unblock>,
}

/// How a wait is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unblock {
    /// As if its time were over.
    Timeout,
    /// With an error.
    Error,
}

/// Connections that a node counts before its ids would meet those of another: with 12 bits for the node that is as far as
/// numbers go in JavaScript.
const ID_BITS: u32 = 40;

impl Clients {
    /// Of a node, which may hold so many bytes; 0: any number, as in Redis. Nodes are told apart by 12 bits of their ids.
    pub(super) fn of(node_id: u64, held_max: usize) -> Self {
        let held_max = if held_max == 0 { usize::MAX } else { held_max };
        Self { base: (node_id & 0xfff) << ID_BITS, held_max, ..Self::default() }
    }

    /// A new connection; `None` if there are `max` already. It is forgotten when what is returned is dropped.
    pub(super) fn connect(self: &Arc<Self>, peer: Option<SocketAddr>, max: usize) -> Option<Connected> {
        let mut here = self.here();
        if max <= here.len() {
            return None;
        }
        let id = self.base | (self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let client = Arc::new(Client {
            id,
            peer,
            since: Instant::now(),
            facts: Mutex::default(),
            killed: Notify::new(),
            is_killed: AtomicBool::new(false),
            unblocked: Notify::new(),
            held: AtomicUsize::new(0),
        });
        here.insert(id, client.clone());
        Some(Connected { clients: self.clone(), client })
    }

    pub(super) fn get(&self, id: u64) -> Option<Arc<Client>> {
        self.here().get(&id).cloned()
    }

    /// In the order in which they came, without those that are being closed.
    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        let stays = |client: &&Arc<Client>| !client.is_killed.load(Ordering::Acquire);
        self.here().values().filter(stays).cloned().collect()
    }

    pub(super) fn count(&self) -> usize {
        self.here().len()
    }

    /// How many there have ever been.
    pub(super) fn ever(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }

    /// How many wait.
    pub(super) fn blocked(&self) -> usize {
        self.blocked.load(Ordering::Acquire)
    }

    /// Notes how many bytes a connection holds. If all of them hold too much, those that hold most are closed, as with Redis's
    /// `maxmemory-clients`: one that is slow, or greedy, must not take what the others need.
    pub(super) fn hold(&self, client: &Client, bytes: usize) {
        let before = client.held.swap(bytes, Ordering::Relaxed);
        if bytes <= before {
            self.held.fetch_sub(before - bytes, Ordering::Relaxed);
        } else if self.held_max < self.held.fetch_add(bytes - before, Ordering::Relaxed) + (bytes - before) {
            self.make_room();
        }
    }

    /// Bytes that all of them hold.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn make_room(&self) {
        let mut clients: Vec<_> = self.all();
        let held = |client: &Arc<Client>| client.held.load(Ordering::Relaxed);
        // What those hold that are being closed already is as good as free.
        let mut all: usize = clients.iter().map(held).sum();
        clients.sort_by_cached_key(|client| (client.facts(|facts| facts.no_evict), Reverse(held(client))));
        for client in clients {
            if all <= self.held_max {
                break;
            }
            all -= held(&client).min(all);
            tracing::warn!(client = client.id, bytes = held(&client), "closed, as all clients together hold too much");
            client.kill();
        }
    }

    fn here(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// Looks at its facts, or changes them.
    pub(super) fn facts<R>(&self, f: impl FnOnce(&mut Facts) -> R) -> R {
        f(&mut self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Closes it.
    pub(super) fn kill(&self) {
        self.is_killed.store(true, Ordering::Release);
        self.killed.notify_one();
    }

    /// Ends its wait. False: it does not wait, or somebody was faster.
    pub(super) fn unblock(&self, how: Unblock) -> bool {
        let ends = self.facts(|facts| {
            let ends = facts.blocked && facts.unblock.is_none();
            if ends {
                facts.unblock = Some(how);
            }
            ends
        });
        if ends {
            self.unblocked.notify_one();
        }
        ends
    }

    /// A line of CLIENT LIST.
    pub(super) fn line(&self) -> String {
        let facts = self.facts(|facts| facts.clone());
        let idle = facts.last_used.map_or(0, |at| at.elapsed().as_secs());
        let age = self.since.elapsed().as_secs();
        let address = self.address();
        let flags = [('b', facts.blocked), ('x', facts.queued.is_some()), ('e', facts.no_evict), ('T', facts.no_touch)];
        let mut flags: String = flags.into_iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| flag).collect();
        if flags.is_empty() {
            flags.push('N');
        }
        let held = self.held.load(Ordering::Relaxed);
        let multi = facts.queued.map_or(-1, |queued| i64::try_from(queued).unwrap_or(i64::MAX));
        let resp = if facts.version == Version::Three { 3 } else { 2 };
        let Facts { name, library, library_version, command, watching, .. } = facts;
        let command = match command {
            ("", _) => "NULL".to_owned(),
            (command, None) => command.to_owned(),
            (command, Some(subcommand)) => format!("{command}|{subcommand}"),
        };
        format!(
            "id={} addr={address} laddr=?:0 fd=-1 name={name} age={age} idle={idle} flags={flags} db=0 sub=0 psub=0 ssub=0 \
             multi={multi} watch={watching} qbuf=0 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 \
             tot-mem={held} events=r cmd={command} user=default redir=-1 resp={resp} lib-name={library} lib-ver={library_version}",
            self.id
        )
    }

    /// Where it comes from.
    pub(super) fn address(&self) -> String {
        self.peer.map_or_else(|| "?:0".to_owned(), |peer| peer.to_string())
    }
}

/// A connection that is there. Forgotten when dropped.
pub(super) struct Connected {
    clients: Arc<Clients>,
    pub(super) client: Arc<Client>,
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.clients.hold(&self.client, 0);
        self.clients.here().remove(&self.client.id);
    }
}

/// A wait that has begun. Over when dropped.
pub(super) struct Blocked<'c> {
    clients: &'c Clients,
    client: &'c Client,
}

impl<'c> Blocked<'c> {
    pub(super) fn new(clients: &'c Clients, client: &'c Client) -> Self {
        client.facts(|facts| (facts.blocked, facts.unblock) = (true, None));
        clients.blocked.fetch_add(1, Ordering::Release);
        Self { clients, client }
    }

    /// How the wait was ended by somebody, if it was.
    pub(super) fn ended(&self) -> Option<Unblock> {
        self.client.facts(|facts| facts.unblock)
    }
}

impl Drop for Blocked<'_> {
    fn drop(&mut self) {
        self.client.facts(|facts| (facts.blocked, facts.unblock) = (false, None));
        self.clients.blocked.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_can_be_woken_once_and_who_leaves_is_forgotten() {
        let clients: Arc<Clients> = Arc::default();
        let one = clients.connect(None, 2).expect("room");
        let two = clients.connect(None, 2).expect("room");
        assert!(clients.connect(None, 2).is_none());
        assert!(!one.client.unblock(Unblock::Error), "it does not wait");
        let wait = Blocked::new(&clients, &one.client);
        assert_eq!(clients.blocked(), 1);
        assert!(one.client.line().contains(" flags=b "));
        assert!(one.client.unblock(Unblock::Error) && !one.client.unblock(Unblock::Timeout));
        assert_eq!(wait.ended(), Some(Unblock::Error));
        drop(wait);
        assert_eq!(clients.blocked(), 0);
        assert_eq!(Blocked::new(&clients, &one.client).ended(), None, "the next wait is another");
        drop(two);
        assert_eq!(clients.all().iter().map(|client| client.id).collect::<Vec<_>>(), [1]);
        assert_eq!((clients.count(), clients.ever()), (1, 2));
    }

    #[test]
    fn who_holds_most_is_closed_when_all_hold_too_much() {
        let clients = Arc::new(Clients::of(0, 100));
        let connected: Vec<_> = (0..4).filter_map(|_| clients.connect(None, 4)).collect();
        let there = || clients.all().iter().map(|client| client.id).collect::<Vec<_>>();
        let [one, two, three, four] = [0, 1, 2, 3].map(|at: usize| &*connected[at].client);
        one.facts(|facts| facts.no_evict = true);
        clients.hold(one, 60);
        clients.hold(two, 25);
        clients.hold(three, 15);
        assert_eq!((there(), clients.held()), (vec![1, 2, 3, 4], 100));
        clients.hold(four, 1);
        assert_eq!(there(), [1, 3, 4], "the largest of those that may be");
        // It is not gone yet: what it holds is not counted twice.
        clients.hold(four, 20);
        assert_eq!(there(), [1, 3, 4]);
        clients.hold(four, 90);
        assert_eq!(there(), [1, 3]);
        clients.hold(one, 101);
        assert_eq!(there(), Vec::<u64>::new(), "who must not be, if the others are not enough");
        assert!(one.line().contains(" tot-mem=101 "));
        drop(connected);
        assert_eq!(clients.held(), 0);
    }
}
