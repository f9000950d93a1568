//! What is sent for a line, and what comes back for it.

use serde_json::{Value, json};

use super::world::{Recorder, World, batch, chat};

#[test]
fn metadata_is_carried_to_the_result_and_not_sent() {
    let (world, server) = (World::new(), Recorder::ok());
    let metadata = json!({"row": 7, "tags": ["a", "ü"]});
    let with = |extra: Value| {
        let mut body = chat("x");
        body["metadata"] = metadata.clone();
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    let lines =
        [with(json!({"seed": 1})), with(json!({"seed": 2, "store": false})), with(json!({"seed": 3, "store": true}))];
    world.write("in.jsonl", lines.map(|line| line.to_string()).join("\n"));
    world.run(&format!("run in.jsonl {}", server.at())).expect(0);

    let results = world.results("in.results.jsonl");
    assert!(results.len() == 3 && results.values().all(|result| result["metadata"] == metadata));
    for seen in server.seen() {
        let body: Value = serde_json::from_str(&seen.body).unwrap();
        assert_eq!(body.get("metadata").is_some(), body["store"] == true, "{body}");
    }
}

#[test]
fn bodies_are_sent_as_they_were_written() {
    let (world, server) = (World::new(), Recorder::ok());
    let body = r#"{ "model" : "gpt-4o-mini","messages":[{"role":"user","content":"\u00e9\ud83d\ude00 é"}],  "temperature":1.0, "top_p":1e0, "max_tokens":8, "metadata":{"kept":"yes"} }"#;
    let plain =
        r#"{"messages":[{"content":"a","role":"user"}],"temperature":0.10,"model":"gpt-4o-mini" , "max_tokens":8}"#;
    let cut = r#"{"messages":[{"content":"b","role":"user"}],"metadata":{"a":1},"temperature":0.10,"model":"gpt-4o-mini","max_tokens":8}"#;
    world.write(
        "in.jsonl",
        format!("\u{feff}{{\"custom_id\":\"one\",\"method\":\"POST\",\"url\":\"/v1/chat/completions\",\"body\":{body}}}\r\n\r\n  {plain}\n\n{cut}"),
    );
    world.run(&format!("run in.jsonl {}", server.at())).expect(0);
    let mut sent: Vec<_> = server.seen().into_iter().map(|seen| seen.body).collect();
    sent.sort();
    let mut expected = [body.to_owned(), plain.to_owned(), cut.replace(r#""metadata":{"a":1},"#, "")];
    expected.sort();
    assert_eq!(sent, expected);
}

#[test]
fn every_shape_goes_to_its_endpoint() {
    let (world, server) = (World::new(), Recorder::ok());
    let lines = [
        json!({"model": "gpt-4o-mini", "messages": [], "max_tokens": 1}),
        json!({"model": "text-embedding-3-small", "input": "a"}),
        json!({"model": "gpt-4o-mini", "input": "a", "max_output_tokens": 1}),
        json!({"custom_id": "b", "method": "POST", "url": "/v1/moderations", "body": {"model": "omni-moderation", "input": "a"}}),
    ];
    world.write("in.jsonl", lines.map(|line| line.to_string()).join("\n"));
    world.run(&format!("run in.jsonl {}", server.at())).expect(0);
    let mut paths: Vec<_> = server.seen().into_iter().map(|seen| seen.path).collect();
    paths.sort();
    assert_eq!(paths, ["/v1/chat/completions", "/v1/embeddings", "/v1/moderations", "/v1/responses"]);

    world.run(&format!("run in.jsonl -o two.jsonl --endpoint v1/elsewhere {}", server.at())).expect(0);
    let paths = server.seen().into_iter().skip(4).map(|seen| seen.path);
    assert_eq!(paths.filter(|path| path == "/v1/elsewhere").count(), 3, "all but the one that names its own");
}

#[test]
fn two_equal_lines_are_two_rows() {
    let (world, server) = (World::new(), Recorder::ok());
    let turned = r#"{"max_tokens":8, "messages":[{"content":"same","role":"user"}], "model":"gpt-4o-mini"}"#;
    world.write("in.jsonl", format!("{}\n{turned}\n{}\n", chat("same"), chat("other")));
    world.run(&format!("run in.jsonl {}", server.at())).expect(0);
    assert_eq!((world.results("in.results.jsonl").len(), server.seen().len()), (3, 3));
    // A third one is new, wherever it stands.
    world.write("in.jsonl", format!("{}\n{}\n{turned}\n{}\n", chat("same"), chat("other"), chat("same")));
    world.run(&format!("run in.jsonl {}", server.at())).expect(0);
    assert_eq!((world.results("in.results.jsonl").len(), server.seen().len()), (4, 4));
}

#[test]
fn results_have_the_shape_of_the_batch_api() {
    let (world, server) = (World::new(), Recorder::ok());
    world.write("in.jsonl", batch("my-id").to_string());
    world.run(&format!("run in.jsonl {}", server.at())).expect(0);
    let result = &world.results("in.results.jsonl")["my-id"];
    assert!(result["id"].as_str().unwrap().starts_with("batch_req_"));
    let expected =
        json!({"status_code": 200, "request_id": "req_1", "body": {"object": "chat.completion", "choices": []}});
    assert_eq!((&result["response"], &result["error"]), (&expected, &Value::Null));
    let names: Vec<_> = result.as_object().unwrap().keys().collect();
    assert_eq!(names, ["id", "custom_id", "response", "error"]);
}

#[test]
fn rows_without_a_cap_are_reported_with_what_was_guessed_for_them() {
    let world = World::new();
    let open =
        |text: usize| json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text.to_string()}]});
    world.write("in.jsonl", (0..40).map(|row| format!("{}\n", open(row))).collect::<String>());
    world.run("run in.jsonl --mock --mock-latency 0 --report report.json").expect(0).says("output without a cap");
    let guesses = &world.report()["guesses"];
    assert_eq!(guesses["requests"], 40);
    let each = |name: &str| guesses[name].as_u64().unwrap() / 40;
    assert!(each("used") > 0 && each("predicted") >= each("used"), "{guesses}");
    world.requests("capped.jsonl", 0..2);
    world.run("run capped.jsonl --mock --mock-latency 0 --report report.json").expect(0);
    assert!(world.report()["guesses"].is_null());
}
