//! What can go wrong between `submit` and the answer.

use thiserror::Error;

use crate::engine::Refusal;
use crate::providers::{Failure, Unfit};

/// Why a request was not taken: nothing was sent and nothing spent.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// The limits, the queue or the deadline do not allow it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No account has the name that the request gives.
    #[error("no account is called {name}; the scheduler knows {known}")]
    UnknownAccount {
        /// What the request said.
        name: String,
        /// What there is.
        known: String,
    },
    /// Only a fallback could answer, and it does not take the request.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The body names no model, so that its limits are unknown.
    #[error("the request names no model; its limits depend on it")]
    NoModel,
    /// The body cannot be turned into JSON.
    #[error("the request body is not JSON")]
    Unreadable(#[source] std::sync::Arc<serde_json::Error>),
    /// Counting the tokens of the body failed, which is a bug.
    #[error("counting the request's tokens failed; please report this")]
    Uncounted,
}

/// Why [`Scheduler::try_acquire`](crate::Scheduler::try_acquire) gave no permit.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum TryAcquireError {
    /// It would have to wait.
    #[error("the request would start in {:.1?}", forecast.starts_in)]
    NotYet {
        /// For how long, and what holds it.
        forecast: crate::engine::Forecast,
    },
    /// Waiting would not help.
    #[error(transparent)]
    Never(#[from] AcquireError),
}

/// Why [`Scheduler::submit`](crate::Scheduler::submit) has no answer. `E` is the call's own error.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error<E> {
    /// The request was not sent, or not sent again: the limits, the queue or the deadline did not allow it.
    #[error("{}", not_sent(*attempts))]
    Refused {
        /// Why.
        #[source]
        reason: AcquireError,
        /// Attempts made before; 0 when nothing was sent.
        attempts: u32,
        /// What the last of them met.
        last: Option<Box<Failure>>,
    },
    /// The call failed for good.
    #[error("the call failed{}", times(*attempts))]
    Call {
        /// The error of the last attempt.
        #[source]
        error: E,
        /// Attempts made.
        attempts: u32,
        /// What the provider said, as far as it was handed over.
        failure: Option<Box<Failure>>,
    },
    /// An identical request that was under way failed for good, and what it met this one would meet as well (feature
    /// `cache`).
    #[error("an identical request that was under way failed{}", times(*attempts))]
    Shared {
        /// What it met.
        #[source]
        failure: Box<Failure>,
        /// The attempts that it made; this one made none.
        attempts: u32,
    },
}

/// An error of any kind, see [`Error::boxed`]. It prints as the one inside, and has its causes.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct BoxedError(#[from] Box<dyn std::error::Error + Send + Sync>);

fn not_sent(attempts: u32) -> String {
    match attempts {
        0 => "the request was not sent".to_owned(),
        _ => format!("the request was not sent again{}", times(attempts)),
    }
}

fn times(attempts: u32) -> String {
    if attempts > 1 { format!(" after {attempts} attempts") } else { String::new() }
}

impl<E> Error<E> {
    /// Attempts made.
    pub fn attempts(&self) -> u32 {
        match self {
            Error::Refused { attempts, .. } | Error::Call { attempts, .. } => *attempts,
            Error::Shared { .. } => 0,
        }
    }

    /// The same with the call's own error in a box, for errors that are none by their type: with `anyhow::Error`, a
    /// `Box<dyn Error + Send + Sync>` or a text inside, `?` takes this one.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let scheduler = tollgate::Scheduler::builder().build()?;
    /// async fn my_call() -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
    ///     Ok("42".parse()?)
    /// }
    ///
    /// let request = tollgate::Request::tokens("gpt-4o", 400, 64);
    /// let answer = scheduler.submit(request, |_| my_call()).await.map_err(|error| error.boxed())?;
    /// assert_eq!(answer, 42);
    /// # Ok(()) }
    /// ```
    pub fn boxed(self) -> Error<BoxedError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        match self {
            Error::Refused { reason, attempts, last } => Error::Refused { reason, attempts, last },
            Error::Call { error, attempts, failure } => {
                Error::Call { error: BoxedError(error.into()), attempts, failure }
            }
            Error::Shared { failure, attempts } => Error::Shared { failure, attempts },
        }
    }

    /// What the provider said last, as far as it is known.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Error::Refused { last, .. } => last.as_deref(),
            Error::Call { failure, .. } => failure.as_deref(),
            Error::Shared { failure, .. } => Some(failure),
        }
    }
}
