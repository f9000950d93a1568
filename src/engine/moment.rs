//! The time as the engine is told it.

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

/// A point in time, in nanoseconds, on whatever clock the caller keeps. Sums that would pass either end of time
/// stop there.
///
/// [`Instant`](std::time::Instant) can only be read off a clock, which nothing that plays virtual time wants; and every
/// difference of two of them is a call that costs more than a limit does.
///
/// ```
/// use std::time::Duration;
/// use tollgate::engine::Moment;
///
/// let start = Moment::START;
/// let later = start + Duration::from_secs(60);
/// assert!(start < later);
/// assert_eq!(later - start, Duration::from_secs(60));
/// assert_eq!(start - later, Duration::ZERO);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// Somewhere to begin: there is time for 73 years before it and for 511 after.
    pub const START: Moment = Moment(1 << 61);

    /// Nothing is earlier.
    pub(super) const BEGINNING: Moment = Moment(0);

    /// That much later; `None` if it would be after the end of time.
    pub fn checked_add(self, time: Duration) -> Option<Moment> {
        Some(self + time).filter(|later| later.0 < u64::MAX)
    }

    /// The nanoseconds since `earlier`; none if that is later.
    #[inline]
    pub(super) const fn nanos_since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

#[inline]
fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(u64::from(time.subsec_nanos()))
}

impl Add<Duration> for Moment {
    type Output = Moment;

    #[inline]
    fn add(self, time: Duration) -> Moment {
        Moment(self.0.saturating_add(nanos(time)))
    }
}

impl AddAssign<Duration> for Moment {
    #[inline]
    fn add_assign(&mut self, time: Duration) {
        *self = *self + time;
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    #[inline]
    fn sub(self, time: Duration) -> Moment {
        Moment(self.0.saturating_sub(nanos(time)))
    }
}

impl Sub for Moment {
    type Output = Duration;

    /// The time since `earlier`; zero if that is later.
    #[inline]
    fn sub(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }
}
