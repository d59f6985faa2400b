//! Appends and reads are linearizable, and no search is needed to see it: ids order the entries, so it is enough that
//!
//! - a read contains every entry that was known to be there before it was called, and with an entry all that were
//!   appended before that one, except what may have been removed;
//! - an entry whose append was called when somebody had seen another has the greater id;
//! - it contains nothing whose append was called after it ended, and nothing that was removed before it was called.
//!
//! A local read may be behind, but what it shows is a state that was: of the entries up to the last that it shows, none
//! is missing. If it asks for at least some log index, then it contains what was acknowledged with that index.

use super::ledger::{Stream, next};
use super::{Evidence, Ledger, NEVER};
use crate::history::{Action, After, Call, Entry, Fresh, Id, Outcome};

const LAST: Id = Id { ms: u64::MAX, seq: u64::MAX };

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    let nothing = Stream::default();
    for call in &evidence.calls {
        let (Some((name, fresh)), Some(answer)) = (call.action.reads(), &call.answer) else { continue };
        let Outcome::Read { entries, more } = &answer.outcome else { continue };
        let stream = ledger.stream(name).unwrap_or(&nothing);
        let told = |problem: String| format!("{} read {name} (call {}, {fresh:?}): {problem}", call.client, call.made);
        let view = View::new(call, entries, *more).map_err(told)?;
        view.check(stream, fresh, call.made, answer.moment).map_err(told)?;
    }
    // Nobody appends behind what somebody had seen.
    for (name, stream) in &ledger.streams {
        for (id, fact) in &stream.entries {
            let known = stream.known_at(fact.made);
            if *id <= known {
                return Err(format!("{id} was appended to {name} by a call made after {known} had been seen"));
            }
        }
    }
    // The last readings are linearizable, and nothing happens after them.
    for (name, entries) in &evidence.end.streams {
        let stream = ledger.stream(name).unwrap_or(&nothing);
        let ids: Vec<Id> = entries.iter().map(|entry| entry.id).collect();
        View { ids, low: Id::MIN, high: LAST }
            .check(stream, Fresh::Linearizable, NEVER, NEVER)
            .map_err(|problem| format!("{name} at the end: {problem}"))?;
    }
    Ok(())
}

/// What a read shows: of the ids from `low` to `high`, these.
pub(super) struct View {
    /// Rising.
    pub ids: Vec<Id>,
    low: Id,
    high: Id,
}

impl View {
    fn new(call: &Call, entries: &[Entry], more: bool) -> Result<Self, String> {
        let (reverse, count, from) = match &call.action {
            Action::Range { reverse, beyond, count, .. } => (*reverse, *count, *beyond),
            Action::Read { after: After::Id(after), count, .. } => (false, *count, Some(*after)),
            // It began somewhere before the first.
            Action::Read { count, .. } => {
                let before = entries.first().map_or(LAST, |first| first.id);
                (false, *count, Some(before).filter(|_| !entries.is_empty()).map(previous).or(Some(LAST)))
            }
            _ => (false, NEVER, None),
        };
        let mut ids: Vec<Id> = entries.iter().map(|entry| entry.id).collect();
        if reverse {
            ids.reverse();
        }
        if let Some(pair) = ids.windows(2).find(|pair| pair[1] <= pair[0]) {
            return Err(format!("{} and {} are not in order", pair[0], pair[1]));
        }
        if count < ids.len() as u64 {
            return Err(format!("{} entries, and it asked for {count}", ids.len()));
        }
        let is_cut = more || ids.len() as u64 == count;
        let (mut low, mut high) = (Id::MIN, LAST);
        match (reverse, from) {
            (false, Some(after)) => low = next(after),
            (true, Some(before)) => high = previous(before),
            _ => {}
        }
        if let (Some(first), Some(last)) = (ids.first(), ids.last()) {
            if *first < low || high < *last {
                return Err(format!("{first} to {last} is not between {low} and {high}"));
            }
            match reverse {
                true if is_cut => low = *first,
                false if is_cut => high = *last,
                _ => {}
            }
        }
        Ok(Self { ids, low, high })
    }

    fn check(&self, stream: &Stream<'_>, fresh: Fresh, made: u64, answered: u64) -> Result<(), String> {
        let known = match fresh {
            Fresh::Linearizable => stream.known_at(made),
            Fresh::Local => Id::MIN,
            Fresh::AtLeast(index) => stream.appended_at(index),
        };
        let shown = self.ids.last().copied().unwrap_or(Id::MIN);
        let until = known.max(shown).min(self.high);
        if self.low <= until {
            let mut shown = self.ids.iter().peekable();
            for (id, fact) in stream.entries.range(self.low..=until) {
                let is_shown = shown.next_if(|shown| *shown <= id).is_some();
                if is_shown && answered < fact.made {
                    return Err(format!("{id} is shown before its append was called"));
                }
                if is_shown && fresh == Fresh::Linearizable && stream.is_gone(*id, made) {
                    return Err(format!("{id} is shown after it was removed"));
                }
                if !is_shown && !stream.may_be_gone(*id, answered) {
                    return Err(format!("{id} is missing; {known} was known"));
                }
            }
        }
        Ok(())
    }
}

/// The id before this.
fn previous(id: Id) -> Id {
    match (id.ms, id.seq) {
        (ms, 0) => Id { ms: ms.saturating_sub(1), seq: u64::MAX },
        (ms, seq) => Id { ms, seq: seq - 1 },
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use crate::history::Fresh::{AtLeast, Linearizable, Local};
    use crate::history::Keep;

    fn check(mut calls: Vec<Call>) -> Result<(), String> {
        calls.sort_by_key(|call| call.made);
        let evidence = Evidence { calls, ..Evidence::default() };
        super::check(&evidence, &Ledger::new(&evidence))
    }

    fn and(calls: [Call; 2], more: impl IntoIterator<Item = Call>) -> Result<(), String> {
        check(calls.into_iter().chain(more).collect())
    }

    #[test]
    fn fresh_reads() {
        let both = || [append("p", 1, "a", 2, appended(1)), append("p", 5, "b", 8, appended(2))];
        let fresh = |made, answered, entries: &[(u64, &str)]| range("r", made, answered, Linearizable, entries);
        assert_eq!(and(both(), [fresh(3, 4, &[(1, "a")])]), Ok(()));
        assert_eq!(and(both(), [fresh(6, 7, &[(1, "a")])]), Ok(()), "b is under way");
        assert_eq!(and(both(), [fresh(6, 7, &[(1, "a"), (2, "b")])]), Ok(()), "b is under way");
        assert_eq!(and(both(), [tail("r", 9, 10, &[(2, "b")])]), Ok(()));
        assert_eq!(and(both(), [wait("r", 3, 9, &[(2, "b")])]), Ok(()));
        for (what, reads) in [
            ("stale", vec![fresh(9, 10, &[(1, "a")])]),
            ("empty", vec![fresh(3, 4, &[])]),
            ("a hole", vec![fresh(9, 10, &[(2, "b")])]),
            ("the future", vec![fresh(3, 4, &[(1, "a"), (2, "b")])]),
            ("a stale tail", vec![tail("r", 9, 10, &[(1, "a")])]),
            ("back again", vec![fresh(6, 7, &[(1, "a"), (2, "b")]), range("q", 8, 9, Linearizable, &[(1, "a")])]),
        ] {
            assert!(and(both(), reads).is_err(), "{what}");
        }
        let disorder = fresh(9, 10, &[(2, "b"), (1, "a")]);
        assert!(and(both(), [disorder]).is_err(), "disorder");
    }

    #[test]
    fn removed_entries() {
        let both = || [append("p", 1, "a", 2, appended(1)), append("p", 3, "b", 4, appended(2))];
        let fresh = |made, answered, entries: &[(u64, &str)]| range("r", made, answered, Linearizable, entries);
        for removal in [delete("d", 5, 8, 1), trim("t", 5, 8, Keep::Newest(1)), trim("t", 5, 8, Keep::From(id(2)))] {
            let with = |read| and(both(), [removal.clone(), read]);
            assert_eq!(with(fresh(6, 7, &[(1, "a"), (2, "b")])), Ok(()), "not yet");
            assert_eq!(with(fresh(6, 7, &[(2, "b")])), Ok(()), "already");
            assert_eq!(with(fresh(9, 10, &[(2, "b")])), Ok(()));
            assert!(with(fresh(9, 10, &[(1, "a"), (2, "b")])).is_err(), "still");
            assert!(with(fresh(6, 7, &[(1, "a")])).is_err(), "the other one");
        }
    }

    #[test]
    fn local_reads() {
        let both = || [at(7, append("p", 1, "a", 2, appended(1))), at(8, append("p", 3, "b", 4, appended(2)))];
        let local = |fresh, entries: &[(u64, &str)]| range("r", 5, 6, fresh, entries);
        assert_eq!(and(both(), [local(Local, &[])]), Ok(()));
        assert_eq!(and(both(), [local(Local, &[(1, "a")])]), Ok(()));
        assert_eq!(and(both(), [local(AtLeast(7), &[(1, "a")])]), Ok(()));
        assert!(and(both(), [local(AtLeast(8), &[(1, "a")])]).is_err(), "not as new as asked for");
        assert!(and(both(), [local(Local, &[(2, "b")])]).is_err(), "a hole");
        let future = vec![range("r", 1, 2, Local, &[(1, "a")]), append("p", 3, "a", 4, appended(1))];
        assert!(check(future).is_err());
    }
}
