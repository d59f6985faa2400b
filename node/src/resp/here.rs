//! Commands about the connection and the node that holds it.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use millstream_streams::StreamName;
use tokio::time::Instant;

use super::arguments::{Arguments, Complaint, Parsed};
use super::client_commands::client_name;
use super::clients::Blocked;
use super::connection::{Connection, Replies};
use super::dispatch::Found;
use super::reply::{Reply, Version};
use super::{commands, info, keys};
use crate::replica::Replica;

/// How soon WAIT looks again, and how seldom in the end.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
const LOOK_AGAIN_MAX: Duration = Duration::from_millis(250);

impl Connection {
    /// Answers; `None`: without a reply. Within a transaction nobody waits.
    pub(super) async fn here(&mut self, found: Found, request: &[Bytes], may_wait: bool) -> Option<Reply> {
        let behind = 1 + usize::from(found.subcommand.is_some());
        let arguments = request.get(behind..).unwrap_or_default();
        let mut left = Arguments::new(arguments);
        let answered = match (found.command.name, found.subcommand.map(|row| row.name)) {
            ("multi", _) => Ok(self.begin_multi()),
            ("exec", _) => Ok(self.exec().await),
            ("discard", _) => Ok(self.discard()),
            ("watch", _) => Ok(self.watch(arguments).await),
            ("unwatch", _) => Ok(self.unwatch()),
            ("ping", _) => ping(arguments),
            ("echo", _) => left.next().map(|text| Reply::Bulk(text.clone())),
            ("hello", _) => self.hello(&mut left),
            ("auth", _) => auth(arguments),
            ("select", _) => select(&mut left),
            ("quit", _) => {
                self.closing = true;
                Ok(Reply::OK)
            }
            ("reset", _) => Ok(self.reset()),
            ("time", _) => Ok(self.time()),
            ("wait", _) => self.wait(&mut left, may_wait).await,
            ("waitaof", _) => self.wait_aof(&mut left, may_wait).await,
            ("info", _) => Ok(Reply::Verbatim(info::info(&self.door, arguments, self.refused_connections()))),
            ("dbsize", _) => self.dbsize().await,
            ("keys", _) => self.keys(&mut left).await,
            ("scan", _) => self.scan(&mut left).await,
            ("config", Some("get")) => Ok(self.config_get(arguments)),
            ("config", Some("set")) => self.config_set(arguments),
            ("config", _) => Ok(Reply::OK),
            ("command", subcommand) => commands::answer(subcommand, arguments),
            ("client", Some("reply")) => return self.client_reply(&mut left),
            ("client", Some(subcommand)) => self.client_command(subcommand, &mut left),
            (name, _) => Err(Complaint::err(format!("'{name}' is not done here"))),
        };
        Some(answered.unwrap_or_else(|Complaint(text)| Reply::Error(text)))
    }

    fn hello(&mut self, left: &mut Arguments<'_>) -> Parsed<Reply> {
        let mut version = self.version;
        if left.peek().is_some() {
            version = match left.integer_or("Protocol version is not an integer or out of range")? {
                2 => Version::Two,
                3 => Version::Three,
                _ => return Err(Complaint("NOPROTO unsupported protocol version".into())),
            };
        }
        let mut name = None;
        while let Some(option) = left.peek() {
            if left.take_option("AUTH", 2) {
                let given = [left.next()?.clone(), left.next()?.clone()];
                auth(&given)?;
            } else if left.take_option("SETNAME", 1) {
                name = Some(client_name(left.next()?)?);
            } else {
                let option = String::from_utf8_lossy(option);
                return Err(Complaint::err(format!("Syntax error in HELLO option '{option}'")));
            }
        }
        self.version = version;
        if let Some(name) = name {
            self.client.facts(|facts| facts.name = name);
        }
        self.tell_others();
        let text = |text: &str| Reply::text(text);
        Ok(Reply::Map(vec![
            (text("server"), text("redis")),
            (text("version"), text(info::REDIS_VERSION)),
            (text("proto"), Reply::Integer(if version == Version::Three { 3 } else { 2 })),
            (text("id"), number(self.client.id)),
            (text("mode"), text("standalone")),
            (text("role"), text("master")),
            (text("modules"), Reply::Array(Vec::new())),
        ]))
    }

    /// Makes the connection what it was at first.
    fn reset(&mut self) -> Reply {
        (self.multi, self.version, self.replies) = (None, Version::Two, Replies::On);
        self.watched.clear();
        self.client.facts(|facts| {
            facts.name.clear();
            (facts.no_evict, facts.no_touch) = (false, false);
        });
        self.tell_others();
        Reply::Simple("RESET")
    }

    fn time(&self) -> Reply {
        let ms = self.door.world.clock.wall_ms();
        let text = |number: u64| Reply::text(number.to_string());
        Reply::Array(vec![text(ms / 1_000), text(ms % 1_000 * 1_000)])
    }

    /// WAIT: how many followers have this connection's last write on stable storage, once they are so many or the time is
    /// over.
    async fn wait(&mut self, left: &mut Arguments<'_>, may_wait: bool) -> Parsed<Reply> {
        let wanted = left.integer()?;
        let timeout = timeout(left)?.filter(|_| may_wait).or((!may_wait).then_some(Duration::ZERO));
        let (_, elsewhere) = self.stored(0, wanted, timeout).await;
        Ok(Reply::Integer(elsewhere))
    }

    /// WAITAOF: the same, and whether the leader has it on its own.
    async fn wait_aof(&mut self, left: &mut Arguments<'_>, may_wait: bool) -> Parsed<Reply> {
        let here = left.integer()?;
        if !(0..=1).contains(&here) {
            return Err(Complaint::err("value is out of range, must be between 0 and 1"));
        }
        let elsewhere = left.integer()?;
        if elsewhere < 0 {
            return Err(Complaint::err("value is out of range, must be positive"));
        }
        let timeout = timeout(left)?.filter(|_| may_wait).or((!may_wait).then_some(Duration::ZERO));
        let (here, elsewhere) = self.stored(here, elsewhere, timeout).await;
        Ok(Reply::Array(vec![Reply::Integer(here), Reply::Integer(elsewhere)]))
    }

    async fn stored(&mut self, here: i64, elsewhere: i64, timeout: Option<Duration>) -> (i64, i64) {
        let (door, client, last_write) = (self.door.clone(), self.client.clone(), self.last_write);
        let end = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let blocked: OnceLock<Blocked<'_>> = OnceLock::new();
        let mut found = (0, 0);
        let looking = async {
            let mut pause = LOOK_AGAIN;
            loop {
                if let Some(stored) = door.anywhere.stored(last_write).await {
                    found = (i64::from(stored.here), i64::from(stored.elsewhere));
                }
                let is_over = end.is_some_and(|end| end <= Instant::now());
                if is_over || (here <= found.0 && elsewhere <= found.1) {
                    return;
                }
                let blocked = blocked.get_or_init(|| Blocked::new(&door.clients, &client));
                let until = Instant::now() + pause;
                tokio::select! {
                    () = tokio::time::sleep_until(end.map_or(until, |end| end.min(until))) => {}
                    // Whatever the reason: what is known is the answer.
                    () = client.unblocked.notified() => if blocked.ended().is_some() { return },
                }
                pause = (2 * pause).min(LOOK_AGAIN_MAX);
            }
        };
        let _ = self.while_there(looking).await;
        found
    }

    async fn dbsize(&mut self) -> Parsed<Reply> {
        if let Err(denied) = self.door.barrier().await {
            return Ok(self.door.denied(&denied));
        }
        let count = self.door.front().replica.with_state(millstream_streams::State::stream_count);
        Ok(number(count as u64))
    }

    async fn keys(&mut self, left: &mut Arguments<'_>) -> Parsed<Reply> {
        let pattern = left.next()?;
        if let Err(denied) = self.door.barrier().await {
            return Ok(self.door.denied(&denied));
        }
        let bytes_max = self.door.options.reply_bytes_max;
        let replica = self.door.front().replica.clone();
        match keys::matching(pattern, bytes_max, |after, count| page(&replica, after, count)).await {
            Some(names) => Ok(Reply::Array(names.iter().map(|name| Reply::text(name.as_str())).collect())),
            None => Err(Complaint::err(format!("the reply would have more than {bytes_max} bytes; use SCAN"))),
        }
    }

    async fn scan(&mut self, left: &mut Arguments<'_>) -> Parsed<Reply> {
        let scan = keys::scan(left)?;
        if let Err(denied) = self.door.barrier().await {
            return Ok(self.door.denied(&denied));
        }
        let replica = &self.door.front().replica;
        self.door.scans.step(&scan, |after, count| page(replica, after, count))
    }

    fn config_get(&self, patterns: &[Bytes]) -> Reply {
        let found = self.door.settings.get(patterns.iter().map(|pattern| &**pattern));
        Reply::Map(found.into_iter().map(|(name, value)| (Reply::text(name), Reply::text(value))).collect())
    }

    fn config_set(&self, arguments: &[Bytes]) -> Parsed<Reply> {
        if !arguments.len().is_multiple_of(2) {
            return Err(Complaint::arity("config|set"));
        }
        let pairs: Vec<(&[u8], &[u8])> = arguments.chunks_exact(2).map(|pair| (&*pair[0], &*pair[1])).collect();
        self.door.settings.set(&pairs).map(|()| Reply::OK).map_err(Complaint::err)
    }
}

/// Names of streams, those behind a given one.
fn page(replica: &Replica, after: Option<&StreamName>, count: usize) -> Vec<StreamName> {
    let listed = replica.with_state(|state| state.list_streams("", after, count));
    listed.into_iter().map(|summary| summary.stream).collect()
}

pub(super) fn number(number: u64) -> Reply {
    Reply::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn ping(arguments: &[Bytes]) -> Parsed<Reply> {
    match arguments {
        [] => Ok(Reply::Simple("PONG")),
        [text] => Ok(Reply::Bulk(text.clone())),
        _ => Err(Complaint::arity("ping")),
    }
}

fn auth(arguments: &[Bytes]) -> Parsed<Reply> {
    match arguments {
        [_] => Err(Complaint::err(
            "AUTH <password> called without any password configured for the default user. Are you sure your configuration \
             is correct?",
        )),
        // As in Redis without users: the default one takes any password.
        [user, _] if &**user == b"default" => Ok(Reply::OK),
        [_, _] => Err(Complaint("WRONGPASS invalid username-password pair or user is disabled.".into())),
        _ => Err(Complaint::syntax()),
    }
}

fn select(left: &mut Arguments<'_>) -> Parsed<Reply> {
    match i32::try_from(left.integer()?) {
        Ok(0) => Ok(Reply::OK),
        Ok(_) => Err(Complaint::err("DB index is out of range")),
        Err(_) => Err(Complaint::err("value is out of range, value must between -2147483648 and 2147483647")),
    }
}

/// Milliseconds; 0: for ever.
fn timeout(left: &mut Arguments<'_>) -> Parsed<Option<Duration>> {
    let ms = left.integer_or("timeout is not an integer or out of range")?;
    match u64::try_from(ms) {
        Err(_) => Err(Complaint::err("timeout is negative")),
        Ok(0) => Ok(None),
        Ok(ms) => Ok(Some(Duration::from_millis(ms))),
    }
}
