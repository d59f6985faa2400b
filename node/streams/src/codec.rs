//! How values become bytes: one version byte, then minicbor arrays.
//!
//! ```text
//! proposal:  1 | [ at_ms, request or null, command, bytes_max ]
//! outcome:   1 | [ 0, reply ] or [ 1, refusal ]
//! row value: 1 | the value
//! ```
//!
//! Arrays by index let a later version append optional fields: an older one skips what it does not know. A command
//! that must not be skipped gets a new number, which an older version refuses to decode.

use bytes::Bytes;
use minicbor::{Decode, Decoder, Encode, Encoder};
use xxhash_rust::xxh3::xxh3_64;

use crate::commands::{Command, Reply};
use crate::entry::{Entry, Fields};
use crate::entry_id::EntryId;
use crate::error::{DecodeError, Outcome};

/// The version byte that this code writes, and the only one that it reads.
const VERSION: u8 = 1;

/// Identifies a request of a session, so that a retry is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct RequestId {
    /// The session, from [`OpenSession`](crate::OpenSession).
    #[n(0)]
    pub session: u64,
    /// The number of the request in its session, from 1; a retry carries the number of the first attempt.
    #[n(1)]
    pub sequence: u64,
    /// Every request of the session with a smaller sequence is finished and will not be repeated. 0: none.
    #[n(2)]
    pub completed_below: u64,
}

/// A command as the log holds it, with all that its outcome may depend on beside the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The proposer's clock, in milliseconds since the Unix epoch. The state's clock never runs backwards for it.
    pub at_ms: u64,
    /// Makes the command safe to retry. `None`: it is applied each time it arrives.
    pub request: Option<RequestId>,
    /// What to do.
    pub command: Command,
    /// Packed bytes of the entries that the answer may hold, at most, but at least one entry; 0: no limit. It belongs to
    /// the node that proposes and not to the command: a repeat may come through a node with another limit.
    pub bytes_max: u64,
}

impl Proposal {
    /// The bytes for the log.
    pub fn encode(&self) -> Bytes {
        let mut e = Encoder::new(vec![VERSION]);
        let encoded = e
            .array(4)
            .and_then(|e| e.u64(self.at_ms)?.encode(self.request)?.encode(&self.command)?.u64(self.bytes_max))
            .is_ok();
        // Writing to a Vec cannot fail, and no Encode here makes errors of its own.
        debug_assert!(encoded);
        e.into_writer().into()
    }

    /// Reads what [`Proposal::encode`] wrote.
    pub fn decode(bytes: &Bytes) -> Result<Proposal, DecodeError> {
        Ok(decode_proposal(bytes)?.0)
    }
}

/// A proposal, and a hash of its command alone: time and limit differ between attempts of one request, the command does
/// not.
pub(crate) fn decode_proposal(bytes: &[u8]) -> Result<(Proposal, u64), DecodeError> {
    let body = body(bytes)?;
    let mut d = Decoder::new(body);
    let fields = definite_array(&mut d)?;
    if fields < 4 {
        return Err(DecodeError::Malformed { problem: "a proposal has four parts".to_owned() });
    }
    let at_ms = d.u64()?;
    let request = d.decode()?;
    let start = d.position();
    let command = d.decode()?;
    let fingerprint = xxh3_64(body.get(start..d.position()).unwrap_or_default());
    let bytes_max = d.u64()?;
    for _ in 4..fields {
        d.skip()?;
    }
    at_end(&d)?;
    Ok((Proposal { at_ms, request, command, bytes_max }, fingerprint))
}

impl Reply {
    /// The reply as bytes, for the wire between nodes.
    pub fn to_bytes(&self) -> Bytes {
        encode(self).into()
    }

    /// Reads what [`Reply::to_bytes`] wrote.
    pub fn from_bytes(bytes: &[u8]) -> Result<Reply, DecodeError> {
        decode(bytes)
    }
}

/// An outcome as bytes: what sessions record and the digest covers.
pub fn encode_outcome(outcome: &Outcome) -> Bytes {
    encode(outcome).into()
}

/// Reads what [`encode_outcome`] wrote.
pub fn decode_outcome(bytes: &[u8]) -> Result<Outcome, DecodeError> {
    decode(bytes)
}

/// An outcome with the entries that it names, for the wire between nodes.
pub fn encode_applied(outcome: &Outcome, entries: &[Option<Entry>]) -> Bytes {
    let payload = |entry: &Option<Entry>| entry.as_ref().map(|entry| (entry.id, entry.fields.clone()));
    encode(&(outcome, entries.iter().map(payload).collect::<Vec<_>>())).into()
}

/// Reads what [`encode_applied`] wrote.
pub fn decode_applied(bytes: &[u8]) -> Result<(Outcome, Vec<Option<Entry>>), DecodeError> {
    let (outcome, payloads): (Outcome, Vec<Option<(EntryId, Fields)>>) = decode(bytes)?;
    let entries = payloads.into_iter().map(|payload| payload.map(|(id, fields)| Entry { id, fields }));
    Ok((outcome, entries.collect()))
}

/// A value with the version byte in front.
pub(crate) fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut e = Encoder::new(Vec::with_capacity(64));
    e.writer_mut().push(VERSION);
    let encoded = e.encode(value).is_ok();
    // Writing to a Vec cannot fail, and no Encode here makes errors of its own.
    debug_assert!(encoded);
    e.into_writer()
}

/// Reads what [`encode`] wrote, to the last byte.
pub(crate) fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, DecodeError> {
    let mut d = Decoder::new(body(bytes)?);
    let value = d.decode()?;
    at_end(&d)?;
    Ok(value)
}

pub(crate) fn body(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    match bytes.split_first() {
        None => Err(DecodeError::Empty),
        Some((&VERSION, body)) => Ok(body),
        Some((&version, _)) => Err(DecodeError::UnknownVersion { version }),
    }
}

pub(crate) fn definite_array(d: &mut Decoder<'_>) -> Result<u64, DecodeError> {
    d.array()?.ok_or_else(|| DecodeError::Malformed { problem: "array of unknown length".to_owned() })
}

pub(crate) fn at_end(d: &Decoder<'_>) -> Result<(), DecodeError> {
    if d.position() == d.input().len() {
        return Ok(());
    }
    Err(DecodeError::Malformed { problem: "surplus bytes".to_owned() })
}

/// 128-bit numbers, as 16 bytes in big-endian order: CBOR has no such integers.
pub(crate) mod wide {
    use minicbor::decode::{Decoder, Error as DecodeError};
    use minicbor::encode::{Encoder, Error as EncodeError, Write};

    pub(crate) fn encode<C, W: Write>(
        number: &u128,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.bytes(&number.to_be_bytes())?.ok()
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<u128, DecodeError> {
        let bytes = d.bytes()?.try_into().map_err(|_| DecodeError::message("a 128-bit number has 16 bytes"))?;
        Ok(u128::from_be_bytes(bytes))
    }
}

/// The same where there may be none.
pub(crate) mod wide_option {
    use minicbor::data::Type;
    use minicbor::decode::{Decoder, Error as DecodeError};
    use minicbor::encode::{Encoder, Error as EncodeError, Write};

    pub(crate) fn encode<C, W: Write>(
        number: &Option<u128>,
        e: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        match number {
            Some(number) => super::wide::encode(number, e, context),
            None => e.null()?.ok(),
        }
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, context: &mut C) -> Result<Option<u128>, DecodeError> {
        if d.datatype()? == Type::Null {
            return d.null().map(|()| None);
        }
        super::wide::decode(d, context).map(Some)
    }

    /// What a missing field is.
    pub(crate) fn nil() -> Option<Option<u128>> {
        Some(None)
    }

    /// Whether the field may be left out at the end.
    pub(crate) fn is_nil(number: &Option<u128>) -> bool {
        number.is_none()
    }
}

/// LEB128 numbers and byte strings, for the formats that are not minicbor: packed fields and blocks.
pub(crate) mod varint {
    /// Appends a number.
    pub(crate) fn put(out: &mut Vec<u8>, mut number: u64) {
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }

    /// Takes a number from the front; `None` if the bytes end early or the number is above 2^64-1.
    pub(crate) fn take(rest: &mut &[u8]) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, tail) = rest.split_first()?;
            *rest = tail;
            let bits = u64::from(byte & 0x7f);
            if (bits << shift) >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    /// Appends bytes behind their length.
    pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
        put(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }

    /// Takes bytes behind their length from the front.
    pub(crate) fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
        let length = usize::try_from(take(rest)?).ok()?;
        let (bytes, tail) = rest.split_at_checked(length)?;
        *rest = tail;
        Some(bytes)
    }
}
