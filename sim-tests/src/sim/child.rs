//! Simulations in processes of their own.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;

use millstream_sim_tests::run::Report;

/// What a process is told to simulate, as arguments.
#[derive(Debug, Clone)]
pub(crate) struct Task(Vec<String>);

impl Task {
    /// A seed.
    pub(crate) fn seed(seed: u64, tick_ms: Option<u64>) -> Self {
        let tick = tick_ms.map(|tick| ["--tick-ms".to_owned(), tick.to_string()]);
        Self(["run".into(), "--seed".into(), seed.to_string()].into_iter().chain(tick.into_iter().flatten()).collect())
    }

    /// A scenario.
    pub(crate) fn scenario(name: &str, seed: u64) -> Self {
        Self(vec!["run".into(), "--scenario".into(), name.into(), "--seed".into(), seed.to_string()])
    }

    /// A plan in a file.
    pub(crate) fn plan(path: &Path) -> Self {
        Self(vec!["replay".into(), path.display().to_string()])
    }

    /// The same without the shim.
    pub(crate) fn without_shim(mut self) -> Self {
        self.0.push("--without-shim".into());
        self
    }

    /// As a person would type it.
    pub(crate) fn command_line(&self) -> String {
        format!("sim {}", self.0.join(" "))
    }

    /// A process for it, not started yet.
    pub(crate) fn command(&self) -> io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(&self.0).arg("--json").stdout(Stdio::piped());
        Ok(command)
    }

    /// Runs it. A process that ends otherwise than by a report is an error that says how.
    pub(crate) fn report(&self) -> io::Result<Result<Report, String>> {
        report_of(self.command()?.stderr(Stdio::piped()).spawn()?)
    }
}

/// Waits for a process and reads its report.
pub(crate) fn report_of(child: Child) -> io::Result<Result<Report, String>> {
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(Ok(serde_json::from_slice(&output.stdout)?));
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let first: Vec<_> = words.lines().take(6).collect();
    Ok(Err(format!("ended with {}: {}", output.status, first.join(" | "))))
}

/// Does `work` on each item in `jobs` threads. Stops early on an error of the system.
pub(crate) fn in_parallel<T: Send>(
    items: impl Iterator<Item = T> + Send,
    jobs: usize,
    work: impl Fn(T) -> io::Result<()> + Sync,
) -> io::Result<()> {
    let items = Mutex::new(items);
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    std::thread::scope(|scope| {
        let worker = || {
            while let Some(item) = next() {
                work(item)?;
            }
            Ok(())
        };
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        let ends =
            workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| Err(io::Error::other("panicked"))));
        ends.collect::<Vec<_>>().into_iter().collect()
    })
}

/// CPU time of the processes that were waited for, in seconds.
pub(crate) fn cpu_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is valid for a write of that type.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) } != 0 {
        return 0.0;
    }
    // SAFETY: the call succeeded, so it has written all of it.
    let usage = unsafe { usage.assume_init() };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
