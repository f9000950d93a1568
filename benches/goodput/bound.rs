//! The least time that a client knowing everything would need, by the way in which a limit is truly enforced.

use std::time::Duration;

use tollgate::{MINUTE, Shape};

/// A limit per minute as it truly is. Times are seconds since the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Truth {
    pub(crate) amount: u64,
    pub(crate) shape: Shape,
    /// When a window begins.
    pub(crate) phase: Duration,
    /// When a refilling limit becomes how many times what it was.
    pub(crate) change: Option<(Duration, f64)>,
}

impl Truth {
    /// From the first to the last admission of `charged` in all, the first being at `first`.
    pub(crate) fn least(&self, charged: u64, first: f64) -> f64 {
        let (amount, window) = self.piece();
        let charged = charged as f64;
        let windows = (charged / amount).ceil();
        match self.shape {
            Shape::Sliding => (windows - 1.0).max(0.0) * window,
            Shape::Fixed | Shape::Slice(_) if windows <= 1.0 => 0.0,
            Shape::Fixed | Shape::Slice(_) => self.rest(first) + (windows - 2.0) * window,
            _ => {
                let before = (charged - amount).max(0.0) * window / amount;
                match self.change {
                    Some((at, factor)) if first + before > at.as_secs_f64() => {
                        // What is counted at the last admission is at most the new limit, and the rest has leaked.
                        let old = at.as_secs_f64() - first;
                        let left = charged - amount * factor - amount / window * old;
                        old + (left * window / (amount * factor)).max(0.0)
                    }
                    _ => before,
                }
            }
        }
    }

    /// The same for a client that has to find out when windows end. Where the window of its first request lasted for less
    /// than an answer takes, it can have used no more of that than the `early` that it sent into the dark; one random phase
    /// in sixty is like that.
    pub(crate) fn least_in_the_dark(&self, charged: u64, first: f64, early: u64) -> f64 {
        const ANSWER: f64 = 1.0;
        let (amount, window) = self.piece();
        let rest = self.rest(first);
        let windows = matches!(self.shape, Shape::Fixed | Shape::Slice(_)) && window > ANSWER;
        if !windows || rest > ANSWER || charged <= early {
            return self.least(charged, first);
        }
        rest + (((charged - early) as f64 / amount).ceil() - 1.0) * window
    }

    /// When the window ends that `at` is in; never where there are none.
    pub(crate) fn window_end(&self, at: f64) -> f64 {
        if matches!(self.shape, Shape::Fixed | Shape::Slice(_)) { at + self.rest(at) } else { f64::INFINITY }
    }

    /// The most that can be admitted from `first` on for `span`.
    pub(crate) fn most(&self, first: f64, span: f64) -> f64 {
        let (amount, window) = self.piece();
        match self.shape {
            Shape::Sliding => ((span / window).floor() + 1.0) * amount,
            Shape::Fixed | Shape::Slice(_) => {
                let rest = self.rest(first);
                let further = if span < rest { 0.0 } else { ((span - rest) / window).floor() + 1.0 };
                (1.0 + further) * amount
            }
            _ => match self.change {
                Some((at, factor)) if first + span > at.as_secs_f64() => {
                    let old = at.as_secs_f64() - first;
                    amount / window * old + amount * factor * (1.0 + (span - old) / window)
                }
                _ => amount * (1.0 + span / window),
            },
        }
    }

    /// The amount that is enforced in one piece, and the length of that.
    fn piece(&self) -> (f64, f64) {
        match self.shape {
            Shape::Slice(length) => {
                let quota = (u128::from(self.amount) * length.as_nanos()).div_ceil(MINUTE.as_nanos());
                (quota as f64, length.as_secs_f64())
            }
            _ => (self.amount as f64, MINUTE.as_secs_f64()),
        }
    }

    /// What is left of the window that `at` is in.
    fn rest(&self, at: f64) -> f64 {
        let (_, window) = self.piece();
        window - (at - self.phase.as_secs_f64()).rem_euclid(window)
    }
}

/// The formulas against cases that were computed by hand; a judge has to be right.
pub(crate) fn check() {
    let truth = |shape| Truth { amount: 300, shape, phase: Duration::from_secs(20), change: None };
    let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-6, "{a} {b}");
    near(truth(Shape::Refill).least(900, 5.0), 120.0);
    near(truth(Shape::Refill).most(5.0, 120.0), 900.0);
    near(truth(Shape::Sliding).least(900, 5.0), 120.0);
    near(truth(Shape::Sliding).least(901, 5.0), 180.0);
    near(truth(Shape::Fixed).least(300, 5.0), 0.0);
    near(truth(Shape::Fixed).least(301, 5.0), 15.0); // the window ends at 20 s
    near(truth(Shape::Fixed).least(901, 5.0), 15.0 + 120.0);
    near(truth(Shape::Fixed).most(5.0, 14.0), 300.0);
    near(truth(Shape::Fixed).most(5.0, 15.0 + 119.0), 900.0);
    // The window ends at 20 s, before an answer, and only 100 were sent in it: two more are needed for the rest.
    near(truth(Shape::Fixed).least_in_the_dark(601, 18.5, 100), truth(Shape::Fixed).least(601, 18.5));
    near(truth(Shape::Fixed).least_in_the_dark(601, 19.0, 100), 1.0 + 60.0);
    near(truth(Shape::Fixed).least_in_the_dark(701, 19.0, 100), 1.0 + 120.0);
    // 50 in ten seconds, cut at 0, 10, 20, …
    near(truth(Shape::Slice(Duration::from_secs(10))).least(151, 5.0), 5.0 + 2.0 * 10.0);
    // 300 at once, 300 in the first minute; then by halves: 150 in the first, after a minute in which too much is counted.
    let halves = Truth { change: Some((Duration::from_secs(60), 0.5)), ..truth(Shape::Refill) };
    near(halves.least(600, 0.0), 60.0);
    near(halves.least(601, 0.0), 60.0 + 60.0 + 60.0 / 150.0);
    near(halves.most(0.0, 180.0), 300.0 + 150.0 + 300.0);
}
