//! Reply formats: how an answer is written, one file per surface of OpenAI's first API.
//!
//! Knows no HTTP. What an upstream wrote in the same format is forwarded byte for byte, but for the
//! receipt.

pub mod chat;
pub mod choices;
pub mod completions;
pub mod embeddings;
pub mod events;
pub mod format;
pub mod head;
#[cfg(test)]
mod interleaved;

use self::format::ReplyFormat;
use crate::openai::Request;
use crate::serving::execution::Execution;

/// The format of a request in OpenAI's first API.
pub fn of_openai(execution: &Execution) -> Box<dyn ReplyFormat> {
    match execution.request() {
        Request::Chat(request) => Box::new(chat::Chat::new(execution, request)),
        Request::Completion(_) => Box::new(completions::Completions::new(execution)),
        Request::Embedding(request) => {
            let format = request.encoding_format.unwrap_or_default();
            Box::new(embeddings::Embeddings::new(format, &execution.model().name))
        }
    }
}
