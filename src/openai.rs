//! OpenAI's wire types: what clients send and what they get back. No logic, no I/O.

pub mod chat;
pub mod content;
pub mod error;
pub mod stream;
pub mod tools;

pub use chat::{
    ChatRequest, ChatResponse, Choice, FinishReason, Message, Role, StreamOptions, Usage,
};
pub use content::{Content, Part, Stop};
pub use error::{ErrorBody, ErrorEnvelope};
pub use stream::{ChatChunk, ChunkChoice, Delta};
pub use tools::{Tool, ToolCall, ToolCallDelta, ToolChoice};
