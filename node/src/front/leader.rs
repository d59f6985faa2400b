//! This node as the leader whom others ask.

use millstream_streams::Command;
use tokio::time::Instant;

use super::{Denied, Done, Front};
use crate::network::{CommandCalls, Execute, Executed, NotExecuted, Stored};
use crate::replica::Unavailable;

/// Does what followers ask for on behalf of their clients.
pub(crate) struct Leading(pub(crate) Front);

#[async_trait::async_trait]
impl CommandCalls for Leading {
    async fn execute(&self, call: Execute, waits: &(dyn Fn() + Sync)) -> Result<Executed, NotExecuted> {
        here(&self.0, call, waits).await
    }

    fn stored(&self, log_index: u64) -> Option<Stored> {
        self.0.replica.stored_here(log_index)
    }
}

/// Does it at this node, which leads or says that it does not. Says by `waits` that it begins to wait.
pub(super) async fn here(
    front: &Front,
    Execute { request, command, wait }: Execute,
    waits: &(dyn Fn() + Sync),
) -> Result<Executed, NotExecuted> {
    let done = match &command {
        Command::ReadGroup(read) => front.read_group(request, read, Instant::now() + wait, waits).await,
        _ => front.execute(request, command).await.map(Some),
    };
    match done {
        Ok(Some(Done { reply, entries, log_index, term })) => {
            Ok(Executed::Applied { log_index, term, outcome: Ok(reply), entries })
        }
        Ok(None) => Ok(Executed::Nothing),
        Err(Denied::Refused(refusal)) => {
            Ok(Executed::Applied { log_index: 0, term: 0, outcome: Err(refusal), entries: Vec::new() })
        }
        Err(Denied::Full(full)) => Err(NotExecuted::Overloaded { limit: full.limit }),
        Err(Denied::Block(error)) => Err(NotExecuted::Unknown(error.to_string())),
        Err(Denied::Broken(problem)) => Err(NotExecuted::Unknown(problem.into())),
        Err(Denied::Unavailable(unavailable)) => Err(match unavailable {
            Unavailable::NotLeader(leader) => NotExecuted::NotLeader { leader_id: Some(leader.node_id) },
            Unavailable::NoLeader => NotExecuted::NotLeader { leader_id: None },
            Unavailable::NotReady => NotExecuted::NotReady,
            Unavailable::Overloaded { limit } => NotExecuted::Overloaded { limit },
            Unavailable::DiskFull { nodes } => NotExecuted::DiskFull { nodes },
            Unavailable::CommitUnknown(problem) => NotExecuted::Unknown(problem),
            Unavailable::Stopped => NotExecuted::Unknown("the node has stopped".into()),
        }),
    }
}
