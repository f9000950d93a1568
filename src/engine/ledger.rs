//! What went through a lane: sums over its requests, and which of them the provider can have seen.

use std::time::Duration;

use super::around::{Around, Later, TRANSIT};
use super::moment::Moment;
use super::paid::{Known, Paid};
use super::sent::Sent;
use crate::cost::Charge;

/// After this long a granted request is taken to have reached the provider.
const SEEN_AFTER: Duration = Duration::from_secs(1);
/// Nobody says whether refused requests count. Those of this long ago may or may not be in the provider's number.
const REFUSALS: Duration = Duration::from_secs(120);

/// The sums of a lane.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Everything granted, less what never reached the provider, corrected to real usage as that becomes known.
    granted: Paid,
    /// The part of it that has ended.
    done: Paid,
    /// What requests that were answered well were charged, and that sum when the last request went.
    taken: Paid,
    taken_before: Known,
    /// Everything that was ever granted, whatever became of it, and what was used more.
    ever: Charge,
    /// When the last two marks were made, at least [`SEEN_AFTER`] apart, and what had ever been granted before.
    marks: [(Moment, Charge); 2],
    /// What the requests under way were charged.
    under_way: Charge,
    /// What was reserved and not used, in all.
    given_back: Charge,
    /// The squares of the tokens of every charge, to tell how much one differs from another.
    squares: f64,
    /// Refused requests, and when the last one was.
    refused: (u64, Option<Moment>),
    sent: Sent,
    /// What the requests whose usage is known were charged at admission …
    pub(super) estimated: Charge,
    /// … and what they used.
    pub(super) used: Charge,
    /// Attempts that were granted, less those that were never sent.
    pub(super) admitted: u64,
    pub(super) first: Option<Moment>,
    last: Option<Moment>,
}

/// The sums as they stood when a request was granted: whatever its answer shows, the provider had seen what had ended by
/// then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    done: Paid,
    given_back: Charge,
    /// With the request itself.
    ever: Charge,
}

impl Ledger {
    pub(super) fn new(now: Moment) -> Self {
        Self {
            granted: Paid::default(),
            done: Paid::default(),
            taken: Paid::default(),
            taken_before: Known::default(),
            ever: Charge::default(),
            marks: [(now, Charge::default()); 2],
            under_way: Charge::default(),
            given_back: Charge::default(),
            squares: 0.0,
            refused: (0, None),
            sent: Sent::default(),
            estimated: Charge::default(),
            used: Charge::default(),
            admitted: 0,
            first: None,
            last: None,
        }
    }

    #[inline]
    pub(super) fn granted(&mut self, charge: &Charge, now: Moment) -> Standing {
        let [earlier, later] = &mut self.marks;
        if now >= later.0 + SEEN_AFTER {
            *earlier = std::mem::replace(later, (now, self.ever));
        }
        self.admitted += 1;
        self.taken_before = self.taken.known();
        self.granted.add(charge);
        self.ever = self.ever.plus(charge);
        self.under_way = self.under_way.plus(charge);
        self.squares += (charge.tokens as f64).powi(2);
        self.sent.count(now);
        self.first = self.first.or(Some(now));
        self.last = Some(now);
        Standing { done: self.done, given_back: self.given_back, ever: self.ever }
    }

    /// What was granted after a request that was granted then.
    pub(super) fn since(&self, then: &Standing) -> Charge {
        self.ever.minus(&then.ever)
    }

    /// A request is under way no more.
    pub(super) fn ended(&mut self, charge: &Charge) {
        self.under_way = self.under_way.minus(charge);
    }

    /// One that ended never reached the provider.
    pub(super) fn unsent(&mut self, charge: &Charge) {
        self.granted.remove(charge);
        self.admitted = self.admitted.saturating_sub(1);
    }

    /// One that ended was sent, and nothing is known of the rest.
    #[inline]
    pub(super) fn unknown(&mut self, charge: &Charge) {
        self.done.add(charge);
    }

    /// One that ended was refused: it took no tokens.
    pub(super) fn refused(&mut self, charge: &Charge, tokens: &Charge, now: Moment) {
        self.granted.remove(tokens);
        self.done.add(&charge.minus(tokens));
        self.refused = (self.refused_lately(now) + 1, Some(now));
    }

    /// One that ended used this.
    pub(super) fn used(&mut self, charge: &Charge, used: &Charge) {
        self.done.add(charge);
        self.done.correct(charge, used);
        self.granted.correct(charge, used);
        self.given_back = self.given_back.plus(&charge.minus(used));
        self.ever = self.ever.plus(&used.minus(charge));
        self.estimated = self.estimated.plus(charge);
        self.used = self.used.plus(used);
    }

    /// One that is about to end was answered well, and used this if that is known.
    #[inline]
    pub(super) fn went_well(&mut self, charge: &Charge, used: Option<&Charge>) {
        self.taken.add(charge);
        if let Some(used) = used {
            self.taken.correct(charge, used);
        }
    }

    /// What requests that were answered well have taken. With `outputs_at_the_end`, the provider may count an output when it
    /// is complete, later than the last request was let go: of such only as much as was known by then.
    pub(super) fn taken(&self, outputs_at_the_end: bool) -> Paid {
        if outputs_at_the_end { self.taken.by_then(&self.taken_before) } else { self.taken }
    }

    /// From the first admission to the last.
    pub(super) fn span(&self) -> Duration {
        self.last.zip(self.first).map_or(Duration::ZERO, |(last, first)| last - first)
    }

    /// What was granted so lately that the provider may not have seen it.
    pub(super) fn on_its_way(&self, now: Moment) -> Charge {
        let [earlier, later] = &self.marks;
        let mark = if now >= later.0 + SEEN_AFTER { later } else { earlier };
        self.ever.minus(&mark.1).at_most(&self.under_way)
    }

    /// What is known of the requests around one of `sent` that was granted `then`. Where `idle`, nothing is under way.
    pub(super) fn around(&self, sent: Moment, then: &Standing, idle: bool, now: Moment) -> Around {
        let later = Later {
            surely: self.sent.after(sent + TRANSIT),
            maybe: self.sent.after(sent - TRANSIT),
            lately: self.sent.after(now - TRANSIT),
        };
        Around {
            sent,
            later,
            unanswered: self.granted.minus(&then.done),
            given_back: self.given_back.minus(&then.given_back),
            owed: Charge::default(),
            deviation: self.granted.deviation(self.squares),
            refused: self.refused_lately(now),
            idle,
        }
    }

    fn refused_lately(&self, now: Moment) -> u64 {
        let (count, last) = self.refused;
        if last.is_some_and(|last| now - last < REFUSALS) { count } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_granted_lately_and_has_not_ended_may_be_on_its_way() {
        let start = Moment::START;
        let mut ledger = Ledger::new(start);
        let charge = Charge::tokens(10, 0);
        ledger.granted(&charge, start);
        for _ in 0..3 {
            ledger.granted(&charge, start + SEEN_AFTER * 3);
        }
        assert_eq!(ledger.on_its_way(start + SEEN_AFTER * 4).tokens, 30, "the first one was seen long ago");
        (0..2).for_each(|_| ledger.ended(&charge));
        assert_eq!(ledger.on_its_way(start + SEEN_AFTER * 4).tokens, 20, "no more than is under way");
    }

    #[test]
    fn what_ended_after_a_request_was_granted_may_not_be_in_its_answer() {
        let now = Moment::START;
        let mut ledger = Ledger::new(now);
        let (charge, used) = (Charge::tokens(10, 10), Charge::tokens(10, 4));
        ledger.granted(&charge, now);
        let then = ledger.granted(&charge, now);
        ledger.ended(&charge);
        ledger.used(&charge, &used);
        let around = ledger.around(now, &then, false, now);
        assert_eq!((around.unanswered.requests, around.given_back.tokens), (2, 6));
        assert_eq!(ledger.since(&then), Charge::default());
    }

    #[test]
    fn refusals_are_forgotten() {
        let now = Moment::START;
        let mut ledger = Ledger::new(now);
        let charge = Charge::tokens(10, 0);
        let tokens = Charge { requests: 0, ..charge };
        let then = ledger.granted(&charge, now);
        ledger.granted(&charge, now);
        (0..2).for_each(|_| ledger.refused(&charge, &tokens, now));
        assert_eq!(ledger.around(now, &then, false, now).refused, 2);
        assert_eq!(ledger.around(now, &then, false, now + REFUSALS).refused, 0);
    }
}
