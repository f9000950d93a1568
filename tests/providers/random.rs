use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::json;
use tollgate::providers::{
    Observation, Provider, Reading, classify, classify_stream_error, observe, parse_duration, parse_retry_after,
    usage_in_bytes,
};
use tollgate::{DAY, Dimension::Tokens, MINUTE};

const HOUR: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);

fn any_provider() -> impl Strategy<Value = Provider> {
    prop::sample::select(Provider::ALL.to_vec())
}

/// Names that are looked at, values of any bytes.
fn any_headers() -> impl Strategy<Value = HeaderMap> {
    let names = [
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        "x-ratelimit-renewalperiod-requests",
        "anthropic-ratelimit-tokens-reset",
        "x-ratelimit-limit-req-minute",
        "llm_provider-x-ratelimit-limit-tokens",
        "retry-after",
        "retry-after-ms",
        "x-should-retry",
        "x-request-id",
    ];
    let digits = "[-0-9.,hmsµn]{0,40}".prop_map(String::into_bytes);
    let value = prop_oneof![digits, prop::collection::vec(any::<u8>(), 0..40)];
    prop::collection::vec((prop::sample::select(names.to_vec()), value), 0..12).prop_map(|pairs| {
        let valid = pairs.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::from_bytes(&value).ok()?)));
        valid.map(|(name, value)| (HeaderName::from_static(name), value)).collect()
    })
}

/// Text made of the pieces that the parsers look for.
fn any_message() -> impl Strategy<Value = String> {
    let pieces = [
        "tokens per ",
        "requests per ",
        "min",
        "day",
        "Limit ",
        "Used ",
        "Requested ",
        "limit of ",
        "try again in ",
        "retry after ",
        "Rate limit of ",
        " per ",
        " exceeded for ",
        "99999999999999999999999999",
        "1.5",
        "s",
        "ms",
        " ",
        ".",
        ",",
        "é",
        "sk-",
        "Bearer ",
        "key: ",
        "\u{0}",
        "…",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..24).prop_map(|pieces| pieces.concat())
}

fn tokens(limit: Option<u64>, remaining: Option<u64>, reset: Duration) -> Reading {
    Reading {
        dimension: Tokens,
        limit,
        remaining,
        reset: Some(reset),
        reset_rounding: Duration::from_millis(1),
        window: None,
        rounding: 0,
    }
}

proptest! {
    #[test]
    fn random_headers_are_read_without_panic(
        provider in any_provider(), headers in any_headers(), seconds in any::<u32>()
    ) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into());
        let observation = observe(provider, &headers, now);
        for reading in &observation.readings {
            let _ = reading.inferred_window();
        }
        prop_assert_eq!(observation.retry_after, parse_retry_after(&headers, now));
        prop_assert!(observation.retry_after != Some(Duration::ZERO));
    }

    #[test]
    fn random_readings_have_a_window_or_none(
        limit: Option<u64>, remaining: Option<u64>, secs: u64, nanos in 0u32..1_000_000_000
    ) {
        let reading = tokens(limit, remaining, Duration::new(secs, nanos));
        if let Some(window) = reading.inferred_window() {
            prop_assert!([SECOND, MINUTE, HOUR, DAY].contains(&window));
        }
    }

    #[test]
    fn the_window_of_a_bucket_is_inferred_or_unknown_but_never_wrong(
        limit in 1u64..50_000_000, part in 1u64..=1_000_000,
        window in prop::sample::select(vec![SECOND, MINUTE, HOUR, DAY])
    ) {
        let used = (u128::from(limit) * u128::from(part) / 1_000_000).max(1) as u64;
        let nanos = window.as_nanos() * u128::from(used) / u128::from(limit);
        let reset = Duration::from_millis((nanos / 1_000_000) as u64);
        let reading = tokens(Some(limit), Some(limit - used), reset);
        let inferred = reading.inferred_window();
        prop_assert!(inferred.is_none() || inferred == Some(window), "{:?}", inferred);
        prop_assert!(reset.is_zero() || inferred.is_some());
    }

    #[test]
    fn random_bodies_are_classified_without_panic(
        provider in any_provider(), status: u16, body in prop::collection::vec(any::<u8>(), 0..200)
    ) {
        let failure = classify(provider, status, &Observation::default(), &body);
        prop_assert!(failure.message.chars().count() <= 501);
        let _ = (failure.to_string(), usage_in_bytes(&body));
    }

    #[test]
    fn random_messages_are_classified_without_panic(
        provider in any_provider(), status in 200u16..600, message in any_message(), code in any_message()
    ) {
        let details = json!([{"violations": [{"quotaId": message}], "retryDelay": code}]);
        let event = json!({"error": {"message": message, "code": code, "type": code, "details": details}});
        let failure = classify(provider, status, &Observation::default(), event.to_string().as_bytes());
        prop_assert!(failure.wait != Some(Duration::ZERO));
        prop_assert!(classify_stream_error(provider, &event).is_some());
        let _ = failure.to_string();
    }

    #[test]
    fn random_durations_are_read_without_panic(text in "[-+ 0-9.eEhmsµun]{0,80}") {
        // Long enough to be absurd, short enough to be added to a clock.
        prop_assert!(parse_duration(&text).is_none_or(|duration| duration <= 100 * 366 * DAY));
    }
}
