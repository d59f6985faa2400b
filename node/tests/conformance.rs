//! `docs/conformance.md` is held to the protocol, to the scripts that it names, and to its own totals.
#![allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]

use std::collections::BTreeSet;
use std::path::Path;

use millstream_proto::reasons;
use prost::Message;

const PAGE: &str = include_str!("../../docs/conformance.md");

/// Every word of Redis that the page must speak of: commands with their options.
const REDIS: &[(&str, &str)] = &[
    ("XADD", "NOMKSTREAM MAXLEN MINID LIMIT KEEPREF DELREF ACKED IDMP IDMPAUTO `ms-*` `~`"),
    ("XLEN", ""),
    ("XRANGE", "COUNT `(`"),
    ("XREVRANGE", ""),
    ("XREAD", "COUNT BLOCK MAXCOUNT MAXSIZE `$` `+`"),
    ("XDEL", ""),
    ("XDELEX", "KEEPREF DELREF ACKED"),
    ("XTRIM", "MAXLEN MINID LIMIT `~` KEEPREF DELREF ACKED"),
    ("XSETID", "ENTRIESADDED MAXDELETEDID"),
    ("XCFGSET", "IDMP-DURATION IDMP-MAXSIZE"),
    ("XIDMPRECORD", ""),
    ("XGROUP", "CREATE SETID DESTROY CREATECONSUMER DELCONSUMER HELP MKSTREAM ENTRIESREAD"),
    ("XREADGROUP", "COUNT BLOCK NOACK CLAIM MAXCOUNT MAXSIZE `>`"),
    ("XACK", ""),
    ("XACKDEL", "KEEPREF DELREF ACKED"),
    ("XNACK", "SILENT FAIL FATAL RETRYCOUNT FORCE"),
    ("XPENDING", "IDLE"),
    ("XCLAIM", "IDLE TIME RETRYCOUNT FORCE JUSTID LASTID"),
    ("XAUTOCLAIM", "COUNT JUSTID"),
    ("XINFO", "STREAM FULL GROUPS CONSUMERS HELP"),
    ("MULTI", ""),
    ("EXEC", ""),
    ("WATCH", ""),
    ("DEL", ""),
    ("FLUSHALL", ""),
];

/// The cells of the rows of tables with this many columns, without the heads.
fn rows(columns: usize) -> Vec<Vec<&'static str>> {
    let tables = PAGE.lines().filter_map(|line| line.strip_prefix('|')?.strip_suffix('|'));
    let cells = tables.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let is_head = |row: &Vec<&str>| row.iter().any(|cell| ["state", "what", "reason", "---"].contains(cell));
    cells.filter(|row| row.len() == columns && !is_head(row)).collect()
}

/// The rows of the tables that compare commands.
fn commands() -> Vec<Vec<&'static str>> {
    rows(6)
}

#[test]
fn the_totals_are_right() {
    let count = |state: &str| commands().iter().filter(|row| row.get(3) == Some(&state)).count();
    let (same, differ, not) = (count("same"), count("differs"), count("not offered"));
    let total = commands().len();
    assert_eq!(total, same + differ + not, "every row has one of the three states");
    let line = format!("Totals: {total} rows; {same} same, {differ} differ, {not} not offered.");
    assert!(PAGE.contains(&line), "the page should say: {line}");
}

#[test]
fn every_row_says_what_it_must() {
    for row in commands() {
        let [redis, since, here, state, script, note] = row[..] else { panic!("{row:?}") };
        assert!(since.starts_with(|c: char| c.is_ascii_digit()), "{redis}: since when?");
        let offered = state != "not offered";
        assert_eq!(!here.is_empty(), offered, "{redis}: where is it?");
        assert!(offered || script.is_empty(), "{redis}: a story about what is not offered");
        assert!(state == "same" || !note.is_empty(), "{redis}: what differs, or why not?");
        // What waits lies outside the core, whose stories know no waiting.
        assert!(!offered || !script.is_empty() || redis.contains("BLOCK"), "{redis}: no story shows it");
    }
    let scripts = Path::new("streams/tests/scripts");
    let named = commands().into_iter().filter_map(|row| row.get(4).copied());
    for script in named.chain(rows(3).into_iter().filter_map(|row| row.get(2).copied())).filter(|name| !name.is_empty())
    {
        assert!(scripts.join(script).is_file(), "there is no script {script}");
    }
}

#[test]
fn every_word_of_redis_is_there() {
    for (command, options) in REDIS {
        let mentions =
            |row: &&Vec<&str>| row.first().is_some_and(|redis| redis.split([' ', ',']).any(|word| word == *command));
        let rows = commands();
        let rows: Vec<_> = rows.iter().filter(mentions).collect();
        assert!(!rows.is_empty(), "no row speaks of {command}");
        for option in options.split(' ').filter(|option| !option.is_empty()) {
            let found = rows.iter().filter_map(|row| row.first()).any(|redis| redis.contains(option));
            assert!(found, "no row speaks of {command} {option}");
        }
    }
}

#[test]
fn the_page_and_the_protocol_name_each_other() {
    let files = prost_types::FileDescriptorSet::decode(millstream_proto::DESCRIPTORS).unwrap().file;
    let package: Vec<_> = files.iter().filter(|file| file.package() == "millstream.v1").collect();
    let services = package.iter().flat_map(|file| &file.service);
    let rpcs: BTreeSet<&str> = services.flat_map(|service| &service.method).map(|method| method.name()).collect();
    let messages: Vec<_> = package.iter().flat_map(|file| &file.message_type).collect();
    let values: BTreeSet<&str> = package
        .iter()
        .flat_map(|file| &file.enum_type)
        .flat_map(|each| &each.value)
        .map(prost_types::EnumValueDescriptorProto::name)
        .collect();
    let message = |name: &str| messages.iter().find(|message| message.name() == name);

    let mut named = BTreeSet::new();
    let here = commands().into_iter().filter_map(|row| row.get(2).copied());
    let beyond = rows(3).into_iter().filter_map(|row| row.first().copied());
    for word in here.chain(beyond).flat_map(|cell| cell.split(", ")).filter(|word| !word.is_empty()) {
        let (name, field) = word.split_once('.').map_or((word, None), |(name, field)| (name, Some(field)));
        let is_known = rpcs.contains(name) || message(name).is_some() || values.contains(name);
        assert!(is_known, "the protocol knows no {name}");
        named.insert(name);
        if let Some(field) = field {
            let holders = [format!("{name}Request"), format!("{name}Response")];
            let fields: Vec<_> = holders.iter().filter_map(|holder| message(holder)).flat_map(|m| &m.field).collect();
            let oneofs = holders.iter().filter_map(|holder| message(holder)).flat_map(|m| &m.oneof_decl);
            let found = fields.iter().any(|f| f.name() == field) || oneofs.into_iter().any(|o| o.name() == field);
            assert!(found, "{name} has no {field}");
        }
    }
    let missing: Vec<_> = rpcs.iter().filter(|rpc| !named.contains(*rpc)).collect();
    assert!(missing.is_empty(), "the page does not speak of {missing:?}");
}

#[test]
fn every_error_of_redis_has_a_reason() {
    let errors: Vec<_> = rows(2);
    assert!(errors.len() > 20);
    for row in errors {
        let [redis, reason] = row[..] else { panic!("{row:?}") };
        assert!(reason.starts_with("none: ") || reasons::by_name(reason).is_some(), "{redis}: {reason}");
    }
}
