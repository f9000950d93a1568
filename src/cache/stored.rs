//! An answer as it is kept.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::key::Key;
use crate::client::{Cached, Reply};
use crate::cost::Usage;
use crate::providers;
use crate::target::Target;

/// An answer with what is told of it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    head: Head,
    pub(super) body: Bytes,
    /// Who answered, if that was in this run.
    target: Option<Target>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    /// When it came, in milliseconds since 1970.
    at: u64,
    status: u16,
    usage: Option<Usage>,
    request_id: Option<String>,
}

/// A record begins with this much of the hash of key and rest, so that a damaged one is told from a whole one.
const CHECK: usize = 16;

impl Stored {
    /// An answer that came at `now`.
    pub(super) fn new(
        status: u16,
        request_id: Option<String>,
        body: Bytes,
        target: Option<Target>,
        now: SystemTime,
    ) -> Self {
        let usage = providers::usage_in_bytes(&body);
        Self { head: Head { at: millis(now), status, usage, request_id }, body, target }
    }

    /// Whether it may be given again later: a success in JSON, with neither an error nor a job that goes on inside. Not what
    /// a fallback answered: the model that was asked for may be back by then.
    pub(super) fn is_lasting(&self) -> bool {
        #[derive(Deserialize)]
        struct Verdict {
            error: Option<Value>,
            status: Option<Value>,
        }
        let Ok(verdict) = serde_json::from_slice::<Verdict>(&self.body) else { return false };
        // A response that reached its output cap is as complete as it gets.
        let complete = verdict.status.is_none_or(|status| status == "completed" || status == "incomplete");
        let own = self.target.as_ref().is_none_or(|target| target.rank() == 0);
        self.is_success() && verdict.error.is_none() && complete && own
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.head.status)
    }

    pub(super) fn age(&self, now: SystemTime) -> Duration {
        Duration::from_millis(millis(now).saturating_sub(self.head.at))
    }

    pub(super) fn at(&self) -> u64 {
        self.head.at
    }

    pub(super) fn reply(&self, cached: Cached) -> Reply {
        let Head { at: _, status, usage, request_id } = self.head.clone();
        let (body, target, dropped) = (self.body.clone(), self.target.clone(), Vec::new());
        Reply { status, body, usage, request_id, attempts: 0, target, dropped, cached: Some(cached) }
    }

    /// As a record for disk.
    pub(super) fn encode(&self, key: &Key) -> Vec<u8> {
        let mut record = vec![0; CHECK];
        // Numbers and a text always make JSON.
        record.extend(serde_json::to_vec(&self.head).unwrap_or_default());
        record.push(b'\n');
        record.extend_from_slice(&self.body);
        let check = check(key, &record[CHECK..]);
        record[..CHECK].copy_from_slice(&check);
        record
    }

    /// From a record; `None` if it is damaged or another's.
    pub(super) fn decode(key: &Key, record: &[u8]) -> Option<Self> {
        let (told, rest) = record.split_at_checked(CHECK)?;
        if told != check(key, rest) {
            return None;
        }
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let head = serde_json::from_slice(&rest[..end]).ok()?;
        Some(Self { head, body: Bytes::copy_from_slice(&rest[end + 1..]), target: None })
    }
}

fn check(key: &Key, rest: &[u8]) -> [u8; CHECK] {
    let hash = Sha256::new().chain_update(key.0).chain_update(rest).finalize();
    std::array::from_fn(|index| hash[index])
}

pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4}}"#;

    fn stored() -> Stored {
        Stored::new(200, Some("req_1".to_owned()), BODY.into(), None, UNIX_EPOCH + Duration::from_secs(9))
    }

    #[test]
    fn a_record_comes_back_as_it_was_and_a_damaged_or_foreign_one_not_at_all() {
        let (key, stored) = (Key([7; 32]), stored());
        let record = stored.encode(&key);
        let decoded = Stored::decode(&key, &record).unwrap();
        assert_eq!((decoded.head, decoded.body), (stored.head, stored.body));
        assert!(Stored::decode(&Key([8; 32]), &record).is_none());
        for index in 0..record.len() {
            let mut damaged = record.clone();
            damaged[index] ^= 1;
            assert!(Stored::decode(&key, &damaged).is_none(), "byte {index}");
            assert!(Stored::decode(&key, &record[..index]).is_none(), "cut at {index}");
        }
    }

    #[test]
    fn only_whole_successes_are_kept() {
        let kept = |status, body: &'static str| Stored::new(status, None, body.into(), None, UNIX_EPOCH).is_lasting();
        assert!(kept(200, BODY) && kept(201, r#"{"status":"completed","error":null}"#));
        assert!(kept(200, r#"{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}}"#));
        assert!(!kept(429, BODY) && !kept(200, "<p>a proxy's page") && !kept(200, ""));
        for body in [r#"{"error":{"message":"x"}}"#, r#"{"status":"in_progress"}"#, r#"{"status":"failed"}"#] {
            assert!(!kept(200, body), "{body}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_answer_old() {
        assert_eq!(stored().age(UNIX_EPOCH), Duration::ZERO);
        assert_eq!(stored().age(UNIX_EPOCH + Duration::from_secs(10)), Duration::from_secs(1));
    }
}
