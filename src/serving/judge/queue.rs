//! The judge's bounded queue: samples requests and takes their answers as jobs.

use std::sync::Arc;

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::answer_capture::AnswerCapture;
use super::config::Config;
use super::prompts::JudgeError;
use crate::locality::Locality;
use crate::openai::{Message, Request};
use crate::routing::text::{fmix64, fnv1a};
use crate::routing::{Decision, Features};
use crate::telemetry::Metrics;
use crate::telemetry::metrics::JudgementLabels;

/// An answer to judge.
#[derive(Debug)]
pub struct JudgeJob {
    pub request_id: Arc<str>,
    pub messages: Vec<Message>,
    pub answer: String,
    /// Output limit that the client set, for the answer to compare with.
    pub output_limit: Option<u32>,
    /// The farthest deployment that may see any of it.
    pub reach: Locality,
    /// The most able other model that may answer.
    pub runner_up: Option<Arc<str>>,
}

/// The sending end of the queue.
#[derive(Debug)]
pub struct JudgeQueue {
    config: Config,
    /// Name of the judge.
    model: Arc<str>,
    jobs: Sender<JudgeJob>,
}

impl JudgeQueue {
    /// The queue and its receiving end, which the worker empties.
    pub fn new(config: Config, model: Arc<str>) -> (Self, Receiver<JudgeJob>) {
        let (jobs, receiver) = channel(config.queue as usize);
        (Self { config, model, jobs }, receiver)
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    pub fn model(&self) -> &Arc<str> {
        &self.model
    }

    /// Whether the answer to this request is in the share that is judged. Depends on the id alone.
    pub fn samples(&self, request_id: &str) -> bool {
        // 53 bits are what a float holds.
        let unit = (fmix64(fnv1a(request_id.as_bytes())) >> 11) as f64 / (1_u64 << 53) as f64;
        unit < self.config.share
    }

    /// Captures the answer if it is in the share that is judged: plain conversations only.
    pub fn capture(
        &self,
        request: &Request,
        features: &Features,
        request_id: &str,
    ) -> Option<AnswerCapture> {
        let Request::Chat(chat) = request else { return None };
        let needs = features.needs;
        let beyond_text = needs.tools || needs.media || needs.schema || chat.n.unwrap_or(1) > 1;
        (!beyond_text && self.samples(request_id)).then(|| AnswerCapture::of(&chat.messages))
    }

    /// Queues a job if there is room and the judge, whose nearest deployment is that far, may see
    /// it.
    pub fn enqueue(&self, job: JudgeJob, nearest: Locality, metrics: &Metrics) {
        if nearest > job.reach {
            count(metrics, &self.model, JudgeError::LocalOnly.label());
        } else if self.jobs.try_send(job).is_err() {
            count(metrics, &self.model, JudgeError::QueueFull.label());
        }
    }
}

/// Counts one judgement by its outcome.
pub(super) fn count(metrics: &Metrics, model: &Arc<str>, outcome: &'static str) {
    let labels = JudgementLabels { model: Arc::clone(model), outcome };
    metrics.judgements_total.get_or_create(&labels).inc();
}

/// The most able model of a decision other than `answered`.
pub fn runner_up(decision: &Decision, answered: &str) -> Option<Arc<str>> {
    let others = decision.ranked_candidates().filter(|candidate| &*candidate.model != answered);
    let best = others.max_by(|a, b| a.p.total_cmp(&b.p));
    best.map(|candidate| Arc::clone(&candidate.model))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_decided_by_the_id() {
        let sampled = |share: f64| {
            let config = Config { share, ..Config::default() };
            let (queue, _jobs) = JudgeQueue::new(config, "judge".into());
            (0..10_000).filter(|id| queue.samples(&format!("request-{id}"))).count()
        };
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 10_000));
        assert!((2_300..2_700).contains(&sampled(0.25)), "{}", sampled(0.25));
        assert_eq!(sampled(0.25), sampled(0.25));
    }
}
