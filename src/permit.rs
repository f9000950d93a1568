//! The right to send one attempt, and what its end means for the books.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;

use crate::attempt::Attempt;
use crate::clock;
use crate::cost::{Charge, Usage};
use crate::engine::{Call, End, Grant, Moment, Ticket};
use crate::lane::{Heard, Lane};
use crate::providers::{self, Failure, Observation, Retry};
use crate::target::Target;
use crate::trace::{AttemptTrace, RequestTrace};

/// The right to send one request now.
///
/// Its end decides what happens to what was taken for it:
///
/// | end | the books |
/// |---|---|
/// | dropped before [`sent`](Permit::sent) | everything is given back: nothing reached the provider |
/// | dropped after it | the charge stands: the provider may have counted it |
/// | [`settle`](Permit::settle) | corrected to the real usage, as far as the provider does the same |
/// | [`failed`](Permit::failed) | as the provider's answer says |
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tollgate::{Request, Scheduler, Usage};
///
/// let scheduler = Scheduler::builder().build()?;
/// let mut permit = scheduler.acquire(Request::tokens("gpt-4o", 400, 64)).await?;
/// permit.sent();
/// // … call the provider, then say what it cost:
/// permit.settle(Usage::new(390, 41));
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropping it gives the right to send back"]
pub struct Permit {
    /// Where it goes, and what becomes known of the answer.
    attempt: Attempt,
    /// `None` once the books are closed.
    grant: Option<Box<Grant>>,
    /// How long it waited for that.
    waited: Duration,
    sent: bool,
    /// When its answer began.
    began: Option<Moment>,
    trace: AttemptTrace,
}

/// What a lane granted, on its way to who waits for it. Its drop gives everything back.
#[derive(Debug)]
pub(crate) struct Held {
    lane: Arc<Lane>,
    grant: Option<Box<Grant>>,
}

impl Held {
    pub(crate) fn new(lane: Arc<Lane>, grant: Box<Grant>) -> Self {
        Self { lane, grant: Some(grant) }
    }

    pub(crate) fn take(mut self) -> Option<Box<Grant>> {
        self.grant.take()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(grant) = self.grant.take() {
            self.lane.conclude(grant, End::Unsent, &Observation::default(), Heard::Nothing, None, clock::now());
        }
    }
}

impl Permit {
    /// For a target, where its request has waited since then.
    #[inline]
    pub(crate) fn new(target: Target, grant: Box<Grant>, since: Option<Moment>, trace: &mut RequestTrace) -> Self {
        let waited = since.map_or(Duration::ZERO, |since| grant.at - since);
        let (charge, attempt, untold) = (grant.charge, Attempt::new(target), AttemptTrace::default());
        let mut permit = Self { attempt, grant: Some(grant), waited, sent: false, began: None, trace: untold };
        // Last, since who listens may panic.
        permit.trace = trace.admitted(permit.attempt.target(), &charge, waited);
        permit
    }

    /// Where to send it: the account, the model, the key.
    pub fn target(&self) -> Target {
        self.attempt.target().clone()
    }

    /// Says that its call is the request's attempt of that number.
    pub(crate) fn numbered(&mut self, number: u32) {
        self.attempt.numbered(number);
    }

    /// What its call is made with.
    pub(crate) fn attempt(&self) -> &Attempt {
        &self.attempt
    }

    /// What its attempt does.
    pub(crate) fn within<F: Future>(&self, call: F) -> impl Future<Output = F::Output> + use<F> {
        self.trace.within(call)
    }

    pub(crate) fn lane(&self) -> &Arc<Lane> {
        self.attempt.target().lane()
    }

    /// What was taken from the limits for it.
    pub fn charge(&self) -> Charge {
        self.grant.as_ref().map_or(Charge::default(), |grant| grant.charge)
    }

    /// Says that the request is on its way: from now on a drop counts as used. Call it before the first byte is sent.
    pub fn sent(&mut self) {
        self.sent = true;
    }

    /// Takes the rate-limit headers of an answer whose end is still to come, as a stream sends them at its beginning. With it the
    /// request counts as [`sent`](Permit::sent).
    pub fn observe(&mut self, headers: &HeaderMap) {
        self.read(&providers::observe(self.lane().provider, headers, clock::wall()));
    }

    pub(crate) fn read(&mut self, answer: &Observation) {
        self.sent = true;
        self.began(Some(clock::now()));
        if let Some(grant) = &self.grant {
            self.lane().change(|machine| {
                machine.observe(grant, &answer.readings, clock::now());
                machine.answered(grant.at);
                machine.began(grant, clock::now());
            });
        }
    }

    /// Its answer has begun then, unless that was told before.
    pub(crate) fn began(&mut self, at: Option<Moment>) {
        self.began = self.began.or(at);
    }

    /// The request is done and used this much. More than 20 million tokens, and more than twice the charge, cannot be meant: then
    /// the charge stands.
    pub fn settle(self, usage: Usage) {
        self.answered(Some(usage), &Observation::default());
    }

    /// The request failed with this answer: the lane waits as long as it asks. The failure says what it means and
    /// whether trying again can help.
    pub fn failed(self, status: u16, headers: &HeaderMap, body: &[u8]) -> Failure {
        let provider = self.lane().provider;
        let seen = providers::observe(provider, headers, clock::wall());
        let failure = providers::classify_sent(provider, self.attempt.target().key(), status, &seen, body);
        self.failed_for_good(&failure, &seen);
        failure
    }

    pub(crate) fn ticket(&self) -> Option<Ticket> {
        self.grant.as_ref().map(|grant| grant.ticket().clone())
    }

    /// The provider answered well; without usage the charge stands.
    #[inline]
    pub(crate) fn answered(self, usage: Option<Usage>, answer: &Observation) {
        let usage = self.credible(usage);
        let output = usage.map(|usage| usage.output_tokens);
        self.ended(usage, answer, Heard::Answer { output });
    }

    /// The caller's closure failed, and nothing is known of why; nor, if it did not say so, whether the provider `answered`.
    pub(crate) fn unexplained(self, usage: Option<Usage>, answer: &Observation, answered: bool) {
        let usage = self.credible(usage);
        let output = usage.map(|usage| usage.output_tokens);
        self.ended(usage, answer, Heard::Unexplained { output, answered });
    }

    /// Usage that a request can have had; without it the charge stands. One wrong number must not end a lane.
    #[inline]
    fn credible(&self, usage: Option<Usage>) -> Option<Usage> {
        usage.filter(|usage| usage.total() <= self.most_tokens())
    }

    fn most_tokens(&self) -> u64 {
        MOST_TOKENS.max(self.charge().tokens.saturating_mul(2))
    }

    #[inline]
    fn ended(mut self, usage: Option<Usage>, answer: &Observation, heard: Heard<'_>) {
        if let Some(usage) = &usage {
            self.trace.used(usage);
        }
        let charge = self.charge();
        let cost = answer.query_cost.filter(|cost| *cost <= self.most_tokens());
        let used = match (usage, cost) {
            (_, Some(tokens)) => Some(Charge { tokens, ..charge }),
            (Some(usage), None) => Some(
                // Where the provider does not correct its count, the gates give nothing back either ([`Rules::of_provider`](providers::Rules::of_provider)).
                providers::at_completion(self.lane().provider, self.attempt.model(), &charge, &usage)
                    .unwrap_or(Charge::tokens(usage.input_tokens, usage.output_tokens)),
            ),
            (None, None) => None,
        };
        self.finish(used.map_or(End::Unknown, End::Used), answer, heard);
    }

    /// As [`failed_as`](Permit::failed_as), where nobody tries again.
    pub(crate) fn failed_for_good(self, failure: &Failure, answer: &Observation) {
        self.trace.failed_for_good(failure);
        self.failed_as(failure, answer, DEFAULT_WAIT);
    }

    /// The provider answered with an error, or not at all. `default_wait` is how long a refused lane waits if the answer
    /// names no time. Returns whether it failed together with others.
    pub(crate) fn failed_as(mut self, failure: &Failure, answer: &Observation, default_wait: Duration) -> bool {
        let refused = failure.retry() == Retry::AfterLimit || failure.status == 429;
        let end = if refused { End::Refused } else { End::Unknown };
        // First, so that nobody gets what this gives back at an account that is of no use.
        self.attempt.target().heard(failure);
        self.finish(end, answer, Heard::Failure(failure, default_wait))
    }

    /// Nothing reached the provider; because of this failure, if it was not the caller's own choice. Returns what
    /// [`failed_as`](Permit::failed_as) does.
    pub(crate) fn unsent(mut self, failure: Option<&Failure>) -> bool {
        let heard = failure.map_or(Heard::Nothing, |failure| Heard::Failure(failure, DEFAULT_WAIT));
        self.finish(End::Unsent, &Observation::default(), heard)
    }

    /// Closes the books. Returns whether it failed together with others.
    #[inline]
    fn finish(&mut self, end: End, answer: &Observation, heard: Heard<'_>) -> bool {
        let Some(grant) = self.grant.take() else { return false };
        let now = clock::now();
        let call = heard.outcome(end).map(|outcome| Call {
            outcome,
            waited: self.waited,
            first_byte: self.began.map(|began| began - grant.at),
            whole: now - grant.at,
        });
        let charge = grant.charge;
        if let Heard::Failure(failure, _) = heard {
            self.trace.failed(failure);
        }
        let lane = self.lane();
        let with_others = lane.conclude(grant, end, answer, heard, call.as_ref(), now);
        let used = if let End::Used(used) = &end { Some(used) } else { None };
        self.trace.settled(call.as_ref(), &charge, used);
        if let Some(call) = &call {
            lane.metrics.ended(lane, call, &charge, used);
        }
        with_others
    }
}

/// No request uses more tokens: twice the longest context of any model, which is ten millions (Llama 4 Scout).
const MOST_TOKENS: u64 = 20_000_000;
/// How long a lane waits after a refusal that does not say.
pub(crate) const DEFAULT_WAIT: Duration = Duration::from_secs(1);

impl Drop for Permit {
    fn drop(&mut self) {
        let end = if self.sent { End::Unknown } else { End::Unsent };
        self.finish(end, &Observation::default(), Heard::Nothing);
    }
}
