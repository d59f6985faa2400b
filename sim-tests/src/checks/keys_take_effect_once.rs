//! Under an idempotency key one entry is appended, whatever is sent under it later and however often: whoever is told
//! of an entry of the key is told of the same one, and at most one attempt has made it.

use std::collections::BTreeMap;

use super::{Evidence, Ledger};
use crate::history::{Id, Placed};

/// What is known of a key.
#[derive(Default)]
struct Key<'a> {
    /// The contents that were sent under it.
    contents: Vec<&'a [u8]>,
    /// When the first attempt was made that may have had an effect.
    made: Option<u64>,
    /// Its entry, by the first answer that names it.
    id: Option<Id>,
    /// Whose attempt made it.
    maker: Option<&'a str>,
}

pub(super) fn check(evidence: &Evidence, ledger: &Ledger<'_>) -> Result<(), String> {
    let mut keys: BTreeMap<(&str, &(String, String)), Key<'_>> = BTreeMap::new();
    for call in &evidence.calls {
        for (put, placed) in call.placed() {
            let Some(key) = &put.key else { continue };
            let known = keys.entry((&put.stream, key)).or_default();
            if !known.contents.contains(&put.content.as_slice()) {
                known.contents.push(&put.content);
            }
            // Whoever is told of an earlier entry has not made it.
            let may_have_made = !matches!(placed, Some(Placed::Refused(_) | Placed::Before(_)));
            if call.may_have_happened() && may_have_made {
                known.made.get_or_insert(call.made);
            }
            let (id, is_maker) = match placed {
                Some(Placed::At { id, .. }) => (*id, true),
                Some(Placed::Before(id)) => (*id, false),
                _ => continue,
            };
            let (client, made) = (&call.client, call.made);
            if known.id.is_some_and(|other| other != id) {
                return Err(format!(
                    "{client} was told (call {made}) that {key:?} is at {id}, others of {:?}",
                    known.id
                ));
            }
            known.id = Some(id);
            if is_maker && let Some(other) = known.maker.replace(client) {
                return Err(format!("{client} appended {key:?} (call {made}), and so did {other}"));
            }
        }
    }
    // Now that all attempts are known: what was found made had been tried before.
    for call in &evidence.calls {
        for (put, placed) in call.placed() {
            let (Some(key), Some(Placed::Before(id))) = (&put.key, placed) else { continue };
            let Some(known) = keys.get(&(&*put.stream, key)) else { continue };
            if known.made.is_none_or(|made| call.settled().is_some_and(|settled| settled < made)) {
                return Err(format!(
                    "{} was told that {key:?} is at {id}, but no attempt can have made it",
                    call.client
                ));
            }
        }
    }
    for ((stream, key), known) in keys {
        let written = known.contents.iter().filter_map(|content| ledger.written.get(content));
        let places: Vec<Id> = written.filter_map(|written| written.place).collect();
        if 1 < places.len() {
            return Err(format!("{key:?} made the entries {places:?} in {stream}"));
        }
        if let (Some(place), Some(id)) = (places.first(), known.id)
            && *place != id
        {
            return Err(format!("{key:?} made {place} in {stream}, and somebody was told of {id}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use crate::history::{Action, Call, Outcome, Put};

    use super::Placed;

    fn check(calls: Vec<Call>, entries: Vec<crate::history::Entry>) -> Result<(), String> {
        let evidence = evidence(calls, entries);
        super::check(&evidence, &super::Ledger::new(&evidence))
    }

    fn keyed(made: u64, content: &str, outcome: Outcome) -> Call {
        let put = Put { key: Some(("p".into(), "k".into())), ..put(content) };
        call("k1", made, Action::Append(put), made + 1, outcome)
    }

    fn before(ms: u64) -> Outcome {
        Outcome::Appended(vec![Placed::Before(id(ms))])
    }

    #[test]
    fn cases() {
        let lost = || keyed(1, "a", unknown());
        assert_eq!(check(vec![lost(), keyed(3, "a", before(1))], stream(&["a"])), Ok(()));
        assert_eq!(check(vec![lost(), keyed(3, "a", appended(1))], stream(&["a"])), Ok(()));
        assert_eq!(check(vec![keyed(1, "a", appended(1)), keyed(3, "b", before(1))], stream(&["a"])), Ok(()));
        for (what, calls, entries) in [
            ("two entries", vec![lost(), keyed(3, "b", unknown())], stream(&["a", "b"])),
            ("made twice", vec![keyed(1, "a", appended(1)), keyed(3, "a", appended(1))], stream(&["a"])),
            ("two ids", vec![keyed(1, "a", appended(1)), keyed(3, "b", before(2))], stream(&["a"])),
            ("another entry", vec![lost(), keyed(3, "b", before(2))], stream(&["a"])),
            ("by nobody", vec![keyed(1, "a", nothing("NO_LEADER")), keyed(3, "a", before(1))], vec![]),
        ] {
            assert!(check(calls, entries).is_err(), "{what}");
        }
    }
}
