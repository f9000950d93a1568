//! The same over real sockets: what a failing provider looks like to a client.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate::mock::{Faults, Latency, Mock, MockConfig, Outage, OutageKind};
use tollgate::{Account, Config, Limits, Request, RetryPolicy, Scheduler};

use crate::raw;

fn chat() -> Value {
    json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20})
}

fn scheduler(url: &str, limits: Limits) -> Scheduler {
    patient(url, limits, RetryPolicy::default().max_attempts)
}

fn patient(url: &str, limits: Limits, max_attempts: u32) -> Scheduler {
    let config = Config {
        accounts: vec![Account::openai().key("sk-x").base_url(url).limits(limits)],
        retry: RetryPolicy { max_attempts, base: Duration::from_millis(50), ..RetryPolicy::default() },
        byte_timeout: Duration::from_millis(500),
        connect_timeout: Duration::from_millis(500),
        ..Config::default()
    };
    Scheduler::from_config(config).unwrap()
}

/// Sends so many rows, and answers how long they took.
async fn send(scheduler: &Scheduler, rows: usize) -> Duration {
    let start = Instant::now();
    let tasks: Vec<_> = (0..rows)
        .map(|_| {
            let scheduler = scheduler.clone();
            tokio::spawn(async move { scheduler.chat(&chat()).await.map(|_| ()) })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().expect("no row is lost");
    }
    start.elapsed()
}

#[tokio::test]
async fn outages_of_every_kind_cost_no_row() {
    let kinds = [OutageKind::Error503, OutageKind::Reset, OutageKind::Hang];
    for run in kinds.map(|kind| tokio::spawn(outage(kind))) {
        run.await.unwrap();
    }
}

async fn outage(kind: OutageKind) {
    let outages = vec![Outage { from: Duration::from_millis(500), to: Duration::from_millis(3_000), kind }];
    let latency = Latency::about(Duration::from_millis(50));
    let provider = Mock::start(MockConfig { outages, latency, ..MockConfig::default() }).await.unwrap();
    let limits = Limits { max_concurrent: Some(4), ..Limits::default() };
    let scheduler = scheduler(&provider.url(), limits);
    let took = send(&scheduler, 200).await;
    let stats = provider.stats();
    let failed = stats.requests - stats.answered;
    assert_eq!(stats.answered, 200, "{kind:?}");
    assert!(failed <= 10 + 4, "{kind:?}: {failed} calls failed");
    assert_eq!(scheduler.snapshot().lanes[0].counters.outages, 1, "{kind:?}");
    println!("{kind:?}: {failed} failed calls, {took:?}");
}

#[tokio::test]
async fn one_in_five_of_every_kind_costs_no_row_and_few_calls() {
    let faults = Faults { error_500: 0.1, error_503: 0.002, reset: 0.05, hang: 0.05, ..Faults::default() };
    let latency = Latency::about(Duration::from_millis(50));
    let provider = Mock::start(MockConfig { faults, latency, seed: 3, ..MockConfig::default() }).await.unwrap();
    let limits = Limits { max_concurrent: Some(64), ..Limits::default() };
    // With six attempts, one run in eight would lose a row by chance.
    let scheduler = patient(&provider.url(), limits, 12);
    let took = send(&scheduler, 2_000).await;
    let stats = provider.stats();
    let outages = scheduler.snapshot().lanes[0].counters.outages;
    assert_eq!(stats.answered, 2_000);
    assert!(stats.requests <= 2_700, "{} calls", stats.requests);
    println!("{} calls, opened {outages} times, {took:?}", stats.requests);
}

#[tokio::test]
async fn half_bodies_garbage_and_pages_are_failures_that_are_mended() {
    let url = raw::answering([
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 200\r\n\r\n{\"half\":",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 7\r\n\r\ngarbage",
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",
        "no HTTP at all",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
    ]);
    let scheduler = scheduler(&url, Limits::default());
    let reply = scheduler.chat(&chat()).await.unwrap();
    assert_eq!((reply.attempts, &reply.body[..]), (5, &b"{}"[..]));
    assert_eq!(scheduler.snapshot().lanes[0].counters.failed, 4);
}

#[tokio::test]
async fn an_empty_answer_is_no_failure() {
    let url = raw::answering(["HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n"]);
    let scheduler = scheduler(&url, Limits::default());
    let http = reqwest::Client::new();
    let response = scheduler.submit(Request::chat(&chat()), |_| http.post(&url).send()).await.unwrap();
    assert_eq!((response.status().as_u16(), response.bytes().await.unwrap().len()), (202, 0));
    assert_eq!(scheduler.snapshot().lanes[0].counters.failed, 0);
}

#[tokio::test]
async fn what_is_neither_an_error_nor_json_comes_at_its_beginning_and_is_under_way_to_its_end() {
    for kind in ["application/x-ndjson", "audio/mpeg", "application/jsonl", "text/event-stream; charset=utf-8"] {
        // The second piece is only sent when the caller has the first.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let (go, gone) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4_096]);
            stream
                .write_all(
                    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: 6\r\n\r\n: a").as_bytes(),
                )
                .unwrap();
            gone.recv().unwrap();
            stream.write_all(b": b").unwrap();
        });
        let scheduler = scheduler(&url, Limits::default());
        let http = reqwest::Client::new();
        let call = scheduler.submit(Request::chat(&chat()), |_| http.post(&url).send());
        let mut response = tokio::time::timeout(Duration::from_secs(10), call).await.expect(kind).unwrap();
        assert_eq!(response.chunk().await.unwrap().unwrap(), ": a");
        assert_eq!(scheduler.snapshot().lanes[0].status.in_flight, 1, "{kind}");
        go.send(()).unwrap();
        assert_eq!(response.chunk().await.unwrap().unwrap(), ": b");
        assert_eq!(response.chunk().await.unwrap(), None);
        let lane = &scheduler.snapshot().lanes[0];
        assert_eq!((lane.status.in_flight, lane.health.last_minute.answered), (0, 1), "{kind}");
    }
}

#[tokio::test]
async fn of_a_very_long_answer_the_rest_is_left_to_its_caller() {
    const LONG: usize = 80 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4_096]);
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {LONG}\r\n\r\n").unwrap();
        let _ = (0..LONG >> 20).try_for_each(|_| stream.write_all(&[b' '; 1 << 20]));
    });
    let scheduler = scheduler(&url, Limits::default());
    let http = reqwest::Client::new();
    let response = scheduler.submit(Request::chat(&chat()), |_| http.post(&url).send()).await.unwrap();
    assert_eq!(response.bytes().await.unwrap().len(), LONG);
    assert_eq!(scheduler.snapshot().lanes[0].counters.failed, 0, "what was not read is not judged");
}

#[tokio::test]
async fn an_answer_that_stays_unusable_is_an_error_that_says_so() {
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>";
    let url = raw::answering([page]);
    let error = scheduler(&url, Limits::default()).chat(&chat()).await.unwrap_err();
    let failure = error.failure().unwrap();
    assert!(failure.to_string().starts_with("unusable answer: the answer is not the JSON"), "{failure}");
}
