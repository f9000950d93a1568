//! Errors by name: bodies and headers as providers really send them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The rows also say what each error means; the tests of the classifier read that, the mock does not.
static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let lines = include_str!("errors.jsonl").lines();
    lines.map(|line| serde_json::from_str(line).expect("the embedded errors.jsonl is valid (tested)")).collect()
});

#[derive(Deserialize)]
struct Row {
    name: String,
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Value,
}

/// An error that the mock answers every call with, such as `insufficient_quota` or `anthropic_overloaded`. Serialised as its
/// name.
///
/// ```
/// use tollgate::mock::NamedError;
///
/// let error: NamedError = "insufficient_quota".parse()?;
/// assert_eq!((error.name(), error.status()), ("insufficient_quota", 429));
/// # Ok::<(), tollgate::mock::UnknownError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NamedError(usize);

impl NamedError {
    /// All there are: those of OpenAI, then of the others, whose names begin with the provider's.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..ROWS.len()).map(Self)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        &self.row().name
    }

    /// The HTTP status of the answer.
    pub fn status(self) -> u16 {
        self.row().status
    }

    fn row(self) -> &'static Row {
        &ROWS[self.0]
    }

    /// Whether the list of models, which costs nothing, fails alike: it needs a key and a server, but no credit and no limit.
    pub(crate) fn hits_free_calls(self) -> bool {
        matches!(self.status(), 401 | 403 | 500..) || self.name().ends_with("invalid_key")
    }

    pub(crate) fn status_code(self) -> StatusCode {
        StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(crate) fn body(self) -> Bytes {
        match &self.row().body {
            Value::String(text) => text.clone().into(),
            json => json.to_string().into(),
        }
    }

    pub(crate) fn stamp(self, headers: &mut HeaderMap) {
        for (name, value) in &self.row().headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.insert(name, value);
            }
        }
    }
}

impl fmt::Debug for NamedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that no error of the mock has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no error is called `{0}`; there are {known}", known = names())]
pub struct UnknownError(pub String);

fn names() -> String {
    NamedError::all().map(NamedError::name).collect::<Vec<_>>().join(", ")
}

impl FromStr for NamedError {
    type Err = UnknownError;

    fn from_str(name: &str) -> Result<Self, UnknownError> {
        NamedError::all().find(|error| error.name() == name).ok_or_else(|| UnknownError(name.to_owned()))
    }
}

impl TryFrom<String> for NamedError {
    type Error = UnknownError;

    fn try_from(name: String) -> Result<Self, UnknownError> {
        name.parse()
    }
}

impl From<NamedError> for String {
    fn from(error: NamedError) -> Self {
        error.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_error_has_a_name_of_its_own_and_can_be_sent() {
        let names: BTreeSet<_> = NamedError::all().map(NamedError::name).collect();
        assert_eq!(names.len(), NamedError::all().count());
        for error in NamedError::all() {
            assert_eq!(error.name().parse(), Ok(error));
            assert_eq!(error.status_code().as_u16(), error.status(), "{error:?}");
            let mut headers = HeaderMap::new();
            error.stamp(&mut headers);
            assert_eq!(headers.len(), error.row().headers.len(), "{error:?}");
        }
        assert!("nothing".parse::<NamedError>().unwrap_err().to_string().contains("insufficient_quota"));
    }
}
