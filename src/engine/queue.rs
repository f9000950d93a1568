//! Who goes next: priority, then turns between tenants weighted by tokens, then arrival.
//!
//! The order is strict: nobody overtakes the request at the front, however large it is and however small the others.
//! That loses nothing, since the limit that holds the front request is itself used to the full meanwhile, and it is what
//! keeps large requests from waiting for ever.
//!
//! Turns are start-time fair queuing, the variant of deficit round robin that needs no rounds: every tenant has a virtual
//! time that advances by `tokens / weight` with each of its requests, and the one that is furthest behind goes next. A
//! tenant that comes back from idleness starts at the others' time, so nobody saves up turns.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::moment::Moment;
use super::predict::Guess;
use super::served::{Bend, Growth, Served};
use super::tenant::Tenant;
use crate::cost::Charge;

/// How urgent a request is. Higher goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// Work that can wait.
    Low,
    /// The default.
    #[default]
    Normal,
    /// Somebody is waiting for the answer.
    High,
}

/// Of so many grants one goes to a request of lower priority that has waited too long: it cannot starve, and a backlog
/// of old requests cannot take the lane from urgent ones either.
const AGED_TURN: u32 = 8;

/// Up to so many tenants, the finish tags of those with nothing waiting are not swept.
const FEW_TAGS: usize = 64;

/// Requests are summed in blocks of so many arrival numbers, to tell what is before one: in a long line, the walk within a block is
/// about as long as that over the blocks.
const BLOCK: u64 = 512;

/// A waiting request.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) charge: Charge,
    /// Where the charge is a guess: what to make a better one of when its turn comes.
    pub(super) guess: Option<Arc<Guess>>,
    pub(super) since: Moment,
    pub(super) deadline: Option<Moment>,
    pub(super) payload: T,
}

/// The place of a waiting request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) priority: Priority,
    pub(super) tenant: Tenant,
    /// Arrival number, kept over retries.
    pub(super) arrival: u64,
}

/// Waiting requests in their order.
#[derive(Debug)]
pub(super) struct Queue<T> {
    levels: BTreeMap<Priority, Level<T>>,
    weights: HashMap<Tenant, u32>,
    deadlines: BTreeSet<(Moment, Place)>,
    len: usize,
    ageing: Duration,
    grants_since_aged: u32,
}

#[derive(Debug)]
struct Level<T> {
    lines: HashMap<Tenant, Line<T>>,
    /// Who is furthest behind; ties in the order in which they began to wait.
    turns: BTreeSet<(u64, u64, Tenant)>,
    /// The virtual time of the last turn.
    time: u64,
    /// The virtual times of tenants who have nobody waiting and are ahead of the others all the same: who sends one request
    /// after another gets no more than who sends all at once.
    finish_tags: HashMap<Tenant, u64>,
    /// How many of them make it worth looking for those that the others have caught up with.
    many_tags: usize,
    /// Everything that waits here; `None` until somebody asks.
    total: Option<Ahead>,
    /// What the lines will have got by when; `None` until somebody asks.
    served: Option<Served>,
}

/// The waiting requests of one tenant on one level.
#[derive(Debug)]
struct Line<T> {
    entries: BTreeMap<u64, Entry<T>>,
    /// The sums of `BLOCK` arrival numbers each; `None` until somebody asks what is before one in the middle.
    blocks: Option<BTreeMap<u64, Ahead>>,
    total: Charge,
    time: u64,
    began: u64,
    weight: u32,
}

/// What goes before a request: how many, and what they will take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ahead {
    pub(super) count: usize,
    pub(super) charge: Charge,
}

impl<T> Queue<T> {
    pub(super) fn new(weights: HashMap<Tenant, u32>, ageing: Duration) -> Self {
        Self {
            levels: BTreeMap::new(),
            weights,
            deadlines: BTreeSet::new(),
            len: 0,
            ageing,
            grants_since_aged: AGED_TURN,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn weight_of(&self, tenant: &Tenant) -> u32 {
        self.weights.get(tenant).copied().unwrap_or(1).max(1)
    }

    pub(super) fn insert(&mut self, place: Place, entry: Entry<T>) {
        let weight = self.weight_of(&place.tenant);
        let level = self.levels.entry(place.priority).or_insert_with(Level::new);
        if let Some(deadline) = entry.deadline {
            self.deadlines.insert((deadline, place.clone()));
        }
        level.insert(place.tenant, place.arrival, weight, entry);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, place: &Place) -> Option<Entry<T>> {
        let level = self.levels.get_mut(&place.priority)?;
        let entry = level.remove(&place.tenant, place.arrival)?;
        if level.lines.is_empty() {
            self.levels.remove(&place.priority);
        }
        if let Some(deadline) = entry.deadline {
            self.deadlines.remove(&(deadline, place.clone()));
        }
        self.len -= 1;
        Some(entry)
    }

    /// The request that goes next.
    pub(super) fn next(&self, now: Moment) -> Option<(Place, &Entry<T>)> {
        let mut levels = self.levels.iter().rev();
        let (priority, level) = levels.next()?;
        let mut first = (*priority, level.next()?);
        if self.grants_since_aged >= AGED_TURN {
            let aged = levels
                .filter_map(|(priority, level)| Some((*priority, level.next()?)))
                .filter(|(_, (_, _, entry))| now - entry.since >= self.ageing)
                .min_by_key(|(_, (_, _, entry))| entry.since);
            first = aged.unwrap_or(first);
        }
        let (priority, (tenant, arrival, entry)) = first;
        Some((Place { priority, tenant: tenant.clone(), arrival }, entry))
    }

    /// Takes out the request that [`Queue::next`] named and counts its turn.
    pub(super) fn grant(&mut self, place: &Place) -> Option<Entry<T>> {
        let aged = self.levels.keys().next_back().is_some_and(|top| *top > place.priority);
        self.grants_since_aged = if aged { 0 } else { self.grants_since_aged.saturating_add(1) };
        self.levels.get_mut(&place.priority)?.count_turn(&place.tenant, place.arrival);
        self.remove(place)
    }

    /// The next deadline and whose it is.
    pub(super) fn first_deadline(&self) -> Option<&(Moment, Place)> {
        self.deadlines.first()
    }

    pub(super) fn get(&self, place: &Place) -> Option<&Entry<T>> {
        self.levels.get(&place.priority)?.lines.get(&place.tenant)?.entries.get(&place.arrival)
    }

    /// The places of the waiting requests that are like that, in order of priority and tenant.
    pub(super) fn places(&self, which: impl Fn(&Entry<T>) -> bool) -> Vec<Place> {
        let mut places = Vec::new();
        for (priority, level) in &self.levels {
            for (tenant, line) in &level.lines {
                let arrivals = line.entries.iter().filter(|(_, entry)| which(entry)).map(|(arrival, _)| *arrival);
                places.extend(arrivals.map(|arrival| Place { priority: *priority, tenant: tenant.clone(), arrival }));
            }
        }
        places
    }

    /// What goes before a request at `place`, waiting already or about to. Exact in its own line and for higher priorities; of
    /// other tenants an estimate from below, see [`Served`].
    pub(super) fn ahead(&mut self, place: &Place) -> Ahead {
        let higher = self.levels.range_mut((Excluded(place.priority), Unbounded));
        let ahead = higher.fold(Ahead::default(), |sum, (_, level)| sum.and(level.total()));
        let weight = self.weight_of(&place.tenant);
        let level = self.levels.get_mut(&place.priority);
        level.map_or(ahead, |level| ahead.and(level.ahead(&place.tenant, place.arrival, weight)))
    }
}

impl<T> Level<T> {
    fn new() -> Self {
        Self {
            lines: HashMap::new(),
            turns: BTreeSet::new(),
            time: 0,
            finish_tags: HashMap::new(),
            many_tags: FEW_TAGS,
            total: None,
            served: None,
        }
    }

    fn total(&mut self) -> Ahead {
        *self.total.get_or_insert_with(|| self.lines.values().map(Line::sum).fold(Ahead::default(), Ahead::and))
    }

    /// What goes before a request of this level: what stands before it in its own line, and of the others' lines as much as
    /// gets a turn meanwhile.
    fn ahead(&mut self, tenant: &Tenant, arrival: u64, weight: u32) -> Ahead {
        let begins = self.begins(tenant);
        let own = self.lines.get_mut(tenant);
        let before = own.map_or(Ahead::default(), |line| line.before(arrival));
        let own = self.lines.get(tenant);
        if self.lines.len() == usize::from(own.is_some()) {
            return before;
        }
        let (time, began) = own.map_or((begins, arrival), |line| (line.time, line.began));
        // The virtual time at which this request's turn comes.
        let turn = time.saturating_add(virtual_time(size(&before.charge), weight));
        let turn = if before.count == 0 { time } else { turn };
        let served = self.served.get_or_insert_with(|| Served::of(self.lines.keys().cloned()));
        served.redraw(|tenant| self.lines.get(tenant).map(Line::bends));
        before.and(served.before(turn, began, own.into_iter().flat_map(Line::bends)))
    }

    /// The line of this tenant is another one.
    fn changed(&mut self, tenant: &Tenant) {
        // Where nobody has asked for so long, all is drawn anew when somebody does.
        self.served.take_if(|served| served.changed(tenant) > self.lines.len() + FEW_TAGS);
    }

    fn insert(&mut self, tenant: Tenant, arrival: u64, weight: u32, entry: Entry<T>) {
        self.changed(&tenant);
        if let Some(total) = &mut self.total {
            *total = total.and(entry.sum());
        }
        let line = match self.lines.entry(tenant) {
            Occupied(line) => line.into_mut(),
            Vacant(place) => {
                let time = self.finish_tags.remove(place.key()).unwrap_or_default().max(self.time);
                self.turns.insert((time, arrival, place.key().clone()));
                let (entries, total) = (BTreeMap::new(), Charge::default());
                place.insert(Line { entries, blocks: None, total, time, began: arrival, weight })
            }
        };
        line.total = line.total.plus(&entry.charge);
        if let Some(blocks) = &mut line.blocks {
            let block = blocks.entry(arrival / BLOCK).or_default();
            *block = block.and(entry.sum());
        }
        line.entries.insert(arrival, entry);
    }

    /// The virtual time of a tenant's first request that waits again.
    fn begins(&self, tenant: &Tenant) -> u64 {
        self.finish_tags.get(tenant).copied().unwrap_or_default().max(self.time)
    }

    fn remove(&mut self, tenant: &Tenant, arrival: u64) -> Option<Entry<T>> {
        let line = self.lines.get_mut(tenant)?;
        let entry = line.entries.remove(&arrival)?;
        line.total = line.total.minus(&entry.charge);
        if let Some(blocks) = &mut line.blocks
            && let btree_map::Entry::Occupied(mut block) = blocks.entry(arrival / BLOCK)
        {
            *block.get_mut() = block.get().without(entry.sum());
            if block.get().count == 0 {
                block.remove();
            }
        }
        if let Some(total) = &mut self.total {
            *total = total.without(entry.sum());
        }
        if line.entries.is_empty() {
            self.turns.remove(&(line.time, line.began, tenant.clone()));
            self.finish_tags.insert(tenant.clone(), line.time);
            self.lines.remove(tenant);
            if self.finish_tags.len() >= self.many_tags {
                self.finish_tags.retain(|_, time| *time > self.time);
                self.many_tags = 2 * self.finish_tags.len() + FEW_TAGS;
            }
        }
        self.changed(tenant);
        Some(entry)
    }

    fn next(&self) -> Option<(&Tenant, u64, &Entry<T>)> {
        let (_, _, tenant) = self.turns.first()?;
        let (arrival, entry) = self.lines.get(tenant)?.entries.first_key_value()?;
        Some((tenant, *arrival, entry))
    }

    fn count_turn(&mut self, tenant: &Tenant, arrival: u64) {
        let Some(line) = self.lines.get_mut(tenant) else { return };
        let Some(entry) = line.entries.get(&arrival) else { return };
        self.time = self.time.max(line.time);
        // A single tenant has nobody to take turns with.
        if self.turns.len() > 1 {
            self.turns.remove(&(line.time, line.began, tenant.clone()));
            line.time = line.time.saturating_add(virtual_time(size(&entry.charge), line.weight));
            self.turns.insert((line.time, line.began, tenant.clone()));
            self.changed(tenant);
        }
    }
}

impl<T> Entry<T> {
    fn sum(&self) -> Ahead {
        Ahead { count: 1, charge: self.charge }
    }
}

impl<T> Line<T> {
    fn sum(&self) -> Ahead {
        Ahead { count: self.entries.len(), charge: self.total }
    }

    /// What stands before `arrival`. A newcomer has everything before it, the first one nothing.
    fn before(&mut self, arrival: u64) -> Ahead {
        if self.entries.last_key_value().is_none_or(|(last, _)| *last < arrival) {
            return self.sum();
        }
        if self.entries.first_key_value().is_none_or(|(first, _)| *first >= arrival) {
            return Ahead::default();
        }
        let blocks = self.blocks.get_or_insert_with(|| {
            let mut blocks = BTreeMap::<u64, Ahead>::new();
            for (arrival, entry) in &self.entries {
                let block = blocks.entry(arrival / BLOCK).or_default();
                *block = block.and(entry.sum());
            }
            blocks
        });
        let block = arrival / BLOCK;
        let whole = blocks.range(..block).fold(Ahead::default(), |sum, (_, block)| sum.and(*block));
        self.entries.range(block * BLOCK..arrival).fold(whole, |sum, (_, entry)| sum.and(entry.sum()))
    }

    /// What it will have got by when: the first request when its turn comes, and then the rest by its weight.
    fn bends(&self) -> impl Iterator<Item = Bend> + use<T> {
        let first = self.entries.first_key_value().map_or(Ahead::default(), |(_, entry)| entry.sum());
        let step = (self.time, Growth::step(&first));
        let rest = self.sum().without(first);
        let time = |what: &Ahead| virtual_time(size(&what.charge), self.weight);
        let rises =
            (rest.count > 0).then(|| Growth::rise(&rest, self.time.saturating_add(time(&first)), time(&rest).max(1)));
        let began = self.began;
        std::iter::once(step).chain(rises.into_iter().flatten()).map(move |(at, growth)| (at, began, growth))
    }
}

impl Ahead {
    fn and(self, other: Ahead) -> Ahead {
        Ahead { count: self.count + other.count, charge: self.charge.plus(&other.charge) }
    }

    fn without(self, other: Ahead) -> Ahead {
        Ahead { count: self.count.saturating_sub(other.count), charge: self.charge.minus(&other.charge) }
    }
}

/// Virtual time per token at weight 1: fine enough that weights up to a million still tell turns apart.
const TIME_PER_TOKEN: u64 = 1 << 20;

fn virtual_time(tokens: u64, weight: u32) -> u64 {
    tokens.saturating_mul(TIME_PER_TOKEN) / u64::from(weight)
}

/// What a turn costs: tokens, or one where nothing counts tokens.
fn size(charge: &Charge) -> u64 {
    charge.tokens.max(charge.input_tokens.saturating_add(charge.output_tokens)).max(charge.requests).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bench {
        queue: Queue<u64>,
        now: Moment,
        arrivals: u64,
    }

    impl Bench {
        fn new(weights: &[(&str, u32)]) -> Self {
            let weights = weights.iter().map(|(name, weight)| ((*name).into(), *weight)).collect();
            Self { queue: Queue::new(weights, Duration::from_secs(60)), now: Moment::START, arrivals: 0 }
        }

        fn add(&mut self, priority: Priority, tenant: &str, tokens: u64) -> u64 {
            self.arrivals += 1;
            let place = Place { priority, tenant: tenant.into(), arrival: self.arrivals };
            let charge = Charge::tokens(tokens, 0);
            self.queue
                .insert(place, Entry { charge, guess: None, since: self.now, deadline: None, payload: self.arrivals });
            self.arrivals
        }

        fn grant(&mut self) -> Option<(u64, Tenant)> {
            let place = self.queue.next(self.now)?.0;
            let entry = self.queue.grant(&place)?;
            Some((entry.payload, place.tenant))
        }

        fn order(&mut self) -> Vec<u64> {
            std::iter::from_fn(|| self.grant().map(|(arrival, _)| arrival)).collect()
        }
    }

    #[test]
    fn priority_goes_first_then_arrival() {
        let mut bench = Bench::new(&[]);
        let low = bench.add(Priority::Low, "", 1);
        let first = bench.add(Priority::Normal, "", 900);
        let second = bench.add(Priority::Normal, "", 1);
        let high = bench.add(Priority::High, "", 1);
        assert_eq!(bench.order(), [high, first, second, low]);
        assert_eq!(bench.queue.len(), 0);
    }

    #[test]
    fn tenants_share_tokens_by_weight_whatever_their_request_sizes() {
        let mut bench = Bench::new(&[("big", 1), ("small", 3)]);
        for _ in 0..400 {
            bench.add(Priority::Normal, "big", 1_000);
        }
        for _ in 0..12_000 {
            bench.add(Priority::Normal, "small", 100);
        }
        let mut tokens = HashMap::<Tenant, u64>::new();
        for _ in 0..3_000 {
            let (arrival, tenant) = bench.grant().unwrap();
            *tokens.entry(tenant).or_default() += if arrival <= 400 { 1_000 } else { 100 };
        }
        let ratio = tokens[&"small".into()] as f64 / tokens[&"big".into()] as f64;
        assert!((2.9..3.1).contains(&ratio), "{ratio}");
    }

    #[test]
    fn who_sends_one_large_request_after_another_gets_no_more_than_a_backlog_of_small_ones() {
        let mut bench = Bench::new(&[]);
        for _ in 0..5_000 {
            bench.add(Priority::Normal, "backlog", 100);
        }
        let mut tokens = HashMap::<Tenant, u64>::new();
        bench.add(Priority::Normal, "one by one", 10_000);
        for _ in 0..2_000 {
            let (_, tenant) = bench.grant().unwrap();
            let large = &*tenant == "one by one";
            if large {
                bench.add(Priority::Normal, "one by one", 10_000);
            }
            *tokens.entry(tenant).or_default() += if large { 10_000 } else { 100 };
        }
        let ratio = tokens[&"one by one".into()] as f64 / tokens[&"backlog".into()] as f64;
        assert!((0.9..1.1).contains(&ratio), "{ratio}");
    }

    #[test]
    fn tenants_that_come_once_are_forgotten() {
        let mut bench = Bench::new(&[]);
        for tenant in 0..10_000 {
            bench.add(Priority::Normal, "backlog", 100);
            bench.add(Priority::Normal, &tenant.to_string(), 100);
            bench.grant();
            bench.grant();
        }
        bench.add(Priority::Normal, "backlog", 100);
        assert!(bench.queue.levels[&Priority::Normal].finish_tags.len() < 3 * FEW_TAGS);
    }

    #[test]
    fn a_tenant_that_was_idle_saves_up_no_turns() {
        let mut bench = Bench::new(&[]);
        for _ in 0..100 {
            bench.add(Priority::Normal, "busy", 100);
            bench.add(Priority::Normal, "other", 100);
        }
        for _ in 0..100 {
            bench.grant();
        }
        for _ in 0..50 {
            bench.add(Priority::Normal, "late", 100);
        }
        let late = (0..30).filter(|_| &*bench.grant().unwrap().1 == "late").count();
        assert!((9..=11).contains(&late), "a third of the turns, not all: {late}");
    }

    #[test]
    fn low_priority_does_not_starve_and_does_not_take_over() {
        let mut bench = Bench::new(&[]);
        for _ in 0..100 {
            bench.add(Priority::Low, "", 1);
        }
        bench.now += Duration::from_secs(61);
        for _ in 0..200 {
            bench.add(Priority::High, "", 1);
        }
        let aged = (0..90).filter(|_| bench.grant().unwrap().0 <= 100).count();
        assert_eq!(aged, 10, "one in nine");
    }

    #[test]
    fn a_retry_takes_its_old_place() {
        let mut bench = Bench::new(&[]);
        let first = bench.add(Priority::Normal, "", 1);
        let second = bench.add(Priority::Normal, "", 1);
        let place = bench.queue.next(bench.now).unwrap().0;
        let entry = bench.queue.grant(&place).unwrap();
        bench.queue.insert(place, entry);
        assert_eq!(bench.order(), [first, second]);
    }

    #[test]
    fn what_is_ahead_is_what_will_be_granted_before() {
        let mut bench = Bench::new(&[("b", 2)]);
        for _ in 0..10 {
            bench.add(Priority::High, "x", 50);
            bench.add(Priority::Normal, "a", 100);
            bench.add(Priority::Normal, "b", 100);
        }
        bench.add(Priority::Low, "a", 1);
        let newcomer = Place { priority: Priority::Normal, tenant: "a".into(), arrival: u64::MAX };
        let ahead = bench.queue.ahead(&newcomer);
        assert_eq!((ahead.count, ahead.charge.tokens), (30, 10 * 50 + 10 * 100 + 10 * 100));
        let third = Place { priority: Priority::Normal, tenant: "a".into(), arrival: 8 };
        assert_eq!(bench.queue.ahead(&third).count, 10 + 2 + 4);
    }

    #[test]
    fn of_tenants_with_one_request_each_all_that_came_before_are_ahead() {
        let mut bench = Bench::new(&[]);
        for tenant in 0..1_000 {
            bench.add(Priority::Normal, &tenant.to_string(), 1 + tenant);
        }
        let newcomer = Place { priority: Priority::Normal, tenant: "new".into(), arrival: u64::MAX };
        let all = Ahead {
            count: 1_000,
            charge: (1..=1_000).fold(Charge::default(), |sum, tokens| sum.plus(&Charge::tokens(tokens, 0))),
        };
        assert_eq!(bench.queue.ahead(&newcomer), all);
        let middle = Place { priority: Priority::Normal, tenant: "499".into(), arrival: 500 };
        assert_eq!(bench.queue.ahead(&middle).count, 499);
    }

    #[test]
    fn no_more_is_ahead_than_is_granted_before_and_at_most_one_request_per_tenant_less() {
        for seed in 0..20 {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut bench = Bench::new(&[("1", 2), ("4", 7)]);
            let sizes: Vec<_> = (0..20).map(|_| random.u64(1..500)).collect();
            let mut places = Vec::new();
            for _ in 0..2_000 {
                let tenant = random.usize(..20).min(random.usize(..20));
                let priority = if random.u8(..) < 10 { Priority::High } else { Priority::Normal };
                let arrival = bench.add(priority, &tenant.to_string(), sizes[tenant]);
                places.push(Place { priority, tenant: (*tenant.to_string()).into(), arrival });
                // Asking in between must leave nothing behind, nor who gives up.
                bench.queue.ahead(&places[random.usize(..places.len())]);
                if random.u8(..) < 80 {
                    bench.queue.remove(&places.swap_remove(random.usize(..places.len())));
                }
                if random.u8(..) < 80 {
                    bench.grant();
                }
            }
            let foretold: Vec<_> = places.iter().map(|place| bench.queue.ahead(place).count).collect();
            let order = bench.order();
            for (place, foretold) in places.iter().zip(foretold) {
                let Some(before) = order.iter().position(|arrival| *arrival == place.arrival) else { continue };
                assert!((foretold..=foretold + 20).contains(&before), "{place:?}: {foretold}, but {before}");
            }
        }
    }

    #[test]
    fn what_is_ahead_in_a_long_line_is_what_stands_there() {
        let mut bench = Bench::new(&[]);
        let arrivals: Vec<_> = (0..5_000).map(|tokens| bench.add(Priority::Normal, "", tokens)).collect();
        let place = |arrival| Place { priority: Priority::Normal, tenant: "".into(), arrival };
        for arrival in arrivals.iter().rev().step_by(7) {
            let before = bench.queue.ahead(&place(*arrival));
            let walked = bench.queue.places(|entry| entry.payload < *arrival);
            assert_eq!(before.count, walked.len());
            let tokens = walked.iter().map(|place| place.arrival - 1).sum::<u64>();
            assert_eq!(before.charge.tokens, tokens);
            bench.queue.remove(&place(arrival / 2));
        }
    }

    #[test]
    fn removing_leaves_no_trace() {
        let mut bench = Bench::new(&[]);
        let arrival = bench.add(Priority::Normal, "a", 10);
        let place = Place { priority: Priority::Normal, tenant: "a".into(), arrival };
        assert!(bench.queue.remove(&place).is_some() && bench.queue.remove(&place).is_none());
        assert_eq!((bench.queue.len(), bench.queue.levels.len()), (0, 0));
        assert!(bench.queue.first_deadline().is_none() && bench.grant().is_none());
    }
}
