//! Why a lane does not take a request.

use std::time::Duration;

use thiserror::Error;

use crate::cost::Limit;
use crate::providers::{Class, Failure};

/// Why a lane does not take a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Larger than the limit can ever hold: waiting would not help.
    #[error("the request takes {size} {what}, more than {limit} can ever let pass; make it smaller or raise the limit", what = limit.dimension)]
    TooLarge {
        /// The limit that is too small.
        limit: Limit,
        /// What the request takes of it.
        size: u64,
    },
    /// It could not start in time; nothing was sent.
    #[error("the request cannot start before its deadline: it would start in {starts_in:.1?}{}", binding.map(|limit| format!(", held by {limit}")).unwrap_or_default())]
    Deadline {
        /// How long it would have waited.
        starts_in: Duration,
        /// The limit that holds it.
        binding: Option<Limit>,
    },
    /// The provider is failing, and the breaker is open: nothing is sent but probes. The request cannot start in time, or
    /// the provider has been failing for longer than anybody waits.
    #[error(
        "the provider is failing ({}) and the next probe is in {probe_in:.1?}; send again later, or let the request wait longer",
        last.words()
    )]
    BreakerOpen {
        /// The last failure.
        last: Class,
        /// When the next request may go to see whether it is over; zero while one is under way.
        probe_in: Duration,
    },
    /// The lane's queue is full.
    #[error("{waiting} requests wait already, as many as may; submit fewer at a time or raise the queue's bound")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// The scheduler takes no new requests.
    #[error("the scheduler is closed")]
    Closed,
    /// The account that would take it left the rotation, and so did every other that could.
    #[error("account {account} is out of use: {failure}; mend it and call restore, or add another account")]
    Retired {
        /// The account's name.
        account: String,
        /// What the provider answered.
        failure: Box<Failure>,
    },
}

impl Refusal {
    /// As it is written in spans and metrics.
    pub const fn name(&self) -> &'static str {
        match self {
            Refusal::TooLarge { .. } => "too_large",
            Refusal::Deadline { .. } => "deadline",
            Refusal::BreakerOpen { .. } => "breaker_open",
            Refusal::QueueFull { .. } => "queue_full",
            Refusal::Closed => "closed",
            Refusal::Retired { .. } => "retired",
        }
    }
}
