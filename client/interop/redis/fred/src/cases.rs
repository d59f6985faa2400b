//! Every case of cases.txt in fred's words.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use fred::bytes::Bytes;
use fred::prelude::*;
use fred::types::scan::ScanType;
use fred::types::streams::{XPendingArgs, XReadResponse};
use fred::types::{ClientUnblockFlag, ClusterHash, CustomCommand, InfoKind};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::support::{Entries, Outcome, Report, Setting, equal, holds, now_ms};

type Read = XReadResponse<String, String, String, String>;

pub async fn run(setting: &Setting, report: &mut Report) {
    let r = match setting.connect(0).await {
        Ok(client) => client,
        Err(failure) => return report.failure("connect", &failure.to_string()),
    };
    let flushed: FredResult<()> = r.flushall(false).await;
    if let Err(error) = flushed {
        return report.failure("flushall", &error.to_string());
    }
    report.case("order-tracker", order_tracker(&r)).await;
    report.case("producer-consumer", producer_consumer(&r, setting)).await;
    report.case("group-acks", group_acks(&r)).await;
    report.case("pending-recovery", pending_recovery(&r)).await;
    report.case("trim-length", trim_length(&r)).await;
    report.case("trim-time", trim_time(&r)).await;
    report.case("history-replay", history_replay(&r)).await;
    report.case("xinfo", xinfo(&r)).await;
    report.case("blocking", blocking(&r, setting)).await;
    report.case("pipeline", pipeline(&r)).await;
    report.case("transaction", transaction(&r)).await;
    report.case("watch", watch(&r, setting)).await;
    report.case("errors", errors(&r)).await;
    report.case("keys", keys(&r)).await;
    report.case("ids-and-bytes", ids_and_bytes(&r)).await;
    report.case("any-door", any_door(setting)).await;
}

/// A command as it is typed, for what fred has no name for.
async fn raw<R: FromValue>(r: &Client, command: &str) -> FredResult<R> {
    let mut words = command.split(' ').map(str::to_owned);
    let name = words.next().expect("a command has a name");
    r.custom(CustomCommand::new(name, ClusterHash::FirstKey, false), words.collect()).await
}

async fn error_of(call: impl Future<Output = FredResult<Value>>) -> Outcome<String> {
    match call.await {
        Ok(reply) => Err(format!("no error, but {reply:?}").into()),
        Err(error) => Ok(error.details().to_owned()),
    }
}

fn order(number: usize, status: &str) -> String {
    let customer = ["Zoë", "Björn", "李雷", "O'Neil"][number % 4];
    let total = number as f64 * 10.0 + 0.5;
    serde_json::json!({"orderId": format!("order-{number}"), "customer": customer, "total": total, "status": status})
        .to_string()
}

fn entry(id: &str, name: &str, value: &str) -> (String, HashMap<String, String>) {
    (id.to_owned(), HashMap::from([(name.to_owned(), value.to_owned())]))
}

async fn append(r: &Client, key: &str, count: usize) -> Outcome<Vec<String>> {
    let mut ids = Vec::new();
    for n in 0..count as u64 {
        ids.push(r.xadd(key, false, None, "*", ("n", n)).await?);
    }
    Ok(ids)
}

async fn ids_of(r: &Client, key: &str, start: &str, end: &str) -> Outcome<Vec<String>> {
    let entries: Entries = r.xrange(key, start, end, None).await?;
    Ok(entries.into_iter().map(|(id, _)| id).collect())
}

async fn order_tracker(r: &Client) -> Outcome {
    let _: String = r.xadd("left-over", false, None, "*", ("a", "b")).await?;
    equal(r.flushall::<String>(false).await?, "OK".to_owned(), "FLUSHALL")?;
    equal(r.dbsize::<i64>().await?, 0, "keys after FLUSHALL")?;
    let mut expected = Entries::new();
    for n in 0..5 {
        let data = order(n, "created");
        let id: String = r.xadd("orders:stream", false, None, "*", ("data", data.as_str())).await?;
        expected.push(entry(&id, "data", &data));
    }
    equal(r.xlen::<i64, _>("orders:stream").await?, 5, "XLEN")?;
    let history: Entries = r.xrange("orders:stream", "-", "+", None).await?;
    equal(&history, &expected, "the history")?;
    let newest: Entries = r.xrevrange("orders:stream", "+", "-", Some(2)).await?;
    equal(newest, vec![expected[4].clone(), expected[3].clone()], "newest first")?;
    for (n, status) in [(1, "paid"), (3, "paid"), (1, "shipped")] {
        let _: String = r.xadd("orders:stream", false, None, "*", ("data", order(n, status))).await?;
    }
    let mut latest = BTreeMap::new();
    let all: Entries = r.xrange("orders:stream", "-", "+", None).await?;
    for (_, fields) in &all {
        let data: serde_json::Value = serde_json::from_str(&fields["data"])?;
        latest.insert(data["orderId"].to_string(), data["status"].as_str().unwrap_or_default().to_owned());
    }
    let latest: Vec<String> = latest.into_values().collect();
    let expected = ["created", "shipped", "created", "paid", "created"].map(str::to_owned).to_vec();
    equal(latest, expected, "the latest status of each order")
}

async fn producer_consumer(r: &Client, setting: &Setting) -> Outcome {
    let producer = setting.connect(1).await?;
    let producing = tokio::spawn(async move { append(&producer, "pc", 50).await });
    let (mut seen, mut last) = (Entries::new(), "0-0".to_owned());
    while seen.len() < 50 {
        let mut reply: Read = r.xread_map(Some(10), Some(2000), "pc", last.as_str()).await?;
        let entries = reply.remove("pc").ok_or("entries before the time ran out")?;
        seen.extend(entries);
        last = seen.last().expect("a stream in the reply has entries").0.clone();
    }
    let made = producing.await??;
    let expected = made.iter().enumerate().map(|(n, id)| entry(id, "n", &n.to_string())).collect();
    equal(seen, expected, "what the consumer saw")
}

async fn group_acks(r: &Client) -> Outcome {
    equal(r.xgroup_create::<String, _, _, _>("ga", "workers", "0", true).await?, "OK".to_owned(), "XGROUP CREATE")?;
    let busy = error_of(r.xgroup_create("ga", "workers", "0", false)).await?;
    equal(busy.as_str(), "BUSYGROUP Consumer Group name already exists", "a second XGROUP CREATE")?;
    let made = append(r, "ga", 20).await?;
    let mut got: HashMap<&str, Vec<String>> = HashMap::new();
    for consumer in ["alice", "bob", "bob", "alice"] {
        let mut reply: Read = r.xreadgroup_map("workers", consumer, Some(5), None, false, "ga", ">").await?;
        let entries = reply.remove("ga").ok_or("entries for everybody")?;
        got.entry(consumer).or_default().extend(entries.into_iter().map(|(id, _)| id));
    }
    let alice = [&made[..5], &made[15..]].concat();
    let bob = made[5..15].to_vec();
    equal(got, HashMap::from([("alice", alice.clone()), ("bob", bob.clone())]), "who got what")?;
    let nothing: Value = r.xreadgroup("workers", "alice", None, None, false, "ga", ">").await?;
    equal(nothing, Value::Null, "nothing is left")?;

    type Summary = (i64, Option<String>, Option<String>, Vec<(String, i64)>);
    let pending = async || -> Outcome<Summary> { Ok(r.xpending("ga", "workers", ()).await?) };
    let both = vec![("alice".to_owned(), 10), ("bob".to_owned(), 10)];
    let expected = (20, Some(made[0].clone()), Some(made[19].clone()), both);
    equal(pending().await?, expected, "XPENDING")?;
    equal(r.xack::<i64, _, _, _>("ga", "workers", alice.clone()).await?, 10, "XACK")?;
    let again = vec![alice[0].clone(), bob[0].clone()];
    equal(r.xack::<i64, _, _, _>("ga", "workers", again).await?, 1, "XACK, one of them again")?;
    equal(pending().await?.3, vec![("bob".to_owned(), 9)], "XPENDING after XACK")?;
    equal(r.xack::<i64, _, _, _>("ga", "workers", bob).await?, 9, "XACK of the rest")?;
    let (count, first, last, _): (i64, Option<String>, Option<String>, Value) = r.xpending("ga", "workers", ()).await?;
    equal((count, first, last), (0, None, None), "XPENDING at the end")
}

async fn pending_recovery(r: &Client) -> Outcome {
    let made = append(r, "pr", 6).await?;
    let _: () = r.xgroup_create("pr", "g", "0", false).await?;
    let _: Read = r.xreadgroup_map("g", "gone", None, None, false, "pr", ">").await?;
    type Rows = Vec<(String, String, i64, i64)>;
    let rows = async |consumer: Option<&str>, idle: Option<u64>| -> Outcome<Rows> {
        let arguments = XPendingArgs {
            idle,
            start: Some("-".into()),
            end: Some("+".into()),
            count: Some(10),
            consumer: consumer.map(Into::into),
        };
        Ok(r.xpending("pr", "g", arguments).await?)
    };
    let all = rows(None, None).await?;
    let expected: Vec<_> = made.iter().map(|id| (id.as_str(), "gone", 1)).collect();
    let got: Vec<_> = all.iter().map(|(id, who, _, count)| (id.as_str(), who.as_str(), *count)).collect();
    equal(got, expected, "rows of XPENDING")?;
    holds(all.iter().all(|(_, _, idle, _)| (0..60_000).contains(idle)), "idle times")?;
    equal(rows(Some("nobody"), None).await?, Rows::new(), "XPENDING of nobody")?;
    equal(rows(None, Some(60_000)).await?, Rows::new(), "XPENDING IDLE")?;
    let claim = async |idle: u64| -> Outcome<Entries> {
        let id = made[0].as_str();
        Ok(r.xclaim("pr", "g", "heir", idle, id, None, None, None, false, false).await?)
    };
    equal(claim(60_000).await?, Entries::new(), "XCLAIM of an entry too young")?;
    equal(claim(0).await?, vec![entry(&made[0], "n", "0")], "XCLAIM")?;
    let (_, who, _, count) = rows(Some("heir"), None).await?.remove(0);
    equal((who.as_str(), count), ("heir", 2), "the claimed row")?;
    equal(r.xdel::<i64, _, _>("pr", made[3].as_str()).await?, 1, "XDEL")?;

    type Claimed = (String, Entries, Vec<String>);
    let (cursor, first, deleted): Claimed = r.xautoclaim("pr", "g", "heir", 0, "0-0", Some(2), false).await?;
    equal((cursor.as_str(), first.len(), deleted.len()), (made[2].as_str(), 2, 0), "XAUTOCLAIM, first page")?;
    let rest: Claimed = r.xautoclaim("pr", "g", "heir", 0, cursor.as_str(), Some(10), false).await?;
    let left = [2, 4, 5].map(|n: usize| entry(&made[n], "n", &n.to_string())).to_vec();
    equal(rest, ("0-0".to_owned(), left, vec![made[3].clone()]), "XAUTOCLAIM, the rest")?;
    let young: Claimed = r.xautoclaim("pr", "g", "heir", 60_000, "0-0", None, false).await?;
    equal(young, ("0-0".to_owned(), Entries::new(), Vec::new()), "XAUTOCLAIM of entries too young")?;
    let just: (String, Vec<String>, Vec<String>) = r.xautoclaim("pr", "g", "third", 0, "0-0", Some(1), true).await?;
    equal(just, (made[1].clone(), vec![made[0].clone()], Vec::new()), "XAUTOCLAIM JUSTID")?;
    let counts: Vec<(String, i64)> = rows(None, None).await?.into_iter().map(|(id, _, _, count)| (id, count)).collect();
    let expected = [(0, 3), (1, 2), (2, 2), (4, 2), (5, 2)].map(|(n, count): (usize, i64)| (made[n].clone(), count));
    equal(counts, expected.to_vec(), "times delivered")?;
    equal(r.xgroup_delconsumer::<i64, _, _, _>("pr", "g", "heir").await?, 4, "XGROUP DELCONSUMER")?;
    equal(r.xgroup_delconsumer::<i64, _, _, _>("pr", "g", "gone").await?, 0, "DELCONSUMER without pending entries")?;
    equal(rows(None, None).await?.len(), 1, "what is pending at the end")
}

async fn trim_length(r: &Client) -> Outcome {
    let mut made: Vec<String> = Vec::new();
    for n in 0..15 {
        made.push(r.xadd("tl", false, ("MAXLEN", "=", 10), "*", ("n", n)).await?);
    }
    equal(ids_of(r, "tl", "-", "+").await?, made[5..].to_vec(), "the newest ten")?;
    equal(r.xtrim::<i64, _, _>("tl", ("MAXLEN", 4)).await?, 6, "XTRIM MAXLEN")?;
    equal(ids_of(r, "tl", "-", "+").await?, made[11..].to_vec(), "the newest four")?;
    equal(r.xtrim::<i64, _, _>("tl", ("MAXLEN", "=", 4)).await?, 0, "XTRIM MAXLEN again")?;
    let pipeline = r.pipeline();
    for n in 0..500 {
        let _: () = pipeline.xadd("tl", false, ("MAXLEN", "~", 1000), "*", ("n", n)).await?;
    }
    let _: Vec<String> = pipeline.all().await?;
    equal(r.xlen::<i64, _>("tl").await?, 504, "XADD MAXLEN ~ 1000 leaves what is below it")?;
    let removed: i64 = r.xtrim("tl", ("MAXLEN", "~", 100)).await?;
    let left: i64 = r.xlen("tl").await?;
    let fits = 100 <= left && removed + left == 504 && 0 < removed;
    holds(fits, &format!("XTRIM MAXLEN ~ 100 removed {removed}, left {left}"))?;
    equal(r.xtrim::<i64, _, _>("tl", ("MAXLEN", 0)).await?, left, "XTRIM MAXLEN 0")?;
    let after: (i64, i64) = (r.xlen("tl").await?, r.exists("tl").await?);
    equal(after, (0, 1), "an empty stream stays")
}

async fn trim_time(r: &Client) -> Outcome {
    for ms in (1000..2000).step_by(100) {
        let _: String = r.xadd("tt", false, None, format!("{ms}-1"), ("at", ms)).await?;
    }
    equal(r.xtrim::<i64, _, _>("tt", ("MINID", 1500)).await?, 5, "XTRIM MINID")?;
    let first: Entries = r.xrange("tt", "-", "+", Some(1)).await?;
    equal(first, vec![entry("1500-1", "at", "1500")], "the first that is left")?;
    equal(r.xtrim::<i64, _, _>("tt", ("MINID", "=", "1500-1")).await?, 0, "XTRIM MINID at the first")?;
    let _: String = r.xadd("tt", false, ("MINID", "=", "1800-2"), "2000-0", ("at", 2000)).await?;
    equal(ids_of(r, "tt", "-", "+").await?, vec!["1900-1".to_owned(), "2000-0".to_owned()], "XADD MINID")?;
    let id: String = r.xadd("tt-now", false, None, "*", ("a", "b")).await?;
    let now: i64 = id.split('-').next().expect("split yields one at least").parse()?;
    equal(r.xtrim::<i64, _, _>("tt-now", ("MINID", now - 3_600_000)).await?, 0, "older than an hour")?;
    equal(r.xtrim::<i64, _, _>("tt-now", ("MINID", now + 3_600_000)).await?, 1, "older than in an hour")
}

async fn history_replay(r: &Client) -> Outcome {
    for n in 0..25 {
        let _: String = r.xadd("hr", false, None, format!("{}-{}", 1000 + n / 5, n % 5 + 1), ("n", n)).await?;
    }
    let (mut sizes, mut numbers, mut start) = (Vec::new(), Vec::new(), "-".to_owned());
    loop {
        let page: Entries = r.xrange("hr", start.as_str(), "+", Some(7)).await?;
        let Some((last, _)) = page.last() else { break };
        start = format!("({last}");
        sizes.push(page.len());
        numbers.extend(page.iter().map(|(_, fields)| fields["n"].clone()));
    }
    equal(sizes, vec![7, 7, 7, 4], "the sizes of pages")?;
    equal(numbers, (0..25).map(|n| n.to_string()).collect(), "what they hold")?;
    let millisecond = (1..6).map(|s| format!("1002-{s}")).collect();
    equal(ids_of(r, "hr", "1002", "1002").await?, millisecond, "one ms")?;
    let half_open = vec!["1003-2".to_owned(), "1003-3".to_owned()];
    equal(ids_of(r, "hr", "1003-2", "(1003-4").await?, half_open, "a half-open range")?;
    let back: Entries = r.xrevrange("hr", "1001", "-", Some(2)).await?;
    equal(back, vec![entry("1001-5", "n", "9"), entry("1001-4", "n", "8")], "XREVRANGE")?;
    equal(ids_of(r, "hr", "1004-4", "1004-3").await?.len(), 0, "an empty range")?;
    equal(ids_of(r, "no-such-stream", "-", "+").await?.len(), 0, "XRANGE of a missing stream")?;

    let _: () = r.xgroup_create("hr", "replay", "1004-2", false).await?;
    let read = async |id: &str, noack: bool| -> Outcome<Option<Entries>> {
        let mut reply: Read = r.xreadgroup_map("replay", "c", None, None, noack, "hr", id).await?;
        Ok(reply.remove("hr"))
    };
    let three: Entries = (3..6).map(|s| entry(&format!("1004-{s}"), "n", &(19 + s).to_string())).collect();
    equal(read(">", false).await?, Some(three.clone()), "after the group's position")?;
    equal(read("0", false).await?, Some(three.clone()), "the consumer's own history")?;
    equal(r.xack::<i64, _, _, _>("hr", "replay", "1004-3").await?, 1, "XACK")?;
    equal(read("1004-4", false).await?, Some(three[2..].to_vec()), "its history after an id")?;
    let _: i64 = r.xack("hr", "replay", vec!["1004-4", "1004-5"]).await?;
    equal(read("0", false).await?, Some(Entries::new()), "an empty history")?;
    equal(r.xgroup_setid::<String, _, _, _>("hr", "replay", "0").await?, "OK".to_owned(), "XGROUP SETID")?;
    equal(read(">", true).await?.map(|all| all.len()), Some(25), "everything again, NOACK")?;
    let (pending, ..): (i64, Value, Value, Value) = r.xpending("hr", "replay", ()).await?;
    equal(pending, 0, "nothing pending after NOACK")
}

type Fields = HashMap<String, Value>;

fn text(fields: &Fields, name: &str) -> String {
    fields.get(name).and_then(Value::as_string).unwrap_or_else(|| format!("no {name}"))
}

fn number(fields: &Fields, name: &str) -> Option<i64> {
    fields.get(name).and_then(Value::as_i64)
}

async fn xinfo(r: &Client) -> Outcome {
    for n in 1..6 {
        let _: String = r.xadd("xi", false, None, format!("{n}-0"), ("n", n)).await?;
    }
    let _: () = r.xgroup_create("xi", "g1", "0", false).await?;
    let _: () = r.xgroup_create("xi", "g2", "$", false).await?;
    let _: Read = r.xreadgroup_map("g1", "c", Some(1), None, false, "xi", ">").await?;
    let groups = async || -> Outcome<Vec<Fields>> { Ok(r.xinfo_groups("xi").await?) };
    let behind = groups().await?;
    let got = (number(&behind[0], "entries-read"), number(&behind[0], "lag"));
    equal(got, (Some(1), Some(4)), "a group that is four entries behind")?;
    let _: i64 = r.xdel("xi", "2-0").await?;
    equal(r.xgroup_createconsumer::<i64, _, _, _>("xi", "g1", "idle").await?, 1, "XGROUP CREATECONSUMER")?;

    let info: Fields = r.xinfo_stream("xi", false, None).await?;
    let counts = ["length", "entries-added", "groups"].map(|name| number(&info, name));
    equal(counts, [Some(4), Some(5), Some(2)], "XINFO STREAM, counts")?;
    let ids = ["last-generated-id", "max-deleted-entry-id", "recorded-first-entry-id"].map(|name| text(&info, name));
    equal(ids, ["5-0", "2-0", "1-0"].map(str::to_owned), "XINFO STREAM, ids")?;
    let ends = ["first-entry", "last-entry"].map(|name| info[name].clone().convert::<(String, (String, String))>());
    let [first, last] = ends;
    let of = |n: &str| (format!("{n}-0"), ("n".to_owned(), n.to_owned()));
    equal((first?, last?), (of("1"), of("5")), "XINFO STREAM, first and last entry")?;
    let both = groups().await?;
    let of_group = |group: &Fields| {
        let numbers = ["consumers", "pending", "entries-read", "lag"].map(|name| number(group, name));
        (text(group, "name"), text(group, "last-delivered-id"), numbers)
    };
    // What is deleted behind the position makes the lag unknown.
    let g1 = ("g1".to_owned(), "1-0".to_owned(), [Some(2), Some(1), Some(1), None]);
    equal((both.len(), of_group(&both[0])), (2, g1), "XINFO GROUPS, first")?;
    let (name, last, [consumers, pending, _, lag]) = of_group(&both[1]);
    let g2 = ("g2".to_owned(), "5-0".to_owned(), Some(0), Some(0), Some(0));
    equal((name, last, consumers, pending, lag), g2, "XINFO GROUPS, second")?;
    let consumers: Vec<Fields> = r.xinfo_consumers("xi", "g1").await?;
    let got: Vec<_> = consumers.iter().map(|one| (text(one, "name"), number(one, "pending"))).collect();
    equal(got, vec![("c".to_owned(), Some(1)), ("idle".to_owned(), Some(0))], "XINFO CONSUMERS")?;
    holds(consumers.iter().all(|one| number(one, "idle").is_some_and(|ms| (0..60_000).contains(&ms))), "idle times")?;

    let full: Fields = r.xinfo_stream("xi", true, None).await?;
    let entries: Vec<(String, (String, String))> = full["entries"].clone().convert()?;
    equal(entries, ["1", "3", "4", "5"].map(of).to_vec(), "XINFO STREAM FULL, entries")?;
    let groups: Vec<Fields> = full["groups"].clone().convert()?;
    let got = (text(&groups[0], "name"), number(&groups[0], "pel-count"));
    equal(got, ("g1".to_owned(), Some(1)), "a group in FULL")?;
    let pending: Vec<(String, String, i64, i64)> = groups[0]["pending"].clone().convert()?;
    let (id, consumer, delivered, count) = &pending[0];
    equal((id.as_str(), consumer.as_str(), *count), ("1-0", "c", 1), "a pending entry in FULL")?;
    holds((delivered - now_ms()).abs() < 60_000, "its delivery time")?;
    let missing = error_of(r.xinfo_stream("nothing", false, None)).await?;
    equal(missing.as_str(), "ERR no such key", "XINFO STREAM of a missing stream")?;
    let nogroup = error_of(r.xinfo_consumers("xi", "nobody")).await?;
    let expected = "NOGROUP No such consumer group 'nobody' for key name 'xi'";
    equal(nogroup.as_str(), expected, "XINFO CONSUMERS of a missing group")
}

async fn wait_blocked(r: &Client, count: usize) -> Outcome {
    let line = format!("blocked_clients:{count}\r\n");
    for _ in 0..500 {
        if r.info::<String>(Some(InfoKind::Clients)).await?.contains(&line) {
            return Ok(());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Err(format!("{count} clients are blocked").into())
}

/// Starts a blocking XREADGROUP of one entry.
fn read_blocked(client: &Client, consumer: &str) -> JoinHandle<FredResult<Read>> {
    let (client, consumer) = (client.clone(), consumer.to_owned());
    tokio::spawn(async move { client.xreadgroup_map("g", consumer, Some(1), Some(4000), false, "bl", ">").await })
}

async fn blocking(r: &Client, setting: &Setting) -> Outcome {
    let began = Instant::now();
    let nothing: Value = r.xread(None, Some(300), "bl", "$").await?;
    let took = began.elapsed();
    equal(nothing, Value::Null, "XREAD BLOCK without an entry")?;
    let span = Duration::from_millis(290)..Duration::from_secs(2);
    holds(span.contains(&took), &format!("BLOCK 300 took {took:?}"))?;
    let _: () = r.xgroup_create("bl", "g", "$", true).await?;
    let clients = [setting.connect(0).await?, setting.connect(0).await?];
    let mut waits = Vec::new();
    for (n, client) in clients.iter().enumerate() {
        waits.push(read_blocked(client, &format!("c{n}")));
        wait_blocked(r, n + 1).await?;
    }
    let made = append(r, "bl", 2).await?;
    for (n, wait) in waits.into_iter().enumerate() {
        let expected = vec![entry(&made[n], "n", &n.to_string())];
        equal(wait.await??.remove("bl"), Some(expected), &format!("blocked reader {n}"))?;
    }
    wait_blocked(r, 0).await?;

    let client = clients[0].clone();
    let both = async move { client.xread_map(None, Some(0), vec!["bl", "bl-other"], vec!["$", "$"]).await };
    let forever: JoinHandle<FredResult<Read>> = tokio::spawn(both);
    wait_blocked(r, 1).await?;
    let id: String = r.xadd("bl-other", false, None, "*", ("a", "b")).await?;
    let expected = Read::from([("bl-other".to_owned(), vec![entry(&id, "a", "b")])]);
    equal(forever.await??, expected, "XREAD BLOCK 0 of two streams")?;

    let client_id: i64 = clients[0].client_id().await?;
    let client = clients[0].clone();
    let stopped: JoinHandle<FredResult<Value>> =
        tokio::spawn(async move { client.xread(None, Some(0), "bl", "$").await });
    wait_blocked(r, 1).await?;
    let unblock = async || -> Outcome<i64> { Ok(r.client_unblock(client_id, Some(ClientUnblockFlag::Timeout)).await?) };
    equal(unblock().await?, 1, "CLIENT UNBLOCK")?;
    equal(stopped.await??, Value::Null, "a reader that CLIENT UNBLOCK stopped")?;
    equal(unblock().await?, 0, "CLIENT UNBLOCK of a client that is not blocked")?;

    let orphan = read_blocked(&clients[0], "c");
    wait_blocked(r, 1).await?;
    equal(r.del::<i64, _>("bl").await?, 1, "DEL")?;
    let error = orphan.await?.err().ok_or("a reader whose stream was deleted has an error")?;
    let texts = [
        "NOGROUP No such key 'bl' or consumer group 'g' in XREADGROUP with GROUP option",
        "UNBLOCKED the stream key no longer exists", // before Redis 7.2
    ];
    holds(texts.contains(&error.details()), &format!("a reader whose stream was deleted: {error}"))
}

async fn pipeline(r: &Client) -> Outcome {
    let pipeline = r.pipeline();
    for n in 0..200 {
        let _: () = pipeline.xadd("pl", false, None, "*", ("n", n)).await?;
    }
    let made: Vec<String> = pipeline.all().await?;
    let stored: Entries = r.xrange("pl", "-", "+", None).await?;
    let expected = made.iter().enumerate().map(|(n, id)| entry(id, "n", &n.to_string())).collect();
    equal(stored, expected, "replies in order")?;
    let pipeline = r.pipeline();
    let _: () = pipeline.xadd("pl", false, None, "*", ("n", "a")).await?;
    let _: () = pipeline.xadd("pl", false, None, "1-1", ("n", "b")).await?;
    let _: () = pipeline.xlen("pl").await?;
    let _: () = pipeline.xack("pl", "nobody", "1-1").await?;
    let replies = pipeline.try_all::<Value>().await;
    let small = "ERR The ID specified in XADD is equal or smaller than the target stream top item";
    let error = replies[1].as_ref().err().map(|error| error.details().to_owned());
    equal(error.as_deref(), Some(small), "an error among replies")?;
    equal((replies[2].clone()?.as_i64(), replies[3].clone()?.as_i64()), (Some(201), Some(0)), "replies after it")?;
    let last: Entries = r.xrevrange("pl", "+", "-", Some(1)).await?;
    let first = replies[0].clone()?.as_string().unwrap_or_default();
    equal(last, vec![entry(&first, "n", "a")], "the entry before the error")
}

async fn transaction(r: &Client) -> Outcome {
    let _: () = r.xgroup_create("tx", "g", "0", true).await?;
    let first: String = r.xadd("tx", false, None, "*", ("n", 0)).await?;
    let _: Read = r.xreadgroup_map("g", "c", None, None, false, "tx", ">").await?;
    let multi = r.multi();
    let _: () = multi.xadd("tx", false, None, "*", ("n", 1)).await?;
    let _: () = multi.xadd("tx-dead", false, None, "*", ("origin", first.as_str())).await?;
    let _: () = multi.xack("tx", "g", first.as_str()).await?;
    let _: () = multi.xlen("tx").await?;
    let (second, dead, acked, length): (String, String, i64, i64) = multi.exec(true).await?;
    equal((acked, length), (1, 2), "replies of EXEC")?;
    let stream: Entries = r.xrange("tx", "-", "+", None).await?;
    equal(stream, vec![entry(&first, "n", "0"), entry(&second, "n", "1")], "the stream after EXEC")?;
    let other: Entries = r.xrange("tx-dead", "-", "+", None).await?;
    equal(other, vec![entry(&dead, "origin", &first)], "the other stream after EXEC")?;

    let multi = r.multi();
    let _: () = multi.xadd("tx", false, None, "*", ("n", 2)).await?;
    let _: () = multi.xadd("tx", false, None, "1-1", ("n", "small")).await?;
    let _: () = multi.xadd("tx", false, None, "*", ("n", 3)).await?;
    let partly = multi.exec::<Value>(false).await;
    holds(partly.is_err(), &format!("an error within EXEC: {partly:?}"))?;
    let numbers = async || -> Outcome<Vec<String>> {
        let entries: Entries = r.xrange("tx", "-", "+", None).await?;
        Ok(entries.into_iter().map(|(_, mut fields)| fields.remove("n").unwrap_or_default()).collect())
    };
    let expected: Vec<String> = ["0", "1", "2", "3"].map(str::to_owned).to_vec();
    equal(numbers().await?, expected.clone(), "the others of that EXEC took place")?;

    let multi = r.multi();
    let _: () = multi.xadd("tx", false, None, "*", ("n", 4)).await?;
    let odd = CustomCommand::new_static("XADD", ClusterHash::FirstKey, false);
    let _: () = multi.custom(odd, vec!["tx", "*", "odd"]).await?;
    let refused = multi.exec::<Value>(false).await;
    holds(refused.is_err(), &format!("a refused command refuses EXEC: {refused:?}"))?;
    equal(numbers().await?, expected, "nothing of the refused EXEC took place")
}

async fn watch(r: &Client, setting: &Setting) -> Outcome {
    let other = setting.connect(2).await?;
    append(r, "wa", 1).await?;
    let exec = async |n: u64| -> Outcome<Value> {
        let multi = r.multi();
        let _: () = multi.xadd("wa", false, None, "*", ("n", n)).await?;
        Ok(multi.exec(true).await?)
    };
    equal(raw::<String>(r, "WATCH wa").await?, "OK".to_owned(), "WATCH")?;
    equal(exec(1).await?.array_len(), Some(1), "EXEC without a change")?;
    let _: () = raw(r, "WATCH wa wa-other").await?;
    append(&other, "wa-other", 1).await?;
    equal(exec(2).await?, Value::Null, "EXEC after a change")?;
    equal(r.xlen::<i64, _>("wa").await?, 2, "nothing of it took place")?;
    let _: () = raw(r, "WATCH wa").await?;
    append(&other, "wa", 1).await?;
    let _: () = raw(r, "UNWATCH").await?;
    equal(exec(4).await?.array_len(), Some(1), "EXEC after UNWATCH")?;
    equal(r.xlen::<i64, _>("wa").await?, 4, "at the end")
}

async fn errors(r: &Client) -> Outcome {
    let _: String = raw(r, "XADD er 5-5 a b").await?;
    let rows = [
        ("XADD er 5-5 a b", "ERR The ID specified in XADD is equal or smaller than the target stream top item"),
        ("XADD er 0-0 a b", "ERR The ID specified in XADD must be greater than 0-0"),
        ("XADD er abc a b", "ERR Invalid stream ID specified as stream command argument"),
        ("XADD er * a", "ERR wrong number of arguments for 'xadd' command"),
        ("XRANGE er - + COUNT x", "ERR value is not an integer or out of range"),
        ("XREAD BLOCK -1 STREAMS er $", "ERR timeout is negative"),
        (
            "XREADGROUP GROUP g c STREAMS er >",
            "NOGROUP No such key 'er' or consumer group 'g' in XREADGROUP with GROUP option",
        ),
        ("XPENDING er g", "NOGROUP No such key 'er' or consumer group 'g'"),
        (
            "XGROUP CREATE nothing g 0",
            "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM \
             option to create an empty stream automatically.",
        ),
        ("XGROUP NOSUCH er", "ERR unknown subcommand 'NOSUCH'. Try XGROUP HELP."),
        ("XTRIM er MAXLEN -1", "ERR The MAXLEN argument must be >= 0."),
        ("NOSUCHCOMMAND a b", "ERR unknown command 'NOSUCHCOMMAND', with args beginning with: 'a' 'b' "),
    ];
    for (command, text) in rows {
        equal(error_of(raw(r, command)).await?.as_str(), text, command)?;
    }
    equal(r.xlen::<i64, _>("er").await?, 1, "nothing was added")
}

async fn keys(r: &Client) -> Outcome {
    let _: () = r.flushall(false).await?;
    for name in ["orders:1", "orders:2", "events:1"] {
        append(r, name, 1).await?;
    }
    equal(r.dbsize::<i64>().await?, 3, "DBSIZE")?;
    equal(r.exists::<i64, _>(vec!["orders:1", "events:1", "nothing", "orders:1"]).await?, 3, "EXISTS")?;
    let types: (String, String) = (r.r#type("orders:1").await?, r.r#type("nothing").await?);
    equal(types, ("stream".to_owned(), "none".to_owned()), "TYPE")?;
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let found = sorted(raw(r, "KEYS orders:*").await?);
    equal(found, vec!["orders:1".to_owned(), "orders:2".to_owned()], "KEYS")?;
    let scan = async |pattern: &str, kind: ScanType| -> Outcome<Vec<String>> {
        let (mut found, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let page: (String, Vec<String>) = r.scan_page(cursor, pattern, Some(1), Some(kind.clone())).await?;
            found.extend(page.1);
            cursor = page.0;
            if cursor == "0" {
                return Ok(sorted(found));
            }
        }
    };
    let expected = vec!["events:1".to_owned(), "orders:1".to_owned()];
    equal(scan("*:1", ScanType::Stream).await?, expected, "SCAN")?;
    equal(scan("*", ScanType::String).await?, Vec::new(), "SCAN of another type")?;
    equal(r.del::<i64, _>(vec!["orders:1", "nothing"]).await?, 1, "DEL")?;
    equal(r.unlink::<i64, _>("orders:2").await?, 1, "UNLINK")?;
    equal(raw::<Vec<String>>(r, "KEYS *").await?, vec!["events:1".to_owned()], "what is left")?;
    equal(raw::<String>(r, "FLUSHDB").await?, "OK".to_owned(), "FLUSHDB")?;
    equal(raw::<Vec<String>>(r, "KEYS *").await?.len(), 0, "KEYS after FLUSHDB")
}

async fn ids_and_bytes(r: &Client) -> Outcome {
    for (id, expected) in [("7-*", "7-0"), ("7-*", "7-1"), ("8", "8-0")] {
        let got: String = r.xadd("ib", false, None, id, ("a", "b")).await?;
        equal(got.as_str(), expected, &format!("the id {id}"))?;
    }
    let none: Option<String> = r.xadd("nothing", true, None, "*", ("a", "b")).await?;
    equal(none, None, "NOMKSTREAM")?;
    equal(r.exists::<i64, _>("nothing").await?, 0, "no stream came of it")?;
    let every: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = (0..300_000).map(|n| (n % 251) as u8).collect();
    let fields = [(b"\xff\x00raw".to_vec(), every), (b"empty".to_vec(), Vec::new()), (b"large".to_vec(), large)];
    let fields: Vec<(Bytes, Bytes)> = fields.map(|(name, value)| (name.into(), value.into())).to_vec();
    let pairs: Vec<(Key, Value)> =
        fields.iter().map(|(name, value)| (Key::from(name.clone()), Value::Bytes(value.clone()))).collect();
    let id: String = r.xadd("ib", false, None, "*", pairs).await?;
    let stored: Vec<(String, Vec<Bytes>)> = r.xrange("ib", id.as_str(), id.as_str(), None).await?;
    let flat = fields.into_iter().flat_map(|(name, value)| [name, value]).collect();
    holds(stored == vec![(id, flat)], "bytes come back")?;
    let _: String = raw(r, "XADD ib-twice 1-1 f 1 f 2 f 1").await?;
    let twice: Vec<(String, Vec<String>)> = raw(r, "XRANGE ib-twice - +").await?;
    let expected = ["f", "1", "f", "2", "f", "1"].map(str::to_owned).to_vec();
    equal(twice, vec![("1-1".to_owned(), expected)], "repeated fields keep their order")
}

async fn any_door(setting: &Setting) -> Outcome {
    let mut doors = Vec::new();
    for turn in 0..3 {
        doors.push(setting.connect(turn).await?);
    }
    let door = |n: usize| &doors[n % 3];
    let mut made: Vec<String> = Vec::new();
    for n in 0..60 {
        made.push(door(n).xadd("ad", false, None, "*", ("n", n as u64)).await?);
        let newest: Entries = door(n + 1).xrevrange("ad", "+", "-", Some(1)).await?;
        equal(newest, vec![entry(&made[n], "n", &n.to_string())], "the newest entry at the next door")?;
        equal(door(n + 2).xlen("ad").await?, n + 1, "XLEN at the one after")?;
    }
    let _: () = door(0).xgroup_create("ad", "g", "0", false).await?;
    for (n, id) in made.iter().enumerate().take(6) {
        let mut reply: Read = door(n).xreadgroup_map("g", "c", Some(1), None, false, "ad", ">").await?;
        let expected = vec![entry(id, "n", &n.to_string())];
        equal(reply.remove("ad"), Some(expected), "delivered in order, each once")?;
        let (pending, ..): (i64, Value, Value, Value) = door(n + 1).xpending("ad", "g", ()).await?;
        equal(pending, 1, "XPENDING at the next door")?;
        equal(door(n + 2).xack::<i64, _, _, _>("ad", "g", id.as_str()).await?, 1, "XACK at the one after")?;
    }
    for n in 0..3 {
        let reader = setting.connect(n).await?;
        let blocked: JoinHandle<FredResult<Read>> =
            tokio::spawn(async move { reader.xread_map(None, Some(4000), "ad-wake", "$").await });
        wait_blocked(door(n), 1).await?;
        let id: String = door(n + 1).xadd("ad-wake", false, None, "*", ("n", n as u64)).await?;
        let expected = Read::from([("ad-wake".to_owned(), vec![entry(&id, "n", &n.to_string())])]);
        equal(blocked.await??, expected, "a reader blocked at one door, woken by another")?;
    }
    equal(door(1).flushall::<String>(false).await?, "OK".to_owned(), "FLUSHALL")?;
    for one in &doors {
        equal(one.dbsize::<i64>().await?, 0, "DBSIZE at every door")?;
    }
    Ok(())
}
