//! Several accounts and fallbacks in a configuration file.

use serde_json::json;

use super::world::{Recorder, World, ended};

const FIRST: &str = "sk-canary-first-0123456789";
const SECOND: &str = "sk-canary-second-0123456789";

fn config(first: &str, second: &str) -> String {
    format!(
        "[[account]]\nbase_url = \"{first}\"\nkeys = [{{ env = \"FIRST\" }}]\n\n\
         [[account]]\nprovider = \"mistral\"\nbase_url = \"{second}\"\nkeys = [{{ env = \"SECOND\" }}]\n\n\
         [[fallback]]\nmodel = \"gpt-4o-mini\"\nroutes = [{{ account = \"mistral\", model = \"mistral-small-latest\" }}]\n"
    )
}

#[test]
fn rows_go_on_at_a_fallback_when_the_account_has_no_credit_left() {
    let world = World::new();
    world.requests("in.jsonl", 0..20);
    let broke = Recorder::start(|_| {
        (
            429,
            json!({"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}).to_string(),
        )
    });
    // As careless as a server can be.
    let second = Recorder::start(|seen| (200, json!({"you sent": seen.headers, "body": seen.body}).to_string()));
    world.write("tollgate.toml", config(&broke.url(), &second.url()));
    let mut command = world.tollgate("run in.jsonl -v --config tollgate.toml");
    command.env("FIRST", FIRST).env("SECOND", SECOND);
    let run = ended(command).expect(0).says("account openai left the rotation until it is restored: 429");
    assert!((1..=20).contains(&broke.seen().len()), "at most what was under way when the first answer came");
    let seen = second.seen();
    assert_eq!(seen.len(), 20);
    assert!(seen.iter().all(|seen| seen.body.contains("mistral-small-latest") && seen.headers.contains(SECOND)));
    let shown = format!("{}{}{}", run.out, run.err, world.read("in.results.jsonl"));
    assert!(!shown.contains("canary"), "{shown}");
}

#[test]
fn with_the_mock_no_account_of_the_file_is_asked() {
    let world = World::new();
    world.requests("in.jsonl", 0..20);
    let (first, second) = (Recorder::ok(), Recorder::ok());
    world.write("tollgate.toml", config(&first.url(), &second.url()));
    world.run("run in.jsonl --mock --mock-latency 0 --config tollgate.toml").expect(0);
    assert_eq!((first.seen().len(), second.seen().len()), (0, 0));
}
