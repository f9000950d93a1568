//! Answers across runs: one file, read where an answer is not in memory, written by a thread of its own.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use super::key::Key;
use super::stored::{Stored, millis};
use crate::clock;

/// The name tells the form of what is in it; files of another form are left alone.
pub(super) const FILE: &str = "answers.v1.redb";

const ANSWERS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("answers");
/// By age, with the size of each, so that the oldest are found without a search.
const AGES: TableDefinition<'_, (u64, [u8; 32]), u64> = TableDefinition::new("ages");

/// redb's own cache. What is asked for often is in memory already.
const PAGES: usize = 16 << 20;
/// Answers that wait to be written; where a disk is slower than that, some are not kept.
const WAITING: usize = 1_024;
/// Answers in one transaction, each of which waits for the disk.
const BATCH: usize = 256;

/// The file and the thread that writes it.
#[derive(Debug)]
pub(super) struct Disk {
    database: Arc<Database>,
    /// `None` only while it is dropped.
    orders: Option<SyncSender<Order>>,
    writer: Option<JoinHandle<()>>,
    /// Reading it has failed in a way that will not mend.
    broken: AtomicBool,
}

enum Order {
    Keep(Key, Arc<Stored>),
    /// Tell when everything before is on disk.
    Tell(oneshot::Sender<()>),
}

impl Disk {
    /// Opens the file in `folder`, which may hold `most` bytes of answers for as long as `keep`. `None`, with a warning,
    /// where another process has it or the disk does not let us.
    ///
    /// # Errors
    /// When there is no such folder and it cannot be made.
    pub(super) fn open(
        folder: &Path,
        most: u64,
        keep: Duration,
        warnings: &mut Vec<String>,
    ) -> io::Result<Option<Self>> {
        fs::create_dir_all(folder)?;
        for other in others(folder)? {
            warnings.push(format!("{}: answers of another version, which are not read", other.display()));
        }
        let path = folder.join(FILE);
        let open = || Writer::open(&path, most, keep);
        let aside = path.with_extension("damaged");
        let opened = match open() {
            Err(Unusable::Busy) => Err(Unusable::Busy),
            Err(reason) if fs::rename(&path, &aside).is_ok() => {
                let (path, aside) = (path.display(), aside.display());
                warnings.push(format!("{path}: {reason}; moved to {aside} and begun anew"));
                open()
            }
            opened => opened,
        };
        let writer = match opened {
            Ok(writer) => writer,
            Err(reason) => {
                warnings.push(format!("{}: {reason}; answers are kept in memory only", path.display()));
                return Ok(None);
            }
        };
        let database = writer.database.clone();
        let (orders, received) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("tollgate-cache".to_owned());
        let writer = thread.spawn(move || writer.run(&received))?;
        Ok(Some(Self { database, orders: Some(orders), writer: Some(writer), broken: AtomicBool::new(false) }))
    }

    /// What is kept under `key`; a damaged record is none.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn get(&self, key: Key) -> Option<Stored> {
        if self.broken.load(Relaxed) {
            return None;
        }
        let database = self.database.clone();
        let read = move || {
            let read = || -> Result<_, redb::Error> {
                let answers = database.begin_read()?.open_table(ANSWERS)?;
                Ok(answers.get(key.0)?.and_then(|record| Stored::decode(&key, record.value())))
            };
            read().ok().flatten()
        };
        let found = tokio::task::spawn_blocking(read).await;
        // The task keeps to itself that redb may panic over a damaged file.
        self.broken.fetch_or(found.is_err(), Relaxed);
        found.ok().flatten()
    }

    /// Has an answer written, unless too many wait already.
    pub(super) fn put(&self, key: Key, stored: Arc<Stored>) {
        if let Some(orders) = &self.orders {
            let _ = orders.try_send(Order::Keep(key, stored));
        }
    }

    /// Waits until everything that was put before is on disk.
    pub(super) async fn written(&self) {
        let Some(orders) = self.orders.clone() else { return };
        let (told, tell) = oneshot::channel();
        // The queue may be full, and its sender blocks then.
        let _ = tokio::task::spawn_blocking(move || orders.send(Order::Tell(told))).await;
        let _ = tell.await;
    }
}

impl Drop for Disk {
    /// Waits for what is being written: whoever opens the file next finds it closed and whole.
    fn drop(&mut self) {
        self.orders = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn open_file(path: &Path) -> Result<Database, DatabaseError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file: File = options.open(path).map_err(|error| DatabaseError::Storage(error.into()))?;
    Database::builder().set_cache_size(PAGES).create_file(file)
}

/// Files with answers of another version.
fn others(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut others = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        if text.starts_with("answers.v") && text.ends_with(".redb") && text != FILE {
            others.push(folder.join(&name));
        }
    }
    Ok(others)
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("another process uses it")]
    Busy,
    #[error("{0}")]
    Damaged(redb::Error),
    #[error("the file is damaged")]
    Broken,
}

/// Writes answers as they come, many at a time when many come, and takes out what is too old or too much.
struct Writer {
    database: Arc<Database>,
    most: u64,
    keep: Duration,
    /// The size of all answers.
    bytes: u64,
}

impl Writer {
    fn open(path: &Path, most: u64, keep: Duration) -> Result<Self, Unusable> {
        let open = || -> Result<Self, redb::Error> {
            let mut writer = Self { database: Arc::new(open_file(path)?), most, keep, bytes: 0 };
            let transaction = writer.database.begin_write()?;
            transaction.open_table(ANSWERS)?;
            for entry in transaction.open_table(AGES)?.iter()? {
                writer.bytes = writer.bytes.saturating_add(entry?.1.value());
            }
            transaction.commit()?;
            writer.write(&[])?;
            Ok(writer)
        };
        // Of a file that was cut short redb says so by a panic.
        match std::panic::catch_unwind(open) {
            Ok(Ok(writer)) => Ok(writer),
            Ok(Err(redb::Error::DatabaseAlreadyOpen)) => Err(Unusable::Busy),
            Ok(Err(error)) => Err(Unusable::Damaged(error)),
            Err(_) => Err(Unusable::Broken),
        }
    }

    /// Until nobody can send any more.
    fn run(mut self, orders: &Receiver<Order>) {
        while let Ok(first) = orders.recv() {
            let (mut batch, mut told) = (Vec::new(), Vec::new());
            for order in std::iter::once(first).chain(orders.try_iter()) {
                match order {
                    Order::Keep(key, stored) => batch.push((key, stored)),
                    Order::Tell(tell) => told.push(tell),
                }
                if batch.len() >= BATCH {
                    break;
                }
            }
            // A full disk loses answers that can be had again, and nothing else.
            let _ = self.write(&batch);
            for tell in told {
                let _ = tell.send(());
            }
        }
    }

    fn write(&mut self, batch: &[(Key, Arc<Stored>)]) -> Result<(), redb::Error> {
        let mut bytes = self.bytes;
        let transaction = self.database.begin_write()?;
        {
            let mut answers = transaction.open_table(ANSWERS)?;
            let mut ages = transaction.open_table(AGES)?;
            for (key, stored) in batch {
                let record = stored.encode(key);
                let before = answers.get(key.0)?.and_then(|record| Stored::decode(key, record.value()));
                if let Some(before) = before
                    && let Some(size) = ages.remove((before.at(), key.0))?
                {
                    bytes = bytes.saturating_sub(size.value());
                }
                answers.insert(key.0, record.as_slice())?;
                ages.insert((stored.at(), key.0), record.len() as u64)?;
                bytes = bytes.saturating_add(record.len() as u64);
            }
            let expired =
                millis(clock::wall()).saturating_sub(u64::try_from(self.keep.as_millis()).unwrap_or(u64::MAX));
            loop {
                let oldest = ages.first()?.map(|(age, size)| (age.value(), size.value()));
                let Some(((at, key), size)) = oldest else { break };
                if at >= expired && bytes <= self.most {
                    break;
                }
                ages.remove((at, key))?;
                answers.remove(key)?;
                bytes = bytes.saturating_sub(size);
            }
        }
        transaction.commit()?;
        self.bytes = bytes;
        Ok(())
    }
}
