//! What a refusal that no living hypothesis explains does to them.

use std::time::{Duration, SystemTime};

use super::hypothesis::Hypothesis;
use super::{Belief, LONGEST};
use crate::cost::{Dimension, SECOND, Shape};
use crate::engine::book::Book;
use crate::engine::moment::Moment;
use crate::engine::slices::length_of;
use crate::providers::{Amounts, Rule, Rules};

/// What a refusal shows of the room that was left for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Room {
    /// It does not tell.
    Unknown,
    /// There was enough, which only slices explain.
    Left,
    /// There was too little: so much was used, or is on its way.
    Short { used: u64 },
}

impl Belief {
    /// The provider refused what every living hypothesis let pass. A single refusal that nothing explains may be a lock of a few
    /// seconds that has nothing to do with the limit; when it refuses `again`, the evidence was wrong.
    pub(in crate::engine) fn refused(
        &mut self,
        amounts: &Amounts,
        room: Room,
        again: bool,
        wait: Duration,
        now: Moment,
        wall: SystemTime,
    ) {
        let full = matches!(room, Room::Short { .. });
        if !full && self.limit.window > SECOND * 10 && self.blame_slice(amounts, room, wait, now, wall) {
            return;
        }
        match room {
            // The provider counts more than the rules that are left: those that were ruled out may have been so by charges
            // that never reached it. If they are wrong, the next answers show it again.
            Room::Short { used } => {
                self.reprieve(|hypothesis| hypothesis.is_living());
                for hypothesis in &mut self.hypotheses {
                    if let Book::Refill(book) = &mut hypothesis.book {
                        book.owe_at_most(used, now);
                    }
                }
            }
            Room::Unknown if again && self.limit.window <= LONGEST => {
                for shape in [Shape::Refill, Shape::Sliding, Shape::Fixed] {
                    self.restore(shape, amounts, now, wall);
                }
            }
            Room::Unknown | Room::Left => {}
        }
    }

    /// Takes a refusal for that of a slice that was used up: rather one that is still suspected than one that was ruled out,
    /// of these one as long as the wait, and of these the shortest. Returns whether that explains the refusal.
    fn blame_slice(&mut self, amounts: &Amounts, room: Room, wait: Duration, now: Moment, wall: SystemTime) -> bool {
        let rules = self.rules;
        let mut slices: Vec<_> = self.hypotheses.iter_mut().filter(|hypothesis| hypothesis.is_slice()).collect();
        let used_up = slices.iter_mut().enumerate().filter_map(|(i, slice)| {
            let length = length_of(&slice.shape).filter(|_| !slice.book.fits(amounts, rules.binding(), 0, now))?;
            Some((slice.test.is_none(), length < wait, length, i))
        });
        if let Some((.., blamed)) = used_up.min() {
            // Whether there is a longer one as well is not to be told from this; it would be found in the same way.
            for slice in slices.iter_mut().filter(|slice| slice.test.is_some()) {
                (slice.alive, slice.test) = (Rules::NONE, None);
            }
            (slices[blamed].alive, slices[blamed].found) = (rules, Some(now));
            return true;
        }
        // Who cuts a limit cuts that of requests. A slice of tokens that is not there could refuse a large request for ever.
        let length = if wait <= SECOND { SECOND } else { SECOND * 10 };
        let known = || self.hypotheses.iter().filter_map(|hypothesis| length_of(&hypothesis.shape));
        let (explains, longer) = (known().any(|slice| slice <= length), known().any(|slice| slice > length));
        if self.limit.dimension == Dimension::Requests && !explains && (room == Room::Left || longer) {
            self.restore(Shape::Slice(length), amounts, now, wall);
            return true;
        }
        // With a slice that is known, it was the jitter of the network.
        room == Room::Left
    }

    /// Brings a shape back to life, or for the first time.
    fn restore(&mut self, shape: Shape, amounts: &Amounts, now: Moment, wall: SystemTime) {
        if !self.hypotheses.iter().any(|hypothesis| hypothesis.shape == shape) {
            let used = self.used(now).0;
            self.suppose(shape, None, now, wall);
            if let (Some(Hypothesis { book: Book::Window(book), .. }), false) =
                (self.hypotheses.last_mut(), matches!(shape, Shape::Slice(_)))
            {
                // It has no log; what the others say is used is taken for having been used just now.
                book.charge(&Amounts::all(used.saturating_sub(amounts[Rule::LargerPlusCap])), now);
            }
        }
        let rules = self.rules;
        for hypothesis in self.hypotheses.iter_mut().filter(|hypothesis| hypothesis.shape == shape) {
            (hypothesis.alive, hypothesis.found) = (rules, Some(now));
            hypothesis.forgive();
        }
    }

    /// Brings all rules back to life, for whole limits of such a kind.
    pub(super) fn reprieve(&mut self, which: impl Fn(&Hypothesis) -> bool) {
        let rules = self.rules;
        let whole = self.hypotheses.iter_mut().filter(|hypothesis| !hypothesis.is_slice());
        for hypothesis in whole.filter(|hypothesis| which(hypothesis)) {
            hypothesis.alive = rules;
            hypothesis.forgive();
        }
    }
}
