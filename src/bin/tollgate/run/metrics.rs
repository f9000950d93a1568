//! `--metrics`: an address for Prometheus to scrape while the rows are done.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::{TcpListener, TcpStream};
use tollgate::Scheduler;

/// Waits and calls take from milliseconds to many minutes.
const BUCKETS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// Histograms keep every value until they are asked for, or told to add them up.
const UPKEEP: Duration = Duration::from_secs(5);

/// A recorder that counts for this process, and the socket where its figures will be.
pub(crate) struct Metrics {
    listener: TcpListener,
    address: SocketAddr,
    handle: PrometheusHandle,
}

impl Metrics {
    /// Fails before anything is spent if the address cannot be had.
    pub(crate) async fn listen(address: SocketAddr) -> Result<Self> {
        let cannot = || format!("cannot serve metrics on {address}; give another address by --metrics");
        let listener = TcpListener::bind(address).await.with_context(cannot)?;
        let address = listener.local_addr().with_context(cannot)?;
        let recorder = PrometheusBuilder::new().set_buckets(&BUCKETS)?.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| anyhow::anyhow!("metrics are recorded already"))?;
        tollgate::metrics::describe();
        Ok(Self { listener, address, handle })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/metrics", self.address)
    }

    /// Serves until the program ends.
    pub(crate) async fn serve(self, scheduler: Scheduler) {
        let Self { listener, handle, .. } = self;
        let mut upkeep = tokio::time::interval(UPKEEP);
        loop {
            tokio::select! {
                _ = upkeep.tick() => handle.run_upkeep(),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => drop(tokio::spawn(connection(stream, handle.clone(), scheduler.clone()))),
                    // Out of file descriptors, most likely: asking again at once would spin.
                    Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                },
            }
        }
    }
}

async fn connection(stream: TcpStream, handle: PrometheusHandle, scheduler: Scheduler) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&request, &handle, &scheduler);
        async { Ok::<_, Infallible>(answer) }
    });
    // A scraper that goes away is its own business.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn answer(request: &Request<Incoming>, handle: &PrometheusHandle, scheduler: &Scheduler) -> Response<Full<Bytes>> {
    let (status, text) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            scheduler.record_gauges();
            (StatusCode::OK, handle.render())
        }
        _ => (StatusCode::NOT_FOUND, "the metrics are at GET /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/plain; version=0.0.4"));
    response
}
