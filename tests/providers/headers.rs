use std::time::Duration;

use tollgate::providers::{Observation, Provider, Reading, observe};
use tollgate::{DAY, Dimension, MINUTE};

use super::{header_map, now};
use Dimension::{InputTokens, OutputTokens, Requests, Tokens};
use Provider::{Anthropic, Azure, Gemini, Groq, Mistral, Openai};

const HOUR: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);

/// A reading in short: dimension, limit, remaining, reset in milliseconds, window told or inferred.
type Row = (Dimension, Option<u64>, Option<u64>, Option<u64>, Option<Duration>);

fn row(reading: &Reading) -> Row {
    let reset = reading.reset.map(|reset| reset.as_millis() as u64);
    (reading.dimension, reading.limit, reading.remaining, reset, reading.inferred_window())
}

#[test]
fn limits_are_read_from_the_headers_of_every_provider() {
    let rows: &[(&str, Provider, &str, &[Row])] = &[
        (
            "OpenAI embeddings, tier 2, 2026-06-08",
            Openai,
            "x-ratelimit-limit-requests: 5000
             x-ratelimit-limit-tokens: 1000000
             x-ratelimit-remaining-requests: 4999
             x-ratelimit-remaining-tokens: 999997
             x-ratelimit-reset-requests: 12ms
             x-ratelimit-reset-tokens: 0s",
            &[
                (Requests, Some(5_000), Some(4_999), Some(12), Some(MINUTE)),
                // Three tokens refill in 0.18 ms: too little to tell.
                (Tokens, Some(1_000_000), Some(999_997), Some(0), None),
            ],
        ),
        (
            "OpenAI gpt-4o-mini, tier 1, 2024-12-25: the requests of a day",
            Openai,
            "x-ratelimit-limit-requests: 10000
             x-ratelimit-remaining-requests: 9999
             x-ratelimit-reset-requests: 8.64s",
            &[(Requests, Some(10_000), Some(9_999), Some(8_640), Some(DAY))],
        ),
        (
            "OpenAI gpt-4, tier 1, 2025-01-04",
            Openai,
            "x-ratelimit-limit-tokens: 10000
             x-ratelimit-remaining-tokens: 9481
             x-ratelimit-reset-tokens: 3.114s",
            &[(Tokens, Some(10_000), Some(9_481), Some(3_114), Some(MINUTE))],
        ),
        (
            "OpenAI, tokens per day",
            Openai,
            "x-ratelimit-limit-tokens: 1500000
             x-ratelimit-remaining-tokens: 1495621
             x-ratelimit-reset-tokens: 4m12.172s",
            &[(Tokens, Some(1_500_000), Some(1_495_621), Some(252_172), Some(DAY))],
        ),
        (
            "OpenAI, reset cut from 22.95 ms",
            Openai,
            "x-ratelimit-limit-tokens: 2000000
             x-ratelimit-remaining-tokens: 1999235
             x-ratelimit-reset-tokens: 22ms",
            &[(Tokens, Some(2_000_000), Some(1_999_235), Some(22), Some(MINUTE))],
        ),
        (
            "OpenAI, with a project's limits",
            Openai,
            "x-ratelimit-limit-tokens: 150000
             x-ratelimit-limit-project-requests: 3
             x-ratelimit-limit-project-tokens: 60000
             x-ratelimit-remaining-project-tokens: 57000
             x-ratelimit-reset-project-tokens: 3s",
            &[
                (Tokens, Some(150_000), None, None, None),
                (Requests, Some(3), None, None, None),
                (Tokens, Some(60_000), Some(57_000), Some(3_000), Some(MINUTE)),
            ],
        ),
        (
            "a compatible server with thousands separators and an unknown remainder",
            Openai,
            "x-ratelimit-limit-tokens: 1,500,000
             x-ratelimit-remaining-tokens: -1
             x-ratelimit-reset-tokens: never",
            &[(Tokens, Some(1_500_000), None, None, None)],
        ),
        (
            "a limit that is no whole number is none",
            Openai,
            "x-ratelimit-limit-tokens: 1.5e6
             x-ratelimit-limit-requests: 60.000",
            &[(Requests, Some(60), None, None, None)],
        ),
        (
            "Azure Foundry, 2026-08-19",
            Azure,
            "x-ratelimit-key: gpt-5-nano
             x-ratelimit-limit-requests: 250
             x-ratelimit-remaining-requests: 249
             x-ratelimit-reset-requests: 0
             x-ratelimit-renewalperiod-requests: 60
             x-ratelimit-limit-tokens: 250000
             x-ratelimit-remaining-tokens: 249993
             x-ratelimit-reset-tokens: 0
             x-ratelimit-renewalperiod-tokens: 60",
            &[
                (Requests, Some(250), Some(249), Some(0), Some(MINUTE)),
                (Tokens, Some(250_000), Some(249_993), Some(0), Some(MINUTE)),
            ],
        ),
        (
            "Azure, a 120 RPM deployment that shows its slice",
            Azure,
            "x-ratelimit-limit-requests: 20
             x-ratelimit-remaining-requests: 19
             x-ratelimit-reset-requests: 10
             x-ratelimit-remaining-tokens: 19913",
            &[(Requests, Some(20), Some(19), Some(10_000), None), (Tokens, None, Some(19_913), None, Some(MINUTE))],
        ),
        (
            "Anthropic, 2026-08-19",
            Anthropic,
            "anthropic-ratelimit-requests-limit: 10000
             anthropic-ratelimit-requests-remaining: 9999
             anthropic-ratelimit-requests-reset: 2026-08-19T14:34:11Z
             anthropic-ratelimit-input-tokens-limit: 10000000
             anthropic-ratelimit-input-tokens-remaining: 10000000
             anthropic-ratelimit-input-tokens-reset: 2026-08-19T14:34:11Z
             anthropic-ratelimit-output-tokens-limit: 2000000
             anthropic-ratelimit-output-tokens-remaining: 2000000
             anthropic-ratelimit-output-tokens-reset: 2026-08-19T14:34:11Z
             anthropic-ratelimit-tokens-limit: 12000000
             anthropic-ratelimit-tokens-remaining: 12000000
             anthropic-ratelimit-tokens-reset: 2026-08-19T14:34:11Z",
            &[
                (Requests, Some(10_000), Some(9_999), Some(30_000), Some(MINUTE)),
                (InputTokens, Some(10_000_000), Some(10_000_000), Some(30_000), Some(MINUTE)),
                (OutputTokens, Some(2_000_000), Some(2_000_000), Some(30_000), Some(MINUTE)),
                (Tokens, Some(12_000_000), Some(12_000_000), Some(30_000), Some(MINUTE)),
            ],
        ),
        (
            "Groq, rate-limits page",
            Groq,
            "x-ratelimit-limit-requests: 14400
             x-ratelimit-limit-tokens: 18000
             x-ratelimit-remaining-requests: 14370
             x-ratelimit-remaining-tokens: 17997
             x-ratelimit-reset-requests: 2m59.56s
             x-ratelimit-reset-tokens: 7.66s",
            &[
                (Requests, Some(14_400), Some(14_370), Some(179_560), Some(DAY)),
                (Tokens, Some(18_000), Some(17_997), Some(7_660), Some(MINUTE)),
            ],
        ),
        (
            "Mistral, 2026-08-19",
            Mistral,
            "x-ratelimit-limit-req-minute: 100
             x-ratelimit-remaining-req-minute: 97
             x-ratelimit-limit-tokens-minute: 100000
             x-ratelimit-remaining-tokens-minute: 99511
             x-ratelimit-tokens-query-cost: 112",
            &[
                (Requests, Some(100), Some(97), None, Some(MINUTE)),
                (Tokens, Some(100_000), Some(99_511), None, Some(MINUTE)),
            ],
        ),
        (
            "Mistral, the older spellings",
            Mistral,
            "ratelimitbysize-limit: 500000
             ratelimitbysize-remaining: 499990
             ratelimitbysize-reset: 42
             ratelimitbysize-query-cost: 10
             x-ratelimitbysize-limit-month: 1000000000
             x-ratelimitbysize-remaining-month: 999999990",
            &[
                (Tokens, Some(500_000), Some(499_990), Some(42_000), Some(MINUTE)),
                (Tokens, Some(1_000_000_000), Some(999_999_990), None, Some(31 * DAY)),
            ],
        ),
        ("Gemini", Gemini, "x-gemini-service-tier: standard\nserver-timing: gfet4t7; dur=500", &[]),
        (
            "OpenAI through LiteLLM",
            Openai,
            "x-ratelimit-limit-requests: 500
             x-ratelimit-remaining-requests: 499
             llm_provider-x-ratelimit-limit-requests: 7
             llm_provider-x-ratelimit-reset-requests: 120ms",
            &[(Requests, Some(500), Some(499), Some(120), Some(MINUTE))],
        ),
        (
            "Anthropic through LiteLLM",
            Anthropic,
            "llm_provider-anthropic-ratelimit-requests-limit: 50
             llm_provider-anthropic-ratelimit-requests-remaining: 49",
            &[(Requests, Some(50), Some(49), None, Some(MINUTE))],
        ),
    ];
    for (name, provider, lines, expected) in rows {
        let observation = observe(*provider, &header_map(lines), now());
        let readings: Vec<Row> = observation.readings.iter().map(row).collect();
        assert_eq!(readings, *expected, "{name}");
    }
}

#[test]
fn the_other_headers_are_read_too() {
    let seen = |provider, lines| observe(provider, &header_map(lines), now());
    let mistral = seen(Mistral, "x-ratelimit-tokens-query-cost: 112\nmistral-correlation-id: abc");
    assert_eq!((mistral.query_cost, mistral.request_id.as_deref()), (Some(112), Some("abc")));
    let anthropic = seen(Anthropic, "request-id: req_011\nx-should-retry: false\nretry-after: 10");
    assert_eq!(anthropic.request_id.as_deref(), Some("req_011"));
    assert_eq!((anthropic.should_retry, anthropic.retry_after), (Some(false), Some(10 * SECOND)));
    let azure =
        seen(Azure, "retry-after: 1\nretry-after-ms: 0\nx-should-retry: True\napim-request-id: 1\nx-request-id: 2");
    assert_eq!((azure.should_retry, azure.retry_after), (Some(true), Some(SECOND)));
    assert_eq!(azure.request_id.as_deref(), Some("2"));
    let proxied = seen(Openai, "llm_provider-retry-after: Wed, 19 Aug 2026 15:33:41 GMT");
    assert_eq!(proxied.retry_after, Some(HOUR));
}

#[test]
fn a_response_without_such_headers_tells_nothing() {
    for provider in Provider::ALL {
        let lines = "content-type: application/json\ndate: Wed, 19 Aug 2026 14:33:41 GMT";
        assert_eq!(observe(provider, &header_map(lines), now()), Observation::default(), "{provider}");
    }
}

#[test]
fn rounded_readings_say_so() {
    let lines = "anthropic-ratelimit-input-tokens-remaining: 449000\nanthropic-ratelimit-requests-remaining: 49";
    let observation = observe(Anthropic, &header_map(lines), now());
    let rounding: Vec<_> = observation.readings.iter().map(|reading| (reading.dimension, reading.rounding)).collect();
    assert_eq!(rounding, [(Requests, 0), (InputTokens, 500)]);
}

#[test]
fn a_bare_number_of_seconds_tells_a_window_only_where_a_second_makes_no_difference() {
    let window = |reset: &str, remaining: u64| {
        let lines = format!(
            "x-ratelimit-limit-requests: 100\nx-ratelimit-remaining-requests: {remaining}\nx-ratelimit-reset-requests: {reset}"
        );
        observe(Openai, &header_map(&lines), now()).readings[0].inferred_window()
    };
    assert_eq!([window("3s", 95), window("3", 95), window("30", 50)], [Some(MINUTE), None, Some(MINUTE)]);
}
