//! What all connections share: the settings, the books and the counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::book::Admitted;
use super::clock::Clock;
use super::config::{MockConfig, MockLimits};
use super::ledger::{Ledger, Page};
use super::luck::{Fault, Luck, fault_at, scatter};
use super::shown::{Refusal, Standing};
use super::stats::{Stats, Tally};
use crate::cost::{Estimate, Usage};

pub(crate) struct Gate {
    pub(crate) config: MockConfig,
    pub(crate) clock: Clock,
    /// A std mutex: held for a few additions, never across an await.
    state: Mutex<State>,
    answers: AtomicU64,
}

struct State {
    ledger: Ledger,
    tally: Tally,
    arrivals: u64,
}

/// What becomes of a request at the gate.
pub(crate) enum Entry {
    Admitted {
        job: Job,
        standing: Standing,
        luck: Luck,
        fault: Option<Fault>,
    },
    Refused {
        refusal: Refusal,
        standing: Standing,
    },
    /// Refused by a fault, not by a limit.
    Spurious {
        standing: Standing,
    },
}

impl Gate {
    pub(crate) fn new(mut config: MockConfig) -> Self {
        let clock = Clock::start();
        config.started.get_or_insert(i64::try_from(clock.unix()).unwrap_or(0));
        let state = State { ledger: Ledger::new(&config), tally: Tally::default(), arrivals: 0 };
        Self { config, clock, state: Mutex::new(state), answers: AtomicU64::new(0) }
    }

    /// Draws this arrival's luck and asks the limits. The clock is read under the lock, so that time never runs backwards
    /// between two requests.
    pub(crate) fn enter(self: &Arc<Self>, key: &str, model: &str, request: &Estimate) -> Entry {
        let mut state = self.state();
        let now = self.clock.now();
        let mut luck = Luck::of(self.config.seed, state.arrivals);
        state.arrivals += 1;
        let drawn = luck.fault(&self.config.faults);
        let fault = fault_at(&self.config.outages, now).or(drawn);
        let page = state.ledger.page(key, model);
        let book = state.ledger.book(page);
        if fault == Some(Fault::Error429) {
            book.note_refusal(now);
            let standing = book.standing(now);
            state.tally.refused_by_fault();
            return Entry::Spurious { standing };
        }
        let admission = book.admit(request, now);
        let standing = book.standing(now);
        match admission {
            Ok(admitted) => {
                state.tally.admitted(now, admitted.tokens, fault);
                let job = Job { gate: Arc::clone(self), page, admitted, open: true };
                Entry::Admitted { job, standing, luck, fault }
            }
            Err(refusal) => {
                state.tally.refused(&refusal);
                Entry::Refused { refusal, standing }
            }
        }
    }

    pub(crate) fn count_unauthorised(&self) {
        self.state().tally.unauthorised();
    }

    pub(crate) fn count_invalid(&self) {
        self.state().tally.invalid();
    }

    pub(crate) fn set_limits(&self, limits: MockLimits) {
        let mut state = self.state();
        let now = self.clock.now();
        state.ledger.set_limits(now, limits);
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut state = self.state();
        let now = self.clock.now();
        Stats { limits: state.ledger.limits(now), ..state.tally.snapshot() }
    }

    /// An identifier for the next answer; the same sequence for the same seed.
    pub(crate) fn request_id(&self) -> String {
        let number = self.answers.fetch_add(1, Ordering::Relaxed);
        let high = scatter(self.config.seed ^ scatter(number));
        format!("req_{high:016x}{:016x}", scatter(high))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Poisoned only by a bug in this folder; the counts are still the best there are.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An admitted request that has not ended. Dropping it means that the client went away or gets no answer: the charge
/// stays, as the provider may have done the work.
pub(crate) struct Job {
    gate: Arc<Gate>,
    page: Page,
    admitted: Admitted,
    open: bool,
}

impl Job {
    /// The answer is complete: settles to what was really used.
    pub(crate) fn answered(mut self, input: u64, output: u64) -> Standing {
        self.open = false;
        let mut state = self.gate.state();
        state.tally.answered(input, output);
        self.settle(&mut state, Usage::new(input, output))
    }

    /// The answer is an error: no tokens were used.
    pub(crate) fn failed(mut self) {
        self.open = false;
        let mut state = self.gate.state();
        state.tally.failed();
        self.settle(&mut state, Usage::default());
    }

    fn settle(&self, state: &mut State, usage: Usage) -> Standing {
        let now = self.gate.clock.now();
        let book = state.ledger.book(self.page);
        let charged = book.settle(&self.admitted, &usage, now);
        Standing { charged: Some(charged), ..book.standing(now) }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if self.open {
            self.gate.state().tally.abandoned();
        }
    }
}
