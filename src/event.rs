//! What happened to the scheduler that somebody should know.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::cost::Limit;
use crate::providers::{Class, Failure};

/// Something that changed; see [`Builder::on_event`](crate::Builder::on_event). `Display` is a line for a log. Each change
/// is told once. No event shows a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The provider does not accept a key any more; it left the rotation, and requests go on with others.
    KeyLeft {
        /// The account's name.
        account: String,
        /// The key's position in the account's list, from 0.
        key: usize,
        /// How many keys the account has left; with none, the account is out as well.
        keys_left: usize,
        /// The provider's answer.
        failure: Failure,
    },
    /// An account has no money left or reached its spend limit; its requests go on at others.
    AccountLeft {
        /// The account's name.
        account: String,
        /// The provider's answer.
        failure: Failure,
        /// When it returns by itself; `None`: when [`Scheduler::restore`](crate::Scheduler::restore) is called.
        back_in: Option<Duration>,
    },
    /// A provider is failing: nothing is sent to it but one request at a time, to find out whether it is back.
    Opened {
        /// The account's name.
        account: String,
        /// The name of the pool whose requests failed; often just a model.
        pool: String,
        /// The last failure.
        last: Class,
    },
    /// A provider that was failing is back.
    Recovered {
        /// The account's name.
        account: String,
        /// The pool's name.
        pool: String,
        /// How long it was failing.
        after: Duration,
    },
    /// The provider's answers show another limit than was known.
    LimitChanged {
        /// The account's name.
        account: String,
        /// The name of the pool whose limit it is.
        pool: String,
        /// What was known; `None` where it was no such limit.
        before: Option<Limit>,
        /// What holds now.
        now: Limit,
    },
    /// A key is used again.
    KeyReturned {
        /// The account's name.
        account: String,
        /// The key's position in the account's list, from 0.
        key: usize,
    },
    /// An account is used again. It is noticed when the next request is routed.
    AccountReturned {
        /// The account's name.
        account: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::KeyLeft { account, key, keys_left, failure } => {
                write!(f, "account {account}: key {key} left the rotation, {keys_left} left: {failure}")
            }
            Event::AccountLeft { account, failure, back_in } => {
                write!(f, "account {account} left the rotation")?;
                match back_in {
                    Some(wait) => write!(f, " for {} s", wait.as_secs())?,
                    None => f.write_str(" until it is restored")?,
                }
                write!(f, ": {failure}")
            }
            Event::Opened { account, pool, last } => {
                write!(
                    f,
                    "account {account}: the provider is failing for {pool} ({last:?}); requests wait or go elsewhere"
                )
            }
            Event::Recovered { account, pool, after } => {
                write!(f, "account {account}: the provider is back for {pool} after {:.1} s", after.as_secs_f64())
            }
            Event::LimitChanged { account, pool, before: Some(before), now } => {
                write!(f, "account {account}: the limit of {pool} is {now}, and not {before}")
            }
            Event::LimitChanged { account, pool, before: None, now } => {
                write!(f, "account {account}: {pool} has a limit that was not known: {now}")
            }
            Event::KeyReturned { account, key } => write!(f, "account {account}: key {key} is used again"),
            Event::AccountReturned { account } => write!(f, "account {account} is used again"),
        }
    }
}

/// Whoever is told events.
#[derive(Clone, Default)]
pub(crate) struct Listener(Option<Arc<Callback>>);

type Callback = dyn Fn(&Event) + Send + Sync;

impl Listener {
    pub(crate) fn new(callback: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(callback)))
    }

    /// Calls user code: never under a lock.
    pub(crate) fn tell(&self, event: &Event) {
        if let Some(callback) = &self.0 {
            callback(event);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Listener" } else { "no listener" })
    }
}
