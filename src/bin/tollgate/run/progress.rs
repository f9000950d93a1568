//! How far it is, how much of each limit is in use, what it waits for, and how long it will take.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tollgate::engine::{GateStatus, LaneStatus};
use tollgate::{Dimension, LaneSnapshot, Shape, Snapshot};

use super::work::Job;
use crate::show;

/// A display is redrawn so often, and a log gets a line so often.
const REDRAWN: Duration = Duration::from_millis(250);
const LOGGED: Duration = Duration::from_secs(10);

/// Whoever waits for a limit of such a window should know at once that the rest will not be done today.
const LONG: Duration = Duration::from_secs(86_400);

/// Tells of the job's progress until it is dropped.
pub(crate) async fn watch(job: Arc<Job>, rows: u64) {
    let every = if job.console.bar().is_some() { REDRAWN } else { LOGGED };
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick comes at once, with nothing to tell.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let snapshot = job.scheduler.snapshot();
        let left = left_after(&job, &snapshot).map(|left| format!(", about {} left", show::time(left)));
        let lanes = snapshot.lanes.iter().filter(|lane| lane.status.admitted > 0 || lane.status.waiting > 0);
        let lanes = lanes.map(|lane| describe(lane, held_for(&job, lane)));
        let done = rows.saturating_sub(job.left());
        let wrong = job.silence.reason().map(|reason| format!("{reason}; trying again"));
        let lanes: Vec<_> = wrong.into_iter().chain(lanes).collect();
        match job.console.bar() {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(format!("{}{}", lanes.join("\n"), left.unwrap_or_default()));
            }
            None => {
                let far = format!("{} of {} rows{}", show::count(done), show::count(rows), left.unwrap_or_default());
                let parts: Vec<_> = std::iter::once(far).chain(lanes).collect();
                job.console.say(&parts.join("; "));
            }
        }
    }
}

/// `gpt-4o-mini: RPM 498 of 500, TPM 90,000 of 200,000 in use; waits for RPM; 7 under way`, where `left` is how long the lane's
/// limits hold its rows.
fn describe(lane: &LaneSnapshot, left: Option<Duration>) -> String {
    let status = &lane.status;
    let limits: Vec<_> = status.gates.iter().map(in_use).collect();
    let limits = if limits.is_empty() { "no limits".to_owned() } else { format!("{} in use", limits.join(", ")) };
    let mut text = format!("{}: {limits}", lane.pool);
    let waits = match (status.paused_for, status.binding) {
        _ if status.waiting == 0 => None,
        (Some(pause), _) => Some(format!("a pause of {}", show::time(pause))),
        (None, Some(limit)) => Some(match left.filter(|_| limit.window >= LONG) {
            Some(left) => format!("{}, about {} for the rest", limit.name(), show::time(left)),
            None => limit.name(),
        }),
        (None, None) => None,
    };
    if let Some(waits) = waits {
        text.push_str(&format!("; waits for {waits}"));
    }
    if let Some(ceiling) = status.ceiling {
        text.push_str(&format!("; asked to slow down, {} a minute", show::count(ceiling.per_minute)));
    }
    text.push_str(&format!("; {} under way", status.in_flight));
    for (number, what) in [(lane.counters.retries, "retries"), (lane.counters.rate_limited, "× 429")] {
        if number > 0 {
            text.push_str(&format!(", {} {what}", show::count(number)));
        }
    }
    text
}

/// `RPM 498 of 500`, by the books. What was sent in a minute may be more than the limit of a minute and no overuse, since a bucket
/// fills up meanwhile.
fn in_use(gate: &GateStatus) -> String {
    let amount = gate.limit.amount;
    // A debt is not shown as more than all.
    let used = amount.saturating_sub(u64::try_from(gate.left).unwrap_or(0));
    format!("{} {} of {}", gate.limit.name(), show::count(used), show::count(amount))
}

/// How long the rest takes: by the limits and the ceiling if they hold it, by the rate so far where they do not.
fn left_after(job: &Job, snapshot: &Snapshot) -> Option<Duration> {
    let by_limits = snapshot.lanes.iter().filter_map(|lane| held_for(job, lane)).max();
    let done = job.tally.done();
    let by_rate = (done > 0).then(|| job.began.elapsed().as_secs_f64() * job.left() as f64 / done as f64);
    let by_rate = by_rate.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    // Where nobody waits for a limit, it is the answers that take their time.
    let waits = snapshot.lanes.iter().any(|lane| lane.status.waiting > 0);
    if waits && by_limits.is_some() { by_limits } else { by_limits.max(by_rate) }
}

/// How long the limits and the ceiling of a lane hold the rows that are left for it.
fn held_for(job: &Job, lane: &LaneSnapshot) -> Option<Duration> {
    let left = job.left.iter().filter(|(pool, _)| *pool == lane.pool).map(|(_, left)| left.load(Relaxed)).sum();
    Duration::try_from_secs_f64(lane_left(&lane.status, left)?).ok()
}

/// How long the limits, the ceiling and a pause of one lane hold its rows, in seconds; `None` if it has none of them.
fn lane_left(lane: &LaneStatus, rows: u64) -> Option<f64> {
    // What is under way has paid already.
    let rows = rows.saturating_sub(lane.in_flight.into()) as f64;
    if lane.admitted == 0 || rows == 0.0 {
        return None;
    }
    let by_limit = lane.gates.iter().map(|gate| {
        let each = match gate.limit.dimension {
            Dimension::Requests => 1.0,
            _ => gate.spent as f64 / lane.admitted as f64,
        };
        gate_left(gate, rows * each).max(gate.blocked_for.unwrap_or_default().as_secs_f64())
    });
    let by_ceiling = lane.ceiling.map(|ceiling| rows * 60.0 / ceiling.per_minute.max(1) as f64);
    let longest = by_limit.chain(by_ceiling).reduce(f64::max);
    let pause = lane.paused_for.map(|pause| pause.as_secs_f64());
    longest.zip(pause).map(|(longest, pause)| longest + pause).or(longest).or(pause)
}

/// How long a limit holds what takes so much of it, in seconds.
fn gate_left(gate: &GateStatus, takes: f64) -> f64 {
    let (amount, window) = (gate.limit.amount.max(1) as f64, gate.limit.window.as_secs_f64());
    let lacking = takes - gate.left as f64;
    let of = |shape: fn(&Shape) -> bool| gate.shapes.iter().any(shape);
    if of(|shape| matches!(shape, Shape::Slice(_))) {
        // What is left of the window is not to be had in one slice.
        takes * window / amount
    } else if lacking <= 0.0 || of(|shape| matches!(shape, Shape::Gauge)) {
        0.0
    } else if of(|shape| matches!(shape, Shape::Refill)) {
        lacking * window / amount
    } else {
        // Nothing comes back before the window is over, and then all of it.
        gate.full_in.as_secs_f64() + (lacking / amount).ceil().max(1.0).mul_add(window, -window)
    }
}

#[cfg(test)]
mod tests {

    use tollgate::engine::{Ask, End, Gates, Machine, Moment, Source, Submitted};
    use tollgate::providers::{Observation, Provider, classify};
    use tollgate::{Charge, Limit};

    use super::*;

    #[test]
    fn the_time_left_knows_the_ceiling() {
        let now = Moment::START;
        let mut gates = Gates::new(Provider::Openai, Duration::ZERO);
        gates.set(&[(Limit::rpm(60_000), Source::Configured)], now);
        let mut lane = Machine::new(gates, now);
        let ask = Ask { charge: Charge::tokens(100, 0), ..Ask::default() };
        let Ok(Submitted::Granted(grant)) = lane.submit(&ask, || (), now) else { panic!("the lane is empty") };
        let body = br#"{"error": {"message": "", "type": "rate_limit_error", "code": "slow_down"}}"#;
        assert_eq!(lane_left(&lane.status(now), 1_000), Some(0.0), "the bucket holds them all");

        let later = now + Duration::from_millis(50);
        lane.failed(&grant, &classify(Provider::Openai, 429, &Observation::default(), body), later);
        lane.finish(grant, End::Refused, &[], later);
        assert_eq!(lane_left(&lane.status(later), 1_000), Some(1_000.0), "one a second");
    }
    /// The first limit of a lane that has let 40 of 60 requests go.
    fn gate(limit: Limit) -> GateStatus {
        let now = Moment::START;
        let mut gates = Gates::new(Provider::Compatible, Duration::ZERO);
        gates.set(&[(limit, Source::Configured)], now);
        gates.answered(now);
        let mut lane = Machine::new(gates, now);
        for _ in 0..40 {
            let ask = Ask { charge: Charge::tokens(1, 0), ..Ask::default() };
            assert!(matches!(lane.submit(&ask, || (), now), Ok(Submitted::Granted(_))));
        }
        lane.status(now).gates.remove(0)
    }

    #[test]
    fn the_time_left_goes_by_how_a_limit_is_enforced() {
        let left = |shape, rows| gate_left(&gate(Limit::rpm(60).shaped(shape)), rows);
        assert_eq!((left(Shape::Refill, 20.0), left(Shape::Refill, 30.0)), (0.0, 10.0));
        assert_eq!((left(Shape::Sliding, 20.0), left(Shape::Sliding, 21.0)), (0.0, 60.0));
        assert_eq!((left(Shape::Sliding, 80.0), left(Shape::Sliding, 81.0)), (60.0, 120.0));
        assert_eq!(left(Shape::Slice(Duration::from_secs(60)), 30.0), 30.0);
        assert_eq!(left(Shape::Gauge, 1_000.0), 0.0);
    }

    #[test]
    fn a_limit_is_never_shown_as_overused() {
        let mut gate = gate(Limit::rpm(60).shaped(Shape::Refill));
        assert_eq!(in_use(&gate), "RPM 40 of 60");
        gate.left = -5;
        assert_eq!(in_use(&gate), "RPM 60 of 60");
    }
}
