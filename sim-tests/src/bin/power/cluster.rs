//! Three nodes, each on a file system of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream_sim_tests::entropy::Rng;
use millstream_sim_tests::real::disk::{PowerSwitch, Volume, changed_last};
use millstream_sim_tests::real::node::{NodeProcess, NodeSpec};
use millstream_sim_tests::real::{Outcome, Scratch, loopback};

/// The size of a node's disk, in bytes. The image is sparse.
const VOLUME_BYTES: u64 = 2 << 30;
/// Next to no log behind a checkpoint, so that what it loses is lost; small segments, so that the log rolls and is purged
/// all the time.
const ARGUMENTS: [&str; 4] = ["--log-entries-kept", "20", "--log-segment-bytes", "2097152"];
/// Commands between checkpoints: from small ones as often as the node looks (250 ms) to large ones.
const CHECKPOINT_ENTRIES: [u64; 3] = [50, 500, 3_000];

/// A machine: a node and its disk.
pub(crate) struct Machine {
    // Dropped before its disk: while it runs, the disk cannot be unmounted.
    node: Option<NodeProcess>,
    spec: NodeSpec,
    volume: Volume,
}

/// Three machines.
pub(crate) struct Cluster {
    pub(crate) machines: Vec<Machine>,
    // Dropped last.
    scratch: Scratch,
}

impl Cluster {
    /// Three machines that are off.
    pub(crate) fn create(program: &Path, engine: &str, parent: &Path) -> Outcome<Self> {
        let scratch = Scratch::create(parent, "millstream-power")?;
        let members: Vec<_> = (1..=3).map(|id| (id, loopback(id))).collect();
        let mut machines = Vec::new();
        for (id, address) in members.clone() {
            let volume = Volume::create(&scratch.path().join(format!("disk-{id}")), VOLUME_BYTES)?;
            let spec = NodeSpec {
                program: program.to_owned(),
                id,
                address,
                data_dir: volume.path().join("data"),
                members: members.clone(),
                engine: engine.to_owned(),
                arguments: ARGUMENTS.map(str::to_owned).to_vec(),
                log: scratch.path().join(format!("node-{id}.log")),
            };
            machines.push(Machine { node: None, spec, volume });
        }
        Ok(Self { machines, scratch })
    }

    /// Where clients reach the nodes, in the order of their ids.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.machines.iter().map(|machine| machine.spec.endpoint()).collect()
    }

    /// Starts these nodes, with checkpoints of a size that chance decides.
    pub(crate) fn start(&mut self, which: &[usize], rng: &mut Rng) -> Outcome<()> {
        for at in which {
            let machine = &mut self.machines[*at];
            let mut spec = machine.spec.clone();
            let entries = CHECKPOINT_ENTRIES[rng.below(CHECKPOINT_ENTRIES.len() as u64) as usize];
            spec.arguments.extend(["--checkpoint-entries".to_owned(), entries.to_string()]);
            machine.node = Some(spec.start()?);
        }
        Ok(())
    }

    /// An error if a node that was started has ended.
    pub(crate) fn check(&mut self) -> Outcome<()> {
        self.machines.iter_mut().filter_map(|machine| machine.node.as_mut()).try_for_each(NodeProcess::check)
    }

    /// Returns as soon as the files of a node's state change: a checkpoint is being written. Gives up after `patience`.
    pub(crate) async fn checkpoint_begins(&self, at: usize, patience: Duration) -> Outcome<bool> {
        let state = self.machines[at].spec.data_dir.join("state");
        let before = changed_last(&state)?;
        let start = std::time::Instant::now();
        while start.elapsed() < patience {
            if changed_last(&state)? != before {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(false)
    }

    /// Cuts the power of `cut` and kills the processes of `kill`, at one instant. Returns when all of them are dead and
    /// the power is back.
    pub(crate) fn strike(&mut self, cut: &[usize], kill: &[usize]) -> Outcome<()> {
        let switches =
            cut.iter().map(|at| self.machines[*at].volume.switch()).collect::<Result<Vec<PowerSwitch>, _>>()?;
        PowerSwitch::cut(&switches)?;
        for at in cut.iter().chain(kill) {
            if let Some(node) = &mut self.machines[*at].node {
                node.strike()?;
            }
        }
        drop(switches);
        for at in cut.iter().chain(kill) {
            if let Some(mut node) = self.machines[*at].node.take() {
                node.kill()?;
            }
        }
        for at in cut {
            self.machines[*at].volume.unmount()?;
            self.machines[*at].volume.mount()?;
        }
        Ok(())
    }

    /// The ends of the nodes' logs.
    pub(crate) fn logs(&self) -> Vec<String> {
        let logs = self.machines.iter().filter_map(|machine| machine.node.as_ref());
        logs.map(|node| format!("node {}:\n{}", node.spec().id, node.log_tail())).collect()
    }

    /// Kills all nodes and copies disks and logs to `directory`.
    pub(crate) fn keep(&mut self, directory: &Path) -> Outcome<PathBuf> {
        std::fs::create_dir_all(directory)?;
        for machine in &mut self.machines {
            machine.node = None;
            machine.volume.copy_to(&directory.join(format!("disk-{}.ext4", machine.spec.id)))?;
            std::fs::copy(&machine.spec.log, directory.join(format!("node-{}.log", machine.spec.id)))?;
        }
        debug_assert!(self.scratch.path().exists());
        Ok(directory.to_owned())
    }
}
