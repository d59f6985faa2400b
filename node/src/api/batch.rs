//! The rpc that does several things as one (MULTI, EXEC, WATCH).

use millstream_proto::v1 as pb;
use millstream_proto::v1::batch_service_server::BatchService;
use millstream_streams::{Batch, Command, Refusal, Reply};
use tonic::{Request, Response};

use super::convert::{self, ConvertedBatch, Result};
use super::errors::Failure;
use super::reply::{self, Payloads, Room};
use super::{Answer, Api};

#[tonic::async_trait]
impl BatchService for Api {
    async fn batch(&self, request: Request<pb::BatchRequest>) -> Answer<pb::BatchResponse> {
        Ok(Response::new(batch(self, request.into_inner()).await?))
    }
}

async fn batch(api: &Api, request: pb::BatchRequest) -> Result<pb::BatchResponse> {
    let identity = convert::request(request.request)?;
    let ConvertedBatch { batch, names } = convert::batch(request, &api.limits)?;
    let refused = |refusal| refused(refusal, &names);
    let command = Command::from(batch.clone());
    command.check().map_err(refused)?;
    let committed = api.replica.propose(identity, command).await?;
    let receipt = Some(super::receipt(&committed));
    let applied = committed.applied;
    let Reply::Batched(batched) = applied.outcome.map_err(refused)? else { return Err(Failure::mismatched()) };

    let Batch { operations, .. } = &batch;
    if operations.len() != batched.results.len() {
        return Err(Failure::mismatched());
    }
    // The core has bounded the bytes of entries and rows together.
    let mut room = Room::new(usize::MAX);
    let mut payloads = Payloads::new(applied.entries);
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
