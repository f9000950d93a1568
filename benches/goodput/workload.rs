//! What is sent: seeded requests that look like real ones.

use std::f64::consts::TAU;

use fastrand::Rng;
use tollgate::{Estimate, Usage};

/// A request, and what it will really use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) estimate: Estimate,
    pub(crate) usage: Usage,
}

/// The kind of requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) requests: usize,
    pub(crate) caps: Caps,
    /// This part of the requests is as large as the second number says, in tokens.
    pub(crate) large: Option<(f64, u64)>,
}

/// The output caps, against the real output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Caps {
    /// Even from 64 to 512; the real output is 0.3 to 1 of it.
    Tight,
    /// The same output with a cap five times as large.
    Loose,
    /// None; the real output is log-normal with a mean of 300.
    Absent,
}

impl Default for Load {
    fn default() -> Self {
        Self { requests: 1_500, caps: Caps::Tight, large: None }
    }
}

impl Load {
    /// Prompts are log-normal with a mean of 400 tokens by their characters; the exact count is up to 15 % off.
    pub(crate) fn requests(&self, seed: u64) -> Vec<Request> {
        let mut luck = Rng::with_seed(seed);
        (0..self.requests).map(|_| self.request(&mut luck)).collect()
    }

    fn request(&self, luck: &mut Rng) -> Request {
        let typical = lognormal(luck, 400.0, 0.6);
        let cap = luck.u64(64..=512);
        let by_chars = match self.large {
            Some((part, size)) if luck.f64() < part => size - cap,
            _ => typical.round().max(1.0) as u64,
        };
        let input = (by_chars as f64 * (0.85 + 0.3 * luck.f64())).round().max(1.0) as u64;
        let part_of_cap = (cap as f64 * (0.3 + 0.7 * luck.f64())).ceil() as u64;
        let (output_cap, output) = match self.caps {
            Caps::Tight => (Some(cap), part_of_cap),
            Caps::Loose => (Some(5 * part_of_cap), part_of_cap),
            Caps::Absent => (None, lognormal(luck, 300.0, 0.6).round().max(1.0) as u64),
        };
        Request {
            estimate: Estimate { input, input_by_chars: by_chars, output_cap, choices: 1 },
            usage: Usage::new(input, output),
        }
    }
}

/// A log-normal number with this mean.
pub(crate) fn lognormal(luck: &mut Rng, mean: f64, sigma: f64) -> f64 {
    // Box and Muller; 1 - x keeps the logarithm off zero.
    let normal = (-2.0 * (1.0 - luck.f64()).ln()).sqrt() * (TAU * luck.f64()).cos();
    mean * (sigma * normal - sigma * sigma / 2.0).exp()
}
