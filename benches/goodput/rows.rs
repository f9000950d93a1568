//! The workloads, one a row: what the provider does, what the client is told of it, and what is to be reached.

use std::time::Duration;

use fastrand::Rng;
use tollgate::mock::{Book, ChargeRule, Count, LimitChange, MockConfig, MockLimits, MockShapes, Stamp};
use tollgate::{Limit, Provider, Shape};

use super::bound::Truth;
use super::workload::{Caps, Load};

/// A row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) load: Load,
    /// RPM and TPM of each account.
    pub(crate) accounts: Vec<(u64, u64)>,
    pub(crate) rpm_shape: Shape,
    pub(crate) tpm_shape: Shape,
    pub(crate) charge: ChargeRule,
    pub(crate) count: Count,
    pub(crate) settle: bool,
    pub(crate) stamp: Stamp,
    /// The limits become half of what they were at this time.
    pub(crate) halves_at: Option<Duration>,
    /// Somebody else takes a third of the account from the first minute's end on, for so many minutes.
    pub(crate) neighbour: u32,
    /// How long an answer takes on average, in seconds.
    pub(crate) latency: f64,
    /// The server takes in one request each so often: a burst takes its time to get there.
    pub(crate) intake: Duration,
    pub(crate) told: Told,
    pub(crate) target: Target,
}

/// What the client knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// Its profile says how limits are enforced and what is charged, as far as that is known.
    pub(crate) provider: Provider,
    /// Whether it was told the limits.
    pub(crate) limits: bool,
    /// Whether it was told their shapes; else the profile tells them, or nobody does.
    pub(crate) shapes: bool,
}

/// What is to be reached, in the worst of all seeds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// 429s, and the time against the least possible.
    Time { refused: usize, ratio: f64 },
    /// The same, the bound being that of a sliding window: without headers nobody can know the phase.
    Sliding { refused: usize, ratio: f64 },
    /// The same, and no large request waits longer than this many times its turn in a plain queue.
    Turns { refused: usize, ratio: f64, turns: f64 },
    /// The median error of predicted waits.
    Prediction { error: f64 },
}

const RPM: u64 = 500;
const TPM: u64 = 300_000;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

impl Row {
    /// The first row of the table, from which the others differ.
    pub(crate) fn new(name: impl Into<String>, refused: usize, ratio: f64) -> Self {
        Self {
            name: name.into(),
            load: Load::default(),
            accounts: vec![(RPM, TPM)],
            rpm_shape: Shape::Refill,
            tpm_shape: Shape::Refill,
            charge: ChargeRule::InputPlusCap,
            count: Count::Characters,
            settle: false,
            stamp: Stamp::Completion,
            halves_at: None,
            neighbour: 0,
            latency: 0.8,
            intake: Duration::ZERO,
            told: Told { provider: Provider::Openai, limits: true, shapes: false },
            target: Target::Time { refused, ratio },
        }
    }

    pub(crate) fn shaped(self, shape: Shape) -> Self {
        Self { rpm_shape: shape, tpm_shape: shape, ..self }
    }

    /// Of a server of which nothing is known, with these shapes configured or not.
    pub(crate) fn compatible(self, shapes: bool) -> Self {
        Self { told: Told { provider: Provider::Compatible, shapes, ..self.told }, ..self }
    }

    /// When the provider's windows begin.
    pub(crate) fn phase(&self, seed: u64) -> Duration {
        MINUTE.mul_f64(Rng::with_seed(seed ^ 0x7068_6173_6500).f64())
    }

    /// The provider's books, one for each account.
    pub(crate) fn books(&self, seed: u64) -> Vec<Book> {
        let shapes = MockShapes { rpm: self.rpm_shape, tpm: self.tpm_shape, ..MockShapes::default() };
        let book = |(rpm, tpm): &(u64, u64)| {
            Book::new(&MockConfig {
                limits: MockLimits { rpm: Some(*rpm), tpm: Some(*tpm), shapes, ..MockLimits::default() },
                charge: self.charge,
                count: self.count,
                predicted_output: 0, // the output of requests without a cap is charged when it is known
                settle: self.settle,
                phase: Some(self.phase(seed)),
                changes: self.halves_at.map(|at| LimitChange { at, factor: 0.5 }).into_iter().collect(),
                ..MockConfig::default()
            })
        };
        self.accounts.iter().map(book).collect()
    }

    /// RPM and TPM of all accounts together, as they truly are. Several accounts are only played with refill, where they
    /// add up.
    pub(crate) fn truth(&self, seed: u64) -> [Truth; 2] {
        let truth = |amount, shape| Truth {
            amount,
            shape,
            phase: self.phase(seed),
            change: self.halves_at.map(|at| (at, 0.5)),
        };
        let (rpm, tpm) = self.accounts.iter().fold((0, 0), |sum, account| (sum.0 + account.0, sum.1 + account.1));
        [truth(rpm, self.rpm_shape), truth(tpm, self.tpm_shape)]
    }

    /// By which the least time is told.
    pub(crate) fn bound(&self, seed: u64) -> [Truth; 2] {
        match self.target {
            Target::Sliding { .. } => self.truth(seed).map(|truth| Truth { shape: Shape::Sliding, ..truth }),
            _ => self.truth(seed),
        }
    }

    /// What the client is told of the limits of an account.
    pub(crate) fn limits(&self, account: usize) -> Vec<Limit> {
        if !self.told.limits {
            return Vec::new();
        }
        let (rpm, tpm) = self.accounts[account];
        let (rpm, tpm) = (Limit::rpm(rpm), Limit::tpm(tpm));
        if self.told.shapes { vec![rpm.shaped(self.rpm_shape), tpm.shaped(self.tpm_shape)] } else { vec![rpm, tpm] }
    }

    /// When the neighbour's requests come: a third of the requests of each minute.
    pub(crate) fn others(&self) -> impl Iterator<Item = Duration> {
        let each = self.accounts[0].0 / 3;
        (0..each * u64::from(self.neighbour)).map(move |i| MINUTE + MINUTE.mul_f64(i as f64 / each as f64))
    }

    /// And how large they are: a third of the tokens.
    pub(crate) fn others_size(&self) -> u64 {
        self.accounts[0].1 / self.accounts[0].0
    }
}

/// All rows.
pub(crate) fn all() -> Vec<Row> {
    let slice = |seconds| Shape::Slice(SECOND * seconds);
    let mut rows = vec![
        Row::new("refill", 0, 1.02),
        Row { stamp: Stamp::None, ..Row::new("refill-blind", 0, 1.05) },
        Row::new("sliding", 0, 1.03).shaped(Shape::Sliding).compatible(true),
        Row::new("fixed", 0, 1.05).shaped(Shape::Fixed).compatible(true),
        Row {
            stamp: Stamp::None,
            target: Target::Sliding { refused: 0, ratio: 1.03 },
            ..Row::new("fixed-blind", 0, 1.03).shaped(Shape::Fixed).compatible(true)
        },
    ];
    for (name, shape) in [("refill", Shape::Refill), ("fixed", Shape::Fixed), ("sliding", Shape::Sliding)] {
        for (rule, charge) in [("sum", ChargeRule::InputPlusCap), ("max", ChargeRule::MaxOfInputAndCap)] {
            for (when, stamp) in [("admission", Stamp::Admission), ("completion", Stamp::Completion)] {
                let row = Row::new(format!("any-{name}-{rule}-{when}"), 0, 1.05).shaped(shape).compatible(false);
                rows.push(Row { charge, stamp, ..row });
            }
        }
    }
    // A server that takes in 300 requests a second, as small gateways and many connections at once do.
    let slow = |name: String| Row { intake: SECOND / 300, ..Row::new(name, 0, 1.05).compatible(false) };
    for (name, shape) in [("refill", Shape::Refill), ("fixed", Shape::Fixed), ("sliding", Shape::Sliding)] {
        for (when, stamp) in [("admission", Stamp::Admission), ("completion", Stamp::Completion)] {
            rows.push(Row { stamp, ..slow(format!("slow-{name}-{when}")).shaped(shape) });
        }
    }
    let rpm_sliced = |name, seconds| {
        // The tokens refill, or the two limits would bind in turns and nobody could reach the larger of their bounds.
        Row { rpm_shape: slice(seconds), ..Row::new(name, 0, 1.05).compatible(true) }
    };
    let busy = |name| Row {
        accounts: vec![(60_000, 6_000_000)],
        load: Load { requests: 60_000, ..Load::default() },
        ..Row::new(name, 20, 1.15).compatible(false)
    };
    let loose = Load { caps: Caps::Loose, ..Load::default() };
    let absent = Load { caps: Caps::Absent, ..Load::default() };
    let large = Load { large: Some((0.02, TPM * 15 / 100)), ..Load::default() };
    rows.extend([
        rpm_sliced("slices-10s", 10),
        rpm_sliced("slices-1s", 1),
        // Nine in ten seeds cost six; where a slice ends within the test, another slice is found out about.
        Row { rpm_shape: slice(10), ..Row::new("slices-10s-unknown", 90, 1.10).compatible(false) },
        Row { rpm_shape: slice(1), ..Row::new("slices-1s-unknown", 90, 1.15).compatible(false) },
        Row { rpm_shape: slice(1), ..busy("slices-unknown-rpm") },
        busy("slices-unknown-both").shaped(slice(1)),
        Row::new("rule-sum", 0, 1.05),
        Row { charge: ChargeRule::InputOnly, ..Row::new("rule-input", 0, 1.05) },
        Row {
            told: Told { provider: Provider::Openai, limits: false, shapes: false },
            ..Row::new("limits-unknown", 2, 1.08)
        },
        Row {
            told: Told { provider: Provider::Compatible, limits: false, shapes: false },
            ..Row::new("limits-and-shape-unknown", 2, 1.08)
        },
        Row {
            told: Told { provider: Provider::Compatible, limits: false, shapes: false },
            target: Target::Time { refused: 2, ratio: 1.08 },
            ..slow("slow-limits-unknown".into())
        },
        Row {
            told: Told { provider: Provider::Compatible, limits: false, shapes: false },
            target: Target::Time { refused: 2, ratio: 1.08 },
            charge: ChargeRule::MaxOfInputAndCap,
            ..slow("slow-limits-unknown-max".into())
        },
        Row { halves_at: Some(MINUTE), ..Row::new("limit-halves", 3, 1.08) },
        Row { neighbour: 1, ..Row::new("neighbour", 5, 1.10) },
        Row { neighbour: 10, ..Row::new("neighbour-stays", 10, 1.05) },
        Row { load: loose, settle: true, ..Row::new("caps-5x", 0, 1.05) },
        Row { load: absent, ..Row::new("no-caps", 0, 1.08) },
        Row { accounts: vec![(250, 150_000), (150, 90_000), (100, 60_000)], ..Row::new("accounts-3", 0, 1.05) },
        Row {
            load: large,
            target: Target::Turns { refused: 0, ratio: 1.05, turns: 3.0 },
            ..Row::new("long-tail", 0, 1.05)
        },
        Row { target: Target::Prediction { error: 0.05 }, ..Row::new("prediction", 0, 1.0) },
        // Harder: what will be given back decides when the last of a thousand starts.
        Row { settle: true, target: Target::Prediction { error: 0.05 }, ..Row::new("prediction-settled", 0, 1.0) },
    ]);
    rows
}
