//! The verbs that are one operation of the store each: called by themselves, or as lines of a batch.

use clap::Subcommand;
use millstream_client::{Client, Error, Operation, OperationResult};

use crate::output::Output;
use crate::{Failure, append, groups, info, pending, read, settings, streams};

/// A verb with its arguments.
pub(crate) trait Verb {
    /// What it asks the store to do.
    fn operation(&self) -> Result<Operation, Failure>;
    /// Prints what came of that.
    fn print(&self, result: OperationResult, out: &mut Output) -> Result<(), Failure>;
}

#[derive(Subcommand)]
pub(crate) enum OperationVerb {
    Append(append::Append),
    Range(read::Range),
    Read(read::Read),
    Delete(streams::Delete),
    Trim(streams::Trim),
    Info(info::Info),
    SetLastId(streams::SetLastId),
    Configure(settings::Configure),
    RecordIdempotency(streams::RecordIdempotency),
    DeleteStream(streams::DeleteStream),
    DeleteAll(streams::DeleteAll),
    /// Manages consumer groups
    #[command(subcommand)]
    Group(groups::Group),
    ReadGroup(groups::ReadGroup),
    Ack(pending::Ack),
    Nack(pending::Nack),
    Pending(pending::Pending),
    Claim(pending::Claim),
    Autoclaim(pending::AutoClaim),
}

impl OperationVerb {
    pub(crate) fn verb(&self) -> &dyn Verb {
        match self {
            Self::Append(verb) => verb,
            Self::Range(verb) => verb,
            Self::Read(verb) => verb,
            Self::Delete(verb) => verb,
            Self::Trim(verb) => verb,
            Self::Info(verb) => verb,
            Self::SetLastId(verb) => verb,
            Self::Configure(verb) => verb,
            Self::RecordIdempotency(verb) => verb,
            Self::DeleteStream(verb) => verb,
            Self::DeleteAll(verb) => verb,
            Self::Group(verb) => verb,
            Self::ReadGroup(verb) => verb,
            Self::Ack(verb) => verb,
            Self::Nack(verb) => verb,
            Self::Pending(verb) => verb,
            Self::Claim(verb) => verb,
            Self::Autoclaim(verb) => verb,
        }
    }

    /// By itself: with all pages, where there are pages.
    pub(crate) async fn run(self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        match &self {
            Self::Append(append) if append.is_of_lines() => return append.append_lines(client, out).await,
            Self::Range(range) => return range.run(client, out).await,
            Self::Group(group) => {
                if let Some(list) = group.all_pages(client).await? {
                    return group.print(list, out);
                }
            }
            _ => {}
        }
        let verb = self.verb();
        verb.print(client.perform(verb.operation()?).await?, out)
    }
}

/// The store has answered something else than it was asked.
pub(crate) fn mismatch() -> Failure {
    Failure::Client(Error::OutcomeUnknown { message: "the answer is to another operation".to_owned() })
}
