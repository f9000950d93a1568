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
#[cfg(feature = "mock")]
mod learning;
mod licences;
mod outage;
#[cfg(all(feature = "client", feature = "mock"))]
mod outage_sockets;
mod predict;
mod refusals;
mod saturation;
mod secrets;
mod share;
