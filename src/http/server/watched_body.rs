//! A reply's body that notes when the connection takes something of it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::activity::{InFlight, Reply};

pub(super) struct WatchedBody {
    body: Body,
    reply: Arc<Reply>,
    _request: InFlight,
}

impl WatchedBody {
    pub(super) fn new(body: Body, mut request: InFlight) -> Self {
        Self { body, reply: request.reply(), _request: request }
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
