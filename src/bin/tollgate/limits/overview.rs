//! One list of limits, for people and for programs.

use std::fmt;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use tollgate::LaneSnapshot;
use tollgate::engine::{GateStatus, Source};

use super::ask::Answer;
use crate::known::{Known, Lane};
use crate::show;

/// The name of a lane that stands for every model.
pub(super) const ANY: &str = "any model";
/// Where a number is from that earlier runs saw.
const LEARNED: &str = "learned";

/// Everything that is known.
#[derive(Debug, Default, Serialize)]
pub(super) struct Overview {
    limits: Vec<Listed>,
    /// Lanes of which no limit is known.
    unknown: Vec<Lane>,
    /// What probes were answered.
    pub(super) answers: Vec<Answer>,
}

/// One limit.
#[derive(Debug, Serialize)]
struct Listed {
    /// The source may also be `learned`: by earlier runs.
    #[serde(flatten)]
    known: Known,
    /// Whether earlier runs found out more about shape or charge than the provider's profile tells.
    learned: bool,
    /// What is left now; `null` where no header told.
    left: Option<i64>,
    /// Seconds until it is full again; `null` where no header told.
    full_in_s: Option<f64>,
}

impl Listed {
    /// `before` is the same limit without what was learned, if it is known without.
    fn new(lane: &LaneSnapshot, gate: &GateStatus, before: Option<&GateStatus>, answer: Option<&Answer>) -> Self {
        let told = answer.is_some_and(|answer| answer.shows(&gate.limit));
        // Without an answer, only earlier runs can have seen a header.
        let seen_before = gate.source == Source::Header && !told;
        let narrower = |before: &GateStatus| {
            (&before.shapes, &before.suspected, &before.rules) != (&gate.shapes, &gate.suspected, &gate.rules)
        };
        let mut known = Known::of(lane, gate);
        if seen_before {
            known.source = LEARNED.to_owned();
        }
        Self {
            known,
            learned: seen_before || answer.is_none() && before.is_some_and(narrower),
            left: told.then_some(gate.left),
            full_in_s: told.then_some(gate.full_in.as_secs_f64()),
        }
    }

    fn source(&self) -> String {
        let source = &self.known.source;
        if self.learned && source != LEARNED { format!("{source}, the rest learned") } else { source.clone() }
    }

    fn full(&self) -> String {
        let full = self.full_in_s.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        match full {
            None => "?".to_owned(),
            Some(full) if full < Duration::from_millis(50) => "now".to_owned(),
            Some(full) => format!("in {}", show::time(full)),
        }
    }
}

impl Overview {
    pub(super) fn has(&self, lane: &LaneSnapshot) -> bool {
        let lane = Lane::from(lane);
        self.unknown.contains(&lane) || self.limits.iter().any(|listed| listed.known.lane == lane)
    }

    /// Adds a lane; `before` is the same without what was learned.
    pub(super) fn add(&mut self, lane: &LaneSnapshot, before: &LaneSnapshot, answer: Option<&Answer>) {
        if lane.status.gates.is_empty() {
            self.unknown.push(lane.into());
            return;
        }
        for gate in &lane.status.gates {
            let same = |other: &&GateStatus| {
                (other.limit.dimension, other.limit.window) == (gate.limit.dimension, gate.limit.window)
            };
            self.limits.push(Listed::new(lane, gate, before.status.gates.iter().find(same), answer));
        }
    }

    fn table(&self) -> Table {
        let first = self.limits.first().map(|listed| &listed.known.lane.account);
        let several = self.limits.iter().any(|listed| Some(&listed.known.lane.account) != first);
        let told = self.limits.iter().any(|listed| listed.left.is_some());
        let mut table = Table::new();
        table.load_preset(presets::UTF8_BORDERS_ONLY);
        let mut head = vec!["limit of", "", "amount", "enforced", "charged", "source"];
        if several {
            head.insert(0, "account");
        }
        if told {
            head.extend(["left", "full again"]);
        }
        table.set_header(head);
        for listed in &self.limits {
            let known = &listed.known;
            let mut row = vec![
                known.lane.pool.clone(),
                known.limit.clone(),
                show::count(known.amount),
                known.enforced.clone(),
                known.charged.clone().unwrap_or_default(),
                listed.source(),
            ];
            if several {
                row.insert(0, known.lane.account.clone());
            }
            if told {
                let left = listed.left.map(|left| show::count(u64::try_from(left).unwrap_or(0)));
                row.extend([left.unwrap_or_else(|| "?".to_owned()), listed.full()]);
            }
            table.add_row(row);
        }
        let numbers = [Some(2), told.then_some(6)].into_iter().flatten().map(|column| column + usize::from(several));
        for column in numbers {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

impl fmt::Display for Overview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.limits.is_empty() {
            writeln!(f, "{}", self.table())?;
        }
        for Lane { account, pool } in &self.unknown {
            writeln!(f, "{pool} of {account}: no limit is known")?;
        }
        if self.limits.is_empty() && self.unknown.is_empty() {
            writeln!(f, "no limit is known; name a --tier, limits such as --rpm 500, or a --model and --probe")?;
        }
        for answer in &self.answers {
            writeln!(f, "\n{answer}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => write!(f, "{}: {error}", self.model)?,
            None if self.headers.is_empty() => {
                write!(f, "{}: the answer has no headers that tell of limits", self.model)?
            }
            None => write!(f, "{}: the answer's headers", self.model)?,
        }
        self.headers.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}
