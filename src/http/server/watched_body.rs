//! A reply's body that notes when the connection takes something of it, and shows a sign of life
//! when it is asked to.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use http::{Response, header};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::activity::{InFlight, Reply};
use super::places::Place;

/// A comment of server-sent events.
const SIGN_OF_LIFE: Bytes = Bytes::from_static(b":\n\n");

pub(super) struct WatchedBody {
    body: Body,
    reply: Arc<Reply>,
    /// Server-sent events, each frame of whole ones.
    is_events: bool,
    request: InFlight,
    _place: Option<Place>,
}

impl WatchedBody {
    pub(super) fn of(
        response: Response<Body>,
        mut request: InFlight,
        place: Option<Place>,
    ) -> Response<Self> {
        let kind = response.headers().get(header::CONTENT_TYPE);
        let is_events = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        let reply = request.reply();
        response.map(|body| Self { body, reply, is_events, request, _place: place })
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(_) => self.reply.taken(),
            Poll::Pending if self.is_events && self.request.is_probed() => {
                return Poll::Ready(Some(Ok(Frame::data(SIGN_OF_LIFE))));
            }
            Poll::Pending => self.reply.waits(),
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
