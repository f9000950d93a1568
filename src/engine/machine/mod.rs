//! The scheduler of one lane as a value: submit, cancel, poll, finish, observe, and when to ask again.
//!
//! What failures mean for those that wait is in `refused`, when a request would start in `foresee`, and the lane as it stands in
//! `status`.

mod foresee;
mod refused;
mod status;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::around::Around;
use super::ask::{Ask, End, Grant, Submitted, Ticket, Wake};
use super::breaker::Breaker;
use super::ceiling::Ceiling;
use super::change::Change;
use super::concurrency::Concurrency;
use super::forecast::Forecast;
use super::gate::Source;
use super::gates::{Gates, Overdrawn};
use super::ledger::Ledger;
use super::moment::Moment;
use super::predict::{Guess, Predictors};
use super::queue::{Entry, Place, Queue};
use super::rate::Rate;
use super::refusal::Refusal;
use super::retry::{RetryBudget, Volleys};
use super::tenant::Tenant;
use super::watch::DayUses;
use crate::cost::{Charge, HOUR, Limit};
use crate::providers::Reading;

pub use status::LaneStatus;

/// The longest pause that is tied to no limit. It also stands in for waits that are too long to be meant, so that one wrong header
/// cannot stop a lane for good.
const LONGEST_PAUSE: Duration = HOUR;
/// A deadline that passed no longer ago than this still counts as "now": a request without any patience needs some time to get
/// here.
const AT_ONCE: Duration = Duration::from_millis(10);
/// With no limit known, the others wait for the first answer this long.
const SCOUT: Duration = Duration::from_secs(10);

/// The scheduler of one lane. `T` travels with a waiting request and comes back with its grant.
///
/// ```
/// use std::time::Duration;
/// use tollgate::engine::{Ask, End, Gates, Machine, Moment, Source, Submitted, Wake};
/// use tollgate::{Charge, Limit, Provider};
///
/// let now = Moment::START;
/// let mut gates = Gates::new(Provider::Openai, Duration::ZERO);
/// gates.set(&[(Limit::tpm(1_000), Source::Configured)], now);
/// let mut lane = Machine::new(gates, now);
/// let ask = || Ask { charge: Charge::tokens(900, 0), ..Ask::default() };
///
/// let Ok(Submitted::Granted(grant)) = lane.submit(&ask(), || "first", now) else { panic!() };
/// let Ok(Submitted::Queued(_)) = lane.submit(&ask(), || "second", now) else { panic!() };
/// lane.finish(grant, End::Used(Charge::tokens(900, 0)), &[], now);
/// lane.answered(now);
///
/// let mut out = Vec::new();
/// let wake_up = lane.poll(now, &mut out);
/// assert!(out.is_empty());
/// assert_eq!(wake_up, Some(now + Duration::from_secs(48)));
/// lane.poll(wake_up.unwrap(), &mut out);
/// assert!(matches!(out[..], [Wake::Granted(_, "second")]));
/// ```
#[derive(Debug)]
pub struct Machine<T> {
    gates: Gates,
    queue: Queue<T>,
    predictors: Predictors,
    /// The retries that the lane may still make.
    budget: RetryBudget,
    concurrency: Concurrency,
    ceiling: Ceiling,
    breaker: Breaker,
    volleys: Volleys,
    /// Who has probed while the breaker was open.
    tried: Vec<Place>,
    /// Requests that ended, to tell when the next one will.
    ended: Rate,
    max_waiting: usize,
    in_flight: u32,
    arrivals: u64,
    ledger: Ledger,
    paused_until: Option<Moment>,
    /// The last grant that came back, to be the next one without an allocation.
    spare: Option<Box<Grant>>,
    closed: bool,
    /// The lane would lose them if it were dropped and made anew.
    limits_were_set: bool,
}

impl<T> Machine<T> {
    /// A lane behind `gates`, without other bounds.
    pub fn new(gates: Gates, now: Moment) -> Self {
        Self {
            gates,
            queue: Queue::new(HashMap::new(), Duration::from_secs(60)),
            predictors: Predictors::default(),
            budget: RetryBudget::new(now),
            concurrency: Concurrency::new(None),
            ceiling: Ceiling::new(now),
            breaker: Breaker::new(Duration::from_secs(300)),
            volleys: Volleys::default(),
            tried: Vec::new(),
            ended: Rate::new(now),
            max_waiting: usize::MAX,
            in_flight: 0,
            arrivals: 0,
            ledger: Ledger::new(now),
            paused_until: None,
            spare: None,
            closed: false,
            limits_were_set: false,
        }
    }

    /// At most so many requests under way and so many waiting.
    #[must_use]
    pub fn bounded(mut self, max_in_flight: Option<u32>, max_waiting: usize) -> Self {
        self.concurrency = Concurrency::new(max_in_flight);
        self.max_waiting = max_waiting;
        self
    }

    /// Within that bound, as many requests under way as the server works on without a long queue; see [`Concurrency`].
    #[must_use]
    pub fn adaptive(mut self, now: Moment) -> Self {
        self.concurrency = self.concurrency.adaptive(now);
        self
    }

    /// How long requests wait for a provider that fails, before they are refused. Default 300 s.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.breaker = Breaker::new(patience);
        self
    }

    /// How tenants share the lane (default weight 1), and after what wait a request of low priority gets a turn.
    #[must_use]
    pub fn turns(mut self, weights: HashMap<Tenant, u32>, ageing: Duration) -> Self {
        self.queue = Queue::new(weights, ageing);
        self
    }

    /// How outputs without a cap are guessed.
    #[must_use]
    pub fn predicting(mut self, predictors: Predictors) -> Self {
        self.predictors = predictors;
        self
    }

    /// The limits.
    pub fn gates(&self) -> &Gates {
        &self.gates
    }

    /// Changes the limits; see [`Gates::set`]. Waiting requests that became too large
    /// are refused when their turn comes.
    pub fn set_limits(&mut self, limits: &[(Limit, Source)], now: Moment) {
        self.gates.set(limits, now);
        self.limits_were_set = true;
    }

    /// Grants the request if it can start now.
    ///
    /// # Errors
    /// The outer one as [`Machine::submit`], the inner one when it would have to wait.
    pub fn try_submit(&mut self, ask: &Ask, now: Moment) -> Result<Result<Box<Grant>, Forecast>, Refusal> {
        let charge = self.charge(ask);
        self.check_open(ask)?;
        self.check_deadline(ask, &charge, now)?;
        let place = self.newcomer(ask);
        if let Ok(grant) = self.grant_at_once(place, &charge, &ask.guess, now) {
            self.earn(ask);
            return Ok(Ok(grant));
        }
        self.check_size(&charge)?;
        Ok(Err(self.forecast(ask, &charge, now)))
    }

    /// Grants the request at once if nobody is before it and it fits; otherwise queues it with a `payload` made for that.
    ///
    /// # Errors
    /// When it can never pass, cannot meet its deadline, finds the queue full or the lane closed. Nothing is spent then.
    pub fn submit(&mut self, ask: &Ask, payload: impl FnOnce() -> T, now: Moment) -> Result<Submitted, Refusal> {
        let charge = self.charge(ask);
        self.check_open(ask)?;
        self.check_deadline(ask, &charge, now)?;
        let place = match &ask.again {
            Some(Ticket(place)) => place.clone(),
            None => self.newcomer(ask),
        };
        match self.grant_at_once(place, &charge, &ask.guess, now) {
            Ok(grant) => {
                self.earn(ask);
                Ok(Submitted::Granted(grant))
            }
            Err(place) => self.line_up(place, charge, ask, payload, now),
        }
    }

    /// Queues a request that cannot go at once.
    // Out of the way of those that can.
    #[inline(never)]
    fn line_up(
        &mut self,
        place: Place,
        charge: Charge,
        ask: &Ask,
        payload: impl FnOnce() -> T,
        now: Moment,
    ) -> Result<Submitted, Refusal> {
        self.check_size(&charge)?;
        self.check_queue(ask, now)?;
        if let Some(deadline) = ask.deadline {
            let forecast = self.forecast_at(&place, &charge, now);
            if forecast.starts_in > deadline - now {
                return Err(self.too_late(&forecast, now));
            }
        }
        self.earn(ask);
        let Ask { guess, deadline, .. } = ask;
        let entry = Entry { charge, guess: guess.clone(), since: now, deadline: *deadline, payload: payload() };
        self.queue.insert(place.clone(), entry);
        Ok(Submitted::Queued(Ticket(place)))
    }

    /// Takes a waiting request out; nothing was spent on it. `None` when it waits no longer.
    pub fn cancel(&mut self, ticket: &Ticket) -> Option<T> {
        self.queue.remove(&ticket.0).map(|entry| entry.payload)
    }

    /// Takes out every waiting request whose payload is like that; nothing was spent on them.
    pub fn expel(&mut self, which: impl Fn(&T) -> bool) -> Vec<T> {
        let places = self.queue.places(|entry| which(&entry.payload));
        places.iter().filter_map(|place| self.queue.remove(place)).map(|entry| entry.payload).collect()
    }

    /// Hands out every request that may be sent now or has waited too long, and returns when to ask again; `None` means
    /// not before something happens.
    pub fn poll(&mut self, now: Moment, out: &mut Vec<Wake<T>>) -> Option<Moment> {
        if let Some(refusal) = self.hopeless(now) {
            while let Some(entry) =
                self.queue.next(now).map(|(place, _)| place).and_then(|place| self.queue.remove(&place))
            {
                out.push(Wake::Refused(refusal.clone(), entry.payload));
            }
        }
        // Who cannot make it to the next probe, or to the next day, need not wait for that.
        let shut_until = self.breaker.shut_until(now).max(self.gates.day_over_at(now)).unwrap_or(now);
        while let Some((deadline, place)) =
            self.queue.first_deadline().filter(|(deadline, _)| *deadline < now.max(shut_until)).cloned()
        {
            let Some(charge) = self.queue.get(&place).map(|entry| entry.charge) else { break };
            let forecast = self.forecast_at(&place, &charge, now);
            // The limit that is used up may not concern it.
            if deadline >= now + forecast.starts_in {
                break;
            }
            self.expire(&place, forecast, now, out);
        }
        let wake = loop {
            let wake = self.grant_due(now, out);
            // On the deadline itself a request that fits still went. Without one that did not, others may fit.
            let Some((_, place)) = self.queue.first_deadline().filter(|(deadline, _)| *deadline <= now).cloned() else {
                break wake;
            };
            let Some(charge) = self.queue.get(&place).map(|entry| entry.charge) else { break wake };
            let forecast = self.forecast_at(&place, &charge, now);
            self.expire(&place, forecast, now, out);
        };
        let deadline = self.queue.first_deadline().map(|(deadline, _)| *deadline);
        let hopeless = self.breaker.hopeless_at().filter(|_| self.queue.len() > 0);
        [wake, deadline, hopeless].into_iter().flatten().min()
    }

    /// Takes out a waiting request that cannot start in time.
    fn expire(&mut self, place: &Place, forecast: Forecast, now: Moment, out: &mut Vec<Wake<T>>) {
        if let Some(entry) = self.queue.remove(place) {
            let forecast = Forecast { starts_in: now - entry.since + forecast.starts_in, ..forecast };
            out.push(Wake::Refused(self.too_late(&forecast, now), entry.payload));
        }
    }

    fn grant_due(&mut self, now: Moment, out: &mut Vec<Wake<T>>) -> Option<Moment> {
        while self.queue.len() > 0 {
            if let Err(until) = self.open(now) {
                return until;
            }
            let (place, charge) = self.front(now)?;
            if let Some(limit) = self.gates.too_small_for(&charge) {
                let entry = self.queue.remove(&place)?;
                let refusal = Refusal::TooLarge { limit, size: charge.get(limit.dimension) };
                out.push(Wake::Refused(refusal, entry.payload));
                continue;
            }
            let test = match self.gates.reserve(&charge, now) {
                Ok(test) => test,
                Err(wait) => return Some(wait.until),
            };
            let entry = self.queue.grant(&place)?;
            out.push(Wake::Granted(self.grant(place, charge, entry.guess, test, now), entry.payload));
        }
        None
    }

    /// The request that goes next. A probe is made by one that has not tried yet, as long as there is one: a request that
    /// makes the provider fail must not keep the others from it.
    fn front(&mut self, now: Moment) -> Option<(Place, Charge)> {
        let mut aside = Vec::new();
        while self.breaker.is_open()
            && let Some((place, _)) = self.queue.next(now)
            && self.tried.contains(&place)
            && let Some(entry) = self.queue.remove(&place)
        {
            aside.push((place, entry));
        }
        if self.queue.len() == 0 {
            self.tried.clear();
        }
        let front = self.queue.next(now).map(|(place, entry)| (place, self.charge_of(entry)));
        for (place, entry) in aside {
            self.queue.insert(place, entry);
        }
        front.or_else(|| self.queue.next(now).map(|(place, entry)| (place, self.charge_of(entry))))
    }

    /// What a waiting request takes; a guess is made anew.
    fn charge_of(&self, entry: &Entry<T>) -> Charge {
        entry.guess.as_ref().map_or(entry.charge, |guess| self.guessed(guess))
    }

    /// Takes a grant back, corrects the books, and then takes the limits that the answer's headers show.
    pub fn finish(&mut self, grant: Box<Grant>, end: End, readings: &[Reading], now: Moment) {
        let Grant { charge, at, test, ref guess, .. } = *grant;
        self.in_flight = self.in_flight.saturating_sub(1);
        self.ledger.ended(&charge);
        self.ended.count(now);
        self.gates.ended(&charge);
        match end {
            End::Unsent => {
                self.gates.refund(&charge, &self.ledger.since(&grant.then), at, now);
                self.ledger.unsent(&charge);
                self.ceiling.refund();
            }
            End::Unknown => self.ledger.unknown(&charge),
            End::Refused => {
                let tokens = Charge { requests: 0, ..charge };
                self.gates.refund(&tokens, &self.ledger.since(&grant.then), at, now);
                self.ledger.refused(&charge, &tokens, now);
            }
            End::Used(used) => {
                // What the provider never took cannot have been lost in a bucket that it saw full.
                let never_taken = guess.as_ref().is_some_and(|guess| guess.is_ours_alone());
                let on_its_way = if never_taken { Charge::default() } else { self.ledger.on_its_way(now) };
                self.gates.settle(&charge, &used, &on_its_way, at, now);
                self.ledger.used(&charge, &used);
            }
        }
        let answered = matches!(end, End::Used(_)) || (end == End::Unknown && !readings.is_empty());
        if answered && test != Overdrawn::default() {
            self.gates.test_passed(test, at, now);
        }
        if !readings.is_empty() {
            let owed = if let End::Used(used) = end { used.minus(&charge) } else { Charge::default() };
            self.read(&grant, readings, owed, self.in_flight == 0, now);
        }
        if end != End::Unsent && self.gates.is_empty() {
            self.gates.answered(at);
        }
        self.spare = Some(grant);
    }

    /// Learns how many tokens of output a granted request really used, where they had to be guessed.
    pub fn learn(&mut self, grant: &Grant, output: u64) {
        if let Some(guess) = &grant.guess {
            self.predictors.observe(guess, grant.charge.output_tokens, output);
        }
    }

    /// The request of `grant`, which is about to be [finished](Machine::finish), was answered well.
    #[inline]
    pub fn went_well(&mut self, grant: &Grant, end: End, now: Moment) {
        let used = if let End::Used(used) = &end { Some(used) } else { None };
        self.ledger.went_well(&grant.charge, used);
        self.ceiling.went_well(grant.at, now);
        self.volleys.went_well();
        self.concurrency.went_well(grant.at, used.map(|used| used.output_tokens), now);
        self.breaker.answered(grant.number, Some(now - grant.at), now);
    }

    /// The answer to `grant` has begun: the provider is back, if it was failing.
    pub fn began(&mut self, grant: &Grant, now: Moment) {
        if self.breaker.is_open() {
            self.breaker.answered(grant.number, None, now);
        }
    }

    /// Whether the provider is failing, so that nothing is sent but probes.
    pub fn is_failing(&self) -> bool {
        self.breaker.is_open()
    }

    /// When waiting will have lost its sense because the provider has been failing for so long; `None` while it does not.
    pub fn hopeless_at(&self) -> Option<Moment> {
        self.breaker.hopeless_at()
    }

    /// What changed since this was last asked, for events.
    pub fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = self.breaker.take_changes();
        changes.append(&mut self.gates.take_changes());
        changes
    }

    /// Takes the limits that the headers of a running request show, as a stream sends them at its beginning. They only
    /// tighten, since the request's own end is still to come.
    pub fn observe(&mut self, grant: &Grant, readings: &[Reading], now: Moment) {
        self.read(grant, readings, Charge::default(), false, now);
    }

    /// Takes the limits that the answer to `grant` shows. It has `owed` so much more than its charge, and where `idle`, nothing else
    /// is under way.
    #[inline(never)]
    fn read(&mut self, grant: &Grant, readings: &[Reading], owed: Charge, idle: bool, now: Moment) {
        let around = Around { owed, ..self.ledger.around(grant.at, &grant.then, idle, now) };
        self.gates.read(readings, &around, now);
    }

    /// The provider has answered something that was sent at `sent`: the careful start is over.
    #[inline]
    pub fn answered(&mut self, sent: Moment) {
        self.gates.answered(sent);
    }

    /// How the limits per day or longer stand.
    pub(in crate::engine) fn day_use(&mut self, now: Moment) -> DayUses {
        self.gates.day_use(now)
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Requests under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.queue.len() == 0 && self.in_flight == 0
    }

    /// Whether the lane may be dropped and made anew, so that nothing is lost but what it has learned: nothing waits or is under way,
    /// every limit is full and as it was at first, and there is no pause, ceiling or open breaker.
    pub fn is_at_rest(&mut self, now: Moment) -> bool {
        let untroubled = self.open(now).is_ok() && !self.breaker.is_open() && self.ceiling.status(now).is_none();
        self.is_idle() && untroubled && !self.limits_were_set && self.gates.are_full(now)
    }

    /// Takes no new requests from now on; those that wait and retries of those under way still go.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// What a request that came now would be charged: as it says, or as is guessed for it.
    pub fn charge(&self, ask: &Ask) -> Charge {
        ask.guess.as_ref().map_or(ask.charge, |guess| self.guessed(guess))
    }

    /// The charge by what the lane has learned. A guess is no reason to refuse: one that no limit could hold is halved
    /// until it fits.
    fn guessed(&self, guess: &Guess) -> Charge {
        let mut output = self.predictors.predict(guess);
        loop {
            let charge = guess.charge(output);
            if output == 0 || self.gates.too_small_for(&charge).is_none() {
                return charge;
            }
            output /= 2;
        }
    }

    /// A request that is taken in earns the lane a part of a retry; its own retries earn none.
    #[inline]
    fn earn(&mut self, ask: &Ask) {
        if ask.again.is_none() {
            self.budget.earn();
        }
    }

    fn check_open(&self, ask: &Ask) -> Result<(), Refusal> {
        if self.closed && ask.again.is_none() { Err(Refusal::Closed) } else { Ok(()) }
    }

    /// Whether its deadline is still to come.
    fn check_deadline(&mut self, ask: &Ask, charge: &Charge, now: Moment) -> Result<(), Refusal> {
        if ask.deadline.is_none_or(|deadline| now - deadline <= AT_ONCE) {
            return Ok(());
        }
        let forecast = self.forecast(ask, charge, now);
        Err(self.too_late(&forecast, now))
    }

    /// Whether it could ever pass. What passes now need not be asked.
    fn check_size(&self, charge: &Charge) -> Result<(), Refusal> {
        match self.gates.too_small_for(charge) {
            Some(limit) => Err(Refusal::TooLarge { limit, size: charge.get(limit.dimension) }),
            None => Ok(()),
        }
    }

    /// Whether it may wait. Who has a place already keeps it.
    fn check_queue(&self, ask: &Ask, now: Moment) -> Result<(), Refusal> {
        match self.hopeless(now) {
            Some(refusal) => Err(refusal),
            None if ask.again.is_none() && self.queue.len() >= self.max_waiting => {
                Err(Refusal::QueueFull { waiting: self.queue.len() })
            }
            None => Ok(()),
        }
    }

    fn newcomer(&mut self, ask: &Ask) -> Place {
        self.arrivals += 1;
        let arrival = ask.arrival.unwrap_or(self.arrivals);
        Place { priority: ask.priority, tenant: ask.tenant.clone(), arrival }
    }

    /// Gives the place back if it has to wait.
    #[inline]
    fn grant_at_once(
        &mut self,
        place: Place,
        charge: &Charge,
        guess: &Option<Arc<Guess>>,
        now: Moment,
    ) -> Result<Box<Grant>, Place> {
        let free = self.queue.len() == 0 && self.open(now).is_ok();
        let reserved = free.then(|| self.gates.reserve(charge, now));
        if let Some(Ok(test)) = reserved {
            Ok(self.grant(place, *charge, guess.clone(), test, now))
        } else {
            Err(place)
        }
    }

    /// Whether anybody may go now, as far as it is not for the limits to say.
    ///
    /// # Errors
    /// With when to ask again, if that is not when something ends.
    #[inline]
    pub fn open(&mut self, now: Moment) -> Result<(), Option<Moment>> {
        if !self.concurrency.free(self.in_flight) {
            return Err(None);
        }
        if let Some(until) = self.paused_until.max(self.scouted_until(now)).filter(|until| now < *until) {
            return Err(Some(until));
        }
        self.breaker.admit(self.in_flight, now)?;
        self.ceiling.admit(self.in_flight == 0, now).map_err(Some)
    }

    /// With no limit known, one request goes ahead to see what its answer tells. Until when the others wait for it.
    fn scouted_until(&self, now: Moment) -> Option<Moment> {
        let until = self.ledger.first.filter(|_| self.gates.expects_limits() && self.in_flight > 0)? + SCOUT;
        (now < until).then_some(until)
    }

    #[inline]
    fn grant(
        &mut self,
        place: Place,
        charge: Charge,
        guess: Option<Arc<Guess>>,
        test: Overdrawn,
        now: Moment,
    ) -> Box<Grant> {
        self.in_flight += 1;
        self.concurrency.taken(self.in_flight);
        self.ceiling.take(now);
        let number = self.breaker.take(now);
        if self.breaker.is_open() {
            self.tried.push(place.clone());
        } else {
            self.tried.clear();
        }
        let then = self.ledger.granted(&charge, now);
        match self.spare.take() {
            Some(mut spare) => {
                // Field by field: a whole one would be put together elsewhere and copied.
                spare.charge = charge;
                spare.at = now;
                spare.number = number;
                spare.then = then;
                spare.test = test;
                spare.guess = guess;
                spare.ticket.0 = place;
                spare
            }
            None => Box::new(Grant { charge, at: now, number, then, test, guess, ticket: Ticket(place) }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::cost::{DAY, Dimension, MINUTE, SECOND};
    use crate::engine::forecast::Hold;
    use crate::engine::queue::Priority;
    use crate::providers::Provider;

    /// One request a minute, and two may wait.
    fn lane(now: Moment) -> Machine<()> {
        let mut gates = Gates::new(Provider::Openai, Duration::ZERO);
        gates.set(&[(Limit::rpm(1), Source::Configured)], now);
        Machine::new(gates, now).bounded(None, 2)
    }

    fn ask() -> Ask {
        Ask { charge: Charge::tokens(1, 1), ..Ask::default() }
    }

    fn granted(lane: &mut Machine<()>, now: Moment) -> Box<Grant> {
        let Ok(Submitted::Granted(grant)) = lane.submit(&ask(), || (), now) else { panic!("it fits") };
        grant
    }

    #[test]
    fn a_deadline_passes_while_another_request_scouts_for_limits() {
        let now = Moment::START;
        let mut lane = Machine::new(Gates::new(Provider::Openai, Duration::ZERO), now);
        let scout = granted(&mut lane, now);
        let told = lane.try_submit(&ask(), now).unwrap().unwrap_err();
        assert_eq!(told.held_by, Some(Hold::Scout));
        assert!(!told.starts_in.is_zero(), "zero means at once");
        let deadline = now + SECOND;
        lane.submit(&Ask { deadline: Some(deadline), ..ask() }, || (), now).unwrap();
        let mut out = Vec::new();
        assert_eq!(lane.poll(now, &mut out), Some(deadline));
        lane.poll(deadline, &mut out);
        assert!(matches!(out[..], [Wake::Refused(Refusal::Deadline { .. }, ())]), "{out:?}");
        lane.submit(&ask(), || (), deadline).unwrap();
        lane.finish(scout, End::Unknown, &[], deadline);
        out.clear();
        lane.poll(deadline, &mut out);
        assert!(matches!(out[..], [Wake::Granted(..)]), "the answer lets the rest go");
    }

    fn of_tokens(limit: u64, now: Moment) -> Machine<&'static str> {
        let mut gates = Gates::new(Provider::Openai, Duration::ZERO);
        gates.set(&[(Limit::tpm(limit), Source::Configured)], now);
        gates.answered(now);
        Machine::new(gates, now)
    }

    fn tokens(n: u64) -> Ask {
        Ask { charge: Charge::tokens(n, 0), ..Ask::default() }
    }

    fn taken(lane: &mut Machine<&'static str>, n: u64, now: Moment) -> Box<Grant> {
        let Ok(Submitted::Granted(grant)) = lane.submit(&tokens(n), || "", now) else { panic!("it fits") };
        grant
    }

    #[test]
    fn a_number_of_the_start_takes_back_nothing_of_what_the_answer_used() {
        let now = Moment::START;
        let mut lane = of_tokens(80_000, now);
        let grant = taken(&mut lane, 10, now);
        let shown = Reading {
            dimension: Dimension::Tokens,
            limit: Some(80_000),
            remaining: Some(79_990),
            reset: Some(Duration::from_millis(7)),
            reset_rounding: Duration::from_millis(1),
            window: None,
            rounding: 0,
        };
        lane.finish(grant, End::Used(Charge::tokens(10, 20_000)), &[shown], now);
        assert_eq!(lane.status(now).gates[0].left, 59_990);
    }

    #[test]
    fn a_debt_outlives_a_request_from_before_it_that_was_never_sent() {
        let (now, later) = (Moment::START, Moment::START + 2 * MINUTE);
        let mut lane = of_tokens(60_000, now);
        let held = taken(&mut lane, 50_000, now);
        let grant = taken(&mut lane, 1_000, later);
        lane.finish(grant, End::Used(Charge::tokens(1_000, 53_000)), &[], later);
        lane.finish(held, End::Unsent, &[], later);
        assert_eq!(lane.status(later).gates[0].left, 6_000);
    }

    #[test]
    fn a_poll_that_hands_out_nothing_names_no_time_that_has_come() {
        let now = Moment::START;
        let mut lane = of_tokens(1_000, now).turns(HashMap::new(), SECOND);
        let _grant = taken(&mut lane, 1_000, now);
        lane.submit(&Ask { priority: Priority::Low, ..tokens(900) }, || "aged and large", now).unwrap();
        let deadline = now + 30 * SECOND;
        let urgent = Ask { priority: Priority::High, deadline: Some(deadline), ..tokens(100) };
        lane.submit(&urgent, || "on its deadline", now).unwrap();
        let mut out = Vec::new();
        let next = lane.poll(deadline, &mut out).unwrap();
        assert!(!out.is_empty() && next > deadline, "{out:?}, then {:?}", next - deadline);
    }

    #[test]
    fn who_has_a_place_keeps_it_though_the_queue_is_full() {
        let now = Moment::START;
        let mut lane = lane(now);
        let grant = granted(&mut lane, now);
        let again = Some(grant.ticket().clone());
        lane.finish(grant, End::Unknown, &[], now);
        for _ in 0..2 {
            assert!(matches!(lane.submit(&ask(), || (), now), Ok(Submitted::Queued(_))));
        }
        assert_eq!(lane.submit(&ask(), || (), now).unwrap_err(), Refusal::QueueFull { waiting: 2 });
        assert!(matches!(lane.submit(&Ask { again, ..ask() }, || (), now), Ok(Submitted::Queued(_))));
    }

    #[test]
    fn a_forecast_knows_that_the_queue_is_full() {
        let now = Moment::START;
        let mut lane = lane(now);
        assert!(lane.try_forecast(&ask(), now).is_ok());
        let _grant = granted(&mut lane, now);
        for _ in 0..2 {
            assert!(lane.try_forecast(&ask(), now).is_ok());
            lane.submit(&ask(), || (), now).unwrap();
        }
        assert_eq!(lane.try_forecast(&ask(), now).unwrap_err(), Refusal::QueueFull { waiting: 2 });
    }

    #[test]
    fn what_is_not_taken_in_earns_no_retry() {
        let now = Moment::START;
        let (mut busy, mut quiet) = (lane(now), lane(now));
        let _grants = [granted(&mut busy, now), granted(&mut quiet, now)];
        let impatient = Ask { deadline: Some(now + SECOND), ..ask() };
        for _ in 0..1_000 {
            assert!(busy.try_submit(&ask(), now).unwrap().is_err());
            assert!(matches!(busy.submit(&impatient, || (), now), Err(Refusal::Deadline { .. })));
        }
        let spent = |lane: &mut Machine<()>| (0..200).map(|_| lane.budget.spend(now)).sum::<Duration>();
        assert_eq!(spent(&mut busy), spent(&mut quiet));
    }

    /// How much longer four times as much takes: 4 where each costs the same, 16 where each costs a look at all the others.
    fn growth(work: impl Fn(u64) -> Duration) -> f64 {
        let best = |n: u64| (0..4).map(|_| work(n)).min().unwrap().as_secs_f64();
        best(8_000) / best(2_000)
    }

    fn unbounded() -> Machine<()> {
        let mut gates = Gates::new(Provider::Openai, Duration::ZERO);
        gates.set(&[(Limit::rpm(1), Source::Configured)], Moment::START);
        Machine::new(gates, Moment::START)
    }

    #[test]
    fn a_deadline_is_checked_without_a_look_at_every_tenant() {
        let enqueue = |tenants: u64| {
            let (mut lane, now) = (unbounded(), Moment::START);
            let start = Instant::now();
            for tenant in 0..tenants {
                let tenant = tenant.to_string().into();
                let ask = Ask { tenant, deadline: Some(now + DAY * 365), ..ask() };
                lane.submit(&ask, || (), now).unwrap();
            }
            start.elapsed()
        };
        let growth = growth(enqueue);
        assert!(growth < 10.0, "{growth}");
    }

    #[test]
    fn expiring_takes_no_look_at_everybody_before() {
        let expire = |waiting: u64| {
            let (mut lane, now) = (unbounded(), Moment::START);
            lane.pause(SECOND * 1_800, now);
            for left in (0..waiting).rev() {
                // Later arrivals have earlier deadlines.
                let deadline = Some(now + SECOND * 1_000_000 + Duration::from_millis(left));
                lane.submit(&Ask { deadline, ..ask() }, || (), now).unwrap();
            }
            let (start, mut out) = (Instant::now(), Vec::new());
            lane.poll(now + SECOND * 1_001_000, &mut out);
            assert_eq!(out.len() as u64, waiting);
            start.elapsed()
        };
        let growth = growth(expire);
        assert!(growth < 10.0, "{growth}");
    }

    #[test]
    fn a_wait_that_cannot_be_meant_is_an_hour() {
        let now = Moment::START;
        let century = SECOND * 3_000_000_000;
        let starts_in = |lane: &mut Machine<()>| lane.try_forecast(&ask(), now).unwrap().starts_in;
        let mut paused = lane(now);
        paused.pause(century, now);
        assert_eq!(starts_in(&mut paused), LONGEST_PAUSE);
        let mut blocked = lane(now);
        blocked.block(Some(Limit::rpm(1).into()), &ask().charge, century, now, now);
        assert_eq!(starts_in(&mut blocked), LONGEST_PAUSE);
        blocked.block(None, &ask().charge, DAY, now, now);
        assert_eq!(starts_in(&mut blocked), DAY, "it may be for a limit of a day");
        let month = Limit::new(crate::cost::Dimension::Requests, 1, DAY * 30);
        blocked.block(Some(month.into()), &ask().charge, DAY * 20, now, now);
        assert_eq!(starts_in(&mut blocked), DAY * 20);
    }
}
