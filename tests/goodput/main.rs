//! How well the limits are used, as promises. The rows, the provider and the network are those of `benches/goodput`.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

#[path = "../../benches/goodput/bound.rs"]
mod bound;
#[path = "../../benches/goodput/ours.rs"]
mod ours;
#[path = "../../benches/goodput/play.rs"]
mod play;
#[path = "../../benches/goodput/rows.rs"]
mod rows;
#[path = "../../benches/goodput/score.rs"]
#[expect(dead_code, reason = "the bench prints more than is asserted")]
mod score;
#[path = "../../benches/goodput/workload.rs"]
mod workload;

mod figures;
mod sockets;
mod truth;

/// Real time is only played while nobody computes: a request that waits for a core longer than the margin comes late.
static CORES: std::sync::RwLock<()> = std::sync::RwLock::new(());

/// Until it is dropped, the sockets wait.
fn computing() -> impl Drop {
    CORES.read().unwrap_or_else(std::sync::PoisonError::into_inner)
}
