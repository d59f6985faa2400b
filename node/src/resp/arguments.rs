//! The arguments of a request, one after the other, and what Redis says when one of them is no good.
//!
//! Source of the texts: `t_stream.c` and `object.c` of Redis, by way of the specification that the conformance page names.

use bytes::Bytes;
use millstream_streams::{ConsumerName, EntryId, GroupName, StreamName};

use super::request::number;

/// An error reply, with its code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Complaint(pub(super) String);

/// What every parser of arguments returns.
pub(super) type Parsed<T> = Result<T, Complaint>;

impl Complaint {
    /// With the code that all errors have which have no other.
    pub(super) fn err(text: impl AsRef<str>) -> Self {
        Self(format!("ERR {}", text.as_ref()))
    }

    pub(super) fn syntax() -> Self {
        Self::err("syntax error")
    }

    pub(super) fn not_an_integer() -> Self {
        Self::err("value is not an integer or out of range")
    }

    pub(super) fn bad_id() -> Self {
        Self::err("Invalid stream ID specified as stream command argument")
    }

    /// `command` as the table has it: `xadd`, `xgroup|create`.
    pub(super) fn arity(command: &str) -> Self {
        Self::err(format!("wrong number of arguments for '{command}' command"))
    }
}

/// What is left of a request. Cheap to copy, to look ahead.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arguments<'r>(&'r [Bytes]);

impl<'r> Arguments<'r> {
    pub(super) fn new(arguments: &'r [Bytes]) -> Self {
        Self(arguments)
    }

    /// How many are left.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All that are left.
    pub(super) fn rest(&self) -> &'r [Bytes] {
        self.0
    }

    /// The next one, which stays.
    pub(super) fn peek(&self) -> Option<&'r Bytes> {
        self.0.first()
    }

    /// The next one; a syntax error if there is none.
    pub(super) fn next(&mut self) -> Parsed<&'r Bytes> {
        let (first, rest) = self.0.split_first().ok_or_else(Complaint::syntax)?;
        self.0 = rest;
        Ok(first)
    }

    /// Takes the next if it is this word, in any case.
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let is_it = self.peek().is_some_and(|next| is_word(next, word));
        if is_it {
            self.0 = self.0.get(1..).unwrap_or_default();
        }
        is_it
    }

    /// Takes the next if it is this word and `values` more follow it: otherwise Redis takes it for something else.
    pub(super) fn take_option(&mut self, word: &str, values: usize) -> bool {
        values < self.0.len() && self.take_word(word)
    }

    pub(super) fn integer(&mut self) -> Parsed<i64> {
        integer(self.next()?)
    }

    /// An integer whose other values have an error text of their own.
    pub(super) fn integer_or(&mut self, text: &str) -> Parsed<i64> {
        number(self.next()?).ok_or_else(|| Complaint::err(text))
    }

    pub(super) fn stream(&mut self) -> Parsed<StreamName> {
        stream(self.next()?)
    }

    pub(super) fn group(&mut self) -> Parsed<GroupName> {
        group(self.next()?)
    }

    pub(super) fn consumer(&mut self) -> Parsed<ConsumerName> {
        let text = text(self.next()?, "consumer")?;
        ConsumerName::new(text).map_err(|error| Complaint::err(error.to_string()))
    }

    /// An id of its own, neither `-` nor `+`; a missing sequence is 0.
    pub(super) fn strict_id(&mut self) -> Parsed<EntryId> {
        strict_id(self.next()?, 0)
    }

    /// All that are left, as strict ids.
    pub(super) fn strict_ids(&mut self) -> Parsed<Vec<EntryId>> {
        let ids = self.0.iter().map(|id| strict_id(id, 0)).collect();
        self.0 = &[];
        ids
    }
}

/// Whether an argument is this word, in any case.
pub(super) fn is_word(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

pub(super) fn integer(argument: &[u8]) -> Parsed<i64> {
    number(argument).ok_or_else(Complaint::not_an_integer)
}

/// What is a name here is text. Redis takes any bytes.
fn text<'a>(argument: &'a [u8], what: &str) -> Parsed<&'a str> {
    std::str::from_utf8(argument)
        .map_err(|_| Complaint::err(format!("the name of a {what} must be UTF-8 in Millstream")))
}

pub(super) fn stream(argument: &[u8]) -> Parsed<StreamName> {
    StreamName::new(text(argument, "stream")?).map_err(|error| Complaint::err(error.to_string()))
}

pub(super) fn group(argument: &[u8]) -> Parsed<GroupName> {
    GroupName::new(text(argument, "group")?).map_err(|error| Complaint::err(error.to_string()))
}

/// `ms` or `ms-seq`.
pub(super) fn strict_id(argument: &[u8], default_seq: u64) -> Parsed<EntryId> {
    let text = std::str::from_utf8(argument).map_err(|_| Complaint::bad_id())?;
    EntryId::parse_with_seq(text, default_seq).map_err(|_| Complaint::bad_id())
}

/// `ms`, `ms-seq`, `-` or `+`.
pub(super) fn id_or_end(argument: &[u8], default_seq: u64) -> Parsed<EntryId> {
    match argument {
        b"-" => Ok(EntryId::MIN),
        b"+" => Ok(EntryId::MAX),
        _ => strict_id(argument, default_seq),
    }
}

/// The lower end of an interval, included; `(` excludes it.
pub(super) fn interval_start(argument: &[u8]) -> Parsed<EntryId> {
    match argument.strip_prefix(b"(") {
        Some(excluded) => {
            let next = strict_id(excluded, 0)?.next();
            next.ok_or_else(|| Complaint::err("invalid start ID for the interval"))
        }
        None => id_or_end(argument, 0),
    }
}

/// The upper end of an interval, included; `(` excludes it.
pub(super) fn interval_end(argument: &[u8]) -> Parsed<EntryId> {
    match argument.strip_prefix(b"(") {
        Some(excluded) => {
            let before = strict_id(excluded, u64::MAX)?.prev();
            before.ok_or_else(|| Complaint::err("invalid end ID for the interval"))
        }
        None => id_or_end(argument, u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&'static str]) -> Vec<Bytes> {
        words.iter().map(|word| Bytes::from_static(word.as_bytes())).collect()
    }

    #[test]
    fn intervals() {
        let id = EntryId::new;
        let cases: [(&str, Option<EntryId>, Option<EntryId>); 8] = [
            ("-", Some(EntryId::MIN), Some(EntryId::MIN)),
            ("+", Some(EntryId::MAX), Some(EntryId::MAX)),
            ("5", Some(id(5, 0)), Some(id(5, u64::MAX))),
            ("(5", Some(id(5, 1)), Some(id(5, u64::MAX - 1))),
            ("(5-0", Some(id(5, 1)), Some(id(4, u64::MAX))),
            ("(0-0", Some(id(0, 1)), None),
            ("(-", None, None),
            ("(18446744073709551615-18446744073709551615", None, Some(id(u64::MAX, u64::MAX - 1))),
        ];
        for (text, start, end) in cases {
            assert_eq!(interval_start(text.as_bytes()).ok(), start, "{text} as start");
            assert_eq!(interval_end(text.as_bytes()).ok(), end, "{text} as end");
        }
        assert_eq!(interval_end(b"(0-0"), Err(Complaint::err("invalid end ID for the interval")));
        assert_eq!(interval_start(b"(+"), Err(Complaint::bad_id()));
    }

    #[test]
    fn options_are_words_with_values_behind_them() {
        let given = arguments(&["count", "5", "LIMIT"]);
        let mut left = Arguments::new(&given);
        assert!(!left.take_option("BLOCK", 1));
        assert!(left.take_option("COUNT", 1));
        assert_eq!(left.integer(), Ok(5));
        assert!(!left.take_option("LIMIT", 1), "nothing follows it");
        assert_eq!(left.len(), 1);
        assert!(left.take_word("limit"));
        assert_eq!(left.len(), 0);
        assert_eq!(left.next(), Err(Complaint::syntax()));
    }
}
