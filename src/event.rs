//! What happened to the scheduler that somebody should know.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::cost::Limit;
use crate::providers::{Class, Failure, Indicator, Provider};

/// Something that changed; see [`Builder::on_event`](crate::Builder::on_event). `Display` is a line for a log, and JSON has
/// the name of the event as `type` and the rest as `data`. Each change is told once. No event shows a key.
///
/// ```
/// use tollgate::{Event, Limit};
///
/// let (account, pool) = ("openai".to_owned(), "gpt-4o".to_owned());
/// let event = Event::BudgetUsed { account, pool, limit: Limit::tpd(90_000), percent: 80, used: 72_500 };
/// assert_eq!(event.to_string(), "account openai: 80 % of TPD 90000 of gpt-4o are used (72500)");
/// assert_eq!(serde_json::to_value(&event)?["type"], "budget_used");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "type", content = "data")]
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
    /// A part of a limit per day or longer is used. Each part is told once, and again after the use fell by ten percent
    /// of the limit below it.
    BudgetUsed {
        /// The account's name.
        account: String,
        /// The name of the pool whose limit it is.
        pool: String,
        /// The limit.
        limit: Limit,
        /// Which part, in percent: 80; or 100, when what is left is nothing, or too little for the request that is next, or
        /// when the provider refuses for this limit.
        percent: u8,
        /// What is used, in the limit's own measure.
        used: u64,
    },
    /// More requests wait than [`WatchConfig::queue_alert`](crate::WatchConfig::queue_alert).
    QueueLong {
        /// The account's name.
        account: String,
        /// The pool's name.
        pool: String,
        /// How many wait, those between two attempts included.
        waiting: usize,
    },
    /// A queue that was too long has become half as long as may be.
    QueueShort {
        /// The account's name.
        account: String,
        /// The pool's name.
        pool: String,
        /// How many wait.
        waiting: usize,
    },
    /// The provider's status page reports trouble with what is called; see
    /// [`WatchConfig::status_pages`](crate::WatchConfig).
    IncidentBegan {
        /// The provider.
        provider: Provider,
        /// The incident's title; `None` where the page shows trouble and no incident.
        incident: Option<String>,
        /// How bad it is.
        impact: Indicator,
        /// The components in trouble that the calls need; none where the page does not say.
        components: Vec<String>,
        /// Where our own calls fail as well, as `account/pool`.
        failing: Vec<String>,
    },
    /// The status page does not report it any more.
    IncidentEnded {
        /// The provider.
        provider: Provider,
        /// The incident's title, as when it began.
        incident: Option<String>,
        /// How long it was reported.
        after: Duration,
        /// Where our own calls fail still, as `account/pool`.
        failing: Vec<String>,
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
                    "account {account}: the provider is failing for {pool} ({}); requests wait or go elsewhere",
                    last.words()
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
            Event::BudgetUsed { account, pool, limit, percent: 100, used } => {
                write!(f, "account {account}: {limit} of {pool} is used up ({used}); requests wait or go elsewhere")
            }
            Event::BudgetUsed { account, pool, limit, percent, used } => {
                write!(f, "account {account}: {percent} % of {limit} of {pool} are used ({used})")
            }
            Event::QueueLong { account, pool, waiting } => {
                write!(f, "account {account}: {waiting} requests wait for {pool}")
            }
            Event::QueueShort { account, pool, waiting } => {
                write!(f, "account {account}: only {waiting} requests wait for {pool} now")
            }
            Event::IncidentBegan { provider, incident, impact, components, failing } => {
                let title = incident.as_ref().map_or("trouble".to_owned(), |title| format!("“{title}”"));
                let impact = format!("{impact:?}").to_lowercase();
                let what = [&[impact], &components[..]].concat().join(", ");
                write!(f, "{provider} reports {title} ({what}); {}", Own(failing))
            }
            Event::IncidentEnded { provider, incident, after, failing } => {
                let title = incident.as_ref().map_or("the trouble".to_owned(), |title| format!("“{title}”"));
                write!(f, "{provider}: {title} is over after {} s; {}", after.as_secs(), Own(failing))
            }
            Event::KeyReturned { account, key } => write!(f, "account {account}: key {key} is used again"),
            Event::AccountReturned { account } => write!(f, "account {account} is used again"),
        }
    }
}

/// Where our own calls fail.
struct Own<'a>(&'a [String]);

impl fmt::Display for Own<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("our own calls do not fail"),
            lanes => write!(f, "our own calls fail: {}", lanes.join(", ")),
        }
    }
}

/// Everybody who is told events.
#[derive(Clone, Default)]
pub(crate) struct Listener(Vec<Arc<Callback>>);

type Callback = dyn Fn(&Event) + Send + Sync;

impl Listener {
    pub(crate) fn add(&mut self, callback: impl Fn(&Event) + Send + Sync + 'static) {
        self.0.push(Arc::new(callback));
    }

    /// Calls user code: never under a lock. One that panics keeps nobody from being told, and no books from being closed, as
    /// events are told while permits drop.
    pub(crate) fn tell(&self, event: &Event) {
        for callback in &self.0 {
            // The panic hook has said what there is to say.
            let _ = catch_unwind(AssertUnwindSafe(|| callback(event)));
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} listeners", self.0.len())
    }
}
