//! The line of a result, in the shape of OpenAI's Batch API.

use std::io::Write;

use bytes::Bytes;
use serde_json::value::RawValue;
use tollgate::providers::{self, Observation};
use tollgate::{AcquireError, Error, Failure, Provider, Refusal, Secret};

use super::failures::no_answer;
use super::row::Row;

/// What a provider answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Whose answer it is.
    pub(crate) provider: Provider,
    pub(crate) status: u16,
    pub(crate) request_id: Option<String>,
    pub(crate) body: Bytes,
}

impl Answer {
    /// What it says went wrong. A gateway may answer 200 to everything.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let failed = !(200..300).contains(&self.status) || providers::is_error_body(&self.body);
        failed.then(|| providers::classify(self.provider, self.status, &Observation::default(), &self.body))
    }
}

/// Why a row has no good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) code: String,
    pub(crate) message: String,
    /// Status and code, for the count of such failures.
    pub(crate) kind: String,
    /// All of it in a line, with advice.
    pub(crate) told: String,
    /// Others will meet the same: the key, the account, the address.
    pub(crate) general: bool,
}

/// What became of a row.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) answer: Option<Answer>,
    pub(crate) fault: Option<Fault>,
}

impl Outcome {
    /// What an answer means.
    pub(crate) fn of_answer(answer: Answer) -> Self {
        // Counted with each attempt, and not once more.
        let no_json = || Fault::new("invalid_answer", NO_JSON.to_owned(), false);
        let fault = match answer.failure() {
            Some(failure) => Some(Fault::of_failure(&failure)),
            None => json(&answer.body).is_none().then(no_json),
        };
        Self { answer: Some(answer), fault }
    }

    /// What the lack of an answer means.
    pub(crate) fn of_error(error: &Error<reqwest::Error>) -> Self {
        let fault = match (error, error.failure()) {
            (Error::Refused { reason: AcquireError::Refused(Refusal::Retired { failure, .. }), .. }, _) => {
                Fault::of_failure(failure)
            }
            (Error::Refused { reason, .. }, last) => {
                let code = match reason {
                    AcquireError::Refused(Refusal::TooLarge { .. }) => "request_too_large",
                    AcquireError::Refused(Refusal::BreakerOpen { .. }) => "provider_failing",
                    _ => "not_sent",
                };
                // All the others wait for the same.
                let general = matches!(reason, AcquireError::Refused(Refusal::BreakerOpen { .. }));
                let mut fault = Fault::new(code, reason.to_string(), general);
                if let Some(last) = last {
                    fault.told = format!("{}; before: {last}", fault.told);
                }
                fault
            }
            (Error::Call { error, failure, .. }, _) if failure.as_ref().is_none_or(|failure| failure.status == 0) => {
                let fault = match failure {
                    Some(failure) => Fault::of_failure(failure),
                    None => Fault::new("no_answer", chain(error), true),
                };
                Fault { told: format!("{} (tollgate doctor finds out why)", no_answer(error)), ..fault }
            }
            (_, Some(failure)) => Fault::of_failure(failure),
            (other, None) => Fault::new("no_answer", chain(other), true),
        };
        Self { answer: None, fault: Some(fault) }
    }
}

pub(crate) const NO_JSON: &str = "the answer is not JSON";

/// More of a message than this, a page of HTML for example, tells no more.
const TOLD: usize = 200;

impl Fault {
    fn new(code: &str, message: String, general: bool) -> Self {
        Self { code: code.to_owned(), kind: code.to_owned(), told: format!("{code}: {message}"), message, general }
    }

    fn of_failure(failure: &Failure) -> Self {
        let code = match (&failure.code, failure.status) {
            (Some(code), _) => code.clone(),
            (None, 0) => "no_answer".to_owned(),
            (None, _) => failure.class.name().to_owned(),
        };
        let message =
            if failure.message.is_empty() { failure.class.advice().to_owned() } else { failure.message.clone() };
        let kind = if failure.status == 0 { code.clone() } else { format!("{} {code}", failure.status) };
        Self {
            kind,
            told: told(failure),
            code,
            message,
            general: failure.status == 0 || failure.class.is_account_wide(),
        }
    }
}

/// `401 invalid_api_key: … (advice)`, with no more of the message than a line holds.
pub(crate) fn told(failure: &Failure) -> String {
    let mut brief = failure.clone();
    if let Some((cut, _)) = brief.message.char_indices().nth(TOLD) {
        brief.message.truncate(cut);
        brief.message.push('…');
    }
    brief.to_string()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Takes keys out of what is written. Providers mask them in their errors, other servers may not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mask(Vec<Secret>);

impl Mask {
    pub(crate) fn new(secrets: Vec<Secret>) -> Self {
        Self(secrets)
    }

    /// The same for an answer, whatever it is.
    pub(crate) fn clean_bytes(&self, bytes: Bytes) -> Bytes {
        let found = |secret: &Secret| memchr::memmem::find(&bytes, secret.expose().as_bytes()).is_some();
        if !self.0.iter().any(found) {
            return bytes;
        }
        self.clean(String::from_utf8_lossy(&bytes).into_owned()).into()
    }

    pub(crate) fn clean(&self, text: String) -> String {
        self.0.iter().fold(text, |text, secret| match text.contains(secret.expose()) {
            true => text.replace(secret.expose(), "***"),
            false => text,
        })
    }
}

/// The line of a result, with its end.
pub(crate) fn line(row: &Row, outcome: Outcome, mask: &Mask) -> Vec<u8> {
    let Outcome { answer, fault } = outcome;
    let length = answer.as_ref().map_or(0, |answer| answer.body.len());
    let mut out = Vec::with_capacity(length + row.custom_id.len() + 256);
    // Writing into memory does not fail.
    let _ = write!(out, r#"{{"id":"batch_req_{:032x}","custom_id":{},"response":"#, row.id, quoted(&row.custom_id));
    match answer {
        None => out.extend_from_slice(b"null"),
        Some(Answer { provider: _, status, request_id, body }) => {
            let request_id = request_id.map_or_else(|| "null".to_owned(), |id| quoted(&mask.clean(id)));
            let _ = write!(out, r#"{{"status_code":{status},"request_id":{request_id},"body":"#);
            out.extend_from_slice(self::body(body, mask).as_bytes());
            out.push(b'}');
        }
    }
    out.extend_from_slice(br#","error":"#);
    match fault {
        None => out.extend_from_slice(b"null"),
        Some(Fault { code, message, .. }) => {
            let (code, message) = (quoted(&mask.clean(code)), quoted(&mask.clean(message)));
            let _ = write!(out, r#"{{"code":{code},"message":{message}}}"#);
        }
    }
    if let Some(metadata) = &row.metadata {
        out.extend_from_slice(br#","metadata":"#);
        out.extend_from_slice(metadata);
    }
    out.extend_from_slice(b"}\n");
    out
}

/// The body on one line: as it came if it is JSON, else as a text.
fn body(body: Bytes, mask: &Mask) -> String {
    let text =
        String::from_utf8(body.into()).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    let text = mask.clean(text);
    if json(text.as_bytes()).is_none() {
        return quoted(&text);
    }
    // Inside of JSON's texts there are no line ends, so that these are mere spaces.
    if text.contains(['\n', '\r']) { text.replace(['\n', '\r'], " ") } else { text }
}

pub(super) fn json(bytes: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(bytes).ok()
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::row::LineFormat;
    use super::*;

    fn row(line: &str) -> Row {
        let shape = LineFormat { endpoint: None, provider: Provider::Openai };
        Row::read(&Bytes::copy_from_slice(line.as_bytes()), 0, &shape).unwrap().0
    }

    fn answer(status: u16, body: &[u8]) -> Outcome {
        let (provider, request_id) = (Provider::Openai, Some("req_1".to_owned()));
        Outcome::of_answer(Answer { provider, status, request_id, body: Bytes::copy_from_slice(body) })
    }

    #[test]
    fn a_result_is_one_line_with_the_body_as_it_came() {
        let row = row(r#"{"model":"m","messages":[],"metadata":{"k": 1}}"#);
        let line = line(&row, answer(200, b"{\n  \"x\": 1.0,\r\n  \"y\": \"\\n\"\n}"), &Mask::default());
        let expected = format!(
            "{{\"id\":\"batch_req_{:032x}\",\"custom_id\":\"{}\",\"response\":{{\"status_code\":200,\"request_id\":\"req_1\",\
             \"body\":{{   \"x\": 1.0,    \"y\": \"\\n\" }}}},\"error\":null,\"metadata\":{{\"k\": 1}}}}\n",
            row.id, row.custom_id
        );
        assert_eq!(String::from_utf8(line).unwrap(), expected);
    }

    #[test]
    fn failures_carry_what_the_provider_said_and_no_key() {
        let row = row(r#"{"custom_id":"a\"b","body":{"model":"m","messages":[]}}"#);
        let mask = Mask::new(vec!["sk-canary-12345".into()]);
        for (status, body) in [
            (401, &br#"{"error":{"message":"bad key sk-canary-12345","code":"c"}}"#[..]),
            (502, b"<p>sk-canary-12345\n"),
        ] {
            let outcome = answer(status, body);
            assert!(outcome.fault.is_some());
            let line = String::from_utf8(line(&row, outcome, &mask)).unwrap();
            let value: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(
                (value["custom_id"].as_str(), value["response"]["status_code"].as_u64()),
                (Some("a\"b"), Some(status.into()))
            );
            assert!(value["error"]["message"].is_string() && value.get("metadata").is_none());
            assert!(!line.contains("canary") && line.matches('\n').count() == 1, "{line}");
        }
        assert_eq!(answer(200, b"not json").fault.unwrap().code, "invalid_answer");
    }
}
