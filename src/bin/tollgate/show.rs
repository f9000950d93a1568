//! What people read: lines on standard error, numbers and durations in words.

use std::fmt::Display;
use std::io::Write;
use std::time::Duration;

use tollgate::Secret;

/// A line on standard error. Nobody may be there to read it, which is no reason to fail.
pub(crate) fn line(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Text on standard output. Nobody may be left to read it.
pub(crate) fn out(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A key shorter than this is no secret, and hiding it would tear words apart.
pub(crate) const SHORTEST_SECRET: usize = 8;

/// The text without the key, whatever a server made of it.
pub(crate) fn without(text: &str, secret: Option<&Secret>) -> String {
    match secret.map(Secret::expose).filter(|secret| secret.len() >= SHORTEST_SECRET) {
        Some(secret) => text.replace(secret, "***"),
        None => text.to_owned(),
    }
}

/// The one error that ends the program, with its causes.
pub(crate) fn error(error: &anyhow::Error) {
    let mut causes = error.chain();
    line(format_args!("tollgate: {}", causes.next().map(ToString::to_string).unwrap_or_default()));
    causes.for_each(|cause| line(format_args!("  because: {cause}")));
}

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `count` of a thing, in the singular where it is one.
pub(crate) fn of(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A duration as people say it: `0.8 s`, `2 min 5 s`, `3 h 10 min`.
pub(crate) fn time(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A share as a percentage.
pub(crate) fn share(part: f64) -> String {
    format!("{:.1} %", part * 100.0)
}

/// The command that was typed, so that it can be typed again.
pub(crate) fn command() -> String {
    let mut words = std::env::args_os().map(|word| quoted(&word.to_string_lossy()));
    let _ = words.next();
    std::iter::once("tollgate".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// A word as a shell reads it.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_words_are_quoted() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(["a.jsonl", "my file", "it's", ""].map(quoted), ["a.jsonl", "'my file'", r"'it'\''s'", "''"]);
        assert_eq!(
            [1, 75, 3_700, 90_000].map(Duration::from_secs).map(time),
            ["1.0 s", "1 min 15 s", "1 h 1 min", "1 d 1 h"]
        );
    }
}
