//! One limit as a governor rate limiter (GCRA) that is told the time.
//!
//! governor checks and spends in one step and knows neither refund nor debt. Both come from its two public seams: a
//! [`Clock`] that shows what it was told, and a [`StateStore`] that keeps the *theoretical arrival time* (TAT), which
//! may be moved in either direction. governor keeps the arithmetic of admission.
//!
//! governor's clock counts whole nanoseconds, in which the refill of 180,000,000 tokens per minute (333.33 ns a token)
//! cannot be written. Here the clock counts *refill* instead: as many units a second as the limit gives back. A token
//! is a whole number of units whatever the limit, so there is no rounding to drift.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use super::moment::Moment;

/// Far enough from the end that governor's unchecked sums cannot overflow: centuries of debt.
const FAR: u64 = u64::MAX / 4;

/// A bucket that holds `amount` and refills it once per window, continuously.
///
/// The level can be read, refunded, driven into debt and corrected. Time that stands still or goes back is harmless.
///
/// ```
/// use std::time::Duration;
/// use tollgate::engine::{Bucket, Moment};
///
/// let now = Moment::START;
/// let mut tpm = Bucket::new(30_000, Duration::from_secs(60), now);
/// tpm.charge(22_999, now);
/// assert!(!tpm.take(12_528, now));
/// // The wait that OpenAI itself printed for these numbers.
/// assert_eq!(tpm.ready_at(12_528, now) - now, Duration::from_millis(11_054));
/// ```
#[derive(Debug)]
pub struct Bucket {
    limiter: RateLimiter<NotKeyed, Dial, Dial, NoOpMiddleware<Nanos>>,
    dial: Dial,
    origin: Moment,
    amount: u64,
    window_ns: u64,
    /// What the clock shows at `origin`.
    head_start: u64,
    /// Units of refill that make one token.
    unit: u64,
    /// Whether a unit is a nanosecond, so that nothing is rounded.
    exact: bool,
    /// More tokens than this are counted as so many.
    most: u64,
    /// Tokens per governor cell; above 1 only where governor's `u32` cannot count single tokens.
    cell: u64,
    /// The last instant asked about, and what the clock shows then: nearly always asked again at once.
    shown: Cell<(Moment, u64)>,
}

impl Bucket {
    /// A full bucket. `amount` of zero holds nothing for ever, more than 10¹⁸ is 10¹⁸; `window` is clamped to 1 ns … 10 years.
    pub fn new(amount: u64, window: Duration, now: Moment) -> Self {
        const TEN_YEARS_NS: u128 = 10 * 366 * 86_400 * 1_000_000_000;
        let amount = amount.min(1_000_000_000_000_000_000);
        let window_ns = window.as_nanos().clamp(1, TEN_YEARS_NS) as u64;
        let unit = (window_ns / amount.max(1)).max(1);
        let cell = amount.div_ceil(u64::from(u32::MAX)).max(1);
        let burst = NonZeroU32::new((amount / cell) as u32).unwrap_or(NonZeroU32::MIN);
        let dial = Dial::default();
        let quota = Quota::with_period(Duration::from_nanos(unit * cell))
            .expect("a unit is at least one nanosecond")
            .allow_burst(burst);
        let limiter = RateLimiter::new(quota, dial.clone(), dial.clone());
        let exact = unit * amount.max(1) == window_ns;
        let (most, shown) = (FAR / unit, Cell::new((now, 0)));
        Self { limiter, dial, origin: now, head_start: 0, amount, window_ns, unit, exact, most, cell, shown }
    }

    /// Keeps every grant at least `margin` later than the books alone would allow, unless the bucket has been full for
    /// that long: room for requests that reach the provider closer together than they were sent.
    pub fn with_margin(self, margin: Duration) -> Self {
        self.set_margin(margin);
        let units = self.dial.0.margin.load(Relaxed);
        // A new bucket has been full for ever.
        Self { head_start: units, shown: Cell::new((self.origin, units)), ..self }
    }

    /// What the bucket holds when full.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Takes `n` if it fits now, and nothing otherwise.
    pub fn take(&mut self, n: u64, now: Moment) -> bool {
        let fits = self.fits(n, now);
        if fits && n > 0 {
            self.charge(n, now);
        }
        fits
    }

    /// Whether `n` fits now: governor's decision.
    #[inline]
    pub fn fits(&self, n: u64, now: Moment) -> bool {
        if n == 0 {
            return true;
        }
        if n > self.amount {
            return false;
        }
        let Some(count) = u32::try_from(self.cells(n)).ok().and_then(NonZeroU32::new) else {
            return false;
        };
        self.dial.0.now.store(self.clock(now), Relaxed);
        matches!(self.limiter.check_n(count), Ok(Ok(())))
    }

    /// Takes `n` whether it fits or not. What does not fit is debt that later requests wait for.
    pub fn charge(&mut self, n: u64, now: Moment) {
        self.set_tat(self.tat().max(self.clock_up(now)).saturating_add(self.in_units(n)));
    }

    /// Gives `n` back. A bucket never holds more than its amount.
    pub fn refund(&mut self, n: u64) {
        self.set_tat(self.tat().saturating_sub(self.in_units(n)));
    }

    /// When `n` fits, if nothing else happens; `now` when it fits already. Larger than the bucket: when the debt that
    /// `n` in total would be is worked off (see [`Bucket::amount`] for what can ever be taken at once).
    pub fn ready_at(&self, n: u64, now: Moment) -> Moment {
        if n == 0 {
            return now;
        }
        let clock = self.clock(now);
        let base = self.tat().saturating_add(self.dial.0.margin.load(Relaxed)).max(clock);
        let size = if n > self.amount { n } else { self.cells(n) * self.cell };
        let capacity = self.amount / self.cell * self.cell;
        let due = base.saturating_add(self.in_units(size)).saturating_sub(self.in_units(capacity));
        if due <= clock { now } else { self.moment(due).max(now) }
    }

    /// When the bucket is full again; `now` when it is.
    pub fn full_at(&self, now: Moment) -> Moment {
        self.moment(self.tat()).max(now)
    }

    /// What is left, rounded down; negative in debt.
    pub fn level(&self, now: Moment) -> i64 {
        let used = self.tat().saturating_sub(self.clock_up(now)).div_ceil(self.unit);
        let level = i128::from(self.amount) - i128::from(used);
        level.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }

    /// Sets the level so that exactly `used` is missing.
    pub fn set_used(&mut self, used: u64, now: Moment) {
        self.set_tat(self.tat_of(used, now));
    }

    /// Lowers the level so that `n` does not fit before `at`.
    pub fn hold(&mut self, n: u64, at: Moment) {
        let free = self.in_units(self.amount).saturating_sub(self.in_units(n));
        self.set_tat(self.tat().max(self.clock_up(at).saturating_add(free)));
    }

    /// A bucket of another size. What is missing from this one is missing from it, as far as it holds that much: what was
    /// spent of a larger limit is not paid off at the pace of a smaller one. Debt stays.
    pub fn resized(&self, amount: u64, window: Duration, now: Moment) -> Self {
        let used = self.carried(self.tat().saturating_sub(self.clock_up(now)).div_ceil(self.unit), amount);
        let margin = self.time(self.dial.0.margin.load(Relaxed));
        let mut new = Self::new(amount, window, now).with_margin(margin);
        if used > 0 {
            new.set_used(used, now);
        }
        new
    }

    /// What is missing from a bucket of `amount` when `used` was missing from this one.
    pub(super) fn carried(&self, used: u64, amount: u64) -> u64 {
        if amount >= self.amount { used } else { used.min(amount).saturating_add(used.saturating_sub(self.amount)) }
    }

    /// The TAT in units of refill: comparable between buckets of one size and origin.
    pub(super) fn tat(&self) -> u64 {
        self.dial.0.tat.load(Relaxed)
    }

    /// The TAT of a bucket from which `used` is missing at `now`.
    pub(super) fn tat_of(&self, used: u64, now: Moment) -> u64 {
        self.clock_up(now).saturating_add(self.in_units(used))
    }

    /// Restores a TAT that [`Bucket::tat`] returned.
    pub(super) fn set_tat(&self, tat: u64) {
        self.dial.0.tat.store(Self::bounded(tat), Relaxed);
    }

    /// A TAT that lies no further off than governor can count.
    pub(super) fn bounded(tat: u64) -> u64 {
        tat.min(FAR)
    }

    /// `units` of refill in tokens, rounded up.
    pub(super) fn tokens(&self, units: u64) -> u64 {
        units.div_ceil(self.unit)
    }

    /// The tokens that refill in `time`, rounded down.
    pub(super) fn refill(&self, time: Duration) -> u64 {
        self.units(time.as_nanos()) / self.unit
    }

    /// The time in which `n` tokens refill.
    pub(super) fn time_for(&self, n: u64) -> Duration {
        self.time(self.in_units(n))
    }

    pub(super) fn set_margin(&self, margin: Duration) {
        self.dial.0.margin.store(self.units(margin.as_nanos()) + u64::from(!self.exact), Relaxed);
    }

    /// `n` tokens in units of refill.
    pub(super) fn in_units(&self, n: u64) -> u64 {
        n.min(self.most) * self.unit
    }

    /// Governor cells that `n ≤ amount` takes.
    fn cells(&self, n: u64) -> u64 {
        // Nearly always, and divisions are slow.
        if self.cell == 1 { n.min(self.amount) } else { n.div_ceil(self.cell).min(self.amount / self.cell) }
    }

    /// `now` on this bucket's clock, rounded down, as what is spent later is held against it.
    fn clock(&self, now: Moment) -> u64 {
        let (then, clock) = self.shown.get();
        if then == now {
            return clock;
        }
        let clock = self.units(now.nanos_since(self.origin).into()).saturating_add(self.head_start);
        self.shown.set((now, clock));
        clock
    }

    /// `now` rounded up, as what is spent now refills from then on. Both roundings are late rather than early.
    #[inline]
    pub(super) fn clock_up(&self, now: Moment) -> u64 {
        self.clock(now) + u64::from(!self.exact)
    }

    fn units(&self, nanos: u128) -> u64 {
        if self.exact {
            return nanos.min(u128::from(FAR)) as u64;
        }
        let per_window = self.unit * self.amount.max(1);
        let units = nanos.saturating_mul(u128::from(per_window)) / u128::from(self.window_ns);
        units.min(u128::from(FAR)) as u64
    }

    /// The time in which `units` refill, rounded up.
    fn time(&self, units: u64) -> Duration {
        let per_window = u128::from(self.unit) * u128::from(self.amount.max(1));
        let nanos = (u128::from(units) * u128::from(self.window_ns)).div_ceil(per_window);
        Duration::from_nanos(nanos.min(u128::from(FAR)) as u64)
    }

    fn moment(&self, units: u64) -> Moment {
        self.origin + self.time(units.saturating_sub(self.head_start))
    }
}

/// Both of governor's seams in one: the clock it reads and the state it keeps. Shared with the bucket because a
/// `RateLimiter` lends its store to nobody. The atomics are only there to make it `Send`; the bucket is `&mut`.
#[derive(Clone, Debug, Default)]
struct Dial(Arc<DialState>);

#[derive(Debug, Default)]
struct DialState {
    now: AtomicU64,
    tat: AtomicU64,
    margin: AtomicU64,
}

impl Clock for Dial {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.now.load(Relaxed).into()
    }
}

impl StateStore for Dial {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _: &NotKeyed, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let now = self.0.now.load(Relaxed);
        let tat = self.0.tat.load(Relaxed);
        // The provider's TAT may be later than ours by the margin, but not if it has been full since.
        let shown = (tat + self.0.margin.load(Relaxed)).max(now);
        // governor decides; what is then taken is written down in tokens, since its cells may be larger.
        decide(Some(shown.into())).map(|(answer, _)| answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::{DAY, MINUTE};
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Waits and resets that OpenAI and Groq printed (limit, window, used, requested, wait).
    #[test]
    fn waits_are_those_that_providers_printed() {
        let printed = [
            (30_000, MINUTE, 22_999, 12_528, ms(11_054)),
            (30_000, MINUTE, 26_713, 7_669, ms(8_764)),
            (30_000, MINUTE, 24_102, 7_758, ms(3_720)),
            (3, MINUTE, 3, 1, ms(20_000)),
            (200, DAY, 200, 1, ms(432_000)),
            (50, DAY, 50, 1, ms(1_728_000)),
            (2_000, DAY, 2_000, 1, ms(43_200)),
            (8_000, MINUTE, 5_536, 5_599, Duration::from_micros(23_512_500)),
            (30_000, MINUTE, 29_007, 6_920, ms(11_854)),
            (12_000, MINUTE, 10_655, 1_947, ms(3_010)),
            (100_000, MINUTE, 99_348, 1_968, Duration::from_micros(789_600)),
        ];
        for (limit, window, used, requested, wait) in printed {
            let now = Moment::START;
            let mut bucket = Bucket::new(limit, window, now);
            bucket.charge(used, now);
            assert_eq!(bucket.ready_at(requested, now) - now, wait, "{limit} {used} {requested}");
            assert!(!bucket.take(requested, now + wait - Duration::from_nanos(1)));
            assert!(bucket.take(requested, now + wait));
        }
    }

    #[test]
    fn reset_is_the_time_until_full() {
        let now = Moment::START;
        let mut tpd = Bucket::new(1_500_000, DAY, now);
        tpd.charge(1_500_000 - 1_495_621, now);
        assert_eq!((tpd.full_at(now) - now).as_millis(), 252_230);
    }

    #[test]
    fn debt_is_waited_for_and_refund_never_exceeds_the_amount() {
        let now = Moment::START;
        let mut bucket = Bucket::new(60, MINUTE, now);
        bucket.charge(90, now);
        assert_eq!(bucket.level(now), -30);
        assert_eq!(bucket.ready_at(1, now) - now, Duration::from_secs(31));
        bucket.refund(500);
        assert_eq!(bucket.level(now), 60);
        assert!(bucket.take(60, now) && !bucket.take(1, now));
    }

    #[test]
    fn margin_delays_a_used_bucket_and_leaves_a_full_one_alone() {
        let now = Moment::START;
        let mut bucket = Bucket::new(1, MINUTE, now).with_margin(ms(500));
        let later = now + ms(1_000);
        assert!(bucket.take(1, later), "full for longer than the margin");
        assert_eq!(bucket.ready_at(1, later) - later, ms(60_500));
        assert!(!bucket.take(1, later + ms(60_499)) && bucket.take(1, later + ms(60_500)));
    }

    #[test]
    fn time_that_stands_still_or_goes_back_gives_nothing() {
        let now = Moment::START + DAY;
        let mut bucket = Bucket::new(10, MINUTE, now);
        assert!(bucket.take(10, now) && !bucket.take(1, now));
        assert!(!bucket.take(1, now - MINUTE) && !bucket.take(1, now - DAY));
        assert!(bucket.take(1, now + ms(6_000)));
    }

    #[test]
    fn resizing_keeps_what_was_spent() {
        let now = Moment::START;
        let mut bucket = Bucket::new(1_000, MINUTE, now);
        bucket.charge(700, now);
        assert_eq!(bucket.resized(2_000, MINUTE, now).level(now), 1_300);
        assert_eq!(bucket.resized(500, MINUTE, now).level(now), 0, "a minute of the new limit is the longest wait");
        bucket.charge(600, now);
        assert_eq!(bucket.resized(500, MINUTE, now).level(now), -300, "debt stays");
    }

    #[test]
    fn hold_names_the_instant_at_which_a_size_fits() {
        let now = Moment::START;
        let mut bucket = Bucket::new(30_000, MINUTE, now);
        bucket.hold(7_758, now + ms(3_720));
        assert_eq!(bucket.ready_at(7_758, now) - now, ms(3_720));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Refused before the promised instant, admitted at it, for limits from 1 to 10¹⁰ and windows from 1 s to 31 d,
        /// and the promise is within 0.01 % of the exact one, on the late side.
        #[test]
        fn promised_instant_is_exact_and_late_rather_than_early(
            amount in prop_oneof![1u64..1_000, 1_000u64..1_000_000, 1_000_000u64..=10_000_000_000],
            window_s in prop_oneof![1u64..120, 120u64..=31 * 86_400],
            used in 0.0f64..=1.0, want in 0.0f64..=1.0, age_ms in 0u64..100_000_000,
        ) {
            let origin = Moment::START;
            let window = Duration::from_secs(window_s);
            let now = origin + ms(age_ms);
            let mut bucket = Bucket::new(amount, window, origin);
            let used = ((amount as f64 * used) as u64).clamp(1, amount);
            let want = ((amount as f64 * want) as u64).clamp(1, amount);
            prop_assert!(bucket.take(used, now));
            let ready = bucket.ready_at(want, now);
            let missing = (u128::from(used) + u128::from(want)).saturating_sub(amount.into());
            let exact = missing * window.as_nanos() / u128::from(amount);
            let wait = (ready - now).as_nanos();
            prop_assert!(wait >= exact, "{wait} before {exact}");
            prop_assert!(wait - exact <= exact / 10_000 + 10, "{wait} far after {exact}");
            if ready > now {
                prop_assert!(!bucket.take(want, ready - Duration::from_nanos(1)));
            }
            prop_assert!(bucket.take(want, ready));
        }

        #[test]
        fn take_and_refund_balance(amount in 1u64..=10_000_000_000, n in 1u64..=10_000_000_000, window_s in 1u64..=2_678_400) {
            let now = Moment::START;
            let mut bucket = Bucket::new(amount, Duration::from_secs(window_s), now);
            bucket.charge(amount / 2, now);
            let before = bucket.level(now);
            if bucket.take(n, now) {
                prop_assert_eq!(bucket.level(now), before - n as i64);
                bucket.refund(n);
            }
            prop_assert_eq!(bucket.level(now), before);
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let now = Moment::START;
        let mut bucket = Bucket::new(u64::MAX, Duration::MAX, now).with_margin(Duration::MAX);
        bucket.charge(u64::MAX, now);
        bucket.hold(u64::MAX, now + DAY);
        let _ = (bucket.take(u64::MAX, now), bucket.ready_at(u64::MAX, now), bucket.level(now), bucket.full_at(now));
        let mut none = Bucket::new(0, MINUTE, now);
        assert!(none.take(0, now) && !none.take(1, now + DAY));
    }
}
