//! What all tenants of a level will have got by a virtual time, without a walk over them.
//!
//! A tenant gets its first waiting request as soon as its own time has come, and from then on the tokens that its weight
//! earns, until nothing of it waits: over virtual time a step, a rise and a level end. So the sum over all tenants is a sum
//! over the steps and bends up to an instant.
//!
//! It is an estimate from below: the rest of a line is taken for its mean, and what a tenant has earned a part of for not
//! yet sent. Turns give each tenant up to one request more.

use std::collections::{HashMap, HashSet};
use std::ops::Add;

use super::queue::Ahead;
use super::sums::{Key, Sums};
use super::tenant::Tenant;
use crate::cost::Charge;

/// The steps and bends of all lines. They are drawn when somebody asks: most lanes are never asked.
#[derive(Debug)]
pub(super) struct Served {
    bends: Sums<Growth>,
    drawn: HashMap<Tenant, Vec<Key>>,
    /// Whose lines are not as they were drawn.
    changed: HashSet<Tenant>,
}

/// What happens at an instant of virtual time, with its tie-break.
pub(super) type Bend = (u64, u64, Growth);

/// What a tenant gets from an instant on, or a sum of that.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Growth {
    /// At once, …
    step: Amounts,
    /// … with every unit of time …
    rise: Amounts,
    /// … that has gone by since then: less what it would have been for the time before.
    unrisen: Amounts,
}

/// A count, and what a [`Charge`] is made of. A rise is a fraction.
type Amounts = [f64; 6];

impl Served {
    /// Nothing drawn yet of these lines.
    pub(super) fn of(tenants: impl Iterator<Item = Tenant>) -> Self {
        Self { bends: Sums::new(), drawn: HashMap::new(), changed: tenants.collect() }
    }

    /// The line of this tenant is another one. Returns how many are.
    pub(super) fn changed(&mut self, tenant: &Tenant) -> usize {
        if !self.changed.contains(tenant) {
            self.changed.insert(tenant.clone());
        }
        self.changed.len()
    }

    /// Draws anew what changed.
    pub(super) fn redraw<'a, B: Iterator<Item = Bend>>(&mut self, line: impl Fn(&Tenant) -> Option<B> + 'a) {
        for tenant in self.changed.drain() {
            for key in self.drawn.remove(&tenant).unwrap_or_default() {
                self.bends.remove(key);
            }
            if let Some(bends) = line(&tenant) {
                let keys = bends.map(|(at, tie, growth)| self.bends.insert(at, tie, growth)).collect();
                self.drawn.insert(tenant, keys);
            }
        }
    }

    /// What all get before `at`, but for the one with these bends.
    pub(super) fn before(&self, at: u64, tie: u64, but: impl Iterator<Item = Bend>) -> Ahead {
        let all = self.bends.before(at, tie);
        let own = but.filter(|(from, began, _)| (*from, *began) < (at, tie));
        let own = own.fold(Growth::default(), |sum, (_, _, growth)| sum + growth);
        let (all, own) = (all.by(at), own.by(at));
        ahead(std::array::from_fn(|index| all[index] - own[index]))
    }
}

impl Growth {
    /// All at once.
    pub(super) fn step(what: &Ahead) -> Self {
        Self { step: amounts(what), ..Self::default() }
    }

    /// So much within `time` from `at` on, and then the end of that.
    pub(super) fn rise(what: &Ahead, at: u64, time: u64) -> [(u64, Self); 2] {
        let rise = amounts(what).map(|amount| amount / time as f64);
        let from = |at: u64, sign: f64| Self {
            step: Amounts::default(),
            rise: rise.map(|rise| sign * rise),
            unrisen: rise.map(|rise| sign * rise * at as f64),
        };
        let end = at.saturating_add(time);
        [(at, from(at, 1.0)), (end, from(end, -1.0))]
    }

    fn by(&self, at: u64) -> Amounts {
        std::array::from_fn(|index| self.step[index] + self.rise[index] * at as f64 - self.unrisen[index])
    }
}

impl Add for Growth {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let sum = |one: Amounts, two: Amounts| std::array::from_fn(|index| one[index] + two[index]);
        Self {
            step: sum(self.step, other.step),
            rise: sum(self.rise, other.rise),
            unrisen: sum(self.unrisen, other.unrisen),
        }
    }
}

fn amounts(what: &Ahead) -> Amounts {
    let Ahead { count, charge } = what;
    let Charge { requests, tokens, input_tokens, input_by_chars, output_tokens } = *charge;
    [*count as u64, requests, tokens, input_tokens, input_by_chars, output_tokens].map(|amount| amount as f64)
}

fn ahead(amounts: Amounts) -> Ahead {
    // A rounding error below nothing is nothing.
    let [count, requests, tokens, input_tokens, input_by_chars, output_tokens] =
        amounts.map(|amount| amount.round() as u64);
    Ahead { count: count as usize, charge: Charge { requests, tokens, input_tokens, input_by_chars, output_tokens } }
}
