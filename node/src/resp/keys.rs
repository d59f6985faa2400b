//! Keys, all of which are streams: DEL, UNLINK, EXISTS, TYPE, KEYS, SCAN, DBSIZE, FLUSHALL, OBJECT ENCODING.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use millstream_streams::limits::BATCH_OPERATIONS_MAX;
use millstream_streams::{Batch, BatchMode, Command, DeleteAll, DeleteStream, StreamName};

use super::arguments::{Arguments, Complaint, Parsed, is_word};
use super::glob;
use super::reply::Reply;

/// Streams that are looked at under one lock of the state.
const PAGE: usize = 1_000;
/// SCAN's default of COUNT.
const SCAN_COUNT: i64 = 10;
/// Scans that a node remembers. The oldest is forgotten for a new one.
const SCANS_MAX: usize = 1_024;

/// The streams that these names can be of. What cannot be a name of a stream is none.
pub(super) fn names(arguments: &[Bytes]) -> Vec<StreamName> {
    let text = |name: &Bytes| std::str::from_utf8(name).ok().and_then(|name| StreamName::new(name).ok());
    arguments.iter().filter_map(text).collect()
}

/// Refuses more names than one command may have.
pub(super) fn bounded<T>(names: &[T]) -> Parsed<()> {
    match names.len() <= BATCH_OPERATIONS_MAX {
        true => Ok(()),
        false => Err(Complaint::err(format!("at most {BATCH_OPERATIONS_MAX} keys at once in Millstream"))),
    }
}

/// Deletes these streams, as one entry of the log; `None`: there is none to delete.
pub(super) fn delete(names: Vec<StreamName>) -> Parsed<Option<Command>> {
    if BATCH_OPERATIONS_MAX < names.len() {
        return Err(Complaint::err(format!(
            "at most {BATCH_OPERATIONS_MAX} keys can be deleted at once in Millstream"
        )));
    }
    let operations: Vec<Command> = names.into_iter().map(|stream| DeleteStream { stream }.into()).collect();
    let batch = Batch { operations, guards: Vec::new(), mode: BatchMode::ContinueOnError };
    Ok(Some(batch).filter(|batch| !batch.operations.is_empty()).map(Command::from))
}

/// FLUSHALL, FLUSHDB: with or without a word that says how.
pub(super) fn flush(arguments: &Arguments<'_>) -> Parsed<Command> {
    match arguments.rest() {
        [] => Ok(DeleteAll {}.into()),
        [word] if is_word(word, "ASYNC") || is_word(word, "SYNC") => Ok(DeleteAll {}.into()),
        _ => Err(Complaint::syntax()),
    }
}

/// A bound on what is listed, by the bytes of a reply.
struct Room(usize);

impl Room {
    fn take(&mut self, name: &StreamName) -> bool {
        let bytes = name.as_str().len() + 16;
        let fits = bytes <= self.0;
        self.0 = self.0.saturating_sub(bytes);
        fits
    }
}

/// KEYS: all names that match, by name. `None`: they have more than `bytes_max` bytes. Looks at the state a page at a time,
/// so that the log goes on meanwhile.
pub(super) async fn matching(
    pattern: &[u8],
    bytes_max: usize,
    page: impl Fn(Option<&StreamName>, usize) -> Vec<StreamName>,
) -> Option<Vec<StreamName>> {
    let (mut found, mut after, mut room) = (Vec::new(), None, Room(bytes_max));
    loop {
        let names = page(after.as_ref(), PAGE);
        let is_last = names.len() < PAGE;
        after = names.last().cloned();
        for name in names {
            if glob::matches(pattern, name.as_str().as_bytes()) {
                if !room.take(&name) {
                    return None;
                }
                found.push(name);
            }
        }
        if is_last {
            return Some(found);
        }
        tokio::task::yield_now().await;
    }
}

/// What SCAN asks for.
#[derive(Debug)]
pub(super) struct Scan {
    cursor: u64,
    pattern: Option<Bytes>,
    count: usize,
    /// Nothing here is of the type asked for.
    nothing: bool,
}

pub(super) fn scan(arguments: &mut Arguments<'_>) -> Parsed<Scan> {
    let cursor = arguments.next()?;
    let cursor = std::str::from_utf8(cursor).ok().and_then(|cursor| cursor.parse().ok());
    let cursor = cursor.ok_or_else(|| Complaint::err("invalid cursor"))?;
    let (mut pattern, mut count, mut nothing) = (None, SCAN_COUNT, false);
    while 0 < arguments.len() {
        if arguments.take_option("COUNT", 1) {
            count = arguments.integer()?;
            if count < 1 {
                return Err(Complaint::syntax());
            }
        } else if arguments.take_option("MATCH", 1) {
            pattern = Some(arguments.next()?.clone());
        } else if arguments.take_option("TYPE", 1) {
            nothing = !is_word(arguments.next()?, "stream");
        } else {
            return Err(Complaint::syntax());
        }
    }
    let count = usize::try_from(count).unwrap_or(PAGE).min(PAGE);
    Ok(Scan { cursor, pattern, count, nothing })
}

/// Where scans of this node are. A cursor of Redis is a number; here it stands for a name, behind which the scan goes on, so
/// that what exists all the time is found, and once.
#[derive(Debug, Default)]
pub(super) struct Scans(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    last: u64,
    after: BTreeMap<u64, StreamName>,
}

impl Scans {
    /// A step of a scan: the next cursor, 0 at the end, and names.
    pub(super) fn step(
        &self,
        scan: &Scan,
        page: impl Fn(Option<&StreamName>, usize) -> Vec<StreamName>,
    ) -> Parsed<Reply> {
        let after = match scan.cursor {
            0 => None,
            cursor => {
                let places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let after = places.after.get(&cursor).cloned();
                Some(after.ok_or_else(|| Complaint::err("invalid cursor"))?)
            }
        };
        let names = if scan.nothing { Vec::new() } else { page(after.as_ref(), scan.count) };
        let next = names.last().filter(|_| names.len() == scan.count).cloned();
        let cursor = next.map_or(0, |next| self.remember(next));
        let fits = |name: &&StreamName| {
            scan.pattern.as_ref().is_none_or(|pattern| glob::matches(pattern, name.as_str().as_bytes()))
        };
        let names = names.iter().filter(fits).map(|name| Reply::text(name.as_str())).collect();
        Ok(Reply::Array(vec![Reply::text(cursor.to_string()), Reply::Array(names)]))
    }

    fn remember(&self, after: StreamName) -> u64 {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.last += 1;
        let cursor = places.last;
        places.after.insert(cursor, after);
        if SCANS_MAX < places.after.len() {
            places.after.pop_first();
        }
        cursor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(all: Vec<&'static str>) -> impl Fn(Option<&StreamName>, usize) -> Vec<StreamName> {
        move |after, count| {
            let behind = all.iter().filter(|name| after.is_none_or(|after| after.as_str() < **name));
            behind.take(count).map(|name| StreamName::new(*name).expect("a name")).collect()
        }
    }

    fn step(scans: &Scans, words: &[&'static str]) -> Result<(String, Vec<String>), Complaint> {
        let words: Vec<Bytes> = words.iter().map(|word| Bytes::from_static(word.as_bytes())).collect();
        let scan = scan(&mut Arguments::new(&words))?;
        let text = |reply: &Reply| match reply {
            Reply::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("{other:?}"),
        };
        match scans.step(&scan, pages(vec!["a", "b", "c", "d", "e"]))? {
            Reply::Array(parts) => match parts.as_slice() {
                [cursor, Reply::Array(names)] => Ok((text(cursor), names.iter().map(text).collect())),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_scan_comes_to_everything_once() {
        let scans = Scans::default();
        let (cursor, names) = step(&scans, &["0", "COUNT", "2"]).expect("a step");
        assert_eq!((cursor.as_str(), names.join(",").as_str()), ("1", "a,b"));
        // The same cursor may be used again.
        for _ in 0..2 {
            let (_, names) = step(&scans, &["1", "COUNT", "2", "MATCH", "[d-z]"]).expect("a step");
            assert_eq!(names, ["d"]);
        }
        let (cursor, names) = step(&scans, &["2", "COUNT", "2"]).expect("a step");
        assert_eq!((cursor.as_str(), names.join(",").as_str()), ("0", "e"));
        assert_eq!(step(&scans, &["0", "TYPE", "string"]).expect("a step"), ("0".into(), Vec::new()));
        assert_eq!(step(&scans, &["77"]), Err(Complaint::err("invalid cursor")));
        assert_eq!(step(&scans, &["x"]), Err(Complaint::err("invalid cursor")));
        assert_eq!(step(&scans, &["0", "COUNT", "0"]), Err(Complaint::syntax()));
    }

    #[tokio::test]
    async fn keys_are_listed_page_by_page_within_a_bound() {
        let page = |after: Option<&StreamName>, _: usize| match after {
            None => (0..PAGE).map(|n| StreamName::new(format!("a{n:04}")).expect("a name")).collect(),
            Some(_) => vec![StreamName::new("b").expect("a name")],
        };
        assert_eq!(matching(b"*", usize::MAX, page).await.map(|names| names.len()), Some(PAGE + 1));
        assert_eq!(matching(b"b", 20, page).await.map(|names| names.len()), Some(1));
        assert_eq!(matching(b"*", 1_000, page).await, None);
    }
}
