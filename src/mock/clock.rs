//! The one place in the mock that reads a clock.

use std::time::Duration;

use tokio::time::Instant;

/// Time since the mock started; everything else is told it.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    unix: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let unix = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
        Self { start: Instant::now(), unix }
    }

    /// Time since the start.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Seconds since 1970 for the `created` fields: the wall clock at the start plus the time since.
    pub(crate) fn unix(&self) -> u64 {
        self.unix + self.now().as_secs()
    }
}
