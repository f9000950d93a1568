//! The scheduler of one lane as a value: submit, cancel, poll, finish, observe, and when to ask again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use thiserror::Error;

use super::gate::{GateStatus, Source};
use super::gates::{Around, Gates, Overdrawn, Wait};
use super::paid::Paid;
use super::predict::{Guess, Predictions, Predictors};
use super::queue::{Entry, Place, Priority, Queue, Tenant};
use super::retry::RetryBudget;
use crate::cost::{Charge, Limit};
use crate::providers::Reading;

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
    pub deadline: Option<Instant>,
    /// The place of an earlier attempt, which is taken again.
    pub again: Option<Ticket>,
}

/// The place of a waiting request, to cancel it or to take it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket(Place);

/// The right to send one attempt. Give it back with [`Machine::finish`].
#[derive(Clone, Debug)]
pub struct Grant {
    /// What was taken for it.
    pub charge: Charge,
    /// When it was granted.
    pub at: Instant,
    /// Requests granted before and with it.
    number: u64,
    /// Everything that had ended by then: whatever its answer shows, the provider had seen these.
    done: Paid,
    /// Everything that had been given back by then.
    given_back: Charge,
    /// What it was let pass to test.
    test: Overdrawn,
    guess: Option<Arc<Guess>>,
    ticket: Ticket,
}

impl Grant {
    /// The place that a retry of this request takes again.
    pub fn ticket(&self) -> &Ticket {
        &self.ticket
    }
}

/// What became of a request that was submitted.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is on the stack for a moment; a box would cost every request")]
pub enum Submitted {
    /// It may be sent now.
    Granted(Grant),
    /// It waits. [`Machine::poll`] will hand its payload out.
    Queued(Ticket),
}

/// What [`Machine::poll`] hands out.
#[derive(Debug)]
pub enum Wake<T> {
    /// The request may be sent.
    Granted(Grant, T),
    /// It cannot be sent any more: its deadline has passed, or the limits shrank below its size.
    Refused(Refusal, T),
}

/// Why a lane does not take a request.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Larger than the limit can ever hold: waiting would not help.
    #[error("the request takes {size} {what}, more than {limit} can ever let pass; make it smaller or raise the limit", what = limit.dimension)]
    TooLarge {
        /// The limit that is too small.
        limit: Limit,
        /// What the request takes of it.
        size: u64,
    },
    /// It could not start in time; nothing was sent.
    #[error("the request cannot start before its deadline: it would start in {starts_in:.1?}{}", binding.map(|limit| format!(", held by {limit}")).unwrap_or_default())]
    Deadline {
        /// How long it would have waited.
        starts_in: Duration,
        /// The limit that holds it.
        binding: Option<Limit>,
    },
    /// The lane's queue is full.
    #[error("{waiting} requests wait already, as many as may; submit fewer at a time or raise the queue's bound")]
    QueueFull {
        /// How many wait.
        waiting: usize,
    },
    /// The scheduler takes no new requests.
    #[error("the scheduler is closed")]
    Closed,
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

/// When a request would start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Forecast {
    /// The expected wait from now on; zero: it would start at once.
    pub starts_in: Duration,
    /// How many go before it.
    pub ahead: usize,
    /// The limit that holds it; `None` if it would start at once, or waits for a free place or a pause to end.
    pub binding: Option<Limit>,
}

impl Forecast {
    fn too_late(&self) -> Refusal {
        Refusal::Deadline { starts_in: self.starts_in, binding: self.binding }
    }
}

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

/// A request that was granted this long ago has reached the provider, or will not be missed.
const TRANSIT: Duration = Duration::from_secs(1);
/// With no limit known, the others wait for the first answer this long.
const SCOUT: Duration = Duration::from_secs(10);
/// Whether refused requests count is not told; those of this time may or may not be in the provider's number.
const REFUSALS: Duration = Duration::from_secs(120);

/// The scheduler of one lane. `T` travels with a waiting request and comes back with its grant.
///
/// ```
/// use std::time::{Duration, Instant};
/// use tollgate::engine::{Ask, End, Gates, Machine, Source, Submitted, Wake};
/// use tollgate::{Charge, Limit, Provider};
///
/// let now = Instant::now();
/// let mut gates = Gates::new(Provider::Openai, Duration::ZERO);
/// gates.set(&[(Limit::tpm(1_000), Source::Configured)], now);
/// let mut lane = Machine::new(gates, now);
/// let ask = || Ask { charge: Charge::tokens(900, 0), ..Ask::default() };
///
/// let Ok(Submitted::Granted(grant)) = lane.submit(ask(), || "first", now) else { panic!() };
/// let Ok(Submitted::Queued(_)) = lane.submit(ask(), || "second", now) else { panic!() };
/// lane.finish(grant, End::Used(Charge::tokens(900, 0)), &[], now);
/// lane.answered();
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
    pub budget: RetryBudget,
    max_in_flight: Option<u32>,
    max_waiting: usize,
    in_flight: u32,
    arrivals: u64,
    /// Everything granted, less what never reached the provider, corrected to real usage as that becomes known.
    granted: Paid,
    /// The part of it that has ended.
    done: Paid,
    /// When the last two marks were made, at least [`TRANSIT`] apart, and what had been granted before.
    marks: [(Instant, Paid); 2],
    /// What the requests under way were charged.
    under_way: Charge,
    /// What was reserved and not used, in all.
    given_back: Charge,
    /// The squares of the tokens of every charge, to tell how much one differs from another.
    squares: f64,
    /// Refused requests, and when the last one was.
    refused: (u64, Option<Instant>),
    estimated: Charge,
    used: Charge,
    admitted: u64,
    first: Option<Instant>,
    last: Option<Instant>,
    paused_until: Option<Instant>,
    closed: bool,
}

impl<T> Machine<T> {
    /// A lane behind `gates`, without other bounds.
    pub fn new(gates: Gates, now: Instant) -> Self {
        Self {
            gates,
            queue: Queue::new(HashMap::new(), Duration::from_secs(60)),
            predictors: Predictors::default(),
            budget: RetryBudget::new(now),
            max_in_flight: None,
            max_waiting: usize::MAX,
            in_flight: 0,
            arrivals: 0,
            granted: Paid::default(),
            done: Paid::default(),
            marks: [(now, Paid::default()); 2],
            under_way: Charge::default(),
            given_back: Charge::default(),
            squares: 0.0,
            refused: (0, None),
            estimated: Charge::default(),
            used: Charge::default(),
            admitted: 0,
            first: None,
            last: None,
            paused_until: None,
            closed: false,
        }
    }

    /// At most so many requests under way and so many waiting.
    #[must_use]
    pub fn bounded(mut self, max_in_flight: Option<u32>, max_waiting: usize) -> Self {
        self.max_in_flight = max_in_flight;
        self.max_waiting = max_waiting;
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
    pub fn set_limits(&mut self, limits: &[(Limit, Source)], now: Instant) {
        self.gates.set(limits, now);
    }

    /// Grants the request if it can start now.
    ///
    /// # Errors
    /// The outer one as [`Machine::submit`], the inner one when it would have to wait.
    pub fn try_submit(&mut self, ask: Ask, now: Instant) -> Result<Result<Grant, Forecast>, Refusal> {
        let ask = self.priced(ask);
        self.check(&ask)?;
        let place = self.newcomer(ask.priority, ask.tenant.clone());
        let granted = self.grant_at_once(place, ask.charge, &ask.guess, now);
        Ok(granted.map_err(|_| self.forecast(&ask, now)))
    }

    /// Grants the request at once if nobody is before it and it fits; otherwise queues it with a `payload` made for that.
    ///
    /// # Errors
    /// When it can never pass, cannot meet its deadline, finds the queue full or the lane closed. Nothing is spent then.
    pub fn submit(&mut self, ask: Ask, payload: impl FnOnce() -> T, now: Instant) -> Result<Submitted, Refusal> {
        let ask = self.priced(ask);
        self.check(&ask)?;
        let place = match ask.again {
            Some(Ticket(place)) => place,
            None => self.newcomer(ask.priority, ask.tenant),
        };
        let place = match self.grant_at_once(place, ask.charge, &ask.guess, now) {
            Ok(grant) => return Ok(Submitted::Granted(grant)),
            Err(place) => place,
        };
        if self.queue.len() >= self.max_waiting {
            return Err(Refusal::QueueFull { waiting: self.queue.len() });
        }
        if let Some(deadline) = ask.deadline {
            let forecast = self.forecast_at(&place, &ask.charge, now);
            if forecast.starts_in > deadline.saturating_duration_since(now) {
                return Err(forecast.too_late());
            }
        }
        let Ask { charge, guess, deadline, .. } = ask;
        let entry = Entry { charge, guess, since: now, deadline, payload: payload() };
        self.queue.insert(place.clone(), entry);
        Ok(Submitted::Queued(Ticket(place)))
    }

    /// Takes a waiting request out; nothing was spent on it. `None` when it waits no longer.
    pub fn cancel(&mut self, ticket: &Ticket) -> Option<T> {
        self.queue.remove(&ticket.0).map(|entry| entry.payload)
    }

    /// Hands out every request that may be sent now or has waited too long, and answers when to ask again; `None` means
    /// not before something happens.
    pub fn poll(&mut self, now: Instant, out: &mut Vec<Wake<T>>) -> Option<Instant> {
        while let Some((deadline, place)) =
            self.queue.first_deadline().filter(|(deadline, _)| *deadline <= now).cloned()
        {
            let Some(entry) = self.queue.get(&place) else { break };
            let (charge, waited) = (entry.charge, now.saturating_duration_since(entry.since));
            let forecast = self.forecast_at(&place, &charge, now);
            // On the deadline itself a request that fits still goes.
            if deadline == now && forecast.ahead == 0 && forecast.starts_in.is_zero() {
                break;
            }
            let Some(entry) = self.queue.remove(&place) else { break };
            let starts_in = waited + forecast.starts_in;
            out.push(Wake::Refused(Refusal::Deadline { starts_in, binding: forecast.binding }, entry.payload));
        }
        let wake = self.grant_due(now, out);
        let deadline = self.queue.first_deadline().map(|(deadline, _)| *deadline);
        [wake, deadline].into_iter().flatten().min()
    }

    fn grant_due(&mut self, now: Instant, out: &mut Vec<Wake<T>>) -> Option<Instant> {
        while self.free_place() {
            let (place, entry) = self.queue.next(now)?;
            if let Some(until) = self.paused_until.max(self.scouted_until(now)).filter(|until| now < *until) {
                return Some(until);
            }
            let charge = entry.guess.as_ref().map_or(entry.charge, |guess| self.guessed(guess));
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

    /// Takes a grant back, corrects the books, and then takes the limits that the answer's headers show.
    pub fn finish(&mut self, grant: Grant, end: End, readings: &[Reading], now: Instant) {
        let Grant { charge, at, test, ref guess, .. } = grant;
        self.in_flight = self.in_flight.saturating_sub(1);
        self.under_way = self.under_way.minus(&charge);
        self.gates.ended(&charge);
        match end {
            End::Unsent => {
                self.gates.refund(&charge, at);
                self.granted.remove(&charge);
                self.admitted = self.admitted.saturating_sub(1);
            }
            End::Unknown => self.done.add(&charge),
            End::Refused => {
                let tokens = Charge { requests: 0, ..charge };
                self.gates.refund(&tokens, at);
                self.granted.remove(&tokens);
                self.done.add(&charge.minus(&tokens));
                let (count, last) = self.refused;
                let lately = last.is_some_and(|last| now.saturating_duration_since(last) < REFUSALS);
                self.refused = (if lately { count + 1 } else { 1 }, Some(now));
            }
            End::Used(used) => {
                // What the provider never took cannot have been lost in a bucket that it saw full.
                let never_taken = guess.as_ref().is_some_and(|guess| guess.is_ours_alone());
                let lately = if never_taken { Charge::default() } else { self.lately(now).charge() };
                self.gates.settle(&charge, &used, &lately.at_most(&self.under_way), at, now);
                self.done.add(&charge);
                self.done.correct(&charge, &used);
                self.granted.correct(&charge, &used);
                self.given_back = self.given_back.plus(&charge.minus(&used));
                self.estimated = self.estimated.plus(&charge);
                self.used = self.used.plus(&used);
            }
        }
        let answered = matches!(end, End::Used(_)) || (end == End::Unknown && !readings.is_empty());
        if answered && test != Overdrawn::default() {
            self.gates.test_passed(test, at);
        }
        let around = self.around(&grant, self.in_flight == 0, now);
        self.gates.read(readings, &around, now);
        if end != End::Unsent && self.gates.is_empty() {
            self.gates.answered();
        }
    }

    /// Learns how many tokens of output a granted request really used, where they had to be guessed.
    pub fn learn(&mut self, grant: &Grant, output: u64) {
        if let Some(guess) = &grant.guess {
            self.predictors.observe(guess, grant.charge.output_tokens, output);
        }
    }

    /// Takes the limits that the headers of a running request show, as a stream sends them at its beginning. They only
    /// tighten, since the request's own end is still to come.
    pub fn observe(&mut self, grant: &Grant, readings: &[Reading], now: Instant) {
        let around = self.around(grant, false, now);
        self.gates.read(readings, &around, now);
    }

    /// The provider has answered something: the careful start is over.
    pub fn answered(&mut self) {
        self.gates.answered();
    }

    /// The provider refused a `charge` for a limit: everybody waits for that limit, and comes back one after another.
    /// Which limit it was may not be known; `used` is what the refusal says was used of it.
    pub fn block(&mut self, named: Option<&Limit>, used: Option<u64>, charge: &Charge, wait: Duration, now: Instant) {
        if !self.gates.block(named, used, charge, wait, now) {
            self.pause(wait, now);
        }
    }

    /// A wait that has nothing to do with limits: nobody is sent before it is over.
    pub fn pause(&mut self, wait: Duration, now: Instant) {
        self.paused_until = self.paused_until.max(Some(now + wait));
    }

    /// When a new request of this kind would start.
    ///
    /// # Errors
    /// When [`Machine::submit`] would refuse it.
    pub fn try_forecast(&mut self, ask: &Ask, now: Instant) -> Result<Forecast, Refusal> {
        let ask = &self.priced(ask.clone());
        self.check(ask)?;
        let forecast = self.forecast(ask, now);
        match ask.deadline.map(|deadline| deadline.saturating_duration_since(now)) {
            Some(left) if forecast.starts_in > left => Err(forecast.too_late()),
            _ => Ok(forecast),
        }
    }

    fn forecast(&mut self, ask: &Ask, now: Instant) -> Forecast {
        let newcomer = Place { priority: ask.priority, tenant: ask.tenant.clone(), arrival: u64::MAX };
        self.forecast_at(&newcomer, &ask.charge, now)
    }

    /// When a waiting request will start; `None` when it waits no longer.
    pub fn explain(&mut self, ticket: &Ticket, now: Instant) -> Option<Forecast> {
        let charge = self.queue.get(&ticket.0)?.charge;
        Some(self.forecast_at(&ticket.0, &charge, now))
    }

    /// The lane as it stands.
    pub fn status(&mut self, now: Instant) -> LaneStatus {
        let front = self.queue.next(now).map(|(_, entry)| entry.charge);
        let front = front.and_then(|charge| self.gates.wait(&charge, now));
        LaneStatus {
            gates: self.gates.status(now),
            waiting: self.queue.len(),
            in_flight: self.in_flight,
            paused_for: self.paused_until.filter(|until| *until > now).map(|until| until - now),
            binding: front.map(|wait| wait.limit),
            admitted: self.admitted,
            span: self
                .last
                .zip(self.first)
                .map_or(Duration::ZERO, |(last, first)| last.saturating_duration_since(first)),
            estimated: self.estimated,
            used: self.used,
            predictions: self.predictors.record(),
        }
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.queue.len() == 0 && self.in_flight == 0
    }

    /// Takes no new requests from now on; those that wait and retries of those under way still go.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// What a request that came now would be charged: as it says, or as is guessed for it.
    pub fn charge(&self, ask: &Ask) -> Charge {
        ask.guess.as_ref().map_or(ask.charge, |guess| self.guessed(guess))
    }

    fn priced(&self, ask: Ask) -> Ask {
        Ask { charge: self.charge(&ask), ..ask }
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

    fn check(&self, ask: &Ask) -> Result<(), Refusal> {
        if self.closed && ask.again.is_none() {
            return Err(Refusal::Closed);
        }
        match self.gates.too_small_for(&ask.charge) {
            Some(limit) => Err(Refusal::TooLarge { limit, size: ask.charge.get(limit.dimension) }),
            None => Ok(()),
        }
    }

    fn newcomer(&mut self, priority: Priority, tenant: Tenant) -> Place {
        self.arrivals += 1;
        self.budget.earn();
        Place { priority, tenant, arrival: self.arrivals }
    }

    /// Gives the place back if it has to wait.
    fn grant_at_once(
        &mut self,
        place: Place,
        charge: Charge,
        guess: &Option<Arc<Guess>>,
        now: Instant,
    ) -> Result<Grant, Place> {
        let free = self.queue.len() == 0 && self.free_place() && !self.is_paused(now);
        let reserved = free.then(|| self.gates.reserve(&charge, now));
        if let Some(Ok(test)) = reserved { Ok(self.grant(place, charge, guess.clone(), test, now)) } else { Err(place) }
    }

    fn forecast_at(&mut self, place: &Place, charge: &Charge, now: Instant) -> Forecast {
        let ahead = self.queue.ahead(place);
        let wait = self.gates.wait(&ahead.charge.plus(charge), now);
        let pause = self.paused_until.unwrap_or(now).max(now);
        let Wait { until, .. } = wait.unwrap_or(Wait { limit: Limit::rpm(0), until: now });
        Forecast {
            starts_in: until.max(pause) - now,
            ahead: ahead.count,
            binding: wait.filter(|wait| wait.until >= pause).map(|wait| wait.limit),
        }
    }

    fn grant(
        &mut self,
        place: Place,
        charge: Charge,
        guess: Option<Arc<Guess>>,
        test: Overdrawn,
        now: Instant,
    ) -> Grant {
        let [earlier, later] = &mut self.marks;
        if now.saturating_duration_since(later.0) >= TRANSIT {
            *earlier = std::mem::replace(later, (now, self.granted));
        }
        self.in_flight += 1;
        self.admitted += 1;
        self.granted.add(&charge);
        self.under_way = self.under_way.plus(&charge);
        self.squares += (charge.tokens as f64).powi(2);
        self.first = self.first.or(Some(now));
        self.last = Some(now);
        Grant {
            charge,
            at: now,
            number: self.granted.requests,
            done: self.done,
            given_back: self.given_back,
            test,
            guess,
            ticket: Ticket(place),
        }
    }

    /// What was granted so lately that the provider may not have seen it.
    fn lately(&self, now: Instant) -> Paid {
        let [earlier, later] = &self.marks;
        let mark = if now.saturating_duration_since(later.0) >= TRANSIT { later } else { earlier };
        self.granted.minus(&mark.1)
    }

    fn around(&self, grant: &Grant, idle: bool, now: Instant) -> Around {
        let (refused, last) = self.refused;
        let lately = last.is_some_and(|last| now.saturating_duration_since(last) < REFUSALS);
        Around {
            sent: grant.at,
            after: self.granted.requests.saturating_sub(grant.number),
            unanswered: self.granted.minus(&grant.done),
            lately: self.lately(now),
            given_back: self.given_back.minus(&grant.given_back),
            deviation: self.granted.deviation(self.squares),
            refused: if lately { refused } else { 0 },
            idle,
        }
    }

    fn free_place(&self) -> bool {
        self.max_in_flight.is_none_or(|max| self.in_flight < max)
    }

    /// With no limit known, one request goes ahead to see what its answer tells. Until when the others wait for it.
    fn scouted_until(&self, now: Instant) -> Option<Instant> {
        let until = self.first.filter(|_| self.gates.expects_limits() && self.in_flight > 0)? + SCOUT;
        (now < until).then_some(until)
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| now < until) || self.scouted_until(now).is_some()
    }
}
