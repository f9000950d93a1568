//! Streams of server-sent events that close their own books: on the usage chunk, on an error inside the stream, at the
//! end, or when they are dropped.

use std::collections::VecDeque;
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
use crate::providers::{self, Failure, Observation, mentions};
use crate::sse::{Broken, Events, is_done};
use crate::target::Target;

/// A chat completion that arrives in pieces.
///
/// It settles when the provider's usage chunk comes; ask for it with `"stream_options": {"include_usage": true}`. Without
/// it the charge stands as it was estimated.
///
/// # Cancel safety
/// Dropping the stream ends the call. What it has cost until then is unknown unless the usage of the whole answer was there,
/// so the charge stands.
#[derive(Debug)]
pub struct ChatStream {
    target: Target,
    dropped: Vec<String>,
    tap: Tap,
    /// What came and was not asked for yet.
    events: VecDeque<Result<BytesMut, ClientError>>,
    done: bool,
}

impl ChatStream {
    pub(crate) fn new(response: reqwest::Response, permit: Permit, mut facts: Facts) -> Self {
        let (target, dropped) = (permit.target(), facts.dropped());
        // Whatever it calls itself: events were asked for.
        let tap = Tap { events: Some(Events::default()), ..Tap::new(response, permit, facts) };
        Self { target, dropped, tap, events: VecDeque::new(), done: false }
    }

    /// The next chunk as JSON; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks, the stream ends in the middle of a chunk, the provider reports an error inside of it, or
    /// a chunk is not JSON or longer than 16 MiB. The stream is over then; a stream that has begun is never repeated.
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

    /// What the call is known to have used so far.
    pub fn usage(&self) -> Option<Usage> {
        self.tap.books.usage
    }
}

impl Stream for ChatStream {
    type Item = Result<Value, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { tap, events, done, .. } = &mut *self;
        loop {
            let chunk = match events.pop_front() {
                Some(Ok(data)) if is_done(&data) => continue,
                Some(Ok(data)) => serde_json::from_slice(&data).map_err(ClientError::Json),
                Some(Err(error)) => Err(error),
                None if *done => return Poll::Ready(None),
                None => match std::task::ready!(tap.poll_body(context, |event| events.push_back(event))) {
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => Err(ClientError::Transport(error.without_url())),
                    None => {
                        *done = true;
                        continue;
                    }
                },
            };
            if chunk.is_err() {
                *done = true;
                events.clear();
                tap.books.leave();
            }
            return Poll::Ready(Some(chunk));
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
        let books = Books { permit: Some(permit), usage: facts.usage, whole: facts.usage.is_some() };
        let events = inspect::is_events(&response).then(Events::default);
        Self { body: Box::pin(response.bytes_stream()), events, books }
    }

    /// The next bytes. `each` gets every event in them, after the books have seen it.
    fn poll_body(
        &mut self,
        context: &mut Context<'_>,
        mut each: impl FnMut(Result<BytesMut, ClientError>),
    ) -> Poll<Option<Result<Bytes, reqwest::Error>>> {
        let chunk = std::task::ready!(self.body.as_mut().poll_next(context));
        let Self { events, books, .. } = self;
        match (&chunk, events) {
            (Some(Ok(bytes)), Some(events)) => {
                events.push(bytes);
                while let Some(event) = events.next() {
                    each(books.see(event));
                }
            }
            (Some(Ok(_)), None) => {}
            (Some(Err(error)), _) => books.broke(inspect::what_broke(error)),
            (None, events) => {
                if let Some(event) = events.as_mut().and_then(Events::end) {
                    each(books.see(event));
                }
                books.close();
            }
        }
        Poll::Ready(chunk)
    }
}

impl Stream for Tap {
    type Item = Result<Bytes, reqwest::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // What the books cannot read, whoever reads the bytes may.
        self.poll_body(context, drop)
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
    /// What was told of it last.
    usage: Option<Usage>,
    /// That is the usage of the whole answer.
    whole: bool,
}

impl Books {
    /// What the event is to the caller.
    fn see(&mut self, event: Result<BytesMut, Broken>) -> Result<BytesMut, ClientError> {
        let data = match event {
            Ok(data) => data,
            Err(Broken::TooLong) => return Err(ClientError::EventTooLong),
            Err(Broken::Cut) => {
                self.broke("the stream ended in the middle of an event");
                return Err(ClientError::StreamCut);
            }
        };
        // Most events have neither; looking is cheaper than parsing.
        if (mentions(&data, "\"usage\"") || mentions(&data, "\"usageMetadata\""))
            && let Some((usage, whole)) = providers::usage_in_event(&data)
        {
            self.usage = Some(self.usage.map_or(usage, |before| before.updated_by(&usage)));
            self.whole |= whole;
        }
        // Some send the usage with an empty piece after the one that ends the answer.
        self.whole |= self.usage.is_some() && is_done(&data);
        if mentions(&data, "\"error\"")
            && let Some(permit) = &self.permit
            && let Ok(event) = serde_json::from_slice::<Value>(&data)
            && let Some(failure) = failure_in(permit.attempt().target(), &event)
        {
            if let Some(permit) = self.permit.take() {
                permit.failed_for_good(&failure, &Observation::default());
            }
            return Err(ClientError::Status(Box::new(failure)));
        }
        Ok(data)
    }

    /// The answer ended before its end, which tells of the provider, unless all that counts was there already.
    fn broke(&mut self, how: &str) {
        if self.whole {
            self.close();
        } else if let Some(permit) = self.permit.take() {
            let failure = Failure::unanswered(how.to_owned());
            permit.failed_for_good(&failure, &Observation::default());
        }
    }

    fn close(&mut self) {
        if let Some(permit) = self.permit.take() {
            permit.answered(self.usage.filter(|_| self.whole), &Observation::default());
        }
    }

    /// Nobody reads on.
    fn leave(&mut self) {
        if self.whole {
            self.close();
        }
        // Otherwise the permit's own drop lets the charge stand.
        self.permit = None;
    }
}

fn failure_in(target: &Target, event: &Value) -> Option<Failure> {
    providers::classify_sent_stream_error(target.provider(), target.key(), event)
}

impl Drop for Books {
    fn drop(&mut self) {
        self.leave();
    }
}
