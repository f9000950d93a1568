//! What a check saw, and what to blame for it.

use serde::Serialize;

use super::verdict::Verdict;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Mark {
    Ok,
    Warn,
    Fail,
    /// It could not be made, or would have told nothing.
    Skipped,
}

/// One line of the examination.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) result: Mark,
    pub(super) seen: String,
    /// What is wrong, in a sentence, if this is the reason why calls fail.
    #[serde(skip)]
    pub(super) blame: Option<(Verdict, String)>,
}

impl Finding {
    fn new(check: &'static str, result: Mark, seen: impl Into<String>) -> Self {
        Self { check, result, seen: seen.into(), blame: None }
    }

    pub(super) fn ok(check: &'static str, seen: impl Into<String>) -> Self {
        Self::new(check, Mark::Ok, seen)
    }

    pub(super) fn warn(check: &'static str, seen: impl Into<String>) -> Self {
        Self::new(check, Mark::Warn, seen)
    }

    pub(super) fn fail(check: &'static str, seen: impl Into<String>) -> Self {
        Self::new(check, Mark::Fail, seen)
    }

    pub(super) fn skipped(check: &'static str, seen: impl Into<String>) -> Self {
        Self::new(check, Mark::Skipped, seen)
    }

    /// What the user should be told if nothing more certain is found.
    pub(super) fn blame(self, verdict: Verdict, sentence: impl Into<String>) -> Self {
        Self { blame: Some((verdict, sentence.into())), ..self }
    }
}
