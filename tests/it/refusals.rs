//! When the provider refuses or fails: who waits, how long, and who tries again. All in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use tokio::time::Instant;
use tollgate::{
    Account, AcquireError, Attempt, Class, Error, Limits, Provider, Refusal, Request, RetryPolicy, Scheduler,
    TryAcquireError,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn scheduler() -> Scheduler {
    let limits = Limits { rpm: Some(6_000), tpm: Some(600_000), ..Limits::default() };
    Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap()
}

fn request() -> Request {
    Request::tokens("gpt-4o", 100, 100)
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

#[derive(Debug)]
struct Failed;

/// A call that is answered with `status` and `body` the first `times`, and well after that.
fn failing(
    times: u32,
    status: u16,
    headers: HeaderMap,
    body: &'static str,
) -> (Arc<AtomicU32>, impl FnMut(Attempt) -> std::future::Ready<Result<u32, Failed>>) {
    let calls = Arc::new(AtomicU32::new(0));
    let count = calls.clone();
    let call = move |attempt: Attempt| {
        if count.fetch_add(1, Relaxed) < times {
            attempt.answer(status, &headers);
            attempt.error_body(body.as_bytes());
            std::future::ready(Err(Failed))
        } else {
            attempt.answer(200, &HeaderMap::new());
            std::future::ready(Ok(attempt.number()))
        }
    };
    (calls, call)
}

const TOKENS_429: &str = r#"{"error": {"message": "Rate limit reached for gpt-4o in organization org-x on tokens per min (TPM): Limit 600000, Used 599990, Requested 200. Please try again in 3s. Visit https://platform.openai.com/account/rate-limits to learn more.", "type": "tokens", "param": null, "code": "rate_limit_exceeded"}}"#;

#[tokio::test(start_paused = true)]
async fn every_spelling_of_a_wait_is_obeyed() {
    let date = httpdate(SystemTime::now() + 3 * SECOND);
    let spellings = [
        (headers(&[("retry-after", "3")]), "{}", 3.0..=4.0),
        (headers(&[("retry-after-ms", "3000"), ("retry-after", "1")]), "{}", 3.0..=4.0),
        (headers(&[("retry-after", &date)]), "{}", 1.5..=4.0),
        (HeaderMap::new(), TOKENS_429, 3.0..=4.0),
        (headers(&[("retry-after-ms", "0")]), TOKENS_429, 3.0..=4.0),
    ];
    for (headers, body, expected) in spellings {
        let scheduler = scheduler();
        let start = Instant::now();
        let (_, call) = failing(1, 429, headers.clone(), body);
        assert_eq!(scheduler.submit(request(), call).await.unwrap(), 2);
        let waited = start.elapsed().as_secs_f64();
        assert!(expected.contains(&waited), "{headers:?} {body}: waited {waited}");
    }
}

fn httpdate(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at).unwrap();
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_wait_is_obeyed_by_the_whole_lane_and_waiters_come_back_one_after_another() {
    let scheduler = scheduler();
    let (_, call) = failing(0, 200, HeaderMap::new(), "");
    scheduler.submit(request(), call).await.unwrap();
    let refused = tokio::spawn({
        let scheduler = scheduler.clone();
        let (_, call) = failing(1, 429, headers(&[("retry-after", "20")]), TOKENS_429);
        async move { scheduler.submit(request(), call).await }
    });
    tokio::task::yield_now().await;
    let start = Instant::now();
    let mut others = Vec::new();
    for _ in 0..50 {
        others.push(scheduler.enqueue(request()).await.unwrap());
    }
    let mut starts = Vec::new();
    for other in others {
        other.await.unwrap().settle(tollgate::Usage::new(100, 100));
        starts.push(start.elapsed());
    }
    assert!(starts[0] >= 20 * SECOND, "{:?}", starts[0]);
    // 200 tokens refill in 20 ms.
    let gaps: Vec<_> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_millis(18)), "{gaps:?}");
    assert_eq!(refused.await.unwrap().unwrap(), 2);
    assert_eq!(scheduler.snapshot().lanes[0].counters.rate_limited, 1);
}

#[tokio::test(start_paused = true)]
async fn x_should_retry_speaks_to_the_request_and_the_limit_to_everybody() {
    let scheduler = scheduler();
    let headers = headers(&[("retry-after", "20"), ("x-should-retry", "false")]);
    let (calls, call) = failing(1, 429, headers, TOKENS_429);
    let start = Instant::now();
    assert!(scheduler.submit(request(), call).await.is_err());
    assert_eq!((calls.load(Relaxed), start.elapsed()), (1, Duration::ZERO));
    drop(scheduler.acquire(request()).await.unwrap());
    assert!(start.elapsed() >= 20 * SECOND, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn after_a_refusal_of_a_window_one_goes_first_and_the_others_when_it_was_answered() {
    let limits = Limits { rpm: Some(100), ..Limits::default() };
    let scheduler = Scheduler::builder().account(Account::new(Provider::Gemini).limits(limits)).build().unwrap();
    let (_, call) = failing(0, 200, HeaderMap::new(), "");
    scheduler.submit(request(), call).await.unwrap();
    let (_, call) = failing(1, 429, headers(&[("retry-after", "20")]), "{}");
    let refused = tokio::spawn({
        let scheduler = scheduler.clone();
        async move { scheduler.submit(request(), call).await }
    });
    tokio::task::yield_now().await;
    let start = Instant::now();
    let starts: Vec<_> = (0..30)
        .map(|_| {
            let scheduler = scheduler.clone();
            tokio::spawn(async move {
                let permit = scheduler.acquire(request()).await.unwrap();
                let at = start.elapsed();
                tokio::time::sleep(SECOND).await;
                permit.settle(tollgate::Usage::new(100, 100));
                at
            })
        })
        .collect();
    assert_eq!(refused.await.unwrap().unwrap(), 2);
    let mut after = Vec::new();
    for start in starts {
        after.push(start.await.unwrap());
    }
    after.sort();
    // The refused one goes first, and all of the others when it was answered.
    assert!(after[0] >= 20 * SECOND && after[29] < 24 * SECOND, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_below_the_providers_own_is_kept() {
    for provider in [Provider::Openai, Provider::Compatible] {
        let limits = Limits { rpm: Some(60), tpm: Some(30_000), ..Limits::default() };
        let scheduler = Scheduler::builder().account(Account::new(provider).limits(limits)).build().unwrap();
        let start = Instant::now();
        for nth in 0..150 {
            let call = async |attempt: Attempt| {
                tokio::time::sleep(SECOND / 10).await;
                let left = (600 - nth.min(5)).to_string();
                let tokens = (300_000 - nth.min(5) * 200).to_string();
                attempt.answer(
                    200,
                    &headers(&[
                        ("x-ratelimit-limit-requests", "600"),
                        ("x-ratelimit-remaining-requests", &left),
                        ("x-ratelimit-reset-requests", "500ms"),
                        ("x-ratelimit-limit-tokens", "300000"),
                        ("x-ratelimit-remaining-tokens", &tokens),
                        ("x-ratelimit-reset-tokens", "200ms"),
                    ]),
                );
                attempt.usage(tollgate::Usage::new(100, 100));
                Ok::<_, Failed>(())
            };
            scheduler.submit(request(), call).await.unwrap();
        }
        assert!(start.elapsed() >= 89 * SECOND, "{provider}: {:?}", start.elapsed());
    }
}

/// What a request is charged here is in no rule: its tools do not count.
#[tokio::test(start_paused = true)]
async fn a_refusal_is_waited_for_as_long_as_it_says_though_wrong_rules_would_wait_longer() {
    let limits = Limits { tpm: Some(9_000), ..Limits::default() };
    let scheduler = Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap();
    let start = Instant::now();
    let (bucket, refused) = (Arc::new(std::sync::Mutex::new((9_000.0, start))), Arc::new(AtomicU32::new(0)));
    let tasks: Vec<_> = (0..150)
        .map(|_| {
            let (scheduler, bucket, refused) = (scheduler.clone(), bucket.clone(), refused.clone());
            let call = move |attempt: Attempt| {
                let (refused, (left, passes)) = (refused.clone(), {
                    let (left, at) = &mut *bucket.lock().unwrap();
                    *left = f64::min(9_000.0, *left + at.elapsed().as_secs_f64() * 150.0);
                    *at = Instant::now();
                    let passes = *left >= 150.0;
                    *left -= if passes { 150.0 } else { 0.0 };
                    (*left, passes)
                });
                async move {
                    tokio::time::sleep(SECOND / 2).await;
                    let (remaining, used) = ((left as u64).to_string(), 9_000 - left as u64);
                    let reset = format!("{}ms", used * 1_000 / 150);
                    let mut told = headers(&[
                        ("x-ratelimit-limit-tokens", "9000"),
                        ("x-ratelimit-remaining-tokens", &remaining),
                        ("x-ratelimit-reset-tokens", &reset),
                    ]);
                    if passes {
                        attempt.answer(200, &told);
                        return Ok(());
                    }
                    told.insert("retry-after", "1".parse().unwrap());
                    attempt.answer(429, &told);
                    let body = format!(
                        r#"{{"error": {{"message": "Rate limit reached for m in organization o on tokens per min (TPM): Limit 9000, Used {used}, Requested 150. Please try again in 400ms.", "type": "tokens", "code": "rate_limit_exceeded"}}}}"#
                    );
                    attempt.error_body(body.as_bytes());
                    Err(refused.fetch_add(1, Relaxed))
                }
            };
            tokio::spawn(async move { scheduler.submit(Request::tokens("m", 300, 100), call).await })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap().is_ok());
    }
    // The least is 90 s.
    assert!(refused.load(Relaxed) < 30 && start.elapsed() < 130 * SECOND, "{refused:?} {:?}", start.elapsed());
}

/// A server that lets 20 requests a minute pass, refilling, and says nothing of it but how long to wait.
#[tokio::test(start_paused = true)]
async fn a_limit_that_nobody_tells_of_costs_no_request_and_few_refusals() {
    let scheduler = Scheduler::builder().account(Account::new(Provider::Compatible)).build().unwrap();
    let (start, refused) = (Instant::now(), Arc::new(AtomicU32::new(0)));
    let bucket = Arc::new(std::sync::Mutex::new((20.0, start)));
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let (scheduler, bucket, refused) = (scheduler.clone(), bucket.clone(), refused.clone());
            let call = move |attempt: Attempt| {
                let passes = {
                    let (left, at) = &mut *bucket.lock().unwrap();
                    *left = f64::min(20.0, *left + at.elapsed().as_secs_f64() / 3.0);
                    *at = Instant::now();
                    let passes = *left >= 1.0;
                    *left -= f64::from(u8::from(passes));
                    passes
                };
                let refused = refused.clone();
                async move {
                    tokio::time::sleep(SECOND / 2).await;
                    let status = if passes { 200 } else { 429 };
                    attempt.answer(status, &headers(if passes { &[] } else { &[("retry-after", "3")] }));
                    if passes { Ok(()) } else { Err(refused.fetch_add(1, Relaxed)) }
                }
            };
            tokio::spawn(async move { scheduler.submit(request(), call).await })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap().is_ok());
    }
    // 80 in the first volley, and one now and then until the rate is found.
    assert!(refused.load(Relaxed) < 130, "{refused:?}");
    assert!(start.elapsed() < 270 * SECOND, "the least is 240 s: {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_error_that_nobody_explained_is_no_answer_of_the_provider() {
    let scheduler = scheduler();
    let unexplained = |_| std::future::ready(Err::<(), _>(Failed));
    assert!(scheduler.submit(request(), unexplained).await.is_err());
    // The careful start is not over: an eighth of the limit, then nothing.
    let large = || Request::tokens("gpt-4o", 74_000, 0);
    let first = scheduler.try_acquire(large()).unwrap();
    assert!(scheduler.try_acquire(large()).is_err());
    drop(first);
    let explained = |attempt: Attempt| {
        attempt.answer(200, &HeaderMap::new());
        std::future::ready(Err::<(), _>(Failed))
    };
    assert!(scheduler.submit(request(), explained).await.is_err());
    let permits = [large(), large()].map(|request| scheduler.try_acquire(request));
    assert!(permits.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_heal_is_never_repeated() {
    let bodies = [
        (
            429,
            r#"{"error": {"message": "You exceeded your current quota, please check your plan and billing details.", "type": "insufficient_quota", "code": "insufficient_quota"}}"#,
            Class::QuotaExhausted,
        ),
        (
            429,
            r#"{"error": {"message": "Request too large for gpt-4o in organization org-x on tokens per min (TPM): Limit 30000, Requested 40000. The input or output tokens must be reduced in order to run successfully.", "type": "tokens", "code": "rate_limit_exceeded"}}"#,
            Class::TooLarge,
        ),
        (400, r#"{"error": {"message": "nope", "type": "invalid_request_error"}}"#, Class::Invalid),
        (
            401,
            r#"{"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}"#,
            Class::Unauthorized,
        ),
        (403, "{}", Class::Forbidden),
    ];
    for (status, body, class) in bodies {
        let (calls, call) = failing(9, status, HeaderMap::new(), body);
        let error = scheduler().submit(request(), call).await.unwrap_err();
        assert_eq!((calls.load(Relaxed), error.failure().unwrap().class), (1, class), "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn server_errors_back_off_and_end_with_the_attempts() {
    let scheduler = scheduler();
    let start = Instant::now();
    let (calls, call) = failing(99, 503, HeaderMap::new(), "");
    let error = scheduler.submit(request(), call).await.unwrap_err();
    assert!(matches!(error, Error::Call { error: Failed, attempts: 6, .. }), "{error:?}");
    assert_eq!(calls.load(Relaxed), 6);
    // 1 + 2 + 4 + 8 + 16 s and five times up to 0.5 s.
    assert!((31.0..=33.5).contains(&start.elapsed().as_secs_f64()), "{:?}", start.elapsed());
    assert_eq!(scheduler.snapshot().lanes[0].status.gates[0].spent, 6, "each attempt costs a request");
}

#[tokio::test(start_paused = true)]
async fn an_error_that_nobody_explained_is_not_repeated() {
    let mut calls = 0;
    let call = |_| {
        calls += 1;
        std::future::ready(Err::<(), _>(Failed))
    };
    assert!(matches!(scheduler().submit(request(), call).await, Err(Error::Call { attempts: 1, failure: None, .. })));
    assert_eq!(calls, 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_sent_nothing_is_given_back_and_tells_nothing_of_the_provider() {
    let scheduler = scheduler();
    let unsent = |result: Result<u32, Failed>| {
        let mut result = Some(result);
        move |attempt: Attempt| {
            attempt.unsent();
            std::future::ready(result.take().expect("it is not made again"))
        }
    };
    assert_eq!(scheduler.submit(request(), unsent(Ok(7))).await.unwrap(), 7);
    let error = scheduler.submit(request(), unsent(Err(Failed))).await.unwrap_err();
    assert!(matches!(error, Error::Call { error: Failed, attempts: 0, failure: None }), "{error:?}");
    let lane = &scheduler.snapshot().lanes[0];
    assert_eq!((lane.status.in_flight, lane.status.gates[0].spent, lane.status.gates[1].spent), (0, 0, 0));
    assert_eq!((lane.health.last_minute.calls, lane.counters.failed), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_retry_whose_pause_ends_after_the_deadline_is_refused_at_once() {
    let base = 10 * SECOND;
    let scheduler = Scheduler::builder().retry(RetryPolicy { base, ..RetryPolicy::default() }).build().unwrap();
    let start = Instant::now();
    let (_, call) = failing(1, 503, HeaderMap::new(), "");
    let error = scheduler.submit(request().max_wait(9 * SECOND), call).await.unwrap_err();
    let Error::Refused { reason: AcquireError::Refused(refusal), attempts: 1, last: Some(_) } = error else {
        panic!("{error:?}")
    };
    let Refusal::Deadline { starts_in, binding: None } = refusal else { panic!("{refusal:?}") };
    assert!((base..base + SECOND).contains(&starts_in), "{starts_in:?}");
    assert_eq!(start.elapsed(), Duration::ZERO);

    let (_, call) = failing(1, 503, HeaderMap::new(), "");
    assert_eq!(scheduler.submit(request().max_wait(11 * SECOND), call).await.unwrap(), 2, "this one can make it");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_is_met_by_nobody_and_one_of_this_moment_by_who_can_go() {
    let limits = Limits { rpm: Some(6_000), ..Limits::default() };
    let another = Scheduler::builder()
        .account(Account::openai().named("a").limits(limits))
        .account(Account::openai().named("b").limits(limits));
    for scheduler in [scheduler(), another.build().unwrap()] {
        let now = Instant::now().into_std();
        let late = || request().deadline(now - 5 * SECOND);
        let (calls, call) = failing(0, 200, HeaderMap::new(), "");
        let error = scheduler.submit(late(), call).await.unwrap_err();
        let Error::Refused { reason: AcquireError::Refused(Refusal::Deadline { .. }), attempts: 0, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(calls.load(Relaxed), 0);
        assert!(scheduler.acquire(late()).await.is_err() && scheduler.forecast(late()).await.is_err());
        let refused = scheduler.try_acquire(late()).unwrap_err();
        assert!(
            matches!(refused, TryAcquireError::Never(AcquireError::Refused(Refusal::Deadline { .. }))),
            "{refused:?}"
        );
        for punctual in [request().deadline(now), request().max_wait(Duration::ZERO)] {
            let (_, call) = failing(0, 200, HeaderMap::new(), "");
            scheduler.submit(punctual, call).await.unwrap();
        }
        assert!(scheduler.try_acquire(request().deadline(now)).is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_ends_after_the_deadline_is_the_last_one() {
    for status in [401, 429, 503] {
        let limits = Limits { rpm: Some(6_000), ..Limits::default() };
        let account = || Account::openai().key("first").key("second").limits(limits);
        let scheduler = || Scheduler::builder().account(account()).build().unwrap();
        let call = |attempt: Attempt| async move {
            tokio::time::sleep(30 * SECOND).await;
            attempt.answer(if attempt.number() == 1 { status } else { 200 }, &HeaderMap::new());
            if attempt.number() == 1 { Err(Failed) } else { Ok(()) }
        };
        let error = scheduler().submit(request().max_wait(SECOND), call).await.unwrap_err();
        assert!(matches!(error, Error::Refused { attempts: 1, last: Some(_), .. }), "{status}: {error:?}");
        assert!(scheduler().submit(request().max_wait(MINUTE), call).await.is_ok(), "this one can make it");
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_can_be_limited_to_one() {
    let policy = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
    let scheduler = Scheduler::builder().retry(policy).build().unwrap();
    let (calls, call) = failing(9, 500, HeaderMap::new(), "");
    assert!(scheduler.submit(request(), call).await.is_err());
    assert_eq!(calls.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_attempt_costs_a_request_and_no_tokens() {
    let scheduler = scheduler();
    let (_, call) = failing(1, 429, headers(&[("retry-after", "1")]), "{}");
    scheduler.submit(request(), call).await.unwrap();
    let gates = scheduler.snapshot().lanes[0].status.gates.clone();
    assert_eq!((gates[0].spent, gates[1].spent), (2, 200));
}

#[tokio::test(start_paused = true)]
async fn drain_waits_for_a_request_that_is_backing_off() {
    let scheduler = scheduler();
    let (calls, call) = failing(1, 500, HeaderMap::new(), "");
    let running = tokio::spawn({
        let scheduler = scheduler.clone();
        async move { scheduler.submit(request(), call).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(calls.load(Relaxed), 1);
    scheduler.drain().await;
    assert_eq!(calls.load(Relaxed), 2, "its retry is part of the work that was taken");
    assert_eq!(running.await.unwrap().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_costs_no_request_however_many_are_under_way() {
    let scheduler = Scheduler::builder().build().unwrap();
    let back = Instant::now() + 3 * SECOND;
    let tasks: Vec<_> = (0..2_000)
        .map(|_| {
            let scheduler = scheduler.clone();
            tokio::spawn(async move {
                let call = |attempt: Attempt| async move {
                    attempt.answer(if Instant::now() < back { 503 } else { 200 }, &HeaderMap::new());
                    if Instant::now() < back { Err(Failed) } else { Ok(()) }
                };
                scheduler.submit(request(), call).await
            })
        })
        .collect();
    for task in tasks {
        assert!(task.await.unwrap().is_ok());
    }
}
