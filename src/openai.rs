//! OpenAI's wire types: requests and answers. No I/O, no behaviour beyond reading and writing them.

pub mod chat;
pub mod completion;
pub mod constraint;
pub mod constraint_fields;
pub mod content;
pub mod embedding;
pub mod error;
pub mod field;
pub mod input;
pub mod lenient;
pub mod logprobs;
pub mod request;
pub mod sampling;
pub mod stream;
pub mod tools;

pub use chat::{
    ChatRequest, ChatResponse, Choice, FinishReason, Message, Role, StreamOptions, Usage,
};
pub use completion::CompletionRequest;
pub use constraint::{ResponseFormat, StructuredOutputs};
pub use constraint_fields::ConstraintFields;
pub use content::{Content, Part, Stop};
pub use embedding::EmbeddingRequest;
pub use error::{ErrorBody, ErrorEnvelope};
pub use field::RequestField;
pub use input::{Input, Inputs};
pub use logprobs::{ChoiceLogprobs, RankedToken, TokenLogprob};
pub use request::Request;
pub use sampling::SamplingFields;
pub use stream::{ChatChunk, ChunkChoice, ChunkUsage, Delta};
pub use tools::{Tool, ToolCall, ToolCallDelta, ToolChoice};
