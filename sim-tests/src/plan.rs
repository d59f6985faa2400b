//! What a seed expands to: the whole of a run as a value that can be printed, kept, edited and run again.
//!
//! A plan names how the cluster is set up, what the clients do, and which faults come when. Everything that the plan
//! leaves to chance (latencies, jitter, which bytes a power cut keeps) comes from its `seed`, in streams of their own,
//! so a plan without one of its steps is still the same run otherwise.
//!
//! A step that lasts undoes itself. Taking any step out leaves a valid plan: shrinking is deleting and shortening.

use std::time::Duration;

use millstream_node::config::{Limits, LogOptions};
use serde::{Deserialize, Serialize};

use crate::disk::DiskFault;
use crate::rpc::RpcFault;
use crate::workload::Load;

/// What [`Plan::version`] is today. A plan of another version is refused: it would not mean what it meant.
pub const VERSION: u32 = 1;

/// The names of all actions, as in [`Action::name`].
pub const ACTIONS: &[&str] = &[
    "isolate",
    "split",
    "ring",
    "bridge",
    "one_way",
    "flap",
    "swizzle",
    "slow",
    "hold",
    "client_cut",
    "rpc",
    "kill",
    "power_cut",
    "crash_at_step",
    "pause",
    "clock",
    "disk",
    "replace",
    "transfer",
    "backup",
];

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// [`VERSION`].
    pub version: u32,
    /// Decides what the plan does not say.
    pub seed: u64,
    /// Simulated milliseconds of a step of the simulation. Larger is faster and coarser.
    pub tick_ms: u64,
    /// The cluster.
    pub setup: SetupPlan,
    /// The clients.
    pub load: Load,
    /// How long faults may come, from the moment clients work, in milliseconds.
    pub faults_ms: u64,
    /// How long the cluster may take to recover afterwards, in milliseconds.
    pub settle_ms: u64,
    /// What is mended then.
    pub heal: Heal,
    /// The faults, by the moment they begin.
    pub steps: Vec<Step>,
}

/// How the nodes are set up. Sizes are so small that segments roll, logs are purged, snapshots are sent and
/// back-pressure is felt within a minute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupPlan {
    /// Voters: 3 or 5.
    pub nodes: u8,
    /// Machines beside those of the first nodes, for nodes that join.
    #[serde(default)]
    pub spares: u8,
    /// What holds the state.
    pub engine: EnginePlan,
    /// Size of a log segment, in bytes.
    pub segment_bytes: u64,
    /// Entries kept in memory for followers, in bytes.
    pub tail_bytes_max: u64,
    /// Log kept behind the checkpoint, in entries: a follower further behind needs a snapshot.
    pub entries_kept: u64,
    /// Log kept at most for followers that are being sent a snapshot, or catch up, in bytes. Beyond that it is purged, and
    /// they need another snapshot.
    #[serde(default = "transfer_bytes_of_old_plans")]
    pub transfer_bytes_kept: u64,
    /// A checkpoint after so many entries.
    pub checkpoint_entries: u64,
    /// A checkpoint when so many bytes have changed.
    pub dirty_bytes: u64,
    /// Applying waits when so many bytes have changed and are not stored. Not less than `dirty_bytes`.
    pub dirty_bytes_max: u64,
    /// Bytes of disk kept free: with less a node takes nothing that grows. 0: no guard.
    pub reserve_bytes: u64,
    /// How often the leader compares the replicas, in milliseconds. 0: never.
    pub compare_ms: u64,
    /// Bytes of store and log that a node reads again each second. 0: none.
    pub scrub_bytes_per_second: u64,
    /// How long a sync takes, in milliseconds.
    pub sync_ms: u64,
    /// Longest time that a segment is under way, in milliseconds. The shortest is 1.
    pub latency_ms_max: u64,
    /// A node that stopped by itself starts again after so long, in milliseconds.
    pub restart_ms: u64,
    /// How long a node waits for a proposal to be committed before it says that it does not know, in milliseconds.
    #[serde(default = "call_time_of_old_plans")]
    pub call_time_max_ms: u64,
}

/// Plans that do not say it mean production's default.
fn call_time_of_old_plans() -> u64 {
    Limits::default().call_time_max.as_millis() as u64
}

/// Plans that do not say it mean production's default.
fn transfer_bytes_of_old_plans() -> u64 {
    LogOptions::default().bytes_kept_for_transfer
}

/// What holds a node's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EnginePlan {
    /// Memory, and one file at each checkpoint.
    Memory,
    /// redb on the simulated disk.
    Redb,
}

impl Default for SetupPlan {
    fn default() -> Self {
        Self {
            nodes: 3,
            spares: 0,
            engine: EnginePlan::Memory,
            // Many segments, and a node that was away for some seconds needs a snapshot.
            segment_bytes: 128 << 10,
            tail_bytes_max: 64 << 10,
            entries_kept: 300,
            transfer_bytes_kept: 512 << 10,
            checkpoint_entries: 250,
            dirty_bytes: 256 << 10,
            dirty_bytes_max: 128 << 20,
            reserve_bytes: 0,
            compare_ms: 2_000,
            scrub_bytes_per_second: 4 << 20,
            sync_ms: 3,
            latency_ms_max: 12,
            restart_ms: 1_000,
            call_time_max_ms: call_time_of_old_plans(),
        }
    }
}

/// What is mended when the time of faults is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heal {
    /// Everything.
    All,
    /// First only a bare majority: `first` and those after it, round and round, that can come back. The others stay away
    /// until the core has shown that it needs nobody. Then everything.
    Core {
        /// The first node of the core, from 1.
        first: u8,
        /// Whether the others have no power; else they are cut off.
        dark: bool,
    },
}

/// One fault.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// When it begins, in milliseconds since clients work.
    pub at_ms: u64,
    /// How long it lasts, in milliseconds. It is undone after that, or when everything is mended.
    pub for_ms: u64,
    /// What happens.
    pub action: Action,
}

/// Whom it concerns. Decided when it happens, by what the nodes then say of themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// This node, from 1. Beyond the last, counted on from the first.
    Node(u8),
    /// The leader; the first node while there is none.
    Leader,
    /// The n-th node, from 0, that is not the leader. Beyond the last, counted on from the first.
    Follower(u8),
    /// A bare majority: this node, from 1, and those after it, round and round.
    Majority(u8),
    /// All nodes.
    All,
    /// The clients. Of nodes: none.
    Clients,
}

/// Which way a link is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Both ways.
    Both,
    /// Nothing comes in.
    In,
    /// Nothing goes out.
    Out,
}

/// With whom clients can talk while nodes are apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientSide {
    /// With everybody.
    All,
    /// With those that are named only.
    Inside,
    /// With the others only.
    Outside,
}

/// A fault.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// Each of these nodes is cut off from all other nodes and from the clients.
    Isolate {
        /// Whom.
        target: Target,
        /// Which way.
        direction: Direction,
    },
    /// These nodes on one side, the others on the other.
    Split {
        /// One side.
        target: Target,
        /// Where the clients are.
        clients: ClientSide,
    },
    /// Every node sees a majority, no two the same: its neighbours in a ring. With three nodes that is everybody, so
    /// there each node hears only the one before it.
    Ring,
    /// Only this node sees both halves of the others.
    Bridge {
        /// The bridge.
        target: Target,
    },
    /// Nothing goes from these to those.
    OneWay {
        /// From whom.
        from: Target,
        /// To whom.
        to: Target,
    },
    /// These nodes are cut off and are back, again and again.
    Flap {
        /// Whom.
        target: Target,
        /// How long each of the two lasts, in milliseconds.
        period_ms: u64,
    },
    /// One node after the other is clogged during the first half, and set free in another order during the second.
    Swizzle {
        /// Decides who and in which order.
        draw: u64,
    },
    /// What goes to and from these nodes takes long.
    Slow {
        /// Whom.
        target: Target,
        /// Longest time under way, in milliseconds.
        latency_ms: u64,
    },
    /// What goes to and from these nodes, clients included, is late: all of it arrives when this ends.
    Hold {
        /// Whom.
        target: Target,
    },
    /// Clients and these nodes do not reach each other.
    ClientCut {
        /// Whom.
        target: Target,
        /// Which way, as the nodes see it.
        direction: Direction,
    },
    /// Calls between nodes go wrong.
    Rpc {
        /// How.
        fault: RpcFault,
    },
    /// These nodes' processes are killed, and start again when this ends.
    Kill {
        /// Whom.
        target: Target,
    },
    /// These nodes lose their power at one instant, and get it back when this ends.
    PowerCut {
        /// Whom.
        target: Target,
        /// Whether to wait, at most two seconds, for a moment in which they write.
        while_writing: bool,
    },
    /// The next steps of this node's disk are counted, and just before this one its process dies. It starts again when
    /// this ends.
    CrashAtStep {
        /// Whom.
        target: Target,
        /// Which step, from 1.
        step: u64,
        /// Counted not from now, but from the sync of a directory: which one, from 1. 0: from now.
        #[serde(default)]
        names: u64,
        /// Whether its power goes as well.
        power: bool,
    },
    /// These nodes stand still: for them no time passes. What is sent to them arrives when this ends.
    Pause {
        /// Whom.
        target: Target,
    },
    /// Something is wrong with these nodes' clocks.
    Clock {
        /// Whose.
        target: Target,
        /// What.
        fault: ClockFault,
    },
    /// A machine without a node gets one that joins, and this node leaves for it. Waits for nothing, and is pursued until it
    /// is done; nothing happens while another is under way, or if no machine is left.
    Replace {
        /// Who leaves.
        target: Target,
        /// Whether the new node votes for a while beside all others; else one change does both.
        in_two: bool,
    },
    /// An operator hands leadership to this node.
    Transfer {
        /// To whom.
        target: Target,
    },
    /// An operator makes a backup.
    Backup,
    /// Something is wrong with these nodes' disks.
    Disk {
        /// Whose.
        target: Target,
        /// What.
        fault: DiskFault,
    },
}

/// What is wrong with a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockFault {
    /// The wall clock is off by so many milliseconds, forwards or backwards.
    Jump {
        /// By how much.
        ms: i64,
    },
    /// Wall and monotonic clock go so many parts in a million too fast, or too slowly; at most half a million.
    Drift {
        /// By how much.
        ppm: i64,
    },
    /// The wall clock stands still.
    Frozen,
    /// Timers and the monotonic clock are at once so many milliseconds ahead: what was due comes late, in one burst.
    Ahead {
        /// By how much.
        ms: u64,
    },
}

impl Step {
    /// When it begins, since clients work.
    pub fn at(&self) -> Duration {
        Duration::from_millis(self.at_ms)
    }

    /// When it is undone.
    pub fn end(&self) -> Duration {
        Duration::from_millis(self.at_ms.saturating_add(self.for_ms))
    }
}

impl Action {
    /// Its name, as in the JSON.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Isolate { .. } => "isolate",
            Self::Split { .. } => "split",
            Self::Ring => "ring",
            Self::Bridge { .. } => "bridge",
            Self::OneWay { .. } => "one_way",
            Self::Flap { .. } => "flap",
            Self::Swizzle { .. } => "swizzle",
            Self::Slow { .. } => "slow",
            Self::Hold { .. } => "hold",
            Self::ClientCut { .. } => "client_cut",
            Self::Rpc { .. } => "rpc",
            Self::Kill { .. } => "kill",
            Self::PowerCut { .. } => "power_cut",
            Self::CrashAtStep { .. } => "crash_at_step",
            Self::Pause { .. } => "pause",
            Self::Clock { .. } => "clock",
            Self::Replace { .. } => "replace",
            Self::Transfer { .. } => "transfer",
            Self::Backup => "backup",
            Self::Disk { .. } => "disk",
        }
    }
}

impl Plan {
    /// Reads what [`Plan::to_json`] has written.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let plan: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if plan.version != VERSION {
            return Err(format!("the plan has version {}, this build runs version {VERSION}", plan.version));
        }
        plan.check()?;
        Ok(plan)
    }

    /// As text.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_else(|error| format!("not to be written: {error}"))
    }

    /// Whether the plan can be run.
    fn check(&self) -> Result<(), String> {
        let Self { tick_ms, setup, .. } = self;
        let bounds = [
            (matches!(tick_ms, 1 | 2 | 5 | 10)).then_some(()).ok_or("tick_ms is 1, 2, 5 or 10"),
            matches!(setup.nodes, 3 | 5).then_some(()).ok_or("nodes is 3 or 5"),
            (setup.spares <= 5).then_some(()).ok_or("spares is 0 to 5"),
            (1..=5_000).contains(&setup.latency_ms_max).then_some(()).ok_or("latency_ms_max is 1 to 5000"),
            (setup.dirty_bytes <= setup.dirty_bytes_max).then_some(()).ok_or("dirty_bytes_max is below dirty_bytes"),
        ];
        bounds.into_iter().collect::<Result<(), _>>().map_err(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_action() -> Vec<Action> {
        let target = Target::Leader;
        vec![
            Action::Isolate { target, direction: Direction::In },
            Action::Split { target: Target::Majority(2), clients: ClientSide::Inside },
            Action::Ring,
            Action::Bridge { target: Target::Node(1) },
            Action::OneWay { from: target, to: Target::Clients },
            Action::Flap { target, period_ms: 90 },
            Action::Swizzle { draw: 7 },
            Action::Slow { target: Target::All, latency_ms: 300 },
            Action::Hold { target: Target::Follower(1) },
            Action::ClientCut { target, direction: Direction::Both },
            Action::Kill { target },
            Action::PowerCut { target: Target::All, while_writing: true },
            Action::CrashAtStep { target, step: 12, names: 1, power: true },
            Action::Pause { target },
            Action::Clock { target, fault: ClockFault::Jump { ms: -5 } },
            Action::Clock { target, fault: ClockFault::Frozen },
            Action::Replace { target, in_two: true },
            Action::Transfer { target },
            Action::Backup,
            Action::Disk { target, fault: DiskFault::FailSync { nth: 3 } },
            Action::Rpc { fault: RpcFault::draw(&mut crate::entropy::Rng::stream(1, "rpc")) },
        ]
    }

    #[test]
    fn plans_survive_being_written_and_read() {
        let steps = every_action().into_iter().map(|action| Step { at_ms: 5, for_ms: 10, action }).collect();
        let plan = Plan {
            version: VERSION,
            seed: 9,
            tick_ms: 5,
            setup: SetupPlan::default(),
            load: Load::default(),
            faults_ms: 60_000,
            settle_ms: 12_000,
            heal: Heal::Core { first: 2, dark: true },
            steps,
        };
        let text = plan.to_json();
        let read = Plan::from_json(&text).expect("readable");
        assert_eq!(read.to_json(), text);
        let named: std::collections::BTreeSet<_> = every_action().iter().map(Action::name).collect();
        assert_eq!(named, ACTIONS.iter().copied().collect());
        for (step, action) in read.steps.iter().zip(every_action()) {
            let json = serde_json::to_value(&step.action).expect("written");
            assert_eq!(json["do"], action.name());
        }
        assert!(Plan::from_json(&text.replacen("\"version\": 1", "\"version\": 99", 1)).is_err());
        assert!(Plan::from_json(&text.replacen("\"nodes\": 3", "\"nodes\": 4", 1)).is_err());
    }
}
