//! Status pages: what a provider says about itself.
//!
//! Read are Statuspage's `summary.json` (Anthropic, Groq), what incident.io serves at the same path (OpenAI), and incident.io's
//! own form (`ongoing_incidents`). Everything is taken leniently: a word that nobody knows is [`Indicator::Unknown`], and
//! an incident may name no component at all, as OpenAI's do.

use serde::Serialize;
use serde_json::Value;

use super::Provider;
use super::classify::clean;

/// Where a provider tells how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusPage {
    /// The page for people.
    pub url: &'static str,
    /// The same for programs; `None` where there is no known one.
    pub summary: Option<&'static str>,
}

impl Provider {
    /// Its status page; `None` for servers of your own.
    pub const fn status_page(self) -> Option<StatusPage> {
        let (url, summary) = match self {
            Provider::Openai => ("https://status.openai.com", Some("https://status.openai.com/api/v2/summary.json")),
            Provider::Anthropic => ("https://status.claude.com", Some("https://status.claude.com/api/v2/summary.json")),
            Provider::Groq => ("https://groqstatus.com", Some("https://groqstatus.com/api/v2/summary.json")),
            Provider::Azure => ("https://azure.status.microsoft/status", None),
            Provider::Gemini => ("https://aistudio.google.com/status", None),
            Provider::Mistral => ("https://status.mistral.ai", None),
            Provider::Compatible => return None,
        };
        Some(StatusPage { url, summary })
    }

    /// Whether a component of its status page is what calls of `model` to `path` (`/chat/completions`) need.
    ///
    /// OpenAI's components are endpoints, Anthropic's are products, most of Groq's are models. A name that tells
    /// nothing about calls is no concern; pages of servers of your own are all concern.
    ///
    /// ```
    /// use tollgate::Provider;
    ///
    /// assert!(Provider::Openai.depends_on("Chat Completions", "/chat/completions", None));
    /// assert!(!Provider::Openai.depends_on("Voice mode", "/chat/completions", None));
    /// assert!(Provider::Anthropic.depends_on("Claude API (api.anthropic.com)", "/chat/completions", None));
    /// ```
    pub fn depends_on(self, component: &str, path: &str, model: Option<&str>) -> bool {
        let name = component.to_ascii_lowercase();
        let has = |word: &str| name.contains(word);
        match self {
            Provider::Openai => {
                let own = match path {
                    "/responses" => "responses",
                    "/embeddings" => "embeddings",
                    _ => "chat completions",
                };
                has(own) || matches!(name.trim(), "api" | "apis" | "login")
            }
            Provider::Anthropic => has("api.anthropic.com") || has("claude api"),
            Provider::Groq => {
                let named = model.is_some_and(|model| has(&model.to_ascii_lowercase()));
                named || matches!(name.trim(), "api" | "groqcloud" | "groqcloud api" | "inference")
            }
            Provider::Azure => has("openai"),
            Provider::Gemini => has("gemini"),
            Provider::Mistral => has("api") || has("completion"),
            Provider::Compatible => true,
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Indicator {
    /// The page uses a word that is not known.
    #[default]
    Unknown,
    /// All is well.
    None,
    /// Work is being done, as announced.
    Maintenance,
    /// Slower or worse than usual.
    Minor,
    /// Part of it does not work.
    Major,
    /// It does not work.
    Critical,
}

impl Indicator {
    /// From the words of either form, of pages, incidents and components.
    fn read(word: &str) -> Self {
        match word {
            "none" | "operational" => Indicator::None,
            "minor" | "degraded_performance" => Indicator::Minor,
            "major" | "partial_outage" => Indicator::Major,
            "critical" | "major_outage" | "full_outage" => Indicator::Critical,
            "maintenance" | "under_maintenance" => Indicator::Maintenance,
            _ => Indicator::Unknown,
        }
    }

    /// Whether calls may fail because of it.
    pub fn is_trouble(self) -> bool {
        self >= Indicator::Minor
    }
}

/// A part of the provider, as its page lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// How it is.
    pub status: Indicator,
}

/// An incident that is not over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Incident {
    /// Its title.
    pub name: String,
    /// `investigating`, `identified`, `monitoring`, …
    pub stage: Option<String>,
    /// How bad it is.
    pub impact: Indicator,
    /// The parts that it names; often none.
    pub components: Vec<Component>,
}

/// What a status page says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StatusReport {
    /// The whole page's indicator.
    pub indicator: Indicator,
    /// The same in words, where there are any.
    pub description: Option<String>,
    /// Parts that are not operational. A page may leave out all the others.
    pub components: Vec<Component>,
    /// Incidents that are not over.
    pub incidents: Vec<Incident>,
}

impl StatusReport {
    /// Reads a summary in any of the forms; `None` when it is none of them, which tells nothing about the provider.
    ///
    /// ```
    /// use tollgate::providers::{Indicator, StatusReport};
    ///
    /// let page = br#"{"status": {"indicator": "minor", "description": "Partially Degraded Service"}, "incidents": [],
    ///     "components": [{"name": "Chat Completions", "status": "degraded_performance", "group": null}]}"#;
    /// let report = StatusReport::read(page).unwrap();
    /// assert_eq!((report.indicator, report.components[0].name.as_str()), (Indicator::Minor, "Chat Completions"));
    /// assert_eq!(StatusReport::read(b"<html>"), None);
    /// ```
    pub fn read(body: &[u8]) -> Option<Self> {
        let json: Value = serde_json::from_slice(body).ok()?;
        let root = json.get("summary").unwrap_or(&json);
        let listed = components(root);
        let mut report = if root.get("status").is_some_and(Value::is_object) {
            statuspage(root)
        } else {
            incident_io(root, &listed)?
        };
        report.components = listed.into_iter().map(|(_, component)| component).collect();
        for component in report.incidents.iter().flat_map(|incident| &incident.components) {
            if !report.components.iter().any(|known| known.name == component.name) {
                report.components.push(component.clone());
            }
        }
        report.components.retain(|component| component.status.is_trouble());
        Some(report)
    }

    /// The parts in trouble that calls of `model` to `path` need, by name; see [`Provider::depends_on`].
    pub fn affected(&self, provider: Provider, path: &str, model: Option<&str>) -> Vec<&Component> {
        self.components.iter().filter(|component| provider.depends_on(&component.name, path, model)).collect()
    }

    /// The incidents that may be about such calls: those that name one of the parts, and those that name no part at all
    /// while one of the parts is in trouble or the page lists none that is.
    pub fn concerning(&self, provider: Provider, path: &str, model: Option<&str>) -> Vec<&Incident> {
        let needed = |component: &Component| provider.depends_on(&component.name, path, model);
        let open = self.components.is_empty() || self.components.iter().any(needed);
        let concerns = |incident: &&Incident| match incident.components.is_empty() {
            true => open,
            false => incident.components.iter().any(needed),
        };
        self.incidents.iter().filter(concerns).collect()
    }
}

fn statuspage(root: &Value) -> StatusReport {
    let status = &root["status"];
    let over = ["resolved", "postmortem", "completed", "scheduled"];
    let mut incidents: Vec<Incident> = list(root, "incidents").iter().filter_map(|json| incident(json, &[])).collect();
    incidents.retain(|incident| incident.stage.as_deref().is_none_or(|stage| !over.contains(&stage)));
    StatusReport {
        indicator: status["indicator"].as_str().map(Indicator::read).unwrap_or_default(),
        description: text(status, "description"),
        components: Vec::new(),
        incidents,
    }
}

/// incident.io's own form has no indicator: it is the worst of what is going on.
fn incident_io(root: &Value, listed: &[(String, Component)]) -> Option<StatusReport> {
    let ongoing = root.get("ongoing_incidents")?.as_array()?;
    let incidents: Vec<Incident> = ongoing.iter().filter_map(|json| incident(json, listed)).collect();
    let working = !list(root, "in_progress_maintenances").is_empty();
    let calm = if working { Indicator::Maintenance } else { Indicator::None };
    let worst = incidents.iter().map(|incident| incident.impact).max().unwrap_or(calm);
    Some(StatusReport { indicator: worst, description: None, components: Vec::new(), incidents })
}

fn incident(json: &Value, listed: &[(String, Component)]) -> Option<Incident> {
    let named = |key| list(json, key).iter().filter_map(|part| component(part, listed)).collect::<Vec<_>>();
    let mut components = named("components");
    components.extend(named("affected_components"));
    let stated = text(json, "impact").or_else(|| text(json, "current_worst_impact"));
    let worst = components.iter().map(|component| component.status).max();
    Some(Incident {
        name: text(json, "name")?,
        stage: text(json, "status"),
        impact: stated.map(|word| Indicator::read(&word)).or(worst).unwrap_or_default(),
        components,
    })
}

/// The page's own list, with ids: incident.io tells in a second list which of them are affected.
fn components(root: &Value) -> Vec<(String, Component)> {
    // Statuspage's groups are headings.
    let parts = list(root, "components").iter().filter(|part| part["group"].as_bool() != Some(true));
    let mut found: Vec<(String, Component)> =
        parts.filter_map(|part| Some((text(part, "id").unwrap_or_default(), component(part, &[])?))).collect();
    for part in list(root, "affected_components") {
        let (Some(id), Some(status)) = (text(part, "component_id"), status(part)) else { continue };
        found.iter_mut().filter(|(known, _)| *known == id).for_each(|(_, component)| component.status = status);
    }
    found
}

fn component(json: &Value, listed: &[(String, Component)]) -> Option<Component> {
    let id = text(json, "component_id");
    let known = listed.iter().find(|(known, _)| Some(known) == id.as_ref()).map(|(_, component)| component);
    let name = text(json, "name").or_else(|| Some(known?.name.clone()))?;
    Some(Component { name, status: status(json).or(known.map(|known| known.status)).unwrap_or_default() })
}

fn status(json: &Value) -> Option<Indicator> {
    text(json, "status").or_else(|| text(json, "current_status")).map(|word| Indicator::read(&word))
}

fn list<'a>(json: &'a Value, key: &str) -> &'a [Value] {
    json.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Words of a page, fit to be shown.
fn text(json: &Value, key: &str) -> Option<String> {
    json.get(key)?.as_str().map(clean).filter(|text| !text.is_empty())
}
