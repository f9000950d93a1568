//! One attempt of a call, as the closure that makes it sees it.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{
    AtomicBool,
    Ordering::{Acquire, Release},
};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use http::HeaderMap;

use crate::clock;
use crate::cost::Usage;
use crate::engine::Moment;
use crate::providers::{self, Failure, Observation, Provider, Unfit};
use crate::secret::Secret;
use crate::target::Target;

/// Handed to the closure of [`Scheduler::submit`](crate::Scheduler::submit), once for each attempt: what to call with,
/// and where to put what came back. Cheap to clone.
///
/// Handing over is optional. Without it the limits still hold, but what was reserved and not used is not given back,
/// and a failed call is not repeated, since only status and body tell whether that can help. Closures that return a
/// `reqwest::Response` need none of it: the response is read for them.
///
/// ```
/// # async fn my_call() -> Result<(u16, http::HeaderMap, serde_json::Value), std::io::Error> {
/// #     Ok((200, http::HeaderMap::new(), serde_json::json!({"usage": {"prompt_tokens": 9, "completion_tokens": 3}})))
/// # }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scheduler = tollgate::Scheduler::builder().build()?;
/// # let body = serde_json::json!({"model": "gpt-4o", "messages": [], "max_tokens": 8});
/// let reply = scheduler
///     .submit(tollgate::Request::chat(&body), |attempt| async move {
///         let (status, headers, reply) = my_call().await?;
///         attempt.answer(status, &headers);
///         attempt.reply(&reply);
///         Ok::<_, std::io::Error>(reply)
///     })
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Attempt {
    number: u32,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    target: Target,
    /// A std mutex: held for a copy, never across an await.
    facts: Mutex<Facts>,
    /// Whether there are any, so that nobody locks where nothing is told.
    told: AtomicBool,
    /// The caller wants the answer's whole body and nothing before it.
    #[cfg(feature = "client")]
    whole: AtomicBool,
}

/// What is known about an attempt's answer. It is allocated once there is anything.
#[derive(Debug, Default)]
pub(crate) struct Facts(Option<Box<Told>>);

#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) status: Option<u16>,
    /// When the answer began.
    pub(crate) began: Option<Moment>,
    pub(crate) answer: Observation,
    pub(crate) error_body: Vec<u8>,
    pub(crate) usage: Option<Usage>,
    pub(crate) unusable: Option<String>,
    /// The call came to nothing before it was sent.
    pub(crate) unsent: bool,
    /// What a fallback's model did not get of the request, or why it cannot take it, so that nothing was sent.
    pub(crate) adapted: Option<Result<Vec<String>, Unfit>>,
}

impl Deref for Facts {
    type Target = Told;

    fn deref(&self) -> &Told {
        static NOTHING: LazyLock<Told> = LazyLock::new(Told::default);
        self.0.as_deref().unwrap_or(&NOTHING)
    }
}

impl DerefMut for Facts {
    fn deref_mut(&mut self) -> &mut Told {
        self.0.get_or_insert_default()
    }
}

impl Facts {
    #[cfg(feature = "client")]
    pub(crate) fn dropped(&mut self) -> Vec<String> {
        self.adapted.take().and_then(|adapted| adapted.ok()).unwrap_or_default()
    }
}

impl Attempt {
    #[inline]
    pub(crate) fn new(target: Target) -> Self {
        let inner = Inner {
            target,
            facts: Mutex::default(),
            told: AtomicBool::new(false),
            #[cfg(feature = "client")]
            whole: AtomicBool::new(false),
        };
        Self { number: 1, inner: Arc::new(inner) }
    }

    pub(crate) fn numbered(&mut self, number: u32) {
        self.number = number;
    }

    /// 1 for the first attempt.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Where it goes: the account, the model, the key.
    pub fn target(&self) -> &Target {
        &self.inner.target
    }

    /// The account's name.
    pub fn account(&self) -> &str {
        self.target().account()
    }

    /// The account's provider.
    pub fn provider(&self) -> Provider {
        self.target().provider()
    }

    /// The model to ask: the request's own, unless a fallback took over.
    pub fn model(&self) -> &str {
        self.target().model()
    }

    /// The API key whose turn it is, if the account has keys.
    pub fn key(&self) -> Option<&Secret> {
        self.target().key()
    }

    /// Where the account's API is, `/v1` included, if that is known.
    pub fn base_url(&self) -> Option<&str> {
        self.target().base_url()
    }

    /// The request's body as the attempt's model takes it: as it is, unless a fallback took over. On an error return from the
    /// closure with any error: nothing was sent, and the request goes elsewhere, if it can.
    ///
    /// # Errors
    /// When the model does not take it; see [`Fallback::unsupported`](crate::Fallback::unsupported).
    pub fn body(&self, body: &serde_json::Value) -> Result<serde_json::Value, Unfit> {
        let adapted = self.target().adapt(body);
        let known = adapted.as_ref().map(|adapted| adapted.dropped.clone()).map_err(Unfit::clone);
        self.lock().adapted = Some(known);
        adapted.map(|adapted| adapted.body)
    }

    /// Hands over status and headers of the answer, also of an error.
    pub fn answer(&self, status: u16, headers: &HeaderMap) {
        let answer = providers::observe(self.provider(), headers, clock::wall());
        let mut facts = self.lock();
        facts.status = Some(status);
        facts.began = facts.began.or_else(|| Some(clock::now()));
        facts.answer = answer;
    }

    /// Hands over the body of an error answer, which tells a limit from an empty account. Where the status is a success and
    /// [`is_error_body`](providers::is_error_body) says so, the attempt has failed all the same.
    pub fn error_body(&self, body: &[u8]) {
        self.lock().error_body = body.to_vec();
    }

    /// Says that the answer came and cannot be used, as a page of a gateway in place of JSON: the attempt has failed as one
    /// without an answer has, and is made again. `why` is part of the error if none mends it.
    pub fn unusable(&self, why: impl Into<String>) {
        self.lock().unusable = Some(why.into());
    }

    /// Says that nothing was sent: what was taken for the attempt is given back, and it tells nothing of the provider. The
    /// closure's result goes to the caller as it is, and the attempt is neither counted nor made again. Where a status was
    /// handed over something was sent, and this says nothing.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let scheduler = tollgate::Scheduler::builder().build()?;
    /// let call = |attempt: tollgate::Attempt| async move {
    ///     attempt.unsent(); // it is not needed any more
    ///     Ok::<_, std::io::Error>(None::<String>)
    /// };
    /// assert_eq!(scheduler.submit(tollgate::Request::tokens("gpt-4o", 400, 64), call).await?, None);
    /// assert_eq!(scheduler.lane_of("gpt-4o").status.in_flight, 0);
    /// # Ok(()) }
    /// ```
    pub fn unsent(&self) {
        self.lock().unsent = true;
    }

    /// Hands over what the call used.
    pub fn usage(&self, usage: Usage) {
        self.lock().usage = Some(usage);
    }

    /// Hands over the JSON of the answer, from which the usage is read. One that is an error in place of a result, as
    /// [`is_error_body`](providers::is_error_body) says, is taken as [`error_body`](Attempt::error_body).
    pub fn reply(&self, reply: &serde_json::Value) {
        if let Some(usage) = providers::usage_of(reply) {
            self.usage(usage);
        }
        if providers::is_error_reply(reply) {
            self.error_body(reply.to_string().as_bytes());
        }
    }

    /// The answer's body is read whole, whatever it is, before the attempt is judged.
    #[cfg(feature = "client")]
    pub(crate) fn read_whole(&self) {
        self.inner.whole.store(true, Release);
    }

    #[cfg(feature = "client")]
    pub(crate) fn is_read_whole(&self) -> bool {
        self.inner.whole.load(Acquire)
    }

    /// Hands over the status of an answer whose headers are gone.
    #[cfg(feature = "client")]
    pub(crate) fn status(&self, status: u16) {
        self.lock().status.get_or_insert(status);
    }

    pub(crate) fn take_facts(&self) -> Facts {
        if self.inner.told.load(Acquire) { std::mem::take(&mut *self.lock()) } else { Facts::default() }
    }

    /// To tell something.
    fn lock(&self) -> MutexGuard<'_, Facts> {
        self.inner.told.store(true, Release);
        self.inner.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the HTTP client says about a call that brought no answer.
#[cfg_attr(not(feature = "client"), expect(dead_code, reason = "only the client meets them"))]
#[derive(Clone, Debug)]
pub(crate) enum Transport {
    /// Nothing reached the provider.
    Unsent(String),
    /// It was sent, and the answer got lost.
    Lost(String),
}

impl Transport {
    pub(crate) fn failure(&self) -> Failure {
        let (Transport::Unsent(message) | Transport::Lost(message)) = self;
        Failure::unanswered(message.clone())
    }
}
