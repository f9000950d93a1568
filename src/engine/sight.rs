//! What one answer shows of one limit, and how it can be held against a book.

use std::time::{Duration, Instant};

use crate::providers::{Amounts, Rule};

/// The server's number for one limit, and when it can have been written down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    /// What the server says is used.
    pub(super) used: u64,
    /// How far `used` may be off without meaning anything.
    pub(super) noise: u64,
    /// The time until full again, or until the window ends.
    pub(super) reset: Option<Duration>,
    /// The earliest and the latest instant at which the number was written down.
    pub(super) earliest: Instant,
    pub(super) latest: Instant,
}

impl Sight {
    /// How far a reset may be off: it is cut to what its spelling shows.
    pub(super) fn tolerance(reset: Duration) -> Duration {
        if reset.subsec_nanos() == 0 && reset >= Duration::from_secs(1) {
            Duration::from_millis(1_050)
        } else {
            Duration::from_millis(50)
        }
    }
}

/// How much of a book's charges the server's number does not hold yet, at least and at most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Unseen {
    pub(super) least: u64,
    pub(super) most: u64,
}

/// Requests of which it is not known whether the server had seen them when it wrote its number down.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Doubtful {
    /// How many there are …
    pub(super) requests: u64,
    /// … what they are charged …
    pub(super) amounts: Amounts,
    /// … and how many of them the server had not seen, as far as its count of requests tells.
    pub(super) unseen: (u64, u64),
    /// The largest single charge: which of them were not seen is not told.
    pub(super) largest: u64,
    /// What those that had not been answered when it was sent may have used: by the rule of real usage a request may be
    /// charged nothing before it is done.
    pub(super) undone: u64,
    /// What was given back by the rule of real usage since the answered request was sent, and may not have been then.
    pub(super) given_back: u64,
}

impl Doubtful {
    /// The bounds for one rule: the unseen ones are taken for average.
    pub(super) fn by(&self, rule: Rule) -> Unseen {
        let total = self.amounts[rule];
        let (least, most) = self.unseen;
        let part = |unseen: u64| {
            (u128::from(total) * u128::from(unseen.min(self.requests)) / u128::from(self.requests.max(1))) as u64
        };
        let spread = if least == 0 && most >= self.requests { 0 } else { self.largest };
        if rule == Rule::Usage {
            return Unseen {
                least: part(least).saturating_sub(spread.saturating_add(self.given_back)),
                most: self.undone,
            };
        }
        Unseen { least: part(least).saturating_sub(spread), most: part(most).saturating_add(spread).min(total) }
    }
}

/// What a number says of a book that it is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The book holds more than the server does.
    Over,
    /// It may be so.
    Fits,
    /// The book holds less than the server does.
    Under,
}
