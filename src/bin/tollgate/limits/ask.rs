//! One paid call, by the scheduler itself: what its headers say goes where every answer's headers go.

use anyhow::{Context, Result};
use http::HeaderMap;
use serde::Serialize;
use tollgate::providers::{Observation, Reading, classify};
use tollgate::{Account, Request, Scheduler};

use crate::probe::smallest;
use crate::{clock, show};

/// What the provider answered.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    pub(super) model: String,
    status: u16,
    /// What is wrong, if something is.
    pub(super) error: Option<String>,
    /// The headers that tell of limits, as they came.
    pub(super) headers: Vec<String>,
    #[serde(skip)]
    readings: Vec<Reading>,
}

impl Answer {
    pub(super) fn failed(&self) -> bool {
        self.error.is_some()
    }

    /// Whether a header showed what is left of this limit.
    pub(super) fn shows(&self, limit: &tollgate::Limit) -> bool {
        self.readings.iter().any(|reading| {
            let same = reading.inferred_window().is_none_or(|window| window == limit.window);
            reading.dimension == limit.dimension && reading.remaining.is_some() && same
        })
    }
}

pub(super) async fn ask(scheduler: &Scheduler, account: &Account, model: &str) -> Result<Answer> {
    let (path, body) = smallest(account.provider, model);
    let text = body.to_string();
    let host = account.base_url.as_deref().and_then(|url| reqwest::Url::parse(url).ok());
    let host = host.as_ref().and_then(reqwest::Url::host_str).unwrap_or("the provider");
    show::line(format_args!("asking {host}: one call of some ten tokens to {model}, paid like any other"));
    let call = |attempt| scheduler.post(&attempt, path, text.clone()).send();
    let response = match scheduler.submit(Request::chat(&body), call).await {
        Ok(response) => response,
        Err(tollgate::Error::Call { error, .. }) => {
            return Err(error.without_url()).with_context(|| format!("{host} gave no answer; see tollgate doctor"));
        }
        Err(error) => return Err(error).context("the call was not sent"),
    };
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let observation = tollgate::providers::observe(account.provider, &headers, clock::wall());
    // The status of an error says enough.
    let body = response.bytes().await.unwrap_or_default();
    let error = error(account, status, &observation, &body);
    Ok(Answer { model: model.to_owned(), status, error, headers: telling(&headers), readings: observation.readings })
}

fn error(account: &Account, status: u16, observation: &Observation, body: &[u8]) -> Option<String> {
    (status >= 400).then(|| classify(account.provider, status, observation, body).to_string())
}

fn telling(headers: &HeaderMap) -> Vec<String> {
    let told = headers.iter().filter(|(name, _)| {
        let name = name.as_str();
        name.contains("ratelimit") || name.starts_with("retry-after")
    });
    let mut lines: Vec<_> = told.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?"))).collect();
    lines.sort();
    lines
}
