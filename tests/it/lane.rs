//! Waiting: order, bounds, deadlines, explanations, and limits that change meanwhile. All in virtual time.

use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;
use tollgate::{
    Account, AcquireError, ConfigError, Limit, Limits, Permit, Priority, Provider, Refusal, Request, Scheduler,
    TryAcquireError, Usage,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// 60 requests and 6,000 tokens per minute: one request or a hundred tokens a second.
fn scheduler() -> Scheduler {
    let limits = Limits { rpm: Some(60), tpm: Some(6_000), ..Limits::default() };
    Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap()
}

fn request(tokens: u64) -> Request {
    Request::tokens("gpt-4o", tokens, 0)
}

/// A scheduler whose tokens are used up, and which the provider has answered.
async fn busy() -> Scheduler {
    let scheduler = scheduler();
    settle(scheduler.acquire(request(6_000)).await.unwrap());
    scheduler
}

fn settle(permit: Permit) {
    let used = permit.charge();
    permit.settle(Usage::new(used.input_tokens, used.output_tokens));
}

#[tokio::test(start_paused = true)]
async fn grants_come_exactly_when_the_limit_allows_and_the_margin_has_passed() {
    let scheduler = busy().await;
    let start = Instant::now();
    settle(scheduler.acquire(request(300)).await.unwrap());
    assert_eq!(start.elapsed(), Duration::from_millis(3_500));
    settle(scheduler.acquire(request(200)).await.unwrap());
    assert_eq!(start.elapsed(), Duration::from_millis(5_500), "the margin is kept once, not each time");
}

#[tokio::test(start_paused = true)]
async fn a_request_larger_than_a_limit_is_refused_at_once_with_limit_and_size() {
    let error = scheduler().acquire(request(6_001)).await.unwrap_err();
    let AcquireError::Refused(Refusal::TooLarge { limit, size }) = error else { panic!("{error:?}") };
    assert_eq!((limit, size), (Limit::tpm(6_000), 6_001));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_cannot_be_met_is_refused_at_submit_with_the_time_it_would_have_taken() {
    let scheduler = busy().await;
    let start = Instant::now();
    let error = scheduler.acquire(request(1_000).max_wait(10 * SECOND)).await.unwrap_err();
    let AcquireError::Refused(Refusal::Deadline { starts_in, binding }) = error else { panic!("{error:?}") };
    assert_eq!((starts_in, binding), (Duration::from_millis(10_500), Some(Limit::tpm(6_000))));
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(scheduler.acquire(request(1_000).max_wait(Duration::from_millis(10_500))).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_while_waiting_ends_the_wait_on_time() {
    let scheduler = busy().await;
    let start = Instant::now();
    let mut waiter = scheduler.enqueue(request(900).max_wait(10 * SECOND)).await.unwrap();
    assert!(tokio::time::timeout(SECOND, &mut waiter).await.is_err());
    // The limit shrinks, and what was possible no longer is.
    scheduler.set_limits("gpt-4o", [Limit::rpm(60), Limit::tpm(3_000)]);
    let Err(AcquireError::Refused(Refusal::Deadline { starts_in, .. })) = waiter.await else {
        panic!("it cannot start in time")
    };
    assert_eq!(start.elapsed(), 10 * SECOND);
    assert!(starts_in > 10 * SECOND);
    assert_eq!(scheduler.snapshot().lanes[0].status.waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded() {
    let limits = Limits { rpm: Some(1), ..Limits::default() };
    let account = Account::openai().limits(limits);
    let scheduler = Scheduler::builder().account(account).max_waiting(2).build().unwrap();
    let _first = scheduler.acquire(request(1)).await.unwrap();
    let _waiting = [scheduler.enqueue(request(1)).await.unwrap(), scheduler.enqueue(request(1)).await.unwrap()];
    let error = scheduler.enqueue(request(1)).await.unwrap_err();
    assert!(matches!(error, AcquireError::Refused(Refusal::QueueFull { waiting: 2 })), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn every_waiter_can_be_explained_and_starts_when_it_was_told() {
    let scheduler = busy().await;
    let start = Instant::now();
    let mut waiters = Vec::new();
    for _ in 0..10 {
        waiters.push(scheduler.enqueue(request(500)).await.unwrap());
    }
    let mut told = Vec::new();
    for (index, waiter) in waiters.iter().enumerate() {
        let forecast = waiter.explain().unwrap();
        assert_eq!((forecast.ahead, forecast.binding), (index, Some(Limit::tpm(6_000))));
        told.push(forecast.starts_in);
    }
    for (waiter, told) in waiters.into_iter().zip(told) {
        settle(waiter.await.unwrap());
        assert_eq!(start.elapsed(), told);
    }
}

#[tokio::test(start_paused = true)]
async fn forecast_reserves_nothing_and_try_acquire_does_not_wait() {
    let scheduler = scheduler();
    for _ in 0..100 {
        assert_eq!(scheduler.forecast(request(6_000)).await.unwrap().starts_in, Duration::ZERO);
    }
    settle(scheduler.try_acquire(request(6_000)).unwrap());
    let Err(TryAcquireError::NotYet { forecast }) = scheduler.try_acquire(request(100)) else { panic!() };
    assert_eq!(forecast.starts_in, Duration::from_millis(1_500));
    assert_eq!(scheduler.snapshot().lanes[0].status.admitted, 1);
}

#[tokio::test(start_paused = true)]
async fn priority_goes_first_and_a_large_request_is_not_overtaken() {
    let scheduler = busy().await;
    let large = scheduler.enqueue(request(3_000)).await.unwrap();
    let small = scheduler.enqueue(request(1)).await.unwrap();
    let urgent = scheduler.enqueue(request(100).priority(Priority::High)).await.unwrap();
    let start = Instant::now();
    settle(urgent.await.unwrap());
    assert_eq!(start.elapsed(), Duration::from_millis(1_500));
    settle(large.await.unwrap());
    assert_eq!(start.elapsed(), Duration::from_millis(31_500));
    settle(small.await.unwrap());
    assert_eq!(start.elapsed(), Duration::from_millis(31_510));
}

#[tokio::test(start_paused = true)]
async fn raised_limits_let_waiters_go_and_what_was_spent_stays_spent() {
    let scheduler = busy().await;
    let mut waiter = scheduler.enqueue(request(3_000)).await.unwrap();
    assert!(tokio::time::timeout(SECOND, &mut waiter).await.is_err());
    let start = Instant::now();
    scheduler.set_limits("gpt-4o", [Limit::rpm(60), Limit::tpm(60_000)]);
    settle(waiter.await.unwrap());
    assert_eq!(start.elapsed(), Duration::ZERO);
    let left = scheduler.snapshot().lanes[0].status.gates[1].left;
    assert_eq!(left, 60_000 - 5_900 - 3_000);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_no_longer_fits_any_limit_is_told_so() {
    let scheduler = busy().await;
    let waiter = scheduler.enqueue(request(3_000)).await.unwrap();
    scheduler.set_limits("gpt-4o", [Limit::tpm(2_000)]);
    let Err(AcquireError::Refused(Refusal::TooLarge { size: 3_000, .. })) = waiter.await else {
        panic!("it can never pass")
    };
}

#[tokio::test(start_paused = true)]
async fn close_refuses_new_work_and_drain_finishes_the_old() {
    let scheduler = busy().await;
    let call = |_| async {
        tokio::time::sleep(SECOND).await;
        Ok::<_, std::io::Error>(())
    };
    let waiting = tokio::spawn({
        let scheduler = scheduler.clone();
        async move { scheduler.submit(request(100), call).await }
    });
    tokio::task::yield_now().await;
    let start = Instant::now();
    scheduler.drain().await;
    assert_eq!(start.elapsed(), Duration::from_millis(2_500));
    assert!(waiting.await.unwrap().is_ok());
    let error = scheduler.acquire(request(1)).await.unwrap_err();
    assert!(matches!(error, AcquireError::Refused(Refusal::Closed)));
}

#[tokio::test(start_paused = true)]
async fn models_of_one_pool_share_limits_and_others_do_not() {
    let limits = Limits { rpm: Some(2), ..Limits::default() };
    let account = Account::openai().limits(limits).pool("shared", ["a", "b"]).pool("flagship", ["gpt-5.5"]);
    let scheduler = Scheduler::builder().account(account).build().unwrap();
    let ask = |model: &'static str| Request::tokens(model, 1, 0);
    for (first, second) in [("a", "b"), ("gpt-4o", "gpt-4o-2024-08-06"), ("gpt-5.5-2026-03-01", "gpt-5.5")] {
        settle(scheduler.acquire(ask(first)).await.unwrap());
        settle(scheduler.acquire(ask(second)).await.unwrap());
        assert!(scheduler.try_acquire(ask(first)).is_err(), "{second} has used up what {first} could have used");
    }
    let pools: Vec<_> = scheduler.snapshot().lanes.into_iter().map(|lane| lane.pool).collect();
    assert_eq!(pools, ["flagship", "gpt-4o", "shared"]);
}

#[test]
fn the_limits_of_a_pool_do_not_depend_on_which_of_its_models_is_asked_for_first() {
    let tpm = |tpm| Limits { tpm: Some(tpm), ..Limits::default() };
    let accounts = || {
        let openai =
            Account::openai().tier(1).model("gpt-4o-2024-08-06", tpm(7_000)).pool("two", ["gpt-5.5", "gpt-4.1"]);
        let anthropic = Account::new(Provider::Anthropic).model("claude-sonnet-4-5", tpm(7_000));
        let mistral = Account::new(Provider::Mistral).model("mistral-small-latest", tpm(7_000));
        [openai, anthropic, mistral]
    };
    let rows = [
        (0, "gpt-4o", "gpt-4o-2024-11-20", vec![Limit::tpm(7_000), Limit::rpm(500)]),
        (0, "gpt-4.1", "gpt-5.5", vec![Limit::rpm(500), Limit::tpm(500_000)]),
        (1, "claude-sonnet-4-5-20250929", "claude-sonnet-4-5", vec![Limit::tpm(7_000)]),
        (2, "mistral-small-2506", "mistral-small-latest", vec![Limit::tpm(7_000)]),
    ];
    for (account, first, second, expected) in rows {
        for order in [[first, second], [second, first]] {
            let scheduler = Scheduler::builder().account(accounts()[account].clone()).build().unwrap();
            for model in order {
                let limits: Vec<_> = scheduler.lane_of(model).status.gates.iter().map(|gate| gate.limit).collect();
                assert_eq!(limits, expected, "{model} of {order:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn models_without_end_take_no_memory_without_end() {
    let limits = Limits { rpm: Some(1), ..Limits::default() };
    let scheduler = Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap();
    let busy = scheduler.acquire(Request::tokens("busy", 1, 0)).await.unwrap();
    for round in 0..10 {
        for nth in 0..1_000 {
            settle(scheduler.acquire(Request::tokens(format!("model {round} {nth}"), 1, 0)).await.unwrap());
        }
        tokio::time::sleep(2 * MINUTE).await;
    }
    let lanes = scheduler.snapshot().lanes;
    assert!(lanes.len() < 2_100, "{}", lanes.len());
    assert!(lanes.iter().any(|lane| lane.pool == "busy" && lane.status.in_flight == 1));
    settle(busy);
}

#[tokio::test(start_paused = true)]
async fn a_large_first_request_goes_alone_until_the_provider_has_answered() {
    let scheduler = scheduler();
    let mut first = scheduler.acquire(request(5_000)).await.unwrap();
    first.sent();
    let Err(TryAcquireError::NotYet { .. }) = scheduler.try_acquire(request(500)) else { panic!("too early") };
    settle(first);
    assert!(scheduler.try_acquire(request(500)).is_ok());
}

#[tokio::test(start_paused = true)]
async fn concurrency_is_bounded_and_a_free_place_is_taken_at_once() {
    let limits = Limits { max_concurrent: Some(2), ..Limits::default() };
    let scheduler = Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap();
    let first = scheduler.acquire(request(1)).await.unwrap();
    let _second = scheduler.acquire(request(1)).await.unwrap();
    let third = scheduler.enqueue(request(1)).await.unwrap();
    tokio::spawn(async move {
        tokio::time::sleep(SECOND).await;
        settle(first);
    });
    let start = Instant::now();
    drop(third.await.unwrap());
    assert_eq!(start.elapsed(), SECOND);
}

#[test]
fn who_has_to_wait_outside_of_tokio_panics_and_leaves_no_place_behind() {
    let scheduler = scheduler();
    let poll = |tokens| {
        let mut enqueued = std::pin::pin!(scheduler.enqueue(request(tokens)));
        enqueued.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    };
    assert!(poll(10), "an idle lane grants at once");
    let held = scheduler.try_acquire(request(10)).unwrap();
    let waits = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(6_000)));
    assert!(waits.is_err());
    drop(held);
    let status = &scheduler.snapshot().lanes[0].status;
    assert_eq!((status.waiting, status.in_flight), (0, 0));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { settle(scheduler.acquire(request(6_000)).await.unwrap()) });
}

#[test]
fn a_limit_of_zero_is_refused_with_its_name() {
    for (limits, named) in [
        (Limits { tpm: Some(0), ..Limits::default() }, "TPM"),
        (Limits { max_concurrent: Some(0), ..Limits::default() }, "max_concurrent"),
    ] {
        for account in [Account::openai().limits(limits), Account::openai().model("gpt-4o", limits)] {
            let error = Scheduler::builder().account(account).build().unwrap_err();
            assert!(matches!(&error, ConfigError::ZeroLimit { limit, .. } if limit == named), "{error:?}");
        }
    }
}

#[test]
fn a_tenant_without_turns_is_refused() {
    let error = Scheduler::builder().tenant_weight("search", 0).build().unwrap_err();
    assert!(matches!(&error, ConfigError::NoTurns { tenant } if tenant == "search"), "{error:?}");
}

#[test]
fn waiters_outlive_the_runtime_that_served_the_lane() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let limits = Limits { rpm: Some(1_200), ..Limits::default() };
    let scheduler = Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap();
    let (first, second) = (runtime(), runtime());
    let mut waiters = first.block_on(async {
        for _ in 0..1_200 {
            match scheduler.try_acquire(request(1)) {
                Ok(permit) => settle(permit),
                Err(_) => break,
            }
        }
        vec![scheduler.enqueue(request(1)).await.unwrap()]
    });
    waiters.push(second.block_on(scheduler.enqueue(request(1))).unwrap());
    drop(first);
    second.block_on(async {
        for waiter in waiters {
            settle(tokio::time::timeout(5 * SECOND, waiter).await.expect("somebody serves the lane").unwrap());
        }
    });
}

#[tokio::test(start_paused = true)]
async fn an_urgent_newcomer_wakes_a_lane_that_sleeps_for_somebody_else() {
    let scheduler = busy().await;
    let mut large = scheduler.enqueue(request(4_000)).await.unwrap();
    assert!(tokio::time::timeout(SECOND, &mut large).await.is_err(), "the lane sleeps for the large request");
    let start = Instant::now();
    settle(scheduler.acquire(request(100).priority(Priority::High)).await.unwrap());
    assert_eq!(start.elapsed(), Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_does_not_sleep_as_long_as_one_that_gave_up() {
    let scheduler = busy().await;
    let mut large = scheduler.enqueue(request(4_000)).await.unwrap();
    assert!(tokio::time::timeout(SECOND, &mut large).await.is_err());
    drop(large);
    let start = Instant::now();
    settle(scheduler.acquire(request(100)).await.unwrap());
    assert_eq!(start.elapsed(), Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn a_large_request_passes_the_careful_start_although_the_first_answer_was_an_error() {
    let limits = Limits { tpm: Some(60_000), ..Limits::default() };
    let scheduler = Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap();
    let mut first = scheduler.acquire(request(1_000)).await.unwrap();
    first.sent();
    let _ = first.failed(503, &http::HeaderMap::new(), b"");
    // More than an eighth of the limit, all of which may be sent before the provider has answered well.
    let start = Instant::now();
    scheduler.acquire(request(20_000)).await.unwrap().settle(tollgate::Usage::new(20_000, 0));
    assert!(start.elapsed() < 8 * SECOND, "{:?}", start.elapsed());
}
