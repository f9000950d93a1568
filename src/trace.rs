//! Spans and events of `tracing` (feature `tracing`), by the names of OpenTelemetry's conventions for generative AI.
//!
//! | span or event | level | from, to | fields |
//! |---|---|---|---|
//! | span `request` | info | taken up, books closed | `gen_ai.operation.name`, `gen_ai.request.model`, `gen_ai.request.max_tokens`, `gen_ai.provider.name`, `gen_ai.usage.input_tokens`, `gen_ai.usage.output_tokens`, `gen_ai.usage.cache_read.input_tokens`, `server.address`, `server.port`, `error.type`, `otel.name`, `otel.kind`, `otel.status_code`, `tollgate.attempts` |
//! | span `queued`, in `request` | info | has to wait, goes on | `tollgate.account`, `tollgate.pool` |
//! | event `admitted`, in `request` | debug | | `tollgate.account`, `tollgate.pool`, `tollgate.waited` (seconds), `tollgate.reserved` (tokens) |
//! | span `attempt`, in `request` | info | admitted, books closed | `tollgate.account`, `tollgate.model`, `tollgate.attempt`, `server.address`, `server.port`, `http.response.status_code`, `error.type`, `otel.kind`, `otel.status_code` |
//! | event | warn | once | a response of another version of reqwest came, and was not read |
//! | event `settled`, in `attempt` | debug | | `tollgate.outcome`, `tollgate.took` (seconds), `tollgate.reserved`, `tollgate.used` (tokens) |
//!
//! As the conventions ask, what a request used stands on the span of the whole request with all its attempts and nowhere
//! else, so that nothing is counted twice. No prompt, answer, error text or key is in any of them: an error is told by
//! its class.

use std::time::Duration;

use tracing::field::{Empty, display};
use tracing::{Instrument, Span, debug, info_span};

use crate::cost::{Charge, Estimate, Usage};
use crate::endpoint::host_and_port;
use crate::engine::Call;
use crate::lane::Lane;
use crate::providers::{Failure, Provider};
use crate::request::Request;
use crate::target::Target;

/// The span of a request; nothing, and no cost, while nobody looks.
#[derive(Debug, Default)]
pub(crate) struct RequestTrace(Option<Box<Open>>);

#[derive(Debug)]
struct Open {
    request: Span,
    queued: Option<Span>,
    attempts: u32,
}

impl RequestTrace {
    pub(crate) fn new(request: &Request, estimate: &Estimate) -> Self {
        let operation = request.operation();
        let span = info_span!(
            "request",
            otel.name = %format_args!("{} {}", operation.unwrap_or("call"), request.model),
            otel.kind = "client",
            otel.status_code = Empty,
            gen_ai.operation.name = operation,
            gen_ai.request.model = &*request.model,
            gen_ai.request.max_tokens = estimate.output_cap,
            gen_ai.provider.name = Empty,
            gen_ai.usage.input_tokens = Empty,
            gen_ai.usage.output_tokens = Empty,
            gen_ai.usage.cache_read.input_tokens = Empty,
            server.address = Empty,
            server.port = Empty,
            error.type = Empty,
            tollgate.attempts = Empty,
        );
        Self((!span.is_disabled()).then(|| Box::new(Open { request: span, queued: None, attempts: 0 })))
    }

    /// It has to wait in this lane.
    pub(crate) fn queued(&mut self, lane: &Lane) {
        if let Some(open) = &mut self.0 {
            open.queued = Some(info_span!(
                parent: &open.request,
                "queued",
                tollgate.account = lane.account.settings.name(),
                tollgate.pool = &*lane.pool,
            ));
        }
    }

    /// It may go.
    pub(crate) fn admitted(&mut self, target: &Target, charge: &Charge, waited: Duration) -> AttemptTrace {
        let Some(open) = &mut self.0 else { return AttemptTrace::default() };
        let lane = target.lane();
        let account = &lane.account.settings;
        open.queued = None;
        open.attempts += 1;
        debug!(
            parent: &open.request,
            tollgate.account = account.name(),
            tollgate.pool = &*lane.pool,
            tollgate.waited = waited.as_secs_f64(),
            tollgate.reserved = charge.tokens,
            "admitted",
        );
        let (host, port) = account.address().map(host_and_port).unzip();
        let port = port.flatten();
        open.request.record("gen_ai.provider.name", provider_name(lane.provider));
        open.request.record("server.address", host);
        open.request.record("server.port", port);
        open.request.record("tollgate.attempts", open.attempts);
        let attempt = info_span!(
            parent: &open.request,
            "attempt",
            otel.kind = "client",
            otel.status_code = Empty,
            tollgate.account = account.name(),
            tollgate.model = target.model(),
            tollgate.attempt = open.attempts,
            server.address = host,
            server.port = port,
            http.response.status_code = Empty,
            error.type = Empty,
        );
        AttemptTrace(Some(Box::new(Spans { request: open.request.clone(), attempt })))
    }

    /// It comes to nothing.
    pub(crate) fn failed(&self, error_type: &str) {
        if let Some(open) = &self.0 {
            fail(&open.request, error_type);
        }
    }
}

/// The span of an attempt. It may outlive that of its request, as a stream does.
#[derive(Debug, Default)]
pub(crate) struct AttemptTrace(Option<Box<Spans>>);

#[derive(Debug)]
struct Spans {
    request: Span,
    attempt: Span,
}

impl AttemptTrace {
    /// `future` is what the attempt does.
    pub(crate) fn within<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        future.instrument(self.0.as_ref().map_or_else(Span::none, |spans| spans.attempt.clone()))
    }

    pub(crate) fn used(&self, usage: &Usage) {
        if let Some(spans) = &self.0 {
            spans.request.record("gen_ai.usage.input_tokens", usage.input_tokens);
            spans.request.record("gen_ai.usage.output_tokens", usage.output_tokens);
            spans.request.record("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens);
        }
    }

    pub(crate) fn failed(&self, failure: &Failure) {
        if let Some(spans) = &self.0 {
            fail(&spans.attempt, failure.class.name());
            if failure.status > 0 {
                spans.attempt.record("http.response.status_code", failure.status);
            }
        }
    }

    /// Its failure is that of the whole request.
    pub(crate) fn failed_for_good(&self, failure: &Failure) {
        if let Some(spans) = &self.0 {
            fail(&spans.request, failure.class.name());
        }
    }

    /// Its books are closed; `call` is how it went, if it was sent.
    pub(crate) fn settled(&self, call: Option<&Call>, charge: &Charge, used: Option<&Charge>) {
        if let Some(spans) = &self.0 {
            debug!(
                parent: &spans.attempt,
                tollgate.outcome = call.map_or("unsent", |call| call.outcome.name()),
                tollgate.took = call.map(|call| call.whole.as_secs_f64()),
                tollgate.reserved = charge.tokens,
                tollgate.used = used.map(|used| used.tokens),
                "settled",
            );
        }
    }
}

/// An answer of another version of the HTTP client came, which nobody here can read. Said once.
#[cfg(feature = "client")]
pub(crate) fn unread<T>() {
    static SAID: std::sync::Once = std::sync::Once::new();
    SAID.call_once(|| {
        tracing::warn!(
            "{} is of another version than `tollgate::reqwest`: status, headers and usage are not read from it, and errors count as answers",
            std::any::type_name::<T>()
        );
    });
}

fn fail(span: &Span, error_type: &str) {
    span.record("error.type", display(error_type));
    span.record("otel.status_code", "ERROR");
}

/// The provider's well-known name in the conventions.
fn provider_name(provider: Provider) -> &'static str {
    match provider {
        Provider::Azure => "azure.ai.openai",
        Provider::Gemini => "gcp.gemini",
        Provider::Mistral => "mistral_ai",
        other => other.name(),
    }
}
