//! Failures after which a key or an account is of no use for a while, or for ever.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

use super::duration::until;
use super::{Class, Failure};

/// Who is of no use after a failure, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retirement {
    /// Who.
    pub scope: Scope,
    /// When it can be used again, from now on; `None`: not before somebody has acted.
    pub back_in: Option<Duration>,
}

/// What a failure makes useless.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scope {
    /// The key that was used; other keys of the account are not concerned.
    Key,
    /// The account with all its keys.
    Account,
}

/// Spend limits that free up at the start of a month (OpenAI and Anthropic say so, Groq's is monthly too).
const MONTHLY: &[&str] = &[
    "organization_spend_limit_exceeded",
    "project_spend_limit_exceeded",
    "organization_usage_limit_exceeded",
    "billing_hard_limit_reached",
    "enforced_spend_limit_reached",
    "blocked_api_access",
];

/// What `failure` says about the key and the account that it was met with; `None` when both can still be used.
///
/// | failure | who | back |
/// |---|---|---|
/// | the key is not accepted | the key | never by itself |
/// | the account is deactivated | the account | never by itself |
/// | no credit left | the account | never by itself |
/// | a monthly spend limit | the account | at the time the message names, else at the month's start (UTC) |
/// | Azure's free trial is used up | the account | in a day |
///
/// ```
/// use std::time::SystemTime;
/// use tollgate::providers::{Observation, Provider, Scope, classify, retirement};
///
/// let revoked = classify(Provider::Openai, 401, &Observation::default(), br#"{"error": {"code": "invalid_api_key"}}"#);
/// let retired = retirement(&revoked, SystemTime::now()).unwrap();
/// assert_eq!((retired.scope, retired.back_in), (Scope::Key, None));
/// let failed = classify(Provider::Openai, 500, &Observation::default(), b"");
/// assert_eq!(retirement(&failed, SystemTime::now()), None);
/// ```
pub fn retirement(failure: &Failure, wall: SystemTime) -> Option<Retirement> {
    let code = failure.code.as_deref().unwrap_or_default();
    let scope = match failure.class {
        Class::Unauthorized if code == "account_deactivated" => Scope::Account,
        Class::Unauthorized => Scope::Key,
        Class::QuotaExhausted => Scope::Account,
        _ => return None,
    };
    let message = failure.message.to_ascii_lowercase();
    let back_in = if failure.class == Class::Unauthorized {
        None
    } else if MONTHLY.contains(&code) || message.contains("specified api usage limits") {
        // A time that has passed by our clock would bring it back at once.
        named_time(&message, wall).filter(|wait| !wait.is_zero()).or_else(|| until_month(wall))
    } else {
        failure.wait
    };
    Some(Retirement { scope, back_in })
}

/// `… you will regain access on 2026-12-01 at 00:00 utc …`
fn named_time(message: &str, wall: SystemTime) -> Option<Duration> {
    let (_, rest) = message.split_once("regain access on ")?;
    let mut words = rest.split_whitespace();
    let date = words.next()?.trim_end_matches(['.', ',']).parse::<Date>().ok()?;
    let time = words.nth(1).and_then(|time| Time::strptime("%H:%M", time.trim_end_matches('.')).ok());
    let at = date.to_datetime(time.unwrap_or(Time::midnight()));
    until_utc(at, wall)
}

/// Until the next month begins, in UTC.
fn until_month(wall: SystemTime) -> Option<Duration> {
    let today = Timestamp::try_from(wall).ok()?.to_zoned_datetime(TimeZone::UTC).date();
    until_utc(today.last_of_month().tomorrow().ok()?.to_datetime(Time::midnight()), wall)
}

fn until_utc(at: DateTime, wall: SystemTime) -> Option<Duration> {
    until(at.to_zoned_datetime(TimeZone::UTC).ok()?.timestamp(), wall)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::{Observation, Provider, classify};

    fn wall() -> SystemTime {
        // 2026-09-24 12:00 UTC
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_251_200)
    }

    fn retired(provider: Provider, status: u16, body: &str) -> Option<(Scope, Option<u64>)> {
        let failure = classify(provider, status, &Observation::default(), body.as_bytes());
        retirement(&failure, wall()).map(|found| (found.scope, found.back_in.map(|wait| wait.as_secs())))
    }

    #[test]
    fn a_refused_key_leaves_and_does_not_come_back_by_itself() {
        let rows = [
            (
                Provider::Openai,
                401,
                r#"{"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}"#,
            ),
            (Provider::Gemini, 400, r#"{"error": {"message": "API key not valid. Please pass a valid API key."}}"#),
            (
                Provider::Anthropic,
                401,
                r#"{"error": {"type": "authentication_error", "message": "invalid x-api-key"}}"#,
            ),
            (Provider::Mistral, 401, r#"{"detail": "Invalid API Key"}"#),
        ];
        for (provider, status, body) in rows {
            assert_eq!(retired(provider, status, body), Some((Scope::Key, None)), "{body}");
        }
    }

    #[test]
    fn an_account_without_credit_leaves_whole_and_a_spend_limit_ends_with_the_month() {
        let week = 6 * 86_400 + 43_200;
        let rows = [
            (Provider::Openai, 429, r#"{"error": {"code": "insufficient_quota"}}"#, None),
            (Provider::Openai, 401, r#"{"error": {"code": "account_deactivated"}}"#, None),
            (Provider::Openai, 429, r#"{"error": {"code": "credit_balance_exhausted"}}"#, None),
            (Provider::Openai, 429, r#"{"error": {"code": "project_spend_limit_exceeded"}}"#, Some(week)),
            (Provider::Groq, 400, r#"{"error": {"code": "blocked_api_access"}}"#, Some(week)),
            (Provider::Anthropic, 402, r#"{"error": {"type": "billing_error"}}"#, None),
            (
                Provider::Anthropic,
                400,
                r#"{"error": {"type": "invalid_request_error", "message": "You have reached your specified API usage limits. You will regain access on 2026-09-25 at 06:30 UTC."}}"#,
                Some(66_600),
            ),
            (
                Provider::Anthropic,
                400,
                r#"{"error": {"type": "invalid_request_error", "message": "You have reached your specified API usage limits."}}"#,
                Some(week),
            ),
            (
                Provider::Azure,
                429,
                r#"{"error": {"code": "429", "message": "Please retry after 86400 seconds."}}"#,
                Some(86_400),
            ),
            (Provider::Azure, 429, r#"{"error": {"code": "429", "message": "Retry in 25 hours"}}"#, Some(90_000)),
        ];
        for (provider, status, body, back_in) in rows {
            assert_eq!(retired(provider, status, body), Some((Scope::Account, back_in)), "{body}");
        }
    }

    #[test]
    fn failures_that_pass_or_are_the_requests_own_retire_nobody() {
        let rows = [
            (500, "{}"),
            (503, "{}"),
            (400, r#"{"error": {"message": "nope", "type": "invalid_request_error"}}"#),
            (403, "{}"),
            (404, r#"{"error": {"code": "model_not_found"}}"#),
            (429, r#"{"error": {"code": "rate_limit_exceeded"}}"#),
            (429, r#"{"error": {"code": "slow_down"}}"#),
        ];
        for (status, body) in rows {
            assert_eq!(retired(Provider::Openai, status, body), None, "{status} {body}");
        }
    }
}
