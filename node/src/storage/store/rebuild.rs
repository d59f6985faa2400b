//! The mark of a state that must be rebuilt: why, and how far, kept on disk until it is done.
//!
//! ```text
//! state/REBUILD    "suspect <crc32c> <reason>\n"            the store is damaged: set it aside at the next start
//!                  "<least index> <crc32c> <reason>\n"      the store is being rebuilt
//! ```
//! The checksum (eight hexadecimal digits) covers the rest of the line with one space between its two parts.

use std::path::Path;

use super::StoreError;
use crate::world::World;

const MARK: &str = "REBUILD";
const SUSPECT: &str = "suspect";

/// What a node must have before it takes part again, because its state was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rebuild {
    /// Why, for the operator. One line.
    pub reason: String,
    /// The least log index that the new state must have applied: the log behind it is purged. 0: none is.
    pub least_index: u64,
}

/// What the mark says.
pub(super) enum Mark {
    /// The store is not to be used any more.
    Suspect { reason: String },
    /// The store is new and not complete yet.
    Rebuilding(Rebuild),
}

impl Mark {
    pub(super) fn read(world: &World, state: &Path) -> Result<Option<Self>, StoreError> {
        let path = state.join(MARK);
        if !world.fs.exists(&path)? {
            // That it was removed must be as durable as that it is there.
            world.fs.sync_dir(state)?;
            return Ok(None);
        }
        let content = world.fs.read_durably(&path)?;
        let nonsense = || StoreError::corrupt("the file REBUILD of the state makes no sense");
        let line = std::str::from_utf8(&content).ok().and_then(|line| line.strip_suffix('\n')).ok_or_else(nonsense)?;
        let mut parts = line.splitn(3, ' ');
        let (Some(kind), Some(check), Some(reason)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(nonsense());
        };
        if check != checksum(kind, reason) {
            return Err(nonsense());
        }
        let reason = reason.to_owned();
        if kind == SUSPECT {
            return Ok(Some(Self::Suspect { reason }));
        }
        let least_index = kind.parse().map_err(|_| nonsense())?;
        Ok(Some(Self::Rebuilding(Rebuild { reason, least_index })))
    }

    /// Durable when it returns.
    pub(super) fn write(&self, world: &World, state: &Path) -> Result<(), StoreError> {
        let (kind, reason) = match self {
            Self::Suspect { reason } => (SUSPECT.to_owned(), reason),
            Self::Rebuilding(Rebuild { reason, least_index }) => (least_index.to_string(), reason),
        };
        let reason = reason.replace(['\n', '\r'], " ");
        let line = format!("{kind} {} {reason}\n", checksum(&kind, &reason));
        Ok(world.fs.write_atomically(&state.join(MARK), line.as_bytes())?)
    }

    /// Durable when it returns.
    pub(super) fn remove(world: &World, state: &Path) -> Result<(), StoreError> {
        world.fs.remove_file(&state.join(MARK))?;
        Ok(world.fs.sync_dir(state)?)
    }
}

fn checksum(kind: &str, reason: &str) -> String {
    format!("{:08x}", crc32c::crc32c(format!("{kind} {reason}").as_bytes()))
}
