//! When the provider says that traffic rises too fast, or queues what it is sent. All in virtual time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;
use tollgate::engine::Hold;
use tollgate::{Account, Attempt, Limits, Request, Scheduler};

const SECOND: Duration = Duration::from_secs(1);
const SLOW_DOWN: &str = r#"{"error": {"message": "", "type": "rate_limit_error", "param": null, "code": "slow_down"}}"#;

fn scheduler(limits: Limits) -> Scheduler {
    Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap()
}

fn request() -> Request {
    Request::tokens("gpt-4o", 100, 100)
}

#[derive(Debug)]
struct Failed;

/// A provider that lets so many requests pass in any second and says `slow_down` to the rest.
#[derive(Clone, Default)]
struct Provider {
    seen: Arc<Mutex<(VecDeque<Instant>, Vec<Instant>)>>,
}

impl Provider {
    async fn call(self, attempt: Attempt, bears: usize) -> Result<(), Failed> {
        let now = Instant::now();
        let well = {
            let (lately, refused) = &mut *self.seen.lock().unwrap();
            while lately.front().is_some_and(|at| now - *at >= SECOND) {
                lately.pop_front();
            }
            let well = lately.len() < bears;
            if well {
                lately.push_back(now)
            } else {
                refused.push(now)
            }
            well
        };
        tokio::time::sleep(Duration::from_millis(500)).await;
        attempt.answer(if well { 200 } else { 429 }, &HeaderMap::new());
        if well {
            return Ok(());
        }
        attempt.error_body(SLOW_DOWN.as_bytes());
        Err(Failed)
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_down_brings_the_lane_to_its_last_good_rate_and_loses_no_request() {
    let scheduler = scheduler(Limits { rpm: Some(60_000), ..Limits::default() });
    let provider = Provider::default();
    let work = |number: u32| {
        let (scheduler, provider) = (scheduler.clone(), provider.clone());
        tokio::spawn(async move {
            tokio::time::sleep(number * Duration::from_millis(100)).await;
            scheduler.submit(request(), |attempt| provider.clone().call(attempt, 20)).await
        })
    };
    // Ten a second for a minute, and then everybody at once.
    let mut tasks: Vec<_> = (0..600).map(work).collect();
    tasks.extend((0..300).map(|_| work(600)));
    tokio::time::sleep(62 * SECOND).await;
    let status = scheduler.lane_of("gpt-4o").status;
    let ceiling = status.ceiling.expect("the provider has complained");
    assert!((550..=700).contains(&ceiling.per_minute), "{ceiling:?}");
    assert!(ceiling.held_for > 14 * 60 * SECOND, "{ceiling:?}");
    let waiter = scheduler.enqueue(request()).await.unwrap();
    let told = waiter.explain().unwrap();
    assert_eq!(told.held_by, Some(Hold::Ceiling));
    let start = Instant::now();
    drop(waiter.await.unwrap());
    assert!(start.elapsed().abs_diff(told.starts_in) < SECOND, "{:?} for {told:?}", start.elapsed());
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let refused = provider.seen.lock().unwrap().1.clone();
    let late = refused.iter().filter(|at| **at > refused[0] + SECOND).count();
    assert!(late == 0, "{late} of {} refused after the cut", refused.len());
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_never_went_well_sends_one_a_second_and_no_less() {
    let scheduler = scheduler(Limits::default());
    let bears = Arc::new(Mutex::new(0));
    let provider = Provider::default();
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let (scheduler, provider, bears) = (scheduler.clone(), provider.clone(), bears.clone());
            tokio::spawn(async move {
                let call = |attempt| provider.clone().call(attempt, *bears.lock().unwrap());
                scheduler.submit(request(), call).await
            })
        })
        .collect();
    tokio::time::sleep(SECOND).await;
    *bears.lock().unwrap() = 1_000;
    let start = Instant::now();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert!(start.elapsed() < 21 * SECOND, "{:?}", start.elapsed());
    assert!(scheduler.lane_of("gpt-4o").status.ceiling.is_some());
}

/// 1,500 requests of an account of 500 requests and 300,000 tokens a minute, and a provider that says `slow_down` at some
/// times: when all are answered, and when it said so.
async fn play(refuses: impl FnMut(Duration) -> bool + Send + 'static) -> (Duration, Vec<Duration>) {
    let scheduler = scheduler(Limits { rpm: Some(500), tpm: Some(300_000), ..Limits::default() });
    let start = Instant::now();
    let provider = Arc::new(Mutex::new((refuses, Vec::new())));
    let tasks: Vec<_> = (0..1_500)
        .map(|number| {
            let (scheduler, provider) = (scheduler.clone(), provider.clone());
            let size = 100 + number * 7_919 % 1_500;
            tokio::spawn(async move {
                let call = |attempt: Attempt| {
                    let provider = provider.clone();
                    async move {
                        let well = {
                            let (refuses, refused) = &mut *provider.lock().unwrap();
                            let refuse = refuses(start.elapsed());
                            refused.extend(refuse.then(|| start.elapsed()));
                            !refuse
                        };
                        if well {
                            tokio::time::sleep(Duration::from_millis(800)).await;
                            return Ok(());
                        }
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        attempt.answer(429, &HeaderMap::new());
                        attempt.error_body(SLOW_DOWN.as_bytes());
                        Err(Failed)
                    }
                };
                scheduler.submit(Request::tokens("gpt-4o", size, 100), call).await
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let refused = provider.lock().unwrap().1.clone();
    let counters = scheduler.lane_of("gpt-4o").counters;
    assert_eq!((counters.rate_limited, counters.failed), (refused.len() as u64, 0), "every 429 counts as one");
    (start.elapsed(), refused)
}

#[tokio::test(start_paused = true)]
async fn an_episode_of_two_seconds_costs_a_handful_of_refusals_and_a_few_seconds() {
    let (quiet, _) = play(|_| false).await;
    let cases: [&[(u32, u32)]; 3] = [&[(10, 12)], &[(100, 102)], &[(20, 22), (90, 92), (160, 162)]];
    for spells in cases {
        let within = |now, (from, to): &(u32, u32)| (*from * SECOND..*to * SECOND).contains(&now);
        let (took, refused) = play(move |now| spells.iter().any(|spell| within(now, spell))).await;
        assert!(refused.len() <= 5 * spells.len(), "{refused:?} in {spells:?}");
        let most = quiet + spells.len() as u32 * 5 * SECOND;
        assert!(took < most, "{took:?} with {spells:?}, and {quiet:?} without");
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_comes_to_bear_a_tenth_is_found_within_a_minute_and_loses_no_request() {
    let mut next = Duration::ZERO;
    let (took, refused) = play(move |now| {
        let refuse = now >= 10 * SECOND && now < next;
        if !refuse {
            next = now + Duration::from_millis(1_800);
        }
        refuse
    })
    .await;
    let later = refused.iter().filter(|at| **at > 70 * SECOND).count();
    assert!(refused.len() < 30 && later < 5, "{refused:?}");
    // 370 go before, and the others in 1.8 s each.
    assert!(took < 2_300 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn concurrency_adapts_to_a_server_that_queues() {
    let scheduler = scheduler(Limits { adaptive_concurrency: Some(true), ..Limits::default() });
    let slots = Arc::new(tokio::sync::Semaphore::new(8));
    let start = Instant::now();
    let tasks: Vec<_> = (0..2_000)
        .map(|_| {
            let (scheduler, slots) = (scheduler.clone(), slots.clone());
            tokio::spawn(async move {
                let call = |_| async {
                    let _slot = slots.acquire().await.unwrap();
                    tokio::time::sleep(SECOND).await;
                    Ok::<_, Failed>(())
                };
                scheduler.submit(request(), call).await
            })
        })
        .collect();
    tokio::time::sleep(60 * SECOND).await;
    let status = scheduler.lane_of("gpt-4o").status;
    assert!((8..=18).contains(&status.max_in_flight.unwrap()), "{:?}", status.max_in_flight);
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let ideal = 2_000.0 / 8.0;
    assert!(start.elapsed().as_secs_f64() < 1.08 * ideal, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_free_place_is_foretold_from_how_answers_came_lately() {
    let scheduler = scheduler(Limits { max_concurrent: Some(4), ..Limits::default() });
    let call = |_| async {
        tokio::time::sleep(2 * SECOND).await;
        Ok::<_, Failed>(())
    };
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let scheduler = scheduler.clone();
            tokio::spawn(async move { scheduler.submit(request(), call).await })
        })
        .collect();
    tokio::time::sleep(21 * SECOND).await;
    let waiter = scheduler.enqueue(request()).await.unwrap();
    let told = waiter.explain().unwrap();
    // One went ahead to see what limits its answer tells, and then four at a time.
    assert_eq!((told.held_by, told.ahead), (Some(Hold::Concurrency), 59));
    let start = Instant::now();
    drop(waiter.await.unwrap());
    let error = start.elapsed().abs_diff(told.starts_in).as_secs_f64() / start.elapsed().as_secs_f64();
    assert!(error < 0.1, "{told:?}, and it took {:?}", start.elapsed());
    for task in tasks {
        task.await.unwrap().unwrap();
    }
}
