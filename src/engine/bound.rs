//! The least time in which a limit lets pass what it let pass.

use std::time::Duration;

use super::gate::GateStatus;
use super::slices::slice;
use crate::cost::{Limit, Shape};

impl GateStatus {
    /// The shortest time from the first request to the last in which this limit could have let pass what it did, for a client
    /// that knows everything. It holds for every shape and charge rule that is still possible. `None` where
    /// [`spent_least`](Self::spent_least) is not known.
    pub fn least_time(&self) -> Option<Duration> {
        let spent = self.spent_least?;
        let shapes = self.shapes.iter().chain(&self.suspected);
        Some(shapes.map(|shape| least_time(shape, &self.limit, spent)).min().unwrap_or_default())
    }
}

fn least_time(shape: &Shape, limit: &Limit, spent: u64) -> Duration {
    let Limit { amount, window, .. } = *limit;
    match shape {
        // The bucket is full at first.
        Shape::Refill => times(window, spent.saturating_sub(amount), amount),
        Shape::Sliding => times(window, spent.div_ceil(amount.max(1)).saturating_sub(1), 1),
        // The first request may have come at the end of its window, and the last at the beginning of its own.
        Shape::Fixed | Shape::Calendar(_) => times(window, spent.div_ceil(amount.max(1)).saturating_sub(2), 1),
        Shape::Slice(length) => times(*length, spent.div_ceil(slice(limit, *length).max(1)).saturating_sub(2), 1),
        // What has ended takes nothing of it, however soon that was.
        Shape::Gauge => Duration::ZERO,
    }
}

/// `window · number / parts`.
fn times(window: Duration, number: u64, parts: u64) -> Duration {
    let nanos = window.as_nanos().saturating_mul(number.into()) / u128::from(parts.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Charge;
    use crate::cost::SECOND;
    use crate::engine::{Ask, End, Gates, Machine, Moment, Source, Submitted};
    use crate::providers::{Provider, Rule};

    #[test]
    fn every_shape_has_its_own_least_time() {
        let minute = Limit::rpm(500);
        let ten = Shape::Slice(SECOND * 10);
        let rows = [
            (Shape::Refill, 500, 0),
            (Shape::Refill, 1_500, 120),
            (Shape::Sliding, 500, 0),
            (Shape::Sliding, 501, 60),
            (Shape::Sliding, 1_500, 120),
            (Shape::Fixed, 1_000, 0),
            (Shape::Fixed, 1_001, 60),
            // 500 a minute are 84 in ten seconds.
            (ten, 168, 0),
            (ten, 169, 10),
            (Shape::Gauge, 1_500, 0),
        ];
        for (shape, spent, seconds) in rows {
            assert_eq!(least_time(&shape, &minute, spent), SECOND * seconds, "{shape} {spent}");
        }
        let largest = Limit::new(crate::Dimension::Tokens, 1, Duration::MAX);
        assert_eq!(least_time(&Shape::Sliding, &largest, u64::MAX), Duration::from_nanos(u64::MAX));
    }

    /// A lane that was let to send `charges` at once and had good answers.
    fn lane(provider: Provider, limits: &[Limit], charges: &[Charge], now: Moment) -> Machine<()> {
        let mut gates = Gates::new(provider, Duration::ZERO);
        let limits: Vec<_> = limits.iter().map(|limit| (*limit, Source::Configured)).collect();
        gates.set(&limits, now);
        let mut lane = Machine::new(gates, now);
        lane.answered(now);
        for charge in charges {
            send(&mut lane, *charge, End::Unknown, true, now);
        }
        lane
    }

    fn send(lane: &mut Machine<()>, charge: Charge, end: End, well: bool, now: Moment) {
        let Ok(Submitted::Granted(grant)) = lane.submit(&Ask { charge, ..Ask::default() }, || (), now) else {
            panic!("there is room")
        };
        if well {
            lane.went_well(&grant, end, now);
        }
        lane.finish(grant, end, &[], now);
    }

    #[test]
    fn while_shapes_and_rules_are_open_the_bound_holds_for_each() {
        let now = Moment::START;
        let lane = &mut lane(Provider::Compatible, &[Limit::tpm(1_000)], &[Charge::tokens(100, 300); 2], now);
        let gate = &lane.status(now).gates[0];
        assert!(gate.rules.contains(&Rule::Tokens) && gate.shapes.contains(&Shape::Fixed), "{gate:?}");
        assert_eq!((gate.spent, gate.spent_least), (800, Some(200)), "input alone may be charged");
        let much = GateStatus { spent_least: Some(2_500), ..gate.clone() };
        assert_eq!(much.least_time(), Some(SECOND * 60), "fixed windows may be three in a minute and an instant");
        let refill = GateStatus { shapes: vec![Shape::Refill], suspected: Vec::new(), ..much };
        assert_eq!(refill.least_time(), Some(SECOND * 90));
    }

    #[test]
    fn what_failed_or_was_refused_is_in_no_bound() {
        let now = Moment::START;
        let charge = Charge::tokens(10, 10);
        let lane = &mut lane(Provider::Openai, &[Limit::rpm(100)], &[charge; 3], now);
        send(lane, charge, End::Unknown, false, now);
        send(lane, charge, End::Refused, false, now);
        let gate = &lane.status(now).gates[0];
        assert_eq!((gate.spent, gate.spent_least), (5, Some(3)));
    }

    #[test]
    fn a_limit_that_changed_or_was_found_on_the_way_has_no_bound() {
        let now = Moment::START;
        let lane = &mut lane(Provider::Openai, &[Limit::rpm(100), Limit::rpd(1_000)], &[Charge::tokens(1, 1)], now);
        let set = |lane: &mut Machine<()>, limits: &[Limit]| {
            let limits: Vec<_> = limits.iter().map(|limit| (*limit, Source::Configured)).collect();
            lane.set_limits(&limits, now + SECOND);
            lane.status(now + SECOND).gates.iter().map(GateStatus::least_time).collect::<Vec<_>>()
        };
        assert_eq!(set(lane, &[Limit::rpm(100), Limit::rpd(1_000)]), [Some(Duration::ZERO); 2], "nothing changed");
        let after = set(lane, &[Limit::rpm(50), Limit::rpd(1_000), Limit::tpm(1_000)]);
        assert_eq!(after, [None, Some(Duration::ZERO), None]);
    }
}
