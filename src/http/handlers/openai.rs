//! `POST /v1/chat/completions`, `/v1/completions` and `/v1/embeddings`.

use axum::response::Response;

use super::generate::{Call, Understood};
use crate::http::extract::body::{parse_chat, parse_completion, parse_embedding};
use crate::http::surface::Dialect;

/// Answers a conversation.
pub async fn complete(call: Call) -> Response {
    call.answer(Dialect::Openai, |body, _| parse_chat(body).map(Understood::plain)).await
}

/// Continues raw prompts.
pub async fn complete_prompt(call: Call) -> Response {
    call.answer(Dialect::Openai, |body, _| parse_completion(body).map(Understood::plain)).await
}

/// Turns texts into vectors.
pub async fn embed(call: Call) -> Response {
    call.answer(Dialect::Openai, |body, _| parse_embedding(body).map(Understood::plain)).await
}
