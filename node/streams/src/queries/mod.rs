//! Queries: looks at the state that change nothing. Each does a bounded amount of work and reads no stored block; what
//! needs blocks returns an [`EntryPlan`], to be run after the state's lock is released.

mod entries;
mod groups;
mod inspect;
mod pending;
mod streams;

pub use entries::{EntryPage, EntryPlan, RangeQuery, ReadQuery};
pub use groups::{ConsumerInfo, GroupInfo};
pub use inspect::{ConsumerDetails, GroupDetails, PendingDetails, StreamDetails};
pub use pending::{ConsumerPending, PendingEntry, PendingPage, PendingQuery, PendingSummary};
pub use streams::{StreamInfo, StreamSummary};
