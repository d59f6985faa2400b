//! Give the cluster its id, once.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::error::Refusal;
use crate::limits::CLUSTER_ID_BYTES_MAX;

/// Gives the cluster its id. The first one wins; a later one changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct CreateCluster {
    /// The id: 1 to [`CLUSTER_ID_BYTES_MAX`] bytes.
    #[n(0)]
    pub cluster_id: String,
}

/// The cluster has an id.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ClusterCreated {
    /// The id that it has, perhaps from an earlier command.
    #[n(0)]
    pub cluster_id: String,
}

impl Apply for CreateCluster {
    type Reply = ClusterCreated;

    fn check(&self) -> Result<(), Refusal> {
        if self.cluster_id.is_empty() {
            return Err(Refusal::invalid("cluster_id", "must not be empty"));
        }
        Refusal::check_limit("cluster_id", self.cluster_id.len() as u64, CLUSTER_ID_BYTES_MAX as u64)
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<ClusterCreated, Stop> {
        Ok(ClusterCreated { cluster_id: context.state.create_cluster(&self.cluster_id).to_owned() })
    }
}
