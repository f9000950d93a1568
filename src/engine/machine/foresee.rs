//! When a request would start, and what holds it until then.

use std::time::Duration;

use super::Machine;
use crate::cost::{Charge, Limit};
use crate::engine::ask::{Ask, Ticket};
use crate::engine::breaker::BreakerStatus;
use crate::engine::forecast::{Forecast, Hold};
use crate::engine::moment::Moment;
use crate::engine::queue::Place;
use crate::engine::refusal::Refusal;

impl<T> Machine<T> {
    /// When a new request of this kind would start.
    ///
    /// # Errors
    /// When [`Machine::submit`] would refuse it.
    pub fn try_forecast(&mut self, ask: &Ask, now: Moment) -> Result<Forecast, Refusal> {
        let charge = self.charge(ask);
        self.check_open(ask)?;
        self.check_deadline(ask, &charge, now)?;
        self.check_size(&charge)?;
        let forecast = self.forecast(ask, &charge, now);
        if forecast.ahead > 0 || !forecast.starts_in.is_zero() {
            self.check_queue(ask, now)?;
        }
        match ask.deadline.map(|deadline| deadline - now) {
            Some(left) if forecast.starts_in > left => Err(self.too_late(&forecast, now)),
            _ => Ok(forecast),
        }
    }

    pub(super) fn forecast(&mut self, ask: &Ask, charge: &Charge, now: Moment) -> Forecast {
        let newcomer = Place { priority: ask.priority, tenant: ask.tenant.clone(), arrival: u64::MAX };
        self.forecast_at(&newcomer, charge, now)
    }

    /// When a waiting request will start; `None` when it waits no longer.
    pub fn explain(&mut self, ticket: &Ticket, now: Moment) -> Option<Forecast> {
        let charge = self.queue.get(&ticket.0)?.charge;
        Some(self.forecast_at(&ticket.0, &charge, now))
    }

    /// The limit that holds the request at the front.
    pub(in crate::engine) fn held_by(&mut self, now: Moment) -> Option<Limit> {
        let charge = self.queue.next(now).map(|(_, entry)| entry.charge)?;
        self.gates.wait(&charge, now).map(|wait| wait.limit)
    }

    pub(super) fn forecast_at(&mut self, place: &Place, charge: &Charge, now: Moment) -> Forecast {
        let ahead = self.queue.ahead(place);
        let wait = self.gates.wait(&ahead.charge.plus(charge), now);
        let (held_by, held_until) = self.held(ahead.count, now);
        let limited_until = wait.map_or(now, |wait| wait.until);
        Forecast {
            starts_in: limited_until.max(held_until) - now,
            ahead: ahead.count,
            binding: wait.filter(|wait| wait.until >= held_until).map(|wait| wait.limit),
            held_by: (held_until > limited_until).then_some(held_by),
        }
    }

    pub(super) fn too_late(&self, forecast: &Forecast, now: Moment) -> Refusal {
        let open = self.breaker_open(now).filter(|_| forecast.held_by == Some(Hold::Breaker));
        open.unwrap_or(Refusal::Deadline { starts_in: forecast.starts_in, binding: forecast.binding })
    }

    /// The refusal of everybody once the provider has been failing for longer than anybody waits.
    pub(super) fn hopeless(&self, now: Moment) -> Option<Refusal> {
        self.breaker_open(now).filter(|_| self.breaker.hopeless_at().is_some_and(|at| at <= now))
    }

    fn breaker_open(&self, now: Moment) -> Option<Refusal> {
        let BreakerStatus { last, probe_in, .. } = self.breaker.status(now)?;
        let pause = self.paused_until.map_or(Duration::ZERO, |until| until - now);
        Some(Refusal::BreakerOpen { last, probe_in: probe_in.max(pause) })
    }

    /// What besides the limits holds a request with so many `ahead` longest, and until when.
    fn held(&self, ahead: usize, now: Moment) -> (Hold, Moment) {
        let before = u64::from(self.in_flight) + ahead as u64;
        let ceiling = self.ceiling.ready_at(ahead as u64 + 1, before == 0, now);
        let ends = self.concurrency.limit().map_or(0, |most| (before + 1).saturating_sub(most.into()));
        // With nobody to tell when, it is later all the same.
        let gap = self.ended.gap(now).unwrap_or_default().max(Duration::from_nanos(1));
        let place = now + gap * u32::try_from(ends).unwrap_or(u32::MAX);
        let scout = self.scouted_until(now).map_or(now, |until| until.min(now + gap));
        let pause = self.paused_until.unwrap_or(now).max(now);
        let shut = match self.breaker.admit(self.in_flight, now) {
            Ok(()) => now,
            Err(_) => self.breaker.shut_until(now).unwrap_or(now + Duration::from_nanos(1)),
        };
        let holds = [
            (Hold::Pause, pause),
            (Hold::Scout, scout),
            (Hold::Ceiling, ceiling),
            (Hold::Concurrency, place),
            (Hold::Breaker, shut),
        ];
        holds.into_iter().max_by_key(|(_, until)| *until).unwrap_or((Hold::Pause, now))
    }
}
