//! From text to a number of tokens, without a vocabulary: the twin of `count.rs` for builds without `tiktoken`.
//!
//! English runs at four to five characters per token and code at about three, so three is on the safe side. Text
//! outside ASCII is charged a token for every two bytes: one and a half per Chinese character, where the vocabularies
//! need between two thirds and one and a half, two per emoji. Only noise (base64, long digit strings) costs more.

use super::encoding::Encoding;
use super::texts::Group;

/// About how many tokens `text` is, by its characters, on the safe side. At least 1 unless `text` is empty.
///
/// The cargo feature `tiktoken` counts exactly instead.
pub fn count_text(_encoding: Encoding, text: &str) -> u64 {
    let ascii = text.bytes().filter(u8::is_ascii).count() as u64;
    let other = text.len() as u64 - ascii;
    ascii.div_ceil(3) + other.div_ceil(2)
}

/// The same as [`count_text`]; it exists because exact counts are remembered.
pub fn count_text_uncached(encoding: Encoding, text: &str) -> u64 {
    count_text(encoding, text)
}

/// Tokens of a group of texts.
pub(super) fn count_group(encoding: Encoding, group: Group<'_>) -> u64 {
    group.texts().map(|text| count_text(encoding, text)).sum()
}

/// There is no vocabulary to load.
pub(super) fn load(_encoding: Encoding) {}

/// There is nothing to wait for.
pub(super) fn is_loaded(_encoding: Encoding) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_stand_in_for_tokens() {
        let count = |text| count_text(Encoding::O200kBase, text);
        assert_eq!(count(""), 0);
        assert_eq!(count("a"), 1);
        assert_eq!(count("Hello world"), 4);
        assert_eq!(count("漢字"), 3);
        assert_eq!(count_text_uncached(Encoding::O200kBase, "😀"), 2);
    }
}
