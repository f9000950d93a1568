//! What people do today, on the same workloads.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::num::NonZeroU32;
use std::time::Duration;

use fastrand::Rng;
use governor::clock::{Clock, FakeRelativeClock};
use governor::{Quota, RateLimiter};

use super::play::{Answer, Client, Send};
use super::rows::Row;
use super::workload::Request;

/// The limiter of governor with a clock that is told the time.
type Limiter = RateLimiter<
    governor::state::NotKeyed,
    governor::state::InMemoryState,
    FakeRelativeClock,
    governor::middleware::NoOpMiddleware<<FakeRelativeClock as Clock>::Instant>,
>;

/// Waits for an RPM and then for a TPM limiter before each request; after a 429 comes again as the answer says.
pub(crate) struct Paced {
    clock: FakeRelativeClock,
    now: Duration,
    limiters: [Limiter; 2],
    sizes: Vec<NonZeroU32>,
    queue: VecDeque<usize>,
    /// The first in the queue has passed the first limiter.
    passed_rpm: bool,
    again: Retries,
}

impl Paced {
    /// With this part of the limits, and a burst as large as that.
    pub(crate) fn new(row: &Row, requests: &[Request], part: f64) -> Self {
        let clock = FakeRelativeClock::default();
        let limiter = |amount: u64| {
            let amount = NonZeroU32::new((amount as f64 * part) as u32).unwrap_or(NonZeroU32::MIN);
            RateLimiter::direct_with_clock(Quota::per_minute(amount), clock.clone())
        };
        let (rpm, tpm) = row.accounts[0];
        let limiters = [limiter(rpm), limiter(tpm)];
        let size = |request: &Request| {
            let tokens = request.estimate.input + request.estimate.output_cap.unwrap_or(500);
            NonZeroU32::new(tokens as u32).unwrap_or(NonZeroU32::MIN)
        };
        Self {
            clock,
            now: Duration::ZERO,
            limiters,
            sizes: requests.iter().map(size).collect(),
            queue: VecDeque::new(),
            passed_rpm: false,
            again: Retries::new(requests.len(), 0),
        }
    }

    /// Zero, or how long the limiter is still full.
    fn wait(&self, limiter: usize, cells: NonZeroU32) -> Duration {
        match self.limiters[limiter].check_n(cells) {
            Ok(Err(not_yet)) => not_yet.wait_time_from(self.clock.now()),
            Ok(Ok(())) | Err(_) => Duration::ZERO,
        }
    }
}

impl Client for Paced {
    fn submit(&mut self, request: usize, _now: Duration) {
        self.queue.push_back(request);
    }

    fn answered(&mut self, request: usize, answer: &Answer, now: Duration) {
        self.again.answered(request, answer, now);
    }

    fn poll(&mut self, now: Duration, out: &mut Vec<Send>) -> Option<Duration> {
        self.clock.advance(now - self.now);
        self.now = now;
        let next = self.again.due(now, |request| self.queue.push_front(request));
        while let Some(request) = self.queue.front().copied() {
            if !self.passed_rpm {
                let wait = self.wait(0, NonZeroU32::MIN);
                if !wait.is_zero() {
                    return Some(next.map_or(now + wait, |next| next.min(now + wait)));
                }
                self.passed_rpm = true;
            }
            let wait = self.wait(1, self.sizes[request]);
            if !wait.is_zero() {
                return Some(next.map_or(now + wait, |next| next.min(now + wait)));
            }
            self.passed_rpm = false;
            self.queue.pop_front();
            out.push(Send { request, account: 0 });
        }
        next
    }
}

/// Sends everything at once, and again after a 429.
pub(crate) struct RetryOnly {
    fresh: Vec<usize>,
    again: Retries,
}

impl RetryOnly {
    pub(crate) fn new(requests: &[Request], seed: u64) -> Self {
        Self { fresh: Vec::new(), again: Retries::new(requests.len(), seed) }
    }
}

impl Client for RetryOnly {
    fn submit(&mut self, request: usize, _now: Duration) {
        self.fresh.push(request);
    }

    fn answered(&mut self, request: usize, answer: &Answer, now: Duration) {
        self.again.answered(request, answer, now);
    }

    fn poll(&mut self, now: Duration, out: &mut Vec<Send>) -> Option<Duration> {
        let next = self.again.due(now, |request| self.fresh.push(request));
        out.extend(self.fresh.drain(..).map(|request| Send { request, account: 0 }));
        next
    }
}

/// Exponential backoff from 1 s to 60 s with full jitter, and never before the answer's own `retry-after`, as the
/// providers' SDKs do it; without end, since nobody wants to lose a request.
struct Retries {
    attempts: Vec<i32>,
    luck: Rng,
    waiting: BinaryHeap<Reverse<(Duration, usize)>>,
}

impl Retries {
    fn new(requests: usize, seed: u64) -> Self {
        Self { attempts: vec![0; requests], luck: Rng::with_seed(seed), waiting: BinaryHeap::new() }
    }

    fn answered(&mut self, request: usize, answer: &Answer, now: Duration) {
        if answer.status != 429 {
            return;
        }
        let longest = 2.0_f64.powi(self.attempts[request]).min(60.0);
        self.attempts[request] += 1;
        let told = answer.headers.get("retry-after-ms").and_then(|ms| ms.to_str().ok()?.parse().ok());
        let pause = Duration::from_secs_f64(longest * self.luck.f64());
        self.waiting.push(Reverse((now + pause.max(Duration::from_millis(told.unwrap_or(0))), request)));
    }

    /// Hands out those whose pause is over, and answers when the next one's is.
    fn due(&mut self, now: Duration, mut out: impl FnMut(usize)) -> Option<Duration> {
        while let Some(Reverse((at, request))) = self.waiting.peek().copied() {
            if at > now {
                return Some(at);
            }
            self.waiting.pop();
            out(request);
        }
        None
    }
}
