//! When a failed attempt is made again: backoff, and a budget that keeps retries from becoming the load.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use super::moment::Moment;

/// How often and how fast failed attempts are repeated.
///
/// The pause before attempt *n + 1* is `base · 2ⁿ⁻¹` plus a jitter of 0–500 ms, at most `cap`. A wait that the server
/// names replaces it. Where a limit refused and named none, the pauses are at least so long that the last attempt comes when its window
/// is over, a minute at most and as far as `cap` allows; see [`Backoff::next_of_window`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// Attempts in all, the first included. Default 6; 1 never retries. Not counted: attempts that fail while the
    /// breaker is open, since what fails then is the provider, for everybody; and of several that were under way when a limit
    /// refused them, all but the first.
    pub max_attempts: u32,
    /// The first pause. Default 1 s.
    #[serde(with = "seconds")]
    pub base: Duration,
    /// The longest pause. Default 60 s.
    #[serde(with = "seconds")]
    pub cap: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { max_attempts: 6, base: Duration::from_secs(1), cap: Duration::from_secs(60) }
    }
}

impl RetryPolicy {
    /// The pauses between attempts; ends when the attempts are used up. `seed` decides the jitter.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate::RetryPolicy;
    ///
    /// let pauses: Vec<_> = RetryPolicy::default().backoff(7).collect();
    /// assert_eq!(pauses.len(), 5, "six attempts");
    /// assert!(pauses[3] >= Duration::from_secs(8) && pauses[3] <= Duration::from_millis(8_500));
    /// ```
    pub fn backoff(&self, seed: u64) -> Backoff {
        Backoff { policy: *self, attempt: 1, refused: None, jitter: fastrand::Rng::with_seed(seed) }
    }
}

/// The pauses between attempts, see [`RetryPolicy::backoff`].
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: RetryPolicy,
    attempt: u32,
    /// When a limit first refused without saying for how long.
    refused: Option<Moment>,
    jitter: fastrand::Rng,
}

impl Backoff {
    /// The next pause, where a limit of this window refused without saying for how long: the pauses that are left double, and reach
    /// to the end of the window after the first such refusal, since by then there is room again.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tollgate::{MINUTE, RetryPolicy};
    /// use tollgate::engine::Moment;
    ///
    /// let (mut pauses, mut now) = (RetryPolicy::default().backoff(7), Moment::START);
    /// while let Some(pause) = pauses.next_of_window(MINUTE, now) {
    ///     now += pause;
    /// }
    /// assert!(now >= Moment::START + MINUTE);
    /// ```
    pub fn next_of_window(&mut self, window: Duration, now: Moment) -> Option<Duration> {
        let over = *self.refused.get_or_insert(now) + window;
        // Pauses of 1, 2, 4, … parts.
        let parts = 2u32.saturating_pow(self.policy.max_attempts.saturating_sub(self.attempt)).max(2) - 1;
        let share = ((over - now) / parts).min(self.policy.cap);
        self.next().map(|pause| pause.max(share))
    }
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.attempt >= self.policy.max_attempts {
            return None;
        }
        let doubled = self.policy.base.saturating_mul(1u32.checked_shl(self.attempt - 1).unwrap_or(u32::MAX));
        self.attempt += 1;
        let jitter = Duration::from_millis(self.jitter.u64(0..=500));
        Some(doubled.saturating_add(jitter).min(self.policy.cap))
    }
}

/// Paces the retries of a lane by a share of its traffic. Without it, an outage multiplies the load by the number of
/// attempts just when the provider can bear it least. A retry that is not in the budget waits for it; it is not lost.
#[derive(Debug)]
pub struct RetryBudget {
    /// In tenths of a retry.
    tenths: Bucket,
}

impl RetryBudget {
    /// What can be saved up in quiet times.
    const MOST: u64 = 1_000;
    /// What a new lane has saved up.
    const RESERVE: u64 = 100;
    /// Retries that come back each second by themselves.
    const PER_SECOND: u64 = 10;
    /// Every request earns half a retry: enough for one attempt in three to fail.
    const EARNED_TENTHS: u64 = 5;

    /// A budget with its reserve.
    pub fn new(now: Moment) -> Self {
        let mut tenths = Bucket::new(Self::MOST * 10, Duration::from_secs(Self::MOST / Self::PER_SECOND), now);
        tenths.charge((Self::MOST - Self::RESERVE) * 10, now);
        Self { tenths }
    }

    /// A new request earns its part of a retry.
    pub fn earn(&mut self) {
        self.tenths.refund(Self::EARNED_TENTHS);
    }

    /// Takes one retry and says how long to wait for it.
    pub fn spend(&mut self, now: Moment) -> Duration {
        let wait = self.tenths.ready_at(10, now) - now;
        self.tenths.charge(10, now);
        wait
    }
}

/// Refusals for a limit, told apart: those of requests that were under way when one was heard say the same once more. They cost
/// their requests no attempt, or a volley would use up the attempts of all who wait for one limit.
#[derive(Debug, Default)]
pub(super) struct Volleys {
    /// Since when nothing went well.
    since: Option<Moment>,
    /// When the last refusal that counts was heard.
    heard: Option<Moment>,
}

impl Volleys {
    /// A request of `sent` was refused. Returns whether another refusal was heard since, so that this one says nothing new. Once
    /// nothing went well for `patience`, every refusal counts.
    pub(super) fn is_known(&mut self, sent: Moment, patience: Duration, now: Moment) -> bool {
        // What was refused long ago is another story.
        if self.heard.is_none_or(|heard| now - heard > patience) {
            self.since = None;
        }
        let since = *self.since.get_or_insert(now);
        if now - since < patience && self.heard.is_some_and(|heard| sent < heard) {
            return true;
        }
        self.heard = Some(now);
        false
    }

    /// A request was answered well.
    #[inline]
    pub(super) fn went_well(&mut self) {
        self.since = None;
    }
}

/// Durations in configuration files are seconds.
pub(crate) mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Ten years. Longer ones could not be added to every instant.
    pub(crate) const LONGEST: Duration = Duration::from_secs(3_650 * 86_400);

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let duration = Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(D::Error::custom)?;
        if duration > LONGEST {
            return Err(D::Error::custom(format_args!("too long; expected at most {} seconds", LONGEST.as_secs())));
        }
        Ok(duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_cap_and_end_with_the_attempts() {
        let policy = RetryPolicy { max_attempts: 12, ..RetryPolicy::default() };
        let pauses: Vec<_> = policy.backoff(1).map(|pause| pause.as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]);
        assert_eq!(RetryPolicy { max_attempts: 1, ..policy }.backoff(1).next(), None);
        assert_eq!(RetryPolicy { max_attempts: u32::MAX, ..policy }.backoff(1).nth(50), Some(policy.cap));
    }

    #[test]
    fn jitter_follows_the_seed_and_stays_below_half_a_second() {
        let first = |seed| RetryPolicy::default().backoff(seed).next();
        assert_eq!(first(3), first(3));
        assert!((0..50).map(first).any(|pause| pause != first(0)));
        assert!((0..500).all(|seed| first(seed).is_some_and(|pause| pause <= Duration::from_millis(1_500))));
    }

    #[test]
    fn a_volley_is_one_refusal_until_patience_is_over() {
        let (start, second) = (Moment::START, Duration::from_secs(1));
        let at = |seconds| start + second * seconds;
        let mut volleys = Volleys::default();
        let mut known = |sent, now| volleys.is_known(at(sent), second * 300, at(now));
        assert_eq!([known(0, 1), known(0, 1), known(0, 5), known(2, 6), known(3, 6)], [false, true, true, false, true]);
        assert_eq!([known(290, 302), known(0, 302)], [false, false]);
        volleys.went_well();
        assert!(volleys.is_known(at(0), second * 300, at(303)));
    }

    #[test]
    fn retries_beyond_the_reserve_are_paced_and_earned_by_requests() {
        let now = Moment::START;
        let mut budget = RetryBudget::new(now);
        let waits: Vec<_> = (0..120).map(|_| budget.spend(now)).collect();
        assert!(waits[..100].iter().all(Duration::is_zero));
        assert_eq!(waits[119], Duration::from_secs(2), "twenty more at ten a second");
        (0..42).for_each(|_| budget.earn());
        assert_eq!(budget.spend(now), Duration::ZERO);
    }
}
