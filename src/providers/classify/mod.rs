//! From a failed response to its class: what happened, how long to wait, what to do next.

mod advice;
mod body;
mod class;
pub(crate) mod mask;
mod rules;
mod text;

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use self::body::ErrorBody;
use super::{Observation, Provider};
use crate::cost::{DAY, Dimension, Limit, MINUTE};
use crate::secret::Secret;

pub use self::class::{Class, Retry};
pub(crate) use self::mask::clean;

/// A failed request, as its response tells it. `Display` is one line with the advice; it never shows a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Failure {
    /// What kind of failure it is.
    pub class: Class,
    /// The longest wait that headers and words ask for; `None` where waiting does not help or the hint is known to be
    /// wrong (Gemini's for a day limit, see [`until_pacific_midnight`](super::until_pacific_midnight)).
    pub wait: Option<Duration>,
    /// The limit that was hit, where it is told.
    pub limit: Option<LimitHit>,
    /// The provider's code, e.g. `insufficient_quota`.
    pub code: Option<String>,
    /// The provider's message, on one line, cut to 500 characters, with anything that looks like a key masked.
    pub message: String,
    /// The provider's name for the request.
    pub request_id: Option<String>,
    /// The HTTP status; 200 for an error inside of an answer, 0 where no answer came.
    pub status: u16,
    /// The provider's own word on whether a retry can help (`x-should-retry`).
    pub should_retry: Option<bool>,
}

/// The limit that a refused request ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LimitHit {
    /// What is counted.
    pub dimension: Dimension,
    /// The limit's window.
    pub window: Option<Duration>,
    /// The amount per window.
    pub limit: Option<u64>,
    /// How much of it was in use.
    pub used: Option<u64>,
    /// What the request asked for.
    pub requested: Option<u64>,
}

impl From<Limit> for LimitHit {
    /// All of it is said to be used up by somebody.
    fn from(limit: Limit) -> Self {
        let Limit { dimension, amount, window, shape: _ } = limit;
        Self { dimension, window: Some(window), limit: Some(amount), used: None, requested: None }
    }
}

impl LimitHit {
    /// The limit itself, where window and amount are told.
    pub fn as_limit(&self) -> Option<Limit> {
        Some(Limit::new(self.dimension, self.limit?, self.window?))
    }
}

impl Failure {
    /// A call that brought no answer: connection refused, reset, broken or timed out.
    pub fn unanswered(message: String) -> Self {
        Self {
            class: Class::Timeout,
            wait: None,
            limit: None,
            code: None,
            message,
            request_id: None,
            status: 0,
            should_retry: None,
        }
    }

    /// An answer that came whole and cannot be used: no JSON where there has to be.
    pub(crate) fn unusable(message: &str) -> Self {
        Self { class: Class::ServerError, ..Self::unanswered(mask::clean(message)) }
    }

    /// Whether to send the request again: the class's answer, unless the provider objects by `x-should-retry`.
    ///
    /// `false` always holds. `true` is only believed where the class is a guess from the status: some send it along
    /// with every 429, an exhausted quota included.
    pub fn retry(&self) -> Retry {
        match (self.should_retry, self.class) {
            (Some(false), _) => Retry::Never,
            (Some(true), Class::Invalid | Class::Forbidden | Class::NotFound) => Retry::Backoff,
            (_, class) => class.retry(),
        }
    }

    /// How long it takes at most until there is room again, where it tells no more of the limit than that it was met.
    pub(crate) fn window(&self) -> Duration {
        self.limit.and_then(|hit| hit.window).unwrap_or(MINUTE).min(MINUTE)
    }

    /// What it says to everybody who waits where it was met. `x-should-retry: false` speaks to the one request that heard it:
    /// the others still wait for the limit that it met.
    pub(crate) fn retry_of_others(&self) -> Retry {
        match self.class.retry() {
            Retry::Never => self.retry(),
            retry => retry,
        }
    }

    /// Whether it tells that the provider is failing rather than refusing: 5xx, no answer, an unusable one, or such an error
    /// inside of a stream. A 4xx is an answer, whatever it says.
    pub fn is_outage(&self) -> bool {
        self.class.is_provider_trouble() && !(400..500).contains(&self.status)
    }

    /// How long to send no faster than what last went well, where the rate of sending led to this failure.
    ///
    /// OpenAI asks for 15 minutes after `slow_down`; others name no time.
    pub fn slow_down(&self) -> Option<Duration> {
        let code = |name: &str| self.code.as_deref() == Some(name);
        let hold = match self.class {
            Class::SlowDown if code("slow_down") => 15 * MINUTE,
            Class::SlowDown | Class::CapacityUnavailable => MINUTE,
            // Anthropic's overload; that of others is answered by 503, as an outage is.
            Class::Overloaded if self.status == 529 || code("overloaded_error") => MINUTE,
            _ => return None,
        };
        Some(self.wait.map_or(hold, |wait| wait.max(hold)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            0 if self.class == Class::ServerError => f.write_str("unusable answer")?,
            0 => f.write_str("no answer")?,
            1..300 => f.write_str("error in the answer")?,
            status => write!(f, "{status}")?,
        }
        if let Some(code) = &self.code {
            write!(f, " {code}")?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        write!(f, " ({}", self.advice())?;
        if let Some(id) = &self.request_id {
            write!(f, "; request id {id}")?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for Failure {}

/// Classifies a failed response of `provider`. Bodies that are not the provider's (compatible servers, gateways) are
/// classified by their status: 429, 408, 409 and 5xx may be retried, other 4xx and redirects not.
///
/// ```
/// use tollgate::providers::{Class, Observation, Provider, Retry, classify};
///
/// let body = br#"{"error": {"message": "You exceeded your current quota, please check your plan and billing details.",
///     "type": "insufficient_quota", "param": null, "code": "insufficient_quota"}}"#;
/// let failure = classify(Provider::Openai, 429, &Observation::default(), body);
/// assert_eq!(failure.class, Class::QuotaExhausted);
/// assert_eq!(failure.retry(), Retry::Never);
/// ```
pub fn classify(provider: Provider, status: u16, headers: &Observation, body: &[u8]) -> Failure {
    classify_sent(provider, None, status, headers, body)
}

/// As [`classify`], where the key that was sent is known, and shows nowhere.
pub(crate) fn classify_sent(
    provider: Provider,
    key: Option<&Secret>,
    status: u16,
    headers: &Observation,
    body: &[u8],
) -> Failure {
    failure(provider, key, status, headers, &ErrorBody::from_bytes(body))
}

/// Whether the body of an answer whose status was a success is an error all the same: it says so, as
/// [`classify_stream_error`] understands it, and holds no result.
///
/// ```
/// use tollgate::providers::is_error_body;
///
/// assert!(is_error_body(br#"{"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}"#));
/// assert!(is_error_body(br#"{"object": "error", "message": "Rate limit exceeded", "code": "1300"}"#));
/// assert!(!is_error_body(br#"{"object": "response", "error": null, "output": [{"type": "message"}]}"#));
/// ```
pub fn is_error_body(body: &[u8]) -> bool {
    // Looking is cheaper than parsing, and nearly no answer says it.
    let says = ["\"error\"", "\"response.failed\"", "\"detail\""];
    if !says.iter().any(|word| mentions(body, word)) {
        return false;
    }
    serde_json::from_slice(body).is_ok_and(|reply| is_error_reply(&reply))
}

pub(crate) fn mentions(body: &[u8], word: &str) -> bool {
    memchr::memmem::find(body, word.as_bytes()).is_some()
}

pub(crate) fn is_error_reply(reply: &Value) -> bool {
    let empty = |value: &Value| match value {
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::String(text) => text.is_empty(),
        value => value.is_null(),
    };
    let has_result = RESULTS.iter().any(|field| reply.get(field).is_some_and(|value| !empty(value)));
    let says_none = reply.get("error").is_some_and(empty);
    // Servers that are made with FastAPI tell errors as `detail`.
    !has_result && !says_none && (is_error(reply) || reply.get("detail").is_some())
}

/// Where the providers put what was asked for.
const RESULTS: &[&str] = &["choices", "content", "output", "data", "candidates", "results"];

fn is_error(answer: &Value) -> bool {
    let has_error = |value: &Value| value.get("error").is_some_and(|error| error.is_object() || error.is_string());
    let named = answer.get("type").is_some_and(|kind| kind == "error" || kind == "response.failed");
    // Mistral's.
    let named = named || answer.get("object").is_some_and(|kind| kind == "error");
    named || has_error(answer) || answer.get(0).is_some_and(has_error)
}

/// Classifies an error inside of a stream whose HTTP status was 200; `None` if `event` is no error.
///
/// Recognised are `{"error": {…}}` (chat), `response.failed` and `error` events (Responses), and Anthropic's
/// `{"type": "error", …}`.
pub fn classify_stream_error(provider: Provider, event: &Value) -> Option<Failure> {
    classify_sent_stream_error(provider, None, event)
}

/// As [`classify_stream_error`], where the key that was sent is known, and shows nowhere.
pub(crate) fn classify_sent_stream_error(provider: Provider, key: Option<&Secret>, event: &Value) -> Option<Failure> {
    is_error(event).then(|| failure(provider, key, 200, &Observation::default(), &ErrorBody::from_json(event)))
}

fn failure(provider: Provider, key: Option<&Secret>, status: u16, headers: &Observation, body: &ErrorBody) -> Failure {
    let shown = |text: &str| mask::clean(&mask::hide(text, key));
    // What a redirect says is a page for browsers.
    let redirect = rules::is_redirect(status).then(|| match &headers.location {
        Some(location) => format!("the server redirects to {location}"),
        None => "the server redirects".to_owned(),
    });
    let limit = body.violation.or_else(|| text::limit(&body.message));
    // Gemini's delay for a day limit is that of the minute limit.
    let misleading = body.violation.is_some_and(|hit| hit.window == Some(DAY));
    let told = headers.retry_after.max(text::wait(&body.message)).max(body.retry_delay);
    let wait = told.filter(|wait| !misleading && !wait.is_zero());
    let class = rules::class(&rules::Facts { provider, status, body, headers, hit: limit, wait });
    // Azure's free trial is the one allowance of which the answer says when there is more.
    let back_in_a_day = class == Class::QuotaExhausted && provider == Provider::Azure;
    let number = status.to_string();
    Failure {
        class,
        wait: wait.filter(|_| class.retry() != Retry::Never || back_in_a_day),
        limit,
        // Azure and Gemini repeat the status as the code.
        code: body.codes().find(|code| *code != number).map(shown),
        message: shown(&redirect.unwrap_or_else(|| body.message.clone())),
        request_id: headers.request_id.as_ref().or(body.request_id.as_ref()).map(|id| mask::id(&mask::hide(id, key))),
        status,
        should_retry: headers.should_retry,
    }
}
