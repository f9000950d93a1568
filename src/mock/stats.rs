//! What the mock saw, counted in constant memory but for the admissions of the last minute.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::config::MockLimits;
use super::luck::Fault;
use super::shown::Refusal;
use super::which::Which;
use crate::cost::MINUTE;

/// What the mock saw since it started: one consistent snapshot.
///
/// Always `requests = admitted + refused.total() + faults.error_429 + unauthorised + invalid`, and
/// `admitted = answered + faults.error_500 + faults.error_503 + abandoned + in_flight`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stats {
    /// Requests seen, apart from those for `/stats`, the list of models and single ones of it.
    pub requests: u64,
    /// Requests that the limits let in, whatever became of them.
    pub admitted: u64,
    /// Requests answered with 200; a stream counts when its last event goes out.
    pub answered: u64,
    /// Requests refused with 429 by a limit.
    pub refused: Refused,
    /// Those of the refused that were larger than the limit itself.
    pub too_large: u64,
    /// Faults that were played.
    pub faults: FaultCounts,
    /// Requests without an accepted key.
    pub unauthorised: u64,
    /// Requests that made no sense: unknown URL, wrong method, malformed body.
    pub invalid: u64,
    /// Admitted requests that ended without an answer: played resets and hangs, and clients that went away.
    pub abandoned: u64,
    /// Tokens charged at admission.
    pub charged_tokens: u64,
    /// Input tokens of the answered requests.
    pub used_input_tokens: u64,
    /// Output tokens of the answered requests.
    pub used_output_tokens: u64,
    /// Admitted requests that have not ended.
    pub in_flight: u64,
    /// The most that `in_flight` ever was.
    pub largest_in_flight: u64,
    /// The most requests admitted in any 60 seconds, over all keys and models.
    pub busiest_minute_requests: u64,
    /// The most tokens charged at admission in any 60 seconds, over all keys and models. One that starts with a full
    /// bucket may hold nearly twice the limit without a refusal.
    pub busiest_minute_tokens: u64,
    /// When the first request was admitted, in seconds since the start.
    pub first_admission: Option<f64>,
    /// When the latest request was admitted, in seconds since the start.
    pub last_admission: Option<f64>,
    /// The limits in force.
    pub limits: MockLimits,
}

/// Requests refused, by the limit that the answer named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Refused {
    /// By requests per second.
    #[serde(rename = "RPS", default)]
    pub rps: u64,
    /// By requests per minute.
    #[serde(rename = "RPM")]
    pub rpm: u64,
    /// By requests per day.
    #[serde(rename = "RPD")]
    pub rpd: u64,
    /// By tokens per minute.
    #[serde(rename = "TPM")]
    pub tpm: u64,
    /// By tokens per day.
    #[serde(rename = "TPD")]
    pub tpd: u64,
    /// By input tokens per minute.
    #[serde(rename = "ITPM")]
    pub itpm: u64,
    /// By output tokens per minute.
    #[serde(rename = "OTPM")]
    pub otpm: u64,
}

impl Refused {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { rps, rpm, rpd, tpm, tpd, itpm, otpm } = self;
        rps + rpm + rpd + tpm + tpd + itpm + otpm
    }
}

/// Faults played, by kind; see [`Faults`](super::Faults).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are those of `Faults`, where they are explained")]
pub struct FaultCounts {
    pub error_503: u64,
    pub error_500: u64,
    pub error_429: u64,
    pub reset: u64,
    pub hang: u64,
    pub slow_body: u64,
    pub half_body: u64,
}

/// Counts as things happen.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    stats: Stats,
    minute: Minute,
}

impl Tally {
    pub(crate) fn snapshot(&self) -> Stats {
        self.stats.clone()
    }

    pub(crate) fn unauthorised(&mut self) {
        self.stats.requests += 1;
        self.stats.unauthorised += 1;
    }

    pub(crate) fn invalid(&mut self) {
        self.stats.requests += 1;
        self.stats.invalid += 1;
    }

    pub(crate) fn refused(&mut self, refusal: &Refusal) {
        self.stats.requests += 1;
        self.stats.too_large += u64::from(refusal.wait.is_none());
        let Refused { rps, rpm, rpd, tpm, tpd, itpm, otpm } = &mut self.stats.refused;
        *match refusal.which {
            Which::Rps => rps,
            Which::Rpm => rpm,
            Which::Rpd => rpd,
            Which::Tpm => tpm,
            Which::Tpd => tpd,
            Which::Itpm => itpm,
            Which::Otpm => otpm,
        } += 1;
    }

    pub(crate) fn refused_by_fault(&mut self) {
        self.stats.requests += 1;
        self.stats.faults.error_429 += 1;
    }

    pub(crate) fn admitted(&mut self, now: Duration, tokens: u64, fault: Option<Fault>) {
        let stats = &mut self.stats;
        stats.requests += 1;
        stats.admitted += 1;
        stats.charged_tokens = stats.charged_tokens.saturating_add(tokens);
        stats.in_flight += 1;
        stats.largest_in_flight = stats.largest_in_flight.max(stats.in_flight);
        stats.first_admission.get_or_insert(now.as_secs_f64());
        stats.last_admission = Some(now.as_secs_f64());
        let (requests, tokens) = self.minute.add(now, tokens);
        stats.busiest_minute_requests = stats.busiest_minute_requests.max(requests);
        stats.busiest_minute_tokens = stats.busiest_minute_tokens.max(tokens);
        let counts = &mut stats.faults;
        match fault {
            None => {}
            Some(Fault::Error503) => counts.error_503 += 1,
            Some(Fault::Error500) => counts.error_500 += 1,
            Some(Fault::Error429) => counts.error_429 += 1,
            Some(Fault::Reset) => counts.reset += 1,
            Some(Fault::Hang) => counts.hang += 1,
            Some(Fault::SlowBody) => counts.slow_body += 1,
            Some(Fault::HalfBody) => counts.half_body += 1,
        }
    }

    pub(crate) fn answered(&mut self, input: u64, output: u64) {
        self.stats.in_flight -= 1;
        self.stats.answered += 1;
        self.stats.used_input_tokens = self.stats.used_input_tokens.saturating_add(input);
        self.stats.used_output_tokens = self.stats.used_output_tokens.saturating_add(output);
    }

    pub(crate) fn failed(&mut self) {
        self.stats.in_flight -= 1;
    }

    pub(crate) fn abandoned(&mut self) {
        self.stats.in_flight -= 1;
        self.stats.abandoned += 1;
    }
}

/// The admissions of the last 60 seconds. Any 60 seconds with the most in them can be moved to end at an admission
/// without losing one, so looking back from each admission finds the maximum. Those of one millisecond are kept as one,
/// which bounds the log whatever the rate, and the maximum is exact but for that millisecond.
#[derive(Debug, Default)]
struct Minute {
    log: VecDeque<Admissions>,
    requests: u64,
    tokens: u64,
}

#[derive(Clone, Copy, Debug)]
struct Admissions {
    /// When the first of them was.
    at: Duration,
    requests: u64,
    tokens: u64,
}

impl Minute {
    fn add(&mut self, now: Duration, tokens: u64) -> (u64, u64) {
        while let Some(old) = self.log.front().copied()
            && now.saturating_sub(old.at) >= MINUTE
        {
            self.log.pop_front();
            self.requests -= old.requests;
            self.tokens -= old.tokens;
        }
        // Clipped so that what is subtracted later is what was added.
        let tokens = tokens.min(u64::MAX - self.tokens);
        match self.log.back_mut().filter(|last| last.at.as_millis() == now.as_millis()) {
            Some(last) => {
                last.requests += 1;
                last.tokens += tokens;
            }
            None => self.log.push_back(Admissions { at: now, requests: 1, tokens }),
        }
        self.requests += 1;
        self.tokens += tokens;
        (self.requests, self.tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_minute_is_the_fullest_window_wherever_it_lies() {
        let mut tally = Tally::default();
        for (second, tokens) in [(0, 10), (50, 20), (59, 30), (60, 1), (111, 1), (1_000, 40)] {
            tally.admitted(Duration::from_secs(second), tokens, None);
        }
        let stats = tally.snapshot();
        // (0, 60] holds 50, 59 and 60; [0, 60) holds 0, 50 and 59.
        assert_eq!((stats.busiest_minute_requests, stats.busiest_minute_tokens), (3, 60));
        assert_eq!((stats.first_admission, stats.last_admission), (Some(0.0), Some(1_000.0)));
        assert_eq!((stats.in_flight, stats.largest_in_flight, stats.charged_tokens), (6, 6, 102));
        assert_eq!(tally.minute.log.len(), 1, "older admissions are forgotten");
    }

    #[test]
    fn stats_survive_json_and_name_limits_as_openai_does() {
        let mut tally = Tally::default();
        tally.refused(&Refusal { which: Which::Tpm, limit: 1, used: 0, requested: 2, wait: None });
        tally.admitted(Duration::from_millis(1_500), u64::MAX, Some(Fault::Hang));
        tally.admitted(Duration::from_millis(1_600), u64::MAX, None);
        tally.abandoned();
        let stats = tally.snapshot();
        let json = serde_json::to_string(&stats).unwrap();
        assert!(json.contains(r#""refused":{"RPS":0,"RPM":0,"RPD":0,"TPM":1,"TPD":0,"ITPM":0,"OTPM":0}"#), "{json}");
        assert_eq!(serde_json::from_str::<Stats>(&json).unwrap(), stats);
    }
}
