//! Who is examined: the account, its address, its key and its limits, as far as they can be found out here.

use reqwest::Url;
use reqwest::header::HeaderMap;
use tollgate::engine::Source;
use tollgate::{Config, Limit, Provider, Scheduler, Secret, Tier, WatchConfig};

use super::args::DoctorArgs;
use super::finding::Finding;
use super::verdict::Verdict;
use crate::target::{address, is_loopback, key};

/// What the checks need to know.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) provider: Provider,
    /// Where the API is, without a trailing slash.
    pub(super) base: Url,
    /// The key, and where it comes from.
    pub(super) key: Option<Secret>,
    pub(super) key_from: String,
    /// What the account sends besides.
    pub(super) headers: HeaderMap,
    pub(super) model: Option<String>,
    /// The limits that the scheduler would hold to.
    pub(super) limits: Vec<(Limit, Source)>,
}

impl Subject {
    /// Reads the settings. What is wrong with them is a finding, and then there is nobody to examine.
    pub(super) fn new(args: &DoctorArgs) -> Result<(Self, Finding), Finding> {
        let wrong = |problem: String| Finding::fail("configuration", problem.clone()).blame(Verdict::Settings, problem);
        let mut config = match &args.api.config {
            Some(file) => Config::from_file(file).map_err(|error| wrong(with_cause(&error)))?,
            None => Config::default(),
        };
        config.cache = None;
        if config.accounts.is_empty() {
            return Err(wrong("the configuration has no account; add an [[account]]".to_owned()));
        }
        config.accounts.truncate(1);
        (config.cache, config.watch) = (None, WatchConfig::default());
        let account = &mut config.accounts[0];
        let (base, base_from) = address(account, &args.api).map_err(wrong)?;
        let (key, key_from) = key(account, args.api.api_key_env.as_deref());
        account.keys.clear();
        let headers = account.headers();
        let whose = [("organisation", &account.organization), ("project", &account.project)].into_iter();
        let whose: String = whose.filter_map(|(word, id)| Some(format!("{word} {}, ", id.as_ref()?))).collect();
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
            "{provider} at {} ({base_from}), {whose}limits {}",
            base.host_str().unwrap_or_default(),
            if told.is_empty() { "none".to_owned() } else { told.join(", ") },
        );
        let subject = Self { provider, base, key, key_from, headers, model: args.model.clone(), limits };
        Ok((subject, Finding::ok("configuration", seen)))
    }

    /// The address of `path` below the base URL.
    pub(super) fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }

    pub(super) fn has_path(&self) -> bool {
        !self.base.path().trim_end_matches('/').is_empty()
    }

    pub(super) fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// What a call brings along: the key, and whose it is.
    pub(super) fn headers(&self) -> HeaderMap {
        let mut headers = self.provider.auth_headers(self.key.as_ref());
        headers.extend(self.headers.clone());
        headers
    }

    /// The client sends nothing to this machine through a proxy.
    pub(super) fn is_local(&self) -> bool {
        is_loopback(self.base.as_str())
    }
}

/// An error and why, without the words of a file: they may hold a key.
fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
