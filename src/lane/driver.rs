//! The task that wakes those who wait.

use std::pin::pin;
use std::sync::{Arc, Weak};

use tokio::runtime::Id;

use super::Lane;
use super::turn::Waiting;
use crate::clock;
use crate::engine::{Refusal, Wake};

/// Those who wait on one runtime. While there are any, a task there serves the lane, and with it everybody else who waits: so
/// nobody depends on a runtime of others, which may be busy, left without being run, or gone. Nearly every program has one
/// runtime, and so one such task.
#[derive(Debug)]
pub(super) struct Riders {
    pub(super) lane: Arc<Lane>,
    pub(super) runtime: Id,
}

impl Drop for Riders {
    /// Their driver may go.
    fn drop(&mut self) {
        self.lane.changed.notify_waiters();
    }
}

/// The task that serves a lane while it has riders.
pub(super) struct Driver {
    pub(super) lane: Arc<Lane>,
    pub(super) riders: Weak<Riders>,
}

impl Driver {
    pub(super) async fn run(self) {
        let mut due = Vec::new();
        loop {
            // First of all: what happens from here on wakes it.
            let mut changed = pin!(self.lane.changed.notified());
            changed.as_mut().enable();
            if self.riders.strong_count() == 0 {
                return;
            }
            let wake_at = {
                let mut state = self.lane.lock();
                let wake_at = state.machine.poll(clock::now(), &mut due);
                // Until they have a place elsewhere, the lane is not idle.
                state.backing_off += due.iter().filter(|wake| looks_again(wake)).count();
                wake_at
            };
            let handed_out = !due.is_empty();
            // All guards before the first of them can drop into somebody else's code: what panics there leaves no grant unclosed.
            let answers: Vec<_> = due.drain(..).map(|wake| self.lane.answer(wake)).collect();
            // Outside the lock: a permit that nobody receives drops here and locks again.
            for (answer, waiting) in answers {
                drop(waiting.sender.send(answer));
            }
            if handed_out {
                continue;
            }
            match wake_at {
                Some(at) => drop(tokio::time::timeout_at(clock::instant(at), changed).await),
                None => changed.await,
            }
        }
    }
}

/// Whether another lane may serve a request that has waited in vain for a provider that fails.
pub(super) fn looks_again(wake: &Wake<Waiting>) -> bool {
    matches!(wake, Wake::Refused(Refusal::BreakerOpen { .. }, waiting) if waiting.movable)
}

impl Drop for Driver {
    /// Its runtime shuts down, or it panicked, while there were riders. They take their places again, wherever they are now.
    fn drop(&mut self) {
        let Some(riders) = self.riders.upgrade() else { return };
        self.lane.lock().riders.retain(|(_, others)| !Weak::ptr_eq(others, &self.riders));
        self.lane.scatter_those(|waiting| waiting.runtime == riders.runtime);
    }
}
