//! The rpcs on sessions.

use millstream_proto::v1 as pb;
use millstream_proto::v1::session_service_server::SessionService;
use millstream_streams::limits::SESSION_IDLE_MS_MAX;
use millstream_streams::{CloseSession, OpenSession, Reply};
use tonic::{Request, Response, Status};

use super::Api;
use super::convert::Result;
use super::errors::Failure;

#[tonic::async_trait]
impl SessionService for Api {
    async fn open_session(
        &self,
        _: Request<pb::OpenSessionRequest>,
    ) -> std::result::Result<Response<pb::OpenSessionResponse>, Status> {
        Ok(Response::new(open_session(self).await?))
    }

    async fn close_session(
        &self,
        request: Request<pb::CloseSessionRequest>,
    ) -> std::result::Result<Response<pb::CloseSessionResponse>, Status> {
        Ok(Response::new(close_session(self, request.into_inner()).await?))
    }
}

async fn open_session(api: &Api) -> Result<pb::OpenSessionResponse> {
    let done = api.execute(None, OpenSession {}).await?;
    let Reply::SessionOpened(opened) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::OpenSessionResponse { header: api.header(), session_id: opened.session, idle_ms_max: SESSION_IDLE_MS_MAX })
}

async fn close_session(api: &Api, request: pb::CloseSessionRequest) -> Result<pb::CloseSessionResponse> {
    let done = api.execute(None, CloseSession { session: request.session_id }).await?;
    let Reply::SessionClosed(closed) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::CloseSessionResponse { header: api.header(), closed: closed.existed })
}
