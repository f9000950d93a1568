//! Which of several lanes a request goes to, by what each of them offers.

use std::cmp::Reverse;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// What a lane offers a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// The order of preference: 0 for the accounts that serve the model itself, then the fallbacks one after another.
    pub rank: usize,
    /// When the request would start.
    pub starts_in: Duration,
    /// Whether nobody waits there and a place is free.
    pub free: bool,
    /// How many are under way or go before it.
    pub load: usize,
    /// Whether the provider fails, or failed this request: then the margin does not count.
    pub troubled: bool,
    /// How strongly the request's affinity draws it there.
    pub weight: u64,
}

/// What a request wants of its lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// How long it can wait.
    pub patience: Option<Duration>,
    /// How much earlier a fallback must start to be taken.
    pub margin: Duration,
    /// How much longer it waits for the lane that its affinity draws it to; `None` without affinity.
    pub within: Option<Duration>,
    /// Whose turn it is where nothing else decides.
    pub turn: usize,
}

/// The offer to take.
///
/// Among offers of one rank the earliest start wins; then a lane that is free, then the one with the least load, then
/// the one whose turn it is. With affinity the strongest weight wins among those that start early enough. A later rank
/// is taken when the request would start there in time and here not, or earlier by more than the margin, or just earlier
/// if it failed here.
///
/// ```
/// use std::time::Duration;
/// use tollgate::engine::{Offer, Wish, choose};
///
/// let offer = |rank, seconds| Offer { rank, starts_in: Duration::from_secs(seconds), ..Offer::default() };
/// let wish = Wish { margin: Duration::from_secs(5), ..Wish::default() };
/// assert_eq!(choose(&[offer(0, 4), offer(0, 3), offer(1, 0)], &wish), Some(1));
/// assert_eq!(choose(&[offer(0, 60), offer(0, 30), offer(1, 0)], &wish), Some(2));
/// ```
pub fn choose(offers: &[Offer], wish: &Wish) -> Option<usize> {
    let mut ranks: Vec<usize> = offers.iter().map(|offer| offer.rank).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let late = |index: usize| wish.patience.is_some_and(|patience| offers[index].starts_in > patience);
    ranks.into_iter().filter_map(|rank| best_of(rank, offers, wish)).reduce(|here, there| {
        let in_time = late(here) && !late(there);
        let margin = if offers[here].troubled { Duration::ZERO } else { wish.margin };
        let earlier = offers[here].starts_in > offers[there].starts_in.saturating_add(margin);
        if in_time || earlier { there } else { here }
    })
}

fn best_of(rank: usize, offers: &[Offer], wish: &Wish) -> Option<usize> {
    let of_rank = || (0..offers.len()).filter(|index| offers[*index].rank == rank);
    let first = of_rank().map(|index| offers[index].starts_in).min()?;
    if let Some(within) = wish.within {
        let latest = first.saturating_add(within);
        return of_rank().filter(|index| offers[*index].starts_in <= latest).max_by_key(|index| offers[*index].weight);
    }
    of_rank().min_by_key(|index| {
        let Offer { starts_in, free, load, .. } = offers[*index];
        (starts_in, Reverse(free), load, (index + wish.turn) % offers.len())
    })
}

/// How strongly `key` is drawn to the place called `name`. The strongest wins (rendezvous hashing): when a place leaves,
/// only the keys that were drawn there go elsewhere.
pub(crate) fn weight(key: &str, name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, name).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::SECOND;

    fn offer(rank: usize, seconds: u32) -> Offer {
        Offer { rank, starts_in: SECOND * seconds, ..Offer::default() }
    }

    #[test]
    fn the_earliest_start_wins_then_a_free_place_then_the_least_load_then_turns() {
        let loaded = |load| Offer { load, ..Offer::default() };
        assert_eq!(choose(&[], &Wish::default()), None);
        assert_eq!(choose(&[offer(0, 2), offer(0, 1)], &Wish::default()), Some(1));
        let free = Offer { free: true, load: 9, ..Offer::default() };
        assert_eq!(choose(&[loaded(1), free, loaded(0)], &Wish::default()), Some(1));
        assert_eq!(choose(&[loaded(3), loaded(2)], &Wish::default()), Some(1));
        let turns = [0, 1, 2, 3].map(|turn| choose(&[loaded(0); 3], &Wish { turn, ..Wish::default() }).unwrap());
        assert_eq!(turns, [0, 2, 1, 0]);
    }

    #[test]
    fn a_fallback_is_taken_when_it_starts_earlier_by_more_than_the_margin() {
        let wish = Wish { margin: SECOND * 5, ..Wish::default() };
        assert_eq!(choose(&[offer(0, 5), offer(1, 0)], &wish), Some(0));
        assert_eq!(choose(&[offer(0, 6), offer(1, 0)], &wish), Some(1));
        assert_eq!(choose(&[offer(0, 20), offer(1, 10), offer(2, 6)], &wish), Some(1), "step by step");
        assert_eq!(choose(&[offer(2, 9), offer(1, 9)], &wish), Some(1), "the order is the rank's");
    }

    #[test]
    fn after_a_failure_the_margin_does_not_count() {
        let wish = Wish { margin: SECOND * 5, ..Wish::default() };
        let troubled = Offer { troubled: true, ..offer(0, 1) };
        assert_eq!(choose(&[troubled, offer(1, 0)], &wish), Some(1));
        assert_eq!(choose(&[troubled, offer(1, 1)], &wish), Some(0));
    }

    #[test]
    fn a_fallback_is_taken_when_patience_ends_before_the_primary_starts() {
        let wish = Wish { margin: SECOND * 60, patience: Some(SECOND * 3), ..Wish::default() };
        assert_eq!(choose(&[offer(0, 4), offer(1, 3)], &wish), Some(1));
        assert_eq!(choose(&[offer(0, 4), offer(1, 4)], &wish), Some(0), "it would be late there too");
        assert_eq!(choose(&[offer(0, 3), offer(1, 0)], &wish), Some(0));
    }

    #[test]
    fn affinity_holds_as_long_as_it_costs_less_than_the_given_wait() {
        let drawn = |weight, seconds| Offer { weight, ..offer(0, seconds) };
        let wish = Wish { within: Some(SECOND), ..Wish::default() };
        assert_eq!(choose(&[drawn(1, 0), drawn(9, 1)], &wish), Some(1));
        assert_eq!(choose(&[drawn(1, 0), drawn(9, 2)], &wish), Some(0));
        assert_eq!(choose(&[drawn(1, 0), drawn(9, 2), drawn(5, 1)], &wish), Some(2), "the next best of those near");
    }

    #[test]
    fn keys_are_spread_evenly_and_only_those_of_a_place_that_left_move() {
        let home = |key: &str, places: &[&'static str]| *places.iter().max_by_key(|name| weight(key, name)).unwrap();
        let all = ["a", "b", "c"];
        let mut counts = [0; 3];
        for key in 0..3_000 {
            let key = format!("user {key}");
            let before = home(&key, &all);
            counts[all.iter().position(|name| *name == before).unwrap()] += 1;
            let after = home(&key, &all[..2]);
            assert!(after == before || before == "c");
        }
        assert!(counts.iter().all(|count| (900..1_100).contains(count)), "{counts:?}");
    }
}
