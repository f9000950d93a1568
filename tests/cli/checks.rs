//! What is checked before anything is spent.

use serde_json::json;

use super::world::{Recorder, World, batch, chat, ended};

#[test]
fn every_kind_of_invalid_line_is_named_with_its_number() {
    let (world, server) = (World::new(), Recorder::ok());
    let lines: [(&[u8], &str); 10] = [
        (br#"{"model":"m","messages":[}"#, "line 3, column 26: not JSON"),
        (b"[1, 2]", "line 4: expected a JSON object"),
        (b"{\"model\":\"\xff\xfe\"}", "line 5, column 11: not UTF-8"),
        (br#"{"messages":[]}"#, "line 6, model: missing"),
        (br#"{"model":"m"}"#, "line 7: neither `messages` nor `input`"),
        (br#"{"custom_id":"x","method":"POST","url":"/v1/embeddings"}"#, "line 8, body: missing"),
        (br#"{"body":{"model":"m","messages":[]}}"#, "line 9, custom_id: missing"),
        (br#"{"custom_id":"x","method":"GET","body":{"model":"m","messages":[]}}"#, "line 10, method: expected POST"),
        (
            br#"{"custom_id":"first","body":{"model":"m","messages":[]}}"#,
            "line 11, custom_id: \"first\" is the name of an earlier",
        ),
        (br#"{"model":"m","messages":[],"stream":true}"#, "line 12, stream:"),
    ];
    let mut text = format!("{}\n\n", batch("first")).into_bytes();
    for (line, _) in lines {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(b"{\n{\n");
    world.write("in.jsonl", &text);
    let mut ended = world.run(&format!("run in.jsonl {}", server.at())).expect(2);
    for (_, problem) in lines {
        ended = ended.says(problem);
    }
    ended = ended.says("12 lines cannot be sent").says("… and 2 more").says("--skip-invalid");
    assert!(!ended.err.contains("line 13"), "ten are enough: {}", ended.err);
    assert!(server.seen().is_empty(), "nothing was sent");
    assert_eq!(world.files(), ["in.jsonl"], "nothing was left behind");

    world
        .run(&format!("run in.jsonl --skip-invalid --report report.json {}", server.at()))
        .expect(0)
        .says("12 lines cannot be sent and are skipped");
    assert_eq!((server.seen().len(), &world.report()["rows"]["skipped"]), (1, &json!(12)));
}

#[test]
fn a_file_that_is_no_json_lines_at_all_gets_one_hint_of_what_makes_lines_of_it() {
    let (world, server) = (World::new(), Recorder::ok());
    let array = serde_json::to_string_pretty(&[chat("a"), chat("b")]).unwrap();
    let compact = json!([chat("a"), chat("b")]).to_string();
    let object = serde_json::to_string_pretty(&chat("a")).unwrap().replace('\n', "\r\n");
    let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let text = format!("{}\n{}\n", chat("a"), chat("b"));
    let (marked, bare) = (wide(&format!("\u{feff}{text}")), wide(&text));
    let swapped: Vec<_> = marked.chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect();
    for (text, seen, command) in [
        (array.as_bytes(), "looks like one JSON array", "jq -c '.[]' 'my file.json'"),
        (compact.as_bytes(), "looks like one JSON array", "jq -c '.[]' 'my file.json'"),
        (format!("\u{feff}{array}").as_bytes(), "looks like one JSON array", "jq -c '.[]' 'my file.json'"),
        (object.as_bytes(), "looks like JSON over several lines", "jq -c . 'my file.json'"),
        (&marked, "is no UTF-8 but UTF-16", "iconv -f UTF-16 -t UTF-8 'my file.json'"),
        (&swapped, "is no UTF-8 but UTF-16", "iconv -f UTF-16 -t UTF-8 'my file.json'"),
        (&bare, "is no UTF-8 but UTF-16", "iconv -f UTF-16 -t UTF-8 'my file.json'"),
    ] {
        world.write("my file.json", text);
        let mut command_line = world.tollgate(&format!("run {}", server.at()));
        command_line.arg("my file.json");
        let ended = ended(command_line).expect(2).says(&format!("my file.json {seen}")).says(command);
        assert!(!ended.err.contains("line 1"), "one hint is enough: {}", ended.err);
    }
    let mut piped = world.tollgate(&format!("run - {}", server.at()));
    piped.stdin(std::fs::File::open(world.path("my file.json")).unwrap());
    ended(piped).expect(2).says("standard input is no UTF-8 but UTF-16");
    assert!(server.seen().is_empty(), "nothing was sent");
    assert_eq!(world.files(), ["my file.json"], "nothing was left behind");
}

#[test]
fn a_request_larger_than_its_limit_is_refused_before_anything_is_spent() {
    let (world, server) = (World::new(), Recorder::ok());
    let mut large = chat("x");
    large["max_tokens"] = json!(2_000);
    // As long as a limit in bytes, but not in tokens.
    let long = chat(&"word ".repeat(300));
    world.write("in.jsonl", format!("{}\n{long}\n{large}\n", chat("small")));
    let at = server.at().replace("--unlimited", "--tpm 1500");
    world
        .run(&format!("run in.jsonl {at}"))
        .expect(2)
        .says("line 3: the request takes 2,0")
        .says("more than TPM 1,500 can ever let pass");
    assert!(server.seen().is_empty());
    world.run(&format!("run in.jsonl --skip-invalid {at}")).expect(0);
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn an_output_that_cannot_be_written_is_found_before_anything_is_spent() {
    let (world, server) = (World::new(), Recorder::ok());
    world.requests("in.jsonl", 0..2);
    world.write("precious.txt", "not results\n");
    for (args, text) in [
        ("-o nowhere/out.jsonl", "cannot write nowhere/out.jsonl"),
        ("-o .", "cannot write ."),
        ("-o precious.txt", "line 1 of precious.txt is no result of a run"),
        ("-o in.jsonl", "is the input"),
        ("--report nowhere/report.json", "cannot write the report"),
        ("--config nowhere.toml", "cannot read the configuration nowhere.toml"),
        ("--max-concurrent 0", "--max-concurrent"),
        ("--rpm 0", "above 0"),
        ("--timeout x", "number of seconds"),
        ("--mock", "cannot be used with"),
        ("--provider nobody", "unknown provider"),
    ] {
        world.run(&format!("run in.jsonl {} {args}", server.at().replace("--unlimited", ""))).expect(2).says(text);
    }
    world.run("run missing.jsonl --mock").expect(2).says("cannot read missing.jsonl");
    assert!(server.seen().is_empty());
    assert_eq!(world.files(), ["in.jsonl", "precious.txt"]);
    assert_eq!(world.read("precious.txt"), "not results\n");
}

#[test]
fn a_file_that_is_two_things_at_once_is_refused_before_anything_is_spent() {
    let (world, server) = (World::new(), Recorder::ok());
    world.requests("in.jsonl", 0..2);
    world.write("settings.toml", "");
    std::os::unix::fs::symlink("in.jsonl", world.path("link.jsonl")).unwrap();
    std::os::unix::fs::symlink("out.jsonl", world.path("dangling.jsonl")).unwrap();
    std::fs::hard_link(world.path("in.jsonl"), world.path("hard.jsonl")).unwrap();
    let (before, files) = (world.read("in.jsonl"), world.files());
    for (args, text) in [
        ("-o hard.jsonl", "hard.jsonl is the input; results need a file of their own"),
        ("-o link.jsonl", "link.jsonl is the input"),
        ("-o settings.toml --config settings.toml", "settings.toml is the configuration"),
        ("--report in.jsonl", "in.jsonl is the input; the report needs a file of its own"),
        ("--report link.jsonl", "link.jsonl is the input"),
        ("--report settings.toml --config settings.toml", "settings.toml is the configuration"),
        ("--report in.results.jsonl", "in.results.jsonl is the file of results; the report needs"),
        ("-o out.jsonl --report ./out.jsonl", "./out.jsonl is the file of results"),
        ("-o out.jsonl --report dangling.jsonl", "dangling.jsonl is the file of results"),
        ("-o dangling.jsonl --report out.jsonl.journal", "out.jsonl.journal is the journal of the results"),
        ("--learned in.jsonl", "in.jsonl is the input; what is learned needs a file of its own"),
        ("-o out.jsonl --learned out.jsonl", "out.jsonl is the file of results; what is learned"),
        ("--report r.json --learned r.json", "r.json is the report; what is learned"),
        ("-o out.jsonl --cache out.jsonl", "out.jsonl is the file of results; the cache needs a folder"),
        ("--report r --cache r", "r is the report; the cache needs a folder"),
    ] {
        world.run(&format!("run in.jsonl {} {args}", server.at().replace("--unlimited", ""))).expect(2).says(text);
        assert_eq!((world.read("in.jsonl"), world.files()), (before.clone(), files.clone()), "{args}");
    }
    assert!(server.seen().is_empty());
}

#[test]
fn an_empty_input_is_a_job_that_is_done() {
    let world = World::new();
    world.write("in.jsonl", "\n  \n\n");
    world.run("run in.jsonl --mock --report report.json").expect(0);
    assert_eq!(world.report()["rows"]["total"], 0);
}

#[test]
fn a_configuration_file_is_read_and_overridden_by_what_is_typed() {
    let (world, server) = (World::new(), Recorder::ok());
    world.requests("in.jsonl", 0..2);
    let url = server.at().split(' ').nth(1).unwrap().to_owned();
    world.write(
        "tollgate.toml",
        format!("[[account]]\nname = \"ours\"\nbase_url = \"{url}\"\n[account.models.\"gpt-4o-mini\"]\nrpm = 700\ntpm = 9_000\n"),
    );
    world.run("run in.jsonl --config tollgate.toml --rpm 800 --report report.json").expect(0);
    let report = world.report();
    let limits: Vec<_> = report["limits"].as_array().unwrap().iter().map(|limit| &limit["amount"]).collect();
    assert_eq!((limits, &report["limits"][0]["account"]), (vec![&json!(800), &json!(9_000)], &json!("ours")));
    world.write("tollgate.toml", "[[account]]\nrmp = 5\n");
    world.run("run in.jsonl --config tollgate.toml").expect(2).says("rmp");
}
