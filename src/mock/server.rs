//! The sockets: accepting, routing, and one request's way through the gate.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::answer::{self, Answer};
use super::ask::{Ask, Endpoint};
use super::body::Body;
use super::config::{MockConfig, MockLimits, Stamp};
use super::dialect;
use super::gate::{Entry, Gate, Job};
use super::headers::text;
use super::luck::{Fault, Luck};
use super::named::NamedError;
use super::refuse::{self, Problem};
use super::shown::Standing;
use super::stats::Stats;
use super::status;
use crate::providers::Provider;

/// The largest body that is read; OpenAI's own limit for images is 512 MB, which no test needs.
const LARGEST_BODY: usize = 64 << 20;

/// A running mock provider. Dropping it stops the server and closes its connections.
///
/// See the [module's documentation](crate::mock) for what it does.
pub struct Mock {
    gate: Arc<Gate>,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl fmt::Debug for Mock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mock").field("url", &self.url()).finish_non_exhaustive()
    }
}

impl Mock {
    /// Starts to listen, and serves on the current tokio runtime, which must have I/O and time enabled.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on, or (`InvalidInput`) when the settings make no sense.
    pub async fn start(config: MockConfig) -> io::Result<Self> {
        if let Some(problem) = config.problem() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
        }
        let listener = TcpListener::bind(config.listen).await?;
        let address = listener.local_addr()?;
        let gate = Arc::new(Gate::new(config));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(accept(listener, Arc::clone(&gate), stopped));
        Ok(Self { gate, address, stop, task })
    }

    /// The base URL for clients, ending in `/v1`. A mock that listens on all interfaces gives its loopback address.
    pub fn url(&self) -> String {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("http://{}/v1", SocketAddr::new(ip, self.address.port()))
    }

    /// Where it listens; the port is the real one.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it saw so far.
    pub fn stats(&self) -> Stats {
        self.gate.stats()
    }

    /// Sets other limits, from now on. What was used stays used.
    pub fn set_limits(&self, limits: MockLimits) {
        self.gate.set_limits(limits);
    }

    /// Stops listening, closes all connections whatever they are doing, and says what it saw.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the server still stops, but nobody waits for it; the figures are lost.
    pub async fn shutdown(self) -> Stats {
        let Self { gate, address: _, stop, task } = self;
        drop(stop);
        // An error would be a panic in the accepting task, or a runtime that is going down: it has stopped either way.
        let _ = task.await;
        gate.stats()
    }

    /// Serves until `stop` completes, then shuts down and says what it saw: the body of a program's `main`.
    ///
    /// # Cancel safety
    ///
    /// When dropped, the server stops; the figures are lost.
    pub async fn serve_until(self, stop: impl Future<Output = ()>) -> Stats {
        stop.await;
        self.shutdown().await
    }
}

/// Accepts connections until told to stop, or until the `Mock` is dropped; either closes the channel. The connections
/// end with it.
async fn accept(listener: TcpListener, gate: Arc<Gate>, mut stopped: oneshot::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = poll_fn(|cx| {
            if Pin::new(&mut stopped).poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            // Forget the finished ones; this also registers for the next to finish.
            while let Poll::Ready(Some(_)) = connections.poll_join_next(cx) {}
            listener.poll_accept(cx).map(Some)
        });
        match accepted.await {
            None => break,
            Some(Ok((stream, _))) => {
                connections.spawn(connection(stream, Arc::clone(&gate)));
            }
            // Out of file descriptors, most likely: asking again at once would spin.
            Some(Err(_)) => sleep(Duration::from_millis(10)).await,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn connection(stream: TcpStream, gate: Arc<Gate>) {
    // Small answers to waiting clients: Nagle's algorithm would hold them back. Harmless where it fails.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let gate = Arc::clone(&gate);
        async move { handle(&gate, request).await }
    });
    // An error is a client that went away or a played reset; dropping the connection closes the socket.
    let _ = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service)).await;
}

/// No answer: the connection is to be closed.
#[derive(Debug)]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is closed without a response")
    }
}

impl std::error::Error for Closed {}

async fn handle(gate: &Arc<Gate>, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
    let began = gate.clock.now();
    let (parts, body) = request.into_parts();
    // Read to the end before any answer, even a refusal: an unread rest would make the connection unusable.
    let body = match Limited::new(body, LARGEST_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            gate.count_invalid();
            return Ok(gate.problem(&refuse::body_too_long(), began, None));
        }
        Err(_) => return Err(Closed),
    };
    let path = parts.uri.path();
    let below_root = path.strip_prefix(dialect::root(gate.config.dialect)).filter(|rest| rest.starts_with('/'));
    let deployment = dialect::deployment(gate.config.dialect, &parts.uri);
    let path = &match (deployment, below_root) {
        (Some((_, call)), _) => format!("/v1/{call}"),
        (None, Some(rest)) => format!("/v1{rest}"),
        (None, None) => path.to_owned(),
    };
    let model = path.strip_prefix("/v1/models/").filter(|name| !name.is_empty());
    let endpoint = match (path.as_str(), &parts.method) {
        ("/v1/chat/completions", &Method::POST) => Endpoint::Chat,
        ("/v1/responses", &Method::POST) => Endpoint::Responses,
        ("/v1/embeddings", &Method::POST) => Endpoint::Embeddings,
        ("/stats" | "/v1/stats", &Method::GET) => {
            let body = Body::whole(answer::bytes(&gate.stats()));
            return Ok(gate.reply(StatusCode::OK, body, began, None));
        }
        ("/status/api/v2/summary.json", &Method::GET) => {
            let body = Body::whole(status::summary(gate.config.incident.as_deref()));
            return Ok(gate.reply(StatusCode::OK, body, began, None));
        }
        (path, &Method::GET) if path == "/v1/models" || model.is_some() => {
            let answer = model.map_or_else(answer::models, answer::model);
            return Ok(match key_of(gate, &parts.headers) {
                Ok(_) => match gate.config.error.filter(|error| error.hits_free_calls()) {
                    Some(error) => gate.named_error(error, began),
                    None => gate.reply(StatusCode::OK, Body::whole(answer), began, None),
                },
                Err(problem) => gate.problem(&problem, began, None),
            });
        }
        ("/v1/chat/completions" | "/v1/responses" | "/v1/embeddings", method) => {
            gate.count_invalid();
            let mut response = gate.problem(&refuse::wrong_method(method, path), began, None);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            return Ok(response);
        }
        ("/stats" | "/v1/stats" | "/v1/models", method) => {
            gate.count_invalid();
            let mut response = gate.problem(&refuse::wrong_method(method, path), began, None);
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
            return Ok(response);
        }
        (_, method) => {
            gate.count_invalid();
            return Ok(gate.problem(&refuse::unknown_url(method, path), began, None));
        }
    };
    let key = match key_of(gate, &parts.headers) {
        Ok(key) => key,
        Err(problem) => {
            gate.count_unauthorised();
            return Ok(gate.problem(&problem, began, None));
        }
    };
    if let Some(error) = gate.config.error {
        return Ok(gate.named_error(error, began));
    }
    let ask = match Ask::read(endpoint, &body, deployment.map(|(name, _)| name)) {
        Ok(ask) => ask,
        Err(problem) => {
            gate.count_invalid();
            return Ok(gate.problem(&problem, began, None));
        }
    };
    match gate.enter(key, &ask.model, &ask.estimate()) {
        Entry::Spurious { standing } => Ok(gate.problem(&refuse::spurious(), began, Some(&standing))),
        Entry::Refused { refusal, standing } => Ok(gate.problem(&refusal.problem(&ask.model), began, Some(&standing))),
        Entry::Admitted { job, standing, luck, fault } => serve(gate, ask, job, standing, luck, fault, began).await,
    }
}

/// The key of a request, if it has one that is accepted.
fn key_of<'a>(gate: &Gate, headers: &'a HeaderMap) -> Result<&'a str, Problem> {
    let key = dialect::key(gate.config.dialect, headers);
    match &gate.config.keys {
        _ if key.is_empty() => Err(refuse::no_key()),
        Some(keys) if !keys.iter().any(|known| known == key) => Err(refuse::wrong_key(key)),
        _ => Ok(key),
    }
}

/// An admitted request: its fault, or its latency and answer.
async fn serve(
    gate: &Arc<Gate>,
    ask: Ask,
    job: Job,
    standing: Standing,
    mut luck: Luck,
    fault: Option<Fault>,
    began: Duration,
) -> Result<Response<Body>, Closed> {
    let config = &gate.config;
    match fault {
        Some(Fault::Error503) => {
            job.failed();
            return Ok(gate.problem(&refuse::overloaded(), began, None));
        }
        Some(Fault::Error500) => {
            job.failed();
            return Ok(gate.problem(&refuse::server_error(), began, None));
        }
        Some(Fault::Reset) => return Err(Closed), // and the job is dropped: abandoned
        Some(Fault::Hang) => {
            pending::<Infallible>().await; // holding the job; hyper drops us when the client leaves
        }
        Some(Fault::SlowBody | Fault::HalfBody | Fault::Error429) | None => {}
    }

    let (base, per_token) = luck.latency(&config.latency);
    let choices = if ask.endpoint == Endpoint::Embeddings { 0 } else { ask.choices };
    let lengths: Vec<u64> = (0..choices).map(|_| luck.length(&config.output, ask.cap)).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let writing = per_token.saturating_mul(u32::try_from(longest).unwrap_or(u32::MAX));
    let slow = (fault == Some(Fault::SlowBody)).then_some(config.faults.slow_body_for);
    let answer = Answer { ask: &ask, lengths: &lengths, bits: luck.bits(), created: gate.clock.unix() };
    let (input, output) = (ask.input, answer.output());

    if ask.stream {
        wait(base).await;
        let events = answer.events();
        let gap = slow.unwrap_or(writing) / u32::try_from(events.len()).unwrap_or(u32::MAX).max(1);
        let body = if fault == Some(Fault::HalfBody) {
            // The job ends with it, unanswered.
            Body::cut(events.concat().into(), false)
        } else {
            Body::stream(events, gap, job, input, output)
        };
        // Streams show the books as they were at admission, before any output.
        let mut response = gate.reply(StatusCode::OK, body, began, Some(&standing));
        let event_stream = HeaderValue::from_static("text/event-stream; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, event_stream);
        Ok(response)
    } else {
        wait(base.saturating_add(writing)).await;
        let body = answer.whole();
        let at_completion = job.answered(input, output);
        let standing = if config.headers == Stamp::Admission { standing } else { at_completion };
        let body = match slow {
            Some(time) => Body::slow(body, time),
            None if fault == Some(Fault::HalfBody) => Body::cut(body, true),
            None => Body::whole(body),
        };
        Ok(gate.reply(StatusCode::OK, body, began, Some(&standing)))
    }
}

async fn wait(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

impl Gate {
    fn named_error(&self, error: NamedError, began: Duration) -> Response<Body> {
        let mut response = self.reply(error.status_code(), Body::whole(error.body()), began, None);
        error.stamp(response.headers_mut());
        response
    }

    fn problem(&self, problem: &Problem, began: Duration, standing: Option<&Standing>) -> Response<Body> {
        let id = self.request_id();
        let said = problem.said(self.config.dialect, &id);
        let mut response = self.reply_as(&id, said.status, Body::whole(said.body), began, standing);
        response.headers_mut().extend(said.headers);
        response
    }

    fn reply(&self, status: StatusCode, body: Body, began: Duration, standing: Option<&Standing>) -> Response<Body> {
        self.reply_as(&self.request_id(), status, body, began, standing)
    }

    fn reply_as(
        &self,
        id: &str,
        status: StatusCode,
        body: Body,
        began: Duration,
        standing: Option<&Standing>,
    ) -> Response<Body> {
        const PROCESSING: HeaderName = HeaderName::from_static("openai-processing-ms");
        const VERSION: HeaderName = HeaderName::from_static("openai-version");
        const ORGANIZATION: HeaderName = HeaderName::from_static("openai-organization");
        let mut response = Response::new(body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(name) = dialect::request_id(self.config.dialect) {
            headers.insert(name, text(id.to_owned()));
        }
        if matches!(self.config.dialect, Provider::Openai | Provider::Compatible) {
            let spent = self.clock.now().saturating_sub(began).as_millis();
            headers.insert(PROCESSING, u64::try_from(spent).unwrap_or(u64::MAX).into());
            headers.insert(VERSION, HeaderValue::from_static("2020-10-01"));
            headers.insert(ORGANIZATION, HeaderValue::from_static("org-mock"));
        }
        if let Some(standing) = standing
            && self.config.headers != Stamp::None
        {
            standing.stamp(headers);
        }
        response
    }
}

const _: () = {
    const fn shared<T: Send + Sync>() {}
    shared::<Mock>();
};
