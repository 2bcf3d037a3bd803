//! Interface of a reply format, and the complete answer that it writes.

use bytes::Bytes;
use serde::Serialize;

use super::choices::Choices;
use super::events::EventWriter;
use crate::backends::Event;
use crate::http::error::ApiError;
use crate::openai::{FinishReason, Usage};
use crate::traffic::Receipt;

/// Writes the answer of one execution.
pub trait ReplyFormat: Send {
    /// Appends what `event` adds to a stream.
    fn event(&mut self, event: Event, out: &mut EventWriter);

    /// Appends the last chunks of a stream; the last one carries the receipt.
    fn finish(&mut self, receipt: &Receipt, out: &mut EventWriter);

    /// Appends the failure of a stream whose status has left.
    fn fail(&mut self, error: &ApiError, receipt: &Receipt, out: &mut EventWriter) {
        out.object_with_receipt(&json(&error.envelope()), receipt);
    }

    /// Appends what ends a stream after everything else.
    fn done(&self, out: &mut EventWriter) {
        out.done();
    }

    /// The JSON object of an answer that was not streamed, without the receipt.
    fn whole(&mut self, answer: Answer) -> Result<Bytes, ApiError>;
}

/// An answer that is complete.
pub struct Answer {
    pub content: Content,
    pub finish: FinishReason,
    pub usage: Usage,
}

pub enum Content {
    Local(Choices),
    Vectors(Vec<Vec<f32>>),
    /// The JSON object that an upstream wrote.
    Upstream(Bytes),
}

/// A value as JSON.
pub fn json(value: &impl Serialize) -> Bytes {
    // Strings, numbers and lists of them: cannot fail.
    serde_json::to_vec(value).unwrap_or_default().into()
}
