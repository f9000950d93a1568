//! `tollgate doctor`: set-ups that are broken in one way each.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tollgate::mock::{MockConfig, MockLimits, NamedError};

use super::world::{Ended, Server, World};

const CANARY: &str = "sk-canary-0123456789abcdef";
const LONGEST: Duration = Duration::from_secs(10);

// Exit codes, as `--help` lists them.
const HEALTHY: i32 = 0;
const UNCLEAR: i32 = 1;
const SETTINGS: i32 = 2;
const PROVIDER: i32 = 10;
const KEY: i32 = 11;
const LIMITS: i32 = 12;
const BILLING: i32 = 13;
const NETWORK: i32 = 14;
const CLOCK: i32 = 15;
const REQUEST: i32 = 16;

/// An examination with the canary as the key, without proxies.
fn doctor(args: &str, environment: &[(&str, &str)]) -> Ended {
    let world = World::new();
    let mut command = world.tollgate("doctor");
    command.args(args.split_whitespace()).env("OPENAI_API_KEY", CANARY);
    for variable in
        ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"]
    {
        command.env_remove(variable);
    }
    command.envs(environment.iter().copied());
    let began = Instant::now();
    let ended = super::world::ended(command);
    assert!(began.elapsed() <= LONGEST, "{args} took {:?}", began.elapsed());
    assert!(!ended.out.contains("canary") && !ended.err.contains("canary"), "the key is shown: {ended:#?}");
    ended
}

/// That the verdict is this, and its sentence says that.
fn told(ended: Ended, code: i32, verdict: &str, sentence: &str) {
    let ended = ended.expect(code);
    let last = ended.out.lines().last().unwrap_or_default();
    assert!(last.starts_with(&format!("verdict: {verdict}")) && last.contains(sentence), "{}", ended.out);
}

/// Options for the mock as OpenAI, status page included.
fn at(server: &Server) -> String {
    let url = server.url();
    format!(
        "--provider openai --base-url {url} --status-url {}/status/api/v2/summary.json",
        url.trim_end_matches("/v1")
    )
}

fn failing(name: &str) -> Server {
    let error: NamedError = name.parse().unwrap();
    Server::start(MockConfig { error: Some(error), ..MockConfig::default() })
}

/// A port that nobody listens on.
fn nowhere() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

const NO_MODELS: &str = r#"{"object": "list", "data": []}"#;

/// A server that answers everything with this head and body.
fn answering(head: &'static str, body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // The first connection only shows that there can be one.
            if stream.read(&mut [0; 4_096]).unwrap_or(0) > 0 {
                let _ = write!(stream, "HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            }
        }
    });
    address
}

#[test]
fn a_healthy_account_is_healthy_and_what_was_not_looked_at_is_said() {
    let limits = MockLimits { rpm: Some(500), tpm: Some(30_000), ..MockLimits::default() };
    let server = Server::start(MockConfig { limits, ..MockConfig::default() });
    told(doctor(&at(&server), &[]), HEALTHY, "nothing is wrong", "not looked at: billing, limits");
    assert_eq!(server.stats().requests, 0, "without --probe nothing is sent that costs money");
    let probed = doctor(&format!("{} --model gpt-4o --tier 1 --probe", at(&server)), &[]);
    assert!(probed.out.contains("those of tier1"), "{}", probed.out);
    told(probed, HEALTHY, "nothing is wrong", "that these checks can see");
    assert_eq!(server.stats().requests, 1);
}

#[test]
fn a_wrong_key_is_the_key() {
    let server = Server::start(MockConfig { keys: Some(vec!["sk-another".into()]), ..MockConfig::default() });
    told(doctor(&at(&server), &[]), KEY, "the key", "refuses OPENAI_API_KEY");
    let wrong = doctor(&at(&server), &[("OPENAI_API_KEY", "gsk_canary0123456789")]);
    told(wrong, KEY, "the key", "(it looks like a key of groq)");
}

#[test]
fn no_key_is_the_key() {
    let server = Server::start(MockConfig::default());
    told(doctor(&at(&server), &[("OPENAI_API_KEY", "")]), KEY, "the key", "export OPENAI_API_KEY=…");
    let far = doctor("--base-url http://api.example.invalid/v1 --api-key-env MY_KEY", &[]);
    told(far, KEY, "the key", "export MY_KEY=…");
}

#[test]
fn no_credit_is_billing() {
    let server = failing("insufficient_quota");
    let probed = doctor(&format!("{} --model gpt-4o-mini --probe", at(&server)), &[]);
    told(probed, BILLING, "billing", "429 insufficient_quota: You exceeded your current quota");
}

#[test]
fn a_clock_that_is_off_is_the_clock() {
    let address = answering("200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT", NO_MODELS);
    told(doctor(&format!("--base-url http://{address}/v1"), &[]), CLOCK, "the clock", "ahead of the provider's");
}

#[test]
fn a_name_without_an_address_is_the_network() {
    let ended = doctor("--base-url http://api.example.invalid/v1", &[]);
    told(ended, NETWORK, "the network", "api.example.invalid cannot be looked up");
}

#[test]
fn a_refused_connection_is_the_network() {
    told(doctor(&format!("--base-url http://{}/v1", nowhere()), &[]), NETWORK, "the network", "takes no connection");
}

#[test]
fn a_server_that_speaks_no_tls_is_the_network() {
    let address = answering("200 OK", NO_MODELS);
    told(doctor(&format!("--base-url https://{address}/v1"), &[]), NETWORK, "the network", "no secure");
}

#[test]
fn a_proxy_that_leads_nowhere_is_the_network() {
    let proxy = format!("http://user:canary@{}", nowhere());
    for base in ["http://api.example.invalid/v1", "https://api.openai.com/v1"] {
        let ended = doctor(&format!("--base-url {base}"), &[("http_proxy", &proxy), ("https_proxy", &proxy)]);
        told(ended, NETWORK, "the network", "the proxy 127.0.0.1");
    }
}

#[test]
fn limits_lower_than_configured_are_the_limits() {
    let limits = MockLimits { rpm: Some(500), tpm: Some(30_000), ..MockLimits::default() };
    let server = Server::start(MockConfig { limits, ..MockConfig::default() });
    let probed = doctor(&format!("{} --model gpt-4o --probe --tpm 200k", at(&server)), &[]);
    told(probed, LIMITS, "the limits", "TPM 200,000 is configured and the account has");
    let tier = doctor(&format!("{} --model gpt-4o --probe --tier 2", at(&server)), &[]);
    told(tier, LIMITS, "the limits", "is configured");
}

#[test]
fn an_incident_on_the_status_page_is_the_provider() {
    let incident = Some("Elevated error rates".to_owned());
    let server = Server::start(MockConfig { incident, ..MockConfig::default() });
    told(doctor(&at(&server), &[]), PROVIDER, "the provider", "“Elevated error rates”, affected: Chat Completions");
    let other = doctor(&format!("{} --model text-embedding-3-small", at(&server)), &[]);
    told(other, HEALTHY, "nothing is wrong", "");
    // Where the API itself cannot be reached meanwhile, nobody's line is to blame.
    let at =
        at(&server).replace(&format!("--base-url {}", server.url()), &format!("--base-url http://{}/v1", nowhere()));
    told(doctor(&at, &[]), PROVIDER, "the provider", "Elevated error rates");
}

#[test]
fn a_503_is_the_provider() {
    let server = failing("server_is_overloaded");
    told(doctor(&at(&server), &[]), PROVIDER, "the provider", "503 server_is_overloaded");
}

#[test]
fn a_server_that_hangs_is_the_provider() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    told(doctor(&format!("--base-url http://{address}/v1"), &[]), PROVIDER, "the provider", "does not answer in time");
}

#[test]
fn a_model_that_the_account_has_not_is_the_request() {
    let server = Server::start(MockConfig::default());
    let ended = doctor(&format!("{} --model gpt-4o-minii", at(&server)), &[]);
    told(ended, REQUEST, "your request", "no model gpt-4o-minii; the nearest are gpt-4o-mini");
}

#[test]
fn an_address_where_something_else_answers_is_the_settings() {
    for (head, body) in [("200 OK", "<html>Welcome</html>"), ("307 X\r\nlocation: https://example.invalid", NO_MODELS)]
    {
        let ended = doctor(&format!("--base-url http://{}/v1", answering(head, body)), &[]);
        told(ended, SETTINGS, "your settings", "is no LLM API");
    }
    let strange = doctor(&format!("--base-url http://{}/v1", answering("400 X", "what?")), &[]);
    told(strange, UNCLEAR, "not clear", "see above: answer");
}

#[test]
fn settings_that_are_wrong_are_said_before_anything_is_asked() {
    for (args, sentence) in [
        ("--tier 77", "no tier"),
        ("--provider azure", "--base-url"),
        ("--base-url localhost:80", "no address"),
        ("--config nowhere.toml", "cannot read the configuration"),
    ] {
        told(doctor(args, &[]), SETTINGS, "your settings", sentence);
    }
    doctor("--probe", &[]).expect(2).says("--model");
}

#[test]
fn a_pasted_error_is_explained() {
    let explain = |error: &str, options: &str| {
        let world = World::new();
        let mut command = world.tollgate("doctor");
        command.args(["--explain", error]).args(options.split_whitespace());
        super::world::ended(command)
    };
    let too_large = "Error code: 429 - {'error': {'message': 'Request too large for gpt-4o in organization org-1 on tokens per \
                     min (TPM): Limit 30000, Requested 40000. The input or output tokens must be reduced in order to run \
                     successfully.', 'type': 'tokens', 'param': None, 'code': 'rate_limit_exceeded'}}";
    told(explain(too_large, ""), REQUEST, "your request", "takes 40000 tokens and TPM 30000 can never let it pass");
    let quota = r#"{"error": {"message": "x", "type": "insufficient_quota", "code": "insufficient_quota"}}"#;
    told(explain(quota, ""), BILLING, "billing", "waiting will not help");
    let anthropic = "HTTP/1.1 429 Too Many Requests\r\nretry-after: 17\r\nrequest-id: req_1\r\n\r\n\
                     {\"type\": \"error\", \"error\": {\"type\": \"rate_limit_error\", \"message\": \"This request would exceed \
                     your organization's rate limit of 30,000 input tokens per minute\"}}";
    let ended = explain(anthropic, "");
    assert!(ended.out.contains("req_1") && ended.out.contains("from anthropic"), "{}", ended.out);
    told(ended, LIMITS, "the limits", "ITPM 30000 is reached; send again in 17.0s");
    let key = format!(r#"{{"detail": "Unauthorized: Bearer {CANARY}"}}"#);
    told(explain(&key, ""), UNCLEAR, "not clear", "--status N");
    let ended = explain(&key, "--status 401 --json").expect(KEY);
    assert!(!ended.out.contains("canary"));
    let json: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(
        (&json["verdict"], &json["about"]["retry"], &json["exit_code"]),
        (&"key".into(), &"never".into(), &KEY.into())
    );
}

#[test]
fn an_error_is_read_from_a_file_and_from_standard_input() {
    let world = World::new();
    let body = r#"{"error": {"code": 503, "status": "UNAVAILABLE", "message": "The model is overloaded."}}"#;
    world.write("error.json", body);
    told(world.run("doctor --explain error.json"), PROVIDER, "the provider", "overloaded");
    let mut command = world.tollgate("doctor --explain -");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    told(child.wait_with_output().unwrap().into(), PROVIDER, "the provider", "overloaded");
}

#[test]
fn json_tells_the_same() {
    let server = failing("server_error");
    let ended = doctor(&format!("{} --json", at(&server)), &[]).expect(PROVIDER);
    let json: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((&json["verdict"], &json["about"]["provider"]), (&"provider".into(), &"openai".into()));
    let checks: Vec<_> =
        json["checks"].as_array().unwrap().iter().map(|check| check["check"].as_str().unwrap()).collect();
    assert_eq!(
        checks,
        [
            "configuration",
            "key set",
            "proxy",
            "dns",
            "connection",
            "answer",
            "clock",
            "key",
            "billing",
            "limits",
            "status page"
        ]
    );
}
