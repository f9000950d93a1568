//! What answers teach of limits: shapes, charge rules, numbers, and who else uses them. In exact virtual time, and the
//! provider is the mock's own book.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use proptest::prelude::*;
use tollgate::engine::{Ask, End, GateStatus, Gates, Grant, Machine, Moment, Source, Submitted, Wake};
use tollgate::mock::{Admitted, Book, ChargeRule, Count, MockConfig, MockLimits, MockShapes};
use tollgate::providers::{self, LimitHit, Reading, Rule};
use tollgate::{Charge, DAY, Dimension, Estimate, Limit, MINUTE, Provider, Shape, Usage, Zone};

const SECOND: Duration = Duration::from_secs(1);
const MARGIN: Duration = Duration::from_millis(500);

fn secs(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A lane of a server of which only the limits are known, and that server, without a network in between.
struct World {
    lane: Machine<Estimate>,
    book: Book,
    start: Moment,
    now: Duration,
    under_way: Vec<(Box<Grant>, Admitted, Estimate)>,
    refused: usize,
}

impl World {
    fn new(config: MockConfig) -> Self {
        let MockLimits { rpm, tpm, .. } = config.limits;
        let limits = [rpm.map(Limit::rpm), tpm.map(Limit::tpm)].into_iter().flatten();
        Self::told(config, &limits.map(|limit| (limit, Source::Configured)).collect::<Vec<_>>())
    }

    fn told(config: MockConfig, limits: &[(Limit, Source)]) -> Self {
        let start = Moment::START;
        let mut gates = Gates::new(Provider::Compatible, MARGIN);
        gates.set(limits, start);
        let (lane, book) = (Machine::new(gates, start), Book::new(&config));
        Self { lane, book, start, now: Duration::ZERO, under_way: Vec::new(), refused: 0 }
    }

    fn shaped(shape: Shape, rpm: u64, tpm: u64) -> Self {
        Self::new(MockConfig { limits: limits(shape, rpm, tpm), ..charging(ChargeRule::InputPlusCap, Count::Exact) })
    }

    fn at(&self) -> Moment {
        self.start + self.now
    }

    fn submit(&mut self, estimate: Estimate) {
        let charge = providers::at_admission(Provider::Compatible, &estimate, 0);
        let at = self.at();
        if let Submitted::Granted(grant) = self.lane.submit(&Ask { charge, ..Ask::default() }, || estimate, at).unwrap()
        {
            self.arrive(grant, estimate);
        }
    }

    fn arrive(&mut self, grant: Box<Grant>, estimate: Estimate) {
        match self.book.admit(&estimate, self.now) {
            Ok(admitted) => self.under_way.push((grant, admitted, estimate)),
            Err(refusal) => {
                self.refused += 1;
                let (mut headers, _) = refusal.answer("m");
                self.book.standing(self.now).stamp(&mut headers);
                let (charge, sent, at) = (grant.charge, grant.at, self.at());
                self.lane.finish(grant, End::Refused, &read(&headers), at);
                let named = Limit::new(
                    if refusal.which.name() == "RPM" { Dimension::Requests } else { Dimension::Tokens },
                    refusal.limit,
                    MINUTE,
                );
                let hit = LimitHit { used: Some(refusal.used), ..named.into() };
                self.lane.block(Some(hit), &charge, refusal.wait.unwrap(), sent, at);
            }
        }
    }

    /// Time passes, and those who wait go when they may.
    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let mut out = Vec::new();
            let wake = self.lane.poll(self.at(), &mut out);
            for wake in out {
                let Wake::Granted(grant, estimate) = wake else { panic!("nothing has a deadline") };
                self.arrive(grant, estimate);
            }
            match wake.map(|at| at - self.start).filter(|at| *at <= until) {
                Some(at) => self.now = at.max(self.now + Duration::from_nanos(1)),
                None => break,
            }
        }
        self.now = until;
    }

    /// Everything under way is answered, and really used half of its output.
    fn answer(&mut self) {
        for (grant, admitted, estimate) in std::mem::take(&mut self.under_way) {
            let usage = Usage::new(estimate.input, estimate.output_cap.unwrap() / 2);
            self.book.settle(&admitted, &usage, self.now);
            let mut headers = HeaderMap::new();
            self.book.standing(self.now).stamp(&mut headers);
            let (used, at) = (Charge::tokens(usage.input_tokens, usage.output_tokens), self.at());
            self.lane.finish(grant, End::Used(used), &read(&headers), at);
            self.lane.answered(at);
        }
    }

    /// One request after another, each answered after a tenth of a second.
    fn one_by_one(&mut self, requests: usize) {
        for _ in 0..requests {
            self.submit(Estimate::tokens(100, 100));
            self.pass(secs(0.1));
            self.answer();
        }
    }

    fn gate(&mut self, dimension: Dimension) -> GateStatus {
        let gates = self.lane.status(self.at()).gates;
        gates.into_iter().find(|gate| gate.limit.dimension == dimension).unwrap()
    }

    fn rpm(&mut self) -> GateStatus {
        self.gate(Dimension::Requests)
    }

    fn tpm(&mut self) -> GateStatus {
        self.gate(Dimension::Tokens)
    }
}

fn limits(shape: Shape, rpm: u64, tpm: u64) -> MockLimits {
    MockLimits { rpm: Some(rpm), tpm: Some(tpm), shapes: MockShapes::all(shape), ..MockLimits::default() }
}

fn charging(charge: ChargeRule, count: Count) -> MockConfig {
    MockConfig { charge, count, settle: false, phase: Some(secs(20.0)), ..MockConfig::default() }
}

fn read(headers: &HeaderMap) -> Vec<Reading> {
    providers::observe(Provider::Compatible, headers, SystemTime::UNIX_EPOCH).readings
}

fn reading(dimension: Dimension, limit: u64, remaining: u64, reset: Duration) -> Reading {
    let (limit, remaining, reset) = (Some(limit), Some(remaining), Some(reset));
    Reading { dimension, limit, remaining, reset, reset_rounding: Duration::from_millis(1), window: None, rounding: 0 }
}

/// A lane with one limit.
fn lane(provider: Provider, limit: Limit) -> (Machine<()>, Moment) {
    let start = Moment::START;
    let mut gates = Gates::new(provider, MARGIN);
    gates.set(&[(limit, Source::Configured)], start);
    gates.answered(start);
    (Machine::new(gates, start), start)
}

fn take(lane: &mut Machine<()>, charge: Charge, now: Moment) -> Option<Box<Grant>> {
    lane.try_submit(&Ask { charge, ..Ask::default() }, now).unwrap().ok()
}

#[test]
fn a_refill_leaves_only_refill_after_five_answers() {
    let mut world = World::shaped(Shape::Refill, 500, 300_000);
    assert_eq!(world.rpm().shapes, [Shape::Refill, Shape::Sliding, Shape::Fixed]);
    world.one_by_one(5);
    assert_eq!(world.rpm().shapes, [Shape::Refill]);
    assert_eq!(world.tpm().shapes, [Shape::Refill]);
}

#[test]
fn a_fixed_minute_is_told_from_a_refill_and_from_a_sliding_one_after_five_answers() {
    let mut world = World::shaped(Shape::Fixed, 500, 300_000);
    world.one_by_one(5);
    assert_eq!(world.rpm().shapes, [Shape::Fixed]);
    assert_eq!(world.tpm().shapes, [Shape::Fixed]);
}

#[test]
fn a_sliding_minute_is_told_from_a_refill_at_once_and_from_a_fixed_one_in_the_second_minute() {
    let mut world = World::shaped(Shape::Sliding, 500, 300_000);
    world.one_by_one(5);
    assert_eq!(world.rpm().shapes, [Shape::Sliding, Shape::Fixed], "its first minute began with our first request");
    world.pass(secs(58.0));
    world.one_by_one(20);
    world.pass(secs(3.0));
    world.one_by_one(5);
    assert_eq!(world.rpm().shapes, [Shape::Sliding]);
    assert_eq!(world.refused, 0);
}

#[test]
fn the_end_of_a_fixed_minute_is_learned_from_headers_that_count_down_to_it() {
    let mut world = World::shaped(Shape::Fixed, 60, 3_000_000);
    world.one_by_one(5);
    (0..115).for_each(|_| world.submit(Estimate::tokens(100, 100)));
    assert_eq!(world.under_way.len(), 55, "this minute's");
    world.pass(secs(19.4));
    assert_eq!(world.under_way.len(), 55, "it ends at 20 s");
    world.pass(secs(1.0));
    assert_eq!((world.under_way.len(), world.refused), (115, 0), "and not a minute after the first request");
}

#[test]
fn a_limit_that_headers_tell_holds_the_request_that_they_answer() {
    let config = MockConfig { limits: limits(Shape::Sliding, 100, 300_000), ..MockConfig::default() };
    let mut world = World::told(config, &[]);
    world.submit(Estimate::tokens(100, 100));
    world.pass(SECOND);
    world.answer();
    assert_eq!((world.rpm().limit, world.rpm().left, world.tpm().left), (Limit::rpm(100), 99, 299_800));
    // What leaves the window first is that request, which was sent before anything was known.
    world.one_by_one(10);
    assert!(world.rpm().shapes.contains(&Shape::Sliding), "{:?}", world.rpm());
    (0..150).for_each(|_| world.submit(Estimate::tokens(100, 100)));
    for _ in 0..70 {
        world.pass(SECOND);
        world.answer();
    }
    assert_eq!((world.lane.waiting(), world.refused), (0, 0));
}

#[test]
fn the_last_answer_of_a_burst_gives_back_nothing_that_it_had_not_seen() {
    let (mut lane, now) = lane(Provider::Openai, Limit::rpm(60));
    let one = Charge::tokens(1, 0);
    let grants: Vec<_> = (0..40).map(|_| take(&mut lane, one, now).unwrap()).collect();
    // Numbers of the admission, the last to be admitted is answered first.
    for (nth, grant) in grants.into_iter().enumerate().rev() {
        let used = nth as u64 + 1;
        let readings = [reading(Dimension::Requests, 60, 60 - used, SECOND * used as u32)];
        lane.finish(grant, End::Used(one), &readings, now + SECOND);
    }
    assert_eq!(lane.status(now + SECOND).gates[0].left, 21);
}

#[test]
fn what_was_known_before_is_known_at_once_where_the_number_is_the_same() {
    let now = Moment::START;
    let limit = Limit::tpm(1_000);
    let recalled = |known: Limit, from_header| {
        let mut gates = Gates::new(Provider::Compatible, MARGIN);
        gates.set(&[(limit, Source::Configured)], now);
        gates.recall(known, from_header, &[Shape::Fixed], &[], &[Rule::TokensOrCap], now);
        Machine::<()>::new(gates, now).status(now).gates
    };
    let gates = recalled(limit, false);
    assert_eq!((&gates[0].shapes[..], &gates[0].rules[..]), (&[Shape::Fixed][..], &[Rule::TokensOrCap][..]));
    assert!(gates[0].suspected.is_empty());
    assert_eq!(recalled(Limit::tpm(999), false)[0].rules, Rule::ALL, "another number is another limit");
    let lowered = &recalled(Limit::tpm(900), true)[0];
    assert_eq!((lowered.limit.amount, &lowered.source), (900, &Source::Header));
    assert_eq!(recalled(Limit::tpm(2_000), true)[0].limit, limit, "what is configured is not raised");
    assert_eq!(recalled(Limit::rpd(50), true).len(), 2, "and one that nobody configured is added");
}

/// Characters make a fifth more of its input than the vocabulary does.
fn typical(nth: u64) -> Estimate {
    let (input, cap) = (300 + 35 * (nth % 11), 400 + 53 * (nth % 7));
    Estimate { input, input_by_chars: input * 6 / 5, output_cap: Some(cap), choices: 1 }
}

/// A world that has been busy for a quarter of a minute.
fn busy(charge: ChargeRule, count: Count, settle: bool) -> World {
    let limits = limits(Shape::Refill, 6_000, 600_000);
    let mut world = World::new(MockConfig { limits, settle, ..charging(charge, count) });
    for round in 0..20 {
        (0..30).for_each(|nth| world.submit(typical(30 * round + nth)));
        world.pass(secs(0.8));
        world.answer();
    }
    world
}

#[test]
fn dearer_charge_rules_than_the_true_one_are_ruled_out_and_no_more_is_reserved_than_it_takes() {
    let sums = [Rule::LargerPlusCap, Rule::TokensPlusCap, Rule::CharsPlusCap];
    // The larger count is always that by characters here.
    let larger = [Rule::LargerPlusCap, Rule::CharsPlusCap];
    let cases: [(_, _, _, _, &[Rule]); 6] = [
        (ChargeRule::InputPlusCap, Count::Exact, false, Rule::TokensPlusCap, &larger),
        (ChargeRule::InputPlusCap, Count::Characters, false, Rule::CharsPlusCap, &[]),
        (ChargeRule::MaxOfInputAndCap, Count::Exact, false, Rule::TokensOrCap, &sums),
        (ChargeRule::MaxOfInputAndCap, Count::Characters, false, Rule::CharsOrCap, &sums),
        (ChargeRule::InputOnly, Count::Exact, false, Rule::Usage, &sums),
        (ChargeRule::InputPlusCap, Count::Exact, true, Rule::Usage, &sums),
    ];
    for (charge, count, settle, rule, dearer) in cases {
        let mut world = busy(charge, count, settle);
        let gate = world.tpm();
        let left_over = gate.rules.iter().find(|rule| dearer.contains(rule));
        assert!(gate.rules.contains(&rule) && left_over.is_none(), "{rule:?}, settled: {settle}: {:?}", gate.rules);
        let remaining = world.book.standing(world.now).tokens.unwrap().remaining;
        assert!((remaining as i64).abs_diff(gate.left) <= 6_000, "{rule:?}: {} here, {remaining} there", gate.left);
        assert_eq!(world.refused, 0, "{rule:?}");
    }
}

#[test]
fn a_second_refusal_that_nothing_explains_brings_back_what_was_ruled_out() {
    let mut world = busy(ChargeRule::MaxOfInputAndCap, Count::Exact, false);
    world.pass(2 * SECOND); // so that it was no slice's
    let gate = world.tpm();
    assert!(gate.shapes == [Shape::Refill] && !gate.rules.contains(&Rule::LargerPlusCap), "{gate:?}");
    let refuse = |world: &mut World| {
        let at = world.at();
        world.lane.block(Some(Limit::tpm(600_000).into()), &Charge::tokens(300, 300), SECOND, at, at);
        world.tpm()
    };
    refuse(&mut world);
    assert_eq!(refuse(&mut world).shapes, [Shape::Refill], "those of one volley may be a lock of a few seconds");
    world.pass(2 * SECOND);
    let gate = refuse(&mut world);
    assert_eq!(gate.shapes, [Shape::Refill, Shape::Sliding, Shape::Fixed]);
    assert_eq!(gate.rules, Rule::ALL, "until answers tell them apart again, the safe one is reserved");
    assert_eq!(gate.blocked_for, Some(SECOND));
}

#[test]
fn a_refusal_keeps_a_larger_margin_until_two_quiet_windows_have_passed() {
    let one = Charge::tokens(1, 0);
    // Ten a second, and a margin of half a second.
    let (mut lane, start) = lane(Provider::Openai, Limit::rpm(600));
    let at_once = |lane: &mut Machine<()>, now: Moment| (0..).map_while(|_| take(lane, one, now)).count();
    assert_eq!(at_once(&mut lane, start), 595);
    let now = start + MINUTE;
    lane.block(Some(Limit::rpm(600).into()), &one, SECOND, now, now);
    assert_eq!(at_once(&mut lane, now + SECOND - MARGIN), 0, "nobody passes before the time that it names");
    assert_eq!(at_once(&mut lane, now + 2 * MINUTE), 585);
    assert_eq!(at_once(&mut lane, now + SECOND + 5 * MINUTE), 595);
}

#[test]
fn what_somebody_else_uses_is_left_to_him_and_taken_back_when_he_is_gone() {
    for (shape, comes_back) in [(Shape::Refill, secs(30.0)), (Shape::Sliding, MINUTE), (Shape::Fixed, secs(40.5))] {
        let limit = Limit::rpm(600).shaped(shape);
        let (mut lane, now) = lane(Provider::Compatible, limit);
        let grants: Vec<_> = (0..10).map(|_| take(&mut lane, Charge::tokens(1, 0), now).unwrap()).collect();
        for grant in grants {
            // Ten are ours, and 290 somebody else's.
            let reset = if shape == Shape::Refill { secs(30.0) } else { secs(40.5) };
            let readings = [reading(Dimension::Requests, 600, 300, reset)];
            lane.finish(grant, End::Used(Charge::tokens(1, 0)), &readings, now);
        }
        let left = |lane: &mut Machine<()>, at: Duration| lane.status(now + at).gates[0].left;
        // To within what means nothing: 1 % and two requests.
        assert!((300..=305).contains(&left(&mut lane, Duration::ZERO)), "{shape}");
        let later = comes_back + MARGIN;
        assert!(left(&mut lane, later / 3) < 510, "{shape}");
        assert_eq!(left(&mut lane, later), 600, "{shape}");
    }
}

#[test]
fn a_limit_that_only_headers_tell_is_per_day_where_its_reset_says_so() {
    let now = Moment::START;
    let mut lane: Machine<()> = Machine::new(Gates::new(Provider::Openai, MARGIN), now);
    let grant = take(&mut lane, Charge::tokens(1, 0), now).unwrap();
    let readings = [
        reading(Dimension::Requests, 10_000, 9_999, secs(8.64)),
        reading(Dimension::Tokens, 200_000, 199_000, secs(0.3)),
    ];
    lane.finish(grant, End::Used(Charge::tokens(1, 0)), &readings, now);
    let limits: Vec<_> = lane.status(now).gates.iter().map(|gate| (gate.limit, gate.left)).collect();
    assert_eq!(limits, [(Limit::rpd(10_000), 9_999), (Limit::tpm(200_000), 199_000)]);
}

#[test]
fn a_limit_that_headers_told_is_taken_over_when_it_changes_either_way() {
    let now = Moment::START;
    let mut lane: Machine<()> = Machine::new(Gates::new(Provider::Openai, MARGIN), now);
    let mut used = 0;
    for amount in [1_000, 500, 2_000] {
        let grant = take(&mut lane, Charge::tokens(1, 0), now).unwrap();
        used += 1;
        let reset = secs(60.0 * used as f64 / amount as f64);
        lane.finish(
            grant,
            End::Used(Charge::tokens(1, 0)),
            &[reading(Dimension::Requests, amount, amount - used, reset)],
            now,
        );
        let gate = &lane.status(now).gates[0];
        assert_eq!(
            (gate.limit, gate.left, &gate.source),
            (Limit::rpm(amount), (amount - used) as i64, &Source::Header)
        );
    }
}

#[test]
fn days_end_at_midnight_pacific_also_when_the_clocks_change() {
    let day = |date: &str, hours: u64| {
        let start = Moment::START;
        let unix = date.parse::<jiff::Timestamp>().unwrap().as_second();
        let wall = SystemTime::UNIX_EPOCH + Duration::from_secs(unix as u64);
        let limit = Limit::rpd(2).shaped(Shape::Calendar(Zone::Pacific));
        let mut gates = Gates::new(Provider::Gemini, Duration::ZERO).at_time_of_day(start, wall);
        gates.set(&[(limit, Source::Configured)], start);
        gates.answered(start);
        let one = Charge::tokens(1, 0);
        let end = start + Duration::from_secs(3_600 * hours);
        assert!(gates.reserve(&one, start).is_ok() && gates.reserve(&one, end - SECOND).is_ok(), "{date}");
        assert_eq!(gates.reserve(&one, end - SECOND).unwrap_err().until, end, "{date}");
        assert!(gates.reserve(&one, end).is_ok() && gates.reserve(&one, end + 22 * DAY / 24).is_ok(), "{date}");
        assert!(gates.reserve(&one, end + 22 * DAY / 24).is_err(), "{date}: the next day counts both");
    };
    day("2026-09-24T07:00:00Z", 24);
    day("2026-03-08T08:00:00Z", 23);
    day("2026-11-01T07:00:00Z", 25);
    day("2026-11-01T21:00:00Z", 11);
}

#[test]
fn a_gauge_counts_what_is_under_way_however_long_it_takes() {
    let (mut lane, now) = lane(Provider::Openai, Limit::rpm(2).shaped(Shape::Gauge));
    let one = Charge::tokens(1, 0);
    let first = take(&mut lane, one, now).unwrap();
    let _second = take(&mut lane, one, now).unwrap();
    assert!(take(&mut lane, one, now + DAY).is_none());
    lane.finish(first, End::Unknown, &[], now + DAY);
    assert!(take(&mut lane, one, now + DAY).is_some() && take(&mut lane, one, now + DAY).is_none());
}

#[test]
fn slices_that_nobody_told_of_cost_a_few_refusals_and_are_known_then() {
    let mut world = World::shaped(Shape::Slice(SECOND), 60_000, 60_000_000);
    world.one_by_one(5);
    let slice = Shape::Slice(SECOND);
    assert!(world.rpm().suspected.contains(&slice) && !world.rpm().shapes.contains(&slice));
    (0..10_000).for_each(|_| world.submit(Estimate::tokens(10, 10)));
    for _ in 0..30 {
        world.pass(secs(0.5));
        world.answer();
    }
    assert!((1..=7).contains(&world.refused), "{}", world.refused);
    assert!(world.rpm().shapes.contains(&slice), "{:?}", world.rpm());
}

#[test]
fn slices_of_ten_seconds_are_told_from_those_of_one_also_if_one_ends_within_the_test() {
    for phase in [0.0, 9.7] {
        let phase = Some(secs(phase));
        let shapes = MockShapes { rpm: Shape::Slice(SECOND * 10), ..MockShapes::default() };
        let limits = MockLimits { rpm: Some(500), tpm: Some(3_000_000), shapes, ..MockLimits::default() };
        let mut world = World::new(MockConfig { limits, phase, ..charging(ChargeRule::InputPlusCap, Count::Exact) });
        (0..1_000).for_each(|_| world.submit(Estimate::tokens(10, 10)));
        for _ in 0..120 {
            world.pass(secs(0.25));
            world.answer();
        }
        assert_eq!(world.rpm().shapes.last(), Some(&Shape::Slice(SECOND * 10)), "{phase:?} {:?}", world.rpm());
        // One slice's worth at most, where an untested one would be hundreds.
        assert!((1..=84).contains(&world.refused), "{phase:?} {}", world.refused);
    }
}

#[test]
fn slices_that_are_not_there_are_ruled_out_by_a_few_that_pass() {
    let mut world = World::shaped(Shape::Refill, 60_000, 60_000_000);
    world.one_by_one(5);
    (0..30_000).for_each(|_| world.submit(Estimate::tokens(10, 10)));
    for _ in 0..30 {
        world.pass(secs(0.5));
        world.answer();
    }
    assert_eq!((world.refused, world.rpm().suspected, world.rpm().shapes), (0, vec![], vec![Shape::Refill]));
}

/// The most that `shape` lets pass within `span`, wherever that begins.
fn allowed(shape: Shape, amount: u64, span: Duration) -> f64 {
    let (amount, window) = match shape {
        Shape::Slice(length) => (amount.div_ceil((MINUTE.as_secs() / length.as_secs()).max(1)), length),
        _ => (amount, MINUTE),
    };
    match shape {
        Shape::Refill => amount as f64 * (1.0 + span.as_secs_f64() / MINUTE.as_secs_f64()),
        _ => amount as f64 * (span.as_nanos() / window.as_nanos() + 1) as f64,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_window_holds_more_than_its_shape_allows(
        shape in prop_oneof![
            Just(Shape::Refill), Just(Shape::Sliding), Just(Shape::Fixed), Just(Shape::Slice(SECOND)),
            Just(Shape::Slice(10 * SECOND)),
        ],
        amount in 60u64..2_000, share in 0.01f64..1.0, gaps in proptest::collection::vec(0u64..5_000, 1..40),
    ) {
        let (mut lane, start) = lane(Provider::Openai, Limit::tpm(amount).shaped(shape));
        let most = allowed(shape, amount, Duration::ZERO) as u64;
        let size = ((most as f64 * share) as u64).max(1);
        let (mut now, mut went) = (start, Vec::new());
        for (nth, gap) in gaps.iter().enumerate() {
            now += Duration::from_millis(*gap);
            let ask = Ask { charge: Charge::tokens(1 + size * (nth as u64 % 3) / 3, 0), ..Ask::default() };
            // Three at a time, so that they always have to wait in the end.
            for _ in 0..3 {
                if let Submitted::Granted(grant) = lane.submit(&ask, || (), now).unwrap() {
                    went.push((now, grant.charge.tokens));
                }
            }
            let mut out = Vec::new();
            lane.poll(now, &mut out);
            went.extend(out.iter().filter_map(|wake| {
                if let Wake::Granted(grant, ()) = wake { Some((now, grant.charge.tokens)) } else { None }
            }));
        }
        for (i, (from, _)) in went.iter().enumerate() {
            let mut sum = 0;
            for (to, tokens) in &went[i..] {
                sum += tokens;
                prop_assert!(sum as f64 <= allowed(shape, amount, *to - *from) + 1e-6, "{sum} in {:?}", *to - *from);
            }
        }
    }
}
