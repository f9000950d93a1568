//! How each provider wants to be shown a key.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::Provider;
use crate::secret::Secret;

impl Provider {
    /// The headers of a call with `key`, marked as sensitive, and the API version where one has to be named. A key that cannot
    /// stand in a header is left out.
    pub fn auth_headers(self, key: Option<&Secret>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let shown = key.map(|key| match self {
            Provider::Azure => (HeaderName::from_static("api-key"), key.expose().to_owned()),
            Provider::Anthropic => (HeaderName::from_static("x-api-key"), key.expose().to_owned()),
            _ => (AUTHORIZATION, format!("Bearer {}", key.expose())),
        });
        if let Some((name, Ok(mut value))) = shown.map(|(name, value)| (name, HeaderValue::try_from(value))) {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        if self == Provider::Anthropic {
            headers.insert(HeaderName::from_static("anthropic-version"), HeaderValue::from_static("2023-06-01"));
        }
        headers
    }
}
