//! The mock provider over real loopback sockets, on the real clock.
#![cfg(feature = "mock")]
#![expect(clippy::unwrap_used, reason = "the helpers are part of the tests")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tollgate::Shape;
use tollgate::mock::{
    ChargeRule, Faults, Latency, LimitChange, Mock, MockConfig, MockLimits, MockShapes, OutputModel, Stamp, Stats,
};

const KEY: &str = "sk-test-0123456789abcdefghij";

/// A mock on a runtime of its own, so that the tests can use plain blocking sockets.
struct Server {
    mock: Option<Mock>,
    runtime: Runtime,
}

impl Server {
    fn start(config: MockConfig) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mock = Some(runtime.block_on(Mock::start(config)).unwrap());
        Self { mock, runtime }
    }

    fn limited(limits: MockLimits) -> Self {
        Self::start(MockConfig { limits, ..MockConfig::default() })
    }

    fn mock(&self) -> &Mock {
        self.mock.as_ref().unwrap()
    }

    fn stats(&self) -> Stats {
        self.mock().stats()
    }

    fn shutdown(mut self) -> Stats {
        let mock = self.mock.take().unwrap();
        self.runtime.block_on(mock.shutdown())
    }

    fn pause(&self, time: Duration) {
        self.runtime.block_on(async { tokio::time::sleep(time).await });
    }

    fn client(&self) -> Client {
        Client::connect(self.mock().address())
    }

    /// One authorised POST on a connection of its own.
    fn post(&self, path: &str, body: Value) -> Reply {
        self.client().post(path, body).unwrap()
    }

    fn chat(&self, body: Value) -> Reply {
        self.post("/v1/chat/completions", body)
    }
}

/// An HTTP/1.1 client in the fewest lines: one connection, one request at a time.
struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let line = self.head.lines().find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
        Some(line.split_once(':')?.1.trim())
    }

    fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap().into()
    }

    /// The JSON of each `data:` line but `[DONE]`, and whether that came last.
    fn events(&self) -> (Vec<Value>, bool) {
        let lines: Vec<_> = self.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let done = lines.last() == Some(&"[DONE]");
        (lines.iter().filter(|line| **line != "[DONE]").map(|line| serde_json::from_str(line).unwrap()).collect(), done)
    }
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { stream, unread: Vec::new() }
    }

    fn post(&mut self, path: &str, body: Value) -> Result<Reply, String> {
        self.request("POST", path, Some(&format!("Bearer {KEY}")), &body.to_string())
    }

    /// `Err` when the connection ends before the answer does.
    fn request(&mut self, method: &str, path: &str, auth: Option<&str>, body: &str) -> Result<Reply, String> {
        self.send(method, path, auth, body);
        self.receive()
    }

    fn send(&mut self, method: &str, path: &str, auth: Option<&str>, body: &str) {
        let auth = auth.map(|auth| format!("authorization: {auth}\r\n")).unwrap_or_default();
        let length = body.len();
        let text = format!("{method} {path} HTTP/1.1\r\nhost: mock\r\n{auth}content-length: {length}\r\n\r\n{body}");
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn receive(&mut self) -> Result<Reply, String> {
        let head = self.head()?;
        let status = head[9..12].parse().unwrap();
        let mut reply = Reply { status, head, body: String::new() };
        let body = match reply.header("content-length") {
            Some(length) => self.take(length.parse().unwrap())?,
            None => self.chunks()?,
        };
        reply.body = String::from_utf8(body).unwrap();
        Ok(reply)
    }

    fn head(&mut self) -> Result<String, String> {
        self.line_end("\r\n\r\n").and_then(|end| Ok(String::from_utf8(self.take(end)?).unwrap()))
    }

    fn chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk()?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend(chunk);
        }
    }

    fn chunk(&mut self) -> Result<Vec<u8>, String> {
        let end = self.line_end("\r\n")?;
        let size = String::from_utf8(self.take(end)?).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let mut chunk = self.take(size + 2)?;
        chunk.truncate(size);
        Ok(chunk)
    }

    /// Where the text up to and with `mark` ends.
    fn line_end(&mut self, mark: &str) -> Result<usize, String> {
        loop {
            let at = self.unread.windows(mark.len()).position(|window| window == mark.as_bytes());
            match at {
                Some(at) => return Ok(at + mark.len()),
                None => self.fill()?,
            }
        }
    }

    fn take(&mut self, size: usize) -> Result<Vec<u8>, String> {
        while self.unread.len() < size {
            self.fill()?;
        }
        let rest = self.unread.split_off(size);
        Ok(std::mem::replace(&mut self.unread, rest))
    }

    fn fill(&mut self) -> Result<(), String> {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err("closed".into()),
            Ok(size) => {
                self.unread.extend_from_slice(&buffer[..size]);
                Ok(())
            }
            Err(error) => Err(error.kind().to_string()),
        }
    }
}

/// A chat request of `chars` characters, charged ceil(chars / 4) + 2 + `cap`.
fn chat(chars: usize, cap: u64) -> Value {
    json!({ "model": "gpt-4o", "messages": [{ "role": "user", "content": "x".repeat(chars) }], "max_tokens": cap })
}

/// Waits until `done` of the stats, since the server notices some things a moment after the client.
fn wait_for(server: &Server, done: impl Fn(&Stats) -> bool) -> Stats {
    for _ in 0..500 {
        let stats = server.stats();
        if done(&stats) {
            return stats;
        }
        server.pause(Duration::from_millis(10));
    }
    panic!("not within 5 s: {:?}", server.stats());
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[test]
fn a_request_without_a_known_key_is_refused_and_no_key_is_echoed() {
    let keys = Some(vec![KEY.to_owned()]);
    let server = Server::start(MockConfig { keys, ..MockConfig::default() });
    let wrong = "sk-wrong-ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut client = server.client();
    for auth in [None, Some("Bearer "), Some("Basic abc"), Some("Bearer sk-short"), Some(&*format!("Bearer {wrong}"))] {
        let reply = client.request("POST", "/v1/chat/completions", auth, &chat(4, 4).to_string()).unwrap();
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (401, &json!("invalid_api_key")), "{auth:?}");
        assert!(!reply.body.contains("sk-short") && !reply.body.contains(&wrong[3..]), "{}", reply.body);
        assert_eq!(reply.header("x-ratelimit-limit-requests"), None);
    }
    for path in ["/v1/models", "/v1/models/gpt-4o"] {
        assert_eq!(client.request("GET", path, None, "").unwrap().status, 401);
    }
    assert_eq!(client.post("/v1/chat/completions", chat(4, 4)).unwrap().status, 200);
    let stats = server.stats();
    assert_eq!((stats.requests, stats.unauthorised, stats.admitted), (6, 5, 1));
    assert!(!format!("{:?}", server.mock()).contains(KEY));
}

#[test]
fn a_token_limit_refuses_in_openais_words_and_headers() {
    // A token comes back every 10 s, so the figures stand still during the test.
    let limits = MockLimits { rpm: Some(6), tpm: Some(6), ..MockLimits::default() };
    let server = Server::start(MockConfig { limits, settle: false, ..MockConfig::default() });
    assert_eq!(server.chat(chat(4, 1)).status, 200); // charged 3 + 1
    let refused = server.chat(chat(4, 1));
    assert_eq!(refused.status, 429);
    let error = &refused.json()["error"];
    assert_eq!((&error["type"], &error["code"]), (&json!("tokens"), &json!("rate_limit_exceeded")));
    assert_eq!(error["param"], Value::Null);
    assert_eq!(
        refused.message(),
        "Rate limit reached for gpt-4o in organization org-mock on tokens per min (TPM): Limit 6, Used 4, Requested 4. \
         Please try again in 20s. Visit https://platform.openai.com/account/rate-limits to learn more."
    );
    for (name, value) in [
        ("retry-after", "20"),
        ("retry-after-ms", "20000"),
        ("x-ratelimit-limit-tokens", "6"),
        ("x-ratelimit-remaining-tokens", "2"),
        ("x-ratelimit-reset-tokens", "40s"),
        ("x-ratelimit-limit-requests", "6"),
        ("x-ratelimit-remaining-requests", "5"), // the refusal took none
    ] {
        assert_eq!(refused.header(name), Some(value), "{name}");
    }

    let too_large = server.chat(chat(4, 4));
    assert_eq!((too_large.status, too_large.header("retry-after")), (429, None));
    assert!(too_large.message().starts_with(
        "Request too large for gpt-4o in organization org-mock on tokens per min (TPM): Limit 6, Requested 7. The input \
         or output tokens must be reduced in order to run successfully."
    ));
    let stats = server.stats();
    assert_eq!((stats.refused.tpm, stats.refused.total(), stats.too_large), (2, 2, 1));
}

#[test]
fn a_request_limit_refuses_the_next_and_lets_it_in_after_the_printed_wait() {
    let server = Server::limited(MockLimits { rpm: Some(240), ..MockLimits::default() });
    let mut client = server.client();
    let mut admitted = 0;
    let refused = loop {
        let reply = client.post("/v1/chat/completions", chat(4, 1)).unwrap();
        if reply.status != 200 {
            break reply;
        }
        admitted += 1;
        assert!(admitted < 400, "no refusal");
    };
    assert!(admitted >= 240);
    assert!(refused.message().contains("on requests per min (RPM): Limit 240, Used 240, Requested 1."));
    assert_eq!(refused.message().split_once("try again in ").unwrap().1.split_once(". ").unwrap().0, "250ms");
    assert_eq!((refused.header("retry-after"), refused.header("retry-after-ms")), (Some("1"), Some("250")));
    server.pause(Duration::from_millis(250));
    assert_eq!(client.post("/v1/chat/completions", chat(4, 1)).unwrap().status, 200);
    assert_eq!(server.stats().refused.rpm, 1);
}

#[test]
fn success_headers_show_the_day_limit_where_it_allows_less() {
    let limits = MockLimits { rpm: Some(500), rpd: Some(10_000), tpm: Some(200_000), ..MockLimits::default() };
    let server = Server::start(MockConfig { limits, settle: false, ..MockConfig::default() });
    let reply = server.chat(chat(16, 494));
    for (name, value) in [
        ("x-ratelimit-limit-requests", "10000"),
        ("x-ratelimit-remaining-requests", "9999"),
        ("x-ratelimit-reset-requests", "8.64s"),
        ("x-ratelimit-limit-tokens", "200000"),
        ("openai-version", "2020-10-01"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}");
    }
    // 500 tokens were charged; some have leaked away by the time of the answer, 3.3 each millisecond.
    let remaining: u64 = reply.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap();
    assert!((199_500..200_000).contains(&remaining), "{remaining}");
    assert!(reply.header("x-ratelimit-reset-tokens").unwrap().ends_with("ms"));
    assert!(reply.header("x-request-id").unwrap().starts_with("req_"));
    assert!(reply.header("openai-processing-ms").unwrap().parse::<u64>().is_ok());

    let silent = Server::start(MockConfig { limits, headers: Stamp::None, ..MockConfig::default() });
    assert_eq!(silent.chat(chat(16, 4)).header("x-ratelimit-limit-requests"), None);
}

#[test]
fn answers_look_like_openais_and_keep_within_the_cap() {
    let server = Server::start(MockConfig::default());
    let mut body = chat(40, 50);
    body["n"] = json!(3);
    let reply = server.chat(body).json();
    assert_eq!((&reply["object"], &reply["model"]), (&json!("chat.completion"), &json!("gpt-4o")));
    assert!(reply["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(reply["created"].as_u64().unwrap() > 1_700_000_000);
    let mut written = 0;
    for (index, choice) in reply["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!(choice["index"], index);
        assert_eq!((&choice["message"]["role"], &choice["message"]["refusal"]), (&json!("assistant"), &Value::Null));
        let words = choice["message"]["content"].as_str().unwrap().split(' ').count() as u64;
        assert!((15..=50).contains(&words), "{words}");
        assert_eq!(choice["finish_reason"], if words == 50 { "length" } else { "stop" });
        written += words;
    }
    assert_eq!(reply["choices"].as_array().unwrap().len(), 3);
    let usage = &reply["usage"];
    assert_eq!((&usage["completion_tokens"], &usage["prompt_tokens"]), (&json!(written), &json!(17)));
    assert_eq!(usage["total_tokens"], 17 + written);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);

    let exact = OutputModel { least: 1.0, ..OutputModel::default() };
    let server = Server::start(MockConfig { output: exact, ..MockConfig::default() });
    let reply = server.chat(chat(40, 50)).json();
    assert_eq!(
        (&reply["usage"]["completion_tokens"], &reply["choices"][0]["finish_reason"]),
        (&json!(50), &json!("length"))
    );
}

#[test]
fn settling_gives_back_what_was_not_used_and_keeps_it_charged_otherwise() {
    let limits = MockLimits { tpd: Some(100_000), ..MockLimits::default() }; // hardly refills during the test
    for (settle, charge, remaining) in [
        (true, ChargeRule::InputPlusCap, 100_000 - 12),
        (false, ChargeRule::InputPlusCap, 100_000 - 1_003),
        (false, ChargeRule::MaxOfInputAndCap, 100_000 - 1_000),
    ] {
        let output = OutputModel { least: 0.004, most: 0.004, ..OutputModel::default() };
        let server = Server::start(MockConfig { limits, settle, charge, output, ..MockConfig::default() });
        let reply = server.chat(chat(4, 1_000));
        assert_eq!(reply.json()["usage"]["total_tokens"], 8 + 4);
        let shown: u64 = reply.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap();
        // Nothing is left to leak but for a token each 0.86 s.
        assert!((remaining..=remaining + 8).contains(&shown), "{settle} {charge:?}: {shown}");
    }
}

#[test]
fn headers_tell_of_the_admission_or_of_the_completion_or_nothing() {
    let limits = MockLimits { tpd: Some(100_000), ..MockLimits::default() };
    for (headers, least) in [
        (Stamp::Admission, Some(100_000 - 1_003)),
        (Stamp::Completion, Some(100_000 - 1_008)), // real usage is at most 8 + 1,000
        (Stamp::None, None),
    ] {
        let output = OutputModel { least: 0.5, most: 0.5, ..OutputModel::default() };
        let server = Server::start(MockConfig { limits, headers, output, ..MockConfig::default() });
        let reply = server.chat(chat(4, 1_000));
        let shown = reply.header("x-ratelimit-remaining-tokens").map(|shown| shown.parse::<u64>().unwrap());
        let settled = if headers == Stamp::Completion { 500 } else { 0 };
        match (shown, least) {
            (Some(shown), Some(least)) => assert!((least + settled..=least + settled + 8).contains(&shown), "{shown}"),
            (shown, least) => assert_eq!((shown, least), (None, None)),
        }
    }
}

#[test]
fn a_sliding_limit_is_sliding_over_sockets_and_changes_at_its_time() {
    let shapes = MockShapes { rpm: Shape::Sliding, ..MockShapes::default() };
    let limits = MockLimits { rpm: Some(4), shapes, ..MockLimits::default() };
    let changes = vec![LimitChange { at: Duration::ZERO, factor: 0.5 }];
    let server = Server::start(MockConfig { limits, changes, ..MockConfig::default() });
    assert_eq!(server.chat(chat(4, 1)).header("x-ratelimit-limit-requests"), Some("2"));
    server.chat(chat(4, 1));
    let refused = server.chat(chat(4, 1));
    assert_eq!(refused.status, 429);
    // Under refill it would be 30 s; until the first leaves it is a minute less the moments since.
    let wait: u64 = refused.header("retry-after-ms").unwrap().parse().unwrap();
    assert!((50_000..=60_000).contains(&wait), "{wait}");
    assert_eq!(server.stats().limits, MockLimits { rpm: Some(2), ..limits });
}

#[test]
fn a_stream_shows_the_reservation_and_settles_at_its_end() {
    let limits = MockLimits { tpd: Some(100_000), ..MockLimits::default() };
    let server = Server::limited(limits);
    let mut body = chat(4, 1_000);
    body["stream"] = json!(true);
    body["stream_options"] = json!({ "include_usage": true });
    let reply = server.chat(body);
    assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(reply.header("x-ratelimit-remaining-tokens"), Some("98997"));

    let (events, done) = reply.events();
    assert!(done, "{}", reply.body);
    let (last, chunks) = events.split_last().unwrap();
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    assert!(chunks.iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)), "usage: null before the last");
    assert!(events.iter().all(|chunk| chunk["id"] == last["id"] && chunk["object"] == "chat.completion.chunk"));
    let finish = &chunks.last().unwrap()["choices"][0];
    assert_eq!((&finish["delta"], &finish["finish_reason"]), (&json!({}), &json!("stop")));
    let text: String = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], text.split(' ').count());
    let total = last["usage"]["total_tokens"].as_u64().unwrap();

    // The next stream sees what the first one really used, and its own reservation.
    let stats = wait_for(&server, |stats| stats.answered == 1);
    assert_eq!(stats.used_input_tokens + stats.used_output_tokens, total);
    let mut body = chat(4, 1_000);
    body["stream"] = json!(true);
    let reply = server.chat(body);
    let shown: u64 = reply.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap();
    assert!((98_997 - total..98_997 - total + 8).contains(&shown), "{shown} after {total}");
    let (events, done) = reply.events();
    assert!(done && events.iter().all(|chunk| chunk.get("usage").is_none()), "usage only where it was asked for");
}

#[test]
fn embeddings_are_charged_a_quarter_of_their_characters() {
    let server = Server::limited(MockLimits { tpd: Some(100_000), ..MockLimits::default() });
    let ask = |input: Value, extra: Value| {
        let mut body = json!({ "model": "text-embedding-3-small", "input": input });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        server.post("/v1/embeddings", body)
    };
    let reply = ask(json!("x".repeat(34)), json!({}));
    assert_eq!(reply.header("x-ratelimit-remaining-tokens"), Some("99992"));
    let one = reply.json();
    assert_eq!(one["usage"], json!({ "prompt_tokens": 8, "total_tokens": 8 }));
    let vector: Vec<f64> =
        one["data"][0]["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(vector.len(), 1_536);
    assert!((vector.iter().map(|v| v * v).sum::<f64>() - 1.0).abs() < 1e-3, "a vector has length 1");

    let many = ask(json!(["abcdefg", "abcdefg", "abcdef"]), json!({ "dimensions": 4 })).json();
    assert_eq!((&many["usage"]["total_tokens"], many["data"].as_array().unwrap().len()), (&json!(5), 3));
    assert_eq!((&many["data"][2]["index"], many["data"][2]["embedding"].as_array().unwrap().len()), (&json!(2), 4));

    let tokens = ask(json!([[1, 2, 3], [4]]), json!({ "dimensions": 3, "encoding_format": "base64" })).json();
    assert_eq!((&tokens["usage"]["total_tokens"], tokens["data"].as_array().unwrap().len()), (&json!(4), 2));
    assert_eq!(tokens["data"][0]["embedding"].as_str().unwrap().len(), 16, "12 bytes in base64");
    assert_eq!(server.stats().charged_tokens, 8 + 5 + 4);
}

#[test]
fn the_responses_api_answers_plainly_and_as_a_stream() {
    let limits = MockLimits { tpd: Some(100_000), ..MockLimits::default() };
    let server = Server::start(MockConfig { limits, settle: false, ..MockConfig::default() });
    let plain = server.post("/v1/responses", json!({ "model": "gpt-5-nano", "input": "x".repeat(24) }));
    // 6 + 7 input tokens, and the prediction, as no cap is set.
    assert_eq!(plain.header("x-ratelimit-remaining-tokens"), Some("99770"));
    let reply = plain.json();
    assert_eq!((&reply["object"], &reply["status"]), (&json!("response"), &json!("completed")));
    let text = reply["output"][0]["content"][0]["text"].as_str().unwrap();
    let usage = &reply["usage"];
    assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(13), &json!(text.split(' ').count())));
    assert_eq!(usage["total_tokens"], 13 + usage["output_tokens"].as_u64().unwrap());
    assert_eq!(usage["input_tokens_details"]["cached_tokens"], 0);
    assert_eq!(usage["output_tokens_details"]["reasoning_tokens"], 0);

    let input = json!([{ "role": "user", "content": [{ "type": "input_text", "text": "hello" }] }]);
    let body = json!({ "model": "gpt-5-nano", "input": input, "max_output_tokens": 100, "stream": true });
    let (events, done) = server.post("/v1/responses", body).events();
    assert!(!done, "the Responses API has no [DONE]");
    let numbers: Vec<_> = events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<_>>());
    assert_eq!(events[0]["type"], "response.created");
    assert_eq!(events[0]["response"]["usage"], Value::Null);
    let deltas = events.iter().filter(|event| event["type"] == "response.output_text.delta");
    let text: String = deltas.map(|event| event["delta"].as_str().unwrap()).collect();
    let end = &events.last().unwrap();
    assert_eq!(end["type"], "response.completed");
    assert_eq!(end["response"]["output"][0]["content"][0]["text"], text);
    assert_eq!(end["response"]["usage"]["output_tokens"], text.split(' ').count());
}

#[test]
fn wrong_requests_get_openais_errors() {
    let server = Server::start(MockConfig::default());
    let mut client = server.client();
    let auth = format!("Bearer {KEY}");
    for (method, path, body, status, message) in [
        ("POST", "/v1/nothing", "{}", 404, "Invalid URL (POST /v1/nothing)"),
        ("GET", "/v1/chat/completions", "", 405, "Not allowed to GET on /v1/chat/completions."),
        ("POST", "/v1/chat/completions", "{\"model\":", 400, "We could not parse the JSON body of your request."),
        ("POST", "/v1/chat/completions", r#"{"model":"m"}"#, 400, "Missing required parameter: 'messages'."),
        ("POST", "/v1/chat/completions", r#"{"model":"m","messages":7.5}"#, 400, "Invalid type"),
        ("POST", "/v1/chat/completions", r#"{"model":"m","messages":"hi"}"#, 400, "Invalid value for 'messages'"),
        ("POST", "/v1/embeddings", r#"{"model":"m","input":""}"#, 400, "Invalid value for 'input'"),
    ] {
        let reply = client.request(method, path, Some(&auth), body).unwrap();
        assert_eq!((reply.status, &reply.json()["error"]["type"]), (status, &json!("invalid_request_error")), "{path}");
        assert!(reply.message().starts_with(message), "{}", reply.message());
    }
    assert_eq!(client.request("GET", "/v1/models", Some(&auth), "").unwrap().json()["object"], "list");
    for (path, name) in [
        ("gpt-4o", "gpt-4o"),
        ("openai/gpt-oss-20b", "openai/gpt-oss-20b"),
        ("openai%2Fgpt-oss-20b", "openai/gpt-oss-20b"),
    ] {
        let model = client.request("GET", &format!("/v1/models/{path}"), Some(&auth), "").unwrap();
        assert_eq!((model.status, &model.json()["id"], &model.json()["object"]), (200, &json!(name), &json!("model")));
    }
    let stats = server.stats();
    assert_eq!((stats.requests, stats.invalid, stats.admitted), (7, 7, 0));
}

#[test]
fn faults_answer_as_the_real_ones_do() {
    let fault = |faults| Server::start(MockConfig { faults, ..MockConfig::default() });

    let overloaded = fault(Faults { error_503: 1.0, ..Faults::default() });
    let reply = overloaded.chat(chat(4, 4));
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (503, &json!("server_is_overloaded")));
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(overloaded.stats().faults.error_503, 1);

    let broken = fault(Faults { error_500: 1.0, ..Faults::default() });
    let reply = broken.chat(chat(4, 4));
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (500, &json!("server_error")));
    assert_eq!((broken.stats().faults.error_500, broken.stats().in_flight), (1, 0));

    let spurious = fault(Faults { error_429: 1.0, ..Faults::default() });
    let reply = spurious.chat(chat(4, 4));
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (429, &json!("rate_limit_exceeded")));
    let stats = spurious.stats();
    assert_eq!((stats.faults.error_429, stats.refused.total(), stats.admitted), (1, 0, 0));
}

#[test]
fn a_failed_request_costs_a_request_but_no_tokens() {
    let limits = MockLimits { rpd: Some(100), tpd: Some(100_000), ..MockLimits::default() };
    let faults = Faults { error_500: 1.0, ..Faults::default() };
    let server = Server::start(MockConfig { limits, faults, ..MockConfig::default() });
    assert_eq!(server.chat(chat(4, 99_000)).status, 500);
    assert_eq!(server.chat(chat(4, 99_000)).status, 500, "the tokens of the first came back");
    server.mock().set_limits(MockLimits { rpd: Some(2), ..limits });
    assert!(server.chat(chat(4, 4)).message().contains("(RPD): Limit 2, Used 2, Requested 1"));
}

#[test]
fn a_reset_closes_the_connection_without_an_answer() {
    let server =
        Server::start(MockConfig { faults: Faults { reset: 1.0, ..Faults::default() }, ..MockConfig::default() });
    let error = server.client().post("/v1/chat/completions", chat(4, 4)).unwrap_err();
    assert!(["closed", "connection reset"].contains(&&*error), "{error}");
    let stats = server.stats();
    assert_eq!((stats.faults.reset, stats.abandoned, stats.in_flight, stats.answered), (1, 1, 0, 0));
}

#[test]
fn a_hanging_request_is_abandoned_when_its_client_leaves() {
    let server =
        Server::start(MockConfig { faults: Faults { hang: 1.0, ..Faults::default() }, ..MockConfig::default() });
    let mut client = server.client();
    client.stream.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    let error = client.post("/v1/chat/completions", chat(4, 4)).unwrap_err();
    assert_ne!(error, "closed", "a hang is silence, not an end");
    assert_eq!((server.stats().faults.hang, server.stats().in_flight), (1, 1));
    drop(client);
    let stats = wait_for(&server, |stats| stats.in_flight == 0);
    assert_eq!(stats.abandoned, 1);
}

#[test]
fn a_stream_whose_client_leaves_is_abandoned_and_stays_charged() {
    let limits = MockLimits { tpd: Some(100_000), ..MockLimits::default() };
    let latency = Latency { per_output_token: Duration::from_millis(5), ..Latency::default() };
    let server = Server::start(MockConfig { limits, latency, ..MockConfig::default() });
    let mut body = chat(4, 1_000);
    body["stream"] = json!(true);
    let mut client = server.client();
    client.send("POST", "/v1/chat/completions", Some(&format!("Bearer {KEY}")), &body.to_string());
    assert!(client.head().unwrap().starts_with("HTTP/1.1 200"));
    client.chunk().unwrap();
    drop(client);
    let stats = wait_for(&server, |stats| stats.in_flight == 0);
    assert_eq!((stats.abandoned, stats.answered), (1, 0));
    assert_eq!(server.chat(chat(4, 98_998)).status, 429, "1,003 are still charged");
}

#[test]
fn a_spurious_refusal_takes_a_request_only_where_refusals_count() {
    for (refusals_count, remaining) in [(false, "9"), (true, "8")] {
        let limits = MockLimits { rpm: Some(10), ..MockLimits::default() };
        let faults = Faults { error_429: 0.5, ..Faults::default() };
        // With this seed the first request is refused by chance, and the second is not.
        let server = Server::start(MockConfig { limits, faults, refusals_count, seed: 0, ..MockConfig::default() });
        let replies = [server.chat(chat(4, 4)), server.chat(chat(4, 4))];
        assert_eq!(replies.each_ref().map(|reply| reply.status), [429, 200]);
        assert_eq!(replies[1].header("x-ratelimit-remaining-requests"), Some(remaining));
    }
}

#[test]
fn a_half_body_ends_with_the_connection_plain_and_as_a_stream() {
    let faults = Faults { half_body: 1.0, ..Faults::default() };
    let server = Server::start(MockConfig { faults, ..MockConfig::default() });
    for stream in [false, true] {
        let mut body = chat(4, 400);
        body["stream"] = json!(stream);
        let mut client = server.client();
        client.send("POST", "/v1/chat/completions", Some(&format!("Bearer {KEY}")), &body.to_string());
        let mut all = Vec::new();
        // Until the end of the connection, which may come as a reset.
        let _ = client.stream.read_to_end(&mut all);
        let all = String::from_utf8_lossy(&all);
        assert!(all.starts_with("HTTP/1.1 200") && all.contains("chat.completion"), "{all}");
        assert!(!all.contains("[DONE]") && !all.contains("\"usage\":{\"prompt"), "{all}");
    }
    assert_eq!(wait_for(&server, |s| s.in_flight == 0).faults.half_body, 2);
}

#[test]
fn a_slow_body_sends_its_headers_first() {
    let faults = Faults { slow_body: 1.0, slow_body_for: Duration::from_millis(600), ..Faults::default() };
    let server = Server::start(MockConfig { faults, ..MockConfig::default() });
    for stream in [false, true] {
        let mut body = chat(4, 400);
        body["stream"] = json!(stream);
        let mut client = server.client();
        let start = now();
        client.send("POST", "/v1/chat/completions", Some(&format!("Bearer {KEY}")), &body.to_string());
        let mut first = [0; 12];
        client.stream.read_exact(&mut first).unwrap();
        let headers = start.elapsed();
        client.unread.extend_from_slice(&first);
        let reply = client.receive().unwrap();
        let whole = start.elapsed();
        assert!(whole >= Duration::from_millis(600), "{whole:?}");
        assert!(whole - headers >= Duration::from_millis(300), "{headers:?} of {whole:?}");
        assert!(if stream { reply.events().1 } else { reply.json()["usage"].is_object() });
    }
    assert_eq!((server.stats().faults.slow_body, wait_for(&server, |s| s.in_flight == 0).answered), (2, 2));
}

#[test]
fn latency_is_base_plus_tokens() {
    let latency = Latency { base: Duration::from_millis(100), per_output_token: Duration::from_millis(2), jitter: 0.0 };
    let output = OutputModel { least: 1.0, ..OutputModel::default() };
    let server = Server::start(MockConfig { latency, output, ..MockConfig::default() });
    let start = now();
    let reply = server.chat(chat(4, 50));
    let took = start.elapsed();
    assert!((Duration::from_millis(200)..Duration::from_secs(3)).contains(&took), "{took:?}");
    assert!(reply.header("openai-processing-ms").unwrap().parse::<u64>().unwrap() >= 200);

    let start = now();
    let mut body = chat(4, 50);
    body["stream"] = json!(true);
    assert!(server.chat(body).events().1);
    assert!((Duration::from_millis(200)..Duration::from_secs(3)).contains(&start.elapsed()));
}

#[test]
fn the_same_seed_plays_the_same_faults_and_lengths() {
    let play = |seed| -> Vec<String> {
        let faults = Faults { error_500: 0.2, error_503: 0.2, reset: 0.1, ..Faults::default() };
        let server = Server::start(MockConfig { seed, faults, ..MockConfig::default() });
        let outcome = |_| match server.client().post("/v1/chat/completions", chat(4, 1_000)) {
            Ok(reply) if reply.status == 200 => reply.json()["choices"][0]["message"]["content"].to_string(),
            Ok(reply) => reply.status.to_string(),
            Err(_) => "reset".into(),
        };
        (0..40).map(outcome).collect()
    };
    let first = play(7);
    assert_eq!(first, play(7));
    assert_ne!(first, play(8));
    for outcome in ["500", "503", "reset"] {
        assert!(first.iter().any(|seen| seen == outcome), "no {outcome} in {first:?}");
    }
}

#[test]
fn keys_and_models_have_limits_of_their_own_and_snapshots_share_one() {
    let server = Server::limited(MockLimits { rpd: Some(1), ..MockLimits::default() });
    let status = |key: &str, model: &str| {
        let mut body = chat(4, 4);
        body["model"] = json!(model);
        let auth = format!("Bearer {key}");
        server.client().request("POST", "/v1/chat/completions", Some(&auth), &body.to_string()).unwrap().status
    };
    assert_eq!(status("a", "gpt-4o"), 200);
    assert_eq!(status("a", "gpt-4o-2024-08-06"), 429);
    assert_eq!(status("a", "gpt-4o-mini"), 200);
    assert_eq!(status("b", "gpt-4o-2024-08-06"), 200);
}

#[test]
fn stats_add_up_and_are_served_without_a_key() {
    let limits = MockLimits { rpd: Some(6), ..MockLimits::default() };
    let faults = Faults { error_500: 0.3, error_429: 0.3, ..Faults::default() };
    let server = Server::start(MockConfig { limits, faults, seed: 3, ..MockConfig::default() });
    let mut client = server.client();
    let replies: Vec<_> = (0..20).map(|_| client.post("/v1/chat/completions", chat(14, 100)).unwrap()).collect();
    client.request("POST", "/v1/chat/completions", None, "{}").unwrap();
    client.post("/v1/chat/completions", json!([])).unwrap();

    let served = client.request("GET", "/stats", None, "").unwrap();
    let stats: Stats = serde_json::from_str(&served.body).unwrap();
    assert_eq!(stats, server.stats());
    assert_eq!(client.request("GET", "/v1/stats", None, "").unwrap().body, served.body);

    let count = |status| replies.iter().filter(|reply| reply.status == status).count() as u64;
    assert_eq!((stats.requests, stats.unauthorised, stats.invalid), (22, 1, 1));
    assert_eq!((stats.admitted, stats.charged_tokens), (6, 6 * 106));
    assert_eq!((stats.answered, stats.faults.error_500), (count(200), count(500)));
    assert!(count(200) > 0 && count(500) > 0 && stats.faults.error_429 > 0, "the seed shows all kinds: {stats:?}");
    assert_eq!(stats.refused.rpd + stats.faults.error_429, count(429));
    assert_eq!(stats.requests, stats.admitted + stats.refused.total() + stats.faults.error_429 + 2);
    let used = |reply: &Reply| reply.json()["usage"]["total_tokens"].as_u64();
    let used: u64 = replies.iter().filter_map(used).sum();
    assert_eq!(stats.used_input_tokens + stats.used_output_tokens, used);
    assert_eq!((stats.in_flight, stats.largest_in_flight), (0, 1));
    assert_eq!((stats.busiest_minute_requests, stats.busiest_minute_tokens), (6, 6 * 106));
    assert!(stats.first_admission.unwrap() < stats.last_admission.unwrap());
}

#[test]
fn shutdown_closes_the_port_and_what_is_under_way() {
    let server =
        Server::start(MockConfig { faults: Faults { hang: 1.0, ..Faults::default() }, ..MockConfig::default() });
    let address = server.mock().address();
    assert_eq!(server.mock().url(), format!("http://{address}/v1"));
    let mut client = server.client();
    client.send("POST", "/v1/chat/completions", Some(&format!("Bearer {KEY}")), &chat(4, 4).to_string());
    wait_for(&server, |stats| stats.in_flight == 1);
    let stats = server.shutdown();
    assert_eq!((stats.admitted, stats.abandoned, stats.in_flight), (1, 1, 0));
    assert!(client.receive().is_err());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn serving_ends_with_the_future_it_was_given() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let stats = runtime.block_on(async {
        let mock = Mock::start(MockConfig::default()).await.unwrap();
        mock.serve_until(tokio::time::sleep(Duration::from_millis(20))).await
    });
    assert_eq!(stats, Stats::default());
}

#[test]
fn settings_that_make_no_sense_are_refused_at_the_start() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let faults = Faults { hang: 1.5, ..Faults::default() };
    let error = runtime.block_on(Mock::start(MockConfig { faults, ..MockConfig::default() })).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}
