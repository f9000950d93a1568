//! Keys: what is said when there is none, and that nothing shows one.

use serde_json::json;

use super::world::{Ended, Recorder, Seen, World, ended};

const CANARY: &str = "sk-canary-0123456789abcdef";

#[test]
fn without_a_key_it_says_what_to_set_and_what_to_type_instead() {
    let world = World::new();
    world.requests("my requests.jsonl", 0..1);
    let mut command = world.tollgate("run");
    command.arg("my requests.jsonl");
    let error = ended(command).expect(2);
    error.says("OPENAI_API_KEY is not set").says("tollgate run 'my requests.jsonl' --mock");
    world.requests("in.jsonl", 0..1);
    world.run("run in.jsonl --provider groq").expect(2).says("GROQ_API_KEY is not set");
    world.run("run in.jsonl --api-key-env MY_KEY").expect(2).says("MY_KEY is not set");
    assert_eq!(world.files(), ["in.jsonl", "my requests.jsonl"]);
}

#[test]
fn a_key_is_sent_to_the_provider_and_shown_nowhere_else() {
    let world = World::new();
    // As careless as a server can be.
    let server = Recorder::start(|seen| match seen.body.contains("fine") {
        true => (200, json!({"you sent": seen.headers}).to_string()),
        false => (
            401,
            json!({"error": {"message": format!("Incorrect API key provided: {}", seen.headers), "code": CANARY}})
                .to_string(),
        ),
    });
    world.write("in.jsonl", format!("{}\n{}\n", super::world::chat("fine"), super::world::chat("wrong")));
    let run = |args: &str| {
        let mut command = world.tollgate(args);
        ended({
            command.env("OPENAI_API_KEY", CANARY);
            command
        })
    };
    let at = server.at();
    let shown: Vec<Ended> = vec![
        run(&format!("run in.jsonl -v --report report.json {at}")).expect(1),
        run(&format!("run in.jsonl -v --retry-failed -o - {at}")).expect(2),
        run(&format!("run in.jsonl -v -o - {at}")).expect(1),
        run("run in.jsonl --mock --mock-latency 0 -o mocked.jsonl").expect(0),
        run("run --help").expect(0),
        run("mock --help").expect(0),
        run("doctor --help").expect(0),
        run(&format!("doctor {}", at.replace("--unlimited", "--json"))),
        run(&format!("run in.jsonl --retry-failed {at}")).expect(1),
    ];
    let seen = server.seen();
    assert!(seen.iter().all(|seen| seen.headers.contains(&format!("authorization: Bearer {CANARY}"))));
    for ended in shown {
        assert!(!ended.out.contains("canary") && !ended.err.contains("canary"), "{ended:#?}");
    }
    for file in world.files() {
        assert!(!world.read(&file).contains("canary"), "{file}");
    }
    assert!(world.results("in.results.jsonl").values().any(|result| result["response"]["status_code"] == 401));
}

#[test]
fn an_answer_that_repeats_the_key_is_kept_without_it() {
    let world = World::new();
    let server = Recorder::start(|seen| (200, json!({"choices": [], "you sent": seen.headers}).to_string()));
    world.requests("in.jsonl", 0..1);
    let mut command = world.tollgate(&format!("run in.jsonl --cache answers --cache-sampled {}", server.at()));
    command.env("OPENAI_API_KEY", CANARY);
    ended(command).expect(0);
    let kept: Vec<_> = std::fs::read_dir(world.path("answers")).unwrap().map(|file| file.unwrap().path()).collect();
    let text: String =
        kept.iter().map(|file| String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned()).collect();
    assert!(text.contains("Bearer ***") && !text.contains("canary"));
}

#[test]
fn the_address_comes_from_the_environment_where_nothing_else_is_said() {
    let (world, server) = (World::new(), Recorder::ok());
    world.requests("in.jsonl", 0..1);
    let mut command = world.tollgate("run in.jsonl");
    command.env("OPENAI_BASE_URL", server.at().split(' ').nth(1).unwrap());
    ended(command).expect(0).says("warning: no --tier and no limits");
    assert_eq!(server.seen().len(), 1);
    let mut command = world.tollgate("run in.jsonl -o other.jsonl");
    command.env("OPENAI_BASE_URL", "localhost:1234");
    ended(command).expect(2).says("OPENAI_BASE_URL");
}

#[test]
fn openai_is_told_the_organisation_and_project_of_the_environment() {
    let (world, server) = (World::new(), Recorder::ok());
    world.requests("in.jsonl", 0..1);
    world.write("tollgate.toml", "[[account]]\norganization = \"org-file\"\n");
    let (url, told) = (server.url(), |seen: &Seen| {
        let headers = seen.headers.to_lowercase();
        let value = |name| Some(headers.split(name).nth(1)?.lines().next()?.to_owned());
        (value("openai-organization: "), value("openai-project: "))
    });
    let of = |organization: &str| (Some(organization.to_owned()), Some("proj_env".to_owned()));
    let doctor = format!("doctor --timeout 30 --model gpt-4o --probe --status-url {url}/status.json");
    for (args, calls, expected) in [
        ("run in.jsonl -o 1.jsonl --provider openai", 1, of("org-env")),
        ("run in.jsonl -o 2.jsonl --config tollgate.toml", 1, of("org-file")),
        ("run in.jsonl -o 3.jsonl --provider groq --api-key-env OPENAI_API_KEY", 1, (None, None)),
        // Another server is none of OpenAI's.
        ("run in.jsonl -o 4.jsonl", 1, (None, None)),
        ("limits --model gpt-4o --probe --provider openai", 1, of("org-env")),
        (&format!("{doctor} --provider openai"), 2, of("org-env")),
    ] {
        let before = server.seen().len();
        let mut command = world.tollgate(&format!("{args} --base-url {url}"));
        command.envs([("OPENAI_API_KEY", CANARY), ("OPENAI_ORG_ID", " org-env\n"), ("OPENAI_PROJECT_ID", "proj_env")]);
        let ended = ended(command);
        let seen = server.seen().split_off(before);
        let (status, api): (Vec<_>, Vec<_>) = seen.iter().partition(|seen| seen.path.contains("status"));
        assert_eq!(api.len(), calls, "{args}: {ended:?}");
        api.iter().for_each(|seen| assert_eq!(told(seen), expected, "{args}"));
        status.iter().for_each(|seen| assert_eq!(told(seen), (None, None), "{args}"));
    }
    for args in ["run in.jsonl -o 5.jsonl", "doctor", "limits --model gpt-4o --probe"] {
        let mut command = world.tollgate(&format!("{args} --provider openai --base-url {url}"));
        command.envs([("OPENAI_API_KEY", CANARY), ("OPENAI_PROJECT_ID", "proj\n1")]);
        let ended = ended(command).expect(2);
        assert!((ended.out + &ended.err).contains("OPENAI_PROJECT_ID holds characters"), "{args}");
    }
}
