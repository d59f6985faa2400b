//! `millstream-node restore`: the first node of a new cluster, from a backup.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::{Engine, LogOptions};
use crate::replica::{self, Restore, Restored};
use crate::world::World;

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArguments {
    /// The file that `millstream backup` has written
    pub file: PathBuf,
    /// The node's id in the new cluster
    #[arg(long, env = "MILLSTREAM_NODE_ID", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub node_id: u64,
    /// Where other nodes will reach this node; start it with the same --peer-advertise or --peer-listen
    #[arg(long, env = "MILLSTREAM_PEER_ADVERTISE", default_value = "127.0.0.1:7421")]
    pub peer_advertise: String,
    /// The engine that will hold the state: redb, sled or memory; start the node with the same
    #[arg(long, env = "MILLSTREAM_ENGINE", default_value = "redb")]
    pub engine: Engine,
}

/// Restores a backup into an empty data directory, and says what to do next. An error is a sentence.
pub async fn restore(world: &World, data_dir: &Path, arguments: RestoreArguments) -> Result<String, String> {
    let RestoreArguments { file, node_id, peer_advertise, engine } = arguments;
    let data_dir = data_dir.to_owned();
    let segment_bytes = LogOptions::default().segment_bytes;
    let asked = Restore { file, data_dir, node_id, peer_advertise, engine, segment_bytes };
    let Restored { cluster_id, log_index, rows } =
        replica::restore(world, &asked).await.map_err(|error| error.to_string())?;
    Ok(format!(
        "restored {rows} rows up to log index {log_index} into {}, as node {node_id} of the new cluster {cluster_id}. \
         Start it with --node-id {node_id} and --peer-advertise {}, start others with --join, and add them with \
         `millstream cluster add`",
        asked.data_dir.display(),
        asked.peer_advertise
    ))
}
