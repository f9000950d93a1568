//! Server-sent events as the HTML standard cuts them, bounded, and with an end that the standard throws away.
//!
//! Crates that do the same discard an event whose last line end is missing, which here holds the usage, or know no bound.

use bytes::{Buf, BytesMut};

/// The longest event that is read, in bytes.
pub(crate) const LONGEST_EVENT: usize = 16 << 20;

/// Cuts a stream of bytes into the `data` of its events. Events without any are left out.
#[derive(Debug, Default)]
pub(crate) struct Events {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    searched: usize,
    /// The last line ended in CR, so that an LF is the rest of its end.
    after_cr: bool,
    /// A line has been there: a byte order mark is only one in front of the first.
    begun: bool,
    /// The `data` lines of the event under way.
    data: Option<BytesMut>,
    /// The event under way is too long, and its rest is passed over.
    skipping: bool,
}

/// Why an event cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It is longer than [`LONGEST_EVENT`].
    TooLong,
    /// The stream ended in the middle of it.
    Cut,
}

pub(crate) fn is_done(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}

impl Events {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next event that is here whole.
    pub(crate) fn next(&mut self) -> Option<Result<BytesMut, Broken>> {
        while let Some(line) = self.line() {
            if let Some(event) = self.take(line) {
                return Some(event);
            }
        }
        if self.is_too_long(self.buffer.len()) {
            // One byte is left, so that what is still to come of the line is not taken for the blank line after the event.
            self.buffer.truncate(1);
            self.searched = self.buffer.len();
            return self.skip();
        }
        None
    }

    /// The event that is left at the end of the stream. Some servers leave out the line ends of the last one; one that is
    /// no JSON was cut.
    pub(crate) fn end(&mut self) -> Option<Result<BytesMut, Broken>> {
        let rest = std::mem::take(&mut self.buffer);
        let cut = !rest.is_empty() && !rest.starts_with(b":") && !self.skipping;
        if !rest.is_empty() {
            self.take(rest);
        }
        let is_whole = |data: &[u8]| is_done(data) || serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok();
        match self.take(BytesMut::new()) {
            Some(Ok(data)) if !is_whole(&data) => Some(Err(Broken::Cut)),
            None if cut => Some(Err(Broken::Cut)),
            event => event,
        }
    }

    /// The next line, without its end: CR, LF or both.
    fn line(&mut self) -> Option<BytesMut> {
        if self.after_cr && !self.buffer.is_empty() {
            self.after_cr = false;
            if self.buffer[0] == b'\n' {
                self.buffer.advance(1);
            }
        }
        let end = self.buffer[self.searched..].iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let Some(end) = end else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + end);
        self.searched = 0;
        self.after_cr = self.buffer.get_u8() == b'\r';
        Some(line)
    }

    /// What a line makes of the event under way; a blank one ends it.
    fn take(&mut self, mut line: BytesMut) -> Option<Result<BytesMut, Broken>> {
        if !std::mem::replace(&mut self.begun, true) && line.starts_with("\u{feff}".as_bytes()) {
            line.advance("\u{feff}".len());
        }
        if line.is_empty() {
            self.skipping = false;
            return self.data.take().filter(|data| !data.trim_ascii().is_empty()).map(Ok);
        }
        let rest = line.strip_prefix(b"data")?;
        let value = match rest {
            [] => rest,
            [b':', b' ', value @ ..] | [b':', value @ ..] => value,
            _ => return None,
        };
        if self.is_too_long(value.len()) {
            return self.skip();
        }
        if self.skipping {
            return None;
        }
        match &mut self.data {
            Some(data) => {
                data.extend_from_slice(b"\n");
                data.extend_from_slice(value);
            }
            None => {
                line.advance(line.len() - value.len());
                self.data = Some(line);
            }
        }
        None
    }

    fn is_too_long(&self, more: usize) -> bool {
        self.data.as_ref().map_or(0, BytesMut::len) + more > LONGEST_EVENT
    }

    /// Tells once of an event that it is too long.
    fn skip(&mut self) -> Option<Result<BytesMut, Broken>> {
        self.data = None;
        let told = std::mem::replace(&mut self.skipping, true);
        (!told).then_some(Err(Broken::TooLong))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found in `text` when it comes in pieces of so many bytes.
    fn found(text: &str, size: usize) -> Vec<Result<String, Broken>> {
        let mut events = Events::default();
        let mut found = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            events.push(piece);
            found.extend(std::iter::from_fn(|| events.next()));
        }
        found.extend(events.end());
        found.into_iter().map(|event| event.map(|data| String::from_utf8(data.to_vec()).unwrap())).collect()
    }

    #[test]
    fn events_are_found_however_lines_end_and_bytes_are_cut() {
        let text = "\u{feff}data: {\"a\":\"ä\u{feff}\"}\n\n: comment\nevent: x\ndata:{\"b\":2}\nid\n\nretry: 3\n\ndata:\n\n\
                    data: \n\ndata\n\ndata: [1,\ndata:  2]\n\ndatum: 4\n data: 5\n\n\n\ndata: [DONE]\n\n";
        let expected = ["{\"a\":\"ä\u{feff}\"}", "{\"b\":2}", "[1,\n 2]", "[DONE]"].map(|data| Ok(data.to_owned()));
        // In turns, and never LF after CR, which would be one end.
        let mut ends = ["\n", "\r", "\r\n"].iter().cycle();
        let mixed = text.split('\n').map(|line| format!("{line}{}", ends.next().unwrap())).collect::<String>();
        for text in [text, &text.replace('\n', "\r\n"), &text.replace('\n', "\r"), &mixed] {
            for size in 1..=text.len() {
                assert_eq!(found(text, size), expected, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn the_last_event_needs_no_line_end_and_one_that_is_cut_is_told() {
        let whole = |data: &str| vec![Ok(data.to_owned())];
        let cut = vec![Err(Broken::Cut)];
        let rows = [
            ("data: [DONE]", whole("[DONE]")),
            ("data: [DONE]\r", whole("[DONE]")),
            ("data: {\"a\":1}", whole("{\"a\":1}")),
            ("data: {\"a\":1}\n", whole("{\"a\":1}")),
            ("data: {\ndata: }", whole("{\n}")),
            ("\u{feff}data: 1", whole("1")),
            ("data: 1\n\n: bye", whole("1")),
            ("", vec![]),
            ("\n", vec![]),
            ("data: {\"a\":", cut.clone()),
            ("data: {\"a\":\n", cut.clone()),
            ("data: {\ndata", cut.clone()),
            ("data:", cut.clone()),
            ("da", cut.clone()),
            ("event: mess", cut.clone()),
            ("{\"no\": \"event\"}", cut),
        ];
        for (text, expected) in rows {
            for size in 1..=text.len().max(1) {
                assert_eq!(found(text, size), expected, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn an_event_that_is_too_long_is_told_once_and_the_next_one_is_read() {
        let line = "x".repeat(LONGEST_EVENT / 2);
        let in_lines = format!("data: {line}\ndata: {line}\ndata: 1\n\ndata: 2\n\n");
        let in_one = format!("data: {line}{line}x\ndata: 1\n\ndata: 2\n\n");
        for text in [in_lines, in_one] {
            // Once so that a piece ends where the line does.
            for size in [text.len(), 1 << 20, LONGEST_EVENT + "data: x".len()] {
                let found = found(&text, size);
                assert_eq!(found, [Err(Broken::TooLong), Ok("2".to_owned())], "in pieces of {size}");
            }
        }
        assert_eq!(found(&format!("data: {line}{line}xx"), 1 << 20), [Err(Broken::TooLong)], "without an end");
        let longest = format!("data: \"{}\"\n\n", "x".repeat(LONGEST_EVENT - 16));
        assert!(matches!(&found(&longest, 1 << 20)[..], [Ok(data)] if data.len() == LONGEST_EVENT - 14));
    }
}
