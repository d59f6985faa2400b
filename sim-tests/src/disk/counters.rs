//! What a disk has been through, counted.

/// What a disk has been through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Writes and changes of length.
    pub writes: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Syncs of directories.
    pub directory_syncs: u64,
    /// Power losses.
    pub power_losses: u64,
    /// Unsynced writes that a power loss undid.
    pub writes_lost: u64,
    /// Unsynced writes that survived a power loss.
    pub writes_kept: u64,
    /// Unsynced writes of which some sectors survived a power loss.
    pub writes_torn: u64,
    /// Unsynced changes of names that a power loss undid.
    pub names_lost: u64,
    /// Unsynced changes of names that survived a power loss.
    pub names_kept: u64,
    /// Reads that failed: by an injected fault, or because a sector could not be read.
    pub reads_failed: u64,
    /// Writes and changes of length that failed by an injected fault.
    pub writes_failed: u64,
    /// Writes and changes of length that found no room.
    pub writes_without_room: u64,
    /// Syncs of files that failed by an injected fault.
    pub syncs_failed: u64,
    /// Syncs of directories that failed by an injected fault.
    pub directory_syncs_failed: u64,
    /// Renames that failed by an injected fault.
    pub renames_failed: u64,
    /// Syncs, and jobs on files, that took longer by an injected fault.
    pub stalls: u64,
    /// Durable bits that were flipped.
    pub bits_flipped: u64,
    /// Writes that went to a place they were not meant for.
    pub writes_misdirected: u64,
    /// Durable sectors that could not be read any more.
    pub sectors_lost: u64,
}
