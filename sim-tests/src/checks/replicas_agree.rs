//! Once left alone, all nodes reach the same log index and there the same state.

use super::{Evidence, Ledger};

pub(super) fn check(evidence: &Evidence, _: &Ledger<'_>) -> Result<(), String> {
    let Some((first, others)) = evidence.replicas.split_first() else {
        return Ok(());
    };
    for other in others {
        if (other.applied_index, &other.state_digest) != (first.applied_index, &first.state_digest) {
            return Err(format!(
                "{} is at {} with {}, {} at {} with {}",
                first.node,
                first.applied_index,
                first.state_digest,
                other.node,
                other.applied_index,
                other.state_digest
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::ReplicaEnd;

    fn replica(node: &str, applied_index: u64, state_digest: &str) -> ReplicaEnd {
        ReplicaEnd { node: node.into(), applied_index, state_digest: state_digest.into() }
    }

    #[test]
    fn cases() {
        let check = |replicas| {
            let evidence = Evidence { replicas, ..Default::default() };
            check(&evidence, &Ledger::new(&evidence))
        };
        assert_eq!(check(vec![replica("n1", 7, "ab"), replica("n2", 7, "ab"), replica("n3", 7, "ab")]), Ok(()));
        assert!(check(vec![replica("n1", 7, "ab"), replica("n2", 6, "ab")]).is_err());
        assert!(check(vec![replica("n1", 7, "ab"), replica("n2", 7, "ab"), replica("n3", 7, "cd")]).is_err());
    }
}
