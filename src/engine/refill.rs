//! The books of a limit that refills continuously: one bucket, kept by every rule at once.

use std::time::Duration;

use super::bucket::Bucket;
use super::moment::Moment;
use super::sight::{Sight, Unseen, Verdict};
use crate::providers::{Amounts, Rule, Rules};

/// A [`Bucket`] with a theoretical arrival time (TAT) for each [`Rule`]. governor decides for the rule that binds.
#[derive(Debug)]
pub(super) struct Refill {
    /// Geometry and decision; its own TAT is that of the rule asked for last.
    bucket: Bucket,
    /// Those that may be asked for.
    tats: Vec<(Rule, Tat)>,
    /// None of them is later. It may be too late itself: what is given back does not lower it.
    latest: u64,
    /// In a box, since it is not needed to let a request pass.
    aside: Box<Aside>,
}

/// What only refunds and other sizes ask for.
#[derive(Debug)]
struct Aside {
    /// When the server's number was last held against the books, and how much of them it did not hold, in units: no more than that
    /// can be given back of what was charged before.
    heard: Moment,
    unvouched: Amounts,
    /// What was forgiven when the bucket shrank, since it could not hold it, and when: if it grows again, the server has not.
    forgiven: Option<(Moment, Amounts)>,
}

/// The books by one rule, on the bucket's clock.
#[derive(Clone, Copy, Debug, Default)]
struct Tat {
    at: u64,
    /// When a charge last found the bucket full. The jump of the TAT to "now" at that time is no charge.
    restarted: u64,
    /// The TAT that it found: how long the bucket had been full.
    rested: u64,
}

impl Tat {
    #[inline]
    fn charge(&mut self, units: u64, clock: u64) {
        if self.at < clock {
            *self = Self { at: clock, restarted: clock, rested: self.at };
        }
        self.at = Bucket::bounded(self.at + units);
    }

    /// What was charged `later` stays charged.
    fn give_back(&mut self, bucket: &Bucket, units: u64, later: u64, now: Moment) {
        let floor = if later > 0 { bucket.tat_of(later, now).min(self.at) } else { 0 };
        self.at = self.at.saturating_sub(units).max(floor);
    }
}

impl Refill {
    /// For requests that may be charged by any of `rules`.
    pub(super) fn new(amount: u64, window: Duration, rules: Rules, margin: Duration, now: Moment) -> Self {
        let bucket = Bucket::new(amount, window, now).with_margin(margin);
        let full = Tat { at: bucket.tat(), ..Tat::default() };
        let tats = rules.iter().map(|rule| (rule, full)).collect();
        let aside = Aside { heard: Moment::BEGINNING, unvouched: Amounts::default(), forgiven: None };
        Self { tats, latest: full.at, bucket, aside: Box::new(aside) }
    }

    fn tat(&self, rule: Rule) -> Tat {
        self.tats.iter().find(|(other, _)| *other == rule).map_or_else(Tat::default, |(_, tat)| *tat)
    }

    /// Whether `amounts` fit now by all of `rules`.
    #[inline]
    pub(super) fn fits(&mut self, amounts: &Amounts, rules: Rules, now: Moment) -> bool {
        // What fits by the dearest rule and the latest TAT fits by all, and nearly always that is so.
        self.bucket.set_tat(self.latest);
        self.bucket.fits(amounts[Rule::LargerPlusCap], now) || self.fits_by_each(amounts, rules, now)
    }

    fn fits_by_each(&mut self, amounts: &Amounts, rules: Rules, now: Moment) -> bool {
        // Whoever comes to the latest TAT binds; the others fit where that does, if a full bucket holds them.
        let (mut largest, mut latest, mut binding) = (0, 0, (0, 0));
        for (rule, tat) in self.tats.iter().filter(|(rule, _)| rules.contains(*rule)) {
            let n = amounts[*rule];
            largest = largest.max(n);
            // No overflow: both are far below `u64::MAX`.
            let due = tat.at + self.bucket.in_units(n);
            if latest <= due {
                (latest, binding) = (due, (n, tat.at));
            }
        }
        self.latest = self.last();
        let (n, tat) = binding;
        self.bucket.set_tat(tat);
        largest <= self.bucket.amount() && self.bucket.fits(n, now)
    }

    /// The latest of all.
    fn last(&self) -> u64 {
        self.tats.iter().map(|(_, tat)| tat.at).max().unwrap_or_default()
    }

    pub(super) fn charge(&mut self, amounts: &Amounts, now: Moment) {
        let Self { bucket, tats, latest, .. } = self;
        let clock = bucket.clock_up(now);
        let mut last = *latest;
        for (rule, tat) in tats {
            let n = amounts[*rule];
            if n > 0 {
                tat.charge(bucket.in_units(n), clock);
                last = last.max(tat.at);
            }
        }
        *latest = last;
    }

    /// Gives back what never reached the provider, charged at `at`. Its bucket may have been full without it when others were
    /// charged `since`, and did not refill as this one did. Where there were none, it has been full for as long as before. And what
    /// the server's number held since was not this.
    pub(super) fn refund(&mut self, amounts: &Amounts, since: &Amounts, at: Moment, now: Moment) {
        for (rule, tat) in self.tats.iter_mut().filter(|(rule, _)| amounts[*rule] > 0) {
            let mut units = self.bucket.in_units(amounts[*rule]);
            if at < self.aside.heard {
                units = units.min(self.aside.unvouched[*rule]);
                self.aside.unvouched[*rule] -= units;
            }
            tat.give_back(&self.bucket, units, since[*rule], now);
            if tat.at == tat.restarted {
                tat.at = tat.rested;
            }
        }
    }

    /// Gives `n` back by a rule that settles, but not what was charged `later` or is still on its way: the provider's bucket may be
    /// full before that arrives, and then it keeps nothing of the refund.
    pub(super) fn give_back(&mut self, rule: Rule, n: u64, later: u64, now: Moment) {
        for (_, tat) in self.tats.iter_mut().filter(|(other, _)| *other == rule) {
            tat.give_back(&self.bucket, self.bucket.in_units(n), later, now);
        }
    }

    pub(super) fn ready_at(&mut self, amounts: &Amounts, rules: Rules, now: Moment) -> Moment {
        let ready = |rule| {
            self.bucket.set_tat(self.tat(rule).at);
            self.bucket.ready_at(amounts[rule], now)
        };
        rules.iter().map(ready).max().unwrap_or(now)
    }

    /// What is missing by `rule`; more than the amount in debt.
    pub(super) fn used(&self, rule: Rule, now: Moment) -> u64 {
        self.bucket.tokens(self.tat(rule).at.saturating_sub(self.bucket.clock_up(now)))
    }

    pub(super) fn full_at(&mut self, rule: Rule, now: Moment) -> Moment {
        self.bucket.set_tat(self.tat(rule).at);
        self.bucket.full_at(now)
    }

    /// Lowers every book so that `amounts` do not fit before `at`.
    pub(super) fn hold(&mut self, amounts: &Amounts, at: Moment) {
        for (rule, tat) in &mut self.tats {
            self.bucket.set_tat(tat.at);
            self.bucket.hold(amounts[*rule].min(self.bucket.amount()), at);
            tat.at = self.bucket.tat();
        }
        self.latest = self.last();
    }

    /// Lowers the books of `rules` to at least `used`, as it was at `at` and was heard of at `heard`; that of real usage to what is
    /// left of it after `given_back`.
    pub(super) fn tighten(&mut self, rules: Rules, used: u64, given_back: u64, at: Moment, heard: Moment) {
        for (rule, tat) in self.tats.iter_mut().filter(|(rule, _)| rules.contains(*rule)) {
            let used = if Rules::SETTLED.contains(*rule) { used.saturating_sub(given_back) } else { used };
            // The number is a whole one, rounded up: a book that is less than one below it may be right.
            let least = self.bucket.tat_of(used.saturating_sub(1), at);
            if tat.at < least {
                tat.at = self.bucket.tat_of(used, at);
            }
            self.aside.unvouched[*rule] = tat.at.saturating_sub(least);
        }
        self.aside.heard = self.aside.heard.max(heard);
        self.latest = self.last();
    }

    /// No book owes more than this.
    pub(super) fn owe_at_most(&mut self, used: u64, now: Moment) {
        let most = self.bucket.tat_of(used, now);
        self.tats.iter_mut().for_each(|(_, tat)| tat.at = tat.at.min(most));
        self.latest = self.last();
    }

    /// The provider's number is the truth, but for what rules that settle have `owed` since it was written.
    pub(super) fn set_used(&mut self, used: u64, owed: u64, now: Moment) {
        for (rule, tat) in &mut self.tats {
            let owed = if Rules::SETTLED.contains(*rule) { owed } else { 0 };
            tat.at = self.bucket.tat_of(used.saturating_add(owed), now);
        }
        self.latest = self.last();
    }

    pub(super) fn resize(&mut self, amount: u64, window: Duration, now: Moment) {
        let new = self.bucket.resized(amount, window, now);
        let restarted = new.clock_up(now);
        let shrinks = amount < self.bucket.amount();
        let (since, mut forgiven) = self.aside.forgiven.take().unwrap_or((now, Amounts::default()));
        // What would have come back of it by now, if the bucket had been as large as it is again.
        let back = new.refill(now - since).saturating_sub(self.bucket.refill(now - since));
        for (rule, tat) in &mut self.tats {
            let used = self.bucket.tokens(tat.at.saturating_sub(self.bucket.clock_up(now)));
            let used = if shrinks {
                let carried = self.bucket.carried(used, amount);
                forgiven[*rule] = forgiven[*rule].saturating_add(used - carried);
                carried
            } else {
                used.saturating_add(forgiven[*rule].saturating_sub(back))
            };
            let at = if used > 0 { new.tat_of(used, now) } else { new.tat() };
            *tat = Tat { at, restarted, rested: restarted };
        }
        self.aside.forgiven = shrinks.then_some((now, forgiven));
        self.bucket = new;
        self.latest = self.last();
    }

    pub(super) fn set_margin(&mut self, margin: Duration) {
        self.bucket.set_margin(margin);
    }

    pub(super) fn refilled_in(&self, time: Duration) -> u64 {
        self.bucket.refill(time)
    }

    /// Theoretical arrival times are compared, since they do not age: the server's lies between that of its number at the
    /// earliest and at the latest instant at which it can have been written down.
    pub(super) fn judge(&self, rule: Rule, sight: &Sight, unseen: &Unseen) -> Verdict {
        let noise = self.bucket.in_units(sight.noise);
        let units = |n: u64| self.bucket.in_units(n);
        let booked = self.tat(rule).at;
        if self.steady(rule, sight)
            && self.bucket.tat_of(sight.used, sight.latest).saturating_add(noise)
                < booked.saturating_sub(units(unseen.most))
        {
            Verdict::Over
        } else if self.bucket.tat_of(sight.used, sight.earliest)
            > booked
                .saturating_sub(units(unseen.least))
                .saturating_add(units(unseen.beyond))
                .max(self.bucket.clock_up(sight.latest))
                .saturating_add(noise)
        {
            Verdict::Under
        } else {
            Verdict::Fits
        }
    }

    /// How many of the charges in the books the server's number does not hold, between which bounds.
    pub(super) fn not_in(&self, rule: Rule, sight: &Sight) -> (u64, u64) {
        let booked = self.tat(rule).at;
        let missing = |at| self.bucket.tokens(booked.saturating_sub(self.bucket.tat_of(sight.used, at)));
        let least = if self.steady(rule, sight) { missing(sight.latest) } else { 0 };
        // What is shown is rounded, and the server's clock is a little behind ours.
        (least.saturating_sub(1), missing(sight.earliest).saturating_add(1))
    }

    /// Whether nothing was charged to a full bucket since the server's number was written down: only then does the book
    /// differ from it by charges alone.
    fn steady(&self, rule: Rule, sight: &Sight) -> bool {
        self.tat(rule).restarted <= self.bucket.clock_up(sight.earliest)
    }

    /// Whether `reset` is the time until the bucket is full again, to within `tolerance`.
    pub(super) fn explains_reset(&self, used: u64, reset: Duration, tolerance: Duration) -> bool {
        let full_in = self.bucket.time_for(used);
        let tolerance = tolerance + full_in / 32;
        // The number is a whole one: of the last one used nearly all may be back, or of the next one a bit may be gone.
        let (least, most) = (used.saturating_sub(1), used.saturating_add(1));
        self.bucket.time_for(least) <= reset + tolerance && reset <= self.bucket.time_for(most) + tolerance
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::{MINUTE, SECOND};

    /// A bucket of one a second.
    fn book(now: Moment) -> Refill {
        Refill::new(60, MINUTE, Rules::ALL, Duration::ZERO, now)
    }

    #[test]
    fn a_reset_tells_parts_of_a_request_that_its_number_does_not() {
        let book = book(Moment::START);
        let explains = |used, ms| book.explains_reset(used, Duration::from_millis(ms), Sight::tolerance(SECOND));
        assert!(explains(1, 1_000) && explains(1, 100) && explains(20, 19_050) && explains(0, 900));
        assert!(!explains(1, 40_000) && !explains(30, 20_000));
    }

    fn sight(used: u64, earliest: Moment, latest: Moment) -> Sight {
        Sight { used, noise: 0, reset: None, between: (earliest, latest), earliest, latest }
    }

    fn verdict(book: &Refill, rule: Rule, sight: &Sight, least: u64, most: u64) -> Verdict {
        book.judge(rule, sight, &Unseen { least, most, beyond: 0 })
    }

    #[test]
    fn a_number_fits_between_what_may_and_what_must_be_in_it_whenever_it_was_written() {
        let now = Moment::START;
        let mut book = book(now);
        book.charge(&Amounts::all(30), now);
        let judged = |used| verdict(&book, Rule::Tokens, &sight(used, now, now + 4 * SECOND), 2, 10);
        assert_eq!([15, 16, 28, 29].map(judged), [Verdict::Over, Verdict::Fits, Verdict::Fits, Verdict::Under]);
    }

    #[test]
    fn what_is_found_full_meanwhile_convicts_nobody() {
        let now = Moment::START;
        let mut book = book(now);
        book.charge(&Amounts::all(2), now);
        // It is full again after two seconds: what the arrival times differ by is eight seconds of rest and one request.
        book.charge(&Amounts::all(1), now + 10 * SECOND);
        let early = sight(2, now, now);
        assert_eq!(verdict(&book, Rule::Tokens, &early, 0, 1), Verdict::Fits);
        assert_eq!(book.not_in(Rule::Tokens, &early), (0, 10));
        let late = sight(1, now + 10 * SECOND, now + 10 * SECOND);
        assert_eq!(verdict(&book, Rule::Tokens, &late, 0, 0), Verdict::Fits);
        assert_eq!(verdict(&book, Rule::Tokens, &sight(0, late.earliest, late.latest), 0, 0), Verdict::Over);
    }

    #[test]
    fn an_old_number_takes_back_nothing_that_was_given_back_since() {
        let now = Moment::START;
        let mut book = book(now);
        book.charge(&Amounts::all(30), now);
        book.give_back(Rule::Usage, 10, 0, now);
        book.tighten(Rules::ALL, 30, 10, now, now);
        assert_eq!([Rule::Usage, Rule::Tokens].map(|rule| book.used(rule, now)), [20, 30]);
        book.tighten(Rules::of(&[Rule::Tokens]), 32, 0, now, now);
        assert_eq!([Rule::Usage, Rule::Tokens].map(|rule| book.used(rule, now)), [20, 32], "those that it fits");
        book.tighten(Rules::ALL, 35, 0, now, now);
        assert_eq!([Rule::Usage, Rule::Tokens].map(|rule| book.used(rule, now)), [35, 35], "somebody else's");
    }

    #[test]
    fn what_may_still_be_on_its_way_is_not_given_back_twice() {
        let now = Moment::START;
        let mut book = book(now);
        book.charge(&Amounts::all(30), now);
        book.give_back(Rule::Usage, 25, 12, now);
        assert_eq!(book.used(Rule::Usage, now), 12, "a full bucket would have lost the rest");
    }

    #[test]
    fn a_request_that_was_never_sent_leaves_a_full_bucket_as_it_was() {
        let now = Moment::START;
        let all = |n| Amounts::all(n);
        let mut book = Refill::new(60, MINUTE, Rules::ALL, SECOND / 2, now);
        book.charge(&all(20), now + MINUTE);
        book.refund(&all(20), &all(0), now + MINUTE, now + MINUTE);
        assert!(book.fits(&all(60), Rules::ALL, now + MINUTE), "full for longer than the margin");
    }

    #[test]
    fn what_seemed_to_refill_while_an_unsent_request_was_held_is_not_kept() {
        let now = Moment::START;
        let all = |n| Amounts::all(n);
        let mut book = book(now);
        book.charge(&all(20), now);
        book.charge(&all(10), now + 10 * SECOND);
        book.refund(&all(20), &all(10), now, now + 10 * SECOND);
        assert_eq!(book.used(Rule::Tokens, now + 10 * SECOND), 10, "the provider's bucket was full until then");
    }

    #[test]
    fn what_the_server_held_without_an_unsent_request_is_not_given_back_with_it() {
        let (now, later) = (Moment::START, Moment::START + SECOND);
        let all = |n| Amounts::all(n);
        let mut book = book(now);
        book.charge(&all(40), now);
        book.tighten(Rules::ALL, 30, 0, later, later);
        book.refund(&all(40), &all(0), now, later);
        assert_eq!(book.used(Rule::Tokens, later), 29, "somebody else's, and rounded");
        book.charge(&all(10), later);
        book.refund(&all(10), &all(0), later, later);
        assert_eq!(book.used(Rule::Tokens, later), 29, "what was charged after it is given back in full");
    }

    #[test]
    fn what_a_smaller_size_forgave_is_missing_again_from_a_larger_one() {
        let now = Moment::START;
        let mut book = Refill::new(600, MINUTE, Rules::ALL, Duration::ZERO, now);
        book.charge(&Amounts::all(500), now);
        book.resize(60, MINUTE, now);
        assert_eq!(book.used(Rule::Tokens, now), 60, "it holds no more");
        book.resize(600, MINUTE, now + 10 * SECOND);
        assert_eq!(book.used(Rule::Tokens, now + 10 * SECOND), 400, "as if it had always been as large");
        book.resize(60, MINUTE, now + 10 * SECOND);
        book.resize(600, MINUTE, now + 2 * MINUTE);
        assert_eq!(book.used(Rule::Tokens, now + 2 * MINUTE), 0, "that is long ago");
    }

    #[test]
    fn each_rule_has_its_own_books_and_the_dearest_decides() {
        let now = Moment::START;
        let mut book = book(now);
        let mut amounts = Amounts::all(10);
        amounts[Rule::LargerPlusCap] = 40;
        book.charge(&amounts, now);
        assert!(book.fits(&amounts, Rules::of(&[Rule::Tokens]), now));
        assert!(!book.fits(&amounts, Rules::ALL, now));
        assert_eq!(book.ready_at(&amounts, Rules::ALL, now), now + 20 * SECOND);
    }

    #[test]
    fn another_size_keeps_what_is_missing_by_every_rule() {
        let now = Moment::START;
        let mut book = book(now);
        book.charge(&Amounts::all(30), now);
        book.give_back(Rule::Usage, 10, 0, now);
        book.resize(120, MINUTE, now);
        assert_eq!([Rule::Usage, Rule::Tokens].map(|rule| book.used(rule, now)), [20, 30]);
        assert_eq!(book.full_at(Rule::Tokens, now), now + 15 * SECOND);
    }
}
