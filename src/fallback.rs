//! Settings of a fallback chain: who answers instead of a model, and when.

use std::time::Duration;

use serde::Deserialize;

use crate::engine::seconds;
use crate::providers::Unsupported;

/// Who answers instead of a model when that is out of use, failing or late.
///
/// A request goes to the first of its routes unless it would start there too late for its
/// [patience](crate::Request::max_wait), or later than on another one by more than the margin. After a failure that is the
/// provider's (an overload, an error, no answer) the margin does not count. A request that names an account has no
/// fallback.
///
/// In a file:
///
/// ```
/// let config = tollgate::Config::from_toml(r#"
///     [[account]]
///     provider = "openai"
///
///     [[account]]
///     provider = "anthropic"
///
///     [[fallback]]
///     model = "gpt-4o"                     # and its snapshots
///     margin = 10                          # seconds
///     unsupported = "drop"                 # parameters that the other model does not take; default: "error"
///     routes = [{ account = "anthropic", model = "claude-sonnet-4-6", context = 200_000 }]
/// "#)?;
/// assert_eq!(config.fallbacks[0].routes[0].model, "claude-sonnet-4-6");
/// # Ok::<(), tollgate::ConfigError>(())
/// ```
///
/// In code:
///
/// ```
/// use std::time::Duration;
/// use tollgate::{Account, Fallback, Provider, Scheduler};
///
/// let scheduler = Scheduler::builder()
///     .account(Account::openai().tier(2))
///     .account(Account::new(Provider::Anthropic))
///     .account(Account::new(Provider::Mistral))
///     .fallback(
///         Fallback::of("gpt-4o")
///             .to("anthropic", "claude-sonnet-4-6")
///             .to("mistral", "mistral-large-latest")
///             .margin(Duration::from_secs(10)),
///     )
///     .build()?;
/// # Ok::<(), tollgate::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Fallback {
    /// The model that requests name, or its pool.
    pub model: String,
    /// How much earlier a route must start than the ones before it. Default 5 s.
    #[serde(default = "margin", with = "seconds")]
    pub margin: Duration,
    /// What to do with parameters that the other model does not take. Default: it does not answer the request.
    #[serde(default)]
    pub unsupported: Unsupported,
    /// Who answers, the best first.
    pub routes: Vec<FallbackRoute>,
}

/// One route of a [`Fallback`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FallbackRoute {
    /// The name of an account or of a group.
    pub account: String,
    /// The model.
    pub model: String,
    /// Tokens that the model can take, input and output cap together. Larger requests do not go there. Default: not known.
    #[serde(default)]
    pub context: Option<u64>,
    /// The most output tokens that the model gives. Default: not known.
    #[serde(default)]
    pub max_output: Option<u64>,
    /// What the model does not take besides what its provider does not: names of parameters, or of contents (`images`,
    /// `audio`, `files`).
    #[serde(default)]
    pub lacks: Vec<String>,
}

fn margin() -> Duration {
    Duration::from_secs(5)
}

impl Fallback {
    /// A chain for `model`, without routes.
    pub fn of(model: impl Into<String>) -> Self {
        Self { model: model.into(), margin: margin(), unsupported: Unsupported::default(), routes: Vec::new() }
    }

    /// Adds a route: an account or a group by its name, and the model there.
    #[must_use]
    pub fn to(self, account: impl Into<String>, model: impl Into<String>) -> Self {
        self.route(FallbackRoute { account: account.into(), model: model.into(), ..FallbackRoute::default() })
    }

    /// Adds a route of which more is known.
    #[must_use]
    pub fn route(mut self, route: FallbackRoute) -> Self {
        self.routes.push(route);
        self
    }

    /// How much earlier a route must start than the ones before it.
    #[must_use]
    pub fn margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }

    /// What to do with parameters that the other model does not take.
    #[must_use]
    pub fn unsupported(mut self, choice: Unsupported) -> Self {
        self.unsupported = choice;
        self
    }
}
