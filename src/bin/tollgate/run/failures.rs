//! Why rows failed, by kind, and what is wrong while nothing goes through.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::show;

/// As many kinds are told apart: codes come from servers, and may be without number.
const KINDS: usize = 50;
/// As many are shown to people.
const SHOWN: usize = 3;
/// So many attempts in a row that nothing came of are no accident.
const IN_A_ROW: u64 = 3;

/// A kind of failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Kind {
    /// Status and code, as far as there are any: `401 invalid_api_key`, `no_answer`.
    pub(crate) kind: String,
    /// Rows that failed for it.
    pub(crate) count: u64,
    /// What was said to the first of them, with advice.
    pub(crate) example: String,
}

/// The failures of a run.
#[derive(Debug, Default)]
pub(crate) struct Failures(Mutex<HashMap<String, (u64, String)>>);

impl Failures {
    /// A row failed for good.
    pub(crate) fn note(&self, kind: &str, example: &str) {
        let mut kinds = unpoisoned(&self.0);
        let kind = if kinds.len() < KINDS || kinds.contains_key(kind) { kind } else { "other" };
        match kinds.get_mut(kind) {
            Some((count, _)) => *count += 1,
            None => drop(kinds.insert(kind.to_owned(), (1, example.to_owned()))),
        }
    }

    /// The kinds, the most frequent first.
    pub(crate) fn kinds(&self) -> Vec<Kind> {
        let kinds = unpoisoned(&self.0);
        let kind = |(kind, (count, example)): (&String, &(u64, String))| Kind {
            kind: kind.clone(),
            count: *count,
            example: example.clone(),
        };
        let mut kinds: Vec<_> = kinds.iter().map(kind).collect();
        kinds.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.kind.cmp(&b.kind)));
        kinds
    }
}

/// A line for each of the most frequent kinds: `20 × 401 invalid_api_key: …`.
pub(crate) fn lines(kinds: &[Kind]) -> Vec<String> {
    let line = |kind: &Kind| format!("{} × {}", show::count(kind.count), kind.example);
    let mut lines: Vec<_> = kinds.iter().take(SHOWN).map(line).collect();
    if kinds.len() > SHOWN {
        lines.push(format!("… and {}", show::of((kinds.len() - SHOWN) as u64, "other reason", "other reasons")));
    }
    lines
}

/// What the attempts since the last answer met.
#[derive(Debug, Default)]
pub(crate) struct Silence(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    answered: bool,
    in_a_row: u64,
    last: String,
}

impl Silence {
    /// An attempt brought no answer, or that the provider is failing.
    pub(crate) fn met(&self, what: String) {
        let mut state = unpoisoned(&self.0);
        state.in_a_row += 1;
        state.last = what;
    }

    /// The provider answered.
    pub(crate) fn over(&self) {
        *unpoisoned(&self.0) = State { answered: true, ..State::default() };
    }

    /// What is wrong, if nothing goes through.
    pub(crate) fn reason(&self) -> Option<String> {
        let state = unpoisoned(&self.0);
        let silent = state.in_a_row >= IN_A_ROW || (state.in_a_row > 0 && !state.answered);
        silent.then(|| state.last.clone())
    }
}

/// `no answer from api.example.com: dns error: …`. What the layers of the client call each other is left out.
pub(crate) fn no_answer(error: &reqwest::Error) -> String {
    let url = error.url();
    let port = url.and_then(|url| url.port()).map_or_else(String::new, |port| format!(":{port}"));
    let host = url.and_then(|url| url.host_str()).unwrap_or("the provider");
    let first = std::error::Error::source(error);
    let causes = std::iter::successors(first, |error| error.source()).map(ToString::to_string);
    let mut causes: Vec<_> = causes.filter(|cause| !cause.starts_with("client error")).collect();
    // Some repeat the cause in their own words.
    causes.dedup_by(|cause, before| before.contains(cause.as_str()));
    if causes.is_empty() {
        causes.push(if error.is_timeout() { "timed out" } else { "the connection broke" }.to_owned());
    }
    let allowed = if error.is_timeout() && !error.is_connect() { " (--timeout allows for more)" } else { "" };
    format!("no answer from {host}{port}: {}{allowed}", causes.join(": "))
}

fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_reasons_are_shown_and_the_rest_is_counted() {
        let failures = Failures::default();
        for (kind, count) in [("a", 1), ("b", 3), ("c", 2), ("d", 1)] {
            (0..count).for_each(|nth| failures.note(kind, &format!("{kind}: {nth}")));
        }
        assert_eq!(lines(&failures.kinds()), ["3 × b: 0", "2 × c: 0", "1 × a: 0", "… and 1 other reason"]);
    }

    #[test]
    fn kinds_without_number_are_one() {
        let failures = Failures::default();
        (0..1_000).for_each(|kind| failures.note(&kind.to_string(), "x"));
        let kinds = failures.kinds();
        assert_eq!((kinds.len(), kinds[0].kind.as_str(), kinds[0].count), (KINDS + 1, "other", 1_000 - KINDS as u64));
    }

    #[test]
    fn one_failure_among_answers_is_no_silence() {
        let silence = Silence::default();
        assert_eq!(silence.reason(), None);
        silence.met("dns".to_owned());
        assert_eq!(silence.reason().as_deref(), Some("dns"), "nothing was answered yet");
        silence.over();
        silence.met("reset".to_owned());
        assert_eq!(silence.reason(), None);
        (1..IN_A_ROW).for_each(|_| silence.met("refused".to_owned()));
        assert_eq!(silence.reason().as_deref(), Some("refused"));
        silence.over();
        assert_eq!(silence.reason(), None);
    }
}
