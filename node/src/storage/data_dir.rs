//! The data directory: whose it is, and that only one process uses it.
//!
//! A node's promises are in its directory. Started on another node's, or on an old copy under the same id, it would
//! break them; so the directory says whom it belongs to, and every way to get it wrong has a message of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::world::{Fs, World};

const IDENTITY: &str = "identity";
const LOCK: &str = "lock";
const WAL: &str = "wal";
const STATE: &str = "state";
const SPOOL: &str = "spool";
/// A restored node in the making, in the directory it is for.
const RESTORING: &str = ".restoring";
/// Version of the layout of the directory. The number is on disk.
const FORMAT: u32 = 1;

/// Whose directory it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The node's id.
    pub node_id: u64,
    /// A random number drawn when the directory was created. Tells a node from a namesake that has lost its data.
    pub incarnation: u64,
    /// The cluster the node belongs to. `None` until it has joined one.
    pub cluster_id: Option<String>,
    /// Whether the node has begun its log. Then there must be one.
    pub has_log: bool,
}

/// Why a data directory cannot be used. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process holds the lock.
    #[error(
        "the data directory {} is in use by another process: stop that one, or give this node a directory of its own",
        path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory is another node's.
    #[error(
        "the data directory {} belongs to node {found}, not to node {wanted}: start with node id {found}, or give node \
         {wanted} a directory of its own",
        path.display()
    )]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: u64,
        /// Who wants to use it.
        wanted: u64,
    },
    /// The directory is that of a member of another cluster.
    #[error(
        "the data directory {} belongs to cluster {found}, but the node was asked to join cluster {wanted}: check the \
         peer addresses, or start with an empty directory and a new node id",
        path.display()
    )]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// The cluster it belongs to.
        found: String,
        /// The cluster that was to be joined.
        wanted: String,
    },
    /// The directory holds something, but no identity.
    #[error(
        "{} is not empty and holds no identity file, so it is not a data directory of Millstream: give the node an \
         empty directory",
        path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds nothing of a node.
    #[error(
        "{} is not a data directory of Millstream: it holds neither an identity nor a log nor a state; name the \
         directory that the node was started with",
        path.display()
    )]
    NotOne {
        /// The directory.
        path: PathBuf,
    },
    /// The identity cannot be understood.
    #[error(
        "the identity file {} is damaged or from a newer version ({reason}): restore that file, or start with an empty \
         directory and a new node id",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The operating system says so.
    #[error("the data directory cannot be used because of {}: {source}; check that it is there and writable", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What failed.
        source: io::Error,
    },
}

/// An open data directory. Holds its lock.
pub struct DataDir {
    world: World,
    path: PathBuf,
    is_new: bool,
    /// A std lock: taken for a copy, and while the file is replaced, once in a directory's life.
    identity: Mutex<Identity>,
    _lock: Box<dyn Send + Sync>,
}

/// Whether a directory without an identity that holds this is still as good as empty: it was left before the identity was
/// written.
fn is_nothing(name: &str) -> bool {
    name == LOCK || name == RESTORING || name.strip_suffix(".new") == Some(IDENTITY) || name == "lost+found"
}

/// Creates a directory and those above it, and makes their names durable: also if it exists, since whoever made it may
/// have died before it could do so.
fn create_durably(fs: &dyn Fs, path: &Path) -> Result<(), DataDirError> {
    // A relative name of one part has an empty parent.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let existed = fs.exists(path).map_err(io_error(path))?;
    if !existed {
        if let Some(parent) = parent
            && !fs.exists(parent).map_err(io_error(parent))?
        {
            create_durably(fs, parent)?;
        }
        fs.create_dir_all(path).map_err(io_error(path))?;
    }
    let Some(parent) = parent else { return Ok(()) };
    match fs.sync_dir(parent) {
        // Made by somebody with more rights (a service manager); its name is theirs to look after.
        Err(error) if existed && error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced.map_err(io_error(parent)),
    }
}

impl DataDir {
    /// Opens the data directory of node `node_id`, creating it if it is absent or empty. Blocks on files.
    pub fn open(world: &World, path: &Path, node_id: u64) -> Result<Self, DataDirError> {
        let fs = &*world.fs;
        let io = io_error(path);
        let identity_path = path.join(IDENTITY);
        if !fs.exists(&identity_path).map_err(&io)? {
            create_durably(fs, path)?;
        }
        let names = fs.list(path).map_err(&io)?;
        let is_new = !names.iter().any(|name| name == IDENTITY);
        if is_new && !names.iter().all(|name| is_nothing(name)) {
            return Err(DataDirError::Foreign { path: path.to_owned() });
        }
        let lock = lock(fs, path)?;
        if is_new && names.iter().any(|name| name == RESTORING) {
            let left = path.join(RESTORING);
            fs.remove_dir_all(&left).map_err(io_error(&left))?;
        }

        let identity = if is_new {
            let identity = Identity { node_id, incarnation: world.random.next_u64(), cluster_id: None, has_log: false };
            write(world, &identity_path, &identity)?;
            identity
        } else {
            let content = fs.read_durably(&identity_path).map_err(io_error(&identity_path))?;
            parse(&content).map_err(|reason| DataDirError::Damaged { path: identity_path, reason })?
        };
        if identity.node_id != node_id {
            return Err(DataDirError::OtherNode { path: path.to_owned(), found: identity.node_id, wanted: node_id });
        }
        let (world, path) = (world.clone(), path.to_owned());
        Ok(Self { world, path, is_new, identity: Mutex::new(identity), _lock: lock })
    }

    /// Whose directory it is.
    pub fn identity(&self) -> Identity {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the directory was created by this open.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Records the cluster the node belongs to, durably. Refused if it belongs to another one.
    pub fn set_cluster_id(&self, cluster_id: &str) -> Result<(), DataDirError> {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        match &identity.cluster_id {
            Some(found) if found == cluster_id => Ok(()),
            Some(found) => Err(DataDirError::OtherCluster {
                path: self.path.clone(),
                found: found.clone(),
                wanted: cluster_id.to_owned(),
            }),
            None => {
                let joined = Identity { cluster_id: Some(cluster_id.to_owned()), ..identity.clone() };
                write(&self.world, &self.path.join(IDENTITY), &joined)?;
                *identity = joined;
                Ok(())
            }
        }
    }

    /// Records that the node has begun its log, durably: from now on there must be one. Call it when the log has opened
    /// and before anything is promised.
    pub fn set_has_log(&self) -> Result<(), DataDirError> {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        if !identity.has_log {
            let begun = Identity { has_log: true, ..identity.clone() };
            write(&self.world, &self.path.join(IDENTITY), &begun)?;
            *identity = begun;
        }
        Ok(())
    }

    /// Where the log is.
    pub fn wal_path(&self) -> PathBuf {
        self.path.join(WAL)
    }

    /// Where the state is.
    pub fn state_path(&self) -> PathBuf {
        self.path.join(STATE)
    }

    /// Where snapshots are kept while they are sent or received.
    pub fn spool_path(&self) -> PathBuf {
        self.path.join(SPOOL)
    }
}

/// The data directory of a restored node in the making. It becomes one at the end: by one rename if there was nothing in
/// its place. An empty directory there may be a mount point, which cannot be replaced; so it is filled, the identity last.
/// Whatever a crash leaves is no node's, and can be restored to again.
pub struct Restoring {
    world: World,
    target: PathBuf,
    made: PathBuf,
    /// Held if the target was there before.
    lock: Option<Box<dyn Send + Sync>>,
}

impl Restoring {
    /// Whether a node can be restored to a directory: it is absent, as good as empty, or left by a restore that was cut
    /// short. Changes nothing. Blocks on files.
    pub fn is_possible(world: &World, target: &Path) -> Result<bool, DataDirError> {
        if !world.fs.exists(target).map_err(io_error(target))? {
            return Ok(true);
        }
        let names = world.fs.list(target).map_err(io_error(target))?;
        let has = |name: &str| names.iter().any(|found| found == name);
        let is_left = |name: &String| has(RESTORING) && [WAL, STATE, SPOOL].contains(&name.as_str());
        Ok(!has(IDENTITY) && names.iter().all(|name| is_nothing(name) || is_left(name)))
    }

    /// Begins to restore to a directory. `None` if that [is not possible](Self::is_possible). Blocks on files.
    pub fn begin(world: &World, target: &Path) -> Result<Option<Self>, DataDirError> {
        let fs = &*world.fs;
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(RESTORING);
        let beside = target.with_file_name(name);
        let within = target.join(RESTORING);
        let is_there = fs.exists(target).map_err(io_error(target))?;
        let lock = if is_there { Some(lock(fs, target)?) } else { None };
        // Not before it is locked: what is removed below must be nobody's.
        if !Self::is_possible(world, target)? {
            return Ok(None);
        }
        // The one that says that the others are leftovers goes last.
        let left = [target.join(WAL), target.join(STATE), target.join(SPOOL), beside.clone(), within.clone()];
        for left in left {
            if fs.exists(&left).map_err(io_error(&left))? {
                fs.remove_dir_all(&left).map_err(io_error(&left))?;
            }
        }
        let made = if is_there { within } else { beside };
        Ok(Some(Self { world: world.clone(), target: target.to_owned(), made, lock }))
    }

    /// Where to make it. To be closed before [`finish`](Self::finish).
    pub fn path(&self) -> &Path {
        &self.made
    }

    /// Puts it in its place, durably. Blocks on files.
    pub fn finish(self) -> Result<(), DataDirError> {
        let Self { world, target, made, lock } = &self;
        let fs = &*world.fs;
        let sync = |path: &Path| fs.sync_dir(path).map_err(io_error(path));
        if lock.is_none() {
            fs.rename(made, target).map_err(io_error(target))?;
            return sync(target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")));
        }
        for name in fs.list(made).map_err(io_error(made))? {
            if name != IDENTITY && name != LOCK {
                let moved = target.join(&name);
                fs.rename(&made.join(&name), &moved).map_err(io_error(&moved))?;
            }
        }
        sync(target)?;
        let identity = target.join(IDENTITY);
        fs.rename(&made.join(IDENTITY), &identity).map_err(io_error(&identity))?;
        sync(target)?;
        fs.remove_dir_all(made).map_err(io_error(made))?;
        sync(target)
    }
}

/// A data directory that is only looked at: nothing in it is created, changed or removed. Holds its lock, so no node can
/// start on it meanwhile.
pub struct Inspected {
    path: PathBuf,
    /// Whose directory it is, or why that cannot be told.
    pub identity: Result<Identity, DataDirError>,
    /// `None` if there is no lock file. A node that runs would have made one.
    _lock: Option<Box<dyn Send + Sync>>,
}

impl Inspected {
    /// Looks at the data directory of a node that does not run. Blocks on files.
    pub fn open(world: &World, path: &Path) -> Result<Self, DataDirError> {
        let fs = &*world.fs;
        let names = fs.list(path).map_err(io_error(path))?;
        let has = |name: &str| names.iter().any(|found| found == name);
        if ![IDENTITY, WAL, STATE].into_iter().any(has) {
            return Err(DataDirError::NotOne { path: path.to_owned() });
        }
        let lock = if has(LOCK) { Some(lock(fs, path)?) } else { None };
        let file = path.join(IDENTITY);
        let damaged = |reason: String| DataDirError::Damaged { path: file.clone(), reason };
        let identity = match fs.read(&file) {
            Ok(content) => parse(&content).map_err(damaged),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(damaged("it is missing".to_owned())),
            Err(error) => return Err(io_error(&file)(error)),
        };
        Ok(Self { path: path.to_owned(), identity, _lock: lock })
    }

    /// Where the log is.
    pub fn wal_path(&self) -> PathBuf {
        self.path.join(WAL)
    }

    /// Where the state is.
    pub fn state_path(&self) -> PathBuf {
        self.path.join(STATE)
    }

    /// Where snapshots are kept while they are sent or received.
    pub fn spool_path(&self) -> PathBuf {
        self.path.join(SPOOL)
    }
}

/// Takes the lock of a data directory.
fn lock(fs: &dyn Fs, path: &Path) -> Result<Box<dyn Send + Sync>, DataDirError> {
    let file = path.join(LOCK);
    fs.lock(&file).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => DataDirError::InUse { path: path.to_owned() },
        _ => io_error(&file)(error),
    })
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { path: path.clone(), source }
}

/// The identity file: JSON, so that a person can read it.
#[derive(Serialize, Deserialize)]
struct IdentityFile {
    format: u32,
    node_id: u64,
    incarnation: u64,
    cluster_id: Option<String>,
    /// Absent in files from before the log was begun, or from before this was recorded.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    has_log: bool,
    /// crc32c of the other members. A changed digit must not pass for another identity.
    check: u32,
}

impl IdentityFile {
    fn expected_check(&self) -> u32 {
        let Self { format, node_id, incarnation, cluster_id, has_log, check: _ } = self;
        let log = if *has_log { "/log" } else { "" };
        crc32c::crc32c(format!("{format}/{node_id}/{incarnation}/{cluster_id:?}{log}").as_bytes())
    }
}

fn write(world: &World, path: &Path, identity: &Identity) -> Result<(), DataDirError> {
    let Identity { node_id, incarnation, cluster_id, has_log } = identity.clone();
    let mut file = IdentityFile { format: FORMAT, node_id, incarnation, cluster_id, has_log, check: 0 };
    file.check = file.expected_check();
    let mut content = serde_json::to_vec_pretty(&file).map_err(|error| io_error(path)(error.into()))?;
    content.push(b'\n');
    world.fs.write_atomically(path, &content).map_err(io_error(path))
}

fn parse(content: &[u8]) -> Result<Identity, String> {
    let file: IdentityFile = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    if file.format != FORMAT {
        return Err(format!("format {} is not known", file.format));
    }
    if file.check != file.expected_check() {
        return Err("its checksum does not match".to_owned());
    }
    let IdentityFile { node_id, incarnation, cluster_id, has_log, .. } = file;
    Ok(Identity { node_id, incarnation, cluster_id, has_log })
}
