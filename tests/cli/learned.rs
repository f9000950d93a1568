//! `run --learned FILE`: what one run finds out about limits, the next one knows.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::mock::{Latency, MockConfig, MockLimits, MockShapes};
use tollgate::{Learned, Shape};

use super::world::{Server, World, until};

/// A server that nobody told of: fixed minutes, whose end shows in the headers.
fn gateway() -> Server {
    let limits = MockLimits { rpm: Some(600), shapes: MockShapes::all(Shape::Fixed), ..MockLimits::default() };
    let latency = Latency::about(Duration::from_millis(300));
    Server::start(MockConfig { limits, latency, phase: Some(Duration::from_secs(50)), ..MockConfig::default() })
}

fn rpm(world: &World) -> Value {
    let report = world.report();
    let limits = report["limits"].as_array().unwrap();
    limits.iter().find(|limit| limit["limit"] == "RPM").unwrap().clone()
}

/// Runs `file`, and answers how many requests went before the first was answered.
fn ahead(world: &World, server: &Server, file: &str, args: &str) -> u64 {
    let mut running = world.start(&format!("run {file} --base-url {} --report report.json {args}", server.url()));
    let mut most = 0;
    loop {
        let stats = server.stats();
        if stats.answered > 0 {
            break;
        }
        most = stats.admitted.max(most);
        assert!(running.child().try_wait().unwrap().is_none(), "it ended before anything was answered");
        std::thread::sleep(Duration::from_millis(2));
    }
    running.wait().expect(0);
    most
}

#[test]
fn the_second_run_is_not_blind() {
    let world = World::new();
    world.requests("many.jsonl", 0..300);
    world.requests("few.jsonl", 1_000..1_010);
    let blind = ahead(&world, &gateway(), "many.jsonl", "--learned limits.json");
    assert_eq!(blind, 1, "without limits one request goes ahead");
    assert_eq!(rpm(&world)["shapes"], json!(["fixed"]));

    let server = gateway();
    let knowing = ahead(&world, &server, "few.jsonl", "--learned limits.json");
    assert_eq!((knowing, server.stats().refused.total()), (10, 0), "nobody waits for the first answer");
    world.requests("two.jsonl", 2_000..2_002);
    ahead(&world, &gateway(), "two.jsonl", "--learned limits.json");
    let known = rpm(&world);
    assert_eq!(
        (&known["shapes"], &known["enforced"], &known["source"]),
        (&json!(["fixed"]), &"fixed".into(), &"header".into())
    );

    ahead(&world, &gateway(), "two.jsonl", "-o blind.jsonl");
    assert_ne!(rpm(&world)["shapes"], json!(["fixed"]), "two answers alone do not show it");
}

#[test]
fn a_damaged_file_stops_the_run_before_anything_is_sent_and_stays_as_it_is() {
    let world = World::new();
    world.requests("in.jsonl", 0..3);
    let server = gateway();
    world.write("limits.json", "{\"accounts\": [1]}");
    let args = format!("run in.jsonl --base-url {} --learned", server.url());
    world.run(&format!("{args} limits.json")).expect(2).says("limits.json:1:13 holds no learned limits");
    // The likeliest wrong file is one that the user needs.
    world.requests("other.jsonl", 0..3);
    world.run(&format!("{args} other.jsonl")).expect(2).says("name another file");
    world.run(&format!("{args} nowhere/limits.json")).expect(2).says("cannot keep what will be learned");
    assert_eq!(server.stats().requests, 0);
    assert_eq!(world.read("limits.json"), "{\"accounts\": [1]}");
    assert_eq!(world.read("other.jsonl").lines().count(), 3);
}

#[test]
fn what_is_learned_survives_ctrl_c_and_kill() {
    for signal in ["INT", "KILL"] {
        let world = World::new();
        world.requests("in.jsonl", 0..20_000);
        let server = gateway();
        let mut running = world.start(&format!("run in.jsonl --base-url {} --learned limits.json", server.url()));
        let knows = || Learned::load(world.path("limits.json")).is_ok_and(|learned| !learned.accounts.is_empty());
        if signal == "KILL" {
            until("it was kept", knows);
        } else {
            until("something was answered", || server.stats().answered > 1);
        }
        running.signal(signal);
        running.wait();
        assert!(knows(), "{signal}");
    }
}

#[test]
fn the_file_may_be_named_in_the_configuration_and_no_mock_writes_to_it() {
    let world = World::new();
    world.requests("in.jsonl", 0..3);
    let server = gateway();
    let account = format!("[[account]]\nprovider = \"compatible\"\nbase_url = \"{}\"\n", server.url());
    world.write("tollgate.toml", format!("learned_file = \"limits.json\"\n\n{account}"));
    world.run("run in.jsonl --config tollgate.toml --mock --mock-latency 0 -o mock.jsonl").expect(0);
    assert!(!world.has("limits.json"), "an imitation teaches nothing about the provider");
    world.run("run in.jsonl --config tollgate.toml").expect(0);
    let learned = Learned::load(world.path("limits.json")).unwrap();
    assert_eq!(learned.accounts["compatible"]["gpt-4o-mini"][0].limit.amount, 600);
}
