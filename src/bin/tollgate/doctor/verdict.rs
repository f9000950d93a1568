//! From what was seen to one sentence.

use serde::Serialize;
use tollgate::Class;

use super::finding::{Finding, Mark};
use crate::Exit;

/// What is wrong. Of several, the first in this order is told: nothing else can be found out about a call whose settings are
/// wrong, and a clock that is off hurts least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Settings,
    Key,
    Billing,
    Request,
    Network,
    Provider,
    Limits,
    Clock,
    /// Something failed, and nothing tells why.
    Unclear,
    Healthy,
}

impl Verdict {
    pub(super) fn of_class(class: Class) -> Self {
        match class {
            Class::RateLimited | Class::SlowDown => Verdict::Limits,
            Class::QuotaExhausted => Verdict::Billing,
            Class::Unauthorized | Class::Forbidden => Verdict::Key,
            Class::Overloaded | Class::ServerError | Class::Timeout | Class::Conflict | Class::CapacityUnavailable => {
                Verdict::Provider
            }
            Class::TooLarge | Class::Invalid | Class::ContextLength | Class::ContentPolicy | Class::NotFound => {
                Verdict::Request
            }
            _ => Verdict::Unclear,
        }
    }

    pub(super) fn exit(self) -> Exit {
        match self {
            Verdict::Healthy => Exit::Done,
            Verdict::Unclear => Exit::Failed,
            Verdict::Settings => Exit::Unusable,
            Verdict::Provider => Exit::Provider,
            Verdict::Key => Exit::Key,
            Verdict::Limits => Exit::Limits,
            Verdict::Billing => Exit::Billing,
            Verdict::Network => Exit::Network,
            Verdict::Clock => Exit::Clock,
            Verdict::Request => Exit::Request,
        }
    }

    /// As it begins the last line.
    pub(super) fn words(self) -> &'static str {
        match self {
            Verdict::Healthy => "nothing is wrong",
            Verdict::Unclear => "not clear",
            Verdict::Settings => "your settings",
            Verdict::Provider => "the provider",
            Verdict::Key => "the key",
            Verdict::Limits => "the limits",
            Verdict::Billing => "billing",
            Verdict::Network => "the network",
            Verdict::Clock => "the clock",
            Verdict::Request => "your request",
        }
    }
}

/// The verdict on all findings, and its sentence.
pub(super) fn judge(findings: &[Finding]) -> (Verdict, String) {
    let blames = || findings.iter().filter_map(|finding| finding.blame.as_ref());
    let Some(mut verdict) = blames().map(|(verdict, _)| *verdict).min() else {
        return clean_bill(findings);
    };
    let mut others: Vec<_> = blames().map(|(other, _)| *other).collect();
    // Where the provider says itself that it is down, nobody's line is to blame for the silence.
    if verdict == Verdict::Network && others.contains(&Verdict::Provider) {
        others.retain(|other| *other != Verdict::Network);
        verdict = Verdict::Provider;
    }
    others.retain(|other| *other != verdict);
    others.sort();
    others.dedup();
    let sentences: Vec<_> = blames().filter(|(of, _)| *of == verdict).map(|(_, sentence)| sentence.as_str()).collect();
    let mut sentence = sentences.join("; ");
    if !others.is_empty() {
        let others: Vec<_> = others.into_iter().map(Verdict::words).collect();
        sentence = format!("{sentence} (then see to: {})", others.join(", "));
    }
    (verdict, sentence)
}

fn clean_bill(findings: &[Finding]) -> (Verdict, String) {
    let named = |mark| findings.iter().filter(move |finding| finding.result == mark).map(|finding| finding.check);
    let failed: Vec<_> = named(Mark::Fail).collect();
    if !failed.is_empty() {
        return (Verdict::Unclear, format!("see above: {}", failed.join(", ")));
    }
    let skipped: Vec<_> = named(Mark::Skipped).collect();
    let sentence = match skipped.is_empty() {
        true => "that these checks can see".to_owned(),
        false => format!("that these checks can see; not looked at: {}", skipped.join(", ")),
    };
    (Verdict::Healthy, sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blamed(check: &'static str, verdict: Verdict) -> Finding {
        Finding::fail(check, "").blame(verdict, check)
    }

    #[test]
    fn the_most_certain_reason_is_told_and_all_that_speaks_for_it() {
        let clock = blamed("clock", Verdict::Clock);
        let key = blamed("key", Verdict::Key);
        assert_eq!(judge(&[clock.clone(), key]), (Verdict::Key, "key (then see to: the clock)".to_owned()));
        let (call, page) = (blamed("call", Verdict::Provider), blamed("page", Verdict::Provider));
        assert_eq!(judge(&[call, clock, page]), (Verdict::Provider, "call; page (then see to: the clock)".to_owned()));
    }

    #[test]
    fn silence_during_an_incident_is_the_providers() {
        let (network, page) = (blamed("network", Verdict::Network), blamed("page", Verdict::Provider));
        assert_eq!(judge(std::slice::from_ref(&network)).0, Verdict::Network);
        assert_eq!(judge(&[network, page]), (Verdict::Provider, "page".to_owned()));
    }

    #[test]
    fn what_was_not_looked_at_is_said_and_a_failure_without_a_reason_is_not_hidden() {
        let seen = [Finding::ok("dns", ""), Finding::skipped("limits", ""), Finding::warn("clock", "")];
        assert_eq!(judge(&seen), (Verdict::Healthy, "that these checks can see; not looked at: limits".to_owned()));
        assert_eq!(judge(&[Finding::fail("answer", "")]).0, Verdict::Unclear);
    }
}
