//! The promises of the library, one module each.

mod books;
mod ceiling;
#[cfg(all(feature = "client", feature = "mock"))]
mod client;
mod floors;
mod lane;
mod licences;
mod refusals;
mod saturation;
mod secrets;
mod share;
