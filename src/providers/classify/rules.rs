//! From the facts of a failure to its class.

use std::time::Duration;

use super::body::ErrorBody;
use super::{Class, LimitHit};
use crate::cost::{DAY, Dimension};
use crate::providers::{Observation, Provider};

/// Codes that say that money is the limit (OpenAI's error guide since July 2026, Anthropic, Groq).
const QUOTA: &[&str] = &[
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_not_active",
    "credit_balance_exhausted",
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "enforced_spend_limit_reached",
    "billing_error",
    "blocked_api_access",
];

const CONTENT: &[&str] =
    &["content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation", "moderation_blocked"];

/// Flex processing, Groq's 498, Mistral's 3505.
const CAPACITY: &[&str] = &["resource_unavailable", "capacity_exceeded", "service_tier_capacity_exceeded", "3505"];

/// What is known about one failure.
pub(super) struct Facts<'a> {
    pub(super) provider: Provider,
    pub(super) status: u16,
    pub(super) body: &'a ErrorBody,
    pub(super) headers: &'a Observation,
    pub(super) hit: Option<LimitHit>,
    pub(super) wait: Option<Duration>,
}

/// The class of a failure. What a body says goes before what its status says, because a status may mean several things:
/// a 429 may be a full bucket, an empty purse or an impossible request.
pub(super) fn class(facts: &Facts<'_>) -> Class {
    if is_redirect(facts.status) {
        return Class::NotFound;
    }
    // An error inside of a stream, or of a gateway that answers 200 to everything, tells its status by its code.
    let status = if facts.status < 400 { implied_status(facts.body) } else { facts.status };
    by_body(facts, status).unwrap_or_else(|| by_status(status))
}

fn by_body(facts: &Facts<'_>, status: u16) -> Option<Class> {
    let Facts { body, .. } = facts;
    if body.is(QUOTA) || is_spent(facts, status) {
        return Some(Class::QuotaExhausted);
    }
    match status {
        400 | 413 | 422 if is_too_long(body) => Some(Class::ContextLength),
        400..=403 if body.is(CONTENT) => Some(Class::ContentPolicy),
        // Gemini answers a bad key with 400.
        400 if body.is(&["API_KEY_INVALID"]) || body.says("api key not valid") => Some(Class::Unauthorized),
        429 => too_many(facts),
        500.. if body.is(&["timeout_error"]) => Some(Class::Timeout),
        500.. if body.is(&["overloaded_error", "server_is_overloaded"]) || body.says("overloaded") => {
            Some(Class::Overloaded)
        }
        _ => None,
    }
}

/// Refusals for want of money that have no code of their own.
fn is_spent(facts: &Facts<'_>, status: u16) -> bool {
    match (facts.provider, status) {
        (Provider::Anthropic, 400 | 429) => {
            facts.body.says("credit balance is too low") || facts.body.says("reached your specified api usage limits")
        }
        // The free trial's allowance is told as a wait of a day.
        (Provider::Azure, 429) => facts.wait.is_some_and(|wait| wait >= DAY),
        _ => false,
    }
}

/// The kinds of 429. Gemini uses "exceeded your current quota, please check your plan" for minute limits too, so that
/// sentence decides nothing.
fn too_many(facts: &Facts<'_>) -> Option<Class> {
    let Facts { body, hit, .. } = facts;
    if body.is(&["slow_down"]) || body.says("acceleration limit") {
        return Some(Class::SlowDown);
    }
    if body.is(CAPACITY) || body.says("resource unavailable") {
        return Some(Class::CapacityUnavailable);
    }
    // A limit of zero means that the model is not part of the plan. Gemini tells it in words only.
    let mut requests = facts.headers.readings.iter().filter(|reading| reading.dimension == Dimension::Requests);
    let no_requests = facts.provider == Provider::Mistral && requests.any(|reading| reading.limit == Some(0));
    if no_requests || hit.is_some_and(|hit| hit.limit == Some(0)) || body.says(", limit: 0, model") {
        return Some(Class::Forbidden);
    }
    let impossible = hit.is_some_and(|hit| hit.requested > hit.limit && hit.limit.is_some());
    (impossible || body.says("request too large")).then_some(Class::TooLarge)
}

pub(super) fn is_redirect(status: u16) -> bool {
    (300..400).contains(&status)
}

fn is_too_long(body: &ErrorBody) -> bool {
    body.is(&["context_length_exceeded"])
        || body.says("maximum context length")
        || body.says("exceeds the context window")
        || body.says("prompt is too long")
        || body.says("exceeds the maximum number of tokens")
}

fn by_status(status: u16) -> Class {
    match status {
        401 => Class::Unauthorized,
        402 => Class::QuotaExhausted,
        403 => Class::Forbidden,
        404 => Class::NotFound,
        408 | 504 => Class::Timeout,
        409 => Class::Conflict,
        413 => Class::TooLarge,
        429 => Class::RateLimited,
        // Groq's code for flex processing.
        498 => Class::CapacityUnavailable,
        // 529 is Anthropic's code for overload.
        503 | 529 => Class::Overloaded,
        // 425: it came before the server was ready for it.
        425 | 500.. => Class::ServerError,
        _ => Class::Invalid,
    }
}

/// The status that the codes of an error stand for; 500 if they are unknown.
fn implied_status(body: &ErrorBody) -> u16 {
    body.codes().find_map(status_of_code).unwrap_or(500)
}

fn status_of_code(code: &str) -> Option<u16> {
    Some(match code {
        "rate_limit_exceeded" | "rate_limit_error" | "rate_limited" | "RESOURCE_EXHAUSTED" | "slow_down" => 429,
        // A batch that would take more enqueued tokens than are allowed; unfinished ones give them back.
        "token_limit_exceeded" => 429,
        "1300" | "3505" | "service_tier_capacity_exceeded" | "resource_unavailable" => 429,
        "overloaded_error" => 529,
        "server_is_overloaded" | "service_unavailable_error" | "UNAVAILABLE" => 503,
        "timeout_error" | "vector_store_timeout" | "DEADLINE_EXCEEDED" => 504,
        "capacity_exceeded" => 498,
        "server_error" | "api_error" | "INTERNAL" => 500,
        "request_too_large" => 413,
        "not_found_error" | "model_not_found" | "NOT_FOUND" => 404,
        "permission_error" | "PERMISSION_DENIED" => 403,
        "authentication_error" | "invalid_api_key" | "UNAUTHENTICATED" => 401,
        "context_length_exceeded" | "FAILED_PRECONDITION" | "INVALID_ARGUMENT" => 400,
        _ if code.starts_with("invalid_") || CONTENT.contains(&code) => 400,
        _ => code.parse().ok().filter(|status| (400..600).contains(status))?,
    })
}
