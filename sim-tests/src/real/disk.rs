//! Disks whose power can be cut, and how much a directory takes of one.
//!
//! A [`Volume`] is an ext4 on a loop device; the file behind that device lies on another ext4, which plays the part of
//! the disk with its write cache: what was written to the device, but not flushed, is in the page cache of that file.
//! [`PowerSwitch`] shuts both down as they are, without writing back their journals or anything else (EXT4_IOC_SHUTDOWN
//! with NOLOGFLUSH). After the next mount all is there that was synced, and of the rest whatever the kernel had written
//! by chance. One file system alone is too kind: sled's `flush`, which hands pages to the device and does not flush
//! that, would be as good as a sync.
//!
//! Sectors are not torn, and ext4 brings new names to the disk with the first sync of anything: these are the simulated
//! disk's part.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Outcome;

/// `_IOR('X', 125, __u32)`, as ext4 names it.
const EXT4_IOC_SHUTDOWN: u32 = 0x8004_587d;
/// Do not even write back the journal.
const NOLOGFLUSH: u32 = 2;
/// The kernel lets go of a file system a moment after the last process that used it has ended.
const UNMOUNT_ATTEMPTS: u32 = 100;

/// Mounted as little forgiving as ext4 can be: it does not sync a file because it is renamed over another or was cut to
/// nothing, and commits its journal only when it is asked to.
const MOUNT_OPTIONS: &str = "loop,noatime,noauto_da_alloc,commit=300";

/// Why power cannot be cut here; `None` if it can.
pub fn missing() -> Option<String> {
    // SAFETY: a plain system call without arguments.
    if unsafe { libc::geteuid() } != 0 {
        return Some("mounting file systems needs root".into());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("there are no loop devices".into());
    }
    let there =
        |tool: &str| ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().any(|path| Path::new(path).join(tool).exists());
    ["mkfs.ext4", "mount", "umount"].iter().find(|tool| !there(tool)).map(|tool| format!("{tool} is not installed"))
}

/// A file system of its own, mounted while this value lives.
pub struct Volume {
    inner: Mount,
    outer: Mount,
}

/// A file system in a file.
struct Mount {
    image: PathBuf,
    directory: PathBuf,
    mounted: bool,
}

/// Cuts the power of a volume. While it lives, the volume cannot be unmounted.
pub struct PowerSwitch {
    inner: File,
    outer: File,
}

impl Volume {
    /// A new and empty file system of `bytes` in `directory`, on the file `<directory>.disk`. Only what is used takes
    /// room.
    pub fn create(directory: &Path, bytes: u64) -> Outcome<Self> {
        let cache = directory.with_extension("cache");
        let outer = Mount::create(directory.with_extension("disk"), cache.clone(), bytes + bytes / 8)?;
        let inner = Mount::create(cache.join("image"), directory.to_owned(), bytes)?;
        // The machine was bought with an empty file system on it.
        sync(inner.directory.as_path())?;
        sync(&cache)?;
        Ok(Self { inner, outer })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.inner.directory
    }

    /// Mounts it.
    pub fn mount(&mut self) -> Outcome<()> {
        self.outer.mount()?;
        self.inner.mount()
    }

    /// The hand on its switch.
    pub fn switch(&self) -> io::Result<PowerSwitch> {
        Ok(PowerSwitch { inner: File::open(&self.inner.directory)?, outer: File::open(&self.outer.directory)? })
    }

    /// Unmounts it, with its loop devices. Nothing may use it any more.
    pub fn unmount(&mut self) -> Outcome<()> {
        self.inner.unmount()?;
        self.outer.unmount()
    }

    /// Copies what is on the disk to `path`, an image to mount, for somebody to look at.
    pub fn copy_to(&self, path: &Path) -> Outcome<()> {
        run(Command::new("cp").arg("--sparse=always").arg(&self.inner.image).arg(path))
    }
}

impl Mount {
    fn create(image: PathBuf, directory: PathBuf, bytes: u64) -> Outcome<Self> {
        File::create_new(&image)?.set_len(bytes)?;
        std::fs::create_dir(&directory)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-N", "4096", "-E", "nodiscard"]).arg(&image))?;
        let mut made = Self { image, directory, mounted: false };
        made.mount()?;
        Ok(made)
    }

    fn mount(&mut self) -> Outcome<()> {
        run(Command::new("mount").args(["-t", "ext4", "-o", MOUNT_OPTIONS]).arg(&self.image).arg(&self.directory))?;
        self.mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Outcome<()> {
        unmount(&self.directory)?;
        self.mounted = false;
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted
            && let Err(error) = unmount(&self.directory)
        {
            eprintln!("{error}");
        }
    }
}

impl PowerSwitch {
    /// From now on nothing reaches the disks any more, and every write fails.
    pub fn cut(switches: &[Self]) -> io::Result<()> {
        switches.iter().try_for_each(|switch| shut_down(&switch.inner))?;
        switches.iter().try_for_each(|switch| shut_down(&switch.outer))
    }
}

fn shut_down(file: &File) -> io::Result<()> {
    // SAFETY: the request reads one u32 through the pointer, which outlives the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), EXT4_IOC_SHUTDOWN as _, &NOLOGFLUSH) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Brings all of a file system to its disk.
fn sync(directory: &Path) -> io::Result<()> {
    let file = File::open(directory)?;
    // SAFETY: a plain system call on an open file.
    if unsafe { libc::syncfs(file.as_raw_fd()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Unmounts whatever is mounted below `path`: left by a run that was killed.
pub(super) fn unmount_below(path: &Path) -> io::Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    // The newest first: one may be on another.
    for directory in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).map(Path::new) {
        if directory.starts_with(path) {
            unmount(directory).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

fn unmount(directory: &Path) -> Outcome<()> {
    let mut attempts = 0;
    loop {
        attempts += 1;
        match run(Command::new("umount").arg(directory)) {
            Err(_) if attempts < UNMOUNT_ATTEMPTS => std::thread::sleep(Duration::from_millis(50)),
            outcome => return outcome,
        }
    }
}

fn run(command: &mut Command) -> Outcome<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let program = command.get_program().to_string_lossy();
    Err(format!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into())
}

/// What the files below `path` take of the disk, in bytes: blocks, not lengths. Files that vanish meanwhile do not count.
pub fn bytes_on_disk(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    visit(path, &mut |metadata| bytes += metadata.blocks() * 512)?;
    Ok(bytes)
}

/// When a file below `path` was last changed, in nanoseconds since the Unix epoch.
pub fn changed_last(path: &Path) -> io::Result<i64> {
    let mut last = 0;
    visit(path, &mut |metadata| last = last.max(metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec()))?;
    Ok(last)
}

fn visit(path: &Path, see: &mut impl FnMut(&std::fs::Metadata)) -> io::Result<()> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => visit(&entry.path(), see)?,
            Ok(metadata) => see(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
