//! From a request to an answer that is there already, or to the duty to get it.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde_json::Value;

use super::flight::{Flight, Followed, Outcome, Part, Route, follow};
use super::key::{self, Key};
use super::stored::Stored;
use super::{Cache, CacheConfig, CacheStats};
use crate::attempt::Attempt;
use crate::builder::Builder;
use crate::client::{Cached, ClientError, Reply};
use crate::clock;
use crate::engine::{Moment, Refusal};
use crate::error::{AcquireError, Error};
use crate::providers::{Failure, Retry};
use crate::request::Request;
use crate::scheduler::Scheduler;
use crate::target::Target;

/// What [`Scheduler::lookup`] found.
#[derive(Debug)]
#[non_exhaustive]
pub enum Lookup {
    /// The answer; nothing is to be sent.
    Hit(Reply),
    /// An identical request was under way, and what it met this one would meet as well.
    Failed {
        /// What it met.
        failure: Box<Failure>,
        /// The attempts that it made.
        attempts: u32,
    },
    /// Nobody knows the answer. Send the request and hand over what came back: others may wait for it.
    Miss(Lead),
    /// The scheduler has no cache, or not for this request.
    Uncached,
}

/// The duty to get an answer for everybody who asks for the same now or later.
///
/// Dropping it without an answer, as when the call is cancelled, leaves the duty to the next one who waits.
#[derive(Debug)]
#[must_use = "hand over the answer, others may wait for it"]
pub struct Lead {
    cache: Arc<Cache>,
    key: Key,
    /// `None` where an identical request is under way that this one could not wait for.
    flight: Option<Flight>,
    /// Where the last attempt went. A std mutex: held for a copy.
    target: Mutex<Option<Target>>,
}

impl Lead {
    /// Says that an attempt is sent. Those who share its answer are served when it comes, whatever their patience for a
    /// start is, and are told who gave it.
    pub fn sent(&self, attempt: &Attempt) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = Some(attempt.target().clone());
        if let Some(flight) = &self.flight {
            flight.sent();
        }
    }

    /// Hands over an answer. A success is shared with those who wait, and kept if it is whole JSON and no fallback's; anything
    /// else is only the caller's.
    pub fn answered(self, status: u16, request_id: Option<String>, body: Bytes) {
        let target = self.target.into_inner().unwrap_or_else(PoisonError::into_inner);
        let stored = Arc::new(Stored::new(status, request_id, body, target, clock::wall()));
        // First kept, then told: whoever comes between the two finds it in one place or the other.
        if stored.is_lasting() {
            self.cache.keep(self.key, stored.clone());
        }
        if let Some(flight) = self.flight.filter(|_| stored.is_success()) {
            flight.end(Outcome::Answer(stored));
        }
    }

    /// Hands over an error that the provider answered, or that none came, after so many attempts: those who wait share
    /// it. Gives an old answer instead, if one is allowed and the failure is an outage.
    pub fn failed(self, failure: &Failure, attempts: u32) -> Option<Reply> {
        let stale = self.cache.instead_of(&self.key, failure);
        if let Some(flight) = self.flight {
            flight.end(Outcome::Failure(Box::new(failure.clone()), attempts));
        }
        stale
    }

    /// As [`failed`](Lead::failed), for an error of the scheduler. What is this request's own, such as its deadline, is
    /// not shared: the next one who waits tries for itself.
    pub fn failed_with<E>(self, error: &Error<E>) -> Option<Reply> {
        match error {
            Error::Call { failure: Some(failure), attempts, .. } | Error::Shared { failure, attempts } => {
                self.failed(failure, *attempts)
            }
            Error::Call { failure: None, .. } => None,
            Error::Refused { reason: AcquireError::Refused(Refusal::Closed), .. } => None,
            Error::Refused { reason: AcquireError::Refused(_), last: Some(last), .. } => {
                self.cache.instead_of(&self.key, last)
            }
            Error::Refused { .. } => None,
        }
    }
}

impl Cache {
    async fn lookup(self: &Arc<Self>, route: Route, patience: Option<Moment>) -> Lookup {
        let key = route.0;
        loop {
            if let Some(stored) = self.fresh(&key) {
                return Lookup::Hit(self.reply(&stored, Cached::Fresh));
            }
            let progress = match self.flights.join(route) {
                Part::Leads(flight) => return self.lead(key, flight).await,
                Part::Follows(progress) => progress,
            };
            match follow(progress, patience).await {
                Followed::Shares(Outcome::Answer(stored)) => return Lookup::Hit(self.reply(&stored, Cached::Shared)),
                Followed::Shares(Outcome::Failure(failure, attempts)) => {
                    return match self.instead_of(&key, &failure) {
                        Some(reply) => Lookup::Hit(reply),
                        None => Lookup::Failed { failure, attempts },
                    };
                }
                Followed::Alone => {}
                Followed::TooLate => return self.miss(key, None),
            }
        }
    }

    /// Looks where others need not look while this one does.
    async fn lead(self: &Arc<Self>, key: Key, flight: Flight) -> Lookup {
        // Whoever led before may have been done just now.
        let mut found = self.fresh(&key);
        if found.is_none()
            && let Some(disk) = &self.disk
            && let Some(stored) = disk.get(key).await.map(Arc::new)
        {
            self.memory.insert(key, stored.clone());
            found = Some(stored).filter(|stored| self.is_fresh(stored));
        }
        match found {
            Some(stored) => {
                flight.end(Outcome::Answer(stored.clone()));
                Lookup::Hit(self.reply(&stored, Cached::Fresh))
            }
            None => self.miss(key, Some(flight)),
        }
    }

    fn miss(self: &Arc<Self>, key: Key, flight: Option<Flight>) -> Lookup {
        self.counts.missed.fetch_add(1, Relaxed);
        Lookup::Miss(Lead { cache: self.clone(), key, flight, target: Mutex::default() })
    }

    /// An old answer in an outage, where that is allowed.
    fn instead_of(&self, key: &Key, failure: &Failure) -> Option<Reply> {
        let outage = failure.retry() != Retry::Never || failure.class.is_provider_trouble();
        if !outage || self.config.stale_if_error.is_zero() {
            return None;
        }
        self.usable(key).map(|stored| self.reply(&stored, Cached::Stale))
    }
}

impl Builder {
    /// Keeps answers, and lets identical requests share one call.
    ///
    /// ```
    /// use tollgate::{Account, CacheConfig, Scheduler};
    ///
    /// let cache = CacheConfig { folder: Some("answers".into()), ..CacheConfig::default() };
    /// let builder = Scheduler::builder().account(Account::openai().tier(1)).cache(cache);
    /// ```
    pub fn cache(mut self, config: CacheConfig) -> Self {
        self.config.cache = Some(config);
        self
    }
}

/// The cache (feature `cache`). The built-in client asks it by itself; [`lookup`](Scheduler::lookup) is for calls of other
/// kinds.
impl Scheduler {
    /// Looks for the answer to `body`, sent to `path`, before the request is submitted. A hit costs no quota and does not
    /// wait; while an identical request is under way it waits for that one's answer, no longer for its start than
    /// `request` has patience.
    ///
    /// ```no_run
    /// # async fn my_call(body: &str) -> Result<String, std::io::Error> { Ok(body.to_owned()) }
    /// # async fn example(scheduler: tollgate::Scheduler) -> Result<(), Box<dyn std::error::Error>> {
    /// use tollgate::{Lookup, Request};
    ///
    /// let body = serde_json::json!({"model": "text-embedding-3-small", "input": "Hello"});
    /// let (request, text) = (Request::embeddings(&body), body.to_string());
    /// let answer = match scheduler.lookup(&request, "/embeddings", text.as_bytes()).await {
    ///     Lookup::Hit(reply) => String::from_utf8(reply.body.to_vec())?,
    ///     Lookup::Failed { failure, .. } => return Err(failure),
    ///     Lookup::Miss(lead) => {
    ///         let answer = scheduler.submit(request, |attempt| { lead.sent(&attempt); my_call(&text) }).await?;
    ///         lead.answered(200, None, answer.clone().into());
    ///         answer
    ///     }
    ///     _ => scheduler.submit(request, |_| my_call(&text)).await?,
    /// };
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing: whoever leads goes on, and if this one was about to, another one does.
    pub async fn lookup(&self, request: &Request, path: &str, body: &[u8]) -> Lookup {
        let Some(cache) = self.cache() else { return Lookup::Uncached };
        let Some([account, address]) = self.names(request) else { return Lookup::Uncached };
        let Ok(body) = serde_json::from_slice::<Value>(body) else { return Lookup::Uncached };
        if !key::is_repeatable(path, &body, cache.config.sampled) {
            return Lookup::Uncached;
        }
        let tenant = if cache.config.across_tenants { "" } else { &request.tenant };
        let key = key::key([account, address, tenant], path, &body);
        let patience = request.max_wait.and_then(|wait| clock::now().checked_add(wait));
        let route = (key, request.priority, self.may_fall_back(request));
        let mut found = cache.lookup(route, [request.deadline, patience].into_iter().flatten().min()).await;
        // A fallback that answered an identical request did not get the same of this one.
        if let Lookup::Hit(Reply { target: Some(target), dropped, .. }) = &mut found
            && target.rank() > 0
            && let Ok(adapted) = target.adapt(&body)
        {
            *dropped = adapted.dropped;
        }
        found
    }

    /// How often the cache helped; `None` without one.
    pub fn cache_stats(&self) -> Option<CacheStats> {
        self.cache().map(|cache| cache.stats())
    }

    /// What was found unusable when the cache was opened, a sentence each.
    pub fn cache_warnings(&self) -> &[String] {
        self.cache().map_or(&[], |cache| &cache.warnings)
    }

    /// Waits until every answer so far is on disk, for a process that ends without dropping the scheduler. The drop of the last
    /// handle waits for the same and blocks its thread meanwhile; after this it has next to nothing to wait for.
    ///
    /// # Cancel safety
    /// Dropping the future stops the waiting; the answers are written all the same.
    pub async fn save_cache(&self) {
        if let Some(disk) = self.cache().and_then(|cache| cache.disk.as_ref()) {
            disk.written().await;
        }
    }

    /// What the built-in client does with a request.
    pub(crate) async fn send_through_cache(
        &self,
        mut request: Request,
        path: &str,
        body: Bytes,
    ) -> Result<Reply, Error<ClientError>> {
        // Its patience begins here, whether it waits for another's start or for its own.
        let patience = request.max_wait.take().and_then(|wait| clock::now().checked_add(wait));
        request.deadline = [request.deadline, patience].into_iter().flatten().min();
        let lead = match self.lookup(&request, path, &body).await {
            Lookup::Hit(reply) => return Ok(reply),
            Lookup::Failed { failure, attempts } => return Err(Error::Shared { failure, attempts }),
            Lookup::Uncached => return self.fetch(request, path, body, |_| ()).await,
            Lookup::Miss(lead) => lead,
        };
        match self.fetch(request, path, body, |attempt| lead.sent(attempt)).await {
            Ok(reply) => {
                lead.answered(reply.status, reply.request_id.clone(), reply.body.clone());
                Ok(reply)
            }
            Err(error) => lead.failed_with(&error).ok_or(error),
        }
    }
}
