//! `POST /v1/feedback`: what somebody thinks of an answer.
//!
//! Reads and checks; the books join it to its request, count it and log it.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::info::bare_id;
use super::request::{read, read_body, wrong};
use super::state::Gateway;
use crate::traffic::{PromptStorage, Record, Source};

/// Who speaks if the client names nobody.
const ANYBODY: &str = "user";

/// An answer of less use than this has failed: its conversation goes on with a higher floor.
const FAILED_BELOW: f64 = 0.5;

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
    verdict: Option<Verdict>,
    /// Who says so; each source has one voice per request, and its last word counts.
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    comment: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
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
    State(gateway): State<Arc<Gateway>>,
    body: Body,
) -> Result<Json<FeedbackReply>, ApiError> {
    let body = read_body(body, gateway.max_body_bytes).await?;
    let request: FeedbackRequest = read(&body)?;
    let score = score(&request)?;
    let source = source(&request)?;
    let comment = comment(&request, gateway.prompts)?;
    let said = Said { source: Source::Client(source.clone().into()), score, comment };
    let record = join(&gateway, &request.request_id, said).await?;
    if score < FAILED_BELOW {
        gateway.router.conversations.failed(&record);
    }
    let (request_id, label) = (Arc::clone(&record.receipt.request_id), record.label);
    Ok(Json(FeedbackReply { request_id, source, score, label }))
}

/// A checked verdict.
struct Said {
    source: Source,
    score: f64,
    comment: Option<String>,
}

/// Joins a verdict to its request: in the books, or, long after the answer or a restart, in the log only.
async fn join(gateway: &Gateway, named: &str, said: Said) -> Result<Arc<Record>, ApiError> {
    let (id, Said { source, score, comment }) = (bare_id(named), said);
    if let Some(record) = gateway.books.learn(id, source.clone(), score, comment.clone()) {
        return Ok(record);
    }
    let found = gateway.books.recall(id).await?;
    let record = found.ok_or_else(|| ApiError::UnknownRequest(named.to_owned()))?;
    let record = Arc::new(record);
    gateway.books.log_verdict(&record, source, score, comment);
    Ok(record)
}

fn score(request: &FeedbackRequest) -> Result<f64, ApiError> {
    match (request.score, request.verdict) {
        (Some(score), None) if (0.0..=1.0).contains(&score) => Ok(score),
        (Some(_), None) => {
            Err(wrong("score", "must be from 0 (of no use) to 1 (as good as can be)"))
        }
        (None, Some(Verdict::Good)) => Ok(1.0),
        (None, Some(Verdict::Bad)) => Ok(0.0),
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
