//! What entries and their journal must keep to.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::codec;
use crate::freeze::{Frozen, Piece};
use crate::rows::{Row, RowKey};

/// Rows, as a store keeps them. No row of a body may ever be written twice.
#[derive(Default)]
struct Store {
    rows: BTreeMap<RowKey, Bytes>,
}

impl Blocks for Store {
    fn get(&self, key: BlockKey, entries: u32) -> Result<Arc<Block>, BlockError> {
        let mut body = Block::default();
        let (_, to) = key.parts_from(1);
        for (part, row) in self.rows.range(key.row_key()..=to) {
            let (_, position) = part.body_part().unwrap();
            let part = Block::decode(row.clone()).unwrap();
            match position {
                0 => body = part,
                position => body.append_part(position, part).unwrap(),
            }
        }
        Arc::new(body).cut(entries).ok_or(BlockError::Missing { key })
    }
}

impl Store {
    /// Writes what changed. Only so many bodies leave memory.
    fn freeze(&mut self, entries: &mut Entries, thawed: usize) {
        let mut frozen = Piece::default();
        entries.take_dirty_head();
        entries.freeze(&mut frozen);
        let frozen = Frozen::from(frozen).into_rows();
        for (key, value) in frozen.rows {
            match value {
                Some(value) => {
                    let before = self.rows.insert(key.clone(), value);
                    assert!(before.is_none() || !key.is_body(), "{key:?} is written twice");
                }
                None => drop(self.rows.remove(&key)),
            };
        }
        frozen.bodies.iter().take(thawed).for_each(|body| drop(entries.thaw(body)));
    }

    /// The index rows.
    fn index(&self) -> BTreeMap<EntryId, IndexRow> {
        let index = self.rows.iter().filter_map(|(key, row)| match key.parse() {
            Some(Row::BlockIndex { stream: 1, first }) => Some((first, codec::decode(row).unwrap())),
            _ => None,
        });
        index.collect()
    }

    /// The rows of bodies that no index row names.
    fn orphans(&self) -> Vec<RowKey> {
        let named: Vec<_> = self.index().iter().filter_map(|(first, row)| row.body_of(1, *first)).collect();
        let mut bodies: Vec<RowKey> = self.rows.keys().filter(|key| key.is_body()).cloned().collect();
        bodies.retain(|key| {
            let (block, position) = key.body_part().unwrap();
            !named.iter().any(|(named, entries)| *named == block && position < *entries)
        });
        bodies
    }
}

fn all_rows(entries: &Entries, store: &Store) -> BTreeMap<RowKey, Bytes> {
    let mut all = Piece::default();
    entries.all_rows(store, &mut all).unwrap();
    Frozen::from(all).into_rows().rows.into_iter().map(|(key, value)| (key, value.unwrap())).collect()
}

#[derive(Debug, Clone)]
enum Step {
    /// So many entries of so many bytes.
    Append(u8, u16),
    /// Delete every so many-th entry from the n-th on.
    Delete(usize, usize),
    Trim(Bound),
    /// Whole blocks only.
    TrimBlocks(Bound, u64),
    /// Lower the last id as far as it goes.
    LowerLastId,
    /// Let so many bodies leave memory after it; go on with what is restored from the rows.
    Freeze {
        thaw: usize,
        restore: bool,
    },
    Begin,
    Rollback,
}

fn step() -> impl Strategy<Value = Step> {
    let bound = || {
        prop_oneof![
            (0u64..300).prop_map(Bound::Length),
            (0u64..300).prop_map(|ms| Bound::MinId(EntryId::new(ms, 0))),
            (0u64..20_000).prop_map(Bound::Bytes),
        ]
    };
    prop_oneof![
        6 => (1u8..80, 0u16..400).prop_map(|(count, bytes)| Step::Append(count, bytes)),
        4 => (0usize..200, 1usize..8).prop_map(|(from, every)| Step::Delete(from, every)),
        1 => bound().prop_map(Step::Trim),
        1 => (bound(), 0u64..200).prop_map(|(bound, limit)| Step::TrimBlocks(bound, limit)),
        3 => Just(Step::LowerLastId),
        3 => (prop::sample::select(vec![0, 1, usize::MAX]), any::<bool>()).prop_map(|(thaw, restore)| Step::Freeze { thaw, restore }),
        2 => Just(Step::Begin),
        2 => Just(Step::Rollback),
    ]
}

proptest! {
    /// The entries are an ordered map that counts lengths and bytes, whatever is frozen, thawed, restored or taken
    /// back, and even if ids come again.
    #[test]
    fn are_an_ordered_map(steps in prop::collection::vec(step(), 0..60)) {
        let (mut entries, mut store) = (Entries::new(1), Store::default());
        let mut model: BTreeMap<EntryId, u64> = BTreeMap::new();
        let mut begun = None;
        for step in steps {
            match step {
                Step::Append(count, bytes) => {
                    let fields = Fields::from_pairs([("f", vec![b'x'; bytes.into()])]).unwrap();
                    for _ in 0..count {
                        let id = EntryId::new(entries.counters().last_id.ms + 1, 0);
                        entries.append(id, &fields);
                        model.insert(id, size(&fields));
                    }
                }
                Step::Delete(from, every) => {
                    for id in model.keys().copied().skip(from).step_by(every).collect::<Vec<_>>() {
                        prop_assert_eq!(entries.delete(id, &store), Ok(true));
                        prop_assert_eq!(entries.delete(id, &store), Ok(false));
                        model.remove(&id);
                    }
                }
                Step::Trim(bound) => {
                    let mut expected = 0;
                    while let Some((&oldest, _)) = model.first_key_value()
                        && !bound.holds(model.len() as u64, model.values().sum(), oldest)
                    {
                        model.pop_first();
                        expected += 1;
                    }
                    prop_assert_eq!(entries.trim(bound, None, &store), Ok(expected));
                }
                Step::TrimBlocks(bound, limit) => {
                    let removed = entries.trim_blocks(bound, Some(limit));
                    prop_assert!(removed <= limit);
                    for _ in 0..removed {
                        let oldest = model.first_key_value().map(|(id, _)| *id).unwrap();
                        prop_assert!(!bound.holds(model.len() as u64, model.values().sum(), oldest));
                        model.pop_first();
                    }
                }
                Step::LowerLastId => {
                    let last_id = entries.last_live().unwrap_or_default();
                    entries.set_last_id(last_id, entries.counters().entries_added, EntryId::MIN);
                }
                Step::Freeze { .. } if begun.is_some() => {
                    entries.commit();
                    begun = None;
                }
                Step::Freeze { thaw, restore } => {
                    store.freeze(&mut entries, thaw);
                    prop_assert_eq!(store.orphans(), []);
                    let restored = Entries::restore(1, *entries.counters(), store.index()).unwrap();
                    prop_assert_eq!(&all_rows(&entries, &store), &all_rows(&restored, &store));
                    if restore {
                        entries = restored;
                    }
                }
                Step::Begin if begun.is_none() => {
                    begun = Some((*entries.counters(), all_rows(&entries, &store), model.clone()));
                    entries.begin();
                }
                Step::Begin => {}
                Step::Rollback => {
                    if let Some((counters, rows, before)) = begun.take() {
                        entries.rollback();
                        prop_assert_eq!(*entries.counters(), counters);
                        prop_assert_eq!(all_rows(&entries, &store), rows);
                        model = before;
                    }
                }
            }
            let Counters { length, bytes, first_id, .. } = *entries.counters();
            prop_assert_eq!(length, model.len() as u64);
            prop_assert_eq!(bytes, model.values().sum::<u64>());
            prop_assert_eq!(first_id, model.keys().next().copied().unwrap_or_default());
            prop_assert_eq!(entries.last_live(), model.keys().next_back().copied());
            let mut seen = Vec::new();
            entries.scan(EntryId::MIN, &store, |entry| {
                seen.push((entry.id, size(&entry.fields)));
                true
            }).unwrap();
            prop_assert!(seen.iter().eq(model.iter().map(|(id, bytes)| (*id, *bytes)).collect::<Vec<_>>().iter()));
            let mut cursor = entries.cursor(&store);
            for ms in 0..entries.counters().last_id.ms + 2 {
                let id = EntryId::new(ms, 0);
                prop_assert_eq!(cursor.contains(id), Ok(model.contains_key(&id)));
            }
        }
    }
}
