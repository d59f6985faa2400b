//! What people write on the command line, and what it means.

use std::ops::Bound;
use std::time::Duration;

use millstream_client::{EntryId, GroupPosition, NackMode};

/// `FIELD=VALUE`; the value may contain more `=`.
pub(crate) fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected FIELD=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// `ms-seq`, or `ms` for `ms-0`.
pub(crate) fn id(text: &str) -> Result<EntryId, String> {
    EntryId::parse_with_seq(text, 0).map_err(|_| "expected an id: ms-seq or ms".to_owned())
}

/// How the id of a new entry is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NewId {
    Auto,
    Ms(u64),
    Explicit(EntryId),
}

/// `*`, `ms-*`, `ms-seq` or `ms`.
pub(crate) fn new_id(text: &str) -> Result<NewId, String> {
    if text == "*" {
        return Ok(NewId::Auto);
    }
    match text.strip_suffix("-*") {
        Some(ms) if !ms.contains('-') => Ok(NewId::Ms(id(ms)?.ms)),
        _ => Ok(NewId::Explicit(id(text)?)),
    }
}

/// The low end of a range: `-`, an id, or `(` and an id to leave it out.
pub(crate) fn start(text: &str) -> Result<Bound<EntryId>, String> {
    bound(text, "-", 0)
}

/// The high end of a range: `+`, an id, or `(` and an id to leave it out. `ms` alone is its last possible id.
pub(crate) fn end(text: &str) -> Result<Bound<EntryId>, String> {
    bound(text, "+", u64::MAX)
}

fn bound(text: &str, open: &str, seq: u64) -> Result<Bound<EntryId>, String> {
    if text == open {
        return Ok(Bound::Unbounded);
    }
    let id = |text| EntryId::parse_with_seq(text, seq).map_err(|_| format!("expected {open}, an id or (id"));
    match text.strip_prefix('(') {
        Some(text) => Ok(Bound::Excluded(id(text)?)),
        None => Ok(Bound::Included(id(text)?)),
    }
}

/// A threshold, exact or approximate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Threshold<T> {
    pub(crate) value: T,
    pub(crate) approximate: bool,
}

/// `N` or `~N`.
pub(crate) fn max_length(text: &str) -> Result<Threshold<u64>, String> {
    threshold(text, |number| number.parse().map_err(|_| "expected a number of entries: N or ~N".to_owned()))
}

/// `ID` or `~ID`.
pub(crate) fn min_id(text: &str) -> Result<Threshold<EntryId>, String> {
    threshold(text, id)
}

fn threshold<T>(text: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Threshold<T>, String> {
    let (approximate, value) = text.strip_prefix('~').map_or((false, text), |value| (true, value));
    Ok(Threshold { value: parse(value)?, approximate })
}

/// Where to read one stream from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadFrom {
    pub(crate) stream: String,
    pub(crate) from: From,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    After(EntryId),
    /// `$` for readers, `>` for groups.
    New,
    /// `+`.
    Last,
}

/// `STREAM=ID`, where ID may be `$` (new entries) or `+` (the last entry). The name may contain `=`.
pub(crate) fn read_from(text: &str) -> Result<ReadFrom, String> {
    let (stream, from) = text.rsplit_once('=').ok_or("expected STREAM=ID")?;
    let from = match from {
        "$" => From::New,
        "+" => From::Last,
        from => From::After(id(from)?),
    };
    Ok(ReadFrom { stream: stream.to_owned(), from })
}

/// `STREAM=ID`, where ID may be `>` (entries never delivered).
pub(crate) fn group_read_from(text: &str) -> Result<ReadFrom, String> {
    let (stream, from) = text.rsplit_once('=').ok_or("expected STREAM=ID")?;
    let from = if from == ">" { From::New } else { From::After(id(from)?) };
    Ok(ReadFrom { stream: stream.to_owned(), from })
}

/// `$` or an id.
pub(crate) fn group_position(text: &str) -> Result<GroupPosition, String> {
    if text == "$" { Ok(GroupPosition::End) } else { Ok(GroupPosition::After(id(text)?)) }
}

/// A number and `ms`, `s` or `m`; seconds without one.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match &text[digits.len()..] {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        _ => return Err("expected a time such as 500ms, 10s or 1m".to_owned()),
    };
    let number: f64 = digits.parse().map_err(|_| "expected a time such as 500ms, 10s or 1m".to_owned())?;
    // A day: longer than any call, and far from where clocks overflow.
    if !(0.0..=86_400.0).contains(&(number * seconds)) {
        return Err("expected at most a day".to_owned());
    }
    Ok(Duration::from_secs_f64(number * seconds))
}

/// A whole number and `ms`, `s`, `m`, `h` or `d`: for ages, which may be longer than any call.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let ms: u64 = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("expected a whole number and a unit, such as 500ms, 100s, 15m, 12h or 7d".to_owned()),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a whole number before the unit".to_owned())?;
    number.checked_mul(ms).map(Duration::from_millis).ok_or_else(|| "longer than can be counted".to_owned())
}

/// `STREAM=INDEX`. The name may contain `=`.
pub(crate) fn unchanged(text: &str) -> Result<(String, u64), String> {
    let (stream, index) = text.rsplit_once('=').ok_or("expected STREAM=INDEX")?;
    let index = index.parse().map_err(|_| "expected STREAM=INDEX, where INDEX is a number".to_owned())?;
    Ok((stream.to_owned(), index))
}

/// What becomes of groups' references to entries that are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum References {
    /// They stay: what is pending remains so without being in the stream (KEEPREF)
    #[default]
    Keep,
    /// The entry is pending no more, in any group (DELREF)
    Delete,
    /// Entries that some group has yet to deliver or to acknowledge are not removed (ACKED)
    Acked,
}

impl std::convert::From<References> for millstream_client::References {
    fn from(references: References) -> Self {
        match references {
            References::Keep => Self::Keep,
            References::Delete => Self::Delete,
            References::Acked => Self::Acked,
        }
    }
}

/// What giving back does to the delivery count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Mode {
    /// The delivery does not count: one less, but not below 0
    Silent,
    /// The delivery counts: as it is
    #[default]
    Fail,
    /// Nobody should try again: the greatest count there is, 2^63-1
    Fatal,
}

impl std::convert::From<Mode> for NackMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Silent => Self::Silent,
            Mode::Fail => Self::Fail,
            Mode::Fatal => Self::Fatal,
        }
    }
}

/// Milliseconds to wait for entries. 0 is as long as the store allows, an hour; in Redis it is for ever.
pub(crate) fn block(text: &str) -> Result<Duration, String> {
    const MAX: Duration = Duration::from_secs(3600);
    let ms: u64 = text.parse().map_err(|_| "expected milliseconds".to_owned())?;
    Ok(if ms == 0 { MAX } else { Duration::from_millis(ms).min(MAX) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64, seq: u64) -> EntryId {
        EntryId::new(ms, seq)
    }

    #[test]
    fn fields_split_at_the_first_equals_sign() {
        for (text, name, value) in [("a=b", "a", "b"), ("a=b=c==", "a", "b=c=="), ("=", "", ""), ("a=", "a", "")] {
            assert_eq!(field(text), Ok((name.to_owned(), value.to_owned())), "{text}");
        }
        assert!(field("a").is_err());
    }

    #[test]
    fn new_ids() {
        for (text, expected) in [
            ("*", NewId::Auto),
            ("5-*", NewId::Ms(5)),
            ("5-3", NewId::Explicit(at(5, 3))),
            ("5", NewId::Explicit(at(5, 0))),
        ] {
            assert_eq!(new_id(text), Ok(expected), "{text}");
        }
        for text in ["", "-*", "5-3-*", "a", "5-", "-5", "+5", "99999999999999999999"] {
            assert!(new_id(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ends_of_ranges() {
        for (text, expected) in [
            ("-", Bound::Unbounded),
            ("7", Bound::Included(at(7, 0))),
            ("7-2", Bound::Included(at(7, 2))),
            ("(7-2", Bound::Excluded(at(7, 2))),
        ] {
            assert_eq!(start(text), Ok(expected), "{text}");
        }
        assert_eq!(end("+"), Ok(Bound::Unbounded));
        assert_eq!(end("7"), Ok(Bound::Included(at(7, u64::MAX))));
        assert_eq!(end("(7-2"), Ok(Bound::Excluded(at(7, 2))));
        assert!(start("+").is_err() && end("-").is_err() && start("(").is_err() && start("(-").is_err());
    }

    #[test]
    fn thresholds() {
        assert_eq!(max_length("10"), Ok(Threshold { value: 10, approximate: false }));
        assert_eq!(max_length("~10"), Ok(Threshold { value: 10, approximate: true }));
        assert_eq!(min_id("~7-1"), Ok(Threshold { value: at(7, 1), approximate: true }));
        assert!(max_length("~").is_err() && max_length("-1").is_err() && max_length("~~1").is_err());
    }

    #[test]
    fn positions() {
        let from = |stream: &str, from| Ok(ReadFrom { stream: stream.to_owned(), from });
        assert_eq!(read_from("s=$"), from("s", From::New));
        assert_eq!(read_from("s=+"), from("s", From::Last));
        assert_eq!(read_from("a=b=7-1"), from("a=b", From::After(at(7, 1))));
        assert!(read_from("s").is_err() && read_from("s=>").is_err());
        assert_eq!(group_read_from("s=>"), from("s", From::New));
        assert_eq!(group_read_from("s=0"), from("s", From::After(at(0, 0))));
        assert!(group_read_from("s=$").is_err());
        assert_eq!(unchanged("a=b=17"), Ok(("a=b".to_owned(), 17)));
        assert!(unchanged("s").is_err() && unchanged("s=").is_err() && unchanged("s=-1").is_err());
        assert_eq!(group_position("$"), Ok(GroupPosition::End));
        assert_eq!(group_position("0-0"), Ok(GroupPosition::After(at(0, 0))));
    }

    #[test]
    fn times() {
        for (text, ms) in [("500ms", 500), ("2", 2000), ("1.5s", 1500), ("1m", 60_000)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "s", "1h", "-1s", "1e9", "nan", "inf"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for (text, ms) in
            [("500ms", 500), ("100s", 100_000), ("15m", 900_000), ("12h", 43_200_000), ("7d", 604_800_000)]
        {
            assert_eq!(age(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "5", "d", "1.5h", "-1s", "1w", "999999999999d"] {
            assert!(age(text).is_err(), "{text}");
        }
        assert_eq!(block("0"), Ok(Duration::from_secs(3600)));
        assert_eq!(block("250"), Ok(Duration::from_millis(250)));
    }
}
