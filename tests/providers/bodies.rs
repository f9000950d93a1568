use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};
use tollgate::providers::{LimitHit, Provider, Retry};
use tollgate::{DAY, Dimension, MINUTE};

use super::{anthropic, classified, openai, seconds};
use Dimension::{InputTokens, OutputTokens, Requests, Tokens};
use Provider::{Anthropic, Gemini, Mistral, Openai};

/// A failed response, as recorded or as documented, and what to make of it.
#[derive(Deserialize)]
pub(super) struct Row {
    name: String,
    provider: Provider,
    status: u16,
    #[serde(default)]
    headers: HashMap<String, String>,
    class: String,
    /// Whether and when to send again.
    retry: String,
    /// The limit that was hit, with as much as is told: `TPM 30000`, `tokens`.
    bucket: Option<String>,
    /// Seconds.
    wait: Option<f64>,
    /// JSON, or text that is not.
    body: Value,
}

impl Row {
    pub(super) fn header_lines(&self) -> String {
        let lines: Vec<String> = self.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        lines.join("\n")
    }

    pub(super) fn body_text(&self) -> String {
        self.body.as_str().map_or_else(|| self.body.to_string(), str::to_owned)
    }
}

/// The table that the mock plays errors from, with what they mean.
pub(super) fn rows() -> Vec<Row> {
    let lines = include_str!("../../src/mock/errors.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

pub(super) fn row(name: &str) -> Row {
    rows().into_iter().find(|row| row.name == name).unwrap_or_else(|| panic!("no row {name}"))
}

#[test]
fn every_error_body_has_its_class_its_retry_its_bucket_and_its_wait() {
    for row in rows() {
        let name = &row.name;
        let failure = classified(row.provider, row.status, &row.header_lines(), &row.body_text());
        assert_eq!(json!(failure.class), row.class, "{name}");
        assert_eq!(retry(failure.retry()), row.retry, "{name}");
        assert_eq!(failure.limit.as_ref().map(bucket), row.bucket, "{name}");
        assert_eq!(failure.wait, seconds(row.wait), "{name}");
        assert_eq!(failure.status, row.status);
    }
}

fn retry(retry: Retry) -> &'static str {
    match retry {
        Retry::Never => "never",
        Retry::Backoff => "backoff",
        Retry::AfterLimit => "after_limit",
    }
}

fn bucket(hit: &LimitHit) -> String {
    hit.as_limit().map_or_else(|| hit.dimension.to_string(), |limit| limit.to_string())
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
