//! Real bodies and headers, damaged at random: `TOLLGATE_FUZZ=1000000 cargo test --all-features --test providers fuzz`.

use http::{HeaderMap, HeaderName, HeaderValue};
use tollgate::providers::{Provider, classify, classify_stream_error, observe, usage_in_bytes};

use super::bodies::rows;
use super::now;

/// What parsers look for, and what they trip over.
const PIECES: &[&str] = &[
    "\"",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "null",
    "1e999",
    "-1",
    "0",
    "99999999999999999999999",
    "\\u0000",
    "\\ud800",
    "é",
    "try again in ",
    "retry after ",
    "Limit ",
    "Requested ",
    "limit of ",
    " per ",
    " exceeded for ",
    "tokens per ",
    "day",
    "min",
    "s",
    "ms",
    "h",
    "sk-",
    "Bearer ",
    "error",
    "code",
    "details",
    "quotaId",
    "PerDay",
    "retryDelay",
    "violations",
];

fn damaged(text: &[u8], rng: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..rng.usize(0..6) {
        let at = rng.usize(0..=bytes.len());
        match rng.u8(0..4) {
            0 => bytes.truncate(at),
            1 => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = rng.u8(..);
                }
            }
            2 => drop(bytes.drain(at..bytes.len().min(at + rng.usize(0..20)))),
            _ => {
                let piece = PIECES[rng.usize(0..PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
        }
    }
    bytes
}

#[test]
fn damaged_bodies_and_headers_are_classified_without_panic() {
    let cases = std::env::var("TOLLGATE_FUZZ").map_or(20_000, |cases| cases.parse().expect("a number of cases"));
    let names = [
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "x-request-id",
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        "x-ratelimit-limit-req-minute",
        "x-ratelimit-renewalperiod-tokens",
        "anthropic-ratelimit-tokens-reset",
        "llm_provider-x-ratelimit-limit-tokens",
    ];
    let values =
        ["1", "0", "4.5", "86400", "6m0s", "12ms", "2026-08-19T14:34:11Z", "Wed, 19 Aug 2026 14:34:11 GMT", "true"];
    let bodies: Vec<String> = rows().iter().map(|row| row.body_text()).collect();
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..cases {
        let body = damaged(bodies[rng.usize(0..bodies.len())].as_bytes(), &mut rng);
        let mut headers = HeaderMap::new();
        for _ in 0..rng.usize(0..4) {
            let value = damaged(values[rng.usize(0..values.len())].as_bytes(), &mut rng);
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.insert(HeaderName::from_static(names[rng.usize(0..names.len())]), value);
            }
        }
        let provider = Provider::ALL[rng.usize(0..Provider::ALL.len())];
        let status = if rng.bool() { rng.u16(400..600) } else { rng.u16(..) };
        let failure = classify(provider, status, &observe(provider, &headers, now()), &body);
        let _ = (failure.retry(), failure.slow_down(), failure.is_outage(), usage_in_bytes(&body));
        assert!(failure.wait.is_none_or(|wait| !wait.is_zero()));
        assert!(failure.message.chars().count() <= 501);
        let line = failure.to_string();
        assert!(!line.contains(['\n', '\r']), "{line}");
        if let Ok(event) = serde_json::from_slice(&body) {
            let _ = classify_stream_error(provider, &event).map(|failure| failure.to_string());
        }
    }
}
