//! One shape that may be the true one, with the books of all rules and what speaks against each.

use super::VOTES;
use crate::cost::{Limit, Shape};
use crate::engine::book::Book;
use crate::engine::moment::Moment;
use crate::engine::sight::{Doubtful, Sight, Verdict};
use crate::engine::slices::{Test, length_of, slice};
use crate::providers::{Rule, Rules};

/// One shape, with the books of all rules.
#[derive(Debug)]
pub(super) struct Hypothesis {
    pub(super) shape: Shape,
    pub(super) book: Book,
    /// The rules by which it may still be.
    pub(super) alive: Rules,
    pub(super) over: [u8; Rule::ALL.len()],
    pub(super) under: [u8; Rule::ALL.len()],
    /// Resets in a row that the shape does not explain.
    pub(super) odd_resets: u8,
    pub(super) test: Option<Test>,
    /// The whole of a limit that is told to be cut into slices, where these are [rounded up](super::super::slices::is_rounded_up) by
    /// much: kept besides, whatever answers show.
    pub(super) whole_of_slices: bool,
    /// Since when it is taken for true, because of a refusal or of what was learned before.
    pub(super) found: Option<Moment>,
}

impl Hypothesis {
    pub(super) fn is_living(&self) -> bool {
        !self.alive.is_empty()
    }

    pub(super) fn is_slice(&self) -> bool {
        matches!(self.shape, Shape::Slice(_))
    }

    /// The rules that may hold, told those of the whole limit, if that is kept besides its slices.
    pub(super) fn rules(&self, whole: Option<Rules>) -> Rules {
        match (length_of(&self.shape), whole) {
            (Some(_), Some(whole)) => whole,
            _ => self.alive,
        }
    }

    /// What fits into it, if it is a slice that nobody told of. A request that is larger takes all of it, and shows that it is
    /// none if it passes.
    pub(super) fn found_slice(&self, limit: &Limit) -> Option<u64> {
        let told = limit.shape == Some(self.shape);
        let length = length_of(&self.shape).filter(|_| self.found.is_some() && !told)?;
        Some(slice(limit, length))
    }

    pub(super) fn judge(
        &mut self,
        sight: &Sight,
        doubtful: &Doubtful,
        unseen: &[(Shape, (u64, u64))],
    ) -> Vec<(Rule, Verdict)> {
        if self.whole_of_slices || matches!(self.shape, Shape::Slice(_) | Shape::Gauge) {
            return Vec::new();
        }
        let doubtful = self.doubtful(doubtful, unseen);
        self.alive.iter().map(|rule| (rule, self.book.judge(rule, sight, &doubtful.by(rule)))).collect()
    }

    /// With what the count of requests says: by this shape if it may hold for requests as well, else by all that may.
    pub(super) fn doubtful(&self, doubtful: &Doubtful, unseen: &[(Shape, (u64, u64))]) -> Doubtful {
        let same = unseen.iter().find(|(shape, _)| *shape == self.shape).map(|(_, bounds)| *bounds);
        let all = unseen.iter().map(|(_, bounds)| *bounds).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
        let (least, most) = same.or(all).unwrap_or(doubtful.unseen);
        let all = doubtful.unseen.1;
        Doubtful { unseen: (least.min(all), most.min(all)), ..*doubtful }
    }

    /// Counts one verdict; returns whether the rule is dead by it.
    pub(super) fn vote(&mut self, rule: Rule, verdict: Verdict, explained: bool) -> bool {
        let (over, under) = (&mut self.over[rule as usize], &mut self.under[rule as usize]);
        match verdict {
            Verdict::Over => *over = over.saturating_add(1),
            Verdict::Under if explained => *under = under.saturating_add(1),
            Verdict::Under | Verdict::Silent => {}
            Verdict::Fits => (*over, *under) = (0, 0),
        }
        *over >= VOTES || *under >= VOTES
    }

    pub(super) fn forgive(&mut self) {
        (self.over, self.under, self.odd_resets) = ([0; Rule::ALL.len()], [0; Rule::ALL.len()], 0);
    }
}
