//! Where the calls of an account go, and by which key, for the commands that look at accounts one by one.

use reqwest::Url;
use tollgate::{Account, Key, Provider, Secret};

use crate::run::provider_at;

/// The base URL and where it comes from; also settles whose API it is. `configured` says that the account is from a file, which
/// says whose it is.
///
/// # Errors
/// When there is none, or it is no address.
pub(crate) fn address(
    account: &mut Account,
    provider: Option<Provider>,
    base_url: Option<&str>,
    configured: bool,
) -> Result<(Url, &'static str), String> {
    account.provider = provider.unwrap_or(account.provider);
    let from_env = || std::env::var("OPENAI_BASE_URL").ok().filter(|url| !url.trim().is_empty());
    let (text, from) = if let Some(url) = base_url {
        (url.to_owned(), "--base-url")
    } else if let Some(url) = account.base_url.clone() {
        (url, "the configuration")
    } else if let Some(url) = from_env().filter(|_| account.provider == Provider::Openai) {
        (url, "OPENAI_BASE_URL")
    } else if let Some(url) = account.provider.default_base_url() {
        (url.to_owned(), "the provider's own")
    } else {
        return Err(format!("{} has no address of its own; give yours by --base-url", account.provider));
    };
    if from != "the provider's own" && provider.is_none() && !configured {
        account.provider = provider_at(&text);
    }
    let url = Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = url.ok_or_else(|| format!("{from} is no address such as https://api.openai.com/v1"))?;
    Ok((url, from))
}

/// The first key of the account, and the words for where it comes from.
pub(crate) fn key(account: &Account, variable: Option<&str>) -> (Option<Secret>, String) {
    let from_env = |variable: &str| {
        let key = std::env::var_os(variable).map(|key| key.to_string_lossy().trim().to_owned());
        (key.filter(|key| !key.is_empty()).map(Secret::from), variable.to_owned())
    };
    match (variable, account.keys.first()) {
        (Some(variable), _) => from_env(variable),
        (None, Some(Key::Env(variable))) => from_env(variable),
        (None, Some(Key::Value(secret))) => (Some(secret.clone()), "the configuration's key".to_owned()),
        (None, None) => from_env(account.provider.key_env()),
    }
}
