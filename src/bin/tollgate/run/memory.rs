//! What is found out about limits, kept in a file from run to run.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tollgate::{Learned, Scheduler};

use super::work::Job;

/// It is kept for the first time after this long, since most is found out in the first seconds …
const FIRST: Duration = Duration::from_secs(1);
/// … and then at growing distances, up to this one.
const LONGEST: Duration = Duration::from_secs(30);

/// The file. One writes at a time, since they would share the file beside it.
#[derive(Debug)]
pub(crate) struct Memory(Mutex<PathBuf>);

impl Memory {
    /// Reads the file, and writes it as it is: one that cannot be written is told before anything is paid for. A file that
    /// holds something else stays untouched, since it may be the wrong one.
    pub(crate) fn open(file: PathBuf) -> Result<(Self, Learned)> {
        let learned = Learned::load(&file).context("cannot start from what was learned")?;
        learned.save(&file).context("cannot keep what will be learned")?;
        Ok((Self(Mutex::new(file)), learned))
    }

    /// Keeps what is known by now.
    pub(crate) fn keep(&self, scheduler: &Scheduler) -> Result<()> {
        let file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        scheduler.learned().save(&*file).context("what was learned about limits is not kept")
    }
}

/// Keeps it now and then until it is dropped.
pub(crate) async fn watch(job: Arc<Job>) {
    let mut pause = FIRST;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST);
        let job = job.clone();
        // Not on a thread that requests need, should the disk be slow. The only error is a panic, which has been told.
        let _ = tokio::task::spawn_blocking(move || job.keep_learned()).await;
    }
}
