//! Carries out a plan's faults, between the steps of the simulation.
//!
//! Each fault that is under way has an effect of its own: links that are cut, held or slow, nodes that do not run. What
//! the cluster is told is always the sum of all of them, so faults may overlap in any way, and ending one leaves the
//! others as they are. What cannot be summed (clocks, disks, a leap in time) is begun and ended one by one.

mod effect;
mod members;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use self::effect::{Effect, swizzle};
use self::members::Members;
use crate::cluster::{CLIENTS, Cluster, Failure, Life, WRITING_SOON};
use crate::disk::DiskFault;
use crate::entropy::Rng;
use crate::plan::{Action, ClockFault, Plan, Step, Target};
use crate::rpc::RpcFault;

/// A node that stands still does so for this long at most by the driver's time: shorter than an election timeout, so
/// that it notices nothing, and long enough for the others to elect another. The rest of the time passes for the
/// others only.
const STANDSTILL: Duration = Duration::from_millis(400);
/// How long after the end of a fault of its disk a node may still end because of it.
const AFTERMATH: Duration = Duration::from_secs(5);

/// What is left to do of a plan, and what is under way.
pub struct Nemesis {
    seed: u64,
    restart: Duration,
    /// When clients began to work: the plan's time 0.
    start: Duration,
    to_come: std::iter::Peekable<std::vec::IntoIter<Step>>,
    under_way: Vec<UnderWay>,
    begun: u64,
    /// Nodes that ended by themselves, and when they start again.
    stopped: BTreeMap<String, Duration>,
    /// What holds besides the plan's steps.
    core: Effect,
    members: Members,
}

struct UnderWay {
    number: u64,
    action: Action,
    /// Whom it concerns, as was decided when it began.
    nodes: Vec<String>,
    began: Duration,
    ends: Duration,
    /// What is still to change, and when.
    turns: std::iter::Peekable<std::vec::IntoIter<(Duration, Effect)>>,
    effect: Effect,
    /// A power cut that waits for a moment in which the nodes write, until then.
    waits_until: Option<Duration>,
}

impl Nemesis {
    /// Carries out the steps of `plan`, whose time 0 is now.
    pub fn new(plan: &Plan, now: Duration) -> Self {
        let mut steps = plan.steps.clone();
        // Stable: equal moments stay in the order of the plan.
        steps.sort_by_key(|step| step.at_ms);
        Self {
            seed: plan.seed,
            restart: Duration::from_millis(plan.setup.restart_ms),
            start: now,
            to_come: steps.into_iter().peekable(),
            under_way: Vec::new(),
            begun: 0,
            stopped: BTreeMap::new(),
            core: Effect::default(),
            members: Members::new(plan),
        }
    }

    /// Does what is due. To be called after each step of the simulation.
    pub fn act(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        let now = cluster.elapsed();
        let mut changed = self.end_what_is_over(cluster, now);
        while let Some(step) = self.to_come.next_if(|step| self.start + step.at() <= now) {
            self.begin(cluster, step, now)?;
            changed = true;
        }
        for fault in &mut self.under_way {
            changed |= fault.turn(cluster, now);
        }
        changed |= self.restart_what_stopped(cluster, now);
        self.members.turn(cluster, now)?;
        if changed { self.apply(cluster) } else { Ok(()) }
    }

    /// Ends all faults, those to come as well, and starts all nodes that do not run.
    pub fn heal(&mut self, cluster: &mut Cluster) -> Result<(), Failure> {
        cluster.nemesis(format_args!("heal"));
        self.to_come = Vec::new().into_iter().peekable();
        for fault in self.under_way.drain(..).collect::<Vec<_>>() {
            self.end(cluster, fault);
        }
        self.core = Effect::default();
        self.stopped.clear();
        self.apply(cluster)
    }

    /// Whether no change of members is under way.
    pub fn members_are_settled(&self) -> bool {
        self.members.are_settled()
    }

    /// From now on these nodes are alone: the others have no power, or are cut off.
    pub fn leave_alone(&mut self, cluster: &mut Cluster, core: &[String], dark: bool) -> Result<(), Failure> {
        cluster.nemesis(format_args!("core {core:?}, the others {}", if dark { "without power" } else { "cut off" }));
        let all = cluster.nodes();
        for node in all.iter().filter(|node| !core.contains(node)) {
            if dark {
                self.core.lives.insert(node.clone(), Life::Dark);
            } else {
                self.core.isolate(node, &all, true, true);
            }
        }
        self.apply(cluster)
    }

    fn begin(&mut self, cluster: &mut Cluster, step: Step, now: Duration) -> Result<(), Failure> {
        let Step { for_ms, action, .. } = step;
        let lasts = Duration::from_millis(for_ms);
        let all = cluster.nodes();
        let nodes = match &action {
            // On the machine of that number, wherever members have gone: damage stays, and a majority must be spared.
            Action::Disk { target, fault } if fault.is_damage() => {
                resolve(*target, &self.members.first_machines(cluster), None)
                    .into_iter()
                    .filter(|node| all.contains(node))
                    .collect()
            }
            action => action.target().map(|target| resolve(target, &all, cluster.leader())).unwrap_or_default(),
        };
        self.begun += 1;
        let number = self.begun;
        cluster.nemesis(format_args!("{number} begins: {action:?} on {nodes:?} for {lasts:?}"));
        cluster.marks().mark(action.name());
        let mut ends = now + lasts;
        let mut effect = Effect::default();
        let mut turns = Vec::new();
        let mut waits_until = None;
        match &action {
            Action::OneWay { from, to } => {
                let leader = cluster.leader();
                let hosts = |target| match target {
                    Target::Clients => vec![CLIENTS.to_owned()],
                    target => resolve(target, &all, leader.clone()),
                };
                effect.one_way(&hosts(*from), &hosts(*to));
            }
            Action::Flap { period_ms, .. } => {
                let mut off = Effect::default();
                nodes.iter().for_each(|node| off.isolate(node, &all, true, true));
                let period = Duration::from_millis((*period_ms).max(1));
                let moments = (0..).map(|turn| (now + period * turn, turn)).take_while(|(at, _)| *at < ends);
                let states = [off, Effect::default()];
                turns.extend(moments.map(|(at, turn)| (at, states[turn as usize % 2].clone())));
            }
            Action::Swizzle { draw } => {
                turns = swizzle(&all, Rng::stream(self.seed, &format!("swizzle {draw}")), now, lasts);
            }
            Action::PowerCut { while_writing: true, .. } => waits_until = Some(now + WRITING_SOON),
            Action::PowerCut { .. } => {
                count_power_cut(cluster, nodes.len());
                effect.end_lives(&nodes, Life::Dark);
            }
            Action::CrashAtStep { step, names: 0, .. } => {
                nodes.iter().for_each(|node| cluster.disk(node).crash_at((*step).max(1)))
            }
            Action::CrashAtStep { step, names, .. } => {
                nodes.iter().for_each(|node| cluster.disk(node).crash_behind_names(*names, *step))
            }
            Action::Pause { .. } => {
                let window = lasts.min(STANDSTILL);
                ends = now + window;
                nodes.iter().for_each(|node| effect.hold(node, &all));
                for node in all.iter().filter(|node| !nodes.contains(node)) {
                    leap(cluster, number, node, lasts - window);
                }
            }
            Action::Clock { fault: ClockFault::Ahead { ms }, .. } => {
                nodes.iter().for_each(|node| leap(cluster, number, node, Duration::from_millis(*ms)));
            }
            Action::Clock { fault, .. } => nodes.iter().for_each(|node| cluster.clock(node).begin(number, *fault)),
            Action::Disk { fault, .. } => nodes.iter().for_each(|node| break_disk(cluster, node, fault, ends)),
            Action::Rpc { fault } => break_rpc(cluster, fault),
            Action::Replace { .. } | Action::Transfer { .. } | Action::Backup => {
                self.members.begin(cluster, number, &action, &nodes)?
            }
            action => effect.static_of(action, &nodes, &all),
        }
        let turns = turns.into_iter().peekable();
        self.under_way.push(UnderWay { number, action, nodes, began: now, ends, turns, effect, waits_until });
        Ok(())
    }

    fn end_what_is_over(&mut self, cluster: &mut Cluster, now: Duration) -> bool {
        let (over, under_way): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.under_way).into_iter().partition(|fault| fault.ends <= now);
        self.under_way = under_way;
        let any = !over.is_empty();
        for fault in over {
            cluster.nemesis(format_args!("{} ends", fault.number));
            self.end(cluster, fault);
        }
        any
    }

    /// Undoes what is not part of an effect.
    fn end(&self, cluster: &mut Cluster, fault: UnderWay) {
        match &fault.action {
            Action::CrashAtStep { .. } => {
                fault.nodes.iter().for_each(|node| cluster.disk(node).forget_crash());
            }
            Action::Clock { .. } => fault.nodes.iter().for_each(|node| cluster.clock(node).end(fault.number)),
            Action::Disk { .. } => {
                let others = self.under_way.iter().filter(|other| matches!(other.action, Action::Disk { .. }));
                let broken: BTreeSet<_> = others.flat_map(|other| &other.nodes).collect();
                for node in fault.nodes.iter().filter(|node| !broken.contains(node)) {
                    mend_disk(cluster, node);
                }
            }
            Action::Rpc { .. } => {
                let others = self.under_way.iter().filter_map(|other| match &other.action {
                    Action::Rpc { fault } => Some(fault),
                    _ => None,
                });
                mend_rpc(cluster, others);
            }
            _ => {}
        }
    }

    /// A node that ended by itself, for a reason that the cluster accepts, is started again after a while.
    fn restart_what_stopped(&mut self, cluster: &mut Cluster, now: Duration) -> bool {
        let stopped = cluster.take_stopped();
        let before = self.stopped.len();
        self.stopped.retain(|_, restart| now < *restart);
        let changed = before != self.stopped.len() || !stopped.is_empty();
        for (node, _) in stopped {
            cluster.marks().mark("stopped_by_disk");
            self.stopped.insert(node, now + self.restart);
        }
        changed
    }

    /// Tells the cluster the sum of all effects.
    fn apply(&self, cluster: &mut Cluster) -> Result<(), Failure> {
        let mut sum = self.core.clone();
        self.stopped.keys().for_each(|node| sum.end_life(node, Life::Dead));
        self.under_way.iter().for_each(|fault| sum.add(&fault.effect));
        cluster.set_links(sum.links);
        let lives = cluster.nodes().into_iter().map(|node| {
            let life = sum.lives.get(&node).copied().unwrap_or(Life::Runs);
            (node, life)
        });
        cluster.set_lives(&lives.collect())
    }
}

impl UnderWay {
    /// What a fault does between its beginning and its end. Whether its effect has changed.
    fn turn(&mut self, cluster: &mut Cluster, now: Duration) -> bool {
        let mut changed = false;
        while let Some((_, effect)) = self.turns.next_if(|(at, _)| *at <= now) {
            self.effect = effect;
            changed = true;
        }
        if let Some(until) = self.waits_until {
            let writing = self.nodes.iter().filter(|node| cluster.disk(node).is_writing()).count();
            if self.nodes.len().div_ceil(2) <= writing || until <= now {
                self.waits_until = None;
                self.ends += now - self.began;
                if 0 < writing {
                    cluster.marks().mark("power_cut_while_writing");
                }
                count_power_cut(cluster, self.nodes.len());
                self.effect.end_lives(&self.nodes, Life::Dark);
                changed = true;
            }
        }
        if let Action::CrashAtStep { power, .. } = &self.action {
            let life = if *power { Life::Dark } else { Life::Dead };
            for node in &self.nodes {
                if cluster.disk(node).has_crashed() && !self.effect.lives.contains_key(node) {
                    cluster.nemesis(format_args!("{node} crashes at the step of its disk"));
                    cluster.marks().mark("crash_came");
                    self.effect.end_life(node, life);
                    changed = true;
                }
            }
        }
        changed
    }
}

/// The nodes that are meant, in order.
fn resolve(target: Target, all: &[String], leader: Option<String>) -> Vec<String> {
    let count = all.len();
    let leader = leader.and_then(|leader| all.iter().position(|node| *node == leader)).unwrap_or(0);
    let indexes: Vec<usize> = match target {
        Target::Node(number) => vec![usize::from(number).saturating_sub(1) % count],
        Target::Leader => vec![leader],
        Target::Follower(n) => vec![(leader + 1 + usize::from(n) % (count - 1)) % count],
        Target::Majority(first) => {
            (0..count / 2 + 1).map(|n| (usize::from(first).saturating_sub(1) + n) % count).collect()
        }
        Target::All => (0..count).collect(),
        Target::Clients => Vec::new(),
    };
    all.iter().enumerate().filter(|(index, _)| indexes.contains(index)).map(|(_, node)| node.clone()).collect()
}

fn count_power_cut(cluster: &Cluster, nodes: usize) {
    if nodes == cluster.nodes().len() {
        cluster.marks().mark("power_cut_of_all");
    }
}

/// Timers and the monotonic clock are ahead at once.
fn leap(cluster: &mut Cluster, number: u64, node: &str, by: Duration) {
    cluster.leap(node, by);
    let clock = cluster.clock(node);
    clock.begin(number, ClockFault::Ahead { ms: by.as_millis() as u64 });
    clock.end(number);
}

/// The one place that breaks disks.
fn break_disk(cluster: &mut Cluster, node: &str, fault: &DiskFault, until: Duration) {
    cluster.disk(node).inject(*fault);
    let until = if fault.is_damage() { Duration::MAX } else { until + AFTERMATH };
    cluster.expect_stop(node, until);
}

/// The one place that mends disks.
fn mend_disk(cluster: &mut Cluster, node: &str) {
    cluster.disk(node).clear_faults();
}

/// The one place that breaks calls between nodes.
fn break_rpc(cluster: &Cluster, fault: &RpcFault) {
    cluster.rpc().inject(fault.clone());
}

/// The one place that mends calls between nodes: `left` is what stays broken.
fn mend_rpc<'a>(cluster: &Cluster, left: impl Iterator<Item = &'a RpcFault>) {
    cluster.rpc().clear();
    left.for_each(|fault| break_rpc(cluster, fault));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_decided_when_it_happens() {
        let all: Vec<_> = (1..=5).map(|number| format!("n{number}")).collect();
        let named = |target| resolve(target, &all, Some("n4".into())).join(" ");
        assert_eq!(named(Target::Leader), "n4");
        assert_eq!(named(Target::Follower(0)), "n5");
        assert_eq!(named(Target::Follower(3)), "n3");
        assert_eq!(named(Target::Follower(4)), "n5", "counted on from the first");
        assert_eq!(named(Target::Majority(4)), "n1 n4 n5");
        assert_eq!(named(Target::Node(7)), "n2");
        assert_eq!(named(Target::Clients), "");
        assert_eq!(resolve(Target::Leader, &all, None), ["n1"]);
    }
}
