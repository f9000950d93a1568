//! Identical requests are answered once.
//!
//! An answer is found by what was asked ([`key`]), kept in memory and, if a folder is named, on disk across runs
//! ([`disk`]). Identical requests under way at one time share one call ([`flight`]). What is shared and kept is what a
//! provider said, and never who asked with which key.

mod disk;
mod flight;
mod key;
mod lookup;
mod stored;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::disk::Disk;
use self::flight::Flights;
use self::key::Key;
use self::stored::Stored;
use crate::client::{Cached, Reply};
use crate::clock;
use crate::config::ConfigError;
use crate::cost::DAY;
use crate::engine::seconds;

pub use self::lookup::{Lead, Lookup};

/// What an answer takes in memory besides its body.
const OVERHEAD: usize = 256;

/// Which answers are kept, where, and for how long. The default keeps up to 256 MiB in memory for a day.
///
/// Only requests that have one right answer are looked up: embeddings and moderations, and chat completions, responses
/// and messages whose `temperature` is 0. Left out it is not 0, and the same words may be meant to bring another answer
/// each time. Streams are never kept, nor is what changes something at the provider (`store`, `background`,
/// `conversation`).
///
/// Two requests are identical if their bodies say the same JSON, whatever the order of its keys and the spelling of its
/// numbers, and go to the same path of the same account in the name of the same tenant.
///
/// ```
/// let config = tollgate::Config::from_toml(r#"
///     [cache]
///     folder = "answers"       # kept across runs
///     ttl = 604_800            # seconds
///     stale_if_error = 86_400
/// "#)?;
/// assert!(!config.cache.unwrap().sampled);
/// # Ok::<(), tollgate::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheConfig {
    /// Where answers are kept across runs, in a file that processes of this machine may share. They are not encrypted; the
    /// file is for its owner alone. Default: in memory only.
    pub folder: Option<PathBuf>,
    /// What answers in memory may take. Default 256 MiB.
    pub memory_bytes: u64,
    /// What the file in the folder may take; the oldest answers go first. Default 1 GiB.
    pub folder_bytes: u64,
    /// How long an answer is good. Default a day.
    #[serde(with = "seconds")]
    pub ttl: Duration,
    /// For how long after that it is still better than none, when the provider fails. Default zero: never.
    #[serde(with = "seconds")]
    pub stale_if_error: Duration,
    /// Also keep answers to requests whose `temperature` is not 0; every repetition gets the same one.
    pub sampled: bool,
    /// Let a tenant have what another one's identical request was answered. Default no: that somebody asked is told by
    /// how fast the answer comes.
    pub across_tenants: bool,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            folder: None,
            memory_bytes: 256 << 20,
            folder_bytes: 1 << 30,
            ttl: DAY,
            stale_if_error: Duration::ZERO,
            sampled: false,
            across_tenants: false,
        }
    }
}

/// How often the cache helped; see [`Scheduler::cache_stats`](crate::Scheduler::cache_stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CacheStats {
    /// Requests answered from memory or disk.
    pub fresh: u64,
    /// Requests answered by the call of an identical one that was under way.
    pub shared: u64,
    /// Requests answered by an old answer because the provider failed.
    pub stale: u64,
    /// Requests that had to be sent.
    pub missed: u64,
}

impl CacheStats {
    /// Requests that were answered without a call of their own.
    pub fn answered(&self) -> u64 {
        self.fresh + self.shared + self.stale
    }
}

/// The answers of a scheduler.
#[derive(Debug)]
pub(crate) struct Cache {
    config: CacheConfig,
    memory: moka::sync::Cache<Key, Arc<Stored>>,
    disk: Option<Disk>,
    warnings: Vec<String>,
    flights: Arc<Flights>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    fresh: AtomicU64,
    shared: AtomicU64,
    stale: AtomicU64,
    missed: AtomicU64,
}

impl Cache {
    /// Opens the folder, if there is one. A file in it that cannot be used is left out with a warning.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub(crate) fn open(config: &CacheConfig) -> Result<Self, ConfigError> {
        let keep = config.ttl.saturating_add(config.stale_if_error);
        // An eternity is more than the cache's own clock can count.
        let memory = moka::sync::Cache::builder()
            .max_capacity(config.memory_bytes)
            .weigher(|_, stored: &Arc<Stored>| u32::try_from(stored.body.len() + OVERHEAD).unwrap_or(u32::MAX))
            .time_to_live(keep.min(Duration::from_secs(365 * 86_400)))
            .build();
        let mut warnings = Vec::new();
        let disk = match &config.folder {
            None => None,
            Some(folder) => Disk::open(folder, config.folder_bytes, keep, &mut warnings)
                .map_err(|source| ConfigError::Cache { folder: folder.clone(), source })?,
        };
        let (flights, counts) = (Arc::default(), Counts::default());
        Ok(Self { config: config.clone(), memory, disk, warnings, flights, counts })
    }

    /// An answer that is still good.
    fn fresh(&self, key: &Key) -> Option<Arc<Stored>> {
        self.memory.get(key).filter(|stored| self.is_fresh(stored))
    }

    fn is_fresh(&self, stored: &Stored) -> bool {
        stored.age(clock::wall()) < self.config.ttl
    }

    /// An answer that is better than none.
    fn usable(&self, key: &Key) -> Option<Arc<Stored>> {
        let keep = self.config.ttl.saturating_add(self.config.stale_if_error);
        self.memory.get(key).filter(|stored| stored.age(clock::wall()) < keep)
    }

    fn keep(&self, key: Key, stored: Arc<Stored>) {
        if let Some(disk) = &self.disk {
            disk.put(key, stored.clone());
        }
        self.memory.insert(key, stored);
    }

    fn reply(&self, stored: &Stored, cached: Cached) -> Reply {
        let count = match cached {
            Cached::Fresh => &self.counts.fresh,
            Cached::Shared => &self.counts.shared,
            Cached::Stale => &self.counts.stale,
        };
        count.fetch_add(1, Relaxed);
        stored.reply(cached)
    }

    fn stats(&self) -> CacheStats {
        let Counts { fresh, shared, stale, missed } = &self.counts;
        let read = |count: &AtomicU64| count.load(Relaxed);
        CacheStats { fresh: read(fresh), shared: read(shared), stale: read(stale), missed: read(missed) }
    }
}
