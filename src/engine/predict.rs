//! How long the answers will be that nothing caps: a learned guess for each kind of work.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use crate::cost::{Charge, Estimate};
use crate::providers::{self, Provider};

/// A guess rests on about this many answers; older ones fade. Of lengths that scatter as widely as their mean, so many
/// tell it within 4 %, and after a change as many again make two thirds of the new guess.
const MEMORY: f64 = 400.0;

/// From this many answers on the guess is what was learned alone. A mean of fewer says little.
const ENOUGH: u32 = 30;

/// A weight this small was forgotten; without an end it would fade into numbers that are slow to compute with.
const FORGOTTEN: f64 = 1e-12;

/// Lengths are told apart to one part in eight, up to 16 million tokens.
const STEPS: u32 = 3;
const LONGEST: u64 = (1 << 24) - 1;
const BINS: usize = bin(LONGEST) + 1;

/// So many tags of a lane are told apart; work under any other is guessed as if it had none.
const MOST_TAGS: usize = 256;

/// The length of one answer, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// It ended by itself.
    Whole(u64),
    /// A cap cut it off: left alone it would have been longer, and nobody knows by how much.
    Cut(u64),
}

/// Learns from answers how long the next one will be.
///
/// The guess is the larger of their mean and a quantile, by default the median. What is reserved for the requests under
/// way has to hold what they will take *together*. For many of them that is their number times the mean: a median is
/// too low for all of them at once, since a few long answers make up for many short ones, and a high quantile keeps a
/// multiple of the need idle. The scatter around the mean averages out, and what is left of it becomes debt that is
/// waited for. Where only a few long requests fit into a limit at a time there is no such average, and a higher quantile
/// trades idle limit for fewer overruns.
///
/// Until there are thirty answers a lower guess is mixed with the configured start, while a higher one counts
/// at once: to reserve too much costs a moment, too little costs refusals.
///
/// ```
/// use tollgate::engine::{Output, Predictor};
///
/// let mut predictor = Predictor::new(500, 0.5);
/// assert_eq!(predictor.expected(), 500);
/// for tokens in [90, 100, 110].into_iter().cycle().take(300) {
///     predictor.observe(Output::Whole(tokens));
/// }
/// assert!((95..=105).contains(&predictor.expected()));
/// ```
#[derive(Clone, Debug)]
pub struct Predictor {
    start: u64,
    quantile: f64,
    /// The weight of the answers of each length, see [`bin`].
    weights: Box<[f64; BINS]>,
    answers: u32,
    expected: u64,
}

impl Predictor {
    /// Knows nothing yet and guesses `start` tokens. `quantile` is between 0 and 1.
    pub fn new(start: u64, quantile: f64) -> Self {
        Self { start, quantile, weights: Box::new([0.0; BINS]), answers: 0, expected: start }
    }

    /// The guess for the next answer, in tokens.
    pub fn expected(&self) -> u64 {
        self.expected
    }

    /// Learns the length of an answer.
    pub fn observe(&mut self, output: Output) {
        for weight in self.weights.iter_mut() {
            *weight *= 1.0 - 1.0 / MEMORY;
            if *weight < FORGOTTEN {
                *weight = 0.0;
            }
        }
        match output {
            Output::Whole(tokens) => self.weights[bin(tokens)] += 1.0,
            Output::Cut(tokens) => self.spread(bin(tokens)),
        }
        self.answers = self.answers.saturating_add(1);
        self.expected = self.guess();
    }

    /// An answer that was cut off is as long as the longer ones are, in their proportions; where there are none it is at
    /// least as long as it got.
    fn spread(&mut self, cut: usize) {
        let longer = &mut self.weights[cut + 1..];
        let total: f64 = longer.iter().sum();
        if total > 0.0 {
            longer.iter_mut().for_each(|weight| *weight *= 1.0 + 1.0 / total);
        } else {
            self.weights[cut] += 1.0;
        }
    }

    fn guess(&self) -> u64 {
        let learned = self.mean().max(self.at_quantile());
        let known = self.answers.min(ENOUGH);
        let mixed = (learned * f64::from(known) + self.start as f64 * f64::from(ENOUGH - known)) / f64::from(ENOUGH);
        mixed.max(learned).ceil() as u64
    }

    fn mean(&self) -> f64 {
        let total: f64 = self.weights.iter().sum();
        let weighted = self.weights.iter().enumerate().map(|(bin, weight)| {
            let (from, to) = bounds(bin);
            weight * (from + to) / 2.0
        });
        weighted.sum::<f64>() / total
    }

    fn at_quantile(&self) -> f64 {
        let mut left = self.weights.iter().sum::<f64>() * self.quantile;
        let filled = self.weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
        let mut longest = 0.0;
        for (bin, weight) in filled {
            let (from, to) = bounds(bin);
            if left <= *weight {
                return from + (to - from) * left / weight;
            }
            left -= weight;
            longest = to;
        }
        // Only what rounding left over.
        longest
    }
}

/// Where answers of this length are counted: each length by itself up to 8, then eight steps for each doubling.
const fn bin(tokens: u64) -> usize {
    let tokens = if tokens < LONGEST { tokens } else { LONGEST };
    let doublings = tokens.checked_ilog2();
    match doublings {
        Some(doublings) if doublings >= STEPS => {
            let step = (tokens >> (doublings - STEPS)) as usize & ((1 << STEPS) - 1);
            (((doublings - STEPS + 1) as usize) << STEPS) + step
        }
        _ => tokens as usize,
    }
}

/// The shortest and the longest answer that are counted there.
fn bounds(bin: usize) -> (f64, f64) {
    let from = |bin: usize| match (bin >> STEPS).checked_sub(1) {
        Some(doublings) => ((1u64 << STEPS) + (bin as u64 & ((1 << STEPS) - 1))) << doublings,
        None => bin as u64,
    };
    (from(bin) as f64, (from(bin + 1) - 1) as f64)
}

/// A request whose charge depends on how long its answer will be, see [`providers::is_guess`].
#[derive(Clone, Debug)]
pub struct Guess {
    /// Whose rule makes a charge of it.
    pub provider: Provider,
    /// What is known of it.
    pub estimate: Estimate,
    /// The kind of work; answers to the same kind are alike.
    pub tag: Option<Arc<str>>,
    /// The most that prompt and one answer together can be, in tokens.
    pub context_window: Option<u64>,
}

impl Guess {
    /// What is charged if each answer has `output` tokens.
    pub fn charge(&self, output: u64) -> Charge {
        providers::at_admission(self.provider, &self.estimate, output)
    }

    /// Whether the provider itself reserves no output and counts what was produced when it is done.
    pub(super) fn is_ours_alone(&self) -> bool {
        matches!(self.provider, Provider::Anthropic | Provider::Mistral)
    }

    fn choices(&self) -> u64 {
        self.estimate.choices.max(1).into()
    }

    /// The most that one answer can have.
    fn most(&self) -> u64 {
        let cap = self.estimate.output_cap.map(|cap| cap / self.choices());
        let room = self.context_window.map(|window| window.saturating_sub(self.estimate.input));
        cap.into_iter().chain(room).min().unwrap_or(u64::MAX)
    }
}

/// How well outputs were guessed, over the requests whose real output is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Predictions {
    /// Requests whose output was guessed.
    pub requests: u64,
    /// Output tokens that were reserved for them …
    pub predicted: u64,
    /// … and what they used.
    pub used: u64,
    /// The differences of the two, request by request, each taken as positive.
    pub off: u64,
    /// Requests that used no more than was reserved.
    pub covered: u64,
}

impl Predictions {
    /// By how many tokens a guess was wrong in the mean, above or below; 0 if there was none.
    pub fn mean_error(&self) -> f64 {
        self.off as f64 / self.requests.max(1) as f64
    }

    /// The share of requests that used no more than was reserved; 1 if there was none.
    pub fn share_covered(&self) -> f64 {
        if self.requests == 0 { 1.0 } else { self.covered as f64 / self.requests as f64 }
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            predicted: self.predicted.saturating_add(other.predicted),
            used: self.used.saturating_add(other.used),
            off: self.off.saturating_add(other.off),
            covered: self.covered.saturating_add(other.covered),
        }
    }

    fn note(&mut self, predicted: u64, used: u64) {
        let one =
            Self { requests: 1, predicted, used, off: predicted.abs_diff(used), covered: u64::from(used <= predicted) };
        *self = self.plus(&one);
    }
}

/// The guesses of one lane: a [`Predictor`] for each tag, and one for work without a tag.
#[derive(Clone, Debug)]
pub struct Predictors {
    untagged: Predictor,
    tagged: HashMap<Arc<str>, Predictor>,
    fresh: Predictor,
    record: Predictions,
}

impl Default for Predictors {
    /// Begins with 500 tokens, and takes the mean or the median.
    fn default() -> Self {
        Self::new(500, 0.5)
    }
}

impl Predictors {
    /// Each kind of work begins as [`Predictor::new`].
    pub fn new(start: u64, quantile: f64) -> Self {
        let fresh = Predictor::new(start, quantile);
        Self { untagged: fresh.clone(), tagged: HashMap::new(), fresh, record: Predictions::default() }
    }

    /// The guess for one answer to a request, in tokens; never more than it can have.
    pub fn predict(&self, guess: &Guess) -> u64 {
        let predictor = match &guess.tag {
            None => &self.untagged,
            Some(tag) => match self.tagged.get(tag) {
                Some(known) => known,
                None if self.tagged.len() < MOST_TAGS => &self.fresh,
                None => &self.untagged,
            },
        };
        predictor.expected().min(guess.most())
    }

    /// Learns that a request, for which `predicted` tokens of output were reserved, used this many, over all its answers.
    pub fn observe(&mut self, guess: &Guess, predicted: u64, used: u64) {
        self.record.note(predicted, used);
        let each = used.div_ceil(guess.choices());
        let output = if each < guess.most() { Output::Whole(each) } else { Output::Cut(each) };
        let predictor = match &guess.tag {
            Some(tag) if self.tagged.contains_key(tag) || self.tagged.len() < MOST_TAGS => {
                self.tagged.entry(tag.clone()).or_insert_with(|| self.fresh.clone())
            }
            _ => &mut self.untagged,
        };
        predictor.observe(output);
    }

    /// How well it went so far.
    pub fn record(&self) -> Predictions {
        self.record
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guess(tag: Option<&str>) -> Guess {
        Guess {
            provider: Provider::Openai,
            estimate: Estimate { input: 100, input_by_chars: 0, output_cap: None, choices: 1 },
            tag: tag.map(Arc::from),
            context_window: None,
        }
    }

    /// Lengths with this mean and this sigma of their logarithm.
    fn lognormal(mean: f64, sigma: f64, random: &mut fastrand::Rng) -> u64 {
        let (a, b) = (1.0 - random.f64(), random.f64());
        let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
        (mean.ln() - sigma * sigma / 2.0 + sigma * normal).exp().round() as u64
    }

    fn taught(mean: f64, sigma: f64, answers: usize, random: &mut fastrand::Rng) -> Predictor {
        let mut predictor = Predictor::new(500, 0.5);
        (0..answers).for_each(|_| predictor.observe(Output::Whole(lognormal(mean, sigma, random))));
        predictor
    }

    #[test]
    fn every_length_lies_within_the_bounds_of_its_bin_and_bins_leave_no_gap() {
        for tokens in (0..5_000).chain([1 << 20, LONGEST - 1, LONGEST]) {
            let (from, to) = bounds(bin(tokens));
            assert!((from..=to).contains(&(tokens as f64)), "{tokens}: {from} {to}");
        }
        assert_eq!(bin(u64::MAX), BINS - 1);
        for bin in 1..BINS {
            assert_eq!(bounds(bin).0, bounds(bin - 1).1 + 1.0);
        }
    }

    proptest! {
        #[test]
        fn the_guess_converges_on_the_mean_of_a_lognormal(seed: u64) {
            let random = &mut fastrand::Rng::with_seed(seed);
            let expected = taught(300.0, 0.8, 800, random).expected();
            // Six standard errors of what it remembers.
            prop_assert!((225..=380).contains(&expected), "{}", expected);
        }

        #[test]
        fn a_high_quantile_converges_as_well(seed: u64) {
            let random = &mut fastrand::Rng::with_seed(seed);
            let mut predictor = Predictor::new(500, 0.9);
            (0..800).for_each(|_| predictor.observe(Output::Whole(lognormal(300.0, 0.8, random))));
            // exp(μ + 1.2816 σ) = 607.
            prop_assert!((430..=850).contains(&predictor.expected()), "{}", predictor.expected());
        }

        #[test]
        fn the_guess_follows_a_shift_up_and_down(seed: u64) {
            let random = &mut fastrand::Rng::with_seed(seed);
            for (before, after) in [(300.0, 3_000.0), (3_000.0, 300.0)] {
                let mut predictor = taught(before, 0.5, 1_000, random);
                (0..1_200).for_each(|_| predictor.observe(Output::Whole(lognormal(after, 0.5, random))));
                // e⁻³ = 5 % of the old mean is left.
                let ideal = after + 0.05 * (before - after);
                let ratio = predictor.expected() as f64 / ideal;
                prop_assert!((0.85..1.15).contains(&ratio), "{} {}", predictor.expected(), ideal);
            }
        }

        #[test]
        fn a_guess_is_never_above_what_the_context_window_leaves(
            outputs in prop::collection::vec(0u64..2_000_000, 0..60), window in 0u64..200_000, input in 0u64..200_000,
        ) {
            let mut predictors = Predictors::default();
            let mut guess = Guess { context_window: Some(window), ..guess(None) };
            guess.estimate.input = input;
            for used in outputs {
                prop_assert!(predictors.predict(&guess) <= window.saturating_sub(input));
                predictors.observe(&guess, 0, used);
            }
            prop_assert!(predictors.predict(&guess) <= window.saturating_sub(input));
        }

        #[test]
        fn the_same_answers_make_the_same_guess_whatever_they_are(outputs in prop::collection::vec(any::<(bool, u64)>(), 1..100)) {
            let play = || {
                let mut predictor = Predictor::new(500, 0.5);
                for (cut, tokens) in &outputs {
                    predictor.observe(if *cut { Output::Cut(*tokens) } else { Output::Whole(*tokens) });
                }
                predictor.expected()
            };
            let first = play();
            prop_assert_eq!(play(), first);
            prop_assert!(first <= LONGEST);
        }

        #[test]
        fn answers_cut_off_at_a_cap_do_not_pull_the_guess_down(seed: u64) {
            let random = &mut fastrand::Rng::with_seed(seed);
            let mut predictor = Predictor::new(500, 0.5);
            for answer in 0..2_000 {
                let tokens = lognormal(300.0, 0.8, random);
                // Every second request has a cap of 300 tokens, which a third of the answers would exceed.
                let cut = answer % 2 == 0 && tokens >= 300;
                predictor.observe(if cut { Output::Cut(300) } else { Output::Whole(tokens) });
            }
            prop_assert!((225..=380).contains(&predictor.expected()), "{}", predictor.expected());
        }
    }

    #[test]
    fn the_start_fades_as_answers_come_and_longer_answers_count_at_once() {
        let mut predictor = Predictor::new(500, 0.5);
        let mut before = 500;
        for _ in 0..ENOUGH {
            predictor.observe(Output::Whole(20));
            assert!(predictor.expected() < before);
            before = predictor.expected();
        }
        assert!((20..=22).contains(&before), "{before}");
        let mut predictor = Predictor::new(500, 0.5);
        predictor.observe(Output::Whole(9_000));
        assert!((8_500..9_500).contains(&predictor.expected()), "{}", predictor.expected());
    }

    #[test]
    fn kinds_of_work_are_told_apart_and_their_number_is_bounded() {
        let mut predictors = Predictors::default();
        for _ in 0..100 {
            predictors.observe(&guess(Some("titles")), 0, 12);
            predictors.observe(&guess(Some("stories")), 0, 4_000);
        }
        assert!(predictors.predict(&guess(Some("titles"))) < 20);
        assert!(predictors.predict(&guess(Some("stories"))) > 3_500);
        assert_eq!(predictors.predict(&guess(None)), 500);
        for user in 0..10 * MOST_TAGS {
            predictors.observe(&guess(Some(&format!("user {user}"))), 0, 40);
        }
        assert_eq!(predictors.tagged.len(), MOST_TAGS);
        let newcomer = predictors.predict(&guess(Some("somebody else")));
        assert!((38..=42).contains(&newcomer), "{newcomer}: as work without a tag");
    }

    #[test]
    fn several_answers_of_one_request_are_guessed_each() {
        let mut predictors = Predictors::default();
        let mut three = guess(None);
        three.estimate.choices = 3;
        (0..100).for_each(|_| predictors.observe(&three, 0, 600));
        let each = predictors.predict(&three);
        assert!((190..=210).contains(&each), "{each}");
        assert_eq!(three.charge(each).output_tokens, 3 * each);
    }

    #[test]
    fn the_record_tells_how_far_guesses_were_off() {
        let mut predictors = Predictors::default();
        predictors.observe(&guess(None), 500, 400);
        predictors.observe(&guess(None), 500, 700);
        let record = predictors.record();
        assert_eq!((record.requests, record.predicted, record.used), (2, 1_000, 1_100));
        assert_eq!((record.mean_error(), record.share_covered()), (150.0, 0.5));
    }
}
