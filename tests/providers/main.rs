//! What providers send, as recorded, and what is made of it.

mod bodies;
mod failures;
mod fuzz;
mod headers;
mod random;
mod status;
mod streams;

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tollgate::providers::{Failure, Provider, classify, observe};

/// 2026-08-19T14:33:41Z
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_787_150_021)
}

/// Headers from lines of `name: value`.
fn header_map(lines: &str) -> HeaderMap {
    let pairs = lines.lines().filter_map(|line| line.trim().split_once(": "));
    pairs
        .map(|(name, value)| {
            (HeaderName::try_from(name).expect("a name"), HeaderValue::try_from(value).expect("a value"))
        })
        .collect()
}

/// An error body of the common shape.
fn openai(kind: Value, code: Value, message: &str) -> String {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}}).to_string()
}

fn anthropic(kind: &str, message: &str) -> String {
    json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"})
        .to_string()
}

fn classified(provider: Provider, status: u16, lines: &str, body: &str) -> Failure {
    classify(provider, status, &observe(provider, &header_map(lines), now()), body.as_bytes())
}

/// A wait as the tables of recorded errors write it.
fn seconds(wait: Option<f64>) -> Option<Duration> {
    wait.map(Duration::from_secs_f64)
}
