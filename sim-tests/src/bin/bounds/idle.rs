//! What connections to the Redis door cost a node while nothing comes over them.

use std::time::Duration;

use millstream_sim_tests::real::Outcome;
use millstream_sim_tests::real::node::NodeProcess;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::table::{Bound, Table, Unit};

/// As many as a node takes.
const CONNECTIONS: u64 = 10_000;
/// Files that this program needs beside them.
const OTHER_FILES: u64 = 200;
/// For the node to have answered all and to rest.
const REST: Duration = Duration::from_secs(1);

/// Opens them, speaks once over each, and looks at the node's memory.
pub(crate) async fn connections(node: &mut NodeProcess, table: &mut Table) -> Outcome<()> {
    let files = rlimit::increase_nofile_limit(u64::MAX)?;
    let count = CONNECTIONS.min(files.saturating_sub(OTHER_FILES));
    let before = node.memory()?.now;
    let mut open = Vec::new();
    for _ in 0..count {
        let mut connection = TcpStream::connect(node.spec().resp_address()).await?;
        connection.write_all(b"PING\r\n").await?;
        let mut answer = [0; 7];
        connection.read_exact(&mut answer).await?;
        if &answer != b"+PONG\r\n" {
            return Err(
                format!("connection {} was answered {:?}", open.len(), answer.escape_ascii().to_string()).into()
            );
        }
        open.push(connection);
    }
    tokio::time::sleep(REST).await;
    let cost = node.memory()?.now.saturating_sub(before);
    table.add("idle connections to the Redis door", count as f64, Unit::Count, Bound::None);
    let bound = Bound::AtMost((200 << 20) as f64 * count as f64 / CONNECTIONS as f64);
    table.add("idle connections: what they cost the node", cost as f64, Unit::Bytes, bound);
    Ok(())
}
