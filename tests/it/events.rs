//! What is told, and how often. All in virtual time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderMap;
use tollgate::{Account, Attempt, Class, Event, Limit, Limits, Request, Scheduler};

const SECOND: Duration = Duration::from_secs(1);

type Events = Arc<Mutex<Vec<Event>>>;

fn noted() -> (Scheduler, Events) {
    let events = Events::default();
    let account = Account::openai().limits(Limits { tpm: Some(60_000), ..Limits::default() });
    let builder = Scheduler::builder().account(account).on_event({
        let events = events.clone();
        move |event| events.lock().unwrap().push(event.clone())
    });
    (builder.build().unwrap(), events)
}

fn request() -> Request {
    Request::tokens("gpt-4o", 10, 0)
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_when_it_is_noticed_and_once_when_it_is_over() {
    let (scheduler, events) = noted();
    let start = tokio::time::Instant::now();
    let rows: Vec<_> = (0..100)
        .map(|row| {
            let scheduler = scheduler.clone();
            tokio::spawn(async move {
                tokio::time::sleep(SECOND / 10 * row).await;
                let call = |attempt: Attempt| async move {
                    let out = (2..12).contains(&start.elapsed().as_secs());
                    attempt.answer(if out { 503 } else { 200 }, &HeaderMap::new());
                    if out { Err("away") } else { Ok(()) }
                };
                scheduler.submit(request(), call).await
            })
        })
        .collect();
    for row in rows {
        row.await.unwrap().unwrap();
    }
    let events = events.lock().unwrap();
    let [Event::Opened { account, pool, last }, Event::Recovered { after, .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!((account.as_str(), pool.as_str(), *last), ("openai", "gpt-4o", Class::Overloaded));
    assert!((9 * SECOND..15 * SECOND).contains(after), "{after:?}");
    let line = "account openai: the provider is failing for gpt-4o (Overloaded); requests wait or go elsewhere";
    assert_eq!(events[0].to_string(), line);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_the_provider_shows_is_told_once_for_each_change() {
    let (scheduler, events) = noted();
    let call = |tpm: u64| {
        let headers = [
            ("x-ratelimit-limit-tokens", tpm.to_string()),
            ("x-ratelimit-remaining-tokens", (tpm - 10).to_string()),
            ("x-ratelimit-reset-tokens", "20ms".to_owned()),
        ];
        let headers: HeaderMap =
            headers.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        move |attempt: Attempt| {
            attempt.answer(200, &headers);
            std::future::ready(Ok::<_, ()>(()))
        }
    };
    for tpm in [60_000, 30_000, 30_000, 20_000] {
        scheduler.submit(request(), call(tpm)).await.unwrap();
    }
    let lowered = |before, now| Event::LimitChanged {
        account: "openai".to_owned(),
        pool: "gpt-4o".to_owned(),
        before: Some(Limit::tpm(before)),
        now: Limit::tpm(now),
    };
    assert_eq!(*events.lock().unwrap(), [lowered(60_000, 30_000), lowered(30_000, 20_000)]);
}
