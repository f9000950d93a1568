//! The enforcement: per API key and model pool, a level per limit that leaks continuously.
//!
//! Written on its own, in the plainest way there is, so that it can judge the scheduler. It is told the time as a
//! `Duration` since the start. A level counts in tokens × nanoseconds of window, so that a leak of `limit` per `window`
//! is the product of two integers and nothing is ever rounded; only what is *shown* is whole.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::config::MockLimits;

/// One of the four limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    Rpm,
    Rpd,
    Tpm,
    Tpd,
}

impl Which {
    pub(crate) const ALL: [Which; 4] = [Which::Rpm, Which::Rpd, Which::Tpm, Which::Tpd];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Which::Rpm => "RPM",
            Which::Rpd => "RPD",
            Which::Tpm => "TPM",
            Which::Tpd => "TPD",
        }
    }

    /// What is counted, as in the error's `type`.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Which::Rpm | Which::Rpd => "requests",
            Which::Tpm | Which::Tpd => "tokens",
        }
    }

    pub(crate) fn period(self) -> &'static str {
        match self {
            Which::Rpm | Which::Tpm => "min",
            Which::Rpd | Which::Tpd => "day",
        }
    }

    fn window_ns(self) -> i128 {
        match self {
            Which::Rpm | Which::Tpm => 60_000_000_000,
            Which::Rpd | Which::Tpd => 86_400_000_000_000,
        }
    }

    fn amount(self, limits: &MockLimits) -> Option<u64> {
        match self {
            Which::Rpm => limits.rpm,
            Which::Rpd => limits.rpd,
            Which::Tpm => limits.tpm,
            Which::Tpd => limits.tpd,
        }
    }
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) which: Which,
    pub(crate) limit: u64,
    /// Whole, rounded up: the request fits as soon as this much and no more is left in the level.
    pub(crate) used: u64,
    pub(crate) requested: u64,
    /// Until the request fits if nobody else comes; `None` when it is larger than the limit and never will.
    pub(crate) wait: Option<Duration>,
}

/// What the headers show of one limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gauge {
    pub(crate) limit: u64,
    pub(crate) remaining: u64,
    /// Until the level is empty again.
    pub(crate) reset: Duration,
}

/// What the headers show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) requests: Option<Gauge>,
    pub(crate) tokens: Option<Gauge>,
}

/// A key and model pool in the ledger.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Page(usize);

/// What has been used of one limit and has not leaked away yet.
#[derive(Clone, Copy, Debug, Default)]
struct Level {
    at: Duration,
    /// In units × window nanoseconds; never below zero, since an empty level has nothing left to leak.
    load: i128,
}

impl Level {
    fn leak(&mut self, limit: u64, now: Duration) {
        let elapsed = now.saturating_sub(self.at).as_nanos();
        self.at = self.at.max(now);
        let leaked = i128::try_from(elapsed).unwrap_or(i128::MAX).saturating_mul(i128::from(limit));
        self.load = self.load.saturating_sub(leaked).max(0);
    }

    fn add(&mut self, which: Which, amount: i128) {
        self.load = self.load.saturating_add(amount.saturating_mul(which.window_ns())).max(0);
    }

    fn used(&self, which: Which) -> u64 {
        let window = which.window_ns();
        u64::try_from(self.load / window + i128::from(self.load % window > 0)).unwrap_or(u64::MAX)
    }
}

/// How long `amount` takes to leak away, rounded up to the nanosecond.
fn time_to_leak(which: Which, limit: u64, amount: i128) -> Duration {
    if limit == 0 || amount <= 0 {
        return Duration::ZERO;
    }
    let (limit, product) = (i128::from(limit), amount.saturating_mul(which.window_ns()));
    let nanos = product / limit + i128::from(product % limit > 0);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// All levels of all keys and pools.
pub(crate) struct Ledger {
    limits: MockLimits,
    /// By pool.
    own: HashMap<Box<str>, MockLimits>,
    refusals_count: bool,
    index: HashMap<Box<str>, HashMap<Box<str>, usize>>,
    pages: Vec<Sheet>,
}

/// The levels of one page. `own` limits stay when the others are changed.
struct Sheet {
    levels: [Level; 4],
    own: Option<MockLimits>,
}

impl Ledger {
    pub(crate) fn new(limits: MockLimits, models: &BTreeMap<String, MockLimits>, refusals_count: bool) -> Self {
        let own = models.iter().map(|(model, limits)| (pool_of(model).into(), *limits)).collect();
        Self { limits, own, refusals_count, index: HashMap::new(), pages: Vec::new() }
    }

    pub(crate) fn limits(&self) -> MockLimits {
        self.limits
    }

    /// New limits from now on. What was used stays used.
    pub(crate) fn set_limits(&mut self, now: Duration, limits: MockLimits) {
        for page in 0..self.pages.len() {
            self.leak(Page(page), now); // by the old limits, up to now
        }
        self.limits = limits;
    }

    /// The page of `key` and the pool that `model` belongs to; looked up without allocating once it is known.
    pub(crate) fn page(&mut self, key: &str, model: &str) -> Page {
        let pool = pool_of(model);
        if let Some(page) = self.index.get(key).and_then(|pools| pools.get(pool)) {
            return Page(*page);
        }
        let page = self.pages.len();
        self.pages.push(Sheet { levels: Default::default(), own: self.own.get(pool).copied() });
        self.index.entry(key.into()).or_default().insert(pool.into(), page);
        Page(page)
    }

    /// Takes one request and `tokens` from every limit, or nothing from any. A request that several limits refuse hears
    /// of the one that it has to wait for longest, so that the wait is true.
    pub(crate) fn admit(&mut self, page: Page, now: Duration, tokens: u64) -> Result<(), Refusal> {
        self.leak(page, now);
        let refusals = Which::ALL.into_iter().filter_map(|which| self.refusal(page, which, tokens));
        let longest = refusals.max_by_key(|refusal| refusal.wait.unwrap_or(Duration::MAX));
        if let Some(refusal) = longest {
            self.note_refusal(page, now);
            return Err(refusal);
        }
        for which in Which::ALL {
            self.add(page, which, requested(which, tokens).into());
        }
        Ok(())
    }

    /// A refusal takes one request from RPM where refusals count.
    pub(crate) fn note_refusal(&mut self, page: Page, now: Duration) {
        if self.refusals_count {
            self.leak(page, now);
            self.add(page, Which::Rpm, 1);
        }
    }

    /// Corrects the tokens of an admitted request from what it was charged to what it used. The level may rise above the
    /// limit; it never sinks below empty.
    pub(crate) fn settle(&mut self, page: Page, now: Duration, charged: u64, used: u64) {
        self.leak(page, now);
        for which in [Which::Tpm, Which::Tpd] {
            self.add(page, which, i128::from(used) - i128::from(charged));
        }
    }

    /// What the headers show. Where a minute and a day limit exist, they show the one that allows less in the long run:
    /// an account with 500 RPM and 10,000 RPD was seen to show 10,000 and `8.64s`.
    pub(crate) fn standing(&mut self, page: Page, now: Duration) -> Standing {
        self.leak(page, now);
        Standing {
            requests: self.stricter(page, Which::Rpm, Which::Rpd),
            tokens: self.stricter(page, Which::Tpm, Which::Tpd),
        }
    }

    fn limits_of(&self, page: Page) -> MockLimits {
        self.pages[page.0].own.unwrap_or(self.limits)
    }

    fn stricter(&self, page: Page, minute: Which, day: Which) -> Option<Gauge> {
        let limits = self.limits_of(page);
        let which = match (minute.amount(&limits), day.amount(&limits)) {
            (Some(per_minute), Some(per_day)) if u128::from(per_minute) * 24 * 60 <= u128::from(per_day) => minute,
            (_, Some(_)) => day,
            (_, None) => minute,
        };
        let limit = which.amount(&limits)?;
        let used = self.pages[page.0].levels[which as usize].used(which);
        let reset = time_to_leak(which, limit, used.into());
        Some(Gauge { limit, remaining: limit.saturating_sub(used), reset })
    }

    fn refusal(&self, page: Page, which: Which, tokens: u64) -> Option<Refusal> {
        let limit = which.amount(&self.limits_of(page))?;
        let used = self.pages[page.0].levels[which as usize].used(which);
        let requested = requested(which, tokens);
        let over = i128::from(used) + i128::from(requested) - i128::from(limit);
        let wait = (requested <= limit).then(|| time_to_leak(which, limit, over));
        (over > 0).then_some(Refusal { which, limit, used, requested, wait })
    }

    fn leak(&mut self, page: Page, now: Duration) {
        let limits = self.limits_of(page);
        for which in Which::ALL {
            let level = &mut self.pages[page.0].levels[which as usize];
            match which.amount(&limits) {
                Some(limit) => level.leak(limit, now),
                None => *level = Level { at: now, load: 0 }, // a limit set later starts empty
            }
        }
    }

    fn add(&mut self, page: Page, which: Which, amount: i128) {
        if which.amount(&self.limits_of(page)).is_some() {
            self.pages[page.0].levels[which as usize].add(which, amount);
        }
    }
}

fn requested(which: Which, tokens: u64) -> u64 {
    match which {
        Which::Rpm | Which::Rpd => 1,
        Which::Tpm | Which::Tpd => tokens,
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
    use super::super::headers::go_duration;
    use super::*;

    const START: Duration = Duration::ZERO;

    fn limits(which: Which, amount: u64) -> MockLimits {
        let mut limits = MockLimits::default();
        match which {
            Which::Rpm => limits.rpm = Some(amount),
            Which::Rpd => limits.rpd = Some(amount),
            Which::Tpm => limits.tpm = Some(amount),
            Which::Tpd => limits.tpd = Some(amount),
        }
        limits
    }

    fn ledger(limits: MockLimits) -> (Ledger, Page) {
        let mut ledger = Ledger::new(limits, &BTreeMap::new(), false);
        let page = ledger.page("sk-1", "gpt-4o");
        (ledger, page)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn waits_are_those_that_providers_printed() {
        // (limit, used, requested, printed): OpenAI's 429 texts, then two of Groq's, which refill the same way.
        let printed = [
            (Which::Tpm, 30_000, 22_999, 12_528, "11.054s"),
            (Which::Tpm, 30_000, 26_713, 7_669, "8.764s"),
            (Which::Tpm, 30_000, 24_102, 7_758, "3.72s"),
            (Which::Rpm, 3, 3, 1, "20s"),
            (Which::Rpd, 200, 200, 1, "7m12s"),
            (Which::Rpd, 50, 50, 1, "28m48s"),
            (Which::Rpd, 2_000, 2_000, 1, "43.2s"),
            (Which::Tpm, 8_000, 5_536, 5_599, "23.5125s"),
            (Which::Tpm, 100_000, 99_348, 1_968, "789.6ms"),
        ];
        for (which, limit, used, requested, text) in printed {
            let (mut ledger, page) = ledger(limits(which, limit));
            let (requests, tokens) = if which.kind() == "requests" { (used, 1) } else { (1, used) };
            for _ in 0..requests {
                ledger.admit(page, START, tokens).unwrap();
            }
            let refusal = ledger.admit(page, START, requested).unwrap_err();
            let wait = refusal.wait.unwrap();
            assert_eq!(refusal, Refusal { which, limit, used, requested, wait: Some(wait) });
            assert_eq!(go_duration(wait), text, "{which:?} {limit} {used} {requested}");

            // The promise holds to the nanosecond.
            assert!(ledger.admit(page, wait - Duration::from_nanos(1), requested).is_err());
            assert_eq!(ledger.admit(page, wait, requested), Ok(()));
        }
    }

    #[test]
    fn the_reset_of_a_day_limit_is_the_one_that_was_recorded() {
        // Recorded: limit 1,500,000, remaining 1,495,621, reset 4m12.172s. Its reset was computed a moment after its
        // remaining, when a little more than one token had leaked; so ours is later by less than two tokens' time.
        let (mut ledger, page) = ledger(limits(Which::Tpd, 1_500_000));
        ledger.admit(page, START, 4_379).unwrap();
        let gauge = ledger.standing(page, START).tokens.unwrap();
        assert_eq!((gauge.limit, gauge.remaining), (1_500_000, 1_495_621));
        let later = gauge.reset - Duration::from_millis(252_172);
        assert!(later < ms(2 * 58), "{later:?}");
    }

    #[test]
    fn resets_are_those_of_recorded_headers() {
        // (limit, used, reset): OpenAI's headers, truncated to milliseconds.
        let recorded = [
            (Which::Rpm, 5_000, 1, 12),
            (Which::Rpm, 500, 1, 120),
            (Which::Rpm, 400, 1, 150),
            (Which::Rpd, 10_000, 1, 8_640),
            (Which::Tpm, 2_000_000, 765, 22),
            (Which::Tpm, 2_000_000, 1_238, 37),
            (Which::Tpm, 1_000_000, 3, 0),
            (Which::Tpm, 10_000, 519, 3_114),
        ];
        for (which, limit, used, reset) in recorded {
            let (mut ledger, page) = ledger(limits(which, limit));
            ledger.admit(page, START, used).unwrap();
            let standing = ledger.standing(page, START);
            let gauge = standing.requests.or(standing.tokens).unwrap();
            assert_eq!((gauge.remaining, gauge.reset.as_millis()), (limit - used, reset), "{which:?} {limit} {used}");
        }
    }

    #[test]
    fn a_request_refused_by_one_limit_debits_none() {
        let all = MockLimits { rpm: Some(10), rpd: Some(100), tpm: Some(1_000), tpd: Some(10_000) };
        let (mut ledger, page) = ledger(all);
        ledger.admit(page, START, 900).unwrap();
        let before = ledger.standing(page, START);
        for _ in 0..50 {
            assert_eq!(ledger.admit(page, START, 101).unwrap_err().which, Which::Tpm);
        }
        assert_eq!(ledger.standing(page, START), before);
        // 9 more requests fit, so no refusal took one; and 100 more tokens.
        ledger.admit(page, START, 100).unwrap();
        for _ in 0..8 {
            ledger.admit(page, START, 0).unwrap();
        }
        assert_eq!(ledger.admit(page, START, 0).unwrap_err().which, Which::Rpm);
    }

    #[test]
    fn a_refused_request_takes_one_where_refusals_count() {
        let mut ledger = Ledger::new(limits(Which::Rpm, 3), &BTreeMap::new(), true);
        let page = ledger.page("sk-1", "gpt-4o");
        for _ in 0..3 {
            ledger.admit(page, START, 0).unwrap();
        }
        assert_eq!(ledger.admit(page, START, 0).unwrap_err().wait, Some(ms(20_000)));
        assert_eq!(ledger.admit(page, START, 0).unwrap_err().wait, Some(ms(40_000)));
    }

    #[test]
    fn a_limit_refills_continuously_and_no_further_than_full() {
        let (mut ledger, page) = ledger(limits(Which::Tpm, 60_000));
        ledger.admit(page, START, 60_000).unwrap();
        assert!(ledger.admit(page, ms(999), 1_000).is_err());
        ledger.admit(page, ms(1_000), 1_000).unwrap();
        assert_eq!(ledger.standing(page, ms(31_000)).tokens.unwrap().remaining, 30_000);
        let day = ms(86_400_000);
        assert_eq!(ledger.admit(page, day, 60_001).unwrap_err().wait, None);
        ledger.admit(page, day, 60_000).unwrap();
        assert!(ledger.admit(page, day, 1).is_err());
    }

    #[test]
    fn settling_refunds_what_was_not_used_and_debits_what_was_used_more() {
        let (mut ledger, page) = ledger(limits(Which::Tpm, 1_000));
        ledger.admit(page, START, 1_000).unwrap();
        ledger.settle(page, START, 1_000, 400);
        assert_eq!(ledger.standing(page, START).tokens.unwrap().remaining, 600);

        ledger.admit(page, START, 600).unwrap();
        ledger.settle(page, START, 600, 1_600);
        // 2,000 of 1,000: a debt that is waited for.
        assert_eq!(ledger.standing(page, START).tokens.unwrap().remaining, 0);
        let refusal = ledger.admit(page, START, 10).unwrap_err();
        assert_eq!((refusal.used, refusal.wait), (2_000, Some(ms(60_600))));
    }

    #[test]
    fn a_refund_after_the_charge_has_leaked_away_gives_nothing() {
        let (mut ledger, page) = ledger(limits(Which::Tpm, 1_000));
        ledger.admit(page, START, 1_000).unwrap();
        ledger.settle(page, ms(60_000), 1_000, 0);
        ledger.admit(page, ms(60_000), 1_000).unwrap();
        assert!(ledger.admit(page, ms(60_000), 1).is_err());
    }

    #[test]
    fn the_longest_wait_is_told_and_too_large_before_any_wait() {
        let both = MockLimits { rpm: Some(1), tpm: Some(100), ..MockLimits::default() };
        let (mut ledger, page) = ledger(both);
        ledger.admit(page, START, 50).unwrap();
        assert_eq!(ledger.admit(page, START, 60).unwrap_err().which, Which::Rpm); // 60 s against 6 s
        assert_eq!(ledger.admit(page, ms(59_000), 100).unwrap_err().which, Which::Rpm); // 1 s against nothing
        let never = ledger.admit(page, START, 101).unwrap_err();
        assert_eq!((never.which, never.wait), (Which::Tpm, None));
    }

    #[test]
    fn headers_show_the_limit_that_allows_less_in_the_long_run() {
        let tier_1 = MockLimits { rpm: Some(500), rpd: Some(10_000), tpm: Some(200_000), tpd: Some(2_000_000_000) };
        let (mut ledger, page) = ledger(tier_1);
        ledger.admit(page, START, 20).unwrap();
        let standing = ledger.standing(page, START);
        assert_eq!(standing.requests, Some(Gauge { limit: 10_000, remaining: 9_999, reset: ms(8_640) }));
        assert_eq!(standing.tokens, Some(Gauge { limit: 200_000, remaining: 199_980, reset: ms(6) }));
    }

    #[test]
    fn keys_and_pools_have_their_own_levels_and_snapshots_share_one() {
        let (mut ledger, page) = ledger(limits(Which::Rpm, 1));
        ledger.admit(page, START, 0).unwrap();
        for (key, model, free) in [
            ("sk-1", "gpt-4o-2024-08-06", false),
            ("sk-1", "gpt-4o-mini", true),
            ("sk-1", "gpt-4o-2024-08-0x", true),
            ("sk-2", "gpt-4o-2024-11-20", true),
            ("sk-2", "gpt-4o", false),
        ] {
            let page = ledger.page(key, model);
            assert_eq!(ledger.admit(page, START, 0).is_ok(), free, "{key} {model}");
        }
        assert_eq!(pool_of("-2024-08-06"), "-2024-08-06");
        assert_eq!(pool_of("größe-2024-08-06"), "größe");
        assert_eq!(pool_of("ééééééé"), "ééééééé");
    }

    #[test]
    fn changed_limits_apply_at_once_and_keep_what_was_used() {
        let (mut ledger, page) = ledger(limits(Which::Tpm, 1_000));
        ledger.admit(page, START, 1_000).unwrap();
        ledger.set_limits(ms(30_000), limits(Which::Tpm, 2_000));
        assert_eq!(ledger.standing(page, ms(30_000)).tokens.unwrap().remaining, 1_500);
        ledger.set_limits(ms(30_000), MockLimits::default());
        ledger.admit(page, ms(30_000), u64::MAX).unwrap();
        assert_eq!(ledger.standing(page, ms(30_000)), Standing::default());
    }

    #[test]
    fn a_model_with_limits_of_its_own_has_only_those() {
        let own = BTreeMap::from([("gpt-4o-2024-08-06".to_owned(), limits(Which::Rpm, 2))]);
        let mut ledger = Ledger::new(limits(Which::Tpm, 10), &own, false);
        let (alias, other) = (ledger.page("sk-1", "gpt-4o"), ledger.page("sk-1", "gpt-4o-mini"));
        assert_eq!(ledger.admit(other, START, 11).unwrap_err().which, Which::Tpm);
        ledger.admit(alias, START, 11).unwrap();
        ledger.set_limits(START, MockLimits::default());
        ledger.admit(other, START, 11).unwrap();
        ledger.admit(alias, START, 11).unwrap();
        assert_eq!(ledger.admit(alias, START, 11).unwrap_err().which, Which::Rpm);
    }

    #[test]
    fn extremes_neither_overflow_nor_divide_by_zero() {
        let (mut ledger, page) = ledger(limits(Which::Tpd, u64::MAX));
        ledger.admit(page, START, u64::MAX).unwrap();
        ledger.settle(page, START, 0, u64::MAX);
        assert!(ledger.admit(page, Duration::MAX, 1).is_ok());
        assert!(ledger.admit(page, START, 1).is_ok(), "time going backwards is time standing still");

        ledger.set_limits(START, limits(Which::Rpm, 0));
        assert_eq!(ledger.admit(page, Duration::MAX, 1).unwrap_err().wait, None);
        assert_eq!(ledger.standing(page, START).requests.unwrap().reset, Duration::ZERO);
    }
}
