//! Headers as each provider writes them.
//!
//! Sources: the providers' rate-limit pages and recorded exchanges, June to August 2026.

use std::fmt::Display;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

use super::shown::{Gauge, Standing};
use crate::cost::MINUTE;
use crate::providers::Provider;

impl Standing {
    /// Writes it in the headers of the configured dialect, as many as there are limits; OpenAI's are the six
    /// `x-ratelimit-*`. Gemini has none.
    pub fn stamp(&self, headers: &mut HeaderMap) {
        match self.dialect {
            Provider::Gemini => {}
            Provider::Anthropic => self.stamp_anthropic(headers),
            Provider::Azure => self.stamp_azure(headers),
            Provider::Mistral => self.stamp_mistral(headers),
            // Groq writes them as OpenAI does.
            _ => {
                for (what, gauge) in self.common() {
                    stamp_common(headers, what, &gauge);
                    // Cut to milliseconds.
                    let reset = Duration::from_millis(u64::try_from(gauge.reset.as_millis()).unwrap_or(u64::MAX));
                    put(headers, format!("x-ratelimit-reset-{what}"), go_duration(reset));
                }
            }
        }
    }

    fn common(&self) -> impl Iterator<Item = (&'static str, Gauge)> {
        [("requests", self.requests), ("tokens", self.tokens)]
            .into_iter()
            .filter_map(|(what, gauge)| Some((what, gauge?)))
    }

    /// Remaining tokens are rounded to the nearest 1,000, and resets are dates. `tokens` is the sum of both kinds, where there
    /// is no limit of that kind.
    fn stamp_anthropic(&self, headers: &mut HeaderMap) {
        let sum = self.input.zip(self.output).map(|(input, output)| Gauge {
            limit: input.limit.saturating_add(output.limit),
            remaining: input.remaining.saturating_add(output.remaining),
            reset: input.reset.max(output.reset),
            window: input.window,
        });
        let kinds = [
            ("requests", self.requests),
            ("tokens", self.tokens.or(sum)),
            ("input-tokens", self.input),
            ("output-tokens", self.output),
        ];
        for (what, gauge) in kinds {
            let Some(Gauge { limit, remaining, reset, window: _ }) = gauge else { continue };
            let remaining = match what {
                "requests" => remaining,
                _ => (remaining.saturating_add(500) / 1_000 * 1_000).min(limit),
            };
            put(headers, format!("anthropic-ratelimit-{what}-limit"), limit);
            put(headers, format!("anthropic-ratelimit-{what}-remaining"), remaining);
            put(headers, format!("anthropic-ratelimit-{what}-reset"), date(self.wall.saturating_add(reset)));
        }
    }

    /// Resets are whole seconds. Where the requests shown are those of a slice, no window is told.
    fn stamp_azure(&self, headers: &mut HeaderMap) {
        let sliced = self.requests.is_some_and(|gauge| gauge.window < MINUTE);
        for (what, gauge) in self.common() {
            stamp_common(headers, what, &gauge);
            put(headers, format!("x-ratelimit-reset-{what}"), gauge.reset.as_secs());
            if !sliced {
                put(headers, format!("x-ratelimit-renewalperiod-{what}"), gauge.window.as_secs());
            }
        }
    }

    /// There is no reset, but what the request was charged in the end.
    fn stamp_mistral(&self, headers: &mut HeaderMap) {
        for (what, gauge) in [("req-minute", self.requests), ("tokens-minute", self.tokens)] {
            if let Some(gauge) = gauge {
                stamp_common(headers, what, &gauge);
            }
        }
        if let Some(charged) = self.charged {
            put(headers, "x-ratelimit-tokens-query-cost".to_owned(), charged);
        }
    }
}

fn stamp_common(headers: &mut HeaderMap, what: &str, gauge: &Gauge) {
    put(headers, format!("x-ratelimit-limit-{what}"), gauge.limit);
    put(headers, format!("x-ratelimit-remaining-{what}"), gauge.remaining);
}

fn put(headers: &mut HeaderMap, name: String, value: impl Display) {
    // Only a bug could make a name of our own invalid.
    if let Ok(name) = HeaderName::try_from(name) {
        headers.insert(name, text(value.to_string()));
    }
}

/// A wall-clock time to the second, rounded up: at that time it is so.
fn date(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs() + u64::from(since_1970.subsec_nanos() > 0);
    let at = i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    at.unwrap_or(Timestamp::MAX).to_string()
}

/// Writes when to come back: whole seconds, at least one, and the milliseconds.
pub(crate) fn stamp_retry(headers: &mut HeaderMap, wait: Duration) {
    stamp_retry_seconds(headers, wait);
    headers.insert(HeaderName::from_static("retry-after-ms"), text(wait.as_millis().to_string()));
}

/// The seconds alone.
pub(crate) fn stamp_retry_seconds(headers: &mut HeaderMap, wait: Duration) {
    headers.insert(http::header::RETRY_AFTER, text(wait.as_millis().div_ceil(1_000).max(1).to_string()));
}

/// A header value of our own making. Falls back to empty rather than failing, since only a bug could make it invalid.
pub(crate) fn text(value: String) -> HeaderValue {
    HeaderValue::try_from(value).unwrap_or(HeaderValue::from_static(""))
}

/// A wait rounded up to what is printed, so that who waits that long is let in.
pub(crate) fn whole_ms(wait: Duration) -> Duration {
    Duration::from_millis(u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
}

/// A duration as Go's `time.Duration.String()` writes it.
pub(crate) fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanos, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(nanos, 6)),
        _ => {
            let minutes = duration.as_secs() / 60;
            let seconds = decimal(nanos % 60_000_000_000, 9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `number` ÷ 10^`places`, without trailing zeros.
fn decimal(number: u128, places: usize) -> String {
    let unit = 10_u128.pow(u32::try_from(places).unwrap_or(0));
    let text = format!("{}.{:0places$}", number / unit, number % unit);
    text.trim_end_matches('0').trim_end_matches('.').into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (12_000_000, "12ms"),
            (789_600_000, "789.6ms"),
            (1_000_000_000, "1s"),
            (8_640_000_000, "8.64s"),
            (20_000_000_000, "20s"),
            (60_000_000_000, "1m0s"),
            (90_000_000_000, "1m30s"),
            (360_000_000_000, "6m0s"),
            (252_172_000_000, "4m12.172s"),
            (432_000_000_000, "7m12s"),
            (3_600_500_000_000, "1h0m0.5s"),
            (83_909_144_000_000, "23h18m29.144s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }

    /// The header lines of a standing in `dialect`.
    fn lines(dialect: Provider, standing: Standing) -> Vec<String> {
        let mut headers = HeaderMap::new();
        // 2026-08-19T14:33:41Z and a half
        let wall = Duration::from_millis(1_787_150_021_500);
        Standing { dialect, wall, ..standing }.stamp(&mut headers);
        let mut lines: Vec<_> = headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        lines.sort();
        lines
    }

    fn gauge(limit: u64, remaining: u64, reset_us: u64) -> Option<Gauge> {
        Some(Gauge { limit, remaining, reset: Duration::from_micros(reset_us), window: MINUTE })
    }

    #[test]
    fn headers_are_each_providers_own() {
        let openai = Standing {
            requests: gauge(5_000, 4_999, 12_000),
            tokens: gauge(2_000_000, 1_999_235, 22_950),
            ..Standing::default()
        };
        let common = [
            "x-ratelimit-limit-requests: 5000",
            "x-ratelimit-limit-tokens: 2000000",
            "x-ratelimit-remaining-requests: 4999",
            "x-ratelimit-remaining-tokens: 1999235",
        ];
        let six = [&common[..], &["x-ratelimit-reset-requests: 12ms", "x-ratelimit-reset-tokens: 22ms"]].concat(); // truncated
        for dialect in [Provider::Openai, Provider::Compatible, Provider::Groq] {
            assert_eq!(lines(dialect, openai), six);
        }
        assert!(lines(Provider::Gemini, openai).is_empty());
        assert!(lines(Provider::Openai, Standing::default()).is_empty());

        let foundry = [
            "x-ratelimit-renewalperiod-requests: 60",
            "x-ratelimit-renewalperiod-tokens: 60",
            "x-ratelimit-reset-requests: 0",
            "x-ratelimit-reset-tokens: 0",
        ];
        assert_eq!(lines(Provider::Azure, openai), [&common[..], &foundry].concat());
        let slice =
            Gauge { limit: 20, remaining: 19, reset: Duration::from_millis(9_900), window: Duration::from_secs(10) };
        let sliced = Standing { requests: Some(slice), ..Standing::default() };
        let shown =
            ["x-ratelimit-limit-requests: 20", "x-ratelimit-remaining-requests: 19", "x-ratelimit-reset-requests: 9"];
        assert_eq!(lines(Provider::Azure, sliced), shown);

        let mistral = Standing { charged: Some(112), ..openai };
        let shown = [
            "x-ratelimit-limit-req-minute: 5000",
            "x-ratelimit-limit-tokens-minute: 2000000",
            "x-ratelimit-remaining-req-minute: 4999",
            "x-ratelimit-remaining-tokens-minute: 1999235",
            "x-ratelimit-tokens-query-cost: 112",
        ];
        assert_eq!(lines(Provider::Mistral, mistral), shown);

        let (requests, input, output) =
            (gauge(50, 49, 1_200_000), gauge(30_000, 28_499, 3_000_000), gauge(8_000, 7_999, 7_500));
        let anthropic = Standing { requests, input, output, ..Standing::default() };
        let shown = [
            "anthropic-ratelimit-input-tokens-limit: 30000",
            "anthropic-ratelimit-input-tokens-remaining: 28000", // to the nearest 1,000
            "anthropic-ratelimit-input-tokens-reset: 2026-08-19T14:33:45Z",
            "anthropic-ratelimit-output-tokens-limit: 8000",
            "anthropic-ratelimit-output-tokens-remaining: 8000",
            "anthropic-ratelimit-output-tokens-reset: 2026-08-19T14:33:42Z",
            "anthropic-ratelimit-requests-limit: 50",
            "anthropic-ratelimit-requests-remaining: 49",
            "anthropic-ratelimit-requests-reset: 2026-08-19T14:33:43Z",
            "anthropic-ratelimit-tokens-limit: 38000", // the sum
            "anthropic-ratelimit-tokens-remaining: 36000",
            "anthropic-ratelimit-tokens-reset: 2026-08-19T14:33:45Z",
        ];
        assert_eq!(lines(Provider::Anthropic, anthropic), shown);
    }

    #[test]
    fn retry_hints_round_up_and_are_never_zero() {
        for (ms, seconds) in [(0, "1"), (6, "1"), (1_000, "1"), (3_720, "4"), (20_000, "20")] {
            let mut headers = HeaderMap::new();
            stamp_retry(&mut headers, Duration::from_millis(ms));
            assert_eq!(headers["retry-after"], seconds);
            assert_eq!(headers["retry-after-ms"], ms.to_string());
        }
        assert_eq!(whole_ms(Duration::from_nanos(1)), Duration::from_millis(1));
        assert_eq!(whole_ms(Duration::from_millis(6)), Duration::from_millis(6));
    }
}
