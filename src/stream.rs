//! Streams of server-sent events that close their own books: on the usage chunk, on an error inside the stream, at the
//! end, or when they are dropped.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use serde_json::Value;

use crate::attempt::Facts;
use crate::client::ClientError;
use crate::cost::Usage;
use crate::inspect;
use crate::permit::Permit;
use crate::providers::{self, Failure, Observation};
use crate::target::Target;

/// The longest event that is looked at; a longer one passes through unread.
const LONGEST_EVENT: usize = 16 << 20;

/// A chat completion that arrives in pieces.
///
/// It settles when the provider's usage chunk comes; ask for it with `"stream_options": {"include_usage": true}`. Without
/// it the charge stands as it was estimated.
///
/// # Cancel safety
/// Dropping the stream ends the call. What it has cost until then is unknown unless the usage chunk was there, so the
/// charge stands.
#[derive(Debug)]
pub struct ChatStream {
    target: Target,
    dropped: Vec<String>,
    chunks: Tap,
    events: Events,
    done: bool,
}

impl ChatStream {
    pub(crate) fn new(response: reqwest::Response, permit: Permit, mut facts: Facts) -> Self {
        let (target, dropped) = (permit.target(), facts.dropped());
        Self { target, dropped, chunks: Tap::new(response, permit, facts), events: Events::default(), done: false }
    }

    /// The next chunk as JSON; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks, the provider reports an error inside the stream, or a chunk is not JSON. The stream is
    /// over then; a stream that has begun is never repeated.
    ///
    /// # Cancel safety
    /// Nothing is lost: the next call goes on where this one was.
    pub async fn next(&mut self) -> Option<Result<Value, ClientError>> {
        std::future::poll_fn(|context| Pin::new(&mut *self).poll_next(context)).await
    }

    /// Who answers: the account and the model.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// What a fallback's model did not get of the request; see [`Reply::dropped`](crate::Reply::dropped).
    pub fn dropped(&self) -> &[String] {
        &self.dropped
    }

    /// What the call used, once the usage chunk was there.
    pub fn usage(&self) -> Option<Usage> {
        self.chunks.books.usage
    }
}

impl Stream for ChatStream {
    type Item = Result<Value, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.done {
                return Poll::Ready(None);
            }
            if let Some(failure) = this.chunks.books.failure.take() {
                this.done = true;
                return Poll::Ready(Some(Err(ClientError::Status(failure))));
            }
            if let Some(data) = this.events.next() {
                if data.as_ref() == b"[DONE]" {
                    continue;
                }
                let chunk = serde_json::from_slice(&data).map_err(ClientError::Json);
                this.done = chunk.is_err();
                return Poll::Ready(Some(chunk));
            }
            match std::task::ready!(Pin::new(&mut this.chunks).poll_next(context)) {
                Some(Ok(bytes)) => this.events.push(&bytes),
                Some(Err(error)) => {
                    this.done = true;
                    return Poll::Ready(Some(Err(ClientError::Transport(error))));
                }
                None => this.done = this.events.is_empty(),
            }
        }
    }
}

/// The bytes of a streamed answer, unchanged, with the permit of their call on board.
pub(crate) struct Tap {
    body: Pin<Box<dyn Stream<Item = Result<Bytes, reqwest::Error>> + Send>>,
    /// `None` for a body without events, in which there is nothing to see.
    events: Option<Events>,
    books: Books,
}

impl Tap {
    pub(crate) fn new(response: reqwest::Response, mut permit: Permit, facts: Facts) -> Self {
        // The headers of a stream come at its beginning, and others can use what they say at once.
        permit.read(&facts.answer);
        let books = Books { permit: Some(permit), usage: facts.usage, failure: None };
        let events = inspect::is_events(&response).then(Events::default);
        Self { body: Box::pin(response.bytes_stream()), events, books }
    }
}

impl Stream for Tap {
    type Item = Result<Bytes, reqwest::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let chunk = std::task::ready!(self.body.as_mut().poll_next(context));
        match &chunk {
            Some(Ok(bytes)) => {
                let Self { events, books, .. } = &mut *self;
                if let Some(events) = events {
                    events.push(bytes);
                    while let Some(data) = events.next() {
                        books.see(&data);
                    }
                }
            }
            Some(Err(_)) => self.books.broke(),
            None => self.books.close(),
        }
        Poll::Ready(chunk)
    }
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").field("usage", &self.books.usage).finish_non_exhaustive()
    }
}

/// The books of a call whose answer is still coming.
struct Books {
    permit: Option<Permit>,
    usage: Option<Usage>,
    failure: Option<Box<Failure>>,
}

impl Books {
    fn see(&mut self, data: &[u8]) {
        // Most events have neither; looking is cheaper than parsing.
        let mentions = |word: &[u8]| data.windows(word.len()).any(|window| window == word);
        if mentions(b"\"usage\"") || mentions(b"\"usageMetadata\"") {
            self.usage = providers::usage_in_bytes(data).or(self.usage);
        }
        if mentions(b"\"error\"")
            && let Some(permit) = &self.permit
            && let Ok(event) = serde_json::from_slice::<Value>(data)
            && let Some(failure) = providers::classify_stream_error(permit.provider(), &event)
        {
            if let Some(permit) = self.permit.take() {
                permit.failed_for_good(&failure, &Observation::default());
            }
            self.failure = Some(Box::new(failure));
        }
    }

    /// The answer ended before its end, which tells of the provider, and of the usage if that was there already.
    fn broke(&mut self) {
        if self.usage.is_some() {
            self.close();
        } else if let Some(permit) = self.permit.take() {
            let failure = Failure::unanswered("the stream broke".to_owned());
            permit.failed_for_good(&failure, &Observation::default());
        }
    }

    fn close(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.answered(self.usage, &Observation::default());
        }
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        if self.usage.is_some() {
            self.close();
        }
        // Without usage the permit's own drop lets the charge stand.
    }
}

/// Cuts a stream of bytes into the `data:` of its events.
#[derive(Debug, Default)]
struct Events {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    searched: usize,
}

impl Events {
    fn push(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > LONGEST_EVENT {
            self.buffer.clear();
            self.searched = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    fn next(&mut self) -> Option<BytesMut> {
        while let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            let mut line = self.buffer.split_to(self.searched + end + 1);
            self.searched = 0;
            while line.last().is_some_and(u8::is_ascii_whitespace) {
                line.truncate(line.len() - 1);
            }
            if line.starts_with(b"data:") {
                let mut data = line.split_off(5);
                if data.first() == Some(&b' ') {
                    data = data.split_off(1);
                }
                return Some(data);
            }
        }
        self.searched = self.buffer.len();
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_the_bytes_are_cut() {
        let text = "event: x\r\ndata: {\"a\":1}\r\n\r\n: comment\ndata:{\"b\":2}\n\ndata: [DONE]\n\n";
        for size in 1..text.len() {
            let mut events = Events::default();
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                events.push(piece);
                while let Some(data) = events.next() {
                    found.push(String::from_utf8(data.to_vec()).unwrap());
                }
            }
            assert_eq!(found, [r#"{"a":1}"#, r#"{"b":2}"#, "[DONE]"], "cut every {size}");
        }
    }
}
