//! Nodes that come and go, leadership that is handed over, and backups, while faults come.
//!
//! An operator replaces members: a spare machine joins as a learner, gets a vote, and another loses its own, in one step
//! or in two. An order that fails or is not answered is given again until it is carried out, as an operator would; so
//! the number of voters is what it was, and no more of them have damaged disks than before.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::{Cluster, Failure};
use crate::plan::{Action, Plan, Target};
use crate::workload::{Order, Told};

/// Between two attempts at the same order.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// What the operator is about.
pub(super) struct Members {
    /// How many nodes there were at first.
    first: usize,
    /// Machines whose disks the plan damages for good. No node joins there: with it the damage could reach a majority.
    frail: BTreeSet<String>,
    replacement: Option<Replacement>,
    /// Orders that are given once.
    once: Vec<Once>,
    /// How many nodes have joined.
    joined: u64,
}

/// A member on its way in, and another on its way out.
struct Replacement {
    number: u64,
    /// The machine that joins, and the id of its node.
    new: (String, u64),
    /// The machine that leaves, and the id of its node.
    old: (String, u64),
    /// Whether the new one votes before the old one leaves.
    in_two: bool,
    /// Whether the old one led when it was told to leave.
    led: bool,
    stage: Stage,
    /// The order that is being carried out.
    order: Option<u64>,
    /// When to give it again.
    again: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The new node becomes a learner.
    Learns,
    /// It gets a vote.
    Votes,
    /// The old one leaves.
    Leaves,
}

struct Once {
    order: u64,
    done: &'static str,
    /// For a backup: the highest log index that a client had been told of.
    acknowledged: u64,
}

impl Members {
    pub(super) fn new(plan: &Plan) -> Self {
        let first = usize::from(plan.setup.nodes);
        let damaged = plan.steps.iter().filter_map(|step| match &step.action {
            Action::Disk { target: Target::Node(number), fault } if fault.is_damage() => {
                Some(format!("n{}", usize::from(*number).saturating_sub(1) % first + 1))
            }
            _ => None,
        });
        Self { first, frail: damaged.collect(), replacement: None, once: Vec::new(), joined: 0 }
    }

    /// The machines of the first nodes.
    pub(super) fn first_machines(&self, cluster: &Cluster) -> Vec<String> {
        cluster.machines().into_iter().take(self.first).collect()
    }

    /// Begins an action that concerns members. A replacement that comes while another is under way, or for which no
    /// machine is left, does not happen.
    pub(super) fn begin(
        &mut self,
        cluster: &mut Cluster,
        number: u64,
        action: &Action,
        nodes: &[String],
    ) -> Result<(), Failure> {
        match (action, nodes.first()) {
            (Action::Transfer { .. }, Some(node)) => {
                let order = cluster.order(Order::Transfer { to: cluster.id(node) });
                self.once.push(Once { order, done: "leadership_transferred", acknowledged: 0 });
            }
            (Action::Backup, _) => {
                let acknowledged = cluster.acknowledged_index();
                let order = cluster.order(Order::Backup);
                self.once.push(Once { order, done: "backup_made", acknowledged });
            }
            (Action::Replace { in_two, .. }, Some(node)) => {
                let members = cluster.nodes();
                let spare = cluster
                    .machines()
                    .into_iter()
                    .find(|machine| !members.contains(machine) && !self.frail.contains(machine));
                let (None, Some(spare)) = (&self.replacement, spare) else { return Ok(()) };
                self.joined += 1;
                // Beyond the ids that the machines had at first.
                let new_id = cluster.machines().len() as u64 + self.joined;
                cluster.join(&spare, new_id)?;
                self.replacement = Some(Replacement {
                    number,
                    new: (spare, new_id),
                    old: (node.clone(), cluster.id(node)),
                    in_two: *in_two,
                    led: false,
                    stage: Stage::Learns,
                    order: None,
                    again: cluster.elapsed(),
                });
            }
            _ => {}
        }
        Ok(())
    }

    /// Looks at what has come of orders, and gives the next.
    pub(super) fn turn(&mut self, cluster: &mut Cluster, now: Duration) -> Result<(), Failure> {
        for once in std::mem::take(&mut self.once) {
            match cluster.told(once.order) {
                None => self.once.push(once),
                Some(Ok(told)) => {
                    cluster.marks().mark(once.done);
                    if let Told::Backup { log_index, bytes } = &told {
                        cluster.check_backup(*log_index, bytes, once.acknowledged)?;
                    }
                }
                // Given once: whoever wants it tries again, and that is another step of the plan.
                Some(Err(_)) => {}
            }
        }
        let Some(replacement) = &mut self.replacement else { return Ok(()) };
        if replacement.turn(cluster, now) {
            self.replacement = None;
        }
        Ok(())
    }

    /// Whether nothing is under way.
    pub(super) fn are_settled(&self) -> bool {
        self.replacement.is_none()
    }
}

impl Replacement {
    /// Goes on if it can. Whether it has come to its end.
    fn turn(&mut self, cluster: &mut Cluster, now: Duration) -> bool {
        match self.order {
            None if now < self.again => return false,
            None => {
                self.led = cluster.leader().as_ref() == Some(&self.old.0);
                self.order = Some(cluster.order(self.next_order(cluster)));
                return false;
            }
            Some(order) => match cluster.told(order) {
                None => return false,
                Some(told) => {
                    self.order = None;
                    if told.is_err() {
                        self.again = now + AGAIN_AFTER;
                        return false;
                    }
                }
            },
        }
        match self.stage {
            Stage::Learns => {
                cluster.marks().mark("learner_added");
                self.stage = if self.in_two { Stage::Votes } else { Stage::Leaves };
                false
            }
            Stage::Votes => {
                cluster.marks().mark("learner_promoted");
                self.stage = Stage::Leaves;
                false
            }
            Stage::Leaves => {
                cluster.nemesis(format_args!("{} has come to its end: {:?} for {:?}", self.number, self.new, self.old));
                cluster.marks().mark(if self.led { "leader_removed" } else { "follower_removed" });
                cluster.leave(&self.old.0);
                true
            }
        }
    }

    fn next_order(&self, cluster: &Cluster) -> Order {
        let ((node, id), (_, old_id)) = (&self.new, &self.old);
        match self.stage {
            Stage::Learns => Order::AddLearner { id: *id, address: cluster.peer_address(node) },
            Stage::Votes => Order::ChangeVoters { add: vec![*id], remove: Vec::new() },
            Stage::Leaves if self.in_two => Order::ChangeVoters { add: Vec::new(), remove: vec![*old_id] },
            Stage::Leaves => Order::ChangeVoters { add: vec![*id], remove: vec![*old_id] },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Area, DiskFault};
    use crate::generate;
    use crate::plan::Step;

    #[test]
    fn no_node_joins_where_a_disk_is_damaged() {
        let area = Area::Anywhere;
        let damage = |number| Action::Disk {
            target: Target::Node(number),
            fault: DiskFault::FlipBits { count: 1, seed: 1, area },
        };
        let passing = Action::Disk { target: Target::Node(3), fault: DiskFault::Stall { ms: 5, area } };
        let mut plan = generate::plan(1);
        plan.setup.nodes = 3;
        plan.steps = [damage(2), damage(4), passing].map(|action| Step { at_ms: 0, for_ms: 1, action }).into();
        let frail: Vec<_> = Members::new(&plan).frail.into_iter().collect();
        assert_eq!(frail, ["n1", "n2"], "numbers beyond the last are counted on from the first");
    }
}
