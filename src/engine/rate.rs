//! How often something happens, lately.

use std::time::Duration;

use super::moment::Moment;

/// The time that one of the two counts covers.
const TURN: Duration = Duration::from_secs(30);

/// The mean of the last half to whole minute, from two counts: the running half minute and the one before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Since when anything is known; rates of a new lane are those of its own time.
    began: Option<Moment>,
    turned: Moment,
    before: u64,
    current: u64,
}

impl Rate {
    pub(super) fn new(now: Moment) -> Self {
        Self { began: None, turned: now, before: 0, current: 0 }
    }

    #[inline]
    pub(super) fn count(&mut self, now: Moment) {
        self.turn(now);
        self.began.get_or_insert(now);
        self.current += 1;
    }

    /// Leaves the last `time`, in which nothing was counted, out of the mean.
    pub(super) fn skip(&mut self, time: Duration) {
        self.began = self.began.map(|began| began + time);
        self.turned += time;
    }

    /// The mean time between two events; `None` if there were none.
    pub(super) fn gap(&self, now: Moment) -> Option<Duration> {
        let mut rate = *self;
        rate.turn(now);
        let count = rate.before + rate.current;
        let since = self.began?.max(rate.turned - TURN);
        // A second at least: a burst of answers within a millisecond is no rate.
        let span = (now - since).max(Duration::from_secs(1));
        (count > 0).then(|| span / u32::try_from(count).unwrap_or(u32::MAX))
    }

    #[inline]
    fn turn(&mut self, now: Moment) {
        let turn = self.turned + TURN;
        if now < turn {
            return;
        }
        if now >= turn + TURN {
            *self = Self { began: self.began, ..Self::new(now) };
        } else {
            (self.before, self.current) = (self.current, 0);
            self.turned += TURN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_steady_stream_is_measured_from_its_beginning_on() {
        let start = Moment::START;
        let mut rate = Rate::new(start);
        assert_eq!(rate.gap(start), None);
        let mut now = start + 600 * TURN;
        for event in 0..4_000 {
            rate.count(now);
            now += ms(100);
            let gap = rate.gap(now).unwrap();
            assert!(event < 20 || (ms(95)..=ms(105)).contains(&gap), "{event}: {gap:?}");
        }
    }

    #[test]
    fn time_that_is_skipped_changes_no_rate() {
        let start = Moment::START;
        let mut rate = Rate::new(start);
        (0..100).for_each(|event| rate.count(start + event * ms(100)));
        let (end, pause) = (start + 10 * Duration::from_secs(1), 100 * TURN);
        let gap = rate.gap(end);
        assert_eq!(gap, Some(ms(100)));
        rate.skip(pause);
        assert_eq!(rate.gap(end + pause), gap);
    }

    #[test]
    fn a_burst_counts_over_a_second_and_a_quiet_minute_is_forgotten() {
        let now = Moment::START;
        let mut rate = Rate::new(now);
        (0..50).for_each(|_| rate.count(now));
        assert_eq!(rate.gap(now), Some(ms(20)));
        assert_eq!(rate.gap(now + TURN), Some(ms(600)));
        assert_eq!(rate.gap(now + 2 * TURN), None);
        assert_eq!(rate.gap(now - ms(5)), Some(ms(20)), "time that goes back is harmless");
    }
}
