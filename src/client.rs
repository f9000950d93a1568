//! The built-in client: chat, embeddings and responses of OpenAI-compatible APIs, by the scheduler's own attempts.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use serde_json::Value;
use thiserror::Error as ThisError;

use crate::attempt::Attempt;
use crate::config::{Config, ConfigError};
use crate::cost::Usage;
use crate::error::Error;
use crate::inspect;
use crate::providers::{self, Failure, Unfit};
use crate::request::Request;
use crate::scheduler::{Answered, Ended, Scheduler};
use crate::stream::ChatStream;
use crate::target::Target;

/// Why a call of the built-in client failed.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum ClientError {
    /// The account has no address, so nothing was sent.
    #[error("account {account} has no address; set its `base_url`, /v1 included")]
    NoAddress {
        /// The account's name.
        account: String,
    },
    /// The request could not be built, so nothing was sent.
    #[error("the request cannot be built; check the account's `base_url`")]
    Unbuilt(#[source] reqwest::Error),
    /// No answer came: the connection failed, broke or took too long.
    #[error("{}", inspect::what_broke(.0))]
    Transport(#[source] reqwest::Error),
    /// The provider answered with an error.
    #[error("{0}")]
    Status(Box<Failure>),
    /// The answer is not JSON.
    #[error("the provider's answer is not JSON")]
    Json(#[source] serde_json::Error),
    /// The answer is whole JSON where a stream was asked for.
    #[error("the answer is no stream; the body must say `\"stream\": true`, and the server must know it")]
    NoStream,
    /// A stream ended in the middle of an event.
    #[error("the stream ended in the middle of an event, so the answer is not whole; ask again")]
    StreamCut,
    /// A stream has an event that is longer than 16 MiB.
    #[error("the stream has an event of more than 16 MiB, which is not read; ask without `stream`")]
    EventTooLong,
}

/// A provider's answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Reply {
    /// The HTTP status; a success.
    pub status: u16,
    /// The body as it came.
    pub body: Bytes,
    /// What the call used, if the answer says so; for a cached answer, what the call used that brought it.
    pub usage: Option<Usage>,
    /// The provider's name for the call.
    pub request_id: Option<String>,
    /// Attempts it took; 0 for a cached answer.
    pub attempts: u32,
    /// Who answered: the account and the model. `None` for a cached answer of an earlier run, which is the model's own.
    pub target: Option<Target>,
    /// What a fallback's model did not get of the request, e.g. `logprobs`; see
    /// [`Fallback::unsupported`](crate::Fallback::unsupported).
    pub dropped: Vec<String>,
    pub(crate) cached: Option<Cached>,
}

/// Where an answer comes from that no call was made for (feature `cache`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cached {
    /// It was kept and is still good.
    Fresh,
    /// An identical request was under way, and this is its answer.
    Shared,
    /// It is old, and the provider fails.
    Stale,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn json(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// Where it comes from if no call was made for it; `None` for a call of its own.
    pub fn cached(&self) -> Option<Cached> {
        self.cached
    }

    /// The text of a chat completion's first choice.
    pub fn text(&self) -> Option<String> {
        let body = self.json().ok()?;
        Some(body.pointer("/choices/0/message/content")?.as_str()?.to_owned())
    }
}

/// The HTTP client of a scheduler. HTTP/1.1 on purpose: over HTTP/2 a burst of requests shares one connection and waits
/// there for its turn, so that requests reach the provider later than they were admitted.
#[derive(Debug)]
pub(crate) struct Http(reqwest::Client);

impl Http {
    pub(crate) fn new(config: &Config) -> Result<Self, ConfigError> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(config.connect_timeout)
            .read_timeout(config.byte_timeout)
            .timeout(config.timeout)
            .tcp_nodelay(true)
            // What is packed holds up a stream. What some gateway packs all the same is read.
            .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("identity"))]))
            .http1_only()
            .redirect(reqwest::redirect::Policy::none());
        let mut urls = config.accounts.iter().map(|account| account.base_url.as_deref());
        if urls.all(|url| url.is_some_and(is_loopback)) {
            builder = builder.no_proxy();
        }
        builder.build().map(Self).map_err(|error| ConfigError::Client(error.into()))
    }

    fn post(&self, attempt: &Attempt, path: &str, body: Bytes) -> reqwest::RequestBuilder {
        let body = match adapted(attempt, body) {
            Ok(body) => body,
            // No address: it fails before it is sent, and the attempt knows why.
            Err(_) => return self.0.post(""),
        };
        let url = below(attempt.base_url().unwrap_or_default(), path);
        let mut headers = attempt.provider().auth_headers(attempt.key());
        headers.extend(attempt.target().headers());
        self.0.post(url).header(CONTENT_TYPE, "application/json").headers(headers).body(body)
    }
}

/// The address of `path` below `base`. A query stays behind it: Azure's older addresses end in `?api-version=…`.
fn below(base: &str, path: &str) -> String {
    match base.split_once('?') {
        Some((base, query)) => format!("{}{path}?{query}", base.trim_end_matches('/')),
        None => format!("{base}{path}"),
    }
}

/// The body as the attempt's model takes it. The request's own model gets it as it is, byte for byte.
fn adapted(attempt: &Attempt, body: Bytes) -> Result<Bytes, Unfit> {
    if attempt.target().rank() == 0 {
        return Ok(body);
    }
    let body = attempt.body(&serde_json::from_slice(&body).unwrap_or_default())?;
    Ok(body.to_string().into())
}

pub(crate) fn is_loopback(url: &str) -> bool {
    let host = reqwest::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.is_some_and(|host| host == "localhost" || host == "[::1]" || host.starts_with("127."))
}

/// The built-in client (feature `client`).
impl Scheduler {
    /// A chat completion by the first account's group, or by a fallback.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tollgate::{Account, Scheduler};
    ///
    /// let scheduler = Scheduler::builder().account(Account::openai().key_from_env("OPENAI_API_KEY").tier(1)).build()?;
    /// let body = serde_json::json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64});
    /// let reply = scheduler.chat(&body).await?;
    /// println!("{}", reply.text().unwrap_or_default());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// When the request was not sent, or failed for good; see [`Error`].
    ///
    /// # Cancel safety
    /// As [`Scheduler::submit`].
    pub async fn chat<B: Serialize + ?Sized>(&self, body: &B) -> Result<Reply, Error<ClientError>> {
        self.send(Request::chat(body), "/chat/completions", bytes_of(body)).await
    }

    /// Embeddings, likewise. Errors and cancel safety as [`Scheduler::chat`].
    pub async fn embeddings<B: Serialize + ?Sized>(&self, body: &B) -> Result<Reply, Error<ClientError>> {
        self.send(Request::embeddings(body), "/embeddings", bytes_of(body)).await
    }

    /// A call of the Responses API, likewise. Errors and cancel safety as [`Scheduler::chat`].
    pub async fn responses<B: Serialize + ?Sized>(&self, body: &B) -> Result<Reply, Error<ClientError>> {
        self.send(Request::responses(body), "/responses", bytes_of(body)).await
    }

    /// Sends `body` as it is to `path` below the account's base URL. The request says how large and how urgent it is; the
    /// ways above are short for this one.
    ///
    /// Errors and cancel safety as [`Scheduler::chat`].
    pub async fn send(
        &self,
        request: Request,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Reply, Error<ClientError>> {
        let body = body.into();
        #[cfg(feature = "cache")]
        if self.cache().is_some() {
            return self.send_through_cache(request, path, body).await;
        }
        self.fetch(request, path, body, |_| ()).await
    }

    /// Makes the call. `sent` is told when an attempt begins.
    pub(crate) async fn fetch(
        &self,
        request: Request,
        path: &str,
        body: Bytes,
        sent: impl Fn(&Attempt),
    ) -> Result<Reply, Error<ClientError>> {
        let sent = |attempt: &Attempt| {
            attempt.read_whole();
            sent(attempt);
        };
        let answered = self.make(request, path, body, sent).await?;
        let Answered { value, permit, mut facts, attempts } = answered;
        let target = permit.target();
        let status = value.status().as_u16();
        let transport = |error: reqwest::Error| Error::Call {
            error: ClientError::Transport(error.without_url()),
            attempts,
            failure: None,
        };
        // Of a very long one the end is still to come.
        let body = value.bytes().await.map_err(transport)?;
        permit.answered(facts.usage, &facts.answer);
        let request_id = facts.answer.request_id.take().map(|id| providers::hide(&id, target.key()));
        let (usage, dropped) = (facts.usage, facts.dropped());
        Ok(Reply { status, body, usage, request_id, attempts, target: Some(target), dropped, cached: None })
    }

    /// A chat completion that arrives in pieces. `body` must say `"stream": true`; it is sent as it is.
    ///
    /// # Errors
    /// As [`Scheduler::chat`], until the stream has begun.
    ///
    /// # Cancel safety
    /// As [`Scheduler::submit`].
    pub async fn chat_stream<B: Serialize + ?Sized>(&self, body: &B) -> Result<ChatStream, Error<ClientError>> {
        let answered = self.make(Request::chat(body), "/chat/completions", bytes_of(body).into(), |_| ()).await?;
        let Answered { value, permit, facts, attempts } = answered;
        if inspect::is_json(&value) {
            permit.answered(facts.usage, &facts.answer);
            return Err(Error::Call { error: ClientError::NoStream, attempts, failure: None });
        }
        Ok(ChatStream::new(value, permit, facts))
    }

    /// The HTTP request that the built-in client makes for `attempt`: `body` as it is, or as a fallback's model takes it, to
    /// `path` below the account's base URL, with the key in the provider's own header and the account's
    /// [`headers`](crate::Account::headers). For a [`submit`](Scheduler::submit) closure that wants to do something before each
    /// attempt, or to add headers of its own. For an account without an address sending it is an error, and nothing is sent.
    ///
    /// ```no_run
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tollgate::{Request, Scheduler};
    ///
    /// let scheduler = Scheduler::builder().build()?;
    /// let body = serde_json::json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64});
    /// let response = scheduler
    ///     .submit(Request::chat(&body), |attempt| {
    ///         println!("attempt {}", attempt.number());
    ///         scheduler.post(&attempt, "/chat/completions", body.to_string()).header("x-team", "search").send()
    ///     })
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn post(&self, attempt: &Attempt, path: &str, body: impl Into<Bytes>) -> reqwest::RequestBuilder {
        self.http().post(attempt, path, body.into())
    }

    async fn make(
        &self,
        request: Request,
        path: &str,
        body: Bytes,
        sent: impl Fn(&Attempt),
    ) -> Result<Answered<reqwest::Response>, Error<ClientError>> {
        let mut without_address = None;
        let call = |attempt: Attempt| {
            sent(&attempt);
            without_address = attempt.base_url().is_none().then(|| attempt.account().to_owned());
            self.http().post(&attempt, path, body.clone()).send()
        };
        match self.run(&request, call).await {
            Ended::Answered(answered) => Ok(answered),
            Ended::ErrorAnswer { failure, attempts, .. } => {
                Err(Error::Call { error: ClientError::Status(failure.clone()), attempts, failure: Some(failure) })
            }
            Ended::Failed(Error::Refused { reason, attempts, last }) => Err(Error::Refused { reason, attempts, last }),
            Ended::Failed(Error::Shared { failure, attempts }) => Err(Error::Shared { failure, attempts }),
            Ended::Failed(Error::Call { error, attempts, failure }) => {
                let error = error.without_url();
                let error = match without_address {
                    Some(account) => ClientError::NoAddress { account },
                    None if error.is_builder() => ClientError::Unbuilt(error),
                    None => ClientError::Transport(error),
                };
                Err(Error::Call { error, attempts, failure })
            }
        }
    }
}

/// What cannot be turned into JSON is refused before it is sent, by the request made from the same body.
fn bytes_of<B: Serialize + ?Sized>(body: &B) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}
