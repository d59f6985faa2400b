//! `cluster status`.

use clap::Subcommand;
use millstream_client::{Client, NodeRole};
use serde_json::Value;

use crate::Failure;
use crate::output::Output;

/// The cluster.
#[derive(Subcommand)]
pub(crate) enum Cluster {
    /// Asks every endpoint for its view. Digests are comparable between nodes at the same applied index
    Status,
}

impl Cluster {
    pub(crate) async fn run(self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        let Self::Status = self;
        let asked = client.endpoints().map(|endpoint| async move { (endpoint, client.status(endpoint).await) });
        let answers = futures::future::join_all(asked).await;
        let nobody = answers.iter().all(|(_, answer)| answer.is_err());
        let rows = answers.into_iter().map(|(endpoint, answer)| match answer {
            Ok(status) => {
                let role = role(status.role());
                [
                    status.node_id.into(),
                    role.into(),
                    endpoint.into(),
                    status.term.into(),
                    status.applied_index.into(),
                    status.durable_index.into(),
                    status.state_digest.into(),
                    Value::Null,
                ]
            }
            Err(error) => {
                let mut row = [const { Value::Null }; 8];
                row[1] = "unreachable".into();
                row[2] = endpoint.into();
                row[7] = error.to_string().into();
                row
            }
        });
        let header = ["node", "role", "address", "term", "applied_index", "durable_index", "digest", "error"];
        out.table(header, rows.collect())?;
        out.flush()?;
        if nobody { Err(Failure::NobodyAnswered) } else { Ok(()) }
    }
}

fn role(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Unspecified => "unknown",
        NodeRole::Leader => "leader",
        NodeRole::Follower => "follower",
        NodeRole::Candidate => "candidate",
        NodeRole::Learner => "learner",
    }
}
