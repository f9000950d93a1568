//! What `run` tells others while it works.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::mock::{Latency, MockConfig};

use super::world::{Recorder, Server, World, ended};

const CANARY: &str = "canary-0123456789abcdef";

#[test]
fn events_are_posted_signed_and_a_webhook_that_is_away_costs_no_row() {
    let world = World::new();
    world.requests("in.jsonl", 0..20);
    let hook = Recorder::start(|_| (200, String::new()));
    let server = Recorder::start(|_| {
        let body = json!({"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}});
        (429, body.to_string())
    });
    let run = |hook: &str, report: &str| {
        let mut command = world.tollgate(&format!("run in.jsonl -v -o {report} --webhook {hook} {}", server.at()));
        ended({
            command.env("TOLLGATE_WEBHOOK_SECRET", CANARY);
            command
        })
    };
    let told = run(&hook.url(), "a.jsonl").expect(1);
    let seen = hook.seen();
    let bodies: Vec<Value> = seen.iter().map(|seen| serde_json::from_str(&seen.body).unwrap()).collect();
    let types: Vec<_> = bodies.iter().map(|body| body["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["account_left"]);
    assert!(seen[0].headers.contains("webhook-signature: v1,") && told.err.contains("left the rotation"));
    // Nobody listens there, and its end is not waited for beyond ten seconds.
    let away = run("http://127.0.0.1:9", "b.jsonl").expect(1).says("1 event did not reach the webhook");
    assert_eq!((world.results("a.jsonl").len(), world.results("b.jsonl").len()), (20, 20));
    for ended in [told, away] {
        assert!(!ended.out.contains("canary") && !ended.err.contains("canary"), "{ended:#?}");
    }
    world.run("run in.jsonl --mock --webhook http://127.0.0.1:9").expect(2).says("TOLLGATE_WEBHOOK_SECRET is not set");
}

#[test]
fn an_incident_on_the_status_page_is_said_while_it_works() {
    let world = World::new();
    world.requests("in.jsonl", 0..20);
    let incident = Some("Elevated error rates".to_owned());
    let latency = Latency::about(Duration::from_millis(500));
    let server = Server::start(MockConfig { incident, latency, ..MockConfig::default() });
    let status = server.url().replace("/v1", "/status/api/v2/summary.json");
    world.write(
        "tollgate.toml",
        format!("[watch]\nstatus_pages = true\nstatus_urls = {{ compatible = \"{status}\" }}\n"),
    );
    let run =
        world.run(&format!("run in.jsonl --config tollgate.toml --provider compatible --base-url {}", server.url()));
    let run = run.expect(0);
    let line = "compatible reports “Elevated error rates” (major, Chat Completions); our own calls do not fail";
    assert_eq!(run.err.matches(line).count(), 1, "{}", run.err);
}
