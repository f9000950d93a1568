//! When the provider is failing: everybody waits, one request at a time finds out whether it is over, and then the rest
//! returns step by step.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::change::Change;
use super::moment::Moment;
use crate::providers::{Class, Failure};

/// So many requests in a row, in the order in which they were sent, that open it. Where one in five fails by chance, five
/// in a row happen once in some 4,000, and the probe two seconds later goes well in four of five cases; four in a row would
/// happen once in 800. Where half of them fail it takes 60, where nine in ten do, 7: no rate of failures needs a rule of
/// its own.
const OPENS_AT: usize = 5;
/// The first probe gives the provider the time of a restart or a switch-over. The pauses then double, but its return is
/// to be noticed within five seconds.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(4_800);
/// After a good probe so many may be under way, and for each good answer so many more: three times as many in each round
/// trip, until they are so many that nobody would call it a ramp.
const RAMP_START: u32 = 3;
const RAMP: u32 = 2;
const RAMP_END: u32 = 1_000;
/// How long a good answer takes, before there was any.
const USUAL: Duration = Duration::from_secs(3);

/// A circuit breaker: failures in a row, which a high share of failures brings soon, open it.
///
/// ```
/// use std::time::Duration;
/// use tollgate::Failure;
/// use tollgate::engine::{Breaker, Moment};
///
/// let start = Moment::START;
/// let mut breaker = Breaker::new(Duration::from_secs(300));
/// let reset = Failure::unanswered("connection reset".to_owned());
/// let number = breaker.take(start);
/// breaker.answered(number, Some(Duration::from_millis(800)), start);
/// for request in 0..5 {
///     assert_eq!(breaker.admit(0, start), Ok(()));
///     let number = breaker.take(start);
///     breaker.failed(number, request, &reset, true, start, start);
/// }
/// let probe = start + Duration::from_secs(2);
/// assert_eq!(breaker.admit(0, start), Err(Some(probe)), "everybody waits for the first probe");
/// assert_eq!(breaker.admit(0, probe), Ok(()));
/// let number = breaker.take(probe);
/// assert!(breaker.admit(1, probe).is_err(), "one at a time");
/// breaker.answered(number, None, probe);
/// assert_eq!((breaker.admit(2, probe), breaker.admit(3, probe)), (Ok(()), Err(None)), "and not all at once");
/// ```
#[derive(Debug)]
pub struct Breaker {
    patience: Duration,
    /// Requests sent so far; each is known by its number.
    sent: u64,
    /// The last request that was answered. What was sent before it tells nothing of now, whenever its answer comes; nor
    /// does what was sent before an outage began.
    settled: u64,
    /// Whether anything was ever heard of the provider.
    heard: bool,
    /// How long a good answer takes, smoothed.
    usual: Option<Duration>,
    /// The requests that failed after the settled one: number and arrival.
    failures: BTreeMap<u64, u64>,
    suspicion: Option<Suspicion>,
    outage: Option<Outage>,
    /// While it recovers: as many as may be under way.
    ramp: Option<u32>,
    changes: Vec<Change>,
}

/// Failures come faster than good answers: of a burst, one in five may have failed before anything else is known. So once
/// there are enough failures, what was sent up to then gets the time of a good answer to prove otherwise.
#[derive(Clone, Copy, Debug)]
struct Suspicion {
    /// The last request that counts.
    last: u64,
    /// When it would have been answered.
    at: Moment,
}

#[derive(Debug)]
struct Outage {
    since: Moment,
    last: Class,
    probe_at: Moment,
    /// The pause after the next probe.
    pause: Duration,
    /// Whether a probe is under way that may still be answered in its time.
    probing: bool,
}

/// An open breaker as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BreakerStatus {
    /// For how long it has been open.
    pub open_for: Duration,
    /// The last failure.
    pub last: Class,
    /// When the next probe may go; zero while one is under way.
    pub probe_in: Duration,
}

impl Breaker {
    /// A closed one. When it has been open for longer than `patience`, waiting has lost its sense.
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            sent: 0,
            settled: 0,
            heard: false,
            usual: None,
            failures: BTreeMap::new(),
            suspicion: None,
            outage: None,
            ramp: None,
            changes: Vec::new(),
        }
    }

    /// For how long waiting makes sense while nothing goes well.
    pub(super) const fn patience(&self) -> Duration {
        self.patience
    }

    /// Whether one more may go while `in_flight` are under way.
    ///
    /// # Errors
    /// With when to ask again, if that is not when something ends.
    #[inline]
    pub fn admit(&self, in_flight: u32, now: Moment) -> Result<(), Option<Moment>> {
        match (&self.outage, self.ramp) {
            (Some(outage), _) if now < outage.probe_at => Err(Some(outage.probe_at)),
            (None, Some(ramp)) if in_flight >= ramp => Err(None),
            _ => Ok(()),
        }
    }

    /// Counts a request that is sent, and returns its number. The pause until the next probe runs from the sending of this
    /// one, so that one that hangs holds nobody up.
    #[inline]
    pub fn take(&mut self, now: Moment) -> u64 {
        self.sent += 1;
        if let Some(outage) = &mut self.outage {
            outage.probe_at = now + outage.pause;
            outage.pause = (outage.pause * 2).min(LONGEST_PAUSE);
            outage.probing = true;
        }
        self.sent
    }

    /// A request was answered, be it with a refusal of the provider's own. `took`: the time of an answer that went well.
    #[inline]
    pub fn answered(&mut self, number: u64, took: Option<Duration>, now: Moment) {
        self.heard = true;
        if let Some(took) = took {
            self.usual = Some(self.usual.map_or(took, |usual| (usual * 7 + took) / 8));
        }
        if self.outage.is_none() {
            self.ramp = self.ramp.map(|ramp| ramp + RAMP).filter(|ramp| *ramp < RAMP_END);
        }
        if number <= self.settled {
            return;
        }
        self.settled = number;
        if !self.failures.is_empty() {
            self.failures = self.failures.split_off(&(number + 1));
        }
        if let Some(outage) = self.outage.take() {
            self.ramp = Some(RAMP_START);
            self.change(Change::Recovered { after: now - outage.since });
        }
    }

    /// A request met a provider that fails. `arrival` stands for the request over all its attempts: when one alone fails
    /// again and again and no `others` wait, its own attempts are probes enough, and it may be at fault itself. Until the
    /// provider has answered anything, a failure to reach it says more of the address than of the provider.
    pub fn failed(&mut self, number: u64, arrival: u64, failure: &Failure, others: bool, sent: Moment, now: Moment) {
        self.heard |= failure.status > 0;
        if number <= self.settled || !self.heard {
            return;
        }
        if let Some(outage) = &mut self.outage {
            outage.last = failure.class;
            outage.probing = false;
            return;
        }
        self.failures.insert(number, arrival);
        if self.failures.len() < OPENS_AT || (!others && self.failures.values().all(|other| *other == arrival)) {
            return;
        }
        let at = sent + self.usual.unwrap_or(USUAL);
        let suspicion = *self.suspicion.get_or_insert(Suspicion { last: number, at });
        let due = suspicion.at <= now;
        if due {
            self.suspicion = None;
        }
        let unanswered = (self.sent.saturating_sub(self.settled) as usize).saturating_sub(self.failures.len());
        // Where few are unanswered they need no time to prove anything.
        if (due && self.failures.range(..=suspicion.last).count() >= OPENS_AT)
            || self.failures.len() >= OPENS_AT + 2 * unanswered
        {
            self.open(failure.class, now);
        }
    }

    /// Whether it is open.
    pub fn is_open(&self) -> bool {
        self.outage.is_some()
    }

    /// Until when nobody goes, whatever happens; `None` when closed, and while a probe is under way that may end it.
    pub fn shut_until(&self, now: Moment) -> Option<Moment> {
        let outage = self.outage.as_ref().filter(|outage| !outage.probing && outage.probe_at > now)?;
        Some(outage.probe_at)
    }

    /// When it will have been open for so long that nobody waits for it any more; `None` when closed.
    pub fn hopeless_at(&self) -> Option<Moment> {
        self.outage.as_ref().and_then(|outage| outage.since.checked_add(self.patience))
    }

    /// What happened since this was last asked.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// The open breaker; `None` when closed.
    pub fn status(&self, now: Moment) -> Option<BreakerStatus> {
        let outage = self.outage.as_ref()?;
        Some(BreakerStatus {
            open_for: now - outage.since,
            last: outage.last,
            probe_in: self.shut_until(now).map_or(Duration::ZERO, |at| at - now),
        })
    }

    fn open(&mut self, last: Class, now: Moment) {
        let (probe_at, pause) = (now + FIRST_PAUSE, FIRST_PAUSE * 2);
        self.outage = Some(Outage { since: now, last, probe_at, pause, probing: false });
        self.settled = self.sent;
        self.failures.clear();
        (self.suspicion, self.ramp) = (None, None);
        self.change(Change::Opened { last });
    }

    fn change(&mut self, change: Change) {
        // Where nobody asks, they must not pile up.
        if self.changes.len() < 16 {
            self.changes.push(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    fn failure(status: u16) -> Failure {
        let failure = Failure::unanswered(String::new());
        Failure { status, class: if status == 0 { Class::Timeout } else { Class::ServerError }, ..failure }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What a provider does with a request that is sent so many milliseconds after the start: whether it goes well, and
    /// how long that takes.
    type Provider<'a> = &'a mut dyn FnMut(u64) -> (bool, u64);

    #[derive(Debug, Default)]
    struct Seen {
        sent: Vec<u64>,
        failed: usize,
        /// Failed and still to be answered when it first opened.
        in_flight: usize,
        changes: Vec<(u64, Change)>,
    }

    impl Seen {
        fn opened(&self) -> usize {
            self.changes.iter().filter(|(_, change)| matches!(change, Change::Opened { .. })).count()
        }
    }

    /// Sends a request every `gap` milliseconds as long as the breaker lets it.
    fn play(gap: u64, until: u64, provider: Provider<'_>) -> Seen {
        let start = Moment::START;
        let at = |millis| start + ms(millis);
        let mut breaker = Breaker::new(Duration::from_secs(300));
        let mut answers = BinaryHeap::<Reverse<(u64, u64, u64, bool)>>::new();
        let (mut seen, mut in_flight, mut next) = (Seen::default(), 0, 0);
        for now in 0..until {
            while let Some(Reverse((_, sent, number, well))) =
                answers.peek().copied().filter(|Reverse((done, ..))| *done <= now)
            {
                answers.pop();
                in_flight -= 1;
                if well {
                    breaker.answered(number, Some(ms(now - sent)), at(now));
                } else {
                    seen.failed += 1;
                    breaker.failed(number, number, &failure(503), true, at(sent), at(now));
                }
                for change in breaker.take_changes() {
                    if seen.changes.is_empty() {
                        seen.in_flight = answers.iter().filter(|Reverse((.., well))| !well).count();
                    }
                    seen.changes.push((now, change));
                }
            }
            if now >= next && breaker.admit(in_flight, at(now)).is_ok() {
                let number = breaker.take(at(now));
                let (well, takes) = provider(now);
                answers.push(Reverse((now + takes, now, number, well)));
                seen.sent.push(now);
                in_flight += 1;
                next = now + gap;
            }
        }
        seen
    }

    #[test]
    fn an_outage_costs_what_was_in_flight_and_ten_calls_and_its_end_is_seen_within_five_seconds() {
        // Refused at once, after a while, and by a timeout.
        for fails_after in [0, 200, 800, 5_000] {
            let mut first_good = None;
            let seen = play(120, 60_000, &mut |now| {
                if (5_000..35_000).contains(&now) {
                    return (false, fails_after);
                }
                if now >= 35_000 {
                    first_good.get_or_insert(now);
                }
                (true, 800)
            });
            // What was in flight besides: as many as usually are.
            let usual = 800 / 120 + 1;
            assert!(seen.failed <= 10 + seen.in_flight.max(usual), "{fails_after}: {} {}", seen.failed, seen.in_flight);
            assert!(first_good.unwrap() <= 40_000, "{fails_after}: {first_good:?}");
            assert_eq!(seen.changes.len(), 2, "{:?}", seen.changes);
        }
    }

    #[test]
    fn one_in_five_that_fails_by_chance_does_not_keep_it_open() {
        for (gap, fails_after, takes) in [(120, 0, 800), (10, 0, 800), (1, 5, 2_000), (120, 5_000, 800), (50, 100, 100)]
        {
            let mut luck = fastrand::Rng::with_seed(gap);
            let answers = 20_000;
            let seen = play(gap, answers * gap, &mut |_| match luck.f64() < 0.2 {
                true => (false, fails_after),
                false => (true, takes),
            });
            assert!(seen.opened() <= 20, "{gap} {fails_after}: opened {} times", seen.opened());
            assert!(seen.sent.len() as f64 > 0.9 * answers as f64, "{gap} {fails_after}: {} sent", seen.sent.len());
        }
    }

    #[test]
    fn nine_in_ten_that_fail_open_it() {
        let mut luck = fastrand::Rng::with_seed(1);
        let seen = play(100, 20_000, &mut |_| (luck.f64() < 0.1, 50));
        assert!(seen.opened() >= 1 && seen.changes[0].0 < 2_000, "{:?}", seen.changes);
    }

    #[test]
    fn probes_go_one_at_a_time_with_growing_pauses_also_when_they_hang() {
        let seen = play(10, 30_000, &mut |now| if now < 1_000 { (true, 5) } else { (false, 60_000.min(now)) });
        let opened = seen.changes[0].0;
        let probes: Vec<_> = seen.sent.iter().filter(|at| **at > opened).map(|at| at - opened).collect();
        assert_eq!(probes[..4], [2_000, 6_000, 10_800, 15_600]);
    }

    #[test]
    fn recovery_is_a_ramp() {
        let seen = play(1, 60_000, &mut |now| (!(1_000..=10_000).contains(&now), 500));
        let recovered = seen.changes[1].0;
        let in_round = |round: u64| {
            seen.sent.iter().filter(|at| (recovered + round * 500..recovered + (round + 1) * 500).contains(at)).count()
        };
        let rounds: Vec<_> = (0..6).map(in_round).collect();
        assert_eq!(rounds[..4], [3, 9, 27, 81]);
        assert_eq!(rounds[5], 500, "as many as are wanted");
    }

    #[test]
    fn one_request_that_always_fails_and_an_address_that_never_answered_open_nothing() {
        let now = Moment::START;
        let mut breaker = Breaker::new(ms(1));
        for _ in 0..100 {
            let number = breaker.take(now);
            breaker.failed(number, 7, &failure(500), false, now, now);
        }
        assert!(!breaker.is_open());
        let mut breaker = Breaker::new(ms(1));
        for request in 0..100 {
            let number = breaker.take(now);
            breaker.failed(number, request, &failure(0), true, now, now);
        }
        assert!(!breaker.is_open());
    }

    #[test]
    fn late_answers_from_before_and_during_an_outage_change_nothing() {
        let now = Moment::START;
        let mut breaker = Breaker::new(Duration::from_secs(300));
        let early = [breaker.take(now), breaker.take(now)];
        for request in 0..5 {
            let number = breaker.take(now);
            breaker.failed(number, request, &failure(500), true, now, now + ms(5_000));
        }
        breaker.answered(early[0], None, now + ms(5_500));
        assert!(breaker.is_open(), "that was sent before");
        let later = now + ms(7_000);
        let hung = breaker.take(later);
        let probe = breaker.take(later + ms(4_000));
        breaker.answered(probe, None, later + ms(4_100));
        assert!(!breaker.is_open());
        for (arrival, number) in [early[1], hung, hung, hung, hung, hung].into_iter().enumerate() {
            breaker.failed(number, arrival as u64, &failure(0), true, now, later + ms(4_200));
        }
        assert!(!breaker.is_open(), "that was sent before it recovered");
    }
}
