//! Durations and dates as providers spell them.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, ZonedDateTime, fmt::rfc2822};

use super::headers::text;
use crate::cost::{DAY, Zone};

/// The longest duration that is reported (100 years): longer ones are cut to it, so that a server's number can be added
/// to any instant.
pub(super) const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// The longest wait that an answer can mean.
const YEAR: Duration = Duration::from_secs(366 * 86_400);

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Reads a duration as rate-limit headers and error texts spell it: Go's form (`12ms`, `8.64s`, `6m0s`, `1h0m0.5s`), or
/// a bare number of seconds (Azure). `None` for anything else, negative durations included; absurd sizes are cut to a
/// century.
///
/// ```
/// use std::time::Duration;
/// use tollgate::providers::parse_duration;
///
/// assert_eq!(parse_duration("4m12.172s"), Some(Duration::from_millis(252_172)));
/// assert_eq!(parse_duration("10"), Some(Duration::from_secs(10)));
/// assert_eq!(parse_duration("soon"), None);
/// ```
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0u128;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let bare = number.len() == text.trim().len();
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let scale = if bare { NANOS_PER_SECOND } else { nanos_per(unit)? };
        nanos = nanos.saturating_add(scaled(number, scale)?);
        rest = tail;
    }
    Some(from_nanos(nanos))
}

/// The wait that the headers ask for: `retry-after` in seconds, as an HTTP date or as a Go duration, and
/// `retry-after-ms`. The longer of the two wins, because Azure sends `retry-after: 1` with `retry-after-ms: 0`. A zero
/// or a date in the past is no hint, and neither is more than a year. Dates are by the server's clock, where the answer has a `date`.
pub fn parse_retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let date = text(headers, "date").and_then(http_date).and_then(|date| SystemTime::try_from(date).ok());
    // A clock that is off by more than a day is none.
    let near =
        |date: &SystemTime| date.duration_since(now).or_else(|_| now.duration_since(*date)).is_ok_and(|off| off < DAY);
    let now = date.filter(near).unwrap_or(now);
    // Some gateways write the moment as a Unix time, where everybody else writes a number of seconds.
    let epoch = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let wait = |wait: Duration| if wait.as_secs() >= 1_000_000_000 { wait.saturating_sub(epoch) } else { wait };
    let written = text(headers, "retry-after")
        .and_then(|value| parse_duration(value).map(wait).or_else(|| until(http_date(value)?, now)));
    let millis = text(headers, "retry-after-ms").and_then(|value| Some(from_nanos(scaled(value, 1_000_000)?)));
    // Nobody means years.
    let meant = |wait: &Duration| !wait.is_zero() && *wait <= YEAR;
    written.filter(meant).max(millis.filter(meant))
}

/// Time from `now` to an RFC 3339 moment (Anthropic's resets); zero if it has passed.
pub(super) fn until_rfc3339(text: &str, now: SystemTime) -> Option<Duration> {
    until(text.trim().parse().ok()?, now)
}

/// Time until Gemini's day ends: its RPD is counted from midnight to midnight Pacific time.
pub fn until_pacific_midnight(now: SystemTime) -> Option<Duration> {
    until_midnight(Zone::Pacific, now)
}

/// Time until the next midnight in `zone`; `None` outside of the years 1 to 9999.
pub fn until_midnight(zone: Zone, now: SystemTime) -> Option<Duration> {
    let midnight = today(zone, now)?.tomorrow().ok()?.start_of_day().ok()?;
    until(midnight.timestamp(), now)
}

/// Time since the last midnight in `zone`; `None` outside of the years 1 to 9999.
pub(crate) fn since_midnight(zone: Zone, now: SystemTime) -> Option<Duration> {
    let midnight = SystemTime::try_from(today(zone, now)?.start_of_day().ok()?.timestamp()).ok()?;
    now.duration_since(midnight).ok()
}

fn today(zone: Zone, now: SystemTime) -> Option<ZonedDateTime> {
    let zone = match zone {
        // The rule in force since 2007, written out: no time zone database is needed.
        Zone::Pacific => TimeZone::posix("PST8PDT,M3.2.0,M11.1.0").ok()?,
        Zone::East(minutes) => TimeZone::fixed(Offset::from_seconds(i32::from(minutes) * 60).ok()?),
    };
    Some(Timestamp::try_from(now).ok()?.to_zoned_datetime(zone))
}

/// In any of the three forms that RFC 9110 (5.6.7) asks everybody to read.
fn http_date(text: &str) -> Option<Timestamp> {
    const OBSOLETE: [&str; 2] = ["%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];
    let text = text.trim();
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok().or_else(|| {
        let date = OBSOLETE.iter().find_map(|form| DateTime::strptime(form, text).ok())?;
        Some(date.to_zoned_datetime(TimeZone::UTC).ok()?.timestamp())
    })
}

pub(super) fn until(moment: Timestamp, now: SystemTime) -> Option<Duration> {
    let moment = SystemTime::try_from(moment).ok()?;
    Some(moment.duration_since(now).unwrap_or_default().min(LONGEST))
}

fn nanos_per(unit: &str) -> Option<u128> {
    Some(match unit {
        "h" => 3_600 * NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "s" => NANOS_PER_SECOND,
        "ms" => 1_000_000,
        // The micro sign, the Greek letter, and the spelling for those who can type neither.
        "µs" | "μs" | "us" => 1_000,
        "ns" => 1,
        _ => return None,
    })
}

/// `number`, a decimal without sign or exponent, times `scale`; fractions below one are cut off.
fn scaled(number: &str, scale: u128) -> Option<u128> {
    let number = number.trim();
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !digits(whole) || !digits(fraction) {
        return None;
    }
    // Digits alone fail to parse only when there are none or too many.
    let whole = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(u128::MAX) };
    // More than 18 decimals are below a nanosecond in every unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let part = if fraction.is_empty() {
        0
    } else {
        fraction.parse::<u128>().ok()? * scale / 10u128.pow(fraction.len() as u32)
    };
    Some(whole.saturating_mul(scale).saturating_add(part))
}

fn from_nanos(nanos: u128) -> Duration {
    let longest = LONGEST.as_nanos();
    let nanos = nanos.min(longest);
    Duration::new((nanos / NANOS_PER_SECOND) as u64, (nanos % NANOS_PER_SECOND) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, header::RETRY_AFTER};

    #[test]
    fn every_spelling_of_a_duration_is_read() {
        let rows: &[(&str, u64)] = &[
            ("0s", 0),
            ("12ms", 12_000_000),
            ("120ms", 120_000_000),
            ("789.6ms", 789_600_000),
            ("1s", 1_000_000_000),
            ("8.64s", 8_640_000_000),
            ("1m30s", 90_000_000_000),
            ("6m0s", 360_000_000_000),
            ("7m12s", 432_000_000_000),
            ("28m48s", 1_728_000_000_000),
            ("4m12.172s", 252_172_000_000),
            ("2m59.56s", 179_560_000_000),
            ("23h18m29.144s", 83_909_144_000_000),
            ("1h0m0.5s", 3_600_500_000_000),
            ("48.939935699s", 48_939_935_699),
            ("1.5µs", 1_500),
            ("1.5μs", 1_500),
            ("2us", 2_000),
            ("3ns", 3),
            ("0", 0),
            ("10", 10_000_000_000),
            (" 300 ", 300_000_000_000),
            ("0.25", 250_000_000),
            (".5s", 500_000_000),
        ];
        for (text, nanos) in rows {
            assert_eq!(parse_duration(text), Some(Duration::from_nanos(*nanos)), "{text}");
        }
    }

    #[test]
    fn junk_and_negative_durations_are_refused() {
        for text in [
            "", " ", "-1", "-1s", "s", "ms", ".", ".s", "1.2.3s", "1x", "1m30", "30 s", "1e3", "NaN", "inf", "+1s",
            "１s",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn absurd_sizes_are_cut_to_a_century() {
        let nines = "9".repeat(400);
        for text in [nines.clone(), format!("{nines}h{nines}h"), format!("{nines}.{nines}s"), u64::MAX.to_string()] {
            assert_eq!(parse_duration(&text), Some(LONGEST));
        }
        assert_eq!(parse_duration(&format!("0.{nines}s")), Some(Duration::from_nanos(999_999_999)));
    }

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().try_into().unwrap()
    }

    #[test]
    fn the_longest_retry_hint_wins_and_zero_is_none() {
        let now = at("2026-08-19T14:00:00Z");
        let rows: &[(Option<&str>, Option<&str>, Option<u64>)] = &[
            (None, None, None),
            (Some("20"), None, Some(20_000)),
            (Some("1.5"), None, Some(1_500)),
            (Some("6m0s"), None, Some(360_000)),
            (Some("Wed, 19 Aug 2026 14:01:30 GMT"), None, Some(90_000)),
            (Some("Wednesday, 19-Aug-26 14:01:30 GMT"), None, Some(90_000)),
            (Some("Wed Aug 19 14:01:30 2026"), None, Some(90_000)),
            (Some("Thu Aug  6 14:01:30 2026"), None, None),
            (Some("Wed, 19 Aug 2026 13:00:00 GMT"), None, None),
            (Some("tomorrow"), None, None),
            (Some("-5"), None, None),
            (Some("0"), Some("0"), None),
            (Some("1"), Some("0"), Some(1_000)),
            (Some("1"), Some("2500"), Some(2_500)),
            (Some("1"), Some("junk"), Some(1_000)),
            (None, Some("789.6"), Some(789)),
        ];
        for (seconds, millis, expected) in rows {
            let mut headers = HeaderMap::new();
            for (name, value) in [("retry-after", seconds), ("retry-after-ms", millis)] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            let wait = parse_retry_after(&headers, now).map(|wait| wait.as_millis() as u64);
            assert_eq!(wait, *expected, "{seconds:?} {millis:?}");
        }
    }

    #[test]
    fn a_date_is_by_the_servers_clock() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("Wed, 19 Aug 2026 15:00:05 GMT"));
        headers.insert(http::header::DATE, HeaderValue::from_static("Wed, 19 Aug 2026 15:00:00 GMT"));
        assert_eq!(parse_retry_after(&headers, at("2026-08-19T14:00:00Z")), Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_unix_time_is_a_moment_and_no_wait_of_half_a_century() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_787_150_000);
        let wait = |text| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            parse_retry_after(&headers, now)
        };
        assert_eq!(wait("1787150020"), Some(Duration::from_secs(20)));
        assert_eq!(wait("1787149999"), None, "it has passed");
    }

    #[test]
    fn a_header_that_is_not_text_is_no_hint() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_bytes(b"\xff\xfe").unwrap());
        assert_eq!(parse_retry_after(&headers, SystemTime::UNIX_EPOCH), None);
    }

    #[test]
    fn a_reset_date_is_a_time_from_now_and_zero_when_past() {
        let now = at("2026-08-19T14:33:41Z");
        assert_eq!(until_rfc3339("2026-08-19T14:34:11Z", now), Some(Duration::from_secs(30)));
        assert_eq!(until_rfc3339("2026-08-19T16:34:11+02:00", now), Some(Duration::from_secs(30)));
        assert_eq!(until_rfc3339("2026-08-19T14:00:00Z", now), Some(Duration::ZERO));
        assert_eq!(until_rfc3339("14:34:11", now), None);
    }

    #[test]
    fn the_pacific_day_ends_at_midnight_in_winter_in_summer_and_on_the_days_between() {
        let rows = [
            ("2026-01-15T07:00:00Z", 3_600),      // 23:00 PST
            ("2026-07-15T06:00:00Z", 3_600),      // 23:00 PDT
            ("2026-03-08T08:00:00Z", 23 * 3_600), // the clock goes forward
            ("2026-11-01T07:00:00Z", 25 * 3_600), // and back
        ];
        for (now, seconds) in rows {
            assert_eq!(until_pacific_midnight(at(now)), Some(Duration::from_secs(seconds)), "{now}");
            let next = at(now) + Duration::from_secs(seconds + 5);
            assert_eq!(since_midnight(Zone::Pacific, next), Some(Duration::from_secs(5)), "{now}");
        }
    }
}
