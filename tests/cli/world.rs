//! A folder, the program in it, and servers for it to talk to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tollgate::mock::{Mock, MockConfig, Stats};

/// Longer than anything takes here, on a slow machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder for one test.
pub(crate) struct World(TempDir);

impl World {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// The names of all files, sorted.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The program in this folder, without what the environment may say about providers.
    pub(crate) fn tollgate(&self, args: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.current_dir(self.0.path()).args(args.split_whitespace()).stdin(Stdio::null());
        for variable in ["OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "GROQ_API_KEY"] {
            command.env_remove(variable);
        }
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, args: &str) -> Ended {
        ended(self.tollgate(args))
    }

    /// Starts it, to be waited for or killed.
    pub(crate) fn start(&self, args: &str) -> Running {
        let mut command = self.tollgate(args);
        Running(Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()))
    }

    /// The results by their `custom_id`; each may be there once only.
    pub(crate) fn results(&self, name: &str) -> BTreeMap<String, Value> {
        results(&self.read(name))
    }

    pub(crate) fn report(&self) -> Value {
        serde_json::from_str(&self.read("report.json")).unwrap()
    }

    /// A file of plain chat requests, told apart by their text.
    pub(crate) fn requests(&self, name: &str, rows: impl IntoIterator<Item = usize>) {
        let lines: String = rows.into_iter().map(|row| format!("{}\n", chat(&format!("question {row}")))).collect();
        self.write(name, lines);
    }
}

pub(crate) fn chat(text: &str) -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}], "max_tokens": 8})
}

pub(crate) fn batch(id: &str) -> Value {
    json!({"custom_id": id, "method": "POST", "url": "/v1/chat/completions", "body": chat(id)})
}

pub(crate) fn results(text: &str) -> BTreeMap<String, Value> {
    let mut results = BTreeMap::new();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line has an end");
    for line in text.lines() {
        let result: Value = serde_json::from_str(line).unwrap();
        let id = result["custom_id"].as_str().unwrap().to_owned();
        assert!(results.insert(id.clone(), result).is_none(), "{id} has one result");
    }
    results
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ended {
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// That the error output says this.
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "missing: {text}\nin: {}", self.err);
        self
    }
}

pub(crate) fn ended(mut command: Command) -> Ended {
    command.output().unwrap().into()
}

/// A running program, killed with the test.
pub(crate) struct Running(Option<Child>);

impl Running {
    pub(crate) fn of(child: Child) -> Self {
        Self(Some(child))
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    pub(crate) fn signal(&mut self, name: &str) {
        let id = self.child().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    pub(crate) fn kill(mut self) {
        self.child().kill().unwrap();
        self.child().wait().unwrap();
    }

    pub(crate) fn wait(mut self) -> Ended {
        self.0.take().unwrap().wait_with_output().unwrap().into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until it is so.
pub(crate) fn until(what: &str, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < PATIENCE, "waited too long until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The mock, in this process.
pub(crate) struct Server {
    mock: Mock,
    _runtime: Runtime,
}

impl Server {
    pub(crate) fn start(config: MockConfig) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mock = runtime.block_on(Mock::start(config)).unwrap();
        Self { mock, _runtime: runtime }
    }

    pub(crate) fn slow(latency: f64) -> Self {
        let latency = tollgate::mock::Latency::about(Duration::from_secs_f64(latency));
        Self::start(MockConfig { latency, ..MockConfig::default() })
    }

    pub(crate) fn stats(&self) -> Stats {
        self.mock.stats()
    }

    pub(crate) fn url(&self) -> String {
        self.mock.url()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.mock.address()
    }

    /// The option that leads there.
    pub(crate) fn at(&self) -> String {
        format!("--base-url {} --unlimited", self.mock.url())
    }
}

/// A server that notes what is sent to it and answers all the same.
pub(crate) struct Recorder {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Recorder {
    /// `answer` makes status and body from what was sent.
    pub(crate) fn start(answer: impl Fn(&Seen) -> (u16, String) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let (noted, answer) = (seen.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (noted, answer) = (noted.clone(), answer.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &noted, &*answer));
            }
        });
        Self { address, seen }
    }

    pub(crate) fn ok() -> Self {
        Self::start(|_| (200, r#"{"object": "chat.completion", "choices": []}"#.to_owned()))
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    pub(crate) fn at(&self) -> String {
        format!("--base-url {} --unlimited", self.url())
    }
}

fn serve(stream: TcpStream, noted: &Mutex<Vec<Seen>>, answer: &dyn Fn(&Seen) -> (u16, String)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let lower = head.to_lowercase();
        let length = lower.split("content-length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or("0");
        let mut body = vec![0; length.trim().parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let seen = Seen { path, headers: head, body: String::from_utf8(body).unwrap() };
        let (status, body) = answer(&seen);
        noted.lock().unwrap().push(seen);
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nx-request-id: req_1\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if (&stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
