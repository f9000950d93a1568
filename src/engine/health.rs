//! How a lane's calls went lately: outcomes and times of the last minutes, in slots that are forgotten as a whole.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::machine::LaneStatus;
use super::moment::Moment;

/// Calls of this time are counted together.
const SLOT: Duration = Duration::from_secs(15);
/// Slots of the long window; with 15 s each it is five minutes. A slot takes 2 KiB, so a lane takes 41 KiB at most.
const LONG: u64 = 20;
/// Slots of the short window: a minute.
const SHORT: u64 = 4;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// It was answered well.
    Answered,
    /// It was refused for a limit, or for want of credit (429).
    RateLimited,
    /// There was no answer, or one that tells that the provider has trouble.
    Failed,
    /// It was refused for its own sake or that of its key, or the caller's closure failed and did not say why.
    Rejected,
    /// The caller gave it up after it was sent.
    Abandoned,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 5] =
        [Outcome::Answered, Outcome::RateLimited, Outcome::Failed, Outcome::Rejected, Outcome::Abandoned];

    /// As it is written in reports and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::RateLimited => "rate_limited",
            Outcome::Failed => "failed",
            Outcome::Rejected => "rejected",
            Outcome::Abandoned => "abandoned",
        }
    }
}

/// A call that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// How it ended.
    pub outcome: Outcome,
    /// How long it waited before it was admitted.
    pub waited: Duration,
    /// From there to the beginning of its answer (status and headers), where that was told.
    pub first_byte: Option<Duration>,
    /// From the admission to the end.
    pub whole: Duration,
}

/// What is remembered of the calls of the last five minutes.
///
/// ```
/// use std::time::Duration;
/// use tollgate::engine::{Call, HealthBook, Moment, Outcome};
///
/// let now = Moment::START;
/// let mut book = HealthBook::new(now);
/// for (outcome, ms) in [(Outcome::Answered, 800), (Outcome::Answered, 900), (Outcome::Failed, 30)] {
///     let whole = Duration::from_millis(ms);
///     book.record(&Call { outcome, waited: Duration::ZERO, first_byte: None, whole }, now);
/// }
/// let minute = book.look(now).last_minute();
/// assert_eq!((minute.calls, minute.failed), (3, 1));
/// assert!((0.33..0.34).contains(&minute.error_rate));
/// let slow = minute.whole.unwrap().p99;
/// assert!(slow > Duration::from_millis(840) && slow < Duration::from_millis(960), "within 6 %: {slow:?}");
/// ```
#[derive(Debug)]
pub struct HealthBook {
    begun: Moment,
    /// Those in which calls ended, oldest first.
    slots: VecDeque<(u64, Tally)>,
}

impl HealthBook {
    /// Nothing has happened yet.
    pub fn new(now: Moment) -> Self {
        Self { begun: now, slots: VecDeque::new() }
    }

    /// The number of the slot that `now` is in.
    fn slot(&self, now: Moment) -> u64 {
        (now - self.begun).as_secs() / SLOT.as_secs()
    }

    /// A call has ended.
    pub fn record(&mut self, call: &Call, now: Moment) {
        // Time may seem to go back by what two threads are apart.
        let slot = self.slot(now).max(self.slots.back().map_or(0, |(last, _)| *last));
        if self.slots.back().is_none_or(|(last, _)| *last < slot) {
            while self.slots.front().is_some_and(|(first, _)| *first + LONG <= slot) {
                self.slots.pop_front();
            }
            self.slots.push_back((slot, Tally::default()));
        }
        if let Some((_, tally)) = self.slots.back_mut() {
            tally.add(call);
        }
    }

    /// The last minutes, as they stand.
    pub fn look(&self, now: Moment) -> Recent {
        let slot = self.slot(now);
        let since = |slots: u64| {
            let lately = self.slots.iter().filter(|(number, _)| number + slots > slot);
            lately.fold(Tally::default(), |sum, (_, tally)| sum.plus(tally))
        };
        Recent { minute: since(SHORT), five_minutes: since(LONG) }
    }
}

/// Calls of the last minutes, of one lane or of several together.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    minute: Tally,
    five_minutes: Tally,
}

impl Recent {
    /// The calls of both.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self { minute: self.minute.plus(&other.minute), five_minutes: self.five_minutes.plus(&other.five_minutes) }
    }

    /// The calls that ended in the last 45 to 60 seconds.
    pub fn last_minute(&self) -> CallStats {
        self.minute.stats()
    }

    /// The calls that ended in the last five minutes, or up to 15 seconds less.
    pub fn last_five_minutes(&self) -> CallStats {
        self.five_minutes.stats()
    }
}

/// How a lane does, or all lanes of an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The share of its limits that is in use now, of the limit that is used most; above 1 in debt.
    pub limit_use: f64,
    /// How long a small request that came now would wait, in seconds where it is written; `None` if it would be refused.
    #[serde(serialize_with = "optional_seconds")]
    pub predicted_wait: Option<Duration>,
    /// The calls that ended in the last 45 to 60 seconds.
    pub last_minute: CallStats,
    /// The calls that ended in the last five minutes, or up to 15 seconds less.
    pub last_five_minutes: CallStats,
}

fn optional_seconds<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.as_secs_f64()).serialize(serializer)
}

impl Health {
    /// Of a lane that stands like this.
    pub fn of(recent: &Recent, status: &LaneStatus, predicted_wait: Option<Duration>) -> Self {
        let used = status.gates.iter().map(|gate| gate.used());
        Self { limit_use: used.fold(0.0, f64::max), predicted_wait, ..Self::lately(recent) }
    }

    /// The same of both together, whose calls were these: the worst of what cannot be added.
    #[must_use]
    pub fn with(&self, other: &Self, recent: &Recent) -> Self {
        let predicted_wait = self.predicted_wait.zip(other.predicted_wait).map(|(one, two)| one.max(two));
        Self { limit_use: self.limit_use.max(other.limit_use), predicted_wait, ..Self::lately(recent) }
    }

    fn lately(recent: &Recent) -> Self {
        Self { last_minute: recent.last_minute(), last_five_minutes: recent.last_five_minutes(), ..Self::default() }
    }
}

/// How the calls went that ended in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CallStats {
    /// Calls that ended.
    pub calls: u64,
    /// Those that were answered well.
    pub answered: u64,
    /// Those that were refused for a limit, or for want of credit.
    pub rate_limited: u64,
    /// Those that failed because the provider or the way to it did.
    pub failed: u64,
    /// Those that were refused for their own sake or that of their key, and failed closures that did not say why.
    pub rejected: u64,
    /// Those that were given up after they were sent.
    pub abandoned: u64,
    /// The share of `failed` in all.
    pub error_rate: f64,
    /// How long they waited before they were admitted.
    pub waited: Option<Quantiles>,
    /// From the admission to the beginning of the answer, of those that told it.
    pub first_byte: Option<Quantiles>,
    /// From the admission to the end, of those that were answered well.
    pub whole: Option<Quantiles>,
}

/// Quantiles of times, right within 6 %; in seconds where they are written. What took less than a millisecond is right
/// within 0.1 ms, and 17 minutes are the most that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Quantiles {
    /// Half of them took no longer.
    #[serde(with = "super::seconds")]
    pub p50: Duration,
    /// Nineteen of twenty.
    #[serde(with = "super::seconds")]
    pub p95: Duration,
    /// All but one in a hundred.
    #[serde(with = "super::seconds")]
    pub p99: Duration,
}

/// Calls that are counted together.
#[derive(Clone, Debug, Default)]
struct Tally {
    outcomes: [u32; Outcome::ALL.len()],
    waited: Histogram,
    first_byte: Histogram,
    whole: Histogram,
}

impl Tally {
    fn add(&mut self, call: &Call) {
        self.outcomes[call.outcome as usize] += 1;
        self.waited.add(call.waited);
        if let Some(first_byte) = call.first_byte {
            self.first_byte.add(first_byte);
        }
        // How fast it fails is no measure of a provider's speed.
        if call.outcome == Outcome::Answered {
            self.whole.add(call.whole);
        }
    }

    fn plus(mut self, other: &Self) -> Self {
        for (sum, more) in self.outcomes.iter_mut().zip(other.outcomes) {
            *sum += more;
        }
        self.waited.take(&other.waited);
        self.first_byte.take(&other.first_byte);
        self.whole.take(&other.whole);
        self
    }

    fn stats(&self) -> CallStats {
        let [answered, rate_limited, failed, rejected, abandoned] = self.outcomes.map(u64::from);
        let calls = answered + rate_limited + failed + rejected + abandoned;
        CallStats {
            calls,
            answered,
            rate_limited,
            failed,
            rejected,
            abandoned,
            error_rate: if calls == 0 { 0.0 } else { failed as f64 / calls as f64 },
            waited: self.waited.quantiles(),
            first_byte: self.first_byte.quantiles(),
            whole: self.whole.quantiles(),
        }
    }
}

/// Buckets of an octave. Each is an eighth of the octave's beginning wide.
const EIGHTHS: u32 = 8;
/// Up to 17 minutes. What takes longer is in the last bucket.
const BUCKETS: usize = 8 * 21;
/// What the first buckets count by.
const UNIT: u64 = 125_000;

/// Times by their logarithm, eight buckets an octave: of fixed size, so that a slot is one block of memory. hdrhistogram
/// allocates each of its own and can do much that is not needed here.
#[derive(Clone, Debug)]
struct Histogram([u32; BUCKETS]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Histogram {
    fn add(&mut self, time: Duration) {
        let units = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) / UNIT;
        let octave = units.max(EIGHTHS.into()).ilog2() - EIGHTHS.ilog2();
        let bucket = (octave * EIGHTHS) as usize + (units >> octave) as usize;
        self.0[bucket.min(BUCKETS - 1)] += 1;
    }

    fn take(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    /// The middle of a bucket.
    fn time(bucket: usize) -> Duration {
        let octave = (bucket as u32 / EIGHTHS).saturating_sub(1);
        let begin = (bucket as u64 - u64::from(octave * EIGHTHS)) << octave;
        Duration::from_nanos((begin * UNIT) + (UNIT << octave) / 2)
    }

    fn quantiles(&self) -> Option<Quantiles> {
        let count: u64 = self.0.iter().copied().map(u64::from).sum();
        let at = |percent: u64| {
            let rank = (count * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let found = self.0.iter().position(|more| {
                seen += u64::from(*more);
                seen >= rank
            });
            found.map(Self::time)
        };
        Some(Quantiles { p50: at(50)?, p95: at(95)?, p99: at(99)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(outcome: Outcome, ms: u64) -> Call {
        let whole = Duration::from_millis(ms);
        Call { outcome, waited: Duration::ZERO, first_byte: Some(whole / 2), whole }
    }

    proptest! {
        #[test]
        fn a_quantile_is_right_within_six_per_cent(mut times in prop::collection::vec(1_000_000_u64..1_000_000_000_000, 1..300)) {
            let mut histogram = Histogram::default();
            times.iter().for_each(|nanos| histogram.add(Duration::from_nanos(*nanos)));
            times.sort_unstable();
            let told = histogram.quantiles().unwrap();
            for (percent, told) in [(50, told.p50), (95, told.p95), (99, told.p99)] {
                let exact = times[(times.len() * percent).div_ceil(100) - 1] as f64;
                let ratio = told.as_nanos() as f64 / exact;
                prop_assert!((0.94..1.0625).contains(&ratio), "p{percent}: {ratio}");
            }
        }
    }

    #[test]
    fn times_at_both_ends_are_counted() {
        let mut histogram = Histogram::default();
        for time in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            histogram.add(time);
        }
        let told = histogram.quantiles().unwrap();
        assert!(told.p50 < Duration::from_micros(125));
        assert!(told.p99 > Duration::from_secs(15 * 60));
        assert_eq!(Histogram::default().quantiles(), None);
    }

    #[test]
    fn what_is_old_is_forgotten_and_the_memory_is_bounded() {
        let begun = Moment::START;
        let mut book = HealthBook::new(begun);
        // A call a second for an hour, all of which fail but those of the last two minutes.
        for second in 0..3_600 {
            let outcome = if second < 3_480 { Outcome::Failed } else { Outcome::Answered };
            book.record(&call(outcome, 100), begun + Duration::from_secs(second));
            assert!(book.slots.len() <= LONG as usize);
        }
        let recent = book.look(begun + Duration::from_secs(3_599));
        let (minute, five) = (recent.last_minute(), recent.last_five_minutes());
        assert_eq!((minute.calls, minute.error_rate), (60, 0.0));
        assert_eq!((five.calls, five.answered, five.failed), (300, 120, 180));
        assert_eq!(five.error_rate, 0.6);
        // Nothing new is needed for that.
        let later = book.look(begun + Duration::from_secs(3_600 + 300));
        assert_eq!(later.last_five_minutes(), CallStats::default());
        assert!(std::mem::size_of::<(u64, Tally)>() <= 2_048 + 64);
    }

    #[test]
    fn time_that_stands_still_or_goes_back_loses_no_call() {
        let begun = Moment::START;
        let mut book = HealthBook::new(begun + Duration::from_secs(100));
        book.record(&call(Outcome::Answered, 1), begun);
        book.record(&call(Outcome::Answered, 1), begun + Duration::from_secs(131));
        book.record(&call(Outcome::Answered, 1), begun + Duration::from_secs(100));
        assert_eq!(book.look(begun + Duration::from_secs(131)).last_minute().calls, 3);
    }

    #[test]
    fn lanes_add_up_and_a_failure_is_no_measure_of_speed() {
        let now = Moment::START;
        let (mut fast, mut slow) = (HealthBook::new(now), HealthBook::new(now));
        (0..10).for_each(|_| fast.record(&call(Outcome::Answered, 10), now));
        (0..10).for_each(|_| slow.record(&call(Outcome::Answered, 1_000), now));
        (0..20).for_each(|_| slow.record(&call(Outcome::Failed, 60_000), now));
        let both = fast.look(now).plus(&slow.look(now)).last_minute();
        assert_eq!((both.calls, both.answered, both.failed, both.error_rate), (40, 20, 20, 0.5));
        let whole = both.whole.unwrap();
        assert!(whole.p50 < Duration::from_millis(11) && whole.p99 < Duration::from_millis(1_063), "{whole:?}");
        assert!(both.first_byte.unwrap().p99 > Duration::from_secs(25));
    }
}
