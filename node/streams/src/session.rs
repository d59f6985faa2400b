//! Sessions: a request that is sent again is answered again, and not done again.
//!
//! A session remembers the outcome of each request from its floor on. The client raises the floor as answers arrive
//! (`completed_below`), which is what keeps sessions small. An unknown session is refused and never made anew: if it
//! was, a retry that arrives after the session expired would have a second effect.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::codec::{self, RequestId};
use crate::error::{DecodeError, Refusal};
use crate::freeze::Piece;
use crate::limits::{SESSION_IDLE_MS_MAX, SESSION_PAGE_REPLIES, SESSION_WINDOW, SESSIONS_MAX};

/// What a session counts for when it becomes dirty, in bytes. More than its rows take: bounds how many a freeze has to look
/// at in one step.
const SESSION_DIRTY_BYTES: u64 = 2048;

/// All open sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    sessions: BTreeMap<u64, Session>,
    /// Sessions by a time not later than that of their last request. It is brought up to date when a session comes to
    /// the front: keeping it exact would cost two map operations on each request.
    by_age: BTreeSet<(u64, u64)>,
    /// Sessions that changed, or that are gone, since the last freeze.
    dirty: BTreeSet<u64>,
    /// Pages of replies that are gone since the last freeze, with their sessions.
    deleted: BTreeSet<(u64, u64)>,
    /// What the sessions that became dirty since the last freeze count for, in bytes.
    dirty_bytes: u64,
}

#[derive(Debug)]
struct Session {
    head: SessionHead,
    /// The time under which it stands in [`Sessions::by_age`].
    noted_ms: u64,
    replies: BTreeMap<u64, Record>,
    /// Stands in [`Sessions::dirty`].
    queued: bool,
    /// Pages that changed, or that are gone, since the last freeze.
    dirty_pages: BTreeSet<u64>,
}

/// The head row of a session.
#[derive(Debug, Clone, Copy, Encode, Decode)]
pub(crate) struct SessionHead {
    /// When its last request was applied, in milliseconds since the Unix epoch.
    #[n(0)]
    active_ms: u64,
    /// The smallest sequence that it accepts.
    #[n(1)]
    floor: u64,
}

/// What became of a request.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// A hash of the command.
    fingerprint: u64,
    /// The outcome, encoded.
    outcome: Bytes,
}

/// A record with its sequence, as a freeze takes it.
pub(crate) type SessionRecord = (u64, Record);

/// A record in the row of its page.
#[derive(Debug, Encode, Decode)]
struct RecordRow {
    #[n(0)]
    sequence: u64,
    #[n(1)]
    fingerprint: u64,
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    outcome: Vec<u8>,
}

/// What to do with a request.
#[derive(Debug)]
pub(crate) enum Admission {
    /// Apply it, and record the outcome.
    New,
    /// It was applied before, with this outcome.
    Repeated(Bytes),
    /// Refuse it, and record nothing.
    Refused(Refusal),
}

impl Sessions {
    /// Opens a session. Those that have been idle for too long expire, and if there are too many, the one that has been
    /// idle longest goes.
    pub(crate) fn open(&mut self, session: u64, now_ms: u64) {
        while let Some(oldest) = self.oldest() {
            let is_idle = now_ms.saturating_sub(oldest.0) > SESSION_IDLE_MS_MAX || crate::mutant!(SessionsComeBack);
            if !is_idle && self.sessions.len() < SESSIONS_MAX {
                break;
            }
            self.close(oldest.1);
        }
        let head = SessionHead { active_ms: now_ms, floor: 1 };
        let opened = Session {
            head,
            noted_ms: head.active_ms,
            replies: BTreeMap::new(),
            queued: true,
            dirty_pages: BTreeSet::new(),
        };
        self.sessions.insert(session, opened);
        self.by_age.insert((now_ms, session));
        self.dirty.insert(session);
        self.dirty_bytes += SESSION_DIRTY_BYTES;
    }

    /// The session with the oldest last request, and the time of that.
    fn oldest(&mut self) -> Option<(u64, u64)> {
        loop {
            let &(noted_ms, id) = self.by_age.first()?;
            let session = self.sessions.get_mut(&id)?;
            if session.head.active_ms == noted_ms {
                return Some((noted_ms, id));
            }
            session.noted_ms = session.head.active_ms;
            self.by_age.pop_first();
            self.by_age.insert((session.head.active_ms, id));
        }
    }

    /// Closes a session; false if there is none.
    pub(crate) fn close(&mut self, session: u64) -> bool {
        let Some(mut closed) = self.sessions.remove(&session) else { return false };
        self.by_age.remove(&(closed.noted_ms, session));
        self.dirty.insert(session);
        closed.dirty_pages.extend(closed.replies.keys().map(|sequence| page_of(*sequence)));
        for page in closed.dirty_pages {
            self.deleted.insert((session, page));
        }
        true
    }

    /// Whether a request has its outcome on record, so that applying it again would only repeat that.
    pub(crate) fn is_recorded(&self, request: &RequestId) -> bool {
        self.sessions.get(&request.session).is_some_and(|session| session.replies.contains_key(&request.sequence))
    }

    /// Decides what to do with a request.
    pub(crate) fn admit(&mut self, request: RequestId, fingerprint: u64, now_ms: u64) -> Admission {
        let RequestId { session: id, sequence, completed_below } = request;
        if !self.sessions.contains_key(&id) && crate::mutant!(SessionsComeBack) {
            self.open(id, now_ms);
        }
        let Some(session) = self.sessions.get_mut(&id) else {
            return Admission::Refused(Refusal::SessionNotFound { session: id });
        };
        if !session.queued {
            session.queued = true;
            self.dirty.insert(id);
            self.dirty_bytes += SESSION_DIRTY_BYTES;
        }
        if session.head.active_ms + 1_000 < now_ms && crate::mutant!(DedupEvictedEarly) {
            session.replies.clear();
        }
        session.head.active_ms = now_ms;
        session.raise_floor(completed_below);
        let floor = session.head.floor;
        if sequence < floor || sequence - floor >= SESSION_WINDOW {
            return Admission::Refused(Refusal::SequenceOutOfWindow { sequence, floor });
        }
        match session.replies.get(&sequence) {
            None => Admission::New,
            _ if crate::mutant!(DedupOff) => Admission::New,
            Some(record) if record.fingerprint == fingerprint => Admission::Repeated(record.outcome.clone()),
            Some(_) => Admission::Refused(Refusal::SequenceReused { sequence }),
        }
    }

    /// Records the outcome of an admitted request, unless the session is gone by now.
    pub(crate) fn record(&mut self, request: RequestId, fingerprint: u64, outcome: Bytes) {
        if let Some(session) = self.sessions.get_mut(&request.session) {
            session.dirty_pages.insert(page_of(request.sequence));
            session.replies.insert(request.sequence, Record { fingerprint, outcome });
        }
    }
}

fn page_of(sequence: u64) -> u64 {
    sequence / SESSION_PAGE_REPLIES
}

impl Session {
    fn raise_floor(&mut self, completed_below: u64) {
        if completed_below <= self.head.floor {
            return;
        }
        self.head.floor = completed_below;
        while let Some(first) = self.replies.first_entry()
            && *first.key() < completed_below
        {
            self.dirty_pages.insert(page_of(*first.key()));
            first.remove();
        }
    }

    fn page(&self, page: u64) -> Vec<SessionRecord> {
        let from = page * SESSION_PAGE_REPLIES;
        let records = self.replies.range(from..=from + (SESSION_PAGE_REPLIES - 1));
        records.map(|(sequence, record)| (*sequence, record.clone())).collect()
    }
}

/// The row of a page of records; `None` if it is empty.
pub(crate) fn encode_page(records: &[SessionRecord]) -> Option<Vec<u8>> {
    let row = |(sequence, Record { fingerprint, outcome }): &SessionRecord| RecordRow {
        sequence: *sequence,
        fingerprint: *fingerprint,
        outcome: outcome.to_vec(),
    };
    (!records.is_empty()).then(|| codec::encode(&records.iter().map(row).collect::<Vec<_>>()))
}

/// Rows: a head for each session, and pages of records.
impl Sessions {
    /// What the sessions that changed since the last freeze count for, in bytes, beside what they recorded.
    pub(crate) fn dirty_bytes(&self) -> u64 {
        self.dirty_bytes
    }

    /// Takes what changed since the last freeze.
    pub(crate) fn freeze(&mut self, frozen: &mut Piece) {
        self.dirty_bytes = 0;
        // A session never comes back under the number of another, so none of these pages is written now.
        let deleted = std::mem::take(&mut self.deleted);
        frozen.replies.extend(deleted.into_iter().map(|(session, page)| (session, page, Vec::new())));
        for id in std::mem::take(&mut self.dirty) {
            let Some(session) = self.sessions.get_mut(&id) else {
                frozen.sessions.push((id, None));
                continue;
            };
            session.queued = false;
            frozen.sessions.push((id, Some(session.head)));
            for page in std::mem::take(&mut session.dirty_pages) {
                if !crate::mutant!(DedupNotInCheckpoint) {
                    frozen.replies.push((id, page, session.page(page)));
                }
            }
        }
    }

    /// All of them.
    pub(crate) fn all_rows(&self, frozen: &mut Piece) {
        for (id, session) in &self.sessions {
            frozen.sessions.push((*id, Some(session.head)));
            let pages: BTreeSet<u64> = session.replies.keys().map(|sequence| page_of(*sequence)).collect();
            frozen.replies.extend(pages.into_iter().map(|page| (*id, page, session.page(page))));
        }
    }

    /// Adds a session from its head row; its pages follow.
    pub(crate) fn restore(&mut self, id: u64, row: &[u8]) -> Result<(), DecodeError> {
        let head: SessionHead = codec::decode(row)?;
        self.by_age.insert((head.active_ms, id));
        let session = Session {
            head,
            noted_ms: head.active_ms,
            replies: BTreeMap::new(),
            queued: false,
            dirty_pages: BTreeSet::new(),
        };
        self.sessions.insert(id, session);
        Ok(())
    }

    /// Adds a page of records from its row, after the session's head.
    pub(crate) fn restore_page(&mut self, id: u64, page: u64, row: &[u8]) -> Result<(), DecodeError> {
        let malformed = |problem: &str| DecodeError::Malformed { problem: problem.to_owned() };
        let session = self.sessions.get_mut(&id).ok_or_else(|| malformed("replies of no session"))?;
        for RecordRow { sequence, fingerprint, outcome } in codec::decode::<Vec<RecordRow>>(row)? {
            if page_of(sequence) != page {
                return Err(malformed("reply on another page than its own"));
            }
            session.replies.insert(sequence, Record { fingerprint, outcome: outcome.into() });
        }
        Ok(())
    }
}
