//! `cluster status|add|promote|remove|transfer`.

use std::time::Duration;

use clap::Subcommand;
use millstream_client::{Client, Member, NodeRole};
use serde_json::{Value, json};

use crate::Failure;
use crate::output::Output;
use crate::parse;

/// The cluster.
#[derive(Subcommand)]
pub(crate) enum Cluster {
    /// Asks every endpoint for its view. Digests are comparable between nodes at the same applied index
    Status,
    /// Adds a node that was started with --join: it receives everything and has no vote yet
    Add {
        /// Its id, never used before in this cluster
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        node_id: u64,
        /// Where other nodes reach it, as host:port
        peer_address: String,
    },
    /// Gives a learner a vote, once it has caught up
    Promote {
        /// The learner
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        node_id: u64,
        /// How long to wait for a node that is far behind: 500ms, 10s, at most 30s
        #[arg(long, default_value = "30s", value_parser = parse::duration)]
        wait: Duration,
    },
    /// Removes a node for good: its id can never be used again. The node itself is to be stopped afterwards
    Remove {
        /// The node
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        node_id: u64,
    },
    /// Hands leadership to a node and waits until it leads
    Transfer {
        /// The node
        #[arg(value_parser = clap::value_parser!(u64).range(1..))]
        node_id: u64,
    },
}

impl Cluster {
    pub(crate) async fn run(self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        match self {
            Self::Status => status(client, out).await,
            Self::Add { node_id, peer_address } => members(client.add_learner(node_id, peer_address).await?, out),
            Self::Promote { node_id, wait } => members(client.change_voters([node_id], [], wait).await?, out),
            Self::Remove { node_id } => members(client.change_voters([], [node_id], Duration::ZERO).await?, out),
            Self::Transfer { node_id } => {
                let term = client.transfer_leader(node_id).await?;
                Ok(out.result(format!("node {node_id} leads"), json!({ "leader_id": node_id, "term": term }))?)
            }
        }
    }
}

async fn status(client: &Client, out: &mut Output) -> Result<(), Failure> {
    let asked = client.endpoints().map(|endpoint| async move { (endpoint, client.status(endpoint).await) });
    let answers = futures::future::join_all(asked).await;
    let nobody = answers.iter().all(|(_, answer)| answer.is_err());
    let rows = answers.into_iter().map(|(endpoint, answer)| match answer {
        Ok(status) => {
            let role = if status.removed { "removed" } else { role(status.role()) };
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

fn members(members: Vec<Member>, out: &mut Output) -> Result<(), Failure> {
    let rows = members.into_iter().map(|member| {
        let Member { node_id, peer_address, client_address, voter, matched_index } = member;
        let votes = if voter { "voter" } else { "learner" };
        [node_id.into(), votes.into(), peer_address.into(), client_address.into(), matched_index.into()]
    });
    Ok(out.table(["node", "votes", "peer_address", "address", "matched_index"], rows.collect())?)
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
