//! How the driver lets time pass, and what is looked at after every step.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use millstream_client::NodeRole;

use super::{Cluster, FRESH, Failure, Life, WRITING_SOON, failure, host, panics};
use crate::invariants::{NodeView, TickView};
use crate::net::Between;

/// How often conditions are looked at, in milliseconds. A multiple of any tick in use.
const LOOK_MS: u128 = 50;

impl Cluster {
    /// Announces what comes next.
    pub fn phase(&self, what: &str) {
        self.trace.line("phase", format_args!("{what}"));
        tracing::info!("{what}");
    }

    /// One step.
    pub fn step(&mut self) -> Result<(), Failure> {
        match catch_unwind(AssertUnwindSafe(|| self.sim.step())) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(failure("no host fails", error)),
            Err(_) => return Err(failure("nothing panics", panics::first())),
        }
        self.time.set(self.sim.elapsed());
        self.check_invariants()?;
        self.look()
    }

    /// What is looked at after every step.
    pub(super) fn look(&mut self) -> Result<(), Failure> {
        let now = self.elapsed();
        if let Some(violation) = self.witness.violation() {
            return Err(failure(violation.property, violation.problem));
        }
        for (name, words) in self.stops.take() {
            let Some(node) = self.nodes.iter().find(|node| node.name == name) else { continue };
            // A process that is dying anyway may say anything.
            let is_excused = now < node.excused_until || node.disk.has_crashed() || node.life != Life::Runs;
            if !is_excused {
                return Err(failure("no node stops without a reason", format!("{name} {words}")));
            }
            self.trace.line("nemesis", format_args!("{name} {words}"));
            tracing::info!("{name} {words}");
            self.stopped.push((name, words));
        }
        if !self.is_time_to_look() {
            return Ok(());
        }
        let all_is_well = self.told.values().all(|between| *between == Between::default())
            && self.nodes.iter().all(|node| !node.is_member || node.life == Life::Runs);
        for node in &mut self.nodes {
            let Some(status) = self.observer.status(&node.endpoint, now.saturating_sub(FRESH)) else { continue };
            if status.role() == NodeRole::Leader && node.led_term < status.term {
                node.led_term = status.term;
                self.marks.mark("leader_elected");
                if !all_is_well {
                    self.marks.mark("leader_elected_under_fault");
                }
            }
        }
        Ok(())
    }

    pub(super) fn check_invariants(&mut self) -> Result<(), Failure> {
        let directory = host::data_dir();
        let nodes = self.nodes.iter().map(|node| NodeView { id: node.id, disk: &node.disk, directory: &directory });
        let (nodes, events) = (nodes.collect::<Vec<_>>(), self.events.take());
        let view = TickView { at: self.time.elapsed(), nodes: &nodes, events: &events };
        self.invariants.check(&view).map_err(|violation| failure(violation.invariant, violation.problem))
    }

    /// Steps for this long.
    pub fn run_for(&mut self, duration: Duration) -> Result<(), Failure> {
        let end = self.elapsed() + duration;
        while self.elapsed() < end {
            self.step()?;
        }
        Ok(())
    }

    /// Steps until `condition` holds. `what` is demanded within `limit`.
    pub fn run_until(
        &mut self,
        what: &'static str,
        limit: Duration,
        condition: impl Fn(&Self) -> bool,
    ) -> Result<(), Failure> {
        let end = self.elapsed() + limit;
        while !(self.is_time_to_look() && condition(self)) {
            if end <= self.elapsed() {
                return Err(failure(what, format!("not within {limit:?}; {}", self.describe())));
            }
            self.step()?;
        }
        Ok(())
    }

    /// Steps until at least `count` of these nodes are writing to their disks, which is when a power cut can do harm. Goes
    /// on without if that moment does not come soon.
    pub fn run_until_writing(&mut self, nodes: &[String], count: usize) -> Result<(), Failure> {
        let end = self.elapsed() + WRITING_SOON;
        while self.elapsed() < end && nodes.iter().filter(|node| self.disk(node).is_writing()).count() < count {
            self.step()?;
        }
        Ok(())
    }

    /// Conditions are looked at now and then: it costs time, and what they look at is not newer than the nodes' last
    /// word about themselves.
    pub fn is_time_to_look(&self) -> bool {
        let ms = self.elapsed().as_millis();
        ms.is_multiple_of(LOOK_MS)
    }
}
