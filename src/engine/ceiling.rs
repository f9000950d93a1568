//! A ceiling on the sending rate, for when the provider says that traffic rises too fast or that it cannot serve it all.
//!
//! Such answers name no limit, so no bucket can be corrected. They ask for the rate that last went well, some time of
//! patience, and a slow return; this is that, beside the buckets.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::bucket::Bucket;
use super::rate::Rate;

/// The lowest rate, one a minute. It is never the only thing that lets requests go: a lane with nothing under way may
/// always send one.
const SLOWEST: Duration = Duration::from_secs(60);
/// Nothing sends faster than this, so a ceiling above it is none.
const FASTEST: Duration = Duration::from_micros(20);
/// A signal while the rate is held means that it is still too high: to seven tenths of it. A half would cost more when
/// the last good rate was nearly right, which it is by its definition.
const AGAIN: (u32, u32) = (10, 7);
/// After the hold, a tenth more in every step: twice the rate after 73 s.
const STEP: Duration = Duration::from_secs(10);
const RAMP: (u32, u32) = (10, 11);
/// An overload says less than an explicit "slow down": a few of them happen at any rate. A share of more than one in
/// eleven adds up to this many.
const OVERLOADS: u32 = 3;
/// Good answers that outweigh one overload.
const FORGIVEN_BY: u32 = 10;

/// The sending rate that the provider bears, if it has complained.
///
/// ```
/// use std::time::{Duration, Instant};
/// use tollgate::engine::Ceiling;
///
/// let start = Instant::now();
/// let mut ceiling = Ceiling::new(start);
/// let at = |ms| start + Duration::from_millis(ms);
/// (0..100).for_each(|n| ceiling.went_well(at(100 * n)));
///
/// // "Slow down, for 15 minutes", for a request of second 10: on as before, ten a second.
/// ceiling.slow_down(true, Duration::from_secs(900), at(10_000), at(10_100));
/// let status = ceiling.status(at(10_100)).unwrap();
/// assert!((590..=610).contains(&status.per_minute), "{status:?}");
/// assert_eq!(status.held_for, Duration::from_secs(900));
/// ```
#[derive(Debug)]
pub struct Ceiling {
    good: Rate,
    /// Overloads, in tenths of a good answer's weight; see [`OVERLOADS`].
    strain: u32,
    cut: Option<Cut>,
}

#[derive(Debug)]
struct Cut {
    /// Between two requests.
    gap: Duration,
    bucket: Bucket,
    /// What was sent before belongs to the burst that led to the cut, and counts no further.
    at: Instant,
    held_until: Instant,
    /// When the ramp takes its next step.
    step_at: Instant,
    /// Whether it held anybody since the last step.
    binds: bool,
}

/// A ceiling as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CeilingStatus {
    /// Requests per minute that it lets pass, besides the one that may always go when nothing is under way.
    pub per_minute: u64,
    /// How long it stays there before it rises.
    pub held_for: Duration,
}

impl Ceiling {
    /// No ceiling so far.
    pub fn new(now: Instant) -> Self {
        Self { good: Rate::new(now), strain: 0, cut: None }
    }

    /// A request was answered well.
    pub fn went_well(&mut self, now: Instant) {
        self.good.count(now);
        self.strain = self.strain.saturating_sub(1);
    }

    /// A request that was sent at `sent` was answered by a wish for less traffic, to be `hold`ed for so long. An
    /// `explicit` one counts by itself; others count when they are frequent.
    pub fn slow_down(&mut self, explicit: bool, hold: Duration, sent: Instant, now: Instant) {
        if self.cut.as_ref().is_some_and(|cut| sent <= cut.at) {
            return;
        }
        self.strain += FORGIVEN_BY;
        if !explicit && self.strain < OVERLOADS * FORGIVEN_BY {
            return;
        }
        self.strain = 0;
        let good = self.good.gap(now).unwrap_or(SLOWEST);
        let gap = match &self.cut {
            None => good,
            Some(cut) if now < cut.held_until => good.max(cut.gap) * AGAIN.0 / AGAIN.1,
            Some(cut) => good.max(cut.gap),
        };
        let gap = gap.min(SLOWEST);
        let (burst, window) = smooth(gap);
        let mut bucket = Bucket::new(burst, window, now);
        bucket.charge(burst, now);
        let held_until = now + hold;
        self.cut = Some(Cut { gap, bucket, at: now, held_until, step_at: held_until, binds: false });
    }

    /// When the next of `n` more requests may go, not regarding what is under way; `now` if there is no ceiling.
    pub fn ready_at(&self, n: u64, now: Instant) -> Instant {
        self.cut.as_ref().map_or(now, |cut| cut.bucket.ready_at(n, now))
    }

    /// Takes one request if it may go. With nothing under way it always may.
    ///
    /// # Errors
    /// With the instant to ask again.
    pub fn admit(&mut self, idle: bool, now: Instant) -> Result<(), Instant> {
        self.ramp(now);
        let Some(cut) = &mut self.cut else { return Ok(()) };
        let ready = cut.bucket.ready_at(1, now);
        if ready <= now || idle {
            return Ok(());
        }
        cut.binds = true;
        Err(ready)
    }

    /// A request that was admitted goes.
    pub fn take(&mut self, now: Instant) {
        if let Some(cut) = &mut self.cut {
            cut.bucket.take(1, now);
        }
    }

    /// A request that was taken did not reach the provider.
    pub fn refund(&mut self) {
        if let Some(cut) = &mut self.cut {
            cut.bucket.refund(1);
        }
    }

    /// The ceiling, if there is one.
    pub fn status(&self, now: Instant) -> Option<CeilingStatus> {
        let cut = self.cut.as_ref()?;
        Some(CeilingStatus {
            per_minute: (60_000_000_000 / cut.gap.as_nanos().max(1)) as u64,
            held_for: cut.held_until.saturating_duration_since(now),
        })
    }

    /// Raises the ceiling when its time has come. One that held nobody up since the last step is gone: it no longer
    /// binds.
    fn ramp(&mut self, now: Instant) {
        let Some(cut) = self.cut.as_mut().filter(|cut| cut.step_at <= now) else { return };
        // One at a time may have been faster than the cut.
        let gap = self.good.gap(now).unwrap_or(SLOWEST).min(cut.gap) * RAMP.0 / RAMP.1;
        if !cut.binds || gap < FASTEST {
            self.cut = None;
            return;
        }
        let (burst, window) = smooth(gap);
        cut.bucket = cut.bucket.resized(burst, window, now);
        (cut.gap, cut.step_at, cut.binds) = (gap, now + STEP, false);
    }
}

/// Amount and window of a bucket that lets one request pass in every `gap`, and makes up for wake-ups that were late by
/// up to a second.
fn smooth(gap: Duration) -> (u64, Duration) {
    let burst = (Duration::from_secs(1).as_nanos() / gap.as_nanos().max(1)).max(1) as u32;
    (burst.into(), gap * burst)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const QUARTER: Duration = Duration::from_secs(900);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A ceiling after twenty seconds of ten good answers each, and the time.
    fn steady() -> (Ceiling, Instant) {
        let start = Instant::now();
        let mut ceiling = Ceiling::new(start);
        (0..200).for_each(|n| ceiling.went_well(start + n * ms(100)));
        (ceiling, start + 20 * SECOND)
    }

    fn per_minute(ceiling: &Ceiling, now: Instant) -> u64 {
        ceiling.status(now).unwrap().per_minute
    }

    #[test]
    fn an_explicit_signal_cuts_to_the_last_good_rate_and_holds_it_as_long_as_asked() {
        let (mut ceiling, mut now) = steady();
        ceiling.slow_down(true, QUARTER, now, now);
        assert_eq!(per_minute(&ceiling, now), 600);
        let (end, mut sent) = (now + QUARTER, 0);
        while now < end {
            match ceiling.admit(false, now) {
                Ok(()) => {
                    ceiling.take(now);
                    sent += 1;
                }
                Err(at) => now = at,
            }
        }
        assert!((8_990..=9_000).contains(&sent), "{sent}: ten a second and never a burst");
    }

    #[test]
    fn signals_of_one_burst_count_once_and_later_ones_lower_the_rate() {
        let (mut ceiling, now) = steady();
        (0..50).for_each(|n| ceiling.slow_down(true, QUARTER, now - ms(n), now + ms(n)));
        assert_eq!(per_minute(&ceiling, now), 600);
        ceiling.slow_down(true, QUARTER, now + ms(100), now + ms(200));
        assert!((415..=420).contains(&per_minute(&ceiling, now)), "seven tenths");
        for n in 2..200 {
            ceiling.slow_down(true, QUARTER, now + n * SECOND, now + n * SECOND);
        }
        assert_eq!(per_minute(&ceiling, now), 1, "never nothing");
    }

    #[test]
    fn with_nothing_under_way_one_may_always_go() {
        let now = Instant::now();
        let mut ceiling = Ceiling::new(now);
        ceiling.slow_down(true, QUARTER, now, now);
        assert_eq!(ceiling.admit(false, now), Err(now + 60 * SECOND), "nothing ever went well");
        assert_eq!(ceiling.admit(true, now), Ok(()));
    }

    #[test]
    fn it_rises_while_it_binds_and_goes_when_it_does_not() {
        let (mut ceiling, mut now) = steady();
        ceiling.slow_down(true, QUARTER, now, now);
        let _ = ceiling.admit(false, now);
        now += QUARTER;
        for _ in 0..8 {
            let _ = ceiling.admit(false, now);
            assert!(ceiling.admit(false, now).is_err() || ceiling.status(now).is_some());
            while ceiling.admit(false, now).is_ok() {
                ceiling.take(now);
            }
            now += STEP;
        }
        assert!((1_200..=1_300).contains(&per_minute(&ceiling, now)), "{:?}", ceiling.status(now));
        ceiling.admit(false, now).unwrap();
        now += STEP;
        ceiling.admit(false, now).unwrap();
        assert_eq!(ceiling.status(now), None, "nobody was held in the last step");
    }

    #[test]
    fn an_overload_in_twenty_is_nothing_and_one_in_four_is() {
        for (one_in, cuts) in [(20, false), (4, true)] {
            let start = Instant::now();
            let mut ceiling = Ceiling::new(start);
            for n in 0..2_000 {
                let now = start + n * ms(100);
                match n % one_in {
                    0 => ceiling.slow_down(false, SECOND, now, now),
                    _ => ceiling.went_well(now),
                }
            }
            assert_eq!(ceiling.status(start).is_some(), cuts, "{one_in}");
        }
    }

    /// Fifty a second is what the provider bears; whoever sends more is told so, after half a second.
    #[test]
    fn a_provider_that_bears_less_than_is_wanted_is_used_to_most_of_what_it_bears() {
        let start = Instant::now();
        let mut ceiling = Ceiling::new(start);
        let mut under_way = VecDeque::new();
        let (mut good, mut refused, mut lately) = (0u32, 0u32, VecDeque::new());
        for tick in 0..1_800_000u32 {
            let now = start + tick * ms(1);
            while under_way.front().is_some_and(|(sent, _)| now - *sent >= ms(500)) {
                let (sent, well) = under_way.pop_front().unwrap();
                if well {
                    good += 1;
                    ceiling.went_well(now);
                } else {
                    refused += 1;
                    ceiling.slow_down(true, 60 * SECOND, sent, now);
                }
            }
            while lately.front().is_some_and(|at| now - *at >= SECOND) {
                lately.pop_front();
            }
            // One hundred a second are wanted.
            if tick % 10 == 0 && ceiling.admit(under_way.is_empty(), now).is_ok() {
                ceiling.take(now);
                let well = lately.len() < 50;
                if well {
                    lately.push_back(now);
                }
                under_way.push_back((now, well));
            }
        }
        let share = f64::from(good) / (50.0 * 1_800.0);
        assert!(share > 0.7 && refused < 200, "used {share}, refused {refused}");
    }
}
