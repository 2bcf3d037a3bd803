//! A connection's stream that can be looked at while hyper uses it.

use std::io;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::activity::Activity;

/// The stream, shared with the reader and writer of its requests.
pub(super) struct Wire {
    stream: TcpStream,
    activity: Arc<Activity>,
    /// Everything that hyper had to write has been written.
    flushed: AtomicBool,
    /// The client was to take something first.
    blocked: AtomicBool,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Arc<Self> {
        let (flushed, blocked) = (AtomicBool::new(true), AtomicBool::new(false));
        Arc::new(Self { stream, activity, flushed, blocked })
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether a message that is not hyper's may be written now.
    pub(super) fn is_flushed(&self) -> bool {
        self.flushed.load(Ordering::Relaxed)
    }

    fn poll_write(
        &self,
        cx: &mut Context<'_>,
        attempt: impl FnMut(&TcpStream) -> io::Result<usize>,
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
        mut attempt: impl FnMut(&TcpStream) -> io::Result<T>,
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

/// hyper's end of the wire.
pub(super) struct WatchedIo(pub(super) Arc<Wire>);

impl AsyncRead for WatchedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.0.poll_io(false, cx, |stream| stream.try_read_buf(buffer));
        read.map_ok(|_bytes| ())
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when its own buffer is empty, and a socket has none here.
        self.0.flushed.store(true, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // tokio's own needs the stream for itself.
        let again = self.0.stream.as_fd().try_clone_to_owned().map(std::net::TcpStream::from);
        Poll::Ready(match again.and_then(|stream| stream.shutdown(Shutdown::Write)) {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            shut => shut,
        })
    }
}
