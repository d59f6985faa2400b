//! Runs the stories in `tests/scripts`. Record them anew with `UPDATE_GOLDENFILES=1`, and review what changed.
//!
//! The one who acts is the prefix: `alice: read billing orders=new` reads as the consumer alice. What stands between
//! `multi` and `exec` is one batch. A second replica applies the same log but restarts before each command; after each
//! command both must agree in every row.
#![allow(clippy::disallowed_methods, reason = "a test may look for its own files")]
#![allow(clippy::unwrap_used, reason = "in a test a panic is a failure")]

mod look;
mod parse;
mod show;
#[path = "../support/mod.rs"]
mod support;

use std::error::Error;

use goldenscript::Context;
use millstream_streams::*;
use parse::pos;
use support::Store;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[test]
fn scripts() {
    let mut paths: Vec<_> = std::fs::read_dir("tests/scripts")
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        println!("{}", path.display());
        goldenscript::run(&mut Runner::default(), &path).unwrap();
    }
}

#[derive(Default)]
struct Runner {
    state: State,
    store: Store,
    /// The replica that restarts before each command, and its store.
    shadow: State,
    shadow_store: Store,
    index: u64,
    at_ms: u64,
    /// What the node lets an answer hold.
    bytes_max: u64,
    /// The batch that is being written.
    batch: Option<Vec<Command>>,
}

impl goldenscript::Runner for Runner {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &goldenscript::Command, context: &Context) -> Result<String> {
        let mut args = command.consume_args();
        let who = context.prefix.as_deref().unwrap_or("");
        let flag = |name: &str| context.tags.contains(name);
        let request = args.take_key("request").map(parse::request).transpose()?;
        let output = match command.name.as_str() {
            "at" => {
                self.at_ms = pos(&mut args, "milliseconds")?.parse()?;
                String::new()
            }
            "answer_bytes" => {
                self.bytes_max = pos(&mut args, "bytes")?.parse()?;
                String::new()
            }
            "multi" => {
                self.batch = Some(Vec::new());
                String::new()
            }
            "exec" => {
                let operations = self.batch.take().ok_or("exec without multi")?;
                let mode = if flag("continue") { BatchMode::ContinueOnError } else { BatchMode::AllOrNothing };
                let guards = parse::guards(&mut args)?;
                self.propose(request, Batch { operations, guards, mode }.into())?
            }
            "append_many" => {
                let stream = StreamName::new(pos(&mut args, "stream")?)?;
                let count: u64 = pos(&mut args, "count")?.parse()?;
                for n in 1..=count {
                    let fields = Fields::from_pairs([("n", n.to_string())])?;
                    self.propose(None, parse::append(stream.clone(), fields).into())?;
                }
                format!("appended {count}, last id {}\n", self.state.last_id(&stream))
            }
            "restart" => {
                let (written, deleted) = self.store.checkpoint(&mut self.state);
                self.state = self.store.restore();
                format!("restarted: {written} rows written, {deleted} deleted\n")
            }
            "checkpoint" => {
                let (written, deleted) = self.store.checkpoint(&mut self.state);
                format!("checkpoint: {written} rows written, {deleted} deleted\n")
            }
            name => match (parse::command(name, &mut args, who, &flag)?, &mut self.batch) {
                (Some(operation), Some(operations)) => {
                    operations.push(operation);
                    String::new()
                }
                (Some(command), None) => self.propose(request, command)?,
                (None, _) => look::look(&self.state, &self.store, self.at_ms, name, &mut args, &flag)?,
            },
        };
        args.reject_next()?;
        Ok(output)
    }
}

impl Runner {
    fn propose(&mut self, request: Option<RequestId>, command: Command) -> Result<String> {
        self.index += 1;
        let proposal = Proposal { at_ms: self.at_ms, request, command, bytes_max: self.bytes_max };
        let bytes = proposal.encode();
        assert_eq!(Proposal::decode(&bytes)?, proposal);
        let applied = self.state.apply(self.index, &bytes, &self.store, true)?;

        self.shadow_store.checkpoint(&mut self.shadow);
        self.shadow = self.shadow_store.restore();
        let shadowed = self.shadow.apply(self.index, &bytes, &self.shadow_store, true)?;
        assert_eq!((&applied.outcome, &applied.entries), (&shadowed.outcome, &shadowed.entries));
        assert_eq!(self.state.digest(), self.shadow.digest());
        assert_eq!(self.state.all_rows(&self.store)?, self.shadow.all_rows(&self.shadow_store)?);

        let mut output = String::new();
        let repeated = if applied.repeated { " (repeated)" } else { "" };
        let mut payloads = applied.entries.iter();
        show::outcome(&mut output, "", &proposal.command, &applied.outcome, repeated, &mut payloads)?;
        assert_eq!(payloads.next(), None);
        Ok(output)
    }
}
