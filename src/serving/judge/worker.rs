//! The judge's task: judges job after job, each within its deadline.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::call::{JudgePrompt, call};
use super::config::Mode;
use super::prompts::{self, JudgeError, PAIR_SCHEMA, POINT_SCHEMA};
use super::prompts::{pair_prompt, pair_score, point_prompt};
use super::queue::{JudgeJob, JudgeQueue, count};
use crate::serving::gateway::Gateway;
use crate::traffic::VerdictSource;

/// Tokens that a judge may take for its verdict, which is a short JSON object.
const VERDICT_TOKENS: u32 = 64;

/// Judges job after job until `stop`.
pub async fn run(gateway: Arc<Gateway>, mut jobs: Receiver<JudgeJob>, stop: CancellationToken) {
    let work = async {
        while let Some(job) = jobs.recv().await {
            let Some(queue) = &gateway.judge else { return };
            let deadline = Instant::now() + Duration::from_millis(queue.config().deadline_ms);
            let judged = tokio::time::timeout_at(deadline, judge(&gateway, queue, &job));
            match judged.await.unwrap_or(Err(JudgeError::Late)) {
                Ok(score) => {
                    count(&gateway.metrics, queue.model(), "scored");
                    let source = VerdictSource::Judge(Arc::clone(queue.model()));
                    gateway.receipts.record_feedback(&job.request_id, source, score, None);
                }
                Err(error) => {
                    tracing::debug!(request.id = %job.request_id, "not judged: {error}");
                    count(&gateway.metrics, queue.model(), error.label());
                }
            }
        }
    };
    // Dropping the work cancels the models' work for it.
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Score of the job's answer, 0 to 1.
async fn judge(gateway: &Gateway, queue: &JudgeQueue, job: &JudgeJob) -> Result<f64, JudgeError> {
    let snapshot = gateway.router.snapshot();
    let model = |name: &str| snapshot.models.get(name).ok_or(JudgeError::Failed);
    let judge = model(queue.model())?;
    let runner_up = job.runner_up.as_ref().filter(|_| queue.config().mode == Mode::Pairwise);
    let runner_up = runner_up.map(|name| model(name)).transpose()?;
    // A second answer must not carry the conversation farther than the first one may.
    let runner_up = runner_up.filter(|other| other.nearest() <= job.reach);
    let Some(runner_up) = runner_up else {
        let prompt = point_prompt(&job.messages, &job.answer);
        let prompt = JudgePrompt::for_verdict(&prompt, POINT_SCHEMA, VERDICT_TOKENS);
        return prompts::point(&call(gateway, judge, prompt, job.reach).await?);
    };
    let prompt = JudgePrompt::of_client(&job.messages, job.output_limit);
    let other = call(gateway, runner_up, prompt, job.reach).await?;
    let compare = async |first: &str, second: &str| {
        let prompt = pair_prompt(&job.messages, first, second);
        let prompt = JudgePrompt::for_verdict(&prompt, PAIR_SCHEMA, VERDICT_TOKENS);
        prompts::pair(&call(gateway, judge, prompt, job.reach).await?)
    };
    let as_a = compare(&job.answer, &other).await?;
    let as_b = compare(&other, &job.answer).await?;
    Ok(pair_score(as_a, as_b))
}
