//! One game in virtual time: a client, a network, and the provider's books.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use fastrand::Rng;
use http::HeaderMap;
use tollgate::mock::{Admitted, Book, Refusal, Stamp, Standing};
use tollgate::{Estimate, Usage};

use super::rows::Row;
use super::workload::{Request, lognormal};

/// A client as a value: it is told what happens, and says what to send.
pub(crate) trait Client {
    /// A request to be done.
    fn submit(&mut self, request: usize, now: Duration);
    /// What came back for a request that was sent.
    fn answered(&mut self, request: usize, answer: &Answer, now: Duration);
    /// What to send now, and when to ask again if nothing happens.
    fn poll(&mut self, now: Duration, out: &mut Vec<Send>) -> Option<Duration>;
    /// What it believes, for the trace.
    fn beliefs(&mut self, _now: Duration) -> String {
        String::new()
    }
}

/// A request is sent to one of the accounts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Send {
    pub(crate) request: usize,
    pub(crate) account: usize,
}

/// What the provider answers.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) usage: Option<Usage>,
}

/// A request that a provider admitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admission {
    pub(crate) at: Duration,
    pub(crate) request: usize,
    /// What was charged for it in the end.
    pub(crate) tokens: u64,
}

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Game {
    /// In their order in time.
    pub(crate) admissions: Vec<Admission>,
    /// When.
    pub(crate) refusals: Vec<Duration>,
    /// Requests and tokens that somebody else was admitted with, until our last admission.
    pub(crate) others: (u64, u64),
    /// Tokens really used.
    pub(crate) used: u64,
}

/// Nobody waits longer than this for a client that has lost its way.
const GIVE_UP: Duration = Duration::from_secs(4 * 3_600);

/// What happens next; the order of two at one instant is that in which they were planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// At the client.
    Wake,
    Answer(usize),
    /// At the provider.
    Arrival(usize),
    Completion(usize),
    Other,
}

/// The way of one request.
#[derive(Debug)]
struct Way {
    request: usize,
    account: usize,
    /// Until it is complete; the last is its place among the admissions.
    admitted: Option<(Admitted, Standing, usize)>,
    answer: Answer,
}

struct World<'a> {
    row: &'a Row,
    requests: &'a [Request],
    books: Vec<Book>,
    luck: Rng,
    events: BinaryHeap<Reverse<(Duration, u64, Event)>>,
    planned: u64,
    /// Until when the server takes in what was sent before.
    busy: Duration,
    ways: Vec<Way>,
    game: Game,
    trace: bool,
}

/// Plays `requests`, all submitted at once, until the last is answered.
pub(crate) fn play(row: &Row, requests: &[Request], seed: u64, client: &mut dyn Client, trace: bool) -> Game {
    let mut world = World {
        row,
        requests,
        books: row.books(seed),
        luck: Rng::with_seed(seed ^ 0x6e65_7477_6f72_6b00),
        events: BinaryHeap::new(),
        planned: 0,
        busy: Duration::ZERO,
        ways: Vec::new(),
        game: Game::default(),
        trace,
    };
    for request in 0..requests.len() {
        client.submit(request, Duration::ZERO);
    }
    for at in row.others() {
        world.plan(at, Event::Other);
    }
    world.plan(Duration::ZERO, Event::Wake);
    let (mut out, mut wake) = (Vec::new(), None);
    while let Some(Reverse((now, _, event))) = world.events.pop() {
        if now > GIVE_UP {
            break;
        }
        match event {
            Event::Arrival(way) => world.arrive(way, now, client),
            Event::Completion(way) => world.complete(way, now),
            Event::Other => world.other(now),
            Event::Answer(way) => {
                let Way { request, ref answer, .. } = world.ways[way];
                client.answered(request, answer, now);
            }
            Event::Wake => wake = wake.filter(|at| *at > now),
        }
        if matches!(event, Event::Answer(_) | Event::Wake) {
            let next = client.poll(now, &mut out);
            out.drain(..).for_each(|send| world.send(send, now));
            // Asking early is harmless, so that a wake-up that is planned already may stay.
            if let Some(at) = next.map(|at| at.max(now + Duration::from_nanos(1)))
                && wake.is_none_or(|planned| at < planned)
            {
                world.plan(at, Event::Wake);
                wake = Some(at);
            }
        }
    }
    world.game
}

impl World<'_> {
    fn plan(&mut self, at: Duration, event: Event) {
        self.planned += 1;
        self.events.push(Reverse((at, self.planned, event)));
    }

    /// A one-way trip: mostly 2 to 40 ms, one in a hundred is late. Those of one burst may overtake each other.
    fn transit(&mut self) -> Duration {
        let ms = if self.luck.f64() < 0.01 { 150.0 } else { 2.0 + 38.0 * self.luck.f64() };
        Duration::from_secs_f64(ms / 1_000.0)
    }

    fn send(&mut self, Send { request, account }: Send, now: Duration) {
        let way = self.ways.len();
        self.ways.push(Way { request, account, admitted: None, answer: Answer::default() });
        let at = self.busy.max(now + self.transit());
        self.busy = at + self.row.intake;
        self.plan(at, Event::Arrival(way));
    }

    fn arrive(&mut self, way: usize, now: Duration, client: &mut dyn Client) {
        let Way { request, account, .. } = self.ways[way];
        let book = &mut self.books[account];
        let admission = book.admit(&self.requests[request].estimate, now);
        let standing = book.standing(now);
        match admission {
            Ok(admitted) => {
                self.ways[way].admitted = Some((admitted, standing, self.game.admissions.len()));
                self.game.admissions.push(Admission { at: now, request, tokens: admitted.tokens });
                let processing = Duration::from_secs_f64(lognormal(&mut self.luck, self.row.latency, 0.35));
                self.plan(now + processing, Event::Completion(way));
            }
            Err(refusal) => {
                self.game.refusals.push(now);
                if self.trace {
                    tell(request, &refusal, &standing, &client.beliefs(now), now);
                }
                let (mut headers, body) = refusal.answer("gpt-4o");
                if self.row.stamp != Stamp::None {
                    standing.stamp(&mut headers);
                }
                self.ways[way].answer = Answer { status: 429, headers, body: body.to_vec(), usage: None };
                let at = now + self.transit();
                self.plan(at, Event::Answer(way));
            }
        }
    }

    fn complete(&mut self, way: usize, now: Duration) {
        let Way { request, account, admitted, .. } = &mut self.ways[way];
        let Some((admitted, at_admission, index)) = admitted.take() else { return };
        let usage = self.requests[*request].usage;
        let book = &mut self.books[*account];
        self.game.admissions[index].tokens = book.settle(&admitted, &usage, now);
        let standing = if self.row.stamp == Stamp::Admission { at_admission } else { book.standing(now) };
        self.game.used += usage.total();
        let mut headers = HeaderMap::new();
        if self.row.stamp != Stamp::None {
            standing.stamp(&mut headers);
        }
        self.ways[way].answer = Answer { status: 200, headers, body: Vec::new(), usage: Some(usage) };
        let at = now + self.transit();
        self.plan(at, Event::Answer(way));
    }

    /// Somebody else on the account, who comes again as soon as he may.
    fn other(&mut self, now: Duration) {
        if self.game.admissions.len() == self.requests.len() {
            return;
        }
        match self.books[0].admit(&Estimate::tokens(self.row.others_size(), 0), now) {
            Ok(admitted) => {
                self.game.others.0 += 1;
                self.game.others.1 += admitted.tokens;
            }
            Err(Refusal { wait, .. }) => self.plan(now + wait.unwrap_or(GIVE_UP), Event::Other),
        }
    }
}

/// A line of the trace.
fn tell(request: usize, refusal: &Refusal, standing: &Standing, beliefs: &str, now: Duration) {
    let Refusal { which, limit, used, requested, wait } = refusal;
    let show = |gauge: Option<tollgate::mock::Gauge>| {
        gauge.map_or("-".into(), |gauge| format!("{} of {}, reset {:.3?}", gauge.remaining, gauge.limit, gauge.reset))
    };
    eprintln!(
        "{:10.3} s  429 for request {request}: {} {limit}, used {used}, requested {requested}, fits in {:.3?}\n\
         {:14}provider: requests {}; tokens {}\n{:14}client:   {beliefs}",
        now.as_secs_f64(),
        which.name(),
        wait.unwrap_or_default(),
        "",
        show(standing.requests),
        show(standing.tokens),
        "",
    );
}
