//! MULTI, EXEC, DISCARD, WATCH, UNWATCH: what is queued becomes one entry of the log, guarded by what was watched.
//!
//! Commands that the node answers by itself (PING, say) are answered at their place, and are no part of the entry.

use bytes::Bytes;
use millstream_streams::limits::BATCH_GUARDS_MAX;
use millstream_streams::{Command, Guard, Refusal, Reply as Done, State};

use super::arguments::{Complaint, is_word};
use super::connection::{ARGUMENT_BYTES, Connection, Multi};
use super::dispatch::{self, Action, Found};
use super::keys;
use super::ops::{self, Ops};
use super::reply::Reply;

/// Bytes of commands that MULTI queues at most.
const QUEUED_BYTES_MAX: usize = 8 << 20;
/// What a queued command takes beside its arguments.
const QUEUED_BYTES: usize = 128;
/// An argument that is smaller is copied: it would hold on to all that it came with.
const SHARED_BYTES_MIN: usize = 64 << 10;

/// What stands at a place of a transaction.
enum Slot {
    Ready(Reply),
    Ops(Ops),
    Here(Found, Vec<Bytes>),
}

impl Connection {
    pub(super) fn begin_multi(&mut self) -> Reply {
        if self.multi.is_some() {
            return Reply::Error("ERR MULTI calls can not be nested".into());
        }
        self.multi = Some(Multi::default());
        self.tell_others();
        Reply::OK
    }

    /// Queues a command, whose arguments nobody looks at before EXEC.
    pub(super) fn queue(&mut self, found: Found, request: Vec<Bytes>) -> Reply {
        let Some(multi) = &mut self.multi else { return Reply::OK };
        let bytes = QUEUED_BYTES + request.iter().map(|argument| argument.len() + ARGUMENT_BYTES).sum::<usize>();
        if QUEUED_BYTES_MAX < multi.bytes + bytes {
            multi.is_broken = true;
            return Reply::Error(format!("ERR a transaction may have {QUEUED_BYTES_MAX} bytes at most"));
        }
        if !multi.is_broken {
            multi.bytes += bytes;
            let own = |argument: Bytes| match argument.len() {
                ..SHARED_BYTES_MIN => Bytes::copy_from_slice(&argument),
                _ => argument,
            };
            multi.queued.push((found, request.into_iter().map(own).collect()));
        }
        self.weigh();
        self.tell_others();
        Reply::Simple("QUEUED")
    }

    /// There is no such command, or not with so many arguments: if within MULTI, EXEC will refuse all, and an EXEC that is
    /// itself wrong refuses all at once. What the client is told.
    pub(super) fn not_a_request(&mut self, request: &[Bytes], complaint: String) -> String {
        if request.first().is_some_and(|name| is_word(name, "EXEC")) {
            self.multi = None;
            self.unwatch();
            let why = complaint.strip_prefix("ERR ").unwrap_or(&complaint);
            return format!("EXECABORT Transaction discarded because of: {why}");
        }
        if let Some(multi) = &mut self.multi {
            multi.is_broken = true;
        }
        complaint
    }

    pub(super) fn discard(&mut self) -> Reply {
        if self.multi.take().is_none() {
            return Reply::Error("ERR DISCARD without MULTI".into());
        }
        self.unwatch();
        Reply::OK
    }

    pub(super) fn unwatch(&mut self) -> Reply {
        self.watched.clear();
        self.tell_others();
        Reply::OK
    }

    /// WATCH: remembers when each of these streams was changed last.
    pub(super) async fn watch(&mut self, names: &[Bytes]) -> Reply {
        if self.multi.is_some() {
            return Reply::Error("ERR WATCH inside MULTI is not allowed".into());
        }
        if BATCH_GUARDS_MAX < self.watched.len() + names.len() {
            return Reply::Error(format!("ERR at most {BATCH_GUARDS_MAX} keys can be watched in Millstream"));
        }
        if let Err(denied) = self.door.barrier().await {
            return self.door.denied(&denied);
        }
        let watched = &mut self.watched;
        self.door.front().replica.with_state(|state| {
            for stream in keys::names(names) {
                let of = |guard: &Guard| match guard {
                    Guard::Unchanged { stream, .. } | Guard::Absent { stream } => stream.clone(),
                };
                // The first look counts.
                if watched.iter().all(|guard| of(guard) != stream) {
                    watched.push(match state.last_change_index(&stream) {
                        Some(last_change_index) => Guard::Unchanged { stream, last_change_index },
                        None => Guard::Absent { stream },
                    });
                }
            }
        });
        self.tell_others();
        Reply::OK
    }

    pub(super) async fn exec(&mut self) -> Reply {
        let Some(multi) = self.multi.take() else { return Reply::Error("ERR EXEC without MULTI".into()) };
        let guards = std::mem::take(&mut self.watched);
        self.at = multi.bytes;
        self.tell_others();
        if multi.is_broken {
            return Reply::Error("EXECABORT Transaction discarded because of previous errors.".into());
        }
        let slots = multi.queued.into_iter().map(|(found, request)| self.slot(found, request));
        let slots: Vec<Slot> = slots.collect();
        let ops = |slot: &Slot| match slot {
            Slot::Ops(ops) => Some(ops.clone()),
            Slot::Ready(_) | Slot::Here(..) => None,
        };
        let all: Vec<Ops> = slots.iter().filter_map(ops).collect();
        let results = match self.at_once(&all, guards).await {
            Ok(results) => results,
            Err(reply) => return reply,
        };
        let mut results = results.into_iter();
        // What the log answers has bounds of its own.
        let mut room = self.door.options.reply_bytes_max;
        let mut replies = Vec::with_capacity(slots.len());
        for slot in slots {
            replies.push(match slot {
                Slot::Ready(reply) => reply,
                Slot::Ops(ops) => {
                    let mine = results.by_ref().take(ops.commands.len()).collect();
                    ops.tell(mine)
                }
                Slot::Here(..) if room == 0 => {
                    Reply::Error("ERR the replies before this one are too large for a transaction in Millstream".into())
                }
                Slot::Here(found, request) => {
                    let reply = Box::pin(self.here(found, &request, false)).await.unwrap_or(Reply::Null);
                    room = room.saturating_sub(reply.bytes());
                    self.at += reply.bytes();
                    self.weigh();
                    reply
                }
            });
        }
        Reply::Array(replies)
    }

    fn slot(&self, found: Found, request: Vec<Bytes>) -> Slot {
        match self.action(found, &request).map(dispatch::within_multi) {
            Ok(Action::Reply(reply)) => Slot::Ready(reply),
            Ok(Action::Ops(ops)) => Slot::Ops(ops),
            Ok(_) => Slot::Here(found, request),
            Err(Complaint(text)) => Slot::Ready(Reply::Error(text)),
        }
    }

    /// Does all of these as one entry of the log, if the guards hold; otherwise the reply of EXEC.
    async fn at_once(&mut self, all: &[Ops], guards: Vec<Guard>) -> Result<Vec<ops::Result>, Reply> {
        if ops::commands(all).next().is_none() {
            return match self.guards_hold(&guards).await? {
                true => Ok(Vec::new()),
                false => Err(Reply::NullArray),
            };
        }
        let command = Command::from(ops::batch(all, guards));
        match self.perform(command).await {
            Ok((Ok(Done::Batched(batched)), entries)) => Ok(ops::apart(all, batched.results, entries)),
            Ok((Err(Refusal::GuardFailed { .. }), _)) => Err(Reply::NullArray),
            Ok((Err(refusal), _)) => Err(Reply::Error(format!("EXECABORT Transaction discarded: {refusal}"))),
            Ok(_) => Err(Reply::Error("ERR the reply does not fit the command".into())),
            Err(denied) => Err(self.door.denied(&denied)),
        }
    }

    async fn guards_hold(&mut self, guards: &[Guard]) -> Result<bool, Reply> {
        if guards.is_empty() {
            return Ok(true);
        }
        self.door.barrier().await.map_err(|denied| self.door.denied(&denied))?;
        let holds = |state: &State, guard: &Guard| match guard {
            Guard::Unchanged { stream, last_change_index } => {
                state.last_change_index(stream) == Some(*last_change_index)
            }
            Guard::Absent { stream } => state.last_change_index(stream).is_none(),
        };
        Ok(self.door.front().replica.with_state(|state| guards.iter().all(|guard| holds(state, guard))))
    }

    /// What CLIENT LIST of others tells.
    pub(super) fn tell_others(&self) {
        let queued = self.multi.as_ref().map(|multi| multi.queued.len());
        let (watching, version) = (self.watched.len(), self.version);
        self.client.facts(|facts| (facts.queued, facts.watching, facts.version) = (queued, watching, version));
    }
}
