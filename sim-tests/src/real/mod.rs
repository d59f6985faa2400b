//! Real nodes: processes, files and time as they are.
//!
//! What the simulation cannot show is shown here: that the server keeps its promises on this kernel and this file
//! system, and within which memory, disk and time. Nothing of it is deterministic but the choices, which come from a
//! seed. [`node`] runs processes, [`disk`] gives each a file system of its own whose power can be cut; the binaries
//! `power` and `bounds` are made of these.
//!
//! Whatever happens, nothing is left behind: processes and mounts go with the values that hold them, also in a panic
//! and, through [`until_interrupted`], on Ctrl-C. If the program itself is killed, the kernel ends the nodes, and the
//! next run removes the mounts.

use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

pub mod disk;
pub mod node;

/// What goes wrong here is told to a person, and ends the run.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Between two looks at something that is waited for.
pub const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A directory of this run, removed with all that is in it.
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new directory `<name>-<process id>` in `parent`, after the left-overs of runs that were killed were removed.
    pub fn create(parent: &Path, name: &str) -> io::Result<Self> {
        std::fs::create_dir_all(parent)?;
        remove_left_overs(parent, name)?;
        let path = parent.join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves it behind, for somebody to look at.
    pub fn keep(self) -> PathBuf {
        let path = self.0.clone();
        std::mem::forget(self);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} could not be removed: {error}", self.0.display());
        }
    }
}

fn remove_left_overs(parent: &Path, name: &str) -> io::Result<()> {
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        let left =
            entry.file_name().to_str().and_then(|found| found.strip_prefix(name)?.strip_prefix('-')?.parse().ok());
        let Some(pid) = left else { continue };
        let pid: u32 = pid;
        if pid != std::process::id() && !Path::new(&format!("/proc/{pid}")).exists() {
            disk::unmount_below(&entry.path())?;
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// An address of node `id` that no other program uses: a loopback address drawn from this process's id. Ports of
/// 127.0.0.1 would not do: while a node is down, an outgoing connection may be given its port.
pub fn loopback(id: u64) -> Ipv4Addr {
    let pid = std::process::id();
    Ipv4Addr::new(127, 64 + (pid >> 8) as u8 % 128, pid as u8, id as u8)
}

/// Runs `work` until it ends or somebody wants it to: on an interrupt or a request to terminate it is dropped, with the
/// processes and mounts that it holds.
pub async fn until_interrupted<T>(work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        outcome = work => outcome,
        _ = terminate.recv() => Err("asked to terminate".into()),
        _ = interrupt.recv() => Err("interrupted".into()),
    }
}

/// Looks until something is found, for at most `patience`.
pub async fn wait_for<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Outcome<Option<T>>,
) -> Outcome<T> {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if patience < start.elapsed() {
            return Err(format!("{what} did not come within {} s", patience.as_secs()).into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
