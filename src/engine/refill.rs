//! The books of a limit that refills continuously: one bucket, kept by every rule at once.

use std::time::{Duration, Instant};

use super::bucket::Bucket;
use super::sight::{Sight, Unseen, Verdict};
use crate::providers::{Amounts, Rule, Rules};

/// A [`Bucket`] with a theoretical arrival time (TAT) for each [`Rule`]. governor decides for the rule that binds.
#[derive(Debug)]
pub(super) struct Refill {
    /// Geometry and decision; its own TAT is that of the rule asked for last.
    bucket: Bucket,
    tats: Amounts,
    /// The rules that may be asked for.
    rules: Rules,
}

impl Refill {
    pub(super) fn new(amount: u64, window: Duration, rules: Rules, margin: Duration, now: Instant) -> Self {
        let bucket = Bucket::new(amount, window, now).with_margin(margin);
        Self { tats: Amounts::all(bucket.tat()), bucket, rules }
    }

    pub(super) fn fits(&mut self, amounts: &Amounts, rules: Rules, now: Instant) -> bool {
        // Among those that a full bucket holds, whoever comes to the latest TAT binds; the others fit where that does.
        let due = |rule: &Rule| self.tats[*rule].saturating_add(self.bucket.in_units(amounts[*rule]));
        let Some(binding) = rules.iter().max_by_key(due) else { return true };
        self.bucket.set_tat(self.tats[binding]);
        rules.iter().all(|rule| amounts[rule] <= self.bucket.amount()) && self.bucket.fits(amounts[binding], now)
    }

    pub(super) fn charge(&mut self, amounts: &Amounts, now: Instant) {
        let clock = self.bucket.clock_up(now);
        for rule in self.rules.iter().filter(|rule| amounts[*rule] > 0) {
            let tat = self.tats[rule].max(clock).saturating_add(self.bucket.in_units(amounts[rule]));
            self.tats[rule] = self.bucket.bounded(tat);
        }
    }

    pub(super) fn refund(&mut self, amounts: &Amounts) {
        self.tats = self.tats.with(amounts, |tat, n| tat.saturating_sub(self.bucket.in_units(n)));
    }

    /// Gives `n` back by the rule of real usage. What was charged lately and may be `on_its_way` can reach the provider
    /// after its own refund, which a bucket that is full by then does not hold: so much stays charged.
    pub(super) fn give_back(&mut self, n: u64, on_its_way: u64, now: Instant) {
        let tat = &mut self.tats[Rule::Usage];
        let floor = (*tat).min(self.bucket.tat_of(on_its_way, now));
        *tat = tat.saturating_sub(self.bucket.in_units(n)).max(floor);
    }

    pub(super) fn ready_at(&mut self, amounts: &Amounts, rules: Rules, now: Instant) -> Instant {
        let ready = |rule| {
            self.bucket.set_tat(self.tats[rule]);
            self.bucket.ready_at(amounts[rule], now)
        };
        rules.iter().map(ready).max().unwrap_or(now)
    }

    /// What is missing by `rule`; more than the amount in debt.
    pub(super) fn used(&self, rule: Rule, now: Instant) -> u64 {
        self.bucket.tokens(self.tats[rule].saturating_sub(self.bucket.clock_up(now)))
    }

    pub(super) fn full_at(&mut self, rule: Rule, now: Instant) -> Instant {
        self.bucket.set_tat(self.tats[rule]);
        self.bucket.full_at(now)
    }

    /// Lowers every book so that `amounts` do not fit before `at`.
    pub(super) fn hold(&mut self, amounts: &Amounts, at: Instant) {
        for rule in Rule::ALL {
            self.bucket.set_tat(self.tats[rule]);
            self.bucket.hold(amounts[rule].min(self.bucket.amount()), at);
            self.tats[rule] = self.bucket.tat();
        }
    }

    /// Lowers every book to at least `used`, as it was at `at`.
    pub(super) fn tighten(&mut self, used: u64, at: Instant) {
        let tat = self.bucket.tat_of(used, at);
        self.tats = self.tats.with(&Amounts::all(tat), u64::max);
    }

    /// The provider's number is the truth: nothing is under way.
    pub(super) fn set_used(&mut self, used: u64, now: Instant) {
        self.tats = Amounts::all(self.bucket.tat_of(used, now));
    }

    pub(super) fn resize(&mut self, amount: u64, window: Duration, now: Instant) {
        let new = self.bucket.resized(amount, window, now);
        for rule in Rule::ALL {
            let used = self.used(rule, now);
            self.tats[rule] = if used > 0 { new.tat_of(used, now) } else { new.tat() };
        }
        self.bucket = new;
    }

    pub(super) fn set_margin(&mut self, margin: Duration) {
        self.bucket.set_margin(margin);
    }

    /// Theoretical arrival times are compared, since they do not age: the server's lies between that of its number at the
    /// earliest and at the latest instant at which it can have been written down.
    pub(super) fn judge(&self, rule: Rule, sight: &Sight, unseen: &Unseen) -> Verdict {
        let noise = self.bucket.in_units(sight.noise);
        let units = |n: u64| self.bucket.in_units(n);
        let booked = self.tats[rule];
        if self.bucket.tat_of(sight.used, sight.latest).saturating_add(noise)
            < booked.saturating_sub(units(unseen.most))
        {
            Verdict::Over
        } else if self.bucket.tat_of(sight.used, sight.earliest)
            > booked.saturating_sub(units(unseen.least)).max(self.bucket.clock_up(sight.latest)).saturating_add(noise)
        {
            Verdict::Under
        } else {
            Verdict::Fits
        }
    }

    /// How many of the charges in the books the server's number does not hold, between which bounds.
    pub(super) fn not_in(&self, rule: Rule, sight: &Sight) -> (u64, u64) {
        let booked = self.tats[rule];
        let missing = |at| self.bucket.tokens(booked.saturating_sub(self.bucket.tat_of(sight.used, at)));
        (missing(sight.latest), missing(sight.earliest))
    }

    /// Whether `reset` is the time until the bucket is full again, to within `tolerance`.
    pub(super) fn explains_reset(&self, used: u64, reset: Duration, tolerance: Duration) -> bool {
        let full_in = self.bucket.time_for(used);
        let tolerance = tolerance + full_in / 32;
        full_in <= reset + tolerance && reset <= full_in + tolerance
    }
}
