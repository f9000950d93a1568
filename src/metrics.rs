//! Metrics through the `metrics` facade (feature `metrics`): install any recorder of it, best before the first request.
//!
//! | name | kind | unit | labels | what |
//! |---|---|---|---|---|
//! | `tollgate_requests_total` | counter | requests | `account`, `pool`, `outcome` | Requests to the provider that ended, each attempt by itself; outcomes are those of [`Outcome`] |
//! | `tollgate_refused_total` | counter | requests | `account`, `pool`, `reason` | Requests that were not sent, or not again: `too_large`, `deadline`, `breaker_open`, `queue_full`, `closed`, `retired` |
//! | `tollgate_retries_total` | counter | requests | `account`, `pool` | Attempts that repeat a failed one |
//! | `tollgate_tokens_total` | counter | tokens | `account`, `pool`, `kind` | Of requests whose usage is known: what they were `reserved`, and what they `used` |
//! | `tollgate_wait_seconds` | histogram | seconds | `account`, `pool` | From the arrival of a request in the queue to its admission |
//! | `tollgate_first_byte_seconds` | histogram | seconds | `account`, `pool` | From the admission to the beginning of the answer, where that is told |
//! | `tollgate_call_seconds` | histogram | seconds | `account`, `pool` | From the admission to the end of the answer, of those that went well |
//! | `tollgate_queue` | gauge | requests | `account`, `pool` | Requests that wait |
//! | `tollgate_in_flight` | gauge | requests | `account`, `pool` | Requests under way |
//! | `tollgate_predicted_wait_seconds` | gauge | seconds | `account`, `pool` | What a small request that came now would wait; NaN where it would be refused |
//! | `tollgate_limit_used_ratio` | gauge | 1 | `account`, `pool`, `limit` | The share of a limit (`RPM`, `TPM`, …) that is in use |
//! | `tollgate_breaker_open` | gauge | 0 or 1 | `account`, `pool` | Whether the provider is failing |
//!
//! Counters and histograms count by themselves. Gauges are set by [`Scheduler::record_gauges`]: call it every few seconds, or
//! before each scrape. `pool` is a model or the name of several that share limits, so there are as many series as the program
//! asks for models; nothing that comes with a single request is a label. No recorder is called under a lock.

use std::sync::OnceLock;

use metrics::{
    Counter, Histogram, Label, SharedString, Unit, counter, describe_counter, describe_gauge, describe_histogram,
    gauge, histogram,
};

use crate::cost::Charge;
use crate::engine::{Call, Outcome, Refusal};
use crate::lane::Lane;
use crate::scheduler::Scheduler;

/// Tells the recorder what the metrics mean and in which units they are. Call it once, after the recorder is installed.
pub fn describe() {
    describe_counter!("tollgate_requests_total", Unit::Count, "Requests to the provider that ended, by outcome");
    describe_counter!("tollgate_refused_total", Unit::Count, "Requests that were not sent, or not again, by reason");
    describe_counter!("tollgate_retries_total", Unit::Count, "Attempts that repeat a failed one");
    describe_counter!("tollgate_tokens_total", Unit::Count, "Tokens reserved and used, where the usage is known");
    describe_histogram!("tollgate_wait_seconds", Unit::Seconds, "From arrival to admission");
    describe_histogram!("tollgate_first_byte_seconds", Unit::Seconds, "From admission to the beginning of the answer");
    describe_histogram!("tollgate_call_seconds", Unit::Seconds, "From admission to the end of a good answer");
    describe_gauge!("tollgate_queue", Unit::Count, "Requests that wait");
    describe_gauge!("tollgate_in_flight", Unit::Count, "Requests under way");
    describe_gauge!("tollgate_predicted_wait_seconds", Unit::Seconds, "What a small request that came now would wait");
    describe_gauge!("tollgate_limit_used_ratio", Unit::Count, "The share of a limit that is in use");
    describe_gauge!("tollgate_breaker_open", Unit::Count, "1 while the provider is failing, else 0");
}

impl Scheduler {
    /// Sets the gauges to what the lanes show now; see the [module](crate::metrics).
    pub fn record_gauges(&self) {
        for lane in self.snapshot().lanes {
            let labels = labels(lane.account, lane.pool);
            let with = |name: &'static str, value: String| [&labels[..], &[Label::new(name, value)]].concat();
            let status = lane.status;
            gauge!("tollgate_queue", labels.clone()).set(status.waiting as f64);
            gauge!("tollgate_in_flight", labels.clone()).set(status.in_flight);
            let wait = lane.health.predicted_wait.map_or(f64::NAN, |wait| wait.as_secs_f64());
            gauge!("tollgate_predicted_wait_seconds", labels.clone()).set(wait);
            gauge!("tollgate_breaker_open", labels.clone()).set(f64::from(u8::from(status.breaker.is_some())));
            for gate in &status.gates {
                gauge!("tollgate_limit_used_ratio", with("limit", gate.limit.name())).set(gate.used());
            }
        }
    }
}

fn labels(account: impl Into<SharedString>, pool: impl Into<SharedString>) -> Vec<Label> {
    vec![Label::new("account", account), Label::new("pool", pool)]
}

fn labels_of(lane: &Lane) -> Vec<Label> {
    labels(lane.account.settings.name().to_owned(), lane.pool.to_string())
}

/// The counters of a lane. They are asked for when the first call ends, when the recorder is there, and kept, since
/// finding them takes longer than counting.
#[derive(Default)]
pub(crate) struct LaneMetrics(OnceLock<Handles>);

struct Handles {
    requests: [Counter; Outcome::ALL.len()],
    retries: Counter,
    reserved: Counter,
    used: Counter,
    wait: Histogram,
    first_byte: Histogram,
    call: Histogram,
}

impl std::fmt::Debug for LaneMetrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LaneMetrics")
    }
}

impl LaneMetrics {
    fn of(&self, lane: &Lane) -> &Handles {
        self.0.get_or_init(|| {
            let labels = labels_of(lane);
            let with = |name: &'static str, value: &'static str| [&labels[..], &[Label::new(name, value)]].concat();
            Handles {
                requests: Outcome::ALL
                    .map(|outcome| counter!("tollgate_requests_total", with("outcome", outcome.name()))),
                retries: counter!("tollgate_retries_total", labels.clone()),
                reserved: counter!("tollgate_tokens_total", with("kind", "reserved")),
                used: counter!("tollgate_tokens_total", with("kind", "used")),
                wait: histogram!("tollgate_wait_seconds", labels.clone()),
                first_byte: histogram!("tollgate_first_byte_seconds", labels.clone()),
                call: histogram!("tollgate_call_seconds", labels.clone()),
            }
        })
    }

    /// A call in its lane has ended: what it was charged, and what it used if that is known.
    pub(crate) fn ended(&self, lane: &Lane, call: &Call, charge: &Charge, used: Option<&Charge>) {
        let handles = self.of(lane);
        let Call { outcome, waited, first_byte, whole } = *call;
        handles.requests[outcome as usize].increment(1);
        handles.wait.record(waited);
        if let Some(first_byte) = first_byte {
            handles.first_byte.record(first_byte);
        }
        if outcome == Outcome::Answered {
            handles.call.record(whole);
        }
        if let Some(used) = used {
            handles.reserved.increment(charge.tokens);
            handles.used.increment(used.tokens);
        }
    }

    pub(crate) fn retried(&self, lane: &Lane) {
        self.of(lane).retries.increment(1);
    }

    pub(crate) fn refused(&self, lane: &Lane, refusal: &Refusal) {
        let labels = [labels_of(lane), vec![Label::new("reason", refusal.name())]].concat();
        counter!("tollgate_refused_total", labels).increment(1);
    }
}
