//! The public handle: from a request to a permit, and from a permit to an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use std::time::Instant;

use dashmap::DashMap;
use serde::Serialize;

use crate::attempt::{Attempt, Facts, Transport};
use crate::clock;
use crate::config::{Account, Config, ConfigError, Key};
use crate::cost::{Charge, Estimate, Limit};
use crate::engine::{Ask, Forecast, Gates, Guess, LaneStatus, Machine, Predictors, RetryPolicy, Source};
use crate::error::{AcquireError, Error, TryAcquireError};
use crate::inspect;
use crate::lane::{Counters, Lane, Waiter};
use crate::learned::Learned;
use crate::permit::{DEFAULT_WAIT, Permit};
use crate::providers::{self, Failure, Retry};
use crate::request::{Request, Size};
use crate::secret::Secret;

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
    accounts: Vec<AccountState>,
    config: Config,
    closed: AtomicBool,
    /// Seeds of the jitter: one for each request.
    seeds: AtomicU64,
    #[cfg(feature = "client")]
    http: crate::client::Http,
    #[cfg(feature = "cache")]
    cache: Option<Arc<crate::cache::Cache>>,
}

#[derive(Debug)]
struct AccountState {
    settings: Account,
    keys: Vec<Secret>,
    next_key: AtomicUsize,
    base_url: Option<Arc<str>>,
    /// By model. The models of one pool have one lane between them.
    lanes: DashMap<Box<str>, Arc<Lane>>,
}

/// The whole scheduler as it stands. Each lane is consistent in itself; they are read one after another.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// Every lane that was used so far.
    pub lanes: Vec<LaneSnapshot>,
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
}

/// Settings for a [`Scheduler`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Builder {
    pub(crate) config: Config,
    accounts: Vec<Account>,
}

impl Builder {
    /// Adds an account. The first one is used where a request names none.
    pub fn account(mut self, account: Account) -> Self {
        self.accounts.push(account);
        self
    }

    /// How failed attempts are repeated.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.config.retry = policy;
        self
    }

    /// How many turns a tenant gets for one of the others.
    pub fn tenant_weight(mut self, tenant: impl Into<String>, weight: u32) -> Self {
        self.config.tenants.insert(tenant.into(), weight);
        self
    }

    /// How many requests may wait in one lane.
    pub fn max_waiting(mut self, requests: usize) -> Self {
        self.config.max_waiting = requests;
        self
    }

    /// Starts from what an earlier scheduler found out, see [`Scheduler::learned`].
    pub fn learned(mut self, learned: Learned) -> Self {
        self.config.learned = learned;
        self
    }

    /// Builds the scheduler.
    ///
    /// # Errors
    /// When the settings contradict each other or name what does not exist.
    pub fn build(self) -> Result<Scheduler, ConfigError> {
        let Self { mut config, accounts } = self;
        if !accounts.is_empty() {
            config.accounts = accounts;
        }
        Scheduler::from_config(config)
    }
}

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
#[expect(clippy::large_enum_variant, reason = "one is on the stack for a moment; a box would cost every call")]
pub(crate) enum Ended<T, E> {
    Answered(Answered<T>),
    /// The last attempt's result was an error answer that is the caller's to read; its books are closed.
    ErrorAnswer {
        value: T,
        failure: Box<Failure>,
        attempts: u32,
    },
    Failed(Error<E>),
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
        config.validate()?;
        let accounts = config.accounts.iter().map(AccountState::new).collect::<Result<_, _>>()?;
        Ok(Self {
            inner: Arc::new(Inner {
                accounts,
                closed: AtomicBool::new(false),
                seeds: AtomicU64::new(fastrand::u64(..)),
                #[cfg(feature = "client")]
                http: crate::client::Http::new(&config)?,
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
    /// usage are read from that, also from an error, and an error answer that is not mended comes back as it is.
    ///
    /// # Errors
    /// [`Error::Refused`] when the request was not sent, [`Error::Call`] with the closure's own error otherwise.
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
        match self.run(request, call).await {
            Ended::Answered(answered) => Ok(inspect::settle(answered)),
            Ended::ErrorAnswer { value, .. } => Ok(value),
            Ended::Failed(error) => Err(error),
        }
    }

    /// Waits for the right to send one request, for calls that do not fit into a closure.
    ///
    /// # Errors
    /// When the request can never pass, cannot meet its deadline, finds the queue full or the scheduler closed.
    ///
    /// # Cancel safety
    /// Dropping the future loses the place in the queue. Nothing was spent.
    pub async fn acquire(&self, request: Request) -> Result<Permit, AcquireError> {
        Ok(self.enqueue(request).await?.await?)
    }

    /// Takes a place in the queue. The [`Waiter`] is a future of the permit that can say what it waits for.
    ///
    /// # Errors
    /// As [`Scheduler::acquire`].
    ///
    /// # Cancel safety
    /// Until it returns, nothing has happened.
    pub async fn enqueue(&self, request: Request) -> Result<Waiter, AcquireError> {
        let (_, lane, ask) = self.prepare(request).await?;
        Ok(lane.enqueue(ask)?)
    }

    /// The right to send one request now, or never mind. It does not wait, except that tokens of large texts are counted on
    /// the calling thread.
    ///
    /// # Errors
    /// [`TryAcquireError::NotYet`] when it would have to wait.
    pub fn try_acquire(&self, request: Request) -> Result<Permit, TryAcquireError> {
        let account = self.account_of(&request)?;
        let estimate = estimate_here(&request)?;
        let (lane, ask) = self.ask(account, &request, &estimate)?;
        lane.try_acquire(ask).map_err(AcquireError::from)?.map_err(|forecast| TryAcquireError::NotYet { forecast })
    }

    /// What would happen to a request that came now: when it would start, after how many others, held by which limit.
    /// Nothing is reserved.
    ///
    /// # Errors
    /// As [`Scheduler::acquire`].
    pub async fn forecast(&self, request: Request) -> Result<Forecast, AcquireError> {
        let (_, lane, ask) = self.prepare(request).await?;
        Ok(lane.with(|machine| machine.try_forecast(&ask, clock::now()))?)
    }

    /// Changes the limits of a model's lane of the first account while it runs; see [`Scheduler::set_account_limits`].
    pub fn set_limits(&self, model: &str, limits: impl IntoIterator<Item = Limit>) {
        self.set_limits_at(&self.inner.accounts[0], 0, model, limits);
    }

    /// Changes the limits of a model's lane while it runs. What was spent stays spent; limits that are not named are gone.
    ///
    /// # Errors
    /// When no account has that name.
    pub fn set_account_limits(
        &self,
        account: &str,
        model: &str,
        limits: impl IntoIterator<Item = Limit>,
    ) -> Result<(), AcquireError> {
        let (index, account) = self.account_named(account)?;
        self.set_limits_at(account, index, model, limits);
        Ok(())
    }

    /// Every lane that was used so far, with its limits, queue and books.
    pub fn snapshot(&self) -> Snapshot {
        let now = clock::now();
        let mut lanes: Vec<_> = self.lanes().iter().map(|lane| self.look_at(lane, now)).collect();
        lanes.sort_by(|a, b| (&a.account, &a.pool).cmp(&(&b.account, &b.pool)));
        Snapshot { lanes }
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
        let lane = self.lane(&self.inner.accounts[0], 0, model);
        self.look_at(&lane, clock::now())
    }

    fn look_at(&self, lane: &Lane, now: Instant) -> LaneSnapshot {
        LaneSnapshot {
            account: self.inner.accounts[lane.account].settings.name().to_owned(),
            pool: lane.pool.to_string(),
            status: lane.with(|machine| machine.status(now)),
            counters: lane.counters(),
        }
    }

    /// Takes no new requests from now on. Those that wait and those under way go on, retries included.
    pub fn close(&self) {
        self.inner.closed.store(true, Relaxed);
        for lane in self.lanes() {
            lane.with(Machine::close);
        }
    }

    /// Closes the scheduler and waits until everything that it took is done.
    ///
    /// # Cancel safety
    /// Dropping the future stops the waiting; the scheduler stays closed.
    pub async fn drain(&self) {
        self.close();
        for lane in self.lanes() {
            lane.drained().await;
        }
    }

    #[cfg(feature = "client")]
    pub(crate) fn http(&self) -> &crate::client::Http {
        &self.inner.http
    }

    #[cfg(feature = "cache")]
    pub(crate) fn cache(&self) -> Option<&Arc<crate::cache::Cache>> {
        self.inner.cache.as_ref()
    }

    /// Name and address of the account that a request asks for; `None` if there is none of that name.
    #[cfg(feature = "cache")]
    pub(crate) fn names(&self, request: &Request) -> Option<[&str; 2]> {
        let account = &self.inner.accounts[self.account_of(request).ok()?];
        Some([account.settings.name(), account.base_url.as_deref().unwrap_or_default()])
    }

    /// The one loop that makes attempts.
    pub(crate) async fn run<T, E, F, C>(&self, request: Request, mut call: F) -> Ended<T, E>
    where
        F: FnMut(Attempt) -> C,
        C: Future<Output = Result<T, E>>,
        T: 'static,
        E: 'static,
    {
        let mut attempts = 0;
        let mut last: Option<Box<Failure>> = None;
        let refused = |reason: AcquireError, attempts, last| Ended::Failed(Error::Refused { reason, attempts, last });
        let (account, lane, mut ask) = match self.prepare(request).await {
            Ok(prepared) => prepared,
            Err(reason) => return refused(reason, attempts, last),
        };
        let mut backing_off = None;
        let mut backoff = self.inner.config.retry.backoff(self.inner.seeds.fetch_add(1, Relaxed));
        loop {
            let mut permit = match lane.acquire(ask.clone()).await {
                Ok(permit) => permit,
                Err(reason) => return refused(reason.into(), attempts, last),
            };
            drop(backing_off.take());
            attempts += 1;
            let attempt = Attempt::new(attempts, lane.provider, account.key(), account.base_url.clone());
            permit.sent();
            let result = call(attempt.clone()).await;
            let (result, transport) = inspect::read(result, &attempt).await;
            let facts = attempt.take_facts();

            let failure = match (facts.status, &transport) {
                (Some(status), _) if status >= 400 => {
                    Some(providers::classify(lane.provider, status, &facts.answer, &facts.error_body))
                }
                (_, Some(transport)) => Some(transport.failure()),
                _ => facts.unusable.as_deref().map(Failure::unusable),
            };
            let Some(failure) = failure else {
                match result {
                    Ok(value) => return Ended::Answered(Answered { value, permit, facts, attempts }),
                    Err(error) => {
                        permit.answered(facts.usage, &facts.answer);
                        lane.count_failure();
                        return Ended::Failed(Error::Call { error, attempts, failure: last });
                    }
                }
            };
            ask.again = permit.ticket();
            let failing = if matches!(transport, Some(Transport::Unsent(_))) {
                permit.unsent(&failure)
            } else {
                permit.failed_as(&failure, &facts.answer, backoff.clone().next().unwrap_or(DEFAULT_WAIT))
            };
            let retry = failure.retry();
            // Where everybody fails, the attempt costs none and is made again when the lane lets it.
            let free = failing && retry == Retry::Backoff && self.inner.config.retry.max_attempts > 1;
            let pause = if free { Some(Duration::ZERO) } else { backoff.next() };
            let Some(pause) = pause.filter(|_| retry != Retry::Never) else {
                let failure = Box::new(failure);
                return match result {
                    Ok(value) => Ended::ErrorAnswer { value, failure, attempts },
                    Err(error) => Ended::Failed(Error::Call { error, attempts, failure: Some(failure) }),
                };
            };
            // A wait that the provider names holds the whole lane; only without one does the request wait by itself.
            let own = if retry == Retry::Backoff && failure.wait.is_none() { pause } else { Duration::ZERO };
            backing_off = Some(lane.backing_off());
            tokio::time::sleep(own.max(lane.retry(retry == Retry::Backoff && !free))).await;
            last = Some(Box::new(failure));
        }
    }

    async fn prepare(&self, request: Request) -> Result<(&AccountState, Arc<Lane>, Ask), AcquireError> {
        let index = self.account_of(&request)?;
        let estimate = match &request.size {
            Size::Prompt(prompt) if !prompt.counts_quickly() => {
                let prompt = prompt.clone();
                let counted = tokio::task::spawn_blocking(move || prompt.count().estimate).await;
                counted.map_err(|_| AcquireError::Uncounted)?
            }
            _ => estimate_here(&request)?,
        };
        let (lane, ask) = self.ask(index, &request, &estimate)?;
        Ok((&self.inner.accounts[index], lane, ask))
    }

    fn ask(&self, index: usize, request: &Request, estimate: &Estimate) -> Result<(Arc<Lane>, Ask), AcquireError> {
        if request.model.is_empty() {
            return Err(AcquireError::NoModel);
        }
        let account = &self.inner.accounts[index];
        let lane = self.lane(account, index, &request.model);
        let patience = request.max_wait.and_then(|wait| clock::now().checked_add(wait));
        let guess = providers::is_guess(lane.provider, estimate).then(|| {
            Arc::new(Guess {
                provider: lane.provider,
                estimate: *estimate,
                tag: request.tag.clone(),
                context_window: account.settings.context_window(&request.model),
            })
        });
        let ask = Ask {
            // Where the prediction matters, the lane makes it.
            charge: providers::at_admission(lane.provider, estimate, 0),
            guess,
            priority: request.priority,
            tenant: request.tenant.clone(),
            deadline: [request.deadline, patience].into_iter().flatten().min(),
            again: None,
        };
        Ok((lane, ask))
    }

    fn account_of(&self, request: &Request) -> Result<usize, AcquireError> {
        match &request.account {
            None => Ok(0),
            Some(name) => Ok(self.account_named(name)?.0),
        }
    }

    fn account_named(&self, name: &str) -> Result<(usize, &AccountState), AcquireError> {
        let mut accounts = self.inner.accounts.iter().enumerate();
        accounts.find(|(_, account)| account.settings.name() == name).ok_or_else(|| {
            let known: Vec<_> = self.inner.accounts.iter().map(|account| account.settings.name()).collect();
            AcquireError::UnknownAccount { name: name.to_owned(), known: known.join(", ") }
        })
    }

    fn lane(&self, account: &AccountState, index: usize, model: &str) -> Arc<Lane> {
        if let Some(lane) = account.lanes.get(model) {
            return lane.clone();
        }
        let pool = account.settings.pool_of(model);
        // The pool's own entry makes its models meet in one lane, whichever comes first. The guard ends with the statement:
        // another insert under it would wait for itself.
        let lane = Arc::clone(
            &account.lanes.entry(pool.into()).or_insert_with(|| Arc::new(self.new_lane(account, index, model, pool))),
        );
        if pool != model {
            account.lanes.insert(model.into(), lane.clone());
        }
        lane
    }

    fn new_lane(&self, account: &AccountState, index: usize, model: &str, pool: &str) -> Lane {
        let config = &self.inner.config;
        let provider = account.settings.provider;
        let now = clock::now();
        let mut gates = Gates::new(provider, config.jitter_margin).at_time_of_day(now, clock::wall());
        gates.set(&account.settings.limits_of(model), now);
        for fact in config.learned.lane(account.settings.name(), pool) {
            gates.recall(fact.limit, fact.from_header, &fact.shapes, &fact.suspected, &fact.rules, now);
        }
        let weights = config.tenants.iter().map(|(name, weight)| (name.as_str().into(), *weight)).collect();
        let mut machine = Machine::new(gates, clock::now())
            .bounded(account.settings.max_concurrent(model), config.max_waiting)
            .patience(config.outage_patience)
            .turns(weights, config.ageing)
            .predicting(Predictors::new(config.predicted_output, config.output_quantile));
        if account.settings.adaptive_concurrency(model) {
            machine = machine.adaptive(clock::now());
        }
        if self.inner.closed.load(Relaxed) {
            machine.close();
        }
        Lane::new(index, pool, provider, machine)
    }

    fn set_limits_at(
        &self,
        account: &AccountState,
        index: usize,
        model: &str,
        limits: impl IntoIterator<Item = Limit>,
    ) {
        let limits: Vec<_> = limits.into_iter().map(|limit| (limit, Source::Configured)).collect();
        self.lane(account, index, model).change(|machine| machine.set_limits(&limits, clock::now()));
    }

    fn lanes(&self) -> Vec<Arc<Lane>> {
        let mut lanes = Vec::new();
        for account in &self.inner.accounts {
            for lane in account.lanes.iter().filter(|lane| **lane.key() == *lane.value().pool) {
                lanes.push(lane.value().clone());
            }
        }
        lanes
    }
}

impl AccountState {
    fn new(settings: &Account) -> Result<Self, ConfigError> {
        let keys = settings.keys.iter().map(|key| match key {
            Key::Value(secret) => Ok(secret.clone()),
            Key::Env(variable) => std::env::var(variable).map(Secret::from).map_err(|_| ConfigError::MissingKey {
                account: settings.name().to_owned(),
                variable: variable.clone(),
            }),
        });
        let base_url = settings.base_url.as_deref().or(settings.provider.default_base_url());
        Ok(Self {
            keys: keys.collect::<Result<_, _>>()?,
            next_key: AtomicUsize::new(0),
            base_url: base_url.map(|url| url.trim_end_matches('/').into()),
            lanes: DashMap::new(),
            settings: settings.clone(),
        })
    }

    /// The key whose turn it is.
    fn key(&self) -> Option<Secret> {
        match &self.keys[..] {
            [] => None,
            [only] => Some(only.clone()),
            keys => keys.get(self.next_key.fetch_add(1, Relaxed) % keys.len()).cloned(),
        }
    }
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

/// What a request would be charged, for callers that check sizes before they submit.
impl Scheduler {
    /// The charge of `request` by its account's rule, and the limit that could never hold it, if there is one.
    ///
    /// # Errors
    /// When the request names no model or no known account.
    pub fn charge(&self, request: &Request) -> Result<(Charge, Option<Limit>), AcquireError> {
        let account = self.account_of(request)?;
        let (lane, ask) = self.ask(account, request, &estimate_here(request)?)?;
        Ok(lane.with(|machine| {
            let charge = machine.charge(&ask);
            (charge, machine.gates().too_small_for(&charge))
        }))
    }
}
