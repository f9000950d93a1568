//! The fallback chain: when another model answers, and when not. All in virtual time.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderMap;
use serde_json::json;
use tokio::time::Instant;
use tollgate::{
    Account, AcquireError, Attempt, Class, Config, ConfigError, Error, Estimate, Fallback, FallbackRoute, Limits,
    Permit, Provider, Request, Scheduler, Unfit, Usage,
};

const SECOND: Duration = Duration::from_secs(1);
const NO_CREDIT: (u16, &str) = (429, r#"{"error": {"message": "quota", "code": "insufficient_quota"}}"#);
const OVERLOADED: (u16, &str) = (503, r#"{"error": {"message": "overloaded", "code": "server_is_overloaded"}}"#);

#[derive(Debug)]
struct Failed;

fn account(provider: Provider, tpm: u64) -> Account {
    Account::new(provider).limits(Limits { tpm: Some(tpm), ..Limits::default() })
}

/// gpt-4o at OpenAI, then Claude at Anthropic, then Mistral.
fn chain() -> Fallback {
    Fallback::of("gpt-4o").to("anthropic", "claude-sonnet-4-6").to("mistral", "mistral-large-latest")
}

fn scheduler(chain: Fallback) -> Scheduler {
    let builder = Scheduler::builder().account(account(Provider::Openai, 60_000));
    let builder = builder.account(account(Provider::Anthropic, 30_000)).account(account(Provider::Mistral, 30_000));
    builder.fallback(chain).build().unwrap()
}

fn request(tokens: u64) -> Request {
    Request::tokens("gpt-4o", tokens, 0)
}

fn settle(permit: Permit) -> String {
    let (model, used) = (permit.target().model().to_owned(), permit.charge());
    permit.settle(Usage::new(used.input_tokens, used.output_tokens));
    model
}

/// A scheduler whose providers have answered, with `left` seconds' worth of waiting at the primary.
async fn busy(chain: Fallback, wait: u64) -> Scheduler {
    let scheduler = scheduler(chain);
    for (name, model) in [("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-6"), ("mistral", "mistral-large-latest")]
    {
        settle(scheduler.acquire(Request::tokens(model, 1, 0).account(name)).await.unwrap());
    }
    settle(scheduler.acquire(request(59_999).account("openai")).await.unwrap());
    // The limit lets a thousand through each second, and keeps half a second back.
    let ahead = Request::tokens("gpt-4o", wait * 1_000 - 500, 0).account("openai");
    let ahead = scheduler.enqueue(ahead).await.unwrap();
    tokio::spawn(async move { settle(ahead.await.unwrap()) });
    scheduler
}

/// Answers each attempt as `answer` says, and notes the models that were asked.
fn call<'a>(
    asked: &'a Mutex<Vec<String>>,
    answer: impl Fn(&Attempt) -> (u16, &'static str) + 'a,
) -> impl FnMut(Attempt) -> std::future::Ready<Result<String, Failed>> + 'a {
    move |attempt| {
        asked.lock().unwrap().push(attempt.model().to_owned());
        let (status, body) = answer(&attempt);
        attempt.answer(status, &HeaderMap::new());
        attempt.error_body(body.as_bytes());
        std::future::ready(if status < 400 { Ok(attempt.account().to_owned()) } else { Err(Failed) })
    }
}

#[tokio::test(start_paused = true)]
async fn the_primary_answers_while_it_can_and_a_fallback_that_starts_earlier_by_the_margin_takes_over() {
    let scheduler = busy(chain(), 4).await;
    assert_eq!(scheduler.forecast(request(1)).await.unwrap().starts_in.as_secs(), 4);
    let waiter = scheduler.enqueue(request(1_000)).await.unwrap();
    assert!(waiter.explain().is_some(), "it waits for the primary, whose wait is below the margin");
    assert_eq!(settle(scheduler.acquire(request(1_000)).await.unwrap()), "claude-sonnet-4-6", "now it is above");
    let start = Instant::now();
    assert_eq!(settle(waiter.await.unwrap()), "gpt-4o");
    assert!((4_990..=5_010).contains(&start.elapsed().as_millis()), "behind what was ahead of it");
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(settle(scheduler.acquire(request(1_000)).await.unwrap()), "gpt-4o", "and back when it has recovered");
}

#[tokio::test(start_paused = true)]
async fn patience_that_ends_before_the_primary_starts_makes_a_fallback_answer() {
    let scheduler = busy(chain().margin(600 * SECOND), 3).await;
    let patient = scheduler.enqueue(request(100).max_wait(4 * SECOND)).await.unwrap();
    assert_eq!(settle(scheduler.acquire(request(100).max_wait(2 * SECOND)).await.unwrap()), "claude-sonnet-4-6");
    assert_eq!(settle(patient.await.unwrap()), "gpt-4o");
}

#[tokio::test(start_paused = true)]
async fn try_acquire_has_no_patience() {
    let scheduler = busy(chain().margin(600 * SECOND), 3).await;
    assert_eq!(settle(scheduler.try_acquire(request(100)).unwrap()), "claude-sonnet-4-6");
}

#[tokio::test(start_paused = true)]
async fn a_primary_without_quota_is_left_at_once_and_down_the_chain() {
    let scheduler = scheduler(chain());
    let asked = Mutex::default();
    let broke = |attempt: &Attempt| if attempt.provider() == Provider::Mistral { (200, "") } else { NO_CREDIT };
    let start = Instant::now();
    assert_eq!(scheduler.submit(request(100), call(&asked, broke)).await.unwrap(), "mistral");
    assert_eq!(scheduler.submit(request(100), call(&asked, broke)).await.unwrap(), "mistral");
    assert_eq!(
        *asked.lock().unwrap(),
        ["gpt-4o", "claude-sonnet-4-6", "mistral-large-latest", "mistral-large-latest"],
        "nobody is asked again who has no money"
    );
    assert_eq!(start.elapsed(), Duration::ZERO);
    scheduler.restore("openai").unwrap();
    assert_eq!(scheduler.submit(request(100), call(&asked, |_| (200, ""))).await.unwrap(), "openai");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_safe_elsewhere_is_not_sent_elsewhere() {
    let rows = [
        (400, r#"{"error": {"message": "nope", "type": "invalid_request_error"}}"#, Class::Invalid),
        (400, r#"{"error": {"message": "no", "code": "content_policy_violation"}}"#, Class::ContentPolicy),
        (400, r#"{"error": {"message": "too long", "code": "context_length_exceeded"}}"#, Class::ContextLength),
    ];
    for (status, body, class) in rows {
        let asked = Mutex::default();
        let error = scheduler(chain()).submit(request(1), call(&asked, |_| (status, body))).await.unwrap_err();
        assert_eq!((error.failure().unwrap().class, asked.lock().unwrap().len()), (class, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_for_a_smaller_model_goes_to_the_next_or_back() {
    let small = FallbackRoute { context: Some(1_000), ..route("anthropic", "claude-small") };
    let chain = Fallback::of("gpt-4o").route(small).to("mistral", "mistral-large-latest");
    let asked = Mutex::default();
    let answer = |attempt: &Attempt| match attempt.provider() {
        Provider::Openai => OVERLOADED,
        Provider::Mistral => {
            (400, r#"{"error": {"message": "prompt is too long", "code": "context_length_exceeded"}}"#)
        }
        _ => (200, ""),
    };
    let scheduler = scheduler(chain);
    let request = Request::new("gpt-4o", Estimate::tokens(1_000, 1));
    let error = scheduler.submit(request, call(&asked, answer)).await.unwrap_err();
    assert_eq!(error.failure().unwrap().class, Class::Overloaded, "the failure of the model that was asked for");
    let asked = asked.into_inner().unwrap();
    assert_eq!(asked.iter().filter(|model| *model == "mistral-large-latest").count(), 1, "{asked:?}");
    assert!(asked[2..].iter().all(|model| model == "gpt-4o") && asked.len() == 7, "{asked:?}");
}

fn route(account: &str, model: &str) -> FallbackRoute {
    FallbackRoute { account: account.to_owned(), model: model.to_owned(), ..FallbackRoute::default() }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_does_not_take_the_request_is_passed_over_before_anything_is_sent() {
    let scheduler = scheduler(chain());
    let body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, "seed": 4});
    let sent = Mutex::new(Vec::new());
    let call = |attempt: Attempt| {
        let (sent, body) = (&sent, &body);
        async move {
            let body = attempt.body(body).map_err(|_| Failed)?;
            sent.lock().unwrap().push((
                attempt.account().to_owned(),
                body["model"].clone(),
                body["random_seed"].clone(),
            ));
            let (status, text) = if attempt.provider() == Provider::Openai { NO_CREDIT } else { (200, "") };
            attempt.answer(status, &HeaderMap::new());
            attempt.error_body(text.as_bytes());
            if status < 400 { Ok(attempt.number()) } else { Err(Failed) }
        }
    };
    assert_eq!(scheduler.submit(Request::chat(&body), call).await.unwrap(), 2);
    let sent = sent.into_inner().unwrap();
    assert_eq!(sent[0], ("openai".to_owned(), json!("gpt-4o"), json!(null)));
    assert_eq!(sent[1], ("mistral".to_owned(), json!("mistral-large-latest"), json!(4)), "Anthropic knows no seed");
    assert_eq!(sent.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn when_only_unfit_models_are_left_the_error_says_what_they_do_not_take() {
    let scheduler = scheduler(Fallback::of("gpt-4o").to("anthropic", "claude-sonnet-4-6"));
    let asked = Mutex::default();
    let _ = scheduler.submit(request(1).account("openai"), call(&asked, |_| NO_CREDIT)).await;
    let body = json!({"model": "gpt-4o", "messages": [], "seed": 4});
    let call = |attempt: Attempt| std::future::ready(attempt.body(&body).map(drop));
    let error = scheduler.submit(Request::chat(&body), call).await.unwrap_err();
    let Error::Refused { reason: AcquireError::Unfit(Unfit { what, .. }), attempts: 0, .. } = error else {
        panic!("{error:?}")
    };
    assert_eq!(what, ["seed"]);
    let lanes = scheduler.snapshot().lanes;
    assert!(lanes.iter().all(|lane| lane.status.in_flight == 0));
    assert_eq!(lanes[0].status.gates[0].spent, 0, "nothing was sent");
}

/// A run of `rows` through a primary that fails for some seconds, with a fallback of half its limit. Answers when each row was
/// answered and by whom.
async fn outage(rows: u64, away: Range<u64>, hint: Option<&'static str>) -> Vec<(u64, Duration, String)> {
    let builder = Scheduler::builder().account(account(Provider::Openai, 60_000));
    let builder = builder.account(account(Provider::Anthropic, 30_000));
    let scheduler = builder.fallback(Fallback::of("gpt-4o").to("anthropic", "claude-sonnet-4-6")).build().unwrap();
    let start = Instant::now();
    let done = Arc::new(Mutex::new(Vec::new()));
    let tasks: Vec<_> = (0..rows)
        .map(|row| {
            let (scheduler, done, away) = (scheduler.clone(), done.clone(), away.clone());
            tokio::spawn(async move {
                let call = |attempt: Attempt| {
                    let (done, away) = (done.clone(), away.clone());
                    async move {
                        let out = away.contains(&start.elapsed().as_secs());
                        let headers = hint.map(|wait| ("retry-after".parse().unwrap(), wait.parse().unwrap()));
                        tokio::time::sleep(SECOND / 10).await;
                        if out && attempt.provider() == Provider::Openai {
                            attempt.answer(503, &headers.into_iter().collect());
                            return Err(Failed);
                        }
                        attempt.answer(200, &HeaderMap::new());
                        done.lock().unwrap().push((row, start.elapsed(), attempt.account().to_owned()));
                        Ok(())
                    }
                };
                scheduler.submit(request(300), call).await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().expect("no row is lost");
    }
    Arc::try_unwrap(done).unwrap().into_inner().unwrap()
}

#[tokio::test(start_paused = true)]
async fn no_row_waits_for_an_outage_to_end_while_a_fallback_has_room_and_the_order_is_kept() {
    // With and without the provider saying for how long it is away.
    for (hint, slack) in [(None, 1.05), (Some("30"), 1.03)] {
        let done = outage(1_000, 5..35, hint).await;
        assert_eq!(done.len(), 1_000);
        let during = |from: u64, to: u64| {
            let rows = done.iter().filter(|row| (from..to).contains(&row.1.as_secs()) && row.2 == "anthropic");
            rows.count() as u64 * 300
        };
        // The fallback lets 500 tokens through each second; its first minute's worth may go at once.
        let early = during(0, 10);
        assert!(early <= 30_000 + 10 * 500, "{early}");
        let steady = during(10, 35);
        assert!(steady >= 24 * 500, "{hint:?}: the fallback is used to the full during the outage: {steady}");
        let end = done.iter().map(|row| row.1).max().unwrap().as_secs_f64();
        // 300,000 tokens, 90,000 at once and 1,500 a second: the primary's bucket fills up while it is away.
        let bound = (300_000.0 - 90_000.0) / 1_500.0;
        assert!(end <= slack * bound, "{hint:?}: {end} s, bound {bound}");
        for name in ["openai", "anthropic"] {
            // Whoever failed in the outage keeps its place, so only those that were under way at its edges are late.
            let rows: Vec<u64> =
                done.iter().filter(|row| row.2 == name && row.1 > 40 * SECOND).map(|row| row.0).collect();
            let ordered = rows.windows(2).filter(|pair| pair[0] < pair[1]).count();
            println!("{hint:?} {name}: {ordered} of {} in order, end {end:.1} s, bound {bound:.1} s", rows.len());
            assert!(ordered as f64 >= 0.97 * rows.len().saturating_sub(1) as f64, "{name}: {rows:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_provider_to_return_longer_than_anybody_does_goes_elsewhere() {
    // Longer than `outage_patience`, while the fallback is busy.
    let done = outage(1_000, 5..1_000, None).await;
    assert_eq!(done.len(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn while_the_primary_fails_requests_go_to_the_fallback_at_once_and_some_find_out_when_it_is_back() {
    let scheduler = scheduler(chain());
    let start = Instant::now();
    let mut primary = Vec::new();
    for second in 0..60 {
        let calls: Vec<_> = (0..5)
            .map(|_| {
                let scheduler = scheduler.clone();
                tokio::spawn(async move {
                    let began = Instant::now();
                    let call = |attempt: Attempt| async move {
                        let out = (5..35).contains(&start.elapsed().as_secs());
                        tokio::time::sleep(SECOND / 10).await;
                        let failed = out && attempt.provider() == Provider::Openai;
                        attempt.answer(if failed { 503 } else { 200 }, &HeaderMap::new());
                        if failed { Err(Failed) } else { Ok(attempt.account().to_owned()) }
                    };
                    let by = scheduler.submit(request(10), call).await.unwrap();
                    (by, began.elapsed())
                })
            })
            .collect();
        for call in calls {
            let (by, took) = call.await.unwrap();
            assert!(took <= SECOND / 4, "second {second}: {took:?}");
            if by == "openai" {
                primary.push(second);
            }
        }
        tokio::time::sleep_until(start + SECOND * (second + 1)).await;
    }
    assert!(primary.contains(&4) && !primary.contains(&6), "{primary:?}");
    let back = primary.iter().find(|second| **second >= 35).unwrap();
    assert!(*back <= 40, "{primary:?}");
    assert_eq!(primary.iter().filter(|second| **second == 59).count(), 5, "{primary:?}");
    let failed = scheduler.lane_of("gpt-4o").counters.failed;
    assert!(failed <= 20, "{failed}");
}

#[test]
fn a_chain_that_leads_nowhere_is_refused_with_what_to_do() {
    let broken = [
        "[[fallback]]\nmodel = \"gpt-4o\"\nroutes = [{ account = \"nobody\", model = \"m\" }]",
        "[[fallback]]\nmodel = \"gpt-4o\"\nroutes = []",
    ];
    let errors = broken.map(|text| match Config::from_toml(text).unwrap_err() {
        ConfigError::Field { problem, .. } => problem,
        error => panic!("{error:?}"),
    });
    assert!(matches!(&*errors[0], ConfigError::UnknownRoute { account, .. } if account == "nobody"), "{errors:?}");
    assert!(matches!(&*errors[1], ConfigError::Fallback { model } if model == "gpt-4o"), "{errors:?}");
}
