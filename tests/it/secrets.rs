//! A key is shown to the provider and to nobody else.

use tollgate::{Account, Attempt, Config, Request, Scheduler};

const CANARY: &str = "sk-canary-0123456789abcdef";

#[tokio::test]
async fn a_key_shows_in_no_debug_output() {
    let account = Account::openai().key(CANARY);
    let config = Config::from_toml(&format!("[[account]]\nkeys = [\"{CANARY}\"]")).unwrap();
    let scheduler = Scheduler::builder().account(account.clone()).build().unwrap();
    let call = |attempt: Attempt| async move {
        assert_eq!(attempt.key().unwrap().expose(), CANARY, "the call itself has it");
        Ok::<_, std::io::Error>(format!("{attempt:?}"))
    };
    let attempt = scheduler.submit(Request::tokens("m", 1, 1), call).await.unwrap();
    let permit = scheduler.acquire(Request::tokens("m", 1, 1)).await.unwrap();
    let shown = [
        attempt,
        format!("{account:?} {config:?} {scheduler:?} {permit:?} {:?}", Scheduler::builder().account(account.clone())),
        serde_json::to_string(&scheduler.snapshot()).unwrap(),
    ];
    for text in shown {
        assert!(!text.contains("canary"), "{text}");
    }
}

#[tokio::test]
async fn what_may_be_a_secret_in_an_address_shows_in_no_debug_output() {
    let url = "https://me:canary@gateway.example/canary/v1?key=canary";
    let text = format!("[[account]]\nbase_url = \"{url}\"\n[watch.status_urls]\nopenai = \"{url}\"");
    let config = Config::from_toml(if cfg!(feature = "client") { &text } else { text.split("[watch").next().unwrap() });
    let config = config.unwrap();
    let scheduler = Scheduler::from_config(config.clone()).unwrap();
    let permit = scheduler.acquire(Request::tokens("m", 1, 1)).await.unwrap();
    let builder = Scheduler::builder().account(config.accounts[0].clone());
    let shown = format!("{config:?} {:?} {scheduler:?} {permit:?} {builder:?}", config.accounts[0]);
    assert!(shown.contains("https://gateway.example") && !shown.contains("canary"), "{shown}");
}

#[test]
fn a_broken_configuration_does_not_quote_its_keys_and_names_the_place() {
    for line in
        ["keys = [{ env = 1, oops = \"CANARY\" }]", "keys = \"CANARY\"", "keys = [\"CANARY\", 5]", "keys = [\"CANARY"]
    {
        let text = format!("[[account]]\n{}", line.replace("CANARY", CANARY));
        let error = Config::from_toml(&text).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("configuration:2:"), "{shown}");
    }
}
