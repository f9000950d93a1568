//! One limit of a lane: what is believed of it, what the provider said about it, and how far that is trusted.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::belief::{Belief, Room};
use super::bucket::Bucket;
use super::moment::Moment;
use super::paid::Paid;
use super::sight::{Doubtful, Sight};
use super::toll::Toll;
use super::watch::DayUse;
use crate::cost::{Charge, DAY, Dimension, HOUR, Limit, MINUTE, Shape};
use crate::providers::{self, Amounts, LimitHit, Reading, Rule, Rules};

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

/// What may be sent before the first answer, besides one request of any size, as a share of the limit: a bucket that is
/// full at start is a guess, and a restart or another program makes it a wrong one.
const CAREFUL: u64 = 8;
/// Readings that have to agree on a window that was computed from the first.
const AGREED: u8 = 3;
/// After a refusal that nothing explains, this many times the margin is kept back, for two quiet windows and a minute at least.
const DISTRUST: u32 = 3;
/// Usage above this many times the charge, plus the whole limit, is an error in the report. The excess is not booked, so that no
/// number makes a lane wait for much longer than one window.
const OVERRUN: u64 = 8;
/// When nobody knows the end of a day that is used up, one request tries this often: 24 refusals a day are no hammering, and no more
/// than an hour of the next day is lost.
const LOOK: Duration = HOUR;

/// What the gates of a lane have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ground {
    /// What is kept back for the jitter of the network.
    pub(super) margin: Duration,
    /// The time of day at an instant, for limits that go by the calendar.
    pub(super) wall: (Moment, SystemTime),
}

impl Ground {
    fn wall_at(&self, now: Moment) -> SystemTime {
        self.wall.1 + (now - self.wall.0)
    }
}

/// One limit with its books.
#[derive(Debug)]
pub(super) struct Gate {
    limit: Limit,
    source: Source,
    /// What the user configured: nothing raises it beyond that.
    most: Option<u64>,
    /// Since when this number is in force.
    since: Moment,
    /// What it was before a refusal told a smaller one.
    lowered: Option<Box<Lowered>>,
    belief: Belief,
    ground: Ground,
    /// The allowance at the start; and after a refusal of a limit that counts windows, or of a day that is used up, one request
    /// until it is answered.
    careful: Option<Careful>,
    blocked_until: Option<Moment>,
    /// Until when more than the usual margin is kept back.
    distrusted_until: Option<Moment>,
    /// When that began last, and for how long: it doubles where refusals keep coming, as beside another user of the limit.
    distrusted: (Moment, Duration),
    /// Readings that agreed with a window that was computed from a header; `None` where it is known.
    agreed: Option<u8>,
    /// What the server last said is left, and when.
    shown: Option<(u64, Moment)>,
    /// Everything ever charged, less what never reached the provider.
    spent: u64,
    /// The same at the last [look](Gate::look).
    looked: u64,
    /// What finished requests did not use of it, which counts only where real usage is charged: that may be learned late.
    unused: u64,
}

/// A number that a refusal or an earlier run told, and no header: some providers lower a limit for a while, and plans change. The one from
/// before is tried again now and then.
#[derive(Debug)]
struct Lowered {
    amount: u64,
    source: Source,
    /// `None` while it is tried.
    again_at: Option<Moment>,
    pause: Duration,
}

/// The pause before a number is tried again for the first time; it doubles, up to a day.
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(15 * 60);

/// What may be sent until the provider has answered.
#[derive(Debug)]
struct Careful {
    bucket: Bucket,
    /// Only an answer to what was sent at this time or later ends it.
    since: Moment,
    /// Whether a request that is larger than all of it leaves a debt.
    owes: bool,
}

impl Careful {
    /// One request, and another one each minute until one is answered.
    fn one(since: Moment) -> Self {
        Self { bucket: Bucket::new(1, MINUTE, since), since, owes: false }
    }

    /// What a request of `n` takes of it.
    fn takes(&self, n: u64) -> u64 {
        if self.owes { n } else { n.min(self.bucket.amount()) }
    }

    /// When `n` may go; one request of any size may whenever the allowance is full, and leaves it in debt.
    fn ready_at(&self, n: u64, now: Moment) -> Moment {
        self.bucket.ready_at(n.min(self.bucket.amount()), now)
    }
}

/// What a gate's books and the provider say; see [`LaneStatus`](super::LaneStatus).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GateStatus {
    /// The limit in force.
    pub limit: Limit,
    /// How it is enforced; more than one while that is not known, and then all of them are kept.
    pub shapes: Vec<Shape>,
    /// Slices that it may be cut into besides; they are tested.
    pub suspected: Vec<Shape>,
    /// What a request is charged; more than one while that is not known, and then all of them are kept.
    pub rules: Vec<Rule>,
    /// Where its number comes from.
    pub source: Source,
    /// What is left now; negative in debt.
    pub left: i64,
    /// Time until it is full again.
    pub full_in: Duration,
    /// Time until the provider's refusal is over, if there was one.
    pub blocked_for: Option<Duration>,
    /// Everything charged since the start, less what was refunded.
    pub spent: u64,
    /// What the requests that were answered well have taken for sure: their sum by the cheapest rule that is still possible. `None`
    /// if the limit was another one when the first of them was sent, or was not known.
    pub spent_least: Option<u64>,
}

impl GateStatus {
    /// The share of the limit that is in use; above 1 in debt.
    pub fn used(&self) -> f64 {
        (1.0 - self.left as f64 / self.limit.amount as f64).max(0.0)
    }
}

impl Gate {
    /// A gate for `limit`, full, that starts carefully (see [`Gate::answered`]).
    pub(super) fn new(
        limit: Limit,
        shape: Option<Shape>,
        rules: Rules,
        source: Source,
        ground: Ground,
        now: Moment,
    ) -> Self {
        let shape = limit.shape.or(shape);
        Self {
            limit,
            most: (source == Source::Configured).then_some(limit.amount),
            source,
            since: now,
            lowered: None,
            belief: Belief::new(limit, shape, rules, ground.margin, now, ground.wall_at(now)),
            ground,
            careful: Some(Careful {
                bucket: Bucket::new(limit.amount.div_ceil(CAREFUL), limit.window / CAREFUL as u32, now),
                since: Moment::BEGINNING,
                owes: true,
            }),
            blocked_until: None,
            distrusted_until: None,
            distrusted: (Moment::BEGINNING, Duration::ZERO),
            agreed: None,
            shown: None,
            spent: 0,
            looked: 0,
            unused: 0,
        }
    }

    /// The same gate, whose window was computed from one header and may turn out to be another.
    pub(super) fn tentative(self) -> Self {
        Self { agreed: Some(0), ..self }
    }

    /// The limit in force.
    pub(super) fn limit(&self) -> Limit {
        self.limit
    }

    fn amounts(&self, charge: &Charge) -> Amounts {
        Amounts::at_admission(self.limit.dimension, charge)
    }

    /// Whether `charge` could ever pass.
    pub(super) fn can_hold(&self, charge: &Charge) -> bool {
        self.belief.can_hold(&self.amounts(charge))
    }

    /// Whether it fits now.
    #[inline]
    pub(super) fn fits(&mut self, toll: &Toll, now: Moment) -> bool {
        let n = toll.most(self.limit.dimension);
        if n == 0 {
            return true;
        }
        if self.distrusted_until.is_some_and(|until| until <= now) {
            self.distrusted_until = None;
            self.belief.set_margin(self.ground.margin);
        }
        let careful = self.careful.as_ref().is_none_or(|careful| careful.ready_at(n, now) <= now);
        !self.is_blocked(now) && careful && self.belief.fits(toll.by_rule(self.limit.dimension), now)
    }

    /// Charges what fits; returns which suspected slices are overdrawn by it, to see if it is refused.
    #[inline]
    pub(super) fn charge(&mut self, toll: &Toll, now: Moment) -> u8 {
        let n = toll.most(self.limit.dimension);
        if n == 0 {
            return 0;
        }
        if let Some(careful) = &mut self.careful {
            careful.bucket.charge(careful.takes(n), now);
        }
        self.spent = self.spent.saturating_add(n);
        self.belief.charge(toll.by_rule(self.limit.dimension), now)
    }

    /// Takes what was sent before the gate was made by the headers of an answer to one of these.
    pub(super) fn take_over(&mut self, unanswered: &Paid, sent: Moment) {
        let amounts = unanswered.by_rule(self.limit.dimension);
        self.spent = self.spent.saturating_add(amounts[Rule::LargerPlusCap]);
        self.belief.charge(&amounts, sent);
    }

    /// So much was used that long ago, before the gate was made: what did not come back since is used still.
    pub(super) fn spent_before(&mut self, used: u64, age: Duration, now: Moment) {
        let of_today = match self.belief.shapes()[..] {
            [Shape::Calendar(zone)] => {
                providers::since_midnight(zone, self.ground.wall_at(now)).is_none_or(|today| age <= today)
            }
            _ => true,
        };
        if of_today && age < self.limit.window {
            let gone = self.belief.gone_since(now - age, now).0;
            // What was saved may be of a larger limit, or damaged.
            let left = used.min(self.limit.amount).saturating_sub(gone);
            self.belief.charge(&Amounts::all(left), now);
        }
    }

    /// When `charge` fits, if nothing else happens. A charge larger than the limit stands for a queue of smaller ones.
    pub(super) fn ready_at(&mut self, charge: &Charge, now: Moment) -> Moment {
        let n = charge.get(self.limit.dimension);
        if n == 0 {
            return now;
        }
        let mut at = self.belief.ready_at(&self.amounts(charge), now).max(self.blocked_until.unwrap_or(now));
        if let Some(careful) = &self.careful {
            at = at.max(careful.ready_at(n, now));
        }
        at
    }

    /// Gives back a charge that never reached the provider, taken at `at`; others were taken `since`.
    pub(super) fn refund(&mut self, charge: &Charge, since: &Charge, at: Moment, now: Moment) {
        let n = charge.get(self.limit.dimension);
        self.belief.refund(&self.amounts(charge), &Amounts::all(since.get(self.limit.dimension)), at, now);
        self.spent = self.spent.saturating_sub(n);
        if let Some(careful) = &mut self.careful {
            careful.bucket.refund(careful.takes(n));
        }
    }

    /// A request that was charged has ended, however.
    #[inline]
    pub(super) fn ended(&mut self, charge: &Charge) {
        if self.belief.is_gauge() {
            self.belief.ended(&self.amounts(charge));
        }
    }

    /// Corrects a charge that was taken at `at` to what was really used, by the rule of real usage: more used than charged
    /// becomes debt, though no more than [`OVERRUN`] lets it. `on_its_way` is what the provider may not have seen yet.
    pub(super) fn settle(&mut self, charged: &Charge, used: &Charge, on_its_way: &Charge, at: Moment, now: Moment) {
        let dimension = self.limit.dimension;
        if dimension == Dimension::Requests {
            return;
        }
        let chars = charged.input_by_chars;
        let charged = charged.get(dimension);
        let most = charged.saturating_mul(OVERRUN).saturating_add(self.limit.amount);
        let used_now = used.get(dimension).min(most);
        let input = if dimension == Dimension::OutputTokens { 0 } else { used.input_tokens.min(used_now) };
        let (output, on_its_way) = (used_now - input, on_its_way.get(dimension));
        self.belief.settle(Rule::Usage, charged, (input, output), on_its_way, at, now);
        if dimension == Dimension::Tokens {
            self.belief.settle(Rule::CharsThenOutput, charged, (chars, output), on_its_way, at, now);
        }
        self.spent = self.spent.saturating_add(used_now.saturating_sub(charged));
        self.unused = self.unused.saturating_add(charged.saturating_sub(used_now));
    }

    /// Ends the care: the provider has answered a request of `sent`, and what the answer showed has been taken.
    #[inline]
    pub(super) fn answered(&mut self, sent: Moment) {
        if self.careful.as_ref().is_some_and(|careful| careful.since <= sent) {
            self.careful = None;
        }
    }

    /// A request of `charge`, sent at `sent`, met a provider that fails, which says nothing of the limit: if it was the one that
    /// tries it, another one may.
    pub(super) fn unheard(&mut self, charge: &Charge, sent: Moment) {
        if let Some(careful) = self.careful.as_mut().filter(|careful| !careful.owes && careful.since <= sent) {
            careful.bucket.refund(careful.takes(charge.get(self.limit.dimension)));
        }
    }

    /// The server's own limit is larger, but no more than `remaining` is left of it.
    pub(super) fn left_at_most(&mut self, remaining: u64, now: Moment) {
        self.shown = Some((remaining, now));
        if let Some(used) = self.limit.amount.checked_sub(remaining).filter(|used| *used > 0) {
            self.belief.tighten(used, now);
        }
    }

    /// What the server's number shows of the limit; `None` if it shows nothing, or that of a larger limit.
    pub(super) fn sight(
        &self,
        reading: &Reading,
        between: (Moment, Moment),
        written: (Moment, Moment),
    ) -> Option<Sight> {
        let remaining = reading.remaining?;
        let limit = reading.limit.unwrap_or(self.limit.amount);
        // The level of a larger bucket, which fills faster, is not that of this one.
        if limit > self.limit.amount {
            return None;
        }
        let used = limit.saturating_sub(remaining).saturating_add(reading.rounding);
        let noise = match self.limit.dimension {
            Dimension::Requests => 2 + used / 100,
            _ => used / 40 + self.limit.amount / 2_000 + 2 * reading.rounding,
        };
        let (earliest, latest) = written;
        Some(Sight { used, noise, reset: reading.reset, between, earliest, latest })
    }

    /// What its numbers say of how many requests the server had not seen; see [`Belief::unseen`].
    pub(super) fn unseen(&mut self, sight: &Sight) -> Vec<(Shape, (u64, u64))> {
        self.belief.unseen(sight)
    }

    /// How much of what was used at `since` is used no more at `now`, at least and at most.
    pub(super) fn gone_since(&mut self, since: Moment, now: Moment) -> (u64, u64) {
        self.belief.gone_since(since, now)
    }

    /// Whether half a percent of the limit more was charged than at the last [look](Gate::look).
    pub(super) fn has_moved(&self) -> bool {
        self.spent.abs_diff(self.looked) >= (self.limit.amount / 200).max(1)
    }

    /// How it stands.
    pub(super) fn look(&mut self, now: Moment) -> DayUse {
        self.looked = self.spent;
        DayUse { limit: self.limit, used: self.used(now), blocked: self.is_blocked(now) }
    }

    /// Whether a refusal of the provider is not over yet.
    pub(super) fn is_blocked(&self, now: Moment) -> bool {
        self.blocked_until(now).is_some()
    }

    /// Until when a refusal of the provider holds everybody, if it is not over.
    pub(super) fn blocked_until(&self, now: Moment) -> Option<Moment> {
        self.blocked_until.filter(|until| now < *until)
    }

    /// What the books hold, by the hypothesis that binds.
    pub(super) fn used(&mut self, now: Moment) -> u64 {
        self.belief.used(now).0
    }

    /// Whether nothing of it is used, by any book.
    pub(super) fn is_full(&mut self, now: Moment) -> bool {
        self.belief.used(now).1 <= now
    }

    /// Takes the server's own number. Where it holds all that was ever sent, so that it is the truth and not a bound, `lacks` is what
    /// the answered request turned out to owe since it was written.
    pub(super) fn read(
        &mut self,
        reading: &Reading,
        sight: &Sight,
        doubtful: &Doubtful,
        unseen: &[(Shape, (u64, u64))],
        lacks: Option<u64>,
        now: Moment,
    ) {
        let remaining = reading.remaining.unwrap_or(0);
        self.shown = Some((remaining, now));
        if let Some(agreed) = self.agreed {
            self.settle_window(reading, agreed, now);
        }
        self.belief.learn(sight, doubtful, unseen);
        if let Some(owed) = lacks.filter(|_| remaining > 0) {
            self.belief.set_used(sight.used, owed, now);
        }
    }

    /// A window that was computed from a header that fits a refill: if the next ones do not agree, it is none, and the
    /// window is the shortest usual one that the resets leave possible.
    fn settle_window(&mut self, reading: &Reading, agreed: u8, now: Moment) {
        match reading.inferred_window() {
            Some(window) if window == self.limit.window => {
                self.agreed = (agreed + 1 < AGREED).then_some(agreed + 1);
            }
            None if reading.reset.is_none_or(|reset| reset.is_zero()) => {}
            _ => {
                let reset = reading.reset.unwrap_or_default();
                let window = [MINUTE, HOUR, DAY].into_iter().find(|window| reset <= *window).unwrap_or(DAY);
                self.agreed = None;
                let limit = Limit { window, ..self.limit };
                self.resize(limit, Source::Header, now);
            }
        }
    }

    /// A refusal of `charge`: nobody passes before `until`, and then one after another, as `charge` would have fitted.
    /// `hit` is what the refusal itself says of the limit, `on_its_way` what the provider may not have seen yet.
    pub(super) fn block(
        &mut self,
        charge: &Charge,
        hit: Option<LimitHit>,
        on_its_way: &Charge,
        until: Moment,
        now: Moment,
    ) {
        let n = charge.get(self.limit.dimension).min(self.limit.amount);
        let amounts = self.amounts(charge);
        let left = hit.and_then(|hit| hit.used).map(|used| self.limit.amount.saturating_sub(used));
        let shown = self.shown.filter(|(_, at)| *at == now).map(|(left, _)| left);
        // The provider may count the request by another rule than all that are known.
        let requested = hit.and_then(|hit| hit.requested).unwrap_or(n).max(1);
        let room = match left.or(shown) {
            None => Room::Unknown,
            Some(left) if left >= requested => Room::Left,
            Some(left) => {
                let used = self.limit.amount - left.min(self.limit.amount);
                Room::Short { used: used.saturating_add(on_its_way.get(self.limit.dimension)) }
            }
        };
        // Those of one volley are one refusal; after the wait, another one says that more than the margin is wrong.
        let distrusted = self.distrusted_until.is_some_and(|quiet| now < quiet);
        let new = self.blocked_until.is_none_or(|over| over <= now);
        let again = distrusted && new;
        self.belief.refused(&amounts, room, again, until - now, now, self.ground.wall_at(now));
        // `until` is the provider's own word; the larger margin would be waited for on top of it.
        let more = self.ground.margin * (DISTRUST - 1);
        self.belief.hold(&amounts, (until - more).max(now));
        self.belief.set_margin(self.ground.margin * DISTRUST);
        if new {
            let (since, quiet) = self.distrusted;
            let least = (self.limit.window * 2).clamp(MINUTE, MINUTE * 10);
            let quiet = if now - since < quiet * 2 { (quiet * 2).min(HOUR) } else { least };
            self.distrusted = (now, quiet);
        }
        self.distrusted_until = Some(until + self.distrusted.1);
        self.blocked_until = self.blocked_until.max(Some(until));
        // A bucket that refills lets those who wait go one by one anyway. A window would let all go at once, so one goes first.
        if !self.belief.refills() {
            self.careful = Some(Careful::one(until));
        }
    }

    /// A refusal of `charge`, sent at `sent`, says that a limit of a day is used up, and names no time that can be meant: it
    /// is left alone for as long as its shape says, and then tried by one request. `used` is what the refusal says was used.
    /// Returns until when.
    pub(super) fn used_up(&mut self, charge: &Charge, used: Option<u64>, sent: Moment, now: Moment) -> Moment {
        let used = used.unwrap_or(self.limit.amount);
        let age = |zone| providers::since_midnight(zone, self.ground.wall_at(now)).unwrap_or(DAY);
        let until = match self.belief.shapes()[..] {
            // Of the day that is over, it says nothing about this one.
            [Shape::Calendar(zone)] if now - sent > age(zone) => return now,
            // So it may be by the provider's clock, if that is late: asked again when the day is twice as old.
            [Shape::Calendar(zone)] if age(zone) < LOOK => now + age(zone).max(MINUTE),
            [Shape::Calendar(_) | Shape::Refill] => {
                let (amounts, own) = (self.amounts(charge), self.belief.used(now).0);
                self.belief.set_used(used.max(own), 0, now);
                self.belief.ready_at(&amounts, now)
            }
            _ => now + LOOK,
        };
        let hit = LimitHit { used: Some(used), ..self.limit.into() };
        self.block(charge, Some(hit), &Charge::default(), until, now);
        self.careful = Some(Careful::one(until));
        until
    }

    /// A request that was let pass to see if it is refused was answered.
    pub(super) fn test_passed(&mut self, overdrawn: u8, sent: Moment, now: Moment) {
        self.belief.test_passed(overdrawn, sent, now);
    }

    /// Takes what was known of the limit before.
    pub(super) fn recall(&mut self, shapes: &[Shape], suspected: &[Shape], rules: Rules, now: Moment) {
        self.belief.recall(shapes, suspected, rules, now, self.ground.wall_at(now));
    }

    /// Changes the number; what was spent stays spent.
    pub(super) fn resize(&mut self, limit: Limit, source: Source, now: Moment) {
        let reshaped = limit.shape.is_some_and(|shape| self.limit.shape != Some(shape));
        let limit = Limit { shape: limit.shape.or(self.limit.shape), ..limit };
        if reshaped {
            // What was used of it was used just now, for all that the new books know.
            let used = self.belief.used(now).0;
            let wall = self.ground.wall_at(now);
            self.belief = Belief::new(limit, limit.shape, self.belief.all_rules(), self.ground.margin, now, wall);
            // A gauge holds what is under way, and that is not known.
            if !self.belief.is_gauge() {
                self.belief.charge(&Amounts::all(used), now);
            }
        }
        if (limit.amount, limit.window) != (self.limit.amount, self.limit.window) {
            self.belief.resize(limit, now);
            self.blocked_until = None;
            if self.careful.as_ref().is_some_and(|careful| careful.since > now) {
                self.careful = None;
            }
            self.since = now;
        }
        self.limit = limit;
        self.lowered = None;
        self.most = match source {
            Source::Configured => Some(limit.amount),
            Source::Tier { .. } => None,
            Source::Header => self.most,
        };
        self.source = source;
    }

    /// Takes a number that is told in words.
    pub(super) fn lower(&mut self, limit: Limit, now: Moment) {
        let (amount, source) = (self.limit.amount, self.source.clone());
        let lowered = match self.lowered.take() {
            Some(known) => Lowered { pause: (known.pause * 2).min(DAY), ..*known },
            None => Lowered { amount, source, again_at: None, pause: TRIED_AGAIN_AFTER },
        };
        self.resize(limit, Source::Header, now);
        if lowered.amount > limit.amount {
            let again_at = Some(now + lowered.pause);
            self.lowered = Some(Box::new(Lowered { again_at, ..lowered }));
        }
    }

    /// When a larger number from before is to be tried again.
    pub(super) fn raised_at(&self) -> Option<Moment> {
        self.lowered.as_ref()?.again_at
    }

    /// Tries it.
    pub(super) fn raise(&mut self, now: Moment) {
        let Some(mut known) = self.lowered.take() else { return };
        let limit = Limit { amount: known.amount, ..self.limit };
        self.resize(limit, known.source.clone(), now);
        known.again_at = None;
        self.lowered = Some(known);
    }

    /// The number is what a header shows.
    pub(super) fn confirm(&mut self) {
        self.lowered = None;
    }

    /// Whether the user has set the number since then.
    pub(super) fn is_newer_than(&self, sent: Moment) -> bool {
        self.source == Source::Configured && self.since > sent
    }

    /// What the number becomes where a header shows `amount`, if that is another one.
    pub(super) fn corrected(&self, amount: u64) -> Option<u64> {
        let amount = self.most.map_or(amount, |most| amount.min(most));
        (amount > 0 && amount != self.limit.amount).then_some(amount)
    }

    /// What was taken for sure of what each rule takes; see [`GateStatus::spent_least`]. `first` is when the first request went.
    pub(super) fn spent_least(&self, taken: &Paid, first: Option<Moment>) -> Option<u64> {
        // A window that was computed from a header may be another one until the next headers agree.
        let known = self.agreed.is_none() && first.is_none_or(|first| self.since <= first);
        let by_rule = taken.by_rule(self.limit.dimension);
        known.then(|| self.belief.rules().iter().map(|rule| by_rule[rule]).min().unwrap_or(0))
    }

    /// The gate as it stands, where `taken` is what was answered well since `first`.
    pub(super) fn status(&mut self, taken: &Paid, first: Option<Moment>, now: Moment) -> GateStatus {
        let (used, full_at) = self.belief.used(now);
        let rules = self.belief.rules();
        let left = i128::from(self.limit.amount) - i128::from(used);
        GateStatus {
            limit: self.limit,
            shapes: self.belief.shapes(),
            suspected: self.belief.suspected(),
            rules: rules.iter().collect(),
            source: self.source.clone(),
            left: left.clamp(i64::MIN.into(), i64::MAX.into()) as i64,
            full_in: full_at - now,
            blocked_for: self.blocked_until(now).map(|until| until - now),
            spent: if rules == Rules::of(&[Rule::Usage]) { self.spent.saturating_sub(self.unused) } else { self.spent },
            spent_least: self.spent_least(taken, first),
        }
    }
}
