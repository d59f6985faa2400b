//! The replicas' states, row by row: at one log index all have the same bytes, and those that the log makes of nothing.
//!
//! A look at a state costs as much as the state is large. States are looked at whenever they were restored or received,
//! at the end, and at checkpoints as often as the log's own growth pays for it.

use std::collections::BTreeMap;

use bytes::Bytes;
use millstream_streams::{BlockError, Blocks, RowKey, State};
use xxhash_rust::xxh3::xxh3_64;

/// A look at a checkpoint is made if all such looks together have seen at most so many bytes of state for each byte of
/// log.
const BYTES_PER_LOG_BYTE: u64 = 8;
/// And so many beside that.
const BYTES_FREE: u64 = 1 << 20;

/// A row's key, and a hash of its value.
type Print = (RowKey, u64);

/// What was seen, by log index.
#[derive(Debug, Clone, Default)]
pub(super) struct States {
    seen: BTreeMap<u64, Seen>,
    bytes_looked_at: u64,
    log_bytes: u64,
    /// How many looks there were.
    pub looks: u64,
}

#[derive(Debug, Clone)]
struct Seen {
    /// By whom, and when.
    by: String,
    rows: Vec<Print>,
}

impl States {
    /// The log has grown by so many bytes.
    pub(super) fn grew(&mut self, bytes: usize) {
        self.log_bytes += bytes as u64;
    }

    /// Whether a look at a checkpoint is not too dear now.
    pub(super) fn can_afford(&self) -> bool {
        self.bytes_looked_at <= BYTES_FREE + BYTES_PER_LOG_BYTE * self.log_bytes
    }

    /// A state with all up to `index` applied. An error of the store is not for this checker.
    pub(super) fn look(&mut self, by: &str, index: u64, state: &State, blocks: &dyn Blocks) -> Result<(), String> {
        match state.all_rows(blocks) {
            Ok(rows) => self.rows(by, index, &rows),
            Err(BlockError::Missing { .. } | BlockError::Corrupt { .. }) => Ok(()),
        }
    }

    /// The rows of a state with all up to `index` applied.
    pub(super) fn rows(&mut self, by: &str, index: u64, rows: &[(RowKey, Bytes)]) -> Result<(), String> {
        self.looks += 1;
        self.bytes_looked_at +=
            rows.iter().map(|(key, value)| (key.as_bytes().len() + value.len()) as u64).sum::<u64>();
        let prints = prints(rows);
        match self.seen.get(&index) {
            None => {
                self.seen.insert(index, Seen { by: by.to_owned(), rows: prints });
                Ok(())
            }
            Some(seen) => match difference(&seen.rows, &prints) {
                None => Ok(()),
                Some(key) => Err(differs(index, &seen.by, by, &key, rows)),
            },
        }
    }

    /// The log indexes at which states were seen.
    pub(super) fn indexes(&self) -> impl Iterator<Item = u64> + '_ {
        self.seen.keys().copied()
    }

    /// Compares what was seen at `index` with what the log makes of nothing.
    pub(super) fn compare(&self, index: u64, fresh: &State, blocks: &dyn Blocks) -> Result<(), String> {
        let Some(seen) = self.seen.get(&index) else { return Ok(()) };
        let rows = fresh.all_rows(blocks).map_err(|error| format!("the fresh state has no such block: {error}"))?;
        match difference(&seen.rows, &prints(&rows)) {
            None => Ok(()),
            Some(key) => Err(differs(index, &seen.by, "a fresh state", &key, &rows)),
        }
    }
}

fn prints(rows: &[(RowKey, Bytes)]) -> Vec<Print> {
    rows.iter().map(|(key, value)| (key.clone(), xxh3_64(value))).collect()
}

/// The first row that only one has, or that is not the same.
fn difference(one: &[Print], other: &[Print]) -> Option<RowKey> {
    let pair = one.iter().zip(other).find(|(one, other)| one != other);
    match pair {
        Some(((one, _), (other, _))) => Some(one.min(other).clone()),
        None => one.get(other.len()).or(other.get(one.len())).map(|(key, _)| key.clone()),
    }
}

/// `rows`: those of `other`.
fn differs(index: u64, one: &str, other: &str, key: &RowKey, rows: &[(RowKey, Bytes)]) -> String {
    let row = rows.iter().find(|(candidate, _)| candidate == key).map(|(_, value)| value);
    let row = match row {
        Some(value) => format!("{:02x?}", &value[..value.len().min(200)]),
        None => "no such row".into(),
    };
    format!("at entry {index} the states of {one} and {other} differ, first in {key:?}; there {other} has {row}")
}

#[cfg(test)]
mod tests {
    use millstream_streams::{Append, Command, EntryId, Fields, NewId, NoBlocks, Proposal, RequestId, StreamName};

    use super::*;

    fn state(content: &str, request: Option<RequestId>) -> State {
        let stream = StreamName::new("orders").expect("a name");
        let fields = Fields::from_pairs([("content", content)]).expect("small");
        let id = NewId::Explicit(EntryId::new(1, 0));
        let command = Command::Append(Append { stream, id, fields, no_create: false, trim: None, idempotency: None });
        let proposal = Proposal { at_ms: 1, request, command, bytes_max: 0 };
        let mut state = State::new();
        state.apply(1, &proposal.encode(), &NoBlocks, false).expect("decodes");
        state
    }

    #[test]
    fn equal_states_agree_and_others_do_not() {
        let mut states = States::default();
        let mut look = |by: &str, state: &State| states.look(by, 1, state, &NoBlocks);
        assert_eq!(look("n1", &state("a", None)), Ok(()));
        assert_eq!(look("n2", &state("a", None)), Ok(()));
        let problem = look("n3", &state("b", None)).expect_err("another content");
        assert!(problem.contains("n1 and n3"), "{problem}");
        assert_eq!(states.compare(1, &state("a", None), &NoBlocks), Ok(()));
        assert!(states.compare(1, &state("b", None), &NoBlocks).is_err());
        assert_eq!(states.compare(2, &state("b", None), &NoBlocks), Ok(()), "nobody was seen there");
    }

    #[test]
    fn a_row_too_many_is_noticed() {
        let rows = state("a", None).all_rows(&NoBlocks).expect("in memory");
        let mut states = States::default();
        states.rows("n1", 1, &rows).expect("the first");
        assert!(states.rows("n2", 1, &rows[..rows.len() - 1]).is_err());
        assert!(states.rows("n2", 1, &rows[1..]).is_err());
        assert_eq!(states.rows("n2", 1, &rows), Ok(()));
    }
}
