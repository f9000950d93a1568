//! The public handle: from a request to a permit, and from a permit to an answer.

mod submit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;

use crate::account::AccountState;
use crate::attempt::Attempt;
use crate::builder::Builder;
use crate::clock;
use crate::config::{Config, ConfigError};
use crate::cost::{Charge, Estimate, Limit};
use crate::endpoint::{EndpointSnapshot, Endpoints};
use crate::engine::{
    Ask, Forecast, Gates, Guess, Health, LaneStatus, Machine, Moment, Predictors, Recent, Source, Watch,
};
use crate::error::{AcquireError, Error, TryAcquireError};
use crate::event::Listener;
use crate::fallback::Fallback;
use crate::inspect;
use crate::lane::{Counters, Lane, Lanes};
use crate::learned::Learned;
use crate::permit::Permit;
use crate::providers;
use crate::request::{Request, Size};
use crate::route::{Candidate, Candidates, Route, Waiter};
use crate::target::{Model, Step};

pub(crate) use submit::{Answered, Ended};

/// Schedules calls so that the limits of their accounts are used to the full and never broken.
///
/// Cheap to clone and to share: all clones are one scheduler. Every account × pool of models is a *lane* with its own
/// limits and its own queue; lanes never hold each other up.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tollgate::{Account, Request, Scheduler};
///
/// let scheduler = Scheduler::builder().account(Account::openai().tier(1)).build()?;
/// let answer = scheduler
///     .submit(Request::tokens("gpt-4o", 400, 64), |_| async { Ok::<_, std::io::Error>("the answer") })
///     .await?;
/// assert_eq!(answer, "the answer");
/// assert_eq!(scheduler.snapshot().lanes[0].status.admitted, 1);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Scheduler {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    accounts: Vec<Arc<AccountState>>,
    lanes: Arc<Lanes>,
    chains: Vec<Chain>,
    config: Config,
    closed: AtomicBool,
    /// What the jitter of a request is seeded with, besides its number.
    seed: u64,
    /// The order of arrival, over all lanes.
    arrivals: AtomicU64,
    #[cfg(feature = "client")]
    http: crate::client::Http,
    #[cfg(feature = "client")]
    webhook: Option<crate::webhook::Webhook>,
    #[cfg(feature = "cache")]
    cache: Option<Arc<crate::cache::Cache>>,
}

/// A fallback chain.
#[derive(Debug)]
struct Chain {
    model: String,
    margin: Duration,
    steps: Vec<Arc<Step>>,
}

impl From<&Fallback> for Chain {
    fn from(fallback: &Fallback) -> Self {
        let Fallback { model, margin, unsupported, routes } = fallback.clone();
        let step = |(index, route)| Arc::new(Step { rank: index + 1, route, unsupported });
        Self { model, margin, steps: routes.into_iter().enumerate().map(step).collect() }
    }
}

/// The whole scheduler as it stands. Each lane is consistent in itself; they are read one after another.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// Every lane that was used so far.
    pub lanes: Vec<LaneSnapshot>,
    /// The addresses that these lanes send to.
    pub endpoints: Vec<EndpointSnapshot>,
}

/// One lane as it stands.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct LaneSnapshot {
    /// The account's name.
    pub account: String,
    /// The pool's name; often just a model.
    pub pool: String,
    /// Limits, queue and books.
    #[serde(flatten)]
    pub status: LaneStatus,
    /// What the lane has met.
    pub counters: Counters,
    /// How its calls went lately.
    pub health: Health,
}

impl Scheduler {
    /// Starts to set up a scheduler in code.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Builds a scheduler from settings, see [`Config::from_file`].
    ///
    /// # Errors
    /// When the settings contradict each other or name what does not exist.
    pub fn from_config(config: Config) -> Result<Self, ConfigError> {
        Builder::from(config).build()
    }

    /// With settings that fit together.
    pub(crate) fn start(
        config: Config,
        #[cfg_attr(not(feature = "client"), expect(unused_mut, reason = "only the webhook listens besides"))]
        mut listener: Listener,
    ) -> Result<Self, ConfigError> {
        #[cfg(feature = "client")]
        let webhook = config.watch.webhook.as_ref().map(crate::webhook::Webhook::new).transpose()?;
        #[cfg(feature = "client")]
        if let Some(webhook) = webhook.clone() {
            listener.add(move |event| webhook.push(event));
        }
        let lanes = Arc::new(Lanes::new(config.accounts.len()));
        #[cfg(feature = "client")]
        if config.watch.status_pages {
            crate::monitor::start(&config, &lanes, &listener)?;
        }
        let accounts = (0..config.accounts.len())
            .map(|index| AccountState::new(index, &config, Arc::downgrade(&lanes), listener.clone()).map(Arc::new));
        Ok(Scheduler {
            inner: Arc::new(Inner {
                accounts: accounts.collect::<Result<_, _>>()?,
                lanes,
                chains: config.fallbacks.iter().map(Chain::from).collect(),
                closed: AtomicBool::new(false),
                seed: fastrand::u64(..),
                arrivals: AtomicU64::new(0),
                #[cfg(feature = "client")]
                http: crate::client::Http::new(&config)?,
                #[cfg(feature = "client")]
                webhook,
                #[cfg(feature = "cache")]
                cache: config.cache.as_ref().map(crate::cache::Cache::open).transpose()?.map(Arc::new),
                config,
            }),
        })
    }

    /// Makes a call when the limits let it pass, and again when it failed in a way that trying again can mend.
    ///
    /// `call` is any closure that returns a future of any `Result`. It gets an [`Attempt`] and is called once for each
    /// attempt; each attempt reserves anew. Where it returns a `reqwest::Response` (feature `client`), status, headers and
    /// usage are read from that, also from an error, and an error answer that is not mended comes back as it is. For that,
    /// errors and JSON are read whole before the response comes back (of more than 64 MiB the rest is left); any other answer,
    /// as a stream of events or lines, sound or a file, comes at its beginning and is under way until its body ends or drops.
    ///
    /// # Errors
    /// [`Error::Refused`] when the request was not sent, [`Error::Call`] with the closure's own error otherwise.
    ///
    /// # Panics
    /// When it has to wait outside of a tokio runtime, on one without timers (`enable_time`) or, as tokio's own timers do, on
    /// one that is gone. Outside of tokio also when its text is counted on a thread of its own.
    ///
    /// # Cancel safety
    /// Dropping the future loses the request's place in the queue and its answer. What was not sent is given back; a call
    /// under way counts as used, since the provider may have counted it.
    pub async fn submit<T, E, F, C>(&self, request: Request, call: F) -> Result<T, Error<E>>
    where
        F: FnMut(Attempt) -> C,
        C: Future<Output = Result<T, E>>,
        T: 'static,
        E: 'static,
    {
        match self.run(&request, call).await {
            Ended::Answered(answered) => Ok(inspect::settle(answered)),
            Ended::ErrorAnswer { value, .. } => Ok(value),
            Ended::Failed(error) => Err(error),
        }
    }

    /// Waits for the right to send one request, for calls that do not fit into a closure. Send it soon: it counts from when the
    /// permit was given, and permits that are kept for a minute and then used together can be more than a limit lets pass.
    ///
    /// # Errors
    /// When the request can never pass, cannot meet its deadline, finds the queue full or the scheduler closed.
    ///
    /// # Panics
    /// When it has to wait outside of a tokio runtime, on one without timers (`enable_time`) or, as tokio's own timers do, on
    /// one that is gone. Outside of tokio also when its text is counted on a thread of its own.
    ///
    /// # Cancel safety
    /// Dropping the future loses the place in the queue. Nothing was spent.
    pub async fn acquire(&self, request: Request) -> Result<Permit, AcquireError> {
        let due = request.due();
        let estimate = Self::estimate(&request).await?;
        let mut route = self.route(&request, &estimate, due)?;
        route.trace(&request, &estimate);
        route.acquire(None).await.map_err(|refusal| route.refused(refusal).into())
    }

    /// Takes a place in the queue. The [`Waiter`] is a future of the permit that can say what it waits for.
    ///
    /// # Errors
    /// As [`Scheduler::acquire`].
    ///
    /// # Panics
    /// As [`Scheduler::acquire`].
    ///
    /// # Cancel safety
    /// Until it returns, nothing has happened.
    pub async fn enqueue(&self, request: Request) -> Result<Waiter, AcquireError> {
        let due = request.due();
        let estimate = Self::estimate(&request).await?;
        let mut route = self.route(&request, &estimate, due)?;
        route.trace(&request, &estimate);
        Ok(route.enqueue()?)
    }

    /// The right to send one request now, or never mind. It does not wait, except that tokens of large texts are counted on
    /// the calling thread.
    ///
    /// # Errors
    /// [`TryAcquireError::NotYet`] when it would have to wait.
    pub fn try_acquire(&self, request: Request) -> Result<Permit, TryAcquireError> {
        let due = request.due();
        let estimate = estimate_here(&request)?;
        let mut route = self.route(&request, &estimate, due)?;
        route.trace(&request, &estimate);
        route
            .try_acquire()
            .map_err(|refusal| AcquireError::from(route.refused(refusal)))?
            .map_err(|forecast| TryAcquireError::NotYet { forecast })
    }

    /// What would happen to a request that came now: when it would start, after how many others, held by which limit.
    /// Nothing is reserved.
    ///
    /// # Errors
    /// As [`Scheduler::acquire`].
    pub async fn forecast(&self, request: Request) -> Result<Forecast, AcquireError> {
        let due = request.due();
        let estimate = Self::estimate(&request).await?;
        Ok(self.route(&request, &estimate, due)?.forecast()?)
    }

    /// What a request would be charged by its account's rule, and the limit that could never hold it, if there is one. Large texts
    /// are counted on the calling thread.
    ///
    /// # Errors
    /// When the request names no model or no known account.
    pub fn charge(&self, request: &Request) -> Result<(Charge, Option<Limit>), AcquireError> {
        let mut route = self.route(request, &estimate_here(request)?, request.due())?;
        let mut charges = route.charges();
        let first = charges.next().unwrap_or_default();
        // What is too large for one account may be fit for another.
        Ok(if first.1.is_some() { charges.find(|(_, limit)| limit.is_none()).unwrap_or(first) } else { first })
    }

    /// Changes the limits of a model's lane of the first account while it runs; see [`Scheduler::set_account_limits`].
    pub fn set_limits(&self, model: &str, limits: impl IntoIterator<Item = Limit>) {
        self.set_limits_at(&self.inner.accounts[0], model, limits);
    }

    /// Changes the limits of a model's lane while it runs. What was spent stays spent; limits that are not named are gone. A
    /// limit of zero lets nothing pass.
    ///
    /// # Errors
    /// When no account has that name.
    pub fn set_account_limits(
        &self,
        account: &str,
        model: &str,
        limits: impl IntoIterator<Item = Limit>,
    ) -> Result<(), AcquireError> {
        self.set_limits_at(self.account_named(account)?, model, limits);
        Ok(())
    }

    /// Every lane that was used so far, with its limits, queue and books. Of an account that was asked for more than a
    /// thousand models, those that are at rest may be gone.
    pub fn snapshot(&self) -> Snapshot {
        let now = clock::now();
        let (mut lanes, mut endpoints) = (Vec::new(), Endpoints::default());
        for lane in self.inner.lanes.all() {
            let (snapshot, recent) = look_at(&lane, now);
            endpoints.add(&lane.account.settings, &snapshot, recent);
            lanes.push(snapshot);
        }
        lanes.sort_by(|a, b| (&a.account, &a.pool).cmp(&(&b.account, &b.pool)));
        Snapshot { lanes, endpoints: endpoints.finish() }
    }

    /// What the answers have shown of the limits so far, and what was known before, to be kept for the next start.
    pub fn learned(&self) -> Learned {
        self.inner.config.learned.clone().updated_by(Learned::of(&self.snapshot()))
    }

    /// The lane of a model of the first account, with its limits, queue and books. It is made if it was not used yet.
    ///
    /// ```
    /// use tollgate::{Account, Limit, Scheduler};
    ///
    /// let scheduler = Scheduler::builder().account(Account::openai().tier(1)).build()?;
    /// let lane = scheduler.lane_of("gpt-4o-2024-08-06");
    /// assert_eq!((lane.pool.as_str(), lane.status.gates[0].limit), ("gpt-4o", Limit::rpm(500)));
    /// # Ok::<(), tollgate::ConfigError>(())
    /// ```
    pub fn lane_of(&self, model: &str) -> LaneSnapshot {
        let lane = self.lane(&self.inner.accounts[0], model);
        look_at(&lane, clock::now()).0
    }

    /// Lets an account and its keys return that left the rotation; call it when the key is valid again or the bill is paid.
    /// Those who wait for other accounts may come to it.
    ///
    /// # Errors
    /// When no account has that name.
    pub fn restore(&self, account: &str) -> Result<(), AcquireError> {
        self.account_named(account)?.restore();
        Ok(())
    }

    /// Takes no new requests from now on. Those that wait and those under way go on, retries included.
    pub fn close(&self) {
        self.inner.closed.store(true, Relaxed);
        for lane in self.inner.lanes.all() {
            lane.with(Machine::close);
        }
    }

    /// Closes the scheduler and waits until everything that it took is done.
    ///
    /// # Cancel safety
    /// Dropping the future stops the waiting; the scheduler stays closed.
    pub async fn drain(&self) {
        self.close();
        let lanes = self.inner.lanes.all();
        // Work may move from a lane that is not idle yet to one that was.
        while !lanes.iter().all(|lane| lane.is_idle()) {
            for lane in &lanes {
                lane.drained().await;
            }
        }
    }

    #[cfg(feature = "client")]
    pub(crate) fn http(&self) -> &crate::client::Http {
        &self.inner.http
    }

    #[cfg(feature = "client")]
    pub(crate) fn webhook(&self) -> Option<&crate::webhook::Webhook> {
        self.inner.webhook.as_ref()
    }

    #[cfg(feature = "cache")]
    pub(crate) fn cache(&self) -> Option<&Arc<crate::cache::Cache>> {
        self.inner.cache.as_ref()
    }

    /// Name and address of the first account that a request may go by; `None` if there is none of that name.
    #[cfg(feature = "cache")]
    pub(crate) fn names(&self, request: &Request) -> Option<[&str; 2]> {
        let account = self.accounts_of(request.account.as_deref()).ok()?.next()?;
        Some([account.settings.name(), account.settings.address().unwrap_or_default()])
    }

    /// Whether another model may answer a request.
    #[cfg(feature = "cache")]
    pub(crate) fn may_fall_back(&self, request: &Request) -> bool {
        self.chain_of(request).is_some()
    }

    /// What a request takes. Long texts are counted on a thread of their own.
    async fn estimate(request: &Request) -> Result<Estimate, AcquireError> {
        match &request.size {
            Size::Prompt(prompt) if !prompt.counts_quickly() => {
                let prompt = prompt.clone();
                let counted = tokio::task::spawn_blocking(move || prompt.count().estimate).await;
                counted.map_err(|_| AcquireError::Uncounted)
            }
            _ => estimate_here(request),
        }
    }

    #[inline]
    fn route(&self, request: &Request, estimate: &Estimate, due: Option<Moment>) -> Result<Route, AcquireError> {
        if request.model.is_empty() {
            return Err(AcquireError::NoModel);
        }
        let ask = Ask {
            // They differ from lane to lane.
            charge: Charge::default(),
            guess: None,
            priority: request.priority,
            tenant: request.tenant.clone(),
            deadline: due,
            again: None,
            arrival: Some(self.inner.arrivals.fetch_add(1, Relaxed)),
        };
        let candidate = |account, model| self.candidate(request, estimate, account, model);
        let own = self.accounts_of(request.account.as_deref())?;
        let mut candidates = Candidates::new();
        own.for_each(|account| candidates.push(candidate(account, Model::Own(request.model.clone()))));
        let mut margin = Duration::ZERO;
        if let Some(chain) = self.chain_of(request) {
            let size = estimate.input.saturating_add(estimate.output_cap.unwrap_or_default());
            for step in chain.steps.iter().filter(|step| step.route.context.is_none_or(|context| size <= context)) {
                let accounts = self.accounts_of(Some(&step.route.account))?;
                candidates.extend(accounts.map(|account| candidate(account, Model::Other(step.clone()))));
            }
            margin = chain.margin;
        }
        Ok(Route::new(candidates, ask, margin, request))
    }

    #[inline]
    fn candidate(
        &self,
        request: &Request,
        estimate: &Estimate,
        account: &Arc<AccountState>,
        model: Model,
    ) -> Candidate {
        let lane = self.lane(account, model.name());
        let provider = lane.provider;
        // Where the prediction matters, the lane makes it.
        let charge = providers::at_admission(provider, estimate, 0);
        let guess = providers::is_guess(provider, estimate).then(|| {
            let context_window = account.settings.context_window(model.name());
            Arc::new(Guess { provider, estimate: *estimate, tag: request.tag.clone(), context_window })
        });
        Candidate::new(lane, model, charge, guess)
    }

    /// The fallback chain of a request that names no account.
    fn chain_of(&self, request: &Request) -> Option<&Chain> {
        let Inner { chains, accounts, .. } = &*self.inner;
        if chains.is_empty() || request.account.is_some() {
            return None;
        }
        let pool = accounts[0].settings.pool_of(&request.model);
        chains.iter().find(|chain| chain.model == request.model || chain.model == pool)
    }

    /// The accounts that a request may go by: the one of that name, or a group.
    #[inline]
    fn accounts_of(&self, name: Option<&str>) -> Result<impl Iterator<Item = &Arc<AccountState>>, AcquireError> {
        let accounts = &self.inner.accounts;
        let (first, alone) = match name {
            None => (&accounts[0], false),
            Some(name) => match accounts.iter().find(|account| account.settings.group.as_deref() == Some(name)) {
                Some(first) => (first, false),
                None => (self.account_named(name)?, true),
            },
        };
        let (index, group) = (first.index, first.group);
        Ok(accounts.iter().filter(move |account| if alone { account.index == index } else { account.group == group }))
    }

    fn account_named(&self, name: &str) -> Result<&Arc<AccountState>, AcquireError> {
        let accounts = &self.inner.accounts;
        accounts.iter().find(|account| account.settings.name() == name).ok_or_else(|| {
            let known: Vec<_> = accounts.iter().map(|account| account.settings.name()).collect();
            AcquireError::UnknownAccount { name: name.to_owned(), known: known.join(", ") }
        })
    }

    #[inline]
    fn lane(&self, account: &Arc<AccountState>, model: &str) -> Arc<Lane> {
        let lanes = self.inner.lanes.of_account(account.index);
        lanes.get(model).unwrap_or_else(|| {
            let pool = account.settings.pool_of(model);
            let lane = lanes.add(model, pool, || self.new_lane(account, pool));
            // Once it can be found: whoever closes the scheduler meanwhile either finds it too or, by the lock of the map, is seen here.
            if self.inner.closed.load(Relaxed) {
                lane.with(Machine::close);
            }
            lane
        })
    }

    fn new_lane(&self, account: &Arc<AccountState>, pool: &str) -> Lane {
        let config = &self.inner.config;
        let provider = account.settings.provider;
        let now = clock::now();
        let mut gates = Gates::new(provider, config.jitter_margin).at_time_of_day(now, clock::wall());
        gates.set(&account.settings.limits_of(pool), now);
        for fact in config.learned.lane(account.settings.name(), pool) {
            gates.recall(fact.limit, fact.from_header, &fact.shapes, &fact.suspected, &fact.rules, now);
            if let Some(spent) = &fact.spent {
                gates.spent_before(&fact.limit, spent.used, spent.age(clock::wall()), now);
            }
        }
        let weights = config.tenants.iter().map(|(name, weight)| (name.clone().into(), *weight)).collect();
        let mut machine = Machine::new(gates, clock::now())
            .bounded(account.settings.max_concurrent(pool), config.max_waiting)
            .patience(config.outage_patience)
            .turns(weights, config.ageing)
            .predicting(Predictors::new(config.predicted_output, config.output_quantile));
        if account.settings.adaptive_concurrency(pool) {
            machine = machine.adaptive(clock::now());
        }
        Lane::new(account.clone(), pool, machine, Watch::new(config.watch.queue_alert))
    }

    fn set_limits_at(&self, account: &Arc<AccountState>, model: &str, limits: impl IntoIterator<Item = Limit>) {
        let limits: Vec<_> = limits.into_iter().map(|limit| (limit, Source::Configured)).collect();
        self.lane(account, model).change(|machine| machine.set_limits(&limits, clock::now()));
    }
}

/// A lane as it stands, and its calls of late.
fn look_at(lane: &Lane, now: Moment) -> (LaneSnapshot, Recent) {
    let (status, counters, recent, health) = lane.look(now);
    let (account, pool) = (lane.account.settings.name().to_owned(), lane.pool.to_string());
    (LaneSnapshot { account, pool, status, counters, health }, recent)
}

fn estimate_here(request: &Request) -> Result<Estimate, AcquireError> {
    match &request.size {
        Size::Known(estimate) => Ok(*estimate),
        Size::Prompt(prompt) => Ok(prompt.count().estimate),
        Size::Unreadable(error) => Err(AcquireError::Unreadable(error.clone())),
    }
}

const _: () = {
    const fn shared<T: Send + Sync + Clone>() {}
    shared::<Scheduler>();
};
