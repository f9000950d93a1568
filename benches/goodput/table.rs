//! The results, for people and for programs.

use serde_json::{Value, json};

use super::rows::{Row, Target};
use super::score::{Score, median, worst};

/// A row with the scores of all its seeds.
pub(crate) struct Played {
    pub(crate) row: Row,
    pub(crate) scores: Vec<Score>,
}

impl Played {
    pub(crate) fn ok(&self) -> bool {
        self.scores.iter().all(|score| score.reaches(&self.row.target))
    }

    fn refused(&self) -> usize {
        self.scores.iter().map(|score| score.refused).max().unwrap_or(0)
    }

    fn ratios(&self) -> impl Iterator<Item = f64> {
        self.scores.iter().map(Score::ratio)
    }

    /// What the target asks for besides 429s and time.
    fn besides(&self) -> String {
        match self.row.target {
            Target::Turns { .. } => format!("turns {:.2}", worst(self.scores.iter().filter_map(|score| score.turns))),
            Target::Prediction { .. } => {
                format!("error {:.1} %", 100.0 * worst(self.scores.iter().filter_map(|score| score.error)))
            }
            Target::Time { .. } | Target::Sliding { .. } => String::new(),
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "row": self.row.name,
            "target": described(&self.row.target),
            "ok": self.ok(),
            "worst_refused": self.refused(),
            "worst_ratio": worst(self.ratios()),
            "median_ratio": median(self.ratios()),
            "scores": self.scores,
        })
    }
}

/// The clients of one workload, side by side.
pub(crate) struct Compared {
    pub(crate) row: String,
    /// By name; the first is ours.
    pub(crate) clients: Vec<(&'static str, Vec<Score>)>,
}

impl Compared {
    pub(crate) fn json(&self) -> Value {
        let clients = self.clients.iter().map(|(name, scores)| json!({ "client": name, "scores": scores }));
        json!({ "row": self.row, "clients": clients.collect::<Vec<_>>() })
    }
}

fn described(target: &Target) -> String {
    match target {
        Target::Time { refused, ratio } => format!("{refused}, {ratio:.2}"),
        Target::Sliding { refused, ratio } => format!("{refused}, {ratio:.2} of sliding"),
        Target::Turns { refused, ratio, turns } => format!("{refused}, {ratio:.2}, turns {turns:.0}"),
        Target::Prediction { error } => format!("error {:.0} %", 100.0 * error),
    }
}

pub(crate) fn print_heading() {
    println!(
        "{:26} {:>5} {:>9} {:>10} {:>7} {:>6} {:>6}  {:20} {:18}",
        "row", "seeds", "429 worst", "time worst", "median", "use", "waste", "target (429s, time)", "besides"
    );
}

/// Printed as soon as it is played: the large ones take a while.
pub(crate) fn print_row(played: &Played) {
    let percent = |part: f64| format!("{:.1} %", 100.0 * part);
    println!(
        "{:26} {:>5} {:>9} {:>10.3} {:>7.3} {:>6} {:>6}  {:20} {:18} {}",
        played.row.name,
        played.scores.len(),
        played.refused(),
        worst(played.ratios()),
        median(played.ratios()),
        percent(median(played.scores.iter().map(|score| score.used_of_limit))),
        percent(median(played.scores.iter().map(|score| score.waste))),
        described(&played.row.target),
        played.besides(),
        if played.ok() { "ok" } else { "MISS" },
    );
    if let Some(score) = played.scores.iter().find(|score| score.lost > 0) {
        println!("{:26} seed {}: {} requests were never done", "", score.seed, score.lost);
    }
}

pub(crate) fn print_compared(all: &[Compared]) {
    println!("\nWorst number of 429s and worst time against the least possible, by client:");
    for (index, compared) in all.iter().enumerate() {
        if index == 0 {
            let names: Vec<_> = compared.clients.iter().map(|(name, _)| format!("{name:>20}")).collect();
            println!("{:12} {}", "row", names.join(" "));
        }
        let cell = |(_, scores): &(&str, Vec<Score>)| {
            let refused = scores.iter().map(|score| score.refused).max().unwrap_or(0);
            format!("{:>20}", format!("{refused} × 429, {:.2}", worst(scores.iter().map(Score::ratio))))
        };
        println!("{:12} {}", compared.row, compared.clients.iter().map(cell).collect::<Vec<_>>().join(" "));
    }
}
