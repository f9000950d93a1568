//! Response headers as facts.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::Provider;
use super::classify::{clean, mask};
use super::dialect::{Names, QUERY_COST, REQUEST_ID, names};
use super::duration::{parse_duration, parse_retry_after, until_rfc3339};
use crate::cost::{DAY, Dimension, HOUR, MINUTE, SECOND};

/// LiteLLM's proxy passes on a provider's headers under this prefix; only four keep their own names.
const LITELLM: &str = "llm_provider-";

/// One limit as a response shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What is counted.
    pub dimension: Dimension,
    /// The amount per window.
    pub limit: Option<u64>,
    /// What is left of it.
    pub remaining: Option<u64>,
    /// Time until the allowance is full again (not until one more request fits).
    pub reset: Option<Duration>,
    /// `reset` may be off by this much in either direction: a second where it is a bare number of them or a date, and a
    /// millisecond otherwise.
    pub reset_rounding: Duration,
    /// The window, where it is stated or implied by the header's name; see [`Reading::inferred_window`].
    pub window: Option<Duration>,
    /// `remaining` may be off by this much in either direction: 500 for Anthropic's tokens, which are rounded to the
    /// nearest 1,000.
    pub rounding: u64,
}

impl Reading {
    /// The window: the stated one, else computed from `reset · limit / used` and recognised as a second, a minute, an
    /// hour or a day when it is one of them within 10 %.
    ///
    /// OpenAI's `limit-requests` is RPM or RPD under the same name, but a bucket that is `used` short fills up in
    /// `used · window / limit`. `None` where that cannot tell: nothing used, or too little to show in
    /// the reset's milliseconds, or in its seconds where it has only these. Limits that are windows do not fill up so.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate::{DAY, Dimension, providers::Reading};
    ///
    /// let reading = Reading {
    ///     dimension: Dimension::Requests,
    ///     limit: Some(10_000),
    ///     remaining: Some(9_999),
    ///     reset: Some(Duration::from_millis(8_640)),
    ///     reset_rounding: Duration::from_millis(1),
    ///     window: None,
    ///     rounding: 0,
    /// };
    /// assert_eq!(reading.inferred_window(), Some(DAY));
    /// ```
    pub fn inferred_window(&self) -> Option<Duration> {
        if self.window.is_some() {
            return self.window;
        }
        let (limit, reset) = (u128::from(self.limit?), self.reset?.as_nanos());
        let used = limit.checked_sub(u128::from(self.remaining?)).filter(|used| *used > 0)?;
        if reset == 0 {
            return None;
        }
        let off = self.reset_rounding.as_nanos();
        let shortest = reset.saturating_sub(off).checked_mul(limit)? / used;
        let longest = (reset + off).checked_mul(limit)? / used;
        // Where the reset is only exact to a second, both ends of its error have to fit the window.
        let (least, most) = if off > 1_000_000 { (longest, shortest) } else { (shortest, longest) };
        let fits = |window: &Duration| {
            let nanos = window.as_nanos();
            nanos * 11 >= least.saturating_mul(10) && nanos * 9 <= most.saturating_mul(10)
        };
        let mut windows = [SECOND, MINUTE, HOUR, DAY].into_iter().filter(fits);
        let window = windows.next()?;
        windows.next().is_none().then_some(window)
    }

    /// Both at once, of one limit: an organisation's and its project's, whichever holds more.
    pub(crate) fn tighter(&self, other: &Reading) -> Reading {
        let left = |reading: &Reading| reading.remaining.unwrap_or(u64::MAX);
        let tight = if left(other) < left(self) { other } else { self };
        let limit = [self.limit, other.limit].into_iter().flatten().min();
        Reading { limit, ..tight.clone() }
    }
}

/// What the headers of one response tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The limits it shows. The same dimension may come twice (organization and project, minute and month).
    pub readings: Vec<Reading>,
    /// How long to wait before the next try; never zero.
    pub retry_after: Option<Duration>,
    /// The provider's own word on whether a retry can help (`x-should-retry`).
    pub should_retry: Option<bool>,
    /// The provider's name for the request.
    pub request_id: Option<String>,
    /// Mistral: the tokens that the request was charged.
    pub query_cost: Option<u64>,
    /// Where the answer sends the caller (`location`), without password and query, which may hold a key.
    pub location: Option<String>,
}

/// Reads the headers of a response. Headers behind LiteLLM's `llm_provider-` prefix are used where the plain name is
/// missing. Dates count from `now`. A response without such headers costs no allocation.
///
/// Sources: the rate-limit pages of the providers, and recorded exchanges from June and August 2026.
pub fn observe(provider: Provider, headers: &HeaderMap, now: SystemTime) -> Observation {
    Observation {
        readings: names(provider).iter().filter_map(|names| read(names, headers, now)).collect(),
        retry_after: parse_retry_after(headers, now),
        should_retry: text(headers, "x-should-retry").and_then(|value| value.to_ascii_lowercase().parse().ok()),
        request_id: REQUEST_ID.iter().find_map(|name| text(headers, name)).map(mask::id),
        query_cost: QUERY_COST.iter().find_map(|name| number(text(headers, name)?)),
        location: text(headers, "location").map(without_secrets),
    }
}

fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("//") {
        Some((scheme, rest)) if scheme.is_empty() || scheme.ends_with(':') => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            clean(&format!("{scheme}//{}{path}", host.rsplit('@').next().unwrap_or_default()))
        }
        _ => clean(url),
    }
}

fn read(names: &Names, headers: &HeaderMap, now: SystemTime) -> Option<Reading> {
    let amount = |name| number(text(headers, name)?);
    let told = text(headers, names.reset);
    let reset = told.and_then(|value| parse_duration(value).or_else(|| until_rfc3339(value, now)));
    let coarse =
        told.is_some_and(|value| value.bytes().all(|byte| byte.is_ascii_digit()) || parse_duration(value).is_none());
    let reset_rounding = if coarse { SECOND } else { Duration::from_millis(1) };
    let (limit, remaining) = (amount(names.limit), amount(names.remaining));
    if limit.is_none() && remaining.is_none() && reset.is_none() {
        return None;
    }
    let stated = text(headers, names.renewal).and_then(parse_duration).filter(|window| !window.is_zero());
    let window = stated.or(names.window);
    Some(Reading {
        dimension: names.dimension,
        limit,
        remaining,
        reset,
        reset_rounding,
        window,
        rounding: names.rounding,
    })
}

/// The value of `name`, or of the same header behind LiteLLM's prefix; `None` if it is not readable text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get(name).or_else(|| {
        // Asked first, so that the longer name is only built for responses that came through the proxy.
        let proxied = headers.keys().any(|name| name.as_str().starts_with(LITELLM));
        if proxied { headers.get(format!("{LITELLM}{name}")) } else { None }
    })?;
    value.to_str().ok().map(str::trim)
}

/// A whole number, with thousands separators or decimals as some compatible servers write them. Saturates; `None` for
/// anything else, and for the -1 by which some mean "unknown".
pub(super) fn number(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let mut value = None;
    for byte in whole.bytes() {
        match byte {
            b'0'..=b'9' => {
                value = Some(value.unwrap_or(0u64).saturating_mul(10).saturating_add(u64::from(byte - b'0')))
            }
            b',' | b'_' => {}
            _ => return None,
        }
    }
    value
}
