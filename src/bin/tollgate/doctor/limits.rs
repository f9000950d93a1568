//! The account's limits as an answer shows them, against those that are configured.

use tollgate::providers::{Reading, lookup, tiers};
use tollgate::{Dimension, Limit, Provider};

use super::call::Answer;
use super::finding::Finding;
use super::subject::Subject;
use super::verdict::Verdict;
use crate::show;

const CHECK: &str = "limits";

pub(super) fn check(subject: &Subject, answer: &Answer) -> Finding {
    let readings: Vec<_> = answer.observe(subject.provider).readings;
    let shown: Vec<_> = readings.iter().filter(|reading| reading.limit.is_some()).collect();
    if shown.is_empty() {
        return Finding::skipped(CHECK, "this answer shows none; those of a paid call may (--probe --model …)");
    }
    let listed = shown.iter().map(|reading| described(reading)).collect::<Vec<_>>().join(", ");
    let listed = match tier_of(subject, &shown) {
        Some(tier) => format!("{listed}: those of {tier}"),
        None => listed,
    };
    let lower = shown.iter().find_map(|reading| Some((reading, exceeded(subject, reading)?)));
    if let Some((reading, configured)) = lower {
        return Finding::fail(
            CHECK,
            format!("{listed}; but {} {} is configured", configured.name(), show::count(configured.amount)),
        )
        .blame(
            Verdict::Limits,
            format!(
                "{} {} is configured and the account has {}; configure that, or ask for a higher tier",
                configured.name(),
                show::count(configured.amount),
                described(reading),
            ),
        );
    }
    match shown.iter().find(|reading| reading.remaining == Some(0)) {
        Some(empty) => Finding::warn(CHECK, format!("{listed}; nothing is left of the {} now", empty.dimension)),
        None => Finding::ok(CHECK, listed),
    }
}

/// `30,000 tokens per minute, 29,000 left`.
fn described(reading: &Reading) -> String {
    let amount = reading.limit.unwrap_or_default();
    let limit = match reading.inferred_window() {
        Some(window) => {
            let limit = Limit::new(reading.dimension, amount, window);
            format!("{} {}", limit.name(), show::count(amount))
        }
        None => format!("{} {}", show::count(amount), reading.dimension),
    };
    match reading.remaining {
        Some(left) => format!("{limit} ({} left)", show::count(left)),
        None => limit,
    }
}

/// The configured limit that the account does not have.
fn exceeded<'a>(subject: &'a Subject, reading: &Reading) -> Option<&'a Limit> {
    let amount = reading.limit?;
    // Azure may show the ten-second slice of the minute's requests.
    let sliced =
        subject.provider == Provider::Azure && reading.dimension == Dimension::Requests && reading.window.is_none();
    let amount = if sliced { amount.saturating_mul(6) } else { amount };
    // A header whose window is not told may be about any of them, the tightest most likely.
    let window = reading.inferred_window();
    let comparable =
        |limit: &&Limit| limit.dimension == reading.dimension && window.is_none_or(|window| window == limit.window);
    let lowest = subject.limits.iter().map(|(limit, _)| limit).filter(comparable).min_by_key(|limit| limit.amount)?;
    (lowest.amount > amount).then_some(lowest)
}

/// The tier whose published limits of the model are the ones shown.
fn tier_of(subject: &Subject, shown: &[&Reading]) -> Option<&'static str> {
    let model = subject.model.as_deref()?;
    tiers(subject.provider).into_iter().find(|tier| {
        let Some(row) = lookup(subject.provider, tier, model) else { return false };
        let fits = |reading: &&Reading| {
            row.limits.iter().any(|limit| limit.dimension == reading.dimension && Some(limit.amount) == reading.limit)
        };
        shown.iter().all(fits)
    })
}
