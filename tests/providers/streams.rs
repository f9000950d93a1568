use serde::Deserialize;
use serde_json::{Value, json};
use tollgate::providers::{Provider, classify_stream_error};

use super::seconds;

#[derive(Deserialize)]
struct Row {
    provider: Provider,
    class: String,
    /// Seconds.
    wait: Option<f64>,
    event: Value,
}

#[test]
fn errors_inside_of_a_stream_are_classified_alike() {
    for line in include_str!("streams.jsonl").lines() {
        let row: Row = serde_json::from_str(line).unwrap();
        let failure = classify_stream_error(row.provider, &row.event).unwrap_or_else(|| panic!("no error: {line}"));
        assert_eq!(json!(failure.class), row.class, "{line}");
        assert_eq!(failure.wait, seconds(row.wait), "{line}");
        assert_eq!(failure.status, 200);
    }
}

#[test]
fn events_that_are_no_errors_are_left_alone() {
    for event in [
        json!({"choices": [{"delta": {"content": "error"}}], "usage": null}),
        json!({"error": null, "choices": []}),
        json!({"type": "response.completed", "response": {"error": null}}),
        json!({"type": "ping"}),
        json!("error"),
        json!(null),
    ] {
        assert_eq!(classify_stream_error(Provider::Openai, &event), None, "{event}");
    }
}
