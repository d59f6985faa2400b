//! The id of an entry: two numbers, compared as a pair, written `ms-seq`.

use std::fmt;
use std::str::FromStr;

use minicbor::{Decode, Encode};

/// The id of an entry: unique in its stream, and greater than every id before it.
///
/// 0-0 never names an entry; as a position it means "before the first", and [`Default`] yields it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct EntryId {
    /// Milliseconds since the Unix epoch when the store chose the id, or whatever the producer gave.
    #[n(0)]
    pub ms: u64,
    /// Tells apart entries of the same millisecond.
    #[n(1)]
    pub seq: u64,
}

impl EntryId {
    /// 0-0: before every entry.
    pub const MIN: EntryId = EntryId { ms: 0, seq: 0 };
    /// The greatest id. A stream whose last id is this accepts no more entries.
    pub const MAX: EntryId = EntryId { ms: u64::MAX, seq: u64::MAX };

    /// The id `ms-seq`.
    pub const fn new(ms: u64, seq: u64) -> Self {
        EntryId { ms, seq }
    }

    /// The smallest greater id; `None` after [`EntryId::MAX`]. A full `seq` carries into `ms`.
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(EntryId { ms: self.ms, seq }),
            None => Some(EntryId { ms: self.ms.checked_add(1)?, seq: 0 }),
        }
    }

    /// The greatest smaller id; `None` before [`EntryId::MIN`].
    pub fn prev(self) -> Option<Self> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(EntryId { ms: self.ms, seq }),
            None => Some(EntryId { ms: self.ms.checked_sub(1)?, seq: u64::MAX }),
        }
    }

    /// Whether this is 0-0.
    pub fn is_zero(self) -> bool {
        self == EntryId::MIN
    }

    /// Parses `ms` or `ms-seq`; `ms` alone means `ms-default_seq`. Each part is 1 to 20 ASCII digits and nothing else:
    /// the signs and spaces that Redis lets through are refused, and so is a number above 2^64-1.
    pub fn parse_with_seq(text: &str, default_seq: u64) -> Result<EntryId, ParseEntryIdError> {
        match text.split_once('-') {
            Some((ms, seq)) => Ok(EntryId { ms: parse_part(ms)?, seq: parse_part(seq)? }),
            None => Ok(EntryId { ms: parse_part(text)?, seq: default_seq }),
        }
    }
}

fn parse_part(digits: &str) -> Result<u64, ParseEntryIdError> {
    let well_formed = (1..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    if !well_formed {
        return Err(ParseEntryIdError);
    }
    digits.parse().map_err(|_| ParseEntryIdError)
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EntryId {
    type Err = ParseEntryIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        EntryId::parse_with_seq(text, 0)
    }
}

/// The text is no entry id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an entry id: expected ms or ms-seq, each a decimal number below 2^64")]
pub struct ParseEntryIdError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_strictly() {
        let cases: &[(&str, Option<EntryId>)] = &[
            ("0", Some(EntryId::new(0, 7))),
            ("5-3", Some(EntryId::new(5, 3))),
            ("007-01", Some(EntryId::new(7, 1))),
            ("18446744073709551615-18446744073709551615", Some(EntryId::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("5-", None),
            ("-5", None),
            ("1-2-3", None),
            ("+8", None),
            (" 6", None),
            ("abc", None),
            ("000000000000000000001", None),
        ];
        for (text, expected) in cases {
            assert_eq!(EntryId::parse_with_seq(text, 7).ok(), *expected, "{text:?}");
        }
        assert_eq!("5".parse(), Ok(EntryId::new(5, 0)));
    }

    #[test]
    fn steps_carry() {
        assert_eq!(EntryId::new(1, u64::MAX).next(), Some(EntryId::new(2, 0)));
        assert_eq!(EntryId::MAX.next(), None);
        assert_eq!(EntryId::new(2, 0).prev(), Some(EntryId::new(1, u64::MAX)));
        assert_eq!(EntryId::MIN.prev(), None);
    }
}
