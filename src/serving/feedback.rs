//! Feedback on answers: joins a verdict to its request, in memory or in the log, and raises the
//! floor of a conversation whose answer failed.

use std::sync::Arc;

use super::error::{ServeError, ServeErrorKind};
use super::gateway::Gateway;
use crate::traffic::{Record, VerdictSource};

/// A score below this means that the answer failed: its conversation goes on with a higher floor.
const FAILED_BELOW: f64 = 0.5;

/// A checked verdict on an answer.
#[derive(Debug)]
pub struct Verdict {
    pub source: VerdictSource,
    /// 0 to 1.
    pub score: f64,
    pub comment: Option<String>,
}

/// Records a verdict and returns the record of its request; `None` if neither the store nor the log
/// knows the request.
pub async fn record_verdict(
    gateway: &Gateway,
    id: &str,
    verdict: Verdict,
) -> Result<Option<Arc<Record>>, ServeError> {
    let score = verdict.score;
    let record = join(gateway, id, verdict).await?;
    if let Some(record) = record.as_ref().filter(|_| score < FAILED_BELOW) {
        gateway.router.conversations.failed(record);
    }
    Ok(record)
}

async fn join(
    gateway: &Gateway,
    id: &str,
    verdict: Verdict,
) -> Result<Option<Arc<Record>>, ServeError> {
    let Verdict { source, score, comment } = verdict;
    let receipts = &gateway.receipts;
    if let Some(record) = receipts.record_feedback(id, source.clone(), score, comment.clone()) {
        return Ok(Some(record));
    }
    let found =
        receipts.find_in_log(id).await.map_err(|_| ServeErrorKind::SearchBusy)?.map(Arc::new);
    if let Some(record) = &found {
        receipts.log_verdict(record, source, score, comment);
    }
    Ok(found)
}
