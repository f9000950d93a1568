//! Where the lanes are: by account and model.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;

use super::Lane;
use crate::clock;

/// Every lane of a scheduler, by the position of its account and by model. The models of one pool have one lane between
/// them.
#[derive(Debug)]
pub(crate) struct Lanes(Vec<ByModel>);

/// The lanes of one account.
#[derive(Debug, Default)]
pub(crate) struct ByModel {
    all: DashMap<Box<str>, Arc<Lane>, foldhash::fast::RandomState>,
    /// The first model that was asked for: most programs have one, and find its lane without a lock.
    first: OnceLock<(Box<str>, Arc<Lane>)>,
    /// How many names there were after the last [tidying](ByModel::tidy).
    kept: AtomicUsize,
}

/// Whoever asks for more models than this passes on names from elsewhere, and there may be no end of them.
const MANY_NAMES: usize = 1_024;

impl ByModel {
    pub(crate) fn get(&self, model: &str) -> Option<Arc<Lane>> {
        match self.first.get() {
            Some((first, lane)) if **first == *model => Some(lane.clone()),
            _ => self.all.get(model).map(|lane| lane.clone()),
        }
    }

    /// The lane of the pool, which `new` makes if there is none, becomes that of the model as well.
    pub(crate) fn add(&self, model: &str, pool: &str, new: impl FnOnce() -> Lane) -> Arc<Lane> {
        // The guard ends with the statement: another insert under it would wait for itself.
        let lane = Arc::clone(&self.all.entry(pool.into()).or_insert_with(|| Arc::new(new())));
        if pool != model {
            self.all.insert(model.into(), lane.clone());
        }
        self.first.get_or_init(|| (model.into(), lane.clone()));
        if self.all.len() >= MANY_NAMES.max(2 * self.kept.load(Relaxed)) {
            self.tidy();
        }
        lane
    }

    /// Forgets what can be found again: other names of a lane, and lanes that nobody holds and that are at rest.
    fn tidy(&self) {
        let now = clock::now();
        self.all.retain(|name, lane| **name == *lane.pool);
        self.all.retain(|_, lane| Arc::strong_count(lane) > 1 || !lane.is_at_rest(now));
        self.kept.store(self.all.len(), Relaxed);
    }
}

impl Lanes {
    pub(crate) fn new(accounts: usize) -> Self {
        Self((0..accounts).map(|_| ByModel::default()).collect())
    }

    pub(crate) fn of_account(&self, account: usize) -> &ByModel {
        &self.0[account]
    }

    /// Those of one account.
    pub(crate) fn of(&self, account: usize) -> Vec<Arc<Lane>> {
        let lanes = self.0[account].all.iter().filter(|lane| **lane.key() == *lane.value().pool);
        lanes.map(|lane| lane.value().clone()).collect()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Lane>> {
        (0..self.0.len()).flat_map(|account| self.of(account)).collect()
    }
}
