//! The rpc that does several things as one (MULTI, EXEC, WATCH).

use millstream_proto::v1 as pb;
use millstream_proto::v1::batch_service_server::BatchService;
use millstream_streams::{Batch, Command, Refusal, Reply};
use tonic::{Request, Response};

use super::convert::{self, ConvertedBatch, Result};
use super::errors::Failure;
use super::reply::{self, Payloads, Room};
use super::{Answer, Api, Done};
use crate::front::Denied;

#[tonic::async_trait]
impl BatchService for Api {
    async fn batch(&self, request: Request<pb::BatchRequest>) -> Answer<pb::BatchResponse> {
        Ok(Response::new(batch(self, request.into_inner()).await?))
    }
}

async fn batch(api: &Api, request: pb::BatchRequest) -> Result<pb::BatchResponse> {
    let identity = convert::request(request.request)?;
    let ConvertedBatch { batch, names } = convert::batch(request, &api.front.limits)?;
    let refused = |refusal| refused(refusal, &names);
    let command = Command::from(batch.clone());
    let done: Done = match api.front.execute(identity, command).await {
        Ok(done) => done.into(),
        Err(Denied::Refused(refusal)) => return Err(refused(refusal)),
        Err(denied) => return Err(denied.into()),
    };
    let Done { reply: Reply::Batched(batched), entries, receipt } = done else { return Err(Failure::mismatched()) };

    let Batch { operations, .. } = &batch;
    if operations.len() != batched.results.len() {
        return Err(Failure::mismatched());
    }
    // The core has bounded the bytes of entries and rows together.
    let mut room = Room::new(usize::MAX);
    let mut payloads = Payloads::new(entries);
    let result = |(operation, outcome)| reply::batch_result(operation, outcome, &mut payloads, &mut room);
    let results = operations.iter().zip(&batched.results).map(result).collect::<Result<_>>()?;
    Ok(pb::BatchResponse { header: api.header(), results, receipt })
}

/// Why a batch was refused; if for one of its operations, with the path of that.
fn refused(refusal: Refusal, names: &[&'static str]) -> Failure {
    match refusal {
        Refusal::OperationRefused { operation, refusal } => match names.get(operation as usize) {
            Some(name) => Failure::from(*refusal).of_operation(operation as usize, name),
            None => Failure::mismatched(),
        },
        refusal => refusal.into(),
    }
}
