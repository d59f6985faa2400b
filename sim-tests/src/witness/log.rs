//! The applied log, put together from what all nodes applied.

use std::collections::BTreeMap;

use bytes::Bytes;
use millstream_streams::Outcome;

/// An entry of the log, as whoever applied it first did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Its term.
    pub term: u64,
    /// Its bytes; empty if it holds no command.
    pub proposal: Bytes,
    /// What became of the command.
    pub outcome: Option<Outcome>,
    /// A session answered, and nothing was done.
    pub repeated: bool,
}

/// The log that was applied, by index, and by whom.
#[derive(Debug, Clone, Default)]
pub struct Committed {
    entries: BTreeMap<u64, Applied>,
    /// Who applied an entry first, and in which of its lives.
    first: BTreeMap<u64, (String, u64)>,
    nodes: BTreeMap<String, Vec<Life>>,
}

/// What a node applied between a start and its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Life {
    /// It began with a state in which all up to here was applied. `None`: with an empty one.
    pub began: Option<u64>,
    /// Up to where it was seen to apply, or had a snapshot installed.
    pub applied: Option<u64>,
    /// What it was last told to be committed.
    pub committed: Option<u64>,
}

impl Committed {
    /// A node's process starts, with nothing.
    pub fn begin(&mut self, node: &str) {
        self.nodes.entry(node.to_owned()).or_default().push(Life::default());
    }

    /// A node's state is now one with all up to `index` applied: at its start, or by a snapshot.
    pub fn restored(&mut self, node: &str, index: u64) -> Result<(), String> {
        let life = self.life(node);
        if let Some(applied) = life.applied
            && index < applied
        {
            return Err(format!("{node} had applied {applied}, and was given a state of {index}"));
        }
        if life.applied.is_none() {
            life.began = Some(index);
        }
        life.applied = Some(index);
        Ok(())
    }

    /// A node has been told that all up to `index` is committed. Within a life this never goes back.
    pub fn committed(&mut self, node: &str, index: u64) -> Result<(), String> {
        let life = self.life(node);
        if let Some(before) = life.committed.replace(index)
            && index < before
        {
            return Err(format!("{node} was told that {before} is committed, and then {index}"));
        }
        Ok(())
    }

    /// A node has applied an entry: the next one, and the same that everybody else did.
    pub fn applied(&mut self, node: &str, index: u64, applied: &Applied) -> Result<(), String> {
        let lives = self.nodes.entry(node.to_owned()).or_default();
        let number = lives.len() as u64;
        if lives.is_empty() {
            lives.push(Life::default());
        }
        if let Some(life) = lives.last_mut()
            && let Some(before) = life.applied.replace(index)
            && index != before + 1
        {
            return Err(format!("{node} applied {index} after {before}"));
        }
        let Some(known) = self.entries.get(&index) else {
            self.first.insert(index, (node.to_owned(), number));
            self.entries.insert(index, applied.clone());
            return Ok(());
        };
        let (by, life) = self.first.get(&index).cloned().unwrap_or_default();
        let differs = |what: &str, known: &dyn std::fmt::Debug, now: &dyn std::fmt::Debug| {
            Err(format!(
                "entry {index}: {node} (life {number}) applied another {what} than {by} (life {life}):\n  {by}: \
                 {known:?}\n  {node}: {now:?}"
            ))
        };
        if known.term != applied.term {
            return differs("term", &known.term, &applied.term);
        }
        if known.proposal != applied.proposal {
            return differs("proposal", &told(&known.proposal), &told(&applied.proposal));
        }
        if (&known.outcome, known.repeated) != (&applied.outcome, applied.repeated) {
            return differs("outcome", &(&known.outcome, known.repeated), &(&applied.outcome, applied.repeated));
        }
        Ok(())
    }

    /// The entries, by index.
    pub fn entries(&self) -> impl Iterator<Item = (u64, &Applied)> {
        self.entries.iter().map(|(index, applied)| (*index, applied))
    }

    /// One entry.
    pub fn entry(&self, index: u64) -> Option<&Applied> {
        self.entries.get(&index)
    }

    /// The last index that anybody applied.
    pub fn last(&self) -> Option<u64> {
        self.entries.keys().next_back().copied()
    }

    /// The lives of each node.
    pub fn lives(&self) -> &BTreeMap<String, Vec<Life>> {
        &self.nodes
    }

    /// No entry is missing, and terms do not go back.
    pub fn check(&self) -> Result<(), String> {
        let mut before: Option<(u64, u64)> = None;
        for (index, applied) in &self.entries {
            if let Some((last, term)) = before {
                if *index != last + 1 {
                    return Err(format!("nobody applied {}: after {last} comes {index}", last + 1));
                }
                if applied.term < term {
                    return Err(format!("entry {index} is of term {}, the one before of {term}", applied.term));
                }
            } else if 1 < *index {
                return Err(format!("the first entry that anybody applied is {index}"));
            }
            before = Some((*index, applied.term));
        }
        Ok(())
    }

    fn life(&mut self, node: &str) -> &mut Life {
        let lives = self.nodes.entry(node.to_owned()).or_default();
        if lives.is_empty() {
            lives.push(Life::default());
        }
        let last = lives.len() - 1;
        &mut lives[last]
    }

    /// For tests of the checkers: changes the log behind everybody's back.
    #[cfg(test)]
    pub(super) fn tamper(&mut self) -> &mut BTreeMap<u64, Applied> {
        &mut self.entries
    }
}

/// A proposal in words.
fn told(proposal: &Bytes) -> String {
    match proposal.is_empty() {
        true => "no command".into(),
        false => {
            let words = millstream_streams::describe_proposal(proposal);
            words.unwrap_or_else(|error| format!("{} bytes: {error}", proposal.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(term: u64, proposal: &'static [u8]) -> Applied {
        Applied { term, proposal: Bytes::from_static(proposal), outcome: None, repeated: false }
    }

    #[test]
    fn nodes_that_apply_the_same_agree() {
        let mut log = Committed::default();
        for node in ["n1", "n2"] {
            log.begin(node);
            for (index, entry) in [(0, applied(1, b"")), (1, applied(1, b"a")), (2, applied(2, b"b"))] {
                log.applied(node, index, &entry).expect("the same");
            }
        }
        // A restart from a checkpoint, and one from nothing.
        log.begin("n1");
        log.restored("n1", 1).expect("at a start any state will do");
        log.applied("n1", 2, &applied(2, b"b")).expect("the same again");
        log.begin("n1");
        log.applied("n1", 0, &applied(1, b"")).expect("the same again");
        // A snapshot.
        log.begin("n3");
        log.restored("n3", 2).expect("a snapshot");
        log.applied("n3", 3, &applied(2, b"c")).expect("goes on");
        assert_eq!(log.check(), Ok(()));
        assert_eq!(log.last(), Some(3));
    }

    #[test]
    fn whoever_differs_is_found() {
        let mut log = Committed::default();
        for index in 0..3 {
            log.applied("n1", index, &applied(1, b"a")).expect("the first");
        }
        let mut other = |index, entry: &Applied| {
            log.begin("n2");
            log.applied("n2", index, entry)
        };
        assert_eq!(other(1, &applied(1, b"a")), Ok(()));
        assert!(other(1, &applied(2, b"a")).is_err(), "another term");
        assert!(other(1, &applied(1, b"b")).is_err(), "other bytes");
        assert!(other(1, &Applied { repeated: true, ..applied(1, b"a") }).is_err(), "another outcome");
        log.begin("n2");
        log.applied("n2", 0, &applied(1, b"a")).expect("the first");
        assert!(log.applied("n2", 2, &applied(1, b"a")).is_err(), "one passed over");
        log.begin("n2");
        log.applied("n2", 1, &applied(1, b"a")).expect("the same");
        assert!(log.applied("n2", 1, &applied(1, b"a")).is_err(), "twice in one life");
        assert!(log.restored("n2", 0).is_err(), "an older state in the middle of a life");
        log.committed("n2", 5).expect("the first");
        assert!(log.committed("n2", 4).is_err(), "less is committed than before");
    }

    #[test]
    fn gaps_and_terms_are_looked_at() {
        let log = |entries: &[(u64, u64)]| {
            let mut log = Committed::default();
            for (index, term) in entries {
                log.begin("n1");
                log.applied("n1", *index, &applied(*term, b"a")).expect("nobody else");
            }
            log
        };
        assert_eq!(log(&[(0, 1), (1, 1), (2, 3)]).check(), Ok(()));
        assert!(log(&[(0, 1), (2, 1)]).check().is_err());
        assert!(log(&[(0, 2), (1, 1)]).check().is_err());
        assert!(log(&[(7, 1)]).check().is_err());
    }
}
