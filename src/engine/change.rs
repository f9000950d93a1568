//! What changed in a lane that somebody should know.

use std::time::Duration;

use crate::cost::Limit;
use crate::providers::Class;

/// Something that changed; see [`Machine::take_changes`](super::Machine::take_changes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// The breaker opened: nothing is sent but probes.
    Opened {
        /// The last failure.
        last: Class,
    },
    /// A probe went well: the breaker is closed.
    Recovered {
        /// How long it was open.
        after: Duration,
    },
    /// The provider's answers show another number than was known.
    Limit {
        /// What was believed before; `None` where no such limit was known.
        before: Option<Limit>,
        /// What holds now.
        now: Limit,
    },
    /// A part of a day limit is used.
    Budget {
        /// The limit.
        limit: Limit,
        /// Which part, in percent: 80 or 100.
        percent: u8,
        /// What is used of it.
        used: u64,
    },
    /// More requests wait than `queue_alert` says.
    QueueLong {
        /// How many.
        waiting: usize,
    },
    /// No more than half of that many wait.
    QueueShort {
        /// How many.
        waiting: usize,
    },
}
