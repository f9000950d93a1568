//! How the calls of late went, as a snapshot shows it. All in virtual time.

use std::time::Duration;

use http::HeaderMap;
use tollgate::{Account, Attempt, Builder, Limits, Provider, Request, RetryPolicy, Scheduler};

const SECOND: Duration = Duration::from_secs(1);

fn scheduler(accounts: impl IntoIterator<Item = Account>) -> Scheduler {
    let retry = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
    accounts.into_iter().fold(Scheduler::builder().retry(retry), Builder::account).build().unwrap()
}

fn account() -> Account {
    Account::openai().limits(Limits { tpm: Some(60_000), ..Limits::default() })
}

fn request() -> Request {
    Request::tokens("gpt-4o", 100, 0)
}

/// A call whose answer begins after one second and ends after two.
async fn answer(attempt: Attempt, status: u16) -> Result<(), &'static str> {
    tokio::time::sleep(SECOND).await;
    attempt.answer(status, &HeaderMap::new());
    tokio::time::sleep(SECOND).await;
    if status < 400 { Ok(()) } else { Err("refused") }
}

fn about(time: Duration, expected: f64) {
    let ratio = time.as_secs_f64() / expected;
    assert!((0.94..1.0625).contains(&ratio), "{time:?} for {expected} s");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_shows_error_rate_and_times_of_the_last_minutes_and_forgets_them() {
    let scheduler = scheduler([account()]);
    for status in [200, 200, 503, 400, 429, 200, 200, 200] {
        let _ = scheduler.submit(request(), |attempt| answer(attempt, status)).await;
    }
    // Given up after it was sent.
    let call = scheduler.submit(request(), |attempt| answer(attempt, 200));
    assert!(tokio::time::timeout(SECOND, call).await.is_err());
    let lane = &scheduler.snapshot().lanes[0];
    let minute = lane.health.last_minute;
    let outcomes = (minute.answered, minute.rate_limited, minute.failed, minute.rejected, minute.abandoned);
    assert_eq!((minute.calls, outcomes), (9, (5, 1, 1, 1, 1)));
    assert_eq!(minute.error_rate, 1.0 / 9.0);
    assert_eq!((lane.counters.rate_limited, lane.counters.failed), (1, 2));
    about(minute.first_byte.unwrap().p50, 1.0);
    about(minute.whole.unwrap().p99, 2.0);
    assert_eq!(minute, lane.health.last_five_minutes);

    tokio::time::sleep(61 * SECOND).await;
    let health = scheduler.snapshot().lanes[0].health;
    assert_eq!((health.last_minute.calls, health.last_five_minutes.calls), (0, 9));
    tokio::time::sleep(300 * SECOND).await;
    assert_eq!(scheduler.snapshot().lanes[0].health.last_five_minutes.calls, 0);
}

#[tokio::test(start_paused = true)]
async fn waits_that_were_and_that_will_be_are_shown() {
    let scheduler = scheduler([account()]);
    let settle = |permit: tollgate::Permit| permit.settle(tollgate::Usage::new(100, 0));
    settle(scheduler.acquire(request()).await.unwrap());
    let full = Request::tokens("gpt-4o", 58_000, 0);
    scheduler.acquire(full).await.unwrap().settle(tollgate::Usage::new(58_000, 0));
    let large = || Request::tokens("gpt-4o", 10_000, 0);
    let waiter = scheduler.enqueue(large()).await.unwrap();
    let told = waiter.explain().unwrap().starts_in;
    assert!(told > 5 * SECOND, "{told:?}");
    let health = scheduler.snapshot().lanes[0].health;
    assert!(health.predicted_wait.unwrap() >= told, "it comes after the one that waits: {health:?}");
    assert!(health.limit_use > 0.95, "{health:?}");
    waiter.await.unwrap().settle(tollgate::Usage::new(10_000, 0));
    about(scheduler.snapshot().lanes[0].health.last_minute.waited.unwrap().p99, told.as_secs_f64());
}

#[tokio::test(start_paused = true)]
async fn lanes_of_one_address_are_one_endpoint_whose_secrets_do_not_show() {
    let other =
        Account::new(Provider::Compatible).named("own").base_url("http://user:canary@gateway.example/v1?key=canary");
    let scheduler = scheduler([account(), account().named("second"), other]);
    for (account, model, status) in
        [("openai", "gpt-4o", 200), ("openai", "gpt-4o-mini", 503), ("second", "gpt-4o", 200), ("own", "m", 200)]
    {
        let request = Request::tokens(model, 10, 0).account(account);
        let _ = scheduler.submit(request, |attempt| answer(attempt, status)).await;
    }
    let snapshot = scheduler.snapshot();
    let seen: Vec<_> = snapshot
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.host.as_str(), endpoint.health.last_minute.calls, endpoint.health.last_minute.failed))
        .collect();
    assert_eq!(seen, [("gateway.example", 1, 0), ("api.openai.com", 3, 1)]);
    let json = serde_json::to_value(&snapshot).unwrap();
    assert_eq!(json["endpoints"][1]["health"]["last_minute"]["failed"], 1);
    assert_eq!(json["lanes"][0]["health"]["last_minute"]["calls"], 1);
    assert!(json["endpoints"][0]["health"]["last_minute"]["whole"]["p95"].is_f64(), "{json:#}");
    assert!(!json.to_string().contains("canary"), "{json}");
}

#[tokio::test(start_paused = true)]
async fn a_server_error_that_is_not_to_be_repeated_is_still_the_providers_failure() {
    let scheduler = scheduler([account()]);
    let mut headers = HeaderMap::new();
    headers.insert("x-should-retry", "false".parse().unwrap());
    let mut permit = scheduler.acquire(request()).await.unwrap();
    permit.sent();
    let _ = permit.failed(500, &headers, b"");
    let minute = scheduler.snapshot().lanes[0].health.last_minute;
    assert_eq!((minute.calls, minute.failed), (1, 1));
}
