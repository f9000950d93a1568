//! Settings: accounts with their keys, tiers and limits, and how the scheduler behaves.

mod account;
mod error;
mod place;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use self::place::{Field, line_and_column};
use crate::engine::{RetryPolicy, seconds};
use crate::fallback::Fallback;
use crate::providers;

pub use self::account::{Account, Key, Limits, Tier};
pub use self::error::ConfigError;

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
