//! XADD, XTRIM, XSETID, XCFGSET, XIDMPRECORD.

use millstream_streams::{
    Append, ConfigureStream, EntryId, FieldsBuilder, FieldsError, Idempotency, IdempotencyKey, NewId, ProducerId,
    RecordIdempotency, References, SetLastId, Trim, TrimPolicy, TrimThreshold,
};

use super::{Call, NoGroup, Tell, core};
use crate::resp::arguments::{Arguments, Complaint, Parsed, strict_id};

/// What XADD and XTRIM have in common.
#[derive(Default)]
struct Trimming {
    threshold: Option<TrimThreshold>,
    approximate: bool,
    limit: Option<u64>,
    references: Option<References>,
}

impl Trimming {
    /// Takes an option if the next is one of these.
    fn take(&mut self, arguments: &mut Arguments<'_>) -> Parsed<bool> {
        if arguments.take_option("MAXLEN", 1) {
            self.only_one()?;
            self.take_precision(arguments);
            let length = arguments.integer()?;
            let length = u64::try_from(length).map_err(|_| Complaint::err("The MAXLEN argument must be >= 0."))?;
            self.threshold = Some(TrimThreshold::MaxLength(length));
        } else if arguments.take_option("MINID", 1) {
            self.only_one()?;
            self.take_precision(arguments);
            self.threshold = Some(TrimThreshold::MinId(arguments.strict_id()?));
        } else if arguments.take_option("LIMIT", 1) {
            let limit = arguments.integer()?;
            self.limit = Some(u64::try_from(limit).map_err(|_| Complaint::err("The LIMIT argument must be >= 0."))?);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn only_one(&self) -> Parsed<()> {
        match self.threshold {
            None => Ok(()),
            Some(_) => {
                let text = "syntax error, MAXLEN and MINID options at the same time are not compatible";
                Err(Complaint::err(text))
            }
        }
    }

    fn take_precision(&mut self, arguments: &mut Arguments<'_>) {
        self.approximate = false;
        // Without a threshold behind it, it is the threshold, and a bad one.
        if arguments.take_option("~", 1) {
            self.approximate = true;
        } else {
            arguments.take_option("=", 1);
        }
    }

    /// Takes what becomes of references, once.
    fn take_references(&mut self, arguments: &mut Arguments<'_>) -> bool {
        let taken = if self.references.is_none() { references(arguments) } else { None };
        self.references = self.references.or(taken);
        taken.is_some()
    }

    fn policy(&self, required: bool) -> Parsed<Option<TrimPolicy>> {
        if self.threshold.is_none() && self.limit.is_some_and(|limit| 0 < limit) {
            let text = "syntax error, LIMIT cannot be used without specifying a trimming strategy";
            return Err(Complaint::err(text));
        }
        if required && self.threshold.is_none() {
            return Err(Complaint::err("syntax error, XTRIM must be called with a trimming strategy"));
        }
        if self.limit.is_some() && !self.approximate {
            return Err(Complaint::err("syntax error, LIMIT cannot be used without the special ~ option"));
        }
        let references = self.references.unwrap_or_default();
        let Self { approximate, limit, .. } = *self;
        Ok(self.threshold.map(|threshold| TrimPolicy { threshold, approximate, limit, references }))
    }
}

/// KEEPREF, DELREF or ACKED, if that comes next.
pub(super) fn references(arguments: &mut Arguments<'_>) -> Option<References> {
    let words = [("KEEPREF", References::Keep), ("DELREF", References::Delete), ("ACKED", References::Acked)];
    words.into_iter().find(|(word, _)| arguments.take_word(word)).map(|(_, references)| references)
}

pub(super) fn xadd(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let name = arguments.next()?;
    let (mut trimming, mut no_create) = (Trimming::default(), false);
    let mut idempotency: Option<Idempotency> = None;
    let id = loop {
        if trimming.take(arguments)? || trimming.take_references(arguments) {
            continue;
        }
        if arguments.take_word("NOMKSTREAM") {
            no_create = true;
        } else if arguments.take_option("IDMPAUTO", 1) {
            idempotency = Some(idempotent(arguments, idempotency.is_some(), false)?);
        } else if arguments.take_option("IDMP", 2) {
            idempotency = Some(idempotent(arguments, idempotency.is_some(), true)?);
        } else {
            break new_id(arguments.next().map_err(|_| Complaint::arity("xadd"))?)?;
        }
    };
    let policy = trimming.policy(false)?;
    if idempotency.is_some() && id != NewId::Auto {
        return Err(Complaint::err("syntax error, IDMP/IDMPAUTO can be used only with auto-generated IDs"));
    }
    let pairs = arguments.rest();
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(Complaint::arity("xadd"));
    }
    if id == NewId::Explicit(EntryId::MIN) {
        return Err(Complaint::err("The ID specified in XADD must be greater than 0-0"));
    }
    let mut fields = FieldsBuilder::new();
    pairs.chunks_exact(2).for_each(|pair| fields.push(&pair[0], &pair[1]));
    let fields = fields.finish().map_err(|error| match error {
        FieldsError::Empty => Complaint::arity("xadd"),
        FieldsError::TooLarge => Complaint::err("Elements are too large to be stored"),
        error => Complaint::err(error.to_string()),
    })?;
    let stream = crate::resp::arguments::stream(name)?;
    Ok(core(Append { stream, id, fields, no_create, trim: policy, idempotency }, Tell::AppendedId))
}

fn new_id(argument: &[u8]) -> Parsed<NewId> {
    if argument == b"*" {
        return Ok(NewId::Auto);
    }
    match argument.strip_suffix(b"-*") {
        Some(ms) if ms.contains(&b'-') => Err(Complaint::bad_id()),
        Some(ms) => Ok(NewId::Ms(strict_id(ms, 0)?.ms)),
        None => Ok(NewId::Explicit(strict_id(argument, 0)?)),
    }
}

fn idempotent(arguments: &mut Arguments<'_>, again: bool, with_key: bool) -> Parsed<Idempotency> {
    if again {
        return Err(Complaint::err("syntax error, IDMP/IDMPAUTO specified multiple times"));
    }
    let word = if with_key { "IDMP" } else { "IDMPAUTO" };
    let producer = arguments.next()?;
    if producer.is_empty() {
        return Err(Complaint::err(format!("syntax error, {word} requires a non-empty producer ID")));
    }
    let producer = ProducerId::new(producer.clone()).map_err(|error| Complaint::err(error.to_string()))?;
    let key = match with_key {
        true => {
            let key = arguments.next()?;
            if key.is_empty() {
                return Err(Complaint::err("syntax error, IDMP requires a non-empty idempotent ID"));
            }
            Some(IdempotencyKey::new(key.clone()).map_err(|error| Complaint::err(error.to_string()))?)
        }
        false => None,
    };
    Ok(Idempotency { producer, key })
}

pub(super) fn xtrim(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let name = arguments.next()?;
    let mut trimming = Trimming::default();
    while 0 < arguments.len() {
        if !trimming.take(arguments)? && !trimming.take_references(arguments) {
            return Err(Complaint::syntax());
        }
    }
    let policy = trimming.policy(true)?.ok_or_else(Complaint::syntax)?;
    Ok(core(Trim { stream: crate::resp::arguments::stream(name)?, policy }, Tell::Number(NoGroup::Zero)))
}

pub(super) fn xsetid(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let name = arguments.next()?;
    let last_id = arguments.strict_id()?;
    let (mut entries_added, mut max_deleted_id) = (None, None);
    while 0 < arguments.len() {
        if arguments.take_option("ENTRIESADDED", 1) {
            let count = arguments.integer()?;
            let count = u64::try_from(count).map_err(|_| Complaint::err("entries_added must be positive"))?;
            entries_added = Some(count);
        } else if arguments.take_option("MAXDELETEDID", 1) {
            let id = arguments.strict_id()?;
            if last_id < id {
                let text = "The ID specified in XSETID is smaller than the provided max_deleted_entry_id";
                return Err(Complaint::err(text));
            }
            // 0-0 leaves what there is.
            max_deleted_id = Some(id).filter(|id| !id.is_zero());
        } else {
            return Err(Complaint::syntax());
        }
    }
    let stream = crate::resp::arguments::stream(name)?;
    Ok(core(SetLastId { stream, last_id, entries_added, max_deleted_id }, Tell::Ok(NoGroup::NoSuchKey)))
}

pub(super) fn xcfgset(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let name = arguments.next()?;
    let stream = crate::resp::arguments::stream(name)?;
    match settings(arguments) {
        Ok((idempotency_duration_s, idempotency_keys_max)) => {
            let (create_stream, retention) = (false, None);
            let command =
                ConfigureStream { stream, create_stream, idempotency_duration_s, idempotency_keys_max, retention };
            Ok(core(command, Tell::Ok(NoGroup::NoSuchKey)))
        }
        // The key is looked up before the arguments.
        Err(complaint) => Ok(Call::presence(
            stream,
            None,
            crate::resp::reply::Reply::Error("ERR no such key".into()),
            crate::resp::reply::Reply::Error(complaint.0),
        )),
    }
}

fn settings(arguments: &mut Arguments<'_>) -> Parsed<(Option<u32>, Option<u32>)> {
    let (mut duration_s, mut keys_max) = (None, None);
    while 0 < arguments.len() {
        if arguments.take_option("IDMP-DURATION", 1) {
            set(&mut duration_s, arguments, "IDMP-DURATION", (1, 86_400), "seconds")?;
        } else if arguments.take_option("IDMP-MAXSIZE", 1) {
            set(&mut keys_max, arguments, "IDMP-MAXSIZE", (1, 10_000), "entries")?;
        } else {
            return Err(Complaint::syntax());
        }
    }
    match (duration_s, keys_max) {
        (None, None) => Err(Complaint::err("At least one parameter must be specified")),
        settings => Ok(settings),
    }
}

fn set(
    setting: &mut Option<u32>,
    arguments: &mut Arguments<'_>,
    word: &str,
    (least, most): (u32, u32),
    unit: &str,
) -> Parsed<()> {
    if setting.is_some() {
        return Err(Complaint::err(format!("{word} specified multiple times")));
    }
    let value = u32::try_from(arguments.integer()?).ok().filter(|value| (least..=most).contains(value));
    let value = value.ok_or_else(|| Complaint::err(format!("{word} must be between {least} and {most} {unit}")))?;
    *setting = Some(value);
    Ok(())
}

pub(super) fn xidmprecord(arguments: &mut Arguments<'_>) -> Parsed<Call> {
    let (name, producer, key) = (arguments.next()?, arguments.next()?, arguments.next()?);
    let id = arguments.strict_id()?;
    if producer.is_empty() {
        return Err(Complaint::err("producer ID must be non-empty"));
    }
    if key.is_empty() {
        return Err(Complaint::err("idempotent ID must be non-empty"));
    }
    let stream = crate::resp::arguments::stream(name)?;
    let producer = ProducerId::new(producer.clone()).map_err(|error| Complaint::err(error.to_string()))?;
    let key = IdempotencyKey::new(key.clone()).map_err(|error| Complaint::err(error.to_string()))?;
    Ok(core(RecordIdempotency { stream, producer, key, id }, Tell::Ok(NoGroup::NoSuchKey)))
}
