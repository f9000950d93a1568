//! Which keys of an account may be used, and whose turn it is.

use super::moment::Moment;
use super::route::weight;
use crate::providers::Failure;

/// An account and its keys: who is in the rotation, and who left it until when.
///
/// ```
/// use tollgate::engine::{Member, Moment, Out, Rotation};
/// use tollgate::providers::{Observation, Provider, classify};
///
/// let now = Moment::START;
/// let why = classify(Provider::Openai, 401, &Observation::default(), b"{}");
/// let mut rotation = Rotation::new(2);
/// assert!(rotation.take_out(Member::Key(0), Out { why, until: None }));
/// assert_eq!([rotation.key(None), rotation.key(None)], [Some(1), Some(1)]);
/// assert!(rotation.is_in() && rotation.returned(now).is_empty());
/// ```
#[derive(Clone, Debug)]
pub struct Rotation {
    account: Option<Out>,
    keys: Vec<Option<Out>>,
    turn: usize,
}

/// Who leaves a rotation or returns to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// The account with all its keys.
    Account,
    /// The key at this position, from 0.
    Key(usize),
}

/// Why somebody is out, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Out {
    /// The provider's answer.
    pub why: Failure,
    /// When it returns by itself; `None`: not before [`Rotation::restore`].
    pub until: Option<Moment>,
}

impl Rotation {
    /// An account with so many keys. One without keys is used without.
    pub fn new(keys: usize) -> Self {
        Self { account: None, keys: vec![None; keys], turn: 0 }
    }

    /// Whether the account may be used.
    pub fn is_in(&self) -> bool {
        self.why_out().is_none()
    }

    /// Whether nobody left.
    pub fn is_whole(&self) -> bool {
        self.account.is_none() && self.keys.iter().all(Option::is_none)
    }

    /// Why the account may not be used: its own reason, or that of the first of its keys if none is left.
    pub fn why_out(&self) -> Option<&Out> {
        let all_keys_out = self.keys.iter().all(Option::is_some);
        self.account.as_ref().or_else(|| self.keys.first().filter(|_| all_keys_out)?.as_ref())
    }

    /// Keys that may be used.
    pub fn keys_in(&self) -> usize {
        self.keys.iter().filter(|key| key.is_none()).count()
    }

    /// The key to use: the one whose turn it is, or always the same for the same `affinity`. `None` if there is none.
    pub fn key(&mut self, affinity: Option<&str>) -> Option<usize> {
        let keys = self.keys.len();
        let mut free = (0..keys).map(|step| (self.turn + step) % keys).filter(|key| self.keys[*key].is_none());
        let key = match affinity {
            Some(affinity) => free.max_by_key(|key| weight(affinity, &key.to_string()))?,
            None => free.next()?,
        };
        self.turn = (key + 1) % keys;
        Some(key)
    }

    /// Takes a member out; `false` if it was out already.
    pub fn take_out(&mut self, member: Member, out: Out) -> bool {
        let place = match member {
            Member::Account => &mut self.account,
            Member::Key(key) => match self.keys.get_mut(key) {
                Some(place) => place,
                None => return false,
            },
        };
        place.is_none() && place.replace(out).is_none()
    }

    /// Lets those return whose time has come, and names them.
    pub fn returned(&mut self, now: Moment) -> Vec<Member> {
        self.let_in(|out| out.until.is_some_and(|until| until <= now))
    }

    /// Lets everybody return, and names them.
    pub fn restore(&mut self) -> Vec<Member> {
        self.let_in(|_| true)
    }

    fn let_in(&mut self, who: impl Fn(&Out) -> bool) -> Vec<Member> {
        let keys = self.keys.iter_mut().enumerate().map(|(index, key)| (Member::Key(index), key));
        let mut members = Vec::new();
        for (member, place) in [(Member::Account, &mut self.account)].into_iter().chain(keys) {
            if place.take_if(|out| who(out)).is_some() {
                members.push(member);
            }
        }
        members
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::providers::{Observation, Provider, classify};

    fn out(until: Option<Moment>) -> Out {
        Out { why: classify(Provider::Openai, 401, &Observation::default(), b"{}"), until }
    }

    #[test]
    fn keys_take_turns_and_those_that_left_get_none() {
        let mut rotation = Rotation::new(3);
        let turns = |rotation: &mut Rotation| [(); 4].map(|()| rotation.key(None).unwrap());
        assert_eq!(turns(&mut rotation), [0, 1, 2, 0]);
        assert!(rotation.take_out(Member::Key(1), out(None)));
        assert!(!rotation.take_out(Member::Key(1), out(None)), "it can leave only once");
        assert_eq!(turns(&mut rotation), [2, 0, 2, 0]);
        assert_eq!((rotation.keys_in(), rotation.is_in(), rotation.is_whole()), (2, true, false));
        assert!(!rotation.take_out(Member::Key(7), out(None)));
    }

    #[test]
    fn an_account_is_out_by_itself_or_when_its_last_key_left() {
        let mut rotation = Rotation::new(1);
        rotation.take_out(Member::Key(0), out(None));
        assert_eq!((rotation.is_in(), rotation.key(None)), (false, None));
        let mut rotation = Rotation::new(0);
        assert!(rotation.is_in(), "an account without keys is used without");
        rotation.take_out(Member::Account, out(None));
        assert!(!rotation.is_in());
    }

    #[test]
    fn whoever_left_returns_at_its_time_or_when_restored_and_not_before() {
        let now = Moment::START;
        let hour = Duration::from_secs(3_600);
        let mut rotation = Rotation::new(2);
        rotation.take_out(Member::Account, out(Some(now + hour)));
        rotation.take_out(Member::Key(1), out(None));
        assert_eq!(rotation.returned(now), []);
        assert_eq!(rotation.returned(now + hour), [Member::Account]);
        assert_eq!(rotation.returned(now + 1_000 * hour), [], "a revoked key never returns by itself");
        assert_eq!(rotation.restore(), [Member::Key(1)]);
        assert!(rotation.is_whole());
    }

    #[test]
    fn a_request_with_affinity_keeps_its_key_when_another_one_leaves() {
        let mut rotation = Rotation::new(4);
        let before: Vec<_> = (0..40).map(|n| rotation.key(Some(&n.to_string())).unwrap()).collect();
        assert!((0..4).all(|key| before.contains(&key)), "all keys are used: {before:?}");
        rotation.take_out(Member::Key(2), out(None));
        for (n, before) in before.into_iter().enumerate() {
            let after = rotation.key(Some(&n.to_string())).unwrap();
            assert!(after == before || before == 2);
        }
    }
}
