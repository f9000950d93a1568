//! The enforcement: what one account has used of its limits.

use std::collections::VecDeque;
use std::time::Duration;

use super::config::{ChargeRule, Count, LimitChange, MockConfig, MockLimits};
use super::luck::scatter;
use super::meter::{Meter, Place};
use super::shown::{Gauge, Refusal, Standing};
use super::which::Which;
use crate::cost::{Estimate, Usage};
use crate::providers::Provider;

/// An admitted request, to settle it later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The tokens that it was charged.
    pub tokens: u64,
    /// The part of it that is input.
    input: u64,
    /// Its output was not charged at all.
    output_open: bool,
    place: Place,
}

/// What one account has used of its limits, as the provider keeps it. The server keeps one for each API key and model
/// pool; alone, it is a provider without sockets, for tests in virtual time.
///
/// Times are since the start. Time that goes backwards is time that stands still.
///
/// ```
/// use std::time::Duration;
/// use tollgate::Estimate;
/// use tollgate::mock::{Book, MockConfig, MockLimits};
///
/// let limits = MockLimits { tpm: Some(30_000), ..MockLimits::default() };
/// let mut book = Book::new(&MockConfig { limits, ..MockConfig::default() });
/// assert!(book.admit(&Estimate::tokens(22_000, 999), Duration::ZERO).is_ok());
/// let refusal = book.admit(&Estimate::tokens(12_000, 528), Duration::ZERO).unwrap_err();
/// assert_eq!(refusal.wait, Some(Duration::from_millis(11_054)));
/// assert_eq!(book.standing(Duration::ZERO).tokens.unwrap().remaining, 7_001);
/// ```
#[derive(Clone, Debug)]
pub struct Book {
    limits: MockLimits,
    meters: [Meter; Which::ALL.len()],
    changes: VecDeque<LimitChange>,
    settings: Settings,
    now: Duration,
    /// Numbers everything that is counted.
    counted: u64,
}

/// What does not change while it runs.
#[derive(Clone, Copy, Debug)]
struct Settings {
    charge: ChargeRule,
    count: Count,
    predicted_output: u64,
    settle: bool,
    refusals_count: bool,
    phase: Phase,
    unix: i64,
    dialect: Provider,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Given(Duration),
    Seeded(u64),
}

impl Book {
    /// Nothing is used yet. Of `config` it takes what is said about limits and charges, and the seed.
    pub fn new(config: &MockConfig) -> Self {
        let mut changes = config.changes.clone();
        changes.sort_by_key(|change| change.at);
        let settings = Settings {
            charge: config.charge,
            count: config.count,
            predicted_output: config.predicted_output,
            settle: config.settle,
            refusals_count: config.refusals_count,
            phase: config.phase.map_or(Phase::Seeded(config.seed), Phase::Given),
            unix: config.started.unwrap_or(0),
            dialect: config.dialect,
        };
        Self {
            limits: config.limits,
            meters: Which::ALL.map(|which| settings.meter(which, &config.limits)),
            changes: changes.into(),
            settings,
            now: Duration::ZERO,
            counted: 0,
        }
    }

    /// The limits in force.
    pub fn limits(&self) -> MockLimits {
        self.limits
    }

    /// New limits from now on. What was used stays used where the shape stays.
    pub fn set_limits(&mut self, limits: MockLimits, now: Duration) {
        self.advance(now); // by the old limits, up to now
        for which in Which::ALL {
            if which.shape(&limits) != which.shape(&self.limits) {
                self.meters[which as usize] = self.settings.meter(which, &limits);
            }
        }
        self.limits = limits;
    }

    /// The tokens that a request is charged at admission. An `input_by_chars` of zero means that only the exact count is
    /// known.
    pub fn charge(&self, request: &Estimate) -> u64 {
        let settings = &self.settings;
        let input = settings.input(request);
        let predicted = settings.predicted_output.saturating_mul(request.choices.into());
        let output = request.output_cap.unwrap_or(predicted);
        match settings.charge {
            ChargeRule::InputPlusCap => input.saturating_add(output),
            ChargeRule::MaxOfInputAndCap => input.max(output),
            ChargeRule::InputOnly => input,
        }
    }

    /// Takes one request and its tokens from every limit, or nothing from any.
    ///
    /// # Errors
    /// When a limit has no room. A request that several limits refuse hears of the one that it has to wait for longest, so
    /// that the wait is true.
    pub fn admit(&mut self, request: &Estimate, now: Duration) -> Result<Admitted, Refusal> {
        self.advance(now);
        let (tokens, input) = (self.charge(request), self.settings.input(request));
        let requested = |which: Which| which.requested(tokens, input);
        let refusals = Which::ALL.into_iter().filter_map(|which| self.refusal(which, requested(which)));
        let longest = refusals.max_by_key(|refusal| refusal.wait.unwrap_or(Duration::MAX));
        if let Some(refusal) = longest {
            self.note_refusal(now);
            return Err(refusal);
        }
        let place = self.place();
        for which in Which::ALL {
            self.add(which, requested(which), place);
        }
        let uncapped = request.output_cap.is_none() && self.settings.predicted_output == 0;
        let output_open = uncapped || self.settings.charge == ChargeRule::InputOnly;
        Ok(Admitted { tokens, input, output_open, place })
    }

    /// A refusal takes one request from RPM where refusals count.
    pub(crate) fn note_refusal(&mut self, now: Duration) {
        if self.settings.refusals_count {
            self.advance(now);
            let place = self.place();
            self.add(Which::Rpm, 1, place);
        }
    }

    /// The request is done and used this much, nothing for an error. Where charges are settled, they are corrected to it;
    /// output that was not charged at admission is charged now in any case. What was used more may go above the limit;
    /// what was used less is taken off the admission itself, and gives nothing back once that counts no longer. Returns
    /// the tokens that it was charged in the end.
    pub fn settle(&mut self, admitted: &Admitted, usage: &Usage, now: Duration) -> u64 {
        self.advance(now);
        let used = match (self.settings.settle, admitted.output_open) {
            (true, _) => usage.total(),
            (false, true) => admitted.tokens.saturating_add(usage.output_tokens),
            (false, false) => admitted.tokens,
        };
        let input = if self.settings.settle { usage.input_tokens } else { admitted.input };
        let place = self.place();
        for (which, charged, used) in [
            (Which::Tpm, admitted.tokens, used),
            (Which::Tpd, admitted.tokens, used),
            (Which::Itpm, admitted.input, input),
            (Which::Otpm, 0, usage.output_tokens),
        ] {
            self.add(which, used.saturating_sub(charged), place);
            self.meters[which as usize].give_back(charged.saturating_sub(used), admitted.place);
        }
        used
    }

    /// What the headers show. Groq shows the day's requests and the minute's tokens, OpenAI of minute and day the one that
    /// allows less in the long run: an account with 500 RPM and 10,000 RPD was seen to show 10,000 and `8.64s`.
    pub fn standing(&mut self, now: Duration) -> Standing {
        self.advance(now);
        let dialect = self.settings.dialect;
        let (requests, tokens) = match dialect {
            Provider::Openai | Provider::Compatible => {
                (self.stricter(Which::Rpm, Which::Rpd), self.stricter(Which::Tpm, Which::Tpd))
            }
            Provider::Groq => (self.gauge(Which::Rpd), self.gauge(Which::Tpm)),
            Provider::Azure => (self.slice(Which::Rpm), self.gauge(Which::Tpm)),
            _ => (self.gauge(Which::Rpm), self.gauge(Which::Tpm)),
        };
        let wall = Duration::from_secs(u64::try_from(self.settings.unix).unwrap_or(0)).saturating_add(self.now);
        let (input, output) = (self.gauge(Which::Itpm), self.gauge(Which::Otpm));
        Standing { requests, tokens, input, output, charged: None, dialect, wall }
    }

    fn stricter(&self, minute: Which, day: Which) -> Option<Gauge> {
        self.gauge(match (minute.amount(&self.limits), day.amount(&self.limits)) {
            (Some(per_minute), Some(per_day)) if u128::from(per_minute) * 24 * 60 <= u128::from(per_day) => minute,
            (_, Some(_)) => day,
            (_, None) => minute,
        })
    }

    fn gauge(&self, which: Which) -> Option<Gauge> {
        let limit = which.amount(&self.limits)?;
        let meter = &self.meters[which as usize];
        let (remaining, reset) = (limit.saturating_sub(meter.used()), meter.reset(limit, self.now));
        Some(Gauge { limit, remaining, reset, window: which.window() })
    }

    /// Of the slice that a limit is cut into, if it is.
    fn slice(&self, which: Which) -> Option<Gauge> {
        let limit = which.amount(&self.limits)?;
        let Some((quota, used, reset, window)) = self.meters[which as usize].slice(limit, self.now) else {
            return self.gauge(which);
        };
        Some(Gauge { limit: quota, remaining: quota.saturating_sub(used), reset, window })
    }

    fn refusal(&self, which: Which, requested: u64) -> Option<Refusal> {
        let limit = which.amount(&self.limits)?;
        let meter = &self.meters[which as usize];
        let wait = meter.fits(limit, requested, self.now).err()?;
        Some(Refusal { which, limit, used: meter.used(), requested, wait })
    }

    /// Lets time pass.
    pub(crate) fn advance(&mut self, now: Duration) {
        while let Some(LimitChange { at, factor }) = self.changes.front().copied()
            && at <= now
        {
            self.changes.pop_front();
            self.pass(at); // by the old limits, up to the change
            self.limits = self.limits.times(factor);
        }
        self.pass(now);
    }

    fn pass(&mut self, now: Duration) {
        self.now = self.now.max(now);
        for which in Which::ALL {
            let meter = &mut self.meters[which as usize];
            match which.amount(&self.limits) {
                Some(limit) => meter.advance(limit, self.now),
                None => meter.clear(self.now), // a limit set later starts empty
            }
        }
    }

    fn add(&mut self, which: Which, amount: u64, place: Place) {
        if amount > 0 && which.amount(&self.limits).is_some() {
            self.meters[which as usize].add(amount, place);
        }
    }

    fn place(&mut self) -> Place {
        self.counted += 1;
        Place { at: self.now, number: self.counted }
    }
}

impl Settings {
    fn input(&self, request: &Estimate) -> u64 {
        match self.count {
            Count::Characters if request.input_by_chars > 0 => request.input_by_chars,
            Count::Characters | Count::Exact => request.input,
        }
    }

    fn meter(&self, which: Which, limits: &MockLimits) -> Meter {
        let window = which.window();
        let phase = match self.phase {
            Phase::Given(phase) => phase,
            // Of the whole window, so that slices are the window's own.
            Phase::Seeded(seed) => {
                let part = (u128::from(scatter(seed)) * window.as_nanos()) >> 64;
                Duration::from_nanos(u64::try_from(part).unwrap_or(0))
            }
        };
        Meter::new(which.shape(limits), window, phase, self.unix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::config::MockShapes;
    use super::super::headers::go_duration;
    use super::*;
    use crate::cost::{DAY, MINUTE, Shape, Zone};

    const START: Duration = Duration::ZERO;

    fn limits(which: Which, amount: u64) -> MockLimits {
        let mut limits = MockLimits::default();
        match which {
            Which::Rps => limits.rps = Some(amount),
            Which::Rpm => limits.rpm = Some(amount),
            Which::Rpd => limits.rpd = Some(amount),
            Which::Tpm => limits.tpm = Some(amount),
            Which::Tpd => limits.tpd = Some(amount),
            Which::Itpm => limits.itpm = Some(amount),
            Which::Otpm => limits.otpm = Some(amount),
        }
        limits
    }

    fn book(limits: MockLimits) -> Book {
        Book::new(&MockConfig { limits, ..MockConfig::default() })
    }

    /// A request that is charged this much.
    fn of(tokens: u64) -> Estimate {
        Estimate::tokens(tokens, 0)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn waits_are_those_that_providers_printed() {
        // (limit, used, requested, printed): OpenAI's 429 texts, then two of Groq's, which refill the same way.
        let printed = [
            (Which::Tpm, 30_000, 22_999, 12_528, "11.054s"),
            (Which::Tpm, 30_000, 26_713, 7_669, "8.764s"),
            (Which::Tpm, 30_000, 24_102, 7_758, "3.72s"),
            (Which::Rpm, 3, 3, 1, "20s"),
            (Which::Rpd, 200, 200, 1, "7m12s"),
            (Which::Rpd, 50, 50, 1, "28m48s"),
            (Which::Rpd, 2_000, 2_000, 1, "43.2s"),
            (Which::Tpm, 8_000, 5_536, 5_599, "23.5125s"),
            (Which::Tpm, 100_000, 99_348, 1_968, "789.6ms"),
        ];
        for (which, limit, used, requested, text) in printed {
            let mut book = book(limits(which, limit));
            let (requests, tokens) = if which.kind() == "requests" { (used, 1) } else { (1, used) };
            for _ in 0..requests {
                book.admit(&of(tokens), START).unwrap();
            }
            let refusal = book.admit(&of(requested), START).unwrap_err();
            let wait = refusal.wait.unwrap();
            assert_eq!(refusal, Refusal { which, limit, used, requested, wait: Some(wait) });
            assert_eq!(go_duration(wait), text, "{which:?} {limit} {used} {requested}");

            // The promise holds to the nanosecond.
            assert!(book.admit(&of(requested), wait - Duration::from_nanos(1)).is_err());
            assert!(book.admit(&of(requested), wait).is_ok());
        }
    }

    #[test]
    fn the_reset_of_a_day_limit_is_the_one_that_was_recorded() {
        // Recorded: limit 1,500,000, remaining 1,495,621, reset 4m12.172s. Its reset was computed a moment after its
        // remaining, when a little more than one token had leaked; so ours is later by less than two tokens' time.
        let mut book = book(limits(Which::Tpd, 1_500_000));
        book.admit(&of(4_379), START).unwrap();
        let gauge = book.standing(START).tokens.unwrap();
        assert_eq!((gauge.limit, gauge.remaining), (1_500_000, 1_495_621));
        let later = gauge.reset - Duration::from_millis(252_172);
        assert!(later < ms(2 * 58), "{later:?}");
    }

    #[test]
    fn resets_are_those_of_recorded_headers() {
        // (limit, used, reset): OpenAI's headers, truncated to milliseconds.
        let recorded = [
            (Which::Rpm, 5_000, 1, 12),
            (Which::Rpm, 500, 1, 120),
            (Which::Rpm, 400, 1, 150),
            (Which::Rpd, 10_000, 1, 8_640),
            (Which::Tpm, 2_000_000, 765, 22),
            (Which::Tpm, 2_000_000, 1_238, 37),
            (Which::Tpm, 1_000_000, 3, 0),
            (Which::Tpm, 10_000, 519, 3_114),
        ];
        for (which, limit, used, reset) in recorded {
            let mut book = book(limits(which, limit));
            book.admit(&of(used), START).unwrap();
            let standing = book.standing(START);
            let gauge = standing.requests.or(standing.tokens).unwrap();
            assert_eq!((gauge.remaining, gauge.reset.as_millis()), (limit - used, reset), "{which:?} {limit} {used}");
        }
    }

    #[test]
    fn a_request_refused_by_one_limit_debits_none() {
        let all =
            MockLimits { rpm: Some(10), rpd: Some(100), tpm: Some(1_000), tpd: Some(10_000), ..MockLimits::default() };
        let mut book = book(all);
        book.admit(&of(900), START).unwrap();
        let before = book.standing(START);
        for _ in 0..50 {
            assert_eq!(book.admit(&of(101), START).unwrap_err().which, Which::Tpm);
        }
        assert_eq!(book.standing(START), before);
        // 9 more requests fit, so no refusal took one; and 100 more tokens.
        book.admit(&of(100), START).unwrap();
        for _ in 0..8 {
            book.admit(&of(0), START).unwrap();
        }
        assert_eq!(book.admit(&of(0), START).unwrap_err().which, Which::Rpm);
    }

    #[test]
    fn a_refused_request_takes_one_where_refusals_count() {
        let limits = limits(Which::Rpm, 3);
        let mut book = Book::new(&MockConfig { limits, refusals_count: true, ..MockConfig::default() });
        for _ in 0..3 {
            book.admit(&of(0), START).unwrap();
        }
        assert_eq!(book.admit(&of(0), START).unwrap_err().wait, Some(ms(20_000)));
        assert_eq!(book.admit(&of(0), START).unwrap_err().wait, Some(ms(40_000)));
    }

    #[test]
    fn a_limit_refills_continuously_and_no_further_than_full() {
        let mut book = book(limits(Which::Tpm, 60_000));
        book.admit(&of(60_000), START).unwrap();
        assert!(book.admit(&of(1_000), ms(999)).is_err());
        book.admit(&of(1_000), ms(1_000)).unwrap();
        assert_eq!(book.standing(ms(31_000)).tokens.unwrap().remaining, 30_000);
        let day = ms(86_400_000);
        assert_eq!(book.admit(&of(60_001), day).unwrap_err().wait, None);
        book.admit(&of(60_000), day).unwrap();
        assert!(book.admit(&of(1), day).is_err());
    }

    #[test]
    fn settling_refunds_what_was_not_used_and_debits_what_was_used_more() {
        let mut book = book(limits(Which::Tpm, 1_000));
        let admitted = book.admit(&of(1_000), START).unwrap();
        book.settle(&admitted, &Usage::new(0, 400), START);
        assert_eq!(book.standing(START).tokens.unwrap().remaining, 600);

        let admitted = book.admit(&of(600), START).unwrap();
        book.settle(&admitted, &Usage::new(0, 1_600), START);
        // 2,000 of 1,000: a debt that is waited for.
        assert_eq!(book.standing(START).tokens.unwrap().remaining, 0);
        let refusal = book.admit(&of(10), START).unwrap_err();
        assert_eq!((refusal.used, refusal.wait), (2_000, Some(ms(60_600))));
    }

    #[test]
    fn a_refund_after_the_charge_has_leaked_away_gives_nothing() {
        let mut book = book(limits(Which::Tpm, 1_000));
        let admitted = book.admit(&of(1_000), START).unwrap();
        book.settle(&admitted, &Usage::default(), ms(60_000));
        book.admit(&of(1_000), ms(60_000)).unwrap();
        assert!(book.admit(&of(1), ms(60_000)).is_err());
    }

    #[test]
    fn the_longest_wait_is_told_and_too_large_before_any_wait() {
        let both = MockLimits { rpm: Some(1), tpm: Some(100), ..MockLimits::default() };
        let mut book = book(both);
        book.admit(&of(50), START).unwrap();
        assert_eq!(book.admit(&of(60), START).unwrap_err().which, Which::Rpm); // 60 s against 6 s
        assert_eq!(book.admit(&of(100), ms(59_000)).unwrap_err().which, Which::Rpm); // 1 s against nothing
        let never = book.admit(&of(101), START).unwrap_err();
        assert_eq!((never.which, never.wait), (Which::Tpm, None));
    }

    #[test]
    fn headers_show_the_limit_that_allows_less_in_the_long_run() {
        let minutes = MockLimits { rpm: Some(500), tpm: Some(200_000), ..MockLimits::default() };
        let tier_1 = MockLimits { rpd: Some(10_000), tpd: Some(2_000_000_000), ..minutes };
        let mut book = book(tier_1);
        book.admit(&of(20), START).unwrap();
        let standing = book.standing(START);
        assert_eq!(standing.requests, Some(Gauge { limit: 10_000, remaining: 9_999, reset: ms(8_640), window: DAY }));
        assert_eq!(standing.tokens, Some(Gauge { limit: 200_000, remaining: 199_980, reset: ms(6), window: MINUTE }));
    }

    #[test]
    fn changed_limits_apply_at_once_and_keep_what_was_used() {
        let mut book = book(limits(Which::Tpm, 1_000));
        book.admit(&of(1_000), START).unwrap();
        book.set_limits(limits(Which::Tpm, 2_000), ms(30_000));
        assert_eq!(book.standing(ms(30_000)).tokens.unwrap().remaining, 1_500);
        book.set_limits(MockLimits::default(), ms(30_000));
        book.admit(&of(u64::MAX), ms(30_000)).unwrap();
        assert_eq!(book.standing(ms(30_000)), Standing { wall: ms(30_000), ..Standing::default() });
    }

    #[test]
    fn extremes_neither_overflow_nor_divide_by_zero() {
        let mut book = book(limits(Which::Tpd, u64::MAX));
        let admitted = book.admit(&of(u64::MAX), START).unwrap();
        book.settle(&admitted, &Usage::new(u64::MAX, u64::MAX), START);
        assert!(book.admit(&of(1), Duration::MAX).is_ok());
        assert!(book.admit(&of(1), START).is_ok(), "time going backwards is time standing still");

        book.set_limits(limits(Which::Rpm, 0), START);
        assert_eq!(book.admit(&of(1), Duration::MAX).unwrap_err().wait, None);
        assert_eq!(book.standing(START).requests.unwrap().reset, Duration::ZERO);
    }

    fn shaped(shape: Shape, which: Which, amount: u64) -> Book {
        let limits = MockLimits { shapes: MockShapes::all(shape), ..limits(which, amount) };
        Book::new(&MockConfig { limits, phase: Some(ms(25_000)), ..MockConfig::default() })
    }

    #[test]
    fn a_limit_per_second_lets_so_many_pass_each_second() {
        for shape in [Shape::Refill, Shape::Sliding, Shape::Fixed] {
            let mut book = shaped(shape, Which::Rps, 5);
            let mut burst = |at| (0..40).filter(|_| book.admit(&of(1), ms(at)).is_ok()).count();
            assert_eq!([0, 1_500, 3_000].map(&mut burst), [5; 3], "{shape}");
        }
    }

    #[test]
    fn a_sliding_window_admits_again_when_the_oldest_leaves() {
        let mut book = shaped(Shape::Sliding, Which::Tpm, 1_000);
        book.admit(&of(600), ms(0)).unwrap();
        book.admit(&of(300), ms(10_000)).unwrap();
        let gauge = book.standing(ms(15_000)).tokens.unwrap();
        assert_eq!((gauge.remaining, gauge.reset), (100, ms(45_000)));
        assert_eq!(book.admit(&of(700), ms(20_000)).unwrap_err().wait, Some(ms(40_000)), "until the 600 leave");
        assert_eq!(book.admit(&of(701), ms(20_000)).unwrap_err().wait, Some(ms(50_000)), "until the 300 leave as well");
        book.admit(&of(700), ms(60_000)).unwrap();
        assert_eq!(book.admit(&of(1), ms(69_999)).unwrap_err().used, 1_000);
        book.admit(&of(300), ms(70_000)).unwrap();
    }

    #[test]
    fn a_fixed_minute_is_zeroed_at_its_phase() {
        let mut book = shaped(Shape::Fixed, Which::Tpm, 1_000);
        book.admit(&of(1_000), ms(24_000)).unwrap();
        let gauge = book.standing(ms(24_500)).tokens.unwrap();
        assert_eq!((gauge.remaining, gauge.reset), (0, ms(500)));
        let refusal = book.admit(&of(1), ms(24_500)).unwrap_err();
        assert_eq!((refusal.used, refusal.wait), (1_000, Some(ms(500))));
        book.admit(&of(900), ms(25_000)).unwrap();
        assert_eq!(book.admit(&of(101), ms(30_000)).unwrap_err().wait, Some(ms(55_000)));
        assert_eq!(
            book.standing(ms(85_000)).tokens.unwrap().reset,
            ms(60_000),
            "it counts down although nothing is used"
        );
    }

    #[test]
    fn slices_admit_their_part_rounded_up_and_show_the_minute() {
        let mut book = shaped(Shape::Slice(ms(10_000)), Which::Rpm, 500); // 84 from 5 s, 15 s, 25 s, … on
        for _ in 0..84 {
            book.admit(&of(0), ms(6_000)).unwrap();
        }
        let refusal = book.admit(&of(0), ms(6_000)).unwrap_err();
        assert_eq!((refusal.limit, refusal.used, refusal.wait), (500, 84, Some(ms(9_000))));
        for _ in 0..84 {
            book.admit(&of(0), ms(15_000)).unwrap();
        }
        assert!(book.admit(&of(0), ms(15_000)).is_err());
        let gauge = book.standing(ms(20_000)).requests.unwrap();
        assert_eq!((gauge.limit, gauge.remaining, gauge.reset), (500, 500 - 168, ms(5_000)));
        assert_eq!(shaped(Shape::Slice(ms(1_000)), Which::Tpm, 60).admit(&of(2), START).unwrap_err().wait, None);
    }

    #[test]
    fn a_calendar_day_ends_at_midnight() {
        let shapes = MockShapes { rpd: Shape::Calendar(Zone::Pacific), ..MockShapes::default() };
        let limits = MockLimits { shapes, ..limits(Which::Rpd, 1) };
        // 2026-11-01 06:59 UTC, a minute before a day of 25 hours.
        let mut book = Book::new(&MockConfig { limits, started: Some(1_793_516_340), ..MockConfig::default() });
        book.admit(&of(0), START).unwrap();
        assert_eq!(book.admit(&of(0), START).unwrap_err().wait, Some(ms(60_000)));
        book.admit(&of(0), ms(60_000)).unwrap();
        assert_eq!(book.admit(&of(0), ms(60_000)).unwrap_err().wait, Some(ms(25 * 3_600_000)));
    }

    #[test]
    fn phases_differ_by_seed_and_are_the_same_for_the_same() {
        let reset = |seed| {
            let limits = MockLimits { shapes: MockShapes::all(Shape::Fixed), ..limits(Which::Rpm, 1) };
            Book::new(&MockConfig { limits, seed, ..MockConfig::default() }).standing(START).requests.unwrap().reset
        };
        let mut resets: Vec<_> = (0..100).map(reset).collect();
        assert_eq!(reset(7), resets[7]);
        resets.sort();
        assert!(resets[10] < ms(15_000) && resets[90] > ms(45_000) && resets[99] <= ms(60_000), "{resets:?}");
    }

    #[test]
    fn a_refund_is_taken_off_the_admission_and_an_excess_is_counted_at_completion() {
        for shape in [Shape::Sliding, Shape::Fixed, Shape::Slice(ms(60_000))] {
            let mut book = shaped(shape, Which::Tpm, 1_000);
            let refunded = book.admit(&of(800), ms(20_000)).unwrap();
            let debited = book.admit(&of(100), ms(20_000)).unwrap();
            book.settle(&refunded, &Usage::new(500, 0), ms(24_000));
            assert_eq!(book.standing(ms(24_000)).tokens.unwrap().remaining, 400, "{shape}");
            // After the window of the admission.
            let late = book.admit(&of(400), ms(24_000)).unwrap();
            book.settle(&late, &Usage::new(0, 0), ms(85_000));
            assert_eq!(book.standing(ms(85_000)).tokens.unwrap().remaining, 1_000, "{shape}");
            book.settle(&debited, &Usage::new(150, 0), ms(85_000));
            assert_eq!(book.standing(ms(85_000)).tokens.unwrap().remaining, 950, "{shape}");
        }
    }

    #[test]
    fn each_rule_charges_its_own_at_admission_and_at_completion() {
        let request = Estimate { input: 100, input_by_chars: 110, output_cap: Some(300), choices: 1 };
        let uncapped = Estimate { output_cap: None, ..request };
        let used = |charge, count, settle, predicted_output, request: &Estimate| {
            let limits =
                MockLimits { tpm: Some(1_000), shapes: MockShapes::all(Shape::Fixed), ..MockLimits::default() };
            let config = MockConfig { limits, charge, count, settle, predicted_output, ..MockConfig::default() };
            let mut book = Book::new(&config);
            let admitted = book.admit(request, START).unwrap();
            let left = |book: &mut Book| 1_000 - book.standing(START).tokens.unwrap().remaining;
            let before = left(&mut book);
            book.settle(&admitted, &Usage::new(100, 50), START);
            (before, left(&mut book))
        };
        use ChargeRule::{InputOnly, InputPlusCap, MaxOfInputAndCap};
        use Count::{Characters, Exact};
        for (charge, count, before, kept) in [
            (InputPlusCap, Characters, 410, 410),
            (InputPlusCap, Exact, 400, 400),
            (MaxOfInputAndCap, Characters, 300, 300),
            (InputOnly, Characters, 110, 160),
            (InputOnly, Exact, 100, 150),
        ] {
            assert_eq!(used(charge, count, false, 0, &request), (before, kept), "{charge:?}");
            assert_eq!(used(charge, count, true, 0, &request), (before, 150), "{charge:?}");
        }
        assert_eq!(used(InputPlusCap, Exact, false, 217, &uncapped), (317, 317));
        assert_eq!(used(InputPlusCap, Exact, true, 217, &uncapped), (317, 150));
        assert_eq!(used(InputPlusCap, Exact, false, 0, &uncapped), (100, 150), "what was not charged is charged later");
    }

    #[test]
    fn input_is_charged_at_admission_and_output_when_it_is_there_whatever_the_cap() {
        let config = |settle| {
            let limits = MockLimits { itpm: Some(100), otpm: Some(100), ..MockLimits::default() };
            MockConfig { dialect: Provider::Anthropic, limits, settle, count: Count::Exact, ..MockConfig::default() }
        };
        let left = |book: &mut Book| {
            let Standing { input, output, .. } = book.standing(START);
            (input.unwrap().remaining, output.unwrap().remaining)
        };
        for (settle, input_left) in [(true, 10), (false, 40)] {
            let mut book = Book::new(&config(settle));
            let admitted = book.admit(&Estimate::tokens(60, 64_000), START).unwrap();
            assert_eq!(left(&mut book), (40, 100), "no cap reserves output");
            book.settle(&admitted, &Usage::new(90, 130), START);
            assert_eq!(left(&mut book), (input_left, 0));
            let refusal = book.admit(&Estimate::tokens(1, 1), START).unwrap_err();
            assert_eq!(
                (refusal.which, refusal.wait),
                (Which::Otpm, Some(ms(18_000))),
                "until the excess of 30 is gone"
            );
        }
    }

    #[test]
    fn each_dialect_shows_the_limits_that_its_headers_are_about() {
        let limits = MockLimits { rpm: Some(60), rpd: Some(900), tpm: Some(600), ..MockLimits::default() };
        let shapes = MockShapes { rpm: Shape::Slice(Duration::from_secs(10)), ..MockShapes::default() };
        let requests = |dialect, shapes| {
            let limits = MockLimits { shapes, ..limits };
            let phase = Some(Duration::ZERO);
            let mut book = Book::new(&MockConfig { dialect, limits, phase, ..MockConfig::default() });
            book.admit(&of(10), ms(4_000)).unwrap();
            let Gauge { limit, remaining, reset, window } = book.standing(ms(4_000)).requests.unwrap();
            (limit, remaining, reset.as_millis(), window.as_secs())
        };
        assert_eq!(requests(Provider::Openai, MockShapes::default()), (900, 899, 96_000, 86_400), "the stricter one");
        assert_eq!(requests(Provider::Groq, MockShapes::default()), (900, 899, 96_000, 86_400), "always the day");
        assert_eq!(requests(Provider::Mistral, MockShapes::default()), (60, 59, 1_000, 60), "always the minute");
        assert_eq!(requests(Provider::Azure, MockShapes::default()), (60, 59, 1_000, 60));
        assert_eq!(requests(Provider::Azure, shapes), (10, 9, 6_000, 10), "the slice");
        assert_eq!(requests(Provider::Mistral, shapes), (60, 59, 56_000, 60));
    }

    #[test]
    fn limits_change_at_their_time() {
        let changes = vec![LimitChange { at: ms(90_000), factor: 4.0 }, LimitChange { at: ms(60_000), factor: 0.5 }];
        let mut book = Book::new(&MockConfig { limits: limits(Which::Tpm, 1_000), changes, ..MockConfig::default() });
        let mut limit = |at| book.standing(at).tokens.unwrap().limit;
        assert_eq!([ms(59_999), ms(60_000), ms(100_000)].map(&mut limit), [1_000, 500, 2_000]);
    }

    /// What was admitted: when, and how much.
    type Admissions = Vec<(Duration, u64)>;

    /// Plays arrivals (gap in ms, size), checks the promise of every refusal, and says what was admitted. A bucket's
    /// promise is that of the whole units it shows: up to one unit's time late.
    fn play(shape: Shape, limit: u64, arrivals: &[(u64, u64)]) -> Admissions {
        let mut book = shaped(shape, Which::Tpm, limit);
        let grain = if shape == Shape::Refill { Duration::from_nanos(60_000_000_000 / limit) } else { Duration::ZERO };
        let (mut now, mut admissions) = (START, Vec::new());
        for (gap, size) in arrivals {
            now += ms(*gap);
            let Err(refusal) = book.admit(&of(*size), now) else {
                admissions.push((now, *size));
                continue;
            };
            let Some(wait) = refusal.wait else { continue };
            let too_early = now + wait.saturating_sub(grain + Duration::from_nanos(1));
            assert!(book.clone().admit(&of(*size), too_early).is_err(), "{shape}: before the promised time");
            assert!(book.clone().admit(&of(*size), now + wait).is_ok(), "{shape}: at the promised time");
        }
        admissions
    }

    /// The most that was admitted in one piece of the time line, which `cut` numbers.
    fn fullest(admissions: &Admissions, cut: impl Fn(u128) -> u128) -> u64 {
        let mut pieces = std::collections::BTreeMap::new();
        for (at, size) in admissions {
            *pieces.entry(cut(at.as_nanos())).or_insert(0) += size;
        }
        pieces.into_values().max().unwrap_or(0)
    }

    const MS: u128 = 1_000_000;

    proptest! {
        #[test]
        fn no_shape_admits_more_than_it_allows_and_every_promise_holds(
            limit in 60..5_000_u64,
            arrivals in prop::collection::vec((0..4_000_u64, 1..400_u64), 1..300),
        ) {
            let slice = ms(10_000);
            // From any admission to any later one: the capacity and what refilled between them.
            let refill = play(Shape::Refill, limit, &arrivals);
            for (index, (from, _)) in refill.iter().enumerate() {
                let mut sum = 0_u128;
                for (to, size) in &refill[index..] {
                    sum += u128::from(*size);
                    let refilled = (*to - *from).as_nanos() * u128::from(limit);
                    prop_assert!(sum * 60_000 * MS <= u128::from(limit) * 60_000 * MS + refilled);
                }
            }
            let sliding = play(Shape::Sliding, limit, &arrivals);
            for (from, _) in &sliding {
                let window = sliding.iter().filter(|(at, _)| *at >= *from && *at - *from < ms(60_000));
                prop_assert!(window.map(|(_, size)| size).sum::<u64>() <= limit);
            }
            let fixed = play(Shape::Fixed, limit, &arrivals);
            prop_assert!(fullest(&fixed, |at| (at + 35_000 * MS) / (60_000 * MS)) <= limit);
            let slices = play(Shape::Slice(slice), limit, &arrivals);
            prop_assert!(fullest(&slices, |at| (at + 5_000 * MS) / (10_000 * MS)) <= limit.div_ceil(6));
        }

        #[test]
        fn no_calendar_day_admits_more_than_it_allows_and_every_promise_holds(
            limit in 1..50_u64,
            gaps in prop::collection::vec(0..20_000_u64, 1..200),
        ) {
            // 01:00 UTC is 03:00 at +02:00, so the first midnight is 21 hours away.
            let shapes = MockShapes { rpd: Shape::Calendar(Zone::East(120)), ..MockShapes::default() };
            let limits = MockLimits { shapes, ..limits(Which::Rpd, limit) };
            let mut book = Book::new(&MockConfig { limits, started: Some(3_600), ..MockConfig::default() });
            let (mut now, mut admissions) = (START, Vec::new());
            for gap in gaps {
                now += Duration::from_secs(gap);
                match book.admit(&of(0), now) {
                    Ok(_) => admissions.push((now, 1)),
                    Err(refusal) => {
                        let wait = refusal.wait.unwrap();
                        prop_assert!(book.clone().admit(&of(0), now + wait - Duration::from_nanos(1)).is_err());
                        prop_assert!(book.clone().admit(&of(0), now + wait).is_ok());
                    }
                }
            }
            prop_assert!(fullest(&admissions, |at| (at / (1_000 * MS) + 3 * 3_600) / 86_400) <= limit);
        }
    }
}
