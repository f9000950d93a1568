//! Settings of what is watched.

#[cfg(feature = "client")]
use std::collections::BTreeMap;
use std::fmt;
#[cfg(feature = "client")]
use std::time::Duration;

use serde::Deserialize;

#[cfg(feature = "client")]
use crate::endpoint::Shown;
#[cfg(feature = "client")]
use crate::engine::seconds;
#[cfg(feature = "client")]
use crate::providers::Provider;

/// What is told besides what every [`Event`](crate::Event) callback is told, and to whom.
///
#[cfg_attr(feature = "client", doc = "```")]
#[cfg_attr(not(feature = "client"), doc = "```ignore")]
/// let config = tollgate::Config::from_toml(r#"
///     [watch]
///     queue_alert = 5_000     # tell when more requests wait in one lane
///
///     status_pages = true     # look at the status pages of the providers in use
///
///     [watch.webhook]         # post every event, signed
///     url = "https://example.com/hooks/tollgate"
///     secret_env = "TOLLGATE_WEBHOOK_SECRET"
/// "#)?;
/// assert_eq!(config.watch.queue_alert, Some(5_000));
/// # Ok::<(), tollgate::ConfigError>(())
/// ```
#[derive(Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchConfig {
    /// Requests waiting in one lane beyond which its queue is too long; see [`Event::QueueLong`](crate::Event::QueueLong).
    /// Default: no queue is.
    pub queue_alert: Option<usize>,
    /// Whether to look at the status pages of the providers that have an account (feature `client`), for
    /// [`Event::IncidentBegan`](crate::Event::IncidentBegan). OpenAI, Anthropic and Groq have one that programs can read. The
    /// scheduler must then be built inside a tokio runtime. Default: no.
    #[cfg(feature = "client")]
    pub status_pages: bool,
    /// How often, give or take a tenth. Default 60 s.
    #[cfg(feature = "client")]
    #[serde(with = "seconds")]
    pub status_interval: Duration,
    /// Other addresses of such pages, by provider. For servers of your own there is no page without one.
    #[cfg(feature = "client")]
    pub status_urls: BTreeMap<Provider, String>,
    /// Where events are posted (feature `client`). Default: nowhere.
    #[cfg(feature = "client")]
    pub webhook: Option<crate::webhook::WebhookConfig>,
}

/// Shows of the addresses what cannot be a secret.
impl fmt::Debug for WatchConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("WatchConfig");
        shown.field("queue_alert", &self.queue_alert);
        #[cfg(feature = "client")]
        {
            let urls: BTreeMap<_, _> = self.status_urls.iter().map(|(provider, url)| (provider, Shown(url))).collect();
            shown
                .field("status_pages", &self.status_pages)
                .field("status_interval", &self.status_interval)
                .field("status_urls", &urls)
                .field("webhook", &self.webhook);
        }
        shown.finish()
    }
}

#[cfg_attr(not(feature = "client"), expect(clippy::derivable_impls, reason = "the other fields are not all zero"))]
impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            queue_alert: None,
            #[cfg(feature = "client")]
            status_pages: false,
            #[cfg(feature = "client")]
            status_interval: Duration::from_secs(60),
            #[cfg(feature = "client")]
            status_urls: BTreeMap::new(),
            #[cfg(feature = "client")]
            webhook: None,
        }
    }
}
