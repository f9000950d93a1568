//! What was sent, noted before it is sent: after a crash, a row that stands here and has no result may have been done by
//! the provider.
//!
//! A line is `sent ID` (it is about to be sent) or `back ID` (its outcome is known, and the row waits again), with the hash of a
//! row's `custom_id`. The file lies beside the output, its lock is that of the whole job, and it is removed when nothing is
//! uncertain any more.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, bail};

use super::paths::{is_at, resolved};
use super::row::Id;
use crate::stop::{Level, Stop};

/// The journal, and with it the lock.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    /// A std mutex: it is held for one write into the system's cache, which takes a microsecond or two.
    file: Mutex<File>,
    /// Nothing may be sent that could not be noted.
    broken: OnceLock<io::Error>,
}

impl Journal {
    /// Opens and locks the journal of `output`.
    pub(crate) fn open(output: &Path) -> Result<Self> {
        let path = path_for(output);
        loop {
            let file = OpenOptions::new().create(true).read(true).append(true).open(&path);
            let file = file.with_context(|| format!("cannot write {}", path.display()))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => bail!(
                    "another run is writing to {}; wait until it has ended, or choose another output with -o",
                    output.display()
                ),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            // The run that had the lock may have removed the file in the meantime; a lock on a removed file locks nobody out.
            if is_at(&file, &path) {
                return Ok(Self { path, file: Mutex::new(file), broken: OnceLock::new() });
            }
        }
    }

    /// The rows that were sent and did not come back, but for those that `known` knows. What a crash left of the last line
    /// is closed, so that the next one begins on its own.
    pub(crate) fn uncertain(&self, known: impl Fn(Id) -> bool) -> io::Result<HashSet<Id>> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(0))?;
        let mut uncertain = HashSet::new();
        let mut reader = BufReader::new(&*file);
        let mut line = Vec::new();
        let mut whole = true;
        while reader.read_until(b'\n', &mut line)? > 0 {
            whole = line.ends_with(b"\n");
            match noted(line.trim_ascii_end()) {
                Some((true, id)) if !known(id) => drop(uncertain.insert(id)),
                Some((false, id)) => drop(uncertain.remove(&id)),
                _ => {}
            }
            line.clear();
        }
        if !whole {
            file.write_all(b"\n")?;
        }
        Ok(uncertain)
    }

    /// Notes that a row is about to be sent. `false`: that could not be written, so do not send.
    #[must_use]
    pub(crate) fn sent(&self, id: Id, stop: &Stop) -> bool {
        match self.write("sent", id) {
            Ok(()) => true,
            Err(error) => {
                let _ = self.broken.set(error);
                stop.raise(Level::Drain);
                false
            }
        }
    }

    /// Notes that what was sent of a row came to a known end. If that cannot be written, the row stays uncertain.
    pub(crate) fn back(&self, id: Id) {
        let _ = self.write("back", id);
    }

    fn write(&self, what: &str, id: Id) -> io::Result<()> {
        let line = format!("{what} {id:032x}\n");
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes())
    }

    /// The error that kept a row from being sent.
    pub(crate) fn broken(&self) -> Option<anyhow::Error> {
        let error = self.broken.get()?;
        Some(anyhow::anyhow!("{error}").context(format!("cannot write {}", self.path.display())))
    }

    /// Removes a journal that tells nothing.
    pub(crate) fn remove_if_empty(&self) {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.metadata().is_ok_and(|data| data.len() == 0) {
            self.remove();
        }
    }

    /// Removes the journal; the lock ends when it is dropped.
    pub(crate) fn remove(&self) {
        // One that cannot be removed tells of rows that all have results: harmless.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Where the journal of `output` lies: beside the file itself, which has one journal by whatever name it is called.
pub(crate) fn path_for(output: &Path) -> PathBuf {
    let mut name = resolved(output).into_os_string();
    name.push(".journal");
    name.into()
}

fn noted(line: &[u8]) -> Option<(bool, Id)> {
    let line = std::str::from_utf8(line).ok()?;
    let (what, id) = line.split_once(' ')?;
    let id = (id.len() == 32).then(|| Id::from_str_radix(id, 16).ok())??;
    match what {
        "sent" => Some((true, id)),
        "back" => Some((false, id)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_and_has_no_result_is_uncertain_whatever_a_crash_left() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.jsonl");
        let stop = Stop::new();
        let journal = Journal::open(&output).unwrap();
        assert!((1..=4).all(|id| journal.sent(id, &stop)));
        journal.back(3);
        journal.file.lock().unwrap().write_all(b"sent 0000").unwrap();
        drop(journal);
        let journal = Journal::open(&output).unwrap();
        let uncertain = journal.uncertain(|id| id == 2).unwrap();
        assert_eq!(uncertain, HashSet::from([1, 4]));
        assert!(journal.sent(5, &stop));
        assert_eq!(journal.uncertain(|_| false).unwrap(), HashSet::from([1, 2, 4, 5]));
    }

    #[test]
    fn the_lock_holds_until_the_journal_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.jsonl");
        let journal = Journal::open(&output).unwrap();
        assert!(Journal::open(&output).unwrap_err().to_string().contains("another run"));
        journal.remove();
        drop(journal);
        assert!(Journal::open(&output).is_ok());
    }
}
