//! The status page, in the form that OpenAI's has.

use bytes::Bytes;
use serde_json::json;

use super::answer::bytes;

/// `/api/v2/summary.json`: all is well, or chat completions have a major outage under the name of `incident`.
pub(crate) fn summary(incident: Option<&str>) -> Bytes {
    let (indicator, description, chat) = match incident {
        None => ("none", "All Systems Operational", "operational"),
        Some(_) => ("major", "Partial System Outage", "major_outage"),
    };
    let incidents: Vec<_> = incident
        .map(|name| json!({ "id": "incident-1", "name": name, "status": "investigating", "impact": indicator }))
        .into_iter()
        .collect();
    let component =
        |id: &str, name: &str, status: &str| json!({ "id": id, "name": name, "status": status, "group": null });
    bytes(&json!({
        "page": { "id": "mock", "name": "Mock", "url": "http://127.0.0.1/status" },
        "status": { "indicator": indicator, "description": description },
        "components": [
            component("c1", "Chat Completions", chat),
            component("c2", "Responses", "operational"),
            component("c3", "Embeddings", "operational"),
        ],
        "incidents": incidents,
        "scheduled_maintenances": [],
    }))
}
