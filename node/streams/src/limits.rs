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
/// Streams in one read.
pub const READ_STREAMS_MAX: usize = 1024;
/// Streams in one group read.
pub const GROUP_READ_STREAMS_MAX: usize = 64;
/// The greatest delivery count: Redis counts in a signed 64-bit number and stops there.
pub const DELIVERY_COUNT_MAX: u64 = i64::MAX as u64;
/// The greatest lifetime count of a stream's entries, as in Redis.
pub const ENTRIES_ADDED_MAX: u64 = i64::MAX as u64;

/// Bytes of a producer id, and of an idempotency key: like names, they stand in the state by the thousand.
pub const PRODUCER_BYTES_MAX: usize = 1024;
/// The longest time for which idempotency keys are remembered, in seconds: one day, as in Redis.
pub const IDEMPOTENCY_DURATION_S_MAX: u32 = 86_400;
/// The time for which idempotency keys are remembered unless configured, in seconds.
pub const IDEMPOTENCY_DURATION_S_DEFAULT: u32 = 100;
/// The most idempotency keys that one producer may be configured to have remembered.
pub const IDEMPOTENCY_KEYS_MAX: u32 = 10_000;
/// The idempotency keys remembered of one producer unless configured.
pub const IDEMPOTENCY_KEYS_DEFAULT: u32 = 100;
/// Idempotency keys in one row.
pub const IDEMPOTENCY_PAGE_KEYS: u64 = 128;
/// Operations of one batch.
pub const BATCH_OPERATIONS_MAX: usize = 10_000;
/// Guards of one batch.
pub const BATCH_GUARDS_MAX: usize = 1_000;
/// Ids of all operations of a batch together, for the same reason as [`IDS_MAX`].
pub const BATCH_IDS_MAX: u64 = 100_000;
/// Entries, groups, consumers and pending entries that one command looks at, with its whole batch if it is one: bounds the
/// time that it holds up the log, whatever it asks for.
pub const LOOKS_MAX: u64 = 100_000;
/// Streams in one enforcement of retention.
pub const RETENTION_STREAMS_MAX: usize = 1_000;
/// Entries that one enforcement of retention removes, of all its streams together: bounds the time that it holds up the
/// log. One that comes to this many is followed by another.
pub const RETENTION_ENTRIES_MAX: u64 = 100_000;
/// Entries that a trim passes over because a group still refers to them, before it gives up until the next time.
pub const TRIM_SCAN_MAX: u64 = 10_000;
/// The same for a trim that comes with an append: there is one with every entry.
pub const APPEND_SCAN_MAX: u64 = 1_000;
/// Expired idempotency keys that one append forgets. More than one per append, so that it keeps pace.
pub const APPEND_EXPIRES_MAX: u64 = 1_000;

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
