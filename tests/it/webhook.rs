//! Events that are posted. On the real clock, since sockets do not stop with a paused one.

use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use http::HeaderMap;
use serde_json::Value;
use sha2::Sha256;
use tollgate::{Account, Attempt, Config, Key, Request, RetryPolicy, Scheduler, WatchConfig, WebhookConfig};

use super::receiver::{Receiver, Seen};

const CANARY: &str = "canary-0123456789abcdef";
/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(20);

fn scheduler(receiver: &Receiver, attempts: u32) -> Scheduler {
    let fast = Duration::from_millis(20);
    let webhook = WebhookConfig {
        url: receiver.url().into(),
        secret: Key::Value(CANARY.into()),
        retry: RetryPolicy { max_attempts: attempts, base: fast, cap: fast },
    };
    let account = Account::openai().key("sk-1").key("sk-2");
    let watch = WatchConfig { webhook: Some(webhook), ..WatchConfig::default() };
    Scheduler::builder().account(account).watch(watch).build().unwrap()
}

/// Loses a key and gets it back: two events.
async fn lose_a_key(scheduler: &Scheduler) {
    let call = |attempt: Attempt| async move {
        let refused = attempt.key().unwrap().expose() == "sk-1";
        attempt.answer(if refused { 401 } else { 200 }, &HeaderMap::new());
        if refused { Err(()) } else { Ok(()) }
    };
    for _ in 0..2 {
        scheduler.submit(Request::tokens("gpt-4o", 1, 1), call).await.unwrap();
    }
    scheduler.restore("openai").unwrap();
}

fn ids(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|seen| seen.header("webhook-id").unwrap()).collect()
}

#[tokio::test]
async fn every_event_is_posted_once_in_order_and_signed() {
    let receiver = Receiver::ok();
    let scheduler = scheduler(&receiver, 6);
    lose_a_key(&scheduler).await;
    let stats = scheduler.flush_webhook(PATIENCE).await;
    assert_eq!((stats.delivered, stats.failed, stats.dropped, stats.waiting), (2, 0, 0, 0));
    let seen = receiver.seen();
    let bodies: Vec<Value> = seen.iter().map(|seen| serde_json::from_slice(&seen.body).unwrap()).collect();
    let types: Vec<_> = bodies.iter().map(|body| body["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["key_left", "key_returned"]);
    assert_eq!(bodies[0]["data"]["failure"]["status"], 401);
    assert_eq!(bodies[1]["message"], "account openai: key 0 is used again");
    assert!(bodies[0]["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    for (seen, body) in seen.iter().zip(&bodies) {
        let [id, time, signature] =
            ["id", "timestamp", "signature"].map(|name| seen.header(&format!("webhook-{name}")).unwrap());
        assert_eq!(body["id"], id);
        let mut mac = Hmac::<Sha256>::new_from_slice(CANARY.as_bytes()).unwrap();
        mac.update(format!("{id}.{time}.").as_bytes());
        mac.update(&seen.body);
        assert_eq!(signature, format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes())));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(time.parse().unwrap()) < 60);
    }
    let ids = ids(&seen);
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn an_event_that_is_not_taken_is_sent_again_under_the_same_id_and_before_the_next() {
    let receiver =
        Receiver::start(|_, before| Some((if before < 2 { 503 } else { 200 }, String::new(), String::new())));
    let scheduler = scheduler(&receiver, 3);
    lose_a_key(&scheduler).await;
    let stats = scheduler.flush_webhook(PATIENCE).await;
    assert_eq!((stats.delivered, stats.failed), (2, 0));
    let seen = receiver.seen();
    let ids = ids(&seen);
    assert_eq!((ids.len(), ids[0] == ids[1], ids[1] == ids[2], ids[2] == ids[3]), (4, true, true, false));
}

#[tokio::test]
async fn attempts_end_redirects_are_not_followed_and_a_receiver_that_is_gone_is_not_asked_again() {
    let receiver = Receiver::start(|_, before| {
        let moved = (307, "location: /elsewhere\r\n".to_owned(), String::new());
        Some(if before < 3 { moved } else { (410, String::new(), String::new()) })
    });
    let scheduler = scheduler(&receiver, 3);
    lose_a_key(&scheduler).await;
    let stats = scheduler.flush_webhook(PATIENCE).await;
    assert_eq!((stats.delivered, stats.failed, stats.waiting), (0, 2, 0));
    let seen = receiver.seen();
    assert!(seen.len() == 4 && seen.iter().all(|seen| seen.path == "/hook"), "{seen:?}");
}

#[tokio::test]
async fn a_receiver_that_hangs_holds_up_no_request_and_the_end_is_not_waited_for_without_bound() {
    let receiver = Receiver::start(|_, _| None);
    let scheduler = scheduler(&receiver, 6);
    let begun = Instant::now();
    lose_a_key(&scheduler).await;
    let stats = scheduler.flush_webhook(Duration::from_millis(100)).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "an attempt takes ten");
    assert_eq!((stats.delivered, stats.waiting), (0, 2));
}

#[test]
fn events_told_where_no_runtime_is_are_posted_by_the_next_one() {
    let receiver = Receiver::ok();
    let scheduler = scheduler(&receiver, 6);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The first one ends with the event in hand or not yet begun.
    runtime().block_on(lose_a_key(&scheduler));
    let stats = runtime().block_on(scheduler.flush_webhook(PATIENCE));
    assert_eq!((stats.delivered, stats.waiting), (2, 0));
}

#[test]
fn neither_the_secret_nor_the_address_is_shown() {
    let receiver = Receiver::ok();
    let scheduler = scheduler(&receiver, 6);
    let build = |text: &str| Scheduler::from_config(Config::from_toml(text).unwrap());
    let config = Config::from_toml(&format!(
        "[watch.webhook]\nurl = \"https://example.com/{CANARY}\"\nsecret_env = \"TOLLGATE_TEST_UNSET\""
    ));
    let shown = [
        format!("{scheduler:?} {config:?}"),
        format!("{:?}", Scheduler::builder().webhook(format!("https://example.com/{CANARY}"), CANARY)),
        format!("{:?}", Scheduler::builder().webhook(CANARY, CANARY).build().unwrap_err()),
        format!("{:?}", Scheduler::builder().webhook("http://a", format!("whsec_{CANARY}")).build().unwrap_err()),
        Config::from_toml(&format!("[watch.webhook]\nurl = \"{CANARY}\"")).unwrap_err().to_string(),
    ];
    for text in shown {
        assert!(!text.contains("canary"), "{text}");
    }
    let error = build("[watch.webhook]\nurl = \"http://a\"\nsecret_env = \"TOLLGATE_TEST_UNSET\"").unwrap_err();
    assert!(error.to_string().starts_with("the environment variable TOLLGATE_TEST_UNSET is not set"), "{error}");
}
