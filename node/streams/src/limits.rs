//! Every bound of the core, with its unit and its reason.
//!
//! These are constants because replicas must agree on them: a bound that a node could configure would let one replica
//! refuse what another applies. What an operator may tighten (the entry limit of 1 MiB, say) is enforced by the node
//! before a command is proposed.

/// Bytes of a stream, group or consumer name: names stand in keys and in every command, so they stay small.
pub const NAME_BYTES_MAX: usize = 1024;
/// Bytes of a node's advertised address: a host name (253) and a port, with room to spare.
pub const ADDRESS_BYTES_MAX: usize = 512;
/// Bytes of a cluster id: it stands in every response header.
pub const CLUSTER_ID_BYTES_MAX: usize = 128;
/// Fields of one entry: bounds the work of one append.
pub const FIELDS_MAX: usize = 16_384;
/// Bytes of names and values of one entry: 32 MiB. A hard stop; the node's own limit is smaller.
pub const ENTRY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Ids in one command: bounds the time that one command holds up the log.
pub const IDS_MAX: usize = 10_000;
/// Entries that one command delivers or claims of one stream, for the same reason.
pub const COUNT_MAX: u32 = 10_000;
/// Streams in one group read.
pub const GROUP_READ_STREAMS_MAX: usize = 64;
/// The greatest delivery count: Redis counts in a signed 64-bit number and stops there.
pub const DELIVERY_COUNT_MAX: u64 = i64::MAX as u64;
/// The greatest lifetime count of a stream's entries, as in Redis.
pub const ENTRIES_ADDED_MAX: u64 = i64::MAX as u64;

/// How far a request's sequence may run ahead of the session's floor: bounds the answers kept for one session.
pub const SESSION_WINDOW: u64 = 4096;
/// Open sessions. Opening one more evicts the least recently active.
pub const SESSIONS_MAX: usize = 100_000;
/// Milliseconds without a command after which a session expires: one hour, longer than any sensible retry.
pub const SESSION_IDLE_MS_MAX: u64 = 3_600_000;
/// Answers of a session in one row.
pub const SESSION_PAGE_REPLIES: u64 = 128;

/// Entries in one block. Also the width of the block's mask of deleted entries.
pub const BLOCK_ENTRIES: usize = 100;
/// Bytes of entries in one block, unless a single entry is larger: the store writes 12 KiB values well.
pub const BLOCK_BYTES: usize = 12 * 1024;
/// Pending entries in one row.
pub const PAGE_ENTRIES: usize = 128;
/// Blocks that one query plan names: bounds the time a query holds the state.
pub const PLAN_BLOCKS_MAX: usize = 1024;

/// Entries that an approximate trim removes at most, unless it says otherwise.
pub const TRIM_APPROX_LIMIT_DEFAULT: u64 = 10_000;
/// Pending entries that an XAUTOCLAIM looks at, for each one that it may claim.
pub const AUTOCLAIM_SCAN_FACTOR: usize = 10;

const _: () = assert!(BLOCK_ENTRIES <= u128::BITS as usize, "deleted entries of a block are bits of a u128");
const _: () = assert!(SESSION_WINDOW.is_multiple_of(SESSION_PAGE_REPLIES), "a window is a whole number of pages");
