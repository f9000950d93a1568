//! Rows that are equal are asked once.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::mock::MockConfig;

use super::world::{Recorder, Server, World, batch};

/// A row that has one right answer, with a name of its own.
fn row(name: usize, question: usize) -> Value {
    let mut row = batch(&format!("row {name}"));
    row["body"]["messages"][0]["content"] = format!("question {question}").into();
    row["body"]["temperature"] = json!(0);
    row
}

fn lines(rows: impl Iterator<Item = Value>) -> String {
    rows.map(|row| format!("{row}\n")).collect()
}

#[test]
fn a_file_with_thirty_percent_duplicates_takes_thirty_percent_fewer_calls() {
    let (world, server) = (World::new(), Server::slow(0.02));
    world.write("in.jsonl", lines((0..2_000).map(|name| row(name, name % 1_400))));
    world.run(&format!("run in.jsonl --cache-memory --report report.json {}", server.at())).expect(0);
    let results = world.results("in.results.jsonl");
    assert_eq!((results.len(), server.stats().requests), (2_000, 1_400));
    let cache = &world.report()["cache"];
    assert_eq!(cache["fresh"].as_u64().unwrap() + cache["shared"].as_u64().unwrap(), 600);
    let body = |name: usize| &results[&format!("row {name}")]["response"]["body"];
    assert!((0..600).all(|name| body(name) == body(name + 1_400)));
}

#[test]
fn answers_in_a_folder_serve_the_next_run_and_other_files() {
    let (world, server) = (World::new(), Server::start(MockConfig::default()));
    world.write("one.jsonl", lines((0..20).map(|name| row(name, name))));
    world.write("two.jsonl", lines((0..30).map(|name| row(100 + name, name))));
    world.run(&format!("run one.jsonl --cache answers {}", server.at())).expect(0);
    world.run(&format!("run two.jsonl --cache answers {}", server.at())).expect(0).says("answered without a call");
    assert_eq!((server.stats().requests, world.results("two.results.jsonl").len()), (30, 30));
    world.write("answers/answers.v1.sqlite", "damaged");
    world.run(&format!("run one.jsonl -o three.jsonl --cache answers {}", server.at())).expect(0).says("begun anew");
    assert_eq!(server.stats().requests, 50);
}

#[test]
fn rows_that_are_sampled_are_all_sent_unless_asked() {
    let (world, server) = (World::new(), Recorder::ok());
    let sampled = |name: usize| {
        let mut row = row(name, 0);
        row["body"]["temperature"] = json!(0.7);
        row
    };
    world.write("in.jsonl", lines((0..5).map(sampled)));
    world.run(&format!("run in.jsonl -o a.jsonl --cache-memory {}", server.at())).expect(0);
    assert_eq!(server.seen().len(), 5);
    world.run(&format!("run in.jsonl -o b.jsonl --cache-memory --cache-sampled {}", server.at())).expect(0);
    assert_eq!((server.seen().len(), world.results("b.jsonl").len()), (6, 5));
}

#[test]
fn equal_rows_share_what_the_provider_refuses() {
    let world = World::new();
    // Slow enough that all are under way at once.
    let server = Recorder::start(|_| {
        std::thread::sleep(Duration::from_millis(300));
        (400, r#"{"error": {"message": "no", "code": "bad"}}"#.to_owned())
    });
    world.write("in.jsonl", lines((0..5).map(|name| row(name, 0))));
    world.run(&format!("run in.jsonl --cache-memory {}", server.at())).expect(1);
    let results = world.results("in.results.jsonl");
    assert!(results.len() == 5 && results.values().all(|result| result["error"]["code"] == "bad"), "{results:?}");
    assert_eq!(server.seen().len(), 1);
}

#[test]
fn settings_of_a_cache_that_is_not_there_are_refused() {
    let world = World::new();
    world.write("in.jsonl", lines((0..1).map(|name| row(name, 0))));
    world.run("run in.jsonl --mock --cache-ttl 60").expect(2).says("--cache DIR or --cache-memory");
}
