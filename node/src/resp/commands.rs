//! COMMAND: what there is, as the table has it.

use bytes::Bytes;

use super::arguments::{Complaint, Parsed, is_word};
use super::glob;
use super::reply::Reply;
use super::table::{self, Described, TABLE};

/// Names that may be asked for at once.
const NAMES_MAX: usize = 1_000;

pub(super) fn answer(subcommand: Option<&str>, arguments: &[Bytes]) -> Parsed<Reply> {
    if matches!(subcommand, Some("info" | "docs")) && NAMES_MAX < arguments.len() {
        return Err(Complaint::err(format!("at most {NAMES_MAX} names at once in Millstream")));
    }
    Ok(match subcommand {
        None => Reply::Array(TABLE.iter().map(|row| info(row, None)).collect()),
        Some("count") => Reply::Integer(TABLE.len() as i64),
        Some("info") if arguments.is_empty() => Reply::Array(TABLE.iter().map(|row| info(row, None)).collect()),
        Some("info") => {
            let one = |name: &Bytes| find(name).map_or(Reply::Null, |(row, parent)| info(row, parent));
            Reply::Array(arguments.iter().map(one).collect())
        }
        Some("docs") if arguments.is_empty() => Reply::Map(TABLE.iter().map(|row| docs(row, None)).collect()),
        Some("docs") => {
            let found = arguments.iter().filter_map(|name| find(name));
            Reply::Map(found.map(|(row, parent)| docs(row, parent)).collect())
        }
        Some("list") => list(arguments)?,
        Some("getkeys") => keys(arguments)?,
        Some(other) => return Err(Complaint::err(format!("unknown subcommand '{other}'. Try COMMAND HELP."))),
    })
}

/// A command, or a subcommand by `parent|name`.
fn find(name: &[u8]) -> Option<(&'static Described, Option<&'static Described>)> {
    match name.iter().position(|byte| *byte == b'|') {
        None => table::find(name).map(|row| (row, None)),
        Some(at) => {
            let parent = table::find(name.get(..at)?)?;
            Some((parent.subcommand(name.get(at + 1..)?)?, Some(parent)))
        }
    }
}

fn full_name(row: &Described, parent: Option<&Described>) -> Reply {
    Reply::text(parent.map_or_else(|| row.name.to_owned(), |parent| format!("{}|{}", parent.name, row.name)))
}

/// Name, arity, flags, first key, last key, step, categories, tips, key specifications, subcommands.
fn info(row: &'static Described, parent: Option<&'static Described>) -> Reply {
    let flags = row.flags.split(' ').filter(|flag| !flag.is_empty());
    let (first, last, step) = row.keys;
    let categories = categories(row, parent).into_iter().map(|category| Reply::Line(format!("@{category}")));
    let subcommands = row.subcommands.iter().map(|subcommand| info(subcommand, Some(row)));
    Reply::Array(vec![
        full_name(row, parent),
        Reply::Integer(row.arity),
        Reply::Set(flags.map(|flag| Reply::Line(flag.to_owned())).collect()),
        Reply::Integer(first),
        Reply::Integer(last),
        Reply::Integer(step),
        Reply::Set(categories.collect()),
        Reply::Array(Vec::new()),
        Reply::Array(key_specifications(row)),
        Reply::Array(subcommands.collect()),
    ])
}

/// The categories of ACLs that a command is in. A container is in none but `slow`: what it does is its subcommands' affair.
fn categories(row: &Described, parent: Option<&Described>) -> Vec<&'static str> {
    let mut found = vec![if row.has("fast") { "fast" } else { "slow" }];
    if !row.subcommands.is_empty() && row.name != "command" {
        return found;
    }
    let of = [("write", "write"), ("readonly", "read"), ("blocking", "blocking"), ("admin", "admin")];
    found.extend(of.into_iter().filter(|(flag, _)| row.has(flag)).map(|(_, category)| category));
    let is_dangerous = parent.is_none() && ["flushall", "flushdb", "info", "keys"].contains(&row.name);
    if row.has("admin") || is_dangerous {
        found.push("dangerous");
    }
    found.extend(match (row.group, parent.map_or(row.name, |parent| parent.name)) {
        (_, "wait" | "waitaof") => Some("connection"),
        (_, "dbsize" | "flushall" | "flushdb") => Some("keyspace"),
        ("server", "command") => Some("connection"),
        ("stream", _) => Some("stream"),
        ("generic", _) => Some("keyspace"),
        ("connection", _) => Some("connection"),
        ("transactions", _) => Some("transaction"),
        ("scripting", _) => Some("scripting"),
        _ => None,
    });
    found
}

fn key_specifications(row: &Described) -> Vec<Reply> {
    let text = |text: &str| Reply::text(text);
    let flags = || {
        let access = if row.writes() { ["RW", "UPDATE"] } else { ["RO", "ACCESS"] };
        Reply::Set(access.iter().map(|flag| Reply::Line((*flag).to_owned())).collect())
    };
    let spec = |kind: &str, begin: Reply, find: &str, range: Reply| {
        Reply::Map(vec![
            (text("flags"), flags()),
            (text("begin_search"), Reply::Map(vec![(text("type"), text(kind)), (text("spec"), begin)])),
            (text("find_keys"), Reply::Map(vec![(text("type"), text(find)), (text("spec"), range)])),
        ])
    };
    let range = |last: i64, step: i64, limit: i64| {
        Reply::Map(vec![
            (text("lastkey"), Reply::Integer(last)),
            (text("keystep"), Reply::Integer(step)),
            (text("limit"), Reply::Integer(limit)),
        ])
    };
    if row.has("movablekeys") {
        let begin = Reply::Map(vec![
            (text("keyword"), text("STREAMS")),
            (text("startfrom"), Reply::Integer(if row.name == "xread" { 1 } else { 4 })),
        ]);
        return vec![spec("keyword", begin, "range", range(-1, 1, 2))];
    }
    let (first, last, step) = row.keys;
    if first == 0 {
        return Vec::new();
    }
    let begin = Reply::Map(vec![(text("index"), Reply::Integer(first))]);
    let last = if last < 0 { last } else { last - first };
    vec![spec("index", begin, "range", range(last, step, 0))]
}

fn docs(row: &'static Described, parent: Option<&'static Described>) -> (Reply, Reply) {
    let text = |text: &str| Reply::text(text);
    let mut facts = vec![(text("summary"), text(row.summary)), (text("group"), text(row.group))];
    if !row.subcommands.is_empty() {
        let subcommands = row.subcommands.iter().map(|subcommand| docs(subcommand, Some(row)));
        facts.push((text("subcommands"), Reply::Map(subcommands.collect())));
    }
    (full_name(row, parent), Reply::Map(facts))
}

/// `LIST [FILTERBY MODULE name | ACLCAT category | PATTERN pattern]`.
fn list(arguments: &[Bytes]) -> Parsed<Reply> {
    let names = |fits: &dyn Fn(&Described) -> bool| {
        Reply::Array(TABLE.iter().filter(|row| fits(row)).map(|row| Reply::text(row.name)).collect())
    };
    match arguments {
        [] => Ok(names(&|_| true)),
        [filter, kind, value] if is_word(filter, "FILTERBY") => {
            if is_word(kind, "MODULE") {
                Ok(names(&|_| false))
            } else if is_word(kind, "ACLCAT") {
                Ok(names(&|row| categories(row, None).iter().any(|category| is_word(value, category))))
            } else if is_word(kind, "PATTERN") {
                let pattern = value.to_ascii_lowercase();
                Ok(names(&|row| glob::matches(&pattern, row.name.as_bytes())))
            } else {
                Err(Complaint::syntax())
            }
        }
        _ => Err(Complaint::syntax()),
    }
}

/// GETKEYS: the keys of a whole request.
fn keys(request: &[Bytes]) -> Parsed<Reply> {
    let invalid = || Complaint::err("Invalid command specified");
    let command = request.first().and_then(|name| table::find(name)).ok_or_else(invalid)?;
    let row = match request.get(1) {
        Some(name) if !command.subcommands.is_empty() => command.subcommand(name).ok_or_else(invalid)?,
        _ => command,
    };
    if !row.takes(request.len()) {
        return Err(Complaint::err("Invalid number of arguments specified for command"));
    }
    let none = || Complaint::err("The command has no key arguments");
    let found: Vec<&Bytes> = match row.keys {
        _ if row.has("movablekeys") => {
            let streams = request.iter().position(|word| is_word(word, "STREAMS")).ok_or_else(none)?;
            let rest = request.get(streams + 1..).unwrap_or_default();
            rest.iter().take(rest.len() / 2).collect()
        }
        (0, _, _) => return Err(none()),
        (first, last, step) => {
            let last = if last < 0 { request.len() as i64 + last } else { last };
            let step = usize::try_from(step).unwrap_or(1).max(1);
            let (first, last) = (usize::try_from(first).unwrap_or(0), usize::try_from(last).unwrap_or(0));
            (first..=last).step_by(step).filter_map(|at| request.get(at)).collect()
        }
    };
    Ok(Reply::Array(found.into_iter().map(|key| Reply::Bulk(key.clone())).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &'static str) -> Vec<Bytes> {
        line.split(' ').map(|word| Bytes::from_static(word.as_bytes())).collect()
    }

    fn get_keys(line: &'static str) -> Result<String, String> {
        match answer(Some("getkeys"), &words(line)) {
            Ok(Reply::Array(keys)) => Ok(format!("{keys:?}").replace("Bulk(b", "").replace(')', "")),
            Ok(other) => Err(format!("{other:?}")),
            Err(Complaint(text)) => Err(text),
        }
    }

    #[test]
    fn keys_of_requests() {
        for (line, expected) in [
            ("xadd s * a b", r#"["s"]"#),
            ("del a b c", r#"["a", "b", "c"]"#),
            ("xgroup create s g $", r#"["s"]"#),
            ("xread count 1 streams a b 0 0", r#"["a", "b"]"#),
            ("xreadgroup group g c streams a >", r#"["a"]"#),
        ] {
            assert_eq!(get_keys(line).as_deref(), Ok(expected), "{line}");
        }
        assert_eq!(get_keys("ping"), Err("ERR The command has no key arguments".into()));
        assert_eq!(get_keys("nope"), Err("ERR Invalid command specified".into()));
        assert_eq!(get_keys("xadd s"), Err("ERR Invalid number of arguments specified for command".into()));
    }

    #[test]
    fn commands_are_told_with_their_subcommands() {
        let Ok(Reply::Array(rows)) = answer(Some("info"), &words("xadd XGROUP|CREATE nope")) else { panic!() };
        let part = |row: usize, at: usize| match &rows[row] {
            Reply::Array(parts) => parts[at].clone(),
            other => other.clone(),
        };
        assert_eq!((part(0, 0), part(0, 1), part(0, 3)), (Reply::text("xadd"), Reply::Integer(-5), Reply::Integer(1)));
        assert_eq!((part(1, 0), part(1, 3)), (Reply::text("xgroup|create"), Reply::Integer(2)));
        assert_eq!(rows[2], Reply::Null);
        assert_eq!(answer(Some("count"), &[]), Ok(Reply::Integer(TABLE.len() as i64)));
    }
}
