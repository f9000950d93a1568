//! Messages of servers, made fit for logs: no keys, no control characters, not too long.

use crate::secret::Secret;

/// The most characters of a message that are kept.
const LONGEST: usize = 500;

const MASK: &str = "***";

/// Shorter keys are none ("EMPTY", for a server that wants none), and to mask them would make messages unreadable.
const SHORTEST: usize = 8;

/// How keys begin: OpenAI, Anthropic and their like, Groq, Google, xAI, NVIDIA, Hugging Face, GitHub, JSON web tokens.
const KEY_STARTS: &[&str] = &[
    "sk-",
    "sk_",
    "pk-",
    "rk-",
    "sess-",
    "gsk_",
    "AIza",
    "ya29.",
    "xai-",
    "nvapi-",
    "hf_",
    "ghp_",
    "github_pat_",
    "eyJ",
];

/// Words after which a key is written; "key" is one of them after "API".
const NAMED: &[&str] = &["api-key", "api_key", "apikey", "x-api-key", "authorization"];

/// Words after which a key may be written, or something harmless ("unexpected key: temperature").
const LOOSE: &[&str] = &["key", "token", "basic"];

/// Words that may stand between the label and the key ("API key provided: …").
const FILLERS: &[&str] = &["provided", "is", "was"];

/// `message` with everything that looks like a key masked, on one line, cut to 500 characters.
///
/// Error messages repeat what was sent ("Incorrect API key provided: …"), and a proxy may echo whole headers.
pub(crate) fn clean(message: &str) -> String {
    let mut masked = String::new();
    let mut rest = message.trim();
    let mut before = Before::default();
    let mut kept = 0;
    while !rest.is_empty() && kept <= LONGEST {
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, _) = rest.split_at(rest[..end].trim_end_matches('.').len());
        let secret = before.announces_key(word) || begins_like_key(word) || is_long_mixture(word);
        let shown = if secret || before.query && is_of_query(word) { MASK } else { word };
        masked.push_str(shown);
        before.see(word);
        let mut tail = rest[word.len()..].chars();
        if let Some(separator) = tail.next() {
            masked.push(if separator.is_control() { ' ' } else { separator });
            before.assigned |= matches!(separator, ':' | '=');
            before.query = separator == '?' || before.query && !separator.is_whitespace();
        }
        kept += shown.len() + 1;
        rest = tail.as_str();
    }
    match masked.char_indices().nth(LONGEST) {
        Some((cut, _)) => format!("{}…", &masked[..cut]),
        None => masked,
    }
}

/// `text` without the key that was sent: what comes back may be that, whatever it looks like.
pub(crate) fn hide(text: &str, key: Option<&Secret>) -> String {
    match key.map(Secret::expose).filter(|key| key.len() >= SHORTEST) {
        Some(key) => text.replace(key, MASK),
        None => text.to_owned(),
    }
}

/// A request's id, unless it is a key. Long mixtures are what ids are.
pub(crate) fn id(text: &str) -> String {
    if begins_like_key(text) { MASK.to_owned() } else { text.to_owned() }
}

/// What was written before the word at hand.
#[derive(Default)]
struct Before {
    /// What the last word announces, fillers aside.
    label: Label,
    /// The last word was "API".
    api: bool,
    /// A colon or an equals sign came since.
    assigned: bool,
    /// A question mark came, and no space since: it may be the address, and some put keys there.
    query: bool,
}

/// Whether what stands in an address's query may be a secret: it is no name of a parameter, no number and no date.
fn is_of_query(word: &str) -> bool {
    word.len() >= SHORTEST && word.contains(|letter: char| letter.is_ascii_alphabetic())
}

#[derive(Default)]
enum Label {
    #[default]
    None,
    Bearer,
    Named,
    Loose,
}

impl Before {
    fn announces_key(&self, word: &str) -> bool {
        let announced = match self.label {
            Label::None => false,
            Label::Bearer => true,
            Label::Named => self.assigned || is_mixture(word),
            Label::Loose => is_mixture(word),
        };
        announced && word.len() >= SHORTEST
    }

    fn see(&mut self, word: &str) {
        let is = |other: &&str| word.eq_ignore_ascii_case(other);
        if word.is_empty() || FILLERS.iter().any(is) {
            return;
        }
        let label = if is(&"bearer") {
            Label::Bearer
        } else if NAMED.iter().any(is) || self.api && is(&"key") {
            Label::Named
        } else if LOOSE.iter().any(is) {
            Label::Loose
        } else {
            Label::None
        };
        *self = Before { label, api: is(&"api"), assigned: false, query: self.query };
    }
}

/// What a key is written with; `*` because some servers mask the middle themselves, which still shows both ends.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*' | '.' | '+')
}

fn begins_like_key(word: &str) -> bool {
    KEY_STARTS.iter().any(|start| {
        let head = word.get(..start.len());
        word.len() >= start.len() + 4 && head.is_some_and(|head| head.eq_ignore_ascii_case(start))
    })
}

/// Azure's and Mistral's keys have no prefix, but are long runs of letters and digits.
fn is_long_mixture(word: &str) -> bool {
    word.len() >= 32 && word.bytes().all(|b| b.is_ascii_alphanumeric()) && is_mixture(word)
}

fn is_mixture(word: &str) -> bool {
    word.bytes().any(|b| b.is_ascii_alphabetic()) && word.bytes().any(|b| b.is_ascii_digit() || b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_masked_wherever_they_stand() {
        let rows = [
            (
                "Incorrect API key provided: sk-proj-abc123XYZ. You can find",
                "Incorrect API key provided: ***. You can find",
            ),
            ("Incorrect API key provided: sk-ab***********wxyz.", "Incorrect API key provided: ***."),
            ("Incorrect API key provided: mykey123456789.", "Incorrect API key provided: ***."),
            ("Incorrect API key provided: open-sesame", "Incorrect API key provided: ***"),
            ("header Authorization: Bearer abc123def456 refused", "header Authorization: Bearer *** refused"),
            ("{\"api_key\":\"SK-canary-0001\"}", "{\"api_key\":\"***\"}"),
            ("GET /v1beta?key=AIzaSyA1234567890 failed", "GET /v1beta?key=*** failed"),
            (
                "Cannot POST /gw/v1/chat?code=opensesame&v=2024-10-21 here",
                "Cannot POST /gw/v1/chat?code=***&v=2024-10-21 here",
            ),
            ("gsk_0123456789abcdef", "***"),
            ("invalid key 0123456789abcdef0123456789abcdef", "invalid key ***"),
            ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln", "***"),
            ("sent sk-ant-api03-AbC_dEf-123 twice: sk-ant-api03-AbC_dEf-123", "sent *** twice: ***"),
        ];
        for (message, expected) in rows {
            assert_eq!(clean(message), expected, "{message}");
        }
    }

    #[test]
    fn names_and_numbers_that_help_are_kept() {
        let message = "Rate limit reached for `openai/gpt-oss-20b` in organization org-AbCdEf0123456789 on tokens per \
                       min (TPM): Limit 30000, Used 24102. See https://platform.openai.com/account/api-keys. Request \
                       req_011CSHoEeqs5C35K2UUqR7Fy, task-1, 8f14e45f-ceea-467f-9575-3b1d1bd3c5d2, token limit \
                       128000 exceeded, unexpected key: temperature. Really? Certainly";
        assert_eq!(clean(message), message);
    }

    #[test]
    fn a_message_is_one_line_of_at_most_500_characters() {
        assert_eq!(clean("  a\nb\tc\u{1b}[31m \n"), "a b c [31m");
        let long = clean(&"é ".repeat(1_000));
        assert_eq!(long.chars().count(), 501);
        assert!(long.ends_with('…'));
        assert_eq!(clean(&"x".repeat(600)).chars().count(), 501);
        assert_eq!(clean(""), "");
        // A key over the cut does not show in part.
        assert!(!clean(&format!("{}sk-{}", "x ".repeat(248), "a1".repeat(50))).contains("sk-"));
    }
}
