//! What an operator does with the data directory of a node that does not run.
//!
//! `verify` and `dump` change nothing in the directory. The engines of the state write when they open (sled always
//! does), so the state is copied to a scratch directory first and looked at there; the log and everything else is read
//! where it is.

mod dump;
mod restore;
mod scratch;
mod show;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

pub use dump::{Dump, Part, dump};
pub use restore::{RestoreArguments, restore};
pub use scratch::Scratch;
pub use verify::{Checked, Report, verify};

use crate::storage::DataDirError;
use crate::world::World;

/// Everything was looked at and is as it should be.
const FINE: u8 = 0;
/// Something is damaged.
const DAMAGED: u8 = 1;
/// Something could not be looked at.
const CANNOT: u8 = 2;

/// A tool for the data directory of a node that does not run.
#[derive(Debug, Subcommand)]
pub enum Tool {
    /// Checks every checksum of a data directory, and that what it holds fits together; changes nothing
    ///
    /// Exit code: 0 if all is well, 1 if something is damaged, 2 if something could not be checked.
    Verify(VerifyArguments),
    /// Shows what is in a data directory: the log, the state, or whose it is
    Dump(DumpArguments),
    /// Makes the data directory of the first node of a new cluster from a backup
    ///
    /// The directory must be absent or empty. Other nodes join with --join and `millstream cluster add`.
    Restore(RestoreArguments),
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArguments {
    /// Where to copy the state to, to look at it there [default: the system's directory for temporary files]
    #[arg(long)]
    pub scratch: Option<PathBuf>,
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `dump`.
#[derive(Debug, Args)]
pub struct DumpArguments {
    /// Where to copy the state to, to look at it there [default: the system's directory for temporary files]
    #[arg(long)]
    pub scratch: Option<PathBuf>,
    /// What to show
    #[arg(value_enum, default_value = "log")]
    pub part: Part,
    /// Begin with this log index
    #[arg(long, default_value_t = 0)]
    pub from: u64,
    /// Show at most so many log records or rows [default: all]
    #[arg(long)]
    pub limit: Option<u64>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Why a tool could not do its work. Each message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The directory is in use, or none of ours.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A file could not be read or written.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is no room for the copy of the state.
    #[error(
        "the state takes {needed} bytes and is copied before it is looked at, but {path} has room for {free}: name \
         another directory with --scratch"
    )]
    NoRoom {
        /// The scratch directory.
        path: String,
        /// Bytes of the state.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// What was to be shown is damaged.
    #[error("{0}; `millstream-node verify` says more")]
    Damaged(String),
}

impl ToolError {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }
}

/// Runs a tool as a command: prints to stdout and stderr, and says how it went.
pub fn run(world: &World, data_dir: &Path, tool: Tool) -> ExitCode {
    let code = match tool {
        Tool::Verify(arguments) => show::verify(world, data_dir, &arguments),
        Tool::Dump(arguments) => show::dump(world, data_dir, &arguments),
        Tool::Restore(arguments) => show::restore(world, data_dir, arguments),
    };
    ExitCode::from(code)
}
