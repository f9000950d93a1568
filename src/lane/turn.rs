//! A request that waits: its place in the queue, and what it is told.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::BackingOff;
use super::driver::Riders;
use crate::clock;
use crate::engine::{Forecast, Moment, Refusal, Ticket};
use crate::permit::Held;

/// What a waiting request is told. What comes with it is a guard: if nobody receives it, its drop gives everything back.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It may be sent.
    Go(Held),
    /// It cannot be sent.
    Refused(Refusal),
    /// Another lane may serve it better; it has no place here any more. The guard keeps this lane from counting as idle
    /// until it has one there, and the ticket is the place, to be taken again.
    LookAgain(BackingOff, Option<Ticket>),
}

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(super) sender: oneshot::Sender<Answer>,
    /// Whether it could go elsewhere.
    pub(super) movable: bool,
    /// Where it waits.
    pub(super) runtime: Id,
}

impl Waiting {
    /// With the runtime where it waits, and where it hears the answer.
    ///
    /// # Panics
    /// Where nobody could be woken: outside of tokio, and without timers.
    // A timer is large: inlined, it would slow down who is granted at once.
    #[inline(never)]
    pub(super) fn here(movable: bool) -> (Self, Handle, oneshot::Receiver<Answer>) {
        let runtime = Handle::current();
        drop(tokio::time::sleep(Duration::ZERO));
        let (sender, answer) = oneshot::channel();
        (Self { sender, movable, runtime: runtime.id() }, runtime, answer)
    }
}

/// A request that has a place in its lane, or was granted one at once. Dropping it gives up the place; nothing was spent.
#[derive(Debug)]
pub(crate) enum Turn {
    Granted(Option<Held>),
    Queued(Queued),
    /// Nobody can be woken here any more. It ends with the runtime: dropped as its tasks are, or else by the panic of
    /// this timer.
    Adrift(Pin<Box<Sleep>>),
}

/// A place in the queue of a lane.
#[derive(Debug)]
pub(crate) struct Queued {
    pub(super) riders: Arc<Riders>,
    /// `None` once it is answered.
    pub(super) ticket: Option<Ticket>,
    pub(super) since: Moment,
    pub(super) answer: oneshot::Receiver<Answer>,
}

impl Turn {
    /// Since when it waits, if it has to.
    pub(crate) fn since(&self) -> Option<Moment> {
        match self {
            Turn::Granted(_) | Turn::Adrift(_) => None,
            Turn::Queued(queued) => Some(queued.since),
        }
    }

    /// See [`Waiter::explain`](crate::Waiter::explain).
    pub(crate) fn explain(&self) -> Option<Forecast> {
        match self {
            Turn::Granted(_) | Turn::Adrift(_) => None,
            Turn::Queued(Queued { riders, ticket, .. }) => {
                riders.lane.with(|machine| machine.explain(ticket.as_ref()?, clock::now()))
            }
        }
    }
}

impl Future for Turn {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Turn::Granted(held) => Poll::Ready(held.take().map_or(Answer::Refused(Refusal::Closed), Answer::Go)),
            Turn::Queued(queued) => {
                let Poll::Ready(answer) = Pin::new(&mut queued.answer).poll(context) else {
                    let guard = queued.leave_elsewhere();
                    return guard
                        .map_or(Poll::Pending, |guard| Poll::Ready(Answer::LookAgain(guard, queued.ticket.take())));
                };
                let place = queued.ticket.take();
                if matches!(answer, Ok(Answer::Refused(_))) {
                    // The driver has shortened the queue, but may not call listeners: it is told from here.
                    queued.riders.lane.change(|_| ());
                }
                Poll::Ready(match answer.unwrap_or(Answer::Refused(Refusal::Closed)) {
                    Answer::LookAgain(guard, _) => Answer::LookAgain(guard, place),
                    answer => answer,
                })
            }
            Turn::Adrift(timer) => {
                let _ = timer.as_mut().poll(context);
                Poll::Pending
            }
        }
    }
}

impl Queued {
    /// Gives up the place if this is another runtime than the one where it was taken, so that it is taken again here. Not
    /// outside of any, nor when the answer is on its way.
    fn leave_elsewhere(&self) -> Option<BackingOff> {
        let here = Handle::try_current().ok()?.id();
        if here == self.riders.runtime {
            return None;
        }
        let lane = &self.riders.lane;
        let mut state = lane.lock();
        let waiting = state.machine.cancel(self.ticket.as_ref()?)?;
        state.backing_off += 1;
        let guard = BackingOff(lane.clone());
        lane.release(state);
        // It wakes who listened for its answer.
        drop(waiting);
        Some(guard)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        if let Some(ticket) = &self.ticket {
            drop(self.riders.lane.change(|machine| machine.cancel(ticket)));
        }
    }
}
