//! `run` against the mock in each provider's dialect, with the key in the provider's own header.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::mock::{Latency, MockConfig, MockLimits, MockShapes};
use tollgate::{Provider, Shape};

use super::world::{Server, World, ended};

const KEY: &str = "key-0123456789abcdef";

/// Runs `rows` rows against `limits` and answers the report: every row is done, and nothing was refused.
fn run(dialect: Provider, limits: MockLimits, rows: usize, args: &str) -> Value {
    let world = World::new();
    world.requests("in.jsonl", 0..rows);
    let server = Server::start(MockConfig {
        dialect,
        limits,
        keys: Some(vec![KEY.into()]),
        latency: Latency::about(Duration::from_millis(100)),
        phase: Some(Duration::from_secs(4)),
        ..MockConfig::default()
    });
    let typed = format!("run in.jsonl --provider {dialect} --base-url {} --api-key-env THE_KEY {args}", server.url());
    let mut command = world.tollgate(&format!("{typed} --report report.json"));
    command.env("THE_KEY", KEY);
    ended(command).expect(0);
    let (report, stats) = (world.report(), server.stats());
    assert_eq!((stats.answered, stats.refused.total()), (rows as u64, 0), "{dialect}: {report:#}");
    report
}

/// Name, amount and source of each limit.
fn limits(report: &Value) -> Vec<Value> {
    let limits = report["limits"].as_array().unwrap().iter();
    limits.map(|limit| json!([limit["limit"], limit["amount"], limit["source"]])).collect()
}

#[test]
fn anthropics_limits_are_read_from_its_headers() {
    let shown = MockLimits { rpm: Some(300), itpm: Some(100_000), otpm: Some(50_000), ..MockLimits::default() };
    let report = run(Provider::Anthropic, shown, 320, "--endpoint /chat/completions");
    let known = limits(&report);
    for limit in [("RPM", 300), ("ITPM", 100_000), ("OTPM", 50_000)] {
        assert!(known.contains(&json!([limit.0, limit.1, "header"])), "{known:?}");
    }
    assert!(report["admission_span_s"].as_f64().unwrap() > 2.0, "the requests were held by the limit: {report:#}");
}

#[test]
fn groqs_headers_are_of_the_days_requests_and_the_minutes_tokens() {
    let shown = MockLimits { rpd: Some(14_400), tpm: Some(4_000), ..MockLimits::default() };
    let report = run(Provider::Groq, shown, 300, "");
    assert_eq!(limits(&report), [json!(["RPD", 14_400, "header"]), json!(["TPM", 4_000, "header"])]);
}

#[test]
fn mistrals_headers_have_no_reset() {
    let shapes = MockShapes::all(Shape::Sliding);
    let shown = MockLimits { rpm: Some(320), tpm: Some(100_000), shapes, ..MockLimits::default() };
    let report = run(Provider::Mistral, shown, 320, "");
    assert_eq!(limits(&report), [json!(["RPM", 320, "header"]), json!(["TPM", 100_000, "header"])]);
}

#[test]
fn a_result_has_the_name_that_mistral_gives_the_call() {
    let (world, server) =
        (World::new(), Server::start(MockConfig { dialect: Provider::Mistral, ..MockConfig::default() }));
    world.requests("in.jsonl", 0..1);
    let mut command =
        world.tollgate(&format!("run in.jsonl --provider mistral --base-url {} --api-key-env THE_KEY", server.url()));
    command.env("THE_KEY", KEY);
    ended(command).expect(0);
    let results = world.results("in.results.jsonl");
    assert!(results.values().all(|result| result["response"]["request_id"].is_string()), "{results:?}");
}

#[test]
fn azures_slices_and_fixed_minutes_are_known_from_its_profile() {
    let shapes = MockShapes { rpm: Shape::Slice(Duration::from_secs(10)), ..MockShapes::all(Shape::Fixed) };
    let shown = MockLimits { rpm: Some(1_200), tpm: Some(100_000), shapes, ..MockLimits::default() };
    let report = run(Provider::Azure, shown, 320, "--rpm 1200 --tpm 100k");
    assert_eq!(report["limits"][0]["shapes"], json!(["slice:10"]));
    assert!(report["admission_span_s"].as_f64().unwrap() > 2.0, "one slice holds 200: {report:#}");
}

#[test]
fn gemini_is_held_to_what_was_configured_since_it_shows_nothing() {
    let shapes = MockShapes::all(Shape::Sliding);
    let enforced = MockLimits { rpm: Some(320), itpm: Some(100_000), shapes, ..MockLimits::default() };
    let report = run(Provider::Gemini, enforced, 320, "--rpm 320 --itpm 100k");
    assert_eq!(limits(&report), [json!(["RPM", 320, "configured"]), json!(["ITPM", 100_000, "configured"])]);
}

#[test]
fn the_embedded_mock_speaks_as_the_provider_that_is_imitated() {
    let world = World::new();
    world.requests("in.jsonl", 0..3);
    for (provider, limits) in [("anthropic", "--rpm 600 --itpm 90k --otpm 90k"), ("gemini", "--tpm 90k"), ("groq", "")]
    {
        let args = format!("--mock --mock-latency 0 --provider {provider} {limits} -o {provider}.jsonl");
        world.run(&format!("run in.jsonl {args} --report report.json")).expect(0);
        assert_eq!(world.report()["mock"]["answered"], 3);
    }
    world.run("run in.jsonl --mock --provider azure --rpd 5").expect(2).says("azure has no RPD; it has RPM, TPM");
    world.run("mock --port 0 --dialect gemini --otpm 5").expect(2).says("gemini has no OTPM");
}
