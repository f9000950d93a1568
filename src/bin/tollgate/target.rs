//! Where the calls of an account go, and by which key.

use std::env::VarError;

use reqwest::Url;
use reqwest::header::HeaderValue;
use tollgate::{Account, Key, Provider, Secret};

use crate::args::ApiArgs;

/// What is said where nobody else says where the API is.
const OWN: &str = "the provider's own";

/// Settles where the calls of `account` go and whose API that is, from what was typed, the configuration, OPENAI_BASE_URL and
/// the provider's own address, in this order; and says which of them it was. Calls to OpenAI are for the organisation and
/// project that its own SDKs read from the environment, where the configuration names none.
///
/// # Errors
/// When there is no address, or it is none, or a header cannot carry what a variable holds.
pub(crate) fn address(account: &mut Account, api: &ApiArgs) -> Result<(Url, &'static str), String> {
    let found = address_with(account, api, std::env::var("OPENAI_BASE_URL").ok())?;
    if account.provider == Provider::Openai {
        for (field, variable) in
            [(&mut account.organization, "OPENAI_ORG_ID"), (&mut account.project, "OPENAI_PROJECT_ID")]
        {
            if field.is_none() {
                *field = header_from_env(variable)?;
            }
        }
    }
    Ok(found)
}

fn header_from_env(variable: &str) -> Result<Option<String>, String> {
    match std::env::var(variable).as_deref().map(str::trim) {
        Err(VarError::NotPresent) | Ok("") => Ok(None),
        Ok(value) if HeaderValue::from_str(value).is_ok() => Ok(Some(value.to_owned())),
        _ => Err(format!("{variable} holds characters that no header can carry; check how it was set")),
    }
}

fn address_with(account: &mut Account, api: &ApiArgs, env: Option<String>) -> Result<(Url, &'static str), String> {
    account.provider = api.provider.unwrap_or(account.provider);
    let (text, from) = if let Some(url) = &api.base_url {
        (url.clone(), "--base-url")
    } else if let Some(url) = &account.base_url {
        (url.clone(), "the configuration's base_url")
    } else if let Some(url) = env.filter(|url| account.provider == Provider::Openai && !url.trim().is_empty()) {
        (url, "OPENAI_BASE_URL")
    } else if let Some(url) = account.provider.default_base_url() {
        (url.to_owned(), OWN)
    } else {
        return Err(format!("{} has no address of its own; give yours by --base-url", account.provider));
    };
    let url = Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let url = url.ok_or_else(|| format!("{from} is no address such as https://api.openai.com/v1"))?;
    // A configuration says whose API it is, and so does --provider.
    if from != OWN && api.provider.is_none() && api.config.is_none() {
        account.provider = provider_at(&url);
    }
    account.base_url = Some(text);
    Ok((url, from))
}

/// Whose API that is: a provider's own host, or a server of which nothing is known but that it speaks OpenAI's API.
fn provider_at(url: &Url) -> Provider {
    // Every resource of Azure has a name of its own below one of these.
    const AZURE: [&str; 3] = [".openai.azure.com", ".services.ai.azure.com", ".cognitiveservices.azure.com"];
    if url.host_str().is_some_and(|host| AZURE.iter().any(|azure| host.ends_with(azure))) {
        return Provider::Azure;
    }
    let own = |provider: &Provider| provider.default_base_url().and_then(|own| Url::parse(own).ok());
    let known = |provider: &Provider| own(provider).is_some_and(|own| own.host() == url.host());
    Provider::ALL.into_iter().find(known).unwrap_or(Provider::Compatible)
}

/// Whether that is this machine.
pub(crate) fn is_loopback(url: &str) -> bool {
    let host = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
    host.is_some_and(|host| host == "localhost" || host == "[::1]" || host.starts_with("127."))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(provider: Option<Provider>, base_url: Option<&str>, configured: bool) -> ApiArgs {
        ApiArgs {
            config: configured.then(|| "tollgate.toml".into()),
            provider,
            base_url: base_url.map(str::to_owned),
            api_key_env: None,
        }
    }

    #[test]
    fn what_is_typed_comes_before_the_configuration_the_environment_and_the_providers_own_address() {
        const ENV: Option<&str> = Some("http://env.test/v1");
        let configured = Account::openai().base_url("http://file.test/v1");
        let (groq, blank) = (Some(Provider::Groq), Some(" "));
        let compatible = Some(Provider::Compatible);
        for (account, api, env, host, from, provider) in [
            (&configured, typed(None, Some("http://typed.test"), true), ENV, "typed.test", "--base-url", "openai"),
            (&configured, typed(None, None, true), ENV, "file.test", "the configuration's base_url", "openai"),
            (
                &configured,
                typed(compatible, None, true),
                ENV,
                "file.test",
                "the configuration's base_url",
                "compatible",
            ),
            (&Account::openai(), typed(None, None, true), ENV, "env.test", "OPENAI_BASE_URL", "openai"),
            (&Account::openai(), typed(None, None, false), ENV, "env.test", "OPENAI_BASE_URL", "compatible"),
            (&Account::openai(), typed(None, None, false), blank, "api.openai.com", OWN, "openai"),
            (&Account::openai(), typed(None, None, false), None, "api.openai.com", OWN, "openai"),
            (&Account::openai(), typed(groq, None, false), ENV, "api.groq.com", OWN, "groq"),
            (&Account::openai(), typed(groq, Some("http://a.test"), false), ENV, "a.test", "--base-url", "groq"),
        ] {
            let (mut account, shown) = (account.clone(), format!("{api:?}, {env:?}"));
            let (url, told) = address_with(&mut account, &api, env.map(str::to_owned)).expect(&shown);
            assert_eq!((url.host_str(), told), (Some(host), from), "{shown}");
            assert_eq!(account.provider.name(), provider, "{shown}");
            assert!(account.base_url.is_some_and(|url| url.contains(host)), "{shown}: the calls go there");
        }
    }

    #[test]
    fn what_is_no_address_is_named_by_where_it_comes_from() {
        let of = |account: Account, api: ApiArgs, env: Option<&str>| {
            address_with(&mut account.clone(), &api, env.map(str::to_owned)).unwrap_err()
        };
        assert!(of(Account::openai(), typed(None, Some("localhost:80"), false), None).starts_with("--base-url is no"));
        assert!(of(Account::openai(), typed(None, None, false), Some("/v1")).starts_with("OPENAI_BASE_URL is no"));
        let configured = Account::openai().base_url("ftp://a.test");
        assert!(of(configured, typed(None, None, true), None).starts_with("the configuration's base_url is no"));
        let azure = typed(Some(Provider::Azure), None, false);
        assert_eq!(of(Account::openai(), azure, None), "azure has no address of its own; give yours by --base-url");
    }

    #[test]
    fn an_address_tells_whose_it_is() {
        for (url, provider) in [
            ("https://api.openai.com/v1", Provider::Openai),
            ("https://api.groq.com/openai/v1", Provider::Groq),
            ("https://mine.openai.azure.com/openai/v1", Provider::Azure),
            ("https://mine.services.ai.azure.com/openai/v1", Provider::Azure),
            ("https://openai.azure.com.example.org/v1", Provider::Compatible),
            ("http://127.0.0.1:8080/v1", Provider::Compatible),
        ] {
            assert_eq!(provider_at(&url.parse().unwrap()), provider, "{url}");
        }
    }
}
