//! XGROUP.

use millstream_streams::{CreateConsumer, CreateGroup, DeleteConsumer, DeleteGroup, GroupPosition, SetGroupPosition};

use super::tell::key_required;
use super::{Call, NoGroup, Tell, Wanted, bad_tail, core, unknown_subcommand};
use crate::resp::arguments::{Arguments, Complaint, Parsed, id_or_end, is_word, strict_id};
use crate::resp::reply::Reply;

pub(super) fn xgroup(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let subcommand = arguments.next()?;
    let count = arguments.len();
    // With the name of the command and that of the subcommand, as Redis counts.
    let arity = |least: usize, most: usize, name: &str| match (least..=most).contains(&(count + 2)) {
        true => Ok(()),
        false => Err(Complaint::arity(&format!("xgroup|{name}"))),
    };
    if is_word(subcommand, "CREATE") {
        arity(5, usize::MAX, "create")?;
        return create(arguments, subcommand, count + 2 <= 8);
    }
    if is_word(subcommand, "SETID") {
        arity(5, usize::MAX, "setid")?;
        return set_id(arguments, subcommand, [5, 7].contains(&(count + 2)));
    }
    if is_word(subcommand, "DESTROY") {
        arity(4, 4, "destroy")?;
        let command = DeleteGroup { stream: arguments.stream()?, group: arguments.group()? };
        return Ok(core(command, Tell::Number(NoGroup::Required)));
    }
    if is_word(subcommand, "CREATECONSUMER") {
        arity(5, 5, "createconsumer")?;
        let (stream, group) = (arguments.stream()?, arguments.group()?);
        let command = CreateConsumer { stream, group, consumer: arguments.consumer()? };
        return Ok(core(command, Tell::Number(NoGroup::Required)));
    }
    if is_word(subcommand, "DELCONSUMER") {
        arity(5, 5, "delconsumer")?;
        let (stream, group) = (arguments.stream()?, arguments.group()?);
        let command = DeleteConsumer { stream, group, consumer: arguments.consumer()? };
        return Ok(core(command, Tell::Number(NoGroup::Required)));
    }
    Err(unknown_subcommand("XGROUP", subcommand))
}

/// Options that stand twice are found out only once the key has been looked up: then it is not `whole`.
fn create(arguments: &mut Arguments<'_>, subcommand: &[u8], whole: bool) -> Parsed<Call> {
    let (stream, group, position) = (arguments.stream()?, arguments.group()?, arguments.next()?);
    let (mut create_stream, mut entries_read) = (false, None);
    while 0 < arguments.len() {
        if arguments.take_word("MKSTREAM") {
            create_stream = true;
        } else if arguments.take_option("ENTRIESREAD", 1) {
            entries_read = read_counter(arguments)?;
        } else {
            return Err(bad_tail("XGROUP", subcommand));
        }
    }
    let position = match &**position {
        _ if !whole => Err(bad_tail("XGROUP", subcommand)),
        b"$" => Ok(GroupPosition::End),
        id => strict_id(id, 0).map(GroupPosition::After),
    };
    match position {
        Ok(position) => {
            Ok(core(CreateGroup { stream, group, position, create_stream, entries_read }, Tell::Ok(NoGroup::Required)))
        }
        Err(complaint) if create_stream => Err(complaint),
        // The key is looked up before the id is looked at.
        Err(complaint) => Ok(Call::presence(stream, None, key_required(), Reply::Error(complaint.0))),
    }
}

fn set_id(arguments: &mut Arguments<'_>, subcommand: &[u8], whole: bool) -> Parsed<Call> {
    let (stream, group, position) = (arguments.stream()?, arguments.group()?, arguments.next()?);
    let mut entries_read = None;
    while 0 < arguments.len() {
        if !arguments.take_option("ENTRIESREAD", 1) {
            return Err(bad_tail("XGROUP", subcommand));
        }
        entries_read = read_counter(arguments)?;
    }
    let position = match &**position {
        _ if !whole => Err(bad_tail("XGROUP", subcommand)),
        b"$" => Ok(GroupPosition::End),
        // Here, and only here, the ends are ids.
        id => id_or_end(id, 0).map(GroupPosition::After),
    };
    match position {
        Ok(position) => {
            Ok(core(SetGroupPosition { stream, group, position, entries_read }, Tell::Ok(NoGroup::Required)))
        }
        Err(complaint) => {
            let no_group = format!("NOGROUP No such consumer group '{group}' for key name '{stream}'");
            let wanted = vec![
                Wanted { stream: stream.clone(), group: None, absent: key_required() },
                Wanted { stream, group: Some(group), absent: Reply::Error(no_group) },
            ];
            Ok(Call::Presence { wanted, present: Reply::Error(complaint.0) })
        }
    }
}

/// -1 means that it is not known.
fn read_counter(arguments: &mut Arguments<'_>) -> Parsed<Option<u64>> {
    match arguments.integer()? {
        -1 => Ok(None),
        count => match u64::try_from(count) {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(Complaint::err("value for ENTRIESREAD must be positive or -1")),
        },
    }
}
