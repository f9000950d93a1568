//! The books of every API key and model pool.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::book::Book;
use super::config::{MockConfig, MockLimits};

/// A key and model pool in the ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page(usize);

/// All books.
pub(crate) struct Ledger {
    /// What a new key and pool start with. Nobody uses it, but limits change in it as in the others.
    blank: Book,
    /// The same for the pools with limits of their own.
    own: HashMap<Box<str>, Book>,
    index: HashMap<Box<str>, HashMap<Box<str>, usize>>,
    pages: Vec<Sheet>,
}

struct Sheet {
    book: Book,
    /// Its limits stay when the others are set.
    own: bool,
}

impl Ledger {
    pub(crate) fn new(config: &MockConfig) -> Self {
        let with = |limits| Book::new(&MockConfig { limits, models: BTreeMap::new(), ..config.clone() });
        let own = config.models.iter().map(|(model, limits)| (pool_of(model).into(), with(*limits))).collect();
        Self { blank: with(config.limits), own, index: HashMap::new(), pages: Vec::new() }
    }

    pub(crate) fn limits(&mut self, now: Duration) -> MockLimits {
        self.blank.advance(now);
        self.blank.limits()
    }

    /// New limits from now on. What was used stays used.
    pub(crate) fn set_limits(&mut self, now: Duration, limits: MockLimits) {
        self.blank.set_limits(limits, now);
        for page in self.pages.iter_mut().filter(|page| !page.own) {
            page.book.set_limits(limits, now);
        }
    }

    /// The page of `key` and the pool that `model` belongs to; looked up without allocating once it is known.
    pub(crate) fn page(&mut self, key: &str, model: &str) -> Page {
        let pool = pool_of(model);
        if let Some(page) = self.index.get(key).and_then(|pools| pools.get(pool)) {
            return Page(*page);
        }
        let page = self.pages.len();
        let own = self.own.get(pool);
        self.pages.push(Sheet { book: own.unwrap_or(&self.blank).clone(), own: own.is_some() });
        self.index.entry(key.into()).or_default().insert(pool.into(), page);
        Page(page)
    }

    pub(crate) fn book(&mut self, page: Page) -> &mut Book {
        &mut self.pages[page.0].book
    }
}

/// The pool of a model: its name without the date of a snapshot (`gpt-4o-2024-08-06` → `gpt-4o`).
fn pool_of(model: &str) -> &str {
    let Some((alias, date)) = model.len().checked_sub(11).and_then(|at| model.split_at_checked(at)) else {
        return model;
    };
    let is_date = date.bytes().enumerate().all(|(i, byte)| match i {
        0 | 5 | 8 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    if is_date && !alias.is_empty() { alias } else { model }
}

#[cfg(test)]
mod tests {
    use super::super::which::Which;
    use super::*;
    use crate::cost::Estimate;

    const START: Duration = Duration::ZERO;

    fn ledger(config: MockConfig) -> Ledger {
        Ledger::new(&config)
    }

    fn rpm(amount: u64) -> MockLimits {
        MockLimits { rpm: Some(amount), ..MockLimits::default() }
    }

    fn tpm(amount: u64) -> MockLimits {
        MockLimits { tpm: Some(amount), ..MockLimits::default() }
    }

    /// What refuses this many tokens, if anything.
    fn refused_by(ledger: &mut Ledger, page: Page, tokens: u64) -> Option<Which> {
        ledger.book(page).admit(&Estimate::tokens(tokens, 0), START).err().map(|refusal| refusal.which)
    }

    #[test]
    fn keys_and_pools_have_their_own_books_and_snapshots_share_one() {
        let mut ledger = ledger(MockConfig { limits: rpm(1), ..MockConfig::default() });
        let page = ledger.page("sk-1", "gpt-4o");
        assert_eq!(refused_by(&mut ledger, page, 0), None);
        for (key, model, free) in [
            ("sk-1", "gpt-4o-2024-08-06", false),
            ("sk-1", "gpt-4o-mini", true),
            ("sk-1", "gpt-4o-2024-08-0x", true),
            ("sk-2", "gpt-4o-2024-11-20", true),
            ("sk-2", "gpt-4o", false),
        ] {
            let page = ledger.page(key, model);
            assert_eq!(refused_by(&mut ledger, page, 0).is_none(), free, "{key} {model}");
        }
        assert_eq!(pool_of("-2024-08-06"), "-2024-08-06");
        assert_eq!(pool_of("größe-2024-08-06"), "größe");
        assert_eq!(pool_of("ééééééé"), "ééééééé");
    }

    #[test]
    fn a_model_with_limits_of_its_own_has_only_those() {
        let models = BTreeMap::from([("gpt-4o-2024-08-06".to_owned(), rpm(2))]);
        let mut ledger = ledger(MockConfig { limits: tpm(10), models, ..MockConfig::default() });
        let (alias, other) = (ledger.page("sk-1", "gpt-4o"), ledger.page("sk-1", "gpt-4o-mini"));
        assert_eq!(refused_by(&mut ledger, other, 11), Some(Which::Tpm));
        assert_eq!(refused_by(&mut ledger, alias, 11), None);
        ledger.set_limits(START, MockLimits::default());
        assert_eq!(refused_by(&mut ledger, other, 11), None);
        assert_eq!(refused_by(&mut ledger, alias, 11), None);
        assert_eq!(refused_by(&mut ledger, alias, 11), Some(Which::Rpm));
    }

    #[test]
    fn a_key_that_comes_late_finds_the_limits_of_that_time() {
        let mut ledger = ledger(MockConfig { limits: tpm(10), ..MockConfig::default() });
        ledger.set_limits(START, tpm(20));
        let page = ledger.page("sk-1", "gpt-4o");
        assert_eq!(refused_by(&mut ledger, page, 20), None);
        assert_eq!(ledger.limits(START), tpm(20));
    }
}
