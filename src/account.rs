//! One account, shared: its keys, who of them is in the rotation, and its lanes.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use dashmap::DashMap;

use crate::clock;
use crate::config::{Account, ConfigError, Key};
use crate::engine::{Member, Out, Refusal, Rotation};
use crate::event::{Event, Listener};
use crate::lane::Lane;
use crate::providers::Failure;
use crate::secret::Secret;
use crate::target::Target;

/// An account at work.
#[derive(Debug)]
pub(crate) struct AccountState {
    pub(crate) name: Arc<str>,
    pub(crate) settings: Account,
    pub(crate) base_url: Option<Arc<str>>,
    /// By model. The models of one pool have one lane between them.
    pub(crate) lanes: DashMap<Box<str>, Arc<Lane>>,
    keys: Vec<Secret>,
    /// A std mutex: held for a look, never across an await or a callback.
    rotation: Mutex<Rotation>,
    /// Somebody is out. Most accounts never see that, and need not lock to know it.
    troubled: AtomicBool,
    listener: Listener,
}

impl AccountState {
    pub(crate) fn new(settings: &Account, listener: Listener) -> Result<Self, ConfigError> {
        let keys = settings.keys.iter().map(|key| match key {
            Key::Value(secret) => Ok(secret.clone()),
            Key::Env(variable) => std::env::var(variable).map(Secret::from).map_err(|_| ConfigError::MissingKey {
                account: settings.name().to_owned(),
                variable: variable.clone(),
            }),
        });
        let base_url = settings.address().map(Into::into);
        Ok(Self {
            rotation: Mutex::new(Rotation::new(settings.keys.len())),
            keys: keys.collect::<Result<_, _>>()?,
            base_url,
            name: settings.name().into(),
            lanes: DashMap::new(),
            settings: settings.clone(),
            troubled: AtomicBool::new(false),
            listener,
        })
    }

    /// Whether it may be used.
    pub(crate) fn is_in(&self) -> bool {
        !self.troubled.load(Relaxed) || self.lock().is_in()
    }

    /// The position of the key whose turn it is, or to which the affinity draws, and the key. `None` without a key that
    /// may be used.
    pub(crate) fn key(&self, affinity: Option<&str>) -> Option<(usize, Secret)> {
        let index = match &self.keys[..] {
            [] => return None,
            [_] if !self.troubled.load(Relaxed) => 0,
            _ => self.lock().key(affinity)?,
        };
        Some((index, self.keys.get(index)?.clone()))
    }

    pub(crate) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Takes the key or the whole account out, if that is what the failure of a call says. When the account cannot be used
    /// after that, whoever waits for it looks for another one.
    pub(crate) fn heard(&self, failure: &Failure, target: &Target) {
        let Some((member, back_in)) = target.retired_by(failure) else { return };
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
        let (account, failure) = (self.name.to_string(), failure.clone());
        self.listener.tell(&match member {
            Member::Account => Event::AccountLeft { account, failure, back_in },
            Member::Key(key) => Event::KeyLeft { account, key, keys_left, failure },
        });
        if !is_in {
            self.lanes.iter().for_each(|lane| lane.scatter(|_| true));
        }
    }

    /// Lets those return whose time has come. Answers whether there was anybody.
    pub(crate) fn welcome_back(&self, now: Instant) -> bool {
        self.troubled.load(Relaxed) && self.let_in(|rotation| rotation.returned(now))
    }

    /// Lets everybody return. Answers whether there was anybody.
    pub(crate) fn restore(&self) -> bool {
        self.let_in(Rotation::restore)
    }

    fn let_in(&self, let_in: impl FnOnce(&mut Rotation) -> Vec<Member>) -> bool {
        let members = {
            let mut rotation = self.lock();
            let members = let_in(&mut rotation);
            self.troubled.store(!rotation.is_whole(), Relaxed);
            members
        };
        for member in &members {
            let account = self.name.to_string();
            self.listener.tell(&match *member {
                Member::Account => Event::AccountReturned { account },
                Member::Key(key) => Event::KeyReturned { account, key },
            });
        }
        !members.is_empty()
    }

    /// Why it may not be used, if it may not.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        if self.is_in() {
            return None;
        }
        let failure = Box::new(self.lock().why_out()?.why.clone());
        Some(Refusal::Retired { account: self.name.to_string(), failure })
    }

    fn lock(&self) -> MutexGuard<'_, Rotation> {
        self.rotation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
