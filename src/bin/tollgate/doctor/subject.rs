//! Who is examined: the account, its address, its key and its limits, as far as they can be found out here.

use reqwest::Url;
use tollgate::engine::Source;
use tollgate::{Account, Config, Key, Limit, Provider, Scheduler, Secret, Tier};

use super::args::DoctorArgs;
use super::finding::Finding;
use super::verdict::Verdict;
use crate::run::{is_loopback, provider_at};

/// What the checks need to know.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) provider: Provider,
    /// Where the API is, without a trailing slash.
    pub(super) base: Url,
    /// The key, and where it comes from.
    pub(super) key: Option<Secret>,
    pub(super) key_from: String,
    pub(super) model: Option<String>,
    /// The limits that the scheduler would hold to.
    pub(super) limits: Vec<(Limit, Source)>,
}

impl Subject {
    /// Reads the settings. What is wrong with them is a finding, and then there is nobody to examine.
    pub(super) fn new(args: &DoctorArgs) -> Result<(Self, Finding), Finding> {
        let wrong = |problem: String| Finding::fail("configuration", problem.clone()).blame(Verdict::Settings, problem);
        let mut config = match &args.config {
            Some(file) => Config::from_file(file).map_err(|error| wrong(with_cause(&error)))?,
            None => Config::default(),
        };
        config.cache = None;
        if config.accounts.is_empty() {
            return Err(wrong("the configuration has no account; add an [[account]]".to_owned()));
        }
        config.accounts.truncate(1);
        let account = &mut config.accounts[0];
        let (base, base_from) = address(account, args).map_err(wrong)?;
        let (key, key_from) = key(account, args);
        account.keys.clear();
        if let Some(tier) = &args.tier {
            account.tier = Some(tier.parse::<u32>().map_or_else(|_| Tier::from(tier.as_str()), Tier::from));
        }
        args.amounts.over(&mut account.limits);
        let provider = account.provider;
        let scheduler = Scheduler::from_config(config).map_err(|error| wrong(with_cause(&error)))?;
        let gates = scheduler.lane_of(args.model.as_deref().unwrap_or_default()).status.gates;
        let limits: Vec<_> = gates.into_iter().map(|gate| (gate.limit, gate.source)).collect();
        let told = limits.iter().map(|(limit, _)| limit.to_string()).collect::<Vec<_>>();
        let seen = format!(
            "{provider} at {} ({base_from}), limits {}",
            base.host_str().unwrap_or_default(),
            if told.is_empty() { "none".to_owned() } else { told.join(", ") },
        );
        let subject = Self { provider, base, key, key_from, model: args.model.clone(), limits };
        Ok((subject, Finding::ok("configuration", seen)))
    }

    /// The address of `path` below the base URL.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }

    pub(super) fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// The client sends nothing to this machine through a proxy.
    pub(super) fn is_local(&self) -> bool {
        is_loopback(self.base.as_str())
    }
}

/// The base URL and where it comes from; also settles whose API it is.
fn address(account: &mut Account, args: &DoctorArgs) -> Result<(Url, &'static str), String> {
    account.provider = args.provider.unwrap_or(account.provider);
    let from_env = || std::env::var("OPENAI_BASE_URL").ok().filter(|url| !url.trim().is_empty());
    let (text, from) = if let Some(url) = args.base_url.clone() {
        (url, "--base-url")
    } else if let Some(url) = account.base_url.clone() {
        (url, "the configuration")
    } else if let Some(url) = from_env().filter(|_| account.provider == Provider::Openai) {
        (url, "OPENAI_BASE_URL")
    } else if let Some(url) = account.provider.default_base_url() {
        (url.to_owned(), "the provider's own")
    } else {
        return Err(format!("{} has no address of its own; give yours by --base-url", account.provider));
    };
    if from != "the provider's own" && args.provider.is_none() && args.config.is_none() {
        account.provider = provider_at(&text);
    }
    let url = Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = url.ok_or_else(|| format!("{from} is no address such as https://api.openai.com/v1"))?;
    Ok((url, from))
}

/// The first key of the account, and the words for where it comes from.
fn key(account: &Account, args: &DoctorArgs) -> (Option<Secret>, String) {
    let from_env = |variable: &str| {
        let key = std::env::var_os(variable).map(|key| key.to_string_lossy().trim().to_owned());
        (key.filter(|key| !key.is_empty()).map(Secret::from), variable.to_owned())
    };
    match (&args.api_key_env, account.keys.first()) {
        (Some(variable), _) | (None, Some(Key::Env(variable))) => from_env(variable),
        (None, Some(Key::Value(secret))) => (Some(secret.clone()), "the configuration's key".to_owned()),
        (None, None) => from_env(account.provider.key_env()),
    }
}

/// An error and why, without the words of a file: they may hold a key.
fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
