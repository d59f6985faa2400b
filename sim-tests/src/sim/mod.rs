//! The verbs of the simulator. One simulation is one process, so all but `run` and `replay` start others of itself.

pub(crate) mod child;
pub(crate) mod evidence;
pub(crate) mod meta;
pub(crate) mod one;
pub(crate) mod regressions;
pub(crate) mod results;
pub(crate) mod shrink;
pub(crate) mod sweep;

/// What a process should do: `5`, or `1..3` for 1, 2 and 3.
pub(crate) type Seeds = (u64, u64);

/// Reads a range of seeds.
pub(crate) fn seeds(text: &str) -> Result<Seeds, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first <= last { Ok((first, last)) } else { Err("the last seed is smaller than the first".into()) }
}
