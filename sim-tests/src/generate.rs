//! From a seed to a plan.
//!
//! Each class of faults is on in half of the seeds (swarm testing: a bug that needs one fault often, and none of
//! another that hides it, is found by some seed). How many faults may overlap, how long they last and how much peace
//! there is between them is drawn as well. The leader is the victim more often than chance would have it.
//!
//! The budget: any number of crashes, power cuts and partitions, for they must never cost an acknowledged entry; but
//! damage that stays on a disk is confined to a minority of the nodes, the same ones for the whole run.

use millstream_node::world::RpcKind;

use crate::disk::{Area, DiskFault};
use crate::entropy::Rng;
use crate::plan::{
    Action, ClientSide, ClockFault, Direction, EnginePlan, Heal, Plan, SetupPlan, Step, Target, VERSION,
};
use crate::rpc::{DOOR_KINDS, RpcFault};
use crate::workload::Load;

/// How long faults may come.
const FAULTS_MS: u64 = 60_000;
/// How long each part of the recovery may take.
const SETTLE_MS: u64 = 20_000;
/// Faults at a time.
const LANES_MAX: u64 = 4;
/// Of a hundred targets, so many are the leader.
const LEADER_PERCENT: u64 = 60;

/// The plan of a seed.
pub fn plan(seed: u64) -> Plan {
    let mut setup = setup(&mut Rng::stream(seed, "plan setup"));
    let mut load = Load::draw(&mut Rng::stream(seed, "plan load"));
    let mut door = Rng::stream(seed, "plan door");
    load.draw_door(&mut door);
    let mut rng = Rng::stream(seed, "plan run");
    // Fine steps see more interleavings and cost several times as much.
    let tick_ms = if rng.one_in(10) { 1 } else { 5 };
    let first = 1 + rng.below(u64::from(setup.nodes)) as u8;
    let heal = if rng.one_in(3) { Heal::Core { first, dark: rng.one_in(2) } } else { Heal::All };
    let mut steps = steps(&setup, &mut Rng::stream(seed, "plan faults"));
    if steps.iter().any(|step| matches!(step.action, Action::Replace { .. })) {
        setup.spares = 1 + rng.below(2) as u8;
    }
    if 0 < load.door_one_in {
        befall_the_door(&mut steps, &mut door);
    }
    Plan { version: VERSION, seed, tick_ms, setup, load, faults_ms: FAULTS_MS, settle_ms: SETTLE_MS, heal, steps }
}

fn setup(rng: &mut Rng) -> SetupPlan {
    let mut between = |min: u64, max: u64| min + rng.below(max - min + 1);
    let dirty_bytes = between(32, 512) << 10;
    SetupPlan {
        nodes: if between(0, 3) == 0 { 5 } else { 3 },
        spares: 0,
        engine: if between(0, 2) == 0 { EnginePlan::Redb } else { EnginePlan::Memory },
        segment_bytes: between(64, 512) << 10,
        tail_bytes_max: between(16, 256) << 10,
        entries_kept: between(50, 1_000),
        checkpoint_entries: between(50, 1_000),
        dirty_bytes,
        dirty_bytes_max: dirty_bytes * between(2, 20),
        reserve_bytes: if between(0, 1) == 0 { 0 } else { between(64, 512) << 10 },
        compare_ms: between(500, 5_000),
        scrub_bytes_per_second: between(0, 4) << 20,
        sync_ms: between(1, 10),
        latency_ms_max: between(2, 40),
        restart_ms: between(100, 3_000),
        transfer_bytes_kept: between(128, 2_048) << 10,
        // Sooner than a leader that hears nobody gives up; or production's, which no fault outlasts.
        call_time_max_ms: if between(0, 2) == 0 { between(400, 3_000) } else { 30_000 },
    }
}

/// A class of faults, which a seed has or has not.
type Class = fn(&mut Rng, &Victims) -> (Action, Span);
/// How long a fault may last, in milliseconds.
type Span = (u64, u64);

const CLASSES: [Class; 17] = [
    isolation,
    shapes,
    one_way,
    flapping,
    swizzle,
    slowness,
    hold,
    client_cut,
    rpc,
    kill,
    power,
    crash_step,
    pause,
    clock,
    disk,
    replacement,
    operator,
];

/// Who may suffer what.
struct Victims {
    nodes: u64,
    /// The nodes whose disks may be damaged for good: the first of them and the number of them.
    frail: (u64, u64),
}

fn steps(setup: &SetupPlan, rng: &mut Rng) -> Vec<Step> {
    let nodes = u64::from(setup.nodes);
    let victims = Victims { nodes, frail: (rng.below(nodes), (nodes - 1) / 2) };
    let mut classes = Vec::new();
    for class in CLASSES {
        if rng.one_in(2) {
            // Its intensity.
            classes.extend(std::iter::repeat_n(class, 1 + rng.below(4) as usize));
        }
    }
    if classes.is_empty() {
        // A run without faults has its use too: nothing else explains what goes wrong there.
        return Vec::new();
    }
    let lanes = 1 + rng.below(LANES_MAX);
    let peace_ms = 500 + rng.below(6_000);
    let mut steps = Vec::new();
    for _ in 0..lanes {
        let mut at_ms = rng.below(2 * peace_ms);
        loop {
            let (action, (min, max)) = classes[rng.below(classes.len() as u64) as usize](rng, &victims);
            let for_ms = min + rng.below(max - min + 1);
            if FAULTS_MS < at_ms + for_ms {
                break;
            }
            steps.push(Step { at_ms, for_ms, action });
            at_ms += for_ms + rng.below(2 * peace_ms);
        }
    }
    steps.sort_by_key(|step| step.at_ms);
    steps
}

/// With clients of the Redis door, what followers ask the leader on their behalf goes wrong as well: where calls of
/// some kinds do, and in some steps more that are about nothing else.
fn befall_the_door(steps: &mut Vec<Step>, rng: &mut Rng) {
    for step in steps.iter_mut() {
        if let Action::Rpc { fault } = &mut step.action
            && !fault.kinds.is_empty()
        {
            fault.kinds.extend(DOOR_KINDS.into_iter().filter(|_| rng.one_in(2)));
        }
    }
    for _ in 0..rng.below(8) {
        let (mut fault, for_ms) = (RpcFault::draw(rng), 500 + rng.below(7_500));
        fault.kinds = vec![RpcKind::Execute];
        let at_ms = rng.below(FAULTS_MS - for_ms);
        let meets = |other: &&Step| other.at_ms < at_ms + for_ms && at_ms < other.at_ms + other.for_ms;
        // Not more at a time than ever.
        if steps.iter().filter(meets).count() < LANES_MAX as usize {
            steps.push(Step { at_ms, for_ms, action: Action::Rpc { fault } });
        }
    }
    steps.sort_by_key(|step| step.at_ms);
}

/// One node, the leader more often than not.
fn one(rng: &mut Rng, victims: &Victims) -> Target {
    match rng.below(100) {
        draw if draw < LEADER_PERCENT => Target::Leader,
        draw if draw < 85 => Target::Follower(rng.below(victims.nodes - 1) as u8),
        _ => Target::Node(1 + rng.below(victims.nodes) as u8),
    }
}

fn some(rng: &mut Rng, victims: &Victims) -> Target {
    match rng.below(10) {
        0 => Target::All,
        1 | 2 => Target::Majority(1 + rng.below(victims.nodes) as u8),
        _ => one(rng, victims),
    }
}

fn direction(rng: &mut Rng) -> Direction {
    [Direction::Both, Direction::Both, Direction::In, Direction::Out][rng.below(4) as usize]
}

fn isolation(rng: &mut Rng, victims: &Victims) -> (Action, Span) {
    (Action::Isolate { target: one(rng, victims), direction: direction(rng) }, (200, 8_000))
}

fn shapes(rng: &mut Rng, victims: &Victims) -> (Action, Span) {
    let action = match rng.below(4) {
        0 => Action::Ring,
        1 => Action::Bridge { target: one(rng, victims) },
        _ => {
            let clients = [ClientSide::All, ClientSide::Inside, ClientSide::Outside][rng.below(3) as usize];
            Action::Split { target: some(rng, victims), clients }
        }
    };
    (action, (500, 8_000))
}

fn one_way(rng: &mut Rng, victims: &Victims) -> (Action, Span) {
    let node = one(rng, victims);
    let other = if rng.one_in(3) { Target::Clients } else { some(rng, victims) };
    let (from, to) = if rng.one_in(2) { (node, other) } else { (other, node) };
    (Action::OneWay { from, to }, (300, 6_000))
}

fn flapping(rng: &mut Rng, victims: &Victims) -> (Action, Span) {
    (Action::Flap { target: one(rng, victims), period_ms: 50 + rng.below(1_000) }, (1_000, 6_000))
}

fn swizzle(rng: &mut Rng, _: &Victims) -> (Action, Span) {
    (Action::Swizzle { draw: rng.below(1 << 32) }, (1_500, 8_000))
}

fn slowness(rng: &mut Rng, victims: &Victims) -> (Action, Span) {
    (Action::Slow { target: some(rng, victims), latency_ms: 50 + rng.below(750) }, (1_000, 10_000))
}

fn hold(rng: &mut Rng, victims: &Victims) -> (Action, Span) {
    (Action::Hold { target: some(rng, victims) }, (50, 3_000))
}

fn client_cut(rng: &mut Rng, victims: &Victims) -> (Action, Span) {
    (Action::ClientCut { target: some(rng, victims), direction: direction(rng) }, (500, 8_000))
}

fn rpc(rng: &mut Rng, _: &Victims) -> (Action, Span) {
    (Action::Rpc { fault: RpcFault::draw(rng) }, (500, 8_000))
}

/// Mostly short; now and then so long that the log goes on without the node.
fn outage(rng: &mut Rng) -> Span {
    if rng.one_in(5) { (6_000, 15_000) } else { (1, 5_000) }
}

fn kill(rng: &mut Rng, victims: &Victims) -> (Action, Span) {
    (Action::Kill { target: some(rng, victims) }, outage(rng))
}

fn power(rng: &mut Rng, victims: &Victims) -> (Action, Span) {
    let target = if rng.one_in(4) { Target::All } else { some(rng, victims) };
    (Action::PowerCut { target, while_writing: !rng.one_in(3) }, outage(rng))
}

fn crash_step(rng: &mut Rng, victims: &Victims) -> (Action, Span) {
    // The next few steps, or some within the next roll or checkpoint, or right behind a change of names.
    let (names, step) = match rng.below(4) {
        0 => (0, 1 + rng.below(12)),
        1 => (0, 1 + rng.below(400)),
        _ => (1 + rng.below(6), rng.below(4)),
    };
    // What is behind a change of names is at stake when the power goes.
    let power = rng.one_in(2) || 0 < names;
    (Action::CrashAtStep { target: one(rng, victims), step, names, power }, (2_000, 8_000))
}

fn pause(rng: &mut Rng, victims: &Victims) -> (Action, Span) {
    // Half of the shortest election timeout to five times the longest.
    (Action::Pause { target: one(rng, victims) }, (400, 8_000))
}

fn clock(rng: &mut Rng, victims: &Victims) -> (Action, Span) {
    let sign = if rng.one_in(2) { 1 } else { -1 };
    let fault = match rng.below(6) {
        0 => ClockFault::Frozen,
        1 => ClockFault::Drift { ppm: sign * rng.below(300_000) as i64 },
        2 => ClockFault::Ahead { ms: 50 + rng.below(5_000) },
        // A few milliseconds up to an hour, each power of ten alike.
        _ => {
            let scale = 10_u64.pow(1 + rng.below(7) as u32);
            ClockFault::Jump { ms: sign * (1 + rng.below(scale.min(3_600_000)) as i64) }
        }
    };
    (Action::Clock { target: some(rng, victims), fault }, (500, 20_000))
}

fn replacement(rng: &mut Rng, victims: &Victims) -> (Action, Span) {
    (Action::Replace { target: one(rng, victims), in_two: rng.one_in(2) }, (2_000, 8_000))
}

fn operator(rng: &mut Rng, victims: &Victims) -> (Action, Span) {
    let action = if rng.one_in(3) {
        Action::Backup
    } else {
        Action::Transfer { target: Target::Follower(rng.below(victims.nodes - 1) as u8) }
    };
    (action, (100, 1_000))
}

fn disk(rng: &mut Rng, victims: &Victims) -> (Action, Span) {
    let (fault, stays) = disk_fault(rng);
    let (first, count) = victims.frail;
    let frail = Target::Node(1 + ((first + rng.below(count)) % victims.nodes) as u8);
    let target = match fault {
        _ if stays => frail,
        // Slow disks are no reason for anybody to stop: many may have them.
        DiskFault::Stall { .. } => some(rng, victims),
        _ => one(rng, victims),
    };
    (Action::Disk { target, fault }, (500, 8_000))
}

/// The one place that draws what befalls a disk. Whether the damage stays.
fn disk_fault(rng: &mut Rng) -> (DiskFault, bool) {
    let area = match rng.below(3) {
        0 => Area::Anywhere,
        1 => Area::Log,
        _ => Area::State,
    };
    let fault = match rng.below(12) {
        0 => DiskFault::FailRead { nth: 1 + rng.below(30) },
        1 => DiskFault::FailWrite { nth: 1 + rng.below(60) },
        2 | 3 => DiskFault::FailSync { nth: 1 + rng.below(60) },
        4 => DiskFault::FailSyncDir { nth: 1 + rng.below(6) },
        5 => DiskFault::FailRename { nth: 1 + rng.below(4) },
        6 | 7 => DiskFault::Full { bytes_left: rng.below(64 << 10) },
        8 | 9 => DiskFault::Stall { ms: 10 + rng.below(1_500), area },
        10 => DiskFault::FlipBits { count: 1 + rng.below(8) as u32, seed: rng.next_u64(), area },
        _ if rng.one_in(2) => DiskFault::MisdirectWrite { nth: 1 + rng.below(60), seed: rng.next_u64() },
        _ => DiskFault::LoseSectors { count: 1 + rng.below(4) as u32, seed: rng.next_u64(), area },
    };
    (fault, fault.is_damage())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::plan::ACTIONS;

    #[test]
    fn a_seed_is_always_the_same_plan_and_another_seed_another() {
        assert_eq!(plan(7).to_json(), plan(7).to_json());
        assert_ne!(plan(7).to_json(), plan(8).to_json());
    }

    #[test]
    fn plans_can_be_run_and_keep_to_their_time() {
        for seed in 0..300 {
            let plan = plan(seed);
            Plan::from_json(&plan.to_json()).expect("a plan that can be run");
            assert!(plan.steps.iter().all(|step| step.at_ms + step.for_ms <= plan.faults_ms));
            // At most four at a time.
            for step in &plan.steps {
                let at = |other: &&Step| other.at_ms <= step.at_ms && step.at_ms < other.at_ms + other.for_ms;
                assert!(plan.steps.iter().filter(at).count() <= 4);
            }
        }
    }

    #[test]
    fn the_door_changes_nothing_else_of_a_plan() {
        let (mut with, mut befallen) = (0, 0);
        for seed in 0..100 {
            let mut plan = plan(seed);
            let load = Load::draw(&mut Rng::stream(seed, "plan load"));
            let setup = setup(&mut Rng::stream(seed, "plan setup"));
            let drawn = steps(&setup, &mut Rng::stream(seed, "plan faults"));
            with += u32::from(0 < plan.load.door_one_in);
            let kinds_of = |step: &Step| match &step.action {
                Action::Rpc { fault } => fault.kinds.clone(),
                _ => Vec::new(),
            };
            let only_door = |step: &Step| kinds_of(step) == [RpcKind::Execute];
            let door_steps = plan.steps.iter().filter(|step| only_door(step)).count();
            befallen += door_steps;
            assert!(0 < plan.load.door_one_in || door_steps == 0, "seed {seed}");
            plan.steps.retain(|step| !only_door(step));
            for step in &mut plan.steps {
                if let Action::Rpc { fault } = &mut step.action {
                    fault.kinds.retain(|kind| !DOOR_KINDS.contains(kind));
                }
            }
            plan.load.door_one_in = 0;
            assert_eq!(plan.load, load);
            let words = |steps: &[Step]| serde_json::to_string(steps).expect("plain data");
            assert_eq!(words(&plan.steps), words(&drawn), "seed {seed}");
        }
        assert!((30..70).contains(&with), "{with} of 100 have clients of the door");
        assert!(20 < befallen, "{befallen} faults are about the door alone");
    }

    #[test]
    fn every_kind_of_fault_is_drawn_and_every_seed_leaves_some_out() {
        let kinds = |seed| plan(seed).steps.iter().map(|step| step.action.name()).collect::<BTreeSet<_>>();
        let all: BTreeSet<_> = (0..300).flat_map(kinds).collect();
        assert_eq!(all, ACTIONS.iter().copied().collect());
        assert!((0..300).all(|seed| kinds(seed).len() < all.len()));
        let core = (0..300).filter(|seed| matches!(plan(*seed).heal, Heal::Core { .. })).count();
        assert!((50..150).contains(&core), "{core}");
    }
}
