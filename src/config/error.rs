//! What is wrong with a configuration.

use std::path::PathBuf;

use thiserror::Error;

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
    /// A model is in two pools, so that nobody knows whose limits it shares.
    #[error("account {account}: {model} is in two pools; leave it in one of them")]
    TwoPools {
        /// Which account.
        account: String,
        /// Which model.
        model: String,
    },
    /// Two models share one limit and set it to different numbers.
    #[error(
        "account {account}: {model} and {other} share their limits, but set {limit} to different numbers; set it for one of them"
    )]
    TwoNumbers {
        /// Which account.
        account: String,
        /// Which model.
        model: String,
        /// The model or pool that it shares the limit with.
        other: String,
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
