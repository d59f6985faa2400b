//! Makes a failing plan smaller, as long as it fails by the same check.
//!
//! Steps are taken out, many at first and then one by one; what is left is shortened; then the setup, the load and the
//! end of the run become the simplest. Every attempt is a run in a process of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use millstream_sim_tests::plan::{Heal, Plan, SetupPlan};
use millstream_sim_tests::workload::Load;

use super::child::Task;
use super::regressions;

/// Tries plans.
struct Attempts {
    directory: PathBuf,
    check: String,
    left: u32,
}

impl Attempts {
    /// The check by which a plan fails, `None` if it does not.
    fn failed_check(directory: &Path, plan: &Plan) -> io::Result<Option<String>> {
        let path = directory.join("attempt.json");
        std::fs::write(&path, plan.to_json())?;
        Ok(match Task::plan(&path).report()? {
            Ok(report) => report.problems.into_iter().next().map(|problem| problem.check),
            Err(_) => Some("the process survives".into()),
        })
    }

    /// Takes over `smaller` if it still fails alike.
    fn improve(&mut self, plan: &mut Plan, what: &str, smaller: Plan) -> io::Result<bool> {
        if self.left == 0 || smaller.to_json() == plan.to_json() {
            return Ok(false);
        }
        self.left -= 1;
        let fails = Self::failed_check(&self.directory, &smaller)?.is_some_and(|check| check == self.check);
        println!("{}: {what}; {} steps", if fails { "still fails" } else { "passes" }, smaller.steps.len());
        if fails {
            *plan = smaller;
        }
        Ok(fails)
    }
}

/// Shrinks `plan` within so many runs and keeps it in `directory`.
pub(crate) fn shrink(mut plan: Plan, runs: u32, directory: &Path) -> io::Result<ExitCode> {
    let scratch = std::env::temp_dir().join(format!("millstream-shrink-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    let Some(check) = Attempts::failed_check(&scratch, &plan)? else {
        println!("this plan does not fail");
        return Ok(ExitCode::FAILURE);
    };
    println!("fails: {check}; {} steps", plan.steps.len());
    let mut attempts = Attempts { directory: scratch.clone(), check: check.clone(), left: runs };
    fewer_steps(&mut attempts, &mut plan)?;
    simpler(&mut attempts, &mut plan)?;
    shorter(&mut attempts, &mut plan)?;
    fewer_steps(&mut attempts, &mut plan)?;
    std::fs::remove_dir_all(&scratch)?;
    let path = regressions::keep(directory, &check, &plan)?;
    println!("{} steps are left; kept as {}", plan.steps.len(), path.display());
    println!("to repeat: {}", Task::plan(&path).command_line());
    Ok(ExitCode::SUCCESS)
}

fn fewer_steps(attempts: &mut Attempts, plan: &mut Plan) -> io::Result<()> {
    let mut size = plan.steps.len().div_ceil(2);
    while 0 < size {
        let mut at = 0;
        while at < plan.steps.len() {
            let end = (at + size).min(plan.steps.len());
            let mut smaller = plan.clone();
            smaller.steps.drain(at..end);
            if !attempts.improve(plan, &format!("without steps {at} to {}", end - 1), smaller)? {
                at = end;
            }
        }
        size /= 2;
    }
    Ok(())
}

fn simpler(attempts: &mut Attempts, plan: &mut Plan) -> io::Result<()> {
    let end_ms = plan.steps.iter().map(|step| step.at_ms + step.for_ms).max().unwrap_or(0);
    let smaller = Plan { faults_ms: end_ms.min(plan.faults_ms), ..plan.clone() };
    attempts.improve(plan, "no time after the last step", smaller)?;
    let smaller = Plan { heal: Heal::All, ..plan.clone() };
    attempts.improve(plan, "all is mended at once", smaller)?;
    let smaller = Plan { load: Load::default(), ..plan.clone() };
    attempts.improve(plan, "the default load", smaller)?;
    // The steps name machines.
    let SetupPlan { nodes, spares, .. } = plan.setup;
    let smaller = Plan { setup: SetupPlan { nodes, spares, ..SetupPlan::default() }, ..plan.clone() };
    attempts.improve(plan, "the default setup", smaller)?;
    let smaller = Plan { setup: SetupPlan { nodes: 3, ..plan.setup.clone() }, ..plan.clone() };
    attempts.improve(plan, "three nodes", smaller).map(drop)
}

fn shorter(attempts: &mut Attempts, plan: &mut Plan) -> io::Result<()> {
    for index in 0..plan.steps.len() {
        for _ in 0..3 {
            let mut smaller = plan.clone();
            let Some(step) = smaller.steps.get_mut(index) else { break };
            step.for_ms /= 2;
            if !attempts.improve(plan, &format!("step {index} lasts half as long"), smaller)? {
                break;
            }
        }
    }
    // What happens earlier takes less time to repeat.
    let first_ms = plan.steps.iter().map(|step| step.at_ms).min().unwrap_or(0);
    let mut smaller = plan.clone();
    smaller.steps.iter_mut().for_each(|step| step.at_ms -= first_ms);
    smaller.faults_ms = smaller.faults_ms.saturating_sub(first_ms);
    attempts.improve(plan, "earlier", smaller).map(drop)
}
