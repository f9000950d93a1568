//! What a lane is watched for: how much of its day limits is used, and how long its queue is.

use std::time::Duration;

use smallvec::SmallVec;

use super::change::Change;
use super::machine::Machine;
use super::moment::Moment;
use crate::cost::{Dimension, Limit};

/// What was told of a lane, so that nothing is told twice. What goes up and down around a threshold is one rise: it is told
/// again only after it fell clearly below.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    queue_alert: Option<usize>,
    /// The queue was told to be too long.
    long: bool,
    /// How much of each day limit was told to be used, in percent.
    told: Vec<(Dimension, Duration, u8)>,
}

/// How a day limit stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct DayUse {
    pub(super) limit: Limit,
    pub(super) used: u64,
    /// The provider refuses everything for it.
    pub(super) blocked: bool,
}

/// Few lanes have more than two such limits.
pub(super) type DayUses = SmallVec<[DayUse; 2]>;

/// What is told of a day limit, in percent, and below what it may be told again.
const NEARLY: (u8, u64) = (80, 70);
const WHOLE: (u8, u64) = (100, 90);
/// From here on, in percent, a limit that holds a request counts as used up: what is left is too little to be of use.
const REST: u64 = 95;

impl Watch {
    /// The queue is too long when more requests wait than `queue_alert`, and short again with half as many.
    pub(crate) fn new(queue_alert: Option<usize>) -> Self {
        Self { queue_alert, ..Self::default() }
    }

    /// So many wait now.
    pub(crate) fn queue(&mut self, waiting: usize) -> Option<Change> {
        let most = self.queue_alert?;
        let long = if self.long { waiting > most / 2 } else { waiting > most };
        let changed = std::mem::replace(&mut self.long, long) != long;
        changed.then_some(if long { Change::QueueLong { waiting } } else { Change::QueueShort { waiting } })
    }

    /// Whether to look at the limits per day or longer: somebody waits, or half a percent more is used than at the last
    /// look. With every request, a look would be a good part of what the scheduler costs.
    pub(crate) fn is_due<T>(&self, machine: &Machine<T>) -> bool {
        let gates = machine.gates();
        gates.day_has_moved() || (machine.waiting() > 0 && gates.has_day_limit())
    }

    /// Looks at those limits, and adds what is to be told.
    pub(crate) fn day_limits<T>(&mut self, machine: &mut Machine<T>, now: Moment, changes: &mut Vec<Change>) {
        for DayUse { limit, used, blocked } in machine.day_use(now) {
            let percent = u64::try_from(u128::from(used) * 100 / u128::from(limit.amount.max(1))).unwrap_or(u64::MAX);
            let gone = percent >= 100 || blocked || (percent >= REST && machine.held_by(now) == Some(limit));
            let told = self.told_of(&limit);
            let before = *told;
            *told = match before {
                _ if gone => WHOLE.0,
                before if before >= WHOLE.0 && percent >= WHOLE.1 => WHOLE.0,
                _ if percent >= NEARLY.0.into() => NEARLY.0,
                before if before >= NEARLY.0 && percent >= NEARLY.1 => NEARLY.0,
                _ => 0,
            };
            let reached = before + 1..=*told;
            let new = [NEARLY.0, WHOLE.0].into_iter().filter(|percent| reached.contains(percent));
            changes.extend(new.map(|percent| Change::Budget { limit, percent, used }));
        }
    }

    fn told_of(&mut self, limit: &Limit) -> &mut u8 {
        let (dimension, window) = (limit.dimension, limit.window);
        let known = self.told.iter().position(|told| (told.0, told.1) == (dimension, window));
        let index = known.unwrap_or_else(|| {
            self.told.push((dimension, window, 0));
            self.told.len() - 1
        });
        &mut self.told[index].2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Charge;
    use crate::engine::{Ask, End, Gates, Source, Submitted};
    use crate::providers::Provider;

    fn lane(tpd: u64, now: Moment) -> Machine<()> {
        let mut gates = Gates::new(Provider::Openai, Duration::ZERO);
        gates.set(&[(Limit::tpd(tpd), Source::Configured)], now);
        gates.answered(now);
        Machine::new(gates, now)
    }

    /// Whether `tokens` went, and what is told then.
    fn spend(lane: &mut Machine<()>, watch: &mut Watch, tokens: u64, now: Moment) -> (bool, Vec<u8>) {
        let charge = Charge::tokens(tokens, 0);
        let submitted = lane.submit(&Ask { charge, ..Ask::default() }, || (), now).unwrap();
        let went = match submitted {
            Submitted::Granted(grant) => {
                lane.finish(grant, End::Used(charge), &[], now);
                true
            }
            Submitted::Queued(_) => false,
        };
        (went, look(lane, watch, now))
    }

    const NOTHING: [u8; 0] = [];

    fn look(lane: &mut Machine<()>, watch: &mut Watch, now: Moment) -> Vec<u8> {
        let mut changes = Vec::new();
        watch.day_limits(lane, now, &mut changes);
        let percent = |change| if let Change::Budget { percent, .. } = change { percent } else { panic!("{change:?}") };
        changes.into_iter().map(percent).collect()
    }

    #[test]
    fn a_queue_is_told_once_when_it_is_too_long_and_once_when_half_of_that_is_left() {
        let mut watch = Watch::new(Some(10));
        let told = |watch: &mut Watch, lengths: &[usize]| -> Vec<Change> {
            lengths.iter().filter_map(|length| watch.queue(*length)).collect()
        };
        assert_eq!(told(&mut watch, &[0, 10, 11, 12, 10, 6, 11, 30]), [Change::QueueLong { waiting: 11 }]);
        assert_eq!(told(&mut watch, &[6, 5, 0, 10]), [Change::QueueShort { waiting: 5 }]);
        assert_eq!(told(&mut watch, &[20]), [Change::QueueLong { waiting: 20 }]);
        assert_eq!(told(&mut Watch::default(), &[usize::MAX, 0]), []);
    }

    #[test]
    fn it_is_time_to_look_when_somebody_waits_or_half_a_percent_more_is_used() {
        let now = Moment::START;
        let (mut lane, mut watch) = (lane(100_000, now), Watch::default());
        assert!(!watch.is_due(&lane));
        let spend = |lane: &mut Machine<()>, tokens| {
            let ask = Ask { charge: Charge::tokens(tokens, 0), ..Ask::default() };
            lane.submit(&ask, || (), now).unwrap();
        };
        spend(&mut lane, 499);
        assert!(!watch.is_due(&lane));
        spend(&mut lane, 1);
        assert!(watch.is_due(&lane));
        look(&mut lane, &mut watch, now);
        assert!(!watch.is_due(&lane));
        spend(&mut lane, 99_600);
        assert!(watch.is_due(&lane), "it waits");
    }

    #[test]
    fn a_day_limit_is_told_at_80_and_at_100_percent_and_again_after_it_fell() {
        let now = Moment::START;
        let later = |minutes: u64| now + Duration::from_secs(60 * minutes);
        let (mut lane, mut watch) = (lane(100_000, now), Watch::default());
        for (tokens, told) in [(79_000, vec![]), (1_000, vec![80]), (19_000, vec![]), (1_000, vec![100])] {
            assert_eq!(spend(&mut lane, &mut watch, tokens, now), (true, told));
        }
        // A day has 1440 minutes: 36 of them bring 2.5 % back, and 180 of them 12.5 %.
        assert_eq!(look(&mut lane, &mut watch, later(36)), NOTHING);
        assert_eq!(spend(&mut lane, &mut watch, 2_500, later(36)), (true, vec![]), "it never fell below 90 %");
        assert_eq!(look(&mut lane, &mut watch, later(216)), NOTHING);
        assert_eq!(spend(&mut lane, &mut watch, 12_500, later(216)), (true, vec![100]));
        assert_eq!(look(&mut lane, &mut watch, later(756)), NOTHING);
        assert_eq!(spend(&mut lane, &mut watch, 37_500, later(756)), (true, vec![80, 100]), "it fell below 70 %");
    }

    #[test]
    fn a_rest_that_holds_a_request_is_nothing_left() {
        let now = Moment::START;
        let (mut lane, mut watch) = (lane(100_000, now), Watch::default());
        assert_eq!(spend(&mut lane, &mut watch, 96_000, now), (true, vec![80]));
        assert_eq!(spend(&mut lane, &mut watch, 9_000, now), (false, vec![100]));
        assert_eq!(look(&mut lane, &mut watch, now), NOTHING);
    }

    #[test]
    fn a_day_limit_that_the_provider_refuses_for_is_used_up_whatever_the_books_say() {
        let now = Moment::START;
        let (mut lane, mut watch) = (lane(100_000, now), Watch::default());
        let (hour, charge) = (Duration::from_secs(3_600), Charge::tokens(10, 0));
        lane.block(Some(Limit::tpd(100_000).into()), &charge, hour, now, now);
        assert_eq!(look(&mut lane, &mut watch, now), [80, 100]);
        assert_eq!(look(&mut lane, &mut watch, now + hour / 2), NOTHING);
    }
}
