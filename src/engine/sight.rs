//! What one answer shows of one limit, and how it can be held against a book.

use std::time::Duration;

use super::moment::Moment;
use crate::providers::{Amounts, Rule, Rules};

/// The server's number for one limit, and when it can have been written down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight {
    /// What the server says is used.
    pub(super) used: u64,
    /// How far `used` may be off without meaning anything.
    pub(super) noise: u64,
    /// The time until full again, or until the window ends.
    pub(super) reset: Option<Duration>,
    /// When the request was sent, and when the answer came: whatever is believed of its stamp, it lies between.
    pub(super) between: (Moment, Moment),
    /// The earliest and the latest instant at which the number was written down.
    pub(super) earliest: Moment,
    pub(super) latest: Moment,
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
    /// How much more than the book it may hold: what was given back here and, when it was written down, not yet there.
    pub(super) beyond: u64,
}

impl Unseen {
    /// The most that the server's number can hold of what is `booked`.
    pub(super) fn at_most(&self, booked: u64) -> u64 {
        booked.saturating_sub(self.least).saturating_add(self.beyond)
    }
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
    /// The standard deviation of a single charge: which of them were not seen is not told.
    pub(super) deviation: f64,
    /// The most that those without an answer when it was sent have used, and the input of it: by the rule of real usage a request
    /// may be charged for its input alone before it is done.
    pub(super) undone: (u64, u64),
    /// The same where the input is counted by characters.
    pub(super) undone_by_chars: (u64, u64),
    /// What was given back by the rule of real usage since the answered request was sent, and may not have been then.
    pub(super) given_back: u64,
}

impl Doubtful {
    /// The bounds for one rule. The unseen ones are a sample of those in doubt, drawn without return: their sum is that many
    /// times the mean, give or take three standard deviations.
    pub(super) fn by(&self, rule: Rule) -> Unseen {
        let total = self.amounts[rule];
        let (least, most) = (self.unseen.0.min(self.requests), self.unseen.1.min(self.requests));
        let all = self.requests.max(1);
        let mean = |n: u64| (u128::from(total) * u128::from(n) / u128::from(all)) as u64;
        let spread =
            |n: u64| (3.0 * self.deviation * (n as f64 * (all - n.min(all)) as f64 / all as f64).sqrt()) as u64;
        let low = mean(least).saturating_sub(spread(least));
        if Rules::SETTLED.contains(rule) {
            let undone = if rule == Rule::Usage { self.undone } else { self.undone_by_chars };
            let (least, beyond) = (low.saturating_sub(self.given_back), self.given_back.saturating_sub(low));
            return Unseen { least, most: self.undone_at_most(undone), beyond };
        }
        Unseen { least: low, most: mean(most).saturating_add(spread(most)).min(total), beyond: 0 }
    }

    /// Of those that the server had seen, the input surely counts.
    fn undone_at_most(&self, (all, input): (u64, u64)) -> u64 {
        let seen = self.requests - self.unseen.1.min(self.requests);
        let part = u128::from(input) * u128::from(seen) / u128::from(self.requests.max(1));
        let spread = 3.0 * self.deviation * (seen as f64).sqrt();
        all.saturating_sub((part as u64).saturating_sub(spread as u64))
    }
}

/// What a number says of a book that it is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The book holds more than the server does.
    Over,
    /// It may be so.
    Fits,
    /// The number says nothing of it.
    Silent,
    /// The book holds less than the server does.
    Under,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubtful(unseen: (u64, u64)) -> Doubtful {
        let (amounts, undone) = (Amounts::all(1_000), (800, 300));
        Doubtful { requests: 10, amounts, unseen, deviation: 0.0, undone, undone_by_chars: undone, given_back: 0 }
    }

    #[test]
    fn the_part_that_was_not_seen_is_bounded_by_the_count_of_requests() {
        let bounds = |doubtful: Doubtful| {
            let Unseen { least, most, .. } = doubtful.by(Rule::TokensPlusCap);
            (least, most)
        };
        assert_eq!(bounds(doubtful((0, 10))), (0, 1_000));
        assert_eq!(bounds(doubtful((4, 6))), (400, 600), "requests of one size");
        let (least, most) = bounds(Doubtful { deviation: 50.0, ..doubtful((5, 5)) });
        assert!(least < 300 && most > 700, "requests of many: {least} {most}");
        assert_eq!(bounds(Doubtful { deviation: 50.0, ..doubtful((10, 10)) }), (1_000, 1_000), "none can be swapped");
    }

    #[test]
    fn what_was_given_back_since_may_be_in_the_number_and_not_in_the_book() {
        let by_usage = |unseen, given_back| Doubtful { given_back, ..doubtful(unseen) }.by(Rule::Usage);
        assert_eq!(by_usage((0, 10), 250).at_most(5_000), 5_250);
        assert_eq!(by_usage((1, 10), 250).at_most(5_000), 5_150);
        assert_eq!(by_usage((5, 10), 250).at_most(5_000), 4_750);
    }

    #[test]
    fn of_what_was_seen_the_input_surely_counts() {
        assert_eq!(doubtful((0, 10)).by(Rule::Usage).most, 800);
        assert_eq!(doubtful((0, 4)).by(Rule::Usage).most, 800 - 180);
    }

    #[test]
    fn a_reset_in_whole_seconds_is_believed_to_a_second() {
        let [coarse, fine] = [Duration::from_secs(20), Duration::from_millis(20_001)].map(Sight::tolerance);
        assert!(coarse > Duration::from_secs(1) && fine < Duration::from_millis(100));
    }
}
