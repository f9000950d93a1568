//! An answer among the requests around it: which of them its numbers can hold.

use std::time::Duration;

use super::moment::Moment;
use super::paid::Paid;
use crate::cost::Charge;

/// The longest return trip of an answer that is reckoned with when its numbers are read. Nothing is assumed about the way out: a
/// burst may wait for connections, or in the server's own queue, for seconds.
const RETURN: Duration = Duration::from_secs(1);
/// Requests of one moment reach the server in any order.
pub(super) const TRANSIT: Duration = Duration::from_millis(250);

/// What is known of the requests around the one that was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Around {
    pub(super) sent: Moment,
    pub(super) later: Later,
    /// Those that had not been answered when it was granted, and those granted since: the server may have seen them or not.
    pub(super) unanswered: Paid,
    /// What was given back since it was granted.
    pub(super) given_back: Charge,
    /// What it used more than it was charged. A number that was written as it was admitted does not hold that.
    pub(super) owed: Charge,
    /// The standard deviation of the tokens of a charge.
    pub(super) deviation: f64,
    /// Requests that were refused lately, which the server may have counted or not.
    pub(super) refused: u64,
    /// Nothing is under way any more.
    pub(super) idle: bool,
}

/// Requests sent after the one that was answered. Those of one moment reach the server in any order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Later {
    /// So much later that they surely reached the server after it.
    pub(super) surely: u64,
    /// They may have reached it after it, even if they were sent a little before.
    pub(super) maybe: u64,
    /// They may not have reached it when the answer was written.
    pub(super) lately: u64,
}

/// When a server writes its numbers down: as it admits a request, or as it answers. Nobody says; the count of requests
/// shows it, whenever many were sent in between.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamps {
    /// Above zero: at completion.
    score: i8,
}

impl Stamps {
    const SURE: i8 = 3;

    pub(super) fn at_completion(self) -> bool {
        self.score >= Self::SURE
    }

    /// Between which instants the numbers of an answer to a request sent at `sent` were written down.
    pub(super) fn written(self, sent: Moment, now: Moment) -> (Moment, Moment) {
        let now = now.max(sent);
        if self.at_completion() { (sent.max(now - RETURN), now) } else { (sent, now) }
    }

    /// The server has `seen` so many requests, and the books hold `booked`. `gone`: how much of what counted as the request was
    /// admitted has left the window since, at least and at most.
    pub(super) fn learn(&mut self, seen: u64, booked: u64, later: &Later, gone: (u64, u64)) {
        let Later { surely, maybe, lately } = *later;
        let near = surely.saturating_sub(lately) / 4;
        let off = |seen: u64, least: u64, most: u64| least.saturating_sub(seen).max(seen.saturating_sub(most));
        let vote = |gone| {
            let early = off(seen.checked_sub(gone)?, booked.saturating_sub(maybe), booked.saturating_sub(surely));
            let late = off(seen, booked.saturating_sub(lately), booked);
            // A window that has just ended makes the count small whatever it means.
            match (early <= near, late <= near) {
                _ if seen < near => None,
                (false, true) if early > 2 * near => Some(1),
                (true, false) if late > 2 * near => Some(-1),
                _ => None,
            }
        };
        if let Some(step) = vote(gone.0).filter(|step| vote(gone.1) == Some(*step)) {
            self.score = (self.score + step).clamp(-Self::SURE * 3, Self::SURE * 3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_tells_when_numbers_are_written_only_by_what_was_surely_sent_in_between() {
        let later = |surely, maybe, lately| Later { surely, maybe, lately };
        let score = |seen, booked, later: Later, gone| {
            let mut stamps = Stamps::default();
            stamps.learn(seen, booked, &later, gone);
            stamps.score
        };
        // Of 300 requests 100 were sent after this one.
        assert_eq!(score(200, 300, later(100, 100, 0), (0, 0)), -1, "at admission");
        assert_eq!(score(300, 300, later(100, 100, 0), (0, 0)), 1, "at completion");
        assert_eq!(score(250, 300, later(100, 100, 0), (0, 0)), 0, "neither");
        // A burst arrives in any order.
        assert_eq!(score(300, 300, later(0, 200, 0), (0, 0)), 0);
        // As many have refilled since it was admitted as were sent.
        assert_eq!(score(300, 300, later(100, 100, 0), (100, 100)), 0);
        assert_eq!(score(300, 300, later(100, 100, 0), (0, 100)), 0, "or may have");
    }
}
