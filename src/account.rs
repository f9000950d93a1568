//! One account, shared: its keys, and who of them is in the rotation.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::clock;
use crate::config::{Account, Config, ConfigError, Key};
use crate::engine::{Change, Member, Out, Refusal, Rotation};
use crate::event::{Event, Listener};
use crate::lane::{Lane, Lanes};
use crate::providers::{self, Failure};
use crate::secret::Secret;

/// An account at work.
#[derive(Debug)]
pub(crate) struct AccountState {
    pub(crate) settings: Account,
    /// Its position in the configuration.
    pub(crate) index: usize,
    /// The position of the first account of its group.
    pub(crate) group: usize,
    /// Weak, since lanes have their account. Gone when the scheduler is.
    lanes: Weak<Lanes>,
    keys: Vec<Secret>,
    /// A std mutex: held for a look, never across an await or a callback.
    rotation: Mutex<Rotation>,
    /// Whether a key or the account is out, so that healthy accounts need not lock to know.
    troubled: AtomicBool,
    listener: Listener,
}

impl AccountState {
    pub(crate) fn new(
        index: usize,
        config: &Config,
        lanes: Weak<Lanes>,
        listener: Listener,
    ) -> Result<Self, ConfigError> {
        let settings = &config.accounts[index];
        let group = config.accounts.iter().position(|other| settings.is_of_one_group(other));
        let keys = settings.keys.iter().enumerate().map(|(key, source)| {
            let read = match source {
                Key::Value(secret) => secret.clone(),
                Key::Env(variable) => std::env::var_os(variable)
                    .map(|value| value.to_string_lossy().into_owned())
                    .filter(|value| !value.trim().is_empty())
                    .map(Secret::from)
                    .ok_or_else(|| ConfigError::MissingKey {
                        account: settings.name().to_owned(),
                        // Somebody may have put the key itself there.
                        variable: providers::clean(variable),
                    })?,
            };
            read.for_header().ok_or_else(|| ConfigError::BadKey { account: settings.name().to_owned(), key })
        });
        Ok(Self {
            rotation: Mutex::new(Rotation::new(settings.keys.len())),
            keys: keys.collect::<Result<_, _>>()?,
            index,
            group: group.unwrap_or(index),
            lanes,
            settings: settings.clone(),
            troubled: AtomicBool::new(false),
            listener,
        })
    }

    /// Whether it may be used.
    pub(crate) fn is_in(&self) -> bool {
        !self.troubled.load(Relaxed) || self.lock().is_in()
    }

    /// The position of the key whose turn it is, or to which the affinity draws. `None` if there is none that may be used.
    pub(crate) fn turn(&self, affinity: Option<&str>) -> Option<usize> {
        match &self.keys[..] {
            [] => None,
            [_] if !self.troubled.load(Relaxed) => Some(0),
            _ => self.lock().key(affinity),
        }
    }

    pub(crate) fn keys(&self) -> &[Secret] {
        &self.keys
    }

    /// Takes a key or the whole account out. When the account cannot be used after that, whoever waits for it looks for
    /// another one.
    pub(crate) fn retire(&self, member: Member, failure: &Failure, back_in: Option<Duration>) {
        let until = back_in.and_then(|wait| clock::now().checked_add(wait));
        let (new, is_in, keys_left) = {
            let mut rotation = self.lock();
            self.troubled.store(true, Relaxed);
            let new = rotation.take_out(member, Out { why: failure.clone(), until });
            (new, rotation.is_in(), rotation.keys_in())
        };
        if !new {
            return;
        }
        let (account, failure) = (self.settings.name().to_owned(), failure.clone());
        self.listener.tell(&match member {
            Member::Account => Event::AccountLeft { account, failure, back_in },
            Member::Key(key) => Event::KeyLeft { account, key, keys_left, failure },
        });
        if let Some(lanes) = self.lanes.upgrade().filter(|_| !is_in) {
            lanes.of(self.index).iter().for_each(|lane| lane.scatter());
        }
    }

    /// Lets those return whose time has come.
    pub(crate) fn welcome_back(&self) {
        if self.troubled.load(Relaxed) {
            self.let_in(|rotation| rotation.returned(clock::now()));
        }
    }

    /// Lets everybody return.
    pub(crate) fn restore(&self) {
        self.let_in(Rotation::restore);
    }

    /// Whoever waits elsewhere and may come here looks again.
    fn let_in(&self, let_in: impl FnOnce(&mut Rotation) -> Vec<Member>) {
        let members = {
            let mut rotation = self.lock();
            let members = let_in(&mut rotation);
            self.troubled.store(!rotation.is_whole(), Relaxed);
            members
        };
        for member in &members {
            let account = self.settings.name().to_owned();
            self.listener.tell(&match *member {
                Member::Account => Event::AccountReturned { account },
                Member::Key(key) => Event::KeyReturned { account, key },
            });
        }
        if !members.is_empty() {
            self.everybody_looks_again();
        }
    }

    /// Whoever waits at any account and may go elsewhere looks for the best lane again.
    pub(crate) fn everybody_looks_again(&self) {
        if let Some(lanes) = self.lanes.upgrade() {
            lanes.all().iter().for_each(Lane::scatter_movable);
        }
    }

    /// Tells what changed in one of its lanes.
    pub(crate) fn tell(&self, pool: &str, change: Change) {
        let (account, pool) = (self.settings.name().to_owned(), pool.to_owned());
        self.listener.tell(&match change {
            Change::Opened { last } => Event::Opened { account, pool, last },
            Change::Recovered { after } => Event::Recovered { account, pool, after },
            Change::Limit { before, now } => Event::LimitChanged { account, pool, before, now },
            Change::Budget { limit, percent, used } => Event::BudgetUsed { account, pool, limit, percent, used },
            Change::QueueLong { waiting } => Event::QueueLong { account, pool, waiting },
            Change::QueueShort { waiting } => Event::QueueShort { account, pool, waiting },
        });
    }

    /// Why it may not be used, if it may not.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        if self.is_in() {
            return None;
        }
        let failure = Box::new(self.lock().why_out()?.why.clone());
        Some(Refusal::Retired { account: self.settings.name().to_owned(), failure })
    }

    fn lock(&self) -> MutexGuard<'_, Rotation> {
        self.rotation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
