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
        // A directory that was left before its identity was written is still as good as empty.
        let ours = |name: &String| name == LOCK || name.strip_suffix(".new") == Some(IDENTITY) || name == "lost+found";
        let is_new = !names.iter().any(|name| name == IDENTITY);
        if is_new && !names.iter().all(ours) {
            return Err(DataDirError::Foreign { path: path.to_owned() });
        }
        let lock = fs.lock(&path.join(LOCK)).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => DataDirError::InUse { path: path.to_owned() },
            _ => io_error(&path.join(LOCK))(error),
        })?;

        let identity = if is_new {
            let identity = Identity { node_id, incarnation: world.random.next_u64(), cluster_id: None };
            write(world, &identity_path, &identity)?;
            identity
        } else {
            let content = fs.read(&identity_path).map_err(io_error(&identity_path))?;
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

    /// Where the log is.
    pub fn wal_path(&self) -> PathBuf {
        self.path.join("wal")
    }

    /// Where the state is.
    pub fn state_path(&self) -> PathBuf {
        self.path.join("state")
    }

    /// Where snapshots are kept while they are sent or received.
    pub fn spool_path(&self) -> PathBuf {
        self.path.join("spool")
    }
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
    /// crc32c of the other members. A changed digit must not pass for another identity.
    check: u32,
}

impl IdentityFile {
    fn expected_check(&self) -> u32 {
        let Self { format, node_id, incarnation, cluster_id, check: _ } = self;
        crc32c::crc32c(format!("{format}/{node_id}/{incarnation}/{cluster_id:?}").as_bytes())
    }
}

fn write(world: &World, path: &Path, identity: &Identity) -> Result<(), DataDirError> {
    let Identity { node_id, incarnation, cluster_id } = identity.clone();
    let mut file = IdentityFile { format: FORMAT, node_id, incarnation, cluster_id, check: 0 };
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
    let IdentityFile { node_id, incarnation, cluster_id, .. } = file;
    Ok(Identity { node_id, incarnation, cluster_id })
}
