//! RESP2, as much of it as a client of the Redis door needs: requests are arrays of strings, replies are one of five.

use std::str;

/// A request: the name of the command and its arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Request(Vec<Vec<u8>>);

impl Request {
    /// The words of `line`, which are separated by spaces.
    pub(super) fn of(line: &str) -> Self {
        Self(line.split_ascii_whitespace().map(|word| word.as_bytes().to_vec()).collect())
    }

    /// One more argument.
    pub(super) fn arg(mut self, argument: impl AsRef<[u8]>) -> Self {
        self.0.push(argument.as_ref().to_vec());
        self
    }

    /// More arguments: the words of `line`.
    pub(super) fn and(mut self, line: &str) -> Self {
        self.0.extend(Self::of(line).0);
        self
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend(format!("*{}\r\n", self.0.len()).into_bytes());
        for argument in &self.0 {
            out.extend(format!("${}\r\n", argument.len()).into_bytes());
            out.extend(argument);
            out.extend(b"\r\n");
        }
    }
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Array(Vec<Reply>),
    /// No string, or no list.
    Nil,
}

/// The reply at the beginning of these bytes, and how many of them it takes; `None`: more have to come.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Reply, usize)>, String> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let (head, mut at) = (&bytes[..end], end + 2);
    let line = |from: &[u8]| String::from_utf8_lossy(from).into_owned();
    let number = |from: &[u8]| str::from_utf8(from).ok().and_then(|digits| digits.parse::<i64>().ok());
    let senseless = || format!("no reply begins with {:?}", line(head));
    let (kind, rest) = head.split_first().ok_or_else(senseless)?;
    let reply = match kind {
        b'+' => Reply::Simple(line(rest)),
        b'-' => Reply::Error(line(rest)),
        b':' => Reply::Integer(number(rest).ok_or_else(senseless)?),
        b'$' | b'*' if rest == b"-1" => Reply::Nil,
        b'$' => {
            let length = number(rest).and_then(|length| usize::try_from(length).ok()).ok_or_else(senseless)?;
            let Some(content) = bytes.get(at..at + length + 2) else { return Ok(None) };
            let content = content.strip_suffix(b"\r\n").ok_or_else(senseless)?;
            at += length + 2;
            Reply::Bulk(content.to_vec())
        }
        b'*' => {
            let mut items = Vec::new();
            for _ in 0..number(rest).ok_or_else(senseless)? {
                let Some((item, length)) = decode(&bytes[at..])? else { return Ok(None) };
                items.push(item);
                at += length;
            }
            Reply::Array(items)
        }
        _ => return Err(senseless()),
    };
    Ok(Some((reply, at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_an_array_of_strings() {
        let mut out = Vec::new();
        Request::of("XADD s *").arg(b"f\r\n").and("1 2").encode(&mut out);
        let text = "*6|$4|XADD|$1|s|$1|*|$3|f\r\n|$1|1|$1|2|".replace('|', "\r\n");
        assert_eq!(String::from_utf8_lossy(&out), text);
    }

    #[test]
    fn replies_are_read_wherever_they_are_cut() {
        let text = "*5|+OK|-ERR no|:-7|$4|a\r\nb|*2|$-1|*-1|".replace('|', "\r\n");
        let bytes = text.as_bytes();
        let whole = Reply::Array(vec![
            Reply::Simple("OK".into()),
            Reply::Error("ERR no".into()),
            Reply::Integer(-7),
            Reply::Bulk(b"a\r\nb".to_vec()),
            Reply::Array(vec![Reply::Nil, Reply::Nil]),
        ]);
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), Ok(None), "cut at {end}");
        }
        assert_eq!(decode(bytes), Ok(Some((whole.clone(), bytes.len()))));
        assert_eq!(decode(&[bytes, b":1"].concat()), Ok(Some((whole, bytes.len()))));
        for bad in ["?1\r\n", "\r\n", ":x\r\n", "$2\r\nabcd", "$-2\r\n"] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
