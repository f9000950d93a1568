//! From a request body to an [`Estimate`](crate::Estimate).
//!
//! Two steps, so that the costly one can move to another thread: [`Prompt`] collects what a body will be charged for
//! (cheap, a copy of its texts), [`Prompt::count`] counts it (megabytes take tens of milliseconds).
//!
//! ```
//! use serde_json::json;
//! use tollgate::tokens::Prompt;
//!
//! let body = json!({"model": "gpt-4o", "max_tokens": 100, "n": 2,
//!                   "messages": [{"role": "user", "content": "Hello!"}]});
//! let counted = Prompt::for_path("/v1/chat/completions", &body).count();
//! assert_eq!(counted.estimate.output_cap, Some(200));
//! assert!(counted.known_model);
//! ```
//!
//! What holds for the whole folder:
//! * Bodies are read leniently and never altered. A shape that is not known is counted by its JSON text.
//! * Where a provider's rule is not published, the guess errs towards more tokens; each says so where it stands.
//! * Texts are user data: none is logged, printed by `Debug`, or kept after the `Prompt` is dropped.
//! * Without the cargo feature `tiktoken` the same functions exist and estimate by characters.

// Its tests run in every build.
#[cfg(any(test, not(feature = "tiktoken")))]
#[cfg_attr(feature = "tiktoken", expect(dead_code, unreachable_pub, reason = "counts are exact here"))]
mod approx;
mod chat;
#[cfg(feature = "tiktoken")]
mod count;
mod encoding;
mod images;
mod parts;
mod prompt;
mod responses;
mod texts;
mod tools;

#[cfg(not(feature = "tiktoken"))]
use approx as count;

pub use count::{count_text, count_text_uncached};
pub use encoding::{Encoding, encoding_for};
pub use prompt::{Counted, INLINE_BYTES, Prompt};

/// Loads the vocabulary of `model`, so that the first request does not wait for it.
///
/// Loading takes a noticeable part of a second and happens once per process and vocabulary; call this from a blocking
/// thread at start. Without the cargo feature `tiktoken` there is nothing to load.
pub fn warm_up(model: &str) {
    count::load(encoding_for(model).0);
}
