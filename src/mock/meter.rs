//! One limit as a provider counts it, in each of the shapes that providers use.
//!
//! Written in the plainest way there is: a level that leaks, a log of all admissions, a counter that is zeroed. Told the
//! time as a `Duration` since the start; everything is whole units and whole nanoseconds.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::{Offset, TimeZone};

use crate::cost::{DAY, Shape, Zone};

/// A limit's count.
#[derive(Clone, Debug)]
pub(crate) enum Meter {
    Refill(Level),
    Sliding(Log),
    /// Fixed windows and calendar days.
    Fixed(Counter),
    /// Each slice is enforced, and the whole window is what the headers show.
    Slices {
        slice: Counter,
        whole: Counter,
        window: Duration,
    },
}

/// What became of one admission, to find it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) at: Duration,
    /// Ascends over everything that was ever counted.
    pub(crate) number: u64,
}

impl Meter {
    /// An empty count. `phase` is when a window begins; `unix` is the wall-clock second of the start.
    pub(crate) fn new(shape: Shape, window: Duration, phase: Duration, unix: i64) -> Self {
        let every = |length: Duration| Counter::new(Cycle::Every { length, phase });
        match shape {
            // Rejected by the configuration; a count that is never full again would be the nearest thing.
            Shape::Refill | Shape::Gauge => Meter::Refill(Level { window, at: Duration::ZERO, load: 0 }),
            Shape::Sliding => Meter::Sliding(Log { window, entries: VecDeque::new(), sum: 0 }),
            Shape::Fixed => Meter::Fixed(every(window)),
            Shape::Slice(length) => Meter::Slices { slice: every(length), whole: every(window), window },
            Shape::Calendar(zone) => Meter::Fixed(Counter::new(Cycle::Daily { zone: time_zone(zone), unix })),
        }
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, limit: u64, now: Duration) {
        match self {
            Meter::Refill(level) => level.advance(limit, now),
            Meter::Sliding(log) => log.advance(now),
            Meter::Fixed(counter) => counter.advance(now),
            Meter::Slices { slice, whole, window: _ } => {
                slice.advance(now);
                whole.advance(now);
            }
        }
    }

    /// Forgets everything that was counted.
    pub(crate) fn clear(&mut self, now: Duration) {
        match self {
            Meter::Refill(level) => (level.at, level.load) = (now, 0),
            Meter::Sliding(log) => (log.entries, log.sum) = (VecDeque::new(), 0),
            Meter::Fixed(counter) => counter.used = 0,
            Meter::Slices { slice, whole, window: _ } => (slice.used, whole.used) = (0, 0),
        }
    }

    /// Whether `amount` more fits now; else how long until it does if nobody else comes, and `None` where it never will.
    pub(crate) fn fits(&self, limit: u64, amount: u64, now: Duration) -> Result<(), Option<Duration>> {
        let wait = match self {
            Meter::Refill(level) => level.wait(limit, amount),
            Meter::Sliding(log) => log.wait(limit, amount, now),
            Meter::Fixed(counter) => counter.wait(limit, amount, now),
            Meter::Slices { slice, whole: _, window } => slice.wait(quota(limit, slice, *window), amount, now),
        };
        match wait {
            Some(wait) if wait.is_zero() => Ok(()),
            wait => Err(wait),
        }
    }

    /// Counts `amount`, whether it fits or not.
    pub(crate) fn add(&mut self, amount: u64, place: Place) {
        match self {
            Meter::Refill(level) => level.add(amount.into()),
            Meter::Sliding(log) => log.add(amount, place),
            Meter::Fixed(counter) => counter.add(amount),
            Meter::Slices { slice, whole, window: _ } => {
                slice.add(amount);
                whole.add(amount);
            }
        }
    }

    /// Takes `amount` off what was counted at `place`, as far as that still counts.
    pub(crate) fn give_back(&mut self, amount: u64, place: Place) {
        match self {
            Meter::Refill(level) => level.add(-i128::from(amount)),
            Meter::Sliding(log) => log.give_back(amount, place),
            Meter::Fixed(counter) => counter.give_back(amount, place),
            Meter::Slices { slice, whole, window: _ } => {
                slice.give_back(amount, place);
                whole.give_back(amount, place);
            }
        }
    }

    /// What is used of the limit that the headers show, rounded up to a whole unit.
    pub(crate) fn used(&self) -> u64 {
        match self {
            Meter::Refill(level) => level.used(),
            Meter::Sliding(log) => log.sum,
            Meter::Fixed(counter) | Meter::Slices { whole: counter, .. } => counter.used,
        }
    }

    /// Of the slice that is now: its part of `limit`, what is used of it, until it ends, and its length.
    pub(crate) fn slice(&self, limit: u64, now: Duration) -> Option<(u64, u64, Duration, Duration)> {
        let Meter::Slices { slice, whole: _, window } = self else { return None };
        let Cycle::Every { length, .. } = slice.cycle else { return None };
        Some((quota(limit, slice, *window), slice.used, slice.ends.saturating_sub(now), length))
    }

    /// What the reset header tells: until full again, until the oldest entry leaves, until the window ends.
    pub(crate) fn reset(&self, limit: u64, now: Duration) -> Duration {
        match self {
            Meter::Refill(level) => level.time_to_leak(limit, level.used().into()),
            Meter::Sliding(log) => log.oldest_leaves().map_or(Duration::ZERO, |at| at.saturating_sub(now)),
            Meter::Fixed(counter) | Meter::Slices { whole: counter, .. } => counter.ends.saturating_sub(now),
        }
    }
}

/// The part of `limit` that a slice may take, rounded up.
fn quota(limit: u64, slice: &Counter, window: Duration) -> u64 {
    let Cycle::Every { length, .. } = slice.cycle else { return limit };
    let part = (u128::from(limit) * length.as_nanos()).div_ceil(window.as_nanos().max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// What has been used and has not leaked away yet. In units × window nanoseconds, so that a leak of `limit` per window is
/// a product of two integers and nothing is ever rounded; only what is *shown* is whole.
#[derive(Clone, Debug)]
pub(crate) struct Level {
    window: Duration,
    at: Duration,
    /// Never below zero, since an empty level has nothing left to leak.
    load: i128,
}

impl Level {
    fn window_ns(&self) -> i128 {
        i128::try_from(self.window.as_nanos()).unwrap_or(i128::MAX)
    }

    fn advance(&mut self, limit: u64, now: Duration) {
        let elapsed = now.saturating_sub(self.at).as_nanos();
        self.at = self.at.max(now);
        let leaked = i128::try_from(elapsed).unwrap_or(i128::MAX).saturating_mul(i128::from(limit));
        self.load = self.load.saturating_sub(leaked).max(0);
    }

    fn add(&mut self, amount: i128) {
        self.load = self.load.saturating_add(amount.saturating_mul(self.window_ns())).max(0);
    }

    fn used(&self) -> u64 {
        let window = self.window_ns();
        u64::try_from(self.load / window + i128::from(self.load % window > 0)).unwrap_or(u64::MAX)
    }

    /// By what is shown as used, as the printed waits are: up to one unit's time later than the level alone would tell.
    fn wait(&self, limit: u64, amount: u64) -> Option<Duration> {
        let over = i128::from(self.used()) + i128::from(amount) - i128::from(limit);
        (amount <= limit).then(|| self.time_to_leak(limit, over))
    }

    /// Rounded up to the nanosecond.
    fn time_to_leak(&self, limit: u64, amount: i128) -> Duration {
        if limit == 0 || amount <= 0 {
            return Duration::ZERO;
        }
        let (limit, product) = (i128::from(limit), amount.saturating_mul(self.window_ns()));
        let nanos = product / limit + i128::from(product % limit > 0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Everything that was counted in the last window. What was counted at `t` leaves at `t + window`.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    window: Duration,
    entries: VecDeque<Entry>,
    sum: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    place: Place,
    amount: u64,
}

impl Log {
    fn advance(&mut self, now: Duration) {
        while let Some(oldest) = self.entries.front().copied()
            && self.leaves(&oldest) <= now
        {
            self.entries.pop_front();
            self.sum -= oldest.amount;
        }
    }

    fn leaves(&self, entry: &Entry) -> Duration {
        entry.place.at.saturating_add(self.window)
    }

    fn oldest_leaves(&self) -> Option<Duration> {
        self.entries.iter().find(|entry| entry.amount > 0).map(|entry| self.leaves(entry))
    }

    fn add(&mut self, amount: u64, place: Place) {
        // Clipped so that what is subtracted later is what was added.
        let amount = amount.min(u64::MAX - self.sum);
        self.entries.push_back(Entry { place, amount });
        self.sum += amount;
    }

    fn give_back(&mut self, amount: u64, place: Place) {
        let Ok(index) = self.entries.binary_search_by_key(&place.number, |entry| entry.place.number) else { return };
        let entry = &mut self.entries[index];
        let amount = amount.min(entry.amount);
        entry.amount -= amount;
        self.sum -= amount;
    }

    fn wait(&self, limit: u64, amount: u64, now: Duration) -> Option<Duration> {
        let room = limit.checked_sub(amount)?;
        let (mut sum, mut wait) = (self.sum, Duration::ZERO);
        for entry in &self.entries {
            if sum <= room {
                break;
            }
            sum -= entry.amount;
            wait = self.leaves(entry).saturating_sub(now);
        }
        Some(wait)
    }
}

/// A count that is zeroed at the end of each cycle.
#[derive(Clone, Debug)]
pub(crate) struct Counter {
    cycle: Cycle,
    /// The cycle that is counted.
    begins: Duration,
    ends: Duration,
    used: u64,
}

#[derive(Clone, Debug)]
enum Cycle {
    /// At `phase` and every `length` before and after it.
    Every { length: Duration, phase: Duration },
    /// At every midnight; the start was at second `unix` of the wall clock.
    Daily { zone: TimeZone, unix: i64 },
}

impl Counter {
    fn new(cycle: Cycle) -> Self {
        // Over before it began, so that the first `advance` finds the true one.
        let mut counter = Self { cycle, begins: Duration::ZERO, ends: Duration::ZERO, used: 0 };
        counter.advance(Duration::ZERO);
        counter
    }

    fn advance(&mut self, now: Duration) {
        if now >= self.ends {
            self.used = 0;
            (self.begins, self.ends) = self.cycle.around(now);
        }
    }

    fn add(&mut self, amount: u64) {
        self.used = self.used.saturating_add(amount);
    }

    fn give_back(&mut self, amount: u64, place: Place) {
        if place.at >= self.begins {
            self.used = self.used.saturating_sub(amount);
        }
    }

    fn wait(&self, limit: u64, amount: u64, now: Duration) -> Option<Duration> {
        let room = limit.checked_sub(amount)?;
        Some(if self.used <= room { Duration::ZERO } else { self.ends.saturating_sub(now) })
    }
}

impl Cycle {
    /// Begin (not before the start) and end of the cycle that `now` is in.
    fn around(&self, now: Duration) -> (Duration, Duration) {
        match self {
            Cycle::Every { length, phase } => {
                let length = length.as_nanos().max(1);
                // One cycle early, so that the subtraction stays above zero.
                let since = now.as_nanos() + length - phase.as_nanos() % length;
                let begins = now.as_nanos().saturating_sub(since % length);
                (nanos(begins), nanos(now.as_nanos() + (length - since % length)))
            }
            Cycle::Daily { zone, unix } => day_around(zone, *unix, now).unwrap_or((now, now.saturating_add(DAY))),
        }
    }
}

/// `None` beyond the calendar's end, some thousand years from now.
fn day_around(zone: &TimeZone, unix: i64, now: Duration) -> Option<(Duration, Duration)> {
    let start = Timestamp::from_second(unix).ok()?;
    let today = start.checked_add(now).ok()?.to_zoned_datetime(zone.clone()).start_of_day().ok()?;
    let tomorrow = today.tomorrow().ok()?.start_of_day().ok()?;
    let since_start = |at: Timestamp| Duration::try_from(at.duration_since(start)).ok();
    Some((since_start(today.timestamp()).unwrap_or(Duration::ZERO), since_start(tomorrow.timestamp())?))
}

fn time_zone(zone: Zone) -> TimeZone {
    match zone {
        // Written out, so that it needs no time-zone database: second Sunday of March to first Sunday of November.
        Zone::Pacific => TimeZone::posix("PST8PDT,M3.2.0,M11.1.0").unwrap_or(TimeZone::UTC),
        Zone::East(minutes) => Offset::from_seconds(i32::from(minutes) * 60).map_or(TimeZone::UTC, TimeZone::fixed),
    }
}

fn nanos(nanos: u128) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_begins_at_its_phase_and_every_length_before_and_after() {
        let s = Duration::from_secs;
        let cycle = Cycle::Every { length: s(60), phase: s(25) };
        assert_eq!(cycle.around(s(0)), (s(0), s(25)), "the first began before the start");
        assert_eq!(cycle.around(s(25) - Duration::from_nanos(1)), (s(0), s(25)));
        assert_eq!(cycle.around(s(25)), (s(25), s(85)));
        assert_eq!(cycle.around(s(1_000)), (s(985), s(1_045)));
        let slice = Cycle::Every { length: s(10), phase: s(25) };
        assert_eq!(slice.around(s(0)), (s(0), s(5)), "the phase of slices is that of the minute");
    }

    #[test]
    fn pacific_days_are_an_hour_shorter_in_march_and_longer_in_november() {
        let unix = |date: &str| date.parse::<Timestamp>().unwrap().as_second();
        let hours = |from: &str| {
            let (begins, ends) =
                Cycle::Daily { zone: time_zone(Zone::Pacific), unix: unix(from) }.around(Duration::ZERO);
            assert_eq!(begins, Duration::ZERO);
            ends.as_secs() / 3_600
        };
        assert_eq!(hours("2026-09-24T07:00:00Z"), 24);
        assert_eq!(hours("2026-03-08T08:00:00Z"), 23);
        assert_eq!(hours("2026-11-01T07:00:00Z"), 25);
        let india = Cycle::Daily { zone: time_zone(Zone::East(330)), unix: unix("2026-09-24T18:00:00Z") };
        assert_eq!(india.around(Duration::ZERO).1, Duration::from_secs(1_800));
    }
}
