//! `tollgate doctor`: why calls fail, in one sentence.
//!
//! Every check is a [`Finding`](finding::Finding): a line, and if it is a reason why calls fail, whom to blame. The checks
//! follow the way of a call, each as far as the one before it got; the status page is asked meanwhile.

mod api;
mod args;
mod call;
mod environment;
mod explain;
mod finding;
mod limits;
mod network;
mod report;
mod spoken;
mod status;
mod subject;
mod verdict;

use anyhow::Result;
use reqwest::redirect::Policy;
use serde_json::json;
use tokio::time::Instant;

use self::finding::Finding;
use self::report::Report;
use self::subject::Subject;
use self::verdict::{Verdict, judge};
use crate::Exit;

pub(crate) use self::args::DoctorArgs;

pub(crate) async fn run(args: DoctorArgs) -> Result<Exit> {
    if let Some(typed) = &args.explain {
        return explain::explain(&args, typed)?.print(args.json, None);
    }
    let (subject, configuration) = match Subject::new(&args) {
        Ok(examined) => examined,
        Err(finding) => {
            let findings = vec![finding];
            let (verdict, sentence) = judge(&findings);
            return Report::new(verdict, sentence, json!({}), findings).print(args.json, None);
        }
    };
    let deadline = Instant::now() + args.timeout;
    let page = status::address(subject.provider, args.status_url.as_deref());
    let page = async {
        match page {
            Ok(url) => status::check(subject.provider, subject.model.as_deref(), &url, deadline).await,
            Err(finding) => finding,
        }
    };
    let (calls, page) = tokio::join!(calls(&subject, args.probe, deadline), page);
    let findings: Vec<_> = std::iter::once(configuration).chain(calls).chain([page]).collect();
    let (verdict, sentence) = judge(&findings);
    let about = json!({"provider": subject.provider, "host": subject.host(), "model": subject.model});
    Report::new(verdict, sentence, about, findings).print(args.json, subject.key.as_ref())
}

/// The way of a call, up to where it ends.
async fn calls(subject: &Subject, probe: bool, deadline: Instant) -> Vec<Finding> {
    let proxy = environment::proxy(subject);
    let mut findings = environment::check(subject, proxy.as_ref());
    findings.extend(network::check(subject, proxy.as_ref(), deadline).await);
    if findings.iter().any(|finding| matches!(finding.blame, Some((Verdict::Network, _)))) {
        findings.push(Finding::skipped("answer", "nothing can be asked"));
        findings.extend(api::unasked("the API cannot be reached"));
        return findings;
    }
    match call::client(&subject.base, Policy::none()) {
        Ok(client) => findings.extend(api::check(subject, &client, probe, deadline).await),
        Err(error) => findings.push(Finding::fail("answer", format!("the HTTP client cannot be set up: {error}"))),
    }
    findings
}
