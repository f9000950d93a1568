//! What is believed of a limit that nobody described in full: a version space.
//!
//! How a limit is enforced (its shape) and what a request is charged (its rule) are a small set of hypotheses, each with
//! its own books. A request goes when every hypothesis still alive would let it. Every answer is held against all of them:
//! those that it contradicts often enough die. So the first request is as safe as under the worst of them, and the last as
//! fast as under the true one. A refusal that no living hypothesis explains brings the dead back.

mod hypothesis;
mod refused;

use std::time::{Duration, SystemTime};

use super::book::Book;
use super::moment::Moment;
use super::refill::Refill;
use super::sight::{Doubtful, Sight, Verdict};
use super::slices::{Test, is_rounded_up, length_of, slice};
use super::window::{Ends, Window};
use crate::cost::{HOUR, Limit, SECOND, Shape};
use crate::providers::{Amounts, Rule, Rules};

use hypothesis::Hypothesis;
pub(super) use refused::Room;

/// Contradictions in a row that kill: other users, rounding or a lost answer make one, and sometimes two.
pub(super) const VOTES: u8 = 3;
/// Shapes that are not known are looked for in windows up to this long.
const LONGEST: Duration = HOUR;

/// The hypotheses about one limit.
#[derive(Debug)]
pub(super) struct Belief {
    limit: Limit,
    /// The rules that the provider may have.
    rules: Rules,
    margin: Duration,
    /// More than the margin is kept back, since the provider refused what should have fitted.
    distrusted: bool,
    hypotheses: Vec<Hypothesis>,
    /// It may be what is under way that counts.
    gauge: bool,
    /// Answers show numbers.
    sighted: bool,
    /// Resets have killed what then turned out to be true: they mean something else here.
    resets_lie: bool,
}

impl Belief {
    pub(super) fn new(
        limit: Limit,
        shape: Option<Shape>,
        rules: Rules,
        margin: Duration,
        now: Moment,
        wall: SystemTime,
    ) -> Self {
        let hypotheses = Vec::new();
        let (distrusted, gauge, sighted, resets_lie) = (false, false, false, false);
        let mut belief = Self { limit, rules, margin, distrusted, hypotheses, gauge, sighted, resets_lie };
        let whole = [Shape::Refill, Shape::Sliding, Shape::Fixed];
        for shape in shape.as_ref().map_or(&whole[..], std::slice::from_ref) {
            belief.suppose(*shape, None, now, wall);
        }
        if shape.as_ref().and_then(length_of).is_some_and(|length| is_rounded_up(&limit, length)) {
            belief.suppose(Shape::Sliding, None, now, wall);
            belief.hypotheses.iter_mut().for_each(|whole| whole.whole_of_slices = !whole.is_slice());
        }
        for test in Test::all(&limit, shape) {
            belief.suppose(Shape::Slice(test.length), Some(test), now, wall);
        }
        belief
    }

    fn suppose(&mut self, shape: Shape, test: Option<Test>, now: Moment, wall: SystemTime) {
        let Limit { amount, window, .. } = self.limit;
        let window_of = |ends, amount, length: Duration| {
            Book::Window(Window::new(amount, length, margin_for(self.margin, length), ends))
        };
        let book = match shape {
            Shape::Refill => Book::Refill(Refill::new(amount, window, self.rules, self.margin.min(window / 4), now)),
            Shape::Sliding => window_of(Ends::Sliding, amount, window),
            Shape::Fixed => window_of(Ends::Fixed(None), amount, window),
            Shape::Slice(length) => window_of(Ends::Fixed(None), slice(&self.limit, length), length),
            Shape::Calendar(zone) => window_of(Ends::midnight(zone, now, wall), amount, window),
            Shape::Gauge => Book::Gauge { amount, level: Amounts::default() },
        };
        self.gauge |= shape == Shape::Gauge;
        self.hypotheses.push(Hypothesis {
            shape,
            book,
            alive: self.rules,
            over: [0; Rule::ALL.len()],
            under: [0; Rule::ALL.len()],
            odd_resets: 0,
            test,
            whole_of_slices: false,
            found: None,
        });
    }

    /// The shapes that may be true, without those under test.
    pub(super) fn shapes(&self) -> Vec<Shape> {
        let sure = self.living().filter(|hypothesis| hypothesis.test.is_none() && !hypothesis.whole_of_slices);
        sure.map(|hypothesis| hypothesis.shape).collect()
    }

    /// The slices that may be, which are tested.
    pub(super) fn suspected(&self) -> Vec<Shape> {
        self.living().filter(|hypothesis| hypothesis.test.is_some()).map(|hypothesis| hypothesis.shape).collect()
    }

    /// Takes what was known before: only these shapes, suspected slices and rules are left. What is then contradicted
    /// comes back as ever.
    pub(super) fn recall(
        &mut self,
        shapes: &[Shape],
        suspected: &[Shape],
        rules: Rules,
        now: Moment,
        wall: SystemTime,
    ) {
        let rules = self.rules.and(rules);
        if rules.is_empty() || shapes.is_empty() {
            return;
        }
        for shape in shapes {
            if !self.hypotheses.iter().any(|hypothesis| hypothesis.shape == *shape) {
                self.suppose(*shape, None, now, wall);
            }
        }
        for hypothesis in &mut self.hypotheses {
            if shapes.contains(&hypothesis.shape) {
                (hypothesis.alive, hypothesis.test) = (rules, None);
                hypothesis.found = Some(now);
            } else if !suspected.contains(&hypothesis.shape) && !hypothesis.whole_of_slices {
                (hypothesis.alive, hypothesis.test) = (Rules::NONE, None);
            }
        }
    }

    /// The rules that the provider may have, whatever was ruled out.
    pub(super) fn all_rules(&self) -> Rules {
        self.rules
    }

    pub(super) fn rules(&self) -> Rules {
        self.living().fold(Rules::NONE, |all, hypothesis| all.or(hypothesis.alive))
    }

    fn living(&self) -> impl Iterator<Item = &Hypothesis> {
        self.hypotheses.iter().filter(|hypothesis| hypothesis.is_living())
    }

    /// Whether `amounts` could ever pass.
    pub(super) fn can_hold(&self, amounts: &Amounts) -> bool {
        self.living().all(|hypothesis| {
            let most = match hypothesis.shape {
                Shape::Slice(length) => slice(&self.limit, length),
                _ => self.limit.amount,
            };
            // A slice that nobody told of refuses nobody for good.
            hypothesis.test.is_some()
                || hypothesis.found_slice(&self.limit).is_some()
                || hypothesis.alive.binding().iter().all(|rule| amounts[rule] <= most)
        })
    }

    #[inline]
    pub(super) fn fits(&mut self, amounts: &Amounts, now: Moment) -> bool {
        let whole = self.rules_of_the_whole();
        let Self { limit, hypotheses, .. } = self;
        hypotheses.iter_mut().filter(|hypothesis| hypothesis.is_living()).all(|hypothesis| {
            let extra = hypothesis.test.map_or(0, |test| test.extra(amounts, limit));
            let within = hypothesis.found_slice(limit).map(|most| amounts.with(&Amounts::all(most), u64::min));
            let amounts = within.as_ref().unwrap_or(amounts);
            hypothesis.book.fits(amounts, hypothesis.rules(whole).binding(), extra, now)
        })
    }

    /// The rules by which the whole limit may be charged, if it is kept besides its slices. Slices are charged by the same rule,
    /// and no header shows their numbers, so they follow the whole.
    fn rules_of_the_whole(&self) -> Option<Rules> {
        if self.hypotheses.len() == 1 {
            return None;
        }
        let whole = self.living().filter(|hypothesis| !hypothesis.is_slice());
        whole.map(|hypothesis| hypothesis.alive).reduce(Rules::or)
    }

    /// Charges every book. The bits of the answer, one for each hypothesis, mark slices in doubt that this overdraws.
    #[inline]
    pub(super) fn charge(&mut self, amounts: &Amounts, now: Moment) -> u8 {
        let doubtful = self.hypotheses.iter().any(|hypothesis| hypothesis.test.is_some() || hypothesis.found.is_some());
        let overdrawn = if doubtful { self.overdrawn_by(amounts, now) } else { 0 };
        for hypothesis in &mut self.hypotheses {
            hypothesis.book.charge(amounts, now);
        }
        overdrawn
    }

    /// Which suspected slices have no room for this charge now, and which found ones are smaller than it. By the cheapest rule
    /// where answers tell rules apart: what is too much by the dearest may be none by the true one.
    fn overdrawn_by(&mut self, amounts: &Amounts, now: Moment) -> u8 {
        let whole = self.rules_of_the_whole();
        let mut overdrawn = 0;
        for (i, hypothesis) in self.hypotheses.iter_mut().enumerate() {
            let rules = hypothesis.rules(whole);
            let mut rules = if self.sighted { rules } else { rules.binding() }.iter();
            let over = match (hypothesis.test, hypothesis.found_slice(&self.limit)) {
                _ if !hypothesis.is_living() => false,
                (Some(test), _) => {
                    let beyond = test.beyond(&self.limit);
                    !rules.any(|rule| hypothesis.book.fits(amounts, Rules::of(&[rule]), beyond, now))
                }
                (None, Some(most)) => rules.all(|rule| amounts[rule] > most),
                (None, None) => false,
            };
            overdrawn |= u8::from(over) << i.min(7);
        }
        overdrawn
    }

    pub(super) fn refund(&mut self, amounts: &Amounts, since: &Amounts, at: Moment, now: Moment) {
        self.hypotheses.iter_mut().for_each(|hypothesis| hypothesis.book.refund(amounts, since, at, now));
    }

    /// Whether it may be what is under way that counts.
    pub(super) fn is_gauge(&self) -> bool {
        self.gauge
    }

    pub(super) fn ended(&mut self, amounts: &Amounts) {
        self.hypotheses.iter_mut().for_each(|hypothesis| hypothesis.book.ended(amounts));
    }

    /// Corrects a charge of `at` by a rule that settles; see [`Book::settle`].
    pub(super) fn settle(
        &mut self,
        rule: Rule,
        charged: u64,
        used: (u64, u64),
        on_its_way: u64,
        at: Moment,
        now: Moment,
    ) {
        for hypothesis in &mut self.hypotheses {
            hypothesis.book.settle(rule, charged, used, on_its_way, at, now);
        }
    }

    pub(super) fn ready_at(&mut self, amounts: &Amounts, now: Moment) -> Moment {
        let whole = self.rules_of_the_whole();
        let Self { limit, hypotheses, .. } = self;
        let living = hypotheses.iter_mut().filter(|hypothesis| hypothesis.is_living());
        let ready = living.map(|hypothesis| {
            let rules = hypothesis.rules(whole).binding();
            if let Some(test) = hypothesis.test
                && hypothesis.book.fits(amounts, rules, test.extra(amounts, limit), now)
            {
                return now;
            }
            hypothesis.book.ready_at(amounts, rules, now)
        });
        ready.max().unwrap_or(now)
    }

    /// What is used by the hypothesis that binds, and when the limit is full again.
    pub(super) fn used(&mut self, now: Moment) -> (u64, Moment) {
        let mut most = (0, now);
        for hypothesis in self.hypotheses.iter_mut().filter(|hypothesis| hypothesis.test.is_none()) {
            for rule in hypothesis.alive.binding().iter() {
                if !matches!(hypothesis.shape, Shape::Slice(_)) || self.limit.window <= SECOND {
                    most.0 = most.0.max(hypothesis.book.used(rule, now));
                }
                most.1 = most.1.max(hypothesis.book.full_at(rule, now));
            }
        }
        most
    }

    /// Holds an answer against every hypothesis. `unseen` is what the count of requests says, by shape.
    pub(super) fn learn(&mut self, sight: &Sight, doubtful: &Doubtful, unseen: &[(Shape, (u64, u64))]) {
        self.sighted = true;
        self.learn_from_reset(sight);
        let verdicts: Vec<_> =
            self.hypotheses.iter_mut().map(|hypothesis| hypothesis.judge(sight, doubtful, unseen)).collect();
        let explained = verdicts.iter().flatten().any(|(_, verdict)| *verdict == Verdict::Fits);
        let sound = self.hypotheses.iter().filter(|hypothesis| hypothesis.test.is_none());
        let mut left: usize = sound.map(|hypothesis| hypothesis.alive.len()).sum();
        for (hypothesis, verdicts) in self.hypotheses.iter_mut().zip(&verdicts) {
            for (rule, verdict) in verdicts {
                // A number above all books is somebody else's use, and no reason to give up any of them.
                let dead = hypothesis.vote(*rule, *verdict, explained);
                if dead && left > 1 {
                    hypothesis.alive = hypothesis.alive.without(*rule);
                    left -= 1;
                }
            }
        }
        if !explained && verdicts.iter().flatten().any(|(_, verdict)| *verdict == Verdict::Under) {
            self.note_others(sight, doubtful, unseen);
        } else {
            self.keep_others(sight, doubtful, unseen, &verdicts);
        }
        let settles = self.rules().and(Rules::SETTLED) != Rules::NONE;
        if let ([Hypothesis { shape: Shape::Fixed, book: Book::Window(book), .. }], false) =
            (&mut self.hypotheses[..], settles)
        {
            book.learn_end_from_fall(sight);
        }
        for hypothesis in &mut self.hypotheses {
            if let (Book::Window(book), Some(rule)) = (&mut hypothesis.book, hypothesis.alive.iter().next())
                && !matches!(hypothesis.shape, Shape::Slice(_))
            {
                book.vouch(rule, sight.used, sight.latest);
            }
        }
    }

    /// Resets tell refill from windows, and where windows end.
    fn learn_from_reset(&mut self, sight: &Sight) {
        let Some(reset) = sight.reset.filter(|reset| !reset.is_zero() && !self.resets_lie) else { return };
        let tolerance = Sight::tolerance(reset);
        let more_than_one = self.living().filter(|hypothesis| hypothesis.test.is_none()).count() > 1;
        for hypothesis in &mut self.hypotheses {
            let explained = match &mut hypothesis.book {
                Book::Refill(book) => sight.used == 0 || book.explains_reset(sight.used, reset, tolerance),
                Book::Window(book) => match hypothesis.shape {
                    // Windows that are counted end together with one of their slices.
                    Shape::Fixed | Shape::Slice(_) => {
                        let coarse = if tolerance > SECOND { tolerance } else { Duration::ZERO };
                        let (sent, came) = sight.between;
                        let earliest = sent + reset - coarse;
                        book.learn_end(earliest, came + reset + coarse)
                    }
                    _ => book.explains_reset(sight, reset, tolerance.max(SECOND)),
                },
                Book::Gauge { .. } => true,
            };
            hypothesis.odd_resets = if explained { 0 } else { hypothesis.odd_resets.saturating_add(1) };
            if hypothesis.odd_resets >= VOTES {
                let kept = hypothesis.is_slice() || hypothesis.whole_of_slices;
                if more_than_one && !kept {
                    hypothesis.alive = Rules::NONE;
                } else if let Book::Window(book) = &mut hypothesis.book {
                    book.forget_ends();
                    hypothesis.odd_resets = 0;
                }
            }
        }
        if self.living().all(|hypothesis| hypothesis.test.is_some()) {
            self.resets_lie = true;
            self.reprieve(|_| true);
        }
    }

    /// How much of what was used at `since` is used no more at `now`, at least and at most.
    pub(super) fn gone_since(&mut self, since: Moment, now: Moment) -> (u64, u64) {
        let whole = self.hypotheses.iter_mut().filter(|hypothesis| hypothesis.is_living() && hypothesis.test.is_none());
        let gone = whole.map(|hypothesis| hypothesis.book.gone_since(since, now));
        gone.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or_default()
    }

    /// What the count of requests says of how many the server had not seen, by each living shape.
    pub(super) fn unseen(&mut self, sight: &Sight) -> Vec<(Shape, (u64, u64))> {
        let living = self.hypotheses.iter_mut().filter(|hypothesis| hypothesis.is_living());
        living
            .filter(|hypothesis| !hypothesis.is_slice())
            .filter_map(|hypothesis| Some((hypothesis.shape, hypothesis.book.not_in(Rule::LargerPlusCap, sight)?)))
            .collect()
    }

    /// The server holds more than any book: others use the limit as well, and their part is left to them.
    fn note_others(&mut self, sight: &Sight, doubtful: &Doubtful, unseen: &[(Shape, (u64, u64))]) {
        for hypothesis in &mut self.hypotheses {
            let Some(rule) = hypothesis.alive.iter().next() else { continue };
            let doubtful = hypothesis.doubtful(doubtful, unseen);
            match &mut hypothesis.book {
                Book::Refill(book) => {
                    book.tighten(Rules::ALL, sight.used, doubtful.given_back, sight.latest, sight.latest)
                }
                Book::Window(book) if !matches!(hypothesis.shape, Shape::Slice(_)) => {
                    book.note_others(rule, sight, &doubtful.by(rule));
                }
                Book::Window(_) | Book::Gauge { .. } => {}
            }
        }
    }

    /// The number fits: a bucket is lowered to it all the same, and what others had is looked at again.
    fn keep_others(
        &mut self,
        sight: &Sight,
        doubtful: &Doubtful,
        unseen: &[(Shape, (u64, u64))],
        verdicts: &[Vec<(Rule, Verdict)>],
    ) {
        for (hypothesis, verdicts) in self.hypotheses.iter_mut().zip(verdicts) {
            let Some(rule) = hypothesis.alive.iter().next() else { continue };
            let doubtful = hypothesis.doubtful(doubtful, unseen);
            match &mut hypothesis.book {
                Book::Refill(book) => {
                    // Those that it contradicts must not be helped along by it.
                    let fit = verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Fits);
                    let fit = fit.fold(Rules::NONE, |all, (rule, _)| all.or(Rules::of(&[*rule])));
                    // It was written some time in between. Who was refused though it fitted takes it for the latest news.
                    let written = if self.distrusted { sight.latest } else { sight.earliest };
                    book.tighten(fit, sight.used, doubtful.given_back, written, sight.latest);
                }
                Book::Window(book) if book.has_others() => book.note_others(rule, sight, &doubtful.by(rule)),
                Book::Window(book) if hypothesis.shape == Shape::Fixed => {
                    book.note_straddling(hypothesis.alive, sight, |rule| doubtful.by(rule));
                }
                Book::Window(_) | Book::Gauge { .. } => {}
            }
        }
    }

    /// The server's number holds all that was ever sent: it is the truth, but for what rules that settle have `owed` since it was
    /// written.
    pub(super) fn set_used(&mut self, used: u64, owed: u64, now: Moment) {
        for hypothesis in &mut self.hypotheses {
            let Some(rule) = hypothesis.alive.iter().next() else { continue };
            match &mut hypothesis.book {
                Book::Refill(book) => book.set_used(used, owed, now),
                Book::Window(book) if !matches!(hypothesis.shape, Shape::Slice(_)) => {
                    let owed = if Rules::SETTLED.contains(rule) { owed } else { 0 };
                    book.set_used(rule, used.saturating_add(owed), now);
                }
                Book::Window(_) | Book::Gauge { .. } => {}
            }
        }
    }

    /// A request that overdrew suspected slices was answered: there are none, if it happens often enough.
    pub(super) fn test_passed(&mut self, overdrawn: u8, sent: Moment, now: Moment) {
        let tested = self.hypotheses.iter_mut().enumerate().filter(|(i, _)| overdrawn & 1 << i.min(&7) != 0);
        for (_, hypothesis) in tested {
            let Some(test) = &mut hypothesis.test else {
                // Something larger than the slice passed, so there is no such slice; unless it was sent before that was found.
                if hypothesis.found.is_some_and(|found| found <= sent) {
                    hypothesis.alive = Rules::NONE;
                }
                continue;
            };
            test.passed(sent, now);
            if test.bursts == 0 {
                // It may come back as a certainty, but not as a test.
                (hypothesis.alive, hypothesis.test) = (Rules::NONE, None);
            }
        }
    }

    /// At least so much is used, whatever the books say.
    pub(super) fn tighten(&mut self, used: u64, now: Moment) {
        for hypothesis in &mut self.hypotheses {
            match &mut hypothesis.book {
                Book::Refill(book) => book.tighten(Rules::ALL, used, 0, now, now),
                Book::Window(book) if !matches!(hypothesis.shape, Shape::Slice(_)) => book.tighten(used, now),
                Book::Window(_) | Book::Gauge { .. } => {}
            }
        }
    }

    /// Whether it may be a bucket that refills.
    pub(super) fn refills(&self) -> bool {
        self.living().any(|hypothesis| matches!(hypothesis.book, Book::Refill(_)))
    }

    /// Until when nobody passes after a refusal is the gate's to say; a bucket is lowered so that those who wait come one
    /// after another.
    pub(super) fn hold(&mut self, amounts: &Amounts, until: Moment) {
        for hypothesis in &mut self.hypotheses {
            if let Book::Refill(book) = &mut hypothesis.book {
                book.hold(amounts, until);
            }
        }
    }

    pub(super) fn resize(&mut self, limit: Limit, now: Moment) {
        self.limit = limit;
        for hypothesis in &mut self.hypotheses {
            match (&mut hypothesis.book, hypothesis.shape) {
                (Book::Refill(book), _) => book.resize(limit.amount, limit.window, now),
                (Book::Window(book), Shape::Slice(length)) => book.resize(slice(&limit, length), length),
                (Book::Window(book), _) => book.resize(limit.amount, limit.window),
                (Book::Gauge { amount, .. }, _) => *amount = limit.amount,
            }
        }
    }

    pub(super) fn set_margin(&mut self, margin: Duration) {
        self.distrusted = margin > self.margin;
        for hypothesis in &mut self.hypotheses {
            match (&mut hypothesis.book, hypothesis.shape) {
                (Book::Refill(book), _) => book.set_margin(margin.min(self.limit.window / 4)),
                (Book::Window(book), Shape::Slice(length)) => book.set_margin(margin_for(margin, length)),
                // After a refusal more of a short window is worth it.
                (Book::Window(book), _) if margin > self.margin => book.set_margin(margin.min(self.limit.window / 4)),
                (Book::Window(book), _) => book.set_margin(margin_for(margin, self.limit.window)),
                (Book::Gauge { .. }, _) => {}
            }
        }
    }
}

/// A margin near the window's length would starve it: at most 1/22 of it, which costs less than 5 %.
fn margin_for(margin: Duration, length: Duration) -> Duration {
    margin.min(length / 22)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Dimension;
    use crate::cost::MINUTE;

    const ONE: Amounts = Amounts::all(1);

    /// With a shape that is configured, if any.
    fn belief(shape: Option<Shape>, now: Moment) -> Belief {
        let limit = Limit { shape, ..Limit::rpm(600) };
        let rules = Rules::of(&[Rule::LargerPlusCap]);
        Belief::new(limit, shape, rules, Duration::ZERO, now, SystemTime::UNIX_EPOCH)
    }

    /// How many may go at once.
    fn burst(belief: &mut Belief, now: Moment) -> usize {
        let mut went = 0;
        while went < 1_000 && belief.fits(&ONE, now) {
            belief.charge(&ONE, now);
            went += 1;
        }
        went
    }

    #[test]
    fn a_refusal_for_want_of_room_brings_rules_back() {
        let now = Moment::START;
        let limit = Limit::tpm(10_000);
        let mut belief =
            Belief::new(limit, Some(Shape::Refill), Rules::ALL, Duration::ZERO, now, SystemTime::UNIX_EPOCH);
        let charge = crate::Charge::tokens(300, 700);
        let amounts = Amounts::at_admission(Dimension::Tokens, &charge);
        // Charges that never reached it: it holds nothing of what the dear rules say.
        for _ in 0..VOTES {
            belief.charge(&amounts, now);
            let sight = Sight { used: 300, noise: 10, reset: None, between: (now, now), earliest: now, latest: now };
            belief.learn(&sight, &Doubtful::default(), &[]);
        }
        assert!(!belief.rules().contains(Rule::LargerPlusCap), "{:?}", belief.rules());
        belief.refused(&amounts, Room::Short { used: 10_000 }, false, SECOND, now, SystemTime::UNIX_EPOCH);
        assert_eq!(belief.rules(), Rules::ALL);
    }

    #[test]
    fn where_slices_of_ten_seconds_are_usual_those_of_one_are_tested_first() {
        let (now, ten, rules) = (Moment::START, Shape::Slice(SECOND * 10), Rules::of(&[Rule::LargerPlusCap]));
        let usual = || Belief::new(Limit::rpm(600), Some(ten), rules, Duration::ZERO, now, SystemTime::UNIX_EPOCH);
        let (mut there, mut not_there) = (usual(), usual());
        assert_eq!((burst(&mut there, now), there.suspected()), (16, vec![Shape::Slice(SECOND)]), "six too many");
        there.refused(&ONE, Room::Unknown, false, SECOND, now, SystemTime::UNIX_EPOCH);
        assert_eq!(there.shapes(), [ten, Shape::Slice(SECOND)]);
        assert_eq!(burst(&mut there, now + SECOND * 20), 10);

        let overdrawn: Vec<_> = (0..16).map(|_| not_there.charge(&ONE, now)).collect();
        assert_eq!(overdrawn.iter().filter(|bits| **bits > 0).count(), 6);
        overdrawn.iter().for_each(|bits| not_there.test_passed(*bits, now, now + SECOND));
        assert_eq!((not_there.shapes(), not_there.suspected()), (vec![ten], vec![]));
        assert_eq!(burst(&mut not_there, now + SECOND * 20), 100);
    }

    #[test]
    fn a_slice_that_nobody_told_of_refuses_no_large_request_and_is_none_when_that_passes() {
        let (now, slice) = (Moment::START, Shape::Slice(SECOND));
        let limit = Limit::tpm(60_000);
        let mut belief = Belief::new(
            limit,
            Some(Shape::Refill),
            Rules::of(&[Rule::Usage]),
            Duration::ZERO,
            now,
            SystemTime::UNIX_EPOCH,
        );
        belief.recall(&[Shape::Refill, slice], &[], Rules::ALL, now, SystemTime::UNIX_EPOCH);
        let large = Amounts::all(6_000);
        assert!(belief.can_hold(&large) && belief.fits(&large, now));
        assert!(!belief.can_hold(&Amounts::all(60_001)), "the limit itself is known");
        let overdrawn = belief.charge(&large, now);
        assert!(!belief.fits(&ONE, now), "it takes all of it");
        assert_eq!(belief.shapes(), [Shape::Refill, slice]);
        belief.test_passed(overdrawn, now, now + SECOND);
        assert_eq!(belief.shapes(), [Shape::Refill]);
    }

    #[test]
    fn a_slice_that_is_left_alone_is_kept() {
        let now = Moment::START;
        let slice = Shape::Slice(SECOND * 10);
        let rules = Rules::of(&[Rule::LargerPlusCap]);
        let mut known = belief(None, now);
        known.recall(&[slice], &[], rules, now, SystemTime::UNIX_EPOCH);
        assert_eq!((burst(&mut known, now), known.shapes()), (100, vec![slice]), "as it was learned");

        let mut configured = belief(Some(slice), now);
        for _ in 0..2 {
            configured.refused(&ONE, Room::Unknown, true, SECOND * 5, now, SystemTime::UNIX_EPOCH);
        }
        assert!(configured.shapes().len() > 1, "something else may be true");
        for nth in 1..=40 {
            // The end of a slice, while next to nothing of a minute is used, and then not its own.
            let (sent, reset) = (now + SECOND * 3 * nth, SECOND * (10 - (3 * nth) % 10));
            let sight =
                Sight { used: 1, noise: 2, reset: Some(reset), between: (sent, sent), earliest: sent, latest: sent };
            configured.charge(&ONE, sent);
            configured.learn(&sight, &Doubtful::default(), &[]);
        }
        assert_eq!(configured.shapes(), [slice]);
        assert_eq!(burst(&mut configured, now + MINUTE * 4), 100);
    }
}
