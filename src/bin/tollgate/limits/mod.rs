//! `tollgate limits`: what is known about each lane, from the settings, the tier table, earlier runs and, if asked for, one
//! answer of the provider.

mod args;
mod ask;
mod overview;

use anyhow::{Context, Result, bail};
use tollgate::{Account, Config, Key, Learned, Limits, Scheduler, Secret, WatchConfig, providers};

use self::ask::Answer;
use self::overview::Overview;
use crate::args::shapes_over;
use crate::run::NO_SECRET;
use crate::target::{address, is_loopback, key};
use crate::{Exit, show};

pub(crate) use self::args::LimitsArgs;

pub(crate) async fn run(args: LimitsArgs) -> Result<Exit> {
    let (config, secret) = settings(&args)?;
    let mut overview = Overview::default();
    for (index, account) in config.accounts.iter().enumerate() {
        // Alone, an account answers for each of its lanes, and nobody else for them. To look at it takes no webhook's secret.
        let (accounts, watch) = (vec![account.clone()], WatchConfig::default());
        let alone = Config { accounts, fallbacks: Vec::new(), cache: None, watch, ..config.clone() };
        let scheduler = Scheduler::from_config(alone.clone()).context("the settings do not fit together")?;
        let unlearned = Scheduler::from_config(Config { learned: Learned::default(), ..alone })?;
        let asked = if index == 0 && args.probe { args.model.as_slice() } else { &[] };
        for model in models(account, &args.model, &config) {
            let before = unlearned.lane_of(&model);
            if overview.has(&before) {
                continue;
            }
            let answer = match asked.contains(&model) {
                true => Some(ask::ask(&scheduler, account, &model).await?),
                false => None,
            };
            overview.add(&scheduler.lane_of(&model), &before, answer.as_ref());
            overview.answers.extend(answer);
        }
    }
    print(&overview, &args, secret.as_ref())?;
    Ok(if overview.answers.iter().any(Answer::failed) { Exit::Failed } else { Exit::Done })
}

/// The scheduler's settings, with what was typed written over the first account, and the key that a probe shows.
fn settings(args: &LimitsArgs) -> Result<(Config, Option<Secret>)> {
    let mut config = match &args.api.config {
        Some(file) => Config::from_file(file)?,
        None => Config::default(),
    };
    config.cache = None;
    config.timeout = args.timeout;
    // A refusal tells as much as an answer, and each costs.
    config.retry.max_attempts = 1;
    if let Some(file) = args.learned.as_ref().or(config.learned_file.as_ref()) {
        if args.learned.is_some() && !file.exists() {
            bail!("there is no file {}; `tollgate run --learned` makes it", file.display());
        }
        config.learned = Learned::load(file)?;
    }
    let Some(account) = config.accounts.first_mut() else {
        bail!("the configuration has no account; add an [[account]]");
    };
    // Without a probe nobody is called.
    if let Err(problem) = address(account, &args.api)
        && (args.probe || args.api.base_url.is_some())
    {
        bail!(problem);
    }
    if let Some(tier) = &args.tier {
        account.tier = Some(tier.parse::<u32>().map_or_else(|_| tier.as_str().into(), Into::into));
    }
    for limits in account.models.values_mut().chain([&mut account.limits]) {
        args.amounts.over(limits);
        shapes_over(&args.shape, limits);
    }
    let (key, from) = key(account, args.api.api_key_env.as_deref());
    let local = account.base_url.as_deref().is_some_and(is_loopback);
    let key = key.or_else(|| local.then(|| NO_SECRET.into()));
    if args.probe && key.is_none() {
        bail!("--probe needs an API key: the environment variable {from} is not set; export {from}=…");
    }
    // Only a probe needs a key, and there is one account that is probed.
    config.accounts.iter_mut().for_each(|account| account.keys.clear());
    config.accounts[0].keys.extend(key.clone().map(Key::Value));
    Ok((config, key))
}

/// The models whose lanes are looked at: those that were typed; or those that the settings and earlier runs name; or all of
/// the tier; or any.
fn models(account: &Account, typed: &[String], config: &Config) -> Vec<String> {
    if !typed.is_empty() {
        return typed.to_vec();
    }
    let name = account.name.as_deref().unwrap_or(account.provider.name());
    let learned = config.learned.accounts.get(name).into_iter().flat_map(|pools| pools.keys());
    let members = account.pools.values().filter_map(|models| models.first());
    let routes = config.fallbacks.iter().flat_map(|chain| &chain.routes);
    let routes = routes.filter(|route| route.account == name).map(|route| &route.model);
    let named: Vec<_> = members.chain(account.models.keys()).chain(learned).chain(routes).cloned().collect();
    if !named.is_empty() {
        return named;
    }
    let tier = account.tier.as_ref().map(|tier| providers::models(account.provider, tier.name())).unwrap_or_default();
    match tier.is_empty() {
        true if account.limits != Limits::default() => vec![overview::ANY.to_owned()],
        _ => tier.into_iter().map(str::to_owned).collect(),
    }
}

fn print(overview: &Overview, args: &LimitsArgs, secret: Option<&Secret>) -> Result<()> {
    let text = if args.json { serde_json::to_string_pretty(overview)? } else { overview.to_string() };
    show::out(&show::without(text.trim_end(), secret));
    Ok(())
}
