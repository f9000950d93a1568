//! What the arguments mean, validated as a whole.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use tollgate::mock::{Latency, MockConfig};
use tollgate::{Account, Config, Key, Limits, Provider, Secret, Tier, WatchConfig, WebhookConfig};

use super::journal;
use super::paths::{self, Role};
use super::row::LineFormat;
use crate::args::{
    CacheArgs, LimitArgs, MockedArgs, RowArgs, RunArgs, ShapeOf, TalkArgs, TargetArgs, Uncertain, shapes_over,
};
use crate::mock::{rule, stamp};
use crate::show;
use crate::target::{address, is_loopback};

/// RPM and TPM of `--mock` where nothing else is said: the shipped example takes a quarter of a minute with them, since most
/// of it goes to one model, whose limits it uses up.
const DEMONSTRATION: (u64, u64) = (230, 125_000);

/// Requests at once where nothing else is said. At a second each this is more than any tier lets pass, and a connection
/// takes some fifty kilobytes: 4096 of them would take more memory than all the rest.
const MOST_AT_ONCE: u64 = 2048;

/// File descriptors for everything but the connections.
const OTHER_FILES: u64 = 96;

/// Sent where a server on this machine wants to see some key and none is set.
pub(crate) const NO_SECRET: &str = "none";

/// Where the webhook's secret is looked for unless said otherwise.
const WEBHOOK_SECRET: &str = "TOLLGATE_WEBHOOK_SECRET";

/// Where the requests come from.
#[derive(Clone, Debug)]
pub(crate) enum InputFrom {
    Stdin,
    File(PathBuf),
}

impl InputFrom {
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            InputFrom::Stdin => None,
            InputFrom::File(path) => Some(path),
        }
    }
}

/// Where the results go.
#[derive(Clone, Debug)]
pub(crate) enum OutputTo {
    Stdout,
    File(PathBuf),
}

/// How the embedded mock behaves.
#[derive(Clone, Debug)]
pub(crate) struct MockSettings {
    /// Everything but its limits, which are those that the scheduler was told …
    pub(crate) config: MockConfig,
    /// … in these shapes.
    pub(crate) shapes: Vec<(ShapeOf, tollgate::Shape)>,
}

/// How much to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Talk {
    Quiet,
    Normal,
    Verbose,
}

/// Everything that `tollgate run` has to know.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) from: InputFrom,
    pub(crate) to: OutputTo,
    pub(crate) report: Option<PathBuf>,
    /// Where the configuration was read.
    config_file: Option<PathBuf>,
    /// Where to serve metrics.
    pub(crate) metrics: Option<SocketAddr>,
    /// Where what is found out about limits is kept.
    pub(crate) learned: Option<PathBuf>,
    pub(crate) shape: LineFormat,
    pub(crate) skip_invalid: bool,
    pub(crate) retry_failed: bool,
    pub(crate) uncertain: Uncertain,
    pub(crate) max_concurrent: usize,
    /// The scheduler's settings; with a mock, its address is still to come.
    pub(crate) config: Config,
    pub(crate) mock: Option<MockSettings>,
    /// What must not appear in anything that is written.
    pub(crate) secrets: Vec<Secret>,
    pub(crate) warnings: Vec<String>,
    pub(crate) talk: Talk,
}

impl Settings {
    pub(crate) fn new(args: RunArgs) -> Result<Self> {
        let RunArgs { input, rows, target, limits, cache, mock, talk } = args;
        let RowArgs { output, endpoint, skip_invalid, retry_failed, uncertain } = rows;
        let TalkArgs { report, metrics, webhook, webhook_secret_env, quiet, verbose } = talk;
        let mut warnings = Vec::new();

        let from = if input == Path::new("-") { InputFrom::Stdin } else { InputFrom::File(input) };
        let to = match (output, &from) {
            (Some(output), _) if output == Path::new("-") => OutputTo::Stdout,
            (Some(output), _) => OutputTo::File(output),
            (None, InputFrom::Stdin) => OutputTo::Stdout,
            (None, InputFrom::File(input)) => OutputTo::File(results_beside(input)),
        };
        if matches!(to, OutputTo::Stdout) && retry_failed {
            bail!("--retry-failed needs a file of results; name it with -o");
        }

        let (mut config, mut secrets) = config(&target, &limits, &from)?;
        secrets.extend(set_webhook(&mut config, webhook, webhook_secret_env)?);
        set_cache(&mut config, cache)?;
        let mock = target.mock.then(|| {
            let MockedArgs {
                mock_latency,
                mock_seed: seed,
                mock_settle: settle,
                mock_shape: shapes,
                mock_charge,
                mock_headers,
                mock_change: changes,
            } = mock;
            let latency = mock_latency.unwrap_or(Duration::from_millis(800));
            let latency = if latency.is_zero() { Latency::default() } else { Latency::about(latency) };
            let (charge, headers) = (rule(mock_charge), stamp(mock_headers));
            let dialect = first(&config).provider;
            let config =
                MockConfig { dialect, latency, seed, settle, charge, headers, changes, ..MockConfig::default() };
            MockSettings { config, shapes }
        });
        // What an imitation shows must not be taken for the provider's, so that it needs a file of its own.
        let learned = limits.learned.clone().or_else(|| config.learned_file.clone().filter(|_| !target.mock));
        let account = first(&config);
        let limited = account.tier.is_some() || account.limits != Limits::default() || !account.models.is_empty();
        if mock.is_none() && !limited && !limits.unlimited {
            warnings.push(
                "no --tier and no limits: nothing holds the requests back until the provider's answers show its limits"
                    .to_owned(),
            );
        }
        let (max_concurrent, warning) = max_concurrent(limits.max_concurrent, mock.is_some());
        warnings.extend(warning);
        let talk = match (quiet, verbose) {
            (true, _) => Talk::Quiet,
            (_, true) => Talk::Verbose,
            _ => Talk::Normal,
        };
        // The mock serves the paths of OpenAI's API, which Anthropic serves besides its own.
        let common = mock.is_some() && account.provider == Provider::Anthropic;
        let endpoint = endpoint.or_else(|| common.then(|| "/chat/completions".to_owned()));
        let shape = LineFormat { endpoint: endpoint.as_deref().map(path_of).transpose()?, provider: account.provider };
        Ok(Self {
            from,
            to,
            report,
            config_file: target.api.config,
            metrics,
            learned,
            shape,
            skip_invalid,
            retry_failed,
            uncertain,
            max_concurrent,
            config,
            mock,
            secrets,
            warnings,
            talk,
        })
    }

    /// That every file that is written is no other one.
    pub(crate) fn check_paths(&self) -> Result<()> {
        let output = if let OutputTo::File(path) = &self.to { Some(path.as_path()) } else { None };
        let journal = output.map(journal::path_for);
        let cache = self.config.cache.as_ref().and_then(|cache| cache.folder.as_deref());
        let roles = [
            (self.from.file(), "the input", None),
            (self.config_file.as_deref(), "the configuration", None),
            (output, "the file of results", Some("results need a file of their own")),
            (
                journal.as_deref(),
                "the journal of the results",
                Some("their journal needs that name; choose another -o"),
            ),
            (self.report.as_deref(), "the report", Some("the report needs a file of its own")),
            (self.learned.as_deref(), "what was learned", Some("what is learned needs a file of its own")),
            (cache, "the cache", Some("the cache needs a folder of its own")),
        ];
        let roles = roles.into_iter().filter_map(|(path, name, needs)| Some(Role { path: path?, name, needs }));
        paths::check(&roles.collect::<Vec<_>>())
    }
}

/// The account that sends.
pub(crate) fn first(config: &Config) -> &Account {
    // An empty list is refused when the configuration is put together.
    &config.accounts[0]
}

/// `requests.jsonl` → `requests.results.jsonl`, in the same folder.
fn results_beside(input: &Path) -> PathBuf {
    let mut name = input.file_stem().unwrap_or_default().to_owned();
    name.push(".results.jsonl");
    input.with_file_name(name)
}

/// `/v1/chat/completions`, `chat/completions` and `/chat/completions` are one.
pub(crate) fn path_of(endpoint: &str) -> Result<String> {
    let path = format!("/{}", endpoint.trim_matches('/'));
    let path = path.strip_prefix("/v1/").map_or(path.clone(), |rest| format!("/{rest}"));
    if path.len() < 2 || endpoint.contains("://") || endpoint.contains(char::is_whitespace) {
        bail!("`{endpoint}` is no path below the base URL; expected one like /chat/completions");
    }
    Ok(path)
}

/// The scheduler's settings: the file's, with what was typed written over its first account, and the keys in it.
fn config(target: &TargetArgs, limits: &LimitArgs, from: &InputFrom) -> Result<(Config, Vec<Secret>)> {
    let mut config = match &target.api.config {
        Some(file) => Config::from_file(file)?,
        None => Config::default(),
    };
    if let Some(timeout) = target.timeout {
        if timeout.is_zero() {
            bail!("--timeout 0 lets no answer arrive; leave it out for the default of 600 seconds");
        }
        config.timeout = timeout;
    }
    if let Some(attempts) = limits.max_attempts {
        config.retry.max_attempts = attempts;
    }
    let Some(account) = config.accounts.first_mut() else {
        bail!("the configuration has no account; add an [[account]]");
    };
    if target.mock {
        account.provider = target.api.provider.unwrap_or(account.provider);
    } else {
        address(account, &target.api).map_err(Error::msg)?;
    }
    set_limits(account, target, limits);
    let secrets = if target.mock {
        // Whatever keys there are, they have no business here.
        account.keys = vec![Key::Value(NO_SECRET.into())];
        account.base_url = None;
        config.accounts.truncate(1);
        config.fallbacks.clear();
        config.watch.status_pages = false;
        let account = first(&config);
        std::env::var(account.provider.key_env()).ok().into_iter().map(Secret::from).collect()
    } else {
        let mut secrets = set_keys(account, target, from)?;
        for account in &config.accounts[1..] {
            secrets.extend(keys_of(account, from)?);
        }
        secrets
    };
    let secrets =
        secrets.into_iter().filter(|secret: &Secret| secret.expose().len() >= show::SHORTEST_SECRET).collect();
    Ok((config, secrets))
}

/// Puts the webhook's secret itself into the settings, and returns it.
fn set_webhook(config: &mut Config, url: Option<String>, variable: Option<String>) -> Result<Option<Secret>> {
    if let Some(url) = url {
        let secret = Key::Env(variable.unwrap_or_else(|| WEBHOOK_SECRET.to_owned()));
        let retry = config.watch.webhook.take().map(|webhook| webhook.retry).unwrap_or_default();
        config.watch.webhook = Some(WebhookConfig { url: url.into(), secret, retry });
    }
    let Some(WebhookConfig { secret: key @ Key::Env(_), .. }) = &mut config.watch.webhook else { return Ok(None) };
    let Key::Env(variable) = &*key else { return Ok(None) };
    let Some(secret) = from_env(variable)? else {
        bail!(
            "there is no secret for the webhook: the environment variable {variable} is not set\n  \
             make one:  export {variable}=$(openssl rand -base64 32)"
        );
    };
    *key = Key::Value(secret.clone());
    Ok(Some(secret))
}

fn set_cache(config: &mut Config, typed: CacheArgs) -> Result<()> {
    let CacheArgs { cache, cache_memory, cache_sampled, cache_ttl, stale_if_error } = typed;
    if cache.is_some() || cache_memory {
        config.cache.get_or_insert_default().folder = cache;
    }
    let Some(config) = &mut config.cache else {
        if cache_sampled || cache_ttl.is_some() || stale_if_error.is_some() {
            bail!("there is no cache to be set up; add --cache DIR or --cache-memory");
        }
        return Ok(());
    };
    config.sampled |= cache_sampled;
    config.ttl = cache_ttl.unwrap_or(config.ttl);
    config.stale_if_error = stale_if_error.unwrap_or(config.stale_if_error);
    Ok(())
}

fn set_limits(account: &mut Account, target: &TargetArgs, limits: &LimitArgs) {
    if let Some(tier) = &limits.tier {
        account.tier = Some(tier.parse::<u32>().map_or_else(|_| Tier::from(tier.as_str()), Tier::from));
    }
    limits.amounts.over(&mut account.limits);
    shapes_over(&limits.shape, &mut account.limits);
    // What was typed holds for every model, also for those that the file knows better.
    for own in account.models.values_mut() {
        limits.amounts.over(own);
        shapes_over(&limits.shape, own);
    }
    let said = limits.tier.is_some() || limits.amounts.any() || limits.unlimited || target.api.config.is_some();
    if target.mock && !said {
        (account.limits.rpm, account.limits.tpm) = (Some(DEMONSTRATION.0), Some(DEMONSTRATION.1));
    }
}

/// Puts the keys themselves into the account, and returns them.
fn set_keys(account: &mut Account, target: &TargetArgs, from: &InputFrom) -> Result<Vec<Secret>> {
    let mut secrets = Vec::new();
    if target.api.api_key_env.is_none() && !account.keys.is_empty() {
        secrets = keys_of(account, from)?;
    } else {
        let variable = target.api.api_key_env.as_deref().unwrap_or(account.provider.key_env());
        match from_env(variable)? {
            Some(secret) => secrets.push(secret),
            None if target.api.api_key_env.is_none() && account.base_url.as_deref().is_some_and(is_loopback) => {
                account.keys = vec![Key::Value(NO_SECRET.into())];
                return Ok(secrets);
            }
            None => bail!(no_key(variable, from)),
        }
    }
    account.keys = secrets.iter().cloned().map(Key::Value).collect();
    Ok(secrets)
}

fn keys_of(account: &Account, from: &InputFrom) -> Result<Vec<Secret>> {
    let keys = account.keys.iter().map(|key| match key {
        Key::Value(secret) => Ok(secret.clone()),
        Key::Env(variable) => match from_env(variable)? {
            Some(secret) => Ok(secret),
            None => bail!(no_key(variable, from)),
        },
    });
    keys.collect()
}

fn from_env(variable: &str) -> Result<Option<Secret>> {
    let Some(key) = std::env::var_os(variable) else { return Ok(None) };
    let key = key.to_string_lossy().trim().to_owned();
    if key.chars().any(|c| c.is_control() || !c.is_ascii()) {
        bail!("{variable} holds characters that no API key has; check how it was set");
    }
    Ok((!key.is_empty()).then(|| key.into()))
}

fn no_key(variable: &str, from: &InputFrom) -> String {
    let file = from.file().map_or("-".to_owned(), |path| show::quoted(&path.to_string_lossy()));
    format!(
        "there is no API key: the environment variable {variable} is not set\n  \
         set it:             export {variable}=…\n  \
         or name another:    --api-key-env VARIABLE\n  \
         or try it without:  tollgate run {file} --mock"
    )
}

/// How many requests may be under way, given the file descriptors that there are: each connection takes one, and with
/// the mock in the same process two.
fn max_concurrent(typed: Option<u32>, mock: bool) -> (usize, Option<String>) {
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap_or(1024);
    let each = if mock { 2 } else { 1 };
    let possible = (files.saturating_sub(OTHER_FILES) / each).max(1);
    let (number, warning) = match typed.map(u64::from) {
        None => (possible.min(MOST_AT_ONCE / each), None),
        Some(typed) if typed <= possible => (typed, None),
        Some(typed) => {
            let text = format!(
                "--max-concurrent {typed} is more than the open files that the system allows; going on with {possible} \
                 (see ulimit -n)"
            );
            (possible, Some(text))
        }
    };
    (usize::try_from(number).unwrap_or(usize::MAX), warning)
}

/// The settings with the address of the first account, as a mock has it once it runs.
pub(crate) fn with_address(config: &Config, url: Option<String>) -> Config {
    let mut config = config.clone();
    if let (Some(url), Some(account)) = (url, config.accounts.first_mut()) {
        account.base_url = Some(url);
    }
    config
}

/// Opens nothing and sends nothing: a scheduler that is only asked for sizes and limits.
pub(crate) fn checker(config: &Config) -> Result<tollgate::Scheduler> {
    let config = Config { cache: None, watch: WatchConfig::default(), ..config.clone() };
    tollgate::Scheduler::from_config(config).context("the settings do not fit together")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_lie_beside_the_input() {
        for (input, results) in [
            ("requests.jsonl", "requests.results.jsonl"),
            ("a/b.c.jsonl", "a/b.c.results.jsonl"),
            ("plain", "plain.results.jsonl"),
        ] {
            assert_eq!(results_beside(Path::new(input)), Path::new(results));
        }
    }

    #[test]
    fn paths_are_read_with_and_without_version_and_slash() {
        for spelling in ["/v1/chat/completions", "v1/chat/completions", "/chat/completions", "chat/completions/"] {
            assert_eq!(path_of(spelling).unwrap(), "/chat/completions");
        }
        assert!(path_of("https://example.com/v1/x").is_err() && path_of("/").is_err() && path_of("").is_err());
    }
}
