//! The file that is shipped to try it.

use serde_json::Value;

use super::world::World;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/requests.jsonl");

#[test]
fn the_shipped_example_runs_against_the_mock_without_a_429() {
    let world = World::new();
    std::fs::copy(EXAMPLE, world.path("requests.jsonl")).unwrap();
    // Tight enough to be held for some seconds by the requests, whose charge is sure.
    world.run("run requests.jsonl --mock --mock-latency 0.1 --rpm 260 --tpm 2m --report report.json").expect(0);
    let rows = world.read("requests.jsonl").lines().count();
    let results = world.results("requests.results.jsonl");
    assert_eq!(results.len(), rows);
    assert!(results.values().all(|result| result["response"]["status_code"] == 200 && result["error"].is_null()));
    assert_eq!(results.keys().filter(|id| id.starts_with("weekly-digest-")).count(), 12);

    let report = world.report();
    assert_eq!((&report["rate_limited"], &report["retries"]), (&Value::from(0), &Value::from(0)));
    let ratio = report["ratio"].as_f64().unwrap();
    // The span is read at this end, so the bound is met up to what the network adds to the first request.
    assert!((0.98..1.5).contains(&ratio), "{ratio}");
    assert!(!world.has("requests.results.jsonl.journal"), "the job is complete");
}

#[test]
fn the_report_has_every_figure_and_agrees_with_the_mock() {
    let world = World::new();
    world.requests("in.jsonl", 0..40);
    world.run("run in.jsonl --mock --mock-latency 0.01 --rpm 2000 --tpd 1m --report report.json").expect(0);
    let report = world.report();
    for field in ["total", "done_before", "succeeded", "failed", "skipped", "uncertain"] {
        assert!(report["rows"][field].is_u64(), "{field}");
    }
    for field in ["elapsed_s", "admission_span_s", "lower_bound_s"] {
        assert!(report[field].is_f64(), "{field}");
    }
    assert!(report["ratio"].is_null(), "nothing had to wait");
    let limits = report["limits"].as_array().unwrap();
    let names: Vec<_> = limits.iter().map(|limit| limit["limit"].as_str().unwrap()).collect();
    assert_eq!(names, ["RPM", "TPD"]);
    let rpm = &limits[0];
    assert_eq!(
        (&rpm["account"], &rpm["pool"], &rpm["source"]),
        (&"openai".into(), &"gpt-4o-mini".into(), &"configured".into())
    );
    assert_eq!(
        (rpm["amount"].as_u64(), rpm["window_s"].as_f64(), rpm["spent"].as_u64()),
        (Some(2000), Some(60.0), Some(40))
    );
    assert!((0.019..0.021).contains(&rpm["use"].as_f64().unwrap()), "{rpm}");
    let mock = &report["mock"];
    let used = mock["used_input_tokens"].as_u64().unwrap() + mock["used_output_tokens"].as_u64().unwrap();
    assert_eq!((report["used_tokens"].as_u64(), report["attempts"].as_u64()), (Some(used), mock["admitted"].as_u64()));
    assert!(report["estimated_tokens"].as_u64().unwrap() > used);
    for field in ["rate_limited", "retries", "failed_attempts"] {
        assert_eq!(report[field], 0, "{field}");
    }
}

#[test]
fn a_tier_gives_every_model_its_own_limits_on_both_sides() {
    let world = World::new();
    world.write(
        "in.jsonl",
        "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":5}\n\
         {\"model\":\"text-embedding-3-small\",\"input\":\"b\"}\n",
    );
    world.run("run in.jsonl --mock --tier 1 --mock-latency 0 --report report.json").expect(0);
    let report = world.report();
    let limits = report["limits"].as_array().unwrap();
    let amount = |pool: &str| {
        limits.iter().find(|limit| limit["pool"] == pool && limit["limit"] == "RPM").unwrap()["amount"].clone()
    };
    assert_ne!(amount("gpt-4o-mini"), amount("text-embedding-3-small"));
    assert!(limits[0]["source"].as_str().unwrap().starts_with("tier1 of "));
    world.run("run in.jsonl --mock --tier 9").expect(2).says("tier9");
}
