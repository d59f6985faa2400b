//! What the random commands came to: a proof that never got to a corner proves nothing of it.

use std::collections::BTreeMap;

use millstream_streams::*;

use millstream_streams_model::Corners;

#[derive(Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) commands: u64,
    /// By the name of the command, and what became of it.
    outcomes: BTreeMap<(&'static str, &'static str), u64>,
    corners: BTreeMap<&'static str, u64>,
}

impl Coverage {
    pub(crate) fn count(&mut self, command: &Command, outcome: &Outcome) {
        self.commands += 1;
        self.count_outcome(command.name(), outcome);
        if let (Command::Batch(batch), Ok(Reply::Batched(batched))) = (command, outcome) {
            for (operation, outcome) in batch.operations.iter().zip(&batched.results) {
                self.count_outcome(operation.name(), outcome);
            }
        }
        if let Err(Refusal::OperationRefused { refusal, .. }) = outcome {
            *self.outcomes.entry(("in a batch undone", kind(refusal))).or_default() += 1;
        }
    }

    fn count_outcome(&mut self, name: &'static str, outcome: &Outcome) {
        let what = match outcome {
            Ok(reply) => reply_kind(reply),
            Err(refusal) => kind(refusal),
        };
        *self.outcomes.entry((name, what)).or_default() += 1;
        let results = match outcome {
            Ok(Reply::EntriesDeleted(EntriesDeleted { results })) => results,
            Ok(Reply::AckedAndDeleted(AckedAndDeleted { results })) => results,
            _ => return,
        };
        for result in results {
            let result = match result {
                Removal::Deleted => "an id: deleted",
                Removal::NotFound => "an id: not found",
                Removal::Referenced => "an id: referenced",
            };
            *self.outcomes.entry((name, result)).or_default() += 1;
        }
    }

    pub(crate) fn add_corners(&mut self, corners: &Corners) {
        for (corner, count) in &corners.0 {
            *self.corners.entry(corner).or_default() += count;
        }
    }

    pub(crate) fn print(&self) {
        println!("{} commands", self.commands);
        for ((command, outcome), count) in &self.outcomes {
            println!("{count:>9}  {command}: {outcome}");
        }
        for (corner, count) in &self.corners {
            println!("{count:>9}  {corner}");
        }
    }

    /// What should have been reached and was not.
    pub(crate) fn missing(&self) -> Vec<String> {
        let outcomes = OUTCOMES
            .iter()
            .flat_map(|(command, outcomes)| outcomes.iter().map(move |outcome| (*command, *outcome)))
            .filter(|wanted| !self.outcomes.contains_key(wanted))
            .map(|(command, outcome)| format!("{command}: {outcome}"));
        let corners = CORNERS.iter().filter(|corner| !self.corners.contains_key(*corner));
        outcomes.chain(corners.map(|corner| (*corner).to_owned())).collect()
    }
}

fn reply_kind(reply: &Reply) -> &'static str {
    match reply {
        Reply::Appended(Appended { duplicate: true, .. }) => "done before",
        Reply::Appended(Appended { trimmed: 1.., .. }) => "done and trimmed",
        Reply::Trimmed(Trimmed { trimmed: 0 }) => "nothing done",
        Reply::StreamDeleted(StreamDeleted { existed: false }) => "nothing done",
        Reply::GroupDeleted(GroupDeleted { existed: false }) => "nothing done",
        Reply::ConsumerCreated(ConsumerCreated { created: false }) => "nothing done",
        Reply::ConsumerDeleted(ConsumerDeleted { pending: 0 }) => "nothing lost",
        Reply::Delivered(delivered) if delivered.is_empty() => "nothing done",
        Reply::Acked(Acked { acknowledged: 0 }) => "nothing done",
        Reply::Claimed(Claimed { ids, .. }) if ids.is_empty() => "nothing done",
        Reply::AutoClaimed(AutoClaimed { ids, .. }) if ids.is_empty() => "nothing done",
        Reply::IdempotencyRecorded(IdempotencyRecorded { added: false }) => "nothing done",
        Reply::Nacked(Nacked { released: 0 }) => "nothing done",
        Reply::RetentionEnforced(RetentionEnforced { trimmed: 0, expired: 0 }) => "nothing done",
        Reply::Answer(answer) => match answer {
            Answer::Entries { more: false, .. } => "range",
            Answer::Entries { more: true, .. } => "range, and more",
            Answer::Read(_) => "read",
            Answer::Stream { .. } => "stream",
            Answer::Details { .. } => "details",
            Answer::PendingSummary(_) => "pending summary",
            Answer::Pending(_) => "pending",
            Answer::Groups { .. } => "groups",
            Answer::Consumers { .. } => "consumers",
        },
        _ => "done",
    }
}

fn kind(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::InvalidArgument { .. } => "InvalidArgument",
        Refusal::LimitExceeded { .. } => "LimitExceeded",
        Refusal::IdZero => "IdZero",
        Refusal::IdNotGreater { .. } => "IdNotGreater",
        Refusal::IdExhausted => "IdExhausted",
        Refusal::StreamNotFound { .. } => "StreamNotFound",
        Refusal::GroupNotFound { .. } => "GroupNotFound",
        Refusal::GroupExists { .. } => "GroupExists",
        Refusal::LastIdTooSmall { bound: LastIdBound::GivenMaxDeletedId, .. } => "LastIdTooSmall, GivenMaxDeletedId",
        Refusal::LastIdTooSmall { bound: LastIdBound::MaxDeletedId, .. } => "LastIdTooSmall, MaxDeletedId",
        Refusal::LastIdTooSmall { bound: LastIdBound::LastEntry, .. } => "LastIdTooSmall, LastEntry",
        Refusal::EntriesAddedTooSmall { .. } => "EntriesAddedTooSmall",
        Refusal::EntryNotFound { .. } => "EntryNotFound",
        Refusal::IdempotencyConflict { .. } => "IdempotencyConflict",
        Refusal::GuardFailed { last_change_index: Some(_), .. } => "GuardFailed, changed",
        Refusal::GuardFailed { last_change_index: None, .. } => "GuardFailed, no stream",
        Refusal::OperationRefused { .. } => "OperationRefused",
        Refusal::SessionNotFound { .. }
        | Refusal::SequenceOutOfWindow { .. }
        | Refusal::SequenceReused { .. }
        | Refusal::NodeIncarnationMismatch { .. } => "not of the model",
    }
}

/// Every reply and every refusal that a command can come to.
const OUTCOMES: &[(&str, &[&str])] = &[
    (
        "append",
        &[
            "done",
            "done and trimmed",
            "done before",
            "InvalidArgument",
            "IdZero",
            "IdNotGreater",
            "IdExhausted",
            "StreamNotFound",
        ],
    ),
    ("delete_entries", &["done", "an id: deleted", "an id: not found", "an id: referenced", "InvalidArgument"]),
    ("trim", &["done", "nothing done", "InvalidArgument"]),
    ("delete_stream", &["done", "nothing done"]),
    ("create_group", &["done", "StreamNotFound", "GroupExists"]),
    ("set_group_position", &["done", "StreamNotFound", "GroupNotFound"]),
    ("delete_group", &["done", "nothing done", "StreamNotFound"]),
    ("create_consumer", &["done", "nothing done", "StreamNotFound", "GroupNotFound"]),
    ("delete_consumer", &["done", "nothing lost", "StreamNotFound", "GroupNotFound"]),
    ("read_group", &["done", "nothing done", "GroupNotFound", "InvalidArgument", "LimitExceeded"]),
    ("ack", &["done", "nothing done", "InvalidArgument"]),
    ("claim", &["done", "nothing done", "GroupNotFound", "LimitExceeded"]),
    ("auto_claim", &["done", "nothing done", "GroupNotFound", "InvalidArgument", "LimitExceeded"]),
    (
        "set_last_id",
        &[
            "done",
            "StreamNotFound",
            "LastIdTooSmall, GivenMaxDeletedId",
            "LastIdTooSmall, MaxDeletedId",
            "LastIdTooSmall, LastEntry",
            "EntriesAddedTooSmall",
            "LimitExceeded",
        ],
    ),
    ("configure_stream", &["done", "StreamNotFound", "InvalidArgument"]),
    ("record_idempotency", &["done", "nothing done", "StreamNotFound", "EntryNotFound", "IdempotencyConflict"]),
    ("ack_and_delete", &["done", "an id: deleted", "an id: not found", "an id: referenced", "InvalidArgument"]),
    ("nack", &["done", "nothing done", "GroupNotFound", "InvalidArgument", "LimitExceeded"]),
    ("delete_all", &["done"]),
    ("enforce_retention", &["done", "nothing done", "InvalidArgument"]),
    (
        "query",
        &[
            "range",
            "range, and more",
            "read",
            "stream",
            "details",
            "pending summary",
            "pending",
            "groups",
            "consumers",
            "StreamNotFound",
            "GroupNotFound",
            "InvalidArgument",
            "LimitExceeded",
        ],
    ),
    ("batch", &["done", "InvalidArgument", "OperationRefused", "GuardFailed, changed", "GuardFailed, no stream"]),
    (
        "in a batch undone",
        &[
            "IdNotGreater",
            "StreamNotFound",
            "GroupNotFound",
            "GroupExists",
            "EntryNotFound",
            "LastIdTooSmall, LastEntry",
            "InvalidArgument",
            "LimitExceeded",
        ],
    ),
];

/// The corners that the model marks on its way.
const CORNERS: &[&str] = &[
    "2.2 ms-*: no sequence is left",
    "2.2 the clock is behind the last id",
    "2.2 the last possible id was used",
    "2.2 the sequence carries into the milliseconds",
    "4.1 the new entry itself was trimmed",
    "4.10 read stopped by size or total",
    "4.11 CLAIM",
    "4.11 CLAIM passed over a dangling one",
    "4.11 CLAIM stopped by size or total",
    "4.11 CLAIM took one that was given back",
    "4.11 CLAIM: just idle enough",
    "4.11 NOACK left one pending",
    "4.11 history of a dangling one",
    "4.11 history stopped by size or total",
    "4.11 new entries stopped by size or total",
    "4.11 new to the group, but pending",
    "4.11 returned twice, as claimed and as new",
    "4.12 acknowledged one that was given back",
    "4.13 acknowledged a dangling one",
    "4.13 acknowledged, and referenced elsewhere",
    "4.13 dangling, and referenced elsewhere",
    "4.14 FORCE",
    "4.14 FORCE beyond the group's position",
    "4.14 gave back a dangling one",
    "4.14 given back again",
    "4.16 FORCE",
    "4.16 FORCE beyond the group's position",
    "4.16 LASTID moved the group",
    "4.16 claimed one that was given back",
    "4.16 dropped a dangling one",
    "4.16 just idle enough",
    "4.16 not idle for long enough",
    "4.16 stopped by size",
    "4.17 claimed one that was given back",
    "4.17 dropped a dangling one",
    "4.17 looked at ten times the count",
    "4.17 stopped before the end",
    "4.17 stopped by size",
    "4.2 another setting made all keys forgotten",
    "4.2 hit",
    "4.2 hit on an exhausted stream",
    "4.2 hit on an expired key",
    "4.2 hit, the entry is gone",
    "4.2 key from the content",
    "4.2 keys expired by retention",
    "4.2 keys expired on append",
    "4.2 oldest key dropped",
    "4.6 ACKED without groups",
    "4.6 ACKED: not referenced by any of several groups",
    "4.6 ACKED: referenced, though there is no entry",
    "4.6 DELREF dropped a dangling reference",
    "4.8 greatest deleted id lowered",
    "4.8 last id lowered",
    "4.8 last id raised",
    "4.9 MKSTREAM made the stream",
    "4.9 deleted consumer lost pending entries",
    "4.9 group moved backwards",
    "6 ACKED trim passed over an entry",
    "6 ACKED trim removed an entry behind one that it passed over",
    "6 DELREF trim dropped a reference",
    "6 approximate trim removed blocks",
    "6 approximate trim removed less than an exact one would",
    "6 limit reached with DELREF or ACKED",
    "6 trim left a reference",
    "batch: all-or-nothing, refused",
    "batch: all-or-nothing, refused and undone",
    "batch: bounded in bytes",
    "batch: continued after a malformed operation",
    "batch: continued after a refusal",
    "batch: guards held",
    "batch: went on without room",
    "bytes: consumers did not fit",
    "bytes: details did not fit",
    "bytes: groups did not fit",
    "bytes: pending entries did not fit",
    "bytes: the summary did not fit",
    "retention by age",
    "retention by bytes",
    "retention by id",
    "retention by length",
];
