//! Which vocabulary a model reads with.

/// A vocabulary of OpenAI's models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Encoding {
    /// gpt-4o and everything later; also the substitute for models that are not known.
    O200kBase,
    /// gpt-oss: `o200k_base` with other special tokens, so ordinary text counts the same.
    O200kHarmony,
    /// gpt-4, gpt-3.5 and the embedding models.
    Cl100kBase,
    /// The late completion models before 2023.
    P50kBase,
    /// The first completion models.
    R50kBase,
}

use Encoding::{Cl100kBase, O200kBase, O200kHarmony, P50kBase, R50kBase};

/// Names that stand for themselves, from `tiktoken/model.py`.
const EXACT: &[(&str, Encoding)] = &[
    ("o1", O200kBase),
    ("o3", O200kBase),
    ("o4-mini", O200kBase),
    ("gpt-4", Cl100kBase),
    ("davinci-002", Cl100kBase),
    ("babbage-002", Cl100kBase),
    ("text-embedding-ada-002", Cl100kBase),
    ("text-davinci-003", P50kBase),
    ("text-davinci-002", P50kBase),
    ("text-davinci-001", R50kBase),
    ("text-curie-001", R50kBase),
    ("text-babbage-001", R50kBase),
    ("text-ada-001", R50kBase),
    ("davinci", R50kBase),
    ("curie", R50kBase),
    ("babbage", R50kBase),
    ("ada", R50kBase),
];

/// Families, tried in order: `gpt-4o` and `gpt-4.1` must stand before `gpt-4-`.
const PREFIXES: &[(&str, Encoding)] = &[
    ("o1-", O200kBase),
    ("o3-", O200kBase),
    ("o4-mini-", O200kBase),
    ("gpt-5", O200kBase),
    ("gpt-4.5-", O200kBase),
    ("gpt-4.1", O200kBase),
    ("gpt-4o", O200kBase),
    ("chatgpt-4o-", O200kBase),
    ("codex-mini", O200kBase),
    ("gpt-oss-", O200kHarmony),
    ("gpt-4-", Cl100kBase),
    ("gpt-3.5", Cl100kBase),
    // Azure does not allow a dot in a deployment's name.
    ("gpt-35-turbo", Cl100kBase),
    ("text-embedding-3-", Cl100kBase),
    ("code-davinci-", P50kBase),
    ("code-cushman-", P50kBase),
];

/// The vocabulary of `model`, and whether the model is known.
///
/// A vendor's prefix (`openai/gpt-oss-20b`) is skipped and a fine-tuned model (`ft:gpt-4o:…`) reads as its base does.
/// A model that is not known is counted with `o200k_base`, which is right for OpenAI's newest and a fair guess
/// for others. Source of the table: `tiktoken/model.py`.
///
/// ```
/// use tollgate::tokens::{Encoding, encoding_for};
/// assert_eq!(encoding_for("gpt-4o-mini"), (Encoding::O200kBase, true));
/// assert_eq!(encoding_for("somebody-elses-model"), (Encoding::O200kBase, false));
/// ```
pub fn encoding_for(model: &str) -> (Encoding, bool) {
    let name = base_name(model);
    let exact = EXACT.iter().find(|(known, _)| *known == name);
    let found = exact.or_else(|| PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)));
    found.map_or((O200kBase, false), |(_, encoding)| (*encoding, true))
}

/// The model's own name: without the vendor's path, and of a fine-tuned model the base.
pub(super) fn base_name(model: &str) -> &str {
    let name = model.rsplit('/').next().unwrap_or(model);
    match name.strip_prefix("ft:") {
        Some(tuned) => tuned.split(':').next().unwrap_or(tuned),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_resolves() {
        let table = [
            ("o1", O200kBase),
            ("o1-pro", O200kBase),
            ("o3-mini", O200kBase),
            ("o4-mini", O200kBase),
            ("o4-mini-2025-04-16", O200kBase),
            ("gpt-5", O200kBase),
            ("gpt-5.4-mini", O200kBase),
            ("gpt-4.5-preview", O200kBase),
            ("gpt-4.1", O200kBase),
            ("gpt-4.1-nano", O200kBase),
            ("gpt-4o", O200kBase),
            ("gpt-4o-mini-search-preview", O200kBase),
            ("chatgpt-4o-latest", O200kBase),
            ("ft:gpt-4o:org:name:id", O200kBase),
            ("ft:gpt-4.1-mini-2025-04-14:org::id", O200kBase),
            ("gpt-oss-120b", O200kHarmony),
            ("openai/gpt-oss-20b", O200kHarmony),
            ("openrouter/openai/gpt-4o", O200kBase),
            ("gpt-4", Cl100kBase),
            ("gpt-4-turbo", Cl100kBase),
            ("gpt-4-0613", Cl100kBase),
            ("gpt-3.5-turbo", Cl100kBase),
            ("gpt-35-turbo", Cl100kBase),
            ("gpt-35-turbo-16k", Cl100kBase),
            ("ft:gpt-4-0613:org::id", Cl100kBase),
            ("ft:gpt-3.5-turbo:org:name:id", Cl100kBase),
            ("davinci-002", Cl100kBase),
            ("babbage-002", Cl100kBase),
            ("text-embedding-3-small", Cl100kBase),
            ("text-embedding-3-large", Cl100kBase),
            ("text-embedding-ada-002", Cl100kBase),
            ("text-davinci-003", P50kBase),
            ("code-davinci-002", P50kBase),
            ("davinci", R50kBase),
        ];
        for (model, encoding) in table {
            assert_eq!(encoding_for(model), (encoding, true), "{model}");
        }
    }

    #[test]
    fn an_unknown_model_is_said_to_be_unknown() {
        for model in ["", "gpt-6", "claude-sonnet-4-5", "llama-3.3-70b-versatile", "o5", "ft:", "/", "ft:own:org"] {
            assert_eq!(encoding_for(model), (O200kBase, false), "{model}");
        }
    }
}
