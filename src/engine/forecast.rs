//! When a request would start, and what holds it.

use std::time::Duration;

use serde::Serialize;

use crate::cost::Limit;

/// When a request would start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forecast {
    /// The expected wait from now on; zero: it would start at once.
    pub starts_in: Duration,
    /// How many go before it.
    pub ahead: usize,
    /// The limit that holds it; `None` if it would start at once, or something else holds it.
    pub binding: Option<Limit>,
    /// What holds it, where that is not a limit.
    pub held_by: Option<Hold>,
}

/// What may hold a request besides the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Hold {
    /// A pause that the provider asked for.
    Pause,
    /// The provider is failing, see [`Breaker`](super::Breaker): the wait is that for the next probe, and nobody knows the
    /// rest.
    Breaker,
    /// The ceiling on the sending rate, see [`Ceiling`](super::Ceiling).
    Ceiling,
    /// No limit is known yet, and a first request has gone ahead to read them off its answer. Nobody knows when that comes; the
    /// others wait for it ten seconds at most.
    Scout,
    /// As many requests are under way as may be, see [`Concurrency`](super::Concurrency). When one of them ends is told from how they
    /// ended lately.
    Concurrency,
}
