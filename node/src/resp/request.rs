//! Requests as Redis clients send them: arrays of bulk strings, and lines.
//!
//! Lengths are held against their bounds before anything is allocated for them, and a client that breaks the protocol is
//! told so in Redis's words. What comes in pieces is read once: the parser remembers how far it is.
//!
//! Source: <https://redis.io/docs/latest/develop/reference/protocol-spec/>, and the texts of Redis's own errors.

use bytes::{Buf, Bytes, BytesMut};

/// Longest line: of an inline request, and of a length. As in Redis.
const LINE_BYTES_MAX: usize = 64 << 10;

/// Arguments of fewer bytes are copied.
const SHARED_BYTES_MIN: usize = 2 << 10;

/// What a request may be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Arguments, the name of the command included.
    pub(super) arguments_max: usize,
    /// Bytes of one argument.
    pub(super) argument_bytes_max: usize,
    /// Bytes of all arguments together.
    pub(super) request_bytes_max: usize,
}

/// Why the connection ends: what Redis says behind `ERR Protocol error: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtocolError {
    /// The line of an array's length does not end.
    #[error("too big mbulk count string")]
    CountTooLong,
    /// An array's length is no number, or beyond the bound.
    #[error("invalid multibulk length")]
    Count,
    /// Something other than a bulk string in the array.
    #[error("expected '$', got '{0}'")]
    NotABulk(char),
    /// The line of a bulk's length does not end.
    #[error("too big bulk count string")]
    LengthTooLong,
    /// A bulk's length is no number, or beyond the bound.
    #[error("invalid bulk length")]
    Length,
    /// A line that does not end.
    #[error("too big inline request")]
    InlineTooLong,
    /// A quote that is not closed, or closed within a word.
    #[error("unbalanced quotes in request")]
    Quotes,
}

/// Reads requests from what has arrived.
pub(super) struct Parser {
    bounds: Bounds,
    /// Of the request that has begun.
    arguments: Vec<Bytes>,
    /// Arguments that it still lacks.
    missing: usize,
    /// The length of the next, once it is known.
    length: Option<usize>,
    /// Bytes of all arguments whose length is known.
    bytes: usize,
}

impl Parser {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, arguments: Vec::new(), missing: 0, length: None, bytes: 0 }
    }

    /// Bytes of the request that has begun, which are in no buffer any more.
    pub(super) fn held(&self) -> usize {
        // Those of an argument that is not complete are still in the buffer.
        let there = self.bytes - self.length.unwrap_or(0);
        if self.missing == 0 { 0 } else { there + self.arguments.len() * size_of::<Bytes>() }
    }

    /// Takes the next request off the front of `buffer`; `None`: it is not complete. Never returns an empty one.
    pub(super) fn next(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        loop {
            if self.missing == 0 {
                let Some(first) = buffer.first() else { return Ok(None) };
                if *first != b'*' {
                    match inline(buffer)? {
                        Some(words) if words.is_empty() => continue,
                        found => return Ok(found),
                    }
                }
                let Some(end) = line_end(buffer, ProtocolError::CountTooLong)? else { return Ok(None) };
                let count = number(line(buffer, end).get(1..).unwrap_or_default());
                buffer.advance(end + 1);
                let count = count.ok_or(ProtocolError::Count)?;
                if count <= 0 {
                    continue;
                }
                let count = usize::try_from(count).map_err(|_| ProtocolError::Count)?;
                if self.bounds.arguments_max < count {
                    return Err(ProtocolError::Count);
                }
                (self.missing, self.bytes) = (count, 0);
                // Not by what a client says, before it has sent anything.
                self.arguments = Vec::with_capacity(count.min(64));
            }
            while 0 < self.missing {
                let Some(argument) = self.argument(buffer)? else { return Ok(None) };
                self.arguments.push(argument);
                self.missing -= 1;
            }
            return Ok(Some(std::mem::take(&mut self.arguments)));
        }
    }

    fn argument(&mut self, buffer: &mut BytesMut) -> Result<Option<Bytes>, ProtocolError> {
        let length = match self.length {
            Some(length) => length,
            None => {
                let Some(end) = line_end(buffer, ProtocolError::LengthTooLong)? else { return Ok(None) };
                let length = match line(buffer, end) {
                    [b'$', length @ ..] => number(length),
                    other => return Err(ProtocolError::NotABulk(other.first().map_or(' ', |byte| char::from(*byte)))),
                };
                buffer.advance(end + 1);
                let length = length.and_then(|length| usize::try_from(length).ok()).ok_or(ProtocolError::Length)?;
                let bytes = self.bytes.saturating_add(length);
                if self.bounds.argument_bytes_max < length || self.bounds.request_bytes_max < bytes {
                    return Err(ProtocolError::Length);
                }
                self.bytes = bytes;
                self.length = Some(length);
                length
            }
        };
        if buffer.len() < length + 2 {
            return Ok(None);
        }
        self.length = None;
        // A small one would hold on to the whole of what it came with.
        let argument = match length {
            ..SHARED_BYTES_MIN => {
                let argument = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
                buffer.advance(length);
                argument
            }
            _ => buffer.split_to(length).freeze(),
        };
        // Redis does not look at what ends a bulk either.
        buffer.advance(2);
        Ok(Some(argument))
    }
}

/// Where the first line ends; `None`: it is not complete.
fn line_end(buffer: &[u8], too_long: ProtocolError) -> Result<Option<usize>, ProtocolError> {
    let end = memchr::memchr(b'\n', buffer.get(..=LINE_BYTES_MAX).unwrap_or(buffer));
    if end.is_none() && LINE_BYTES_MAX < buffer.len() { Err(too_long) } else { Ok(end) }
}

/// The line that ends there, without its end.
fn line(buffer: &[u8], end: usize) -> &[u8] {
    let line = buffer.get(..end).unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A whole number as Redis reads it: an optional `-`, no leading zeros, no spaces.
pub(super) fn number(digits: &[u8]) -> Option<i64> {
    let is_plain = match digits {
        [b'0'] => true,
        [b'-', b'1'..=b'9', rest @ ..] | [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    std::str::from_utf8(digits).ok().filter(|_| is_plain)?.parse().ok()
}

/// A request typed by hand: words, some of them in quotes.
fn inline(buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
    let Some(end) = line_end(buffer, ProtocolError::InlineTooLong)? else { return Ok(None) };
    let words = words(line(buffer, end));
    buffer.advance(end + 1);
    words.map(Some).ok_or(ProtocolError::Quotes)
}

/// Splits a line at its spaces. Within double quotes there are escapes (`\n`, `\r`, `\t`, `\b`, `\a`, `\xhh`, and the rest
/// as it is); within single quotes `\'` alone. A closed quote must end its word. `None`: the quotes make no sense.
fn words(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut rest = line.iter().copied().peekable();
    let mut words = Vec::new();
    loop {
        while rest.next_if(|byte| is_space(*byte)).is_some() {}
        if rest.peek().is_none() {
            return Some(words);
        }
        let mut word = Vec::new();
        loop {
            match rest.next() {
                None => break,
                Some(byte) if is_space(byte) => break,
                Some(quote @ (b'"' | b'\'')) => {
                    quoted(quote, &mut rest, &mut word)?;
                    match rest.next() {
                        None => break,
                        Some(byte) if is_space(byte) => break,
                        Some(_) => return None,
                    }
                }
                Some(byte) => word.push(byte),
            }
        }
        words.push(word.into());
    }
}

/// What is between a quote and the next of its kind.
fn quoted(
    quote: u8,
    rest: &mut std::iter::Peekable<impl Iterator<Item = u8> + Clone>,
    word: &mut Vec<u8>,
) -> Option<()> {
    loop {
        match rest.next()? {
            byte if byte == quote => return Some(()),
            b'\\' if quote == b'"' => {
                let mut ahead = rest.clone();
                if ahead.next() == Some(b'x')
                    && let (Some(high), Some(low)) = (ahead.next().and_then(hex), ahead.next().and_then(hex))
                {
                    word.push(16 * high + low);
                    *rest = ahead;
                    continue;
                }
                word.push(match rest.next()? {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    byte => byte,
                });
            }
            b'\\' if rest.next_if_eq(&b'\'').is_some() => word.push(b'\''),
            byte => word.push(byte),
        }
    }
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 11 || byte == 0
}

fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parser() -> Parser {
        Parser::new(Bounds { arguments_max: 1_000, argument_bytes_max: 10_000, request_bytes_max: 15_000 })
    }

    /// All requests in `text`, fed in pieces of `piece` bytes, and what ended it.
    fn parse(text: &[u8], piece: usize) -> (Vec<Vec<Bytes>>, Option<ProtocolError>) {
        let (mut parser, mut buffer, mut requests) = (parser(), BytesMut::new(), Vec::new());
        for piece in text.chunks(piece) {
            buffer.extend_from_slice(piece);
            loop {
                match parser.next(&mut buffer) {
                    Ok(Some(request)) => requests.push(request),
                    Ok(None) => break,
                    Err(error) => return (requests, Some(error)),
                }
            }
        }
        (requests, None)
    }

    fn shown(request: &[Bytes]) -> String {
        request.iter().map(|argument| argument.escape_ascii().to_string()).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn requests_arrive_in_any_pieces() {
        let text = b"*3\r\n$4\r\nXADD\r\n$0\r\n\r\n$5\r\na\r\nb\xff\r\nPING\r\n\r\n*0\r\n*-1\r\n*1\r\n$4\r\nQUIT\r\n";
        for piece in [1, 2, 3, 7, 1_000] {
            let (requests, error) = parse(text, piece);
            assert_eq!(error, None);
            let requests: Vec<_> = requests.iter().map(|request| shown(request)).collect();
            assert_eq!(requests, [r"XADD||a\r\nb\xff", "PING", "QUIT"], "in pieces of {piece}");
        }
    }

    #[test]
    fn numbers_are_written_in_one_way() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-0", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("-", None),
            ("", None),
            ("1x", None),
        ] {
            assert_eq!(number(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn lines_have_words_and_quotes() {
        let cases: [(&[u8], Option<&str>); 10] = [
            (b"set  a b", Some("set|a|b")),
            (b"  \t ", Some("")),
            (br#"a "b c" 'd e'"#, Some("a|b c|d e")),
            (br#""\x41\n\t\\\"" '\'\n'"#, Some(r#"A\n\t\\\"|\'\\n"#)),
            (br#""\xzz""#, Some("xzz")),
            (br#""""#, Some("")),
            (br#""a"b"#, None),
            (br#""a"#, None),
            (b"'a", None),
            (br#"a"b c""#, Some("ab c")),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line).map(|words| shown(&words)).as_deref(), expected, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn what_breaks_the_protocol_is_told_in_the_words_of_redis() {
        let cases: [(&[u8], &str); 10] = [
            (b"*x\r\n", "invalid multibulk length"),
            (b"*01\r\n", "invalid multibulk length"),
            (b"*1001\r\n", "invalid multibulk length"),
            (b"*99999999999999999999\r\n", "invalid multibulk length"),
            (b"*1\r\n+a\r\n", "expected '$', got '+'"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$1073741824\r\n", "invalid bulk length"),
            (b"*2\r\n$10000\r\n", ""),
            (b"*1\r\n$x\r\n", "invalid bulk length"),
            (b"a \"b\r\n", "unbalanced quotes in request"),
        ];
        for (text, expected) in cases {
            let error = parse(text, 5).1.map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(error, expected, "{}", text.escape_ascii());
        }
        let long = [b"*".as_slice(), &[b'1'; LINE_BYTES_MAX + 1]].concat();
        assert_eq!(parse(&long, 4_096).1, Some(ProtocolError::CountTooLong));
        let long = [b"*1\r\n$".as_slice(), &[b'1'; LINE_BYTES_MAX + 1]].concat();
        assert_eq!(parse(&long, 4_096).1, Some(ProtocolError::LengthTooLong));
        assert_eq!(parse(&[b'a'; LINE_BYTES_MAX + 2], 4_096).1, Some(ProtocolError::InlineTooLong));
        // Each argument for itself is small enough.
        let sum = [b"*2\r\n$9000\r\n".as_slice(), &[b'a'; 9_000], b"\r\n$9000\r\n"].concat();
        assert_eq!(parse(&sum, 4_096).1, Some(ProtocolError::Length));
    }

    #[test]
    fn whatever_arrives_nothing_panics_and_no_request_is_beyond_the_bounds() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let pieces: [&[u8]; 12] =
            [b"*", b"$", b"\r\n", b"\n", b"1", b"3", b"-", b"\"", b"'", b"\\x4", b"abc", b"\xff\0"];
        for _ in 0..20_000 {
            let text: Vec<u8> = (0..draw(40)).flat_map(|_| pieces[draw(12) as usize].iter().copied()).collect();
            let (requests, _) = parse(&text, 1 + draw(9) as usize);
            assert!(requests.iter().all(|request| !request.is_empty() && request.len() <= 1_000));
        }
    }
}
