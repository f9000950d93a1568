//! Identical requests that are under way at one time: one leads, the others wait for its answer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::key::Key;
use super::stored::Stored;
use crate::clock;
use crate::engine::{Moment, Priority};
use crate::providers::Failure;

/// Requests of different priority do not share a call: an urgent one would wait as long as one that can. Nor do those that
/// another model may answer with those that it may not.
pub(super) type Route = (Key, Priority, bool);

/// How far the leader is.
#[derive(Clone, Debug)]
pub(super) enum Progress {
    Waiting,
    Sent,
    Done(Outcome),
}

/// What its followers share.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    Answer(Arc<Stored>),
    Failure(Box<Failure>, u32),
}

/// Everything that is under way.
#[derive(Debug, Default)]
pub(super) struct Flights {
    /// A std mutex: held to look up or change one entry, never across an await.
    leaders: Mutex<HashMap<Route, watch::Receiver<Progress>>>,
}

/// The part that a request has.
#[derive(Debug)]
pub(super) enum Part {
    Leads(Flight),
    Follows(watch::Receiver<Progress>),
}

impl Flights {
    pub(super) fn join(self: &Arc<Self>, route: Route) -> Part {
        let mut leaders = self.lock();
        if let Some(progress) = leaders.get(&route) {
            return Part::Follows(progress.clone());
        }
        let (progress, watched) = watch::channel(Progress::Waiting);
        leaders.insert(route, watched);
        Part::Leads(Flight { flights: self.clone(), route, progress })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Route, watch::Receiver<Progress>>> {
        self.leaders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by the one that leads. Dropped without an outcome it says nothing to the others: one of them leads next.
#[derive(Debug)]
pub(super) struct Flight {
    flights: Arc<Flights>,
    route: Route,
    progress: watch::Sender<Progress>,
}

impl Flight {
    pub(super) fn sent(&self) {
        self.progress.send_replace(Progress::Sent);
    }

    pub(super) fn end(self, outcome: Outcome) {
        self.progress.send_replace(Progress::Done(outcome));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Before the channel closes, so that nobody who finds it closed finds it here again.
        self.flights.lock().remove(&self.route);
    }
}

/// What a follower comes to.
#[derive(Debug)]
pub(super) enum Followed {
    Shares(Outcome),
    /// The leader was cancelled, or failed in a way that is its own.
    Alone,
    /// The leader still waited when this request's own patience was over.
    TooLate,
}

/// Waits for the leader. Once that is sent, the wait for a start is over for both.
pub(super) async fn follow(mut progress: watch::Receiver<Progress>, patience: Option<Moment>) -> Followed {
    let started = progress.wait_for(|progress| !matches!(progress, Progress::Waiting));
    let started = match patience {
        None => started.await.is_ok(),
        Some(until) => match tokio::time::timeout_at(clock::instant(until), started).await {
            Ok(started) => started.is_ok(),
            Err(_) => return Followed::TooLate,
        },
    };
    if !started {
        return Followed::Alone;
    }
    match progress.wait_for(|progress| matches!(progress, Progress::Done(_))).await.as_deref() {
        Ok(Progress::Done(outcome)) => Followed::Shares(outcome.clone()),
        _ => Followed::Alone,
    }
}
