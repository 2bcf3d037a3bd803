//! `/v1/responses`: OpenAI's second API for conversations, over the same models as chat.

pub mod chat;
mod content;
pub mod echo;
pub mod items;
mod object;
mod output;
pub mod request;
pub mod reply;
pub mod store;
mod tools;
pub mod words;
