//! Answers that say no, in OpenAI's words. The other providers' are made from these in [`words`](super::words).

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::headers::{go_duration, stamp_retry, whole_ms};
use super::shown::Refusal;

/// An error answer: status, the fields of the body, and when to come back.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    pub(crate) kind: &'static str,
    pub(crate) param: Option<&'static str>,
    pub(crate) code: Option<&'static str>,
    pub(crate) retry: Option<Duration>,
    pub(crate) what: What,
}

/// A limit's refusal, and of what.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) refusal: Refusal,
    pub(crate) model: String,
}

/// What an error is about, whatever the words.
#[derive(Debug)]
pub(crate) enum What {
    /// A limit has no room.
    Limit(Box<Refused>),
    /// A refusal that no limit explains.
    Spurious,
    Overloaded,
    /// The server's own failure.
    Failed,
    Key,
    /// The request is wrong.
    Request,
}

impl Problem {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), kind, param: None, code, retry: None, what: What::Request }
    }

    pub(crate) fn body(&self) -> Bytes {
        let Self { status: _, message, kind, param, code, retry: _, what: _ } = self;
        let error = serde_json::json!({ "message": message, "type": kind, "param": param, "code": code });
        serde_json::json!({ "error": error }).to_string().into()
    }

    pub(crate) fn stamp(&self, headers: &mut HeaderMap) {
        if let Some(wait) = self.retry {
            stamp_retry(headers, wait);
        }
    }
}

const INVALID: &str = "invalid_request_error";

pub(crate) fn no_key() -> Problem {
    let message = "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer \
                   auth (i.e. Authorization: Bearer YOUR_KEY). You can obtain an API key from \
                   https://platform.openai.com/account/api-keys.";
    Problem { what: What::Key, ..Problem::new(StatusCode::UNAUTHORIZED, INVALID, Some("invalid_api_key"), message) }
}

pub(crate) fn wrong_key(key: &str) -> Problem {
    let message = format!(
        "Incorrect API key provided: {}. You can find your API key at https://platform.openai.com/account/api-keys.",
        masked(key)
    );
    Problem { what: What::Key, ..Problem::new(StatusCode::UNAUTHORIZED, INVALID, Some("invalid_api_key"), message) }
}

/// A few letters of a key, to recognise it by; nothing of a short one. Logs may keep what we answer.
fn masked(key: &str) -> String {
    let (head, tail) = (key.get(..3), key.len().checked_sub(4).and_then(|at| key.get(at..)));
    match (head, tail) {
        (Some(head), Some(tail)) if key.len() >= 20 => format!("{head}*****{tail}"),
        _ => "*****".into(),
    }
}

pub(crate) fn unknown_url(method: &Method, path: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, INVALID, None, format!("Invalid URL ({method} {path})"))
}

pub(crate) fn wrong_method(method: &Method, path: &str) -> Problem {
    let message = format!(
        "Not allowed to {method} on {path}. (HINT: Perhaps you meant to make your request using a different HTTP method?)"
    );
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, Some("method_not_supported"), message)
}

pub(crate) fn not_json() -> Problem {
    let message = "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP \
                   library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON. If you \
                   have trouble figuring out how to fix this, please contact us through our help center at \
                   help.openai.com.)";
    Problem::new(StatusCode::BAD_REQUEST, INVALID, None, message)
}

pub(crate) fn wrong_type(what: &serde_json::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, INVALID, Some("invalid_type"), format!("Invalid type in the body: {what}."))
}

pub(crate) fn missing(param: &'static str) -> Problem {
    let message = format!("Missing required parameter: '{param}'.");
    let code = Some("missing_required_parameter");
    Problem { param: Some(param), ..Problem::new(StatusCode::BAD_REQUEST, INVALID, code, message) }
}

pub(crate) fn out_of_range(param: &'static str, expected: &str) -> Problem {
    let message = format!("Invalid value for '{param}': expected {expected}.");
    Problem { param: Some(param), ..Problem::new(StatusCode::BAD_REQUEST, INVALID, Some("invalid_value"), message) }
}

pub(crate) fn body_too_long() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, None, "Maximum content size limit exceeded.")
}

impl Refusal {
    /// The 429 that tells a request for `model` of it, wait hints included: headers and body.
    pub fn answer(&self, model: &str) -> (HeaderMap, Bytes) {
        let problem = self.problem(model);
        let mut headers = HeaderMap::new();
        problem.stamp(&mut headers);
        (headers, problem.body())
    }

    pub(crate) fn problem(&self, model: &str) -> Problem {
        let Refusal { which, limit, used, requested, wait } = self;
        let place = format!(
            "for {model} in organization org-mock on {} per {} ({}): Limit {limit}",
            which.kind(),
            which.period(),
            which.name()
        );
        let retry = wait.map(whole_ms);
        let message = match retry {
            Some(wait) => format!(
                "Rate limit reached {place}, Used {used}, Requested {requested}. Please try again in {}. \
                 Visit https://platform.openai.com/account/rate-limits to learn more.",
                go_duration(wait)
            ),
            None => format!(
                "Request too large {place}, Requested {requested}. The input or output tokens must be reduced in order to run \
                 successfully. Visit https://platform.openai.com/account/rate-limits to learn more."
            ),
        };
        let code = Some("rate_limit_exceeded");
        let what = What::Limit(Box::new(Refused { refusal: self.clone(), model: model.to_owned() }));
        Problem { retry, what, ..Problem::new(StatusCode::TOO_MANY_REQUESTS, which.kind(), code, message) }
    }
}

/// A 429 that no limit explains. It names no figures: invented ones would be believed.
pub(crate) fn spurious() -> Problem {
    let code = Some("rate_limit_exceeded");
    let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "requests", code, "Rate limit reached for requests");
    Problem { retry: Some(Duration::from_secs(1)), what: What::Spurious, ..problem }
}

pub(crate) fn overloaded() -> Problem {
    let (kind, code) = ("service_unavailable_error", Some("server_is_overloaded"));
    let message = "The server is currently overloaded with other requests. Please try again later.";
    Problem {
        retry: Some(Duration::from_secs(1)),
        what: What::Overloaded,
        ..Problem::new(StatusCode::SERVICE_UNAVAILABLE, kind, code, message)
    }
}

pub(crate) fn server_error() -> Problem {
    let message = "The server had an error while processing your request. Sorry about that!";
    Problem { what: What::Failed, ..Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", None, message) }
}

#[cfg(test)]
mod tests {
    use super::super::which::Which;
    use super::*;

    #[test]
    fn refusals_read_as_openais_do() {
        let wait = Some(Duration::from_millis(3_720));
        let refusal = Refusal { which: Which::Tpm, limit: 30_000, used: 24_102, requested: 7_758, wait };
        let problem = refusal.problem("gpt-4o");
        assert_eq!(
            problem.message,
            "Rate limit reached for gpt-4o in organization org-mock on tokens per min (TPM): Limit 30000, Used 24102, \
             Requested 7758. Please try again in 3.72s. Visit https://platform.openai.com/account/rate-limits to learn more."
        );
        assert_eq!((problem.kind, problem.code, problem.retry), ("tokens", Some("rate_limit_exceeded"), wait));

        let wait = Some(Duration::from_nanos(431_999_999_001));
        let problem = Refusal { which: Which::Rpd, limit: 200, used: 200, requested: 1, wait }.problem("gpt-4o");
        assert!(problem.message.contains("on requests per day (RPD): Limit 200, Used 200, Requested 1. "));
        assert!(problem.message.contains("try again in 7m12s."), "a wait is rounded up: {}", problem.message);
        assert_eq!(problem.kind, "requests");

        let refusal = Refusal { which: Which::Tpm, limit: 30_000, used: 5, requested: 40_000, wait: None };
        let problem = refusal.problem("gpt-4o");
        assert!(problem.message.starts_with(
            "Request too large for gpt-4o in organization org-mock on tokens per min (TPM): Limit 30000, Requested 40000. \
             The input or output tokens must be reduced in order to run successfully."
        ));
        assert_eq!(problem.retry, None);
    }

    #[test]
    fn no_message_holds_a_whole_key_or_most_of_one() {
        assert_eq!(masked("sk-proj-0123456789abcdefWXYZ"), "sk-*****WXYZ");
        for short in ["", "k", "sk-secret", "ключ-ключ", "0123456789012345678"] {
            assert_eq!(masked(short), "*****");
        }
    }
}
