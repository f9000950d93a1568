//! Whatever a provider does, what is true of it stays possible, and it refuses nothing.

use std::time::Duration;

use fastrand::Rng;
use tollgate::engine::GateStatus;
use tollgate::mock::{ChargeRule, Count, Stamp};
use tollgate::providers::Rule;
use tollgate::{Dimension, Shape};

use super::ours::Ours;
use super::play::{Answer, Client, Send, play};
use super::rows::Row;
use super::workload::{Caps, Load};

/// Random providers. `TOLLGATE_WORLDS` sets another number.
const WORLDS: u64 = 500;
/// Of a hundred, as many may meet what rules out the truth, and so may be refused more than once: noise is told from
/// contradictions by counting them, and a limit of a few requests a minute gives little to count.
const PER_HUNDRED: u64 = 1;

#[test]
fn the_truth_stays_possible_and_nothing_is_refused_whatever_the_provider_is_like() {
    let _computing = crate::computing();
    let worlds = std::env::var("TOLLGATE_WORLDS").map_or(WORLDS, |n| n.parse().expect("TOLLGATE_WORLDS is a number"));
    let (mut wrong, mut refused) = (Vec::new(), Vec::new());
    for seed in 0..worlds {
        let row = any_row(&mut Rng::with_seed(seed));
        let requests = row.load.requests(seed);
        let mut client = Watched { ours: Ours::new(&row, &requests, seed), row: &row, wrong: None };
        let game = play(&row, &requests, seed, &mut client, false);
        assert_eq!(game.admissions.len(), requests.len(), "seed {seed}: {row:?}");
        if let Some((at, gate)) = client.wrong {
            wrong.push(format!("seed {seed} at {at:.1?}: {:?} {:?} of {row:?}", gate.shapes, gate.rules));
        }
        if !game.refusals.is_empty() {
            refused.push(format!("seed {seed}: {} × 429, {row:?}", game.refusals.len()));
        }
    }
    println!(
        "of {worlds} worlds, the truth was ruled out in {} and something refused in {}",
        wrong.len(),
        refused.len()
    );
    for cases in [wrong, refused] {
        assert!(cases.len() as u64 * 100 <= worlds * PER_HUNDRED, "{cases:#?}");
    }
}

/// A provider of which at most the limits are told, 10 to 60,000 requests a minute, and a load that fills some minutes.
fn any_row(luck: &mut Rng) -> Row {
    let rules = [ChargeRule::InputPlusCap, ChargeRule::MaxOfInputAndCap, ChargeRule::InputOnly];
    let charge = *luck.choice(&rules).unwrap();
    // By powers, so that small ones are as frequent as large ones.
    let mut power = |least: f64, most: f64| 10f64.powf(least + (most - least) * luck.f64());
    let rpm = power(1.0, 4.78) as u64;
    let tpm = ((rpm as f64 * power(2.0, 3.5)) as u64).max(20_000);
    let latency = power(-1.3, 0.5);
    let requests = 3 * rpm.min(tpm / 700) as usize;
    let stamp = *luck.choice(&[Stamp::Admission, Stamp::Completion, Stamp::None]).unwrap();
    let caps = *luck.choice(&[Caps::Tight, Caps::Loose]).unwrap();
    let settle = charge == ChargeRule::InputPlusCap && luck.bool();
    let mut row = Row {
        accounts: vec![(rpm, tpm)],
        load: Load { requests: requests.clamp(30, 2_000), caps, ..Load::default() },
        charge,
        // Output that is added to an inexact input makes neither the one nor the other of our rules.
        count: if charge == ChargeRule::InputOnly || luck.bool() { Count::Exact } else { Count::Characters },
        settle,
        stamp,
        latency,
        ..Row::new("any", 0, 1.0)
            .shaped(*luck.choice(&[Shape::Refill, Shape::Fixed, Shape::Sliding]).unwrap())
            .compatible(false)
    };
    // Without headers there is no other way to know them.
    row.told.limits = stamp == Stamp::None || luck.bool();
    row
}

/// Watches what is believed as every answer comes in.
struct Watched<'a> {
    ours: Ours,
    row: &'a Row,
    /// What was believed when the truth was first ruled out.
    wrong: Option<(Duration, GateStatus)>,
}

impl Client for Watched<'_> {
    fn submit(&mut self, request: usize, now: Duration) {
        self.ours.submit(request, now);
    }

    fn answered(&mut self, request: usize, answer: &Answer, now: Duration) {
        self.ours.answered(request, answer, now);
        if self.wrong.is_none() {
            let wrong = self.ours.lanes(now).flat_map(|lane| lane.gates).find(|gate| !holds_truth(gate, self.row));
            self.wrong = wrong.map(|gate| (now, gate));
        }
    }

    fn poll(&mut self, now: Duration, out: &mut Vec<Send>) -> Option<Duration> {
        self.ours.poll(now, out)
    }
}

/// Whether the shape and the charge rule that the provider has are among those that may be.
fn holds_truth(gate: &GateStatus, row: &Row) -> bool {
    let (shape, rule) = match gate.limit.dimension {
        Dimension::Requests => (row.rpm_shape, Rule::LargerPlusCap),
        _ => (row.tpm_shape, rule_of(row)),
    };
    gate.shapes.contains(&shape) && gate.rules.contains(&rule)
}

/// The provider's rule in our words.
fn rule_of(row: &Row) -> Rule {
    match (row.charge, row.count) {
        _ if row.settle => Rule::Usage,
        (ChargeRule::InputPlusCap, Count::Characters) => Rule::CharsPlusCap,
        (ChargeRule::InputPlusCap, Count::Exact) => Rule::TokensPlusCap,
        (ChargeRule::MaxOfInputAndCap, Count::Characters) => Rule::CharsOrCap,
        (ChargeRule::MaxOfInputAndCap, Count::Exact) => Rule::TokensOrCap,
        // What was produced is charged when it is known.
        _ => Rule::Usage,
    }
}
