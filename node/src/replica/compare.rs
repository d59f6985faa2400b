//! Whether the replicas still have the same state.
//!
//! Each replica remembers, at log indexes that are multiples of [`STEP`], the digest of its history: a hash chained over
//! every command and what came of it. Replicas that have applied the same log have the same digest, so a difference
//! means that one of them has decided otherwise than the others: by a fault of its memory, of its disk, or of this
//! program. The chain remembers for ever: a difference shows at every later index, and it does not matter that only the
//! newest [`KEPT`] are at hand.
//!
//! What the chain does not see is a state that has changed *without* a command: an entry's bytes, a pending entry, that
//! no command has touched since. So each replica also takes a *sample* at the same indexes: a hash of a small part of the
//! rows that its state stands for, bodies of blocks included, which the log index alone selects
//! ([`millstream_streams::State::sample`]). *Why not a hash of everything:* at one log index it would take either a stop
//! of apply while gigabytes are read, or a checkpoint of all nodes at the same index. Checkpoints of different nodes
//! cannot be compared, because they are taken at different indexes; and a hash kept up to date with every change would
//! cost each command more than the command. A sample costs some microseconds in a thousand commands. What it buys is
//! not certainty at once: with b blocks, a wrong one is seen after about b samples.
//!
//! The leader asks the others, now and then. A node that differs from what a *majority of the voters* has in common is
//! wrong, whoever it is: it marks its state as suspect and stops, and its next start builds the state anew. If there is
//! no such majority (two voters, or too few answers), nobody can tell who is right: the difference is logged as an error
//! and stays in the status, and all go on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream_streams::SAMPLE_VERSION;
use openraft::async_runtime::WatchReceiver;

use super::machine::Machine;
use super::shared::Shared;
use super::{Leadership, Replica};
use crate::network::{Sample, StateDigest};
use crate::types::NodeId;

/// A digest is remembered at each log index that is a multiple of this.
pub(crate) const STEP: u64 = 1_024;
/// How many are remembered. A replica further behind than these is compared when it has caught up.
pub(crate) const KEPT: usize = 64;

/// What this replica remembers, and what came of comparing it.
#[derive(Default)]
pub(crate) struct Digests(Mutex<Memory>);

#[derive(Default)]
struct Memory {
    /// The newest last.
    digests: VecDeque<StateDigest>,
    comparison: Comparison,
}

/// What came of comparing the replicas' states. Known to the node that leads, or led.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// The newest log index at which all replicas that answered had the same state. 0: none yet.
    pub equal_index: u64,
    /// A difference that nobody can settle, in a sentence. `None`: there was none when it was last looked.
    pub disputed: Option<String>,
}

impl Digests {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the state's digest at `index`; the sample may follow.
    pub(crate) fn record(&self, index: u64, digest: u128) {
        let mut memory = self.lock();
        if memory.digests.len() == KEPT {
            memory.digests.pop_front();
        }
        memory.digests.push_back(StateDigest { index, digest, sample: None });
    }

    /// Adds the sample taken at `index`, if that is still remembered.
    pub(crate) fn add_sample(&self, index: u64, sample: Sample) {
        if let Some(digest) = self.lock().digests.iter_mut().find(|digest| digest.index == index) {
            digest.sample = Some(sample);
        }
    }

    /// Forgets everything: the state was replaced.
    pub(crate) fn clear(&self) {
        self.lock().digests.clear();
    }

    /// What is remembered, the newest last.
    pub(crate) fn all(&self) -> Vec<StateDigest> {
        self.lock().digests.iter().copied().collect()
    }

    /// What came of comparing.
    pub(crate) fn comparison(&self) -> Comparison {
        self.lock().comparison.clone()
    }
}

/// What the answers of some replicas, one's own among them, say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Verdict {
    /// Replicas that differ from a majority of the voters, with what that majority has.
    wrong: BTreeMap<NodeId, StateDigest>,
    /// The newest index at which replicas differ and no majority of the voters is of one mind, and who they are.
    disputed: Option<(u64, BTreeSet<NodeId>)>,
    /// The newest index at which several replicas answered, and all alike.
    equal_index: u64,
}

/// Compares. Replicas without a vote are judged, but do not judge.
fn judge(voters: &BTreeSet<NodeId>, answers: &BTreeMap<NodeId, Vec<StateDigest>>) -> Verdict {
    let mut by_index: BTreeMap<u64, Vec<(NodeId, StateDigest)>> = BTreeMap::new();
    for (node, digests) in answers {
        for digest in digests {
            let index =
                if millstream_streams::mutant!(DigestsMixedUp) { digest.index / (2 * STEP) } else { digest.index };
            by_index.entry(index).or_default().push((*node, *digest));
        }
    }
    let mut verdict = Verdict::default();
    for (index, answers) in by_index {
        let history: Vec<_> = answers.iter().map(|(node, of)| (*node, of.digest)).collect();
        // Samples of another version, or of none, say nothing.
        let version = answers.iter().filter_map(|(_, of)| of.sample).map(|sample| sample.version).max();
        let sampled = |of: &StateDigest| of.sample.filter(|sample| Some(sample.version) == version);
        let samples: Vec<_> = answers.iter().filter_map(|(node, of)| Some((*node, sampled(of)?.hash))).collect();
        let mut equal = 1 < history.len();
        for (values, of_samples) in [(history, false), (samples, true)] {
            let Some((_, first)) = values.first() else { continue };
            if values.iter().all(|(_, value)| value == first) {
                continue;
            }
            equal = false;
            let Some(right) = majority(voters, &values) else {
                verdict.disputed = Some((index, values.iter().map(|(node, _)| *node).collect()));
                continue;
            };
            for (node, of) in &answers {
                let Some((_, value)) = values.iter().find(|(other, _)| other == node) else { continue };
                if *value == right {
                    continue;
                }
                // It is told only what it differs in.
                let agreed = match version.filter(|_| of_samples) {
                    Some(version) => StateDigest { sample: Some(Sample { version, hash: right }), ..*of },
                    None => StateDigest { index, digest: right, sample: None },
                };
                verdict.wrong.entry(*node).or_insert(agreed);
            }
        }
        if equal {
            verdict.equal_index = index;
        }
    }
    verdict
}

/// The value that more than half of all voters have.
fn majority(voters: &BTreeSet<NodeId>, values: &[(NodeId, u128)]) -> Option<u128> {
    let has = |value: u128| values.iter().filter(|(node, other)| *other == value && voters.contains(node)).count();
    values.iter().map(|(_, value)| *value).find(|value| voters.len() < 2 * has(*value))
}

impl Shared {
    /// Remembers the state as it is now, at one of the indexes that are compared. The blocks of the sample are read
    /// elsewhere: apply does not wait for them.
    pub(crate) fn remember(self: &Arc<Self>, machine: &Machine) {
        let index = machine.applied_index();
        self.digests.record(index, machine.state.digest());
        let (plan, shared) = (machine.state.sample(index), self.clone());
        tokio::spawn(async move {
            let blocks = shared.blocks.clone();
            let hash = shared.world.blocking(move || plan.finish(&*blocks).map_err(std::io::Error::other)).await;
            // A plan may have become stale. Damage has been reported by whoever read it.
            if let Ok(hash) = hash {
                shared.digests.add_sample(index, Sample { version: SAMPLE_VERSION, hash });
            }
        });
    }

    /// Judges what this replica remembers by what a majority of the voters has in common. Stops this node if that is
    /// something else.
    pub(crate) fn check_digests(&self, agreed: &[StateDigest]) {
        for ours in self.digests.all() {
            let mixed_up = millstream_streams::mutant!(DigestsMixedUp);
            let found = agreed.iter().find(|theirs| theirs.index == ours.index || mixed_up);
            let Some(theirs) = found else { continue };
            let samples_differ = match (ours.sample, theirs.sample) {
                (Some(ours), Some(theirs)) => ours.version == theirs.version && ours.hash != theirs.hash,
                _ => false,
            };
            if ours.digest != theirs.digest || samples_differ {
                self.suspect(&format!(
                    "at log index {} it differs from the state that a majority of the nodes has",
                    ours.index
                ));
                return;
            }
        }
    }
}

/// Lets the leader compare the replicas, while this one runs.
pub(crate) fn compare_replicas(replica: &Replica) {
    let interval = replica.inner.shared.config.checks.compare_interval;
    if interval.is_zero() {
        return;
    }
    let replica = replica.clone();
    let mut ready = replica.inner.ready.subscribe();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                biased;
                stopping = ready.wait_for(|ready| !ready) => { drop(stopping); return }
                () = tokio::time::sleep(interval) => {}
            }
            if matches!(replica.leadership(), Leadership::Leader { .. }) {
                compare(&replica).await;
            }
        }
    });
}

async fn compare(replica: &Replica) {
    let inner = &*replica.inner;
    let me = inner.shared.node_id();
    let (voters, others) = {
        let receiver = inner.raft.metrics();
        let metrics = receiver.borrow_watched();
        let voters: BTreeSet<NodeId> = metrics.membership_config.voter_ids().collect();
        let nodes = metrics.membership_config.nodes().filter(|(id, _)| **id != me);
        (voters, nodes.map(|(id, node)| (*id, node.peer_address.clone())).collect::<BTreeMap<_, _>>())
    };
    let asked = others.iter().map(|(id, address)| async {
        // Who does not answer is not judged.
        Some((*id, inner.peers.compare_digest(*id, address, &[]).await.ok()?))
    });
    let mut answers: BTreeMap<_, _> = futures::future::join_all(asked).await.into_iter().flatten().collect();
    answers.insert(me, inner.shared.digests.all());

    let verdict = judge(&voters, &answers);
    note(&inner.shared, &verdict);
    for (node, agreed) in verdict.wrong {
        tracing::error!(node, index = agreed.index, "the state of a node differs from that of the majority");
        match others.get(&node) {
            Some(address) => {
                // It is told again the next time if it does not hear this.
                let _ = inner.peers.compare_digest(node, address, &[agreed]).await;
            }
            None => inner.shared.check_digests(&[agreed]),
        }
    }
}

/// Keeps a verdict for the status.
fn note(shared: &Arc<Shared>, verdict: &Verdict) {
    let disputed = verdict.disputed.as_ref().map(|(index, nodes)| {
        format!(
            "the states of nodes {nodes:?} differ at log index {index}, and no majority of the voters says which is \
             right: stop the cluster, compare the nodes with `millstream-node verify` and `millstream-node dump`, and \
             replace the wrong one"
        )
    });
    let mut memory = shared.digests.lock();
    if let Some(sentence) = &disputed
        && memory.comparison.disputed.as_ref() != Some(sentence)
    {
        tracing::error!("{sentence}");
    }
    memory.comparison.disputed = disputed;
    memory.comparison.equal_index = memory.comparison.equal_index.max(verdict.equal_index);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(index: u64, digest: u128) -> StateDigest {
        StateDigest { index, digest, sample: None }
    }

    fn sampled(index: u64, version: u32, hash: u128) -> StateDigest {
        StateDigest { index, digest: 7, sample: Some(Sample { version, hash }) }
    }

    fn judged<const N: usize>(voters: u64, answers: [(u64, Vec<StateDigest>); N]) -> Verdict {
        judge(&(1..=voters).collect(), &BTreeMap::from(answers))
    }

    #[test]
    fn who_differs_from_a_majority_is_wrong() {
        let right = at(2048, 5);
        let verdict = judged(3, [(1, vec![at(1024, 4), right]), (2, vec![right]), (3, vec![at(1024, 4), at(2048, 6)])]);
        assert_eq!(verdict, Verdict { wrong: BTreeMap::from([(3, right)]), disputed: None, equal_index: 1024 });
        // The leader is no exception, and a learner is judged as well.
        let verdict = judged(3, [(1, vec![at(1024, 6)]), (2, vec![at(1024, 5)]), (3, vec![at(1024, 5)])]);
        assert_eq!(verdict.wrong, BTreeMap::from([(1, at(1024, 5))]));
        let verdict = judged(3, [(1, vec![at(1024, 5)]), (2, vec![at(1024, 5)]), (3, vec![]), (4, vec![at(1024, 6)])]);
        assert_eq!(verdict.wrong, BTreeMap::from([(4, at(1024, 5))]));
    }

    #[test]
    fn without_a_majority_nobody_is_wrong() {
        let both = BTreeSet::from([1, 2]);
        for voters in [2, 3, 4] {
            let verdict = judged(voters, [(1, vec![at(1024, 5)]), (2, vec![at(1024, 6)])]);
            assert_eq!(
                verdict,
                Verdict { wrong: BTreeMap::new(), disputed: Some((1024, both.clone())), equal_index: 0 }
            );
        }
        // Learners do not make a majority.
        let verdict = judged(2, [(1, vec![at(1024, 5)]), (2, vec![at(1024, 6)]), (3, vec![at(1024, 6)])]);
        assert!(verdict.wrong.is_empty() && verdict.disputed.is_some());
        // Answers for different indexes say nothing.
        assert_eq!(judged(3, [(1, vec![at(1024, 5)]), (2, vec![at(2048, 6)])]), Verdict::default());
    }

    #[test]
    fn samples_count_within_their_version() {
        let (right, wrong) = (sampled(1024, 1, 5), sampled(1024, 1, 6));
        let verdict = judged(3, [(1, vec![right]), (2, vec![wrong]), (3, vec![right])]);
        assert_eq!(verdict.wrong, BTreeMap::from([(2, right)]));
        let verdict = judged(3, [(1, vec![right]), (2, vec![sampled(1024, 2, 6)]), (3, vec![at(1024, 7)])]);
        assert_eq!(verdict, Verdict { equal_index: 1024, ..Verdict::default() });
    }

    #[test]
    fn the_newest_digests_are_remembered() {
        let digests = Digests::default();
        for index in 1..=100 {
            digests.record(index, u128::from(index));
        }
        digests.add_sample(100, Sample { version: 1, hash: 9 });
        digests.add_sample(1, Sample { version: 1, hash: 9 });
        let all = digests.all();
        assert_eq!((all.len(), all[0].index), (KEPT, 37));
        assert!(all[63].sample.is_some() && all[62].sample.is_none());
        digests.clear();
        assert!(digests.all().is_empty());
    }
}
