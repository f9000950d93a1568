//! The way to the server: its name, and a connection.

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout_at};

use super::environment::Proxy;
use super::finding::Finding;
use super::subject::Subject;
use super::verdict::Verdict;
use crate::show;

/// Looks up and connects to whatever is first on the way: the proxy, or the server.
pub(super) async fn check(subject: &Subject, proxy: Option<&Proxy>, deadline: Instant) -> Vec<Finding> {
    let (host, port, role) = match proxy {
        Some(Proxy { host, port }) => (host.as_str(), *port, "the proxy "),
        None => (subject.host(), subject.base.port_or_known_default().unwrap_or(443), ""),
    };
    // As a part of a URL an IPv6 address stands in brackets.
    let host = host.trim_matches(['[', ']']);
    let found = timeout_at(deadline, lookup_host((host, port))).await;
    let addresses: Vec<SocketAddr> = match found.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            let unknown = Finding::fail("dns", format!("{host} has no address: {error}")).blame(
                Verdict::Network,
                format!(
                    "the name of {role}{host} cannot be looked up; check the address, your DNS and your connection"
                ),
            );
            return vec![unknown, Finding::skipped("connection", "there is no address to connect to")];
        }
    };
    let listed: Vec<_> = addresses.iter().take(3).map(|address| address.ip().to_string()).collect();
    let dns = match host.parse::<IpAddr>() {
        Ok(_) => Finding::ok("dns", format!("{role}{host} is an address, no name to look up")),
        Err(_) => Finding::ok("dns", format!("{role}{host} is {}", listed.join(", "))),
    };
    vec![dns, connection(&format!("{role}{host}:{port}"), &addresses, deadline).await]
}

async fn connection(name: &str, addresses: &[SocketAddr], deadline: Instant) -> Finding {
    let began = Instant::now();
    // One address after the other: whole families of addresses may be unreachable.
    let connect = async {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(_) => return Ok(*address),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    let reached = timeout_at(deadline, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match reached {
        Ok(address) => Finding::ok(
            "connection",
            format!("to {} port {} in {}", address.ip(), address.port(), show::time(began.elapsed())),
        ),
        Err(error) => Finding::fail("connection", format!("none to {name}: {error}")).blame(
            Verdict::Network,
            format!("{name} takes no connection ({error}); check the address, firewalls and proxy settings"),
        ),
    }
}
