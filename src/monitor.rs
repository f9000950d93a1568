//! Looks at the status pages of the providers in use, and holds what they say against what our own calls meet.
//!
//! One task for each page, which ends with the scheduler. What cannot be read changes nothing: a page that is away says
//! nothing about its provider.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use tokio::runtime::Handle;

use crate::client::is_loopback;
use crate::clock;
use crate::config::{Config, ConfigError};
use crate::engine::Moment;
use crate::event::{Event, Listener};
use crate::lane::Lanes;
use crate::providers::{Component, Indicator, Provider, StatusReport};

/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most that is read of a page; OpenAI's has some twenty kilobytes.
const LARGEST: usize = 1 << 20;
/// Part of the interval by which a look comes earlier or later, so that many programs do not look at once.
const JITTER: f64 = 0.1;

/// Starts to look at the pages of every provider that has an account and a page for programs.
pub(crate) fn start(config: &Config, lanes: &Arc<Lanes>, listener: &Listener) -> Result<(), ConfigError> {
    let watch = &config.watch;
    let unusable = |problem| ConfigError::Watch { problem };
    if watch.status_interval.is_zero() {
        return Err(unusable("watch.status_interval is 0; status pages bear a look every few seconds at most"));
    }
    let runtime = Handle::try_current()
        .map_err(|_| unusable("status pages are watched by a task; build the scheduler inside a tokio runtime"))?;
    let providers: BTreeSet<_> = config.accounts.iter().map(|account| account.provider).collect();
    for provider in providers {
        let own = provider.status_page().and_then(|page| page.summary);
        let Some(url) = watch.status_urls.get(&provider).map(String::as_str).or(own) else { continue };
        let url = Url::parse(url.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let url = url.ok_or(unusable("one of watch.status_urls is no address that begins with http:// or https://"))?;
        let http = Client::builder()
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .timeout(PATIENCE)
            .redirect(Policy::limited(3));
        let http = if is_loopback(url.as_str()) { http.no_proxy() } else { http };
        let page = Page {
            provider,
            url,
            http: http.build().map_err(|error| ConfigError::Client(error.into()))?,
            interval: watch.status_interval,
            etag: None,
            report: None,
            incidents: Incidents::default(),
            lanes: Arc::downgrade(lanes),
            listener: listener.clone(),
        };
        runtime.spawn(page.watch());
    }
    Ok(())
}

/// One page, and what was told of it.
struct Page {
    provider: Provider,
    url: Url,
    http: Client,
    interval: Duration,
    /// The version of the page that was read last …
    etag: Option<HeaderValue>,
    /// … and what it said.
    report: Option<StatusReport>,
    incidents: Incidents,
    /// Weak: gone when the scheduler is.
    lanes: Weak<Lanes>,
    listener: Listener,
}

impl Page {
    async fn watch(mut self) {
        loop {
            self.look().await;
            // Other calls may be made now, which the same page concerns.
            let Some(calls) = self.calls() else { return };
            if let Some(report) = &self.report {
                let troubles = troubles(report, self.provider, &calls.models);
                for event in self.incidents.update(self.provider, troubles, &calls.failing, clock::now()) {
                    self.listener.tell(&event);
                }
            }
            let part = 1.0 + JITTER * (2.0 * fastrand::f64() - 1.0);
            tokio::time::sleep(self.interval.mul_f64(part)).await;
            if self.lanes.strong_count() == 0 {
                return;
            }
        }
    }

    /// Reads the page if it is another than the last time.
    async fn look(&mut self) {
        let etag = self.etag.iter().map(|etag| (IF_NONE_MATCH, etag.clone())).collect::<HeaderMap>();
        let Ok(mut response) = self.http.get(self.url.clone()).headers(etag).send().await else { return };
        if response.status() != StatusCode::OK {
            return;
        }
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => break,
                Err(_) => return,
            }
            if body.len() > LARGEST {
                return;
            }
        }
        if let Some(report) = StatusReport::read(&body) {
            self.report = Some(report);
            self.etag = response.headers().get(ETAG).cloned();
        }
    }

    /// The calls that are made to this provider; `None` when the scheduler is gone.
    fn calls(&self) -> Option<Calls> {
        let lanes = self.lanes.upgrade()?.all();
        let mut calls = Calls::default();
        for lane in lanes.iter().filter(|lane| lane.provider == self.provider) {
            calls.models.push(lane.pool.to_string());
            if lane.with(|machine| machine.is_failing()) {
                calls.failing.push(format!("{}/{}", lane.account.settings.name(), lane.pool));
            }
        }
        calls.failing.sort();
        Some(calls)
    }
}

#[derive(Default)]
struct Calls {
    models: Vec<String>,
    /// The lanes whose breaker is open.
    failing: Vec<String>,
}

/// Something that goes on at a provider and concerns the calls that are made.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Trouble {
    /// Its title; `None` for a component that the page shows in trouble without saying why.
    incident: Option<String>,
    impact: Indicator,
    components: Vec<String>,
}

/// What of `report` concerns calls of these models. With no model in use yet, it is what concerns chat completions.
fn troubles(report: &StatusReport, provider: Provider, models: &[String]) -> Vec<Trouble> {
    let mut found: Vec<Trouble> = Vec::new();
    let mut components: Vec<&Component> = Vec::new();
    let models: Vec<_> = if models.is_empty() { vec![None] } else { models.iter().map(|m| Some(m.as_str())).collect() };
    for model in models {
        let path =
            if model.is_some_and(|model| model.contains("embedding")) { "/embeddings" } else { "/chat/completions" };
        for component in report.affected(provider, path, model) {
            if !components.contains(&component) {
                components.push(component);
            }
        }
        for incident in report.concerning(provider, path, model) {
            let incident = (Some(incident.name.clone()), incident.impact);
            if !found.iter().any(|known| known.incident == incident.0) {
                found.push(Trouble { incident: incident.0, impact: incident.1, components: Vec::new() });
            }
        }
    }
    let names: Vec<_> = components.iter().map(|component| component.name.clone()).collect();
    if found.is_empty() && !components.is_empty() {
        let impact = components.iter().map(|component| component.status).max().unwrap_or_default();
        found.push(Trouble { incident: None, impact, components: Vec::new() });
    }
    found.into_iter().map(|trouble| Trouble { components: names.clone(), ..trouble }).collect()
}

/// The incidents that were told and have not ended.
#[derive(Debug, Default)]
struct Incidents(Vec<(Option<String>, Moment)>);

impl Incidents {
    /// What is to be told now that these troubles go on.
    fn update(&mut self, provider: Provider, troubles: Vec<Trouble>, failing: &[String], now: Moment) -> Vec<Event> {
        let mut events = Vec::new();
        self.0.retain(|(incident, since)| {
            let goes_on = troubles.iter().any(|trouble| trouble.incident == *incident);
            // Trouble without a title that gets one has not ended.
            if !goes_on && (incident.is_some() || troubles.is_empty()) {
                let (incident, after) = (incident.clone(), now - *since);
                events.push(Event::IncidentEnded { provider, incident, after, failing: failing.to_vec() });
            }
            goes_on
        });
        for Trouble { incident, impact, components } in troubles {
            if !self.0.iter().any(|(known, _)| *known == incident) {
                self.0.push((incident.clone(), now));
                let failing = failing.to_vec();
                events.push(Event::IncidentBegan { provider, incident, impact, components, failing });
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(component: &str, status: &str, incidents: &[&str]) -> StatusReport {
        let incidents: Vec<_> = incidents
            .iter()
            .map(|name| serde_json::json!({"name": name, "status": "identified", "impact": "major"}))
            .collect();
        let page = serde_json::json!({"status": {"indicator": "none"}, "incidents": incidents,
            "components": [{"name": component, "status": status}]});
        StatusReport::read(page.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn each_incident_is_told_once_when_it_begins_and_once_when_it_ends() {
        let now = Moment::START;
        let mut incidents = Incidents::default();
        let mut see = |seconds, report: &StatusReport| -> Vec<String> {
            let troubles = troubles(report, Provider::Openai, &[]);
            let at = now + Duration::from_secs(seconds);
            incidents.update(Provider::Openai, troubles, &[], at).iter().map(Event::to_string).collect()
        };
        let down = |incidents: &[&str]| page("Chat Completions", "major_outage", incidents);
        let fine = page("Chat Completions", "operational", &[]);
        assert_eq!(see(0, &fine).len(), 0);
        assert_eq!(see(10, &down(&["A"])), ["openai reports “A” (major, Chat Completions); our own calls do not fail"]);
        assert_eq!(see(20, &down(&["A"])).len(), 0);
        assert_eq!(see(30, &down(&["A", "B"])).len(), 1);
        assert_eq!(see(70, &down(&["B"])), ["openai: “A” is over after 60 s; our own calls do not fail"]);
        assert_eq!(see(80, &fine).len(), 1);
        assert_eq!(
            see(90, &down(&[])),
            ["openai reports trouble (critical, Chat Completions); our own calls do not fail"]
        );
        assert_eq!(see(91, &down(&["C"])).len(), 1, "it begins under its name, and nothing ends");
        assert_eq!(see(92, &fine).len(), 1);
    }

    #[test]
    fn what_does_not_concern_the_calls_that_are_made_is_not_told() {
        let of = |component, provider, models: &[&str]| {
            let models: Vec<_> = models.iter().map(|model| (*model).to_owned()).collect();
            troubles(&page(component, "partial_outage", &["X"]), provider, &models).len()
        };
        assert_eq!(of("Voice mode", Provider::Openai, &["gpt-4o"]), 0);
        assert_eq!(of("Embeddings", Provider::Openai, &["gpt-4o"]), 0);
        assert_eq!(of("Embeddings", Provider::Openai, &["gpt-4o", "text-embedding-3-small"]), 1);
        assert_eq!(of("llama-3.3-70b-versatile", Provider::Groq, &["llama-3.3-70b-versatile"]), 1);
        assert_eq!(of("llama-3.3-70b-versatile", Provider::Groq, &["whisper-large-v3"]), 0);
    }
}
