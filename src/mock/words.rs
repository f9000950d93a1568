//! Errors in the words of each provider.
//!
//! Sources: the providers' error pages and recorded answers. Where a provider's own words for something are not known, its form
//! carries OpenAI's.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::headers::{go_duration, stamp_retry, stamp_retry_seconds, whole_ms};
use super::refuse::{Problem, Refused, What};
use super::shown::Refusal;
use super::which::Which;
use crate::providers::Provider;

/// An error answer as it goes out.
pub(crate) struct Said {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Problem {
    /// The answer in `dialect`. `id` is the request's.
    pub(crate) fn said(&self, dialect: Provider, id: &str) -> Said {
        let mut headers = HeaderMap::new();
        let (status, body) = match dialect {
            Provider::Anthropic => anthropic(self, id, &mut headers),
            Provider::Gemini => gemini(self),
            Provider::Mistral => mistral(self),
            Provider::Azure => azure(self, &mut headers),
            Provider::Groq => groq(self, &mut headers),
            _ => {
                self.stamp(&mut headers);
                return Said { status: self.status, headers, body: self.body() };
            }
        };
        Said { status, headers, body: body.to_string().into() }
    }
}

/// Anthropic, errors page.
fn anthropic(problem: &Problem, id: &str, headers: &mut HeaderMap) -> (StatusCode, Value) {
    let Problem { status, what, retry, .. } = problem;
    // Not among the standard ones; only a bug could make it invalid.
    let overloaded = StatusCode::from_u16(529).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let (status, kind, message) = match what {
        What::Limit(refused) => {
            let Refused { refusal, model } = &**refused;
            let message = format!(
                "This request would exceed your organization's rate limit of {} {} per minute (org: org-mock, model: {model}).",
                grouped(refusal.limit),
                counted(refusal.which),
            );
            (*status, "rate_limit_error", message)
        }
        What::Spurious => {
            (*status, "rate_limit_error", "This request would exceed your organization's rate limit.".into())
        }
        What::Overloaded => (overloaded, "overloaded_error", "Overloaded".into()),
        What::Failed => (*status, "api_error", "Internal server error".into()),
        What::Key => {
            headers.insert(HeaderName::from_static("x-should-retry"), HeaderValue::from_static("false"));
            (*status, "authentication_error", "invalid x-api-key".into())
        }
        What::Request => {
            let kind = match *status {
                StatusCode::NOT_FOUND => "not_found_error",
                StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
                _ => "invalid_request_error",
            };
            (*status, kind, problem.message.clone())
        }
    };
    if kind == "rate_limit_error"
        && let Some(wait) = retry
    {
        stamp_retry_seconds(headers, *wait);
    }
    (status, json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": id}))
}

/// Gemini, as recorded in August 2026. There is no header; the wait is in the body, twice.
fn gemini(problem: &Problem) -> (StatusCode, Value) {
    const GOOGLE: &str = "type.googleapis.com/google.rpc";
    let Problem { status, message, what, retry, .. } = problem;
    let retry_info =
        |wait: &Duration| json!({"@type": format!("{GOOGLE}.RetryInfo"), "retryDelay": format!("{}s", wait.as_secs())});
    let (status, state, message, details) = match what {
        What::Limit(refused) => {
            let Refused { refusal, model } = &**refused;
            let (metric, quota) = match refusal.which {
                Which::Rps => ("requests", "GenerateRequestsPerSecondPerProjectPerModel"),
                Which::Rpm => ("requests", "GenerateRequestsPerMinutePerProjectPerModel"),
                Which::Rpd => ("requests", "GenerateRequestsPerDayPerProjectPerModel"),
                _ => ("input_token_count", "GenerateContentInputTokensPerModelPerMinute"),
            };
            let metric = format!("generativelanguage.googleapis.com/generate_content_free_tier_{metric}");
            // Of a day, it is as short as of a minute, and misleads.
            let wait =
                retry.map(|wait| Duration::from_nanos(u64::try_from(wait.as_nanos() % 60_000_000_000).unwrap_or(0)));
            let retry_text = wait.map_or(String::new(), |wait| format!("\nPlease retry in {}s.", wait.as_secs_f64()));
            let text = format!(
                "You exceeded your current quota, please check your plan and billing details. For more information on this error, \
                 head to: https://ai.google.dev/gemini-api/docs/rate-limits.\n* Quota exceeded for metric: {metric}, limit: {}, \
                 model: {model}{retry_text}",
                refusal.limit
            );
            let violation = json!({
                "quotaMetric": metric,
                "quotaId": format!("{quota}-FreeTier"),
                "quotaDimensions": {"location": "global", "model": model},
                "quotaValue": refusal.limit.to_string(),
            });
            let help = json!({"@type": format!("{GOOGLE}.Help"), "links": [{
                "description": "Learn more about Gemini API quotas",
                "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
            }]});
            let failure = json!({"@type": format!("{GOOGLE}.QuotaFailure"), "violations": [violation]});
            let details: Vec<_> = [help, failure].into_iter().chain(wait.as_ref().map(retry_info)).collect();
            (*status, "RESOURCE_EXHAUSTED", text, details)
        }
        What::Spurious => {
            let text = "Resource has been exhausted (e.g. check quota).".to_owned();
            (*status, "RESOURCE_EXHAUSTED", text, retry.iter().map(retry_info).collect())
        }
        What::Overloaded => {
            (*status, "UNAVAILABLE", "The model is overloaded. Please try again later.".to_owned(), Vec::new())
        }
        What::Failed => (*status, "INTERNAL", "An internal error has occurred.".to_owned(), Vec::new()),
        What::Key => {
            let text = "API key not valid. Please pass a valid API key.".to_owned();
            let info = json!({"@type": format!("{GOOGLE}.ErrorInfo"), "reason": "API_KEY_INVALID"});
            (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", text, vec![info])
        }
        What::Request => {
            let state = if *status == StatusCode::NOT_FOUND { "NOT_FOUND" } else { "INVALID_ARGUMENT" };
            (*status, state, message.clone(), Vec::new())
        }
    };
    let mut error = json!({"code": status.as_u16(), "message": message, "status": state});
    if !details.is_empty() {
        error["details"] = details.into();
    }
    (status, json!({"error": error}))
}

/// Mistral, from issue threads and recordings. It does not say for how long.
fn mistral(problem: &Problem) -> (StatusCode, Value) {
    let Problem { status, message, kind, param, code, what, .. } = problem;
    let body = match what {
        What::Limit(_) | What::Spurious => {
            json!({"object": "error", "message": "Rate limit exceeded", "type": "rate_limited", "param": null, "code": "1300"})
        }
        What::Key => json!({"detail": "Invalid API Key"}),
        _ => json!({"object": "error", "message": message, "type": kind, "param": param, "code": code}),
    };
    (*status, body)
}

/// Azure OpenAI. Its codes are texts of the status.
fn azure(problem: &Problem, headers: &mut HeaderMap) -> (StatusCode, Value) {
    let Problem { status, message, what, retry, .. } = problem;
    let message = match what {
        What::Limit(refused) => {
            let rate = if refused.refusal.which.kind() == "requests" { "call" } else { "token" };
            let after = retry.map_or(String::new(), |wait| format!(" Please retry after {} seconds.", up(wait)));
            format!(
                "Requests to the ChatCompletions_Create Operation under Azure OpenAI API version 2024-02-15-preview have exceeded \
                 {rate} rate limit of your current OpenAI S0 pricing tier.{after}"
            )
        }
        What::Spurious => {
            "Requests have exceeded call rate limit of your current OpenAI S0 pricing tier. Please retry after 1 \
                           seconds."
                .to_owned()
        }
        What::Key => "Access denied due to invalid subscription key or wrong API endpoint.".to_owned(),
        _ => message.clone(),
    };
    if let Some(wait) = retry {
        stamp_retry(headers, *wait);
    }
    (*status, json!({"error": {"code": status.as_u16().to_string(), "message": message}}))
}

/// Groq, which has OpenAI's form and names other things. A request that is larger than the limit is no 429.
fn groq(problem: &Problem, headers: &mut HeaderMap) -> (StatusCode, Value) {
    let Problem { status, message, kind, param, code, what, retry } = problem;
    let (status, message) = match what {
        What::Limit(refused) => {
            let Refused { refusal: Refusal { which, limit, used, requested, .. }, model } = &**refused;
            let period = if which.period() == "day" { "day" } else { "minute" };
            let place = format!(
                "for model `{model}` in organization `org_mock` service tier `on_demand` on {} per {period} ({}): Limit {limit}",
                which.kind(),
                which.name()
            );
            match retry {
                Some(wait) => {
                    let wait = go_duration(whole_ms(*wait));
                    (
                        *status,
                        format!(
                            "Rate limit reached {place}, Used {used}, Requested {requested}. Please try again in {wait}."
                        ),
                    )
                }
                None => {
                    let cure = "please reduce your message size and try again.";
                    (StatusCode::PAYLOAD_TOO_LARGE, format!("Request too large {place}, Requested {requested}, {cure}"))
                }
            }
        }
        What::Key => (*status, "Invalid API Key".to_owned()),
        _ => (*status, message.clone()),
    };
    if let Some(wait) = retry {
        stamp_retry_seconds(headers, *wait);
    }
    (status, json!({"error": {"message": message, "type": kind, "param": param, "code": code}}))
}

/// Whole seconds, at least one, after which it is over.
fn up(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u64::MAX).max(1)
}

fn counted(which: Which) -> &'static str {
    match which {
        Which::Rps | Which::Rpm | Which::Rpd => "requests",
        Which::Tpm | Which::Tpd => "tokens",
        Which::Itpm => "input tokens",
        Which::Otpm => "output tokens",
    }
}

/// `30000` as `30,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group)).collect();
    groups.join(",")
}
