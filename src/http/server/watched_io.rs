//! A connection's stream that can be looked at while hyper uses it, and that keeps back what hyper
//! says of its own accord.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::listener::Stream;

/// Beginning of every head of HTTP/1.
const HTTP_1: &[u8] = b"HTTP/1.";

/// The stream, shared with the reader and writer of its requests.
pub(super) struct Wire {
    stream: Stream,
    activity: Arc<Activity>,
    /// Everything that hyper had to write has been written.
    flushed: AtomicBool,
    /// The client was to take something first.
    blocked: AtomicBool,
    /// Replies of ours that had begun when everything was written.
    replies_written: AtomicUsize,
    /// Status of hyper's own reply, which was kept back; 0 if there is none.
    withheld: AtomicU16,
}

impl Wire {
    pub(super) fn new(stream: Stream, activity: Arc<Activity>) -> Arc<Self> {
        Arc::new(Self {
            stream,
            activity,
            flushed: AtomicBool::new(true),
            blocked: AtomicBool::new(false),
            replies_written: AtomicUsize::new(0),
            withheld: AtomicU16::new(0),
        })
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Whether a message that is not hyper's may be written now.
    pub(super) fn is_flushed(&self) -> bool {
        self.flushed.load(Ordering::Relaxed)
    }

    /// Status of the reply that hyper gave of its own accord, to a head that it could not read.
    pub(super) fn withheld(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.withheld.load(Ordering::Relaxed)).ok()
    }

    /// Whether these bytes are a head that none of our replies has. hyper has no hook for its
    /// replies to requests that it cannot read; it writes them when everything before is written.
    fn withholds(&self, bytes: &[u8]) -> bool {
        let is_ours = || {
            self.activity.replies_begun() != self.replies_written.load(Ordering::Relaxed)
                || self.activity.is_answering()
        };
        if !self.is_flushed() || !bytes.starts_with(HTTP_1) || is_ours() {
            return false;
        }
        self.withheld.store(status_of(bytes).as_u16(), Ordering::Relaxed);
        true
    }

    fn poll_write(
        &self,
        cx: &mut Context<'_>,
        attempt: impl FnMut(&Stream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        self.flushed.store(false, Ordering::Relaxed);
        let written = self.poll_io(true, cx, attempt);
        if self.blocked.swap(written.is_pending(), Ordering::Relaxed) && written.is_ready() {
            self.activity.drained();
        }
        written
    }

    fn poll_io<T>(
        &self,
        writes: bool,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&Stream) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let ready = if writes {
                self.stream.poll_write_ready(cx)
            } else {
                self.stream.poll_read_ready(cx)
            };
            ready!(ready)?;
            match attempt(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

/// The status of a head, which hyper wrote.
fn status_of(head: &[u8]) -> StatusCode {
    let digits = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    StatusCode::from_bytes(digits).unwrap_or(StatusCode::BAD_REQUEST)
}

/// hyper's end of the wire.
pub(super) struct WatchedIo(pub(super) Arc<Wire>);

impl AsyncRead for WatchedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.0.poll_io(false, cx, |stream| stream.try_read_buf(buffer));
        read.map_ok(|bytes| {
            if bytes > 0 {
                self.0.activity.heard();
            }
        })
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.0.withholds(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.0.poll_write(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if slices.first().is_some_and(|first| self.0.withholds(first)) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        self.0.poll_write(cx, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when its own buffer is empty, and a socket has none here.
        self.0.flushed.store(true, Ordering::Relaxed);
        self.0.replies_written.store(self.0.activity.replies_begun(), Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Our reply is still to come in place of the one that was kept back.
        let closed = self.0.withheld().map_or_else(|| self.0.stream.close_write(), |_| Ok(()));
        Poll::Ready(closed)
    }
}
