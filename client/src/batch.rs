//! Batches: several operations as one command, what MULTI, EXEC and WATCH are in Redis.

use bytes::Bytes;
use millstream_proto::v1 as pb;
use millstream_proto::v1::batch_operation::Operation as Sent;
use millstream_proto::v1::batch_result::Result as Received;

use crate::types::{Answer, receipt};
use crate::{
    AckAndDelete, Acked, AckedAndDeleted, AllDeleted, Append, Appended, AutoClaim, AutoClaimed, Claim, Claimed, Client,
    ConfigureStream, ConsumerCreated, ConsumerDeleted, ConsumerPage, CreateGroup, DeleteEntries, Delivered,
    EntriesDeleted, EntryId, Error, ErrorReason, GroupDeleted, GroupPage, GroupPosition, IdempotencyRecorded,
    InspectStream, ListPending, Nack, Nacked, PendingPage, PendingSummary, Range, RangePage, Read, ReadGroup, Receipt,
    SetLastId, StreamConfigured, StreamDeleted, StreamDetails, StreamEntries, StreamInfo, Trim, Trimmed, requests,
};

/// Several operations that are done as one command of the log: nothing comes in between, and they are on stable storage
/// together. Queries among them are answered at their place.
///
/// 1 to 10,000 operations with at most 100,000 ids together. They may look at 100,000 entries, groups, consumers and
/// pending entries together; later ones then return, deliver and trim no more, and say so where they can.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch(pb::BatchRequest);

impl Batch {
    /// No operations yet. All of them will be done, or none.
    pub fn new() -> Self {
        Self::default().mode(BatchMode::default())
    }

    /// What an operation that is refused means for the others. Default: [`BatchMode::AllOrNothing`].
    pub fn mode(mut self, mode: BatchMode) -> Self {
        self.0.mode = pb::BatchMode::from(mode).into();
        self
    }

    /// Does nothing, with GUARD_FAILED, unless `stream` exists and the last command that changed it or one of its
    /// groups has this log index: [`StreamInfo::last_change_index`] (WATCH). At most 1,000 conditions.
    pub fn unchanged(self, stream: impl Into<String>, last_change_index: u64) -> Self {
        self.guard(stream, pb::guard::Condition::LastChangeIndex(last_change_index))
    }

    /// Does nothing, with GUARD_FAILED, if `stream` exists (WATCH). At most 1,000 conditions.
    pub fn absent(self, stream: impl Into<String>) -> Self {
        self.guard(stream, pb::guard::Condition::Absent(true))
    }

    /// Adds an operation: [`Append`] and its like as they are, the others by the functions of [`Operation`].
    #[allow(clippy::should_implement_trait, reason = "not arithmetic")]
    pub fn add(mut self, operation: impl Into<Operation>) -> Self {
        self.0.operations.push(pb::BatchOperation { operation: Some(operation.into().0) });
        self
    }

    fn guard(mut self, stream: impl Into<String>, condition: pb::guard::Condition) -> Self {
        self.0.guards.push(pb::Guard { stream: stream.into(), condition: Some(condition) });
        self
    }
}

/// What an operation that is refused means for the others of its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BatchMode {
    /// All are done, or none.
    #[default]
    AllOrNothing,
    /// The others are done nevertheless, as by EXEC.
    ContinueOnError,
}

impl From<BatchMode> for pb::BatchMode {
    fn from(mode: BatchMode) -> Self {
        match mode {
            BatchMode::AllOrNothing => Self::AllOrNothing,
            BatchMode::ContinueOnError => Self::ContinueOnError,
        }
    }
}

/// What came of a batch.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchDone {
    /// What came of each operation, in their order. With [`BatchMode::ContinueOnError`] a refused one is
    /// [`Error::Refused`]; otherwise there are none of these. Together the answers are bounded in bytes: what does not
    /// fit is left out, and `more`, `truncated` or `next` says so; deliveries and claims that do not fit deliver and
    /// claim nothing. The first and last entry of a stream may be absent for want of room.
    pub results: Vec<Result<OperationResult, Error>>,
    /// Where the batch stands in the log. The receipts of its operations are the same.
    pub receipt: Receipt,
}

/// An operation as a value, to be added to a [`Batch`] or done by itself with [`Client::perform`]. The requests with
/// options become one by `into()`; the others are made here. In a batch, a read must not wait.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation(Sent);

impl Operation {
    /// See [`Client::trim`].
    pub fn trim(stream: impl Into<String>, trim: Trim) -> Self {
        Self(Sent::Trim(requests::trim(stream, trim)))
    }

    /// See [`Client::delete_stream`].
    pub fn delete_stream(stream: impl Into<String>) -> Self {
        Self(Sent::DeleteStream(requests::delete_stream(stream)))
    }

    /// See [`Client::delete_all`].
    pub fn delete_all() -> Self {
        Self(Sent::DeleteAll(pb::DeleteAllRequest::default()))
    }

    /// See [`Client::record_idempotency`].
    pub fn record_idempotency(
        stream: impl Into<String>,
        producer: impl Into<Bytes>,
        key: impl Into<Bytes>,
        id: EntryId,
    ) -> Self {
        Self(Sent::RecordIdempotency(requests::record_idempotency(stream, producer, key, id)))
    }

    /// See [`Client::set_group_position`].
    pub fn set_group_position(
        stream: impl Into<String>,
        group: impl Into<String>,
        position: GroupPosition,
        entries_read: Option<u64>,
    ) -> Self {
        Self(Sent::SetGroupPosition(requests::set_group_position(stream, group, position, entries_read)))
    }

    /// See [`Client::delete_group`].
    pub fn delete_group(stream: impl Into<String>, group: impl Into<String>) -> Self {
        Self(Sent::DeleteGroup(requests::delete_group(stream, group)))
    }

    /// See [`Client::create_consumer`].
    pub fn create_consumer(stream: impl Into<String>, group: impl Into<String>, consumer: impl Into<String>) -> Self {
        Self(Sent::CreateConsumer(requests::create_consumer(stream, group, consumer)))
    }

    /// See [`Client::delete_consumer`].
    pub fn delete_consumer(stream: impl Into<String>, group: impl Into<String>, consumer: impl Into<String>) -> Self {
        Self(Sent::DeleteConsumer(requests::delete_consumer(stream, group, consumer)))
    }

    /// See [`Client::ack`].
    pub fn ack(stream: impl Into<String>, group: impl Into<String>, ids: impl IntoIterator<Item = EntryId>) -> Self {
        Self(Sent::Ack(requests::ack(stream, group, ids)))
    }

    /// See [`Client::get_stream`].
    pub fn get_stream(stream: impl Into<String>) -> Self {
        Self(Sent::GetStream(requests::get_stream(stream)))
    }

    /// See [`Client::get_pending`].
    pub fn get_pending(stream: impl Into<String>, group: impl Into<String>) -> Self {
        Self(Sent::GetPending(requests::get_pending(stream, group)))
    }

    /// See [`Client::list_groups`].
    pub fn list_groups(stream: impl Into<String>, page: Option<Bytes>) -> Self {
        Self(Sent::ListGroups(requests::list_groups(stream, page)))
    }

    /// See [`Client::list_consumers`].
    pub fn list_consumers(stream: impl Into<String>, group: impl Into<String>, page: Option<Bytes>) -> Self {
        Self(Sent::ListConsumers(requests::list_consumers(stream, group, page)))
    }
}

/// `from` marks requests with options, which carry the operation's name; the others have a function of [`Operation`].
/// `mutation`: the answer has a receipt, which in a batch is the batch's.
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident => $answer:ty: $($kind:ident)+;)+) => {
        /// What came of an operation. A variant for each, with the value that the call of the same name returns.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum OperationResult {
            $($(#[$doc])* $name($answer),)+
        }

        impl Client {
            /// Does one operation: the same as its own call.
            pub async fn perform(&self, operation: Operation) -> Result<OperationResult, Error> {
                match operation.0 {
                    $(Sent::$name(request) => self.ask(request).await.map(OperationResult::$name),)+
                }
            }
        }

        fn result(received: pb::BatchResult, place: Option<pb::Receipt>) -> Result<OperationResult, Error> {
            match received.result {
                $(Some(Received::$name(answer)) => {
                    operations!(@place answer place $($kind)+);
                    Ok(OperationResult::$name(answer.value()))
                })+
                Some(Received::Error(error)) => Err(refusal(error)),
                None => Err(Error::OutcomeUnknown { message: "an answer that this version does not know".to_owned() }),
            }
        }

        $(operations!(@from $name $($kind)+);)+
    };
    (@place $answer:ident $place:ident mutation $($rest:ident)*) => {
        let mut $answer = $answer;
        $answer.receipt = $place;
    };
    (@place $answer:ident $place:ident query $($rest:ident)*) => {};
    (@from $name:ident $kind:ident from) => {
        impl From<$name> for Operation {
            fn from(request: $name) -> Self {
                Self(Sent::$name(request.0))
            }
        }
    };
    (@from $name:ident $kind:ident) => {};
}

operations! {
    /// What was appended.
    Append => Appended: mutation from;
    /// What was removed.
    DeleteEntries => EntriesDeleted: mutation from;
    /// What was trimmed.
    Trim => Trimmed: mutation;
    /// Whether there was such a stream.
    DeleteStream => StreamDeleted: mutation;
    /// How many streams there were.
    DeleteAll => AllDeleted: mutation;
    /// The last id is set.
    SetLastId => Receipt: mutation from;
    /// The settings, as they are now.
    ConfigureStream => StreamConfigured: mutation from;
    /// Whether the key was new.
    RecordIdempotency => IdempotencyRecorded: mutation;
    /// The group exists.
    CreateGroup => Receipt: mutation from;
    /// The group has moved.
    SetGroupPosition => Receipt: mutation;
    /// Whether there was such a group.
    DeleteGroup => GroupDeleted: mutation;
    /// Whether the consumer was new.
    CreateConsumer => ConsumerCreated: mutation;
    /// What was dropped with the consumer.
    DeleteConsumer => ConsumerDeleted: mutation;
    /// What was delivered.
    ReadGroup => Delivered: mutation from;
    /// What was acknowledged.
    Ack => Acked: mutation;
    /// What was acknowledged and removed.
    AckAndDelete => AckedAndDeleted: mutation from;
    /// What was given back.
    Nack => Nacked: mutation from;
    /// What was claimed.
    Claim => Claimed: mutation from;
    /// What was claimed, and where to go on.
    AutoClaim => AutoClaimed: mutation from;
    /// Entries.
    Range => RangePage: query from;
    /// Entries of each stream.
    Read => Vec<StreamEntries>: query from;
    /// The description of a stream.
    GetStream => StreamInfo: query;
    /// The description of a stream in full.
    InspectStream => StreamDetails: query from;
    /// A summary of pending entries.
    GetPending => PendingSummary: query;
    /// Pending entries.
    ListPending => PendingPage: query from;
    /// Groups.
    ListGroups => GroupPage: query;
    /// Consumers.
    ListConsumers => ConsumerPage: query;
}

fn refusal(error: pb::OperationError) -> Error {
    let reason = ErrorReason::try_from(error.reason).unwrap_or_default();
    Error::Refused { reason, message: error.message, metadata: error.metadata }
}

impl Answer for pb::BatchResponse {
    type Value = BatchDone;

    fn value(self) -> BatchDone {
        let results = self.results.into_iter().map(|received| result(received, self.receipt));
        BatchDone { results: results.collect(), receipt: receipt(self.receipt) }
    }
}

impl Client {
    /// Does several operations as one. With [`BatchMode::AllOrNothing`] the refusal of one is the refusal of all; its
    /// metadata `operation` says which, counted from 0.
    pub async fn batch(&self, batch: Batch) -> Result<BatchDone, Error> {
        self.ask(batch.0).await
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::References;

    /// Every operation, in the order of the protocol.
    fn every_operation() -> Vec<Operation> {
        let id = EntryId::new(1, 1);
        vec![
            Append::to("s").field("f", "v").into(),
            DeleteEntries::of("s", [id]).references(References::Acked).into(),
            Operation::trim("s", Trim::max_length(1)),
            Operation::delete_stream("s"),
            Operation::delete_all(),
            SetLastId::new("s", id).into(),
            ConfigureStream::of("s").idempotency_keys_max(1).into(),
            Operation::record_idempotency("s", "p", "k", id),
            CreateGroup::new("s", "g", GroupPosition::End).into(),
            Operation::set_group_position("s", "g", GroupPosition::After(id), None),
            Operation::delete_group("s", "g"),
            Operation::create_consumer("s", "g", "c"),
            Operation::delete_consumer("s", "g", "c"),
            ReadGroup::new("g", "c").new_entries("s").into(),
            Operation::ack("s", "g", [id]),
            AckAndDelete::new("s", "g", [id]).into(),
            Nack::new("s", "g", [id]).into(),
            Claim::new("s", "g", "c").ids([id]).into(),
            AutoClaim::new("s", "g", "c", std::time::Duration::ZERO).into(),
            Range::of("s").into(),
            Read::new().after("s", id).into(),
            Operation::get_stream("s"),
            InspectStream::of("s").into(),
            Operation::get_pending("s", "g"),
            ListPending::of("s", "g").into(),
            Operation::list_groups("s", None),
            Operation::list_consumers("s", "g", None),
        ]
    }

    /// The fields of a message, by name and number.
    fn fields(message: &str) -> Vec<(String, u32)> {
        let files = prost_types::FileDescriptorSet::decode(millstream_proto::DESCRIPTORS).expect("descriptors");
        let mut messages = files.file.iter().flat_map(|file| &file.message_type);
        let found = messages.find(|candidate| candidate.name() == message).expect("a message of the protocol");
        found.field.iter().map(|field| (field.name().to_owned(), field.number() as u32)).collect()
    }

    /// An empty submessage in this field.
    fn empty(field: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        prost::encoding::encode_key(field, prost::encoding::WireType::LengthDelimited, &mut bytes);
        bytes.push(0);
        bytes
    }

    #[test]
    fn every_operation_can_be_added() {
        let batch = every_operation().into_iter().fold(Batch::new(), Batch::add);
        let key = |operation: &pb::BatchOperation| {
            let bytes = operation.encode_to_vec();
            prost::encoding::decode_key(&mut &bytes[..]).expect("a field").0
        };
        let added: Vec<u32> = batch.0.operations.iter().map(key).collect();
        let expected: Vec<u32> = fields("BatchOperation").into_iter().map(|(_, number)| number).collect();
        assert_eq!(added, expected);
    }

    #[test]
    fn every_result_is_understood_and_has_the_receipt_of_the_batch() {
        let place = Some(pb::Receipt { log_index: 7, term: 2, group_id: 0 });
        let results = fields("BatchResult").into_iter().map(|(name, number)| {
            let received = pb::BatchResult::decode(&empty(number)[..]).expect("an empty result");
            (name, received)
        });
        let (names, results): (Vec<String>, Vec<pb::BatchResult>) = results.unzip();
        let done = pb::BatchResponse { header: None, results, receipt: place }.value();
        assert_eq!(done.receipt.log_index, 7);
        for (name, result) in names.iter().zip(&done.results) {
            match result {
                Ok(result) => {
                    let variant = format!("{result:?}").to_lowercase();
                    assert!(variant.starts_with(&name.replace('_', "")), "{name}: {variant}");
                    assert_eq!(variant.contains("receipt"), variant.contains("log_index: 7"), "{name}: {variant}");
                }
                Err(error) => assert_eq!((name.as_str(), error.reason()), ("error", Some(ErrorReason::Unspecified))),
            }
        }
        assert_eq!(names.len(), every_operation().len() + 1);
        let unknown = result(pb::BatchResult::default(), place);
        assert!(matches!(unknown, Err(Error::OutcomeUnknown { .. })));
    }

    #[test]
    fn refusals_keep_their_facts() {
        let metadata = [("stream".to_owned(), "s".to_owned())].into();
        let reason = ErrorReason::StreamNotFound.into();
        let error = refusal(pb::OperationError { reason, message: "no".to_owned(), metadata });
        assert_eq!((error.reason(), error.metadata("stream")), (Some(ErrorReason::StreamNotFound), Some("s")));
        assert_eq!((error.metadata("group"), error.has_no_side_effects()), (None, true));
    }

    #[test]
    fn guards_and_modes() {
        let batch = Batch::new().unchanged("s", 5).absent("t").mode(BatchMode::ContinueOnError);
        let guard = |stream: &str, condition| pb::Guard { stream: stream.to_owned(), condition: Some(condition) };
        let expected =
            [guard("s", pb::guard::Condition::LastChangeIndex(5)), guard("t", pb::guard::Condition::Absent(true))];
        assert_eq!(batch.0.guards, expected);
        assert_eq!(batch.0.mode(), pb::BatchMode::ContinueOnError);
        assert_eq!(Batch::new().0.mode(), pb::BatchMode::AllOrNothing);
    }
}
