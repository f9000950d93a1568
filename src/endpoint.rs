//! The addresses that calls go to: how all the lanes of one of them do together.

use std::fmt;

use serde::Serialize;

use crate::config::Account;
use crate::engine::{Health, Recent};
use crate::providers::Provider;
use crate::scheduler::LaneSnapshot;

/// All lanes that send to one address, as they stand.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EndpointSnapshot {
    /// Whose API it is.
    pub provider: Provider,
    /// Its host; empty where the address is not known.
    pub host: String,
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that are under way.
    pub in_flight: u32,
    /// Lanes whose breaker is open, because the provider is failing for their models.
    pub failing_lanes: usize,
    /// How their calls went lately; use and wait are those of the lane where they are largest.
    pub health: Health,
}

/// Adds lanes up.
#[derive(Default)]
pub(crate) struct Endpoints(Vec<(EndpointSnapshot, Recent)>);

impl Endpoints {
    pub(crate) fn add(&mut self, account: &Account, lane: &LaneSnapshot, recent: Recent) {
        let (provider, host) = (account.provider, account.address().map(host).unwrap_or_default());
        let (waiting, in_flight) = (lane.status.waiting, lane.status.in_flight);
        let failing_lanes = usize::from(lane.status.breaker.is_some());
        match self.0.iter_mut().find(|(known, _)| (known.provider, known.host.as_str()) == (provider, host)) {
            Some((known, all)) => {
                *all = recent.plus(all);
                known.waiting += waiting;
                known.in_flight += in_flight;
                known.failing_lanes += failing_lanes;
                known.health = known.health.with(&lane.health, all);
            }
            None => {
                let host = host.to_owned();
                let new = EndpointSnapshot { provider, host, waiting, in_flight, failing_lanes, health: lane.health };
                self.0.push((new, recent));
            }
        }
    }

    /// By provider and host.
    pub(crate) fn finish(self) -> Vec<EndpointSnapshot> {
        let mut endpoints: Vec<_> = self.0.into_iter().map(|(endpoint, _)| endpoint).collect();
        endpoints.sort_by(|a, b| (a.provider.name(), &a.host).cmp(&(b.provider.name(), &b.host)));
        endpoints
    }
}

/// An address whose `Debug` shows scheme, host and port only: user name, path and query may be a secret.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_once("://") {
            Some((scheme, _)) => write!(f, "{scheme}://{}", host(self.0)),
            None => f.write_str(host(self.0)),
        }
    }
}

/// Host and port of an address, without what may be a secret in it.
pub(crate) fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

/// The same, apart.
#[cfg(feature = "tracing")]
pub(crate) fn host_and_port(url: &str) -> (&str, Option<u16>) {
    let both = host(url);
    let apart = both.rsplit_once(':').and_then(|(host, port)| Some((host, Some(port.parse().ok()?))));
    apart.unwrap_or((both, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_shown_without_what_may_be_secret() {
        for (url, shown) in [
            ("https://api.openai.com/v1", "api.openai.com"),
            ("http://127.0.0.1:8080/v1", "127.0.0.1:8080"),
            ("https://me:canary@gateway.example/v1?key=canary", "gateway.example"),
            ("https://gateway.example?key=canary@x", "gateway.example"),
            ("gateway.example/v1", "gateway.example"),
            ("", ""),
        ] {
            assert_eq!(host(url), shown);
        }
    }

    #[test]
    fn an_address_is_shown_with_its_scheme_and_without_what_may_be_secret() {
        let shown = |url| format!("{:?}", Shown(url));
        assert_eq!(shown("https://me:canary@gateway.example:8080/canary?key=canary"), "https://gateway.example:8080");
        assert_eq!(shown("gateway.example/v1"), "gateway.example");
    }

    #[test]
    #[cfg(feature = "tracing")]
    fn a_port_is_told_from_an_address_with_colons() {
        for (url, apart) in [
            ("https://api.openai.com/v1", ("api.openai.com", None)),
            ("http://127.0.0.1:8080/v1", ("127.0.0.1", Some(8080))),
            ("http://[::1]/v1", ("[::1]", None)),
            ("http://[::1]:80/v1", ("[::1]", Some(80))),
        ] {
            assert_eq!(host_and_port(url), apart);
        }
    }
}
