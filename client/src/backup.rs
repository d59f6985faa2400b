//! Backups: the state of a live cluster at a log index, as bytes.

use std::time::Duration;

use bytes::Bytes;
use millstream_proto::admin::v1 as admin;
use millstream_proto::admin::v1::backup_response::Part;
use tokio::time::Instant;
use tonic::Streaming;
use tonic_prost::ProstCodec;

use crate::backoff::Backoff;
use crate::transport::TransportError;
use crate::{Client, Error};

/// How long a node may be silent. It says every second that it is still preparing.
const SILENCE_MAX: Duration = Duration::from_secs(15);
const PATH: &str = "/millstream.admin.v1.ClusterService/Backup";

/// A backup as it arrives. Every piece is checked; it is complete when [`Backup::next`] has returned `None`.
#[derive(Debug)]
pub struct Backup {
    /// The cluster it is of.
    pub cluster_id: String,
    /// It holds the effect of all commands up to this log index, everything acknowledged before the call among them.
    pub log_index: u64,
    /// How long it will be, in bytes.
    pub length: u64,
    received: u64,
    parts: Streaming<admin::BackupResponse>,
}

impl Client {
    /// Begins a backup from any node that can make one within the deadline. The file that it makes is for `millstream-node restore`.
    pub async fn backup(&self) -> Result<Backup, Error> {
        // Nothing has been changed anywhere, so any node may be asked again.
        let deadline = Instant::now() + self.deadline;
        let mut delays = Backoff::new(&*self.shared.random);
        loop {
            let address = self.shared.endpoints.pick(true);
            let error = match self.begin_backup(&address).await {
                Err(error @ (Error::Unavailable { .. } | Error::Deadline)) => error,
                begun => return begun,
            };
            self.shared.endpoints.move_on(&address);
            let resume = Instant::now() + delays.next().unwrap_or_default();
            if deadline <= resume {
                return Err(error);
            }
            tokio::time::sleep_until(resume).await;
        }
    }

    async fn begin_backup(&self, address: &crate::endpoints::Address) -> Result<Backup, Error> {
        let connection = tokio::time::timeout(self.deadline, self.shared.pool.get(address)).await;
        let connection = connection.map_err(|_| Error::Deadline)?.map_err(|error| {
            let (TransportError::NotSent(message) | TransportError::Lost(message)) = error;
            Error::Unavailable { reason: None, message }
        })?;
        let origin = connection.origin();
        let mut grpc = tonic::client::Grpc::with_origin(connection, origin);
        let codec = ProstCodec::<admin::BackupRequest, admin::BackupResponse>::default();
        let request = tonic::Request::new(admin::BackupRequest {});
        let sending = grpc.server_streaming(request, http::uri::PathAndQuery::from_static(PATH), codec);
        let answer = tokio::time::timeout(SILENCE_MAX, sending).await.map_err(|_| Error::Deadline)?;
        let mut parts = answer.map_err(crate::call::explain)?.into_inner();
        loop {
            match part(&mut parts).await? {
                Part::Preparing(_) => {}
                Part::Header(admin::BackupHeader { cluster_id, log_index, length }) => {
                    return Ok(Backup { cluster_id, log_index, length, received: 0, parts });
                }
                Part::Chunk(_) | Part::End(_) => return Err(senseless("a backup begins with its header")),
            }
        }
    }
}

impl Backup {
    /// The next bytes. `None`: it is complete.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match part(&mut self.parts).await? {
            Part::Chunk(chunk) if chunk.offset == self.received && crc32c::crc32c(&chunk.data) == chunk.crc32c => {
                self.received += chunk.data.len() as u64;
                Ok(Some(chunk.data))
            }
            Part::End(end) if end.length == self.received && self.length == self.received => Ok(None),
            Part::Chunk(_) | Part::End(_) => Err(senseless("the backup was changed on its way")),
            Part::Preparing(_) | Part::Header(_) => Err(senseless("a backup has one header")),
        }
    }
}

async fn part(parts: &mut Streaming<admin::BackupResponse>) -> Result<Part, Error> {
    let message = tokio::time::timeout(SILENCE_MAX, parts.message()).await.map_err(|_| Error::Deadline)?;
    let message = message.map_err(crate::call::explain)?;
    message.and_then(|message| message.part).ok_or_else(|| senseless("the backup ended before its end"))
}

fn senseless(problem: &str) -> Error {
    Error::Unavailable { reason: None, message: problem.to_owned() }
}
