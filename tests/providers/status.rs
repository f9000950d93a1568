use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate::providers::{Indicator, Provider, StatusReport};

const CHAT: &str = "/chat/completions";

fn read(page: &Value) -> StatusReport {
    StatusReport::read(page.to_string().as_bytes()).unwrap_or_else(|| panic!("no status page: {page}"))
}

fn affected(report: &StatusReport, provider: Provider, path: &str, model: Option<&str>) -> Vec<String> {
    report.affected(provider, path, model).iter().map(|component| component.name.clone()).collect()
}

fn concerning(report: &StatusReport, provider: Provider) -> Vec<String> {
    report.concerning(provider, CHAT, None).iter().map(|incident| incident.name.clone()).collect()
}

/// As status.openai.com answers: incidents do not name their components.
#[test]
fn an_openai_summary_tells_which_endpoint_is_affected() {
    let page = json!({
        "page": {"id": "01JMDK9XYNY6RXSED6SDWW50WY", "name": "OpenAI", "url": "https://status.openai.com"},
        "status": {"indicator": "minor", "description": "Partially Degraded Service"},
        "components": [
            {"id": "01JMXBRMFE6N2NNT7DG6XZQ6PW", "name": "Chat Completions", "status": "degraded_performance", "group": null},
            {"id": "01JP8CD9JR3HR6Y7G4Q75N4DVW", "name": "Responses", "status": "operational", "group": null},
            {"id": "c", "name": "Voice mode", "status": "major_outage", "group": null},
        ],
        "incidents": [
            {"id": "i", "name": "Elevated error rates", "status": "investigating", "impact": "minor"},
            {"id": "j", "name": "Over", "status": "resolved", "impact": "major"},
        ],
    });
    let report = read(&page);
    assert_eq!(
        (report.indicator, report.description.as_deref()),
        (Indicator::Minor, Some("Partially Degraded Service"))
    );
    assert_eq!(affected(&report, Provider::Openai, CHAT, None), ["Chat Completions"]);
    assert!(affected(&report, Provider::Openai, "/responses", None).is_empty());
    assert_eq!(concerning(&report, Provider::Openai), ["Elevated error rates"]);
    assert!(report.concerning(Provider::Openai, "/embeddings", None).is_empty(), "what is down is something else");
}

/// As status.claude.com answers: groups are headings, incidents may name components.
#[test]
fn a_statuspage_summary_tells_which_product_is_affected() {
    let page = json!({
        "status": {"indicator": "major", "description": "Partial System Outage"},
        "components": [
            {"id": "g", "name": "Claude API (all)", "status": "major_outage", "group": true},
            {"id": "a", "name": "claude.ai", "status": "partial_outage", "group": false},
            {"id": "b", "name": "Claude API (api.anthropic.com)", "status": "operational", "group": false},
        ],
        "incidents": [
            {"name": "Login trouble", "status": "identified", "impact": "major",
             "components": [{"id": "a", "name": "claude.ai", "status": "partial_outage"}]},
        ],
    });
    let report = read(&page);
    assert_eq!(report.incidents[0].impact, Indicator::Major);
    assert!(affected(&report, Provider::Anthropic, CHAT, None).is_empty());
    assert!(concerning(&report, Provider::Anthropic).is_empty(), "another product");
}

#[test]
fn a_page_of_models_tells_which_model_is_affected() {
    let page = json!({
        "status": {"indicator": "minor"},
        "components": [
            {"name": "openai/gpt-oss-20b", "status": "partial_outage"},
            {"name": "whisper-large-v3", "status": "major_outage"},
        ],
    });
    let report = read(&page);
    let model = Some("openai/gpt-oss-20b");
    assert_eq!(affected(&report, Provider::Groq, CHAT, model), ["openai/gpt-oss-20b"]);
    assert!(affected(&report, Provider::Groq, CHAT, Some("llama-3.1-8b-instant")).is_empty());
}

#[test]
fn incident_ios_own_forms_are_read() {
    let widget = json!({
        "page_title": "OpenAI", "page_url": "https://status.openai.com",
        "ongoing_incidents": [{
            "id": "i", "name": "Errors", "status": "identified", "current_worst_impact": "partial_outage",
            "affected_components": [{"id": "c", "name": "Chat Completions", "current_status": "partial_outage"}],
        }],
        "in_progress_maintenances": [], "scheduled_maintenances": [],
    });
    let report = read(&widget);
    assert_eq!(report.indicator, Indicator::Major);
    assert_eq!(affected(&report, Provider::Openai, CHAT, None), ["Chat Completions"]);
    assert_eq!(concerning(&report, Provider::Openai), ["Errors"]);

    let nested = json!({"summary": {
        "components": [{"id": "c", "name": "Chat Completions"}, {"id": "d", "name": "Login"}],
        "affected_components": [{"component_id": "c", "status": "full_outage"}],
        "ongoing_incidents": [{"name": "Down", "status": "investigating",
            "affected_components": [{"component_id": "c", "status": "full_outage"}], "component_impacts": []}],
    }});
    let report = read(&nested);
    assert_eq!((report.indicator, report.components.len()), (Indicator::Critical, 1));
    assert_eq!(affected(&report, Provider::Openai, CHAT, None), ["Chat Completions"]);

    let calm = json!({"ongoing_incidents": [], "in_progress_maintenances": [{"name": "x"}]});
    assert_eq!(read(&calm).indicator, Indicator::Maintenance);
    assert_eq!(read(&json!({"ongoing_incidents": []})).indicator, Indicator::None);
}

#[test]
fn what_is_no_status_page_tells_nothing_and_unknown_words_are_no_trouble() {
    for page in ["", "<html>", "[]", "{}", "null", "{\"status\": \"ok\"}", "{\"error\": {\"message\": \"x\"}}"] {
        assert_eq!(StatusReport::read(page.as_bytes()), None, "{page}");
    }
    let report = read(&json!({"status": {"indicator": "purple"}, "components": [{"name": "API", "status": "wobbly"}]}));
    assert_eq!((report.indicator, report.components.len()), (Indicator::Unknown, 0));
    assert!(!report.indicator.is_trouble());
}

#[test]
fn every_provider_but_your_own_server_has_a_page() {
    for provider in Provider::ALL {
        assert_eq!(provider.status_page().is_none(), provider == Provider::Compatible, "{provider}");
    }
}

proptest! {
    #[test]
    fn random_pages_are_read_without_panic(words in prop::collection::vec("[a-z_]{0,12}", 6), flag: bool) {
        let part = json!({"id": words[0], "name": words[1], "status": words[2], "group": flag, "component_id": words[0]});
        let incident = json!({"name": words[3], "status": words[4], "impact": words[5], "affected_components": [part]});
        let page = json!({"status": {"indicator": words[5]}, "components": [part], "incidents": [incident, part, 1],
            "ongoing_incidents": [incident, null], "affected_components": [part, "x"]});
        let report = read(&page);
        let _ = report.concerning(Provider::Groq, CHAT, Some(&words[1]));
    }
}
