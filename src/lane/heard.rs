//! What is heard of a request at its end, and what a lane counts of it.

use std::time::Duration;

use crate::engine::{End, Outcome};
use crate::providers::{Failure, Retry};

/// What was heard of a request at its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Heard<'a> {
    /// It was not sent, or given up.
    Nothing,
    /// It went well, with so many tokens of output if that is known.
    Answer { output: Option<u64> },
    /// The caller's closure failed and did not say why; with so many tokens of output if that is known, and whether it said
    /// that the provider has `answered` at all.
    Unexplained { output: Option<u64>, answered: bool },
    /// It failed; a lane that is refused without being told for how long waits for this time.
    Failure(&'a Failure, Duration),
}

impl Heard<'_> {
    /// How a call went of which this was heard at that end; `None` if it was not one.
    pub(crate) fn outcome(self, end: End) -> Option<Outcome> {
        Some(match self {
            Heard::Nothing if end == End::Unsent => return None,
            Heard::Nothing => Outcome::Abandoned,
            Heard::Answer { .. } => Outcome::Answered,
            Heard::Unexplained { .. } => Outcome::Rejected,
            Heard::Failure(failure, _) if failure.retry() == Retry::AfterLimit || failure.status == 429 => {
                Outcome::RateLimited
            }
            Heard::Failure(failure, _) if failure.is_outage() || failure.retry() == Retry::Backoff => Outcome::Failed,
            Heard::Failure(..) => Outcome::Rejected,
        })
    }

    pub(super) fn is_answer(self) -> bool {
        match self {
            Heard::Nothing => false,
            Heard::Answer { .. } => true,
            Heard::Unexplained { answered, .. } => answered,
            Heard::Failure(failure, _) => (100..500).contains(&failure.status),
        }
    }
}

/// What a lane has met; see [`LaneSnapshot`](crate::LaneSnapshot).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Attempts that repeated a failed one.
    pub retries: u64,
    /// Every HTTP 429, be it for a limit, for the rate of sending (`slow_down`) or for want of credit, and what says the
    /// same inside of a stream.
    pub rate_limited: u64,
    /// Attempts that failed in other ways.
    pub failed: u64,
    /// Times the breaker opened because the provider was failing.
    pub outages: u64,
}

impl Counters {
    pub(super) fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::RateLimited => self.rate_limited += 1,
            Outcome::Failed | Outcome::Rejected => self.failed += 1,
            _ => {}
        }
    }
}
