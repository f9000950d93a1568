//! The many shapes of an error body, read into one.

use std::time::Duration;

use serde_json::Value;

use super::LimitHit;
use crate::cost::{DAY, Dimension, MINUTE};
use crate::providers::duration::parse_duration;
use crate::providers::headers::number;

/// What an error body tells.
#[derive(Debug, Default)]
pub(super) struct ErrorBody {
    /// The provider's words, as they came.
    pub(super) message: String,
    /// `code`: a string, or a number as text (Azure and Gemini put the status there).
    pub(super) code: Option<String>,
    /// The more exact code of some: Anthropic's `details.error_code`, Azure's `innererror.code`, Gemini's `reason`.
    pub(super) reason: Option<String>,
    /// Gemini's `status`, e.g. `RESOURCE_EXHAUSTED`.
    pub(super) status: Option<String>,
    /// `type`.
    pub(super) kind: Option<String>,
    /// Gemini: the limit that was hit; of several, the one with the longest window.
    pub(super) violation: Option<LimitHit>,
    /// Gemini: `RetryInfo.retryDelay`.
    pub(super) retry_delay: Option<Duration>,
    pub(super) request_id: Option<String>,
}

impl ErrorBody {
    /// Reads the body of a response. What is not JSON (a gateway's HTML page, say) is the message itself.
    pub(super) fn from_bytes(body: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(json @ (Value::Object(_) | Value::Array(_))) => Self::from_json(&json),
            Ok(Value::String(message)) => Self { message, ..Self::default() },
            _ => Self { message: String::from_utf8_lossy(body).into_owned(), ..Self::default() },
        }
    }

    /// Reads, in this order of nesting:
    ///
    /// * `[{"error": …}]`: Gemini's OpenAI-compatible address
    /// * `{"type": "response.failed", "response": {"error": …}}`: OpenAI's Responses stream
    /// * `{"error": {"message", "type", "code", "status", "details"}}`: most; `{"error": "words"}`: some servers
    /// * `{"message", "type", "code"}` or `{"detail": …}`: Mistral, and servers built with FastAPI
    pub(super) fn from_json(json: &Value) -> Self {
        let root = json.get(0).unwrap_or(json);
        let root = root.get("response").filter(|response| response.get("error").is_some()).unwrap_or(root);
        let error = root.get("error").filter(|error| error.is_object()).unwrap_or(root);
        let details = error.get("details").or_else(|| root.get("details"));
        let details_list = details.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let reason = details.and_then(|details| word(details, "error_code"));
        let reason = reason.or_else(|| word(error.get("innererror")?, "code"));
        Self {
            message: message(root, error),
            code: word(error, "code"),
            reason: reason.or_else(|| details_list.iter().find_map(|detail| word(detail, "reason"))),
            status: word(error, "status"),
            // "error" tells nothing: it is the name of the stream event.
            kind: word(error, "type").filter(|kind| kind != "error"),
            violation: violation(details_list),
            retry_delay: details_list.iter().find_map(|detail| parse_duration(detail.get("retryDelay")?.as_str()?)),
            request_id: word(root, "request_id"),
        }
    }

    /// Whether any of the body's codes is one of `codes`.
    pub(super) fn is(&self, codes: &[&str]) -> bool {
        self.codes().any(|code| codes.contains(&code))
    }

    /// The codes, the most telling first.
    pub(super) fn codes(&self) -> impl Iterator<Item = &str> {
        [&self.code, &self.reason, &self.status, &self.kind].into_iter().flatten().map(String::as_str)
    }

    /// Whether the message says `words`, in any case; `words` must be in lower case.
    pub(super) fn says(&self, words: &str) -> bool {
        self.message.to_ascii_lowercase().contains(words)
    }
}

fn word(object: &Value, key: &str) -> Option<String> {
    match object.get(key)? {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn message(root: &Value, error: &Value) -> String {
    let candidates = [error.get("message"), root.get("error"), root.get("message"), root.get("detail")];
    for candidate in candidates.into_iter().flatten() {
        // {"detail": [{"msg": "field required", …}]}, also inside of "message"
        let detail = candidate.get("detail").unwrap_or(candidate);
        let text = detail.as_str().or_else(|| detail.get(0)?.get("msg")?.as_str());
        if let Some(text) = text {
            return text.to_owned();
        }
    }
    String::new()
}

fn violation(details: &[Value]) -> Option<LimitHit> {
    let violations = details.iter().filter_map(|detail| detail.get("violations")?.as_array()).flatten();
    violations.filter_map(limit_hit).max_by_key(|hit| hit.window)
}

/// A violation, by its id, e.g. `GenerateRequestsPerDayPerProjectPerModel-FreeTier`.
fn limit_hit(violation: &Value) -> Option<LimitHit> {
    let id = violation.get("quotaId")?.as_str()?;
    let dimension = match id {
        _ if id.contains("InputTokens") => Dimension::InputTokens,
        _ if id.contains("OutputTokens") => Dimension::OutputTokens,
        _ if id.contains("Tokens") => Dimension::Tokens,
        _ => Dimension::Requests,
    };
    let window = match id {
        _ if id.contains("PerDay") => Some(DAY),
        _ if id.contains("PerMinute") => Some(MINUTE),
        _ => None,
    };
    let limit = word(violation, "quotaValue").and_then(|value| number(&value));
    Some(LimitHit { dimension, window, limit, used: None, requested: None })
}
