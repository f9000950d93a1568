//! What has happened so far, counted by everybody who works.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Counts of one run. Each is right in itself; together they are only when nothing runs any more.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) succeeded: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// Rows whose earlier sending had no result, and that have one now.
    pub(crate) resolved: AtomicU64,
    /// Failures of a kind that meets every row, since the last success.
    general: AtomicU64,
    /// The first and the latest admission in nanoseconds since the start, and one more, so that zero is none.
    first: AtomicU64,
    last: AtomicU64,
}

impl Tally {
    /// A request is admitted, `since` the start.
    pub(crate) fn admitted(&self, since: Duration) {
        let now = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX - 1) + 1;
        self.last.fetch_max(now, Relaxed);
        if self.first.load(Relaxed) == 0 {
            let _ = self.first.compare_exchange(0, now, Relaxed, Relaxed);
        }
    }

    /// From the first admission to the latest.
    pub(crate) fn span(&self) -> Duration {
        Duration::from_nanos(self.last.load(Relaxed).saturating_sub(self.first.load(Relaxed)))
    }

    pub(crate) fn done(&self) -> u64 {
        self.succeeded.load(Relaxed) + self.failed.load(Relaxed)
    }

    pub(crate) fn succeeded(&self) {
        self.succeeded.fetch_add(1, Relaxed);
        self.general.store(0, Relaxed);
    }

    /// Counts a failure; returns how many of the general kind came since the last success.
    pub(crate) fn failed(&self, general: bool) -> u64 {
        self.failed.fetch_add(1, Relaxed);
        if general { self.of_no_use() } else { 0 }
    }

    /// Counts an attempt that met what all others will meet; returns how many did since the last success.
    pub(crate) fn of_no_use(&self) -> u64 {
        self.general.fetch_add(1, Relaxed) + 1
    }
}
