//! XNACK: give pending entries back, so that another consumer takes them at once.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop, check_ids};
use crate::digest::Summary;
use crate::entry_id::EntryId;
use crate::error::Refusal;
use crate::limits::DELIVERY_COUNT_MAX;
use crate::names::{GroupName, StreamName};
use crate::state::Change;

/// Gives pending entries back (XNACK): they belong to nobody until a group read with CLAIM, a claim or an auto-claim
/// takes them, which all do whatever their idle time.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Nack {
    /// The stream.
    #[n(0)]
    pub stream: StreamName,
    /// The group.
    #[n(1)]
    pub group: GroupName,
    /// 1 to [`IDS_MAX`](crate::limits::IDS_MAX) ids, of any consumer's entries. Those not pending count nothing.
    #[n(2)]
    pub ids: Vec<EntryId>,
    /// What becomes of the delivery count.
    #[n(3)]
    pub mode: NackMode,
    /// Set the delivery count to this instead, at most [`DELIVERY_COUNT_MAX`] (RETRYCOUNT).
    #[n(4)]
    pub delivery_count: Option<u64>,
    /// Make entries pending that are not, if they are in the stream (FORCE). Their count starts at 0.
    #[n(5)]
    pub force: bool,
}

/// What giving an entry back does to its delivery count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum NackMode {
    /// The delivery does not count: one less, but not below 0.
    #[n(0)]
    Silent,
    /// The delivery counts: as it is.
    #[n(1)]
    Fail,
    /// Nobody should try again: the greatest count there is.
    #[n(2)]
    Fatal,
}

/// What was given back.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Nacked {
    /// How many were given back; an id that is named twice counts twice, as it was given back twice.
    #[n(0)]
    pub released: u64,
}

impl Apply for Nack {
    type Reply = Nacked;

    fn check(&self) -> Result<(), Refusal> {
        check_ids(&self.ids, 1)?;
        Refusal::check_limit("delivery_count", self.delivery_count.unwrap_or(0), DELIVERY_COUNT_MAX)
    }

    fn ids(&self) -> u64 {
        self.ids.len() as u64
    }

    fn summarize(&self, reply: &Nacked, summary: &mut Summary) {
        summary.number(reply.released);
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<Nacked, Stop> {
        let (entries, group) = context.state.streams.find_group_mut(&self.stream, &self.group)?;
        let mut cursor = entries.cursor(context.blocks);
        let mut released = 0;
        for &id in &self.ids {
            let count_before = match group.pending().get(id) {
                Some(pending) => pending.delivery_count,
                None if self.force && cursor.contains(id)? => 0,
                None => continue,
            };
            // Also if it belongs to nobody already: it goes to the end of the line.
            group.release(id, self.delivery_count.unwrap_or_else(|| self.mode.count(count_before)));
            if crate::mutant!(NackForgets) {
                group.remove_pending(id);
            }
            released += 1;
        }
        if released > 0 {
            context.state.streams.touch(&self.stream, context.index);
            let (stream, group) = (self.stream.clone(), self.group.clone());
            context.changes.push(Change::Released { stream, group, entries: released });
        }
        Ok(Nacked { released })
    }
}

impl NackMode {
    /// What a delivery count becomes.
    fn count(self, before: u64) -> u64 {
        match self {
            NackMode::Silent => before.saturating_sub(1),
            NackMode::Fail => before,
            NackMode::Fatal => DELIVERY_COUNT_MAX,
        }
    }
}
