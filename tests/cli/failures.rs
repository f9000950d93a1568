//! Rows that fail.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tollgate::mock::{Faults, Latency, MockConfig, Outage, OutageKind};

use super::world::{Recorder, Running, Server, World, batch};

#[test]
fn a_row_that_fails_for_good_is_in_the_output_with_what_the_provider_said() {
    let world = World::new();
    let server = Recorder::start(|seen| {
        match &seen.body {
        body if body.contains("refused") => {
            (400, "{\n \"error\": {\"message\": \"unsupported value\", \"type\": \"invalid_request_error\", \"code\": \"bad\"}\n}".to_owned())
        }
        body if body.contains("gateway") => (404, "<html>\nno such thing</html>".to_owned()),
        body if body.contains("garbage") => (200, "ok".to_owned()),
        body if body.contains("well") => (200, "{\"error\": {\"message\": \"no such model\", \"code\": \"model_not_found\"}}".to_owned()),
        _ => (200, "{}".to_owned()),
    }
    });
    let lines = ["good", "refused", "gateway", "garbage", "all is well"].map(|id| batch(id).to_string()).join("\n");
    world.write("in.jsonl", lines);
    world
        .run(&format!("run in.jsonl -v --max-attempts 2 --report report.json {}", server.at()))
        .expect(1)
        .says("refused: bad: unsupported value");
    let results = world.results("in.results.jsonl");
    assert!(results["good"]["error"].is_null());
    let refused = &results["refused"];
    assert_eq!(refused["response"]["body"]["error"]["code"], "bad");
    assert_eq!(
        (&refused["response"]["status_code"], &refused["error"]),
        (&json!(400), &json!({"code": "bad", "message": "unsupported value"}))
    );
    let well = &results["all is well"];
    assert_eq!((&well["response"]["status_code"], &well["error"]["code"]), (&json!(200), &json!("model_not_found")));
    assert_eq!(results["gateway"]["response"]["body"], "<html>\nno such thing</html>");
    assert_eq!(
        (&results["gateway"]["error"]["code"], &results["garbage"]["error"]["code"]),
        (&json!("not_found"), &json!("invalid_answer"))
    );
    let rows = &world.report()["rows"];
    assert_eq!((&rows["succeeded"], &rows["failed"]), (&json!(1), &json!(4)));
}

#[test]
fn failures_that_pass_are_retried_and_counted() {
    let world = World::new();
    let faults = Faults { error_503: 0.2, ..Faults::default() };
    let server = Server::start(MockConfig { faults, seed: 1, ..MockConfig::default() });
    world.requests("in.jsonl", 0..30);
    world.run(&format!("run in.jsonl --report report.json {}", server.at())).expect(0);
    let (report, stats) = (world.report(), server.stats());
    assert_eq!(
        (report["rows"]["succeeded"].as_u64(), report["retries"].as_u64()),
        (Some(30), Some(stats.faults.error_503))
    );
    assert!(stats.faults.error_503 > 0);
}

#[test]
fn an_outage_is_waited_for_and_costs_no_row_although_it_is_longer_than_the_attempts() {
    let world = World::new();
    let seconds = Duration::from_secs_f64;
    let outages = vec![Outage { from: seconds(0.3), to: seconds(6.0), kind: OutageKind::Error503 }];
    let latency = Latency::about(seconds(0.05));
    let server = Server::start(MockConfig { outages, latency, ..MockConfig::default() });
    world.requests("in.jsonl", 0..200);
    let command = format!("run in.jsonl --max-attempts 3 --max-concurrent 8 --report report.json {}", server.at());
    let run = world.run(&command).expect(0).says("outages waited for");
    let told = |line: &str| run.err.matches(line).count();
    assert_eq!((told("the provider is failing for gpt-4o-mini"), told("the provider is back")), (1, 1), "{}", run.err);
    let (report, stats) = (world.report(), server.stats());
    assert_eq!((report["rows"]["succeeded"].as_u64(), report["outages"].as_u64()), (Some(200), Some(1)));
    assert!(stats.faults.error_503 <= 10 + 8, "{stats:?}");
}

#[test]
fn a_provider_that_is_not_there_is_said_without_running_through_the_whole_file() {
    let world = World::new();
    world.requests("in.jsonl", 0..2_000);
    // A port that nobody listens on.
    let port = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let command =
        format!("run in.jsonl --base-url http://127.0.0.1:{port}/v1 --unlimited --max-attempts 1 --max-concurrent 10");
    world.run(&command).expect(1).says("one row after the other failed").says("--retry-failed");
    let failed = world.results("in.results.jsonl");
    assert!((100..=110).contains(&failed.len()), "{}", failed.len());
    assert!(failed.values().all(|result| result["response"].is_null() && result["error"]["code"] == "no_answer"));
    let server = Recorder::ok();
    world.run(&format!("run in.jsonl --retry-failed {}", server.at())).expect(0);
    assert_eq!(world.results("in.results.jsonl").len(), 2_000);
}

#[test]
fn why_rows_failed_is_said_with_advice_and_counted_in_the_report() {
    let world = World::new();
    let answer =
        r#"{"error": {"message": "Incorrect API key provided: sk-canary-0123456789.", "code": "invalid_api_key"}}"#;
    let server = Recorder::start(move |_| (401, answer.to_owned()));
    world.requests("in.jsonl", 0..20);
    let run = world.run(&format!("run in.jsonl --report report.json {}", server.at())).expect(1);
    let run =
        run.says("20 × 401 invalid_api_key: Incorrect API key provided: ***. (the API key is not accepted; check");
    assert!(!run.err.contains("canary"), "{}", run.err);
    let failures = world.report()["failures"].clone();
    assert_eq!((&failures[0]["kind"], &failures[0]["count"]), (&json!("401 invalid_api_key"), &json!(20)));
    assert!(failures[0]["example"].as_str().unwrap().starts_with("401 invalid_api_key: Incorrect"), "{failures}");
}

#[test]
fn a_host_without_an_address_is_named_while_it_is_tried_again() {
    let world = World::new();
    world.requests("in.jsonl", 0..3);
    let mut command = world.tollgate("run in.jsonl --base-url http://no-such-host.invalid/v1 --unlimited");
    let mut run = Running::of(command.env("OPENAI_API_KEY", "sk-none").stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(run.child().stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.find(|line| line.starts_with("0 of 3 rows")).unwrap();
    assert!(line.contains("no answer from no-such-host.invalid: dns error"), "{line}");
    assert!(line.contains("; trying again"), "{line}");
    run.kill();
}
