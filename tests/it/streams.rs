//! Streams as servers send them that do not send them as they should.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::{Account, Charge, ClientError, Limits, Request, Scheduler};

use crate::raw;

const CHUNK: &str = r#"{"choices":[{"index":0,"delta":{"content":"a"}}],"usage":null}"#;
const USAGE: &str = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":50}}"#;
const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

fn chat() -> Value {
    json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1000, "stream": true})
}

fn scheduler(url: &str) -> Scheduler {
    let limits = Limits { tpm: Some(100_000), ..Limits::default() };
    Scheduler::builder().account(Account::openai().base_url(url).key("sk-x").limits(limits)).build().unwrap()
}

/// What the built-in client makes of an answer: the chunks, and the error at the end if there is one.
async fn streamed(scheduler: &Scheduler) -> (usize, Option<ClientError>) {
    let mut stream = scheduler.chat_stream(&chat()).await.unwrap();
    let (mut chunks, mut error) = (0, None);
    while let Some(chunk) = stream.next().await {
        match chunk {
            Ok(_) => chunks += 1,
            Err(found) => assert!(error.replace(found).is_none(), "an error is the last"),
        }
    }
    (chunks, error)
}

/// The same answer through a closure, read to its end as bytes.
async fn passed_through(scheduler: &Scheduler, url: &str) {
    let http = reqwest::Client::new();
    let call = |_| http.post(url).body("").send();
    let response = scheduler.submit(Request::chat(&chat()), call).await.unwrap();
    assert!(!response.bytes().await.unwrap().is_empty());
}

/// Tokens used and calls failed.
fn books(scheduler: &Scheduler) -> (u64, u64) {
    let lane = scheduler.lane_of("gpt-4o");
    assert_eq!(lane.status.in_flight, 0, "the books are closed");
    (lane.status.used.tokens, lane.counters.failed)
}

/// On a thread of its own: what spins inside a poll would hang the test for good.
fn within_seconds(test: impl Future<Output = ()> + Send + 'static) {
    let (done, is_done) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test);
        let _ = done.send(());
    });
    // A panic drops the sender, and is the thread's to tell.
    if is_done.recv_timeout(Duration::from_secs(60)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
        panic!("the stream never ends");
    }
    thread.join().unwrap();
}

#[test]
fn a_stream_ends_whatever_its_last_line_is_and_its_usage_reaches_the_books_of_both_readers() {
    within_seconds(async {
        let good = [
            format!("data: {CHUNK}\n\ndata: {USAGE}\n\ndata: [DONE]\n\n"),
            format!("data: {CHUNK}\n\ndata: {USAGE}\n\ndata: [DONE]"),
            format!("data: {CHUNK}\n\ndata: {USAGE}"),
            format!("data: {CHUNK}\n\ndata: {USAGE}\n"),
            format!("data: {CHUNK}\r\rdata: {USAGE}\r\rdata: [DONE]\r\r"),
            format!("data: {CHUNK}\r\n\r\ndata: {USAGE}\r\n\r\ndata: [DONE]\r\n\r\n"),
            format!("\u{feff}data: {USAGE}\n\ndata: {CHUNK}\n\n"),
            // The usage comes with an empty piece after the last one.
            format!(
                "data: {CHUNK}\n\ndata: {}\n\ndata: [DONE]\n\n",
                USAGE.replace("[]", r#"[{"finish_reason":null}]"#)
            ),
            format!(": hello\n\ndata:\n\ndata: {{\"choices\":\ndata: []}}\n\nevent: x\ndata: {USAGE}\n\n"),
        ];
        for body in good {
            let url = raw::answering([format!("{HEAD}{body}")]);
            let (client, closure) = (scheduler(&url), scheduler(&url));
            let (chunks, error) = streamed(&client).await;
            assert!(chunks == 2 && error.is_none(), "{body:?}: {chunks} {error:?}");
            passed_through(&closure, &url).await;
            assert_eq!((books(&client), books(&closure)), ((59, 0), (59, 0)), "{body:?}");
        }
    });
}

#[test]
fn a_stream_that_is_cut_inside_an_event_is_an_error() {
    within_seconds(async {
        for rest in ["data: {\"choices\":[{\"ind", "data: {\"choices\":[\n", "da"] {
            let url = raw::answering([format!("{HEAD}data: {CHUNK}\n\n{rest}")]);
            let (client, closure) = (scheduler(&url), scheduler(&url));
            let (chunks, error) = streamed(&client).await;
            assert!(chunks == 1 && matches!(error, Some(ClientError::StreamCut)), "{rest:?}: {chunks} {error:?}");
            passed_through(&closure, &url).await;
            assert_eq!((books(&client), books(&closure)), ((0, 1), (0, 1)), "{rest:?}");
        }
    });
}

#[test]
fn an_event_that_is_too_long_is_an_error_and_keeps_nobody_from_reading_it_as_bytes() {
    within_seconds(async {
        let long = CHUNK.replace('a', &"a".repeat(17 << 20));
        let url = raw::answering([format!("{HEAD}data: {CHUNK}\n\ndata: {long}\n\ndata: {USAGE}\n\n")]);
        let (client, closure) = (scheduler(&url), scheduler(&url));
        let (chunks, error) = streamed(&client).await;
        assert!(chunks == 1 && matches!(error, Some(ClientError::EventTooLong)), "{chunks} {error:?}");
        passed_through(&closure, &url).await;
        assert_eq!((books(&client), books(&closure)), ((0, 0), (59, 0)));
    });
}

#[test]
fn chunks_before_an_error_in_the_stream_come_before_it_and_nothing_after() {
    within_seconds(async {
        let failed = r#"{"error":{"message":"The server had an error","type":"server_error"}}"#;
        let url = raw::answering([format!("{HEAD}data: {CHUNK}\n\ndata: {failed}\n\ndata: {CHUNK}\n\n")]);
        let scheduler = scheduler(&url);
        let (chunks, error) = streamed(&scheduler).await;
        assert!(chunks == 1 && matches!(error, Some(ClientError::Status(_))), "{chunks} {error:?}");
        assert_eq!(books(&scheduler), (0, 1));
    });
}

#[tokio::test]
async fn an_answer_that_is_no_stream_is_said_to_be_none() {
    let body = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":50}}"#;
    let url = raw::answering([raw::whole("200 OK\r\ncontent-type: application/json\r\n", body)]);
    let scheduler = scheduler(&url);
    let error = scheduler.chat_stream(&chat()).await.unwrap_err();
    let tollgate::Error::Call { error: ClientError::NoStream, attempts: 1, .. } = error else { panic!("{error:?}") };
    assert_eq!(books(&scheduler), (59, 0));
}

#[test]
fn usage_of_the_answer_so_far_gives_nothing_back() {
    within_seconds(async {
        let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":25,"output_tokens":1}}}"#;
        let piece = r#"{"choices":[{"delta":{"content":"a"},"finish_reason":null}],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;
        for so_far in [start, piece] {
            let url = raw::answering([format!("{HEAD}data: {so_far}\n\ndata: {so_far}\n\n")]);
            let (client, ended) = (scheduler(&url), scheduler(&url));
            let mut stream = client.chat_stream(&chat()).await.unwrap();
            stream.next().await.unwrap().unwrap();
            drop(stream);
            streamed(&ended).await;
            for scheduler in [client, ended] {
                let status = &scheduler.snapshot().lanes[0].status;
                // The input and the whole cap are still taken; what was seen is no usage.
                assert_eq!((status.in_flight, status.used), (0, Charge::default()), "{so_far}");
                assert!(status.gates[0].spent > 1_000, "{so_far}: {}", status.gates[0].spent);
            }
        }
    });
}

#[tokio::test]
async fn the_input_that_a_stream_tells_at_its_beginning_counts_with_the_output_at_its_end() {
    let start = r#"{"type":"message_start","message":{"usage":{"input_tokens":25,"cache_read_input_tokens":5,"output_tokens":1}}}"#;
    let end = r#"{"type":"message_delta","usage":{"output_tokens":15}}"#;
    let url = raw::answering([format!("{HEAD}data: {start}\n\ndata: {end}\n\n")]);
    let scheduler = scheduler(&url);
    passed_through(&scheduler, &url).await;
    assert_eq!(books(&scheduler), (25 + 5 + 15, 0));
}
