//! What is asked of a lane, and what comes of it.

use std::sync::Arc;

use super::gates::Overdrawn;
use super::ledger::Standing;
use super::moment::Moment;
use super::predict::Guess;
use super::queue::{Place, Priority};
use super::refusal::Refusal;
use super::tenant::Tenant;
use crate::cost::Charge;

/// What a request asks of a lane.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// What it will take.
    pub charge: Charge,
    /// Where that depends on how long the answer will be: what to guess it from, instead of `charge`. The guess is made
    /// anew when its turn comes.
    pub guess: Option<Arc<Guess>>,
    /// How urgent it is.
    pub priority: Priority,
    /// In whose name it waits.
    pub tenant: Tenant,
    /// When it must have started.
    pub deadline: Option<Moment>,
    /// The place of an earlier attempt, which is taken again.
    pub again: Option<Ticket>,
    /// Its number in an order of arrival that several lanes share, so that it keeps its place when it moves to another one.
    /// Without it the lane counts by itself; one lane should not see both.
    pub arrival: Option<u64>,
}

/// The place of a waiting request, to cancel it or to take it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket(pub(super) Place);

/// The right to send one attempt. Give it back with [`Machine::finish`](super::Machine::finish).
#[derive(Clone, Debug)]
pub struct Grant {
    /// What was taken for it.
    pub charge: Charge,
    /// When it was granted.
    pub at: Moment,
    pub(super) then: Standing,
    /// What it was let pass to test.
    pub(super) test: Overdrawn,
    pub(super) guess: Option<Arc<Guess>>,
    pub(super) ticket: Ticket,
    /// How the breaker knows it.
    pub(super) number: u64,
}

impl Grant {
    /// The place that a retry of this request takes again.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }
}

/// What became of a request that was submitted.
#[derive(Debug)]
pub enum Submitted {
    /// It may be sent now. In a box, since a grant passes through many hands.
    Granted(Box<Grant>),
    /// It waits. [`Machine::poll`](super::Machine::poll) will hand its payload out.
    Queued(Ticket),
}

/// What [`Machine::poll`](super::Machine::poll) hands out.
#[derive(Debug)]
pub enum Wake<T> {
    /// The request may be sent.
    Granted(Box<Grant>, T),
    /// It cannot be sent any more: its deadline has passed, the limits shrank below its size, or the provider has been failing for
    /// longer than anybody waits.
    Refused(Refusal, T),
}

/// What became of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing reached the provider: everything is given back.
    Unsent,
    /// It was sent and nothing is known of the rest: it counts as used.
    Unknown,
    /// The provider refused it: it cost a request and no tokens.
    Refused,
    /// It really used this.
    Used(Charge),
}
