//! An action as commands of Redis, and the reply as an outcome.

use super::wire::{Reply, Request};
use crate::history::{Action, After, Entry, Fresh, GroupName, Id, Keep, Mode, Outcome, Pending, Placed, Put, Removed};

/// The field that holds an entry's content.
const CONTENT: &str = "content";
/// A stream that nobody creates.
const NOWHERE: &str = "nowhere";
/// Entries of a range at most: so many, however large, are read from one state. A longer one is put together from
/// pages.
const RANGE_MAX: u64 = 25;

/// The action as the door knows it: all reads are linearizable, and EXEC goes on after a command that is refused.
/// `None`: the door cannot do it, or its reply does not say what came of it.
pub(super) fn suited(action: &Action) -> Option<Action> {
    let mut action = action.clone();
    let is_plain = |put: &Put| put.key.is_none() && put.trim.is_none();
    match &mut action {
        // The reply is an id: whether it was there before, and how many others went, it does not say.
        Action::Append(put) if !is_plain(put) => return None,
        Action::Batch { puts, guard, .. } if guard.is_some() || !puts.iter().all(is_plain) => return None,
        Action::Batch { mode, .. } => *mode = Mode::Continue,
        Action::Range { count, fresh, .. } => {
            (*count, *fresh) = ((*count).min(RANGE_MAX), Fresh::Linearizable);
        }
        Action::Read { fresh, .. } => *fresh = Fresh::Linearizable,
        // XINFO does not say when the stream was changed last, keys are kept for seconds, and sessions are the node's.
        Action::Describe { .. } | Action::Configure { .. } | Action::CloseSessions => return None,
        _ => {}
    }
    Some(action)
}

/// The commands. There is one, or a transaction, whose last reply is that of EXEC.
pub(super) fn requests(action: &Action) -> Vec<Request> {
    let group_of = |line: &str, (stream, group): &GroupName| Request::of(line).arg(stream).arg(group);
    let with_ids = |request: Request, ids: &[Id]| ids.iter().fold(request, |request, id| request.arg(id.to_string()));
    let request = match action {
        Action::Append(put) => xadd(put),
        Action::Batch { puts, is_refused, .. } => {
            let mut all = vec![Request::of("MULTI")];
            all.extend(puts.iter().map(xadd));
            if *is_refused {
                all.push(Request::of("XADD").arg(NOWHERE).and("NOMKSTREAM *").arg(CONTENT).arg("x"));
            }
            all.push(Request::of("EXEC"));
            return all;
        }
        Action::Delete { stream, ids } => {
            with_ids(Request::of("XDELEX").arg(stream).and(&format!("ACKED IDS {}", ids.len())), ids)
        }
        Action::Trim { stream, trim } => {
            let sign = if trim.exact { "=" } else { "~" };
            Request::of("XTRIM").arg(stream).and(&match trim.keep {
                Keep::Newest(count) => format!("MAXLEN {sign} {count}"),
                Keep::From(id) => format!("MINID {sign} {id}"),
            })
        }
        Action::Range { stream, reverse, beyond, count, .. } => {
            let beyond = beyond.map(|id| format!("({id}"));
            let (name, start, end) = if *reverse { ("XREVRANGE", "+", "-") } else { ("XRANGE", "-", "+") };
            let start = beyond.as_deref().unwrap_or(start);
            Request::of(name).arg(stream).and(&format!("{start} {end} COUNT {count}"))
        }
        Action::Read { stream, after, count, wait_ms, .. } => {
            Request::of(&format!("XREAD COUNT {count}{} STREAMS", block(*wait_ms))).arg(stream).arg(position(after))
        }
        Action::ReadGroup { group: (stream, group), consumer, count, wait_ms } => {
            let options = format!("COUNT {count}{} STREAMS", block(*wait_ms));
            Request::of("XREADGROUP GROUP").arg(group).arg(consumer).and(&options).arg(stream).arg(">")
        }
        Action::ReadPending { group: (stream, group), consumer, after, count } => {
            let options = format!("COUNT {count} STREAMS");
            Request::of("XREADGROUP GROUP").arg(group).arg(consumer).and(&options).arg(stream).arg(after.to_string())
        }
        Action::Claim { group, consumer, ids, idle_min_ms } => {
            with_ids(group_of("XCLAIM", group).arg(consumer).arg(idle_min_ms.to_string()), ids)
        }
        Action::AutoClaim { group, consumer, idle_min_ms, count } => {
            group_of("XAUTOCLAIM", group).arg(consumer).and(&format!("{idle_min_ms} - COUNT {count}"))
        }
        Action::Ack { group, ids } => with_ids(group_of("XACK", group), ids),
        Action::AckAndDelete { group, ids } => {
            with_ids(group_of("XACKDEL", group).and(&format!("ACKED IDS {}", ids.len())), ids)
        }
        Action::Nack { group, ids } => with_ids(group_of("XNACK", group).and(&format!("FAIL IDS {}", ids.len())), ids),
        Action::ListPending { group, count } => group_of("XPENDING", group).and(&format!("- + {count}")),
        Action::CountPending { group } => group_of("XPENDING", group),
        Action::CreateGroup { group, after } => group_of("XGROUP CREATE", group).arg(position(after)).arg("MKSTREAM"),
        Action::MoveGroup { group, after } => group_of("XGROUP SETID", group).arg(position(after)),
        Action::DeleteGroup { group } => group_of("XGROUP DESTROY", group),
        Action::Describe { .. } | Action::Configure { .. } | Action::CloseSessions => return Vec::new(),
    };
    vec![request]
}

fn xadd(put: &Put) -> Request {
    let id = put.id.map_or_else(|| "*".to_owned(), |id| id.to_string());
    Request::of("XADD").arg(&put.stream).arg(id).arg(CONTENT).arg(&put.content)
}

fn position(after: &After) -> String {
    match after {
        After::Id(id) => id.to_string(),
        After::Arrival => "$".into(),
    }
}

/// BLOCK 0 would be for ever.
fn block(wait_ms: u64) -> String {
    if wait_ms == 0 { String::new() } else { format!(" BLOCK {wait_ms}") }
}

/// What the reply says. One that does not fit the request is an outcome that no checker accepts.
pub(super) fn outcome(action: &Action, reply: Reply) -> Outcome {
    match reply {
        // A block that is damaged, which the node mends: only reading hears of it.
        Reply::Error(text) if action.is_question() && text.starts_with("ERR the store cannot be read") => {
            Outcome::Unknown(text)
        }
        Reply::Error(text) => failed(text),
        reply => {
            let shown = format!("{reply:?}");
            done(action, reply).unwrap_or_else(|| senseless(&shown))
        }
    }
}

/// An error as an outcome, by the table of errors in docs/redis.md. What is in no table is a reason of its own.
pub(super) fn failed(text: String) -> Outcome {
    let code = text.split(' ').next().unwrap_or_default();
    let reason = match code {
        "UNKNOWN" => return Outcome::Unknown(text),
        "CLUSTERDOWN" => "NO_LEADER",
        "TRYAGAIN" => "OVERLOADED",
        "LOADING" => "NOT_READY",
        "OOM" => "DISK_FULL",
        "NOGROUP" => "GROUP_NOT_FOUND",
        "BUSYGROUP" => "GROUP_EXISTS",
        _ if text.starts_with("ERR The ID specified in XADD is equal or smaller") => "ID_NOT_GREATER",
        _ if text.starts_with("ERR The XGROUP subcommand requires the key to exist") => "STREAM_NOT_FOUND",
        _ if text.starts_with("ERR no such key") => "STREAM_NOT_FOUND",
        _ => &text,
    };
    Outcome::NothingChanged { reason: reason.to_owned(), text: text.clone() }
}

pub(super) fn senseless(reply: &str) -> Outcome {
    Outcome::NothingChanged { reason: "a reply that makes no sense".into(), text: reply.chars().take(400).collect() }
}

fn done(action: &Action, reply: Reply) -> Option<Outcome> {
    Some(match action {
        Action::Append(_) => Outcome::Appended(vec![placed(reply)?]),
        Action::Batch { puts, is_refused, .. } => {
            let mut results = array(reply)?;
            // What must be refused is: no stream, so no id.
            if results.len() != puts.len() + usize::from(*is_refused) || (*is_refused && results.pop()? != Reply::Nil) {
                return None;
            }
            Outcome::Appended(results.into_iter().map(placed).collect::<Option<_>>()?)
        }
        Action::Delete { .. } | Action::AckAndDelete { .. } => {
            let results = array(reply)?.into_iter().map(|result| match result {
                Reply::Integer(1) => Some(Removed::Deleted),
                Reply::Integer(-1) => Some(Removed::NotFound),
                Reply::Integer(2) => Some(Removed::Referenced),
                _ => None,
            });
            Outcome::Removed(results.collect::<Option<_>>()?)
        }
        Action::Trim { .. } => Outcome::Trimmed(number(&reply)?),
        Action::Ack { .. } => Outcome::Acknowledged(number(&reply)?),
        Action::Nack { .. } => Outcome::Released(number(&reply)?),
        Action::DeleteGroup { .. } => Outcome::Done(number(&reply)? == 1),
        Action::CreateGroup { .. } | Action::MoveGroup { .. } => {
            return (reply == Reply::Simple("OK".into())).then_some(Outcome::Done(true));
        }
        Action::Range { count, .. } => {
            let (entries, _) = entries(reply)?;
            let more = *count <= entries.len() as u64;
            Outcome::Read { entries, more }
        }
        Action::Read { count, .. } => {
            let (entries, _) = of_stream(reply)?;
            let more = *count <= entries.len() as u64;
            Outcome::Read { entries, more }
        }
        Action::ReadGroup { .. } | Action::ReadPending { .. } => {
            let (entries, deleted) = of_stream(reply)?;
            Outcome::Delivered { entries, deleted }
        }
        Action::Claim { .. } => Outcome::Delivered { entries: present(reply)?, deleted: Vec::new() },
        Action::AutoClaim { .. } => {
            let [_, claimed, gone] = <[Reply; 3]>::try_from(array(reply)?).ok()?;
            let deleted = array(gone)?.iter().map(id).collect::<Option<_>>()?;
            Outcome::Delivered { entries: present(claimed)?, deleted }
        }
        Action::ListPending { count, .. } => {
            let rows = array(reply)?.into_iter().map(pending).collect::<Option<Vec<_>>>()?;
            let more = *count <= rows.len() as u64;
            Outcome::Pending { entries: rows, more }
        }
        Action::CountPending { .. } => {
            let [count, _, _, consumers] = <[Reply; 4]>::try_from(array(reply)?).ok()?;
            let consumer = |row: Reply| {
                let [name, count] = <[Reply; 2]>::try_from(array(row)?).ok()?;
                Some((text(&name)?, text(&count)?.parse().ok()?))
            };
            let consumers = match consumers {
                Reply::Nil => Vec::new(),
                consumers => array(consumers)?.into_iter().map(consumer).collect::<Option<_>>()?,
            };
            Outcome::PendingCount { count: number(&count)?, consumers }
        }
        Action::Describe { .. } | Action::Configure { .. } | Action::CloseSessions => return None,
    })
}

fn placed(reply: Reply) -> Option<Placed> {
    match &reply {
        Reply::Error(error) => match failed(error.clone()) {
            Outcome::NothingChanged { reason, .. } => Some(Placed::Refused(reason)),
            _ => None,
        },
        reply => Some(Placed::At { id: id(reply)?, trimmed: 0 }),
    }
}

/// The entries of the only stream that was asked for, and the ids of those that are gone. Nothing to tell: neither.
fn of_stream(reply: Reply) -> Option<(Vec<Entry>, Vec<Id>)> {
    if reply == Reply::Nil {
        return Some((Vec::new(), Vec::new()));
    }
    let [stream] = <[Reply; 1]>::try_from(array(reply)?).ok()?;
    let [_, found] = <[Reply; 2]>::try_from(array(stream)?).ok()?;
    entries(found)
}

fn entries(reply: Reply) -> Option<(Vec<Entry>, Vec<Id>)> {
    let (mut found, mut gone) = (Vec::new(), Vec::new());
    for entry in array(reply)? {
        let [at, fields] = <[Reply; 2]>::try_from(array(entry)?).ok()?;
        let at = id(&at)?;
        if fields == Reply::Nil {
            gone.push(at);
            continue;
        }
        let fields = array(fields)?;
        let named = |pair: &&[Reply]| pair.first() == Some(&Reply::Bulk(CONTENT.into()));
        let Some([_, Reply::Bulk(content)]) = fields.chunks(2).find(named) else { return None };
        found.push(Entry { id: at, content: content.clone() });
    }
    Some((found, gone))
}

/// Entries all of which are in their stream.
fn present(reply: Reply) -> Option<Vec<Entry>> {
    entries(reply).and_then(|(found, gone)| gone.is_empty().then_some(found))
}

fn pending(row: Reply) -> Option<Pending> {
    let [at, consumer, _, deliveries] = <[Reply; 4]>::try_from(array(row)?).ok()?;
    let consumer = Some(text(&consumer)?).filter(|consumer| !consumer.is_empty());
    Some(Pending { id: id(&at)?, consumer, deliveries: number(&deliveries)? })
}

fn array(reply: Reply) -> Option<Vec<Reply>> {
    match reply {
        Reply::Array(items) => Some(items),
        _ => None,
    }
}

fn text(reply: &Reply) -> Option<String> {
    match reply {
        Reply::Bulk(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    }
}

fn number(reply: &Reply) -> Option<u64> {
    match reply {
        Reply::Integer(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn id(reply: &Reply) -> Option<Id> {
    let text = text(reply)?;
    let (ms, seq) = text.split_once('-')?;
    Some(Id { ms: ms.parse().ok()?, seq: seq.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Guard, Trim};

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    fn list(items: &[Reply]) -> Reply {
        Reply::Array(items.to_vec())
    }

    fn put(stream: &str) -> Put {
        Put { stream: stream.into(), content: b"c".to_vec(), ..Put::default() }
    }

    #[test]
    fn the_door_carries_what_its_replies_tell() {
        let append = Action::Append(put("s"));
        assert_eq!(suited(&append), Some(append));
        let keyed = Put { key: Some(("p".into(), "k".into())), ..put("s") };
        let trimming = Put { trim: Some(Trim { keep: Keep::Newest(1), exact: true }), ..put("s") };
        let guard = Some(Guard { stream: "s".into(), last_change: None, last_id: Id::MIN });
        let batch = |puts, guard| Action::Batch { puts, mode: Mode::AllOrNothing, guard, is_refused: false };
        assert_eq!(suited(&Action::Append(keyed)), None);
        assert_eq!(suited(&Action::Append(trimming.clone())), None);
        assert_eq!(suited(&batch(vec![put("s"), trimming], None)), None);
        assert_eq!(suited(&batch(vec![put("s")], guard)), None);
        assert!(matches!(suited(&batch(vec![put("s")], None)), Some(Action::Batch { mode: Mode::Continue, .. })));
        let range = Action::Range { stream: "s".into(), reverse: false, beyond: None, count: 90, fresh: Fresh::Local };
        let carried = suited(&range);
        assert!(matches!(carried, Some(Action::Range { count: RANGE_MAX, fresh: Fresh::Linearizable, .. })));
    }

    #[test]
    fn replies_become_outcomes_and_what_does_not_fit_becomes_none_that_is_accepted() {
        let entry = list(&[bulk("5-1"), list(&[bulk("content"), bulk("c")])]);
        let gone = list(&[bulk("4-0"), Reply::Nil]);
        let group = || ("s".to_owned(), "g".to_owned());
        let read = Action::ReadPending { group: group(), consumer: "c".into(), after: Id::MIN, count: 9 };
        let reply = list(&[list(&[bulk("s"), list(&[gone, entry])])]);
        let known = Entry { id: Id { ms: 5, seq: 1 }, content: b"c".to_vec() };
        let delivered = Outcome::Delivered { entries: vec![known], deleted: vec![Id { ms: 4, seq: 0 }] };
        assert_eq!(outcome(&read, reply), delivered);
        let nothing = Outcome::Delivered { entries: Vec::new(), deleted: Vec::new() };
        assert_eq!(outcome(&read, Reply::Nil), nothing);

        let batch = |is_refused| Action::Batch { puts: vec![put("s")], mode: Mode::Continue, guard: None, is_refused };
        let at = Outcome::Appended(vec![Placed::At { id: Id { ms: 7, seq: 0 }, trimmed: 0 }]);
        assert_eq!(outcome(&batch(false), list(&[bulk("7-0")])), at);
        assert_eq!(outcome(&batch(true), list(&[bulk("7-0"), Reply::Nil])), at);
        for (action, reply) in [
            (batch(true), list(&[bulk("7-0"), bulk("8-0")])),
            (batch(false), list(&[])),
            (Action::Append(put("s")), Reply::Nil),
            (read, Reply::Integer(1)),
        ] {
            let found = outcome(&action, reply);
            assert!(
                matches!(&found, Outcome::NothingChanged { reason, .. } if reason.contains("no sense")),
                "{found:?}"
            );
        }
        let acked = Action::Ack { group: group(), ids: vec![Id::MIN] };
        assert_eq!(outcome(&acked, Reply::Integer(1)), Outcome::Acknowledged(1));
        let refused = |text: &str| match outcome(&acked, Reply::Error(text.into())) {
            Outcome::NothingChanged { reason, .. } => reason,
            other => format!("{other:?}"),
        };
        assert_eq!(refused("CLUSTERDOWN no leader was found in time"), "NO_LEADER");
        assert_eq!(refused("OOM nothing more can be stored"), "DISK_FULL");
        assert_eq!(refused("ERR of a new kind"), "ERR of a new kind");
        assert!(matches!(outcome(&acked, Reply::Error("UNKNOWN who knows".into())), Outcome::Unknown(_)));
    }
}
