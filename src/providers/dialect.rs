//! Which header says what: one table per provider.

use std::time::Duration;

use super::{MONTH, Provider};
use crate::cost::{DAY, Dimension, MINUTE};

/// The headers that describe one limit.
pub(super) struct Names {
    pub(super) dimension: Dimension,
    /// What the name alone tells about the window.
    pub(super) window: Option<Duration>,
    pub(super) rounding: u64,
    pub(super) limit: &'static str,
    pub(super) remaining: &'static str,
    pub(super) reset: &'static str,
    /// Azure's statement of the window, in seconds.
    pub(super) renewal: &'static str,
}

/// The four names differ in one word between `$before` and `$after`. They are put together by the compiler, so that
/// looking for them allocates nothing.
macro_rules! names {
    ($dimension:ident, $window:expr, $rounding:expr, $before:literal, $after:literal) => {
        Names {
            dimension: Dimension::$dimension,
            window: $window,
            rounding: $rounding,
            limit: concat!($before, "limit", $after),
            remaining: concat!($before, "remaining", $after),
            reset: concat!($before, "reset", $after),
            renewal: concat!($before, "renewalperiod", $after),
        }
    };
}

/// OpenAI, rate-limits guide. The window is not told: `requests` is RPM or RPD, whichever is tighter.
const OPENAI: &[Names] = &[
    names!(Requests, None, 0, "x-ratelimit-", "-requests"),
    names!(Tokens, None, 0, "x-ratelimit-", "-tokens"),
    names!(Requests, None, 0, "x-ratelimit-", "-project-requests"),
    names!(Tokens, None, 0, "x-ratelimit-", "-project-tokens"),
];

/// Azure OpenAI. `requests` may be the 10 s slice of the RPM, so without a `renewalperiod` its window is unknown.
const AZURE: &[Names] = &[
    names!(Requests, None, 0, "x-ratelimit-", "-requests"),
    names!(Tokens, Some(MINUTE), 0, "x-ratelimit-", "-tokens"),
];

/// Anthropic, rate-limits page. Remaining tokens are rounded to the nearest 1,000, so they are off by up to 500.
const ANTHROPIC: &[Names] = &[
    names!(Requests, Some(MINUTE), 0, "anthropic-ratelimit-requests-", ""),
    names!(InputTokens, Some(MINUTE), 500, "anthropic-ratelimit-input-tokens-", ""),
    names!(OutputTokens, Some(MINUTE), 500, "anthropic-ratelimit-output-tokens-", ""),
    names!(Tokens, Some(MINUTE), 500, "anthropic-ratelimit-tokens-", ""),
];

/// Groq, rate-limits page: `requests` is the day's, `tokens` the minute's. RPM and TPD have no header.
const GROQ: &[Names] = &[
    names!(Requests, Some(DAY), 0, "x-ratelimit-", "-requests"),
    names!(Tokens, Some(MINUTE), 0, "x-ratelimit-", "-tokens"),
];

/// Mistral, as recorded in August 2026, and the older `bysize` spellings, which count tokens.
const MISTRAL: &[Names] = &[
    names!(Requests, Some(MINUTE), 0, "x-ratelimit-", "-req-minute"),
    names!(Tokens, Some(MINUTE), 0, "x-ratelimit-", "-tokens-minute"),
    names!(Tokens, Some(MONTH), 0, "x-ratelimit-", "-tokens-month"),
    names!(Tokens, Some(MINUTE), 0, "ratelimitbysize-", ""),
    names!(Tokens, Some(MINUTE), 0, "x-ratelimitbysize-", "-minute"),
    names!(Tokens, Some(MONTH), 0, "x-ratelimitbysize-", "-month"),
];

/// A server of which nothing is known may speak any of them; where the same name means two things, as OpenAI does.
const ANY: &[Names] = &[
    names!(Requests, None, 0, "x-ratelimit-", "-requests"),
    names!(Tokens, None, 0, "x-ratelimit-", "-tokens"),
    names!(Requests, Some(MINUTE), 0, "x-ratelimit-", "-req-minute"),
    names!(Tokens, Some(MINUTE), 0, "x-ratelimit-", "-tokens-minute"),
    names!(Requests, Some(MINUTE), 0, "anthropic-ratelimit-requests-", ""),
    names!(InputTokens, Some(MINUTE), 500, "anthropic-ratelimit-input-tokens-", ""),
    names!(OutputTokens, Some(MINUTE), 500, "anthropic-ratelimit-output-tokens-", ""),
    names!(Tokens, Some(MINUTE), 500, "anthropic-ratelimit-tokens-", ""),
];

/// The limits that `provider` shows in headers; none for Gemini.
pub(super) const fn names(provider: Provider) -> &'static [Names] {
    match provider {
        Provider::Openai => OPENAI,
        Provider::Compatible => ANY,
        Provider::Azure => AZURE,
        Provider::Anthropic => ANTHROPIC,
        Provider::Gemini => &[],
        Provider::Groq => GROQ,
        Provider::Mistral => MISTRAL,
    }
}

/// Headers that identify a request in a talk with the provider's support, the best first.
pub(super) const REQUEST_ID: &[&str] = &["x-request-id", "request-id", "apim-request-id", "mistral-correlation-id"];

/// Mistral: the tokens that the request was charged.
pub(super) const QUERY_COST: &[&str] = &["x-ratelimit-tokens-query-cost", "ratelimitbysize-query-cost"];
