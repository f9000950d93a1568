//! Reads what a call returned when that is a `reqwest::Response` or a `reqwest::Error`, and leaves every other type alone.
//!
//! Rust cannot overload `submit` for one concrete type among all others, so the type is asked for at run time; for other
//! types the question is answered by the compiler and costs nothing.

use std::any::Any;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use http::header::CONTENT_TYPE;
use reqwest::{Body, Response, ResponseBuilderExt};

use crate::attempt::{Attempt, Transport};
use crate::providers;
use crate::scheduler::Answered;
use crate::stream::Tap;
use crate::trace;

/// An answer that is longer passes through with its end unread. A thousand embeddings of 3,072 numbers have some 40 MB.
const LONGEST_BODY: usize = 64 << 20;

/// Takes status, headers, usage and error body from the result. Errors and JSON are read whole, so that half a body is a
/// failure that can be mended; the response comes back with the same content. What else is answered may be a stream, and
/// passes through.
pub(crate) async fn read<T: 'static, E: 'static>(
    result: Result<T, E>,
    attempt: &Attempt,
) -> (Result<T, E>, Option<Transport>) {
    match result {
        Ok(value) => match cast::<T, Response>(value) {
            Ok(response) => {
                let (response, transport) = read_response(response, attempt).await;
                (cast::<Response, T>(response).map_err(|_| unreachable!("the type was just asked for")), transport)
            }
            Err(value) => {
                if std::any::type_name::<T>().starts_with("reqwest::") {
                    trace::unread::<T>();
                }
                (Ok(value), None)
            }
        },
        Err(error) => {
            let transport = reqwest_error(&error).and_then(|error| {
                if let Some(status) = error.status() {
                    attempt.status(status.as_u16());
                } else if error.is_builder() {
                    attempt.unsent();
                }
                transport(error)
            });
            (Err(error), transport)
        }
    }
}

/// The client's error, also where `?` put it into a box.
fn reqwest_error(error: &dyn Any) -> Option<&reqwest::Error> {
    type Boxed = Box<dyn std::error::Error + Send + Sync>;
    let boxed = error.downcast_ref::<Boxed>().map(|error| &**error as &(dyn std::error::Error + 'static));
    let boxed = boxed.or_else(|| Some(&**error.downcast_ref::<Box<dyn std::error::Error>>()?));
    let in_box = || std::iter::successors(boxed, |error| error.source()).find_map(|error| error.downcast_ref());
    error.downcast_ref().or_else(in_box)
}

/// Closes the books of an answer. One that passes through keeps its permit, and closes them at its own end.
pub(crate) fn settle<T: 'static>(answered: Answered<T>) -> T {
    let Answered { value, permit, facts, .. } = answered;
    match cast::<T, Response>(value) {
        Ok(response) if passes(&response) => {
            let response = with_body(response, |response| Body::wrap_stream(Tap::new(response, permit, facts)));
            cast::<Response, T>(response).unwrap_or_else(|_| unreachable!("the type was just asked for"))
        }
        Ok(response) => {
            permit.answered(facts.usage, &facts.answer);
            cast::<Response, T>(response).unwrap_or_else(|_| unreachable!("the type was just asked for"))
        }
        Err(value) => {
            permit.answered(facts.usage, &facts.answer);
            value
        }
    }
}

/// What a client error means for the books; `None` when the request could not even be built.
pub(crate) fn transport(error: &reqwest::Error) -> Option<Transport> {
    let message = chain(error);
    if error.is_connect() {
        Some(Transport::Unsent(message))
    } else if error.is_builder() || error.is_status() {
        None
    } else {
        Some(Transport::Lost(message))
    }
}

/// What went wrong, for somebody who is to find out why.
pub(crate) fn what_broke(error: &reqwest::Error) -> &'static str {
    let is = |kind: ErrorKind| causes(error).any(|cause| is_io(cause, kind));
    match error {
        _ if error.is_timeout() && error.is_connect() => "connecting took too long",
        _ if error.is_timeout() => "the provider took too long",
        // What rustls says reaches us as invalid data.
        _ if error.is_connect() && (is(ErrorKind::InvalidData) || is(ErrorKind::UnexpectedEof)) => {
            "the TLS handshake failed"
        }
        _ if error.is_connect() => "no connection",
        _ if error.is_redirect() => "the server redirects without an end",
        _ if is(ErrorKind::InvalidInput) || is(ErrorKind::InvalidData) => "the answer is cut into invalid chunks",
        _ if error.is_body() || error.is_decode() => "the connection was cut in the middle of the answer",
        // hyper's kinds are not told otherwise.
        _ if causes(error).any(|cause| cause.to_string().starts_with("invalid HTTP")) => "the answer is no HTTP",
        _ => "the connection was closed before an answer came",
    }
}

/// Also when it is wrapped in another one, which `source` passes over.
fn is_io(cause: &(dyn std::error::Error + 'static), kind: ErrorKind) -> bool {
    let Some(error) = cause.downcast_ref::<std::io::Error>() else { return false };
    error.kind() == kind || error.get_ref().is_some_and(|inner| is_io(inner, kind))
}

fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(error), |error| error.source())
}

/// Whether the response is a stream of server-sent events.
pub(crate) fn is_events(response: &Response) -> bool {
    is(kind_of(response), "text/event-stream")
}

/// Whether the response says that it is JSON.
pub(crate) fn is_json(response: &Response) -> bool {
    is(kind_of(response), JSON)
}

/// Whether the response is good and left to its caller to read: a stream of events, lines or sound, a file. What does not
/// say what it is is taken for JSON, and so is text whose length is known, which is no stream.
fn passes(response: &Response) -> bool {
    let kind = kind_of(response);
    let may_be_json =
        kind.is_empty() || is(kind, JSON) || is(kind, HTML) || is(kind, TEXT) && response.content_length().is_some();
    response.status().is_success() && !may_be_json
}

const TEXT: &str = "text/plain";
const JSON: &str = "application/json";
const HTML: &str = "text/html";

fn is(kind: &str, other: &str) -> bool {
    kind.eq_ignore_ascii_case(other)
}

/// The media type, without its parameters.
fn kind_of(response: &Response) -> &str {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim()
}

/// Whether a whole body is what it says to be. An empty one says nothing wrong; and no API answers in HTML: that is a page of
/// something in between.
fn is_usable(response: &Response, body: &[u8]) -> bool {
    let kind = kind_of(response);
    let is_json = || body.is_empty() || serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    if is(kind, JSON) { is_json() } else { !is(kind, HTML) }
}

async fn read_response(mut response: Response, attempt: &Attempt) -> (Response, Option<Transport>) {
    attempt.answer(response.status().as_u16(), response.headers());
    if passes(&response) && !attempt.is_read_whole() {
        return (response, None);
    }
    let (mut body, mut whole) = (Vec::new(), false);
    let broken = loop {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => {
                whole = true;
                break None;
            }
            Err(error) => break Some(error),
        }
        if body.len() > LONGEST_BODY {
            break None;
        }
    };
    if !response.status().is_success() || providers::is_error_body(&body) {
        attempt.error_body(&body);
    } else if let Some(usage) = providers::usage_in_bytes(&body) {
        attempt.usage(usage);
    }
    if whole && response.status().is_success() && !is_usable(&response, &body) {
        attempt.unusable("the answer is not the JSON that it should be");
    }
    let transport = broken.as_ref().and_then(transport);
    let body = Bytes::from(body);
    let body = |response: Response| match broken {
        None if whole => Body::from(body),
        None => Body::wrap_stream(Pieces { read: vec![Ok(body)], rest: Some(Box::pin(response.bytes_stream())) }),
        Some(error) => Body::wrap_stream(Pieces { read: vec![Err(error), Ok(body)], rest: None }),
    };
    (with_body(response, body), transport)
}

type Piece = Result<Bytes, reqwest::Error>;

/// A body of which some is already here.
struct Pieces {
    /// Last piece first.
    read: Vec<Piece>,
    rest: Option<Pin<Box<dyn Stream<Item = Piece> + Send>>>,
}

impl Stream for Pieces {
    type Item = Piece;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        match (self.read.pop(), &mut self.rest) {
            (None, Some(rest)) => rest.as_mut().poll_next(context),
            (piece, _) => Poll::Ready(piece),
        }
    }
}

/// `response` with the body that `body` makes of it.
fn with_body(response: Response, body: impl FnOnce(Response) -> Body) -> Response {
    let (status, version, url) = (response.status(), response.version(), response.url().clone());
    let headers = response.headers().clone();
    let mut new = http::Response::new(body(response));
    (*new.status_mut(), *new.version_mut(), *new.headers_mut()) = (status, version, headers);
    // The builder is the only way to hand the URL on, as an extension.
    if let Ok(carrier) = http::Response::builder().url(url).body(()) {
        *new.extensions_mut() = carrier.into_parts().0.extensions;
    }
    new.into()
}

/// `value` as a `B`, if `A` is `B`.
fn cast<A: 'static, B: 'static>(value: A) -> Result<B, A> {
    let mut slot = Some(value);
    let same = (&mut slot as &mut dyn Any).downcast_mut::<Option<B>>().and_then(Option::take);
    match (same, slot) {
        (Some(value), _) => Ok(value),
        (None, Some(value)) => Err(value),
        (None, None) => unreachable!("the value is in one of the two"),
    }
}

/// What broke with its causes. The client's own words for it are left out, and with them the URL, whose query may hold a
/// key.
fn chain(error: &reqwest::Error) -> String {
    let mut told = vec![what_broke(error).to_owned()];
    told.extend(causes(error).map(ToString::to_string));
    // Some say the same in turn.
    told.dedup();
    told.join(": ")
}
