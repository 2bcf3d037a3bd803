//! `/v1/messages`: Anthropic's API for conversations, over the same models as chat.

mod blocks;
pub mod chat;
pub mod error;
pub mod models;
mod output;
pub mod reply;
pub mod request;
pub mod words;
