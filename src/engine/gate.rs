//! One limit of a lane: its books, what the provider said about it, and how far the two are trusted.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::bucket::Bucket;
use crate::cost::{Charge, Dimension, Limit};
use crate::providers::Reading;

/// Where a limit's number comes from. A later one in this list is believed over an earlier one, except that nothing
/// raises a limit that the user configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
#[non_exhaustive]
pub enum Source {
    /// The embedded tier table.
    Tier {
        /// The tier's name.
        tier: String,
        /// When the number was read from the provider's page.
        as_of: String,
    },
    /// Configuration or [`set_limits`](crate::Scheduler::set_limits).
    Configured,
    /// A response header.
    Header,
}

/// Whether the provider corrects its own count when a request is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Settlement {
    /// What was charged at admission stays charged (Azure).
    Never,
    /// The charge is corrected to the real usage (Groq, Anthropic, Mistral).
    Always,
    /// Not published: assumed not to, until the headers show that it does (OpenAI).
    Learn,
}

/// Which of a gate's two books decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Books {
    /// Charges as they were at admission; only overruns are added.
    Kept,
    /// Charges corrected to the real usage.
    Settled,
}

/// Answers in a row that must show a refund before the settled book decides, and that must deny it before it no longer does.
const VOTES: u8 = 3;
/// How far the server's number may be from ours without meaning anything, as a share of the window: requests under way,
/// rounding, the age of the answer.
const NOISE: u32 = 60;
/// What may be sent before the first answer, besides one request of any size, as a share of the limit: a bucket that is
/// full at start is a guess, and a restart or another program makes it a wrong one.
const CAREFUL: u64 = 8;

/// One limit with its books.
///
/// Two books run side by side. The *kept* book never gives back what a finished request did not use, the *settled* book
/// does. Which one matches the provider's is known for some and shown by the `remaining` headers of others; until it is,
/// the kept book decides, since it can only be late.
#[derive(Debug)]
pub struct Gate {
    limit: Limit,
    source: Source,
    kept: Bucket,
    settled: Bucket,
    settlement: Settlement,
    active: Books,
    votes: u8,
    /// The allowance until the first answer.
    careful: Option<Careful>,
    blocked_until: Option<Instant>,
    before: Before,
    /// Everything ever charged, less what never reached the provider.
    spent: u64,
    /// What finished requests did not use of it, which counts only where the settled book decides: that may be learned late.
    unused: u64,
}

#[derive(Debug)]
struct Careful {
    allowance: Bucket,
    untouched: bool,
}

/// What a gate's books and the provider say; see [`LaneStatus`](super::LaneStatus).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GateStatus {
    /// The limit in force.
    pub limit: Limit,
    /// Where its number comes from.
    pub source: Source,
    /// What is left now; negative in debt.
    pub left: i64,
    /// Time until it is full again.
    pub full_in: Duration,
    /// Time until the provider's refusal is over, if there was one.
    pub blocked_for: Option<Duration>,
    /// Which book decides.
    pub books: Books,
    /// Everything charged since the start, less what was refunded.
    pub spent: u64,
}

/// A gate as it was before the last take, so that it can be undone as if nothing had happened: a refund would leave a
/// bucket that had been full for long as one that has just become full, and cost the margin.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    kept: u64,
    settled: u64,
    careful: u64,
    untouched: bool,
}

impl Gate {
    /// A gate for `limit`, full, that starts carefully (see [`Gate::answered`]).
    pub fn new(limit: Limit, source: Source, settlement: Settlement, margin: Duration, now: Instant) -> Self {
        // A margin near the window would starve limits per second.
        let margin = margin.min(limit.window / 4);
        let settlement = if limit.dimension == Dimension::Requests { Settlement::Never } else { settlement };
        let full = || Bucket::new(limit.amount, limit.window, now).with_margin(margin);
        Self {
            limit,
            source,
            kept: full(),
            settled: full(),
            settlement,
            active: if settlement == Settlement::Always { Books::Settled } else { Books::Kept },
            votes: 0,
            careful: Some(Careful {
                allowance: Bucket::new(limit.amount.div_ceil(CAREFUL), limit.window / CAREFUL as u32, now),
                untouched: true,
            }),
            blocked_until: None,
            before: Before::default(),
            spent: 0,
            unused: 0,
        }
    }

    /// The limit in force.
    pub fn limit(&self) -> Limit {
        self.limit
    }

    /// Whether `charge` could ever pass.
    pub fn can_hold(&self, charge: &Charge) -> bool {
        charge.get(self.limit.dimension) <= self.limit.amount
    }

    /// Takes `charge` if it fits now.
    pub(super) fn take(&mut self, charge: &Charge, now: Instant) -> bool {
        let n = charge.get(self.limit.dimension);
        self.before = self.mark();
        if n > 0 {
            if self.blocked_until.is_some_and(|until| now < until) {
                return false;
            }
            if let Some(careful) = &mut self.careful {
                if !careful.untouched && careful.allowance.ready_at(n, now) > now {
                    return false;
                }
                careful.allowance.charge(n, now);
                careful.untouched = false;
            }
            if !self.book().take(n, now) {
                self.restore();
                return false;
            }
            self.other_book().charge(n, now);
            self.spent = self.spent.saturating_add(n);
        }
        true
    }

    /// Puts back the `charge` that the last [`Gate::take`] took, when nothing has happened since.
    pub(super) fn put_back(&mut self, charge: &Charge) {
        self.restore();
        self.spent = self.spent.saturating_sub(charge.get(self.limit.dimension));
    }

    /// When `charge` fits, if nothing else happens. A charge larger than the limit stands for a queue of smaller ones.
    pub fn ready_at(&self, charge: &Charge, now: Instant) -> Instant {
        let n = charge.get(self.limit.dimension);
        if n == 0 {
            return now;
        }
        let book = if self.active == Books::Settled { &self.settled } else { &self.kept };
        let mut at = book.ready_at(n, now).max(self.blocked_until.unwrap_or(now));
        if let Some(careful) = self.careful.as_ref().filter(|careful| !careful.untouched) {
            at = at.max(careful.allowance.ready_at(n, now));
        }
        at
    }

    /// Gives back a charge that never reached the provider.
    pub fn refund(&mut self, charge: &Charge) {
        let n = charge.get(self.limit.dimension);
        self.kept.refund(n);
        self.settled.refund(n);
        self.spent = self.spent.saturating_sub(n);
        if let Some(careful) = &mut self.careful {
            careful.allowance.refund(n);
        }
    }

    /// Corrects a charge to what was really used. What the provider does not give back stays charged; more used than
    /// charged becomes debt. `unseen` is what the provider may not have seen yet, see [`Bucket::refund_late`].
    pub fn settle(&mut self, charged: &Charge, used: &Charge, unseen: &Charge, now: Instant) {
        let unseen = unseen.get(self.limit.dimension);
        let (charged, used) = (charged.get(self.limit.dimension), used.get(self.limit.dimension));
        if used >= charged {
            let more = used - charged;
            if more > 0 {
                self.kept.charge(more, now);
                self.settled.charge(more, now);
                self.spent = self.spent.saturating_add(more);
            }
        } else {
            self.settled.refund_late(charged - used, unseen, now);
            self.unused = self.unused.saturating_add(charged - used);
        }
    }

    /// Ends the careful start: the provider has answered, and [`Gate::read`] has taken what the answer showed.
    pub fn answered(&mut self) {
        self.careful = None;
    }

    /// Takes the server's own number. `unseen` is what was charged after the answered request and may not be in it;
    /// `idle` says that nothing else is under way, so that the number is the truth and not just a bound.
    pub fn read(&mut self, reading: &Reading, unseen: u64, idle: bool, now: Instant) {
        let Some(remaining) = reading.remaining else { return };
        let limit = reading.limit.unwrap_or(self.limit.amount);
        let used = limit.saturating_sub(remaining).saturating_add(reading.rounding);
        if self.settlement == Settlement::Learn && remaining > 0 {
            self.compare_books(used, unseen, now);
        }
        if idle && remaining > 0 {
            self.kept.set_used(used, now);
            self.settled.set_used(used, now);
        } else {
            self.book().tighten(used, now);
        }
    }

    /// A refusal of `charge`: nobody passes before `until`, and then one after another, as `charge` would have fitted.
    pub fn block(&mut self, charge: &Charge, until: Instant) {
        let n = charge.get(self.limit.dimension).min(self.limit.amount);
        self.kept.hold(n, until);
        self.settled.hold(n, until);
        self.blocked_until = self.blocked_until.max(Some(until));
    }

    /// Changes the number; what was spent stays spent.
    pub fn resize(&mut self, limit: Limit, source: Source, now: Instant) {
        if (limit.amount, limit.window) != (self.limit.amount, self.limit.window) {
            self.kept = self.kept.resized(limit.amount, limit.window, now);
            self.settled = self.settled.resized(limit.amount, limit.window, now);
            self.blocked_until = None;
        }
        self.limit = limit;
        self.source = source;
    }

    /// Whether a header may replace the number by `amount`.
    pub fn accepts(&self, amount: u64) -> bool {
        amount > 0 && (amount < self.limit.amount || (amount > self.limit.amount && self.source != Source::Configured))
    }

    /// The gate as it stands.
    pub fn status(&self, now: Instant) -> GateStatus {
        let book = if self.active == Books::Settled { &self.settled } else { &self.kept };
        GateStatus {
            limit: self.limit,
            source: self.source.clone(),
            left: book.level(now),
            full_in: book.full_at(now) - now,
            blocked_for: self.blocked_until.filter(|until| *until > now).map(|until| until - now),
            books: self.active,
            spent: if self.active == Books::Settled { self.spent.saturating_sub(self.unused) } else { self.spent },
        }
    }

    /// Holds the server's count against both books. Theoretical arrival times are compared, since they do not age: the
    /// server's is at most the settled book's if it settles, and at least the kept book's, less what it cannot have
    /// seen, if it does not.
    fn compare_books(&mut self, used: u64, unseen: u64, now: Instant) {
        let noise = self.kept.units_in(self.limit.window / NOISE);
        let server = self.kept.tat_of(used, now);
        let refunds_shown = server.saturating_add(self.kept.in_units(unseen)).saturating_add(noise) < self.kept.tat();
        let refunds_denied = server > self.settled.tat().saturating_add(noise);
        let vote = match self.active {
            Books::Kept => refunds_shown && !refunds_denied,
            Books::Settled => refunds_denied,
        };
        self.votes = if vote { self.votes + 1 } else { 0 };
        if self.votes < VOTES {
            return;
        }
        self.votes = 0;
        self.active = match self.active {
            Books::Kept => Books::Settled,
            Books::Settled => {
                // The kept book counted refunds that were really used for other requests; the server's number is the truth.
                self.kept.set_tat(self.settled.tat().max(server));
                Books::Kept
            }
        };
    }

    fn book(&mut self) -> &mut Bucket {
        if self.active == Books::Settled { &mut self.settled } else { &mut self.kept }
    }

    fn other_book(&mut self) -> &mut Bucket {
        if self.active == Books::Settled { &mut self.kept } else { &mut self.settled }
    }

    fn mark(&self) -> Before {
        Before {
            kept: self.kept.tat(),
            settled: self.settled.tat(),
            careful: self.careful.as_ref().map_or(0, |careful| careful.allowance.tat()),
            untouched: self.careful.as_ref().is_some_and(|careful| careful.untouched),
        }
    }

    fn restore(&mut self) {
        self.kept.set_tat(self.before.kept);
        self.settled.set_tat(self.before.settled);
        if let Some(careful) = &mut self.careful {
            careful.allowance.set_tat(self.before.careful);
            careful.untouched = self.before.untouched;
        }
    }
}
