//! What the surfaces beside chat share: a conversation put together as a chat request, and an
//! answer taken apart. Pure.

pub mod chat_body;
pub mod said;
pub mod turns;
pub mod words;
