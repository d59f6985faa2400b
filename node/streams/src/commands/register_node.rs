//! Say where a node is reached, and tie its id to its data.

use minicbor::{Decode, Encode};

use super::{Apply, Context, Stop};
use crate::error::Refusal;
use crate::limits::ADDRESS_BYTES_MAX;
use crate::state::NodeRecord;

/// Records where a node is reached.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct RegisterNode {
    /// The node's id.
    #[n(0)]
    pub node_id: u64,
    /// A random number drawn with the node's data directory: a wiped node cannot come back under its old id.
    #[n(1)]
    pub incarnation: u64,
    /// Where other nodes reach it: `host:port`, at most [`ADDRESS_BYTES_MAX`] bytes.
    #[n(2)]
    pub peer_address: String,
    /// Where clients reach it: `host:port`, at most [`ADDRESS_BYTES_MAX`] bytes.
    #[n(3)]
    pub client_address: String,
}

/// The node is known.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NodeRegistered {}

impl Apply for RegisterNode {
    type Reply = NodeRegistered;

    fn check(&self) -> Result<(), Refusal> {
        Refusal::check_limit("peer_address", self.peer_address.len() as u64, ADDRESS_BYTES_MAX as u64)?;
        Refusal::check_limit("client_address", self.client_address.len() as u64, ADDRESS_BYTES_MAX as u64)
    }

    fn apply(&self, context: &mut Context<'_>) -> Result<NodeRegistered, Stop> {
        let RegisterNode { node_id, incarnation, peer_address, client_address } = self.clone();
        if context.state.node(node_id).is_some_and(|known| known.incarnation != incarnation) {
            return Err(Refusal::NodeIncarnationMismatch { node_id }.into());
        }
        context.state.set_node(NodeRecord { node_id, incarnation, peer_address, client_address });
        Ok(NodeRegistered {})
    }
}
