//! The provider's status page.

use reqwest::Url;
use reqwest::redirect::Policy;
use tokio::time::Instant;
use tollgate::Provider;
use tollgate::providers::StatusReport;

use super::call::{client, send};
use super::finding::Finding;
use super::verdict::Verdict;

const CHECK: &str = "status page";
/// What is asked after unless the model says otherwise.
const PATH: &str = "/chat/completions";

/// Where to ask: what was typed, or the provider's own page if programs can read it.
pub(super) fn address(provider: Provider, typed: Option<&str>) -> Result<Url, Finding> {
    let url = match (typed, provider.status_page()) {
        (Some(typed), _) => typed,
        (None, Some(page)) => match page.summary {
            Some(summary) => summary,
            None => return Err(Finding::skipped(CHECK, format!("see {}", page.url))),
        },
        (None, None) => return Err(Finding::skipped(CHECK, "a server of yours has none; --status-url names one")),
    };
    let parsed = Url::parse(url.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    parsed.ok_or_else(|| {
        Finding::fail(CHECK, "--status-url is no address").blame(Verdict::Settings, "--status-url is no address")
    })
}

pub(super) async fn check(provider: Provider, model: Option<&str>, url: &Url, deadline: Instant) -> Finding {
    let host = url.host_str().unwrap_or_default();
    let Ok(client) = client(url, Policy::default()) else {
        return Finding::skipped(CHECK, "the HTTP client cannot be set up");
    };
    // Whatever goes wrong here says nothing about the provider.
    let answer = match send(client.get(url.clone()), deadline).await {
        Ok(answer) if answer.status == 200 => answer,
        Ok(answer) => return Finding::skipped(CHECK, format!("{host} answered {}", answer.status)),
        Err(_) => return Finding::skipped(CHECK, format!("{host} cannot be reached")),
    };
    match StatusReport::read(&answer.body) {
        Some(report) => judge(provider, model, host, &report),
        None => Finding::skipped(CHECK, format!("what {host} answers is no status page")),
    }
}

fn judge(provider: Provider, model: Option<&str>, host: &str, report: &StatusReport) -> Finding {
    let path = if model.is_some_and(|model| model.contains("embedding")) { "/embeddings" } else { PATH };
    let affected: Vec<_> = report.affected(provider, path, model).iter().map(|part| part.name.as_str()).collect();
    let incidents: Vec<_> =
        report.concerning(provider, path, model).iter().map(|incident| incident.name.as_str()).collect();
    let told = match (incidents.is_empty(), affected.is_empty()) {
        (true, true) => {
            return match report.incidents.len() {
                0 => Finding::ok(CHECK, format!("{host} reports nothing")),
                _ => Finding::ok(CHECK, format!("{host} reports nothing about what you call")),
            };
        }
        (false, true) => format!("“{}”", incidents.join("”, “")),
        (true, false) => format!("trouble with {}", affected.join(", ")),
        (false, false) => format!("“{}”, affected: {}", incidents.join("”, “"), affected.join(", ")),
    };
    Finding::warn(CHECK, format!("{host} reports {told}"))
        .blame(Verdict::Provider, format!("its status page reports {told}; wait for its end"))
}
