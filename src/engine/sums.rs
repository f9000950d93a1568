//! Sums of values in the order of their keys, in logarithmic time: a treap whose nodes know the sums below them.

use std::ops::Add;

/// Where a value stands: its place, who goes first of equal ones, and what tells it from all others.
pub(super) type Key = (u64, u64, u32);

/// Values in order.
#[derive(Debug)]
pub(super) struct Sums<V> {
    nodes: Vec<Node<V>>,
    free: Vec<u32>,
    root: u32,
    /// Seeded: the same questions get the same answers, to the last bit.
    ranks: fastrand::Rng,
}

#[derive(Debug)]
struct Node<V> {
    key: Key,
    rank: u64,
    value: V,
    sum: V,
    left: u32,
    right: u32,
}

/// No node. It is larger than all others, which `merge` makes use of.
const NONE: u32 = u32::MAX;

impl<V: Copy + Default + Add<Output = V>> Sums<V> {
    pub(super) fn new() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), root: NONE, ranks: fastrand::Rng::with_seed(0) }
    }

    /// The key is for [`Sums::remove`].
    pub(super) fn insert(&mut self, at: u64, tie: u64, value: V) -> Key {
        let index = self.free.pop().unwrap_or(self.nodes.len() as u32);
        let key = (at, tie, index);
        let node = Node { key, rank: self.ranks.u64(..), value, sum: value, left: NONE, right: NONE };
        match self.nodes.get_mut(index as usize) {
            Some(free) => *free = node,
            None => self.nodes.push(node),
        }
        let (before, after) = self.split(self.root, key);
        let before = self.merge(before, index);
        self.root = self.merge(before, after);
        key
    }

    /// Takes out what [`Sums::insert`] put there.
    pub(super) fn remove(&mut self, key: Key) {
        let (before, rest) = self.split(self.root, key);
        let (own, after) = self.split(rest, (key.0, key.1, key.2 + 1));
        self.root = self.merge(before, after);
        self.free.push(own);
    }

    /// The sum of all values that stand before this.
    pub(super) fn before(&self, at: u64, tie: u64) -> V {
        let (mut sum, mut link) = (V::default(), self.root);
        while let Some(node) = self.nodes.get(link as usize) {
            link = if node.key < (at, tie, 0) {
                sum = sum + self.sum(node.left) + node.value;
                node.right
            } else {
                node.left
            };
        }
        sum
    }

    /// Those before `key`, and the rest.
    fn split(&mut self, link: u32, key: Key) -> (u32, u32) {
        let Some(node) = self.nodes.get(link as usize) else { return (NONE, NONE) };
        if node.key < key {
            let (before, after) = self.split(node.right, key);
            self.nodes[link as usize].right = before;
            (self.summed(link), after)
        } else {
            let (before, after) = self.split(node.left, key);
            self.nodes[link as usize].left = after;
            (before, self.summed(link))
        }
    }

    /// Both together; all of `before` stand before all of `after`.
    fn merge(&mut self, before: u32, after: u32) -> u32 {
        let (Some(first), Some(second)) = (self.nodes.get(before as usize), self.nodes.get(after as usize)) else {
            return before.min(after);
        };
        if first.rank > second.rank {
            self.nodes[before as usize].right = self.merge(first.right, after);
            self.summed(before)
        } else {
            self.nodes[after as usize].left = self.merge(before, second.left);
            self.summed(after)
        }
    }

    fn summed(&mut self, link: u32) -> u32 {
        let node = &self.nodes[link as usize];
        self.nodes[link as usize].sum = self.sum(node.left) + node.value + self.sum(node.right);
        link
    }

    fn sum(&self, link: u32) -> V {
        self.nodes.get(link as usize).map_or(V::default(), |node| node.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_a_walk() {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut sums, mut plain) = (Sums::new(), Vec::new());
        for _ in 0..3_000 {
            if random.u8(..) < 100 && !plain.is_empty() {
                let (key, _) = plain.swap_remove(random.usize(..plain.len()));
                sums.remove(key);
            } else {
                let (at, tie, value) = (random.u64(..20), random.u64(..3), random.u64(..1_000));
                plain.push((sums.insert(at, tie, value), value));
            }
            let (at, tie) = (random.u64(..21), random.u64(..3));
            let walked =
                plain.iter().filter(|((a, t, _), _)| (*a, *t) < (at, tie)).map(|(_, value)| value).sum::<u64>();
            assert_eq!(sums.before(at, tie), walked);
        }
    }

    #[test]
    fn keys_that_come_in_order_make_no_long_paths() {
        fn depth(sums: &Sums<u64>, link: u32) -> usize {
            let node = sums.nodes.get(link as usize);
            node.map_or(0, |node| 1 + depth(sums, node.left).max(depth(sums, node.right)))
        }
        let mut sums = Sums::new();
        for at in 0..100_000 {
            sums.insert(at, 0, at);
        }
        assert!(depth(&sums, sums.root) < 60, "{}", depth(&sums, sums.root));
    }
}
