//! API keys.

use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

/// An API key. Nothing prints it: `Debug` shows stars, and there is no `Display` and no `Serialize`.
///
/// ```
/// let key = tollgate::Secret::from("sk-canary");
/// assert_eq!(format!("{key:?}"), "Secret(***)");
/// assert_eq!(key.expose(), "sk-canary");
/// ```
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(Arc<str>);

impl Secret {
    /// The key itself, to put it into a request header.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Without the line end that files and variables leave at it; `None` if a header cannot carry what is left.
    pub(crate) fn for_header(&self) -> Option<Self> {
        let key = self.0.trim();
        key.chars().all(|c| c.is_ascii() && !c.is_control()).then(|| key.into())
    }
}

impl From<&str> for Secret {
    fn from(key: &str) -> Self {
        Self(key.into())
    }
}

impl From<String> for Secret {
    fn from(key: String) -> Self {
        Self(key.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}
