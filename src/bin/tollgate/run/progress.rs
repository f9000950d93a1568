//! How far it is, how fast compared with each limit, what it waits for, and how long it will take.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;
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
        match job.console.bar() {
            Some(bar) => {
                bar.set_position(done);
                let text: Vec<_> = lanes.collect();
                bar.set_message(format!("{}{}", text.join("\n"), left.unwrap_or_default()));
            }
            None => {
                let lanes: Vec<_> = lanes.collect();
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

/// How long the rest takes: by the limits if they hold it, by the rate so far where there are none.
fn left_after(job: &Job, snapshot: &Snapshot) -> Option<Duration> {
    let mut longest: Option<f64> = None;
    for lane in &snapshot.lanes {
        let rows =
            job.left.iter().filter(|(pool, _)| *pool == lane.pool).map(|(_, left)| left.load(Relaxed)).sum::<u64>();
        let admitted = lane.status.admitted;
        // What is under way has paid already.
        let rows = rows.saturating_sub(lane.status.in_flight.into());
        if admitted == 0 || rows == 0 {
            continue;
        }
        for gate in &lane.status.gates {
            let each = gate.spent as f64 / admitted as f64;
            let needed = (rows as f64 * each - gate.left as f64).max(0.0);
            let time = needed * gate.limit.window.as_secs_f64() / gate.limit.amount.max(1) as f64;
            longest = Some(longest.unwrap_or(0.0).max(time));
        }
    }
    let done = job.tally.done();
    let by_rate = (done > 0).then(|| job.began.elapsed().as_secs_f64() * job.left() as f64 / done as f64);
    Duration::try_from_secs_f64(longest.or(by_rate)?).ok()
}
