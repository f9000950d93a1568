//! Events to an address of the user's, signed as [Standard Webhooks](https://www.standardwebhooks.com) says.
//!
//! Whoever tells an event puts it into a bounded queue and goes on. A task that lives while there is something to send takes
//! them out one after another, so that the receiver sees them in their order.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use serde::{Deserialize, Deserializer, Serialize};
use sha2::Sha256;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use crate::client::is_loopback;
use crate::clock;
use crate::config::{ConfigError, Key};
use crate::engine::RetryPolicy;
use crate::event::Event;
use crate::scheduler::Scheduler;
use crate::secret::Secret;

/// Events that may wait for a receiver that is slow or away. Each has about half a kilobyte.
const MOST_WAITING: usize = 1_000;
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where events are posted; see [`Builder::webhook`](crate::Builder::webhook). In files:
///
/// ```toml
/// [watch.webhook]
/// url = "https://example.com/hooks/tollgate"
/// secret_env = "TOLLGATE_WEBHOOK_SECRET"     # the variable that holds the secret
/// retry = { max_attempts = 6 }               # as for requests
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// The address. Some hold a token, so it is shown as little as a key.
    pub url: Secret,
    /// What the receiver tells us by: `whsec_` and base64, or any other text, whose bytes are taken.
    #[serde(rename = "secret_env", deserialize_with = "variable")]
    pub secret: Key,
    /// How an event is sent again that the receiver did not take. Any answer but 2xx is a failure, and 410 ends the
    /// attempts. Default: as for requests.
    #[serde(default)]
    pub retry: RetryPolicy,
}

fn variable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
    String::deserialize(deserializer).map(Key::Env)
}

/// What became of the events so far; see [`Scheduler::flush_webhook`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct WebhookStats {
    /// The receiver took them.
    pub delivered: u64,
    /// Given up after the last attempt.
    pub failed: u64,
    /// Never sent: too many waited, and these were the oldest.
    pub dropped: u64,
    /// Not yet sent.
    pub waiting: u64,
}

/// The way to the receiver, shared.
#[derive(Clone)]
pub(crate) struct Webhook(Arc<Shared>);

struct Shared {
    url: Url,
    mac: Hmac<Sha256>,
    http: Client,
    retry: RetryPolicy,
    /// A std mutex: held for a push or a look, never across an await.
    state: Mutex<State>,
    /// The queue has become empty.
    emptied: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Message>,
    /// A task sends the front of the queue.
    sending: bool,
    stats: WebhookStats,
}

#[derive(Clone)]
struct Message {
    /// The same for every attempt, so that the receiver can tell repetitions.
    id: String,
    body: Bytes,
}

#[derive(Serialize)]
struct Payload<'a> {
    id: &'a str,
    timestamp: String,
    message: String,
    #[serde(flatten)]
    event: &'a Event,
}

impl Webhook {
    pub(crate) fn new(config: &WebhookConfig) -> Result<Self, ConfigError> {
        let WebhookConfig { url, secret, retry } = config;
        let unusable = |problem| ConfigError::Watch { problem };
        let url = Url::parse(url.expose().trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or(unusable("the webhook's url is no address that begins with http:// or https://"))?;
        let secret = match secret {
            Key::Value(secret) => secret.clone(),
            Key::Env(variable) => std::env::var(variable)
                .map(Secret::from)
                .map_err(|_| ConfigError::MissingWebhookSecret { variable: variable.clone() })?,
        };
        let key = match secret.expose().trim().strip_prefix("whsec_") {
            Some(encoded) => BASE64_STANDARD
                .decode(encoded)
                .map_err(|_| unusable("the webhook's secret is not base64 after whsec_; copy it again"))?,
            None => secret.expose().trim().as_bytes().to_vec(),
        };
        if key.is_empty() {
            return Err(unusable("the webhook's secret is empty; make one with `openssl rand -base64 32`"));
        }
        if retry.max_attempts == 0 {
            return Err(unusable("the webhook's retry.max_attempts is 0, which sends nothing; 1 means no retries"));
        }
        let failed = |error: reqwest::Error| ConfigError::Client(error.without_url().into());
        let http = Client::builder()
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .timeout(PATIENCE)
            // The signature is for this receiver only.
            .redirect(Policy::none());
        let http = if is_loopback(url.as_str()) { http.no_proxy() } else { http };
        Ok(Self(Arc::new(Shared {
            url,
            mac: Hmac::new_from_slice(&key).map_err(|_| unusable("the webhook's secret cannot be used"))?,
            http: http.build().map_err(failed)?,
            retry: *retry,
            state: Mutex::default(),
            emptied: Notify::new(),
        })))
    }

    /// Puts an event into the queue; never waits.
    pub(crate) fn push(&self, event: &Event) {
        let id = format!("msg_{:032x}", fastrand::u128(..));
        let timestamp = Timestamp::try_from(clock::wall()).unwrap_or_default().to_string();
        let payload = Payload { id: &id, timestamp, message: event.to_string(), event };
        // Plain data always becomes JSON.
        let body = serde_json::to_vec(&payload).unwrap_or_default().into();
        let mut state = self.lock();
        if state.queue.len() >= MOST_WAITING {
            // The one that is being sent is on its way.
            let oldest = usize::from(state.sending);
            state.queue.remove(oldest);
            state.stats.dropped += 1;
        }
        state.queue.push_back(Message { id, body });
        drop(state);
        self.start();
    }

    /// Starts to send, if there is a runtime to do it on; otherwise whoever comes next does.
    fn start(&self) {
        let Ok(runtime) = Handle::try_current() else { return };
        let mut state = self.lock();
        if !state.queue.is_empty() && !std::mem::replace(&mut state.sending, true) {
            drop(state);
            runtime.spawn(Sender { webhook: self.clone(), done: false }.run());
        }
    }

    async fn flush(&self, within: Duration) -> WebhookStats {
        self.start();
        let emptied = async {
            loop {
                let emptied = self.0.emptied.notified();
                tokio::pin!(emptied);
                emptied.as_mut().enable();
                if self.lock().queue.is_empty() {
                    return;
                }
                emptied.await;
            }
        };
        // Late or not, the figures tell.
        drop(tokio::time::timeout(within, emptied).await);
        let state = self.lock();
        WebhookStats { waiting: state.queue.len() as u64, ..state.stats }
    }

    /// Whether the receiver took it, after as many attempts as it may have.
    async fn deliver(&self, message: &Message) -> bool {
        let mut pauses = self.0.retry.backoff(fastrand::u64(..));
        loop {
            match self.attempt(message).await {
                Some(status) if status.is_success() => return true,
                Some(StatusCode::GONE) => return false,
                _ => {}
            }
            let Some(pause) = pauses.next() else { return false };
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, Message { id, body }: &Message) -> Option<StatusCode> {
        let timestamp = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let request = self
            .0
            .http
            .post(self.0.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature(self.0.mac.clone(), id, timestamp, body))
            .body(body.clone());
        request.send().await.ok().map(|response| response.status())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn signature(mut mac: Hmac<Sha256>, id: &str, timestamp: u64, body: &[u8]) -> String {
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

/// Shows neither address nor secret.
impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Webhook")
    }
}

/// The task that sends. It goes with its runtime; what it was sending is then still at the front.
struct Sender {
    webhook: Webhook,
    /// It ended because there is nothing to send any more.
    done: bool,
}

impl Sender {
    async fn run(mut self) {
        while let Some(message) = self.next() {
            let taken = self.webhook.deliver(&message).await;
            let mut state = self.webhook.lock();
            state.queue.pop_front();
            *(if taken { &mut state.stats.delivered } else { &mut state.stats.failed }) += 1;
        }
    }

    /// What is to be sent next; if there is nothing, whoever pushes next starts another task.
    fn next(&mut self) -> Option<Message> {
        let mut state = self.webhook.lock();
        let front = state.queue.front().cloned();
        if front.is_none() {
            (state.sending, self.done) = (false, true);
            drop(state);
            self.webhook.0.emptied.notify_waiters();
        }
        front
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.done {
            self.webhook.lock().sending = false;
        }
    }
}

/// The webhook (feature `client`).
impl Scheduler {
    /// Waits until every event so far was posted or given up, but no longer than `within`; for the end of a program. Returns
    /// what became of them, all zero without a webhook.
    ///
    /// # Cancel safety
    /// Dropping the future stops the waiting; the events are posted all the same while the runtime lives.
    pub async fn flush_webhook(&self, within: Duration) -> WebhookStats {
        match self.webhook() {
            Some(webhook) => webhook.flush(within).await,
            None => WebhookStats::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_standard() {
        // The example of the reference implementations.
        let key = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let mac = Hmac::new_from_slice(&key).unwrap();
        let body = br#"{"test": 2432232314}"#;
        let signed = signature(mac, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn of_too_many_events_the_oldest_are_dropped_and_counted() {
        let (url, secret) = ("http://127.0.0.1:9/".into(), Key::Value("secret".into()));
        let webhook = Webhook::new(&WebhookConfig { url, secret, retry: RetryPolicy::default() }).unwrap();
        // Nothing is sent where there is no runtime.
        for key in 0..MOST_WAITING + 5 {
            webhook.push(&Event::KeyReturned { account: "a".to_owned(), key });
        }
        let state = webhook.lock();
        assert_eq!((state.queue.len(), state.stats.dropped, state.sending), (MOST_WAITING, 5, false));
        let first: serde_json::Value = serde_json::from_slice(&state.queue[0].body).unwrap();
        assert_eq!(first["data"]["key"], 5);
    }
}
