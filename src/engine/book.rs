//! The books of one limit under one shape.

use super::moment::Moment;
use super::refill::Refill;
use super::sight::{Sight, Unseen, Verdict};
use super::window::Window;
use crate::providers::{Amounts, Rule, Rules};

/// One way to keep the books of a limit.
#[derive(Debug)]
pub(super) enum Book {
    Refill(Refill),
    Window(Window),
    /// What is under way.
    Gauge {
        amount: u64,
        level: Amounts,
    },
}

impl Book {
    /// Whether `amounts` fit now by all of `rules`, with so much `extra` allowed.
    #[inline]
    pub(super) fn fits(&mut self, amounts: &Amounts, rules: Rules, extra: u64, now: Moment) -> bool {
        match self {
            Book::Refill(book) => book.fits(amounts, rules, now),
            Book::Window(book) => book.fits(amounts, rules, extra, now),
            Book::Gauge { amount, level } => {
                rules.iter().all(|rule| level[rule].saturating_add(amounts[rule]) <= *amount)
            }
        }
    }

    #[inline]
    pub(super) fn charge(&mut self, amounts: &Amounts, now: Moment) {
        match self {
            Book::Refill(book) => book.charge(amounts, now),
            Book::Window(book) => book.charge(amounts, now),
            Book::Gauge { level, .. } => *level = level.plus(amounts),
        }
    }

    /// Gives back what never reached the provider, charged at `at`; others were charged `since`.
    pub(super) fn refund(&mut self, amounts: &Amounts, since: &Amounts, at: Moment, now: Moment) {
        match self {
            Book::Refill(book) => book.refund(amounts, since, at, now),
            Book::Window(book) => book.refund(amounts, at),
            // What has ended is not under way any more: it is off the gauge already.
            Book::Gauge { .. } => {}
        }
    }

    /// A request that was charged has ended, however: a gauge sinks.
    pub(super) fn ended(&mut self, amounts: &Amounts) {
        if let Book::Gauge { level, .. } = self {
            *level = level.minus(amounts);
        }
    }

    /// Corrects the charge by a rule that settles. `input` and `output` make up what was used: some providers count output
    /// when it is done, so that it leaves a window later.
    pub(super) fn settle(
        &mut self,
        rule: Rule,
        charged: u64,
        (input, output): (u64, u64),
        on_its_way: u64,
        at: Moment,
        now: Moment,
    ) {
        let only = |amount| {
            let mut amounts = Amounts::default();
            amounts[rule] = amount;
            amounts
        };
        let used = input.saturating_add(output);
        match self {
            Book::Refill(book) if used < charged => book.give_back(rule, charged - used, on_its_way, now),
            Book::Refill(book) => book.charge(&only(used - charged), now),
            Book::Window(book) => {
                book.refund(&only(charged.saturating_sub(input)), at);
                book.charge(&only(output.saturating_add(input.saturating_sub(charged))), now);
            }
            Book::Gauge { .. } => {}
        }
    }

    /// When `amounts` fit, if nothing else happens. More than the limit stands for a queue of smaller requests.
    pub(super) fn ready_at(&mut self, amounts: &Amounts, rules: Rules, now: Moment) -> Moment {
        match self {
            Book::Refill(book) => book.ready_at(amounts, rules, now),
            Book::Window(book) => book.ready_at(amounts, rules, now),
            // Nobody knows when a request under way ends; its end lets the others go, whatever is said here.
            Book::Gauge { .. } => {
                if self.fits(amounts, rules, 0, now) {
                    now
                } else {
                    now + std::time::Duration::from_secs(1)
                }
            }
        }
    }

    pub(super) fn used(&mut self, rule: Rule, now: Moment) -> u64 {
        match self {
            Book::Refill(book) => book.used(rule, now),
            Book::Window(book) => book.used(rule, now),
            Book::Gauge { level, .. } => level[rule],
        }
    }

    /// How much of what was used at `since` is used no more at `now`, at least and at most, by the dearest rule.
    pub(super) fn gone_since(&mut self, since: Moment, now: Moment) -> (u64, u64) {
        match self {
            Book::Refill(book) => {
                let refilled = book.refilled_in(now - since);
                (refilled, refilled)
            }
            Book::Window(book) => (0, book.left_since(since, now)),
            Book::Gauge { .. } => (0, u64::MAX),
        }
    }

    pub(super) fn full_at(&mut self, rule: Rule, now: Moment) -> Moment {
        match self {
            Book::Refill(book) => book.full_at(rule, now),
            Book::Window(book) => book.full_at(now),
            Book::Gauge { .. } => now,
        }
    }

    pub(super) fn judge(&mut self, rule: Rule, sight: &Sight, unseen: &Unseen) -> Verdict {
        match self {
            Book::Refill(book) => book.judge(rule, sight, unseen),
            Book::Window(book) => book.judge(rule, sight, unseen),
            Book::Gauge { .. } => Verdict::Fits,
        }
    }

    /// How many of the charges in the book the server's number does not hold, at least and at most.
    pub(super) fn not_in(&mut self, rule: Rule, sight: &Sight) -> Option<(u64, u64)> {
        match self {
            Book::Refill(book) => Some(book.not_in(rule, sight)),
            Book::Window(book) => book.not_in(rule, sight),
            Book::Gauge { .. } => None,
        }
    }
}
