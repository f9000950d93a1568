//! From a permit to an answer: the loop that makes attempts.

use std::time::Duration;

use super::Scheduler;
use crate::attempt::{Attempt, Facts, Told, Transport};
use crate::clock;
use crate::engine::Backoff;
use crate::error::{AcquireError, Error};
use crate::inspect;
use crate::lane::BackingOff;
use crate::permit::{DEFAULT_WAIT, Permit};
use crate::providers::{self, Failure, Observation, Retry};
use crate::request::{Request, Size};
use crate::route::Route;
use crate::target::Target;

/// An answer with what is needed to close its books.
#[cfg_attr(not(feature = "client"), expect(dead_code, reason = "only the client shows the attempts"))]
pub(crate) struct Answered<T> {
    pub(crate) value: T,
    pub(crate) permit: Permit,
    pub(crate) facts: Facts,
    pub(crate) attempts: u32,
}

/// A call that ended, and how its books were closed.
#[cfg_attr(
    not(feature = "client"),
    expect(dead_code, reason = "only the client turns an error answer into an error of its own")
)]
pub(crate) enum Ended<T, E> {
    Answered(Answered<T>),
    /// What the closure returned, for the caller to read: an error answer, or whatever it returned after
    /// [`Attempt::unsent`]. The books are closed.
    ErrorAnswer {
        value: T,
        failure: Box<Failure>,
        attempts: u32,
    },
    Failed(Error<E>),
}

impl Scheduler {
    /// The one loop that makes attempts.
    pub(crate) async fn run<T, E, F, C>(&self, request: &Request, mut call: F) -> Ended<T, E>
    where
        F: FnMut(Attempt) -> C,
        C: Future<Output = Result<T, E>>,
        T: 'static,
        E: 'static,
    {
        let due = request.due();
        let mut attempts = 0;
        let mut last: Option<Box<Failure>> = None;
        let refused = |reason: AcquireError, attempts, last| Ended::Failed(Error::Refused { reason, attempts, last });
        // Estimate and route stay where they are: moving them on the usual way costs as much as checking a limit.
        let counted;
        let estimate = match &request.size {
            Size::Known(estimate) => estimate,
            _ => match Self::estimate(request).await {
                Ok(estimate) => {
                    counted = estimate;
                    &counted
                }
                Err(reason) => return refused(reason, attempts, last),
            },
        };
        let mut route = self.route(request, estimate, due);
        let route = match &mut route {
            Ok(route) => route,
            Err(reason) => return refused(reason.clone(), attempts, last),
        };
        route.trace(request, estimate);
        let mut between = None;
        let mut backoff = self.inner.config.retry.backoff(self.inner.seed.wrapping_add(route.arrival()));
        loop {
            let mut permit = match route.acquire(between.take()).await {
                Ok(permit) => permit,
                Err(reason) => return refused(route.refused(reason).into(), attempts, last),
            };
            attempts += 1;
            permit.numbered(attempts);
            permit.sent();
            let result = permit.within(call(permit.attempt().clone())).await;
            let (result, transport) = inspect::read(result, permit.attempt()).await;
            let mut facts = permit.attempt().take_facts();
            permit.began(facts.began);
            if result.is_err()
                && let Some(Err(unfit)) = facts.adapted.take_if(|adapted| adapted.is_err())
            {
                between = Some(permit.lane().backing_off());
                route.again(permit.ticket());
                route.strike(permit.attempt().target().rank());
                permit.unsent(None);
                attempts -= 1;
                if route.has_way() {
                    continue;
                }
                route.failed("unfit");
                return refused(unfit.into(), attempts, last);
            }
            let told = &*facts;
            if told.unsent && told.status.is_none() {
                route.failed("unsent");
                permit.unsent(None);
                attempts -= 1;
                let failure = || Box::new(Failure::unanswered("nothing was sent".to_owned()));
                return match result {
                    Ok(value) => Ended::ErrorAnswer { value, failure: failure(), attempts },
                    Err(error) => Ended::Failed(Error::Call { error, attempts, failure: last }),
                };
            }
            let failure = failure_of(permit.attempt().target(), told, transport.as_ref());
            let Some(failure) = failure else {
                match result {
                    Ok(value) => return Ended::Answered(Answered { value, permit, facts, attempts }),
                    Err(error) => {
                        route.failed("unexplained");
                        let answered = facts.status.is_some() || facts.usage.is_some();
                        permit.unexplained(facts.usage, &facts.answer, answered);
                        return Ended::Failed(Error::Call { error, attempts, failure: last });
                    }
                }
            };
            let unsent = matches!(transport, Some(Transport::Unsent(_)));
            between = self.mend(route, permit, &failure, &facts.answer, unsent, &mut backoff);
            if between.is_none() {
                route.failed(failure.class.name());
                let failure = Box::new(failure);
                return match result {
                    Ok(value) => Ended::ErrorAnswer { value, failure, attempts },
                    Err(error) => Ended::Failed(Error::Call { error, attempts, failure: Some(failure) }),
                };
            }
            last = Some(Box::new(failure));
        }
    }

    /// Closes the books of an attempt that failed. With the guard that it answers, the request is tried again, after the pause
    /// that the route then makes.
    // Most attempts go well: the loop above is faster without this in it.
    #[cold]
    fn mend(
        &self,
        route: &mut Route,
        permit: Permit,
        failure: &Failure,
        answer: &Observation,
        unsent: bool,
        backoff: &mut Backoff,
    ) -> Option<BackingOff> {
        let (lane, target, policy) = (permit.lane().clone(), permit.target(), &self.inner.config.retry);
        let between = lane.backing_off();
        route.again(permit.ticket());
        let retires = target.retired_by(failure).is_some();
        // What a fallback cannot do says nothing about the model that the request is made for.
        let beyond = target.rank() > 0 && failure.class.is_own_bound();
        let mut next = backoff.clone();
        let pause = match (failure.retry(), failure.wait) {
            (Retry::AfterLimit, None) => next.next_of_window(failure.window(), clock::now()),
            _ => next.next(),
        };
        let with_others = if unsent {
            permit.unsent(Some(failure))
        } else {
            permit.failed_as(failure, answer, pause.unwrap_or(DEFAULT_WAIT))
        };
        if beyond {
            route.strike(target.rank());
        }
        if retires || beyond {
            // To go on with another key or account is no retry: it needs no pause, and uses up no attempts.
            return route.has_way().then_some(between);
        }
        let backs_off = match failure.retry() {
            Retry::Never => return None,
            Retry::Backoff => true,
            Retry::AfterLimit => false,
        };
        // Where everybody fails, the attempt costs none and is made again when a lane lets it.
        let free = with_others && policy.max_attempts > 1;
        let pause = if free {
            Duration::ZERO
        } else {
            *backoff = next;
            pause?
        };
        // A wait that the provider names holds the whole lane; only without one does the request wait by itself.
        let own = if backs_off && failure.wait.is_none() { pause } else { Duration::ZERO };
        route.hold(target.rank(), own.max(lane.retry(backs_off && !free)), backs_off);
        Some(between)
    }
}

/// How an attempt failed, if it did.
fn failure_of(target: &Target, told: &Told, transport: Option<&Transport>) -> Option<Failure> {
    match (told.status, transport) {
        // A redirect is not followed, and a gateway may answer 200 to everything.
        (status, _) if status >= Some(300) || providers::is_error_body(&told.error_body) => {
            let (provider, key, status) = (target.provider(), target.key(), status.unwrap_or(200));
            Some(providers::classify_sent(provider, key, status, &told.answer, &told.error_body))
        }
        (_, Some(transport)) => Some(transport.failure()),
        _ => told.unusable.as_deref().map(Failure::unusable),
    }
}
