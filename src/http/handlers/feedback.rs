//! `POST /v1/feedback`: a score for an answer.
//!
//! Reads and checks; the books join it to its request, count it and log it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};

use super::requests::bare_id;
use crate::http::error::ApiError;
use crate::http::extract::body::read_body;
use crate::http::extract::content_type;
use crate::http::extract::fields::{read, wrong};
use crate::http::state::Edge;
use crate::serving::error::ServeErrorKind;
use crate::serving::feedback::{Verdict, record_verdict};
use crate::shares::Client;
use crate::traffic::{PromptStorage, VerdictSource};

/// Source of feedback that names none.
const ANYBODY: &str = "user";

/// Longest comment in bytes.
const COMMENT_BYTES_MAX: usize = 16 << 10;

/// The body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FeedbackRequest {
    /// Of the receipt, or a local completion's own id.
    request_id: String,
    /// 0 to 1. Either this or `verdict`.
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    verdict: Option<Grade>,
    /// Who says so; each source has one voice per request, and its last word counts.
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    comment: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Good,
    Bad,
}

/// What was understood.
#[derive(Debug, Serialize)]
pub struct FeedbackReply {
    request_id: Arc<str>,
    source: String,
    score: f64,
    /// The request's label, over all sources; absent where only the log can tell.
    label: Option<f64>,
}

pub async fn feedback(
    State(edge): State<Edge>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<FeedbackReply>, ApiError> {
    content_type::check(&headers)?;
    let body = read_body(&headers, body, &edge.body, client).await?.bytes;
    let request: FeedbackRequest = read(&body)?;
    let score = score(&request)?;
    let source = source(&request)?;
    let comment = comment(&request, edge.gateway.prompts)?;
    let verdict = Verdict { source: VerdictSource::Client(source.clone().into()), score, comment };
    let named = &request.request_id;
    let record = record_verdict(&edge.gateway, bare_id(named), verdict).await?;
    let record = record.ok_or_else(|| ServeErrorKind::UnknownRequest(named.clone()))?;
    let (request_id, label) = (Arc::clone(&record.receipt.request_id), record.label);
    Ok(Json(FeedbackReply { request_id, source, score, label }))
}

fn score(request: &FeedbackRequest) -> Result<f64, ApiError> {
    match (request.score, request.verdict) {
        (Some(score), None) if (0.0..=1.0).contains(&score) => Ok(score),
        (Some(_), None) => {
            Err(wrong("score", "must be from 0 (of no use) to 1 (as good as can be)"))
        }
        (None, Some(Grade::Good)) => Ok(1.0),
        (None, Some(Grade::Bad)) => Ok(0.0),
        (Some(_), Some(_)) => Err(wrong("score", "and `verdict` exclude each other")),
        (None, None) => {
            Err(wrong("score", "(0 to 1) or `verdict` (\"good\" or \"bad\") must be given"))
        }
    }
}

fn source(request: &FeedbackRequest) -> Result<String, ApiError> {
    let source = request.source.as_deref().unwrap_or(ANYBODY);
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if source.is_empty() || source.len() > 64 || !source.chars().all(plain) {
        return Err(wrong("source", "must be 1 to 64 letters, digits, `.`, `-` or `_`"));
    }
    Ok(source.to_owned())
}

/// The comment, where prompts may be kept: it is likely to quote them.
fn comment(request: &FeedbackRequest, kept: PromptStorage) -> Result<Option<String>, ApiError> {
    match &request.comment {
        Some(comment) if comment.len() > COMMENT_BYTES_MAX => {
            Err(wrong("comment", &format!("must be at most {COMMENT_BYTES_MAX} bytes long")))
        }
        Some(comment) if kept == PromptStorage::Full => Ok(Some(comment.clone())),
        _ => Ok(None),
    }
}
