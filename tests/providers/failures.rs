use std::time::Duration;

use serde_json::json;
use tollgate::providers::{Provider, Retry, classify_stream_error};

use super::{anthropic, classified, openai};
use Provider::{Anthropic, Openai};

#[test]
fn the_word_of_the_provider_on_retries_is_heard_but_not_against_its_own_body() {
    let quota = openai(json!("insufficient_quota"), json!("insufficient_quota"), "");
    let rows = [
        ("", 429, "", Retry::AfterLimit),
        ("x-should-retry: false", 429, "", Retry::Never),
        ("x-should-retry: false", 500, "", Retry::Never),
        ("x-should-retry: true", 429, "", Retry::AfterLimit),
        ("x-should-retry: true", 400, "", Retry::Backoff),
        ("x-should-retry: true", 429, quota.as_str(), Retry::Never),
        ("", 400, "", Retry::Never),
        ("", 503, "", Retry::Backoff),
    ];
    for (lines, status, body, retry) in rows {
        assert_eq!(classified(Openai, status, lines, body).retry(), retry, "{status} {lines} {body}");
    }
}

#[test]
fn failures_for_the_rate_of_sending_say_how_long_to_hold_a_lower_one() {
    let minutes = |minutes: u64| Some(Duration::from_secs(60 * minutes));
    let code = |code: &str| openai(json!("rate_limit_error"), json!(code), "");
    let rows = [
        (Openai, 429, "", code("slow_down"), minutes(15)),
        (Openai, 429, "retry-after: 1200", code("slow_down"), minutes(20)),
        (Openai, 429, "", openai(json!("resource_unavailable"), json!(null), "Resource Unavailable"), minutes(1)),
        (Anthropic, 429, "", anthropic("rate_limit_error", "stay within the acceleration limit"), minutes(1)),
        (Anthropic, 529, "", anthropic("overloaded_error", "Overloaded"), minutes(1)),
        (Openai, 429, "", code("rate_limit_exceeded"), None),
        (Openai, 503, "retry-after: 5", code("server_is_overloaded"), None),
        (Openai, 500, "", String::new(), None),
    ];
    for (provider, status, lines, body, hold) in rows {
        assert_eq!(classified(provider, status, lines, &body).slow_down(), hold, "{status} {body}");
    }
}

#[test]
fn a_failure_is_one_line_that_says_what_to_do() {
    let body = openai(
        json!("insufficient_quota"),
        json!("insufficient_quota"),
        "You exceeded your current quota,\nplease check.",
    );
    assert_eq!(
        classified(Openai, 429, "x-request-id: req_1", &body).to_string(),
        "429 insufficient_quota: You exceeded your current quota, please check. (this account has no credit left or \
         has reached its spend limit; waiting will not help; see the provider's billing page; request id req_1)"
    );
    assert_eq!(
        classified(Anthropic, 529, "", &anthropic("overloaded_error", "Overloaded")).to_string(),
        "529 overloaded_error: Overloaded (the provider is overloaded; this is not your limit; send again after a \
         pause; request id req_011CSHoEeqs5C35K2UUqR7Fy)"
    );
    assert_eq!(classified(Openai, 502, "", "").to_string(), "502 (the provider failed; send again after a pause)");
    let event = json!({"type": "error", "code": "server_error", "message": "x"});
    let failure = classify_stream_error(Openai, &event).unwrap();
    assert_eq!(
        failure.to_string(),
        "error in the answer server_error: x (the provider failed; send again after a pause)"
    );
}

#[test]
fn the_advice_is_as_exact_as_what_the_provider_told() {
    let rows = [
        (Openai, 429, "rate_limit_tokens", "the limit TPM 30000 is reached; send again in 4.0s"),
        (Openai, 429, "rate_limit_2022", "the limit RPM 20 is reached; send again when it has room"),
        (Openai, 429, "request_too_large", "the request takes 40000 tokens and TPM 30000 can never let it pass"),
        (Openai, 429, "credit_balance_exhausted", "this account has no credit left; waiting will not help"),
        (Openai, 429, "project_spend_limit_exceeded", "a spend limit is reached; raise it"),
        (Openai, 403, "unsupported_country", "does not serve the country"),
        (Openai, 404, "model_not_found", "no such model or address"),
        (Anthropic, 400, "anthropic_no_credit", "this account has no credit left; waiting will not help"),
        (Anthropic, 400, "anthropic_usage_limit", "a spend limit is reached; raise it"),
        (Provider::Azure, 429, "azure_token_rate", "the limit of tokens is reached; send again in 8.0s"),
        (Provider::Gemini, 429, "gemini_day", "the day's limit RPD 250 is used up; minutes will not help"),
        (Provider::Groq, 413, "groq_too_large", "the request takes 11176 tokens and TPM 8000 can never let it pass"),
    ];
    for (provider, status, name, advice) in rows {
        let row = super::bodies::row(name);
        let failure = classified(provider, status, &row.header_lines(), &row.body_text());
        assert!(failure.advice().contains(advice), "{name}: {}", failure.advice());
    }
}

#[test]
fn a_key_in_a_body_is_never_shown() {
    for canary in [
        "sk-canary-0123456789abcdef",
        "gsk_canary0123456789",
        "AIzaCanary0123456789",
        "canary0123456789canary0123456789",
    ] {
        for body in [
            openai(
                json!("invalid_request_error"),
                json!("invalid_api_key"),
                &format!("Incorrect API key provided: {canary}. See"),
            ),
            openai(json!(canary), json!(canary), canary),
            json!({"detail": format!("Authorization: Bearer {canary}")}).to_string(),
            format!("<html>api-key={canary}</html>"),
            format!("{}{canary}", "x ".repeat(240)),
        ] {
            let failure = classified(Openai, 401, "", &body);
            let shown = format!("{failure} {failure:?} {failure:#?}");
            assert!(!shown.contains("canary") && !shown.contains("Canary"), "{shown}");
        }
    }
}
