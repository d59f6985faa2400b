//! CPU time of processes, from `/proc`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::Failure;

/// The pids in the `*.pid` files of a directory, by file name.
pub(crate) fn pids_in(dir: &Path) -> Result<Vec<u32>, Failure> {
    let cannot = |problem: String| Failure::Usage(format!("cannot read pids from {}: {problem}", dir.display()));
    let files = fs::read_dir(dir).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut paths: Vec<_> = files.map_err(|error| cannot(error.to_string()))?.iter().map(|file| file.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pid"));
    paths.sort();
    let pid = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).map_err(|error| cannot(error.to_string()))?;
        text.trim().parse().map_err(|_| cannot(format!("{} holds no pid", path.display())))
    };
    paths.iter().map(pid).collect()
}

/// User and system time the process has used; `None` if there is no such process (any more).
pub(crate) fn used(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    ticks(&stat).map(|ticks| Duration::from_secs_f64(ticks as f64 / ticks_per_second()))
}

/// utime + stime, the 14th and 15th field. The second is the program's name in parentheses and may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let utime: u64 = fields.next()?.parse().ok()?;
    let stime: u64 = fields.next()?.parse().ok()?;
    Some(utime + stime)
}

fn ticks_per_second() -> f64 {
    // SAFETY: sysconf only returns a number.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    if 0 < ticks { ticks as f64 } else { 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines_with_odd_names_are_read() {
        assert_eq!(ticks("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0"), Some(300));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert!(used(std::process::id()).is_some());
    }

    #[test]
    fn pid_files_are_read_in_order() {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in [("node-2.pid", "22\n"), ("node-1.pid", "11"), ("other", "x")] {
            fs::write(dir.path().join(name), text).expect("written");
        }
        assert_eq!(pids_in(dir.path()).expect("read"), [11, 22]);
    }
}
