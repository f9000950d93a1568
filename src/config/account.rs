//! An account: whose it is, its keys, and its limits.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use http::header::{HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use serde::Deserialize;

use super::error::ConfigError;
use super::place::Field;
use crate::cost::{DAY, Dimension, Limit, Shape};
use crate::endpoint::Shown;
use crate::engine::Source;
use crate::providers::{self, Provider};
use crate::secret::Secret;

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
    /// Limits by model, or by the name of a pool. Models that share a pool share what is set for any of them.
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
    /// The most tokens that prompt and answer can be together; bounds what is reserved for an answer without a cap.
    pub context_window: Option<u64>,
    /// Requests under way at once.
    pub max_concurrent: Option<u32>,
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
#[derive(Clone, Deserialize)]
#[serde(from = "KeyForm")]
pub enum Key {
    /// An environment variable, read when the scheduler is built. White space around it is no part of the key.
    Env(String),
    /// The key itself.
    Value(Secret),
}

/// Shows no key, not even one that was taken for a variable's name.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Env(variable) => f.debug_tuple("Env").field(&providers::clean(variable)).finish(),
            Key::Value(secret) => f.debug_tuple("Value").field(secret).finish(),
        }
    }
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

    /// The pool that `model` belongs to: the one that names it, or another snapshot of it, else the provider's.
    pub(crate) fn pool_of<'a>(&'a self, model: &'a str) -> &'a str {
        let own = providers::pool_of(self.provider, model);
        let with = |is: &dyn Fn(&str) -> bool| self.pools.iter().find(|(_, models)| models.iter().any(|name| is(name)));
        let snapshot = |name: &str| providers::pool_of(self.provider, name) == own;
        with(&|name| name == model).or_else(|| with(&snapshot)).map_or(own, |(pool, _)| pool)
    }

    /// The limits of a pool, whichever of its models is asked for first: those that are set for it or one of its models,
    /// then those of the account, of the tier.
    pub(crate) fn limits_of(&self, pool: &str) -> Vec<(Limit, Source)> {
        let mut found: Vec<(Limit, Source)> = Vec::new();
        let mut add = |limit: Limit, source: Source| {
            if !found.iter().any(|(known, _)| (known.dimension, known.window) == (limit.dimension, limit.window)) {
                found.push((limit, source));
            }
        };
        for limits in self.own_limits(pool) {
            limits.iter().for_each(|limit| add(limit, Source::Configured));
        }
        if let Some(Tier(tier)) = &self.tier
            && let Some(row) = self.models_of(pool).find_map(|model| providers::lookup(self.provider, tier, model))
        {
            for limit in row.limits {
                add(limit, Source::Tier { tier: tier.clone(), as_of: row.as_of.clone() });
            }
        }
        found
    }

    /// The most requests of a pool under way at once.
    pub(crate) fn max_concurrent(&self, pool: &str) -> Option<u32> {
        self.own_limits(pool).find_map(|limits| limits.max_concurrent)
    }

    /// Whether that number adapts to the server.
    pub(crate) fn adaptive_concurrency(&self, pool: &str) -> bool {
        self.own_limits(pool).find_map(|limits| limits.adaptive_concurrency).unwrap_or(false)
    }

    /// The most tokens that a prompt of `model` and its answer can be together.
    pub(crate) fn context_window(&self, model: &str) -> Option<u64> {
        let named = [model, self.pool_of(model)].into_iter().filter_map(|name| self.models.get(name));
        named.chain([&self.limits]).find_map(|limits| limits.context_window)
    }

    fn own_limits<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = &'a Limits> {
        let of_models = self.models.iter().filter(move |(name, _)| *name != pool && self.pool_of(name) == pool);
        self.models.get(pool).into_iter().chain(of_models.map(|(_, limits)| limits)).chain([&self.limits])
    }

    /// The models that a pool names, and the one that it may be named after.
    fn models_of<'a>(&'a self, pool: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.pools.get(pool).into_iter().flatten();
        named.map(String::as_str).chain([pool])
    }

    /// As [`Config::checked`]; `own` is where the account stands.
    pub(super) fn checked(&self, own: impl Fn() -> Field) -> Result<(), (Field, ConfigError)> {
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
        let mut pooled = BTreeSet::new();
        for (pool, models) in &self.pools {
            if let Some(model) = models.iter().find(|model| !pooled.insert(model.as_str())) {
                let problem = ConfigError::TwoPools { account: account(), model: model.clone() };
                return Err((own().field("pools").field(pool), problem));
            }
        }
        for (index, (model, limits)) in self.models.iter().enumerate() {
            let same = self.models.iter().take(index).filter(|(other, _)| self.pool_of(other) == self.pool_of(model));
            for (other, others) in same {
                let differs = |limit: &Limit| {
                    let of_kind = |other: &Limit| (other.dimension, other.window) == (limit.dimension, limit.window);
                    others.iter().any(|other| of_kind(&other) && other.amount != limit.amount)
                };
                if let Some(limit) = limits.iter().find(differs).map(|limit| limit.name()) {
                    let field = own().field("models").field(model).field(limit.to_ascii_lowercase());
                    let (model, other) = (model.clone(), other.clone());
                    return Err((field, ConfigError::TwoNumbers { account: account(), model, other, limit }));
                }
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
