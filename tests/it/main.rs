//! The promises of the library, one module each.

mod accounts;
mod books;
#[cfg(all(feature = "client", feature = "mock"))]
mod client;
mod fallback;
mod floors;
mod lane;
mod licences;
mod refusals;
mod saturation;
mod secrets;
mod share;
