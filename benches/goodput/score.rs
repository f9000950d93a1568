//! What a game was worth.

use serde::Serialize;

use super::play::Game;
use super::rows::{Row, Target};
use super::workload::Request;

/// The figures of one game.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Score {
    pub(crate) seed: u64,
    /// 429s.
    pub(crate) refused: usize,
    /// Requests that were never done.
    pub(crate) lost: usize,
    /// Seconds from the first to the last admission.
    pub(crate) time: f64,
    /// The least that they could be.
    pub(crate) bound: f64,
    /// Of what the limit that binds allowed in that time, how much was charged.
    pub(crate) used_of_limit: f64,
    /// Of what was charged, how much was not used; some rules charge less than that.
    pub(crate) waste: f64,
    /// The longest wait of a large request against its turn in a plain queue.
    pub(crate) turns: Option<f64>,
    /// The median error of predicted waits, as a part of the wait.
    pub(crate) error: Option<f64>,
}

impl Score {
    pub(crate) fn new(row: &Row, seed: u64, requests: &[Request], game: &Game, errors: &[f64]) -> Self {
        let at = |index: Option<&super::play::Admission>| index.map_or(0.0, |admission| admission.at.as_secs_f64());
        let (first, last) = (at(game.admissions.first()), at(game.admissions.last()));
        let tokens: u64 = game.admissions.iter().map(|admission| admission.tokens).sum();
        let all = [game.admissions.len() as u64 + game.others.0, tokens + game.others.1];
        let early = |truth: &super::bound::Truth| {
            let end = truth.window_end(first);
            let early = game.admissions.iter().take_while(|admission| admission.at.as_secs_f64() < end);
            early.fold([0, 0], |[requests, tokens], admission| [requests + 1, tokens + admission.tokens])
        };
        let bounds = row.bound(seed).into_iter().zip(all).enumerate();
        let least = bounds.map(|(i, (truth, all))| truth.least_in_the_dark(all, first, early(&truth)[i]));
        let used =
            row.truth(seed).into_iter().zip(all).map(|(truth, all)| all as f64 / truth.most(first, last - first));
        Self {
            seed,
            refused: game.refusals.len(),
            lost: requests.len() - game.admissions.len(),
            time: last - first,
            bound: least.fold(0.0, f64::max),
            used_of_limit: used.fold(0.0, f64::max),
            waste: (1.0 - game.used as f64 / tokens.max(1) as f64).max(0.0),
            turns: row.load.large.map(|(_, size)| turns(row, seed, game, first, size)),
            error: (!errors.is_empty()).then(|| median(errors.iter().copied())),
        }
    }

    /// Time against the bound; infinite where requests were lost.
    pub(crate) fn ratio(&self) -> f64 {
        if self.lost > 0 { f64::INFINITY } else { self.time / self.bound.max(f64::MIN_POSITIVE) }
    }

    pub(crate) fn reaches(&self, target: &Target) -> bool {
        match *target {
            Target::Time { refused, ratio } | Target::Sliding { refused, ratio } => {
                self.refused <= refused && self.ratio() <= ratio
            }
            Target::Turns { refused, ratio, turns } => {
                self.refused <= refused && self.ratio() <= ratio && self.turns.is_some_and(|waited| waited <= turns)
            }
            Target::Prediction { error } => self.lost == 0 && self.error.is_some_and(|seen| seen <= error),
        }
    }
}

/// The longest wait of a large request against the time at which a queue in the order of arrival would have come to it.
fn turns(row: &Row, seed: u64, game: &Game, first: f64, large: u64) -> f64 {
    /// The latency of an answer or two, which a first request may have to wait for, is no unfairness.
    const AT_LEAST: f64 = 2.0;
    let mut order = game.admissions.clone();
    order.sort_by_key(|admission| admission.request);
    let (mut before, mut worst) = (0, 0.0_f64);
    for (index, admission) in order.iter().enumerate() {
        before += admission.tokens;
        if admission.tokens < large / 2 {
            continue;
        }
        let sums = [index as u64 + 1, before];
        let fair = row.truth(seed).into_iter().zip(sums).map(|(truth, sum)| truth.least(sum, first));
        worst = worst.max(admission.at.as_secs_f64() / fair.fold(AT_LEAST, f64::max));
    }
    worst
}

pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn worst(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().fold(f64::NEG_INFINITY, f64::max)
}
