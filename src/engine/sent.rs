//! How many requests had been sent by when.

use std::collections::VecDeque;
use std::time::Duration;

use super::moment::Moment;

/// What is sent within this time is sent at once.
const GRAIN: Duration = Duration::from_millis(50);
/// So many marks are kept: a minute of a lane that never rests.
const MARKS: usize = 1_200;

/// The times of the requests of a lane.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// When something was sent, at least a grain apart, and how much had been before.
    marks: VecDeque<(Moment, u64)>,
    count: u64,
}

impl Sent {
    pub(super) fn count(&mut self, now: Moment) {
        if self.marks.back().is_none_or(|(at, _)| now >= *at + GRAIN) {
            if self.marks.len() == MARKS {
                self.marks.pop_front();
            }
            self.marks.push_back((now, self.count));
        }
        self.count += 1;
    }

    /// How many were sent after `at`, not counting those of the same grain.
    pub(super) fn after(&self, at: Moment) -> u64 {
        let next = self.marks.partition_point(|(mark, _)| *mark <= at);
        self.marks.get(next).map_or(0, |(_, before)| self.count - before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_how_many_were_sent_after_an_instant() {
        let start = Moment::START;
        let ms = |ms| start + Duration::from_millis(ms);
        let mut sent = Sent::default();
        [0, 10, 20, 100, 110, 1_000].into_iter().for_each(|at| sent.count(ms(at)));
        let after = |at| sent.after(ms(at));
        assert_eq!([after(0), after(60), after(99), after(100), after(999), after(1_000)], [3, 3, 3, 1, 1, 0]);
        assert_eq!(sent.after(start - GRAIN), 6);
    }

    #[test]
    fn it_does_not_grow_for_ever() {
        let start = Moment::START;
        let mut sent = Sent::default();
        (0..5_000).for_each(|nth| sent.count(start + GRAIN * nth));
        assert_eq!((sent.marks.len(), sent.after(start + GRAIN * 4_989)), (MARKS, 10));
    }
}
