//! One request's way to a permit: from lane to lane, until one lets it go.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use smallvec::SmallVec;

use crate::clock;
use crate::cost::{Charge, Estimate, Limit};
use crate::engine::{Ask, Forecast, Grant, Guess, Moment, Offer, Refusal, Ticket, Wish, choose, weight};
use crate::error::AcquireError;
use crate::lane::{Answer, BackingOff, Lane, Turn};
use crate::permit::{Held, Permit};
use crate::request::Request;
use crate::target::{Model, Target};
use crate::trace::RequestTrace;

/// A request with the lanes that it may go to.
#[derive(Debug)]
pub(crate) struct Route {
    /// Never empty, by rank.
    candidates: Candidates,
    /// What it asks of the lane that was looked at last.
    ask: Ask,
    deadline: Option<Moment>,
    affinity: Option<Arc<str>>,
    within: Duration,
    /// Since when it waits for its next attempt.
    since: Option<Moment>,
    trace: RequestTrace,
    /// How much earlier a fallback must start.
    margin: Duration,
}

/// What came of waiting in a lane.
enum Taken {
    Permit(Permit),
    /// Look for another lane; the guard is to be kept until there is a place in one.
    Nothing(BackingOff),
}

/// Nearly always one, which needs no allocation then.
pub(crate) type Candidates = SmallVec<[Candidate; 1]>;

/// A lane that a request may go to.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) lane: Arc<Lane>,
    pub(crate) model: Model,
    /// What the request takes there, …
    charge: Charge,
    /// … or what to guess it from.
    guess: Option<Arc<Guess>>,
    /// The request's own pause after a failure there.
    held_until: Option<Moment>,
    /// It failed there by the provider's fault.
    troubled: bool,
}

impl Candidate {
    pub(crate) fn new(lane: Arc<Lane>, model: Model, charge: Charge, guess: Option<Arc<Guess>>) -> Self {
        Self { lane, model, charge, guess, held_until: None, troubled: false }
    }

    fn held_for(&self, now: Moment) -> Duration {
        self.held_until.map_or(Duration::ZERO, |until| until - now)
    }
}

impl Route {
    /// It goes to a fallback when it would start there earlier by more than `margin`.
    pub(crate) fn new(candidates: Candidates, ask: Ask, margin: Duration, request: &Request) -> Self {
        Self {
            candidates,
            deadline: ask.deadline,
            ask,
            affinity: request.affinity.clone(),
            within: request.affinity_within,
            since: None,
            trace: RequestTrace::default(),
            margin,
        }
    }

    /// What becomes of it is told from now on.
    pub(crate) fn trace(&mut self, request: &Request, estimate: &Estimate) {
        self.trace = RequestTrace::new(request, estimate);
    }

    /// Its place in the order of arrival.
    pub(crate) fn arrival(&self) -> u64 {
        self.ask.arrival.unwrap_or_default()
    }

    /// The request comes to nothing.
    pub(crate) fn failed(&self, error_type: &str) {
        self.trace.failed(error_type);
    }

    /// The request is refused.
    pub(crate) fn refused(&self, refusal: Refusal) -> Refusal {
        self.failed(refusal.name());
        if let Some(candidate) = self.candidates.first() {
            candidate.lane.metrics.refused(&candidate.lane, &refusal);
        }
        refusal
    }

    /// What it would be charged in each lane, and the limit there that could never hold that.
    pub(crate) fn charges(&mut self) -> impl Iterator<Item = (Charge, Option<Limit>)> {
        (0..self.candidates.len()).map(|index| {
            let (lane, ask) = self.ask_for(index);
            lane.with(|machine| {
                let charge = machine.charge(ask);
                (charge, machine.gates().too_small_for(&charge))
            })
        })
    }

    /// Waits for a permit. A pause that the request has to make is made first, under the guard that keeps its lane from
    /// counting as idle.
    pub(crate) async fn acquire(&mut self, mut between: Option<BackingOff>) -> Result<Permit, Refusal> {
        loop {
            if let Some(until) = self.pause()? {
                // Then everything may look different.
                tokio::time::sleep_until(clock::instant(until)).await;
                continue;
            }
            let (index, turn) = self.take_place()?;
            between = match turn {
                // An idle lane has granted it already: no future, and nothing moved about.
                Ok(grant) => match self.seat(index, grant) {
                    Ok(permit) => {
                        drop(between);
                        return Ok(permit);
                    }
                    Err(guard) => Some(guard),
                },
                Err(turn) => {
                    drop(between.take());
                    match self.take(index, turn.await)? {
                        Taken::Permit(permit) => return Ok(permit),
                        Taken::Nothing(guard) => Some(guard),
                    }
                }
            };
        }
    }

    /// Takes a place in the best lane.
    pub(crate) fn enqueue(mut self) -> Result<Waiter, Refusal> {
        match self.take_turn() {
            Ok((index, turn)) => Ok(Waiter { route: self, index, turn }),
            Err(refusal) => Err(self.refused(refusal)),
        }
    }

    /// A permit if there is one now.
    pub(crate) fn try_acquire(&mut self) -> Result<Result<Permit, Forecast>, Refusal> {
        if self.candidates.len() > 1 {
            // It has no patience: whoever is free now is better than one that is preferred and will be free soon.
            let now = clock::now();
            self.deadline = Some(self.deadline.map_or(now, |deadline| deadline.min(now)));
        }
        loop {
            let index = self.choose()?;
            let (lane, ask) = self.ask_for(index);
            let granted = lane.try_acquire(ask)?;
            match granted.map(|grant| self.seat(index, grant)) {
                Ok(Ok(permit)) => return Ok(Ok(permit)),
                Ok(Err(_)) => {}
                Err(forecast) => return Ok(Err(forecast)),
            }
        }
    }

    /// When and where it would start, as things stand.
    pub(crate) fn forecast(&mut self) -> Result<Forecast, Refusal> {
        let index = self.choose()?;
        let (lane, ask) = self.ask_for(index);
        lane.with(|machine| machine.try_forecast(ask, clock::now()))
    }

    /// The request does not go to this rank again.
    pub(crate) fn strike(&mut self, rank: usize) {
        self.candidates.retain(|candidate| candidate.model.rank() != rank);
    }

    /// Whether those that left and those that were struck leave anybody who could ever take it.
    pub(crate) fn has_way(&mut self) -> bool {
        self.choose().is_ok()
    }

    /// The place of the last attempt is taken again.
    pub(crate) fn again(&mut self, ticket: Option<Ticket>) {
        self.ask.again = ticket.or(self.ask.again.take());
    }

    /// The request itself pauses before it goes to this rank again. `troubled` says that its provider failed.
    pub(crate) fn hold(&mut self, rank: usize, pause: Duration, troubled: bool) {
        let until = clock::now().checked_add(pause).filter(|_| !pause.is_zero());
        for candidate in self.candidates.iter_mut().filter(|candidate| candidate.model.rank() == rank) {
            (candidate.held_until, candidate.troubled) = (until, troubled);
        }
    }

    /// The lane where the request would start first.
    #[inline]
    fn choose(&mut self) -> Result<usize, Refusal> {
        if let [only] = &self.candidates[..] {
            only.lane.account.welcome_back();
            return only.lane.account.refusal().map_or(Ok(0), Err);
        }
        let now = clock::now();
        let (mut offering, mut offers) = (Vec::new(), Vec::new());
        let mut refused = None;
        for (index, candidate) in self.candidates.iter().enumerate() {
            candidate.lane.account.welcome_back();
            if let Some(refusal) = candidate.lane.account.refusal() {
                refused.get_or_insert(refusal);
                continue;
            }
            // All of them may be late.
            let ask = &mut self.ask;
            (ask.charge, ask.guess, ask.deadline) = (candidate.charge, candidate.guess.clone(), None);
            match candidate.lane.offer(ask) {
                Ok(offer) => {
                    let starts_in = offer.starts_in.max(candidate.held_for(now));
                    let drawn = |key: &Arc<str>| weight(key, candidate.lane.account.settings.name());
                    let weight = self.affinity.as_ref().map_or(0, drawn);
                    offering.push(index);
                    let (rank, troubled) = (candidate.model.rank(), candidate.troubled || offer.troubled);
                    offers.push(Offer { rank, starts_in, troubled, weight, ..offer });
                }
                Err(refusal) => drop(refused.get_or_insert(refusal)),
            }
        }
        let wish = Wish {
            patience: self.deadline.map(|deadline| deadline - now),
            margin: self.margin,
            within: self.affinity.is_some().then_some(self.within),
            turn: self.arrival() as usize,
        };
        match choose(&offers, &wish) {
            Some(chosen) => Ok(offering[chosen]),
            None => Err(refused.unwrap_or(Refusal::Closed)),
        }
    }

    #[inline]
    fn ask_for(&mut self, index: usize) -> (&Arc<Lane>, &Ask) {
        let Self { candidates, ask, deadline, .. } = self;
        let Candidate { lane, charge, guess, .. } = &candidates[index];
        (ask.charge, ask.guess, ask.deadline) = (*charge, guess.clone(), *deadline);
        (lane, ask)
    }

    /// Until when the request has to pause, if the best lane for it is one where it failed. A pause that ends too late is not
    /// made.
    #[inline]
    fn pause(&mut self) -> Result<Option<Moment>, Refusal> {
        if self.candidates.iter().all(|candidate| candidate.held_until.is_none()) {
            return Ok(None);
        }
        let index = self.choose()?;
        let now = clock::now();
        match self.candidates[index].held_until.take().filter(|until| *until > now) {
            Some(until) if self.deadline.is_some_and(|deadline| deadline < until) => {
                Err(Refusal::Deadline { starts_in: until - now, binding: None })
            }
            pause => Ok(pause),
        }
    }

    /// Takes a place in the best lane, which may grant it at once. Nothing guards a grant until it has its [seat](Route::seat), so
    /// no foreign code may run in between.
    #[inline]
    fn take_place(&mut self) -> Result<(usize, Result<Box<Grant>, Turn>), Refusal> {
        loop {
            let index = self.choose()?;
            let movable = self.candidates.len() > 1;
            let (lane, ask) = self.ask_for(index);
            let turn = match lane.enqueue(ask, movable)? {
                Ok(grant) => return Ok((index, Ok(grant))),
                Err(turn) => turn,
            };
            // An account that left in between has told those who waited then, and not this one.
            if lane.account.is_in() {
                if let Some(since) = turn.since() {
                    self.since.get_or_insert(since);
                    self.trace.queued(&self.candidates[index].lane);
                }
                return Ok((index, Err(turn)));
            }
        }
    }

    /// The same, guarded.
    fn take_turn(&mut self) -> Result<(usize, Turn), Refusal> {
        let (index, turn) = self.take_place()?;
        let granted = |grant| Turn::Granted(Some(Held::new(self.candidates[index].lane.clone(), grant)));
        Ok((index, turn.map_or_else(|turn| turn, granted)))
    }

    /// What a lane's answer comes to.
    fn take(&mut self, index: usize, answer: Answer) -> Result<Taken, Refusal> {
        match answer {
            Answer::Go(held) => match held.take() {
                Some(grant) => Ok(self.seat(index, grant).map_or_else(Taken::Nothing, Taken::Permit)),
                None => Err(Refusal::Closed),
            },
            Answer::Refused(refusal) => Err(refusal),
            Answer::LookAgain(guard, ticket) => {
                self.again(ticket);
                Ok(Taken::Nothing(guard))
            }
        }
    }

    /// Tells a grant where it goes. An error, and everything given back, when its account went out of use meanwhile.
    #[inline]
    fn seat(&mut self, index: usize, grant: Box<Grant>) -> Result<Permit, BackingOff> {
        let Candidate { lane, model, .. } = &self.candidates[index];
        let account = &lane.account;
        let key = account.turn(self.affinity.as_deref());
        if !account.is_in() || (key.is_none() && !account.keys().is_empty()) {
            self.ask.again = Some(grant.ticket().clone());
            let guard = lane.backing_off();
            drop(Held::new(lane.clone(), grant));
            return Err(guard);
        }
        let target = Target::new(lane.clone(), model.clone(), key);
        Ok(Permit::new(target, grant, self.since.take(), &mut self.trace))
    }
}

/// A request that has a place in a lane: await it for the permit, or ask what it waits for. When its lane goes out of use
/// or comes late, it looks for another one by itself.
///
/// # Cancel safety
/// Dropping it gives up the place. Nothing was spent.
#[derive(Debug)]
#[must_use = "dropping it gives up the place"]
pub struct Waiter {
    route: Route,
    index: usize,
    turn: Turn,
}

impl Waiter {
    /// When it is expected to start, how many go before it and which limit holds it; `None` when it may start already.
    pub fn explain(&self) -> Option<Forecast> {
        self.turn.explain()
    }
}

impl Future for Waiter {
    type Output = Result<Permit, AcquireError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let answer = ready!(Pin::new(&mut this.turn).poll(context));
            let again = match this.route.take(this.index, answer) {
                Ok(Taken::Permit(permit)) => return Poll::Ready(Ok(permit)),
                Ok(Taken::Nothing(_guard)) => this.route.take_turn(),
                Err(refusal) => Err(refusal),
            };
            match again {
                Ok(place) => (this.index, this.turn) = place,
                Err(refusal) => return Poll::Ready(Err(this.route.refused(refusal).into())),
            }
        }
    }
}
