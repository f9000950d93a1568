//! A key is shown to the provider and to nobody else.

use std::sync::{Arc, Mutex};

use serde_json::json;
use tollgate::{Account, Attempt, Config, Request, Scheduler};

const CANARY: &str = "sk-canary-0123456789abcdef";

#[tokio::test]
async fn a_key_shows_in_no_debug_output() {
    let account = Account::openai().key(CANARY);
    let config = Config::from_toml(&format!("[[account]]\nkeys = [\"{CANARY}\"]")).unwrap();
    let scheduler = Scheduler::builder().account(account.clone()).build().unwrap();
    let call = |attempt: Attempt| async move {
        assert_eq!(attempt.key().unwrap().expose(), CANARY, "the call itself has it");
        Ok::<_, std::io::Error>(format!("{attempt:?}"))
    };
    let attempt = scheduler.submit(Request::tokens("m", 1, 1), call).await.unwrap();
    let permit = scheduler.acquire(Request::tokens("m", 1, 1)).await.unwrap();
    let shown = [
        attempt,
        format!("{account:?} {config:?} {scheduler:?} {permit:?} {:?}", Scheduler::builder().account(account.clone())),
        serde_json::to_string(&scheduler.snapshot()).unwrap(),
    ];
    for text in shown {
        assert!(!text.contains("canary"), "{text}");
    }
}

#[tokio::test]
async fn what_may_be_a_secret_in_an_address_shows_in_no_debug_output() {
    let url = "https://me:canary@gateway.example/canary/v1?key=canary";
    let text = format!("[[account]]\nbase_url = \"{url}\"\n[watch.status_urls]\nopenai = \"{url}\"");
    let config = Config::from_toml(if cfg!(feature = "client") { &text } else { text.split("[watch").next().unwrap() });
    let config = config.unwrap();
    let scheduler = Scheduler::from_config(config.clone()).unwrap();
    let permit = scheduler.acquire(Request::tokens("m", 1, 1)).await.unwrap();
    let builder = Scheduler::builder().account(config.accounts[0].clone());
    let shown = format!("{config:?} {:?} {scheduler:?} {permit:?} {builder:?}", config.accounts[0]);
    assert!(shown.contains("https://gateway.example") && !shown.contains("canary"), "{shown}");
}

#[test]
fn a_broken_configuration_does_not_quote_its_keys_and_names_the_place() {
    for line in
        ["keys = [{ env = 1, oops = \"CANARY\" }]", "keys = \"CANARY\"", "keys = [\"CANARY\", 5]", "keys = [\"CANARY"]
    {
        let text = format!("[[account]]\n{}", line.replace("CANARY", CANARY));
        let error = Config::from_toml(&text).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("configuration:2:"), "{shown}");
    }
}

/// Keys of every kind: with a prefix that is known, long, short, and with what ends a word.
const KEYS: [&str; 4] = [CANARY, "canary0123456789abcdef0123456789", "canary.short", "canary pass/phrase"];

/// An error that shows a key wherever it can.
fn careless(key: &str) -> String {
    json!({"request_id": key, "error": {"message": format!("{}{key} is wrong, {key}.", "x ".repeat(245)), "type": key,
        "code": key, "status": key, "innererror": {"code": key}}})
    .to_string()
}

/// What was told of a scheduler's events.
type Told = Arc<Mutex<String>>;

fn watched(account: Account) -> (Scheduler, Told) {
    let told = Told::default();
    let heard = told.clone();
    let scheduler = Scheduler::builder().account(account).on_event(move |event| {
        *heard.lock().unwrap() += &format!("{event} {event:?} {}", serde_json::to_string(event).unwrap());
    });
    (scheduler.build().unwrap(), told)
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(format!("{error} {error:?}"), |text, cause| format!("{text} {cause} {cause:?}"))
}

#[tokio::test]
async fn a_key_that_the_provider_sends_back_shows_in_no_error_and_no_event() {
    for key in KEYS {
        for (status, id, place) in [(401, key, "/v1"), (402, key, "/v1"), (302, "req_1", key), (200, "", "")] {
            let (scheduler, told) = watched(Account::openai().key(key));
            let mut headers = http::HeaderMap::new();
            headers.insert("x-request-id", id.parse().unwrap());
            headers.insert("location", format!("https://me:canary@a.example/{place}?key={key}").parse().unwrap());
            let call = |attempt: Attempt| {
                attempt.answer(status, &headers);
                attempt.error_body(careless(key).as_bytes());
                std::future::ready(Err::<(), _>(std::io::Error::other("refused")))
            };
            let request = || Request::tokens("m", 1, 1).max_wait(std::time::Duration::ZERO);
            let error = scheduler.submit(request(), call).await.unwrap_err();
            let mut shown = chain(&error) + &format!("{:?} {}", error.failure(), error.failure().unwrap());
            if let Ok(permit) = scheduler.acquire(request()).await {
                let failure = permit.failed(status, &headers, careless(key).as_bytes());
                shown += &format!("{failure} {failure:?} {}", serde_json::to_string(&failure).unwrap());
            }
            shown += &told.lock().unwrap();
            assert!(shown.contains("***") && !shown.contains("canary"), "{key} {status}: {shown}");
            let retired = matches!(status, 401 | 402);
            assert_eq!(retired, told.lock().unwrap().contains("left the rotation"), "{status}: {shown}");
        }
    }
}

#[cfg(feature = "client")]
#[tokio::test]
async fn a_key_that_comes_back_in_a_stream_or_a_good_answer_shows_nowhere() {
    for key in KEYS {
        let good = crate::raw::whole(&format!("200 OK\r\nx-request-id: {key}\r\n"), "{}");
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        let url = crate::raw::answering([good, format!("{head}data: {}", careless(key))]);
        let (scheduler, told) = watched(Account::openai().key(key).base_url(url));
        let body = json!({"model": "m", "messages": [], "max_tokens": 5});
        let reply = scheduler.chat(&body).await.unwrap();
        let mut stream = scheduler.chat_stream(&body).await.unwrap();
        let error = stream.next().await.unwrap().unwrap_err();
        let shown = format!("{reply:?} {} {}", chain(&error), told.lock().unwrap());
        assert!(shown.contains("***") && !shown.contains("canary"), "{key}: {shown}");
    }
}
