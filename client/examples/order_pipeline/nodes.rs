//! The nodes: who leads, kill one, start it again, wait until they agree.

use std::path::{Path, PathBuf};
use std::time::Duration;

use millstream_client::{Client, ClientOptions, NodeRole, NodeStatus};

use crate::Outcome;

/// How long to wait for the cluster to come to terms: elections and catching up included.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How often to look.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The nodes 1, 2, 3 and the folder of their keeper.
pub(crate) struct Nodes {
    endpoints: Vec<String>,
    dir: PathBuf,
    client: Client,
}

impl Nodes {
    /// The nodes at these endpoints, in the order of their ids.
    pub(crate) fn new(endpoints: &[String], dir: PathBuf) -> Outcome<Self> {
        let options = ClientOptions { deadline: Duration::from_secs(2), ..ClientOptions::new(endpoints) };
        Ok(Self { endpoints: endpoints.to_vec(), dir, client: Client::connect(options)? })
    }

    /// The node that leads.
    pub(crate) async fn leader(&self) -> Outcome<u64> {
        wait_for("a leader", async || {
            for endpoint in &self.endpoints {
                if let Ok(status) = self.client.status(endpoint).await
                    && status.role() == NodeRole::Leader
                {
                    return Ok(Some(status.node_id));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Has a node killed, and returns when it is dead.
    pub(crate) async fn kill(&self, node: u64) -> Outcome<()> {
        std::fs::write(self.dir.join(format!("{node}.kill")), "")?;
        let pid_file = self.dir.join(format!("{node}.pid"));
        wait_for("the end of a node", async || Ok((!Path::exists(&pid_file)).then_some(()))).await
    }

    /// Has a node started again.
    pub(crate) fn start(&self, node: u64) -> Outcome<()> {
        Ok(std::fs::write(self.dir.join(format!("{node}.start")), "")?)
    }

    /// Waits until all nodes have applied the same log, and returns the status they then agree on. That they have
    /// applied the same log and hold different states is an error at once.
    pub(crate) async fn agreed(&self) -> Outcome<NodeStatus> {
        wait_for("agreement of all nodes", async || {
            let mut first: Option<NodeStatus> = None;
            for endpoint in &self.endpoints {
                let Ok(status) = self.client.status(endpoint).await else { return Ok(None) };
                let first = first.get_or_insert_with(|| status.clone());
                if status.applied_index != first.applied_index {
                    return Ok(None);
                }
                if status.state_digest != first.state_digest || status.state_digest.is_empty() {
                    let index = status.applied_index;
                    return Err(format!(
                        "at index {index} node {} has digest {:?}, node {} {:?}",
                        first.node_id, first.state_digest, status.node_id, status.state_digest
                    )
                    .into());
                }
            }
            Ok(first)
        })
        .await
    }
}

async fn wait_for<T>(what: &str, look: impl AsyncFn() -> Outcome<Option<T>>) -> Outcome<T> {
    let looking = async {
        loop {
            if let Some(found) = look().await? {
                return Ok(found);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(WAIT_MAX, looking).await.map_err(|_| format!("{what} did not come within {WAIT_MAX:?}"))?
}
