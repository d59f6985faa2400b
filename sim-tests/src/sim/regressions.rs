//! Plans that once failed, kept as files.

use std::io;
use std::path::{Path, PathBuf};

use millstream_sim_tests::plan::Plan;

/// Where they are, unless another directory is named.
pub(crate) const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/regressions");

/// The plans in a directory, by name. A directory that is not there holds none.
pub(crate) fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files = entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    Ok(files)
}

/// Keeps a plan that fails `check`.
pub(crate) fn keep(directory: &Path, check: &str, plan: &Plan) -> io::Result<PathBuf> {
    std::fs::create_dir_all(directory)?;
    let words = check.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let path = directory.join(format!("{}-{}.json", words.collect::<Vec<_>>().join("_"), plan.seed));
    std::fs::write(&path, plan.to_json() + "\n")?;
    Ok(path)
}
