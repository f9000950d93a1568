//! What the answers of a provider have shown of its limits, to be kept for the next start.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock;
use crate::cost::{HOUR, Limit, Shape};
use crate::engine::{GateStatus, Source};
use crate::providers::Rule;
use crate::scheduler::Snapshot;

/// What was found out about limits: numbers that headers showed, shapes and charge rules that answers left over. With it a
/// scheduler does not start blind. It holds no key and no prompt.
///
/// ```
/// use tollgate::{Account, Learned, Scheduler};
///
/// let file = std::env::temp_dir().join("tollgate-learned-example.json");
/// let scheduler = Scheduler::builder().account(Account::openai().tier(1)).learned(Learned::load(&file)?).build()?;
/// // … work, and before the end:
/// scheduler.learned().save(&file)?;
/// # std::fs::remove_file(file)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// By account, then by pool. Not defaulted: that would take any JSON object for a file of this kind, and write over it.
    pub accounts: BTreeMap<String, BTreeMap<String, Vec<Fact>>>,
}

/// What was found out about one limit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Fact {
    /// The limit.
    pub limit: Limit,
    /// Whether its number came from a header; otherwise it counts only where the same number is configured.
    pub from_header: bool,
    /// The shapes that it may have.
    pub shapes: Vec<Shape>,
    /// The slices that it may be cut into, which are still to be tested.
    pub suspected: Vec<Shape>,
    /// The rules by which requests may be charged.
    pub rules: Vec<Rule>,
    /// What was used of a limit of an hour or more, and when: no header tells that of a day's tokens after a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<Spent>,
}

/// What was used of a limit at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Spent {
    /// What was used of it.
    pub used: u64,
    /// When, in seconds since 1970.
    pub at: u64,
}

impl Spent {
    /// How long ago that was.
    pub(crate) fn age(&self, wall: SystemTime) -> Duration {
        let since = wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        since.saturating_sub(Duration::from_secs(self.at))
    }
}

/// Shorter limits are full again soon after a restart, and headers tell of them.
const LONG: Duration = HOUR;

/// Why a file of learned facts cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LearnedError {
    /// It cannot be read or written.
    #[error("cannot use the learned limits in {}", file.display())]
    File {
        /// Which file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what was saved.
    #[error("{}:{}:{} holds no learned limits; name another file, or delete this one to start anew", file.display(), source.line(), source.column())]
    Content {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl Learned {
    /// Reads what [`Learned::save`] wrote; nothing is known where there is no file or an empty one.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn load(file: impl AsRef<Path>) -> Result<Self, LearnedError> {
        let file = file.as_ref();
        let text = match std::fs::read(file) {
            Ok(text) if text.is_empty() => return Ok(Self::default()),
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(LearnedError::File { file: file.to_owned(), source }),
        };
        serde_json::from_slice(&text).map_err(|source| LearnedError::Content { file: file.to_owned(), source })
    }

    /// Writes it as JSON, beside the file first, so that a crash leaves the old one. A link stays one, and what is no file,
    /// such as a pipe, is written to.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, file: impl AsRef<Path>) -> Result<(), LearnedError> {
        let file = file.as_ref();
        let failed = |source| LearnedError::File { file: file.to_owned(), source };
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        if file.metadata().is_ok_and(|there| !there.is_file()) {
            return std::fs::write(file, text).map_err(failed);
        }
        let place = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        // Of its own, since two processes may keep one file.
        let mut beside = place.clone().into_os_string();
        beside.push(format!(".{}.new", std::process::id()));
        write_through(beside.as_ref(), &text).and_then(|()| std::fs::rename(&beside, &place)).map_err(|error| {
            let _ = std::fs::remove_file(&beside);
            failed(error)
        })
    }

    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let mut learned = Self::default();
        let at = clock::wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        for lane in &snapshot.lanes {
            let facts = lane.status.gates.iter().map(|gate| Fact::of(gate, at)).collect();
            learned.accounts.entry(lane.account.clone()).or_default().insert(lane.pool.clone(), facts);
        }
        learned
    }

    /// What is known of a lane.
    pub(crate) fn lane(&self, account: &str, pool: &str) -> &[Fact] {
        self.accounts.get(account).and_then(|pools| pools.get(pool)).map_or(&[], Vec::as_slice)
    }

    /// Adds what `newer` knows; where both know a lane, that holds.
    #[must_use]
    pub fn updated_by(mut self, newer: Learned) -> Self {
        for (account, pools) in newer.accounts {
            self.accounts.entry(account).or_default().extend(pools);
        }
        self
    }
}

/// A name that is moved to a file before its content is on disk could name an empty one after a crash.
fn write_through(file: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut new = std::fs::File::create(file)?;
    new.write_all(text)?;
    new.sync_all()
}

impl Fact {
    fn of(gate: &GateStatus, at: u64) -> Self {
        let used = gate.limit.amount.saturating_sub(u64::try_from(gate.left).unwrap_or(0));
        let spent = (gate.limit.window >= LONG && used > 0).then_some(Spent { used, at });
        Self {
            spent,
            limit: gate.limit,
            from_header: gate.source == Source::Header,
            shapes: gate.shapes.clone(),
            suspected: gate.suspected.clone(),
            rules: gate.rules.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_a_damaged_file_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("learned.json");
        assert_eq!(Learned::load(&file).unwrap(), Learned::default());
        std::fs::write(&file, "").unwrap();
        assert_eq!(Learned::load(&file).unwrap(), Learned::default(), "as `mktemp` makes it");
        let fact = Fact {
            limit: Limit::tpm(30_000),
            from_header: true,
            shapes: vec![Shape::Fixed],
            suspected: vec![Shape::Slice(crate::SECOND)],
            rules: vec![Rule::CharsOrCap],
            spent: Some(Spent { used: 7, at: 1_790_251_200 }),
        };
        let pools = BTreeMap::from([("gpt-4o".to_owned(), vec![fact])]);
        let learned = Learned { accounts: BTreeMap::from([("openai".to_owned(), pools)]) };
        learned.save(&file).unwrap();
        assert_eq!(Learned::load(&file).unwrap(), learned);
        #[cfg(unix)]
        {
            let link = folder.path().join("link.json");
            std::os::unix::fs::symlink(&file, &link).unwrap();
            Learned::default().save(&link).unwrap();
            assert_eq!(Learned::load(&file).unwrap(), Learned::default(), "what the link leads to");
            assert!(link.is_symlink());
        }
        std::fs::write(&file, "{\"accounts\": [1]}").unwrap();
        assert!(Learned::load(&file).unwrap_err().to_string().contains("learned.json:1:"));
        std::fs::write(&file, "{\"model\": \"gpt-4o\"}").unwrap();
        assert!(Learned::load(&file).is_err(), "somebody else's file");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_used_of_a_day_is_used_after_a_restart_as_far_as_the_day_has_not_given_it_back() {
        use crate::{Account, Limits, Provider, Request, Scheduler, Usage};
        let left_after = |provider, hours: u64| {
            let limits = Limits { rpd: Some(240), tpm: Some(9_000), ..Limits::default() };
            let account = move || Account::new(provider).named("a").limits(limits);
            async move {
                let first = Scheduler::builder().account(account()).build().unwrap();
                first.acquire(Request::tokens("m", 1, 1)).await.unwrap().settle(Usage::new(1, 1));
                for _ in 0..119 {
                    first.acquire(Request::tokens("m", 1, 1)).await.unwrap().settle(Usage::new(1, 1));
                }
                let mut learned = first.learned();
                let facts = learned.accounts.get_mut("a").unwrap().get_mut("m").unwrap();
                assert_eq!(
                    facts.iter().filter(|fact| fact.spent.is_some()).count(),
                    1,
                    "of the minute nothing is kept"
                );
                let spent = facts.iter_mut().find_map(|fact| fact.spent.as_mut()).unwrap();
                assert_eq!(spent.used, 120);
                spent.at -= hours * 3_600;
                let next = Scheduler::builder().account(account()).learned(learned).build().unwrap();
                let gates = next.lane_of("m").status.gates;
                gates.iter().find(|gate| gate.limit == Limit::rpd(240)).unwrap().left
            }
        };
        // Ten an hour come back.
        assert_eq!(left_after(Provider::Openai, 0).await, 120);
        assert_eq!(left_after(Provider::Openai, 3).await, 150);
        assert_eq!(left_after(Provider::Openai, 30).await, 240);
        assert_eq!(left_after(Provider::Gemini, 0).await, 120);
        assert_eq!(left_after(Provider::Gemini, 25).await, 240, "of another day");
    }

    #[test]
    fn a_scheduler_starts_with_what_an_earlier_one_found_out() {
        use crate::{Account, Limits, Provider, Scheduler};
        let limits = Limits { tpm: Some(30_000), ..Limits::default() };
        let account = || Account::new(Provider::Compatible).named("gateway").limits(limits);
        let known = |limit: Limit, from_header, rule| Fact {
            limit,
            from_header,
            shapes: vec![Shape::Fixed],
            suspected: Vec::new(),
            rules: vec![rule],
            spent: None,
        };
        let tokens = known(Limit::tpm(30_000), false, Rule::CharsOrCap);
        let facts = vec![tokens, known(Limit::rpm(77), true, Rule::LargerPlusCap)];
        let pools = BTreeMap::from([("gpt-4o".to_owned(), facts)]);
        let learned = Learned { accounts: BTreeMap::from([("gateway".to_owned(), pools)]) };
        let scheduler = Scheduler::builder().account(account()).learned(learned.clone()).build().unwrap();
        let gates = scheduler.lane_of("gpt-4o").status.gates;
        assert_eq!((&gates[0].shapes[..], &gates[0].rules[..]), (&[Shape::Fixed][..], &[Rule::CharsOrCap][..]));
        assert_eq!((gates[1].limit, &gates[1].source), (Limit::rpm(77), &Source::Header));
        let fresh = Scheduler::builder().account(account()).build().unwrap().lane_of("gpt-4o").status.gates;
        assert!(fresh[0].shapes.len() > 1 && fresh[0].rules.len() > 1 && fresh.len() == 1);
        assert_eq!(scheduler.learned(), learned, "what was known is kept");
    }
}
