//! Cutting a failing run down to what makes it fail.

use millstream_streams::*;

use super::run::{Event, replay};

/// Fewer and simpler steps that fail as well, in whatever way.
pub(crate) fn shrink(mut events: Vec<Event>) -> Vec<Event> {
    cut(&mut events);
    loop {
        let mut progress = false;
        let mut at = 0;
        while at < events.len() {
            let simpler = simpler(&events[at]).into_iter().find(|steps| {
                let mut tried = events.clone();
                tried.splice(at..=at, steps.iter().cloned());
                fails(&mut tried)
            });
            match simpler {
                Some(steps) => {
                    events.splice(at..=at, steps);
                    fails(&mut events);
                    progress = true;
                }
                None => at += 1,
            }
        }
        if !progress {
            return events;
        }
        cut(&mut events);
    }
}

/// Whether it fails. If so, drops the steps behind the failure.
fn fails(events: &mut Vec<Event>) -> bool {
    match replay(events) {
        Ok(()) => false,
        Err(failure) => {
            events.truncate(failure.at + 1);
            true
        }
    }
}

/// Leaves out runs of steps: long ones first, then single ones.
fn cut(events: &mut Vec<Event>) {
    fails(events);
    let mut length = events.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut progress = false;
        while at < events.len() {
            let mut tried = events.clone();
            tried.drain(at..(at + length).min(events.len()));
            if fails(&mut tried) {
                *events = tried;
                progress = true;
            } else {
                at += length;
            }
        }
        if length > 1 {
            length = length.div_ceil(2);
        } else if !progress {
            return;
        }
    }
}

/// What might do instead of a step: each somewhat simpler, so that it ends.
fn simpler(event: &Event) -> Vec<Vec<Event>> {
    let Event::Propose(proposal) = event else { return Vec::new() };
    let mut ways = if proposal.bytes_max == 0 {
        Vec::new()
    } else {
        vec![vec![Event::Propose(Proposal { bytes_max: 0, ..proposal.clone() })]]
    };
    let again = |command: Command| Event::Propose(Proposal { command, ..proposal.clone() });
    if let Command::Batch(batch) = &proposal.command {
        let unbatched = batch.operations.iter().cloned().map(again).collect();
        ways.push(unbatched);
        ways.extend(simpler_batches(batch).into_iter().map(|batch| vec![again(batch.into())]));
        return ways;
    }
    ways.extend(simpler_commands(&proposal.command).into_iter().map(|command| vec![again(command)]));
    ways
}

fn simpler_batches(batch: &Batch) -> Vec<Batch> {
    let mut ways = Vec::new();
    let mut way = |change: &dyn Fn(&mut Batch)| {
        let mut simpler = batch.clone();
        change(&mut simpler);
        ways.push(simpler);
    };
    for at in 0..batch.operations.len() {
        way(&|batch| drop(batch.operations.remove(at)));
    }
    for at in 0..batch.guards.len() {
        way(&|batch| drop(batch.guards.remove(at)));
    }
    for (at, operation) in batch.operations.iter().enumerate() {
        for simpler in simpler_commands(operation) {
            way(&|batch| batch.operations[at] = simpler.clone());
        }
    }
    ways
}

fn without_each(ids: &[EntryId]) -> Vec<Vec<EntryId>> {
    let without = |at| ids.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, id)| *id).collect();
    (0..ids.len()).filter(|_| ids.len() > 1).map(without).collect()
}

macro_rules! ways {
    ($command:expr, $ways:expr; $($change:expr),* $(,)?) => {{
        $({
            let mut simpler = $command.clone();
            let change: &dyn Fn(&mut _) = &$change;
            change(&mut simpler);
            if simpler != *$command {
                $ways.push(simpler.into());
            }
        })*
    }};
}

fn simpler_commands(command: &Command) -> Vec<Command> {
    let mut ways: Vec<Command> = Vec::new();
    match command {
        Command::Append(append) => {
            let smallest = Fields::from_pairs([("n", "1")]).unwrap();
            ways!(append, ways;
                |append: &mut Append| append.trim = None,
                |append: &mut Append| append.idempotency = None,
                |append: &mut Append| append.no_create = false,
                |append: &mut Append| append.fields = smallest.clone(),
                |append: &mut Append| append.trim = append.trim.map(|policy| TrimPolicy { limit: None, ..policy }),
            );
        }
        Command::Trim(trim) => ways!(trim, ways; |trim: &mut Trim| trim.policy.limit = None),
        Command::DeleteEntries(delete) => {
            for ids in without_each(&delete.ids) {
                ways!(delete, ways; |delete: &mut DeleteEntries| delete.ids = ids.clone());
            }
            ways!(delete, ways; |delete: &mut DeleteEntries| delete.references = References::Keep);
        }
        Command::Ack(ack) => {
            for ids in without_each(&ack.ids) {
                ways!(ack, ways; |ack: &mut Ack| ack.ids = ids.clone());
            }
        }
        Command::AckAndDelete(ack) => {
            for ids in without_each(&ack.ids) {
                ways!(ack, ways; |ack: &mut AckAndDelete| ack.ids = ids.clone());
            }
        }
        Command::Nack(nack) => {
            for ids in without_each(&nack.ids) {
                ways!(nack, ways; |nack: &mut Nack| nack.ids = ids.clone());
            }
            ways!(nack, ways;
                |nack: &mut Nack| nack.delivery_count = None,
                |nack: &mut Nack| nack.force = false,
                |nack: &mut Nack| nack.mode = NackMode::Fail,
            );
        }
        Command::Claim(claim) => {
            for ids in without_each(&claim.ids) {
                ways!(claim, ways; |claim: &mut Claim| claim.ids = ids.clone());
            }
            ways!(claim, ways;
                |claim: &mut Claim| claim.delivery_count = None,
                |claim: &mut Claim| claim.force = false,
                |claim: &mut Claim| claim.ids_only = false,
                |claim: &mut Claim| claim.last_id = None,
                |claim: &mut Claim| claim.min_idle_ms = 0,
                |claim: &mut Claim| claim.delivery_time = DeliveryTime::Now,
            );
        }
        Command::AutoClaim(claim) => ways!(claim, ways;
            |claim: &mut AutoClaim| claim.ids_only = false,
            |claim: &mut AutoClaim| claim.min_idle_ms = 0,
            |claim: &mut AutoClaim| claim.start = EntryId::MIN,
        ),
        Command::ReadGroup(read) => {
            for at in 0..read.streams.len() {
                if read.streams.len() > 1 {
                    ways!(read, ways; |read: &mut ReadGroup| drop(read.streams.remove(at)));
                }
            }
            ways!(read, ways;
                |read: &mut ReadGroup| read.claim_min_idle_ms = None,
                |read: &mut ReadGroup| read.bytes_max = 0,
                |read: &mut ReadGroup| read.total_max = 0,
                |read: &mut ReadGroup| read.no_ack = false,
                |read: &mut ReadGroup| read.count = 0,
            );
        }
        Command::CreateGroup(create) => ways!(create, ways; |create: &mut CreateGroup| create.entries_read = None),
        Command::SetLastId(set) => ways!(set, ways;
            |set: &mut SetLastId| set.entries_added = None,
            |set: &mut SetLastId| set.max_deleted_id = None,
        ),
        Command::ConfigureStream(configure) => {
            let change = |change: &dyn Fn(&mut Retention)| {
                let mut simpler = configure.clone();
                simpler.retention = simpler.retention.map(|mut retention| {
                    change(&mut retention);
                    retention
                });
                simpler
            };
            let simpler = [
                ConfigureStream { idempotency_duration_s: None, ..configure.clone() },
                ConfigureStream { idempotency_keys_max: None, ..configure.clone() },
                ConfigureStream { retention: None, ..configure.clone() },
                change(&|retention| retention.max_length = None),
                change(&|retention| retention.min_id = None),
                change(&|retention| retention.max_age_ms = None),
                change(&|retention| retention.max_bytes = None),
                change(&|retention| retention.references = References::Keep),
            ];
            ways.extend(simpler.into_iter().filter(|simpler| simpler != configure).map(Command::from));
        }
        _ => {}
    }
    ways
}
