//! What is wrong with a configuration is told with its place, and no number in it can do harm later.

use std::time::Duration;

use http::HeaderMap;
use tollgate::engine::{Gates, Moment, Source};
use tollgate::{
    Account, Charge, Config, ConfigError, Learned, Limit, Limits, Provider, Request, RetryPolicy, Scheduler, Shape,
};

const MODELS: &str = "[[account]]\n[account.models.\"gpt-4o\"]\n";

#[test]
fn every_setting_that_cannot_hold_is_refused_with_its_file_line_and_field() {
    let rows = [
        (
            "[[account]]\nlimits = { tpm = 5, rpm = 0 }",
            "2:21: account[0].limits.rpm: account openai, model *: RPM is 0",
        ),
        (&format!("{MODELS}max_concurrent = 0"), "3:1: account[0].models.gpt-4o.max_concurrent: "),
        ("[[account]]\ntier = 9", "2:1: account[0].tier: account openai: the tier table has no tier tier9"),
        ("[[account]]\nname = \"a\"\n\n[[account]]\nname = \"a\"", "5:1: account[1].name: two accounts are called a"),
        ("[[account]]\n[[account]]", "2:1: account[1].name: two accounts are called openai"),
        ("[[account]]\nname = \"a\"\ngroup = \"b\"\n[[account]]\nname = \"b\"", "3:1: account[0].group: "),
        ("account = []", "1:1: account: there is no account"),
        (
            "[[fallback]]\nmodel = \"m\"\nroutes = [{ account = \"x\", model = \"y\" }]",
            "3:13: fallback[0].routes[0].account: the fallback of m names the account x",
        ),
        ("[[fallback]]\nmodel = \"m\"\nroutes = []", "3:1: fallback[0].routes: "),
        ("max_waiting = 5\noutput_quantile = 2.0", "2:1: output_quantile: output_quantile is 2; "),
        (
            "[[account]]\n[account.pools]\na = [\"x\", \"y\"]\nb = [\"y\"]",
            "4:1: account[0].pools.b: account openai: y is in two pools",
        ),
        (
            &format!("{MODELS}rpm = 5\ntpm = 9\n[account.models.\"gpt-4o-2024-08-06\"]\nrpm = 5\ntpm = 8"),
            "7:1: account[0].models.gpt-4o-2024-08-06.tpm: account openai: gpt-4o-2024-08-06 and gpt-4o share their limits",
        ),
        ("[tenants]\na = 0", "2:1: tenants.a: tenant a has 0 turns"),
        ("[retry]\nmax_attempts = 0", "2:1: retry.max_attempts: "),
        ("timeout = 0", "1:1: timeout: timeout is 0"),
        ("byte_timeout = 0", "1:1: byte_timeout: "),
        ("connect_timeout = 0.0", "1:1: connect_timeout: "),
        ("[[account]]\nkeys = [\"canary\", \"\"]", "2:19: account[0].keys[1]: account openai: key 1 is empty"),
        ("[[account]]\nkeys = [\" \"]", "2:9: account[0].keys[0]: "),
        ("[[account]]\nbase_url = \"canary\"", "2:1: account[0].base_url: account openai: base_url is no address"),
        ("[[account]]\nbase_url = \"ftp://canary\"", "2:1: account[0].base_url: "),
        ("[[account]]\nbase_url = \"https://can ary\"", "2:1: account[0].base_url: "),
        ("[[account]]\norganization = \"a\\nb\"", "2:1: account[0].organization: "),
        // What the types find has no name, but stands there.
        ("[[account]]\ntier = 1.5", "2:8: expected a tier: its number, or its name in quotes"),
        ("[[account]]\nkeys = [\"canary\", 5]", "2:8: expected a key: { env = \"NAME\" }, or the key itself in quotes"),
        ("[[account]]\nlimits = { rpm = 5, shape = \"slice:1e19\" }", "2:29: unknown shape `slice:1e19`; expected "),
        ("ageing = 1e19", "1:10: too long; expected at most 315360000 seconds"),
        ("[retry]\nbase = 1e300", "2:8: "),
    ];
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut wrong = Vec::new();
    for (text, expected) in rows {
        std::fs::write(file.path(), text).unwrap();
        let shown = Config::from_file(file.path()).unwrap_err().to_string();
        assert!(!shown.contains("canary") && !shown.contains("Form"), "{shown}");
        assert!(Config::from_toml(text).unwrap_err().to_string().starts_with("configuration:"));
        let told = shown.strip_prefix(&format!("{}:", file.path().display())).unwrap_or(&shown).to_owned();
        if !told.starts_with(expected) {
            wrong.push((told, expected));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_set_in_code_is_refused_by_its_kind() {
    let built = |account: Account| Scheduler::builder().account(account).build().unwrap_err();
    assert!(matches!(built(Account::openai().key("one").key("")), ConfigError::EmptyKey { key: 1, .. }));
    assert!(matches!(built(Account::openai().base_url("localhost:8080")), ConfigError::BadAddress { .. }));
    let config = Config { timeout: Duration::ZERO, ..Config::default() };
    assert!(matches!(Scheduler::from_config(config), Err(ConfigError::NoTime { field: "timeout" })));
}

#[test]
fn addresses_of_every_kind_are_taken() {
    for url in [
        "https://api.openai.com/v1",
        " HTTP://localhost:8080/ ",
        "http://[::1]:80",
        "https://u:p@h/v1?api-version=2",
        "https://bücher.example",
    ] {
        assert!(Scheduler::builder().account(Account::openai().base_url(url)).build().is_ok(), "{url}");
    }
}

#[tokio::test(start_paused = true)]
async fn durations_without_end_harm_nobody() {
    let for_ever = Duration::MAX;
    let config = Config {
        accounts: vec![Account::openai().limits(Limits {
            rpm: Some(60),
            tpm: Some(60_000),
            rpd: Some(1_000),
            request_shape: Some(Shape::Slice(for_ever)),
            ..Limits::default()
        })],
        retry: RetryPolicy { base: Duration::from_secs(1), cap: for_ever, ..RetryPolicy::default() },
        jitter_margin: for_ever,
        ageing: for_ever,
        outage_patience: for_ever,
        timeout: for_ever,
        byte_timeout: for_ever,
        connect_timeout: for_ever,
        ..Config::default()
    };
    let scheduler = Scheduler::from_config(config).unwrap();
    for status in [429, 503, 200] {
        let call = |attempt: tollgate::Attempt| async move {
            attempt.answer(if attempt.number() == 1 { status } else { 200 }, &HeaderMap::new());
            if attempt.number() == 1 && status != 200 { Err("failed") } else { Ok(()) }
        };
        scheduler.submit(Request::tokens("m", 1, 1).max_wait(for_ever), call).await.unwrap();
    }
    scheduler.snapshot();
}

#[test]
fn slices_and_margins_without_end_are_bounded_by_the_gates() {
    let now = Moment::START;
    let mut gates = Gates::new(Provider::Compatible, Duration::MAX);
    let limit = Limit::rpm(60).shaped(Shape::Slice(Duration::MAX));
    gates.set(&[(limit, Source::Configured)], now);
    gates.recall(Limit::rpm(60), true, &[Shape::Slice(Duration::MAX)], &[], &[], now);
    let charge = Charge::tokens(1, 1);
    gates.reserve(&charge, now).unwrap();
    gates.block(Some(limit.into()), &charge, &Charge::default(), Duration::from_secs(1), now);
    assert!(gates.wait(&charge, now).is_some());
}

#[test]
fn a_learned_file_with_a_slice_that_cannot_be_is_refused_with_its_place() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let limits = Limits { rpm: Some(60), ..Limits::default() };
    let scheduler = Scheduler::builder().account(Account::openai().limits(limits)).build().unwrap();
    scheduler.lane_of("m");
    scheduler.learned().save(file.path()).unwrap();
    let text = std::fs::read_to_string(file.path()).unwrap();
    assert!(Learned::load(file.path()).is_ok() && text.contains("\"refill\""));
    for wrong in ["slice:1e19", "slice:86401", "slice:0"] {
        std::fs::write(file.path(), text.replace("refill", wrong)).unwrap();
        let error = Learned::load(file.path()).unwrap_err();
        let line = text.lines().position(|line| line.contains("refill")).unwrap() + 1;
        // Where the list goes on.
        assert!(error.to_string().contains(&format!(":{}:", line + 1)), "{line}: {error}");
    }
}
