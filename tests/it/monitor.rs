//! Status pages that are watched. On the real clock, since sockets do not stop with a paused one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::HeaderMap;
use serde_json::json;
use tollgate::providers::Indicator;
use tollgate::{Account, Attempt, Event, Provider, Request, RetryPolicy, Scheduler, WatchConfig};

use super::receiver::Receiver;

const INTERVAL: Duration = Duration::from_millis(30);

/// A page that says what it is told to, with a version.
fn page(incident: &Arc<Mutex<Option<&'static str>>>) -> Receiver {
    let incident = incident.clone();
    Receiver::start(move |seen, _| {
        let incident = *incident.lock().unwrap();
        let etag = format!("\"{}\"", incident.unwrap_or("calm"));
        if seen.header("if-none-match") == Some(&etag) {
            return Some((304, String::new(), String::new()));
        }
        let component = json!({"name": "Chat Completions", "status": if incident.is_some() { "major_outage" } else { "operational" }});
        let incidents: Vec<_> =
            incident.iter().map(|name| json!({"name": name, "status": "investigating", "impact": "major"})).collect();
        let body = json!({"status": {"indicator": "none"}, "components": [component], "incidents": incidents});
        Some((200, format!("etag: {etag}\r\n"), body.to_string()))
    })
}

fn watching(page: &Receiver) -> (Scheduler, Arc<Mutex<Vec<Event>>>) {
    let events: Arc<Mutex<Vec<Event>>> = Arc::default();
    let noted = events.clone();
    let watch = WatchConfig {
        status_pages: true,
        status_interval: INTERVAL,
        status_urls: BTreeMap::from([(Provider::Openai, page.url())]),
        ..WatchConfig::default()
    };
    let builder = Scheduler::builder().account(Account::openai()).watch(watch);
    let builder = builder.on_event(move |event| noted.lock().unwrap().push(event.clone()));
    (builder.retry(RetryPolicy { max_attempts: 1, ..RetryPolicy::default() }).build().unwrap(), events)
}

/// Waits until it is so, for a while that nothing takes here.
async fn until(so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "waited too long");
        tokio::time::sleep(INTERVAL / 3).await;
    }
}

#[tokio::test]
async fn an_incident_is_told_once_at_each_end_with_whether_our_own_calls_fail() {
    let incident = Arc::new(Mutex::new(None));
    let page = page(&incident);
    let (scheduler, events) = watching(&page);
    for _ in 0..5 {
        let call = |attempt: Attempt| async move {
            attempt.answer(503, &HeaderMap::new());
            Err::<(), _>(())
        };
        scheduler.submit(Request::tokens("gpt-4o", 1, 1), call).await.unwrap_err();
    }
    until(|| page.seen().len() > 2).await;
    assert!(matches!(&events.lock().unwrap()[..], [Event::Opened { .. }]), "a page that reports nothing is not told");
    *incident.lock().unwrap() = Some("Elevated errors");
    until(|| events.lock().unwrap().len() > 1).await;
    let looks = page.seen().len();
    until(|| page.seen().len() > looks + 3).await;
    *incident.lock().unwrap() = None;
    until(|| events.lock().unwrap().len() > 2).await;
    let events = events.lock().unwrap();
    let (title, failing) = (Some("Elevated errors".to_owned()), vec!["openai/gpt-4o".to_owned()]);
    let components = vec!["Chat Completions".to_owned()];
    let (provider, impact) = (Provider::Openai, Indicator::Major);
    let began = Event::IncidentBegan { provider, incident: title.clone(), impact, components, failing };
    assert_eq!(events[1], began);
    assert_eq!(
        events[1].to_string(),
        "openai reports “Elevated errors” (major, Chat Completions); our own calls fail: openai/gpt-4o"
    );
    assert!(matches!(&events[2..], [Event::IncidentEnded { incident, .. }] if *incident == title), "{events:?}");
    // The page is read when it changed, and asked after otherwise.
    let seen = page.seen();
    assert!(
        seen[0].header("if-none-match").is_none()
            && seen[1..].iter().all(|seen| seen.header("if-none-match").is_some())
    );
}

#[tokio::test]
async fn a_page_that_cannot_be_read_changes_nothing() {
    for answer in [(500, ""), (200, "<html>"), (200, "too long")] {
        let page = Receiver::start(move |_, before| {
            let trouble = json!({"status": {"indicator": "major"}, "incidents": [{"name": "A"}], "components": []});
            let body = if answer.1 == "too long" { " ".repeat(2 << 20) } else { answer.1.to_owned() };
            Some(if before == 0 { (200, String::new(), trouble.to_string()) } else { (answer.0, String::new(), body) })
        });
        let (_scheduler, events) = watching(&page);
        until(|| page.seen().len() > 4).await;
        let events = events.lock().unwrap();
        assert!(matches!(&events[..], [Event::IncidentBegan { .. }]), "{events:?}");
    }
}

#[tokio::test]
async fn nobody_looks_unless_asked_and_not_after_the_scheduler_is_gone() {
    let page = page(&Arc::default());
    let watch = WatchConfig { status_urls: BTreeMap::from([(Provider::Openai, page.url())]), ..WatchConfig::default() };
    let quiet = Scheduler::builder().account(Account::openai()).watch(watch).build().unwrap();
    tokio::time::sleep(INTERVAL * 4).await;
    assert_eq!(page.seen().len(), 0);
    drop(quiet);
    let (scheduler, _) = watching(&page);
    until(|| page.seen().len() > 2).await;
    drop(scheduler);
    tokio::time::sleep(INTERVAL * 2).await;
    let seen = page.seen().len();
    tokio::time::sleep(INTERVAL * 5).await;
    assert_eq!(page.seen().len(), seen);
}

#[test]
fn without_a_runtime_it_says_what_to_do() {
    let watch = WatchConfig { status_pages: true, ..WatchConfig::default() };
    let error = Scheduler::builder().account(Account::openai()).watch(watch).build().unwrap_err();
    assert!(error.to_string().contains("inside a tokio runtime"), "{error}");
}
