//! Replies as Redis sends them, in either version of the protocol.
//!
//! One value says both: what RESP3 calls a map is in RESP2 a flat array, its null is a bulk or an array of length -1. Whoever makes a reply need not know which version the connection speaks.
//!
//! Source: <https://redis.io/docs/latest/develop/reference/protocol-spec/>.

use bytes::{BufMut, Bytes, BytesMut};

/// Which version a connection speaks: 2 until it says `HELLO 3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Version {
    #[default]
    Two,
    Three,
}

/// A reply.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    /// A line without a line end in it.
    Simple(&'static str),
    /// A line of any text.
    Line(String),
    /// An error: a code in capitals, a space, and a sentence.
    Error(String),
    Integer(i64),
    Bulk(Bytes),
    /// Text for people; in RESP2 a bulk string.
    Verbatim(String),
    /// Nothing where a string could be.
    Null,
    /// Nothing where a list could be.
    NullArray,
    Array(Vec<Reply>),
    Set(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    /// Pairs that are a map in RESP3 and an array of arrays of two in RESP2, as the streams of XREAD.
    Pairs(Vec<(Reply, Reply)>),
    /// A long array.
    Written(Written),
}

/// An array whose items are written one by one: small ones take a multiple of their bytes while they are replies.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Written {
    version: Version,
    items: usize,
    bytes: BytesMut,
}

impl Written {
    /// An empty one, for a connection that speaks this version.
    pub(super) fn new(version: Version) -> Self {
        Self { version, items: 0, bytes: BytesMut::new() }
    }

    pub(super) fn push(&mut self, item: &Reply) {
        item.encode(self.version, &mut self.bytes);
        self.items += 1;
    }

    /// Bytes of all items.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that are kept for them.
    pub(super) fn held(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Reply {
    pub(super) const OK: Self = Self::Simple("OK");

    /// Text as a bulk string.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Bulk(text.into().into_bytes().into())
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let pair = |(name, value): &(Self, Self)| name.bytes() + value.bytes();
        size_of::<Self>()
            + match self {
                Self::Line(text) | Self::Error(text) | Self::Verbatim(text) => text.len(),
                Self::Bulk(bytes) => bytes.len(),
                Self::Array(items) | Self::Set(items) => items.iter().map(Self::bytes).sum(),
                Self::Map(pairs) | Self::Pairs(pairs) => pairs.iter().map(pair).sum(),
                Self::Written(written) => written.len(),
                Self::Simple(_) | Self::Integer(_) | Self::Null | Self::NullArray => 0,
            }
    }

    /// Writes it at the end of `out`.
    pub(super) fn encode(&self, version: Version, out: &mut BytesMut) {
        let three = version == Version::Three;
        match self {
            Self::Simple(line) => put_line(out, b'+', line.as_bytes()),
            Self::Line(line) => put_line(out, b'+', &one_line(line)),
            Self::Error(sentence) => put_line(out, b'-', &one_line(sentence)),
            Self::Integer(number) => put_number(out, b':', *number),
            Self::Bulk(bytes) => put_bulk(out, b'$', bytes),
            Self::Verbatim(text) if three => {
                let content = [b"txt:", text.as_bytes()].concat();
                put_bulk(out, b'=', &content);
            }
            Self::Verbatim(text) => put_bulk(out, b'$', text.as_bytes()),
            Self::Null | Self::NullArray if three => out.put_slice(b"_\r\n"),
            Self::Null => out.put_slice(b"$-1\r\n"),
            Self::NullArray => out.put_slice(b"*-1\r\n"),
            Self::Array(items) => put_all(out, b'*', items, version),
            Self::Written(Written { items, bytes, .. }) => {
                put_number(out, b'*', *items as i64);
                out.extend_from_slice(bytes);
            }
            Self::Set(items) => put_all(out, if three { b'~' } else { b'*' }, items, version),
            Self::Map(pairs) | Self::Pairs(pairs) if three => {
                put_number(out, b'%', pairs.len() as i64);
                put_flat(out, pairs, version);
            }
            Self::Map(pairs) => {
                put_number(out, b'*', 2 * pairs.len() as i64);
                put_flat(out, pairs, version);
            }
            Self::Pairs(pairs) => {
                put_number(out, b'*', pairs.len() as i64);
                for (name, value) in pairs {
                    put_number(out, b'*', 2);
                    name.encode(version, out);
                    value.encode(version, out);
                }
            }
        }
    }
}

/// A line end within would be the end of the reply.
fn one_line(text: &str) -> Vec<u8> {
    text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }).collect()
}

fn put_line(out: &mut BytesMut, kind: u8, line: &[u8]) {
    out.reserve(line.len() + 3);
    out.put_u8(kind);
    out.put_slice(line);
    out.put_slice(b"\r\n");
}

fn put_number(out: &mut BytesMut, kind: u8, number: i64) {
    put_line(out, kind, itoa::Buffer::new().format(number).as_bytes());
}

fn put_bulk(out: &mut BytesMut, kind: u8, bytes: &[u8]) {
    put_number(out, kind, bytes.len() as i64);
    out.reserve(bytes.len() + 2);
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

fn put_all(out: &mut BytesMut, kind: u8, items: &[Reply], version: Version) {
    put_number(out, kind, items.len() as i64);
    items.iter().for_each(|item| item.encode(version, out));
}

fn put_flat(out: &mut BytesMut, pairs: &[(Reply, Reply)], version: Version) {
    for (name, value) in pairs {
        name.encode(version, out);
        value.encode(version, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(reply: &Reply, version: Version) -> String {
        let mut out = BytesMut::new();
        reply.encode(version, &mut out);
        String::from_utf8_lossy(&out).replace("\r\n", " ").trim_end().to_owned()
    }

    #[test]
    fn both_versions() {
        let pair = || vec![(Reply::text("a"), Reply::Integer(-7))];
        for (reply, two, three) in [
            (Reply::OK, "+OK", "+OK"),
            (Reply::Error("ERR a\r\nb".into()), "-ERR a  b", "-ERR a  b"),
            (Reply::Integer(i64::MIN), ":-9223372036854775808", ":-9223372036854775808"),
            (Reply::Line("a\nb".into()), "+a b", "+a b"),
            (Reply::text(""), "$0", "$0"),
            (Reply::Verbatim("hi".into()), "$2 hi", "=6 txt:hi"),
            (Reply::Null, "$-1", "_"),
            (Reply::NullArray, "*-1", "_"),
            (Reply::Array(vec![Reply::Null, Reply::Array(Vec::new())]), "*2 $-1 *0", "*2 _ *0"),
            (Reply::Set(vec![Reply::Integer(1)]), "*1 :1", "~1 :1"),
            (Reply::Map(pair()), "*2 $1 a :-7", "%1 $1 a :-7"),
            (Reply::Pairs(pair()), "*1 *2 $1 a :-7", "%1 $1 a :-7"),
        ] {
            assert_eq!(encoded(&reply, Version::Two), two);
            assert_eq!(encoded(&reply, Version::Three), three);
        }
    }
}
