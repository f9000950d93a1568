//! A small HTTP server that notes what is sent to it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// The value of a header; `name` in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let named = |line: &&str| line.split(':').next().is_some_and(|found| found.eq_ignore_ascii_case(name));
        Some(self.head.lines().find(named)?.split_once(':')?.1.trim())
    }
}

/// Status, more headers, body.
type Answer = (u16, String, String);

pub(crate) struct Receiver {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Receiver {
    /// `answer` is told what was sent and how many were before it; `None` never answers.
    pub(crate) fn start(answer: impl Fn(&Seen, usize) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
        let (noted, answer) = (seen.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (noted, answer) = (noted.clone(), answer.clone());
                std::thread::spawn(move || while serve(stream.as_ref().unwrap(), &noted, &*answer).is_some() {});
            }
        });
        Self { address, seen }
    }

    /// Takes everything.
    pub(crate) fn ok() -> Self {
        Self::start(|_, _| Some((204, String::new(), String::new())))
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// One request; `None` when the connection is over.
fn serve(
    mut stream: &TcpStream,
    noted: &Mutex<Vec<Seen>>,
    answer: &dyn Fn(&Seen, usize) -> Option<Answer>,
) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        reader.read_line(&mut head).ok().filter(|read| *read > 0)?;
    }
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let mut seen = Seen { path, head, body: Vec::new() };
    seen.body = vec![0; seen.header("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut seen.body).ok()?;
    let before = {
        let mut noted = noted.lock().unwrap();
        noted.push(seen.clone());
        noted.len() - 1
    };
    let Some((status, headers, body)) = answer(&seen, before) else {
        // Until the client gives up.
        return stream.read_exact(&mut [0; 1]).ok();
    };
    let length = body.len();
    let answer = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {length}\r\n\r\n{body}");
    stream.write_all(answer.as_bytes()).ok()
}
