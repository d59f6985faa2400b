//! What replicas remember of their states, to be compared.

use bytes::Bytes;
use millstream_proto::internal::v1 as pb;

/// What a replica remembers of its state as it was at a log index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateDigest {
    /// The log index.
    pub index: u64,
    /// The digest of the history up to there.
    pub digest: u128,
    /// A hash of a part of the state that the index selects. `None`: this replica has none.
    pub sample: Option<Sample>,
}

/// A hash of a part of the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// The version of what is hashed, and how. Samples of different versions say nothing about each other.
    pub version: u32,
    /// The hash.
    pub hash: u128,
}

impl StateDigest {
    pub(super) fn to_pb(self) -> pb::StateDigest {
        let Self { index, digest, sample } = self;
        pb::StateDigest {
            log_index: index,
            digest: bytes_of(digest),
            sample: sample.map(|sample| bytes_of(sample.hash)).unwrap_or_default(),
            sample_version: sample.map_or(0, |sample| sample.version),
        }
    }

    /// `None` if it makes no sense.
    pub(super) fn from_pb(digest: &pb::StateDigest) -> Option<Self> {
        let number = |bytes: &[u8]| bytes.try_into().ok().map(u128::from_be_bytes);
        let sample = match digest.sample.is_empty() {
            true => None,
            false => Some(Sample { version: digest.sample_version, hash: number(&digest.sample)? }),
        };
        Some(Self { index: digest.log_index, digest: number(&digest.digest)?, sample })
    }
}

fn bytes_of(hash: u128) -> Bytes {
    Bytes::copy_from_slice(&hash.to_be_bytes())
}
