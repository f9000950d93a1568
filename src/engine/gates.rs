//! All limits of a lane together: a request passes every gate or none.

use std::time::{Duration, SystemTime};

use super::around::{Around, Stamps};
use super::change::Change;
use super::gate::{Gate, GateStatus, Ground, Source};
use super::moment::Moment;
use super::paid::Paid;
use super::sight::Doubtful;
use super::toll::Toll;
use super::watch::DayUses;
use crate::cost::{Charge, DAY, Dimension, HOUR, Limit, MINUTE, Shape};
use crate::providers::{self, LimitHit, Provider, Reading, Rule, Rules};

/// The gates of one lane.
///
/// ```
/// use std::time::Duration;
/// use tollgate::engine::{Gates, Moment, Source};
/// use tollgate::{Charge, Limit, Provider};
///
/// let now = Moment::START;
/// let mut gates = Gates::new(Provider::Openai, Duration::ZERO);
/// gates.set(&[(Limit::rpm(500), Source::Configured), (Limit::tpm(30_000), Source::Configured)], now);
/// gates.answered(now);
///
/// assert!(gates.reserve(&Charge::tokens(25_000, 0), now).is_ok());
/// let wait = gates.reserve(&Charge::tokens(10_000, 0), now).unwrap_err();
/// assert_eq!(wait.limit, Limit::tpm(30_000));
/// assert_eq!(wait.until - now, Duration::from_secs(10));
/// ```
#[derive(Debug)]
pub struct Gates {
    gates: Vec<Gate>,
    provider: Provider,
    /// The charge rules that are possible, where the user knows better than the provider's profile.
    rules: Option<Rules>,
    margin: Duration,
    wall: Option<(Moment, SystemTime)>,
    /// Whether the provider has answered; new gates start carefully until it has.
    answered: bool,
    stamps: Stamps,
    /// The gate that a header of each dimension was last read for.
    fed: [Option<usize>; 4],
    /// When the first number is tried again that was larger before.
    raise_at: Option<Moment>,
    changes: Vec<Change>,
}

/// Why a request has to wait: the limit that holds it longest, and until when all limits would let it pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The binding limit.
    pub limit: Limit,
    /// When the request fits, if nothing else happens.
    pub until: Moment,
}

/// The suspected slices that a request overdrew: a byte for each gate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overdrawn(u64);

/// What goes beyond is counted by this window: sums of instants must not overflow.
const LONGEST_WINDOW: Duration = Duration::from_secs(366 * 86_400);
impl Gates {
    /// No limits yet. Their shapes and charge rules are those of `provider`'s profile where that knows them; `margin` is
    /// kept back for the jitter of the network (see [`Bucket::with_margin`](super::Bucket::with_margin)).
    pub fn new(provider: Provider, margin: Duration) -> Self {
        Self {
            gates: Vec::new(),
            provider,
            rules: None,
            margin: margin.min(LONGEST_WINDOW),
            wall: None,
            answered: false,
            stamps: Stamps::default(),
            fed: [None; 4],
            raise_at: None,
            changes: Vec::new(),
        }
    }

    /// Charges by one of `rules`, whatever the provider's profile says.
    #[must_use]
    pub fn charged_by(mut self, rules: Rules) -> Self {
        self.rules = Some(rules);
        self
    }

    /// What the time of day is at `now`, for limits that go by the calendar. Without it, their days end 24 hours after
    /// they were set.
    #[must_use]
    pub fn at_time_of_day(mut self, now: Moment, wall: SystemTime) -> Self {
        self.wall = Some((now, wall));
        self
    }

    /// Makes `limits` the limits: those of the same dimension and window change their number and keep what was spent,
    /// others appear full or disappear.
    pub fn set(&mut self, limits: &[(Limit, Source)], now: Moment) {
        self.gates.retain(|gate| limits.iter().any(|(limit, _)| same_kind(limit, &gate.limit())));
        self.fed = [None; 4];
        for (limit, source) in limits {
            self.set_one(*limit, source.clone(), now);
        }
    }

    /// Takes what was known of a limit before: a number that a header showed makes a gate where nobody configured one, and
    /// shapes and rules that were ruled out stay so where the number is still the same.
    pub fn recall(
        &mut self,
        limit: Limit,
        from_header: bool,
        shapes: &[Shape],
        suspected: &[Shape],
        rules: &[Rule],
        now: Moment,
    ) {
        let shapes: Vec<_> = shapes.iter().map(bounded).collect();
        let found = self.gates.iter().position(|gate| same_kind(&limit, &gate.limit()));
        let index = match found {
            Some(index) if self.gates[index].limit().amount == limit.amount => index,
            // A header's number is newer than the tier table's; nothing that is configured is raised.
            Some(index) if from_header && self.gates[index].corrected(limit.amount) == Some(limit.amount) => {
                self.lower(index, limit, now);
                index
            }
            None if from_header => self.set_one(limit, Source::Header, now),
            _ => return,
        };
        self.gates[index].recall(&shapes, suspected, Rules::of(rules), now);
    }

    /// So much of a limit was used that long ago, before it was made.
    pub fn spent_before(&mut self, limit: &Limit, used: u64, age: Duration, now: Moment) {
        if let Some(gate) = self.gates.iter_mut().find(|gate| same_kind(limit, &gate.limit())) {
            gate.spent_before(used, age, now);
        }
    }

    /// Whether no limit is known.
    pub fn is_empty(&self) -> bool {
        self.gates.is_empty()
    }

    /// Whether the provider may still tell a limit that nobody configured: it has not answered yet, and its answers have
    /// such headers.
    pub fn expects_limits(&self) -> bool {
        self.gates.is_empty() && !self.answered && self.provider != Provider::Gemini
    }

    /// The limit that could never hold `charge`, if there is one.
    pub fn too_small_for(&self, charge: &Charge) -> Option<Limit> {
        self.gates.iter().find(|gate| !gate.can_hold(charge)).map(Gate::limit)
    }

    /// Takes `charge` from every gate, or from none and says which one binds. Where the request was let pass to see if it is
    /// refused, tell [`Gates::test_passed`] if it is not.
    ///
    /// # Errors
    /// When it does not fit now.
    #[inline]
    pub fn reserve(&mut self, charge: &Charge, now: Moment) -> Result<Overdrawn, Wait> {
        if self.raise_at.is_some_and(|at| at <= now) {
            self.raise(now);
        }
        let toll = Toll::of(charge);
        if let Some(refusing) = self.gates.iter_mut().position(|gate| !gate.fits(&toll, now)) {
            // A gate that refused is a gate that is not ready; the default only satisfies the type.
            return Err(self.wait(charge, now).unwrap_or(Wait { limit: self.gates[refusing].limit(), until: now }));
        }
        let mut overdrawn = Overdrawn::default();
        for (i, gate) in self.gates.iter_mut().enumerate() {
            overdrawn.0 |= u64::from(gate.charge(&toll, now)) << (8 * i.min(7));
        }
        Ok(overdrawn)
    }

    /// Tries numbers again that were larger before somebody told a smaller one.
    #[cold]
    fn raise(&mut self, now: Moment) {
        for index in 0..self.gates.len() {
            if self.gates[index].raised_at().is_some_and(|at| at <= now) {
                let before = self.gates[index].limit();
                self.gates[index].raise(now);
                self.note(Some(before), index);
            }
        }
        self.raise_at = self.gates.iter().filter_map(Gate::raised_at).min();
    }

    /// A number that only words tell.
    fn lower(&mut self, index: usize, limit: Limit, now: Moment) {
        self.gates[index].lower(limit, now);
        self.raise_at = self.gates.iter().filter_map(Gate::raised_at).min();
    }

    /// What holds `charge` longest; `None` when it fits now. A charge larger than a limit stands for a queue of requests.
    pub fn wait(&mut self, charge: &Charge, now: Moment) -> Option<Wait> {
        let waits = self.gates.iter_mut().map(|gate| Wait { limit: gate.limit(), until: gate.ready_at(charge, now) });
        waits.max_by_key(|wait| wait.until).filter(|wait| wait.until > now)
    }

    /// Gives back a charge of `at` that never reached the provider; others were taken `since`.
    pub fn refund(&mut self, charge: &Charge, since: &Charge, at: Moment, now: Moment) {
        self.gates.iter_mut().for_each(|gate| gate.refund(charge, since, at, now));
    }

    /// A request that was charged has ended, however: it is under way no more.
    #[inline]
    pub fn ended(&mut self, charge: &Charge) {
        self.gates.iter_mut().for_each(|gate| gate.ended(charge));
    }

    /// Corrects a charge of `at` to what was really used, where real usage is what counts in the end. More used than charged
    /// becomes debt. `on_its_way` is what the provider may not have seen yet.
    pub fn settle(&mut self, charged: &Charge, used: &Charge, on_its_way: &Charge, at: Moment, now: Moment) {
        // Who counts at completion counts the whole usage then, so all of it leaves the window together.
        let input_tokens = if providers::counts_when_done(self.provider) { 0 } else { used.input_tokens };
        let used = &Charge { input_tokens, ..*used };
        self.gates.iter_mut().for_each(|gate| gate.settle(charged, used, on_its_way, at, now));
    }

    /// The provider has answered a request of `sent`: what was let go with care before that goes freely.
    #[inline]
    pub fn answered(&mut self, sent: Moment) {
        self.answered = true;
        self.gates.iter_mut().for_each(|gate| gate.answered(sent));
    }

    /// A request of `charge`, sent at `sent`, met a provider that fails: who tries a limit that was refused tries it once more.
    pub fn unheard(&mut self, charge: &Charge, sent: Moment) {
        self.gates.iter_mut().for_each(|gate| gate.unheard(charge, sent));
    }

    /// A request of `sent` that was let pass to see if it is refused was not.
    pub fn test_passed(&mut self, overdrawn: Overdrawn, sent: Moment, now: Moment) {
        for (i, gate) in self.gates.iter_mut().enumerate() {
            gate.test_passed((overdrawn.0 >> (8 * i.min(7))) as u8, sent, now);
        }
    }

    /// Takes what the headers of an answer show: each reading goes to the gate that it speaks of, changes its number if
    /// the server's is another, and makes a new gate where nobody configured one.
    pub(super) fn read(&mut self, readings: &[Reading], around: &Around, now: Moment) {
        let mut unseen = Vec::new();
        // The last answer to come back is rarely the last that was admitted: stamped then, it knows nothing of the others.
        let complete = around.idle && (around.unanswered.requests <= 1 || self.stamps.at_completion());
        // Requests first: their count tells which of the others' tokens the server had seen.
        let (requests, others): (Vec<_>, Vec<_>) =
            readings.iter().partition(|reading| reading.dimension == Dimension::Requests);
        let known = self.gates.len();
        let mut found: Vec<(usize, Reading)> = Vec::new();
        for reading in requests.into_iter().chain(others) {
            // A gate that it makes has been there since the request was sent.
            let Some(index) = self.gate_of(reading, around.sent) else { continue };
            self.fed[reading.dimension as usize] = Some(index);
            match found.iter_mut().find(|(other, _)| *other == index) {
                Some((_, other)) => *other = other.tighter(reading),
                None => found.push((index, reading.clone())),
            }
        }
        for (index, reading) in found {
            let reading = &reading;
            if index >= known {
                self.gates[index].take_over(&around.unanswered, around.sent);
            }
            let shown = self.gates[index].limit();
            let new = reading.limit.filter(|_| !self.gates[index].is_newer_than(around.sent));
            if let Some(amount) = new.and_then(|amount| self.gates[index].corrected(amount)) {
                self.gates[index].resize(Limit { amount, ..shown }, Source::Header, now);
            }
            if new.is_some() {
                self.gates[index].confirm();
            }
            self.note((index < known).then_some(shown), index);
            let written = self.stamps.written(around.sent, now);
            let gate = &mut self.gates[index];
            let Some(mut sight) = gate.sight(reading, (around.sent, now.max(around.sent)), written) else {
                if let Some(remaining) = reading.remaining {
                    gate.left_at_most(remaining, now);
                }
                continue;
            };
            if shown.dimension == Dimension::Requests {
                sight.noise += around.refused;
                // Too few in between could be anything.
                if around.later.surely.saturating_sub(around.later.lately) >= 8.max(sight.used / 20) {
                    let gone = gate.gone_since(around.sent, now);
                    self.stamps.learn(sight.used, gate.used(now), &around.later, gone);
                }
                unseen = gate.unseen(&sight);
            }
            let doubtful = self.doubtful(shown.dimension, around);
            let of_requests: &[_] = if shown.dimension == Dimension::Requests { &[] } else { &unseen };
            let before = self.gates[index].limit();
            let owed = if self.stamps.at_completion() { 0 } else { around.owed.get(before.dimension) };
            let lacks = complete.then_some(owed);
            self.gates[index].read(reading, &sight, &doubtful, of_requests, lacks, now);
            // It may have found another window.
            self.note(Some(before), index);
        }
    }

    /// Which requests the server may not have seen when it wrote its number down: any that was not answered. A burst may
    /// take seconds to get there.
    fn doubtful(&self, dimension: Dimension, around: &Around) -> Doubtful {
        let undone = around.unanswered.by_rule(dimension);
        Doubtful {
            requests: around.unanswered.requests,
            amounts: undone,
            // The one that was answered it has seen.
            unseen: (0, around.unanswered.requests.saturating_sub(1)),
            deviation: if dimension == Dimension::Requests { 0.0 } else { around.deviation },
            undone: (undone[Rule::Usage], if dimension == Dimension::Tokens { undone[Rule::Tokens] } else { 0 }),
            undone_by_chars: (undone[Rule::CharsThenOutput], undone[Rule::Chars]),
            given_back: around.given_back.get(dimension),
        }
    }

    /// Blocks the gate that a refusal names, which is made if nobody configured it. A refusal that names none blocks the
    /// gates whose windows are no longer than the wait or a minute, those of one dimension if it names that. `on_its_way` is what
    /// the provider may not have seen yet. Returns whether there was any to block.
    pub fn block(
        &mut self,
        hit: Option<LimitHit>,
        charge: &Charge,
        on_its_way: &Charge,
        wait: Duration,
        now: Moment,
    ) -> bool {
        let until = now + wait;
        if let Some(hit) = hit.filter(|hit| hit.as_limit().is_some()) {
            let gate = self.named(&hit, now);
            let hit = Some(hit);
            return gate.map(|index| self.gates[index].block(charge, hit, on_its_way, until, now)).is_some();
        }
        let longest = wait.max(MINUTE);
        let meant = |limit: Limit| match hit {
            Some(hit) if hit.dimension != limit.dimension => false,
            Some(LimitHit { window: Some(window), .. }) => limit.window == window,
            _ => limit.window <= longest,
        };
        let mut blocked = false;
        for gate in self.gates.iter_mut().filter(|gate| meant(gate.limit())) {
            gate.block(charge, None, on_its_way, until, now);
            blocked = true;
        }
        blocked
    }

    /// As [`Gates::block`], for a limit of a day that is used up until a time that the refusal does not name: until
    /// then it is left alone, and then one request tries it. The refused one was sent at `sent`. Returns until when; `None` if
    /// there is nothing to block.
    pub fn used_up(&mut self, hit: &LimitHit, charge: &Charge, sent: Moment, now: Moment) -> Option<Moment> {
        let index = self.named(hit, now)?;
        Some(self.gates[index].used_up(charge, hit.used, sent, now))
    }

    /// The gate of a limit that a refusal names, which takes its number where that is told.
    fn named(&mut self, hit: &LimitHit, now: Moment) -> Option<usize> {
        let named = |amount| Some(Limit::new(hit.dimension, amount, hit.window?));
        let kind = named(0)?;
        let known = self.gates.iter().position(|gate| same_kind(&kind, &gate.limit()));
        let before = known.map(|index| self.gates[index].limit());
        let new = match known {
            Some(index) => hit.limit.and_then(|amount| self.gates[index].corrected(amount)),
            None => Some(hit.limit.filter(|amount| *amount > 0)?),
        };
        let index = match (new, known) {
            (Some(amount), Some(index)) => {
                self.lower(index, named(amount)?, now);
                index
            }
            (Some(amount), None) => self.set_one(named(amount)?, Source::Header, now),
            (None, known) => known?,
        };
        self.note(before, index);
        Some(index)
    }

    /// Until when a limit of a day holds everybody, as a refusal said.
    pub(super) fn day_over_at(&self, now: Moment) -> Option<Moment> {
        self.gates.iter().filter(|gate| is_of_day(gate)).filter_map(|gate| gate.blocked_until(now)).max()
    }

    /// The gates as they stand, where `taken` is what was answered well since `first`.
    pub(super) fn status(&mut self, taken: &Paid, first: Option<Moment>, now: Moment) -> Vec<GateStatus> {
        self.gates.iter_mut().map(|gate| gate.status(taken, first, now)).collect()
    }

    /// Whether nothing of any limit is used.
    pub(super) fn are_full(&mut self, now: Moment) -> bool {
        self.gates.iter_mut().all(|gate| gate.is_full(now) && !gate.is_blocked(now))
    }

    /// Whether there is a limit per day or longer.
    pub(super) fn has_day_limit(&self) -> bool {
        self.gates.iter().any(is_of_day)
    }

    /// Whether half a percent more was charged to one of them than at the last look.
    pub(super) fn day_has_moved(&self) -> bool {
        self.gates.iter().any(|gate| is_of_day(gate) && gate.has_moved())
    }

    /// How those limits stand.
    pub(super) fn day_use(&mut self, now: Moment) -> DayUses {
        self.gates.iter_mut().filter(|gate| is_of_day(gate)).map(|gate| gate.look(now)).collect()
    }

    /// How the provider's answers changed limits since this was last asked.
    pub(super) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn note(&mut self, before: Option<Limit>, index: usize) {
        let now = self.gates[index].limit();
        // Where nobody asks, they must not pile up.
        if before != Some(now) && self.changes.len() < 16 {
            self.changes.push(Change::Limit { before, now });
        }
    }

    fn set_one(&mut self, limit: Limit, source: Source, now: Moment) -> usize {
        let (window, shape) = (limit.window.min(LONGEST_WINDOW), limit.shape.as_ref().map(bounded));
        let limit = Limit { window, shape, ..limit };
        if let Some(index) = self.gates.iter().position(|gate| same_kind(&limit, &gate.limit())) {
            self.gates[index].resize(limit, source, now);
            return index;
        }
        let gate = self.new_gate(limit, source, now);
        self.gates.push(gate);
        self.gates.len() - 1
    }

    fn new_gate(&self, limit: Limit, source: Source, now: Moment) -> Gate {
        let own = Rules::of_provider(self.provider, limit.dimension);
        let rules = match self.rules {
            Some(rules) if limit.dimension != Dimension::Requests => rules,
            _ => own,
        };
        let wall = self.wall.unwrap_or((now, SystemTime::UNIX_EPOCH));
        let ground = Ground { margin: self.margin, wall };
        let mut gate = Gate::new(limit, providers::shape_of(self.provider, &limit), rules, source, ground, now);
        if self.answered {
            gate.answered(now);
        }
        gate
    }

    /// The gate that `reading` speaks of: by its window where the header tells that, else by its number, else by the
    /// window that is computed from it, else the one that the same header was read for before. A limit that nobody
    /// configured becomes a gate.
    fn gate_of(&mut self, reading: &Reading, since: Moment) -> Option<usize> {
        let amount = reading.limit?;
        let of_dimension = |gate: &Gate| gate.limit().dimension == reading.dimension;
        let position = |gates: &[Gate], fits: &dyn Fn(Limit) -> bool| {
            gates.iter().position(|gate| of_dimension(gate) && fits(gate.limit()))
        };
        if let Some(window) = reading.window {
            let found = position(&self.gates, &|limit| limit.window == window);
            return found.or_else(|| {
                let limit = Limit::new(reading.dimension, amount, window);
                (amount > 0).then(|| self.set_one(limit, Source::Header, since))
            });
        }
        let computed = match providers::shape_of(self.provider, &Limit::new(reading.dimension, amount, MINUTE)) {
            None | Some(Shape::Refill) => reading.inferred_window(),
            Some(Shape::Slice(length)) => return self.gate_of_slice(reading, amount, length, since),
            Some(_) => None,
        };
        let found = position(&self.gates, &|limit| limit.amount == amount && Some(limit.window) == computed)
            .or_else(|| position(&self.gates, &|limit| limit.amount == amount))
            .or_else(|| position(&self.gates, &|limit| Some(limit.window) == computed))
            .or(self.fed[reading.dimension as usize]);
        if found.is_some() || amount == 0 {
            return found;
        }
        // Where it cannot be computed, as from a reset that is cut to zero, it is a minute until it can.
        let window = computed.unwrap_or(match reading.reset {
            Some(reset) if reset > HOUR => DAY,
            _ => MINUTE,
        });
        // Configured limits of this dimension are all there are, unless the header's window says that this is another.
        if computed.is_none() && self.gates.iter().any(of_dimension) {
            return None;
        }
        let limit = Limit::new(reading.dimension, amount, window);
        let gate = self.new_gate(limit, Source::Header, since).tentative();
        self.gates.push(gate);
        Some(self.gates.len() - 1)
    }

    /// The same where limits are cut into slices of `length`, as Azure does: a header that tells no window speaks of the whole
    /// limit if that has this number, and else of a slice of it, which is a limit of its own.
    fn gate_of_slice(&mut self, reading: &Reading, amount: u64, length: Duration, since: Moment) -> Option<usize> {
        let whole = |limit: Limit| limit.dimension == reading.dimension && limit.amount == amount;
        let limit = Limit::new(reading.dimension, amount, length);
        let found = self.gates.iter().position(|gate| whole(gate.limit()) || same_kind(&limit, &gate.limit()));
        found.or_else(|| (amount > 0).then(|| self.set_one(limit, Source::Header, since)))
    }
}

/// Slices are no longer than windows may be.
fn bounded(shape: &Shape) -> Shape {
    if let Shape::Slice(length) = shape { Shape::Slice((*length).min(LONGEST_WINDOW)) } else { *shape }
}

fn is_of_day(gate: &Gate) -> bool {
    gate.limit().window >= DAY
}

fn same_kind(a: &Limit, b: &Limit) -> bool {
    (a.dimension, a.window) == (b.dimension, b.window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Dimension;
    use crate::engine::around::Later;

    fn gates(limits: &[Limit], now: Moment) -> Gates {
        let mut gates = Gates::new(Provider::Openai, Duration::ZERO);
        gates.set(&configured(limits), now);
        gates.answered(now);
        gates
    }

    fn configured(limits: &[Limit]) -> Vec<(Limit, Source)> {
        limits.iter().map(|limit| (*limit, Source::Configured)).collect()
    }

    fn around(now: Moment) -> Around {
        Around {
            sent: now,
            later: Later::default(),
            unanswered: Paid::default(),
            given_back: Charge::default(),
            owed: Charge::default(),
            deviation: 0.0,
            refused: 0,
            idle: false,
        }
    }

    fn left(gates: &mut Gates, now: Moment) -> Vec<i64> {
        gates.status(&Paid::default(), None, now).iter().map(|gate| gate.left).collect()
    }

    #[test]
    fn a_refusal_by_one_gate_costs_nothing_in_another() {
        let now = Moment::START;
        let mut gates = gates(&[Limit::rpm(10), Limit::tpm(1_000), Limit::tpd(1_500)], now);
        assert!(gates.reserve(&Charge::tokens(900, 0), now).is_ok());
        let wait = gates.reserve(&Charge::tokens(700, 0), now).unwrap_err();
        assert_eq!(wait.limit, Limit::tpd(1_500), "the day limit holds longest");
        assert_eq!(wait.until - now, Duration::from_millis(5_760_000));
        assert_eq!(left(&mut gates, now), [9, 100, 600]);
    }

    #[test]
    fn changing_a_number_keeps_what_was_spent_and_forgets_other_limits() {
        let now = Moment::START;
        let mut gates = gates(&[Limit::rpm(10), Limit::tpm(1_000)], now);
        gates.reserve(&Charge::tokens(900, 0), now).unwrap();
        gates.set(&configured(&[Limit::tpm(2_000), Limit::tpd(5_000)]), now);
        assert_eq!(left(&mut gates, now), [1_100, 5_000]);
    }

    #[test]
    fn a_requests_header_per_day_is_not_read_as_per_minute() {
        let now = Moment::START;
        let mut gates = gates(&[Limit::rpm(500), Limit::rpd(10_000)], now);
        let reading = Reading {
            dimension: Dimension::Requests,
            limit: Some(10_000),
            remaining: Some(100),
            reset: Some(Duration::from_millis(85_536_000)),
            reset_rounding: Duration::from_millis(1),
            window: None,
            rounding: 0,
        };
        gates.read(&[reading], &around(now), now);
        assert_eq!(left(&mut gates, now), [500, 100]);
    }

    #[test]
    fn a_small_limit_that_is_cut_into_slices_is_kept_as_a_whole_as_well() {
        let now = Moment::START;
        for limit in [1, 3, 7, 13, 16].map(Limit::rpm).into_iter().chain([Limit::rpd(50)]) {
            let mut gates = Gates::new(Provider::Azure, Duration::ZERO);
            gates.set(&configured(&[limit]), now);
            gates.answered(now);
            let step = limit.window / 600;
            let sent: Vec<_> = (0..6_000)
                .map(|i| {
                    (0..100).take_while(|_| gates.reserve(&Charge::tokens(1, 0), now + step * i).is_ok()).count() as u64
                })
                .collect();
            let fullest = sent.windows(600).map(|window| window.iter().sum::<u64>()).max().unwrap();
            assert!(fullest <= limit.amount, "{limit}: {fullest} in a window");
            assert!(sent.iter().sum::<u64>() * 10 >= limit.amount * 90, "{limit} is used");
        }
    }

    #[test]
    fn a_header_of_a_slice_is_not_read_as_the_minutes_limit() {
        let now = Moment::START;
        for (rpm, slice) in [(600, 100), (120, 20)] {
            for used in 1..=slice {
                for reset in 0..=10 {
                    let mut gates = Gates::new(Provider::Azure, Duration::ZERO);
                    gates.set(&[(Limit::rpm(rpm), Source::Configured)], now);
                    let reading = Reading {
                        dimension: Dimension::Requests,
                        limit: Some(slice),
                        remaining: Some(slice - used),
                        reset: Some(Duration::from_secs(reset)),
                        reset_rounding: Duration::from_secs(1),
                        window: None,
                        rounding: 0,
                    };
                    gates.read(&[reading], &around(now), now);
                    let limits: Vec<_> = gates.gates.iter().map(Gate::limit).collect();
                    let of_slice = Limit::new(Dimension::Requests, slice, Duration::from_secs(10));
                    assert_eq!(limits, [Limit::rpm(rpm), of_slice], "{used} {reset}");
                }
            }
        }
    }

    #[test]
    fn what_is_counted_when_it_is_done_leaves_its_window_a_minute_after_that() {
        let now = Moment::START;
        let used_after = |provider, seconds| {
            let mut gates = Gates::new(provider, Duration::ZERO);
            gates.set(&[(Limit::tpm(1_000).shaped(Shape::Sliding), Source::Configured)], now);
            gates.answered(now);
            let (charge, used) = (Charge::tokens(300, 300), Charge::tokens(300, 200));
            gates.reserve(&charge, now).unwrap();
            gates.settle(&charge, &used, &Charge::default(), now, now + Duration::from_secs(20));
            1_000 - left(&mut gates, now + Duration::from_secs(seconds))[0]
        };
        assert_eq!([30, 61, 79, 81].map(|at| used_after(Provider::Mistral, at)), [500, 500, 500, 0]);
        assert_eq!(
            [30, 61, 79, 81].map(|at| used_after(Provider::Groq, at)),
            [500, 200, 200, 0],
            "the input is there at once"
        );
    }

    #[test]
    fn headers_lower_a_configured_limit_and_never_raise_it() {
        let now = Moment::START;
        let mut gates = gates(&[Limit::tpm(1_000)], now);
        let mut reading = Reading {
            dimension: Dimension::Tokens,
            limit: Some(600),
            remaining: Some(600),
            reset: None,
            reset_rounding: Duration::from_millis(1),
            window: Some(MINUTE),
            rounding: 0,
        };
        gates.read(std::slice::from_ref(&reading), &around(now), now);
        assert_eq!(gates.gates[0].limit(), Limit::tpm(600));
        reading.limit = Some(5_000);
        gates.read(&[reading], &around(now), now);
        assert_eq!(gates.gates[0].limit(), Limit::tpm(1_000), "back to what was configured");
    }

    #[test]
    fn of_an_organisations_limit_and_its_projects_the_smaller_holds_and_changes_once() {
        let now = Moment::START;
        let mut gates = Gates::new(Provider::Openai, Duration::ZERO);
        gates.set(&[(Limit::tpm(5_000), Source::Tier { tier: "1".into(), as_of: String::new() })], now);
        let reading = |limit, remaining| Reading {
            dimension: Dimension::Tokens,
            limit: Some(limit),
            remaining: Some(remaining),
            reset: Some(MINUTE.mul_f64((limit - remaining) as f64 / limit as f64)),
            reset_rounding: Duration::from_millis(1),
            window: None,
            rounding: 0,
        };
        for _ in 0..3 {
            gates.read(&[reading(5_000, 4_900), reading(1_000, 900)], &around(now), now);
            gates.read(&[reading(1_000, 900), reading(5_000, 4_900)], &around(now), now);
        }
        assert_eq!(gates.gates.iter().map(Gate::limit).collect::<Vec<_>>(), [Limit::tpm(1_000)]);
        assert_eq!(gates.take_changes().len(), 1);
    }

    #[test]
    fn a_refusal_that_names_no_more_than_what_is_counted_concerns_the_limits_of_that() {
        let now = Moment::START;
        let mut gates = gates(&[Limit::rpm(60), Limit::tpm(6_000)], now);
        let call = LimitHit { window: None, limit: None, ..Limit::rpm(60).into() };
        assert!(gates.block(Some(call), &Charge::tokens(10, 0), &Charge::default(), Duration::from_secs(5), now));
        let blocked: Vec<_> = gates.gates.iter().map(|gate| gate.is_blocked(now)).collect();
        assert_eq!(blocked, [true, false]);
        let input = LimitHit { dimension: Dimension::InputTokens, ..call };
        assert!(
            !gates.block(Some(input), &Charge::tokens(10, 0), &Charge::default(), Duration::from_secs(5), now),
            "there is none"
        );
    }

    #[test]
    fn who_tries_a_refused_limit_and_is_not_answered_is_followed_by_another_a_minute_later() {
        let (now, second) = (Moment::START, Duration::from_secs(1));
        let mut gates = Gates::new(Provider::Gemini, Duration::ZERO);
        gates.set(&configured(&[Limit::tpm(200_000)]), now);
        gates.answered(now);
        let (small, large) = (Charge::tokens(200, 0), Charge::tokens(50_000, 0));
        gates.block(Some(Limit::tpm(200_000).into()), &small, &Charge::default(), second, now);
        assert!(gates.reserve(&large, now).is_err());
        assert!(gates.reserve(&large, now + second).is_ok());
        assert!(gates.reserve(&small, now + second * 2).is_err());
        gates.answered(now);
        assert!(gates.reserve(&small, now + second * 2).is_err(), "that was sent before");
        assert!(gates.reserve(&small, now + second * 61).is_ok());
        gates.unheard(&small, now + second * 61);
        assert!(gates.reserve(&small, now + second * 61).is_ok(), "nothing was heard of the limit");
        gates.answered(now + second * 61);
        assert!(gates.reserve(&large, now + second * 62).is_ok() && gates.reserve(&large, now + second * 62).is_ok());
    }

    #[test]
    fn a_limit_that_is_changed_is_refused_no_more() {
        let now = Moment::START;
        let mut gates = gates(&[Limit::rpd(200)], now);
        let one = Charge::tokens(1, 0);
        assert!(
            gates
                .used_up(&LimitHit { used: Some(200), ..Limit::rpd(200).into() }, &one, now, now)
                .is_some_and(|until| until > now)
        );
        gates.set(&configured(&[Limit::rpd(10_000)]), now);
        assert!((0..3).all(|_| gates.reserve(&one, now).is_ok()));
    }

    #[test]
    fn a_smaller_number_that_only_a_refusal_told_is_doubted_after_a_while() {
        let now = Moment::START;
        let (minutes, one) = (|n: u32| now + MINUTE * n, Charge::tokens(20_000, 0));
        let mut gates = gates(&[Limit::tpm(100_000)], now);
        let told =
            |gates: &mut Gates, at| gates.block(Some(Limit::tpm(10_000).into()), &one, &Charge::default(), MINUTE, at);
        told(&mut gates, now);
        assert!(gates.reserve(&one, minutes(14)).is_err());
        assert_eq!(gates.too_small_for(&one), Some(Limit::tpm(10_000)));
        assert!(gates.reserve(&one, minutes(15)).is_ok(), "it may have been for a while");
        told(&mut gates, minutes(15));
        assert!(gates.reserve(&one, minutes(44)).is_err() && gates.reserve(&one, minutes(45)).is_ok(), "twice as long");
        let before = gates.take_changes().len();
        assert_eq!(before, 4, "each time it is told");
    }

    #[test]
    fn a_window_of_any_length_is_counted_without_overflow() {
        let now = Moment::START;
        for shape in [Shape::Refill, Shape::Sliding, Shape::Fixed] {
            let limit = Limit { shape: Some(shape), ..Limit::new(Dimension::Requests, 1, Duration::MAX) };
            let mut gates = gates(&[limit], now);
            let charge = Charge::tokens(1, 1);
            assert!(gates.reserve(&charge, now).is_ok() && gates.reserve(&charge, now).is_err());
            gates.block(None, &charge, &Charge::default(), Duration::from_secs(1 << 40), now);
            gates.block(Some(limit.into()), &charge, &Charge::default(), MINUTE, now);
            assert!(gates.wait(&charge, now).is_some());
        }
    }

    #[test]
    fn who_was_answered_was_seen() {
        let now = Moment::START;
        let gates = gates(&[Limit::tpm(1_000)], now);
        let mut unanswered = Paid::default();
        (0..3).for_each(|_| unanswered.add(&Charge::tokens(10, 10)));
        let doubtful = gates.doubtful(Dimension::Tokens, &Around { unanswered, ..around(now) });
        assert_eq!((doubtful.requests, doubtful.unseen), (3, (0, 2)));
    }
}
