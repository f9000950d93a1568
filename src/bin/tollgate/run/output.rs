//! Where the results go: what is there already, repaired after a crash, and the thread that writes.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use tempfile::NamedTempFile;
use tokio::sync::mpsc;

use super::journal::Journal;
use super::paths::is_at;
use super::row::{Id, id_of};
use super::settings::OutputTo;
use crate::show;
use crate::stop::{Level, Stop};

/// So much is put together into one write where results come faster than they are written.
const BATCH: usize = 64 * 1024;

/// So much room there must be for results before the first row is sent.
const ROOM: usize = 64 * 1024;

/// Results that may wait to be written; more hold up those who bring them.
const WAITING: usize = 1024;

/// What earlier runs left.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    succeeded: HashSet<Id>,
    failed: HashSet<Id>,
    /// Sent, and without a result.
    pub(crate) uncertain: HashSet<Id>,
}

impl Earlier {
    pub(crate) fn is_done(&self, id: Id) -> bool {
        self.succeeded.contains(&id) || self.failed(id)
    }

    pub(crate) fn failed(&self, id: Id) -> bool {
        self.failed.contains(&id)
    }

    /// Forgets the failures, so that these rows are to be done again.
    pub(crate) fn take_failed(&mut self) -> HashSet<Id> {
        std::mem::take(&mut self.failed)
    }
}

/// Where the results go.
#[derive(Debug)]
pub(crate) enum Output {
    /// Standard output, a pipe, a device: nothing is known of earlier runs, and there is nothing to resume.
    Stream(Stream),
    File(Results),
}

#[derive(Debug)]
pub(crate) enum Stream {
    Stdout,
    Other(File),
}

/// A file of results, with the lock that makes it ours.
#[derive(Debug)]
pub(crate) struct Results {
    /// As it was typed.
    path: PathBuf,
    /// The same behind all links.
    place: PathBuf,
    file: File,
    pub(crate) journal: Journal,
    /// Whether the file was not there before.
    new: bool,
    /// Whether results may have been written.
    begun: AtomicBool,
    /// How long the file is, for all that was written.
    length: Arc<AtomicU64>,
}

impl Drop for Results {
    /// Where nothing was begun, leaves no files behind that were not there before.
    fn drop(&mut self) {
        if !*self.begun.get_mut() {
            if self.new {
                let _ = std::fs::remove_file(&self.place);
            }
            self.journal.remove_if_empty();
        }
    }
}

impl Output {
    /// Makes sure that results can be written, and reads those that are there.
    pub(crate) fn open(to: &OutputTo) -> Result<(Self, Earlier)> {
        let path = match to {
            OutputTo::Stdout => return Ok((Self::Stream(Stream::Stdout), Earlier::default())),
            OutputTo::File(path) => path,
        };
        let cannot = || format!("cannot write {}", path.display());
        let there = std::fs::metadata(path).ok();
        if there.as_ref().is_some_and(|there| !there.is_file() && !there.is_dir()) {
            let file = OpenOptions::new().write(true).open(path).with_context(cannot)?;
            return Ok((Self::Stream(Stream::Other(file)), Earlier::default()));
        }
        // Before the journal, so that a folder that is not there is named by the file that was asked for.
        let mut file = open(path).with_context(cannot)?;
        let place = path.canonicalize().with_context(cannot)?;
        let journal = Journal::open(path)?;
        let mut known = read(path, &mut file).inspect_err(|_| journal.remove_if_empty())?;
        known.uncertain = journal
            .uncertain(|id| known.is_done(id))
            .with_context(|| format!("cannot read the journal of {}", path.display()))?;
        let (path, new, begun) = (path.clone(), there.is_none(), AtomicBool::new(false));
        Ok((Self::File(Results { path, place, file, journal, new, begun, length: Arc::default() }), known))
    }

    /// Makes sure that the disk is not full, by a file that is gone again.
    pub(crate) fn check_room(&self) -> Result<()> {
        let Self::File(results) = self else { return Ok(()) };
        let folder = results.place.parent().unwrap_or(Path::new("."));
        let write = || NamedTempFile::new_in(folder)?.write_all(&[0; ROOM]);
        write().with_context(|| format!("there is no room for results beside {}", results.path.display()))
    }

    /// Takes out the results of rows that failed and are to be done again.
    pub(crate) fn take_out(&mut self, failed: &HashSet<Id>) -> Result<()> {
        let Self::File(results) = self else { return Ok(()) };
        if failed.is_empty() {
            return Ok(());
        }
        let Results { path, place, file, journal, .. } = results;
        let cannot = || format!("cannot rewrite {}", path.display());
        write_without(place, failed).with_context(cannot)?;
        // The old file is no longer the one at this path.
        *file = open(path).with_context(cannot)?;
        // They have come to an end, whatever the journal says of their being sent.
        failed.iter().for_each(|id| journal.back(*id));
        Ok(())
    }

    pub(crate) fn journal(&self) -> Option<&Journal> {
        match self {
            Self::Stream(_) => None,
            Self::File(results) => Some(&results.journal),
        }
    }

    /// Whether the results can still be found where they are written to. Their file may have been removed or replaced.
    pub(crate) fn is_there(&self) -> bool {
        match self {
            Self::Stream(_) => true,
            Self::File(Results { file, path, length, .. }) => {
                let whole = |data: Metadata| data.len() >= length.load(Relaxed);
                is_at(file, path) && file.metadata().is_ok_and(whole)
            }
        }
    }

    /// How people name it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Stream(Stream::Stdout) => "standard output".to_owned(),
            Self::Stream(Stream::Other(_)) => "the output".to_owned(),
            Self::File(results) => results.path.display().to_string(),
        }
    }

    /// Starts the thread that writes.
    pub(crate) fn writer(&self, stop: &Stop) -> io::Result<Writer> {
        let (mut length, mut file) = (Arc::default(), None);
        let sink: Box<dyn Write + Send> = match self {
            Self::Stream(Stream::Stdout) => Box::new(io::stdout()),
            Self::Stream(Stream::Other(file)) => Box::new(file.try_clone()?),
            Self::File(results) => {
                results.begun.store(true, Relaxed);
                results.length.store(results.file.metadata()?.len(), Relaxed);
                length = results.length.clone();
                file = Some(results.file.try_clone()?);
                Box::new(results.file.try_clone()?)
            }
        };
        let (results, receiver) = mpsc::channel(WAITING);
        let stop = stop.clone();
        let thread = std::thread::Builder::new().name("results".to_owned());
        let thread = thread.spawn(move || write(receiver, sink, file, &length, &stop))?;
        Ok(Writer { results, thread })
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).append(true).open(path)
}

/// A result as far as it says which row it belongs to and whether it is good.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    custom_id: Cow<'a, str>,
    /// Every result has these, and one of them is null; what has neither is no result.
    #[serde(default, deserialize_with = "present")]
    response: Option<Option<Status>>,
    #[serde(default, deserialize_with = "present")]
    error: Option<Option<IgnoredAny>>,
}

/// Tells null from nothing.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(value).map(Some)
}

#[derive(Deserialize)]
struct Status {
    status_code: u16,
}

impl<'a> Head<'a> {
    /// `None` for what is no result.
    fn of(line: &'a [u8]) -> Option<Self> {
        let head = serde_json::from_slice::<Self>(line).ok()?;
        (head.response.is_some() || head.error.is_some()).then_some(head)
    }

    fn succeeded(&self) -> bool {
        let status = self.response.as_ref().and_then(Option::as_ref).map(|response| response.status_code);
        self.error.as_ref().is_none_or(Option::is_none) && status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// How every result begins.
const BEGINNING: &[u8] = b"{\"id\":";

/// What a crash may leave of a result that was being written: its beginning, or zeros, which some file systems put there.
fn is_torn(line: &[u8]) -> bool {
    let beginning = &BEGINNING[..line.len().min(BEGINNING.len())];
    line.starts_with(b"\0") || (line.starts_with(beginning) && serde_json::from_slice::<IgnoredAny>(line).is_err())
}

/// Reads the results in `file` and repairs its end: a last line without an end is closed if it is whole and cut off if not.
fn read(path: &Path, file: &mut File) -> Result<Earlier> {
    let cannot = || format!("cannot read {}", path.display());
    let mut known = Earlier::default();
    let mut reader = BufReader::with_capacity(BATCH, File::open(path).with_context(cannot)?);
    let (mut line, mut number, mut end) = (Vec::new(), 0_u64, 0_u64);
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line).with_context(cannot)? as u64;
        if read == 0 {
            break;
        }
        number += 1;
        let whole = line.ends_with(b"\n");
        let text = line.trim_ascii();
        match Head::of(text) {
            Some(head) => {
                let id = id_of(&head.custom_id);
                if head.succeeded() {
                    known.succeeded.insert(id)
                } else {
                    known.failed.insert(id)
                };
                if !whole {
                    file.write_all(b"\n").with_context(|| format!("cannot write {}", path.display()))?;
                }
            }
            None if !whole && is_torn(text) => {
                file.set_len(end).with_context(|| format!("cannot repair the last line of {}", path.display()))?;
            }
            None if text.is_empty() => {}
            None => bail!(
                "line {number} of {} is no result of a run; choose another output with -o, or move that file away",
                path.display()
            ),
        }
        end += read;
    }
    // A row that failed once and succeeded later is done.
    known.failed.retain(|id| !known.succeeded.contains(id));
    Ok(known)
}

/// Puts a copy without the results of these rows in the file's place.
fn write_without(path: &Path, rows: &HashSet<Id>) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut copy = BufWriter::with_capacity(BATCH, NamedTempFile::new_in(folder)?);
    copy.get_ref().as_file().set_permissions(std::fs::metadata(path)?.permissions())?;
    let mut reader = BufReader::with_capacity(BATCH, File::open(path)?);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        if !Head::of(line.trim_ascii()).is_some_and(|head| rows.contains(&id_of(&head.custom_id))) {
            copy.write_all(&line)?;
        }
        line.clear();
    }
    let copy = copy.into_inner().map_err(io::IntoInnerError::into_error)?;
    copy.as_file().sync_all()?;
    copy.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The way to the thread that writes.
#[derive(Debug)]
pub(crate) struct Writer {
    results: mpsc::Sender<Vec<u8>>,
    thread: JoinHandle<io::Result<()>>,
}

impl Writer {
    /// For those who bring results, each a line with its end.
    pub(crate) fn sender(&self) -> mpsc::Sender<Vec<u8>> {
        self.results.clone()
    }

    /// Waits until everything is written.
    pub(crate) async fn finish(self) -> io::Result<()> {
        let Self { results, thread } = self;
        drop(results);
        let joined = tokio::task::spawn_blocking(|| thread.join()).await;
        joined.ok().and_then(Result::ok).unwrap_or_else(|| Err(io::Error::other("the writing thread is gone")))
    }
}

/// Writes what comes, at once where nothing else waits: a result that is here survives whatever happens to the process. Counts
/// the file's `length`.
///
/// # Errors
/// When something could not be written to the last. Of a file that is full nothing is lost: what still comes in goes there as soon
/// as there is room again, or else into a file of its own that the error names.
fn write(
    mut results: mpsc::Receiver<Vec<u8>>,
    mut sink: Box<dyn Write + Send>,
    file: Option<File>,
    length: &AtomicU64,
    stop: &Stop,
) -> io::Result<()> {
    let mut batch = Vec::with_capacity(2 * BATCH);
    // Of the first line in the batch, so much is written.
    let mut begun = 0;
    let mut failed = None;
    while let Some(result) = results.blocking_recv() {
        batch.extend_from_slice(&result);
        while batch.len() < BATCH
            && let Ok(result) = results.try_recv()
        {
            batch.extend_from_slice(&result);
        }
        let Err(error) = put(&mut sink, &mut batch, &mut begun, length) else { continue };
        // With nobody reading, running requests are of no use; else they are paid for.
        let unread = error.kind() == io::ErrorKind::BrokenPipe;
        stop.raise(if unread { Level::Now } else { Level::Drain });
        if unread {
            return Err(error);
        }
        failed = Some(error);
    }
    match failed {
        Some(error) => match put(&mut sink, &mut batch, &mut begun, length) {
            Ok(()) => Err(error),
            Err(error) => {
                // Whole lines can be appended behind whole lines.
                if let Some(file) = file {
                    let _ = file.set_len(length.load(Relaxed) - begun as u64);
                }
                Err(set_aside(&batch, error))
            }
        },
        None => Ok(()),
    }
}

/// Writes the batch as far as that goes. What is left of it begins with the line of which so much has been `begun`.
fn put(sink: &mut impl Write, batch: &mut Vec<u8>, begun: &mut usize, length: &AtomicU64) -> io::Result<()> {
    let mut at = *begun;
    let result = loop {
        if at == batch.len() {
            break sink.flush();
        }
        match sink.write(&batch[at..]) {
            Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written;
                length.fetch_add(written as u64, Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    let whole = batch[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    batch.drain(..whole);
    *begun = at - whole;
    result
}

/// Keeps results that found no room where they belong.
fn set_aside(lines: &[u8], error: io::Error) -> io::Error {
    let number = lines.iter().filter(|byte| **byte == b'\n').count();
    let rows = show::of(number as u64, "result", "results");
    let keep = || -> io::Result<PathBuf> {
        let mut file = NamedTempFile::with_prefix("tollgate-results-")?;
        file.write_all(lines)?;
        Ok(file.keep().map_err(|error| error.error)?.1)
    };
    let kept = match keep() {
        Ok(path) => format!("{rows} that found no room are in {}: append them before you go on", path.display()),
        Err(other) => format!("{rows} found no room, and none elsewhere ({other}): these rows are done again"),
    };
    io::Error::new(error.kind(), format!("{error}; {kept}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good(id: &str) -> String {
        format!(
            r#"{{"id":"b","custom_id":"{id}","response":{{"status_code":200,"request_id":null,"body":{{}}}},"error":null}}"#
        )
    }

    fn bad(id: &str) -> String {
        format!(r#"{{"id":"b","custom_id":"{id}","response":null,"error":{{"code":"x","message":"y"}}}}"#)
    }

    fn open(path: &Path) -> Result<(Output, Earlier)> {
        Output::open(&OutputTo::File(path.to_owned()))
    }

    /// A disk with so much room.
    struct Disk {
        file: File,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let written = self.file.write(&bytes[..bytes.len().min(self.room)])?;
            self.room -= written;
            Ok(written)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.file.flush()
        }
    }

    #[test]
    fn results_that_find_no_room_are_kept_elsewhere_and_can_be_appended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let lines: Vec<_> = ["a", "b", "c"].map(|id| format!("{}\n", good(id)).into_bytes()).into();
        let disk = Disk { file: super::open(&path).unwrap(), room: lines[0].len() + 10 };
        let (sender, results) = mpsc::channel(3);
        lines.iter().for_each(|line| sender.try_send(line.clone()).unwrap());
        drop(sender);
        let (stop, length, file) = (Stop::new(), AtomicU64::new(0), super::open(&path).unwrap());
        let error = write(results, Box::new(disk), Some(file), &length, &stop).unwrap_err().to_string();
        assert_eq!((std::fs::read(&path).unwrap(), stop.level()), (lines[0].clone(), Level::Drain));
        let kept =
            error.split_once("2 results that found no room are in ").unwrap().1.split_once(": append").unwrap().0;
        assert_eq!(std::fs::read(kept).unwrap(), lines[1..].concat());
        std::fs::remove_file(kept).unwrap();
    }

    #[test]
    fn a_disk_that_was_full_for_a_while_has_every_result_and_is_told() {
        /// Full once.
        struct Full(File, bool);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let full = !std::mem::replace(&mut self.1, true);
                if full { Err(io::ErrorKind::StorageFull.into()) } else { self.0.write(bytes) }
            }

            fn flush(&mut self) -> io::Result<()> {
                self.0.flush()
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let line = format!("{}\n", good("a")).into_bytes();
        let (sender, results) = mpsc::channel(1);
        sender.try_send(line.clone()).unwrap();
        drop(sender);
        let (stop, length) = (Stop::new(), AtomicU64::new(0));
        let written = write(results, Box::new(Full(super::open(&path).unwrap(), false)), None, &length, &stop);
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull, "nothing new was begun after it");
        assert_eq!((std::fs::read(&path).unwrap(), stop.level()), (line, Level::Drain));
    }

    #[test]
    fn a_torn_last_line_is_cut_off_and_a_whole_one_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let whole = format!("{}\n\n{}\n", good("é"), bad("b"));
        for (tail, repaired) in [
            (String::new(), String::new()),
            (good("c"), format!("{}\n", good("c"))),
            (good("c")[..20].to_owned(), String::new()),
            ("\0\0\0".to_owned(), String::new()),
        ] {
            std::fs::write(&path, format!("{whole}{tail}")).unwrap();
            let (_, known) = open(&path).unwrap();
            assert!(known.is_done(id_of("é")) && known.failed(id_of("b")));
            assert_eq!(known.is_done(id_of("c")), !repaired.is_empty());
            assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{whole}{repaired}"));
        }
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let request = r#"{"custom_id":"b","method":"POST","url":"/v1/embeddings","body":{}}"#;
        for (line, text) in [
            (2, format!("{}\n{{\"model\":\"m\"}}\n", good("a"))),
            (1, format!("{request}\n{request}\n")),
            (2, format!("{}\n{request}\n{}\n", good("a"), bad("c"))),
            (1, request.to_owned()),
            (1, request[..30].to_owned()),
            (2, format!("{}\nsome notes", bad("a"))),
            (1, r#"{"id":"x","model":"m"}"#.to_owned()),
        ] {
            std::fs::write(&path, &text).unwrap();
            let error = open(&path).unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {line} of ")), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no journal stays");
    }

    #[test]
    fn retrying_takes_failures_out_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let before = format!("{}\n{}\n{}\n{}\n", bad("a"), good("b"), bad("c"), good("a"));
        std::fs::write(&path, &before).unwrap();
        let (mut output, mut known) = open(&path).unwrap();
        let failed = known.take_failed();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            before,
            "not before it is known that they can be done again"
        );
        output.take_out(&failed).unwrap();
        assert!(known.is_done(id_of("a")) && known.is_done(id_of("b")) && !known.is_done(id_of("c")));
        let left = std::fs::read_to_string(&path).unwrap();
        assert_eq!(left, format!("{}\n{}\n{}\n", bad("a"), good("b"), good("a")));
    }
}
