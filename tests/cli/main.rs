//! The real binary, run against the mock and against servers of the tests' own, all on the loopback interface.
#![expect(clippy::unwrap_used, reason = "the helpers are part of the tests")]
#![expect(clippy::disallowed_methods, reason = "other processes do not know a paused clock")]

mod accounts;
mod cache;
mod checks;
mod dialects;
mod doctor;
mod example;
mod failures;
mod kills;
mod learned;
mod limits;
mod metrics;
mod mock;
mod pipes;
mod proxy;
mod resume;
mod rows;
mod secrets;
mod stopping;
mod watching;
mod world;
