//! The figures of a run: one struct for the table that people read and the JSON that programs read.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use tollgate::engine::Predictions;
use tollgate::mock::Stats;
use tollgate::{CacheStats, EndpointSnapshot, LaneSnapshot, Snapshot};

use super::check::Checked;
use super::failures::Kind;
use super::work::Job;
use crate::known::Known;
use crate::show;

/// The figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    rows: Rows,
    /// From the first row that was taken up to the last result.
    elapsed_s: f64,
    /// From the first admission to the last.
    admission_span_s: f64,
    /// The least time in which the limits could have admitted this much: the longest of those that are known.
    lower_bound_s: f64,
    /// The span against that bound; `null` where no limit is known to have held it.
    ratio: Option<f64>,
    limits: Vec<LimitUse>,
    /// How the calls of each address went in the last minutes.
    endpoints: Vec<EndpointSnapshot>,
    /// Tokens that were reserved for the requests whose usage is known …
    estimated_tokens: u64,
    /// … and what they used.
    used_tokens: u64,
    /// How well outputs without a cap were guessed; `null` where every row has one.
    guesses: Option<Guesses>,
    /// Attempts admitted.
    attempts: u64,
    /// Answers with HTTP 429, whatever they refused for.
    rate_limited: u64,
    retries: u64,
    /// Attempts that failed in other ways.
    failed_attempts: u64,
    /// Times that the provider was failing for everybody, and was waited for.
    outages: u64,
    interrupted: bool,
    /// Why rows failed in this run, the most frequent first.
    failures: Vec<Kind>,
    /// How often the cache helped; missing without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<CacheStats>,
    /// What the embedded mock saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    mock: Option<Stats>,
}

/// The guessed outputs of answers whose usage is known, in tokens.
#[derive(Debug, Serialize)]
struct Guesses {
    requests: u64,
    predicted: u64,
    used: u64,
    /// By how much a guess was wrong in the mean, above or below.
    mean_error: f64,
    /// The share of requests that used no more than was reserved.
    covered: f64,
}

impl Guesses {
    fn all(lanes: &[LaneSnapshot]) -> Option<Self> {
        let sum = lanes.iter().fold(Predictions::default(), |sum, lane| sum.plus(&lane.status.predictions));
        (sum.requests > 0).then(|| Self {
            requests: sum.requests,
            predicted: sum.predicted,
            used: sum.used,
            mean_error: sum.mean_error(),
            covered: sum.share_covered(),
        })
    }
}

#[derive(Debug, Serialize)]
struct Rows {
    /// Rows in the input.
    total: u64,
    /// Had a result before this run …
    done_before: u64,
    /// … of those: a failure.
    failed_before: u64,
    succeeded: u64,
    failed: u64,
    /// Lines left out because they cannot be sent.
    skipped: u64,
    /// Sent by an earlier run and found without a result.
    uncertain: u64,
    /// Without a result after this run.
    left: u64,
}

/// One limit and how far it was used.
#[derive(Debug, Serialize)]
struct LimitUse {
    #[serde(flatten)]
    known: Known,
    /// What was charged, less what was given back.
    spent: u64,
    /// What was spent against all that the limit allowed: a full bucket, and what flowed in over the lane's own span.
    r#use: f64,
    /// The least time in which it could have let this much pass, whichever of the shapes and rules is true; `null` where the limit
    /// changed or was found on the way.
    lower_bound_s: Option<f64>,
}

impl LimitUse {
    fn all(lane: &LaneSnapshot) -> impl Iterator<Item = Self> {
        lane.status.gates.iter().map(|gate| {
            let (amount, window) = (gate.limit.amount as f64, gate.limit.window.as_secs_f64());
            let spent = gate.spent as f64;
            Self {
                known: Known::of(lane, gate),
                spent: gate.spent,
                r#use: (spent / (amount * (1.0 + lane.status.span.as_secs_f64() / window))).min(1.0),
                lower_bound_s: gate.least_time().map(|time| time.as_secs_f64()),
            }
        })
    }
}

impl Report {
    pub(crate) fn new(job: &Job, checked: &Checked, elapsed: Duration, mock: Option<Stats>) -> Self {
        let Snapshot { lanes, endpoints, .. } = job.scheduler.snapshot();
        let lanes: Vec<_> = lanes.into_iter().filter(|lane| lane.status.admitted > 0).collect();
        let limits: Vec<_> = lanes.iter().flat_map(LimitUse::all).collect();
        let sum = |figure: fn(&LaneSnapshot) -> u64| lanes.iter().map(figure).fold(0, u64::saturating_add);
        let lower_bound_s = limits.iter().filter_map(|limit| limit.lower_bound_s).fold(0.0, f64::max);
        let admission_span_s = job.tally.span().as_secs_f64();
        Self {
            rows: Rows {
                total: checked.rows,
                done_before: checked.done,
                failed_before: checked.failed,
                succeeded: job.tally.succeeded.load(Relaxed),
                failed: job.tally.failed.load(Relaxed),
                skipped: checked.invalid,
                uncertain: checked.uncertain,
                left: checked.rows.saturating_sub(checked.done + job.tally.done()),
            },
            elapsed_s: elapsed.as_secs_f64(),
            admission_span_s,
            lower_bound_s,
            ratio: (lower_bound_s > 0.0).then(|| admission_span_s / lower_bound_s),
            limits,
            endpoints,
            estimated_tokens: sum(|lane| lane.status.estimated.tokens),
            used_tokens: sum(|lane| lane.status.used.tokens),
            guesses: Guesses::all(&lanes),
            attempts: sum(|lane| lane.status.admitted),
            rate_limited: sum(|lane| lane.counters.rate_limited),
            retries: sum(|lane| lane.counters.retries),
            failed_attempts: sum(|lane| lane.counters.failed),
            outages: sum(|lane| lane.counters.outages),
            interrupted: job.stop.interrupted(),
            failures: job.failures.kinds(),
            cache: job.scheduler.cache_stats(),
            mock,
        }
    }

    /// Rows that failed, in this run or before.
    pub(crate) fn failures(&self) -> u64 {
        self.rows.failed + self.rows.failed_before
    }

    pub(crate) fn reasons(&self) -> &[Kind] {
        &self.failures
    }

    pub(crate) fn left(&self) -> u64 {
        self.rows.left
    }

    /// Whether every row had its result before.
    pub(crate) fn was_complete(&self) -> bool {
        self.rows.total > 0 && self.rows.done_before == self.rows.total
    }

    /// What people read.
    pub(crate) fn tables(&self) -> String {
        let Rows { total, done_before, failed_before: _, succeeded, failed, skipped, uncertain, left } = self.rows;
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY);
        let mut row = |name: &str, value: String| {
            table.add_row([name.to_owned(), value]);
        };
        row("rows", show::count(total));
        for (name, number) in
            [("done before", done_before), ("lines skipped", skipped), ("sent before without a result", uncertain)]
        {
            if number > 0 {
                row(name, show::count(number));
            }
        }
        row("succeeded", show::count(succeeded));
        row("failed", show::count(failed));
        if left > 0 {
            row("left", show::count(left));
        }
        if let Some(cache) = &self.cache {
            let CacheStats { fresh, shared, stale, .. } = cache;
            let [fresh, shared, stale] = [fresh, shared, stale].map(|rows| show::count(*rows));
            let answered = show::count(cache.answered());
            row("answered without a call", format!("{answered} ({fresh} kept, {shared} shared, {stale} old)"));
        }
        row("elapsed", time(self.elapsed_s));
        match self.ratio {
            Some(ratio) => {
                row("first to last admission", time(self.admission_span_s));
                // The cheapest of the rules that are possible may not be the true one, and then the true bound is higher.
                let binding = self.limits.iter().find(|limit| limit.lower_bound_s == Some(self.lower_bound_s));
                let open = binding.map_or(0, |limit| limit.known.rules.len());
                let by = if open > 1 && ratio > 1.05 {
                    format!(" by the cheapest of {open} charge rules")
                } else {
                    String::new()
                };
                row("the least that the limits allow", format!("{}{by} (ratio {ratio:.3})", time(self.lower_bound_s)));
            }
            None => {
                // A bound of zero says little where a laxer shape is possible than the one that the limits may have.
                let known = |limit: &LimitUse| limit.lower_bound_s.is_some() && limit.known.shapes.len() == 1;
                let free = if self.limits.iter().all(known) { ", not held by a limit" } else { "" };
                row("first to last admission", format!("{}{free}", time(self.admission_span_s)));
            }
        }
        if self.estimated_tokens > 0 {
            let share = show::share(self.used_tokens as f64 / self.estimated_tokens as f64);
            let (used, estimated) = (show::count(self.used_tokens), show::count(self.estimated_tokens));
            row("tokens used", format!("{used}, {share} of the {estimated} reserved"));
        }
        if let Some(Guesses { requests, predicted, used, mean_error, covered }) = &self.guesses {
            let each = |tokens: u64| show::count(tokens / requests);
            let (mean, covered) = (show::count(mean_error.round() as u64), show::share(*covered));
            row(
                "output without a cap",
                format!(
                    "{} each, guessed {} (off by {mean} in the mean, {covered} covered)",
                    each(*used),
                    each(*predicted)
                ),
            );
        }
        row("429s", show::count(self.rate_limited));
        row("retries", show::count(self.retries));
        row("other failed attempts", show::count(self.failed_attempts));
        if self.outages > 0 {
            row("outages waited for", show::count(self.outages));
        }
        if self.limits.is_empty() {
            return table.to_string();
        }
        let mut limits = Table::new();
        limits.load_preset(presets::UTF8_BORDERS_ONLY);
        limits.set_header(["limit of", "", "amount", "spent", "use", "enforced", "charged", "source"]);
        let first = self.limits.first().map(|limit| &limit.known.lane.account);
        let accounts = self.limits.iter().any(|limit| Some(&limit.known.lane.account) != first);
        for LimitUse { known, spent, r#use, .. } in &self.limits {
            let lane = &known.lane;
            limits.add_row([
                if accounts { format!("{}: {}", lane.account, lane.pool) } else { lane.pool.clone() },
                known.limit.clone(),
                show::count(known.amount),
                show::count(*spent),
                show::share(*r#use),
                known.enforced.clone(),
                known.charged.clone().unwrap_or_default(),
                known.source.clone(),
            ]);
        }
        for column in 2..5 {
            if let Some(column) = limits.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        format!("{table}\n{limits}")
    }
}

fn time(seconds: f64) -> String {
    Duration::try_from_secs_f64(seconds).map_or_else(|_| "?".to_owned(), show::time)
}
