//! What was read at the end is read again later, after all nodes have lost their power: the same entries, the same
//! groups.

use super::{Evidence, Ledger};

pub(super) fn check(evidence: &Evidence, _: &Ledger<'_>) -> Result<(), String> {
    for (place, later) in evidence.later.iter().enumerate() {
        for (name, entries) in &evidence.end.streams {
            let found = later.streams.get(name).map_or(&[][..], Vec::as_slice);
            if found != entries {
                let lost = entries.iter().find(|entry| !found.contains(entry)).map(|entry| entry.id);
                let (before, after) = (entries.len(), found.len());
                return Err(format!(
                    "reading {place} of {name}: {after} entries instead of {before}; lost first: {lost:?}"
                ));
            }
        }
        if later.streams.len() != evidence.end.streams.len() || later.groups != evidence.end.groups {
            return Err(format!("reading {place}: {:?} instead of {:?}", later.groups, evidence.end.groups));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;

    #[test]
    fn cases() {
        let check = |later: Vec<crate::history::Entry>, pending| {
            let mut evidence = evidence(vec![], stream(&["a", "b"]));
            let mut later = super::super::Ending { streams: [(S.into(), later)].into(), ..evidence.end.clone() };
            later.groups.values_mut().for_each(|group| group.pending = pending);
            evidence.later.push(later);
            super::check(&evidence, &super::Ledger::new(&evidence))
        };
        assert_eq!(check(stream(&["a", "b"]), 0), Ok(()));
        assert!(check(stream(&["a"]), 0).is_err());
        assert!(check(stream(&["a", "c"]), 0).is_err());
        assert!(check(stream(&["a", "b"]), 1).is_err());
    }
}
