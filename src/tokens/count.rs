//! From text to a number of tokens, by OpenAI's own vocabularies.
//!
//! tiktoken splits a text with a backtracking regular expression and panics when that gives up: a million spaces are
//! enough. So a long text is handed over in pieces of a few kilobytes, cut where tiktoken would split anyway
//! ([`always_splits`]); then the sum is exactly the count of the whole. Only where no such place is found within half
//! a piece (one word of thousands of letters, nothing but spaces) is the cut made blindly, with [`BLIND`] tokens added.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use quick_cache::sync::Cache;
use tiktoken_rs::CoreBPE;

use super::encoding::Encoding;
use super::texts::Group;

/// Texts up to this size are given to tiktoken whole. Small enough that no text of this size can exhaust the regular
/// expression's million steps, large enough that cutting costs nothing measurable.
const PIECE: usize = 4096;

/// Added for each blind cut. Merging is greedy, so a cut can also save tokens: two were found in random letters, never
/// more. A piece is some thousand tokens; erring by four to the safe side is lost in it.
const BLIND: u64 = 4;

/// Shorter texts are counted again each time: about as fast as looking them up, and they would crowd out long ones.
const REMEMBER_FROM: usize = 256;

/// How many counts are remembered; about 50 bytes each.
const REMEMBERED: usize = 8192;

/// A text's fingerprint. With a random key per process nobody can prepare two texts that collide; by chance, 8192
/// entries of 64 bits collide less than once in 10^11 processes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    encoding: Encoding,
    bytes: usize,
    hash: u64,
}

static COUNTS: LazyLock<Cache<Key, u64>> = LazyLock::new(|| Cache::new(REMEMBERED));
/// By encoding; tiktoken-rs does not tell.
static LOADED: [AtomicBool; 5] = [const { AtomicBool::new(false) }; 5];
static SECRET: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// How many tokens `text` is, as ordinary text: `<|endoftext|>` in it has no special meaning, as in the API.
///
/// The count of a text of 256 bytes and more is remembered (the count and a keyed hash, not the text), so that a
/// system prompt that comes with every request is counted once. At least 1 unless `text` is empty. Exact, except for
/// texts over 4 KiB with thousands of bytes in which nothing separates words; those may count a few too many.
///
/// ```
/// # use tollgate::tokens::{Encoding, count_text};
/// assert_eq!(count_text(Encoding::O200kBase, "Hello world"), 2);
/// ```
pub fn count_text(encoding: Encoding, text: &str) -> u64 {
    remembered(encoding, text, &[text.len()], || count_text_uncached(encoding, text))
}

/// [`count_text`] for a text that will not come again: nothing is looked up or remembered.
pub fn count_text_uncached(encoding: Encoding, text: &str) -> u64 {
    let vocabulary = vocabulary(encoding);
    let mut rest = text;
    let mut tokens = 0;
    while rest.len() > PIECE {
        let (at, clean) = cut(rest);
        let (piece, tail) = rest.split_at(at);
        tokens += vocabulary.count_ordinary(piece) as u64 + if clean { 0 } else { BLIND };
        rest = tail;
    }
    tokens + vocabulary.count_ordinary(rest) as u64
}

/// Tokens of a group of texts, remembered as one.
pub(super) fn count_group(encoding: Encoding, group: Group<'_>) -> u64 {
    remembered(encoding, group.whole, group.ends, || {
        group.texts().map(|text| count_text_uncached(encoding, text)).sum()
    })
}

/// Loads the vocabulary if this process has not done so yet.
pub(super) fn load(encoding: Encoding) {
    vocabulary(encoding);
}

/// Whether the vocabulary is there already; loading it would block a runtime's thread for a tenth of a second.
pub(super) fn is_loaded(encoding: Encoding) -> bool {
    LOADED[encoding as usize].load(Relaxed)
}

fn vocabulary(encoding: Encoding) -> &'static CoreBPE {
    let vocabulary = singleton(encoding);
    LOADED[encoding as usize].store(true, Relaxed);
    vocabulary
}

fn singleton(encoding: Encoding) -> &'static CoreBPE {
    match encoding {
        // They differ in special tokens only, which are not read here; one copy in memory serves both.
        Encoding::O200kBase | Encoding::O200kHarmony => tiktoken_rs::o200k_base_singleton(),
        Encoding::Cl100kBase => tiktoken_rs::cl100k_base_singleton(),
        Encoding::P50kBase => tiktoken_rs::p50k_base_singleton(),
        Encoding::R50kBase => tiktoken_rs::r50k_base_singleton(),
    }
}

fn remembered(encoding: Encoding, whole: &str, ends: &[usize], count: impl FnOnce() -> u64) -> u64 {
    if whole.len() < REMEMBER_FROM {
        return count();
    }
    let mut hasher = SECRET.build_hasher();
    hasher.write(whole.as_bytes());
    // "ab" + "c" may count differently from "a" + "bc"; one text alone needs no such note.
    if let [first, _, ..] = ends {
        ends.iter().for_each(|end| hasher.write_usize(end - first));
        hasher.write_usize(ends.len());
    }
    let key = Key { encoding, bytes: whole.len(), hash: hasher.finish() };
    COUNTS.get(&key).unwrap_or_else(|| {
        let tokens = count();
        COUNTS.insert(key, tokens);
        tokens
    })
}

/// Where to cut a text that is longer than a piece, and whether tiktoken would split there too.
fn cut(text: &str) -> (usize, bool) {
    let mut at = PIECE;
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let blind = at;
    let mut chars = text[..at].chars().rev();
    let mut after = text[at..].chars().next().unwrap_or(' ');
    while at > PIECE / 2 {
        let Some(before) = chars.next() else { break };
        if always_splits(before, after) {
            return (at, true);
        }
        at -= before.len_utf8();
        after = before;
    }
    (blind, false)
}

/// Whether every vocabulary's splitting pattern ends a piece between these two characters, whatever stands around them.
///
/// The patterns look ahead only from white space and never behind, so after such a place the rest splits as if it stood
/// alone, and before it (no white space) as if the text ended. What the answer rests on: letters only go on with
/// letters, marks or an apostrophe; digits only with digits; and only white space stands before a space.
fn always_splits(before: char, after: char) -> bool {
    let word = is_letter(before) || before.is_ascii_digit();
    match after {
        ' ' => !before.is_whitespace(),
        '\n' | '\r' | '\t' => word,
        // Contractions: "it's" may be one piece.
        '\'' => before.is_ascii_digit(),
        _ if after.is_ascii_punctuation() || is_cjk_punctuation(after) => word,
        _ if after.is_ascii_digit() => is_letter(before),
        _ => is_letter(after) && before.is_ascii_digit(),
    }
}

/// Letters whose class is certain without a table: ASCII, and the scripts that are written without spaces.
fn is_letter(c: char) -> bool {
    matches!(c,
        'a'..='z' | 'A'..='Z'
        | '\u{3041}'..='\u{3096}' // Hiragana
        | '\u{30A1}'..='\u{30FA}' // Katakana
        | '\u{4E00}'..='\u{9FEF}' // Han
        | '\u{AC00}'..='\u{D7A3}') // Hangul
}

fn is_cjk_punctuation(c: char) -> bool {
    matches!(c, '、' | '。' | '！' | '，' | '：' | '；' | '？')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Encoding; 4] = [Encoding::O200kBase, Encoding::Cl100kBase, Encoding::P50kBase, Encoding::R50kBase];

    /// Tokens of the two halves are those of the whole: nothing straddles the cut.
    fn splits_cleanly(encoding: Encoding, before: &str, after: &str) -> bool {
        let whole = vocabulary(encoding).encode_ordinary(&format!("{before}{after}"));
        let mut halves = vocabulary(encoding).encode_ordinary(before);
        halves.extend(vocabulary(encoding).encode_ordinary(after));
        whole == halves
    }

    #[test]
    fn every_pair_that_always_splits_does_so() {
        let chars = "aZsS09 \n\r\t\u{b}\u{a0}\u{3000}'\"/.,-_#@漢字かカ한。，！é\u{301}ʰſßǅ²½Ⅷ٣😀\u{200d}";
        for before in chars.chars() {
            for after in chars.chars().filter(|&after| always_splits(before, after)) {
                for (left, right) in
                    [("", ""), ("'", "s x"), ("  A", "b  "), (" .", "'s\n"), ("\n ", "\n/ "), ("12", "34")]
                {
                    for encoding in ALL {
                        let (left, right) = (format!("{left}{before}"), format!("{after}{right}"));
                        assert!(splits_cleanly(encoding, &left, &right), "{encoding:?} {left:?} {right:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_text_without_words_is_cut_blindly_and_within_bounds() {
        for text in ["a".repeat(9000), " ".repeat(9000), "\u{1F600}".repeat(3000), "a\u{301}".repeat(3000)] {
            let (at, clean) = cut(&text);
            assert!(!clean && at <= PIECE && at > PIECE - 4, "{at}");
        }
    }

    #[test]
    fn ordinary_text_is_cut_at_a_space() {
        let text = "The quick brown fox. ".repeat(400);
        let (at, clean) = cut(&text);
        assert!(clean && at > PIECE - 21);
    }

    proptest! {
        // Thousands of cases were run optimised; without optimisation tiktoken is slow.
        #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 16 } else { 256 }))]

        #[test]
        fn pieces_of_ordinary_text_add_up_to_the_whole(
            words in prop::collection::vec("[A-Za-z']{1,9}[,.!?]{0,2}[ \n]{1,3}|[0-9]{1,7} |[一-龥]{1,20}，|\"[a-z_]{1,8}\":|é{1,3} |  \t", 900..1800)
        ) {
            let text = words.concat();
            for encoding in ALL {
                prop_assert_eq!(count_text_uncached(encoding, &text), vocabulary(encoding).count_ordinary(&text) as u64);
            }
        }

        #[test]
        fn blind_cuts_count_at_least_the_whole_and_little_more(
            unit in "[a-zA-Z]{1,7}|[ \t]{1,3}|\\PC{1,3}|[一-龥]{1,2}|[.'\"]{1,3}|[\r\n]{1,2}", units in 1500usize..4000
        ) {
            let text = unit.repeat(units);
            for encoding in ALL {
                let whole = vocabulary(encoding).count_ordinary(&text) as u64;
                let ours = count_text_uncached(encoding, &text);
                let cuts = (text.len() / (PIECE / 2)) as u64;
                prop_assert!(ours >= whole, "{} < {}", ours, whole);
                prop_assert!(ours <= whole + 2 * BLIND * cuts, "{} > {} in {} cuts", ours, whole, cuts);
            }
        }

        #[test]
        fn a_long_run_of_one_kind_counts_at_least_the_whole_and_little_more(
            text in prop_oneof!["[a-z]{5000,9000}", "[а-яё]{4000,6000}", "[!-&(-/:-@]{5000,9000}", "[ \t\n\u{a0}]{5000,9000}",
                "[א-ת]{3000,4000}", "[\u{1F600}-\u{1F64F}]{1500,2500}", "[\u{300}-\u{36F}a-c]{3000,5000}", "[A-Za-z]{5000,9000}"]
        ) {
            for encoding in ALL {
                let whole = vocabulary(encoding).count_ordinary(&text) as u64;
                let ours = count_text_uncached(encoding, &text);
                let cuts = (text.len() / (PIECE / 2)) as u64;
                prop_assert!(ours >= whole, "{} < {}", ours, whole);
                prop_assert!(ours <= whole + 2 * BLIND * cuts, "{} > {} in {} cuts", ours, whole, cuts);
            }
        }

        #[test]
        fn any_text_counts_at_least_one_token(text in "(?s).{1,300}") {
            for encoding in ALL {
                prop_assert!(count_text(encoding, &text) >= 1);
                prop_assert_eq!(count_text(encoding, &text), vocabulary(encoding).count_ordinary(&text) as u64);
            }
        }
    }
}
