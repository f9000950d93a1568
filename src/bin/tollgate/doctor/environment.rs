//! What the environment says: the key's look, and proxies.

use hyper_util::client::proxy::matcher::Matcher;
use tollgate::Provider;

use super::finding::Finding;
use super::subject::Subject;
use super::verdict::Verdict;

/// How the keys of those providers begin that mark theirs; the longer beginnings first.
const KEY_STARTS: [(&str, Provider); 4] =
    [("sk-ant-", Provider::Anthropic), ("sk-", Provider::Openai), ("gsk_", Provider::Groq), ("AIza", Provider::Gemini)];

/// A proxy between us and a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
}

/// The proxy that the client would use for the API, by the same rules.
pub(super) fn proxy(subject: &Subject) -> Option<Proxy> {
    let uri = subject.base.as_str().parse().ok().filter(|_| !subject.is_local())?;
    let found = Matcher::from_env().intercept(&uri)?;
    let proxy = found.uri();
    let port = proxy.port_u16().unwrap_or(if proxy.scheme_str() == Some("https") { 443 } else { 80 });
    Some(Proxy { host: proxy.host()?.to_owned(), port })
}

pub(super) fn check(subject: &Subject, proxy: Option<&Proxy>) -> Vec<Finding> {
    let proxies = match proxy {
        Some(Proxy { host, port }) => {
            Finding::ok("proxy", format!("{} is reached through {host}:{port}", subject.host()))
        }
        None => Finding::ok("proxy", "none for this address"),
    };
    vec![key_set(subject), proxies]
}

fn key_set(subject: &Subject) -> Finding {
    let (check, from) = ("key set", &subject.key_from);
    match &subject.key {
        None if subject.is_local() => {
            Finding::skipped(check, format!("{from} is not set; a server of yours may need none"))
        }
        None => no_key(subject, Finding::fail(check, format!("{from} is not set"))),
        Some(key) => match flaw(subject.provider, key.expose()) {
            Some(flaw) => Finding::warn(check, format!("{from} is set, but {flaw}")),
            None => Finding::ok(check, format!("{from} is set")),
        },
    }
}

/// Blames the lack of a key.
pub(super) fn no_key(subject: &Subject, finding: Finding) -> Finding {
    let from = &subject.key_from;
    let sentence = format!("there is no API key; set it by export {from}=… or name another variable by --api-key-env");
    finding.blame(Verdict::Key, sentence)
}

/// What is odd about the key, without a letter of it.
pub(super) fn flaw(provider: Provider, key: &str) -> Option<String> {
    if key.starts_with(['"', '\'']) {
        return Some("it begins with a quotation mark".to_owned());
    }
    if key.chars().any(|c| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
        return Some("it holds characters that no key has".to_owned());
    }
    let start = |owner| KEY_STARTS.iter().find(|(_, provider)| *provider == owner).map(|(start, _)| *start);
    let looks_like = KEY_STARTS.iter().find(|(start, _)| key.starts_with(start)).map(|(_, owner)| *owner);
    match (looks_like, start(provider)) {
        (Some(owner), _) if provider != Provider::Compatible && owner != provider => {
            Some(format!("it looks like a key of {owner}"))
        }
        (None, Some(start)) => Some(format!("keys of {provider} begin with {start}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_keys_are_noticed_without_being_shown() {
        let rows = [
            (Provider::Openai, "sk-proj-canary", None),
            (Provider::Openai, "sk-ant-canary", Some("a key of anthropic")),
            (Provider::Anthropic, "sk-canary", Some("a key of openai")),
            (Provider::Openai, "canary", Some("begin with sk-")),
            (Provider::Openai, "\"sk-canary\"", Some("quotation mark")),
            (Provider::Groq, "gsk_ca nary", Some("no key has")),
            (Provider::Mistral, "0123canary", None),
            (Provider::Compatible, "gsk_canary", None),
        ];
        for (provider, key, expected) in rows {
            let flaw = flaw(provider, key);
            assert_eq!(flaw.is_some(), expected.is_some(), "{provider} {key}: {flaw:?}");
            let flaw = flaw.unwrap_or_default();
            assert!(flaw.contains(expected.unwrap_or_default()) && !flaw.contains("canary"), "{flaw}");
        }
    }
}
