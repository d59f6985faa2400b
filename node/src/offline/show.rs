//! The tools on a terminal: what they print, and the codes they exit with.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use super::{
    CANNOT, Checked, DAMAGED, Dump, DumpArguments, FINE, Report, RestoreArguments, ToolError, VerifyArguments,
    dump as run_dump, restore as run_restore, verify as run_verify,
};
use crate::world::World;

/// Between two lines of progress.
const INTERVAL: Duration = Duration::from_millis(500);

pub(super) fn verify(world: &World, data_dir: &Path, arguments: &VerifyArguments) -> u8 {
    let VerifyArguments { scratch, json } = arguments;
    let mut progress = Progress::new();
    let verified = run_verify(world, data_dir, scratch.as_deref(), &mut |what, done| progress.show(what, done));
    progress.end();
    match verified {
        Ok(report) => {
            let text = if *json { json_of(&report) } else { text_of(&report) };
            // Whoever closed the pipe does not want to know.
            let _ = writeln!(std::io::stdout(), "{text}");
            report.exit_code()
        }
        Err(error) => failed(&error),
    }
}

pub(super) fn dump(world: &World, data_dir: &Path, arguments: &DumpArguments) -> u8 {
    let DumpArguments { scratch, part, from, limit, json } = arguments;
    let what = Dump { part: *part, from: *from, limit: limit.unwrap_or(u64::MAX), json: *json };
    let mut progress = Progress::new();
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let dumped = run_dump(
        world,
        data_dir,
        scratch.as_deref(),
        what,
        &mut |what, done| progress.show(what, done),
        // Whoever closed the pipe has seen enough.
        &mut |line| writeln!(out, "{line}").is_ok(),
    );
    let _ = out.flush();
    progress.end();
    match dumped {
        Ok(()) => FINE,
        Err(error) => failed(&error),
    }
}

pub(super) fn restore(world: &World, data_dir: &Path, arguments: RestoreArguments) -> u8 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let restored = match runtime {
        Ok(runtime) => runtime.block_on(run_restore(world, data_dir, arguments)),
        Err(error) => Err(error.to_string()),
    };
    match restored {
        Ok(sentence) => {
            println!("{sentence}");
            FINE
        }
        Err(sentence) => {
            eprintln!("millstream-node: {sentence}");
            CANNOT
        }
    }
}

fn failed(error: &ToolError) -> u8 {
    eprintln!("millstream-node: {error}");
    match error {
        ToolError::Damaged(_) => DAMAGED,
        _ => CANNOT,
    }
}

fn json_of(report: &Report) -> String {
    serde_json::to_string_pretty(report).unwrap_or_else(|error| error.to_string())
}

fn text_of(report: &Report) -> String {
    let mut lines: Vec<String> = report.parts.iter().flat_map(lines_of).collect();
    let (damaged, unchecked) = report
        .parts
        .iter()
        .fold((0, 0), |(damaged, unchecked), part| (damaged + part.damage.len(), unchecked + part.unchecked.len()));
    lines.push(match (damaged, unchecked) {
        (0, 0) => format!("{}: all is well", report.data_dir),
        (0, _) => format!("{}: no damage was found, but not everything could be checked", report.data_dir),
        (_, _) => format!("{}: damaged; keep this directory until the node runs again", report.data_dir),
    });
    lines.join("\n")
}

fn lines_of(part: &Checked) -> Vec<String> {
    let verdict = match (part.damage.is_empty(), part.unchecked.is_empty()) {
        (false, _) => "DAMAGED",
        (true, false) => "not checked",
        (true, true) => "ok",
    };
    let counts: Vec<String> = part.counts.iter().map(|(what, number)| format!("{what} {number}")).collect();
    let mut lines = vec![format!("{:<11}{verdict:<12}{}", part.part, counts.join(", ")).trim_end().to_owned()];
    let also = |lines: &mut Vec<String>, mark: &str, texts: &[String]| {
        lines.extend(texts.iter().map(|text| format!("           {mark}{text}")));
    };
    also(&mut lines, "", &part.notes);
    also(&mut lines, "damage: ", &part.damage);
    also(&mut lines, "not checked: ", &part.unchecked);
    lines
}

/// A line on stderr that says how far the work is; on a terminal it stays one line.
struct Progress {
    last: Option<Instant>,
    on_terminal: bool,
    shown: bool,
}

impl Progress {
    fn new() -> Self {
        Self { last: None, on_terminal: std::io::stderr().is_terminal(), shown: false }
    }

    fn show(&mut self, what: &str, done: u64) {
        let interval = if self.on_terminal { INTERVAL } else { 10 * INTERVAL };
        // The first line comes after an interval: small directories need none.
        let since = *self.last.get_or_insert_with(Instant::now);
        if since.elapsed() < interval {
            return;
        }
        self.last = Some(Instant::now());
        let text = format!("{what}: {done}");
        if self.on_terminal {
            eprint!("\r{text:<60}");
            self.shown = true;
        } else {
            eprintln!("{text}");
        }
    }

    fn end(&mut self) {
        if self.shown {
            eprint!("\r{:<60}\r", "");
        }
    }
}
