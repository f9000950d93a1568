//! The only place that reads a clock.

use std::time::{Instant, SystemTime};

/// The runtime's clock, which stands still where a test pauses it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock, for dates in headers.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
