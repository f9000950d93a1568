//! A ceiling on the sending rate, for when the provider says that traffic rises too fast or that it cannot serve it all.
//!
//! Such answers name no limit, so no bucket can be corrected. They ask for the rate that last went well, some time of
//! patience, and a slow return; this is that, beside the buckets.
//!
//! Complaints come in episodes: from the first one until something that was sent after it goes well. An episode is one
//! piece of news, however many requests hear it, and cuts the rate once. While it lasts the lane pauses, lets one
//! request find out, and pauses longer.

use std::time::Duration;

use serde::Serialize;

use super::bucket::Bucket;
use super::moment::Moment;
use super::rate::Rate;

/// The lowest rate, one a minute. It is never the only thing that lets requests go: one at a time may, see
/// [`ONE_AT_A_TIME`].
const SLOWEST: Duration = Duration::from_secs(60);
/// A lane with nothing under way sends one after so long, whatever the rate. Not at once: where answers come fast, one at
/// a time may be more than the provider bears.
const ONE_AT_A_TIME: Duration = Duration::from_secs(4);
/// Where nothing ever went well there is no rate to hold. Then it begins here, and rises at once.
const UNKNOWN: Duration = Duration::from_secs(1);
/// Nothing sends faster than this, so a ceiling above it is none.
const FASTEST: Duration = Duration::from_micros(20);
/// A new episode soon after the last means that the held rate is still too high: to seven tenths of it. A half would
/// cost more when the last good rate was nearly right, which it is by its definition.
const AGAIN: (u32, u32) = (10, 7);
/// A rate that went well for this long is a good one, whatever comes after. Otherwise a provider that has a bad second
/// now and then would bring the lane down to one at a time.
const PROVEN: Duration = Duration::from_secs(60);
/// The pauses of an episode double. A short episode costs a handful of refusals, and the end of a long one is noticed
/// soon.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(4);
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
/// use std::time::Duration;
/// use tollgate::engine::{Ceiling, Moment};
///
/// let start = Moment::START;
/// let mut ceiling = Ceiling::new(start);
/// let at = |ms| start + Duration::from_millis(ms);
/// (0..100).for_each(|n| ceiling.went_well(at(100 * n), at(100 * n)));
///
/// // "Slow down, for 15 minutes", for a request of second 10: after a pause on as before, ten a second.
/// ceiling.slow_down(true, Duration::from_secs(900), at(10_000), at(10_100));
/// assert_eq!(ceiling.admit(true, at(10_100)), Err(at(11_100)));
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
    /// The last complaint. What was sent before belongs to the burst that led to it, and counts no further.
    at: Moment,
    /// When the last request went.
    sent: Moment,
    /// For how long the rate stays after a complaint.
    hold: Duration,
    held_until: Moment,
    /// When the ramp takes its next step.
    step_at: Moment,
    /// Whether it held anybody since the last step.
    binds: bool,
    state: State,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Nothing went well since the first complaint.
    Episode {
        began: Moment,
        pause: Duration,
        /// Nobody goes before, not even with nothing under way.
        until: Moment,
        /// Whether one has gone after the pause. The others wait as long again for its answer: a refusal comes soon, and
        /// a good answer may take a minute.
        probed: bool,
    },
    Well {
        since: Moment,
    },
}

/// A ceiling as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CeilingStatus {
    /// Requests per minute that it lets pass, besides the one that may go when nothing is under way.
    pub per_minute: u64,
    /// How long it stays there before it rises.
    pub held_for: Duration,
}

impl Ceiling {
    /// No ceiling so far.
    pub fn new(now: Moment) -> Self {
        Self { good: Rate::new(now), strain: 0, cut: None }
    }

    /// A request that was sent at `sent` was answered well.
    #[inline]
    pub fn went_well(&mut self, sent: Moment, now: Moment) {
        self.strain = self.strain.saturating_sub(1);
        if let Some(cut) = &mut self.cut
            && let State::Episode { began, .. } = cut.state
        {
            if sent <= cut.at {
                return;
            }
            // Neither its answers nor its time are part of a rate.
            self.good.skip(now - began);
            cut.bucket = drained(cut.gap, now);
            cut.state = State::Well { since: now };
        }
        self.good.count(now);
    }

    /// A request that was sent at `sent` was answered by a wish for less traffic, to be `hold`ed for so long. An
    /// `explicit` one counts by itself; others count when they are frequent, or when nothing went well since one counted.
    pub fn slow_down(&mut self, explicit: bool, hold: Duration, sent: Moment, now: Moment) {
        if self.cut.as_ref().is_some_and(|cut| sent <= cut.at) {
            return;
        }
        if let Some(cut) = &mut self.cut
            && let State::Episode { began, pause, .. } = cut.state
        {
            cut.pause(began, (pause * 2).min(LONGEST_PAUSE), now);
            return;
        }
        self.strain += FORGIVEN_BY;
        if !explicit && self.strain < OVERLOADS * FORGIVEN_BY {
            return;
        }
        self.strain = 0;
        let known = self.good.gap(now);
        let hold = if known.is_some() { hold } else { STEP };
        let good = known.unwrap_or(UNKNOWN);
        let gap = match &self.cut {
            None => good,
            Some(cut) if now >= cut.held_until => good.max(cut.gap),
            Some(cut) if cut.is_proven(now) => cut.gap,
            Some(cut) => good.max(cut.gap) * AGAIN.0 / AGAIN.1,
        };
        let gap = gap.min(SLOWEST);
        let state = State::Well { since: now };
        let bucket = drained(gap, now);
        let mut cut = Cut { gap, bucket, at: now, sent: now, hold, held_until: now, step_at: now, binds: false, state };
        cut.pause(now, FIRST_PAUSE, now);
        self.cut = Some(cut);
    }

    /// When the next of `n` more requests may go; `now` if there is no ceiling. With nothing under way (`idle`) the first
    /// of them need not wait long.
    pub fn ready_at(&self, n: u64, idle: bool, now: Moment) -> Moment {
        let Some(cut) = &self.cut else { return now };
        let (paused, alone) = match cut.state {
            State::Episode { until, .. } => (until.max(now), until),
            State::Well { .. } => (now, cut.sent + ONE_AT_A_TIME),
        };
        let ready = cut.bucket.ready_at(n, now);
        let ready = if idle && n <= 1 { ready.min(alone) } else { ready };
        paused.max(ready)
    }

    /// Whether one request may go.
    ///
    /// # Errors
    /// With the instant to ask again.
    #[inline]
    pub fn admit(&mut self, idle: bool, now: Moment) -> Result<(), Moment> {
        self.ramp(now);
        let ready = self.ready_at(1, idle, now);
        if ready <= now {
            return Ok(());
        }
        if let Some(cut) = &mut self.cut {
            cut.binds = true;
        }
        Err(ready)
    }

    /// A request that was admitted goes.
    #[inline]
    pub fn take(&mut self, now: Moment) {
        let Some(cut) = &mut self.cut else { return };
        cut.bucket.take(1, now);
        cut.sent = now;
        if let State::Episode { pause, until, probed, .. } = &mut cut.state
            && !std::mem::replace(probed, true)
        {
            *until = now + *pause;
            cut.bucket.hold(1, *until);
        }
    }

    /// A request that was taken did not reach the provider.
    pub fn refund(&mut self) {
        if let Some(cut) = &mut self.cut {
            cut.bucket.refund(1);
        }
    }

    /// The ceiling, if there is one.
    pub fn status(&self, now: Moment) -> Option<CeilingStatus> {
        let cut = self.cut.as_ref()?;
        Some(CeilingStatus {
            per_minute: (60_000_000_000 / cut.gap.as_nanos().max(1)) as u64,
            held_for: cut.held_until - now,
        })
    }

    /// Raises the ceiling when its time has come. One that held nobody up since the last step is gone: it no longer
    /// binds.
    fn ramp(&mut self, now: Moment) {
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

impl Cut {
    /// A complaint: nobody goes for so long, and then one.
    fn pause(&mut self, began: Moment, pause: Duration, now: Moment) {
        let until = now + pause;
        self.bucket.hold(1, until);
        self.state = State::Episode { began, pause, until, probed: false };
        self.at = now;
        self.held_until = now + self.hold;
        self.step_at = self.held_until;
    }

    fn is_proven(&self, now: Moment) -> bool {
        matches!(self.state, State::Well { since } if now - since >= PROVEN)
    }
}

/// An empty bucket for one request in every `gap`.
fn drained(gap: Duration, now: Moment) -> Bucket {
    let (burst, window) = smooth(gap);
    let mut bucket = Bucket::new(burst, window, now);
    bucket.charge(burst, now);
    bucket
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
    use crate::cost::SECOND;

    const QUARTER: Duration = Duration::from_secs(900);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A ceiling after twenty seconds of ten good answers each, and the time.
    fn steady() -> (Ceiling, Moment) {
        let start = Moment::START;
        let mut ceiling = Ceiling::new(start);
        (0..200).for_each(|n| ceiling.went_well(start + n * ms(100), start + n * ms(100)));
        (ceiling, start + 20 * SECOND)
    }

    /// The one that finds out after the first pause goes well; returns when.
    fn end_episode(ceiling: &mut Ceiling, now: Moment) -> Moment {
        let now = now + FIRST_PAUSE;
        assert_eq!(ceiling.admit(true, now), Ok(()));
        ceiling.take(now);
        ceiling.went_well(now, now);
        now
    }

    fn per_minute(ceiling: &Ceiling, now: Moment) -> u64 {
        ceiling.status(now).unwrap().per_minute
    }

    #[test]
    fn an_explicit_signal_cuts_to_the_last_good_rate_and_holds_it_as_long_as_asked() {
        let (mut ceiling, mut now) = steady();
        ceiling.slow_down(true, QUARTER, now, now);
        assert_eq!(per_minute(&ceiling, now), 600);
        let (end, mut sent) = (now + QUARTER, 0);
        now = end_episode(&mut ceiling, now);
        while now < end {
            match ceiling.admit(false, now) {
                Ok(()) => {
                    ceiling.take(now);
                    sent += 1;
                }
                Err(at) => now = at,
            }
        }
        assert!((8_985..=8_990).contains(&sent), "{sent}: ten a second and never a burst");
    }

    #[test]
    fn an_episode_cuts_once_and_a_new_one_soon_after_cuts_again() {
        let (mut ceiling, now) = steady();
        for n in 0..50 {
            ceiling.slow_down(true, QUARTER, now + n * SECOND - ms(100), now + n * SECOND);
            assert_eq!(per_minute(&ceiling, now), 600, "nothing went well since the first");
        }
        let mut now = now + 50 * SECOND;
        for again in [600, 420, 294, 205] {
            ceiling.went_well(now, now);
            assert!(per_minute(&ceiling, now).abs_diff(again) <= 1, "{:?} for {again}", ceiling.status(now));
            now += ms(10);
            ceiling.slow_down(true, QUARTER, now, now);
            now += SECOND;
        }
    }

    #[test]
    fn a_good_answer_to_what_was_sent_before_the_complaint_does_not_end_the_episode() {
        let (mut ceiling, now) = steady();
        ceiling.slow_down(true, QUARTER, now, now + ms(50));
        ceiling.went_well(now, now + ms(900));
        assert_eq!(ceiling.admit(true, now + ms(900)), Err(now + ms(1_050)));
    }

    #[test]
    fn an_episode_is_sounded_out_by_one_request_after_pauses_of_one_two_and_four_seconds() {
        let (mut ceiling, mut now) = steady();
        ceiling.slow_down(true, QUARTER, now, now);
        for pause in [1, 2, 4, 4, 4] {
            assert_eq!(ceiling.admit(true, now), Err(now + pause * SECOND), "nobody, not even with nothing under way");
            now += pause * SECOND;
            assert_eq!(ceiling.admit(false, now), Ok(()));
            ceiling.take(now);
            assert_eq!(ceiling.admit(false, now), Err(now + pause * SECOND), "the others wait for what it finds");
            ceiling.slow_down(true, QUARTER, now, now + ms(50));
            now += ms(50);
        }
        now += 4 * SECOND;
        ceiling.take(now);
        ceiling.went_well(now, now + ms(500));
        assert_eq!(ceiling.admit(false, now + ms(600)), Ok(()), "on as before");
    }

    #[test]
    fn an_answer_that_takes_long_holds_nobody_up() {
        let (mut ceiling, mut now) = steady();
        ceiling.slow_down(true, QUARTER, now, now);
        now += SECOND;
        ceiling.take(now);
        now += SECOND;
        for _ in 0..100 {
            assert_eq!(ceiling.admit(false, now), Ok(()));
            ceiling.take(now);
            assert!(ceiling.admit(false, now).is_err(), "at the held rate");
            now += ms(100);
        }
    }

    #[test]
    fn the_held_rate_is_not_diluted_by_an_episode() {
        let (mut ceiling, now) = steady();
        ceiling.slow_down(true, QUARTER, now, now);
        let back = now + 25 * SECOND;
        for n in 0..100u32 {
            ceiling.went_well(back + n * ms(100), back + n * ms(100));
        }
        let now = back + 10 * SECOND;
        ceiling.slow_down(true, QUARTER, now, now);
        assert!((415..=425).contains(&per_minute(&ceiling, now)), "seven tenths of ten a second: {ceiling:?}");
    }

    #[test]
    fn a_bad_second_now_and_then_leaves_the_rate_as_it_is() {
        let (mut ceiling, mut now) = steady();
        for _ in 0..100 {
            ceiling.slow_down(true, QUARTER, now, now);
            now = end_episode(&mut ceiling, now);
            for _ in 0..700 {
                now += ms(100);
                ceiling.went_well(now, now);
            }
        }
        assert_eq!(per_minute(&ceiling, now), 600);
    }

    #[test]
    fn one_at_a_time_may_go_whatever_the_rate() {
        let (mut ceiling, mut now) = steady();
        for _ in 0..100 {
            ceiling.slow_down(true, QUARTER, now, now);
            now = end_episode(&mut ceiling, now);
            now += ms(1);
        }
        assert_eq!(per_minute(&ceiling, now), 1);
        let last = now - ms(1);
        assert_eq!(ceiling.admit(false, now), Err(last + 60 * SECOND));
        assert_eq!(ceiling.admit(true, now), Err(last + ONE_AT_A_TIME));
        assert_eq!(ceiling.admit(true, last + ONE_AT_A_TIME), Ok(()));
    }

    #[test]
    fn a_rate_that_nobody_knows_begins_at_one_a_second_and_rises_at_once() {
        let start = Moment::START;
        let mut ceiling = Ceiling::new(start);
        ceiling.slow_down(true, QUARTER, start, start);
        let mut now = end_episode(&mut ceiling, start);
        let mut sent = 0;
        while now < start + 120 * SECOND {
            while ceiling.admit(false, now).is_ok() {
                ceiling.take(now);
                ceiling.went_well(now, now);
                sent += 1;
            }
            now += ms(10);
        }
        assert!((200..=230).contains(&sent), "{sent}: twice the rate in 73 s");
    }

    #[test]
    fn it_rises_while_it_binds_and_goes_when_it_does_not() {
        let (mut ceiling, mut now) = steady();
        ceiling.slow_down(true, QUARTER, now, now);
        let end = now + QUARTER;
        now = end_episode(&mut ceiling, now);
        let _ = ceiling.admit(false, now);
        now = end;
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
            let start = Moment::START;
            let mut ceiling = Ceiling::new(start);
            for n in 0..2_000 {
                let now = start + n * ms(100);
                match n % one_in {
                    0 => ceiling.slow_down(false, SECOND, now, now),
                    _ => ceiling.went_well(now, now),
                }
            }
            assert_eq!(ceiling.status(start).is_some(), cuts, "{one_in}");
        }
    }

    /// A hundred a second are wanted, and the provider bears so many in any second; whoever sends more is told so, after
    /// a while. Returns the milliseconds at which requests were let pass, and those at which they were refused.
    fn play(
        bears: usize,
        answers_after: Duration,
        hold: Duration,
        seconds: u32,
        ceiling: &mut Ceiling,
        start: Moment,
    ) -> [Vec<u32>; 2] {
        let mut under_way = VecDeque::new();
        let (mut good, mut refused, mut lately) = (Vec::new(), Vec::new(), VecDeque::new());
        for tick in 0..seconds * 1_000 {
            let now = start + tick * ms(1);
            while let Some((sent, well)) = under_way.front().copied().filter(|(sent, _)| now - *sent >= answers_after) {
                under_way.pop_front();
                if well {
                    ceiling.went_well(sent, now);
                } else {
                    ceiling.slow_down(true, hold, sent, now);
                }
            }
            while lately.front().is_some_and(|at| now - *at >= SECOND) {
                lately.pop_front();
            }
            if tick % 10 == 0 && ceiling.admit(under_way.is_empty(), now).is_ok() {
                ceiling.take(now);
                let well = lately.len() < bears;
                if well {
                    lately.push_back(now);
                    good.push(tick);
                } else {
                    refused.push(tick);
                }
                under_way.push_back((now, well));
            }
        }
        [good, refused]
    }

    #[test]
    fn a_provider_that_bears_less_than_is_wanted_is_used_to_most_of_what_it_bears() {
        let start = Moment::START;
        let [good, refused] = play(50, ms(500), 60 * SECOND, 1_800, &mut Ceiling::new(start), start);
        let share = good.len() as f64 / (50.0 * 1_800.0);
        assert!(share > 0.8 && refused.len() < 150, "used {share}, refused {}", refused.len());
    }

    #[test]
    fn a_provider_that_bears_a_tenth_is_found_within_a_minute() {
        for answers_after in [50, 200, 500, 2_000usize] {
            let start = Moment::START;
            let mut ceiling = Ceiling::new(start);
            (0..2_000).for_each(|n| ceiling.went_well(start + n * ms(10), start + n * ms(10)));
            let [good, refused] = play(10, ms(answers_after as u64), QUARTER, 300, &mut ceiling, start + 20 * SECOND);
            let later = |times: &[u32]| times.iter().filter(|at| **at >= 60_000).count();
            let figures = (refused.len(), later(&refused), later(&good));
            // Those under way at the first cut, seven tenths of them at the second, and so on; and one for each pause.
            let under_way = answers_after / 10;
            assert!(refused.len() < 25 + under_way * 10 / 3 && figures.1 == 0, "{answers_after} ms: {figures:?}");
            assert!(figures.2 > 1_680, "{answers_after} ms: {figures:?}, seven tenths of what it bears");
        }
    }
}
