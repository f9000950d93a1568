//! What a subscriber of `tracing` sees of a request. All in virtual time.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderMap;
use serde_json::json;
use tollgate::{Account, Attempt, Limits, Provider, Request, RetryPolicy, Scheduler, Usage};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Instrument, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

const SECOND: Duration = Duration::from_secs(1);
const CANARY: &str = "sk-canary-0123456789abcdef";

/// A span or an event as it was told.
#[derive(Clone, Debug, Default)]
struct Told {
    name: String,
    parent: Option<usize>,
    fields: BTreeMap<String, String>,
    closed: bool,
}

/// Everything told, in order.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<Told>>>);

/// Where a span stands among them.
struct Position(usize);

struct Fields<'a>(&'a mut BTreeMap<String, String>);

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Notes {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let parent = span.parent().map(|parent| parent.extensions().get::<Position>().unwrap().0);
        let mut told = Told { name: span.name().to_owned(), parent, ..Told::default() };
        attributes.record(&mut Fields(&mut told.fields));
        let mut notes = self.0.lock().unwrap();
        span.extensions_mut().insert(Position(notes.len()));
        notes.push(told);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let position = context.span(id).unwrap().extensions().get::<Position>().unwrap().0;
        values.record(&mut Fields(&mut self.0.lock().unwrap()[position].fields));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let parent = context.event_span(event).map(|span| span.extensions().get::<Position>().unwrap().0);
        let mut told = Told { parent, ..Told::default() };
        event.record(&mut Fields(&mut told.fields));
        told.name = told.fields.remove("message").unwrap();
        self.0.lock().unwrap().push(told);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let position = context.span(&id).unwrap().extensions().get::<Position>().unwrap().0;
        self.0.lock().unwrap()[position].closed = true;
    }
}

impl Notes {
    fn taken() -> (Self, DefaultGuard) {
        let notes = Notes::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(notes.clone()));
        (notes, guard)
    }

    /// Those of that name, in order.
    fn of(&self, name: &str) -> Vec<Told> {
        self.0.lock().unwrap().iter().filter(|told| told.name == name).cloned().collect()
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|told| told.name.clone()).collect()
    }
}

impl Told {
    fn says(&self, expected: &[(&str, &str)]) {
        for (name, value) in expected {
            assert_eq!(self.fields.get(*name).map(String::as_str), Some(*value), "{name} of {self:#?}");
        }
    }
}

fn scheduler() -> Scheduler {
    let account = Account::openai().key(CANARY).limits(Limits { tpm: Some(6_000), ..Limits::default() });
    Scheduler::builder()
        .account(account)
        .retry(RetryPolicy { max_attempts: 2, ..RetryPolicy::default() })
        .build()
        .unwrap()
}

fn chat(cap: u64) -> Request {
    Request::chat(&json!({
        "model": "gpt-4o", "messages": [{"role": "user", "content": format!("What is {CANARY}?")}], "max_tokens": cap,
    }))
}

/// A first attempt that fails with an error full of secrets, and a second that goes well.
async fn answer(attempt: Attempt) -> Result<(), String> {
    if attempt.number() == 1 {
        attempt.answer(503, &HeaderMap::new());
        attempt.error_body(format!(r#"{{"error": {{"message": "no {CANARY} here", "code": "{CANARY}"}}}}"#).as_bytes());
        return Err(CANARY.to_owned());
    }
    tokio::time::sleep(SECOND).await;
    attempt.answer(200, &HeaderMap::new());
    attempt.usage(Usage { cached_tokens: 4, ..Usage::new(12, 30) });
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_request_is_told_from_its_queue_to_its_settlement_by_the_names_of_opentelemetry() {
    let (notes, _guard) = Notes::taken();
    let scheduler = scheduler();
    scheduler.submit(chat(50), answer).await.unwrap();
    let names = ["request", "admitted", "attempt", "settled", "admitted", "attempt", "settled"];
    assert_eq!(notes.names(), names);

    let request = &notes.of("request")[0];
    assert!(request.closed && request.parent.is_none());
    request.says(&[
        ("otel.name", "chat gpt-4o"),
        ("otel.kind", "client"),
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "gpt-4o"),
        ("gen_ai.request.max_tokens", "50"),
        ("gen_ai.usage.input_tokens", "12"),
        ("gen_ai.usage.output_tokens", "30"),
        ("gen_ai.usage.cache_read.input_tokens", "4"),
        ("server.address", "api.openai.com"),
        ("tollgate.attempts", "2"),
    ]);
    assert!(!request.fields.contains_key("error.type"), "it went well in the end: {request:?}");

    let attempts = notes.of("attempt");
    attempts[0].says(&[
        ("tollgate.account", "openai"),
        ("tollgate.model", "gpt-4o"),
        ("tollgate.attempt", "1"),
        ("http.response.status_code", "503"),
        ("error.type", "overloaded"),
        ("otel.status_code", "ERROR"),
    ]);
    attempts[1].says(&[("tollgate.attempt", "2")]);
    assert!(!attempts[1].fields.contains_key("error.type"));
    assert!(attempts.iter().all(|attempt| attempt.closed && attempt.parent == Some(0)));

    let settled = notes.of("settled");
    settled[0].says(&[("tollgate.outcome", "failed")]);
    settled[1].says(&[("tollgate.outcome", "answered"), ("tollgate.used", "42"), ("tollgate.took", "1.0")]);
}

#[tokio::test(start_paused = true)]
async fn who_has_to_wait_is_seen_waiting() {
    let (notes, _guard) = Notes::taken();
    let scheduler = scheduler();
    scheduler.acquire(Request::tokens("gpt-4o", 10, 0)).await.unwrap().settle(Usage::new(10, 0));
    scheduler.acquire(Request::tokens("gpt-4o", 5_800, 0)).await.unwrap().settle(Usage::new(5_800, 0));
    assert!(notes.of("queued").is_empty(), "nothing had to wait so far");
    let waiter = scheduler.enqueue(chat(600)).await.unwrap();
    assert!(!notes.of("queued")[0].closed);
    let permit = waiter.await.unwrap();
    let queued = &notes.of("queued")[0];
    queued.says(&[("tollgate.account", "openai"), ("tollgate.pool", "gpt-4o")]);
    assert!(queued.closed);
    let admitted = &notes.of("admitted")[2];
    assert!(admitted.fields["tollgate.waited"].parse::<f64>().unwrap() > 1.0, "{admitted:?}");
    assert!(!notes.of("request")[2].closed, "its call is under way");
    drop(permit);
    assert!(notes.of("request")[2].closed);
    notes.of("settled")[2].says(&[("tollgate.outcome", "unsent")]);
}

#[tokio::test(start_paused = true)]
async fn what_comes_to_nothing_has_an_error_type() {
    let (notes, _guard) = Notes::taken();
    let scheduler = scheduler();
    scheduler.acquire(chat(50_000)).await.unwrap_err();
    notes.of("request")[0].says(&[("error.type", "too_large"), ("otel.status_code", "ERROR")]);

    let call = |attempt: Attempt| async move {
        attempt.answer(400, &HeaderMap::new());
        Err::<(), _>("wrong")
    };
    scheduler.submit(chat(50), call).await.unwrap_err();
    notes.of("request")[1].says(&[("error.type", "invalid")]);

    scheduler.submit(chat(50), |_| async { Err::<(), _>("who knows") }).await.unwrap_err();
    notes.of("request")[2].says(&[("error.type", "unexplained")]);

    let mut permit = scheduler.acquire(chat(50)).await.unwrap();
    permit.sent();
    let _ = permit.failed(401, &HeaderMap::new(), b"");
    notes.of("request")[3].says(&[("error.type", "unauthorized")]);
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_spans_stand_in_the_attempt() {
    let (notes, _guard) = Notes::taken();
    let outer = tracing::info_span!("outer");
    let call = |_| async {
        tracing::info!("inner");
        Ok::<_, ()>(())
    };
    scheduler().submit(chat(5), call).instrument(outer).await.unwrap();
    let all = notes.0.lock().unwrap().clone();
    let parent = |name: &str| {
        let told = all.iter().find(|told| told.name == name).unwrap();
        told.parent.map(|parent| all[parent].name.clone())
    };
    assert_eq!(parent("inner").as_deref(), Some("attempt"));
    assert_eq!(parent("attempt").as_deref(), Some("request"));
    assert_eq!(parent("request").as_deref(), Some("outer"));
}

#[tokio::test(start_paused = true)]
async fn no_prompt_no_key_and_no_error_text_is_in_any_span_or_event() {
    let (notes, _guard) = Notes::taken();
    scheduler().submit(chat(50), answer).await.unwrap();
    scheduler().submit(chat(50), |_| async { Err::<(), _>(CANARY) }).await.unwrap_err();
    let own = Account::new(Provider::Compatible).key(CANARY).base_url(format!("http://me:{CANARY}@h/v1?key={CANARY}"));
    let own = Scheduler::builder().account(own).build().unwrap();
    own.submit(chat(50), answer).await.unwrap();
    let told = format!("{:?}", notes.0.lock().unwrap());
    assert!(told.contains("request") && told.contains("gpt-4o"), "{told}");
    assert!(!told.contains("canary"), "{told}");
}

#[cfg(all(feature = "client", feature = "mock"))]
#[tokio::test]
async fn the_spans_of_a_stream_end_with_the_stream_and_know_its_usage() {
    use tollgate::mock::{Mock, MockConfig};

    let (notes, _guard) = Notes::taken();
    let provider = Mock::start(MockConfig::default()).await.unwrap();
    let scheduler =
        Scheduler::builder().account(Account::openai().key(CANARY).base_url(provider.url())).build().unwrap();
    let body = json!({
        "model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 40,
        "stream": true, "stream_options": {"include_usage": true},
    });
    let mut stream = scheduler.chat_stream(&body).await.unwrap();
    stream.next().await.unwrap().unwrap();
    assert!(!notes.of("request")[0].closed && !notes.of("attempt")[0].closed);
    while stream.next().await.is_some() {}
    let usage = stream.usage().unwrap();
    drop(stream);
    let request = &notes.of("request")[0];
    assert!(request.closed && notes.of("attempt")[0].closed);
    request.says(&[
        ("server.address", "127.0.0.1"),
        ("gen_ai.usage.input_tokens", &usage.input_tokens.to_string()),
        ("gen_ai.usage.output_tokens", &usage.output_tokens.to_string()),
    ]);
    notes.of("settled")[0].says(&[("tollgate.outcome", "answered")]);
    let health = scheduler.snapshot().lanes[0].health.last_minute;
    assert!(health.first_byte.unwrap().p50 <= health.whole.unwrap().p50, "{health:?}");
}
