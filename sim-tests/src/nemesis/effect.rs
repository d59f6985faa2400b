//! What a fault does to links and lives; effects of several faults add up.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::cluster::{CLIENTS, Life};
use crate::entropy::Rng;
use crate::net::Links;
use crate::plan::{Action, ClientSide, Direction, Target};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Effect {
    pub(super) links: Links,
    /// Nodes that do not run.
    pub(super) lives: BTreeMap<String, Life>,
}

impl Action {
    /// Whom it concerns; `None`: links in general.
    pub(super) fn target(&self) -> Option<Target> {
        match self {
            Self::Isolate { target, .. }
            | Self::Split { target, .. }
            | Self::Bridge { target }
            | Self::Flap { target, .. }
            | Self::Slow { target, .. }
            | Self::Hold { target }
            | Self::ClientCut { target, .. }
            | Self::Kill { target }
            | Self::PowerCut { target, .. }
            | Self::CrashAtStep { target, .. }
            | Self::Pause { target }
            | Self::Clock { target, .. }
            | Self::Replace { target, .. }
            | Self::Transfer { target }
            | Self::Disk { target, .. } => Some(*target),
            Self::Ring | Self::OneWay { .. } | Self::Swizzle { .. } | Self::Rpc { .. } | Self::Backup => None,
        }
    }
}

impl Effect {
    /// What does not change while it lasts.
    pub(super) fn static_of(&mut self, action: &Action, nodes: &[String], all: &[String]) {
        match action {
            Action::Isolate { direction, .. } => {
                let (inwards, outwards) = ways(*direction);
                nodes.iter().for_each(|node| self.isolate(node, all, inwards, outwards));
            }
            Action::Split { clients, .. } => {
                let others: Vec<_> = all.iter().filter(|node| !nodes.contains(node)).cloned().collect();
                self.apart(nodes, &others);
                match clients {
                    ClientSide::All => {}
                    ClientSide::Inside => self.apart(&others, &[CLIENTS.to_owned()]),
                    ClientSide::Outside => self.apart(nodes, &[CLIENTS.to_owned()]),
                }
            }
            Action::Ring => self.ring(all),
            Action::Bridge { .. } => {
                let others: Vec<_> = all.iter().filter(|node| !nodes.contains(node)).cloned().collect();
                let (left, right) = others.split_at(others.len() / 2);
                self.apart(left, right);
            }
            Action::Slow { latency_ms, .. } => {
                for (node, other) in pairs(nodes, all) {
                    self.links.slow(node, other, Duration::from_millis(*latency_ms));
                }
            }
            Action::Hold { .. } => nodes.iter().for_each(|node| self.hold(node, all)),
            Action::ClientCut { direction, .. } => {
                let (inwards, outwards) = ways(*direction);
                for node in nodes {
                    if inwards {
                        self.links.cut(CLIENTS, node);
                    }
                    if outwards {
                        self.links.cut(node, CLIENTS);
                    }
                }
            }
            Action::Kill { .. } => self.end_lives(nodes, Life::Dead),
            // These change while they last, or are no matter of links and lives.
            Action::OneWay { .. }
            | Action::Flap { .. }
            | Action::Swizzle { .. }
            | Action::Rpc { .. }
            | Action::PowerCut { .. }
            | Action::CrashAtStep { .. }
            | Action::Pause { .. }
            | Action::Clock { .. }
            | Action::Replace { .. }
            | Action::Transfer { .. }
            | Action::Backup
            | Action::Disk { .. } => {}
        }
    }

    /// Cuts a node off from the other nodes and from the clients.
    pub(super) fn isolate(&mut self, node: &str, all: &[String], inwards: bool, outwards: bool) {
        for other in all.iter().map(String::as_str).chain([CLIENTS]).filter(|other| *other != node) {
            if inwards {
                self.links.cut(other, node);
            }
            if outwards {
                self.links.cut(node, other);
            }
        }
    }

    /// All that goes to and from a node waits.
    pub(super) fn hold(&mut self, node: &str, all: &[String]) {
        for other in all.iter().map(String::as_str).chain([CLIENTS]).filter(|other| *other != node) {
            self.links.hold(node, other);
        }
    }

    pub(super) fn one_way(&mut self, from: &[String], to: &[String]) {
        for (from, to) in pairs(from, to) {
            self.links.cut(from, to);
        }
    }

    fn apart(&mut self, left: &[String], right: &[String]) {
        self.one_way(left, right);
        self.one_way(right, left);
    }

    fn ring(&mut self, all: &[String]) {
        let count = all.len();
        for (index, node) in all.iter().enumerate() {
            for (other_index, other) in all.iter().enumerate().filter(|(other, _)| *other != index) {
                let ahead = (other_index + count - index) % count;
                // With three nodes each hears only the one before it.
                let is_neighbour = ahead == 1 || (3 < count && ahead == count - 1);
                if !is_neighbour {
                    self.links.cut(node, other);
                }
            }
        }
    }

    pub(super) fn end_lives(&mut self, nodes: &[String], life: Life) {
        nodes.iter().for_each(|node| self.end_life(node, life));
    }

    /// The worse of two ends counts.
    pub(super) fn end_life(&mut self, node: &str, life: Life) {
        let worst = self.lives.entry(node.to_owned()).or_insert(life);
        *worst = life.max(*worst);
    }

    pub(super) fn add(&mut self, more: &Effect) {
        self.links.add(&more.links);
        more.lives.iter().for_each(|(node, life)| self.end_life(node, *life));
    }
}

/// Inwards, outwards.
fn ways(direction: Direction) -> (bool, bool) {
    (direction != Direction::Out, direction != Direction::In)
}

fn pairs<'a>(left: &'a [String], right: &'a [String]) -> impl Iterator<Item = (&'a str, &'a str)> {
    left.iter().flat_map(move |a| right.iter().filter(move |b| *b != a).map(move |b| (a.as_str(), b.as_str())))
}

/// One node after the other is clogged, and set free in another order.
pub(super) fn swizzle(all: &[String], mut rng: Rng, now: Duration, lasts: Duration) -> Vec<(Duration, Effect)> {
    let shuffled = |rng: &mut Rng, mut nodes: Vec<String>| {
        for end in (1..nodes.len()).rev() {
            nodes.swap(end, rng.below(end as u64 + 1) as usize);
        }
        nodes
    };
    let mut chosen = shuffled(&mut rng, all.to_vec());
    chosen.truncate(1 + rng.below(all.len() as u64) as usize);
    let freed = shuffled(&mut rng, chosen.clone());
    let half = lasts / 2;
    let mut moments = |half_start: Duration| {
        let mut at: Vec<_> = chosen.iter().map(|_| half_start + rng.duration(Duration::ZERO, half)).collect();
        at.sort();
        at
    };
    let (clogs, frees) = (moments(now), moments(now + half));
    let mut clogged = Vec::new();
    let mut turns = Vec::new();
    let effect_of = |clogged: &[String]| {
        let mut effect = Effect::default();
        clogged.iter().for_each(|node| effect.hold(node, all));
        effect
    };
    for (at, node) in clogs.into_iter().zip(&chosen) {
        clogged.push(node.clone());
        turns.push((at, effect_of(&clogged)));
    }
    for (at, node) in frees.into_iter().zip(&freed) {
        clogged.retain(|clogged| clogged != node);
        turns.push((at, effect_of(&clogged)));
    }
    turns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Faults, Reach};

    fn names(count: u8) -> Vec<String> {
        (1..=count).map(|number| format!("n{number}")).collect()
    }

    /// Whom each node can talk to.
    fn talks(action: &Action, nodes: &[&str], count: u8) -> Vec<String> {
        let all = names(count);
        let mut effect = Effect::default();
        effect.static_of(action, &nodes.iter().map(|node| (*node).to_owned()).collect::<Vec<_>>(), &all);
        let faults = Faults::default();
        faults.set_links(effect.links);
        let hosts: Vec<_> = all.iter().map(String::as_str).chain([CLIENTS]).collect();
        let reached = |from: &&str| {
            hosts.iter().filter(|to| *to != from && faults.reach(from, to) == Reach::Open).cloned().collect::<Vec<_>>()
        };
        hosts.iter().map(|from| format!("{from}: {}", reached(from).join(" "))).collect()
    }

    #[test]
    fn shapes_of_partitions() {
        let target = Target::All;
        let split = Action::Split { target, clients: ClientSide::Inside };
        assert_eq!(talks(&split, &["n1", "n2"], 3), ["n1: n2 clients", "n2: n1 clients", "n3: ", "clients: n1 n2"]);
        let bridge = talks(&Action::Bridge { target }, &["n3"], 5);
        assert_eq!(bridge[0], "n1: n2 n3 clients");
        assert_eq!(bridge[2], "n3: n1 n2 n4 n5 clients");
        assert_eq!(bridge[4], "n5: n3 n4 clients");
        let ring = talks(&Action::Ring, &[], 5);
        assert_eq!(ring[0], "n1: n2 n5 clients");
        assert_eq!(ring[2], "n3: n2 n4 clients");
        assert_eq!(talks(&Action::Ring, &[], 3)[0], "n1: clients", "nobody gets an answer from the next");
        let isolated = talks(&Action::Isolate { target, direction: Direction::In }, &["n1"], 3);
        assert_eq!(isolated[0], "n1: ");
        assert_eq!(isolated[1], "n2: n3 clients");
    }

    #[test]
    fn a_swizzle_frees_whom_it_has_clogged() {
        for seed in 0..20 {
            let turns = swizzle(&names(5), Rng::stream(seed, "swizzle"), Duration::ZERO, Duration::from_secs(4));
            assert!(turns.windows(2).all(|pair| pair[0].0 <= pair[1].0));
            assert_eq!(turns.last().map(|(_, effect)| effect.clone()), Some(Effect::default()));
            assert_ne!(turns[0].1, Effect::default());
        }
    }

    #[test]
    fn the_worse_end_counts() {
        let mut one = Effect::default();
        one.end_life("n1", Life::Dark);
        let mut other = Effect::default();
        other.end_life("n1", Life::Dead);
        other.add(&one);
        assert_eq!(other.lives["n1"], Life::Dark);
        one.end_life("n1", Life::Dead);
        assert_eq!(one.lives["n1"], Life::Dark);
    }
}
