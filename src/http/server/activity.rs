//! What happens on one connection, and whether it is still worth its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a connection may waste its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Without a request, or with one whose head does not arrive.
    pub(super) idle: Duration,
    /// With a reply of which the client takes nothing.
    pub(super) unread: Duration,
}

/// Events of one connection, noted by its parts.
#[derive(Debug)]
pub(super) struct Activity {
    /// Requests whose replies have not ended.
    requests: AtomicUsize,
    /// When the last request ended, or the connection began, or the client took a part of a reply
    /// that waits for it in buffers. Other bytes do not count: pings would keep a place for ever.
    quiet_since: Mutex<Instant>,
    replies: Mutex<Vec<Arc<Reply>>>,
    /// A reply that waits should show the client a sign of life.
    probe: AtomicBool,
    /// Replies that have begun since the connection did.
    replies_begun: AtomicUsize,
    /// Bytes have come since the last request or reply.
    heard: AtomicBool,
}

/// One reply's body.
#[derive(Debug)]
pub(super) struct Reply {
    /// When the connection last took something of it, or it began.
    taken: Mutex<Instant>,
    /// It has nothing to give at present, so that the client need not take any.
    waits: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Live,
    Idle,
    /// The client does not read its reply.
    Unread,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self {
            requests: AtomicUsize::new(0),
            quiet_since: Mutex::new(Instant::now()),
            replies: Mutex::default(),
            probe: AtomicBool::new(false),
            replies_begun: AtomicUsize::new(0),
            heard: AtomicBool::new(false),
        }
    }

    /// A request has arrived; it is over when the value is dropped.
    pub(super) fn request(self: &Arc<Self>) -> InFlight {
        let others = self.requests.fetch_add(1, Ordering::Relaxed);
        self.heard.store(false, Ordering::Relaxed);
        InFlight { activity: Arc::clone(self), reply: None, is_alone: others == 0 }
    }

    /// The client sent something.
    pub(super) fn heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether a part of a request has come that is no request yet.
    pub(super) fn has_begun_a_head(&self) -> bool {
        self.heard.load(Ordering::Relaxed) && !self.is_answering()
    }

    /// Replies that have begun since the connection did.
    pub(super) fn replies_begun(&self) -> usize {
        self.replies_begun.load(Ordering::Relaxed)
    }

    /// The client took something of what waits for it.
    pub(super) fn drained(&self) {
        *self.quiet_since.lock() = Instant::now();
    }

    /// Whether a request is being answered.
    pub(super) fn is_answering(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Whether the reply to a request has begun.
    pub(super) fn is_replying(&self) -> bool {
        !self.replies.lock().is_empty()
    }

    /// Asks for a sign of life in the reply that waits.
    pub(super) fn probe(&self) {
        self.probe.store(true, Ordering::Relaxed);
    }

    pub(super) fn verdict(&self, patience: Patience, now: Instant) -> Verdict {
        if self.replies.lock().iter().any(|reply| reply.is_unread(patience.unread, now)) {
            return Verdict::Unread;
        }
        let quiet = now.saturating_duration_since(*self.quiet_since.lock());
        if quiet >= patience.idle && !self.is_answering() { Verdict::Idle } else { Verdict::Live }
    }
}

impl Reply {
    /// The connection took a piece.
    pub(super) fn taken(&self) {
        *self.taken.lock() = Instant::now();
        self.waits.store(false, Ordering::Relaxed);
    }

    /// The connection asked for a piece and there was none.
    pub(super) fn waits(&self) {
        self.waits.store(true, Ordering::Relaxed);
    }

    fn is_unread(&self, limit: Duration, now: Instant) -> bool {
        !self.waits.load(Ordering::Relaxed)
            && now.saturating_duration_since(*self.taken.lock()) >= limit
    }
}

/// A request until the end of its reply.
#[derive(Debug)]
pub(super) struct InFlight {
    activity: Arc<Activity>,
    reply: Option<Arc<Reply>>,
    /// It was the only request of its connection when it arrived.
    pub(super) is_alone: bool,
}

impl InFlight {
    /// Whether a sign of life is wanted, once for each time.
    pub(super) fn is_probed(&self) -> bool {
        self.activity.probe.swap(false, Ordering::Relaxed)
    }

    /// The reply begins.
    pub(super) fn reply(&mut self) -> Arc<Reply> {
        let reply =
            Arc::new(Reply { taken: Mutex::new(Instant::now()), waits: AtomicBool::new(false) });
        self.activity.replies.lock().push(Arc::clone(&reply));
        self.activity.replies_begun.fetch_add(1, Ordering::Relaxed);
        self.reply = Some(Arc::clone(&reply));
        reply
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(own) = &self.reply {
            self.activity.replies.lock().retain(|reply| !Arc::ptr_eq(reply, own));
        }
        *self.activity.quiet_since.lock() = Instant::now();
        self.activity.heard.store(false, Ordering::Relaxed);
        self.activity.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience =
        Patience { idle: Duration::from_secs(10), unread: Duration::from_secs(5) };

    fn after(activity: &Activity, seconds: u64) -> Verdict {
        activity.verdict(PATIENCE, Instant::now() + Duration::from_secs(seconds))
    }

    #[test]
    fn a_connection_without_requests_is_idle_and_one_with_a_request_is_not() {
        let activity = Arc::new(Activity::new());
        assert_eq!((after(&activity, 1), after(&activity, 11)), (Verdict::Live, Verdict::Idle));
        let request = activity.request();
        assert_eq!(after(&activity, 1_000), Verdict::Live, "a model may think for long");
        drop(request);
        assert_eq!(after(&activity, 11), Verdict::Idle);
    }

    #[test]
    fn a_reply_that_still_drains_keeps_its_connection() {
        let activity = Arc::new(Activity::new());
        drop(activity.request());
        std::thread::sleep(Duration::from_millis(2));
        let before = *activity.quiet_since.lock();
        activity.drained();
        assert!(*activity.quiet_since.lock() > before);
    }

    #[test]
    fn a_reply_is_unread_only_while_it_has_something_to_give() {
        let activity = Arc::new(Activity::new());
        let mut request = activity.request();
        let reply = request.reply();
        assert_eq!((after(&activity, 4), after(&activity, 6)), (Verdict::Live, Verdict::Unread));
        reply.waits();
        assert_eq!(after(&activity, 1_000), Verdict::Live);
        reply.taken();
        assert_eq!(after(&activity, 6), Verdict::Unread);
        drop(request);
        assert_eq!(after(&activity, 6), Verdict::Live);
    }
}
