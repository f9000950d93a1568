//! Slices that a limit may be cut into: what fits into one, and how it is found out whether they are there.

use std::time::Duration;

use super::belief::VOTES;
use super::moment::Moment;
use crate::cost::{Dimension, Limit, MINUTE, SECOND, Shape};
use crate::providers::{Amounts, Rule};

/// So many requests more than a suspected slice holds are sent, to see whether it is there. If it is, that costs as many refusals.
const EXCESS: u64 = 6;
/// Limits with fewer requests per slice than this are tested once: a burst of that size rarely falls on two slices.
const SMALL_SLICE: u64 = 100;
/// Limits with fewer requests in ten seconds than this are not tested for such slices.
const FEW: u64 = 12;
/// Tokens of a request, where only its size in a slice matters.
const USUAL: u64 = 500;

/// A slice that is only suspected lets a few more pass, to see whether they are refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Test {
    pub(super) length: Duration,
    /// Bursts that have to pass.
    pub(super) bursts: u8,
    /// Requests beyond the slice that passed in the present burst, and when it began.
    passed: u8,
    began: Option<Moment>,
    /// The first burst beyond a long slice has passed. It may have fallen on the slice's end; the next one is beyond two.
    twice: bool,
}

impl Test {
    /// The slices to be tested of a limit, where its shape is not known or is slices of another length.
    pub(super) fn all(limit: &Limit, shape: Option<Shape>) -> impl Iterator<Item = Self> {
        [SECOND, SECOND * 10].into_iter().filter_map(move |length| {
            let part = slice(limit, length);
            let requests = if limit.dimension == Dimension::Requests { part } else { part / USUAL };
            let tested = match shape {
                // Azure says that it looks at one second or at ten. Who describes the limit knows.
                Some(shape) => limit.shape.is_none() && length_of(&shape) > Some(length) && length == SECOND,
                // A slice of ten seconds matters only where its refusals would be many, and so does one of tokens, since who
                // cuts these cuts requests as well.
                None => match (limit.dimension, length) {
                    (Dimension::Requests, SECOND) => true,
                    (Dimension::Requests, _) => requests >= FEW,
                    (_, SECOND) => requests >= SMALL_SLICE,
                    _ => requests >= 10 * SMALL_SLICE,
                },
            };
            (tested && limit.window == MINUTE).then(|| Self::new(length, requests))
        })
    }

    fn new(length: Duration, requests: u64) -> Self {
        // Of short slices, the next burst can be in another one.
        let bursts = if length > SECOND {
            2
        } else if requests < SMALL_SLICE {
            1
        } else {
            3
        };
        Self { length, bursts, passed: 0, began: None, twice: false }
    }

    /// What may be there besides one slice of `limit`.
    pub(super) fn beyond(&self, limit: &Limit) -> u64 {
        if self.twice { slice(limit, self.length) } else { 0 }
    }

    /// By how much requests like this may overdraw it, to see whether they are refused.
    pub(super) fn extra(&self, amounts: &Amounts, limit: &Limit) -> u64 {
        amounts[Rule::LargerPlusCap].saturating_mul(EXCESS).saturating_add(self.beyond(limit))
    }

    /// A request of `sent` that overdrew it was answered.
    pub(super) fn passed(&mut self, sent: Moment, now: Moment) {
        if self.twice && self.began.is_some_and(|began| sent < began) {
            return;
        }
        if self.began.is_none_or(|began| sent >= began + self.length) {
            (self.began, self.passed) = (Some(sent), 0);
        }
        self.passed = self.passed.saturating_add(1);
        if self.passed != VOTES {
            return;
        }
        self.bursts = self.bursts.saturating_sub(1);
        if self.length > SECOND {
            (self.began, self.passed, self.twice) = (Some(now), 0, true);
        }
    }
}

/// The part of `limit` that fits into a slice of this length.
pub(super) fn slice(limit: &Limit, length: Duration) -> u64 {
    let part = u128::from(limit.amount) * length.as_nanos();
    u64::try_from(part.div_ceil(limit.window.as_nanos().max(1))).unwrap_or(u64::MAX).min(limit.amount)
}

/// Whether slices of this length together let pass far more than `limit`, because the part of each is rounded up: one request in
/// each slice of ten seconds is six times an RPM of 1. A little more is how such providers count.
pub(super) fn is_rounded_up(limit: &Limit, length: Duration) -> bool {
    let slices = limit.window.as_nanos() / length.as_nanos().max(1);
    u128::from(slice(limit, length)) * slices > u128::from(limit.amount) * 11 / 10
}

/// How long they are, if they are slices.
pub(super) fn length_of(shape: &Shape) -> Option<Duration> {
    if let Shape::Slice(length) = shape { Some(*length) } else { None }
}
