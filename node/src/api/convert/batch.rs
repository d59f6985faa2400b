//! The request that holds several others.

use millstream_proto::v1 as pb;
use millstream_proto::v1::batch_operation::Operation;
use millstream_streams::limits::{BATCH_GUARDS_MAX, BATCH_OPERATIONS_MAX};
use millstream_streams::{Batch, BatchMode, Command, DeleteAll, GroupName, Guard, Query, StreamName};

use super::groups::{ConsumersPage, GroupsPage};
use super::streams::Inspection;
use super::values::stream_in;
use super::{Result, groups, must_be_true, streams, unknown_value, unset};
use crate::api::errors::Failure;
use crate::config::Limits;

/// A batch, and what its operations are called.
pub(in crate::api) struct ConvertedBatch {
    pub(in crate::api) batch: Batch,
    /// The names of the operations, in their order, as the .proto spells them: for the paths of errors.
    pub(in crate::api) names: Vec<&'static str>,
}

pub(in crate::api) fn batch(request: pb::BatchRequest, limits: &Limits) -> Result<ConvertedBatch> {
    let pb::BatchRequest { operations, guards, mode, request: _ } = request;
    if operations.is_empty() {
        return Err(Failure::invalid("operations", "at least one operation is needed"));
    }
    if BATCH_OPERATIONS_MAX < operations.len() {
        return Err(Failure::too_large("operations", BATCH_OPERATIONS_MAX as u64, "operations"));
    }
    if BATCH_GUARDS_MAX < guards.len() {
        return Err(Failure::too_large("guards", BATCH_GUARDS_MAX as u64, "guards"));
    }
    let mode = match pb::BatchMode::try_from(mode) {
        Ok(pb::BatchMode::Unspecified | pb::BatchMode::AllOrNothing) => BatchMode::AllOrNothing,
        Ok(pb::BatchMode::ContinueOnError) => BatchMode::ContinueOnError,
        Err(_) => return Err(unknown_value("mode")),
    };
    let guards = guards.iter().enumerate().map(guard).collect::<Result<_>>()?;

    let mut names = Vec::with_capacity(operations.len());
    let mut commands = Vec::with_capacity(operations.len());
    for (n, operation) in operations.into_iter().enumerate() {
        let Some(operation) = operation.operation else { return Err(unset(format!("operations[{n}].operation"))) };
        let (name, command) = self::operation(operation, limits);
        names.push(name);
        commands.push(command.map_err(|failure| failure.of_operation(n, name))?);
    }
    let batch = Batch { operations: commands, guards, mode };
    Ok(ConvertedBatch { batch, names })
}

fn guard((n, guard): (usize, &pb::Guard)) -> Result<Guard> {
    use pb::guard::Condition;
    let stream = stream_in(&format!("guards[{n}].stream"), &guard.stream)?;
    match guard.condition {
        Some(Condition::LastChangeIndex(last_change_index)) => Ok(Guard::Unchanged { stream, last_change_index }),
        Some(Condition::Absent(true)) => Ok(Guard::Absent { stream }),
        Some(Condition::Absent(false)) => Err(must_be_true(format!("guards[{n}].absent"))),
        None => Err(unset(format!("guards[{n}].condition"))),
    }
}

/// One line for each operation: its name in the .proto, what belongs to a call and must not be set in it, and its command.
macro_rules! operations {
    ($operation:expr; $($variant:ident $name:literal without [$($unset:ident),*] $request:ident => $command:expr;)*) => {
        match $operation {
            $(Operation::$variant($request) => {
                let convert = || {
                    $(check_unset(stringify!($unset), $request.$unset.is_some())?;)*
                    Ok(Command::from($command))
                };
                ($name, convert())
            })*
        }
    };
}

/// What an operation is called, and what it asks for.
pub(super) fn operation(operation: Operation, limits: &Limits) -> (&'static str, Result<Command>) {
    operations! { operation;
        Append "append" without [request] r => streams::append(r, limits)?;
        DeleteEntries "delete_entries" without [request] r => streams::delete_entries(r)?;
        Trim "trim" without [request] r => streams::trim(r)?;
        DeleteStream "delete_stream" without [request] r => streams::delete_stream(r)?;
        DeleteAll "delete_all" without [request] r => DeleteAll {};
        SetLastId "set_last_id" without [request] r => streams::set_last_id(r)?;
        ConfigureStream "configure_stream" without [request] r => streams::configure_stream(r)?;
        RecordIdempotency "record_idempotency" without [request] r => streams::record_idempotency(r)?;
        CreateGroup "create_group" without [request] r => groups::create_group(r)?;
        SetGroupPosition "set_group_position" without [request] r => groups::set_group_position(r)?;
        DeleteGroup "delete_group" without [request] r => groups::delete_group(r)?;
        CreateConsumer "create_consumer" without [request] r => groups::create_consumer(r)?;
        DeleteConsumer "delete_consumer" without [request] r => groups::delete_consumer(r)?;
        ReadGroup "read_group" without [request, wait] r => groups::read_group(r)?;
        Ack "ack" without [request] r => groups::ack(r)?;
        AckAndDelete "ack_and_delete" without [request] r => groups::ack_and_delete(r)?;
        Nack "nack" without [request] r => groups::nack(r)?;
        Claim "claim" without [request] r => groups::claim(r)?;
        AutoClaim "auto_claim" without [request] r => groups::auto_claim(r)?;
        Range "range" without [options] r => Query::Range(streams::range(r)?);
        Read "read" without [options, wait] r => Query::Read(streams::read(r)?);
        GetStream "get_stream" without [options] r => Query::Stream(streams::get_stream(r)?);
        InspectStream "inspect_stream" without [options] r => details(streams::inspect_stream(r)?);
        GetPending "get_pending" without [options] r => pending_summary(groups::get_pending(r)?);
        ListPending "list_pending" without [options] r => Query::Pending(groups::list_pending(r)?);
        ListGroups "list_groups" without [options] r => groups_page(groups::list_groups(r)?);
        ListConsumers "list_consumers" without [options] r => consumers_page(groups::list_consumers(r)?);
    }
}

fn check_unset(field: &str, is_set: bool) -> Result<()> {
    if is_set { Err(Failure::invalid(field, "must not be set within a batch")) } else { Ok(()) }
}

fn details(Inspection { stream, count }: Inspection) -> Query {
    Query::Details { stream, count }
}

fn pending_summary((stream, group): (StreamName, GroupName)) -> Query {
    Query::PendingSummary { stream, group }
}

fn groups_page(GroupsPage { stream, after, count }: GroupsPage) -> Query {
    Query::Groups { stream, after, count }
}

fn consumers_page(ConsumersPage { stream, group, after, count }: ConsumersPage) -> Query {
    Query::Consumers { stream, group, after, count }
}
