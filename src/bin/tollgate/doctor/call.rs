//! One HTTP call, and what became of it.

use std::time::{Duration, SystemTime};

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{AGE, DATE, HeaderMap};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Url};
use tokio::time::Instant;
use tollgate::providers::{Observation, Provider, observe};

use crate::clock;
use crate::target::is_loopback;

/// The most that is read of an answer; lists of models take some 100 KB.
const LARGEST: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) took: Duration,
    received: SystemTime,
}

impl Answer {
    pub(super) fn observe(&self, provider: Provider) -> Observation {
        observe(provider, &self.headers, self.received)
    }

    /// How far the server's clock is ahead of ours. Dates are whole seconds, and as old as a cache on the way says.
    pub(super) fn ahead(&self) -> Option<SignedDuration> {
        let header = |name| self.headers.get(name).and_then(|value| value.to_str().ok());
        let sent = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(header(DATE)?.trim()).ok()?;
        let age = header(AGE).and_then(|age| age.trim().parse().ok()).unwrap_or(0);
        Some(sent.duration_since(Timestamp::try_from(self.received).ok()?) + SignedDuration::from_secs(age))
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Silence {
    /// No connection, or no secure one.
    Unconnected(String),
    /// The server had the request, and nothing came in time.
    TimedOut,
    /// The connection broke.
    Broken(String),
}

/// A client for calls to `url`. As the scheduler's own, it reaches this machine without a proxy.
pub(super) fn client(url: &Url, redirects: Policy) -> reqwest::Result<Client> {
    let builder = Client::builder().user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION"))).http1_only();
    let builder = if is_loopback(url.as_str()) { builder.no_proxy() } else { builder };
    builder.redirect(redirects).build()
}

/// Makes the call; the whole answer has to be here by `deadline`.
pub(super) async fn send(request: RequestBuilder, deadline: Instant) -> Result<Answer, Silence> {
    let began = Instant::now();
    let made = tokio::time::timeout_at(deadline, async {
        let mut response = request.send().await?;
        let (status, headers, received) = (response.status().as_u16(), response.headers().clone(), clock::wall());
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await? {
            body.extend_from_slice(&piece);
            if body.len() > LARGEST {
                break;
            }
        }
        Ok::<_, reqwest::Error>(Answer { status, headers, body, took: began.elapsed(), received })
    });
    match made.await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) if error.is_connect() => Err(Silence::Unconnected(root(error))),
        Ok(Err(error)) if error.is_timeout() => Err(Silence::TimedOut),
        Ok(Err(error)) => Err(Silence::Broken(root(error))),
        Err(_) => Err(Silence::TimedOut),
    }
}

/// The innermost cause, which is the one that says something, without the URL: its query may hold a key.
fn root(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
