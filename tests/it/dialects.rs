//! What the mock says in each provider's dialect is understood as what it means.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tollgate::mock::{Faults, Mock, MockConfig, MockLimits};
use tollgate::providers::{Observation, classify, observe};
use tollgate::{Account, Class, Dimension, Failure, Limit, Provider, Scheduler, Secret};

const KEY: &str = "key-canary-0123456789abcdef";
const DIALECTS: [Provider; 6] =
    [Provider::Openai, Provider::Azure, Provider::Anthropic, Provider::Gemini, Provider::Groq, Provider::Mistral];

/// A provider and a client that shows its key as that provider wants it.
struct World {
    mock: Mock,
    dialect: Provider,
    http: reqwest::Client,
}

struct Answer {
    status: u16,
    told: Observation,
    body: Vec<u8>,
    failure: Failure,
}

impl World {
    async fn new(dialect: Provider, limits: MockLimits, faults: Faults) -> Self {
        let config = MockConfig { dialect, limits, faults, keys: Some(vec![KEY.into()]), ..MockConfig::default() };
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { mock: Mock::start(config).await.unwrap(), dialect, http }
    }

    /// One request of `input` characters with a cap, at the path where the provider serves OpenAI's API.
    async fn ask(&self, key: &str, characters: usize, cap: u64) -> Answer {
        let root = match self.dialect {
            Provider::Gemini => "/v1beta/openai",
            Provider::Groq | Provider::Azure => "/openai/v1",
            _ => "/v1",
        };
        let url = format!("http://{}{root}/chat/completions", self.mock.address());
        let text = "x".repeat(characters);
        let body = json!({"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": cap});
        let auth = self.dialect.auth_headers(Some(&Secret::from(key.to_owned())));
        let response = self.http.post(url).headers(auth).body(body.to_string()).send().await.unwrap();
        let status = response.status().as_u16();
        let told = observe(self.dialect, response.headers(), SystemTime::now());
        let body = response.bytes().await.unwrap().to_vec();
        let failure = classify(self.dialect, status, &told, &body);
        Answer { status, told, body, failure }
    }
}

fn limits(which: &str, amount: u64) -> MockLimits {
    let some = |name: &str| (which == name).then_some(amount);
    let (rpm, rpd, tpm, tpd) = (some("RPM"), some("RPD"), some("TPM"), some("TPD"));
    MockLimits { rpm, rpd, tpm, tpd, itpm: some("ITPM"), otpm: some("OTPM"), ..MockLimits::default() }
}

#[tokio::test]
async fn a_limit_is_named_with_its_number_and_the_wait_by_those_who_tell() {
    use Provider::{Anthropic, Azure, Gemini, Groq, Mistral, Openai};
    // What is refused, by which name and whether with its number, and whether there is a wait.
    let rows = [
        (Openai, "RPM", 2, Some(("RPM", true)), true),
        (Openai, "TPD", 400, Some(("TPD", true)), true),
        (Groq, "RPM", 2, Some(("RPM", true)), true),
        (Groq, "RPD", 2, Some(("RPD", true)), true),
        (Groq, "TPM", 400, Some(("TPM", true)), true),
        (Anthropic, "RPM", 2, Some(("RPM", true)), true),
        (Anthropic, "ITPM", 220, Some(("ITPM", true)), true),
        (Anthropic, "OTPM", 3, Some(("OTPM", true)), true),
        (Azure, "RPM", 2, Some(("requests", false)), true),
        (Azure, "TPM", 400, Some(("TPM", false)), true),
        (Gemini, "RPM", 2, Some(("RPM", true)), true),
        (Gemini, "ITPM", 220, Some(("ITPM", true)), true),
        // Its wait is too short to be true, and is not believed.
        (Gemini, "RPD", 2, Some(("RPD", true)), false),
        (Mistral, "RPM", 2, None, false),
        (Mistral, "TPM", 400, None, false),
    ];
    for (dialect, which, amount, named, waits) in rows {
        let case = format!("{dialect} {which}");
        let world = World::new(dialect, limits(which, amount), Faults::default()).await;
        let mut answer = world.ask(KEY, 400, 80).await;
        assert_eq!(answer.status, 200, "{case}");
        // None of these limits holds more than a few.
        for _ in 0..5 {
            if answer.status == 200 {
                answer = world.ask(KEY, 400, 80).await;
            }
        }
        let Answer { status, failure, body, .. } = answer;
        let body = String::from_utf8_lossy(&body);
        assert_eq!((status, failure.class), (429, Class::RateLimited), "{case}: {body}");
        let hit = failure.limit.as_ref();
        let name = hit.map(|hit| match hit.window {
            Some(window) => Limit::new(hit.dimension, 0, window).name(),
            None => hit.dimension.to_string(),
        });
        assert_eq!(name.as_deref(), named.map(|(name, _)| name), "{case}: {body}");
        let told = hit.and_then(|hit| hit.limit);
        assert_eq!(told, named.filter(|(_, numbered)| *numbered).map(|_| amount), "{case}: {body}");
        assert_eq!(failure.wait.is_some(), waits, "{case}: {:?} {body}", failure.wait);
    }
}

#[tokio::test]
async fn who_waits_as_long_as_was_told_is_let_in() {
    for dialect in [Provider::Openai, Provider::Azure, Provider::Anthropic, Provider::Gemini, Provider::Groq] {
        let world = World::new(dialect, limits("RPM", 60), Faults::default()).await;
        let mut answer = world.ask(KEY, 4, 1).await;
        while answer.status == 200 {
            answer = world.ask(KEY, 4, 1).await;
        }
        let wait = answer.failure.wait.unwrap();
        assert!(wait <= Duration::from_secs(1), "{dialect}: {wait:?}");
        tokio::time::sleep(wait).await;
        assert_eq!(world.ask(KEY, 4, 1).await.status, 200, "{dialect}");
    }
}

#[tokio::test]
async fn headers_show_each_limit_that_the_provider_shows() {
    let all = |dialect| match dialect {
        Provider::Anthropic => {
            MockLimits { rpm: Some(50), itpm: Some(30_000), otpm: Some(8_000), ..MockLimits::default() }
        }
        Provider::Azure | Provider::Mistral => MockLimits { rpm: Some(50), tpm: Some(30_000), ..MockLimits::default() },
        Provider::Gemini => MockLimits { rpm: Some(50), itpm: Some(30_000), ..MockLimits::default() },
        _ => MockLimits { rpm: Some(50), rpd: Some(900), tpm: Some(30_000), ..MockLimits::default() },
    };
    for dialect in DIALECTS {
        let world = World::new(dialect, all(dialect), Faults::default()).await;
        let told = world.ask(KEY, 400, 80).await.told;
        let shown: Vec<_> = told.readings.iter().map(|reading| (reading.dimension, reading.limit.unwrap())).collect();
        let expected: &[(Dimension, u64)] = match dialect {
            Provider::Gemini => &[],
            Provider::Anthropic => &[
                (Dimension::Requests, 50),
                (Dimension::InputTokens, 30_000),
                (Dimension::OutputTokens, 8_000),
                (Dimension::Tokens, 38_000),
            ],
            Provider::Openai | Provider::Groq => &[(Dimension::Requests, 900), (Dimension::Tokens, 30_000)],
            _ => &[(Dimension::Requests, 50), (Dimension::Tokens, 30_000)],
        };
        assert_eq!(shown, expected, "{dialect}");
        assert!(told.readings.iter().all(|reading| reading.remaining <= reading.limit), "{dialect}");
        assert_eq!(told.request_id.is_some(), dialect != Provider::Gemini, "{dialect}");
        assert_eq!(told.query_cost.is_some(), dialect == Provider::Mistral, "{dialect}");
    }
}

#[tokio::test]
async fn other_errors_are_each_providers_own() {
    let playing = |error_503: f64, error_500: f64| Faults { error_503, error_500, ..Faults::default() };
    for dialect in DIALECTS {
        let refused = World::new(dialect, MockLimits::default(), Faults::default()).await.ask("wrong", 4, 1).await;
        assert_eq!(refused.failure.class, Class::Unauthorized, "{dialect}");
        assert_eq!(refused.status, if dialect == Provider::Gemini { 400 } else { 401 }, "{dialect}");
        assert!(!String::from_utf8_lossy(&refused.body).contains("canary"));

        let full = World::new(dialect, MockLimits::default(), playing(1.0, 0.0)).await.ask(KEY, 4, 1).await;
        assert_eq!(full.failure.class, Class::Overloaded, "{dialect}");
        assert_eq!(full.status, if dialect == Provider::Anthropic { 529 } else { 503 }, "{dialect}");

        let broken = World::new(dialect, MockLimits::default(), playing(0.0, 1.0)).await.ask(KEY, 4, 1).await;
        assert_eq!((broken.status, broken.failure.class), (500, Class::ServerError), "{dialect}");
        assert!(serde_json::from_slice::<Value>(&broken.body).is_ok());
    }
    // Larger than the limit itself: no 429 at Groq.
    for (dialect, status) in [(Provider::Openai, 429), (Provider::Groq, 413)] {
        let large = World::new(dialect, limits("TPM", 100), Faults::default()).await.ask(KEY, 4, 500).await;
        assert_eq!((large.status, large.failure.class), (status, Class::TooLarge), "{dialect}");
    }
}

#[tokio::test]
async fn a_deployment_of_azures_is_called_by_the_address_that_its_sdks_use() {
    let config = MockConfig {
        dialect: Provider::Azure,
        keys: Some(vec![KEY.into()]),
        models: [("mine".to_owned(), limits("TPM", 500))].into(),
        ..MockConfig::default()
    };
    let mock = Mock::start(config).await.unwrap();
    let address = format!("http://{}/openai/deployments/mine?api-version=2024-10-21", mock.address());
    let account = Account::new(Provider::Azure).key(KEY).base_url(&address);
    let scheduler = Scheduler::builder().account(account).build().unwrap();
    let chat = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9});
    let reply = scheduler.chat(&chat).await.unwrap();
    assert_eq!(reply.json().unwrap()["model"], "mine");
    let lane = scheduler.lane_of("gpt-4o").status;
    assert!(lane.gates.iter().any(|gate| gate.limit == Limit::tpm(500)), "its limit is the deployment's: {lane:?}");
    scheduler.embeddings(&json!({"model": "m", "input": "Hello"})).await.unwrap();

    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = |url: String, key: &str, body: &Value| {
        let request = http.post(url).header("api-key", key).body(body.to_string());
        async move { request.send().await.unwrap().status().as_u16() }
    };
    let (calls, version) = address.split_once('?').unwrap();
    let nameless = json!({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9});
    for (path, key, status) in [
        (format!("/chat/completions?{version}"), KEY, 200),
        (format!("/chat/completions?{version}"), "wrong", 401),
        ("/chat/completions".to_owned(), KEY, 404),
        (format!("/elsewhere?{version}"), KEY, 404),
    ] {
        assert_eq!(post(format!("{calls}{path}"), key, &nameless).await, status, "{path}");
    }
    let another = Mock::start(MockConfig::default()).await.unwrap();
    let path = format!("http://{}/openai/deployments/mine/chat/completions?{version}", another.address());
    assert_eq!(post(path, KEY, &chat).await, 404, "OpenAI has no deployments");
}
