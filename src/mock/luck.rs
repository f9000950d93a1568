//! What chance decides about one request: drawn from the seed and the number of its arrival, in a fixed order.

use std::time::Duration;

use super::config::{Faults, Latency, Outage, OutageKind, OutputModel};

/// The longest answer, in tokens, whatever the cap: about what real models can write.
const LONGEST: u64 = 16_384;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Error503,
    Error500,
    Error429,
    Reset,
    Hang,
    SlowBody,
    HalfBody,
}

/// What goes wrong with every request at that time.
pub(crate) fn fault_at(outages: &[Outage], time: Duration) -> Option<Fault> {
    let outage = outages.iter().find(|outage| (outage.from..outage.to).contains(&time))?;
    Some(match outage.kind {
        OutageKind::Error503 => Fault::Error503,
        OutageKind::Reset => Fault::Reset,
        OutageKind::Hang => Fault::Hang,
    })
}

pub(crate) struct Luck {
    rng: fastrand::Rng,
}

impl Luck {
    pub(crate) fn of(seed: u64, arrival: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(scatter(seed ^ scatter(arrival))) }
    }

    pub(crate) fn fault(&mut self, faults: &Faults) -> Option<Fault> {
        let Faults { error_503, error_500, error_429, reset, hang, slow_body, slow_body_for: _, half_body } = *faults;
        let mut left = self.rng.f64();
        let chances = [
            (error_503, Fault::Error503),
            (error_500, Fault::Error500),
            (error_429, Fault::Error429),
            (reset, Fault::Reset),
            (hang, Fault::Hang),
            (slow_body, Fault::SlowBody),
            (half_body, Fault::HalfBody),
        ];
        chances.into_iter().find_map(|(chance, fault)| {
            left -= chance;
            (left < 0.0).then_some(fault)
        })
    }

    /// The latency of this request: until the first token, and for each token.
    pub(crate) fn latency(&mut self, latency: &Latency) -> (Duration, Duration) {
        let factor = 1.0 + latency.jitter * (2.0 * self.rng.f64() - 1.0);
        let scaled = |d: Duration| Duration::try_from_secs_f64(d.as_secs_f64() * factor).unwrap_or(d);
        (scaled(latency.base), scaled(latency.per_output_token))
    }

    /// The tokens of one choice.
    pub(crate) fn length(&mut self, model: &OutputModel, cap: Option<u64>) -> u64 {
        let OutputModel { least, most, mean_without_cap } = *model;
        match cap {
            Some(cap) => {
                let part = least + (most - least) * self.rng.f64();
                let length = (cap.min(LONGEST) as f64 * part).round() as u64;
                length.clamp(cap.min(1), cap.min(LONGEST))
            }
            None => {
                // Twelve even draws make a normal one; exp(mu + sigma z) has the mean exp(mu + sigma²/2).
                let normal = (0..12).map(|_| self.rng.f64()).sum::<f64>() - 6.0;
                const SIGMA: f64 = 0.6;
                let length = mean_without_cap as f64 * (SIGMA * normal - SIGMA * SIGMA / 2.0).exp();
                (length.round() as u64).clamp(1, LONGEST)
            }
        }
    }

    /// Bits for an identifier or for content.
    pub(crate) fn bits(&mut self) -> u64 {
        self.rng.u64(..)
    }
}

/// SplitMix64's finish: neighbouring numbers end up far apart.
pub(crate) fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_as_often_as_asked_and_never_two_at_once() {
        let faults = Faults { error_503: 0.25, hang: 0.5, ..Faults::default() };
        let drawn: Vec<_> = (0..4_000).map(|arrival| Luck::of(7, arrival).fault(&faults)).collect();
        let part = |fault| drawn.iter().filter(|drawn| **drawn == fault).count() as f64 / 4_000.0;
        assert!((part(Some(Fault::Error503)) - 0.25).abs() < 0.03);
        assert!((part(Some(Fault::Hang)) - 0.5).abs() < 0.03);
        assert!((part(None) - 0.25).abs() < 0.03);
        assert!((0..4_000).all(|arrival| Luck::of(7, arrival).fault(&Faults::default()).is_none()));
        assert!((0..4_000).all(|arrival| {
            Luck::of(7, arrival).fault(&Faults { reset: 1.0, ..Faults::default() }) == Some(Fault::Reset)
        }));
    }

    #[test]
    fn lengths_stay_in_the_cap_and_have_the_mean_without_one() {
        let model = OutputModel::default();
        let mut total = 0;
        for arrival in 0..4_000 {
            let capped = Luck::of(1, arrival).length(&model, Some(100));
            assert!((30..=100).contains(&capped), "{capped}");
            total += Luck::of(2, arrival).length(&model, None);
        }
        let mean = total as f64 / 4_000.0;
        assert!((285.0..315.0).contains(&mean), "{mean}");
        assert_eq!(Luck::of(1, 1).length(&model, Some(1)), 1);
        assert!(Luck::of(1, 1).length(&model, Some(u64::MAX)) <= LONGEST);
    }

    #[test]
    fn jitter_multiplies_within_its_bounds() {
        let latency = Latency::about(Duration::from_millis(800));
        let drawn: Vec<_> = (0..500).map(|arrival| Luck::of(3, arrival).latency(&latency).0).collect();
        let (least, most) = (drawn.iter().min().unwrap(), drawn.iter().max().unwrap());
        assert!((600..620).contains(&least.as_millis()) && (980..=1_000).contains(&most.as_millis()));
    }
}
