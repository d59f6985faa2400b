//! What a node's storage has acknowledged, what it was asked for without an answer, and whether what is found fits.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use millstream_node::storage::{DataDir, StateStore, Wal};
use millstream_node::types::{CommittedLeaderId, LogEntry, LogId, LogPayload, Proposal, Vote};
use openraft::RaftLogReader;
use openraft::storage::RaftLogStorage;
use openraft::vote::RaftLeaderId;

use crate::script::{DATA, Machine, empty_spool, open_state, options, run};

/// Rows of the store.
pub(crate) type Rows = BTreeMap<Vec<u8>, Bytes>;

/// What must be found, and what may be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Promises {
    /// The incarnation, once it was seen.
    pub(crate) incarnation: Option<u64>,
    /// The vote acknowledged.
    pub(crate) vote: Option<Vote>,
    /// The vote asked for.
    pub(crate) vote_asked: Option<Vote>,
    /// Terms of the entries acknowledged, from 1 on, the purged ones included.
    pub(crate) terms: Vec<u64>,
    /// The same as it may be when what is under way is done.
    pub(crate) terms_asked: Vec<u64>,
    /// Acknowledged entries up to here were not asked to be cut off.
    pub(crate) kept: u64,
    /// Everything up to here may be purged.
    pub(crate) purge_asked: u64,
    /// The store's rows after the last commit acknowledged.
    pub(crate) rows: Rows,
    /// After the one under way.
    pub(crate) rows_asked: Rows,
    /// The state that other nodes have, once this one may be of no use.
    pub(crate) elsewhere: Option<Rows>,
}

/// The entry at `index` of `term`: its content follows from both.
pub(crate) fn entry(term: u64, index: u64) -> LogEntry {
    let bytes = (0..150 + 37 * (index % 20)).map(|at| (at * 7 + index * 13 + term) as u8).collect::<Vec<_>>();
    LogEntry { log_id: log_id(term, index), payload: LogPayload::Normal(Proposal(Bytes::from(bytes))) }
}

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId { leader_id: CommittedLeaderId::new(term, 1), index }
}

impl Promises {
    /// Opens what is on the disk, and says what is missing or too much. Takes over what is found of what was in doubt:
    /// from now on it must be there.
    pub(crate) fn hold_on(&mut self, machine: &Machine) -> Result<(), String> {
        let world = machine.world();
        let data_dir = DataDir::open(&world, Path::new(DATA), 1).map_err(|error| error.to_string())?;
        let incarnation = data_dir.identity().incarnation;
        if *self.incarnation.get_or_insert(incarnation) != incarnation {
            return Err("the directory has another incarnation".to_owned());
        }
        empty_spool(&world, &data_dir).map_err(|error| error.to_string())?;

        run(async {
            let wal = Wal::open(&world, &data_dir.wal_path(), options()).map_err(|error| error.to_string())?;
            let mut log = wal.group(0);
            let vote = log.read_vote_now().await;
            if vote != self.vote && vote != self.vote_asked {
                return Err(format!("the vote is {vote:?}, not {:?} or {:?}", self.vote, self.vote_asked));
            }
            let state = log.get_log_state().await.map_err(|error| error.to_string())?;
            let purged = state.last_purged_log_id.map_or(0, |id| id.index);
            let last = state.last_log_id.map_or(0, |id| id.index);
            if self.purge_asked < purged {
                return Err(format!("the log is purged up to {purged}, not {}", self.purge_asked));
            }
            let found = log.try_get_log_entries(purged + 1..=last).await.map_err(|error| error.to_string())?;
            let terms = self.settle_terms(purged, last, &found)?;
            wal.close().await;
            self.vote = vote;
            self.vote_asked = vote;
            self.terms_asked.clone_from(&terms);
            self.kept = terms.len() as u64;
            self.terms = terms;
            Ok(())
        })?;

        let (_state_dir, store) = open_state(machine, &world, &data_dir, self)
            .map_err(|error| format!("the state does not open and cannot be made anew: {error}"))?;
        let rows = all_rows(&*store)?;
        if rows != self.rows && rows != self.rows_asked {
            let (found, wanted, asked) = (rows.len(), self.rows.len(), self.rows_asked.len());
            return Err(format!("the state has {found} rows, and not the {wanted} acknowledged or {asked} asked for"));
        }
        self.rows_asked.clone_from(&rows);
        self.rows = rows;
        Ok(())
    }

    /// The terms of all entries as they are now, or what is wrong with them.
    fn settle_terms(&self, purged: u64, last: u64, found: &[LogEntry]) -> Result<Vec<u64>, String> {
        if found.len() as u64 != last.saturating_sub(purged) {
            return Err(format!("{} entries are found after {purged} and up to {last}", found.len()));
        }
        let at = |terms: &[u64], index: u64| terms.get(index as usize - 1).copied();
        let mut terms = self.terms.clone();
        terms.truncate(purged as usize);
        for entry_found in found {
            let index = entry_found.log_id.index;
            let term = entry_found.log_id.leader_id.term;
            if *entry_found != entry(term, index) {
                return Err(format!("entry {index} of term {term} is not what was appended"));
            }
            let wanted = [at(&self.terms, index), at(&self.terms_asked, index)];
            if !wanted.contains(&Some(term)) {
                return Err(format!("entry {index} is of term {term}, not {wanted:?}"));
            }
            terms.push(term);
        }
        if last < self.kept {
            return Err(format!("the log ends at {last}, but {} were acknowledged", self.kept));
        }
        Ok(terms)
    }
}

/// All rows, verified.
pub(crate) fn all_rows(store: &dyn StateStore) -> Result<Rows, String> {
    store.scan(&[], &[0xff]).map(|row| row.map_err(|error| error.to_string())).collect()
}

/// openraft reads the vote through another trait method in each release; here it is one.
trait ReadVote {
    async fn read_vote_now(&mut self) -> Option<Vote>;
}

impl ReadVote for millstream_node::storage::LogStore {
    async fn read_vote_now(&mut self) -> Option<Vote> {
        self.read_vote().await.unwrap_or_default()
    }
}
