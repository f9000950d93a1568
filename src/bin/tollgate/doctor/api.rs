//! What the API answers: the clock, the key, the model, and with a paid call credit and limits.

use http::header::CONTENT_TYPE;
use jiff::SignedDuration;
use reqwest::Client;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokio::time::Instant;
use tollgate::providers::{Retry, classify};
use tollgate::{Class, Failure, Provider};

use super::call::{Answer, Silence, send};
use super::environment;
use super::finding::Finding;
use super::limits;
use super::subject::Subject;
use super::verdict::Verdict;
use crate::probe::smallest;
use crate::show;

/// From here on a clock that is off makes waits that are told as dates (`retry-after`, Anthropic's resets) wrong.
const NOTICED: SignedDuration = SignedDuration::from_secs(5);
/// From here on they are useless, and the end of a day is missed.
const HARMFUL: SignedDuration = SignedDuration::from_secs(60);

/// Asks for the list of models, which costs nothing anywhere, and if told to for the smallest possible answer.
pub(super) async fn check(subject: &Subject, client: &Client, probe: bool, deadline: Instant) -> Vec<Finding> {
    let listed = send(client.get(subject.url("/models")).headers(subject.headers()), deadline).await;
    let answer = match listed {
        Ok(answer) => answer,
        Err(silence) => {
            let mut findings = vec![silent(subject, silence)];
            findings.extend(unasked("the API gave no answer"));
            return findings;
        }
    };
    let mut findings = vec![answered(subject, &answer), clock(&answer), key(subject, &answer)];
    findings.extend(model(subject, &answer));
    // Where the free call failed, a paid one would only fail alike.
    let clear = findings.iter().all(|finding| matches!(finding.blame, None | Some((Verdict::Clock, _))));
    let probed = if probe && clear { Some(self::probe(subject, client, deadline).await) } else { None };
    match probed {
        Some(Ok(probed)) => findings.extend([billing(subject, &probed), limits::check(subject, &probed)]),
        Some(Err(silence)) => findings.push(silent(subject, silence)),
        None => findings.extend([unpaid(subject, &answer), limits::check(subject, &answer)]),
    }
    findings
}

/// The checks that need an answer of the API.
pub(super) fn unasked(why: &str) -> impl Iterator<Item = Finding> {
    ["clock", "key", "billing", "limits"].into_iter().map(move |check| Finding::skipped(check, why))
}

fn silent(subject: &Subject, silence: Silence) -> Finding {
    let (check, host) = ("answer", subject.host());
    match silence {
        Silence::Unconnected(why) => Finding::fail(check, format!("no usable connection: {why}")).blame(
            Verdict::Network,
            format!("no secure or proxied connection to {host} ({why}); check proxies, certificates and the clock"),
        ),
        Silence::TimedOut => Finding::fail(check, "none in time").blame(
            Verdict::Provider,
            format!("{host} takes connections and does not answer in time; wait, or see its status page"),
        ),
        Silence::Broken(why) => Finding::fail(check, format!("none: {why}")).blame(
            Verdict::Provider,
            format!("{host} closed the connection without an answer ({why}); try again, or see its status page"),
        ),
    }
}

fn failure(subject: &Subject, answer: &Answer) -> Option<Failure> {
    let failed = answer.status >= 400;
    failed.then(|| classify(subject.provider, answer.status, &answer.observe(subject.provider), &answer.body))
}

/// Other servers answer anything with a page, a redirect or an empty success.
fn is_api(answer: &Answer) -> bool {
    (200..300).contains(&answer.status) && serde_json::from_slice::<IgnoredAny>(&answer.body).is_ok()
}

/// `429 insufficient_quota`; the verdict says the rest.
fn short(failure: &Failure) -> String {
    format!("{} {}", failure.status, failure.code.as_deref().unwrap_or_default()).trim_end().to_owned()
}

/// That something answers which is the API.
fn answered(subject: &Subject, answer: &Answer) -> Finding {
    let (check, took) = ("answer", show::time(answer.took));
    match (answer.status, failure(subject, answer)) {
        (407, _) => Finding::fail(check, "407 from the proxy").blame(
            Verdict::Network,
            "the proxy wants a user name and a password; put them into the proxy variable, http://name:password@host:port",
        ),
        (status, Some(failure)) => match Verdict::of_class(failure.class) {
            verdict @ (Verdict::Provider | Verdict::Limits) => {
                Finding::fail(check, short(&failure)).blame(verdict, failure.to_string())
            }
            // An answer all the same; what it says is for the checks that follow.
            Verdict::Key | Verdict::Billing => Finding::ok(check, format!("{status} in {took}")),
            _ if failure.class == Class::NotFound => Finding::ok(check, format!("{status} in {took}")),
            _ => Finding::fail(check, failure.to_string()),
        },
        (status, None) if !is_api(answer) => Finding::fail(check, format!("{status}, which is no answer of an API")).blame(
            Verdict::Settings,
            format!("what answers at {} is no LLM API; check the base URL, its version (/v1) included", subject.host()),
        ),
        (status, None) => Finding::ok(check, format!("{status} in {took}")),
    }
}

fn clock(answer: &Answer) -> Finding {
    let check = "clock";
    let Some(ahead) = answer.ahead() else { return Finding::skipped(check, "the answer has no date") };
    let off = show::time(ahead.unsigned_abs());
    let seen = format!("{off} {} the provider's", if ahead.is_negative() { "ahead of" } else { "behind" });
    match ahead.abs() {
        off if off < NOTICED => Finding::ok(check, "agrees with the provider's"),
        off if off < HARMFUL => Finding::warn(check, seen),
        _ => Finding::fail(check, seen.clone()).blame(
            Verdict::Clock,
            format!(
                "this machine's clock is {seen}, so that waits told as dates are wrong; set it, by NTP for instance"
            ),
        ),
    }
}

fn key(subject: &Subject, answer: &Answer) -> Finding {
    let (check, from) = ("key", &subject.key_from);
    let Some(failure) = failure(subject, answer) else {
        return match &subject.key {
            _ if !is_api(answer) => Finding::skipped(check, "the answer does not tell"),
            Some(_) => Finding::ok(check, format!("{from} is accepted")),
            None => Finding::ok(check, "none is asked for"),
        };
    };
    match failure.class {
        Class::Unauthorized | Class::Forbidden if subject.key.is_none() => {
            let seen = Finding::fail(check, short(&failure));
            // Elsewhere the lack of a key has been blamed already.
            if subject.is_local() { environment::no_key(subject, seen) } else { seen }
        }
        Class::Unauthorized | Class::Forbidden => {
            let flaw = subject.key.as_ref().and_then(|key| environment::flaw(subject.provider, key.expose()));
            let hint = flaw.map(|flaw| format!(" ({flaw})")).unwrap_or_default();
            Finding::fail(check, short(&failure))
                .blame(Verdict::Key, format!("{} refuses {from}{hint}: {failure}", subject.host()))
        }
        Class::NotFound => {
            let seen = "there is no list of models at this address; check the base URL, its version (/v1) included";
            // Older addresses of Azure's and other servers need not have such a list, but every API's address has a path.
            let may_lack_it = matches!(subject.provider, Provider::Azure | Provider::Compatible) && subject.has_path();
            if may_lack_it {
                Finding::warn(check, seen)
            } else {
                Finding::fail(check, seen).blame(Verdict::Settings, seen)
            }
        }
        _ => Finding::skipped(check, "the answer does not tell"),
    }
}

/// Whether the account has the model that was named.
fn model(subject: &Subject, answer: &Answer) -> Option<Finding> {
    let (check, wanted) = ("model", subject.model.as_deref()?);
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let listed = json.get("data").and_then(Value::as_array).filter(|_| answer.status == 200);
    let Some(listed) = listed else { return Some(Finding::skipped(check, "no list of models came")) };
    // Gemini's names have a folder.
    let names = listed.iter().filter_map(|model| model.get("id")?.as_str());
    let names: Vec<_> = names.map(|name| name.strip_prefix("models/").unwrap_or(name)).collect();
    if names.contains(&wanted) {
        return Some(Finding::ok(check, format!("{wanted} is one of {}", names.len())));
    }
    // Azure lists models where calls name deployments; other servers may list a part.
    if matches!(subject.provider, Provider::Azure | Provider::Compatible) {
        return Some(Finding::warn(check, format!("{wanted} is none of the {} that are listed", names.len())));
    }
    let mut near: Vec<_> = names.iter().map(|name| (shared_start(name, wanted), *name)).collect();
    near.sort_by_key(|(shared, _)| std::cmp::Reverse(*shared));
    let near: Vec<_> = near.iter().filter(|(shared, _)| *shared >= 3).take(3).map(|(_, name)| *name).collect();
    let hint = if near.is_empty() { String::new() } else { format!("; the nearest are {}", near.join(", ")) };
    let seen = format!("this account has no model {wanted}{hint}");
    Some(Finding::fail(check, seen.clone()).blame(Verdict::Request, seen))
}

fn shared_start(one: &str, other: &str) -> usize {
    one.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count()
}

/// The smallest chat request.
async fn probe(subject: &Subject, client: &Client, deadline: Instant) -> Result<Answer, Silence> {
    let (path, body) = smallest(subject.provider, subject.model.as_deref().unwrap_or_default());
    let request = client.post(subject.url(path)).headers(subject.headers()).header(CONTENT_TYPE, "application/json");
    send(request.body(body.to_string()), deadline).await
}

/// What a paid call met.
fn billing(subject: &Subject, answer: &Answer) -> Finding {
    let check = "billing";
    match failure(subject, answer) {
        None => Finding::ok(check, "a paid call went well"),
        // A reasoning model cannot think of anything in one token; it tried, which is all that was asked.
        Some(failure) if failure.message.contains("output limit was reached") => {
            Finding::ok(check, "a paid call was made")
        }
        Some(failure) => {
            let check = if failure.class == Class::QuotaExhausted { check } else { "paid call" };
            Finding::fail(check, short(&failure)).blame(Verdict::of_class(failure.class), failure.to_string())
        }
    }
}

/// What the free call tells about money: only bad news.
fn unpaid(subject: &Subject, answer: &Answer) -> Finding {
    match failure(subject, answer) {
        Some(failure) if failure.class == Class::QuotaExhausted && failure.retry() == Retry::Never => {
            Finding::fail("billing", short(&failure)).blame(Verdict::Billing, failure.to_string())
        }
        _ => Finding::skipped("billing", "only a paid call tells; --probe --model … makes the smallest one"),
    }
}
