//! What a failed request means for those that are still to go.

use std::time::Duration;

use super::{LONGEST_PAUSE, Machine};
use crate::cost::{Charge, DAY, MINUTE};
use crate::engine::ask::{Grant, Ticket};
use crate::engine::moment::Moment;
use crate::providers::{Class, Failure, LimitHit};

impl<T> Machine<T> {
    /// Takes a retry from the lane's budget. Returns how long the request waits for it.
    pub fn spend_retry(&mut self, now: Moment) -> Duration {
        self.budget.spend(now)
    }

    /// The request of `grant`, which is about to be [finished](Machine::finish), failed.
    #[cold]
    pub fn failed(&mut self, grant: &Grant, failure: &Failure, now: Moment) {
        if let Some(hold) = failure.slow_down() {
            self.ceiling.slow_down(failure.class == Class::SlowDown, hold, grant.at, now);
        }
        if matches!(failure.class, Class::Overloaded | Class::Timeout | Class::CapacityUnavailable) {
            self.concurrency.overloaded(grant.at, now);
        }
        let Grant { number, at, ticket: Ticket(place), .. } = grant;
        if failure.is_outage() {
            self.gates.unheard(&grant.charge, *at);
            let others = self.queue.len() > 0;
            self.breaker.failed(*number, place.arrival, failure, others, *at, now);
        } else {
            self.breaker.answered(*number, None, now);
        }
    }

    /// Whether the refusal of a request of `sent` is no news, because another one was heard since.
    pub fn is_known_refusal(&mut self, sent: Moment, now: Moment) -> bool {
        self.volleys.is_known(sent, self.breaker.patience(), now)
    }

    /// The provider refused the request of a `charge`, sent at `sent`, for a limit: everybody waits for that as long as the
    /// refusal asks, or for `default_wait`. A limit of a day is waited for as its shape says where it names no time. Returns
    /// until when, unless nobody knows better than `default_wait`.
    pub fn refused(
        &mut self,
        failure: &Failure,
        charge: &Charge,
        sent: Moment,
        default_wait: Duration,
        now: Moment,
    ) -> Option<Moment> {
        if let (Some(hit), None) = (failure.limit, failure.wait)
            && hit.window >= Some(DAY)
        {
            let until = self.gates.used_up(&hit, charge, sent, now);
            return until.or_else(|| Some(self.pause(LONGEST_PAUSE, now)));
        }
        let wait = failure.wait.unwrap_or(default_wait);
        let until = self.block(failure.limit, charge, wait, sent, now);
        failure.wait.map(|_| until)
    }

    /// The provider refused a `charge`, sent at `sent`, for a limit: everybody waits for that limit, and comes back one after
    /// another. What is known of it is `hit`. For a limit that no gate can stand for, the lane goes on at the rate that last
    /// went well. Returns until when.
    pub fn block(
        &mut self,
        hit: Option<LimitHit>,
        charge: &Charge,
        wait: Duration,
        sent: Moment,
        now: Moment,
    ) -> Moment {
        let longest = hit.and_then(|hit| hit.as_limit()).map_or(DAY, |limit| limit.window.max(DAY));
        let wait = if wait <= longest { wait } else { LONGEST_PAUSE };
        let on_its_way = self.ledger.on_its_way(now);
        if !self.gates.block(hit, charge, &on_its_way, wait, now) {
            self.paused_until = self.paused_until.max(Some(now + wait));
            self.ceiling.slow_down(true, MINUTE, sent, now);
        }
        now + wait
    }

    /// A wait that has nothing to do with limits: nobody is sent before it is over. Returns when that is.
    pub fn pause(&mut self, wait: Duration, now: Moment) -> Moment {
        let until = now + wait.min(LONGEST_PAUSE);
        self.paused_until = self.paused_until.max(Some(until));
        until
    }
}
