use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tollgate::providers::{LimitHit, Provider};
use tollgate::{DAY, Dimension, MINUTE};

use super::{anthropic, classified, openai, seconds};
use Dimension::{InputTokens, OutputTokens, Requests, Tokens};
use Provider::{Anthropic, Gemini, Mistral, Openai};

/// A failed response, as recorded or as documented, and what to make of it.
#[derive(Deserialize)]
struct Row {
    provider: Provider,
    status: u16,
    #[serde(default)]
    headers: HashMap<String, String>,
    class: String,
    /// Seconds.
    wait: Option<f64>,
    /// JSON, or text that is not.
    body: Value,
}

#[test]
fn every_error_body_has_its_class_and_its_wait() {
    for line in include_str!("bodies.jsonl").lines() {
        let row: Row = serde_json::from_str(line).unwrap();
        let headers: Vec<String> = row.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let body = row.body.as_str().map_or_else(|| row.body.to_string(), str::to_owned);
        let failure = classified(row.provider, row.status, &headers.join("\n"), &body);
        assert_eq!(json!(failure.class), row.class, "{line}");
        assert_eq!(failure.wait, seconds(row.wait), "{line}");
        assert_eq!(failure.status, row.status);
    }
}

/// Gemini's body with the given quota ids and values.
fn gemini(violations: &[(&str, &str)]) -> String {
    let violations: Vec<Value> =
        violations.iter().map(|(id, value)| json!({"quotaMetric": "m", "quotaId": id, "quotaValue": value})).collect();
    let failure = json!({"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations});
    json!({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "", "details": [failure]}}).to_string()
}

#[test]
fn the_limit_that_was_hit_is_told() {
    let hit = |dimension, window, limit, used, requested| {
        Some(LimitHit { dimension, window: Some(window), limit: Some(limit), used, requested })
    };
    let minute = gemini(&[("GenerateContentPaidTierInputTokensPerModelPerMinute", "1000000")]);
    let day = gemini(&[
        ("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", "10"),
        ("GenerateRequestsPerDayPerProjectPerModel-FreeTier", "250"),
    ]);
    let rows = [
        (
            Openai,
            openai(
                json!("tokens"),
                json!("rate_limit_exceeded"),
                "Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 24102, Requested 7758.",
            ),
            hit(Tokens, MINUTE, 30_000, Some(24_102), Some(7_758)),
        ),
        (
            Anthropic,
            anthropic(
                "rate_limit_error",
                "This request would exceed your organization's rate limit of 8,000 output tokens per minute",
            ),
            hit(OutputTokens, MINUTE, 8_000, None, None),
        ),
        (Gemini, minute, hit(InputTokens, MINUTE, 1_000_000, None, None)),
        (Gemini, day, hit(Requests, DAY, 250, None, None)),
        (Mistral, json!({"message": "Rate limit exceeded"}).to_string(), None),
    ];
    for (provider, body, expected) in rows {
        assert_eq!(classified(provider, 429, "", &body).limit, expected, "{body}");
    }
}
