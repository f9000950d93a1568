//! Settings: accounts with their keys, tiers and limits, and how the scheduler behaves.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use serde::Deserialize;
use thiserror::Error;

use crate::cost::{DAY, Dimension, Limit, Shape};
use crate::endpoint::Shown;
use crate::engine::{RetryPolicy, Source, seconds};
use crate::fallback::Fallback;
use crate::place::{Field, line_and_column};
use crate::providers::{self, Provider};
use crate::secret::Secret;

/// Everything that can be set. All of it has a default; a configuration file names what differs.
///
/// ```
/// let config = tollgate::Config::from_toml(r#"
///     max_waiting = 10_000            # requests that may wait in one lane
///     tenants = { search = 3 }        # three times the turns of the others
///
///     [[account]]
///     provider = "openai"
///     tier = 2
///     keys = [{ env = "OPENAI_API_KEY" }]
///
///     [account.models."gpt-4o"]       # what the tier table does not know better
///     tpm = 400_000
///
///     [account.pools]                 # models that share their limits
///     flagship = ["gpt-5.5", "gpt-5.6-sol"]
/// "#)?;
/// assert_eq!(config.accounts[0].models["gpt-4o"].tpm, Some(400_000));
/// # Ok::<(), tollgate::ConfigError>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The accounts. A request that names none goes by the group of the first one, see [`Account::group`]. Default: one
    /// OpenAI account without key and limits.
    #[serde(rename = "account")]
    pub accounts: Vec<Account>,
    /// Who answers instead of a model that is out of use, failing or late. Default: nobody.
    #[serde(rename = "fallback")]
    pub fallbacks: Vec<Fallback>,
    /// How failed attempts are repeated.
    pub retry: RetryPolicy,
    /// Turns of tenants that differ from 1; at least 1.
    pub tenants: BTreeMap<String, u32>,
    /// How many requests may wait in one lane. Default 1,000,000.
    pub max_waiting: usize,
    /// After what wait a request of low priority gets a turn before urgent ones. Default 60 s.
    #[serde(with = "seconds")]
    pub ageing: Duration,
    /// What the provider's clock may differ from ours between two requests. Default 0.5 s: over loopback 50 ms was not
    /// enough for 1,500 requests without a 429.
    #[serde(with = "seconds")]
    pub jitter_margin: Duration,
    /// Output that is reserved for a request without a cap, per choice, until answers to its kind have shown how long they
    /// are; see [`Request::tag`](crate::Request::tag). Default 500 tokens.
    pub predicted_output: u64,
    /// Which part of the answers without a cap is to be no longer than what is reserved for them, from 0 to 1. Never less
    /// is reserved than their mean, which is what many of them take together. Default 0.5; more where few long answers
    /// fit into a limit at a time and overruns are worse than idle limit.
    pub output_quantile: f64,
    /// How long requests without a deadline wait for a provider that is failing, before they are refused. While it fails,
    /// one request at a time finds out whether it is over, and failed attempts do not count; see
    /// [`Refusal::BreakerOpen`](crate::Refusal::BreakerOpen). Default 300 s; 0 refuses at once.
    #[serde(with = "seconds")]
    pub outage_patience: Duration,
    /// What an earlier scheduler found out about limits. Not part of files.
    #[serde(skip)]
    pub learned: crate::learned::Learned,
    /// The file in which the program keeps that from run to run; in code, see [`Scheduler::learned`](crate::Scheduler::learned).
    /// Default: none.
    pub learned_file: Option<PathBuf>,
    /// How long the built-in client waits for one whole answer. Default 600 s.
    #[serde(with = "seconds")]
    pub timeout: Duration,
    /// How long it waits for the first byte of an answer, and then for each next one. An answer that is no stream comes
    /// when all of it is written, so this is no shorter than the longest answer takes. Default 600 s.
    #[serde(with = "seconds")]
    pub byte_timeout: Duration,
    /// How long it waits for a connection. Default 10 s.
    #[serde(with = "seconds")]
    pub connect_timeout: Duration,
    /// What is watched, and who is told.
    pub watch: crate::watch::WatchConfig,
    /// Which answers are kept (feature `cache`). Default: none.
    #[cfg(feature = "cache")]
    pub cache: Option<crate::cache::CacheConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            accounts: vec![Account::default()],
            fallbacks: Vec::new(),
            retry: RetryPolicy::default(),
            tenants: BTreeMap::new(),
            max_waiting: 1_000_000,
            ageing: Duration::from_secs(60),
            jitter_margin: Duration::from_millis(500),
            predicted_output: 500,
            output_quantile: 0.5,
            outage_patience: Duration::from_secs(300),
            learned: crate::learned::Learned::default(),
            learned_file: None,
            timeout: Duration::from_secs(600),
            byte_timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(10),
            watch: crate::watch::WatchConfig::default(),
            #[cfg(feature = "cache")]
            cache: None,
        }
    }
}

impl Config {
    /// Reads a configuration from TOML text.
    ///
    /// # Errors
    /// When the text is not TOML or has unknown or unfitting fields; the error shows line and column and names the field.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        Self::parse(text, None)
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// As [`Config::from_toml`], and when the file cannot be read.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { file: path.to_owned(), source })?;
        Self::parse(&text, Some(path))
    }

    fn parse(text: &str, file: Option<&Path>) -> Result<Self, ConfigError> {
        let file = || file.map_or_else(|| "configuration".into(), Path::to_owned);
        let config: Self = toml::from_str(text).map_err(|error| {
            // Not the error itself: it quotes the line, which may hold a key.
            let (line, column) = line_and_column(text, error.span().map_or(0, |span| span.start));
            // It quotes values as well.
            ConfigError::Toml { file: file(), line, column, message: providers::clean(error.message()) }
        })?;
        config.checked().map_err(|(field, problem)| {
            let (line, column) = line_and_column(text, field.offset(text));
            let (field, problem) = (providers::clean(&field.to_string()), Box::new(problem));
            ConfigError::Field { file: file(), line, column, field, problem }
        })?;
        Ok(config)
    }

    /// With durations that can be added to any instant: in code, the longest there is stands for ever.
    pub(crate) fn bounded(mut self) -> Self {
        let own = [&mut self.ageing, &mut self.jitter_margin, &mut self.outage_patience];
        let client = [&mut self.timeout, &mut self.byte_timeout, &mut self.connect_timeout];
        let retry = [&mut self.retry.base, &mut self.retry.cap];
        let fallbacks = self.fallbacks.iter_mut().map(|fallback| &mut fallback.margin);
        let bound = |duration: &mut Duration| *duration = (*duration).min(seconds::LONGEST);
        own.into_iter().chain(client).chain(retry).chain(fallbacks).for_each(bound);
        #[cfg(feature = "client")]
        bound(&mut self.watch.status_interval);
        #[cfg(feature = "cache")]
        if let Some(cache) = &mut self.cache {
            [&mut cache.ttl, &mut cache.stale_if_error].into_iter().for_each(bound);
        }
        self
    }

    /// As [`Config::checked`].
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        self.checked().map_err(|(_, problem)| problem)
    }

    /// Checks what types cannot: names are unique, tiers exist, limits are above zero.
    fn checked(&self) -> Result<(), (Field, ConfigError)> {
        let account_at = |index| Field::of("account").at(index);
        let mut names = std::collections::HashSet::new();
        for (index, account) in self.accounts.iter().enumerate() {
            if !names.insert(account.name()) {
                let problem = ConfigError::DuplicateAccount { name: account.name().to_owned() };
                return Err((account_at(index).field("name"), problem));
            }
            account.checked(|| account_at(index))?;
        }
        let groups =
            self.accounts.iter().enumerate().filter_map(|(index, account)| Some((index, account.group.as_deref()?)));
        if let Some((index, group)) = groups.into_iter().find(|(_, group)| names.contains(group)) {
            return Err((account_at(index).field("group"), ConfigError::GroupIsAccount { name: group.to_owned() }));
        }
        if self.accounts.is_empty() {
            return Err((Field::of("account"), ConfigError::NoAccount));
        }
        let mut chains = std::collections::HashSet::new();
        for (index, Fallback { model, routes, .. }) in self.fallbacks.iter().enumerate() {
            let chain = || Field::of("fallback").at(index);
            if routes.is_empty() || !chains.insert(model) {
                return Err((chain().field("routes"), ConfigError::Fallback { model: model.clone() }));
            }
            let known = |name: &str| {
                self.accounts.iter().any(|account| account.name() == name || account.group.as_deref() == Some(name))
            };
            if let Some((route, to)) = routes.iter().enumerate().find(|(_, route)| !known(&route.account)) {
                let problem = ConfigError::UnknownRoute { model: model.clone(), account: to.account.clone() };
                return Err((chain().field("routes").at(route).field("account"), problem));
            }
        }
        if !(0.0..=1.0).contains(&self.output_quantile) {
            return Err((Field::of("output_quantile"), ConfigError::Quantile { given: self.output_quantile }));
        }
        if let Some((tenant, _)) = self.tenants.iter().find(|(_, weight)| **weight == 0) {
            return Err((Field::of("tenants").field(tenant), ConfigError::NoTurns { tenant: tenant.clone() }));
        }
        if self.retry.max_attempts == 0 {
            return Err((Field::of("retry").field("max_attempts"), ConfigError::NoAttempts));
        }
        let times =
            [("timeout", self.timeout), ("byte_timeout", self.byte_timeout), ("connect_timeout", self.connect_timeout)];
        if let Some((field, _)) = times.into_iter().find(|(_, time)| time.is_zero()) {
            return Err((Field::of(field), ConfigError::NoTime { field }));
        }
        Ok(())
    }
}

/// What a provider meters as one: an organisation or project. All its keys share its limits.
///
/// ```
/// use tollgate::{Account, Limits};
///
/// let account = Account::openai()
///     .key("sk-…")
///     .tier(1)
///     .model("gpt-4o", Limits { tpm: Some(60_000), ..Limits::default() });
/// ```
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Account {
    /// How requests name it. Default: the provider's name.
    pub name: Option<String>,
    /// Accounts of one group serve the same models: a request goes by the one where it would start first. Default: accounts
    /// of the same provider at the same address are one group.
    pub group: Option<String>,
    /// Whose rules apply. Default OpenAI.
    pub provider: Provider,
    /// The tier whose numbers apply where nothing else is set; no tier: no limits but those set here.
    pub tier: Option<Tier>,
    /// The keys, used in turn. All of them share the account's limits. One that the provider refuses leaves the turns.
    pub keys: Vec<Key>,
    /// Where the API is, `/v1` included. Default: the provider's.
    pub base_url: Option<String>,
    /// The organisation of OpenAI's that calls are for, where the keys belong to several. Default: that of the key.
    pub organization: Option<String>,
    /// The project that calls are for, likewise.
    pub project: Option<String>,
    /// Limits of every model that has none of its own.
    pub limits: Limits,
    /// Limits by model, or by the name of a pool.
    pub models: BTreeMap<String, Limits>,
    /// Models that share their limits, under a name. Dated snapshots share those of their alias without being named.
    pub pools: BTreeMap<String, Vec<String>>,
}

/// Shows of its address what cannot be a secret.
impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, group, provider, tier, keys, base_url, organization, project, limits, models, pools } = self;
        f.debug_struct("Account")
            .field("name", name)
            .field("group", group)
            .field("provider", provider)
            .field("tier", tier)
            .field("keys", keys)
            .field("base_url", &base_url.as_deref().map(Shown))
            .field("organization", organization)
            .field("project", project)
            .field("limits", limits)
            .field("models", models)
            .field("pools", pools)
            .finish()
    }
}

/// Limits by their short names; what is `None` is not limited here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Requests per second.
    pub rps: Option<u64>,
    /// Requests per minute.
    pub rpm: Option<u64>,
    /// Requests per day.
    pub rpd: Option<u64>,
    /// Tokens per minute.
    pub tpm: Option<u64>,
    /// Tokens per day.
    pub tpd: Option<u64>,
    /// Input tokens per minute.
    pub itpm: Option<u64>,
    /// Output tokens per minute.
    pub otpm: Option<u64>,
    /// Requests under way at once.
    pub max_concurrent: Option<u32>,
    /// The most tokens that prompt and answer can be together; bounds what is reserved for an answer without a cap.
    pub context_window: Option<u64>,
    /// Whether that number adapts, up to `max_concurrent`, to the time that answers take: for servers that queue instead of
    /// refusing, as most do that people run themselves. Default: it does not.
    pub adaptive_concurrency: Option<bool>,
    /// How all of them are enforced, where it is neither the provider's usual way nor to be found out.
    pub shape: Option<Shape>,
    /// The same for requests per second and minute only …
    pub request_shape: Option<Shape>,
    /// … for tokens per minute only …
    pub token_shape: Option<Shape>,
    /// … and for the day limits only.
    pub day_shape: Option<Shape>,
}

impl Limits {
    fn iter(&self) -> impl Iterator<Item = Limit> {
        let Self { rps, rpm, rpd, tpm, tpd, itpm, otpm, max_concurrent: _, .. } = *self;
        [
            rps.map(Limit::rps),
            rpm.map(Limit::rpm),
            rpd.map(Limit::rpd),
            tpm.map(Limit::tpm),
            tpd.map(Limit::tpd),
            itpm.map(Limit::itpm),
            otpm.map(Limit::otpm),
        ]
        .into_iter()
        .flatten()
        .map(|limit| Limit { shape: self.shape_of(&limit).or(self.shape), ..limit })
    }

    fn shape_of(&self, limit: &Limit) -> Option<Shape> {
        match (limit.window, limit.dimension) {
            (DAY, _) => self.day_shape,
            (_, Dimension::Requests) => self.request_shape,
            _ => self.token_shape,
        }
    }
}

/// The name of a tier, such as `tier2`, `free` or `scale`; a number in files and builders stands for `tier<number>`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "TierForm")]
pub struct Tier(String);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a tier: its number, or its name in quotes")]
enum TierForm {
    Number(u32),
    Name(String),
}

impl From<TierForm> for Tier {
    fn from(form: TierForm) -> Self {
        match form {
            TierForm::Number(number) => number.into(),
            TierForm::Name(name) => Self(name),
        }
    }
}

impl Tier {
    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl From<u32> for Tier {
    fn from(number: u32) -> Self {
        Self(format!("tier{number}"))
    }
}

impl From<&str> for Tier {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

/// Where an API key comes from. In files `{ env = "NAME" }`, or the key itself as a string.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "KeyForm")]
pub enum Key {
    /// An environment variable, read when the scheduler is built. White space around it is no part of the key.
    Env(String),
    /// The key itself.
    Value(Secret),
}

// Untagged on purpose: its errors do not quote what they met.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a key: { env = \"NAME\" }, or the key itself in quotes")]
enum KeyForm {
    Value(Secret),
    Env(EnvKey),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnvKey {
    env: String,
}

impl From<KeyForm> for Key {
    fn from(form: KeyForm) -> Self {
        match form {
            KeyForm::Value(secret) => Self::Value(secret),
            KeyForm::Env(EnvKey { env }) => Self::Env(env),
        }
    }
}

impl Account {
    /// An account at `provider`, without key and limits.
    pub fn new(provider: Provider) -> Self {
        Self { provider, ..Self::default() }
    }

    /// An account at OpenAI. A gateway or another server that speaks its API is [`Provider::Compatible`].
    pub fn openai() -> Self {
        Self::new(Provider::Openai)
    }

    /// How requests name it, see [`Request::account`](crate::Request::account).
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Puts it into a group with others that serve the same models; see [`Account::group`](field@Account::group).
    #[must_use]
    pub fn group(mut self, name: impl Into<String>) -> Self {
        self.group = Some(name.into());
        self
    }

    /// Adds a key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Secret>) -> Self {
        self.keys.push(Key::Value(key.into()));
        self
    }

    /// Adds a key from an environment variable, which is read when the scheduler is built.
    #[must_use]
    pub fn key_from_env(mut self, variable: impl Into<String>) -> Self {
        self.keys.push(Key::Env(variable.into()));
        self
    }

    /// Takes the numbers of a tier from the embedded table, by its number or name.
    #[must_use]
    pub fn tier(mut self, tier: impl Into<Tier>) -> Self {
        self.tier = Some(tier.into());
        self
    }

    /// Where the API is, `/v1` included. A query, such as Azure's `?api-version=…`, comes after the path of each call.
    #[must_use]
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = Some(url.into());
        self
    }

    /// The organisation of OpenAI's that calls are for; see [`Account::headers`].
    #[must_use]
    pub fn organization(mut self, id: impl Into<String>) -> Self {
        self.organization = Some(id.into());
        self
    }

    /// The project of OpenAI's that calls are for; see [`Account::headers`].
    #[must_use]
    pub fn project(mut self, id: impl Into<String>) -> Self {
        self.project = Some(id.into());
        self
    }

    /// Limits for every model that has none of its own.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Limits of one model or pool; they override the tier's one by one.
    #[must_use]
    pub fn model(mut self, model: impl Into<String>, limits: Limits) -> Self {
        self.models.insert(model.into(), limits);
        self
    }

    /// Models that share their limits.
    #[must_use]
    pub fn pool<S: Into<String>>(mut self, name: impl Into<String>, models: impl IntoIterator<Item = S>) -> Self {
        self.pools.insert(name.into(), models.into_iter().map(Into::into).collect());
        self
    }

    /// The headers that say which organisation and project calls are for. The built-in client sends them; other calls have to
    /// bring them along. What no header can carry is left out; no scheduler can be built with it.
    ///
    /// ```
    /// let account = tollgate::Account::openai().organization("org-1").project("proj_2");
    /// let headers = account.headers();
    /// assert!(headers["OpenAI-Organization"] == "org-1" && headers["OpenAI-Project"] == "proj_2");
    /// ```
    pub fn headers(&self) -> HeaderMap {
        let named = self.named_headers().filter_map(|(_, header, value)| Some((header, value.ok()?)));
        named.map(|(header, value)| (HeaderName::from_static(header), value)).collect()
    }

    /// Fields that go into headers, the headers, and what stands in them.
    fn named_headers(
        &self,
    ) -> impl Iterator<Item = (&'static str, &'static str, Result<HeaderValue, InvalidHeaderValue>)> {
        [("organization", "openai-organization", &self.organization), ("project", "openai-project", &self.project)]
            .into_iter()
            .filter_map(|(field, header, value)| {
                let value = value.as_deref().map(str::trim).filter(|value| !value.is_empty())?;
                Some((field, header, HeaderValue::from_str(value)))
            })
    }

    /// The name that requests use.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(self.provider.name())
    }

    /// Where the API is, without a slash at the end and without the space around it that a variable or a file may have.
    pub(crate) fn address(&self) -> Option<&str> {
        let url = self.base_url.as_deref().or(self.provider.default_base_url())?;
        Some(url.trim().trim_end_matches('/'))
    }

    /// Whether both serve the same models.
    pub(crate) fn is_of_one_group(&self, other: &Account) -> bool {
        match (&self.group, &other.group) {
            (None, None) => (self.provider, self.address()) == (other.provider, other.address()),
            (own, others) => own == others,
        }
    }

    /// The pool that `model` belongs to.
    pub(crate) fn pool_of<'a>(&'a self, model: &'a str) -> &'a str {
        let named = self.pools.iter().find(|(_, models)| models.iter().any(|member| member == model));
        named.map_or_else(|| providers::pool_of(self.provider, model), |(name, _)| name)
    }

    /// The limits of `model`: its own, then those of its pool, of the account, of the tier.
    pub(crate) fn limits_of(&self, model: &str) -> Vec<(Limit, Source)> {
        let mut found: Vec<(Limit, Source)> = Vec::new();
        let mut add = |limit: Limit, source: Source| {
            if !found.iter().any(|(known, _)| (known.dimension, known.window) == (limit.dimension, limit.window)) {
                found.push((limit, source));
            }
        };
        for limits in self.own_limits(model) {
            limits.iter().for_each(|limit| add(limit, Source::Configured));
        }
        if let Some(Tier(tier)) = &self.tier
            && let Some(row) = providers::lookup(self.provider, tier, model)
        {
            for limit in row.limits {
                add(limit, Source::Tier { tier: tier.clone(), as_of: row.as_of.clone() });
            }
        }
        found
    }

    /// The most requests of `model` under way at once.
    pub(crate) fn max_concurrent(&self, model: &str) -> Option<u32> {
        self.own_limits(model).find_map(|limits| limits.max_concurrent)
    }

    /// The most tokens that a prompt of `model` and its answer can be together.
    pub(crate) fn context_window(&self, model: &str) -> Option<u64> {
        self.own_limits(model).find_map(|limits| limits.context_window)
    }

    /// Whether that number adapts to the server.
    pub(crate) fn adaptive_concurrency(&self, model: &str) -> bool {
        self.own_limits(model).find_map(|limits| limits.adaptive_concurrency).unwrap_or(false)
    }

    fn own_limits<'a>(&'a self, model: &'a str) -> impl Iterator<Item = &'a Limits> {
        let named = [model, self.pool_of(model)];
        named.into_iter().filter_map(|name| self.models.get(name)).chain([&self.limits])
    }

    /// As [`Config::checked`]; `own` is where the account stands.
    fn checked(&self, own: impl Fn() -> Field) -> Result<(), (Field, ConfigError)> {
        let account = || self.name().to_owned();
        if let Some(Tier(tier)) = &self.tier
            && !providers::has_tier(self.provider, tier)
        {
            let known = providers::tiers(self.provider).join(", ");
            let problem = ConfigError::UnknownTier { account: account(), tier: tier.clone(), known };
            return Err((own().field("tier"), problem));
        }
        for (key, source) in self.keys.iter().enumerate() {
            if matches!(source, Key::Value(secret) if secret.expose().trim().is_empty()) {
                return Err((own().field("keys").at(key), ConfigError::EmptyKey { account: account(), key }));
            }
        }
        if self.base_url.as_deref().is_some_and(|url| !is_address(url.trim())) {
            return Err((own().field("base_url"), ConfigError::BadAddress { account: account() }));
        }
        if let Some((field, _, Err(_))) = self.named_headers().find(|(_, _, value)| value.is_err()) {
            return Err((own().field(field), ConfigError::BadHeader { account: account(), field }));
        }
        let of_models = self.models.iter().map(|(name, limits)| (name.as_str(), limits));
        for (place, limits) in of_models.chain([("*", &self.limits)]) {
            let none = limits.iter().find(|limit| limit.amount == 0).map(|limit| limit.name());
            let no_place = || (limits.max_concurrent == Some(0)).then(|| "max_concurrent".to_owned());
            if let Some(limit) = none.or_else(no_place) {
                let table = if place == "*" { own().field("limits") } else { own().field("models").field(place) };
                let field = table.field(limit.to_ascii_lowercase());
                return Err((field, ConfigError::ZeroLimit { account: account(), model: place.to_owned(), limit }));
            }
        }
        Ok(())
    }
}

/// Whether requests can be sent there, as far as that can be seen.
fn is_address(url: &str) -> bool {
    let after = |scheme: &str| url.get(scheme.len()..).filter(|_| url[..scheme.len()].eq_ignore_ascii_case(scheme));
    let rest = ["http://", "https://"].into_iter().find_map(after);
    rest.is_some_and(|rest| !rest.starts_with(['/', '?', '#', ':']) && !rest.is_empty())
        && !url.contains(|c: char| c.is_whitespace() || c.is_control())
}

/// What is wrong with a configuration.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", file.display())]
    Read {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is not what it should be.
    #[error("{}:{line}:{column}: {message}", file.display())]
    Toml {
        /// Which file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A field of the text does not fit.
    #[error("{}:{line}:{column}: {field}: {problem}", file.display())]
    Field {
        /// Which file.
        file: PathBuf,
        /// Line of the field, or of the table that it is missing from, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// Which field, such as `account[0].limits.rpm`.
        field: String,
        /// What is wrong with it.
        problem: Box<ConfigError>,
    },
    /// The tier table has no such tier.
    #[error("account {account}: the tier table has no tier {tier}; it knows {known}")]
    UnknownTier {
        /// Which account.
        account: String,
        /// What was asked for.
        tier: String,
        /// What there is.
        known: String,
    },
    /// Two accounts have one name.
    #[error("two accounts are called {name}; give one of them another `name`")]
    DuplicateAccount {
        /// The name.
        name: String,
    },
    /// A group is called like an account, so that a request that names it could mean either.
    #[error("a group and an account are both called {name}; give one of them another name")]
    GroupIsAccount {
        /// The name.
        name: String,
    },
    /// A fallback chain leads nowhere, or a model has two of them.
    #[error("model {model}: one fallback with at least one route is needed; put all routes into one [[fallback]]")]
    Fallback {
        /// The model.
        model: String,
    },
    /// A fallback chain names what does not exist.
    #[error("the fallback of {model} names the account {account}, which does not exist; add it or correct the name")]
    UnknownRoute {
        /// The model.
        model: String,
        /// The name.
        account: String,
    },
    /// There is no account.
    #[error("there is no account; add an [[account]]")]
    NoAccount,
    /// A limit of zero lets nothing pass.
    #[error(
        "account {account}, model {model}: {limit} is 0, which lets nothing pass; leave it out where there is no limit"
    )]
    ZeroLimit {
        /// Which account.
        account: String,
        /// Which model; `*` for all.
        model: String,
        /// Which limit.
        limit: String,
    },
    /// `max_attempts` of zero sends nothing.
    #[error("retry.max_attempts is 0, which sends nothing; 1 means no retries")]
    NoAttempts,
    /// A tenant without turns would never be served.
    #[error("tenant {tenant} has 0 turns, which sends nothing; give it 1 and the others more")]
    NoTurns {
        /// Whose.
        tenant: String,
    },
    /// The quantile of the output is none.
    #[error("output_quantile is {given}; it must be from 0 to 1")]
    Quantile {
        /// What it is.
        given: f64,
    },
    /// A key's environment variable is not set or empty.
    #[error("account {account}: the environment variable {variable} is not set or empty; it should hold the API key")]
    MissingKey {
        /// Which account.
        account: String,
        /// Which variable.
        variable: String,
    },
    /// A key is empty, so that calls would go without one.
    #[error("account {account}: key {key} is empty; put the key there, or leave it out where none is needed")]
    EmptyKey {
        /// Which account.
        account: String,
        /// Its position among the account's keys, from 0.
        key: usize,
    },
    /// The base URL is none.
    #[error("account {account}: base_url is no address; expected one like https://api.openai.com/v1")]
    BadAddress {
        /// Which account.
        account: String,
    },
    /// A time-out of zero lets no call end.
    #[error("{field} is 0, which lets no call end; leave it out for the default")]
    NoTime {
        /// Which one.
        field: &'static str,
    },
    /// A key holds what no header can carry, so that it would never reach the provider.
    #[error("account {account}: key {key} holds characters that no API key has; check how it was set")]
    BadKey {
        /// Which account.
        account: String,
        /// Its position among the account's keys, from 0.
        key: usize,
    },
    /// The organisation or the project holds what no header can carry.
    #[error("account {account}: `{field}` holds characters that no header can carry; check how it was set")]
    BadHeader {
        /// Which account.
        account: String,
        /// `organization` or `project`.
        field: &'static str,
    },
    /// The environment variable of the webhook's secret is not set.
    #[error(
        "the environment variable {variable} is not set; it should hold the webhook's secret, as `openssl rand -base64 32` makes one"
    )]
    MissingWebhookSecret {
        /// Which variable.
        variable: String,
    },
    /// What is to be watched cannot be.
    #[error("{problem}")]
    Watch {
        /// Why, and what to do.
        problem: &'static str,
    },
    /// The cache's folder cannot be used.
    #[error("cannot keep answers in {}; name another folder for the cache", folder.display())]
    Cache {
        /// Which folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}
