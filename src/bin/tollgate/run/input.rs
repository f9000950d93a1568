//! The input as a file that can be read again: standard input and pipes are spooled.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use tempfile::NamedTempFile;

use super::settings::InputFrom;
use crate::show;

const BUFFER: usize = 256 * 1024;

/// The byte order mark that some editors put in front of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// The input.
#[derive(Debug)]
pub(crate) struct Input {
    path: PathBuf,
    /// Removed when dropped.
    _spool: Option<NamedTempFile>,
}

impl Input {
    pub(crate) fn open(from: &InputFrom) -> Result<Self> {
        match from {
            InputFrom::Stdin => Self::spool(&mut io::stdin().lock()).context("cannot read standard input"),
            InputFrom::File(path) => {
                let cannot = || format!("cannot read {}", path.display());
                let mut file = File::open(path).with_context(cannot)?;
                let kind = file.metadata().with_context(cannot)?;
                if kind.is_dir() {
                    anyhow::bail!("{} is a folder; expected a file of requests", path.display());
                }
                if kind.is_file() {
                    return Ok(Self { path: path.clone(), _spool: None });
                }
                Self::spool(&mut file).with_context(cannot)
            }
        }
    }

    fn spool(from: &mut impl Read) -> io::Result<Self> {
        let mut spool = NamedTempFile::with_prefix("tollgate-")?;
        io::copy(from, &mut spool)?;
        Ok(Self { path: spool.path().to_owned(), _spool: Some(spool) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// All lines from the beginning.
    pub(crate) fn lines(&self) -> io::Result<Lines> {
        let reader = BufReader::with_capacity(BUFFER, File::open(&self.path)?);
        Ok(Lines { reader, line: Vec::new(), number: 0, next: 0 })
    }

    /// Reads lines whose places are known.
    pub(crate) fn places(&self) -> io::Result<Places> {
        Ok(Places { reader: BufReader::with_capacity(BUFFER, File::open(&self.path)?), at: 0 })
    }
}

/// Reads line by line, in memory for one of them.
#[derive(Debug)]
pub(crate) struct Lines {
    reader: BufReader<File>,
    line: Vec<u8>,
    number: u64,
    next: u64,
}

/// What a file may be instead of one JSON object a line, told by its first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Instead {
    /// One array of them.
    Array,
    /// An object over several lines.
    Spread,
    /// What some editors and shells write on Windows.
    Utf16,
}

impl Instead {
    pub(crate) fn of(first: &[u8]) -> Option<Self> {
        match first.trim_ascii_start() {
            // The byte order mark, either way round; or letters without one.
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] | [0, _, ..] | [_, 0, ..] => Some(Self::Utf16),
            [b'[', ..] => Some(Self::Array),
            [b'{'] => Some(Self::Spread),
            _ => None,
        }
    }

    /// What it looks like, and what makes lines of it. `file` is as it was typed; `None` is standard input.
    pub(crate) fn hint(self, file: Option<&Path>) -> String {
        let (name, word) = match file {
            Some(file) => (file.display().to_string(), format!(" {}", show::quoted(&file.to_string_lossy()))),
            None => ("standard input".to_owned(), String::new()),
        };
        let (seen, command) = match self {
            Self::Array => ("looks like one JSON array", "jq -c '.[]'"),
            Self::Spread => ("looks like JSON over several lines", "jq -c ."),
            Self::Utf16 => ("is no UTF-8 but UTF-16", "iconv -f UTF-16 -t UTF-8"),
        };
        let makes = if self == Self::Utf16 { "makes UTF-8 of it" } else { "makes one line of each request" };
        format!("{name} {seen}, so nothing was sent; expected one JSON object a line\n  {command}{word}  {makes}")
    }
}

/// A line and where it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    /// From 1.
    pub(crate) number: u64,
    pub(crate) offset: u64,
    pub(crate) bytes: &'a [u8],
}

impl Lines {
    /// The next line, blank or not, without its end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Found<'_>>> {
        self.line.clear();
        let read = self.reader.read_until(b'\n', &mut self.line)?;
        if read == 0 {
            return Ok(None);
        }
        let mut offset = self.next;
        self.next += read as u64;
        self.number += 1;
        let mut bytes = self.line.as_slice();
        if let Some(rest) = bytes.strip_prefix(MARK).filter(|_| self.number == 1) {
            bytes = rest;
            offset += MARK.len() as u64;
        }
        Ok(Some(Found { number: self.number, offset, bytes: bytes.trim_ascii_end() }))
    }
}

/// Reads at places that mostly follow one another.
#[derive(Debug)]
pub(crate) struct Places {
    reader: BufReader<File>,
    at: u64,
}

impl Places {
    pub(crate) fn read(&mut self, offset: u64, length: u32) -> io::Result<Bytes> {
        match i64::try_from(offset.wrapping_sub(self.at)) {
            Ok(ahead) if offset >= self.at => self.reader.seek_relative(ahead)?,
            _ => drop(self.reader.seek(SeekFrom::Start(offset))?),
        }
        let mut line = vec![0; length as usize];
        self.reader.read_exact(&mut line)?;
        self.at = offset + u64::from(length);
        Ok(line.into())
    }
}
