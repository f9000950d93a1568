//! tollgate as a client: the engine, driven as the shell drives it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, SystemTime};

use tollgate::engine::{
    Ask, Backoff, End, Gates, Grant, LaneStatus, Machine, Moment, Offer, Source, Submitted, Ticket, Wake, Wish, choose,
};
use tollgate::providers::{self, Retry};
use tollgate::{Charge, Config, Provider};

use super::play::{Answer, Client, Send, play};
use super::rows::Row;
use super::score::Score;
use super::workload::Request;

/// What our own game is worth.
pub(crate) fn score(row: &Row, seed: u64, trace: bool) -> Score {
    if trace {
        eprintln!("{}, seed {seed}", row.name);
    }
    let requests = row.load.requests(seed);
    let mut client = Ours::new(row, &requests, seed);
    let game = play(row, &requests, seed, &mut client, trace);
    let mut score = Score::new(row, seed, &requests, &game, &client.errors);
    score.lost = score.lost.max(client.lost);
    score
}

pub(crate) struct Ours {
    start: Moment,
    provider: Provider,
    lanes: Vec<Machine<usize>>,
    jobs: Vec<Job>,
    /// Granted and to be sent.
    due: Vec<Send>,
    /// Attempts that are made again, and when.
    again: BinaryHeap<Reverse<(Duration, usize)>>,
    /// Predicted once, when this many wait.
    predict_at: usize,
    predicted: Option<(Duration, BTreeMap<usize, Duration>)>,
    /// Of each prediction, its error as a part of the wait.
    pub(crate) errors: Vec<f64>,
    /// Requests that were given up.
    pub(crate) lost: usize,
}

/// A request on its way.
struct Job {
    account: usize,
    ask: Ask,
    grant: Option<Box<Grant>>,
    backoff: Backoff,
    waits: Option<Ticket>,
}

/// How a lane is set up for what the row tells.
fn lane(row: &Row, account: usize, now: Moment) -> Machine<usize> {
    let limits = row.limits(account).into_iter().map(|limit| (limit, Source::Configured));
    let mut gates = Gates::new(row.told.provider, Config::default().jitter_margin);
    gates.set(&limits.collect::<Vec<_>>(), now);
    Machine::new(gates, now)
}

impl Ours {
    pub(crate) fn new(row: &Row, requests: &[Request], seed: u64) -> Self {
        let (start, config, provider) = (Moment::START, Config::default(), row.told.provider);
        let job = |(index, request): (usize, &Request)| Job {
            account: 0,
            ask: Ask {
                charge: providers::at_admission(provider, &request.estimate, config.predicted_output),
                ..Ask::default()
            },
            grant: None,
            backoff: config.retry.backoff(seed.wrapping_add(index as u64)),
            waits: None,
        };
        Self {
            start,
            provider,
            lanes: (0..row.accounts.len()).map(|account| lane(row, account, start)).collect(),
            jobs: requests.iter().enumerate().map(job).collect(),
            due: Vec::new(),
            again: BinaryHeap::new(),
            predict_at: 1_000,
            predicted: None,
            errors: Vec::new(),
            lost: 0,
        }
    }

    /// The lanes as they stand.
    pub(crate) fn lanes(&mut self, now: Duration) -> impl Iterator<Item = LaneStatus> {
        let at = self.start + now;
        self.lanes.iter_mut().map(move |lane| lane.status(at))
    }

    /// One attempt takes its place.
    fn attempt(&mut self, request: usize, now: Duration) {
        let job = &mut self.jobs[request];
        let lane = &mut self.lanes[job.account];
        match lane.submit(&job.ask, || request, self.start + now) {
            Ok(Submitted::Granted(grant)) => self.granted(request, grant, now),
            Ok(Submitted::Queued(ticket)) => job.waits = Some(ticket),
            Err(_) => self.lost += 1,
        }
    }

    fn granted(&mut self, request: usize, grant: Box<Grant>, now: Duration) {
        if let Some((at, waits)) = &mut self.predicted
            && let Some(predicted) = waits.remove(&request)
        {
            let wait = (now - *at).as_secs_f64();
            self.errors.push((predicted.as_secs_f64() - wait).abs() / wait.max(f64::MIN_POSITIVE));
        }
        let job = &mut self.jobs[request];
        (job.grant, job.waits) = (Some(grant), None);
        self.due.push(Send { request, account: job.account });
    }

    /// Predicts once for everybody who waits.
    fn predict(&mut self, now: Duration) {
        let waiting: usize = self.lanes.iter().map(Machine::waiting).sum();
        if self.predicted.is_some() || waiting > self.predict_at || now.is_zero() {
            return;
        }
        let (lanes, at) = (&mut self.lanes, self.start + now);
        let predict = |(request, job): (usize, &Job)| {
            let forecast = lanes[job.account].explain(job.waits.as_ref()?, at)?;
            Some((request, forecast.starts_in))
        };
        self.predicted = Some((now, self.jobs.iter().enumerate().filter_map(predict).collect()));
    }
}

impl Client for Ours {
    fn submit(&mut self, request: usize, now: Duration) {
        let (ask, at) = (&self.jobs[request].ask, self.start + now);
        if self.lanes.len() > 1 {
            let offer = |lane: &mut Machine<usize>| {
                let forecast = lane.try_forecast(ask, at).ok();
                let (starts_in, ahead) = forecast.map_or((Duration::MAX, 0), |found| (found.starts_in, found.ahead));
                let load = ahead + lane.in_flight() as usize;
                Offer { starts_in, free: ahead == 0 && lane.open(at).is_ok(), load, ..Offer::default() }
            };
            let offers: Vec<_> = self.lanes.iter_mut().map(offer).collect();
            self.jobs[request].account = choose(&offers, &Wish { turn: request, ..Wish::default() }).unwrap_or(0);
        }
        self.attempt(request, now);
    }

    fn answered(&mut self, request: usize, answer: &Answer, now: Duration) {
        let job = &mut self.jobs[request];
        let lane = &mut self.lanes[job.account];
        let Some(grant) = job.grant.take() else { return };
        let (charge, sent, at) = (grant.charge, grant.at, self.start + now);
        let seen = providers::observe(self.provider, &answer.headers, SystemTime::UNIX_EPOCH + now);
        if answer.status < 400 {
            let end = answer.usage.map_or(End::Unknown, |usage| {
                let settled = providers::at_completion(self.provider, "", &charge, &usage);
                End::Used(settled.unwrap_or(Charge::tokens(usage.input_tokens, usage.output_tokens)))
            });
            lane.finish(grant, end, &seen.readings, at);
            lane.answered(sent);
            return;
        }
        let failure = providers::classify(self.provider, answer.status, &seen, &answer.body);
        let (retry, pause) = (failure.retry(), job.backoff.next());
        let refused = retry == Retry::AfterLimit || failure.status == 429;
        job.ask.again = Some(grant.ticket().clone());
        lane.finish(grant, if refused { End::Refused } else { End::Unknown }, &seen.readings, at);
        lane.answered(sent);
        match (retry, failure.wait) {
            (Retry::AfterLimit, _) => {
                let default_wait = pause.unwrap_or(Duration::from_secs(1));
                lane.refused(&failure, &charge, sent, default_wait, at);
            }
            (Retry::Backoff, Some(wait)) => drop(lane.pause(wait, at)),
            _ => {}
        }
        let Some(pause) = pause.filter(|_| retry != Retry::Never) else {
            self.lost += 1;
            return;
        };
        let own = if retry == Retry::Backoff && failure.wait.is_none() { pause } else { Duration::ZERO };
        let budget = if retry == Retry::AfterLimit { Duration::ZERO } else { lane.spend_retry(at) };
        self.again.push(Reverse((now + own.max(budget), request)));
    }

    fn poll(&mut self, now: Duration, out: &mut Vec<Send>) -> Option<Duration> {
        while let Some(Reverse((at, request))) = self.again.peek().copied()
            && at <= now
        {
            self.again.pop();
            self.attempt(request, now);
        }
        let mut next = self.again.peek().map(|Reverse((at, _))| *at);
        for index in 0..self.lanes.len() {
            let mut wakes = Vec::new();
            let wake = self.lanes[index].poll(self.start + now, &mut wakes);
            for wake in wakes {
                match wake {
                    Wake::Granted(grant, request) => self.granted(request, grant, now),
                    Wake::Refused(..) => self.lost += 1,
                }
            }
            next = [next, wake.map(|at| at - self.start)].into_iter().flatten().min();
        }
        self.predict(now);
        out.append(&mut self.due);
        next
    }

    fn beliefs(&mut self, now: Duration) -> String {
        let lane = |status: LaneStatus| {
            let gates = status.gates.iter().map(|gate| {
                let blocked = gate.blocked_for.map_or(String::new(), |wait| format!(", blocked for {wait:.3?}"));
                format!("{} left of {} ({:?} {:?}{blocked})", gate.left, gate.limit, gate.shapes, gate.rules)
            });
            let gates: Vec<_> = gates.collect();
            format!("{}; {} under way, {} wait", gates.join(", "), status.in_flight, status.waiting)
        };
        self.lanes(now).map(lane).collect::<Vec<_>>().join(" | ")
    }
}
