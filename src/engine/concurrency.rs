//! How many requests may be under way at once: a number that was set, one that adapts to the server, or both.
//!
//! A server that queues instead of refusing (most that people run themselves) never says that it is full; its answers
//! take longer. So the number follows the time that answers take, against the best that was seen: additive increase,
//! multiplicative decrease.

use std::time::Duration;

use super::moment::Moment;

/// Answers may take this many times the best time. A server of `n` slots then has about `n` requests at work and as many
/// that wait for them: it never idles, and nobody waits longer there than the work takes.
const TOLERATED: u32 = 2;
/// A mean over fewer answers is luck.
const FEWEST: u32 = 4;
/// After so many rounds the best time is measured anew, with a quarter of the requests: the old one may be that of
/// shorter prompts or another machine. Less than half, or a server that does one thing at a time would take its own queue
/// for the best it can do, more so each time.
const MEASURED_EVERY: u32 = 64;
const QUARTER: u32 = 4;

/// The bound on what is under way.
///
/// ```
/// use std::time::Duration;
/// use tollgate::engine::{Moment, Concurrency};
///
/// assert!(Concurrency::new(Some(8)).free(7) && !Concurrency::new(Some(8)).free(8));
/// assert_eq!(Concurrency::new(None).limit(), None);
/// let adaptive = Concurrency::new(Some(8)).adaptive(Moment::START);
/// assert_eq!(adaptive.limit(), Some(1), "nothing is known of the server yet");
/// ```
#[derive(Debug)]
pub struct Concurrency {
    most: Option<u32>,
    adaptive: Option<Adaptive>,
}

#[derive(Debug)]
struct Adaptive {
    limit: u32,
    /// Until it first was too much the number doubles.
    doubles: bool,
    /// The best mean time of a round, for one token of output where that is known.
    best: Option<Duration>,
    round: Round,
    /// Rounds since the best time was measured.
    age: u32,
    /// While the best time is measured: the number to return to.
    resume: Option<u32>,
}

/// Answers to requests that were sent since the number last changed.
#[derive(Debug)]
struct Round {
    since: Moment,
    answers: u32,
    time: Duration,
    tokens: u64,
    /// Whether the number was used up, without which it proves nothing that all went well.
    full: bool,
}

impl Round {
    fn new(since: Moment) -> Self {
        Self { since, answers: 0, time: Duration::ZERO, tokens: 0, full: false }
    }
}

impl Concurrency {
    /// At most so many.
    pub fn new(most: Option<u32>) -> Self {
        Self { most, adaptive: None }
    }

    /// As many as the server can work on, and not more than before.
    #[must_use]
    pub fn adaptive(self, now: Moment) -> Self {
        let adaptive = Adaptive { limit: 1, doubles: true, best: None, round: Round::new(now), age: 0, resume: None };
        Self { adaptive: Some(adaptive), ..self }
    }

    /// How many may be under way now; `None` is any number.
    pub fn limit(&self) -> Option<u32> {
        [self.most, self.adaptive.as_ref().map(|adaptive| adaptive.limit)].into_iter().flatten().min()
    }

    /// Whether one more may go while `in_flight` are under way.
    pub fn free(&self, in_flight: u32) -> bool {
        self.limit().is_none_or(|limit| in_flight < limit)
    }

    /// So many are under way now.
    pub fn taken(&mut self, in_flight: u32) {
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.round.full |= in_flight >= adaptive.limit;
        }
    }

    /// A request that was sent at `sent` was answered well; `tokens` of output, if that is known.
    pub fn went_well(&mut self, sent: Moment, tokens: Option<u64>, now: Moment) {
        let Some(adaptive) = &mut self.adaptive else { return };
        let round = &mut adaptive.round;
        if sent < round.since {
            return;
        }
        round.answers += 1;
        round.time += now - sent;
        round.tokens += tokens.unwrap_or(1).max(1);
        if round.answers >= adaptive.limit.max(FEWEST) {
            adaptive.turn(now);
        }
    }

    /// A request that was sent at `sent` met a server that has too much to do, or no answer at all.
    pub fn overloaded(&mut self, sent: Moment, now: Moment) {
        if let Some(adaptive) = self.adaptive.as_mut().filter(|adaptive| sent >= adaptive.round.since) {
            adaptive.shrink(2);
            adaptive.round = Round::new(now);
        }
    }
}

impl Adaptive {
    fn turn(&mut self, now: Moment) {
        let round = std::mem::replace(&mut self.round, Round::new(now));
        let mean = round.time / u32::try_from(round.tokens).unwrap_or(u32::MAX).max(1);
        if let Some(limit) = self.resume.take() {
            (self.best, self.limit, self.age) = (Some(mean), limit, 0);
            return;
        }
        // With one request under way its time is the best possible, even if it was shorter before.
        let best = self.best.filter(|_| self.limit > 1).map_or(mean, |best| best.min(mean));
        self.best = Some(best);
        self.age += 1;
        if mean > best * TOLERATED {
            self.shrink(1);
        } else if self.age >= MEASURED_EVERY {
            self.resume = Some(self.limit);
            self.limit = (self.limit / QUARTER).max(1);
        } else if round.full {
            self.limit = if self.doubles { self.limit.saturating_mul(2) } else { self.limit.saturating_add(1) };
        }
    }

    /// By a tenth `times`, or one, and never to nothing.
    fn shrink(&mut self, times: u32) {
        self.doubles = false;
        self.resume = None;
        for _ in 0..times {
            self.limit = (self.limit - self.limit.div_ceil(10)).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A server with `slots`, each of which works `per_token` on each token of a request; it queues the rest. Always
    /// more is wanted. The share of the slots' time that was used, and the mean number that waited in the server.
    fn serve(
        concurrency: &mut Concurrency,
        slots: usize,
        per_token: Duration,
        sizes: &[u64],
        from: Moment,
    ) -> (f64, f64, Moment) {
        let (mut now, mut in_flight) = (from, Vec::<(Moment, Moment, u64)>::new());
        let mut free = vec![from; slots];
        let (mut worked, mut waited) = (Duration::ZERO, Duration::ZERO);
        for size in sizes {
            while !concurrency.free(in_flight.len() as u32) {
                let first = (0..in_flight.len()).min_by_key(|index| in_flight[*index].1).unwrap();
                let (sent, done, tokens) = in_flight.swap_remove(first);
                now = now.max(done);
                concurrency.went_well(sent, Some(tokens), now);
            }
            let slot = free.iter_mut().min().unwrap();
            let begins = (*slot).max(now);
            *slot = begins + per_token * *size as u32;
            (worked, waited) = (worked + per_token * *size as u32, waited + (begins - now));
            in_flight.push((now, *slot, *size));
            concurrency.taken(in_flight.len() as u32);
        }
        let span = (now - from).as_secs_f64();
        (worked.as_secs_f64() / span / slots as f64, waited.as_secs_f64() / span, now)
    }

    fn sizes(n: usize) -> Vec<u64> {
        let mut luck = fastrand::Rng::with_seed(7);
        (0..n).map(|_| luck.u64(50..150)).collect()
    }

    #[test]
    fn a_server_that_queues_is_kept_busy_without_a_long_queue() {
        for slots in [1, 8, 64] {
            let now = Moment::START;
            let mut concurrency = Concurrency::new(None).adaptive(now);
            let (_, _, now) = serve(&mut concurrency, slots, ms(10), &sizes(slots * 400), now);
            let (used, queue, _) = serve(&mut concurrency, slots, ms(10), &sizes(slots * 400), now);
            assert!(used > 0.97, "{slots} slots: {used}");
            assert!(queue < 1.5 * slots as f64 + 1.0, "{slots} slots: {queue} wait in the server");
        }
    }

    #[test]
    fn a_server_that_became_slower_or_smaller_is_learned_anew() {
        let now = Moment::START;
        let mut concurrency = Concurrency::new(None).adaptive(now);
        let (_, _, now) = serve(&mut concurrency, 32, ms(5), &sizes(10_000), now);
        let (_, _, now) = serve(&mut concurrency, 4, ms(20), &sizes(5_000), now);
        let (used, queue, _) = serve(&mut concurrency, 4, ms(20), &sizes(2_000), now);
        assert!(used > 0.95 && queue < 8.0, "{used} {queue}");
    }

    #[test]
    fn overload_shrinks_it_once_a_burst_and_never_to_nothing() {
        let now = Moment::START;
        let mut concurrency = Concurrency::new(Some(1_000)).adaptive(now);
        let (_, _, now) = serve(&mut concurrency, 64, ms(10), &sizes(20_000), now);
        let before = concurrency.limit().unwrap();
        (0..20).for_each(|_| concurrency.overloaded(now, now + ms(1)));
        let after = concurrency.limit().unwrap();
        assert!(after < before && after * 10 >= before * 7, "{before} to {after}");
        (1..500).for_each(|n| concurrency.overloaded(now + n * ms(10), now + n * ms(10)));
        assert_eq!(concurrency.limit(), Some(1));
    }

    #[test]
    fn what_is_not_used_does_not_grow_and_the_set_number_stays_the_most() {
        let now = Moment::START;
        let mut concurrency = Concurrency::new(Some(3)).adaptive(now);
        for n in 0..100 {
            let sent = now + n * ms(100);
            concurrency.taken(0);
            concurrency.went_well(sent, Some(10), sent + ms(50));
        }
        assert_eq!(concurrency.limit(), Some(1));
        let (_, _, _) = serve(&mut concurrency, 64, ms(10), &sizes(2_000), now + ms(10_000));
        assert_eq!(concurrency.limit(), Some(3));
    }
}
