//! One lane, shared: the machine behind its mutex, the requests that wait for it, and the task that wakes them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use crate::account::AccountState;
use crate::clock;
use crate::cost::Charge;
use crate::engine::{
    Ask, Call, Change, End, Forecast, Grant, Health, HealthBook, LaneStatus, Machine, Offer, Outcome, Recent, Refusal,
    Submitted, Ticket, Wake, Watch,
};
use crate::metrics::LaneMetrics;
use crate::permit::Held;
use crate::providers::{Failure, Observation, Provider, Retry};

/// What a waiting request is told. What comes with it is a guard: if nobody receives it, its drop gives everything back.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It may be sent.
    Go(Held),
    /// It cannot be sent.
    Refused(Refusal),
    /// Another lane may serve it better; it has no place here any more. The guard keeps this lane from counting as idle
    /// until it has one there, and the ticket is the place, to be taken again.
    LookAgain(BackingOff, Option<Ticket>),
}

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    sender: oneshot::Sender<Answer>,
    /// Whether it could go elsewhere.
    movable: bool,
}

type LaneMachine = Machine<Waiting>;

/// A wait that the provider asks for is worth looking for another lane if it is longer than this.
const WORTH_MOVING: Duration = Duration::from_secs(1);

/// Every lane of a scheduler, by the position of its account and by model. The models of one pool have one lane between
/// them.
#[derive(Debug)]
pub(crate) struct Lanes(Vec<ByModel>);

/// The lanes of one account.
#[derive(Debug, Default)]
pub(crate) struct ByModel {
    all: DashMap<Box<str>, Arc<Lane>, foldhash::fast::RandomState>,
    /// The first model that was asked for: most programs have one, and find its lane without a lock.
    first: OnceLock<(Box<str>, Arc<Lane>)>,
}

impl ByModel {
    pub(crate) fn get(&self, model: &str) -> Option<Arc<Lane>> {
        match self.first.get() {
            Some((first, lane)) if **first == *model => Some(lane.clone()),
            _ => self.all.get(model).map(|lane| lane.clone()),
        }
    }

    /// The lane of the pool, which `new` makes if there is none, becomes that of the model as well.
    pub(crate) fn add(&self, model: &str, pool: &str, new: impl FnOnce() -> Lane) -> Arc<Lane> {
        // The guard ends with the statement: another insert under it would wait for itself.
        let lane = Arc::clone(&self.all.entry(pool.into()).or_insert_with(|| Arc::new(new())));
        if pool != model {
            self.all.insert(model.into(), lane.clone());
        }
        self.first.get_or_init(|| (model.into(), lane.clone()));
        lane
    }
}

impl Lanes {
    pub(crate) fn new(accounts: usize) -> Self {
        Self((0..accounts).map(|_| ByModel::default()).collect())
    }

    pub(crate) fn of_account(&self, account: usize) -> &ByModel {
        &self.0[account]
    }

    /// Those of one account.
    pub(crate) fn of(&self, account: usize) -> Vec<Arc<Lane>> {
        let lanes = self.0[account].all.iter().filter(|lane| **lane.key() == *lane.value().pool);
        lanes.map(|lane| lane.value().clone()).collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Lane>> {
        (0..self.0.len()).flat_map(|account| self.of(account)).collect()
    }
}

/// One account × pool.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) account: Arc<AccountState>,
    pub(crate) pool: Box<str>,
    pub(crate) provider: Provider,
    /// Told outside of the lock.
    pub(crate) metrics: LaneMetrics,
    /// A std mutex: it is held for microseconds and never across an await, and permits lock it when they drop.
    state: Mutex<State>,
    /// Something happened that may let a waiting request go.
    changed: Notify,
    /// Nothing waits and nothing is under way.
    idle: Notify,
}

#[derive(Debug)]
struct State {
    machine: LaneMachine,
    counters: Counters,
    health: HealthBook,
    watch: Watch,
    /// Whether anybody ever waited who could go elsewhere.
    movable: bool,
    /// Those who could go elsewhere know that nothing goes here before this time.
    known_late_until: Option<Instant>,
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
    /// Every HTTP 429, be it for a limit, for the rate of sending (`slow_down`) or for want of credit, and what says the
    /// same inside of a stream.
    pub rate_limited: u64,
    /// Attempts that failed in other ways.
    pub failed: u64,
    /// Times the breaker opened because the provider was failing.
    pub outages: u64,
}

impl Counters {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::RateLimited => self.rate_limited += 1,
            Outcome::Failed | Outcome::Rejected => self.failed += 1,
            _ => {}
        }
    }
}

impl State {
    fn is_idle(&self) -> bool {
        self.backing_off == 0 && self.machine.is_idle()
    }

    /// What changed since this was last asked, to be told when the lock is gone.
    fn take_changes(&mut self) -> Vec<Change> {
        let mut changes = self.machine.take_changes();
        for change in &changes {
            self.counters.outages += u64::from(matches!(change, Change::Opened { .. }));
        }
        // Whoever looks for a better lane, or waits for another attempt, still waits.
        changes.extend(self.watch.queue(self.machine.waiting() + self.backing_off));
        if self.watch.is_due(&self.machine) {
            self.watch.day_limits(&mut self.machine, clock::now(), &mut changes);
        }
        changes
    }
}

/// What was heard of a request at its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Heard<'a> {
    /// It was not sent, or given up.
    Nothing,
    /// It went well, with so many tokens of output if that is known.
    Answer { output: Option<u64> },
    /// The caller's closure failed and did not say why; with so many tokens of output if that is known.
    Unexplained { output: Option<u64> },
    /// It failed; a lane that is refused without being told for how long waits for this time.
    Failure(&'a Failure, Duration),
}

impl Heard<'_> {
    /// How a call went of which this was heard at that end; `None` if it was not one.
    pub(crate) fn outcome(self, end: End) -> Option<Outcome> {
        Some(match self {
            Heard::Nothing if end == End::Unsent => return None,
            Heard::Nothing => Outcome::Abandoned,
            Heard::Answer { .. } => Outcome::Answered,
            Heard::Unexplained { .. } => Outcome::Rejected,
            Heard::Failure(failure, _) if failure.retry() == Retry::AfterLimit || failure.status == 429 => {
                Outcome::RateLimited
            }
            Heard::Failure(failure, _) if failure.is_outage() || failure.retry() == Retry::Backoff => Outcome::Failed,
            Heard::Failure(..) => Outcome::Rejected,
        })
    }

    fn is_answer(self) -> bool {
        match self {
            Heard::Nothing => false,
            Heard::Answer { .. } | Heard::Unexplained { .. } => true,
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
    pub(crate) fn new(account: Arc<AccountState>, pool: &str, machine: LaneMachine, watch: Watch) -> Self {
        let state = State {
            machine,
            counters: Counters::default(),
            health: HealthBook::new(clock::now()),
            watch,
            movable: false,
            known_late_until: None,
            backing_off: 0,
            draining: false,
            driven: false,
            runtime: None,
        };
        Self {
            provider: account.settings.provider,
            metrics: LaneMetrics::default(),
            account,
            pool: pool.into(),
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
    pub(crate) fn with<R>(&self, look: impl FnOnce(&mut LaneMachine) -> R) -> R {
        look(&mut self.lock().machine)
    }

    /// Changes the machine and lets those go who can go now.
    pub(crate) fn change<R>(self: &Arc<Self>, change: impl FnOnce(&mut LaneMachine) -> R) -> R {
        let mut state = self.lock();
        let answer = change(&mut state.machine);
        self.release(state);
        answer
    }

    /// Unlocks and wakes whoever may care: the driver, whatever it sleeps for, and those who wait for the lane to be idle.
    /// Whoever could go elsewhere looks again when the provider begins to fail or is back.
    fn release(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let changes = state.take_changes();
        let (driven, idle) = (state.driven, state.draining && state.is_idle());
        drop(state);
        if driven {
            self.changed.notify_one();
        }
        if idle {
            self.idle.notify_waiters();
        }
        for change in changes {
            self.account.tell(&self.pool, change);
            match change {
                Change::Opened { .. } => self.scatter_movable(),
                Change::Recovered { .. } => self.account.everybody_looks_again(),
                _ => {}
            }
        }
    }

    /// The lane as it stands, all of it at one instant, and its calls of late.
    pub(crate) fn look(&self, now: Instant) -> (LaneStatus, Counters, Recent, Health) {
        let small = Ask { charge: Charge::tokens(1, 0), ..Ask::default() };
        let mut state = self.lock();
        let status = state.machine.status(now);
        let wait = state.machine.try_forecast(&small, now).ok().map(|forecast| forecast.starts_in);
        let (counters, recent) = (state.counters, state.health.look(now));
        drop(state);
        let health = Health::of(&recent, &status, wait);
        (status, counters, recent, health)
    }

    /// What the lane offers a request.
    pub(crate) fn offer(&self, ask: &Ask) -> Result<Offer, Refusal> {
        let now = clock::now();
        self.with(|machine| {
            let Forecast { starts_in, ahead, .. } = machine.try_forecast(ask, now)?;
            let load = ahead.saturating_add(machine.in_flight() as usize);
            let free = ahead == 0 && machine.open(now).is_ok();
            let troubled = machine.is_failing();
            // Where the provider fails, it takes one to find out whether it is back; when the others would start, nobody knows.
            let hopeless = machine.hopeless_at().is_some_and(|at| at <= now + starts_in);
            let known = !troubled || free || (machine.is_idle() && !hopeless);
            let starts_in = if known { starts_in } else { Duration::MAX };
            Ok(Offer { starts_in, free, load, troubled, ..Offer::default() })
        })
    }

    /// Takes a place in the lane; an idle lane grants on the spot. A request that is `movable` is told when it had better
    /// look for another lane.
    pub(crate) fn enqueue(self: &Arc<Self>, ask: &Ask, movable: bool) -> Result<Turn, Refusal> {
        let now = clock::now();
        let (mut receiver, mut runtime) = (None, None);
        let mut state = self.lock();
        let submitted = state.machine.submit(
            ask,
            || {
                // Asked for before anything is queued, since it panics outside of tokio; who is granted at once needs none.
                runtime = Some(Handle::current());
                let (sender, answer) = oneshot::channel();
                receiver = Some(answer);
                Waiting { sender, movable }
            },
            now,
        )?;
        let ticket = match submitted {
            Submitted::Granted(grant) => return Ok(Turn::Granted(Some(Held::new(self.clone(), grant)))),
            Submitted::Queued(ticket) => ticket,
        };
        let start = !std::mem::replace(&mut state.driven, true);
        state.runtime.clone_from(&runtime);
        state.movable |= movable;
        self.release(state);
        if let Some(runtime) = runtime.filter(|_| start) {
            self.start_driver(&runtime);
        }
        let answer = receiver.ok_or(Refusal::Closed)?;
        Ok(Turn::Queued(Queued { lane: self.clone(), ticket: Some(ticket), since: now, answer }))
    }

    /// A permit if there is one now.
    pub(crate) fn try_acquire(self: &Arc<Self>, ask: &Ask) -> Result<Result<Held, Forecast>, Refusal> {
        let granted = self.with(|machine| machine.try_submit(ask, clock::now()))?;
        Ok(granted.map(|grant| Held::new(self.clone(), grant)))
    }

    /// Tells those who wait to look for another lane. They keep their number in the order of arrival.
    pub(crate) fn scatter(self: &Arc<Self>) {
        self.scatter_those(|_| true);
    }

    /// As [`Lane::scatter`], for those who could go elsewhere.
    pub(crate) fn scatter_movable(self: &Arc<Self>) {
        if self.lock().movable {
            self.scatter_those(|waiting| waiting.movable);
        }
    }

    fn scatter_those(self: &Arc<Self>, who: impl Fn(&Waiting) -> bool) {
        let mut state = self.lock();
        let moved = state.machine.expel(who);
        // Until they have a place again, the lane is not idle.
        state.backing_off += moved.len();
        // Guards before anybody else's code runs: what panics there leaves none of them uncounted.
        let moved: Vec<_> = moved.into_iter().map(|waiting| (waiting, BackingOff(self.clone()))).collect();
        self.release(state);
        for (waiting, guard) in moved {
            drop(waiting.sender.send(Answer::LookAgain(guard, None)));
        }
    }

    /// Closes the books of a grant and, in the same step, takes what its failure says about the lane: whoever waits for
    /// what it names waits as long as it asks, or goes where it need not. `call` is how it went, if it was sent. Answers
    /// whether the provider is failing for everybody.
    pub(crate) fn conclude(
        self: &Arc<Self>,
        grant: Box<Grant>,
        end: End,
        answer: &Observation,
        heard: Heard<'_>,
        call: Option<&Call>,
        now: Instant,
    ) -> bool {
        let (charge, sent) = (grant.charge, grant.at);
        let mut state = self.lock();
        if let Some(call) = call {
            state.health.record(call, now);
            state.counters.count(call.outcome);
        }
        match heard {
            Heard::Nothing => {}
            Heard::Answer { output } | Heard::Unexplained { output } => {
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
            let until = match failure.retry() {
                Retry::AfterLimit => state.machine.refused(failure, &charge, sent, default_wait, now),
                Retry::Backoff => failure.wait.map(|wait| {
                    state.machine.pause(wait, now);
                    now + wait
                }),
                Retry::Never => None,
            };
            let late_until = until.filter(|until| *until > now + WORTH_MOVING);
            // Each of many failures under way says the same once more.
            if late_until > state.known_late_until.map(|known| known + WORTH_MOVING) {
                state.known_late_until = late_until;
                let failing = state.machine.is_failing();
                drop(state);
                // Before the driver refuses those who cannot wait so long here.
                self.scatter_movable();
                self.release(self.lock());
                return failing;
            }
        }
        let failing = state.machine.is_failing();
        self.release(state);
        failing
    }

    /// Counts a retry and says how long it has to wait for the lane's budget. What waits for a limit, or for the provider to
    /// return, is no `load` and needs none.
    pub(crate) fn retry(&self, load: bool) -> Duration {
        self.metrics.retried(self);
        let mut state = self.lock();
        state.counters.retries += 1;
        if load { state.machine.budget.spend(clock::now()) } else { Duration::ZERO }
    }

    /// Keeps the lane from counting as idle while a request waits outside of it for its next attempt.
    pub(crate) fn backing_off(self: &Arc<Self>) -> BackingOff {
        self.lock().backing_off += 1;
        BackingOff(self.clone())
    }

    /// Whether nothing waits and nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.lock().is_idle()
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

    /// What somebody who waits is told.
    fn answer(self: &Arc<Self>, wake: Wake<Waiting>) -> (Answer, Waiting) {
        let again = looks_again(&wake);
        match wake {
            Wake::Refused(_, waiting) if again => (Answer::LookAgain(BackingOff(self.clone()), None), waiting),
            Wake::Granted(grant, waiting) => (Answer::Go(Held::new(self.clone(), grant)), waiting),
            Wake::Refused(refusal, waiting) => (Answer::Refused(refusal), waiting),
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
                // Until they have a place elsewhere, the lane is not idle.
                state.backing_off += due.iter().filter(|wake| looks_again(wake)).count();
                if due.is_empty() && state.machine.waiting() == 0 {
                    state.driven = false;
                    self.done = true;
                    break;
                }
                wake_at
            };
            let handed_out = !due.is_empty();
            // All guards before the first of them can drop into somebody else's code: what panics there leaves no grant unclosed.
            let answers: Vec<_> = due.drain(..).map(|wake| self.lane.answer(wake)).collect();
            // Outside the lock: a permit that nobody receives drops here and locks again.
            for (answer, waiting) in answers {
                drop(waiting.sender.send(answer));
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

/// Whether another lane may serve a request that has waited in vain for a provider that fails.
fn looks_again(wake: &Wake<Waiting>) -> bool {
    matches!(wake, Wake::Refused(Refusal::BreakerOpen { .. }, waiting) if waiting.movable)
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

/// A request that has a place in its lane, or was granted one at once. Dropping it gives up the place; nothing was spent.
#[derive(Debug)]
pub(crate) enum Turn {
    Granted(Option<Held>),
    Queued(Queued),
}

/// A place in the queue of a lane.
#[derive(Debug)]
pub(crate) struct Queued {
    lane: Arc<Lane>,
    /// `None` once it is answered.
    ticket: Option<Ticket>,
    since: Instant,
    answer: oneshot::Receiver<Answer>,
}

impl Turn {
    /// Since when it waits, if it has to.
    pub(crate) fn since(&self) -> Option<Instant> {
        match self {
            Turn::Granted(_) => None,
            Turn::Queued(queued) => Some(queued.since),
        }
    }

    /// See [`Waiter::explain`](crate::Waiter::explain).
    pub(crate) fn explain(&self) -> Option<Forecast> {
        match self {
            Turn::Granted(_) => None,
            Turn::Queued(Queued { lane, ticket, .. }) => {
                lane.with(|machine| machine.explain(ticket.as_ref()?, clock::now()))
            }
        }
    }
}

impl Future for Turn {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Turn::Granted(held) => Poll::Ready(held.take().map_or(Answer::Refused(Refusal::Closed), Answer::Go)),
            Turn::Queued(queued) => {
                let answer = ready!(Pin::new(&mut queued.answer).poll(context));
                let place = queued.ticket.take();
                if matches!(answer, Ok(Answer::Refused(_))) {
                    // The queue is shorter, which nobody has noticed who may call user code.
                    queued.lane.change(|_| ());
                }
                Poll::Ready(match answer.unwrap_or(Answer::Refused(Refusal::Closed)) {
                    Answer::LookAgain(guard, _) => Answer::LookAgain(guard, place),
                    answer => answer,
                })
            }
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if let Some(ticket) = &self.ticket {
            drop(self.lane.change(|machine| machine.cancel(ticket)));
        }
    }
}
