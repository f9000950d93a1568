//! The books of a limit that counts windows: what was admitted, by every rule at once, and when it counts no more.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use super::moment::Moment;
use super::sight::{Sight, Unseen, Verdict};
use crate::cost::Zone;
use crate::providers::{Amounts, Rule, Rules, until_midnight};

/// The log is cut into at most so many slots per window: what is admitted within one counts as its last.
const SLOTS: u32 = 400;

/// When windows end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ends {
    /// They do not: what was admitted counts for one window's length, whichever way a window is laid over it.
    Sliding,
    /// Once per length, between these two instants for one of them. Unknown at first, and then as if they were sliding.
    Fixed(Option<(Moment, Moment)>),
    /// At midnight. `wall` is the time of day at `anchor`.
    Midnight { zone: Zone, anchor: Moment, wall: SystemTime, last: Moment, next: Moment },
}

impl Ends {
    pub(super) fn midnight(zone: Zone, now: Moment, wall: SystemTime) -> Self {
        let last = now - Duration::from_secs(31 * 86_400);
        let next = now + until_midnight(zone, wall).unwrap_or(crate::cost::DAY);
        Ends::Midnight { zone, anchor: now, wall, last, next }
    }
}

/// A log of what was admitted, and what of it counts now.
#[derive(Debug)]
pub(super) struct Window {
    amount: u64,
    length: Duration,
    /// How much later than it was sent a request may reach the server.
    margin: Duration,
    ends: Ends,
    log: VecDeque<Slot>,
    /// The first slot that counts.
    first: usize,
    /// The sum of those that count.
    sums: Amounts,
    /// What others use of the limit, as far as the server's numbers show it.
    others: u64,
    others_until: Option<Moment>,
    /// When the server's number was last held against the log, and how much of that it did not hold: no more than that can be
    /// given back of what was charged before.
    heard: Moment,
    unvouched: u64,
    /// The server's numbers of late, with the instants between which each was written.
    seen: VecDeque<(u64, Moment, Moment)>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    began: Moment,
    last: Moment,
    amounts: Amounts,
}

impl Window {
    pub(super) fn new(amount: u64, length: Duration, margin: Duration, ends: Ends) -> Self {
        Self {
            amount,
            length: length.max(Duration::from_millis(1)),
            margin,
            ends,
            log: VecDeque::new(),
            first: 0,
            sums: Amounts::default(),
            others: 0,
            others_until: None,
            heard: Moment::BEGINNING,
            unvouched: 0,
            seen: VecDeque::new(),
        }
    }

    pub(super) fn fits(&mut self, amounts: &Amounts, rules: Rules, extra: u64, now: Moment) -> bool {
        self.advance(now);
        let room = self.amount.saturating_add(extra).saturating_sub(self.others);
        rules.iter().all(|rule| self.sums[rule].saturating_add(amounts[rule]) <= room)
    }

    pub(super) fn charge(&mut self, amounts: &Amounts, now: Moment) {
        self.advance(now);
        let slot = self.length / SLOTS;
        let counts = self.first < self.log.len();
        match self.log.back_mut() {
            Some(last) if counts && now - last.began < slot => {
                last.last = last.last.max(now);
                last.amounts = last.amounts.plus(amounts);
            }
            _ => self.log.push_back(Slot { began: now, last: now, amounts: *amounts }),
        }
        self.sums = self.sums.plus(amounts);
    }

    /// Gives back what was charged at `at` and never reached the server, if it counts still. What the server's number held since was
    /// not this, and so is others'.
    pub(super) fn refund(&mut self, amounts: &Amounts, at: Moment) {
        let index = self.log.partition_point(|slot| slot.last < at);
        let Some(slot) = self.log.get_mut(index).filter(|slot| slot.began <= at) else { return };
        let back = slot.amounts.with(amounts, u64::min);
        slot.amounts = slot.amounts.minus(&back);
        if index >= self.first {
            self.sums = self.sums.minus(&back);
            if at < self.heard {
                let n = back[Rule::LargerPlusCap];
                let vouched = n.saturating_sub(self.unvouched);
                self.unvouched -= n - vouched;
                if vouched > 0 {
                    self.leave_to_others(self.others.saturating_add(vouched), self.heard);
                }
            }
        }
    }

    /// Others have used so much, at that time at the latest.
    fn leave_to_others(&mut self, others: u64, at: Moment) {
        self.others = others;
        self.others_until = (others > 0).then(|| self.next_end(at).map_or(at + self.length, |(_, end)| end));
    }

    /// The server's number was `used` when it was last held against the log.
    pub(super) fn vouch(&mut self, rule: Rule, used: u64, heard: Moment) {
        self.heard = heard;
        self.unvouched = self.sums[rule].saturating_add(self.others).saturating_sub(used);
    }

    pub(super) fn ready_at(&mut self, amounts: &Amounts, rules: Rules, now: Moment) -> Moment {
        self.advance(now);
        rules.iter().map(|rule| self.ready_by(rule, amounts[rule], now)).max().unwrap_or(now)
    }

    /// A charge larger than the limit stands for a queue of smaller ones, which take their turns as those before did.
    fn ready_by(&self, rule: Rule, n: u64, now: Moment) -> Moment {
        let amount = self.amount.max(1);
        let used = self.sums[rule].saturating_add(self.others);
        let free = self.amount.saturating_sub(used);
        if n <= free {
            return now;
        }
        if let Some((_, end)) = self.next_end(now) {
            let straddling = self.log.back().is_some_and(|slot| self.leaves(slot.last) > end);
            let more = (n - free).div_ceil(amount) - 1 + u64::from(straddling && n > amount);
            return later(end, self.length, more);
        }
        let rounds = (n - 1) / amount;
        let need = used.saturating_add(n - rounds * amount).saturating_sub(self.amount);
        later(self.released(rule, need, now), self.length + self.margin, rounds)
    }

    /// When so much of what counts now counts no more.
    fn released(&self, rule: Rule, need: u64, now: Moment) -> Moment {
        let mut left = need;
        let mut others = self.others_until.map(|until| (until, self.others));
        let slots = self.log.range(self.first..).map(|slot| (self.leaves(slot.last), slot.amounts[rule]));
        let mut at = now;
        for (leaves, amount) in slots {
            if left == 0 {
                return at;
            }
            if let Some((until, amount)) = others.filter(|(until, _)| *until <= leaves) {
                others = None;
                left = left.saturating_sub(amount);
                at = until;
                if left == 0 {
                    return at;
                }
            }
            left = left.saturating_sub(amount);
            at = leaves;
        }
        if left > 0 { others.map_or(at, |(until, _)| until.max(at)) } else { at }.max(now)
    }

    /// What counts by `rule`, others included.
    pub(super) fn used(&mut self, rule: Rule, now: Moment) -> u64 {
        self.advance(now);
        self.sums[rule].saturating_add(self.others)
    }

    pub(super) fn full_at(&mut self, now: Moment) -> Moment {
        self.advance(now);
        let own = self.log.range(self.first..).next_back().map(|slot| self.leaves(slot.last));
        own.max(self.others_until).unwrap_or(now).max(now)
    }

    pub(super) fn resize(&mut self, amount: u64, length: Duration) {
        self.amount = amount;
        self.length = length;
    }

    pub(super) fn set_margin(&mut self, margin: Duration) {
        self.margin = margin;
    }

    /// Holds the server's number against the log. A request surely counts at the server as long as it would if it had
    /// arrived when it was sent, and may still count as long as it would if it had arrived a margin later.
    pub(super) fn judge(&mut self, rule: Rule, sight: &Sight, unseen: &Unseen) -> Verdict {
        let Some((surely, maybe)) = self.count(rule, sight) else { return Verdict::Silent };
        if sight.used.saturating_add(sight.noise) < surely.saturating_sub(unseen.most) {
            Verdict::Over
        } else if sight.used > unseen.at_most(maybe).saturating_add(self.others).saturating_add(sight.noise) {
            Verdict::Under
        } else {
            Verdict::Fits
        }
    }

    /// How much counted at `since` and may count at the server no more at `now`, by the dearest rule.
    pub(super) fn left_since(&mut self, since: Moment, now: Moment) -> u64 {
        self.advance(now);
        let slots = self.log.iter().map(|slot| (self.leaves(slot.last), slot.amounts[Rule::LargerPlusCap]));
        // Here it counts for a margin longer than there.
        let left = slots.skip_while(|(at, _)| *at <= since).take_while(|(at, _)| *at <= now + self.margin);
        left.fold(0, |sum, (_, amount)| sum.saturating_add(amount))
    }

    /// How many of the charges in the log the server's number does not hold, between which bounds.
    pub(super) fn not_in(&mut self, rule: Rule, sight: &Sight) -> Option<(u64, u64)> {
        let (surely, maybe) = self.count(rule, sight)?;
        // More than ours: there are others, and how many of ours are among them is not told.
        if self.others == 0 && sight.used > maybe.saturating_add(sight.noise) {
            return None;
        }
        Some((surely.saturating_sub(sight.used), maybe.saturating_add(self.others).saturating_sub(sight.used)))
    }

    /// What surely and what possibly counted when the server's number was written down; `None` if a window ended then.
    fn count(&mut self, rule: Rule, sight: &Sight) -> Option<(u64, u64)> {
        self.advance(sight.latest);
        let end = self.last_end(sight.latest);
        if let (Some((_, over)), Some((next, _))) = (end, self.next_end(sight.latest))
            && (sight.earliest < over || next <= sight.latest)
        {
            return None;
        }
        let (mut surely, mut maybe) = (0u64, 0u64);
        for slot in self.log.iter().rev() {
            let (sure, may) = match end {
                Some((earliest, latest)) => (slot.began >= latest, slot.last + self.margin >= earliest),
                None => {
                    (slot.began + self.length > sight.latest, slot.last + self.length + self.margin > sight.earliest)
                }
            };
            if !may {
                break;
            }
            maybe = maybe.saturating_add(slot.amounts[rule]);
            if sure {
                surely = surely.saturating_add(slot.amounts[rule]);
            }
        }
        Some((surely, maybe))
    }

    /// Takes what the server's number says of others that use the limit: between `used - most` and `used - least` is
    /// theirs, if our own part lies between `least` and `most`.
    pub(super) fn note_others(&mut self, rule: Rule, sight: &Sight, unseen: &Unseen) {
        let Some((surely, maybe)) = self.count(rule, sight) else { return };
        let own = (surely.saturating_sub(unseen.most), unseen.at_most(maybe));
        let theirs = (
            sight.used.saturating_sub(own.1.saturating_add(sight.noise)),
            sight.used.saturating_sub(own.0.saturating_sub(sight.noise.min(own.0))),
        );
        let others = self.others.clamp(theirs.0, theirs.1.max(theirs.0));
        if others > 0 && others >= self.others {
            self.leave_to_others(others, sight.latest);
        }
        self.others = others;
    }

    /// Requests that were sent around a window's end are booked on both sides of it, until a number of the new window shows how many
    /// are in that. The number has to be of a time when all of them had arrived.
    pub(super) fn note_straddling(&mut self, rules: Rules, sight: &Sight, unseen: impl Fn(Rule) -> Unseen) {
        if !matches!(self.ends, Ends::Fixed(Some(_))) {
            return;
        }
        let Some((low, high)) = self.last_end(sight.latest).filter(|(_, high)| *high + self.margin <= sight.earliest)
        else {
            return;
        };
        for rule in rules.iter() {
            let Some((surely, _)) = self.count(rule, sight) else { return };
            let new = surely.saturating_sub(unseen(rule).most);
            let mut may_count = sight.used.saturating_add(sight.noise).saturating_sub(new);
            let straddling = self.log.iter_mut().enumerate().skip(self.first).rev();
            for (_, slot) in straddling.filter(|(_, slot)| slot.began < high && slot.last + self.margin >= low) {
                let gone = slot.amounts[rule].saturating_sub(may_count);
                slot.amounts[rule] -= gone;
                self.sums[rule] = self.sums[rule].saturating_sub(gone);
                may_count = may_count.saturating_sub(slot.amounts[rule]);
            }
        }
    }

    /// At least so much is used; what is not ours is others'.
    pub(super) fn tighten(&mut self, used: u64, now: Moment) {
        self.advance(now);
        let own = Rule::ALL.into_iter().map(|rule| self.sums[rule]).min().unwrap_or(0);
        let others = used.saturating_sub(own);
        if others > self.others {
            self.leave_to_others(others, now);
        }
    }

    /// The server's number is the truth: nothing is under way.
    pub(super) fn set_used(&mut self, rule: Rule, used: u64, now: Moment) {
        self.advance(now);
        self.leave_to_others(used.saturating_sub(self.sums[rule]), now);
    }

    /// Takes that a window ends between these two instants; false if that contradicts what is known.
    pub(super) fn learn_end(&mut self, earliest: Moment, latest: Moment) -> bool {
        let Ends::Fixed(known) = &mut self.ends else { return true };
        // Of ends that come as often as that, this one says nothing.
        if latest - earliest >= self.length / 2 {
            return true;
        }
        let Some((low, high)) = *known else {
            *known = Some((earliest, latest));
            return true;
        };
        // Both are brought to the later one's window.
        let windows = |from: Moment, to: Moment| {
            let nanos = (to - from).as_nanos() + self.length.as_nanos() / 2;
            u64::try_from(nanos / self.length.as_nanos()).unwrap_or(0)
        };
        let shift = |(from, to), n| (later(from, self.length, n), later(to, self.length, n));
        let ((low, high), (earliest, latest)) = if earliest >= low {
            (shift((low, high), windows(low, earliest)), (earliest, latest))
        } else {
            ((low, high), shift((earliest, latest), windows(earliest, low)))
        };
        let (low, high) = (low.max(earliest), high.min(latest));
        let agrees = low <= high;
        if agrees {
            *known = Some((low, high));
        }
        agrees
    }

    /// A counter that is zeroed falls only then: between two numbers of which the later one is smaller, a window has ended.
    pub(super) fn learn_end_from_fall(&mut self, sight: &Sight) {
        let recent = |(_, earliest, _): &(u64, Moment, Moment)| sight.latest - *earliest < self.length / 2;
        while self.seen.front().is_some_and(|number| !recent(number)) {
            self.seen.pop_front();
        }
        let before = self.seen.iter().rev().find(|(_, _, latest)| *latest <= sight.earliest).copied();
        if let Some((_, earliest, _)) = before.filter(|(used, ..)| sight.used.saturating_add(sight.noise) < *used) {
            self.learn_end(earliest, sight.latest);
        }
        if self.seen.back().is_none_or(|(.., latest)| *latest + self.length / SLOTS <= sight.latest) {
            self.seen.push_back((sight.used, sight.earliest, sight.latest));
        }
    }

    /// Whether a reset can be the time until the oldest of what we sent counts no more, or longer.
    pub(super) fn explains_reset(&self, sight: &Sight, reset: Duration, tolerance: Duration) -> bool {
        // What others sent may leave before the oldest of ours.
        if !matches!(self.ends, Ends::Sliding) || self.others > 0 {
            return true;
        }
        let oldest = self.log.range(self.first..).find(|slot| slot.began + self.length > sight.latest);
        oldest.is_none_or(|slot| sight.latest + reset + tolerance >= slot.began + self.length)
    }

    /// Whether others are known to use the limit as well.
    pub(super) fn has_others(&self) -> bool {
        self.others > 0
    }

    pub(super) fn forget_ends(&mut self) {
        if let Ends::Fixed(known) = &mut self.ends {
            *known = None;
        }
    }

    /// The end of a window that is surely over at `now`, as the two instants between which it was.
    fn last_end(&self, now: Moment) -> Option<(Moment, Moment)> {
        match self.ends {
            Ends::Sliding | Ends::Fixed(None) => None,
            Ends::Midnight { last, .. } => Some((last, last + self.margin)),
            Ends::Fixed(Some((low, high))) => {
                if now < high {
                    // It lies ahead: go back by whole windows.
                    let n = (high - now).as_nanos().div_ceil(self.length.as_nanos());
                    let back = |at: Moment| {
                        let by = u32::try_from(n).ok().and_then(|n| self.length.checked_mul(n));
                        by.map(|by| at - by)
                    };
                    return back(low).zip(back(high));
                }
                let n = (now - high).as_nanos() / self.length.as_nanos();
                let n = u64::try_from(n).unwrap_or(0);
                Some((later(low, self.length, n), later(high, self.length, n)))
            }
        }
    }

    /// The next end of a window, as the two instants between which it is.
    fn next_end(&self, now: Moment) -> Option<(Moment, Moment)> {
        match self.ends {
            Ends::Sliding | Ends::Fixed(None) => None,
            Ends::Midnight { next, .. } => Some((next, next + self.margin)),
            Ends::Fixed(Some((low, high))) => {
                if now < high {
                    let n = ((high - now).as_nanos() - 1) / self.length.as_nanos();
                    let back = |at: Moment| {
                        let by = u32::try_from(n).ok().and_then(|n| self.length.checked_mul(n));
                        by.map_or(at, |by| at - by)
                    };
                    return Some((back(low), back(high)));
                }
                let n = u64::try_from((now - high).as_nanos() / self.length.as_nanos()).unwrap_or(0);
                Some((later(low, self.length, n + 1), later(high, self.length, n + 1)))
            }
        }
    }

    /// When what was sent at `sent` counts no more.
    fn leaves(&self, sent: Moment) -> Moment {
        if let Ends::Midnight { last, next, .. } = self.ends {
            return if sent + self.margin < last { last + self.margin } else { next + self.margin };
        }
        match self.next_end(sent) {
            None => sent + self.length + self.margin,
            // Sent just before the end, it may arrive just after it. Half of the margin is enough here: what arrives later
            // than that is few, and has to find a window full to do harm.
            Some((low, high)) if sent + self.margin / 2 >= low => high + self.length,
            Some((_, high)) => high,
        }
    }

    fn advance(&mut self, now: Moment) {
        if let Ends::Midnight { zone, anchor, wall, last, next } = &mut self.ends
            && now >= *next + self.margin
        {
            let today = *wall + (now - *anchor);
            *last = *next;
            *next = now + until_midnight(*zone, today).unwrap_or(crate::cost::DAY);
        }
        while let Some(slot) = self.log.get(self.first).filter(|slot| self.leaves(slot.last) <= now) {
            self.sums = self.sums.minus(&slot.amounts);
            self.first += 1;
        }
        // Kept a little longer, for answers that were written down while it counted.
        let keep = self.length / 4 + Duration::from_secs(5);
        while self.first > 0 && self.log.front().is_some_and(|slot| self.leaves(slot.last) + keep < now) {
            self.log.pop_front();
            self.first -= 1;
        }
        if self.others_until.is_some_and(|until| until <= now) {
            (self.others, self.others_until) = (0, None);
        }
    }
}

/// `at` and `n` times `length` more; as late as can be said if that is out of range.
fn later(at: Moment, length: Duration, n: u64) -> Moment {
    let more = u32::try_from(n).ok().and_then(|n| length.checked_mul(n));
    at + more.unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::{MINUTE, SECOND};

    const MARGIN: Duration = Duration::from_millis(500);
    const BY: Rules = Rules::of(&[Rule::LargerPlusCap]);

    fn window(ends: Ends) -> Window {
        Window::new(60, MINUTE, MARGIN, ends)
    }

    fn fits(window: &mut Window, n: u64, now: Moment) -> bool {
        window.fits(&Amounts::all(n), BY, 0, now)
    }

    fn sight(used: u64, at: Moment) -> Sight {
        Sight { used, noise: 0, reset: None, between: (at, at), earliest: at, latest: at }
    }

    #[test]
    fn what_was_sent_counts_for_a_window_and_a_margin() {
        let now = Moment::START;
        let mut window = window(Ends::Sliding);
        window.charge(&Amounts::all(60), now);
        let ready = now + MINUTE + MARGIN;
        assert_eq!(window.ready_at(&Amounts::all(1), BY, now), ready);
        assert!(!fits(&mut window, 1, ready - Duration::from_nanos(1)) && fits(&mut window, 60, ready));
    }

    #[test]
    fn what_the_server_held_without_an_unsent_request_is_others_then() {
        let (now, later) = (Moment::START, Moment::START + SECOND);
        let mut window = window(Ends::Sliding);
        window.charge(&Amounts::all(20), now);
        window.tighten(50, later);
        window.vouch(Rule::LargerPlusCap, 50, later);
        window.refund(&Amounts::all(20), now);
        assert_eq!(window.used(Rule::LargerPlusCap, later), 50);
        assert_eq!(window.used(Rule::LargerPlusCap, later + MINUTE), 0, "as long as it counts there");
    }

    #[test]
    fn an_unknown_end_is_a_sliding_window_and_a_known_one_a_new_window() {
        let now = Moment::START;
        let mut window = window(Ends::Fixed(None));
        window.charge(&Amounts::all(60), now);
        assert_eq!(window.ready_at(&Amounts::all(1), BY, now), now + MINUTE + MARGIN);
        assert!(window.learn_end(now + 19 * SECOND, now + 20 * SECOND));
        assert_eq!(window.ready_at(&Amounts::all(1), BY, now), now + 20 * SECOND);
        assert!(fits(&mut window, 60, now + 20 * SECOND) && !fits(&mut window, 61, now + 20 * SECOND));
    }

    #[test]
    fn a_number_that_falls_shows_between_which_instants_a_window_ended() {
        let now = Moment::START;
        let mut window = window(Ends::Fixed(None));
        window.charge(&Amounts::all(60), now);
        let number =
            |used, from, to| Sight { earliest: now + from * SECOND, latest: now + to * SECOND, ..sight(used, now) };
        window.learn_end_from_fall(&number(60, 10, 11));
        window.learn_end_from_fall(&number(50, 10, 12));
        assert_eq!(window.next_end(now + 20 * SECOND), None, "written in any order");
        window.learn_end_from_fall(&number(5, 13, 14));
        assert_eq!(window.next_end(now + 20 * SECOND), Some((now + 70 * SECOND, now + 74 * SECOND)));
    }

    #[test]
    fn what_is_sent_just_before_an_end_counts_in_the_next_window_too() {
        let now = Moment::START;
        let mut window = window(Ends::Fixed(Some((now + 20 * SECOND, now + 20 * SECOND))));
        window.charge(&Amounts::all(10), now + 20 * SECOND - MARGIN / 4);
        assert!(!fits(&mut window, 51, now + 20 * SECOND) && fits(&mut window, 50, now + 20 * SECOND));
        assert!(fits(&mut window, 60, now + 80 * SECOND));
    }

    #[test]
    fn ends_are_narrowed_by_every_header_and_kept_where_one_contradicts() {
        let now = Moment::START;
        let mut window = window(Ends::Fixed(None));
        assert!(window.learn_end(now + 18 * SECOND, now + 22 * SECOND));
        assert!(window.learn_end(now + 79 * SECOND, now + 83 * SECOND), "the next minute's");
        assert_eq!(window.next_end(now), Some((now + 19 * SECOND, now + 22 * SECOND)));
        assert!(!window.learn_end(now + 40 * SECOND, now + 41 * SECOND));
        assert_eq!(window.next_end(now), Some((now + 19 * SECOND, now + 22 * SECOND)));
        assert!(window.learn_end(now, now + 30 * SECOND), "so wide that it says nothing");
        window.forget_ends();
        assert_eq!(window.next_end(now), None);
    }

    #[test]
    fn a_refund_gives_back_only_what_still_counts() {
        let now = Moment::START;
        let mut window = window(Ends::Sliding);
        window.charge(&Amounts::all(40), now);
        window.refund(&Amounts::all(50), now);
        assert_eq!(window.used(Rule::Tokens, now), 0);
        window.charge(&Amounts::all(40), now + SECOND);
        window.charge(&Amounts::all(20), now + MINUTE);
        window.refund(&Amounts::all(40), now + SECOND);
        assert_eq!(window.used(Rule::Tokens, now + MINUTE), 20);
        window.charge(&Amounts::all(10), now + MINUTE);
        window.refund(&Amounts::all(10), now - SECOND);
        assert_eq!(window.used(Rule::Tokens, now + MINUTE), 30);
    }

    #[test]
    fn the_use_of_others_counts_until_the_window_is_over_and_moves_with_their_number() {
        let now = Moment::START;
        let mut window = window(Ends::Sliding);
        window.charge(&Amounts::all(10), now);
        window.note_others(Rule::Tokens, &sight(45, now), &Unseen::default());
        assert_eq!(window.used(Rule::Tokens, now), 45);
        assert!(!fits(&mut window, 16, now) && fits(&mut window, 15, now));
        window.note_others(Rule::Tokens, &sight(15, now + SECOND), &Unseen::default());
        assert_eq!(window.used(Rule::Tokens, now + SECOND), 15);
        assert_eq!(window.used(Rule::Tokens, now + MINUTE + MARGIN), 0, "ours and theirs");
    }

    #[test]
    fn a_number_written_while_a_window_may_have_ended_says_nothing() {
        let now = Moment::START;
        let end = now + 20 * SECOND;
        let mut window = window(Ends::Fixed(Some((end, end))));
        window.charge(&Amounts::all(30), now);
        let mut judge = |used, earliest, latest| {
            let sight = Sight { earliest, latest, ..sight(used, latest) };
            window.judge(Rule::Tokens, &sight, &Unseen::default())
        };
        assert_eq!(judge(5, now, now + SECOND), Verdict::Over);
        assert_eq!(judge(31, now, now + SECOND), Verdict::Under);
        assert_eq!(judge(5, end - SECOND, end + SECOND), Verdict::Silent);
    }

    #[test]
    fn what_has_left_since_an_instant_is_told_with_what_may_have_left_there_already() {
        let now = Moment::START;
        let mut window = window(Ends::Sliding);
        (0..30).for_each(|second| window.charge(&Amounts::all(1), now + second * SECOND));
        // Those of the seconds 0 to 9 have left, and the next ones are within a margin of it.
        assert_eq!(window.left_since(now, now + MINUTE + 9 * SECOND + 2 * MARGIN), 11);
        assert_eq!(window.left_since(now + MINUTE + 5 * SECOND, now + MINUTE + 9 * SECOND + 2 * MARGIN), 6);
    }

    proptest::proptest! {
        /// Whatever is sent when it fits: an exact log of what the server sees, each request up to a margin late, holds no
        /// more than the amount in any window.
        #[test]
        fn no_window_at_the_server_holds_more_than_the_amount(
            requests in proptest::collection::vec((0u64..4_000, 1u64..60, 0u64..=500), 1..200),
        ) {
            let mut now = Moment::START;
            let mut window = window(Ends::Sliding);
            let mut seen = Vec::new();
            for (gap, n, late) in requests {
                now += Duration::from_millis(gap);
                if fits(&mut window, n, now) {
                    window.charge(&Amounts::all(n), now);
                    seen.push((now + Duration::from_millis(late), n));
                }
            }
            for (from, _) in &seen {
                let inside = seen.iter().filter(|(at, _)| at >= from && *at < *from + MINUTE);
                proptest::prop_assert!(inside.map(|(_, n)| n).sum::<u64>() <= 60);
            }
        }
    }
}
