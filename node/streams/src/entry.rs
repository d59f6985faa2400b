//! An entry and its fields.
//!
//! Fields are kept packed, as one run of bytes, from the proposal to the block and to the reply:
//!
//! ```text
//! count | name length | name | value length | value | name length | ...        (lengths and count: LEB128)
//! ```
//!
//! One allocation for each entry instead of two for each field; the price is that finding the n-th field walks the
//! ones before it. Nobody asks for the n-th field.

use std::fmt;

use bytes::Bytes;
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::codec::varint;
use crate::entry_id::EntryId;
use crate::limits::{ENTRY_BYTES_MAX, FIELDS_MAX};

/// One entry of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its id.
    pub id: EntryId,
    /// Its fields, at least one.
    pub fields: Fields,
}

/// The fields of an entry: 1 to [`FIELDS_MAX`] pairs of name and value, at most [`ENTRY_BYTES_MAX`] bytes. Order and
/// duplicates are kept; names and values are arbitrary bytes and may be empty.
///
/// Invariant: the bytes are a well-formed run of pairs. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Fields(Bytes);

/// Why pairs cannot be the fields of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// There is no pair.
    #[error("an entry needs at least one field")]
    Empty,
    /// There are more than [`FIELDS_MAX`] pairs.
    #[error("an entry has at most {FIELDS_MAX} fields")]
    TooMany,
    /// Names and values hold more than [`ENTRY_BYTES_MAX`] bytes.
    #[error("an entry has at most {ENTRY_BYTES_MAX} bytes")]
    TooLarge,
}

impl Fields {
    /// Packs pairs of name and value.
    pub fn from_pairs<N: AsRef<[u8]>, V: AsRef<[u8]>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Fields, FieldsError> {
        let mut builder = FieldsBuilder::new();
        for (name, value) in pairs {
            builder.push(name, value);
        }
        builder.finish()
    }

    /// Takes packed bytes if they are well formed; `None` if they are not.
    pub(crate) fn from_packed(packed: Bytes) -> Option<Fields> {
        let mut rest = packed.as_ref();
        let count = varint::take(&mut rest)?;
        if count == 0 || count > FIELDS_MAX as u64 {
            return None;
        }
        let mut bytes = 0;
        for _ in 0..count * 2 {
            bytes += varint::take_bytes(&mut rest)?.len();
        }
        (rest.is_empty() && bytes <= ENTRY_BYTES_MAX).then_some(Fields(packed))
    }

    /// The packed bytes.
    pub(crate) fn packed(&self) -> &Bytes {
        &self.0
    }

    /// The pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut rest = self.0.as_ref();
        // Always there: the invariant of the type.
        let count = varint::take(&mut rest).unwrap_or(0);
        (0..count).map_while(move |_| Some((varint::take_bytes(&mut rest)?, varint::take_bytes(&mut rest)?)))
    }

    /// The pairs in order, as slices that share this value's memory.
    pub fn iter_bytes(&self) -> impl Iterator<Item = (Bytes, Bytes)> {
        self.iter().map(|(name, value)| (self.0.slice_ref(name), self.0.slice_ref(value)))
    }

    /// The number of pairs, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "there is always at least one pair")]
    pub fn len(&self) -> usize {
        varint::take(&mut self.0.as_ref()).unwrap_or(0) as usize
    }

    /// Bytes of all names and values together, without the packing. Walks the pairs.
    pub fn byte_len(&self) -> usize {
        self.iter().map(|(name, value)| name.len() + value.len()).sum()
    }

    /// Bytes in memory and in a block, with the packing. Costs nothing, so blocks and pages are measured by it.
    pub fn packed_len(&self) -> usize {
        self.0.len()
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (Text(name), Text(value)))).finish()
    }
}

/// Shows bytes as text, escaped where they are not printable.
struct Text<'a>(&'a [u8]);

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl<C> Encode<C> for Fields {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Fields {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        // A copy on purpose: a slice would keep the whole network frame or log batch alive as long as the entry.
        Fields::from_packed(Bytes::copy_from_slice(d.bytes()?))
            .ok_or_else(|| decode::Error::message("malformed fields"))
    }
}

/// Packs fields one by one.
#[derive(Debug, Default)]
pub struct FieldsBuilder {
    pairs: Vec<u8>,
    count: usize,
    bytes: usize,
}

impl FieldsBuilder {
    /// No fields yet.
    pub fn new() -> Self {
        FieldsBuilder::default()
    }

    /// Adds a pair.
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.count += 1;
        for part in [name.as_ref(), value.as_ref()] {
            self.bytes += part.len();
            // Too large already: `finish` will say so, and there is no point in copying more.
            if self.bytes <= ENTRY_BYTES_MAX {
                varint::put_bytes(&mut self.pairs, part);
            }
        }
    }

    /// The fields, if there are 1 to [`FIELDS_MAX`] of them and they are not too large.
    pub fn finish(self) -> Result<Fields, FieldsError> {
        if self.count == 0 {
            return Err(FieldsError::Empty);
        }
        if self.count > FIELDS_MAX {
            return Err(FieldsError::TooMany);
        }
        if self.bytes > ENTRY_BYTES_MAX {
            return Err(FieldsError::TooLarge);
        }
        let mut packed = Vec::with_capacity(self.pairs.len() + 3);
        varint::put(&mut packed, self.count as u64);
        packed.extend_from_slice(&self.pairs);
        Ok(Fields(packed.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_duplicates_and_empty_parts() {
        let pairs: [(&[u8], &[u8]); 3] = [(b"a", b"1"), (b"", b"\xff\x00"), (b"a", b"")];
        let fields = Fields::from_pairs(pairs).unwrap();
        assert_eq!(fields.iter().collect::<Vec<_>>(), pairs);
        assert_eq!((fields.len(), fields.byte_len()), (3, 5));
        let shared: Vec<_> = fields.iter_bytes().collect();
        assert_eq!(shared[1].1.as_ref(), b"\xff\x00");
    }

    #[test]
    fn refuses_none_and_too_many() {
        assert_eq!(Fields::from_pairs::<&str, &str>([]), Err(FieldsError::Empty));
        assert_eq!(Fields::from_pairs(vec![("a", "b"); FIELDS_MAX + 1]), Err(FieldsError::TooMany));
        assert_eq!(Fields::from_pairs(vec![("a", "b"); FIELDS_MAX]).unwrap().len(), FIELDS_MAX);
    }
}
