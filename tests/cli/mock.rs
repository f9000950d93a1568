//! `tollgate mock`.

use std::io::{BufRead, BufReader, Read};

use super::world::{Running, World, ended};

/// The mock as a process of its own, and its base URL.
fn start(world: &World, args: &str) -> (Running, BufReader<std::process::ChildStdout>, String) {
    let mut running = world.start(&format!("mock --port 0 {args}"));
    let mut out = BufReader::new(running.child().stdout.take().unwrap());
    let mut url = None;
    while url.is_none() {
        let mut line = String::new();
        assert!(out.read_line(&mut line).unwrap() > 0, "it says how to point a client at it");
        url = line.split("OPENAI_BASE_URL=").nth(1).map(|rest| rest.split(' ').next().unwrap().to_owned());
    }
    (running, out, url.unwrap())
}

#[test]
fn it_serves_limits_until_interrupted_and_tells_what_it_saw() {
    let world = World::new();
    let (mut mock, mut out, url) = start(&world, "--tier 1 --rpm 5 --api-key sk-accepted-key --seed 3");
    assert!(url.starts_with("http://127.0.0.1:") && url.ends_with("/v1"), "{url}");
    world.requests("in.jsonl", 0..7);
    let run = |key: &str, args: &str| {
        let mut command = world.tollgate(&format!("run in.jsonl --base-url {url} --unlimited {args}"));
        command.env("OPENAI_API_KEY", key);
        ended(command)
    };
    run("sk-some-other-key", "--max-attempts 1 -o wrong.jsonl").expect(1);
    // One finds out that the key is refused; the others are spared the call.
    let wrong = world.results("wrong.jsonl");
    let sent = wrong.values().filter(|result| result["response"]["status_code"] == 401).count();
    let codes: Vec<_> = wrong.values().map(|result| result["error"]["code"].clone()).collect();
    assert!((wrong.len(), sent) == (7, 1) && codes.iter().all(|code| code == "invalid_api_key"), "{sent} {codes:?}");
    // The headers show the limit, so that the program holds to it without having been told.
    let mut running = {
        let mut command = world.tollgate(&format!("run in.jsonl --base-url {url} --report report.json"));
        command.env("OPENAI_API_KEY", "sk-accepted-key");
        command.stderr(std::process::Stdio::piped()).spawn().map(Running::of).unwrap()
    };
    super::world::until("five have passed", || {
        world.has("in.results.jsonl") && world.read("in.results.jsonl").lines().count() == 5
    });
    running.signal("INT");
    running.wait().expect(130);
    assert_eq!(world.report()["limits"][0]["source"], "header");

    mock.signal("INT");
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("curl http://127.0.0.1:") && rest.contains("/stats"), "{rest}");
    assert!(rest.contains("answered") && rest.contains("without an accepted key"), "{rest}");
    assert!(!rest.contains("sk-accepted"));
    mock.wait().expect(0);
}

#[test]
fn run_has_its_mock_enforce_other_shapes_than_it_was_told() {
    let world = World::new();
    world.requests("in.jsonl", 0..3);
    let truth = "--mock-shape slice:3 --mock-headers none --mock-charge input --mock-change 3600:0.5";
    // Two in three seconds for the mock, a bucket of 40 for the program: the third is refused, and comes again.
    let row = "--mock-latency 0 --rpm 40 --shape refill --report report.json";
    world.run(&format!("run in.jsonl --mock {row} {truth}")).expect(0);
    let mock = &world.report()["mock"];
    assert_eq!((&mock["refused"]["RPM"], &mock["answered"]), (&1.into(), &3.into()));
}

#[test]
fn nonsense_is_refused() {
    let world = World::new();
    world.run("mock --port 0 --error-503 2").expect(2).says("probabilities from 0 to 1");
    world.run("mock --port 0 --tier 77").expect(2).says("tier 77");
    world.run("mock --port 0 --rpm many").expect(2);
    world.run("mock --port 0 --rpm 1 --shape calendar:utc").expect(2).says("RPM cannot have the shape calendar:utc");
    world.run("mock --port 0 --rpm 1 --change 60").expect(2).says("such as 60:0.5");
    world.run("mock --port 0 --error nothing").expect(2).says("insufficient_quota").says("anthropic_overloaded");
    world.run("").expect(2);
}
