//! How far it is, how fast compared with each limit, what it waits for, and how long it will take.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;
use tollgate::engine::LaneStatus;
use tollgate::{LaneSnapshot, Snapshot};

use super::work::Job;
use crate::show;

/// A display is redrawn so often, and a log gets a line so often.
const REDRAWN: Duration = Duration::from_millis(250);
const LOGGED: Duration = Duration::from_secs(10);

/// Rates are told over this time.
const RATED: Duration = Duration::from_secs(10);

/// Tells of the job's progress until it is dropped.
pub(crate) async fn watch(job: Arc<Job>, rows: u64) {
    let mut rates = Rates::default();
    let every = if job.console.bar().is_some() { REDRAWN } else { LOGGED };
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first tick comes at once, with nothing to tell.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let snapshot = job.scheduler.snapshot();
        let now = Instant::now();
        rates.note(&snapshot, now);
        let left = left_after(&job, &snapshot).map(|left| format!(", about {} left", show::time(left)));
        let lanes = snapshot.lanes.iter().filter(|lane| lane.status.admitted > 0 || lane.status.waiting > 0);
        let lanes = lanes.map(|lane| rates.describe(lane, now));
        let done = rows.saturating_sub(job.left());
        let wrong = job.silence.reason().map(|reason| format!("{reason}; trying again"));
        let lanes: Vec<_> = wrong.into_iter().chain(lanes).collect();
        match job.console.bar() {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(format!("{}{}", lanes.join("\n"), left.unwrap_or_default()));
            }
            None => {
                let (done, rows) = (show::count(done), show::count(rows));
                job.console.say(&format!("{done} of {rows} rows{}; {}", left.unwrap_or_default(), lanes.join("; ")));
            }
        }
    }
}

/// What was spent of each limit, some seconds back.
#[derive(Default)]
struct Rates(VecDeque<(Instant, HashMap<String, u64>)>);

impl Rates {
    fn note(&mut self, snapshot: &Snapshot, now: Instant) {
        let gates = snapshot.lanes.iter().flat_map(|lane| lane.status.gates.iter().map(move |gate| (lane, gate)));
        self.0.push_back((now, gates.map(|(lane, gate)| (key(lane, &gate.limit), gate.spent)).collect()));
        while self.0.get(1).is_some_and(|(at, _)| now - *at >= RATED) {
            self.0.pop_front();
        }
    }

    /// `gpt-4o-mini: RPM 498 of 500, TPM 90,000 of 200,000; waits for RPM; 7 under way`
    fn describe(&self, lane: &LaneSnapshot, now: Instant) -> String {
        let status = &lane.status;
        let limits: Vec<_> = status
            .gates
            .iter()
            .map(|gate| {
                let limit = gate.limit;
                let rate = self.0.front().map_or(0, |(since, spent)| {
                    let before = spent.get(&key(lane, &limit)).copied().unwrap_or(0);
                    let time = (now - *since).as_secs_f64();
                    let spent = gate.spent.saturating_sub(before) as f64;
                    // Over the first seconds there is no rate yet, only what was spent.
                    if time < 1.0 { gate.spent } else { (spent * limit.window.as_secs_f64() / time) as u64 }
                });
                format!("{} {} of {}", limit.name(), show::count(rate), show::count(limit.amount))
            })
            .collect();
        let mut text =
            format!("{}: {}", lane.pool, if limits.is_empty() { "no limits".to_owned() } else { limits.join(", ") });
        let waits = match (status.paused_for, status.binding) {
            _ if status.waiting == 0 => None,
            (Some(pause), _) => Some(format!("a pause of {}", show::time(pause))),
            (None, Some(limit)) => Some(limit.name()),
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
}

fn key(lane: &LaneSnapshot, limit: &tollgate::Limit) -> String {
    format!("{}/{}/{}", lane.account, lane.pool, limit.name())
}

/// How long the rest takes: by the limits and the ceiling if they hold it, by the rate so far where there are none.
fn left_after(job: &Job, snapshot: &Snapshot) -> Option<Duration> {
    let lanes = snapshot.lanes.iter().filter_map(|lane| {
        let left = job.left.iter().filter(|(pool, _)| *pool == lane.pool).map(|(_, left)| left.load(Relaxed)).sum();
        lane_left(&lane.status, left)
    });
    let longest = lanes.reduce(f64::max);
    let done = job.tally.done();
    let by_rate = (done > 0).then(|| job.began.elapsed().as_secs_f64() * job.left() as f64 / done as f64);
    Duration::try_from_secs_f64(longest.or(by_rate)?).ok()
}

/// How long the limits and the ceiling of one lane hold its rows, in seconds; `None` if it has neither.
fn lane_left(lane: &LaneStatus, rows: u64) -> Option<f64> {
    // What is under way has paid already.
    let rows = rows.saturating_sub(lane.in_flight.into()) as f64;
    if lane.admitted == 0 || rows == 0.0 {
        return None;
    }
    let by_limit = lane.gates.iter().map(|gate| {
        let each = gate.spent as f64 / lane.admitted as f64;
        let needed = (rows * each - gate.left as f64).max(0.0);
        needed * gate.limit.window.as_secs_f64() / gate.limit.amount.max(1) as f64
    });
    let by_ceiling = lane.ceiling.map(|ceiling| rows * 60.0 / ceiling.per_minute.max(1) as f64);
    by_limit.chain(by_ceiling).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tollgate::engine::{Ask, End, Gates, Machine, Source, Submitted};
    use tollgate::providers::{Observation, Provider, classify};
    use tollgate::{Charge, Limit};

    use super::lane_left;

    #[test]
    fn the_time_left_knows_the_ceiling() {
        let now = Instant::now();
        let mut gates = Gates::new(Provider::Openai, Duration::ZERO);
        gates.set(&[(Limit::rpm(60_000), Source::Configured)], now);
        let mut lane = Machine::new(gates, now);
        let ask = Ask { charge: Charge::tokens(100, 0), ..Ask::default() };
        let Ok(Submitted::Granted(grant)) = lane.submit(ask, || (), now) else { panic!("the lane is empty") };
        let body = br#"{"error": {"message": "", "type": "rate_limit_error", "code": "slow_down"}}"#;
        assert_eq!(lane_left(&lane.status(now), 1_000), Some(0.0), "the bucket holds them all");

        let later = now + Duration::from_millis(50);
        lane.failed(&grant, &classify(Provider::Openai, 429, &Observation::default(), body), later);
        lane.finish(grant, End::Refused, &[], later);
        assert_eq!(lane_left(&lane.status(later), 1_000), Some(1_000.0), "one a second");
    }
}
