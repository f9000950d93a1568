//! Where an attempt goes.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::clock;
use crate::config::Account;
use crate::engine::Member;
use crate::fallback::FallbackRoute;
use crate::lane::Lane;
use crate::providers::{self, Adapted, Failure, Provider, Retirement, Scope, Taker, Unfit, Unsupported};
use crate::secret::Secret;

/// Where one attempt goes, and so who answers it.
#[derive(Clone)]
pub struct Target {
    lane: Arc<Lane>,
    model: Model,
    key: Option<usize>,
}

/// The model that an attempt asks.
#[derive(Clone, Debug)]
pub(crate) enum Model {
    /// The request's own.
    Own(Cow<'static, str>),
    /// That of a fallback.
    Other(Arc<Step>),
}

/// A step of a fallback chain.
#[derive(Debug)]
pub(crate) struct Step {
    /// Its place in the chain, from 1.
    pub(crate) rank: usize,
    pub(crate) route: FallbackRoute,
    pub(crate) unsupported: Unsupported,
}

impl Model {
    pub(crate) fn name(&self) -> &str {
        match self {
            Model::Own(name) => name,
            Model::Other(step) => &step.route.model,
        }
    }

    pub(crate) fn rank(&self) -> usize {
        match self {
            Model::Own(_) => 0,
            Model::Other(step) => step.rank,
        }
    }
}

impl Target {
    #[inline]
    pub(crate) fn new(lane: Arc<Lane>, model: Model, key: Option<usize>) -> Self {
        Self { lane, model, key }
    }

    pub(crate) fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    fn settings(&self) -> &Account {
        &self.lane.account.settings
    }

    /// What the account's calls bring along besides the key.
    #[cfg(feature = "client")]
    pub(crate) fn headers(&self) -> http::HeaderMap {
        self.settings().headers()
    }

    /// The account's provider.
    pub fn provider(&self) -> Provider {
        self.settings().provider
    }

    /// The account's name.
    pub fn account(&self) -> &str {
        self.settings().name()
    }

    /// Where the account's API is, `/v1` included and without a slash at the end, if that is known.
    pub fn base_url(&self) -> Option<&str> {
        self.settings().address()
    }

    /// The API key to use, if the account has keys.
    pub fn key(&self) -> Option<&Secret> {
        self.lane.account.keys().get(self.key?)
    }

    /// The model to ask: the request's own, unless a fallback took over.
    pub fn model(&self) -> &str {
        self.model.name()
    }

    /// 0 for the accounts that serve the model itself, then the fallbacks one after another.
    pub fn rank(&self) -> usize {
        self.model.rank()
    }

    /// A request's body as the target's model takes it: as it is, unless a fallback took over; see [`providers::adapt`].
    ///
    /// # Errors
    /// When the model does not take it.
    pub fn adapt(&self, body: &Value) -> Result<Adapted, Unfit> {
        match &self.model {
            Model::Own(_) => Ok(Adapted::unchanged(body)),
            Model::Other(step) => {
                let FallbackRoute { model, max_output, lacks, .. } = &step.route;
                let taker = Taker { provider: self.provider(), model, max_output: *max_output, lacks };
                providers::adapt(body, &taker, step.unsupported)
            }
        }
    }

    /// Who of its account is of no use after a call there failed like that, and for how long.
    pub(crate) fn retired_by(&self, failure: &Failure) -> Option<(Member, Option<Duration>)> {
        let Retirement { scope, back_in } = providers::retirement(failure, clock::wall())?;
        let member = match scope {
            Scope::Account => Member::Account,
            // A call that used a key of its own says nothing about the account's.
            Scope::Key => Member::Key(self.key?),
        };
        Some((member, back_in))
    }

    /// Takes the key or the account out, if that is what the failure says.
    pub(crate) fn heard(&self, failure: &Failure) {
        if let Some((member, back_in)) = self.retired_by(failure) {
            self.lane.account.retire(member, failure, back_in);
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lane: _, model: _, key } = self;
        f.debug_struct("Target")
            .field("account", &self.account())
            .field("model", &self.model())
            .field("rank", &self.rank())
            .field("key", key)
            .finish_non_exhaustive()
    }
}
