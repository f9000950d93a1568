//! Headers as OpenAI writes them.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::book::{Gauge, Standing};

impl Standing {
    /// Writes it as the six `x-ratelimit-*` headers, or as many as there are limits. Resets are cut to milliseconds.
    pub fn stamp(&self, headers: &mut HeaderMap) {
        const REQUESTS: [HeaderName; 3] = [
            HeaderName::from_static("x-ratelimit-limit-requests"),
            HeaderName::from_static("x-ratelimit-remaining-requests"),
            HeaderName::from_static("x-ratelimit-reset-requests"),
        ];
        const TOKENS: [HeaderName; 3] = [
            HeaderName::from_static("x-ratelimit-limit-tokens"),
            HeaderName::from_static("x-ratelimit-remaining-tokens"),
            HeaderName::from_static("x-ratelimit-reset-tokens"),
        ];
        for (gauge, names) in [(self.requests, REQUESTS), (self.tokens, TOKENS)] {
            let Some(Gauge { limit, remaining, reset }) = gauge else { continue };
            let [limit_name, remaining_name, reset_name] = names;
            headers.insert(limit_name, limit.into());
            headers.insert(remaining_name, remaining.into());
            let reset = Duration::from_millis(u64::try_from(reset.as_millis()).unwrap_or(u64::MAX));
            headers.insert(reset_name, text(go_duration(reset)));
        }
    }
}

/// Writes when to come back: whole seconds, at least one, and the milliseconds.
pub(crate) fn stamp_retry(headers: &mut HeaderMap, wait: Duration) {
    let ms = wait.as_millis();
    headers.insert(http::header::RETRY_AFTER, text(ms.div_ceil(1_000).max(1).to_string()));
    headers.insert(HeaderName::from_static("retry-after-ms"), text(ms.to_string()));
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

    #[test]
    fn headers_are_openais() {
        let requests = Gauge { limit: 5_000, remaining: 4_999, reset: Duration::from_micros(12_000) };
        let tokens = Gauge { limit: 2_000_000, remaining: 1_999_235, reset: Duration::from_micros(22_950) };
        let mut headers = HeaderMap::new();
        Standing { requests: Some(requests), tokens: Some(tokens) }.stamp(&mut headers);
        let mut lines: Vec<_> = headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        lines.sort();
        assert_eq!(
            lines,
            [
                "x-ratelimit-limit-requests: 5000",
                "x-ratelimit-limit-tokens: 2000000",
                "x-ratelimit-remaining-requests: 4999",
                "x-ratelimit-remaining-tokens: 1999235",
                "x-ratelimit-reset-requests: 12ms",
                "x-ratelimit-reset-tokens: 22ms", // truncated
            ]
        );
        let mut none = HeaderMap::new();
        Standing::default().stamp(&mut none);
        assert!(none.is_empty());
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
