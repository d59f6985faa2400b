//! `backup`.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use millstream_client::Client;
use serde_json::json;

use crate::Failure;
use crate::output::Output;

/// Writes a backup of the whole cluster to a file, while it serves. `millstream-node restore` makes a new cluster of it
#[derive(Args)]
pub(crate) struct Backup {
    /// The file; FILE.partial until it is complete
    file: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    force: bool,
}

impl Backup {
    pub(crate) async fn run(self, client: &Client, out: &mut Output) -> Result<(), Failure> {
        let Self { file, force } = self;
        if !force && file.exists() {
            return Err(is_there(&file));
        }
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".partial");
        let partial = file.with_file_name(name);

        let mut backup = client.backup().await?;
        let mut target = OpenOptions::new().write(true).create(true).truncate(true).open(&partial)?;
        let bar = progress_bar(backup.length);
        while let Some(bytes) = backup.next().await? {
            target.write_all(&bytes)?;
            bar.inc(bytes.len() as u64);
        }
        target.sync_all()?;
        drop(target);
        if force {
            fs::rename(&partial, &file)?;
        } else {
            name_it(&partial, &file)?;
        }
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()?;
        bar.finish_and_clear();

        let (bytes, index) = (backup.length, backup.log_index);
        let text = format!("{bytes} bytes up to log index {index} of cluster {}", backup.cluster_id);
        let json = json!({
            "file": file.display().to_string(),
            "bytes": bytes,
            "log_index": index,
            "cluster_id": backup.cluster_id,
        });
        Ok(out.result(text, json)?)
    }
}

fn is_there(file: &Path) -> Failure {
    Failure::Usage(format!("{} is there already: choose another name, or --force", file.display()))
}

/// Gives a whole backup its name, unless somebody else has taken it in the meantime.
fn name_it(partial: &Path, file: &Path) -> Result<(), Failure> {
    match fs::hard_link(partial, file) {
        Ok(()) => Ok(fs::remove_file(partial)?),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(is_there(file)),
        // A file system without hard links, such as FAT: the next best thing.
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) => {
            match file.try_exists()? {
                true => Err(is_there(file)),
                false => Ok(fs::rename(partial, file)?),
            }
        }
        Err(error) => Err(error.into()),
    }
}

/// On stderr, and only if that is a terminal.
fn progress_bar(bytes: u64) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    match ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} ({eta} left)") {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
