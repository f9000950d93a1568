//! Settings in code, and the start of a scheduler.

#[cfg(feature = "client")]
use crate::config::Key;
use crate::config::{Account, Config, ConfigError};
use crate::engine::RetryPolicy;
use crate::event::{Event, Listener};
use crate::fallback::Fallback;
use crate::learned::Learned;
use crate::scheduler::Scheduler;
#[cfg(feature = "client")]
use crate::secret::Secret;
use crate::watch::WatchConfig;

/// Settings for a [`Scheduler`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Builder {
    pub(crate) config: Config,
    accounts: Vec<Account>,
    listener: Listener,
}

/// Settings from a file, to be completed in code. Accounts that are added replace those of the file.
impl From<Config> for Builder {
    fn from(config: Config) -> Self {
        Self { config, ..Self::default() }
    }
}

impl Builder {
    /// Adds an account. A request that names none goes by the first one, or by one of its
    /// [group](crate::Account::group) where it would start earlier.
    pub fn account(mut self, account: Account) -> Self {
        self.accounts.push(account);
        self
    }

    /// Adds a fallback chain for a model.
    pub fn fallback(mut self, chain: Fallback) -> Self {
        self.config.fallbacks.push(chain);
        self
    }

    /// How failed attempts are repeated.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.config.retry = policy;
        self
    }

    /// How many turns a tenant gets for one of the others; at least 1.
    pub fn tenant_weight(mut self, tenant: impl Into<String>, weight: u32) -> Self {
        self.config.tenants.insert(tenant.into(), weight);
        self
    }

    /// How many requests may wait in one lane.
    pub fn max_waiting(mut self, requests: usize) -> Self {
        self.config.max_waiting = requests;
        self
    }

    /// Is told what happens: keys and accounts that leave the rotation and return to it, providers that fail and are back,
    /// limits that turn out to be others or are nearly used up, and more. It is called at once, by whichever task noticed,
    /// and holds that task up, but nobody else. Several callbacks are told one after another; one that panics is reported by
    /// the panic hook, and all goes on.
    ///
    /// ```
    /// use tollgate::Scheduler;
    ///
    /// let scheduler = Scheduler::builder().on_event(|event| eprintln!("{event}")).build()?;
    /// # Ok::<(), tollgate::ConfigError>(())
    /// ```
    pub fn on_event(mut self, callback: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.listener.add(callback);
        self
    }

    /// What to watch beside that.
    pub fn watch(mut self, watch: WatchConfig) -> Self {
        self.config.watch = watch;
        self
    }

    /// Posts every event to `url` as JSON, signed with `secret` by HMAC-SHA256 as
    /// [Standard Webhooks](https://www.standardwebhooks.com) says. Events wait in a bounded queue and are sent again when
    /// the receiver does not take them; nothing else waits for that. [`Scheduler::flush_webhook`] waits at the end.
    ///
    /// ```
    /// use tollgate::Scheduler;
    ///
    /// let builder = Scheduler::builder().webhook("https://example.com/hooks/tollgate", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    /// # builder.build()?;
    /// # Ok::<(), tollgate::ConfigError>(())
    /// ```
    #[cfg(feature = "client")]
    pub fn webhook(mut self, url: impl Into<Secret>, secret: impl Into<Secret>) -> Self {
        let (url, secret) = (url.into(), Key::Value(secret.into()));
        self.config.watch.webhook = Some(crate::webhook::WebhookConfig { url, secret, retry: RetryPolicy::default() });
        self
    }

    /// Starts from what an earlier scheduler found out, see [`Scheduler::learned`].
    pub fn learned(mut self, learned: Learned) -> Self {
        self.config.learned = learned;
        self
    }

    /// Builds the scheduler. It blocks where the cache has a folder, whose file is read from end to end: build it before the
    /// runtime is busy, or by `tokio::task::spawn_blocking`.
    ///
    /// # Errors
    /// When the settings contradict each other or name what does not exist.
    pub fn build(self) -> Result<Scheduler, ConfigError> {
        let Self { mut config, accounts, listener } = self;
        if !accounts.is_empty() {
            config.accounts = accounts;
        }
        let config = config.bounded();
        config.validate()?;
        Scheduler::start(config, listener)
    }
}
