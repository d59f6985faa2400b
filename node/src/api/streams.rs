//! The rpcs on streams.

use millstream_proto::v1 as pb;
use millstream_proto::v1::stream_service_server::StreamService;
use millstream_streams::limits::NAME_BYTES_MAX;
use millstream_streams::{Append, DeleteEntries, DeleteStream, EntryId, RangeQuery, Reply, State, Trim};
use tonic::{Request, Response, Status};

use super::convert::{self, Result};
use super::errors::Failure;
use super::{Api, read, reply};

/// Bytes of one stream in a list, beside its name.
const SUMMARY_BYTES: usize = 64;

#[tonic::async_trait]
impl StreamService for Api {
    async fn append(
        &self,
        request: Request<pb::AppendRequest>,
    ) -> std::result::Result<Response<pb::AppendResponse>, Status> {
        Ok(Response::new(append(self, request.into_inner()).await?))
    }

    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> std::result::Result<Response<pb::RangeResponse>, Status> {
        Ok(Response::new(range(self, request.into_inner()).await?))
    }

    async fn read(&self, request: Request<pb::ReadRequest>) -> std::result::Result<Response<pb::ReadResponse>, Status> {
        Ok(Response::new(read::read(self, request.into_inner()).await?))
    }

    async fn delete_entries(
        &self,
        request: Request<pb::DeleteEntriesRequest>,
    ) -> std::result::Result<Response<pb::DeleteEntriesResponse>, Status> {
        Ok(Response::new(delete_entries(self, request.into_inner()).await?))
    }

    async fn trim(&self, request: Request<pb::TrimRequest>) -> std::result::Result<Response<pb::TrimResponse>, Status> {
        Ok(Response::new(trim(self, request.into_inner()).await?))
    }

    async fn get_stream(
        &self,
        request: Request<pb::GetStreamRequest>,
    ) -> std::result::Result<Response<pb::GetStreamResponse>, Status> {
        Ok(Response::new(get_stream(self, request.into_inner()).await?))
    }

    async fn list_streams(
        &self,
        request: Request<pb::ListStreamsRequest>,
    ) -> std::result::Result<Response<pb::ListStreamsResponse>, Status> {
        Ok(Response::new(list_streams(self, request.into_inner()).await?))
    }

    async fn delete_stream(
        &self,
        request: Request<pb::DeleteStreamRequest>,
    ) -> std::result::Result<Response<pb::DeleteStreamResponse>, Status> {
        Ok(Response::new(delete_stream(self, request.into_inner()).await?))
    }
}

async fn append(api: &Api, request: pb::AppendRequest) -> Result<pb::AppendResponse> {
    let command = Append {
        stream: convert::stream(&request.stream)?,
        id: convert::new_id(request.id)?,
        fields: convert::fields(&request.fields, api.limits.entry_bytes_max)?,
        no_create: request.no_create,
        trim: request.trim.map(|policy| convert::trim_policy("trim", policy)).transpose()?,
    };
    let done = api.execute(convert::request(request.request)?, command).await?;
    let Reply::Appended(appended) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::AppendResponse { header: api.header(), id: Some(reply::id(appended.id)), receipt: done.receipt })
}

async fn range(api: &Api, request: pb::RangeRequest) -> Result<pb::RangeResponse> {
    let query = RangeQuery {
        stream: convert::stream(&request.stream)?,
        start: convert::range_start(request.start)?,
        end: convert::range_end(request.end)?,
        reverse: request.reverse,
        count: convert::count("count", request.count, convert::PAGE_DEFAULT)? as usize,
    };
    api.barrier(convert::freshness(request.options)?).await?;
    let plan = |state: &State| Ok(((), vec![state.range(&query)]));
    let ((), pages) = api.entries(api.limits.response_bytes_max, plan)?;
    let page = pages.into_iter().next().unwrap_or_default();
    Ok(pb::RangeResponse { header: api.header(), entries: reply::entries(&page.entries), more: page.more })
}

async fn delete_entries(api: &Api, request: pb::DeleteEntriesRequest) -> Result<pb::DeleteEntriesResponse> {
    let command = DeleteEntries { stream: convert::stream(&request.stream)?, ids: convert::ids(&request.ids, 1)? };
    let done = api.execute(convert::request(request.request)?, command).await?;
    let Reply::EntriesDeleted(deleted) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::DeleteEntriesResponse { header: api.header(), deleted: deleted.deleted, receipt: done.receipt })
}

async fn trim(api: &Api, request: pb::TrimRequest) -> Result<pb::TrimResponse> {
    let policy = request.policy.ok_or_else(|| Failure::invalid("policy", "must be set"))?;
    let command = Trim { stream: convert::stream(&request.stream)?, policy: convert::trim_policy("policy", policy)? };
    let done = api.execute(convert::request(request.request)?, command).await?;
    let Reply::Trimmed(trimmed) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::TrimResponse { header: api.header(), trimmed: trimmed.trimmed, receipt: done.receipt })
}

async fn get_stream(api: &Api, request: pb::GetStreamRequest) -> Result<pb::GetStreamResponse> {
    let stream = convert::stream(&request.stream)?;
    api.barrier(convert::freshness(request.options)?).await?;
    let end =
        |reverse| RangeQuery { stream: stream.clone(), start: EntryId::MIN, end: EntryId::MAX, reverse, count: 1 };
    // Two entries whatever their size.
    let (info, pages) = api.entries(usize::MAX, |state| {
        Ok((state.stream_info(&stream)?, vec![state.range(&end(false)), state.range(&end(true))]))
    })?;
    let mut ends = pages.into_iter().map(|page| page.entries.first().map(reply::entry));
    Ok(pb::GetStreamResponse {
        header: api.header(),
        stream: request.stream,
        length: info.length,
        last_id: Some(reply::id(info.last_id)),
        max_deleted_id: Some(reply::id(info.max_deleted_id)),
        entries_added: info.entries_added,
        groups: info.groups,
        first_entry: ends.next().flatten(),
        last_entry: ends.next().flatten(),
    })
}

async fn list_streams(api: &Api, request: pb::ListStreamsRequest) -> Result<pb::ListStreamsResponse> {
    let pb::ListStreamsRequest { prefix, page_size, page_token, options } = request;
    if NAME_BYTES_MAX < prefix.len() {
        return Err(Failure::too_large("prefix", NAME_BYTES_MAX as u64, "bytes"));
    }
    let count = convert::count("page_size", page_size, convert::PAGE_DEFAULT)? as usize;
    let after = convert::page_token(&page_token, &prefix)?;
    api.barrier(convert::freshness(options)?).await?;

    // One more than asked for says whether there is a next page.
    let mut found = api.replica.with_state(|state| state.list_streams(&prefix, after.as_ref(), count + 1));
    let mut bytes_left = api.limits.response_bytes_max;
    let kept = found.iter().take(count).take_while(|summary| {
        let bytes = summary.stream.as_str().len() + SUMMARY_BYTES;
        let fits = bytes <= bytes_left;
        bytes_left = bytes_left.saturating_sub(bytes);
        fits
    });
    // At least one, or the next page would be this one.
    let kept = kept.count().max(1);
    let more = kept < found.len();
    found.truncate(kept);
    let next_page_token = found.last().filter(|_| more).map(|last| last.stream.to_string()).unwrap_or_default();
    let streams = found.into_iter().map(|summary| pb::StreamSummary {
        stream: summary.stream.to_string(),
        length: summary.length,
        last_id: Some(reply::id(summary.last_id)),
        groups: summary.groups,
    });
    Ok(pb::ListStreamsResponse { header: api.header(), streams: streams.collect(), next_page_token })
}

async fn delete_stream(api: &Api, request: pb::DeleteStreamRequest) -> Result<pb::DeleteStreamResponse> {
    let command = DeleteStream { stream: convert::stream(&request.stream)? };
    let done = api.execute(convert::request(request.request)?, command).await?;
    let Reply::StreamDeleted(deleted) = &done.reply else { return Err(Failure::mismatched()) };
    Ok(pb::DeleteStreamResponse { header: api.header(), deleted: deleted.existed, receipt: done.receipt })
}
