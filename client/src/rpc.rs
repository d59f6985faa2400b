//! Every rpc, as one table: its path, its messages, and what a repeat means for it.

use millstream_proto::admin::v1 as admin;
use millstream_proto::v1 as pb;

mod sealed {
    pub trait Sealed {}
}

/// A request of the API that [`crate::Client::call`] can send. Implemented for the requests of [`crate::proto`] only.
pub trait Rpc: sealed::Sealed + prost::Message + Clone + Sync + 'static {
    /// Its answer.
    type Response: prost::Message + Default + Sync + 'static;
    #[doc(hidden)]
    const PATH: &'static str;
    /// The call changes state, so it must not be repeated without a request identity.
    #[doc(hidden)]
    const MUTATES: bool;
    #[doc(hidden)]
    fn identity(&mut self) -> Option<&mut Option<pb::RequestIdentity>> {
        None
    }
    #[doc(hidden)]
    fn options(&mut self) -> Option<&mut Option<pb::ReadOptions>> {
        None
    }
    #[doc(hidden)]
    fn wait(&mut self) -> Option<&mut Option<prost_types::Duration>> {
        None
    }
}

/// `mutation`: has a request identity. `query`: has read options. `plain`: neither, and a repeat does no harm.
/// `waiting`: also has a `wait`.
macro_rules! rpcs {
    ($($service:literal $package:ident { $($method:literal $request:ident => $response:ident: $($kind:ident)+;)+ })+) => {
        /// The path and the messages of each.
        #[cfg(test)]
        const TABLE: &[[&str; 3]] =
            &[$($([concat!("/", $service, "/", $method), stringify!($request), stringify!($response)]),+),+];
    $($(
        impl sealed::Sealed for $package::$request {}
        impl Rpc for $package::$request {
            type Response = $package::$response;
            const PATH: &'static str = concat!("/", $service, "/", $method);
            const MUTATES: bool = rpcs!(@mutates $($kind)+);
            $(rpcs!(@method $kind);)+
        }
    )+)+};
    (@mutates mutation $($rest:ident)*) => { true };
    (@mutates $($rest:ident)+) => { false };
    (@method mutation) => {
        fn identity(&mut self) -> Option<&mut Option<pb::RequestIdentity>> {
            Some(&mut self.request)
        }
    };
    (@method query) => {
        fn options(&mut self) -> Option<&mut Option<pb::ReadOptions>> {
            Some(&mut self.options)
        }
    };
    (@method waiting) => {
        fn wait(&mut self) -> Option<&mut Option<prost_types::Duration>> {
            Some(&mut self.wait)
        }
    };
    (@method plain) => {};
}

rpcs! {
    "millstream.v1.StreamService" pb {
        "Append" AppendRequest => AppendResponse: mutation;
        "Range" RangeRequest => RangeResponse: query;
        "Read" ReadRequest => ReadResponse: query waiting;
        "DeleteEntries" DeleteEntriesRequest => DeleteEntriesResponse: mutation;
        "Trim" TrimRequest => TrimResponse: mutation;
        "GetStream" GetStreamRequest => GetStreamResponse: query;
        "InspectStream" InspectStreamRequest => InspectStreamResponse: query;
        "SetLastId" SetLastIdRequest => SetLastIdResponse: mutation;
        "ConfigureStream" ConfigureStreamRequest => ConfigureStreamResponse: mutation;
        "RecordIdempotency" RecordIdempotencyRequest => RecordIdempotencyResponse: mutation;
        "ListStreams" ListStreamsRequest => ListStreamsResponse: query;
        "DeleteStream" DeleteStreamRequest => DeleteStreamResponse: mutation;
        "DeleteAll" DeleteAllRequest => DeleteAllResponse: mutation;
    }
    "millstream.v1.ConsumerGroupService" pb {
        "CreateGroup" CreateGroupRequest => CreateGroupResponse: mutation;
        "SetGroupPosition" SetGroupPositionRequest => SetGroupPositionResponse: mutation;
        "DeleteGroup" DeleteGroupRequest => DeleteGroupResponse: mutation;
        "CreateConsumer" CreateConsumerRequest => CreateConsumerResponse: mutation;
        "DeleteConsumer" DeleteConsumerRequest => DeleteConsumerResponse: mutation;
        "ReadGroup" ReadGroupRequest => ReadGroupResponse: mutation waiting;
        "Ack" AckRequest => AckResponse: mutation;
        "AckAndDelete" AckAndDeleteRequest => AckAndDeleteResponse: mutation;
        "Nack" NackRequest => NackResponse: mutation;
        "Claim" ClaimRequest => ClaimResponse: mutation;
        "AutoClaim" AutoClaimRequest => AutoClaimResponse: mutation;
        "GetPending" GetPendingRequest => GetPendingResponse: query;
        "ListPending" ListPendingRequest => ListPendingResponse: query;
        "ListGroups" ListGroupsRequest => ListGroupsResponse: query;
        "ListConsumers" ListConsumersRequest => ListConsumersResponse: query;
    }
    "millstream.v1.BatchService" pb {
        "Batch" BatchRequest => BatchResponse: mutation;
    }
    "millstream.v1.SessionService" pb {
        "OpenSession" OpenSessionRequest => OpenSessionResponse: plain;
        "CloseSession" CloseSessionRequest => CloseSessionResponse: plain;
    }
    "millstream.admin.v1.ClusterService" admin {
        "GetStatus" GetStatusRequest => GetStatusResponse: plain;
        "AddLearner" AddLearnerRequest => AddLearnerResponse: plain;
        "ChangeVoters" ChangeVotersRequest => ChangeVotersResponse: plain waiting;
        "TransferLeader" TransferLeaderRequest => TransferLeaderResponse: plain;
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn the_table_holds_every_rpc_and_nothing_else() {
        let files = prost_types::FileDescriptorSet::decode(millstream_proto::DESCRIPTORS).expect("descriptors");
        let mut expected = Vec::new();
        for file in files.file.iter().filter(|file| !file.package().contains("internal")) {
            for service in &file.service {
                let path = |method: &str| format!("/{}.{}/{method}", file.package(), service.name());
                let message = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
                let row = |rpc: &prost_types::MethodDescriptorProto| {
                    [path(rpc.name()), message(rpc.input_type()), message(rpc.output_type())]
                };
                // A stream is read by its own module.
                expected.extend(service.method.iter().filter(|rpc| !rpc.server_streaming()).map(row));
            }
        }
        let mut table: Vec<_> = TABLE.iter().map(|row| row.map(str::to_owned)).collect();
        expected.sort();
        table.sort();
        assert_eq!(table, expected);
    }

    #[test]
    fn paths_and_kinds() {
        assert_eq!(pb::AppendRequest::PATH, "/millstream.v1.StreamService/Append");
        assert_eq!(admin::GetStatusRequest::PATH, "/millstream.admin.v1.ClusterService/GetStatus");
        let mutates = [pb::AppendRequest::MUTATES, pb::ReadGroupRequest::MUTATES];
        let repeatable = [pb::ReadRequest::MUTATES, pb::OpenSessionRequest::MUTATES];
        assert_eq!((mutates, repeatable), ([true; 2], [false; 2]));
    }
}
