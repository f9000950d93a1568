//! What is known of a limit, for programs and in words: how it is enforced, what a request is charged, where the number
//! is from.

use serde::Serialize;
use tollgate::engine::{GateStatus, Source};
use tollgate::providers::Rule;
use tollgate::{Dimension, LaneSnapshot, Shape};

/// Whose limits they are.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Lane {
    pub(crate) account: String,
    pub(crate) pool: String,
}

impl From<&LaneSnapshot> for Lane {
    fn from(lane: &LaneSnapshot) -> Self {
        Self { account: lane.account.clone(), pool: lane.pool.clone() }
    }
}

/// One limit, as every list has it.
#[derive(Debug, Serialize)]
pub(crate) struct Known {
    #[serde(flatten)]
    pub(crate) lane: Lane,
    pub(crate) limit: String,
    pub(crate) amount: u64,
    pub(crate) window_s: f64,
    /// How it may be enforced; one shape where that is known.
    pub(crate) shapes: Vec<Shape>,
    /// The slices that it may be cut into besides.
    suspected: Vec<Shape>,
    /// What a request may be charged; one rule where that is known.
    pub(crate) rules: Vec<Rule>,
    /// Both in words, as the table has them.
    pub(crate) enforced: String,
    pub(crate) charged: Option<String>,
    /// Where the number is from: `configured`, `header`, or a tier with its date.
    pub(crate) source: String,
}

impl Known {
    pub(crate) fn of(lane: &LaneSnapshot, gate: &GateStatus) -> Self {
        Self {
            lane: lane.into(),
            limit: gate.limit.name(),
            amount: gate.limit.amount,
            window_s: gate.limit.window.as_secs_f64(),
            shapes: gate.shapes.clone(),
            suspected: gate.suspected.clone(),
            rules: gate.rules.clone(),
            enforced: shape(gate),
            charged: rule(gate),
            source: source(&gate.source),
        }
    }
}

/// From so many on, a list of what is still possible says less than how many there are.
const MANY: usize = 3;

/// `refill`; `refill, sliding or fixed, perhaps slice:1` while that is not known.
fn shape(gate: &GateStatus) -> String {
    let listed = |shapes: &[Shape]| either(shapes.iter().map(ToString::to_string).collect());
    match gate.suspected.as_slice() {
        [] => listed(&gate.shapes),
        suspected => format!("{}, perhaps {}", listed(&gate.shapes), listed(suspected)),
    }
}

/// `larger of cap and input`; nothing for requests, which are counted one by one. Whether input is counted by the vocabulary or by
/// characters is left out.
fn rule(gate: &GateStatus) -> Option<String> {
    if gate.limit.dimension == Dimension::Requests || gate.rules.is_empty() {
        return None;
    }
    let mut words: Vec<_> = gate.rules.iter().map(|rule| charged(*rule, gate.limit.dimension).to_owned()).collect();
    // Rules of one kind stand side by side.
    words.dedup();
    Some(if words.len() < MANY { either(words) } else { format!("one of {} charge rules", gate.rules.len()) })
}

fn charged(rule: Rule, dimension: Dimension) -> &'static str {
    match (rule, dimension) {
        (Rule::Usage, _) => "real usage",
        (Rule::CharsThenOutput, _) => "input by characters plus real output",
        // Of one kind of tokens, all other rules take the same.
        (_, Dimension::InputTokens) => "input",
        (_, Dimension::OutputTokens) => "cap",
        (Rule::LargerPlusCap | Rule::TokensPlusCap | Rule::CharsPlusCap, _) => "input plus cap",
        (Rule::TokensOrCap | Rule::CharsOrCap, _) => "larger of cap and input",
        (Rule::Tokens | Rule::Chars, _) => "input",
        _ => "another rule",
    }
}

/// `configured`, `header`, or `tier1 of 2026-09-24`.
fn source(source: &Source) -> String {
    match source {
        Source::Tier { tier, as_of } => format!("{tier} of {as_of}"),
        Source::Configured => "configured".to_owned(),
        Source::Header => "header".to_owned(),
        _ => "unknown".to_owned(),
    }
}

/// `a`, `a or b`, `a, b or c`.
fn either(mut words: Vec<String>) -> String {
    match words.pop() {
        Some(last) if words.is_empty() => last,
        Some(last) => format!("{} or {last}", words.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use tollgate::{Account, Limits, Provider, Scheduler};

    use super::*;

    fn gates(provider: Provider) -> Vec<GateStatus> {
        let limits = Limits { rpm: Some(60), tpm: Some(1_000), itpm: Some(500), ..Limits::default() };
        let account = Account::new(provider).limits(limits);
        Scheduler::builder().account(account).build().unwrap().lane_of("m").status.gates
    }

    #[test]
    fn what_is_known_is_named_and_what_is_not_is_counted() {
        let words = |gate: &GateStatus| (shape(gate), rule(gate));
        let groq: Vec<_> = gates(Provider::Groq).iter().map(words).collect();
        let usage = || Some("real usage".to_owned());
        assert_eq!(groq, [("refill".into(), None), ("refill".into(), usage()), ("refill".into(), usage())]);
        let open: Vec<_> = gates(Provider::Compatible).iter().map(words).collect();
        assert_eq!(open[0].0, "refill, sliding or fixed, perhaps slice:1");
        assert_eq!(open[1].1.as_deref(), Some("one of 9 charge rules"));
        assert_eq!(open[2].1.as_deref(), Some("input or real usage"));
        let azure: Vec<_> = gates(Provider::Azure).iter().map(words).collect();
        assert_eq!(azure[1], ("fixed".into(), Some("input plus cap or input".into())), "by which count is left out");
    }
}
