//! What a recorder of the `metrics` facade sees. All in virtual time.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use http::HeaderMap;
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tollgate::{Account, Attempt, Limits, Request, RetryPolicy, Scheduler, Usage};

fn scheduler() -> Scheduler {
    let account = Account::openai().key("sk-canary").limits(Limits { tpm: Some(6_000), ..Limits::default() });
    let retry = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
    Scheduler::builder().account(account).retry(retry).max_waiting(1).build().unwrap()
}

fn request(tokens: u64) -> Request {
    Request::tokens("gpt-4o", tokens, 0).tenant("a tenant").tag("a tag")
}

/// A second to the first byte, and one to the last.
async fn answer(attempt: Attempt, statuses: [u16; 2]) -> Result<(), &'static str> {
    let status = statuses[attempt.number() as usize - 1];
    tokio::time::sleep(Duration::from_secs(1)).await;
    attempt.answer(status, &HeaderMap::new());
    tokio::time::sleep(Duration::from_secs(1)).await;
    if status >= 400 {
        return Err("refused");
    }
    attempt.usage(Usage::new(60, 20));
    Ok(())
}

/// Name and labels in one line, with the value.
fn seen(recorder: &DebuggingRecorder) -> BTreeMap<String, DebugValue> {
    let all = recorder.snapshotter().snapshot().into_vec().into_iter();
    let line = |key: &Key| {
        let mut labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        labels.sort();
        format!("{} {}", key.name(), labels.join(" "))
    };
    all.map(|(key, _, _, value)| (line(key.key()), value)).collect()
}

#[tokio::test(start_paused = true)]
async fn counts_times_and_gauges_agree_with_the_snapshot() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let scheduler = scheduler();
    for statuses in [[200, 0], [503, 200], [400, 0], [429, 200]] {
        let _ = scheduler.submit(request(100), |attempt| answer(attempt, statuses)).await;
    }
    scheduler.acquire(request(50_000)).await.unwrap_err();
    scheduler.record_gauges();
    let lane = &scheduler.snapshot().lanes[0];
    let seen = seen(&recorder);
    let own = "account=openai";
    let counter = |line: String| match seen.get(&line) {
        Some(DebugValue::Counter(count)) => *count,
        other => panic!("{line}: {other:?} in {:#?}", seen.keys()),
    };
    for (outcome, expected) in [("answered", 3), ("failed", 1), ("rejected", 1), ("rate_limited", 1), ("abandoned", 0)]
    {
        assert_eq!(
            counter(format!("tollgate_requests_total {own} outcome={outcome} pool=gpt-4o")),
            expected,
            "{outcome}"
        );
    }
    assert_eq!(counter(format!("tollgate_retries_total {own} pool=gpt-4o")), lane.counters.retries);
    assert_eq!(lane.counters.retries, 2);
    assert_eq!(counter(format!("tollgate_refused_total {own} pool=gpt-4o reason=too_large")), 1);
    let tokens = |kind: &str| counter(format!("tollgate_tokens_total {own} kind={kind} pool=gpt-4o"));
    assert_eq!((tokens("reserved"), tokens("used")), (lane.status.estimated.tokens, lane.status.used.tokens));
    assert_eq!(tokens("used"), 3 * 80);

    let times = |name: &str| match &seen[&format!("{name} {own} pool=gpt-4o")] {
        DebugValue::Histogram(times) => times.iter().map(|time| time.into_inner()).collect::<Vec<_>>(),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(times("tollgate_first_byte_seconds"), [1.0; 6]);
    assert_eq!(times("tollgate_call_seconds"), [2.0; 3], "those that went well");
    assert_eq!(times("tollgate_wait_seconds").len(), 6);

    let gauge = |line: String| match &seen[&line] {
        DebugValue::Gauge(value) => value.into_inner(),
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(gauge(format!("tollgate_limit_used_ratio {own} limit=TPM pool=gpt-4o")), lane.status.gates[0].used());
    assert!(lane.status.gates[0].used() > 0.0);
    for idle in ["tollgate_queue", "tollgate_in_flight", "tollgate_breaker_open"] {
        assert_eq!(gauge(format!("{idle} {own} pool=gpt-4o")), 0.0, "{idle}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_name_is_documented_and_nothing_of_a_single_request_is_a_label() {
    let recorder = DebuggingRecorder::new();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let scheduler = scheduler();
    for n in 0..50 {
        let request = request(100 + n).tenant(format!("tenant {n}")).affinity(format!("user {n}"));
        scheduler.submit(request, |attempt| answer(attempt, [200, 0])).await.unwrap();
    }
    scheduler.record_gauges();
    let seen = seen(&recorder);
    assert!(seen.len() <= 20, "{:#?}", seen.keys());
    let documented = include_str!("../../src/metrics.rs");
    for line in seen.keys() {
        let (name, labels) = line.split_once(' ').unwrap();
        let row = documented.lines().find(|row| row.starts_with(&format!("//! | `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("{name} is in the table"));
        for label in labels.split(' ') {
            let label = label.split('=').next().unwrap();
            assert!(row.contains(&format!("`{label}`")), "{label} of {name} is in the table");
        }
        assert!(!line.contains("tenant") && !line.contains("user") && !line.contains("canary"), "{line}");
    }
}

/// Looks at the scheduler whenever anything is counted, which would never end under a lane's lock.
struct Looks(Scheduler);

impl CounterFn for Looks {
    fn increment(&self, _: u64) {
        drop(self.0.snapshot());
    }

    fn absolute(&self, _: u64) {}
}

impl HistogramFn for Looks {
    fn record(&self, _: f64) {
        drop(self.0.snapshot());
    }
}

struct LookingRecorder(Arc<Looks>);

impl Recorder for LookingRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        self.0.increment(0);
        Counter::from_arc(self.0.clone())
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        self.0.increment(0);
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        self.0.increment(0);
        Histogram::from_arc(self.0.clone())
    }
}

#[test]
fn no_recorder_is_called_under_a_lock() {
    let (done, over) = mpsc::channel();
    std::thread::spawn(move || {
        let scheduler = scheduler();
        let recorder = LookingRecorder(Arc::new(Looks(scheduler.clone())));
        let _guard = metrics::set_default_local_recorder(&recorder);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let _ = scheduler.submit(request(100), |attempt| answer(attempt, [503, 200])).await;
            let held = scheduler.acquire(request(5_000)).await.unwrap();
            let _waits = scheduler.enqueue(request(5_000)).await.unwrap();
            scheduler.enqueue(request(5_000)).await.unwrap_err();
            drop(held);
            scheduler.record_gauges();
        });
        done.send(()).unwrap();
    });
    over.recv_timeout(Duration::from_secs(60)).expect("it hangs, or it failed");
}
