//! One lane, shared: the machine behind its mutex, the requests that wait for it, and the tasks that wake them.

mod driver;
mod heard;
mod lanes;
mod turn;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Id;
use tokio::sync::Notify;

use crate::account::AccountState;
use crate::clock;
use crate::cost::Charge;
use crate::engine::{
    Ask, Call, Change, End, Forecast, Grant, Health, HealthBook, LaneStatus, Machine, Moment, Offer, Recent, Refusal,
    Submitted, Wake, Watch,
};
use crate::metrics::LaneMetrics;
use crate::permit::Held;
use crate::providers::{Failure, Observation, Provider, Retry};

use driver::{Driver, Riders, looks_again};
pub use heard::Counters;
pub(crate) use heard::Heard;
pub(crate) use lanes::Lanes;
pub(crate) use turn::{Answer, Turn};
use turn::{Queued, Waiting};

type LaneMachine = Machine<Waiting>;

/// A wait that the provider asks for is worth looking for another lane if it is longer than this.
const WORTH_MOVING: Duration = Duration::from_secs(1);

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
    known_late_until: Option<Moment>,
    /// Requests between two attempts.
    backing_off: usize,
    /// Whether anybody waits for the lane to be idle.
    draining: bool,
    /// Who waits on which runtime; some may be gone.
    riders: Vec<(Id, Weak<Riders>)>,
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
            riders: Vec::new(),
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

    /// Unlocks and wakes whoever may care: the drivers, whatever they sleep for, and those who wait for the lane to be idle.
    /// Whoever could go elsewhere looks again when the provider begins to fail or is back.
    fn release(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let changes = state.take_changes();
        let (waited_for, idle) = (state.machine.waiting() > 0, state.draining && state.is_idle());
        drop(state);
        if waited_for {
            self.changed.notify_waiters();
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
    pub(crate) fn look(&self, now: Moment) -> (LaneStatus, Counters, Recent, Health) {
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
    pub(crate) fn enqueue(self: &Arc<Self>, ask: &Ask, movable: bool) -> Result<Result<Box<Grant>, Turn>, Refusal> {
        let now = clock::now();
        let mut waits = None;
        let mut state = self.lock();
        let submitted = state.machine.submit(
            ask,
            || {
                let (waiting, runtime, answer) = Waiting::here(movable);
                waits = Some((runtime, answer));
                waiting
            },
            now,
        );
        // Not by `?`, which would copy what a refusal holds before it is known that there is none.
        let ticket = match submitted {
            Ok(Submitted::Granted(grant)) => return Ok(Ok(grant)),
            Ok(Submitted::Queued(ticket)) => ticket,
            Err(refusal) => return Err(refusal),
        };
        state.movable |= movable;
        let (runtime, answer) = waits.ok_or(Refusal::Closed)?;
        let (riders, driver) = self.join(&mut state, runtime.id());
        self.release(state);
        let queued = Queued { riders, ticket: Some(ticket), since: now, answer };
        // A runtime that shuts down takes no task any more.
        if driver.is_some_and(|driver| runtime.spawn(driver.run()).is_finished()) {
            return Ok(Err(Turn::Adrift(Box::pin(tokio::time::sleep(Duration::MAX)))));
        }
        Ok(Err(Turn::Queued(queued)))
    }

    /// Joins those who wait on that runtime. The first of them brings the driver.
    // Out of the way of who is granted at once.
    #[inline(never)]
    fn join(self: &Arc<Self>, state: &mut State, runtime: Id) -> (Arc<Riders>, Option<Driver>) {
        let mut there = state.riders.iter().filter(|(id, _)| *id == runtime);
        if let Some(riders) = there.find_map(|(_, riders)| riders.upgrade()) {
            return (riders, None);
        }
        let riders = Arc::new(Riders { lane: self.clone(), runtime });
        state.riders.retain(|(_, riders)| riders.strong_count() > 0);
        state.riders.push((runtime, Arc::downgrade(&riders)));
        let driver = Driver { lane: self.clone(), riders: Arc::downgrade(&riders) };
        (riders, Some(driver))
    }

    /// A permit if there is one now.
    pub(crate) fn try_acquire(&self, ask: &Ask) -> Result<Result<Box<Grant>, Forecast>, Refusal> {
        self.with(|machine| machine.try_submit(ask, clock::now()))
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
    /// what it names waits as long as it asks, or goes where it need not. `call` is how it went, if it was sent. Returns
    /// whether it failed together with others, so that it costs its request no attempt.
    pub(crate) fn conclude(
        self: &Arc<Self>,
        grant: Box<Grant>,
        end: End,
        answer: &Observation,
        heard: Heard<'_>,
        call: Option<&Call>,
        now: Moment,
    ) -> bool {
        let (charge, sent) = (grant.charge, grant.at);
        let mut state = self.lock();
        if let Some(call) = call {
            state.health.record(call, now);
            state.counters.count(call.outcome);
        }
        match heard {
            // Nobody knows whether there was a provider at the other end.
            Heard::Nothing | Heard::Unexplained { answered: false, .. } => {}
            Heard::Answer { output } | Heard::Unexplained { output, .. } => {
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
            state.machine.answered(sent);
        }
        if let Heard::Failure(failure, default_wait) = heard {
            return self.heed(state, failure, default_wait, &charge, sent, now);
        }
        let with_others = state.machine.is_failing();
        self.release(state);
        with_others
    }

    /// What everybody has to wait for, or need not wait for here, after a request of `sent` failed like that. Returns whether it failed
    /// together with others.
    #[cold]
    fn heed<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
        failure: &Failure,
        default_wait: Duration,
        charge: &Charge,
        sent: Moment,
        now: Moment,
    ) -> bool {
        let with_others = match failure.retry() {
            Retry::AfterLimit => state.machine.is_known_refusal(sent, now),
            _ => state.machine.is_failing(),
        };
        let until = match failure.retry_of_others() {
            Retry::AfterLimit => state.machine.refused(failure, charge, sent, default_wait, now),
            Retry::Backoff => failure.wait.map(|wait| state.machine.pause(wait, now)),
            Retry::Never => None,
        };
        let late_until = until.filter(|until| *until > now + WORTH_MOVING);
        // Many failures in flight tell the same wait; who waits is sent elsewhere only where it has grown.
        if late_until > state.known_late_until.map(|known| known + WORTH_MOVING) {
            state.known_late_until = late_until;
            drop(state);
            // Before the driver refuses those who cannot wait so long here.
            self.scatter_movable();
            state = self.lock();
        }
        self.release(state);
        with_others
    }

    /// Counts a retry and says how long it has to wait for the lane's budget. What waits for a limit, or for the provider to
    /// return, is no `load` and needs none.
    pub(crate) fn retry(&self, load: bool) -> Duration {
        self.metrics.retried(self);
        let mut state = self.lock();
        state.counters.retries += 1;
        if load { state.machine.spend_retry(clock::now()) } else { Duration::ZERO }
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

    /// Whether it is as it began, so that nothing is lost with it but what it has learned.
    fn is_at_rest(&self, now: Moment) -> bool {
        let mut state = self.lock();
        state.is_idle() && state.machine.is_at_rest(now)
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
}
