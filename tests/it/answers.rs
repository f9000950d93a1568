//! Answers that are not what they should be, and what is said of them.

use std::error::Error as _;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate::{Account, Class, Config, Limits, Request, RetryPolicy, Scheduler};

use crate::raw;

const JSON: &str = "200 OK\r\ncontent-type: application/json\r\n";
const GOOD: &str = r#"{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
const RATE_LIMITED: &str = r#"{"error":{"message":"Rate limit reached. Please try again in 40ms.","type":"requests","code":"rate_limit_exceeded"}}"#;

fn chat() -> Value {
    json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20})
}

fn scheduler(url: &str, max_attempts: u32) -> Scheduler {
    let limits = Limits { tpm: Some(100_000), ..Limits::default() };
    let config = Config {
        accounts: vec![Account::openai().key("sk-x").base_url(url).limits(limits)],
        retry: RetryPolicy { max_attempts, base: Duration::from_millis(10), cap: Duration::from_millis(20) },
        byte_timeout: Duration::from_millis(300),
        ..Config::default()
    };
    Scheduler::from_config(config).unwrap()
}

fn used(scheduler: &Scheduler) -> u64 {
    scheduler.lane_of("gpt-4o").status.used.tokens
}

#[tokio::test]
async fn a_redirect_is_an_error_that_says_where_to_and_is_not_tried_again() {
    for (head, told) in [
        (
            "302 Found\r\nlocation: https://me:canary@elsewhere.example/v1?key=canary\r\n",
            "https://elsewhere.example/v1",
        ),
        ("307 Temporary Redirect\r\nlocation: //me:canary@elsewhere.example\r\n", "redirects to //elsewhere.example ("),
        ("308 Permanent Redirect\r\nlocation: /v2/chat/completions\r\n", "redirects to /v2/chat/completions ("),
        ("304 Not Modified\r\n", "304: the server redirects ("),
    ] {
        let url = raw::answering([raw::whole(head, "")]);
        let scheduler = scheduler(&url, 3);
        let error = scheduler.chat(&chat()).await.unwrap_err();
        let failure = error.failure().unwrap();
        assert_eq!((error.attempts(), failure.class), (1, Class::NotFound), "{head}");
        let text = error.source().unwrap().to_string();
        assert!(text.contains(told) && text.contains("set the account's `base_url`"), "{text}");
        assert!(!format!("{text} {error:?}").contains("canary"), "{text}");
        assert_eq!(scheduler.lane_of("gpt-4o").counters.failed, 1, "{head}");
    }
}

#[tokio::test]
async fn an_error_in_a_good_answer_is_a_failure_for_every_caller() {
    let answers = [RATE_LIMITED, RATE_LIMITED, GOOD].map(|body| raw::whole(JSON, body));
    let scheduler = |url: &str| scheduler(url, 3);

    let client = scheduler(&raw::answering(answers.clone()));
    assert_eq!(client.chat(&chat()).await.unwrap().attempts, 3);

    let url = raw::answering(answers.clone());
    let (response, http) = (scheduler(&url), reqwest::Client::new());
    let sent = response.submit(Request::chat(&chat()), |_| http.post(&url).body("").send()).await.unwrap();
    assert_eq!(sent.text().await.unwrap(), GOOD);

    let url = raw::answering(answers);
    let closure = scheduler(&url);
    let call = |attempt: tollgate::Attempt| {
        let request = http.post(&url).body("").send();
        async move {
            let reply: Value = serde_json::from_slice(&request.await?.bytes().await?).unwrap();
            attempt.reply(&reply);
            Ok::<_, reqwest::Error>(reply)
        }
    };
    assert_eq!(closure.submit(Request::chat(&chat()), call).await.unwrap().to_string(), GOOD);

    for scheduler in [client, response, closure] {
        let counters = scheduler.lane_of("gpt-4o").counters;
        assert_eq!((counters.retries, used(&scheduler)), (2, 4), "{counters:?}");
    }
}

#[tokio::test]
async fn an_error_in_a_good_answer_that_stays_is_told_with_its_class() {
    let quota = r#"{"error":{"message":"You exceeded your current quota.","code":"insufficient_quota"}}"#;
    let url = raw::answering([raw::whole(JSON, quota)]);
    let error = scheduler(&url, 3).chat(&chat()).await.unwrap_err();
    let failure = error.failure().unwrap();
    assert_eq!((error.attempts(), failure.class, failure.status), (1, Class::QuotaExhausted, 200));
    assert!(failure.to_string().starts_with("error in the answer insufficient_quota: You exceeded"), "{failure}");
}

#[tokio::test]
async fn usage_is_read_whatever_the_body_calls_itself() {
    let heads = ["text/plain", "text/plain; charset=utf-8", "application/problem+json", "application/x-ndjson"];
    for kind in heads {
        let url = raw::answering([raw::whole(&format!("200 OK\r\ncontent-type: {kind}\r\n"), GOOD)]);
        let client = scheduler(&url, 1);
        let reply = client.chat(&chat()).await.unwrap();
        assert_eq!((reply.usage.map(|usage| usage.total()), used(&client)), (Some(4), 4), "{kind}");
    }
    // For a closure text whose end is known is read as well; without, it may be a stream.
    let whole = raw::whole("200 OK\r\ncontent-type: text/plain\r\n", GOOD);
    let open = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n{GOOD}");
    for (answer, tokens) in [(whole, 4), (open, 0)] {
        let url = raw::answering([answer]);
        let (closure, http) = (scheduler(&url, 1), reqwest::Client::new());
        let response = closure.submit(Request::chat(&chat()), |_| http.post(&url).body("").send()).await.unwrap();
        assert_eq!(response.text().await.unwrap(), GOOD);
        assert_eq!(used(&closure), tokens);
    }
}

#[tokio::test]
async fn what_broke_an_answer_is_said() {
    let half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 200\r\n\r\n{\"half\":";
    let chunked = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plain = raw::answering(["HTTP/1.1 200 OK\r\n\r\n"]).replace("http:", "https:");
    // Accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}/v1", silent.local_addr().unwrap());
    for (url, told) in [
        (raw::answering([half]), "the connection was cut in the middle of the answer"),
        (
            raw::answering([format!("{chunked}8\r\n{{\"half\":\r\n")]),
            "the connection was cut in the middle of the answer",
        ),
        (raw::answering([format!("{chunked}zz\r\nabc\r\n")]), "the answer is cut into invalid chunks"),
        (raw::answering([""]), "the connection was closed before an answer came"),
        (raw::answering(["SSH-2.0-OpenSSH\r\n"]), "the answer is no HTTP"),
        (plain, "the TLS handshake failed"),
        (format!("http://{closed}/v1"), "no connection"),
        (silent_url, "the provider took too long"),
    ] {
        let error = scheduler(&url, 1).chat(&chat()).await.unwrap_err();
        let (failure, source) = (error.failure().unwrap().to_string(), error.source().unwrap().to_string());
        assert!(failure.starts_with(&format!("no answer: {told}")) && source.contains(told), "{failure} / {source}");
        assert_eq!(failure.contains("too long"), told.contains("too long"), "{failure}");
    }
}
