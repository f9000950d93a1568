//! Where an attempt goes.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use crate::clock;
use crate::engine::Member;
use crate::providers::{self, Failure, Provider, Retirement, Scope};
use crate::secret::Secret;

/// Where one attempt goes, and so who answers it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Target {
    /// The account's provider.
    pub provider: Provider,
    /// The account's name.
    pub account: Arc<str>,
    /// The model to ask: the request's own, unless a fallback took over.
    pub model: Cow<'static, str>,
    /// Where the account's API is, `/v1` included, if that is known.
    pub base_url: Option<Arc<str>>,
    /// The API key to use, if the account has keys.
    pub key: Option<Secret>,
    /// 0 for the accounts that serve the model itself, then the fallbacks one after another.
    pub rank: usize,
    /// The key's position in its account.
    pub(crate) key_index: Option<usize>,
}

impl Target {
    /// What a permit shows before it was told.
    pub(crate) fn unknown() -> &'static Arc<Self> {
        static UNKNOWN: LazyLock<Arc<Target>> = LazyLock::new(|| {
            Arc::new(Target {
                provider: Provider::default(),
                account: "".into(),
                model: Cow::Borrowed(""),
                base_url: None,
                key: None,
                rank: 0,
                key_index: None,
            })
        });
        &UNKNOWN
    }

    /// Who of its account is of no use after a call there failed like that, and for how long.
    pub(crate) fn retired_by(&self, failure: &Failure) -> Option<(Member, Option<Duration>)> {
        let Retirement { scope, back_in } = providers::retirement(failure, clock::wall())?;
        let member = match scope {
            Scope::Account => Member::Account,
            // Without, the call brought a key of its own, which says nothing about the account.
            Scope::Key => Member::Key(self.key_index?),
        };
        Some((member, back_in))
    }
}
