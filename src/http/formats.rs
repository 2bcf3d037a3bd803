//! Reply formats: how an answer is written, one file per API surface.
//!
//! Knows no HTTP. What an upstream wrote in the same format is forwarded byte for byte, but for the
//! receipt.

pub mod chat;
pub mod choices;
pub mod completions;
pub mod embeddings;
pub mod events;

use bytes::Bytes;
use serde::Serialize;

use self::choices::Choices;
use self::events::EventWriter;
use super::error::ApiError;
use crate::backends::Event;
use crate::openai::{FinishReason, Request, Usage};
use crate::serving::execution::Execution;
use crate::traffic::Receipt;

/// Writes the answer of one execution.
pub trait ReplyFormat: Send {
    /// Appends what `event` adds to a stream.
    fn event(&mut self, event: Event, out: &mut EventWriter);

    /// Appends the last chunks of a stream; the last one carries the receipt.
    fn finish(&mut self, receipt: &Receipt, out: &mut EventWriter);

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

/// The format of the surface that the request came by.
pub fn format_of(execution: &Execution) -> Box<dyn ReplyFormat> {
    match execution.request() {
        Request::Chat(_) => Box::new(chat::Chat::new(execution)),
        Request::Completion(_) => Box::new(completions::Completions::new(execution)),
        Request::Embedding(request) => {
            let format = request.encoding_format.unwrap_or_default();
            Box::new(embeddings::Embeddings::new(format, &execution.model().name))
        }
    }
}

/// A value as JSON.
fn json(value: &impl Serialize) -> Bytes {
    // Strings, numbers and lists of them: cannot fail.
    serde_json::to_vec(value).unwrap_or_default().into()
}
