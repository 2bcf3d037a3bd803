//! Detection of retries: a client that sends the same conversation again soon after an answer was
//! probably not satisfied.
//!
//! Holds keyed hashes only, with a key of this process, so that no text can be recovered from them.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::openai::Message;

/// A later repetition is more likely a new question than a retry.
const SOON: Duration = Duration::from_mins(2);

/// Answers remembered; about 100 bytes each.
const REMEMBERED: usize = 4096;

/// A conversation of one client, without its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(u64);

/// The conversations answered lately.
#[derive(Default)]
pub struct RetryDetector {
    key: RandomState,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    answers: HashMap<Fingerprint, (Arc<str>, Instant)>,
    /// Oldest first; may name answers that are forgotten already.
    order: VecDeque<Fingerprint>,
}

impl RetryDetector {
    /// `client` identifies the client and its session.
    pub fn fingerprint(&self, client: &[&[u8]], messages: &[Message]) -> Fingerprint {
        let mut hasher = self.key.build_hasher();
        client.hash(&mut hasher);
        // Hashing cannot fail, and messages always serialise.
        let _ = serde_json::to_writer(HashWriter(&mut hasher), messages);
        Fingerprint(hasher.finish())
    }

    /// The request whose answer this one, arriving `now`, repeats. Each answer is found once.
    pub fn repeated(&self, conversation: Fingerprint, now: Instant) -> Option<Arc<str>> {
        let mut seen = self.seen.lock();
        let (id, answered) = seen.answers.remove(&conversation)?;
        (now.saturating_duration_since(answered) <= SOON).then_some(id)
    }

    pub fn answered(&self, conversation: Fingerprint, id: Arc<str>, now: Instant) {
        let mut seen = self.seen.lock();
        seen.answers.insert(conversation, (id, now));
        seen.order.push_back(conversation);
        if seen.order.len() > REMEMBERED
            && let Some(oldest) = seen.order.pop_front()
        {
            seen.answers.remove(&oldest);
        }
    }
}

/// Writer that feeds a hasher.
struct HashWriter<'h, H>(&'h mut H);

impl<H: Hasher> io::Write for HashWriter<'_, H> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retry_is_detected_once_and_only_soon_after_from_the_same_client() {
        let detector = RetryDetector::default();
        let print = |client: &str, text: &str| {
            detector.fingerprint(&[client.as_bytes()], &[Message::user(text.to_owned())])
        };
        let (start, mine) = (Instant::now(), print("me", "hello"));
        assert_eq!(mine, print("me", "hello"));
        detector.answered(mine, "r1".into(), start);
        assert_eq!(detector.repeated(print("you", "hello"), start), None);
        assert_eq!(detector.repeated(print("me", "hello!"), start), None);
        assert_eq!(detector.repeated(mine, start), Some("r1".into()));
        assert_eq!(detector.repeated(mine, start), None);
        detector.answered(mine, "r2".into(), start);
        assert_eq!(detector.repeated(mine, start + SOON + Duration::from_secs(1)), None);
    }

    #[test]
    fn memory_is_bounded() {
        let detector = RetryDetector::default();
        let now = Instant::now();
        for number in 0..2 * REMEMBERED as u64 {
            detector.answered(Fingerprint(number), "r".into(), now);
        }
        assert_eq!(detector.seen.lock().answers.len(), REMEMBERED);
        assert_eq!(detector.repeated(Fingerprint(0), now), None);
    }
}
