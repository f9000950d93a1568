//! Whatever becomes of a request, the books balance.

use std::time::Duration;

use tollgate::engine::{Gates, Moment, Source};
use tollgate::{Account, Charge, Limit, Limits, Provider, Request, Scheduler, Shape, Usage};

fn scheduler(rpm: u64, tpm: u64) -> Scheduler {
    let limits = Limits { rpm: Some(rpm), tpm: Some(tpm), ..Limits::default() };
    Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap()
}

/// What is left of RPM and TPM.
fn left(scheduler: &Scheduler) -> [i64; 2] {
    let lane = &scheduler.snapshot().lanes[0];
    [lane.status.gates[0].left, lane.status.gates[1].left]
}

fn request(tokens: u64) -> Request {
    Request::tokens("gpt-4o", tokens, 0)
}

#[tokio::test(start_paused = true)]
async fn dropped_before_it_was_sent_gives_everything_back() {
    let scheduler = scheduler(60, 6_000);
    drop(scheduler.acquire(request(500)).await.unwrap());
    assert_eq!(left(&scheduler), [60, 6_000]);
}

#[tokio::test(start_paused = true)]
async fn a_gauge_loses_what_has_ended_once_however_it_ended() {
    let limits = Limits { tpm: Some(1_000), shape: Some(Shape::Gauge), ..Limits::default() };
    let scheduler = Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap();
    scheduler.acquire(request(100)).await.unwrap().settle(Usage::new(100, 0));
    let permits = [400, 300, 300].map(|tokens| scheduler.try_acquire(request(tokens)).unwrap());
    let left = || scheduler.snapshot().lanes[0].status.gates[0].left;
    assert_eq!(left(), 0);
    let [unsent, mut sent, refused] = permits;
    drop(unsent);
    assert_eq!(left(), 400);
    let too_much = r#"{"error":{"message":"Rate limit reached","code":"rate_limit_exceeded"}}"#;
    refused.failed(429, &http::HeaderMap::new(), too_much.as_bytes());
    assert_eq!(left(), 700);
    sent.sent();
    drop(sent);
    assert_eq!(left(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn dropped_after_it_was_sent_counts_as_used() {
    let scheduler = scheduler(60, 6_000);
    let mut permit = scheduler.acquire(request(500)).await.unwrap();
    permit.sent();
    drop(permit);
    assert_eq!(left(&scheduler), [59, 5_500]);
}

#[tokio::test(start_paused = true)]
async fn more_used_than_charged_is_debt() {
    let scheduler = scheduler(60, 6_000);
    let mut permit = scheduler.acquire(request(5_000)).await.unwrap();
    permit.sent();
    permit.settle(Usage::new(5_000, 4_000));
    assert_eq!(left(&scheduler), [59, -3_000]);
    let start = tokio::time::Instant::now();
    scheduler.acquire(request(1_000)).await.unwrap().settle(Usage::new(1_000, 0));
    assert_eq!(start.elapsed(), Duration::from_millis(40_500), "until the debt is worked off, and the margin");
}

#[tokio::test(start_paused = true)]
async fn usage_that_no_request_can_have_is_no_usage() {
    for tokens in [1_000_000_000, u64::MAX] {
        for usage in [Usage::new(tokens, 0), Usage::new(10, tokens), Usage::new(tokens, tokens)] {
            let scheduler = scheduler(60, 100_000);
            let mut permit = scheduler.acquire(request(100)).await.unwrap();
            permit.sent();
            permit.settle(usage);
            assert_eq!(left(&scheduler), [59, 99_900], "the charge stands");
        }
    }
}

#[test]
fn a_wrong_usage_holds_a_lane_for_little_more_than_a_window() {
    let shapes = ["refill", "sliding", "fixed", "slice:10"].map(|shape| shape.parse::<Shape>().unwrap());
    for shape in shapes {
        for used in [1_000_000, u64::MAX] {
            let now = Moment::START;
            let mut gates = Gates::new(Provider::Groq, Duration::ZERO);
            gates.set(&[(Limit::tpm(100_000).shaped(shape), Source::Configured)], now);
            gates.answered(now);
            let charge = Charge::tokens(100, 0);
            gates.reserve(&charge, now).unwrap();
            gates.settle(&charge, &Charge::tokens(used, 0), &Charge::default(), now, now);
            let wait = gates.wait(&charge, now).map_or(Duration::ZERO, |wait| wait.until - now);
            assert!(wait < Duration::from_secs(62), "{shape}: {wait:?}");
            assert!(wait > Duration::ZERO, "{shape}: it is used up all the same");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_while_queued_leaves_no_trace() {
    let scheduler = scheduler(60, 6_000);
    let mut first = scheduler.acquire(request(5_000)).await.unwrap();
    first.sent();
    let mut queued = Box::pin(scheduler.acquire(request(3_000)));
    assert!(tokio::time::timeout(Duration::from_millis(1), &mut queued).await.is_err());
    assert_eq!(scheduler.snapshot().lanes[0].status.waiting, 1);
    drop(queued);
    assert_eq!(scheduler.snapshot().lanes[0].status.waiting, 0);
    assert_eq!(left(&scheduler)[1], 1_000);
    // The place is free for somebody smaller.
    first.settle(Usage::new(5_000, 0));
    assert!(scheduler.try_acquire(request(500)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_closure_counts_as_sent_and_leaves_the_scheduler_usable() {
    let scheduler = scheduler(60, 6_000);
    let clone = scheduler.clone();
    let call = tokio::spawn(async move {
        let call = |_| async { if true { panic!("the user's bug") } else { Ok::<(), std::io::Error>(()) } };
        clone.submit(request(500), call).await
    });
    assert!(call.await.unwrap_err().is_panic());
    assert_eq!(left(&scheduler), [59, 5_500]);
    assert_eq!(scheduler.snapshot().lanes[0].status.in_flight, 0);
    assert!(scheduler.submit(request(1), |_| async { Ok::<_, std::io::Error>(()) }).await.is_ok());
}
