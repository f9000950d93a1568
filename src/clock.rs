//! The only place that reads a clock.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime};

use crate::engine::Moment;

/// The instant that is [`Moment::START`]. Paused clocks of tests may begin earlier.
#[expect(clippy::disallowed_methods, reason = "the one place")]
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The runtime's clock, which stands still where a test pauses it.
#[inline]
pub(crate) fn now() -> Moment {
    moment(tokio::time::Instant::now().into_std())
}

/// An instant of that clock as the engine is told it.
#[inline]
pub(crate) fn moment(at: Instant) -> Moment {
    match at.checked_duration_since(*START) {
        Some(since) => Moment::START + since,
        None => Moment::START - START.duration_since(at),
    }
}

/// The same, as timers are told it.
pub(crate) fn instant(at: Moment) -> tokio::time::Instant {
    let later = START.checked_add(at - Moment::START);
    later.and_then(|later| later.checked_sub(Moment::START - at)).unwrap_or(*START).into()
}

/// The wall clock, for dates in headers.
#[expect(clippy::disallowed_methods, reason = "the one place")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn instants_keep_their_distance_also_those_before_the_first_reading() {
        let (day, start) = (Duration::from_secs(86_400), *START);
        for at in [start, start + day, start.checked_sub(day).unwrap_or(start)] {
            assert_eq!(instant(moment(at)).into_std(), at);
            assert_eq!(moment(at + day) - moment(at), day);
        }
    }
}
