//! CLIENT: about this connection, and about others.

use std::time::Duration;

use bytes::Bytes;

use super::arguments::{Arguments, Complaint, Parsed, integer, is_word};
use super::clients::{Client, Unblock};
use super::connection::{Connection, Replies};
use super::here::number;
use super::reply::Reply;

/// Of a name, and of what a library says of itself.
const NAME_BYTES_MAX: usize = 1 << 10;

impl Connection {
    /// CLIENT REPLY, which itself has a reply only if it turns replies on.
    pub(super) fn client_reply(&mut self, left: &mut Arguments<'_>) -> Option<Reply> {
        let word = left.next().ok()?;
        if is_word(word, "ON") {
            self.replies = Replies::On;
            return Some(Reply::OK);
        }
        if is_word(word, "OFF") {
            self.replies = Replies::Off;
            return None;
        }
        if is_word(word, "SKIP") {
            if self.replies != Replies::Off {
                self.replies = Replies::Skip;
            }
            return None;
        }
        Some(Reply::Error(Complaint::syntax().0))
    }

    pub(super) fn client_command(&mut self, subcommand: &str, left: &mut Arguments<'_>) -> Parsed<Reply> {
        match subcommand {
            "id" => Ok(number(self.client.id)),
            "getname" => Ok(match self.client.facts(|facts| facts.name.clone()) {
                name if name.is_empty() => Reply::Null,
                name => Reply::text(name),
            }),
            "setname" => {
                let name = client_name(left.next()?)?;
                self.client.facts(|facts| facts.name = name);
                Ok(Reply::OK)
            }
            "setinfo" => self.set_info(left),
            "info" => Ok(Reply::Verbatim(format!("{}\n", self.client.line()))),
            "list" => self.list(left),
            "kill" => self.kill(left),
            "unblock" => self.unblock(left),
            "no-evict" | "no-touch" => {
                let word = left.next()?;
                let is_on = is_word(word, "ON");
                if !is_on && !is_word(word, "OFF") {
                    return Err(Complaint::syntax());
                }
                self.client.facts(|facts| match subcommand {
                    "no-evict" => facts.no_evict = is_on,
                    _ => facts.no_touch = is_on,
                });
                Ok(Reply::OK)
            }
            other => Err(Complaint::err(format!("unknown subcommand '{other}'. Try CLIENT HELP."))),
        }
    }

    fn set_info(&self, left: &mut Arguments<'_>) -> Parsed<Reply> {
        let (attribute, value) = (left.next()?, left.next()?);
        let shown = String::from_utf8_lossy(attribute).into_owned();
        let value = client_name(value)
            .map_err(|_| Complaint::err(format!("{shown} cannot contain spaces, newlines or special characters.")))?;
        if is_word(attribute, "LIB-NAME") {
            self.client.facts(|facts| facts.library = value);
        } else if is_word(attribute, "LIB-VER") {
            self.client.facts(|facts| facts.library_version = value);
        } else {
            return Err(Complaint::err(format!("Unrecognized option '{shown}'")));
        }
        Ok(Reply::OK)
    }

    fn list(&self, left: &mut Arguments<'_>) -> Parsed<Reply> {
        let mut clients = self.door.clients.all();
        while 0 < left.len() {
            if left.take_option("TYPE", 1) {
                if !is_normal(left.next()?)? {
                    clients.clear();
                }
            } else if left.take_option("ID", 1) {
                let ids: Vec<i64> = left.rest().iter().map(client_id).collect::<Parsed<_>>()?;
                clients.retain(|client| ids.contains(&i64::try_from(client.id).unwrap_or(i64::MAX)));
                break;
            } else {
                return Err(Complaint::syntax());
            }
        }
        let lines: String = clients.iter().map(|client| client.line() + "\n").collect();
        Ok(Reply::Verbatim(lines))
    }

    fn kill(&mut self, left: &mut Arguments<'_>) -> Parsed<Reply> {
        let old_style = left.len() == 1;
        let mut clients = self.door.clients.all();
        let mut skip_me = !old_style;
        if old_style {
            let address = left.next()?;
            clients.retain(|client| client.address().as_bytes() == &**address);
        }
        while 0 < left.len() {
            if left.take_option("ID", 1) {
                let id = super::request::number(left.next()?).filter(|id| 0 < *id);
                let id = id.ok_or_else(|| Complaint::err("client-id should be greater than 0"))?;
                clients.retain(|client| i64::try_from(client.id) == Ok(id));
            } else if left.take_option("ADDR", 1) {
                let address = left.next()?;
                clients.retain(|client| client.address().as_bytes() == &**address);
            } else if left.take_option("LADDR", 1) {
                // Nobody knows at which address of the node it arrived.
                left.next()?;
                clients.clear();
            } else if left.take_option("TYPE", 1) {
                if !is_normal(left.next()?)? {
                    clients.clear();
                }
            } else if left.take_option("USER", 1) {
                let user = left.next()?;
                if &**user != b"default" {
                    return Err(Complaint::err(format!("No such user '{}'", String::from_utf8_lossy(user))));
                }
            } else if left.take_option("MAXAGE", 1) {
                let age = left.integer_or("maxage is not an integer or out of range")?;
                let age = u64::try_from(age).ok().filter(|age| 0 < *age);
                let age = Duration::from_secs(age.ok_or_else(|| Complaint::err("maxage should be greater than 0"))?);
                clients.retain(|client| age <= client.since.elapsed());
            } else if left.take_option("SKIPME", 1) {
                let word = left.next()?;
                skip_me = is_word(word, "YES");
                if !skip_me && !is_word(word, "NO") {
                    return Err(Complaint::syntax());
                }
            } else {
                return Err(Complaint::syntax());
            }
        }
        if skip_me {
            clients.retain(|client| client.id != self.client.id);
        }
        clients.iter().for_each(|client| self.close(client));
        match (old_style, clients.len()) {
            (true, 0) => Err(Complaint::err("No such client")),
            (true, _) => Ok(Reply::OK),
            (false, count) => Ok(number(count as u64)),
        }
    }

    /// Closes a connection. This one hears of it first.
    fn close(&mut self, client: &Client) {
        if client.id == self.client.id { self.closing = true } else { client.kill() }
    }

    fn unblock(&self, left: &mut Arguments<'_>) -> Parsed<Reply> {
        if 2 < left.len() {
            let text = "unknown subcommand or wrong number of arguments for 'UNBLOCK'. Try CLIENT HELP.";
            return Err(Complaint::err(text));
        }
        let id = left.next()?;
        let how = match left.peek() {
            None => Unblock::Timeout,
            Some(word) if is_word(word, "TIMEOUT") => Unblock::Timeout,
            Some(word) if is_word(word, "ERROR") => Unblock::Error,
            Some(_) => {
                return Err(Complaint::err("CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
            }
        };
        let id = integer(id)?;
        let client = u64::try_from(id).ok().and_then(|id| self.door.clients.get(id));
        Ok(Reply::Integer(i64::from(client.is_some_and(|client| client.unblock(how)))))
    }
}

/// Whether a type of clients is that of all here.
fn is_normal(kind: &Bytes) -> Parsed<bool> {
    match ["NORMAL", "MASTER", "REPLICA", "SLAVE", "PUBSUB"].iter().position(|known| is_word(kind, known)) {
        Some(known) => Ok(known == 0),
        None => Err(Complaint::err(format!("Unknown client type '{}'", String::from_utf8_lossy(kind)))),
    }
}

fn client_id(argument: &Bytes) -> Parsed<i64> {
    let id = super::request::number(argument).filter(|id| 0 < *id);
    id.ok_or_else(|| Complaint::err("Invalid client ID"))
}

/// A name is printable and has no spaces, so that CLIENT LIST can be taken apart. It is kept for as long as the connection.
pub(super) fn client_name(argument: &Bytes) -> Parsed<String> {
    if NAME_BYTES_MAX < argument.len() {
        return Err(Complaint::err(format!("a client's name may have {NAME_BYTES_MAX} bytes at most in Millstream")));
    }
    let is_good = argument.iter().all(|byte| (b'!'..=b'~').contains(byte));
    match std::str::from_utf8(argument) {
        Ok(name) if is_good => Ok(name.to_owned()),
        _ => Err(Complaint::err("Client names cannot contain spaces, newlines or special characters.")),
    }
}
