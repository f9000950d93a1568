//! `tollgate doctor --explain`: what a pasted error means.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tollgate::providers::{Retry, classify, observe};
use tollgate::{Failure, Provider};

use super::args::DoctorArgs;
use super::finding::Finding;
use super::report::Report;
use super::spoken::{Meaning, meaning};
use super::verdict::Verdict;

/// What passes with time, as a connection that breaks may.
const NO_ANSWER: u16 = 504;

/// The report on the error that was typed, named or piped.
pub(super) fn explain(args: &DoctorArgs, typed: &str) -> Result<Report> {
    let pasted = Pasted::read(&text(typed)?);
    let status = args.status.or(pasted.status);
    let provider = args.api.provider.unwrap_or_else(|| guess(&pasted.body));
    let headers = observe(provider, &pasted.headers, crate::clock::wall());
    // Without a status the codes tell, as for an error inside of a stream.
    let failure = classify(provider, status.unwrap_or(200), &headers, pasted.body.as_bytes());
    // A code tells all; a status alone leaves open whether a 429 is a limit or the want of money.
    let said = if failure.code.is_none() { meaning(&pasted.body) } else { None };
    let failure = match (status, said) {
        (None | Some(429), Some(Meaning::NoMoney)) => {
            let body = json!({"error": {"message": failure.message, "code": "insufficient_quota"}}).to_string();
            classify(provider, 429, &headers, body.as_bytes())
        }
        (None, Some(Meaning::Status(status))) => classify(provider, status, &headers, pasted.body.as_bytes()),
        (None, Some(Meaning::NoAnswer(_))) => classify(provider, NO_ANSWER, &headers, pasted.body.as_bytes()),
        _ => failure,
    };
    let unclear = status.is_none() && failure.code.is_none() && said.is_none();
    let (verdict, sentence) = match (status, said) {
        _ if unclear => {
            (Verdict::Unclear, "the text alone does not tell; add the HTTP status by --status N".to_owned())
        }
        (None, Some(Meaning::NoAnswer(advice))) => (Verdict::Network, advice.to_owned()),
        _ => (Verdict::of_class(failure.class), failure.advice()),
    };
    let about = json!({
        "provider": provider,
        "status": status,
        "class": failure.class,
        "code": failure.code,
        "message": failure.message,
        "request_id": failure.request_id,
        "retry": match failure.retry() { Retry::Never => "never", Retry::Backoff => "backoff", Retry::AfterLimit => "after_limit" },
        "wait_seconds": failure.wait.map(|wait| wait.as_secs_f64()),
        "limit": failure.limit.map(|hit| json!({
            "counts": hit.dimension.to_string(),
            "window_seconds": hit.window.map(|window| window.as_secs()),
            "limit": hit.limit,
            "used": hit.used,
            "requested": hit.requested,
        })),
    });
    let checks = if unclear { Vec::new() } else { lines(provider, status, &failure) };
    Ok(Report::new(verdict, sentence, about, checks))
}

fn lines(provider: Provider, status: Option<u16>, failure: &Failure) -> Vec<Finding> {
    let status = status.map_or_else(String::new, |status| format!("{status} "));
    let mut lines =
        vec![Finding::fail("error", format!("{status}{} from {provider}", failure.code.as_deref().unwrap_or("error")))];
    if !failure.message.is_empty() {
        lines.push(Finding::fail("it says", failure.message.clone()));
    }
    if let Some(id) = &failure.request_id {
        lines.push(Finding::ok("request id", id.clone()));
    }
    lines.push(match (failure.retry(), failure.wait) {
        (Retry::Never, _) => Finding::fail("send again", "never: it would fail again"),
        (_, Some(wait)) => Finding::ok("send again", format!("after {wait:.1?}")),
        (_, None) => Finding::ok("send again", "after a growing pause"),
    });
    lines
}

/// What was typed is the error, unless it is a file or `-`.
fn text(typed: &str) -> Result<String> {
    if typed == "-" {
        let mut text = Vec::new();
        std::io::stdin().lock().read_to_end(&mut text).context("cannot read standard input")?;
        return Ok(String::from_utf8_lossy(&text).into_owned());
    }
    if typed.len() < 4_096 && Path::new(typed).is_file() {
        let text = std::fs::read(typed).with_context(|| format!("cannot read {typed}"))?;
        return Ok(String::from_utf8_lossy(&text).into_owned());
    }
    Ok(typed.to_owned())
}

/// The parts of a pasted error.
#[derive(Debug, Default)]
struct Pasted {
    status: Option<u16>,
    headers: HeaderMap,
    body: String,
}

impl Pasted {
    /// Reads a body; a whole answer as `curl -i` prints it; or what OpenAI's and its sister SDKs say, `Error code: 429 - {…}`.
    fn read(text: &str) -> Self {
        let text = text.trim();
        if text.starts_with("HTTP/") {
            return Self::answer(text);
        }
        if let Some((_, rest)) = text.split_once("Error code: ") {
            let (status, rest) = rest.split_once(" - ").unwrap_or((rest, ""));
            return Self { status: number(status), body: json_of_python(rest), ..Self::default() };
        }
        // Their JavaScript twins begin with the status alone: `429 You exceeded …`.
        let (first, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        match number(first) {
            Some(status) => Self { status: Some(status), body: rest.trim().to_owned(), ..Self::default() },
            None => Self { body: text.to_owned(), ..Self::default() },
        }
    }

    fn answer(text: &str) -> Self {
        let mut lines = text.lines();
        let status = lines.next().and_then(|line| number(line.split_whitespace().nth(1)?));
        let mut headers = HeaderMap::new();
        for line in lines.by_ref().take_while(|line| !line.trim().is_empty()) {
            let Some((name, value)) = line.split_once(':') else { continue };
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.trim()), HeaderValue::try_from(value.trim())) {
                headers.insert(name, value);
            }
        }
        Self { status, headers, body: lines.collect::<Vec<_>>().join("\n") }
    }
}

fn number(text: &str) -> Option<u16> {
    text.trim().parse().ok().filter(|status| (100..600).contains(status))
}

/// A dictionary as Python prints it, as JSON; what is none stays as it is.
fn json_of_python(text: &str) -> String {
    let mut json = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(quote) = Some(first).filter(|c| matches!(c, '\'' | '"')) {
            let (content, after) = python_string(&rest[1..], quote);
            json.push_str(&Value::from(content).to_string());
            rest = after;
            continue;
        }
        let words = [("None", "null"), ("True", "true"), ("False", "false")];
        let (taken, written) = match words.into_iter().find(|(word, _)| rest.starts_with(word)) {
            Some((word, literal)) => (word.len(), literal),
            None => (first.len_utf8(), &rest[..first.len_utf8()]),
        };
        json.push_str(written);
        rest = &rest[taken..];
    }
    if serde_json::from_str::<Value>(&json).is_ok() { json } else { text.to_owned() }
}

/// The string up to `quote`, and what follows it.
fn python_string(text: &str, quote: char) -> (String, &str) {
    let mut content = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, 'n')) => content.push('\n'),
                Some((_, 't')) => content.push('\t'),
                Some((_, other)) => content.push(other),
                None => break,
            },
            c if c == quote => return (content, &text[at + c.len_utf8()..]),
            c => content.push(c),
        }
    }
    (content, "")
}

/// Whose error it looks like. OpenAI's shape is also everybody else's.
fn guess(body: &str) -> Provider {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let root = json.get(0).unwrap_or(&json);
    let error = &root["error"];
    let code = error["code"].as_str().unwrap_or_default();
    if root["type"] == "error" && error["type"].is_string() {
        Provider::Anthropic
    } else if error["status"].is_string() && error["code"].is_number() {
        Provider::Gemini
    } else if root["object"] == "error" || root["detail"] == "Invalid API Key" {
        Provider::Mistral
    } else if body.contains("service tier `") || body.contains("organization `org_") {
        Provider::Groq
    } else if code.parse::<u16>().is_ok() || code == "RateLimitReached" || body.contains("Azure OpenAI") {
        Provider::Azure
    } else {
        Provider::Openai
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn errors_are_read_as_people_paste_them() {
        let python = r#"openai.RateLimitError: Error code: 429 - {'error': {'message': "You're out", 'type': 'insufficient_quota', 'param': None, 'code': 'insufficient_quota'}}"#;
        let pasted = Pasted::read(python);
        assert_eq!(pasted.status, Some(429));
        let body: Value = serde_json::from_str(&pasted.body).unwrap();
        assert_eq!((&body["error"]["message"], &body["error"]["param"]), (&json!("You're out"), &Value::Null));

        let curl = "HTTP/2 529 \r\nrequest-id: req_1\r\nretry-after: 7\r\n\r\n{\"type\":\"error\"}";
        let pasted = Pasted::read(curl);
        assert_eq!((pasted.status, pasted.body.as_str()), (Some(529), "{\"type\":\"error\"}"));
        assert!(pasted.headers["request-id"] == "req_1" && pasted.headers["retry-after"] == "7");

        assert_eq!(Pasted::read("429 You exceeded your current quota").status, Some(429));
        assert_eq!(Pasted::read("Error code: 502").status, Some(502));
        assert_eq!((Pasted::read("{}").status, Pasted::read("").body.as_str()), (None, ""));
    }

    #[test]
    fn what_is_no_python_stays_as_it_is() {
        for text in ["{'a", "<html>'x'</html>", "\\", "'é\\", ""] {
            let _ = json_of_python(text);
        }
        assert_eq!(json_of_python("it's not"), "it's not");
        assert_eq!(json_of_python(r"{'a': 'it\'s é', 'b': True}"), r#"{"a": "it's é", "b": true}"#);
    }

    #[test]
    fn every_known_error_is_explained_from_its_status_and_body_alone() {
        let verdict = |class: &str| match class {
            "rate_limited" | "slow_down" => Verdict::Limits,
            "quota_exhausted" => Verdict::Billing,
            "unauthorized" | "forbidden" => Verdict::Key,
            "too_large" | "invalid" | "context_length" | "content_policy" | "not_found" => Verdict::Request,
            _ => Verdict::Provider,
        };
        // Their meaning is in a header, or they are told apart by the provider alone.
        let needs_more = ["mistral_not_in_plan", "azure_free_trial"];
        for line in include_str!("../../../mock/errors.jsonl").lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            if needs_more.contains(&row["name"].as_str().unwrap()) {
                continue;
            }
            let body = row["body"].as_str().map_or_else(|| row["body"].to_string(), str::to_owned);
            let args = DoctorArgs::parse_from(["doctor", "--explain", &body, "--status", &row["status"].to_string()]);
            let report = explain(&args, &body).unwrap();
            assert_eq!(report.verdict, verdict(row["class"].as_str().unwrap()), "{line}");
        }
    }

    #[test]
    fn bare_messages_are_understood() {
        let tpm = "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Used 24102, \
                   Requested 7758. Please try again in 3.72s.";
        let rpm = "Rate limit reached for gpt-4o on requests per min (RPM): Limit 500, Used 500, Requested 1. Please try again in 120ms.";
        let rpd = "Rate limit reached for gpt-4o on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.";
        let large = "Request too large for gpt-4o on tokens per min (TPM): Limit 30000, Requested 40000.";
        let gemini = "You exceeded your current quota, please check your plan and billing details. * Quota exceeded for metric: \
                      generativelanguage.googleapis.com/generate_content_free_tier_requests, limit: 15, model: gemini-2.0-flash";
        let rows = [
            (tpm, Verdict::Limits, "the limit TPM 30000 is reached; send again in 3.7s"),
            (rpm, Verdict::Limits, "the limit RPM 500 is reached"),
            (rpd, Verdict::Limits, "the limit RPD 200 is reached"),
            (large, Verdict::Request, "takes 40000 tokens"),
            (
                "This model's maximum context length is 8192 tokens. However, you requested 9000.",
                Verdict::Request,
                "shorten",
            ),
            ("Incorrect API key provided: sk-abc*****xyz.", Verdict::Key, "not accepted"),
            (
                "You exceeded your current quota, please check your plan and billing details.",
                Verdict::Billing,
                "no credit",
            ),
            ("429 You exceeded your current quota, please check your plan", Verdict::Billing, "no credit"),
            ("insufficient_quota", Verdict::Billing, "no credit"),
            (gemini, Verdict::Limits, "limit"),
            ("connection reset by peer", Verdict::Network, "broke"),
            ("read ECONNRESET", Verdict::Network, "broke"),
            ("dns error: failed to lookup address information", Verdict::Network, "looked up"),
            ("getaddrinfo ENOTFOUND api.openai.com", Verdict::Network, "looked up"),
            ("operation timed out", Verdict::Network, "in time"),
            ("openai.APITimeoutError: Request timed out.", Verdict::Network, "in time"),
            ("openai.APIConnectionError: Connection error.", Verdict::Network, "no connection"),
            ("APIConnectionError", Verdict::Network, "no connection"),
            ("<html>\n<head><title>502 Bad Gateway</title></head></html>", Verdict::Provider, "failed"),
            ("503 Service Unavailable", Verdict::Provider, "overloaded"),
            (
                "RateLimitError: Error code: 429 - {'error': {'message': 'Rate limit reached for gpt-4o on tokens per min (TPM): \
              Limit 30000, Used 30000, Requested 100. Please try again in 200ms.', 'code': 'rate_limit_exceeded'}}",
                Verdict::Limits,
                "the limit TPM 30000",
            ),
            ("RateLimitError", Verdict::Limits, "limit"),
            ("it does not work", Verdict::Unclear, "--status"),
            ("", Verdict::Unclear, "--status"),
        ];
        for (text, verdict, sentence) in rows {
            let report = explain(&DoctorArgs::parse_from(["doctor", "--explain", text]), text).unwrap();
            assert_eq!(report.verdict, verdict, "{text}");
            assert!(report.sentence.contains(sentence), "{text}: {}", report.sentence);
        }
    }

    #[test]
    fn errors_tell_whose_they_are() {
        let rows = [
            (r#"{"type": "error", "error": {"type": "overloaded_error", "message": "x"}}"#, Provider::Anthropic),
            (r#"[{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}]"#, Provider::Gemini),
            (r#"{"object": "error", "message": "x", "code": "1300"}"#, Provider::Mistral),
            (r#"{"error": {"message": "in organization `org_1` service tier `on_demand`"}}"#, Provider::Groq),
            (r#"{"error": {"code": "429", "message": "x"}}"#, Provider::Azure),
            (r#"{"error": {"code": "insufficient_quota", "message": "x"}}"#, Provider::Openai),
            ("<html>", Provider::Openai),
        ];
        for (body, provider) in rows {
            assert_eq!(guess(body), provider, "{body}");
        }
    }
}
