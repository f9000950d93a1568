//! What error messages tell in words: the limit that was hit, and how long to wait.

use std::time::Duration;

use super::LimitHit;
use crate::cost::{DAY, Dimension, HOUR, MINUTE};
use crate::providers::duration::{LONGEST, parse_duration};
use crate::providers::headers::number;

/// The longest wait that `message` asks for: "try again in 7m12s", "retry after 8 seconds", "Please wait 46 seconds",
/// "Please retry in 48.939935699s".
pub(super) fn wait(message: &str) -> Option<Duration> {
    const LABELS: [&str; 4] = ["try again in ", "retry after ", "please wait ", "retry in "];
    let lower = message.to_ascii_lowercase();
    let waits = LABELS.iter().flat_map(|label| lower.match_indices(label).map(|(at, label)| at + label.len()));
    waits.filter_map(|at| spoken_duration(&lower[at..])).max().filter(|wait| !wait.is_zero())
}

/// A duration at the start of `text`: in Go's form, or a number and a unit in words.
fn spoken_duration(text: &str) -> Option<Duration> {
    let mut words = text.split_whitespace().map(|word| word.trim_end_matches(['.', ',', ';', ')']));
    let first = words.next()?;
    let amount = parse_duration(first)?;
    if first.bytes().any(|b| b.is_ascii_alphabetic()) {
        return Some(amount);
    }
    let unit = words.next().unwrap_or_default();
    let starts = |start: &str| unit.starts_with(start);
    if unit == "ms" || starts("millisecond") {
        return Some(amount / 1_000);
    }
    let seconds = if unit.is_empty() || unit == "s" || starts("sec") {
        1
    } else if starts("min") {
        60
    } else if starts("hour") {
        3_600
    } else if starts("day") {
        86_400
    } else {
        return None;
    };
    Some(amount.saturating_mul(seconds).min(LONGEST))
}

/// The limit that `message` names, in any of the providers' phrasings:
///
/// * OpenAI, Groq: "on tokens per min (TPM): Limit 30000, Used 24102, Requested 7758";
///   before 2023 "on requests per min. Limit: 20.000000 / min. Current: 24.000000 / min."
/// * Anthropic: "rate limit of 30,000 input tokens per minute"
/// * Azure: "have exceeded token rate limit", "call rate limit"
/// * GitHub Models: "Rate limit of 50000 per 60s exceeded for UserByModelByMinuteUncachedInputTokens"
pub(super) fn limit(message: &str) -> Option<LimitHit> {
    per_window(message).or_else(|| azure(message)).or_else(|| github_models(message))
}

fn per_window(message: &str) -> Option<LimitHit> {
    // The longer names first: "tokens per" is the end of "input tokens per".
    const PHRASES: [(&str, Dimension); 4] = [
        ("input tokens per ", Dimension::InputTokens),
        ("output tokens per ", Dimension::OutputTokens),
        ("tokens per ", Dimension::Tokens),
        ("requests per ", Dimension::Requests),
    ];
    let (before, after, dimension) =
        PHRASES.iter().find_map(|(phrase, dimension)| message.split_once(phrase).map(|(b, a)| (b, a, *dimension)))?;
    const WINDOWS: [(&str, Duration); 4] =
        [("sec", Duration::from_secs(1)), ("min", MINUTE), ("hour", HOUR), ("day", DAY)];
    let window = WINDOWS.iter().find(|(name, _)| after.starts_with(name)).map(|(_, window)| *window);
    let stated = before.rsplit_once("limit of ").and_then(|(_, amount)| number(amount.trim()));
    Some(LimitHit {
        dimension,
        window,
        limit: stated.or_else(|| labelled(after, "Limit")),
        used: labelled(after, "Used").or_else(|| labelled(after, "Current")),
        requested: labelled(after, "Requested"),
    })
}

fn azure(message: &str) -> Option<LimitHit> {
    // The call rate is checked in slices of 1 s or 10 s, so its window is not known.
    let (dimension, window) = if message.contains("exceeded token rate limit") {
        (Dimension::Tokens, Some(MINUTE))
    } else if message.contains("exceeded call rate limit") {
        (Dimension::Requests, None)
    } else {
        return None;
    };
    Some(LimitHit { dimension, window, limit: None, used: None, requested: None })
}

fn github_models(message: &str) -> Option<LimitHit> {
    let (_, rest) = message.split_once("Rate limit of ")?;
    let (limit, rest) = rest.split_once(" per ")?;
    let (window, rest) = rest.split_once(" exceeded for ")?;
    let name = rest.split_whitespace().next()?;
    let dimension = if name.contains("InputTokens") {
        Dimension::InputTokens
    } else if name.contains("OutputTokens") {
        Dimension::OutputTokens
    } else if name.contains("Tokens") {
        Dimension::Tokens
    } else {
        Dimension::Requests
    };
    Some(LimitHit { dimension, window: parse_duration(window), limit: number(limit), used: None, requested: None })
}

/// The number after `label`, as in "Limit 30000" and "Limit: 20.000000".
fn labelled(text: &str, label: &str) -> Option<u64> {
    let (_, rest) = text.split_once(label)?;
    let rest = rest.trim_start_matches([':', ' ']);
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != ',' && c != '.').unwrap_or(rest.len());
    number(&rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_in_every_wording() {
        let rows = [
            ("Please try again in 3.72s. Visit https://platform.openai.com", Some(3_720)),
            ("Please try again in 6ms.", Some(6)),
            ("Please try again in 7m12s.", Some(432_000)),
            ("Please try again in 23.5125s. Need more tokens? …", Some(23_512)),
            ("Please retry after 8 seconds.", Some(8_000)),
            ("Please retry after 1 second.", Some(1_000)),
            ("Please wait 46 seconds before retrying.", Some(46_000)),
            ("Please retry in 48.939935699s.", Some(48_939)),
            ("Try again in 2 minutes, or retry after 90 seconds", Some(120_000)),
            ("Try again in 1 hour", Some(3_600_000)),
            ("retry after 86400 seconds", Some(86_400_000)),
            ("retry in 5", Some(5_000)),
            ("retry in 5 s.", Some(5_000)),
            ("retry after 500 ms", Some(500)),
            ("retry after 1500 milliseconds", Some(1_500)),
            ("retry in 0s", None),
            ("Please try again in 1 month.", None),
            ("Please try again in a while.", None),
            ("Please try again in ", None),
            ("Please try again later.", None),
        ];
        for (message, millis) in rows {
            assert_eq!(wait(message).map(|wait| wait.as_millis()), millis, "{message}");
        }
    }

    #[test]
    fn limits_are_read_in_every_wording() {
        use Dimension::{InputTokens, OutputTokens, Requests, Tokens};
        const SECOND: Duration = Duration::from_secs(1);
        let hit = |dimension, window: Duration, limit, used, requested| {
            Some(LimitHit { dimension, window: Some(window), limit, used, requested })
        };
        let rows = [
            (
                "on tokens per min (TPM): Limit 30000, Used 24102, Requested 7758. Please",
                hit(Tokens, MINUTE, Some(30_000), Some(24_102), Some(7_758)),
            ),
            (
                "on tokens per minute (TPM): Limit 8,000, Requested 11,176, please reduce",
                hit(Tokens, MINUTE, Some(8_000), None, Some(11_176)),
            ),
            (
                "on requests per min (RPM): Limit 3, Used 3, Requested 1.",
                hit(Requests, MINUTE, Some(3), Some(3), Some(1)),
            ),
            (
                "on requests per day (RPD): Limit 200, Used 200, Requested 1.",
                hit(Requests, DAY, Some(200), Some(200), Some(1)),
            ),
            (
                "on tokens per day (TPD): Limit 100000, Used 99348, Requested 1968.",
                hit(Tokens, DAY, Some(100_000), Some(99_348), Some(1_968)),
            ),
            (
                "on requests per min. Limit: 20.000000 / min. Current: 24.000000 / min.",
                hit(Requests, MINUTE, Some(20), Some(24), None),
            ),
            (
                "organization's rate limit of 30,000 input tokens per minute (org: …)",
                hit(InputTokens, MINUTE, Some(30_000), None, None),
            ),
            ("rate limit of 8,000 output tokens per minute", hit(OutputTokens, MINUTE, Some(8_000), None, None)),
            ("rate limit of 50 requests per minute", hit(Requests, MINUTE, Some(50), None, None)),
            ("limit of 1 requests per second", hit(Requests, SECOND, Some(1), None, None)),
            (
                "have exceeded token rate limit of your current OpenAI S0 pricing tier",
                hit(Tokens, MINUTE, None, None, None),
            ),
            (
                "have exceeded call rate limit of your current OpenAI S0 pricing tier",
                Some(LimitHit { dimension: Requests, window: None, limit: None, used: None, requested: None }),
            ),
            (
                "Rate limit of 50000 per 60s exceeded for UserByModelByMinuteUncachedInputTokens. Please wait",
                hit(InputTokens, MINUTE, Some(50_000), None, None),
            ),
            ("on images per min: Limit 5, Used 5, Requested 1", None),
            ("Rate limit exceeded", None),
        ];
        for (message, expected) in rows {
            assert_eq!(limit(message), expected, "{message}");
        }
    }
}
