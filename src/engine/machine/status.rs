//! A lane as it stands.

use std::time::Duration;

use serde::Serialize;

use super::Machine;
use crate::cost::{Charge, Limit};
use crate::engine::breaker::BreakerStatus;
use crate::engine::ceiling::CeilingStatus;
use crate::engine::gate::GateStatus;
use crate::engine::moment::Moment;
use crate::engine::predict::Predictions;

/// A lane as it stands; all of it at one instant.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LaneStatus {
    /// Every limit with its books.
    pub gates: Vec<GateStatus>,
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that are under way.
    pub in_flight: u32,
    /// As many as may be; it moves where it adapts to the server.
    pub max_in_flight: Option<u32>,
    /// The sending rate that the provider bears, if it has complained.
    pub ceiling: Option<CeilingStatus>,
    /// The breaker, if it is open: the provider is failing.
    pub breaker: Option<BreakerStatus>,
    /// Time until the lane goes on, if the provider asked for a pause.
    pub paused_for: Option<Duration>,
    /// What holds the request at the front.
    pub binding: Option<Limit>,
    /// Attempts admitted so far.
    pub admitted: u64,
    /// From the first admission to the last.
    pub span: Duration,
    /// What the requests whose usage is known were charged at admission …
    pub estimated: Charge,
    /// … and what they used.
    pub used: Charge,
    /// How well outputs without a cap were guessed.
    pub predictions: Predictions,
}

impl<T> Machine<T> {
    /// The lane as it stands.
    pub fn status(&mut self, now: Moment) -> LaneStatus {
        let binding = self.held_by(now);
        let predictions = self.predictors.record();
        let taken = self.ledger.taken(predictions.requests > 0);
        LaneStatus {
            gates: self.gates.status(&taken, self.ledger.first, now),
            waiting: self.queue.len(),
            in_flight: self.in_flight,
            max_in_flight: self.concurrency.limit(),
            ceiling: self.ceiling.status(now),
            breaker: self.breaker.status(now),
            paused_for: self.paused_until.filter(|until| *until > now).map(|until| until - now),
            binding,
            admitted: self.ledger.admitted,
            span: self.ledger.span(),
            estimated: self.ledger.estimated,
            used: self.ledger.used,
            predictions,
        }
    }
}
