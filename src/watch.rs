//! Settings of what is watched.

use serde::Deserialize;

/// What is told besides what every [`Event`](crate::Event) callback is told, and to whom.
///
#[cfg_attr(feature = "client", doc = "```")]
#[cfg_attr(not(feature = "client"), doc = "```ignore")]
/// let config = tollgate::Config::from_toml(r#"
///     [watch]
///     queue_alert = 5_000     # tell when more requests wait in one lane
///
///     [watch.webhook]         # post every event, signed
///     url = "https://example.com/hooks/tollgate"
///     secret_env = "TOLLGATE_WEBHOOK_SECRET"
/// "#)?;
/// assert_eq!(config.watch.queue_alert, Some(5_000));
/// # Ok::<(), tollgate::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WatchConfig {
    /// Requests waiting in one lane beyond which its queue is too long; see [`Event::QueueLong`](crate::Event::QueueLong).
    /// Default: no queue is.
    pub queue_alert: Option<usize>,
    /// Where events are posted (feature `client`). Default: nowhere.
    #[cfg(feature = "client")]
    pub webhook: Option<crate::webhook::WebhookConfig>,
}
