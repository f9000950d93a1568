//! Answers across runs: one SQLite file, read where an answer is not in memory, written by a thread of its own. Several
//! processes may share it.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OptionalExtension};
use tokio::sync::oneshot;

use super::key::Key;
use super::stored::{Stored, millis};
use crate::clock;

/// The name tells the form of what is in it; files of another form are left alone.
pub(super) const FILE: &str = "answers.v1.sqlite";

/// `WAL` lets readers read while another process writes. What its last second wrote may be lost with the power, which costs
/// a call.
const SETUP: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE IF NOT EXISTS answers (key BLOB PRIMARY KEY, at INTEGER NOT NULL, record BLOB NOT NULL);
    CREATE INDEX IF NOT EXISTS by_age ON answers (at);";

/// How long to wait for another process that writes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Answers that wait to be written; where a disk is slower than that, some are not kept.
const WAITING: usize = 1_024;
/// Answers in one transaction, each of which waits for the disk.
const BATCH: usize = 256;
/// The oldest answers go so many at a time.
const EVICTED: u32 = 16;

/// The file and the thread that writes it.
#[derive(Debug)]
pub(super) struct Disk {
    reader: Arc<Reader>,
    /// `None` only while it is dropped.
    orders: Option<SyncSender<Order>>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Reader {
    /// A std mutex: reading happens on blocking threads, one at a time.
    connection: Mutex<Connection>,
    /// The file was damaged since it was opened; the next one to open it moves it aside.
    broken: AtomicBool,
}

enum Order {
    Keep(Key, Arc<Stored>),
    /// Tell when everything before is on disk.
    Tell(oneshot::Sender<()>),
}

impl Disk {
    /// Opens the file in `folder`, which may take `most` bytes and holds answers for as long as `keep`. A damaged one is
    /// moved aside with a warning. `None`, with a warning, where there can be no file.
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
        let open = || -> rusqlite::Result<_> {
            let writer = Writer { connection: connect(&path)?, most, keep };
            writer.clean()?;
            Ok((connect(&path)?, writer))
        };
        let opened = match open() {
            Err(error) if is_damage(&error) && set_aside(&path).is_ok() => {
                warnings.push(format!("{}: {error}; moved aside (*.damaged) and begun anew", path.display()));
                open()
            }
            opened => opened,
        };
        let (connection, writer) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                warnings.push(format!("{}: {error}; answers are kept in memory only", path.display()));
                return Ok(None);
            }
        };
        let reader = Arc::new(Reader { connection: Mutex::new(connection), broken: AtomicBool::new(false) });
        let (orders, received) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("tollgate-cache".to_owned());
        let writer = thread.spawn(move || writer.run(&received))?;
        Ok(Some(Self { reader, orders: Some(orders), writer: Some(writer) }))
    }

    /// What is kept under `key`; a damaged record is none.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn get(&self, key: Key) -> Option<Stored> {
        if self.reader.broken.load(Relaxed) {
            return None;
        }
        let reader = self.reader.clone();
        tokio::task::spawn_blocking(move || reader.get(&key)).await.ok().flatten()
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
    /// Waits for what is being written: whoever opens the file next finds everything in it.
    fn drop(&mut self) {
        self.orders = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Reader {
    fn get(&self, key: &Key) -> Option<Stored> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let record = connection
            .prepare_cached("SELECT record FROM answers WHERE key = ?1")
            .and_then(|mut select| select.query_row([key.0], |row| row.get::<_, Vec<u8>>(0)).optional());
        match record {
            Ok(record) => Stored::decode(key, &record?),
            Err(error) => {
                self.broken.fetch_or(is_damage(&error), Relaxed);
                None
            }
        }
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    // Made here, so that it is for its owner alone; SQLite gives the files beside it the same mode.
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // Where it cannot be made SQLite says why.
    drop(options.open(path));
    let connection = Connection::open(path)?;
    connection.busy_timeout(PATIENCE)?;
    connection.execute_batch(SETUP)?;
    Ok(connection)
}

/// Whether it is the file's own fault; a disk that is full, say, leaves it as good as it was.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error.sqlite_error_code() {
        // Unknown: the statements do not fit what it holds.
        Some(code) => matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown),
        // What it holds is not of the kind that was put in.
        None => true,
    }
}

/// Moves the file away, and with it what SQLite keeps beside it.
fn set_aside(path: &Path) -> io::Result<()> {
    for beside in ["-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(beside);
        let _ = fs::remove_file(name);
    }
    fs::rename(path, path.with_extension("damaged"))
}

/// Files with answers of another version.
fn others(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut others = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        if text.starts_with("answers.v") && text.ends_with(".sqlite") && text != FILE {
            others.push(folder.join(&name));
        }
    }
    Ok(others)
}

/// Writes answers as they come, many at a time when many come, and takes out what is too old or too much.
struct Writer {
    connection: Connection,
    most: u64,
    keep: Duration,
}

impl Writer {
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

    fn write(&mut self, batch: &[(Key, Arc<Stored>)]) -> rusqlite::Result<()> {
        let transaction = self.connection.transaction()?;
        {
            let mut insert =
                transaction.prepare_cached("REPLACE INTO answers (key, at, record) VALUES (?1, ?2, ?3)")?;
            for (key, stored) in batch {
                insert.execute((key.0, signed(stored.at()), stored.encode(key)))?;
            }
        }
        self::evict(&transaction, self.most)?;
        transaction.commit()
    }

    /// Checks the file, and takes out what is too old.
    fn clean(&self) -> rusqlite::Result<()> {
        let sound: String = self.connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if sound != "ok" {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
            return Err(rusqlite::Error::SqliteFailure(code, Some(sound)));
        }
        let oldest = clock::wall().checked_sub(self.keep).map_or(0, millis);
        self.connection.execute("DELETE FROM answers WHERE at < ?1", [signed(oldest)])?;
        evict(&self.connection, self.most)
    }
}

/// Takes out the oldest until the rest fits.
fn evict(connection: &Connection, most: u64) -> rusqlite::Result<()> {
    let number = |name: &str| connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    loop {
        let used = (number("page_count")? - number("freelist_count")?).saturating_mul(number("page_size")?);
        if used <= signed(most) {
            return Ok(());
        }
        let oldest = "DELETE FROM answers WHERE key IN (SELECT key FROM answers ORDER BY at LIMIT ?1)";
        if connection.execute(oldest, [EVICTED])? == 0 {
            return Ok(());
        }
    }
}

/// SQLite's integers have a sign.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
