//! The rpcs on streams.

use millstream_proto::v1 as pb;
use millstream_proto::v1::stream_service_server::StreamService;
use millstream_streams::{DeleteAll, EntryId, RangeQuery, Reply, State};
use tonic::{Request, Response};

use super::convert::{self, Result};
use super::errors::Failure;
use super::reply::{self, Room};
use super::{Answer, Api, EntryBounds, read};

#[tonic::async_trait]
impl StreamService for Api {
    async fn append(&self, request: Request<pb::AppendRequest>) -> Answer<pb::AppendResponse> {
        Ok(Response::new(append(self, request.into_inner()).await?))
    }

    async fn range(&self, request: Request<pb::RangeRequest>) -> Answer<pb::RangeResponse> {
        Ok(Response::new(range(self, request.into_inner()).await?))
    }

    async fn read(&self, request: Request<pb::ReadRequest>) -> Answer<pb::ReadResponse> {
        Ok(Response::new(read::read(self, request.into_inner()).await?))
    }

    async fn delete_entries(&self, request: Request<pb::DeleteEntriesRequest>) -> Answer<pb::DeleteEntriesResponse> {
        Ok(Response::new(delete_entries(self, request.into_inner()).await?))
    }

    async fn trim(&self, request: Request<pb::TrimRequest>) -> Answer<pb::TrimResponse> {
        Ok(Response::new(trim(self, request.into_inner()).await?))
    }

    async fn get_stream(&self, request: Request<pb::GetStreamRequest>) -> Answer<pb::GetStreamResponse> {
        Ok(Response::new(get_stream(self, request.into_inner()).await?))
    }

    async fn inspect_stream(&self, request: Request<pb::InspectStreamRequest>) -> Answer<pb::InspectStreamResponse> {
        Ok(Response::new(inspect_stream(self, request.into_inner()).await?))
    }

    async fn set_last_id(&self, request: Request<pb::SetLastIdRequest>) -> Answer<pb::SetLastIdResponse> {
        Ok(Response::new(set_last_id(self, request.into_inner()).await?))
    }

    async fn configure_stream(
        &self,
        request: Request<pb::ConfigureStreamRequest>,
    ) -> Answer<pb::ConfigureStreamResponse> {
        Ok(Response::new(configure_stream(self, request.into_inner()).await?))
    }

    async fn record_idempotency(
        &self,
        request: Request<pb::RecordIdempotencyRequest>,
    ) -> Answer<pb::RecordIdempotencyResponse> {
        Ok(Response::new(record_idempotency(self, request.into_inner()).await?))
    }

    async fn list_streams(&self, request: Request<pb::ListStreamsRequest>) -> Answer<pb::ListStreamsResponse> {
        Ok(Response::new(list_streams(self, request.into_inner()).await?))
    }

    async fn delete_stream(&self, request: Request<pb::DeleteStreamRequest>) -> Answer<pb::DeleteStreamResponse> {
        Ok(Response::new(delete_stream(self, request.into_inner()).await?))
    }

    async fn delete_all(&self, request: Request<pb::DeleteAllRequest>) -> Answer<pb::DeleteAllResponse> {
        Ok(Response::new(delete_all(self, request.into_inner()).await?))
    }
}

async fn append(api: &Api, request: pb::AppendRequest) -> Result<pb::AppendResponse> {
    let identity = convert::request(request.request)?;
    let done = api.execute(identity, convert::append(request, &api.front.limits)?).await?;
    let Reply::Appended(appended) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::AppendResponse { header: api.header(), receipt: done.receipt, ..reply::append(appended) })
}

async fn range(api: &Api, request: pb::RangeRequest) -> Result<pb::RangeResponse> {
    let freshness = convert::freshness(request.options)?;
    let query = convert::range(request)?;
    api.barrier(freshness).await?;
    let plan = |state: &State| Ok(((), vec![state.range(&query)]));
    let ((), pages) = api.entries(EntryBounds::bytes(api.front.limits.response_bytes_max), plan)?;
    let page = pages.into_iter().next().unwrap_or_default();
    Ok(pb::RangeResponse { header: api.header(), entries: reply::entries(&page.entries), more: page.more })
}

async fn delete_entries(api: &Api, request: pb::DeleteEntriesRequest) -> Result<pb::DeleteEntriesResponse> {
    let identity = convert::request(request.request)?;
    let done = api.execute(identity, convert::delete_entries(request)?).await?;
    let Reply::EntriesDeleted(deleted) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::DeleteEntriesResponse { header: api.header(), receipt: done.receipt, ..reply::delete_entries(deleted) })
}

async fn trim(api: &Api, request: pb::TrimRequest) -> Result<pb::TrimResponse> {
    let identity = convert::request(request.request)?;
    let done = api.execute(identity, convert::trim(request)?).await?;
    let Reply::Trimmed(trimmed) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::TrimResponse { header: api.header(), receipt: done.receipt, ..reply::trim(trimmed) })
}

async fn get_stream(api: &Api, request: pb::GetStreamRequest) -> Result<pb::GetStreamResponse> {
    let freshness = convert::freshness(request.options)?;
    let stream = convert::get_stream(request)?;
    api.barrier(freshness).await?;
    let end =
        |reverse| RangeQuery { stream: stream.clone(), start: EntryId::MIN, end: EntryId::MAX, reverse, count: 1 };
    // Two entries whatever their size.
    let (info, pages) = api.entries(EntryBounds::bytes(usize::MAX), |state| {
        Ok((state.stream_info(&stream)?, vec![state.range(&end(false)), state.range(&end(true))]))
    })?;
    let mut ends = pages.iter().map(|page| page.entries.first().map(reply::entry));
    let (first, last) = (ends.next().flatten(), ends.next().flatten());
    Ok(pb::GetStreamResponse { header: api.header(), ..reply::get_stream(&stream, &info, first, last) })
}

async fn inspect_stream(api: &Api, request: pb::InspectStreamRequest) -> Result<pb::InspectStreamResponse> {
    let freshness = convert::freshness(request.options)?;
    let convert::Inspection { stream, count } = convert::inspect_stream(request)?;
    api.barrier(freshness).await?;
    let first = RangeQuery { stream: stream.clone(), start: EntryId::MIN, end: EntryId::MAX, reverse: false, count };
    // Half of the answer for the entries, half for groups, consumers and pending entries.
    let bytes_max = api.front.limits.response_bytes_max / 2;
    let (details, pages) = api.entries(EntryBounds::bytes(bytes_max), |state| {
        Ok((state.stream_details(&stream, count)?, vec![state.range(&first)]))
    })?;
    let entries = pages.iter().flat_map(|page| reply::entries(&page.entries)).collect();
    let mut response = reply::inspect_stream(&stream, &details, entries, &mut Room::new(bytes_max));
    if let Some(stream) = &mut response.stream {
        stream.header = api.header();
    }
    Ok(response)
}

async fn set_last_id(api: &Api, request: pb::SetLastIdRequest) -> Result<pb::SetLastIdResponse> {
    let identity = convert::request(request.request)?;
    let done = api.execute(identity, convert::set_last_id(request)?).await?;
    let Reply::LastIdSet(_) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::SetLastIdResponse { header: api.header(), receipt: done.receipt })
}

async fn configure_stream(api: &Api, request: pb::ConfigureStreamRequest) -> Result<pb::ConfigureStreamResponse> {
    let identity = convert::request(request.request)?;
    let done = api.execute(identity, convert::configure_stream(request)?).await?;
    let Reply::StreamConfigured(configured) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::ConfigureStreamResponse {
        header: api.header(),
        receipt: done.receipt,
        ..reply::configure_stream(configured)
    })
}

async fn record_idempotency(api: &Api, request: pb::RecordIdempotencyRequest) -> Result<pb::RecordIdempotencyResponse> {
    let identity = convert::request(request.request)?;
    let done = api.execute(identity, convert::record_idempotency(request)?).await?;
    let Reply::IdempotencyRecorded(recorded) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::RecordIdempotencyResponse {
        header: api.header(),
        receipt: done.receipt,
        ..reply::record_idempotency(recorded)
    })
}

async fn list_streams(api: &Api, request: pb::ListStreamsRequest) -> Result<pb::ListStreamsResponse> {
    let freshness = convert::freshness(request.options)?;
    let convert::StreamsPage { prefix, after, count } = convert::list_streams(request)?;
    api.barrier(freshness).await?;
    // One more than asked for says whether there is a next page.
    let mut found = api.front.replica.with_state(|state| state.list_streams(&prefix, after.as_ref(), count + 1));
    let more = count < found.len();
    found.truncate(count);
    let page = reply::list_streams(found, more, &mut Room::new(api.front.limits.response_bytes_max));
    Ok(pb::ListStreamsResponse { header: api.header(), ..page })
}

async fn delete_stream(api: &Api, request: pb::DeleteStreamRequest) -> Result<pb::DeleteStreamResponse> {
    let identity = convert::request(request.request)?;
    let done = api.execute(identity, convert::delete_stream(request)?).await?;
    let Reply::StreamDeleted(deleted) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::DeleteStreamResponse { header: api.header(), receipt: done.receipt, ..reply::delete_stream(deleted) })
}

async fn delete_all(api: &Api, request: pb::DeleteAllRequest) -> Result<pb::DeleteAllResponse> {
    let done = api.execute(convert::request(request.request)?, DeleteAll {}).await?;
    let Reply::AllDeleted(deleted) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::DeleteAllResponse { header: api.header(), receipt: done.receipt, ..reply::delete_all(deleted) })
}
