//! Samples of equal states are equal, wherever their entries are; and a changed entry shows in some of them.
#![allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]

mod support;

use std::collections::BTreeSet;

use bytes::Bytes;
use millstream_streams::*;
use support::Store;

fn stream(number: u64) -> StreamName {
    StreamName::new(format!("stream-{number}")).unwrap()
}

fn billing() -> GroupName {
    GroupName::new("billing").unwrap()
}

/// Applies the same commands each time: six streams, one much longer than the others, each with a group.
///
/// Writes a checkpoint after each `every` commands.
fn apply_all(state: &mut State, every: u64) -> Store {
    let mut index = 0;
    let mut store = Store::default();
    let mut run = |command: Command| {
        index += 1;
        let proposal = Proposal { at_ms: 1_000 + 7 * index, request: None, command, bytes_max: 0 };
        state.apply(index, &proposal.encode(), &store, false).unwrap().outcome.unwrap();
        if index.is_multiple_of(every) {
            store.checkpoint(state);
        }
    };
    for number in 0..6 {
        let position = GroupPosition::After(EntryId::MIN);
        let (stream, group) = (stream(number), billing());
        run(CreateGroup { stream, group, position, create_stream: true, entries_read: None }.into());
    }
    for number in 0..900_u64 {
        let to = if number % 10 < 8 { 0 } else { number % 6 };
        let fields = Fields::from_pairs([("number", format!("{number:04}"))]).unwrap();
        let (stream, id) = (stream(to), NewId::Auto);
        run(Append { stream, id, fields, no_create: false, trim: None, idempotency: None }.into());
        if number % 100 == 60 {
            run(ReadGroup {
                group: billing(),
                consumer: ConsumerName::new(format!("consumer-{}", number % 3)).unwrap(),
                streams: vec![GroupRead { stream: self::stream(to), from: GroupReadFrom::New }],
                count: 40,
                no_ack: false,
                bytes_max: 0,
                total_max: 0,
                claim_min_idle_ms: None,
            }
            .into());
        }
    }
    store
}

fn samples(state: &State, blocks: &dyn Blocks) -> Vec<u128> {
    (1..=300).map(|step| state.sample(1_024 * step).finish(blocks).unwrap()).collect()
}

#[test]
fn samples_do_not_show_where_entries_are() {
    let mut resident = State::new();
    apply_all(&mut resident, u64::MAX);
    let mut moved = State::new();
    let mut store = apply_all(&mut moved, 37);
    let expected = samples(&resident, &NoBlocks);
    assert!(samples(&moved, &store) == expected);
    assert!(100 < expected.iter().collect::<BTreeSet<_>>().len(), "they look at different places");

    store.checkpoint(&mut moved);
    let rows = store.rows.iter().filter(|(key, _)| !key.is_body());
    let restored = rows.map(|(key, value)| Ok::<_, std::convert::Infallible>((key.clone(), value.clone())));
    let restored = State::restore(restored).unwrap();
    assert!(samples(&restored, &store) == expected);

    // Whichever body changes: it is seen.
    let bodies: Vec<RowKey> = store.rows.keys().filter(|key| key.is_body()).cloned().collect();
    assert!(5 < bodies.len());
    for key in bodies.into_iter().step_by(9) {
        let mut changed = store.clone();
        let mut value = changed.rows[&key].to_vec();
        *value.last_mut().unwrap() ^= 1;
        changed.rows.insert(key.clone(), Bytes::from(value));
        assert!(samples(&restored, &changed) != expected, "{key:?}");
    }
}
