//! HTTP/1.1 connections to one upstream without TLS. A connection has no task of its own: the
//! request that uses it drives it, so that nothing of an answer is handed from one thread to
//! another.
//!
//! Idle connections are kept for later requests of the same thread, whose reactor they belong to;
//! one that the upstream has closed meanwhile is dropped when it is taken out.

mod socket;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::time::timeout;

use self::socket::{Heard, Socket};

/// Bytes that are gathered before they are handed on, although more may have come.
const PIECE_BYTES: usize = 64 << 10;

/// Most headers of a response.
const HEADERS_MAX: usize = 256;

/// The connections to one upstream.
#[derive(Debug)]
pub(super) struct Pool {
    host: String,
    port: u16,
    connect_timeout: Duration,
    /// Most connections that are kept idle.
    idle_max: usize,
    idle: Mutex<VecDeque<Idle>>,
}

#[derive(Debug)]
struct Idle {
    /// Where it was last used.
    thread: ThreadId,
    connection: Connection,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("no connection in time")]
    ConnectTimeout,
    #[error(transparent)]
    Connect(io::Error),
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

#[derive(Debug)]
struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: http1::Connection<TokioIo<Socket>, Full<Bytes>>,
    /// Whether the upstream has written anything.
    heard: Heard,
    /// The driver has ended and must not be polled again.
    ended: bool,
}

/// The body of a response. Dropping it before its end closes the connection.
#[derive(Debug)]
pub(super) struct Body {
    pool: Arc<Pool>,
    connection: Option<Connection>,
    incoming: Incoming,
    /// Found after bytes that had to be handed on first.
    error: Option<hyper::Error>,
}

impl Pool {
    pub(super) fn new(host: String, port: u16, connect_timeout: Duration, idle_max: usize) -> Self {
        Self { host, port, connect_timeout, idle_max, idle: Mutex::default() }
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(
        self: &Arc<Self>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Body>, Error> {
        let kept = self.take();
        let was_kept = kept.is_some();
        let mut connection = match kept {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let sent = connection.send(request.clone()).await;
        let response = match sent {
            // The upstream closed the connection that it had kept, as the request arrived: it has
            // not begun to answer.
            Err(_) if was_kept && !connection.heard.take() => {
                connection = self.connect().await?;
                connection.send(request).await?
            }
            sent => sent?,
        };
        Ok(response.map(|incoming| Body {
            pool: Arc::clone(self),
            connection: Some(connection),
            incoming,
            error: None,
        }))
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let address = (self.host.as_str(), self.port);
        let socket = timeout(self.connect_timeout, TcpStream::connect(address)).await;
        let socket = socket.map_err(|_| Error::ConnectTimeout)?.map_err(Error::Connect)?;
        socket.set_nodelay(true).map_err(Error::Connect)?;
        let (socket, heard) = Socket::new(socket);
        let (sender, driver) =
            http1::Builder::new().max_headers(HEADERS_MAX).handshake(TokioIo::new(socket)).await?;
        Ok(Connection { sender, driver, heard, ended: false })
    }

    /// An idle connection of this thread that is still open, the one used last first.
    fn take(&self) -> Option<Connection> {
        loop {
            // Bound to a statement of its own: the lock is free while the connection is looked at.
            let idle = self.take_any(thread::current().id());
            let mut connection = idle?.connection;
            if connection.is_idle() {
                return Some(connection);
            }
        }
    }

    fn take_any(&self, thread: ThreadId) -> Option<Idle> {
        let mut idle = self.idle.lock();
        let last = idle.iter().rposition(|idle| idle.thread == thread)?;
        idle.remove(last)
    }

    /// Keeps a connection, instead of the one that was not used for longest if there are too many.
    fn give_back(&self, mut connection: Connection) {
        if connection.is_idle() {
            let mut idle = self.idle.lock();
            let _closed = (idle.len() >= self.idle_max).then(|| idle.pop_front());
            idle.push_back(Idle { thread: thread::current().id(), connection });
        }
    }
}

impl Connection {
    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        self.heard.take();
        let mut response = pin!(self.sender.send_request(request));
        poll_fn(|cx| {
            poll_driven(&mut self.driver, &mut self.ended, cx, |cx| response.as_mut().poll(cx))
        })
        .await
    }

    /// Whether the upstream keeps it open and nothing is under way on it.
    fn is_idle(&mut self) -> bool {
        poll_driver(&mut self.driver, &mut self.ended, &mut Context::from_waker(Waker::noop()));
        !self.ended && self.sender.is_ready()
    }
}

fn poll_driver(
    driver: &mut http1::Connection<TokioIo<Socket>, Full<Bytes>>,
    ended: &mut bool,
    cx: &mut Context<'_>,
) {
    // How it ended is also the error of the response or the body that it was busy with.
    *ended = *ended || Pin::new(driver).poll(cx).is_ready();
}

/// Polls `wanted`, which the driver brings about. Twice, since asking for more is what lets the
/// driver go on.
fn poll_driven<T>(
    driver: &mut http1::Connection<TokioIo<Socket>, Full<Bytes>>,
    ended: &mut bool,
    cx: &mut Context<'_>,
    mut wanted: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    for _ in 0..2 {
        poll_driver(driver, ended, cx);
        if let ready @ Poll::Ready(_) = wanted(cx) {
            return ready;
        }
    }
    Poll::Pending
}

impl Body {
    /// The next bytes: all that has come. `None` after the last.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        poll_fn(|cx| self.poll_piece(cx)).await
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Err(error.into()));
        }
        let mut gathered = Gathered::Nothing;
        loop {
            let frame = match &mut self.connection {
                Some(Connection { driver, ended, .. }) => {
                    let incoming = &mut self.incoming;
                    poll_driven(driver, ended, cx, |cx| Pin::new(&mut *incoming).poll_frame(cx))
                }
                None => Poll::Ready(None),
            };
            match frame {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        gathered = gathered.with(bytes);
                    }
                    if gathered.len() >= PIECE_BYTES {
                        break;
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.connection = None;
                    self.error = Some(error);
                    break;
                }
                Poll::Ready(None) => {
                    if let Some(connection) = self.connection.take() {
                        self.pool.give_back(connection);
                    }
                    break;
                }
                Poll::Pending if gathered.len() == 0 => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        match gathered.bytes() {
            None => self
                .error
                .take()
                .map_or(Poll::Ready(Ok(None)), |error| Poll::Ready(Err(error.into()))),
            some => Poll::Ready(Ok(some)),
        }
    }
}

/// Bytes put together; a single piece is not copied.
enum Gathered {
    Nothing,
    One(Bytes),
    More(BytesMut),
}

impl Gathered {
    fn with(self, bytes: Bytes) -> Self {
        match self {
            Self::Nothing => Self::One(bytes),
            Self::One(first) => {
                let mut all = BytesMut::with_capacity(4 * (first.len() + bytes.len()));
                all.extend_from_slice(&first);
                all.extend_from_slice(&bytes);
                Self::More(all)
            }
            Self::More(mut all) => {
                all.extend_from_slice(&bytes);
                Self::More(all)
            }
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::One(bytes) => bytes.len(),
            Self::More(bytes) => bytes.len(),
        }
    }

    fn bytes(self) -> Option<Bytes> {
        match self {
            Self::Nothing => None,
            Self::One(bytes) => Some(bytes),
            Self::More(bytes) => Some(bytes.freeze()),
        }
    }
}
