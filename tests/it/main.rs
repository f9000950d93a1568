//! The promises of the library, one module each.

mod accounts;
mod books;
#[cfg(all(feature = "cache", feature = "mock"))]
mod cache;
mod ceiling;
#[cfg(all(feature = "client", feature = "mock"))]
mod client;
mod events;
mod fallback;
mod floors;
mod lane;
mod licences;
#[cfg(feature = "client")]
mod monitor;
mod outage;
#[cfg(all(feature = "client", feature = "mock"))]
mod outage_sockets;
mod predict;
#[cfg(feature = "client")]
mod receiver;
mod refusals;
mod saturation;
mod secrets;
mod share;
#[cfg(feature = "client")]
mod webhook;
