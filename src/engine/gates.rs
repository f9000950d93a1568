//! All limits of a lane together: a request passes every gate or none.

use std::time::{Duration, Instant};

use super::gate::{Gate, GateStatus, Settlement, Source};
use crate::cost::{Charge, Limit, MINUTE};
use crate::providers::Reading;

/// The gates of one lane.
///
/// ```
/// use std::time::{Duration, Instant};
/// use tollgate::engine::{Gates, Settlement, Source};
/// use tollgate::{Charge, Limit};
///
/// let now = Instant::now();
/// let mut gates = Gates::new(Settlement::Never, Duration::ZERO);
/// gates.set(&[(Limit::rpm(500), Source::Configured), (Limit::tpm(30_000), Source::Configured)], now);
/// gates.answered();
///
/// assert!(gates.reserve(&Charge::tokens(25_000, 0), now).is_ok());
/// let wait = gates.reserve(&Charge::tokens(10_000, 0), now).unwrap_err();
/// assert_eq!(wait.limit, Limit::tpm(30_000));
/// assert_eq!(wait.until - now, Duration::from_secs(10));
/// ```
#[derive(Debug)]
pub struct Gates {
    gates: Vec<Gate>,
    settlement: Settlement,
    margin: Duration,
    /// Whether the provider has answered; new gates start carefully until it has.
    answered: bool,
}

/// Why a request has to wait: the limit that holds it longest, and until when all limits would let it pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The binding limit.
    pub limit: Limit,
    /// When the request fits, if nothing else happens.
    pub until: Instant,
}

impl Gates {
    /// No limits yet. `margin` is kept back for the jitter of the network (see [`Bucket::with_margin`](super::Bucket::with_margin)).
    pub fn new(settlement: Settlement, margin: Duration) -> Self {
        Self { gates: Vec::new(), settlement, margin, answered: false }
    }

    /// Makes `limits` the limits: those of the same dimension and window change their number and keep what was spent,
    /// others appear full or disappear.
    pub fn set(&mut self, limits: &[(Limit, Source)], now: Instant) {
        self.gates.retain(|gate| limits.iter().any(|(limit, _)| same_kind(limit, &gate.limit())));
        for (limit, source) in limits {
            self.set_one(*limit, source.clone(), now);
        }
    }

    /// The limit that could never hold `charge`, if there is one.
    pub fn too_small_for(&self, charge: &Charge) -> Option<Limit> {
        self.gates.iter().find(|gate| !gate.can_hold(charge)).map(Gate::limit)
    }

    /// Takes `charge` from every gate, or from none and says which one binds.
    pub fn reserve(&mut self, charge: &Charge, now: Instant) -> Result<(), Wait> {
        let Some(refusing) = self.gates.iter_mut().position(|gate| !gate.take(charge, now)) else { return Ok(()) };
        self.gates[..refusing].iter_mut().for_each(|gate| gate.put_back(charge));
        // A gate that refused is a gate that is not ready; the default only satisfies the type.
        Err(self.wait(charge, now).unwrap_or(Wait { limit: self.gates[refusing].limit(), until: now }))
    }

    /// What holds `charge` longest; `None` when it fits now. A charge larger than a limit stands for a queue of requests.
    pub fn wait(&self, charge: &Charge, now: Instant) -> Option<Wait> {
        let waits = self.gates.iter().map(|gate| Wait { limit: gate.limit(), until: gate.ready_at(charge, now) });
        waits.max_by_key(|wait| wait.until).filter(|wait| wait.until > now)
    }

    /// See [`Gate::refund`].
    pub fn refund(&mut self, charge: &Charge) {
        self.gates.iter_mut().for_each(|gate| gate.refund(charge));
    }

    /// See [`Gate::settle`].
    pub fn settle(&mut self, charged: &Charge, used: &Charge, unseen: &Charge, now: Instant) {
        self.gates.iter_mut().for_each(|gate| gate.settle(charged, used, unseen, now));
    }

    /// See [`Gate::answered`].
    pub fn answered(&mut self) {
        if std::mem::replace(&mut self.answered, true) {
            return;
        }
        self.gates.iter_mut().for_each(Gate::answered);
    }

    /// Takes what the headers of an answer show: each reading goes to the gate that it speaks of, changes its number if
    /// the server's is another, and makes a new gate where nobody configured one.
    pub fn read(&mut self, readings: &[Reading], unseen: &Charge, idle: bool, now: Instant) {
        for reading in readings {
            let Some(index) = self.gate_of(reading, now) else { continue };
            let gate = &mut self.gates[index];
            let shown = gate.limit();
            if let Some(amount) = reading.limit.filter(|amount| gate.accepts(*amount)) {
                gate.resize(Limit { amount, ..shown }, Source::Header, now);
            }
            gate.read(reading, unseen.get(shown.dimension), idle, now);
        }
    }

    /// Blocks the gate that a refusal names, which is made if nobody configured it. A refusal that names none blocks the
    /// gates whose windows are no longer than the wait or a minute. Answers whether there was any to block.
    pub fn block(&mut self, named: Option<&Limit>, charge: &Charge, wait: Duration, now: Instant) -> bool {
        let until = now + wait;
        if let Some(named) = named {
            let index = match self.gates.iter().position(|gate| same_kind(named, &gate.limit())) {
                Some(index) if self.gates[index].accepts(named.amount) => self.set_one(*named, Source::Header, now),
                Some(index) => index,
                None if named.amount > 0 => self.set_one(*named, Source::Header, now),
                None => return false,
            };
            self.gates[index].block(charge, until);
            return true;
        }
        let longest = wait.max(MINUTE);
        let mut blocked = false;
        for gate in self.gates.iter_mut().filter(|gate| gate.limit().window <= longest) {
            gate.block(charge, until);
            blocked = true;
        }
        blocked
    }

    /// The gates as they stand.
    pub fn status(&self, now: Instant) -> Vec<GateStatus> {
        self.gates.iter().map(|gate| gate.status(now)).collect()
    }

    fn set_one(&mut self, limit: Limit, source: Source, now: Instant) -> usize {
        if let Some(index) = self.gates.iter().position(|gate| same_kind(&limit, &gate.limit())) {
            self.gates[index].resize(limit, source, now);
            return index;
        }
        let mut gate = Gate::new(limit, source, self.settlement, self.margin, now);
        if self.answered {
            gate.answered();
        }
        self.gates.push(gate);
        self.gates.len() - 1
    }

    /// The gate that `reading` speaks of. The window decides where the header tells it; otherwise an equal number does,
    /// or being the only gate of its dimension. A limit that nobody configured becomes a gate once its window is known.
    fn gate_of(&mut self, reading: &Reading, now: Instant) -> Option<usize> {
        let of_dimension = |gate: &Gate| gate.limit().dimension == reading.dimension;
        let amount = reading.limit?;
        if let Some(window) = reading.window.or_else(|| reading.inferred_window()) {
            return match self.gates.iter().position(|gate| of_dimension(gate) && gate.limit().window == window) {
                None if amount > 0 => {
                    Some(self.set_one(Limit::new(reading.dimension, amount, window), Source::Header, now))
                }
                found => found,
            };
        }
        self.gates.iter().position(|gate| of_dimension(gate) && gate.limit().amount == amount)
    }
}

fn same_kind(a: &Limit, b: &Limit) -> bool {
    (a.dimension, a.window) == (b.dimension, b.window)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Dimension;

    fn gates(limits: &[Limit], now: Instant) -> Gates {
        let mut gates = Gates::new(Settlement::Never, Duration::ZERO);
        gates.set(&configured(limits), now);
        gates.answered();
        gates
    }

    fn configured(limits: &[Limit]) -> Vec<(Limit, Source)> {
        limits.iter().map(|limit| (*limit, Source::Configured)).collect()
    }

    fn left(gates: &Gates, now: Instant) -> Vec<i64> {
        gates.status(now).iter().map(|gate| gate.left).collect()
    }

    #[test]
    fn a_refusal_by_one_gate_costs_nothing_in_another() {
        let now = Instant::now();
        let mut gates = gates(&[Limit::rpm(10), Limit::tpm(1_000), Limit::tpd(1_500)], now);
        assert!(gates.reserve(&Charge::tokens(900, 0), now).is_ok());
        let wait = gates.reserve(&Charge::tokens(700, 0), now).unwrap_err();
        assert_eq!(wait.limit, Limit::tpd(1_500), "the day limit holds longest");
        assert_eq!(wait.until - now, Duration::from_millis(5_760_000));
        assert_eq!(left(&gates, now), [9, 100, 600]);
    }

    #[test]
    fn changing_a_number_keeps_what_was_spent_and_forgets_other_limits() {
        let now = Instant::now();
        let mut gates = gates(&[Limit::rpm(10), Limit::tpm(1_000)], now);
        gates.reserve(&Charge::tokens(900, 0), now).unwrap();
        gates.set(&configured(&[Limit::tpm(2_000), Limit::tpd(5_000)]), now);
        assert_eq!(left(&gates, now), [1_100, 5_000]);
    }

    #[test]
    fn a_requests_header_per_day_is_not_read_as_per_minute() {
        let now = Instant::now();
        let mut gates = gates(&[Limit::rpm(500), Limit::rpd(10_000)], now);
        let reading = Reading {
            dimension: Dimension::Requests,
            limit: Some(10_000),
            remaining: Some(100),
            reset: Some(Duration::from_millis(85_536_000)),
            window: None,
            rounding: 0,
        };
        gates.read(&[reading], &Charge::default(), false, now);
        assert_eq!(left(&gates, now), [500, 100]);
    }

    #[test]
    fn headers_lower_a_configured_limit_and_never_raise_it() {
        let now = Instant::now();
        let mut gates = gates(&[Limit::tpm(1_000)], now);
        let mut reading = Reading {
            dimension: Dimension::Tokens,
            limit: Some(600),
            remaining: Some(600),
            reset: None,
            window: Some(MINUTE),
            rounding: 0,
        };
        gates.read(std::slice::from_ref(&reading), &Charge::default(), false, now);
        assert_eq!(gates.status(now)[0].limit, Limit::tpm(600));
        reading.limit = Some(5_000);
        let mut gates = self::gates(&[Limit::tpm(1_000)], now);
        gates.read(&[reading], &Charge::default(), false, now);
        assert_eq!(gates.status(now)[0].limit, Limit::tpm(1_000));
    }
}
