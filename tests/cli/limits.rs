//! `tollgate limits`: what is known of the limits, and from where.

use serde_json::{Value, json};
use tollgate::mock::{MockConfig, MockLimits, NamedError};

use super::world::{Server, World, ended};

const CANARY: &str = "sk-canary-0123456789abcdef";

/// The limits by pool and name.
fn known(world: &World, args: &str) -> Vec<(String, Value)> {
    let shown: Value = serde_json::from_str(&world.run(&format!("limits --json {args}")).expect(0).out).unwrap();
    let limits = shown["limits"].as_array().unwrap().iter();
    let name = |limit: &Value| format!("{} {}", limit["pool"].as_str().unwrap(), limit["limit"].as_str().unwrap());
    limits.map(|limit| (name(limit), limit.clone())).collect()
}

fn sources(known: &[(String, Value)]) -> Vec<(&str, &str)> {
    known.iter().map(|(name, limit)| (name.as_str(), limit["source"].as_str().unwrap())).collect()
}

#[test]
fn each_number_names_its_source_and_nothing_is_sent() {
    let world = World::new();
    let typed = known(&world, "--tier 1 --model gpt-4o --rpm 50");
    assert_eq!(sources(&typed), [("gpt-4o RPM", "configured"), ("gpt-4o TPM", "tier1 of 2026-09-24")]);
    assert_eq!((&typed[1].1["amount"], &typed[1].1["shapes"]), (&json!(30_000), &json!(["refill"])));
    assert!(typed[1].1["left"].is_null(), "without an answer nobody knows what is left");

    let server = Server::start(MockConfig::default());
    world.requests("in.jsonl", 0..2);
    let account = |rest: &str| format!("[[account]]\nprovider = \"groq\"\nbase_url = \"{}\"\n{rest}\n", server.url());
    let other = "[[account]]\nprovider = \"azure\"\n[account.models.\"deployment\"]\nrpm = 60\n\n\
                 [[fallback]]\nmodel = \"gpt-4o\"\nroutes = [{ account = \"azure\", model = \"spare\" }]\n";
    let fact = |shape: &str| {
        json!({"limit": {"dimension": "requests", "amount": 70, "window": {"secs": 60, "nanos": 0}, "shape": null},
            "from_header": true, "shapes": [shape], "suspected": [], "rules": ["larger_plus_cap"]})
    };
    let learned =
        json!({"accounts": {"groq": {"seen before": [fact("refill")]}, "azure": {"deployment": [fact("fixed")]}}});
    world.write("limits.json", learned.to_string());
    world.write("tollgate.toml", format!("learned_file = \"limits.json\"\n{}{other}", account("tier = \"free\"")));
    let all = known(&world, "--config tollgate.toml");
    assert_eq!(sources(&all), [("seen before RPM", "learned"), ("deployment RPM", "configured")]);
    assert_eq!(server.stats().requests, 0);
    let table = world.run("limits --config tollgate.toml").expect(0).out;
    for cell in
        ["account", "seen before", "learned", "azure", "slice:10", "configured", "spare of azure: no limit is known"]
    {
        assert!(table.contains(cell), "{cell} is missing in\n{table}");
    }
}

#[test]
fn a_tier_alone_is_shown_whole_and_what_is_unknown_is_said() {
    let world = World::new();
    let tier = known(&world, "--provider groq --tier free");
    assert!(sources(&tier).contains(&("gpt-oss-20b TPD", "free of 2026-08")), "{:?}", sources(&tier));
    assert!(world.run("limits").expect(0).out.contains("no limit is known; name a --tier"));
    let unknown = world.run("limits --model gpt-4o").expect(0);
    assert!(unknown.out.contains("gpt-4o of openai: no limit is known"), "{}", unknown.out);
    world.run("limits --learned nowhere.json").expect(2).says("`tollgate run --learned` makes it");
    world.run("limits --tier 77").expect(2).says("no tier tier77");
}

#[test]
fn what_a_run_learned_is_shown_with_the_shape_that_it_found() {
    let world = World::new();
    let limits = MockLimits { rpm: Some(600), tpm: Some(90_000), ..MockLimits::default() };
    let server = Server::start(MockConfig { limits, ..MockConfig::default() });
    world.requests("in.jsonl", 0..100);
    world.run(&format!("run in.jsonl --base-url {} --learned limits.json", server.url())).expect(0);
    let known = known(&world, &format!("--base-url {} --learned limits.json", server.url()));
    assert_eq!(sources(&known), [("gpt-4o-mini RPM", "learned"), ("gpt-4o-mini TPM", "learned")]);
    assert_eq!((&known[0].1["amount"], &known[0].1["learned"]), (&json!(600), &json!(true)));
    assert_eq!(server.stats().requests, 100);
}

#[test]
fn a_probe_sends_one_paid_call_says_so_and_shows_what_its_headers_said() {
    let world = World::new();
    // Requests come back every twelve seconds.
    let limits = MockLimits { rpm: Some(5), tpm: Some(20_000), ..MockLimits::default() };
    let server = Server::start(MockConfig { limits, keys: Some(vec![CANARY.into()]), ..MockConfig::default() });
    let probe = |args: &str| {
        let mut command = world.tollgate("limits --provider openai --tier 1 --model gpt-4o --probe");
        command.args(["--base-url", &server.url()]).args(args.split_whitespace()).env("OPENAI_API_KEY", CANARY);
        ended(command)
    };
    let shown = probe("").expect(0).says("one call of some ten tokens to gpt-4o, paid like any other");
    for cell in ["header", "left", "full again", "in 1", "x-ratelimit-limit-tokens: 20000"] {
        assert!(shown.out.contains(cell), "{cell} is missing in\n{}", shown.out);
    }
    assert!(!shown.out.contains("canary") && !shown.err.contains("canary"));
    assert_eq!(server.stats().requests, 1);
    let shown: Value = serde_json::from_str(&probe("--json").expect(0).out).unwrap();
    let [rpm, tpm] = [0, 1].map(|index| &shown["limits"][index]);
    assert_eq!((&rpm["source"], &rpm["amount"], &rpm["left"]), (&json!("header"), &json!(5), &json!(3)));
    assert_eq!((&tpm["source"], &tpm["amount"]), (&json!("header"), &json!(20_000)));
    assert!(tpm["full_in_s"].as_f64().unwrap() < 1.0);

    world.run("limits --model gpt-4o --probe").expect(2).says("export OPENAI_API_KEY=…");
    world.run("limits --probe").expect(2).says("--model");
}

#[test]
fn a_refused_probe_says_why() {
    let world = World::new();
    let error: NamedError = "insufficient_quota".parse().unwrap();
    let server = Server::start(MockConfig { error: Some(error), ..MockConfig::default() });
    let args = format!("limits --base-url {} --provider openai --tier 1 --model gpt-4o --probe", server.url());
    let shown = world.run(&args).expect(1);
    assert!(shown.out.contains("gpt-4o: 429 insufficient_quota") && shown.out.contains("30,000"), "{}", shown.out);
    assert_eq!(server.stats().requests, 0, "a played error meets no limit");
}

#[test]
fn to_show_limits_takes_no_secret_and_opens_no_cache() {
    let world = World::new();
    let settings = "[[account]]\nprovider = \"openai\"\ntier = 1\n\n[cache]\nfolder = \"answers\"\n\n\
                    [watch.webhook]\nurl = \"https://example.com/hook\"\nsecret_env = \"NOT_SET_ANYWHERE\"\n";
    world.write("tollgate.toml", settings);
    world.run("limits --config tollgate.toml --model gpt-4o").expect(0);
    assert_eq!(world.files(), ["tollgate.toml"]);
}
