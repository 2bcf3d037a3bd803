//! The three kinds of request and their common fields.

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

use super::chat::{ChatRequest, Message, StreamOptions};
use super::completion::CompletionRequest;
use super::embedding::EmbeddingRequest;
use super::input::Inputs;

/// A request to a model.
#[derive(Debug)]
pub enum Request {
    Chat(ChatRequest),
    Completion(CompletionRequest),
    Embedding(EmbeddingRequest),
}

/// Fields that say something about the request rather than of its content.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestFields<'r> {
    pub wattgate: Option<&'r RawValue>,
    pub user: Option<&'r Value>,
    pub metadata: Option<&'r RawValue>,
}

/// All requests name the fields alike.
macro_rules! request_fields {
    ($request:expr) => {
        RequestFields {
            wattgate: $request.wattgate.as_deref(),
            user: $request.user.as_ref(),
            metadata: $request.metadata.as_deref(),
        }
    };
}

impl Request {
    /// `auto`, `auto/<policy>` or a model's own name.
    pub fn model(&self) -> &str {
        match self {
            Self::Chat(request) => &request.model,
            Self::Completion(request) => &request.model,
            Self::Embedding(request) => &request.model,
        }
    }

    pub fn fields(&self) -> RequestFields<'_> {
        match self {
            Self::Chat(request) => request_fields!(request),
            Self::Completion(request) => request_fields!(request),
            Self::Embedding(request) => request_fields!(request),
        }
    }

    pub fn streams(&self) -> bool {
        match self {
            Self::Chat(request) => request.streams(),
            Self::Completion(request) => request.stream.unwrap_or(false),
            Self::Embedding(_) => false,
        }
    }

    /// How many choices the answer has.
    pub fn choices(&self) -> u32 {
        match self {
            Self::Chat(request) => request.n.unwrap_or(1),
            Self::Completion(request) => {
                let prompts = u32::try_from(request.prompt.0.len()).unwrap_or(u32::MAX);
                request.choices().saturating_mul(prompts)
            }
            Self::Embedding(_) => 0,
        }
    }

    /// Whether the client requested a usage chunk at the end of the stream.
    pub fn wants_stream_usage(&self) -> bool {
        let wants = |options: &Option<StreamOptions>| {
            options.as_ref().is_some_and(|options| options.include_usage.unwrap_or(false))
        };
        match self {
            Self::Chat(request) => request.wants_stream_usage(),
            Self::Completion(request) => wants(&request.stream_options),
            Self::Embedding(_) => false,
        }
    }

    /// The request's text as a conversation, for routing and the log: a raw prompt becomes one user
    /// turn, a list of tokens an empty one, since its text is unknown without the vocabulary.
    pub fn messages(&self) -> Cow<'_, [Message]> {
        match self {
            Self::Chat(request) => Cow::Borrowed(&request.messages),
            Self::Completion(request) => Cow::Owned(turns(&request.prompt)),
            Self::Embedding(request) => Cow::Owned(turns(&request.input)),
        }
    }

    /// Name of the field that holds the prompt, for error messages.
    pub fn prompt_field(&self) -> &'static str {
        match self {
            Self::Chat(_) => "messages",
            Self::Completion(_) => "prompt",
            Self::Embedding(_) => "input",
        }
    }
}

fn turns(inputs: &Inputs) -> Vec<Message> {
    let texts = inputs.0.iter().map(|input| input.text().unwrap_or_default());
    texts.map(|text| Message::user(text.to_owned())).collect()
}
