//! A key is shown to the provider and to nobody else.

use tollgate::{Account, Attempt, Config, Request, Scheduler};

const CANARY: &str = "sk-canary-0123456789abcdef";

#[tokio::test]
async fn a_key_shows_in_no_debug_output() {
    let account = Account::openai().key(CANARY);
    let config = Config::from_toml(&format!("[[account]]\nkeys = [{{ value = \"{CANARY}\" }}]")).unwrap();
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

#[test]
fn a_broken_configuration_does_not_quote_its_keys() {
    let text = format!("[[account]]\nkeys = [{{ value = \"{CANARY}\", oops = 1 }}]");
    let error = Config::from_toml(&text).unwrap_err();
    let mut shown = format!("{error} {error:?}");
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        shown += &format!(" {error} {error:?}");
        cause = error.source();
    }
    assert!(!shown.contains("canary"), "{shown}");
    assert!(shown.contains("line 2"), "{shown}");
}
