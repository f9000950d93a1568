//! What is told, and how often. All in virtual time.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use http::HeaderMap;
use tollgate::{Account, Attempt, Class, Event, Limit, Limits, Request, Scheduler, WatchConfig};

const SECOND: Duration = Duration::from_secs(1);

type Events = Arc<Mutex<Vec<Event>>>;

fn noted() -> (Scheduler, Events) {
    noted_with(Limits { tpm: Some(60_000), ..Limits::default() }, WatchConfig::default())
}

fn noted_with(limits: Limits, watch: WatchConfig) -> (Scheduler, Events) {
    let events = Events::default();
    let account = Account::openai().limits(limits);
    let told: Arc<OnceLock<Scheduler>> = Arc::default();
    let builder = Scheduler::builder().account(account).watch(watch).on_event({
        let (events, told) = (events.clone(), told.clone());
        move |event| {
            // Looks at every lane, which would wait forever for one that is locked.
            told.get().unwrap().snapshot();
            events.lock().unwrap().push(event.clone());
        }
    });
    let scheduler = builder.build().unwrap();
    told.set(scheduler.clone()).unwrap();
    (scheduler, events)
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
    let line = "account openai: the provider is failing for gpt-4o (overloaded); requests wait or go elsewhere";
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

async fn well(attempt: Attempt) -> Result<(), ()> {
    attempt.answer(200, &HeaderMap::new());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_day_limit_is_told_once_when_80_percent_are_used_and_once_when_it_is_used_up() {
    let limits = Limits { tpd: Some(100_000), ..Limits::default() };
    let (scheduler, events) = noted_with(limits, WatchConfig::default());
    let mut told = Vec::new();
    for row in 1..=150 {
        scheduler.submit(Request::tokens("gpt-4o", 1_000, 0), well).await.unwrap();
        for event in events.lock().unwrap().drain(..) {
            told.push((row, event));
        }
    }
    let used = |percent, used| Event::BudgetUsed {
        account: "openai".to_owned(),
        pool: "gpt-4o".to_owned(),
        limit: Limit::tpd(100_000),
        percent,
        used,
    };
    // The last one has to wait for the margin that is kept back; then the bucket stays near its end.
    assert_eq!(told, [(80, used(80, 80_000)), (100, used(100, 99_000))]);
    // Seven hours later it has filled by 29 %, then all of it is used again.
    tokio::time::sleep(SECOND * 3_600 * 7).await;
    for _ in 0..40 {
        scheduler.submit(Request::tokens("gpt-4o", 1_000, 0), well).await.unwrap();
    }
    let events = events.lock().unwrap();
    assert!(matches!(&events[..], [Event::BudgetUsed { percent: 100, .. }]), "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_told_once_when_it_is_too_long_and_once_when_it_is_short_again() {
    let limits = Limits { rpm: Some(60), ..Limits::default() };
    let (scheduler, events) = noted_with(limits, WatchConfig { queue_alert: Some(20), ..WatchConfig::default() });
    for _ in 0..2 {
        let rows: Vec<_> = (0..150)
            .map(|_| {
                let scheduler = scheduler.clone();
                tokio::spawn(async move { scheduler.submit(request(), well).await })
            })
            .collect();
        for row in rows {
            row.await.unwrap().unwrap();
        }
    }
    let events = events.lock().unwrap();
    let waiting: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::QueueLong { waiting, .. } => ("long", *waiting),
            Event::QueueShort { waiting, .. } => ("short", *waiting),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(waiting, [("long", 21), ("short", 10), ("long", 21), ("short", 10)]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_is_told_to_be_short_when_everybody_in_it_was_refused() {
    let limits = Limits { tpm: Some(6_000), ..Limits::default() };
    let (scheduler, events) = noted_with(limits, WatchConfig { queue_alert: Some(20), ..WatchConfig::default() });
    let rows: Vec<_> = (0..30)
        .map(|_| {
            let scheduler = scheduler.clone();
            tokio::spawn(async move { scheduler.submit(Request::tokens("gpt-4o", 6_000, 0), well).await })
        })
        .collect();
    tokio::time::sleep(SECOND).await;
    scheduler.set_limits("gpt-4o", [Limit::tpm(5_000)]);
    let mut refused = 0;
    for row in rows {
        refused += u64::from(row.await.unwrap().is_err());
    }
    let events = events.lock().unwrap();
    assert_eq!(refused, 29);
    assert!(
        matches!(&events[..], [Event::QueueLong { waiting: 21, .. }, Event::QueueShort { waiting: 0, .. }]),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_looks_for_a_better_lane_is_not_short_meanwhile() {
    let events = Events::default();
    let limits = Limits { rpm: Some(60), ..Limits::default() };
    let account = |name: &str| Account::openai().named(name).key("sk-1").limits(limits);
    let builder = Scheduler::builder().account(account("a")).account(account("b")).on_event({
        let events = events.clone();
        move |event| events.lock().unwrap().push(event.clone())
    });
    let scheduler = builder.watch(WatchConfig { queue_alert: Some(20), ..WatchConfig::default() }).build().unwrap();
    let start = tokio::time::Instant::now();
    let rows: Vec<_> = (0..400)
        .map(|_| {
            let scheduler = scheduler.clone();
            tokio::spawn(async move {
                let call = |attempt: Attempt| async move {
                    // Account a fails for a while, and those who wait for either look for the better one each time.
                    let out = attempt.target().account() == "a" && (20..40).contains(&start.elapsed().as_secs());
                    attempt.answer(if out { 503 } else { 200 }, &HeaderMap::new());
                    if out { Err(()) } else { Ok(()) }
                };
                scheduler.submit(request(), call).await
            })
        })
        .collect();
    for row in rows {
        row.await.unwrap().unwrap();
    }
    let events = events.lock().unwrap();
    assert!(events.iter().any(|event| matches!(event, Event::Recovered { .. })), "{events:?}");
    let long = |event: &&Event| matches!(event, Event::QueueLong { account, .. } if account == "b");
    let short = |event: &&Event| matches!(event, Event::QueueShort { account, .. } if account == "b");
    assert_eq!((events.iter().filter(long).count(), events.iter().filter(short).count()), (1, 1), "{events:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_panics_leaves_nothing_open_and_the_next_one_is_told() {
    let told = Arc::new(Mutex::new(0));
    let limits = Limits { tpm: Some(600), ..Limits::default() };
    let builder = Scheduler::builder().on_event(|event| panic!("as meant: {event}")).on_event({
        let told = told.clone();
        move |_| *told.lock().unwrap() += 1
    });
    let watch = WatchConfig { queue_alert: Some(1), ..WatchConfig::default() };
    let account = |name| Account::openai().named(name).limits(limits).key("k");
    let scheduler = builder.account(account("a")).account(account("b")).watch(watch).build().unwrap();
    let rows: Vec<_> = (0..20)
        .map(|_| {
            let scheduler = scheduler.clone();
            tokio::spawn(async move {
                let call = |attempt: Attempt| async move {
                    let refused = attempt.account() == "a" && attempt.number() == 1;
                    attempt.answer(if refused { 401 } else { 200 }, &HeaderMap::new());
                    if refused { Err("revoked") } else { Ok(()) }
                };
                scheduler.submit(Request::tokens("gpt-4o", 100, 0), call).await
            })
        })
        .collect();
    for row in rows {
        row.await.expect("nobody panics").unwrap();
    }
    scheduler.drain().await;
    let lanes = scheduler.snapshot().lanes;
    assert!(lanes.iter().all(|lane| (lane.status.in_flight, lane.status.waiting) == (0, 0)), "{lanes:?}");
    assert!(*told.lock().unwrap() >= 2, "a key left, and a queue was long");
}

#[test]
fn an_event_is_json_with_its_name_and_without_a_key() {
    let body = br#"{"error": {"message": "Incorrect API key provided: sk-canary-0123456789abcdef", "code": "invalid_api_key"}}"#;
    let failure = tollgate::providers::classify(tollgate::Provider::Openai, 401, &Default::default(), body);
    let event = Event::KeyLeft { account: "team".to_owned(), key: 0, keys_left: 1, failure };
    let json = serde_json::to_value(&event).unwrap();
    assert_eq!((&json["type"], &json["data"]["account"]), (&"key_left".into(), &"team".into()));
    assert_eq!(json["data"]["failure"]["class"], "unauthorized");
    assert!(!format!("{json} {event} {event:?}").contains("canary"));
}
