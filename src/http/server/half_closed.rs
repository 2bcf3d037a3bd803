//! Clients that close their end of an HTTP/1 connection while their request is being answered. One
//! that has nothing more to say gets its answer; one that has left must not be worked for.
//!
//! The two look alike until something is written to them: a client that has left resets the
//! connection. So a client that waits for a head gets `100 Continue`, which it may ignore, and one
//! that waits for an event a comment.

use std::time::{Duration, Instant};

use futures::FutureExt;
use tokio::io::{Interest, Ready};

use super::activity::Activity;
use super::watched_io::Wire;

/// Pause between two looks at the connection. Answers that come sooner need no test.
pub(super) const LOOK_EVERY: Duration = Duration::from_millis(200);

const SIGN_OF_LIFE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Resolves once the client has closed its end.
pub(super) async fn closed(wire: &Wire) {
    loop {
        match wire.stream().ready(Interest::READABLE).await {
            // Something has come that hyper does not read yet.
            Ok(ready) if !ready.is_read_closed() => tokio::time::sleep(LOOK_EVERY).await,
            _ => return,
        }
    }
}

/// A client whose end is closed.
pub(super) struct HalfClosed {
    since: Instant,
    /// Its wait for a head was tested.
    tested: bool,
    /// Its wait for an event was tested.
    probed: bool,
}

impl HalfClosed {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), tested: false, probed: false }
    }

    /// Tests the client, at each look; false if it has left. One that cannot be tested
    /// (`takes_interim` is false) counts as gone after `most`.
    pub(super) fn is_there(
        &mut self,
        wire: &Wire,
        activity: &Activity,
        takes_interim: bool,
        most: Duration,
    ) -> bool {
        let ready = wire.stream().ready(Interest::WRITABLE).now_or_never();
        if ready.is_some_and(|ready| ready.is_ok_and(Ready::is_write_closed)) {
            return false;
        }
        if !activity.is_answering() {
            return true;
        }
        if activity.is_replying() {
            if !self.probed {
                self.probed = true;
                activity.probe();
            }
        } else if !takes_interim {
            return self.since.elapsed() < most;
        } else if !self.tested && wire.is_flushed() {
            self.tested = true;
            // hyper has written all it had and writes nothing before the reply begins.
            return wire.stream().try_write(SIGN_OF_LIFE).is_ok();
        }
        true
    }
}
