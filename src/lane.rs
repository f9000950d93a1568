//! One lane, shared: the machine behind its mutex, the requests that wait for it, and the task that wakes them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use crate::clock;
use crate::engine::{Ask, Change, End, Forecast, Grant, Machine, Refusal, Submitted, Ticket, Wake};
use crate::permit::Permit;
use crate::providers::{Failure, LimitHit, Observation, Provider, Retry};

/// What a waiting request is told. The permit is a guard: if nobody receives it, its drop gives everything back.
/// Boxed, since a million waiters may have room for one.
type Answer = Result<Box<Permit>, Refusal>;

/// One account × pool.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) account: usize,
    pub(crate) pool: Box<str>,
    pub(crate) provider: Provider,
    /// A std mutex: it is held for microseconds and never across an await, and permits lock it when they drop.
    state: Mutex<State>,
    /// Something happened that may let a waiting request go.
    changed: Notify,
    /// Nothing waits and nothing is under way.
    idle: Notify,
}

#[derive(Debug)]
struct State {
    machine: Machine<oneshot::Sender<Answer>>,
    counters: Counters,
    /// Requests between two attempts.
    backing_off: usize,
    /// Whether anybody waits for the lane to be idle.
    draining: bool,
    /// Whether a task serves those who wait.
    driven: bool,
    /// Where to start that task: the runtime of whoever began to wait last.
    runtime: Option<Handle>,
}

/// What a lane has met; see [`LaneSnapshot`](crate::LaneSnapshot).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Attempts that repeated a failed one.
    pub retries: u64,
    /// Answers that refused for a limit (HTTP 429 or the like).
    pub rate_limited: u64,
    /// Other failed attempts.
    pub failed: u64,
    /// Times the breaker opened because the provider was failing.
    pub outages: u64,
}

impl State {
    fn is_idle(&self) -> bool {
        self.backing_off == 0 && self.machine.is_idle()
    }
}

/// What was heard of a request at its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Heard<'a> {
    /// It was not sent, or given up.
    Nothing,
    /// It went well, with so many tokens of output if that is known.
    Answer { output: Option<u64> },
    /// It failed; a lane that is refused without being told for how long waits for this time.
    Failure(&'a Failure, Duration),
}

impl Heard<'_> {
    fn is_answer(self) -> bool {
        match self {
            Heard::Nothing => false,
            Heard::Answer { .. } => true,
            Heard::Failure(failure, _) => (100..500).contains(&failure.status),
        }
    }
}

/// See [`Lane::backing_off`].
#[derive(Debug)]
pub(crate) struct BackingOff(Arc<Lane>);

impl Drop for BackingOff {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.backing_off -= 1;
        self.0.release(state);
    }
}

impl Lane {
    pub(crate) fn new(
        account: usize,
        pool: &str,
        provider: Provider,
        machine: Machine<oneshot::Sender<Answer>>,
    ) -> Self {
        let state = State {
            machine,
            counters: Counters::default(),
            backing_off: 0,
            draining: false,
            driven: false,
            runtime: None,
        };
        Self {
            account,
            pool: pool.into(),
            provider,
            state: Mutex::new(state),
            changed: Notify::new(),
            idle: Notify::new(),
        }
    }

    /// No user code runs under the lock, so a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the machine, or changes what does not let anybody go.
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut Machine<oneshot::Sender<Answer>>) -> R) -> R {
        look(&mut self.lock().machine)
    }

    /// Changes the machine and lets those go who can go now.
    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut Machine<oneshot::Sender<Answer>>) -> R) -> R {
        let mut state = self.lock();
        let answer = change(&mut state.machine);
        self.release(state);
        answer
    }

    /// Unlocks and wakes whoever may care: the driver, whatever it sleeps for, and those who wait for the lane to be idle.
    fn release(&self, mut state: MutexGuard<'_, State>) {
        for change in state.machine.take_changes() {
            state.counters.outages += u64::from(matches!(change, Change::Opened { .. }));
        }
        let (driven, idle) = (state.driven, state.draining && state.is_idle());
        drop(state);
        if driven {
            self.changed.notify_one();
        }
        if idle {
            self.idle.notify_waiters();
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.lock().counters
    }

    /// Takes a place in the lane; an idle lane grants on the spot.
    pub(crate) fn enqueue(self: &Arc<Self>, ask: Ask) -> Result<Waiter, Refusal> {
        Ok(Waiter { waiting: self.begin(ask)?, lane: self.clone() })
    }

    fn begin(self: &Arc<Self>, ask: Ask) -> Result<Waiting, Refusal> {
        let now = clock::now();
        let mut receiver = None;
        let mut state = self.lock();
        let submitted = state.machine.submit(
            ask,
            || {
                let (sender, answer) = oneshot::channel();
                receiver = Some(answer);
                sender
            },
            now,
        )?;
        let waiting = match submitted {
            Submitted::Granted(grant) => Waiting::Granted(Some(Permit::new(self.clone(), grant))),
            Submitted::Queued(ticket) => Waiting::Queued(ticket, receiver.ok_or(Refusal::Closed)?),
        };
        if matches!(waiting, Waiting::Granted(_)) {
            drop(state);
        } else {
            let runtime = Handle::current();
            let start = !std::mem::replace(&mut state.driven, true);
            state.runtime = Some(runtime.clone());
            self.release(state);
            if start {
                self.start_driver(&runtime);
            }
        }
        Ok(waiting)
    }

    /// A permit if there is one now.
    pub(crate) fn try_acquire(self: &Arc<Self>, ask: Ask) -> Result<Result<Permit, Forecast>, Refusal> {
        let granted = self.with(|machine| machine.try_submit(ask, clock::now()))?;
        Ok(granted.map(|grant| Permit::new(self.clone(), grant)))
    }

    /// Waits for a permit.
    pub(crate) async fn acquire(self: &Arc<Self>, ask: Ask) -> Result<Permit, Refusal> {
        match self.begin(ask)? {
            Waiting::Granted(Some(permit)) => Ok(permit),
            waiting => Waiter { lane: self.clone(), waiting }.await,
        }
    }

    /// Closes the books of a grant and, in the same step, takes what its failure says about the lane: whoever waits for
    /// what it names waits as long as it asks. Answers whether the provider is failing for everybody.
    pub(crate) fn conclude(&self, grant: Grant, end: End, answer: &Observation, heard: Heard<'_>) -> bool {
        let now = clock::now();
        let charge = grant.charge;
        let mut state = self.lock();
        match heard {
            Heard::Nothing => {}
            Heard::Answer { output } => {
                if let Some(output) = output {
                    state.machine.learn(&grant, output);
                }
                state.machine.went_well(&grant, end, now);
            }
            Heard::Failure(failure, _) => state.machine.failed(&grant, failure, now),
        }
        state.machine.finish(grant, end, &answer.readings, now);
        // An answer that is the provider's own, and not that of a broken way to it, ends the careful start.
        if heard.is_answer() {
            state.machine.answered();
        }
        if let Heard::Failure(failure, default_wait) = heard {
            match failure.retry() {
                Retry::AfterLimit => {
                    state.counters.rate_limited += 1;
                    let named = failure.limit.as_ref().and_then(LimitHit::as_limit);
                    let used = failure.limit.and_then(|limit| limit.used);
                    state.machine.block(named.as_ref(), used, &charge, failure.wait.unwrap_or(default_wait), now);
                }
                Retry::Backoff => {
                    state.counters.failed += 1;
                    if let Some(wait) = failure.wait {
                        state.machine.pause(wait, now);
                    }
                }
                Retry::Never if failure.status == 429 => state.counters.rate_limited += 1,
                Retry::Never => state.counters.failed += 1,
            }
        }
        let failing = state.machine.is_failing();
        self.release(state);
        failing
    }

    /// Counts a retry and says how long it has to wait for the lane's budget. What waits for a limit, or for the provider to
    /// return, is no `load` and needs none.
    pub(crate) fn retry(&self, load: bool) -> Duration {
        let mut state = self.lock();
        state.counters.retries += 1;
        if load { state.machine.budget.spend(clock::now()) } else { Duration::ZERO }
    }

    /// Keeps the lane from counting as idle while a request waits outside of it for its next attempt.
    pub(crate) fn backing_off(self: &Arc<Self>) -> BackingOff {
        self.lock().backing_off += 1;
        BackingOff(self.clone())
    }

    pub(crate) fn count_failure(&self) {
        self.lock().counters.failed += 1;
    }

    /// Waits until nothing waits and nothing is under way.
    pub(crate) async fn drained(&self) {
        self.lock().draining = true;
        loop {
            let idle = self.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.lock().is_idle() {
                return;
            }
            idle.await;
        }
    }

    fn start_driver(self: &Arc<Self>, runtime: &Handle) {
        runtime.spawn(Driver { lane: self.clone(), done: false }.run());
    }
}

/// The task that serves a lane while anybody waits in it.
struct Driver {
    lane: Arc<Lane>,
    /// It ended because nobody waits any more.
    done: bool,
}

impl Driver {
    async fn run(mut self) {
        let mut due = Vec::new();
        loop {
            let wake_at = {
                let mut state = self.lane.lock();
                let wake_at = state.machine.poll(clock::now(), &mut due);
                if due.is_empty() && state.machine.waiting() == 0 {
                    state.driven = false;
                    self.done = true;
                    break;
                }
                wake_at
            };
            // Outside the lock: a permit that nobody receives drops here and locks again.
            let handed_out = !due.is_empty();
            for wake in due.drain(..) {
                let _ = match wake {
                    Wake::Granted(grant, sender) => sender.send(Ok(Box::new(Permit::new(self.lane.clone(), grant)))),
                    Wake::Refused(refusal, sender) => sender.send(Err(refusal)),
                };
            }
            if handed_out {
                continue;
            }
            match wake_at {
                Some(at) => drop(tokio::time::timeout_at(at.into(), self.lane.changed.notified()).await),
                None => self.lane.changed.notified().await,
            }
        }
    }
}

impl Drop for Driver {
    /// A runtime that shuts down takes its tasks with it; those who wait on another one are served from there.
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let mut state = self.lane.lock();
        // Taken, so that a runtime that is shutting down as well is not tried twice.
        let runtime = state.runtime.take();
        state.driven = runtime.is_some();
        drop(state);
        if let Some(runtime) = runtime {
            self.lane.start_driver(&runtime);
        }
    }
}

/// A request that has a place in its lane: await it for the permit, or ask what it waits for.
///
/// # Cancel safety
/// Dropping it gives up the place. Nothing was spent.
#[derive(Debug)]
#[must_use = "dropping it gives up the place"]
pub struct Waiter {
    lane: Arc<Lane>,
    waiting: Waiting,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a box would cost every request that need not wait")]
enum Waiting {
    Granted(Option<Permit>),
    Queued(Ticket, oneshot::Receiver<Answer>),
}

impl Waiter {
    /// When it is expected to start, how many go before it and which limit holds it; `None` when it may start already.
    pub fn explain(&self) -> Option<Forecast> {
        match &self.waiting {
            Waiting::Granted(_) => None,
            Waiting::Queued(ticket, _) => self.lane.with(|machine| machine.explain(ticket, clock::now())),
        }
    }
}

impl Future for Waiter {
    type Output = Result<Permit, Refusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.waiting {
            Waiting::Granted(permit) => Poll::Ready(permit.take().ok_or(Refusal::Closed)),
            Waiting::Queued(_, receiver) => {
                let answer = ready!(Pin::new(receiver).poll(context)).unwrap_or(Err(Refusal::Closed));
                self.waiting = Waiting::Granted(None);
                Poll::Ready(answer.map(|permit| *permit))
            }
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if let Waiting::Queued(ticket, _) = &self.waiting {
            let sender = self.lane.change(|machine| machine.cancel(ticket));
            drop(sender);
        }
    }
}
