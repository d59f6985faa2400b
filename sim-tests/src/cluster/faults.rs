//! What the driver breaks and mends: links, lives, clocks, disks, and which machines have a node.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::time::Duration;

use turmoil::Sim;

use super::{CLIENTS, Cluster, Failure, Life, OBSERVER, failure, host, panics};
use crate::clock::NodeClock;
use crate::disk::Disk;
use crate::net::Links;
use crate::rpc::RpcFaults;

impl Cluster {
    /// Starts a node on this machine that waits until it is added to the cluster. If one ran there before, its disk is
    /// replaced by an empty one, and it has another id now.
    pub fn join(&mut self, node: &str, id: u64) -> Result<(), Failure> {
        self.nemesis(format_args!("{node} starts with an empty disk as node {id} and waits to be added"));
        self.set_lives(&BTreeMap::from([(node.to_owned(), Life::Dead)]))?;
        let machine = self.node_mut(node);
        if machine.disk.life() != 0 {
            machine.disk.replace();
            host::prepare(&machine.disk).map_err(|error| failure("a disk can be prepared", error))?;
        }
        machine.id = id;
        machine.is_member = true;
        machine.excused_until = Duration::ZERO;
        let mut config = machine.config.lock().unwrap_or_else(PoisonError::into_inner);
        config.node_id = id;
        config.initial_members.clear();
        drop(config);
        self.set_lives(&BTreeMap::from([(node.to_owned(), Life::Runs)]))
    }

    /// From now on nothing is expected of this machine, whether a node runs there or not.
    pub fn leave(&mut self, node: &str) {
        self.node_mut(node).is_member = false;
    }

    /// What befalls the calls between nodes.
    pub fn rpc(&self) -> &RpcFaults {
        &self.rpc
    }

    /// Says what is wrong with the links, instead of what was.
    pub fn set_links(&mut self, links: Links) {
        self.faults.set_links(links);
        self.apply_links();
    }

    /// Says who lives; all at one instant. A node that is not named goes on as it is.
    pub fn set_lives(&mut self, lives: &BTreeMap<String, Life>) -> Result<(), Failure> {
        let changed: Vec<_> = lives.iter().filter(|(name, life)| self.node(name).life != **life).collect();
        for (name, life) in &changed {
            self.nemesis(format_args!("{name} from now on: {life:?}"));
            self.faults.set_power(name, **life != Life::Dark);
            // Without power nobody refuses; whoever starts, refuses until it listens.
            self.faults.set_running(name, **life == Life::Runs);
        }
        // Before the crash: a machine without power does not close its connections.
        self.apply_links();
        for (name, life) in changed {
            let node = self.node_mut(name);
            let before = std::mem::replace(&mut node.life, *life);
            match life {
                Life::Runs => self.guarded(|sim| sim.bounce(name.as_str()))?,
                Life::Dead if before == Life::Dark => {}
                Life::Dead => {
                    node.disk.kill_process();
                    self.end_process(name)?;
                }
                Life::Dark => {
                    node.disk.power_loss();
                    self.end_process(name)?;
                }
            }
        }
        Ok(())
    }

    /// Whether this node lives.
    pub fn life(&self, node: &str) -> Life {
        self.node(node).life
    }

    /// Until `until`, an injected fault explains that this node ends by itself. [`Duration::MAX`]: for ever, and it may
    /// not come back.
    pub fn expect_stop(&mut self, node: &str, until: Duration) {
        let node = self.node_mut(node);
        node.excused_until = node.excused_until.max(until);
    }

    /// Whether what was injected has damaged this node's disk for good, so that it may never come back.
    pub fn is_damaged(&self, node: &str) -> bool {
        self.node(node).excused_until == Duration::MAX
    }

    /// The nodes that have ended by themselves since this was last asked, with their words.
    pub fn take_stopped(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.stopped)
    }

    /// This node's timers and monotonic clock are at once so much later.
    pub fn leap(&mut self, node: &str, by: Duration) {
        let node = self.node(node);
        if node.life == Life::Runs {
            node.timers.leap(by);
        }
    }

    /// A node's clock, to be put wrong.
    pub fn clock(&mut self, node: &str) -> &NodeClock {
        self.clocks_agree = false;
        &self.node(node).clock
    }

    /// A node's disk.
    pub fn disk(&self, node: &str) -> &Disk {
        &self.node(node).disk
    }

    /// Notes what the nemesis does.
    pub fn nemesis(&mut self, action: fmt::Arguments<'_>) {
        self.faults_at.push(self.elapsed());
        self.trace.line("nemesis", action);
        tracing::info!("{action}");
    }

    pub(super) fn end_process(&mut self, name: &str) -> Result<(), Failure> {
        self.guarded(|sim| sim.crash(name))?;
        // What destructors complained of would not have happened: a process that ends so has none.
        self.stops.forget(name);
        Ok(())
    }

    pub(super) fn guarded(&mut self, action: impl FnOnce(&mut Sim<'static>)) -> Result<(), Failure> {
        catch_unwind(AssertUnwindSafe(|| action(&mut self.sim))).map_err(|_| failure("nothing panics", panics::first()))
    }

    /// Tells turmoil what is wrong with each pair of hosts, in a fixed order.
    ///
    /// turmoil's faults are not independent: a release heals what was cut, and repairing what is held leaves it stuck
    /// for ever. So a pair that changes is released first, and then gets all that is wrong with it.
    pub(super) fn apply_links(&mut self) {
        let hosts: Vec<_> = self.machines().into_iter().chain([CLIENTS.into(), OBSERVER.into()]).collect();
        for (index, a) in hosts.iter().enumerate() {
            for b in hosts.iter().skip(index + 1) {
                let (key, between) = ((a.clone(), b.clone()), self.faults.between(a, b));
                let told = self.told.get(&key).cloned().unwrap_or_default();
                if told == between {
                    continue;
                }
                if told.slow != between.slow {
                    let latency_max = between.slow.unwrap_or(self.latency_max).max(self.latency_max);
                    self.sim.set_link_max_message_latency(a.as_str(), b.as_str(), latency_max);
                }
                self.sim.release(a.as_str(), b.as_str());
                if between.held {
                    self.sim.hold(a.as_str(), b.as_str());
                }
                if between.cut_there {
                    self.sim.partition_oneway(a.as_str(), b.as_str());
                }
                if between.cut_back {
                    self.sim.partition_oneway(b.as_str(), a.as_str());
                }
                self.told.insert(key, between);
            }
        }
    }
}
