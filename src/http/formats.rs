//! Reply formats: how an answer is written, one file per API surface.
//!
//! Knows no HTTP. What an upstream wrote in the same format is forwarded byte for byte, but for the
//! receipt.

pub mod chat;
pub mod choices;
pub mod completions;
pub mod embeddings;
pub mod events;
mod format;
mod head;
#[cfg(test)]
mod interleaved;

pub use self::format::{Answer, Content, ReplyFormat};
use crate::openai::Request;
use crate::serving::execution::Execution;

/// The format of the surface that the request came by.
pub fn format_of(execution: &Execution) -> Box<dyn ReplyFormat> {
    match execution.request() {
        Request::Chat(request) => Box::new(chat::Chat::new(execution, request)),
        Request::Completion(_) => Box::new(completions::Completions::new(execution)),
        Request::Embedding(request) => {
            let format = request.encoding_format.unwrap_or_default();
            Box::new(embeddings::Embeddings::new(format, &execution.model().name))
        }
    }
}
