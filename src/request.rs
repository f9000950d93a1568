//! What the scheduler is told about a request: its cost, and how it wants to wait.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;

use crate::clock;
use crate::cost::Estimate;
use crate::engine::{Moment, Priority, Tenant};
use crate::tokens::Prompt;

/// A request to be scheduled: which model, how large, how urgent. It describes the call and does not change it.
///
/// ```
/// use std::time::Duration;
/// use tollgate::{Priority, Request};
///
/// let body = serde_json::json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64});
/// let request = Request::chat(&body).tenant("search").priority(Priority::High).max_wait(Duration::from_secs(30));
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Request {
    pub(crate) model: Cow<'static, str>,
    pub(crate) size: Size,
    pub(crate) account: Option<Arc<str>>,
    pub(crate) tenant: Tenant,
    pub(crate) tag: Option<Arc<str>>,
    pub(crate) priority: Priority,
    pub(crate) deadline: Option<Moment>,
    pub(crate) max_wait: Option<Duration>,
    pub(crate) affinity: Option<Arc<str>>,
    pub(crate) affinity_within: Duration,
}

/// How large a request is.
#[derive(Clone, Debug)]
pub(crate) enum Size {
    Known(Estimate),
    /// Texts that are still to be counted.
    Prompt(Arc<Prompt>),
    /// The body could not be turned into JSON.
    Unreadable(Arc<serde_json::Error>),
}

impl Request {
    /// A request for `model` whose cost is known.
    pub fn new(model: impl Into<Cow<'static, str>>, estimate: Estimate) -> Self {
        Self {
            model: model.into(),
            size: Size::Known(estimate),
            account: None,
            tenant: Tenant::default(),
            tag: None,
            priority: Priority::default(),
            deadline: None,
            max_wait: None,
            affinity: None,
            affinity_within: Duration::from_secs(1),
        }
    }

    /// A request of `input` tokens that is answered with at most `output` tokens.
    pub fn tokens(model: impl Into<Cow<'static, str>>, input: u64, output: u64) -> Self {
        Self::new(model, Estimate::tokens(input, output))
    }

    /// A chat completion. `body` is what will be sent: JSON, or any type that serialises to it.
    pub fn chat<B: Serialize + ?Sized>(body: &B) -> Self {
        Self::of(body, Prompt::chat)
    }

    /// An embeddings request.
    pub fn embeddings<B: Serialize + ?Sized>(body: &B) -> Self {
        Self::of(body, Prompt::embeddings)
    }

    /// A request to the Responses API.
    pub fn responses<B: Serialize + ?Sized>(body: &B) -> Self {
        Self::of(body, Prompt::responses)
    }

    /// A request whose kind is told by the path it is sent to, e.g. `/v1/embeddings`.
    pub fn for_path<B: Serialize + ?Sized>(path: &str, body: &B) -> Self {
        Self::of(body, |body| Prompt::for_path(path, body))
    }

    fn of<B: Serialize + ?Sized>(body: &B, read: impl FnOnce(&Value) -> Prompt) -> Self {
        match serde_json::to_value(body) {
            Ok(body) => read(&body).into(),
            Err(error) => {
                let mut request = Self::new("", Estimate::default());
                request.size = Size::Unreadable(Arc::new(error));
                request
            }
        }
    }

    /// Sends it by the account of this name and no other, or by the group of this name. Default: the group of the first
    /// account, see [`Account::group`](crate::Account::group).
    pub fn account(mut self, name: impl Into<Arc<str>>) -> Self {
        self.account = Some(name.into());
        self
    }

    /// In whose name it waits. Tenants take turns, weighted by tokens.
    pub fn tenant(mut self, name: impl Into<Tenant>) -> Self {
        self.tenant = name.into();
        self
    }

    /// What kind of work it is, such as `titles` or `summaries`. How long an answer without an output cap will be is
    /// learned for each model and tag, so requests whose answers have about the same length should have the same tag. A
    /// model's first 256 tags are told apart; do not make one for each user.
    pub fn tag(mut self, name: impl Into<Arc<str>>) -> Self {
        self.tag = Some(name.into());
        self
    }

    /// How urgent it is.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// When it must have started. One that cannot is refused when it is submitted.
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.deadline = Some(clock::moment(deadline));
        self
    }

    /// Sends it by the account and key that requests with the same `key` went by before, as long as it does not start later
    /// there than elsewhere by more than [`affinity_within`](Request::affinity_within). Providers keep the beginning of a
    /// prompt in a cache of the account: requests that begin alike are answered faster and cost less there.
    pub fn affinity(mut self, key: impl Into<Arc<str>>) -> Self {
        self.affinity = Some(key.into());
        self
    }

    /// How much longer it waits for the account of its [`affinity`](Request::affinity). Default 1 s.
    pub fn affinity_within(mut self, wait: Duration) -> Self {
        self.affinity_within = wait;
        self
    }

    /// What is asked for, if that is known; see [`Prompt::operation`].
    #[cfg(feature = "tracing")]
    pub(crate) fn operation(&self) -> Option<&'static str> {
        match &self.size {
            Size::Prompt(prompt) => Some(prompt.operation()),
            _ => None,
        }
    }

    /// When it must have started, where it is submitted now.
    #[inline]
    pub(crate) fn due(&self) -> Option<Moment> {
        let patience = self.max_wait.and_then(|wait| clock::now().checked_add(wait));
        match (self.deadline, patience) {
            (Some(deadline), Some(patience)) => Some(deadline.min(patience)),
            (deadline, patience) => deadline.or(patience),
        }
    }

    /// How long after its submission an attempt may start, whichever it is. A request that would wait longer is refused when
    /// it is submitted, and one that has to be sent again later than that is not.
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = Some(wait);
        self
    }
}

/// A request whose prompt was taken out of its body already.
impl From<Prompt> for Request {
    fn from(prompt: Prompt) -> Self {
        let mut request = Self::new(prompt.model().to_owned(), Estimate::default());
        request.size = Size::Prompt(Arc::new(prompt));
        request
    }
}
