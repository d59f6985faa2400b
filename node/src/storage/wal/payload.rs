//! What a log entry holds, as bytes.
//!
//! A proposal is stored as it is, so that its bytes are copied once and decoded only when applied. A membership is CBOR:
//! `[version, [[voter id, ..], ..], {node id: peer address}]`.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use minicbor::{Decoder, Encoder};

use super::frame::malformed;
use crate::types::{LogPayload, Membership, PeerNode, Proposal};

// These numbers are on disk: never change or reuse one.
const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

const MEMBERSHIP_VERSION: u8 = 1;

/// Appends a payload's bytes and returns the number of its kind.
pub(super) fn encode(payload: &LogPayload, buffer: &mut Vec<u8>) -> io::Result<u8> {
    match payload {
        LogPayload::Blank => Ok(BLANK),
        LogPayload::Normal(proposal) => {
            buffer.extend_from_slice(&proposal.0);
            Ok(NORMAL)
        }
        LogPayload::Membership(membership) => {
            put_membership(membership, buffer).map_err(io::Error::other)?;
            Ok(MEMBERSHIP)
        }
    }
}

/// Reads a payload of the given kind.
pub(super) fn decode(kind: u8, bytes: Bytes) -> io::Result<LogPayload> {
    match kind {
        BLANK => Ok(LogPayload::Blank),
        NORMAL => Ok(LogPayload::Normal(Proposal(bytes))),
        MEMBERSHIP => membership(&bytes)
            .map(LogPayload::Membership)
            .map_err(|error| malformed(&format!("a membership that does not decode: {error}"))),
        other => Err(malformed(&format!("an entry of unknown kind {other}, perhaps written by a newer version"))),
    }
}

type EncodeResult = Result<(), minicbor::encode::Error<std::convert::Infallible>>;

fn put_membership(membership: &Membership, buffer: &mut Vec<u8>) -> EncodeResult {
    let mut to = Encoder::new(buffer);
    to.array(3)?.u8(MEMBERSHIP_VERSION)?;
    let configs = membership.get_joint_config();
    to.array(configs.len() as u64)?;
    for config in configs {
        to.array(config.len() as u64)?;
        for id in config {
            to.u64(*id)?;
        }
    }
    to.map(membership.nodes().count() as u64)?;
    for (id, node) in membership.nodes() {
        to.u64(*id)?.str(&node.peer_address)?;
    }
    Ok(())
}

fn membership(bytes: &[u8]) -> Result<Membership, minicbor::decode::Error> {
    let mut from = Decoder::new(bytes);
    let expect_array = |from: &mut Decoder<'_>| {
        from.array()?.ok_or_else(|| minicbor::decode::Error::message("an array of unknown length"))
    };
    expect_array(&mut from)?;
    let version = from.u8()?;
    if version != MEMBERSHIP_VERSION {
        return Err(minicbor::decode::Error::message(format!("version {version} is not known")));
    }
    let mut configs = Vec::new();
    for _ in 0..expect_array(&mut from)? {
        let voters = expect_array(&mut from)?;
        configs.push((0..voters).map(|_| from.u64()).collect::<Result<BTreeSet<_>, _>>()?);
    }
    let nodes = from.map()?.ok_or_else(|| minicbor::decode::Error::message("a map of unknown length"))?;
    let nodes = (0..nodes)
        .map(|_| Ok((from.u64()?, PeerNode { peer_address: from.str()?.to_owned() })))
        .collect::<Result<BTreeMap<_, _>, minicbor::decode::Error>>()?;
    Membership::new(configs, nodes).map_err(minicbor::decode::Error::message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_payload_survives() {
        let nodes = BTreeMap::from_iter([1, 2, 3].map(|id| (id, PeerNode { peer_address: format!("n{id}:1") })));
        let joint = vec![BTreeSet::from([1, 2]), BTreeSet::from([2])];
        let membership = Membership::new(joint, nodes).expect("all voters have a node");
        for payload in [
            LogPayload::Blank,
            LogPayload::Normal(Proposal(Bytes::new())),
            LogPayload::Normal(Proposal(Bytes::from_static(b"\0abc"))),
            LogPayload::Membership(membership),
            LogPayload::Membership(Membership::default()),
        ] {
            let mut bytes = Vec::new();
            let kind = encode(&payload, &mut bytes).expect("encodes");
            assert_eq!(decode(kind, bytes.into()).expect("decodes"), payload);
        }
    }

    #[test]
    fn unknown_kinds_and_versions_are_refused() {
        assert!(decode(9, Bytes::new()).is_err());
        assert!(decode(MEMBERSHIP, Bytes::from_static(&[0x83, 2, 0x80, 0xa0])).is_err());
        assert!(decode(MEMBERSHIP, Bytes::from_static(&[0x83])).is_err());
    }
}
