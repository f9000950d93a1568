//! The built-in client and `submit` with a `reqwest::Response`, over real sockets against the mock.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::mock::{Faults, Latency, Mock, MockConfig, MockLimits};
use tollgate::{
    Account, AcquireError, Class, ClientError, Error, Fallback, Limits, Provider, Request, RetryPolicy, Scheduler,
    Unsupported,
};

const KEY: &str = "sk-canary-0123456789abcdef";
const LIMIT: u64 = 1_000_000_000;

async fn mock(config: MockConfig) -> Mock {
    Mock::start(config).await.unwrap()
}

fn scheduler(url: &str, max_attempts: u32) -> Scheduler {
    let limits = Limits { tpm: Some(LIMIT), ..Limits::default() };
    let retry = RetryPolicy { max_attempts, base: Duration::from_millis(1), cap: Duration::from_millis(20) };
    Scheduler::builder().account(Account::openai().key(KEY).base_url(url).limits(limits)).retry(retry).build().unwrap()
}

fn chat() -> Value {
    json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Tell me a story."}], "max_tokens": 200})
}

fn stream(include_usage: bool) -> Value {
    let mut body = chat();
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": include_usage});
    body
}

/// What the requests whose usage is known were charged and used, and how many are under way.
fn books(scheduler: &Scheduler) -> (u64, u64, u32) {
    let status = scheduler.lane_of("gpt-4o").status;
    (status.estimated.tokens, status.used.tokens, status.in_flight)
}

#[tokio::test]
async fn calls_go_below_the_path_of_the_base_url_however_it_is_written() {
    for (base, url) in [
        ("http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1/chat/completions"),
        ("http://127.0.0.1:9/v1//", "http://127.0.0.1:9/v1/chat/completions"),
        (" http://127.0.0.1:9/v1/\r\n", "http://127.0.0.1:9/v1/chat/completions"),
        // Azure's older form: the version is part of every address.
        (
            "http://127.0.0.1:9/openai/deployments/mine?api-version=2024-10-21",
            "http://127.0.0.1:9/openai/deployments/mine/chat/completions?api-version=2024-10-21",
        ),
        ("http://127.0.0.1:9/v1/?a=b", "http://127.0.0.1:9/v1/chat/completions?a=b"),
    ] {
        let scheduler = scheduler(base, 1);
        let call = |attempt| std::future::ready(scheduler.post(&attempt, "/chat/completions", "").build());
        let built = scheduler.submit(Request::chat(&chat()), call).await.unwrap();
        assert_eq!(built.url().as_str(), url, "{base:?}");
    }
}

#[tokio::test]
async fn chat_embeddings_and_responses_settle_to_what_the_provider_says() {
    let provider = mock(MockConfig::default()).await;
    let scheduler = scheduler(&provider.url(), 1);
    let reply = scheduler.chat(&chat()).await.unwrap();
    assert!(!reply.text().unwrap().is_empty());
    let embeddings = json!({"model": "text-embedding-3-small", "input": ["one", "two"]});
    let embedded = scheduler.embeddings(&embeddings).await.unwrap();
    assert_eq!(embedded.json().unwrap()["data"].as_array().unwrap().len(), 2);
    let responses = json!({"model": "gpt-4o", "input": "Say hello.", "max_output_tokens": 50});
    let responded = scheduler.responses(&responses).await.unwrap();
    let used = reply.usage.unwrap().total() + responded.usage.unwrap().total();
    let (charged, settled, in_flight) = books(&scheduler);
    assert_eq!((settled, in_flight), (used, 0));
    assert!(charged >= 250, "{charged}: input and caps of 200 and 50");
    let stats = provider.shutdown().await;
    let all = used + embedded.usage.unwrap().total();
    assert_eq!((stats.answered, stats.used_input_tokens + stats.used_output_tokens), (3, all));
}

#[tokio::test]
async fn a_stream_settles_on_its_usage_chunk() {
    let provider = mock(MockConfig::default()).await;
    let scheduler = scheduler(&provider.url(), 1);
    let mut stream = scheduler.chat_stream(&stream(true)).await.unwrap();
    let mut chunks = 0;
    while let Some(chunk) = stream.next().await {
        chunk.unwrap();
        chunks += 1;
    }
    let usage = stream.usage().unwrap();
    assert!(chunks > 3 && usage.output_tokens > 0);
    assert_eq!((books(&scheduler).1, books(&scheduler).2), (usage.total(), 0));
}

#[tokio::test]
async fn a_dropped_stream_ends_the_call_and_its_charge_stands() {
    let latency = Latency { per_output_token: Duration::from_millis(20), ..Latency::default() };
    let provider = mock(MockConfig { latency, ..MockConfig::default() }).await;
    let scheduler = scheduler(&provider.url(), 1);
    let mut stream = scheduler.chat_stream(&stream(true)).await.unwrap();
    stream.next().await.unwrap().unwrap();
    assert_eq!(books(&scheduler).2, 1, "it is under way until it ends");
    drop(stream);
    assert_eq!(books(&scheduler), (0, 0, 0));
    assert!(scheduler.lane_of("gpt-4o").status.gates[0].spent >= 200);
}

#[tokio::test]
async fn a_stream_without_usage_keeps_its_charge() {
    let provider = mock(MockConfig::default()).await;
    let scheduler = scheduler(&provider.url(), 1);
    let mut stream = scheduler.chat_stream(&stream(false)).await.unwrap();
    while let Some(chunk) = stream.next().await {
        chunk.unwrap();
    }
    assert_eq!((stream.usage(), books(&scheduler)), (None, (0, 0, 0)));
    assert!(scheduler.lane_of("gpt-4o").status.gates[0].spent >= 200);
}

#[tokio::test]
async fn a_response_is_read_for_its_caller_and_comes_back_whole() {
    let provider = mock(MockConfig::default()).await;
    let scheduler = scheduler(&provider.url(), 1);
    let (http, url) = (reqwest::Client::new(), format!("{}/chat/completions", provider.url()));
    let send = |body: Value| http.post(&url).bearer_auth(KEY).body(body.to_string()).send();
    let response = scheduler.submit(Request::chat(&chat()), |_| send(chat())).await.unwrap();
    assert_eq!((response.status().as_u16(), response.url().as_str()), (200, url.as_str()));
    assert!(response.headers().contains_key("x-request-id"));
    let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    let total = body["usage"]["total_tokens"].as_u64().unwrap();
    assert_eq!(books(&scheduler).1, total);

    let streamed = scheduler.submit(Request::chat(&stream(true)), |_| send(stream(true))).await.unwrap();
    assert_eq!(books(&scheduler).2, 1, "a stream of events keeps its permit");
    let text = streamed.text().await.unwrap();
    assert!(text.trim_end().ends_with("data: [DONE]"));
    assert_eq!(books(&scheduler).2, 0);
    assert!(books(&scheduler).1 > total, "and settled at its end");
}

#[tokio::test]
async fn calls_name_their_accounts_organisation_and_project_and_no_others() {
    let accounts = r#"
        [[account]]
        base_url = "http://127.0.0.1:9"
        organization = " org-1\n"
        project = "proj_2"
        [[account]]
        name = "other"
        organization = ""
        base_url = "http://127.0.0.1:9"
    "#;
    let scheduler = Scheduler::from_config(tollgate::Config::from_toml(accounts).unwrap()).unwrap();
    for (account, organization, project) in [("openai", Some("org-1"), Some("proj_2")), ("other", None, None)] {
        let call = |attempt| std::future::ready(scheduler.post(&attempt, "/chat/completions", "").build());
        let built = scheduler.submit(Request::chat(&chat()).account(account), call).await.unwrap();
        let sent = |name| built.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!((sent("OpenAI-Organization"), sent("OpenAI-Project")), (organization, project), "{account}");
    }
}

#[test]
fn an_organisation_that_no_header_can_carry_is_refused_by_its_name() {
    for (account, field) in [
        (Account::openai().organization("org-1\norg-2"), "organization"),
        (Account::openai().organization("org-1").project("a\u{7f}b"), "project"),
    ] {
        let error = Scheduler::builder().account(account).build().unwrap_err().to_string();
        assert!(error.contains(&format!("account openai: `{field}` holds characters")), "{error}");
    }
}

#[tokio::test]
async fn an_error_response_is_retried_and_in_the_end_comes_back_as_it_is() {
    let faults = Faults { error_500: 1.0, ..Faults::default() };
    let provider = mock(MockConfig { faults, ..MockConfig::default() }).await;
    let scheduler = scheduler(&provider.url(), 3);
    let (http, url) = (reqwest::Client::new(), format!("{}/chat/completions", provider.url()));
    let call = |_| http.post(&url).bearer_auth(KEY).body(chat().to_string()).send();
    let response = scheduler.submit(Request::chat(&chat()), call).await.unwrap();
    assert_eq!(response.status().as_u16(), 500);
    assert!(response.text().await.unwrap().contains("server_error"));
    assert_eq!(provider.stats().requests, 3);
}

#[tokio::test]
async fn faults_of_every_kind_are_mended_by_trying_again() {
    let faults = Faults { error_500: 0.1, error_503: 0.05, reset: 0.1, ..Faults::default() };
    let provider = mock(MockConfig { faults, seed: 5, ..MockConfig::default() }).await;
    let scheduler = scheduler(&provider.url(), 8);
    for _ in 0..40 {
        scheduler.chat(&chat()).await.unwrap();
    }
    let stats = provider.stats();
    assert!(stats.faults.error_500 > 0 && stats.faults.reset > 0, "{stats:?}");
    assert_eq!(stats.answered, 40);
}

#[tokio::test]
async fn what_never_reached_the_provider_costs_nothing() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let scheduler = scheduler(&format!("http://{closed}/v1"), 2);
    let error = scheduler.chat(&chat()).await.unwrap_err();
    assert!(matches!(error, Error::Call { error: ClientError::Transport(_), attempts: 2, .. }), "{error:?}");
    let lane = scheduler.lane_of("gpt-4o").status;
    assert_eq!((lane.gates[0].spent, lane.gates[0].left, lane.in_flight), (0, LIMIT as i64, 0));
}

#[tokio::test]
async fn a_request_that_cannot_be_built_is_no_call_and_says_what_to_set() {
    let limits = Limits { tpm: Some(LIMIT), ..Limits::default() };
    let without = Account::new(Provider::Azure).limits(limits);
    let wrong = Account::new(Provider::Compatible).base_url("https://canary<no-host>").limits(limits);
    for (account, told) in [
        (without, "account azure has no address; set its `base_url`, /v1 included"),
        (wrong, "the request cannot be built; check the account's `base_url`"),
    ] {
        let scheduler = Scheduler::builder().account(account).build().unwrap();
        let error = scheduler.chat(&chat()).await.unwrap_err();
        let Error::Call { error, attempts: 0, failure: None } = error else { panic!("{error:?}") };
        assert_eq!(error.to_string(), told);
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        let http = reqwest::Client::new();
        let own = scheduler.submit(Request::chat(&chat()), |_| http.post("/nowhere").send()).await.unwrap_err();
        assert!(matches!(own, Error::Call { attempts: 0, failure: None, .. }), "{own:?}");
        let lane = scheduler.lane_of("gpt-4o");
        assert_eq!((lane.status.gates[0].spent, lane.status.in_flight, lane.health.last_minute.calls), (0, 0, 0));
    }
}

#[tokio::test]
async fn a_refused_key_is_said_plainly_and_never_shown() {
    let provider = mock(MockConfig { keys: Some(vec!["sk-other".into()]), ..MockConfig::default() }).await;
    let error = scheduler(&provider.url(), 3).chat(&chat()).await.unwrap_err();
    assert_eq!(error.failure().unwrap().class, Class::Unauthorized);
    assert_eq!(provider.stats().unauthorised, 1, "and not tried again");
    let mut shown = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        shown += &error.to_string();
        cause = error.source();
    }
    assert!(!shown.contains("canary"), "{shown}");
}

#[tokio::test]
async fn a_burst_over_the_limit_meets_no_429_and_learns_the_number_from_the_headers() {
    let limits = MockLimits { rpm: Some(1_200), tpm: Some(120_000), ..MockLimits::default() };
    let latency = Latency::about(Duration::from_millis(50));
    let provider = mock(MockConfig { limits, latency, ..MockConfig::default() }).await;
    // Configured five times too high; the headers say so with the first answer.
    let configured = Limits { tpm: Some(600_000), ..Limits::default() };
    let account = Account::openai().key(KEY).base_url(provider.url()).limits(configured);
    let scheduler = Scheduler::builder().account(account).build().unwrap();
    let body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 390});
    scheduler.chat(&body).await.unwrap();
    let calls: Vec<_> = (0..320)
        .map(|_| {
            let (scheduler, body) = (scheduler.clone(), body.clone());
            tokio::spawn(async move { scheduler.chat(&body).await.map(|_| ()) })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    let stats = provider.stats();
    assert_eq!((stats.refused.total(), stats.answered), (0, 321));
    let gates = scheduler.lane_of("gpt-4o").status.gates;
    assert!(gates.iter().any(|gate| gate.limit.to_string() == "TPM 120000"), "{gates:?}");
}

#[tokio::test]
async fn a_fallback_gets_the_body_in_its_own_words_and_the_reply_says_who_answered() {
    let closed = mock(MockConfig { keys: Some(vec!["sk-other".into()]), ..MockConfig::default() }).await;
    let open = mock(MockConfig::default()).await;
    let primary = Account::openai().key(KEY).base_url(closed.url());
    let second = Account::new(Provider::Mistral).key(KEY).base_url(open.url());
    let build = |unsupported| {
        let chain = Fallback::of("gpt-4o").to("mistral", "mistral-small-latest").unsupported(unsupported);
        Scheduler::builder().account(primary.clone()).account(second.clone()).fallback(chain).build().unwrap()
    };
    let mut body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "max_completion_tokens": 5,
        "logprobs": true});
    let scheduler = build(Unsupported::Drop);
    let reply = scheduler.chat(&body).await.unwrap();
    let target = reply.target.as_ref().unwrap();
    assert_eq!((target.account(), target.model()), ("mistral", "mistral-small-latest"));
    assert_eq!((target.rank(), reply.attempts, &reply.dropped[..]), (1, 2, &["logprobs".to_owned()][..]));
    assert_eq!(reply.json().unwrap()["model"], "mistral-small-latest");
    assert!(reply.usage.unwrap().output_tokens <= 5, "the cap went along under its other name");

    let error = build(Unsupported::Error).chat(&body).await.unwrap_err();
    let Error::Refused { reason: AcquireError::Unfit(unfit), attempts: 1, last: Some(_) } = error else {
        panic!("{error:?}")
    };
    assert_eq!(unfit.what, ["logprobs"]);

    body["stream"] = true.into();
    let mut stream = scheduler.chat_stream(&body).await.unwrap();
    assert_eq!((stream.target().account(), stream.dropped()), ("mistral", &["logprobs".to_owned()][..]));
    while let Some(chunk) = stream.next().await {
        chunk.unwrap();
    }
    assert_eq!(closed.stats().unauthorised, 2, "a refused key is asked once by each scheduler");
}

#[tokio::test]
async fn an_answer_that_a_gateway_packs_unasked_is_read() {
    let packed: &[u8] =
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x3d\x8b\x3d\x0e\x80\x20\x0c\x46\xef\xf2\xcd\x4c\x6e\x72\x15\
          \x63\x88\x21\x8d\x10\xa1\x25\x52\x27\xd2\xbb\xcb\xa2\xeb\xfb\x19\x88\x49\x72\xa4\x0e\xbf\x0d\x54\xea\
          \xfd\x38\x09\x7e\x20\x0a\x2b\xb1\xc2\x23\x51\x29\x02\xb3\xdd\xe1\xf9\x6c\xbb\xa5\x36\x0d\x2a\x17\xf1\
          \x5c\x57\x37\xfb\xda\x0a\x69\x16\xfe\xe9\x62\xf6\x02\x69\xb0\xf3\x4e\x5f\x00\x00\x00";
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\nconnection: close\r\n";
    let answer = [format!("{head}content-length: {}\r\n\r\n", packed.len()).as_bytes(), packed].concat();
    let url = super::raw::answering([answer]);
    let scheduler = Scheduler::builder().account(Account::openai().base_url(url)).build().unwrap();
    let reply = scheduler.chat(&json!({"model": "gpt-4o", "messages": [], "max_tokens": 8})).await.unwrap();
    assert_eq!((reply.text().as_deref(), reply.attempts), (Some("hello"), 1));
    assert_eq!(scheduler.lane_of("gpt-4o").status.used.tokens, 11);
}
