//! Another model's opinion of a share of the answers, after they were given: who is judged, when, and what becomes of it.
//!
//! Off the way of requests: cases wait in a bounded queue for one task of the app, whose work is of low priority and is
//! booked as overhead under the models that do it, never to a request or a client. Texts are in memory only while a
//! case waits or is judged.

mod ask;
mod config;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::ask::{Asked, ask};
pub use self::config::{Config, Mode};
use self::verdict::{Failure, PAIR_SCHEMA, POINT_SCHEMA, pair_prompt, pair_score, point_prompt};
use super::state::Gateway;
use crate::backends::Event;
use crate::openai::Message;
use crate::routing::text::{fmix64, fnv1a};
use crate::routing::{Decision, Route};
use crate::telemetry::metrics::JudgementLabels;
use crate::traffic::Source;

/// Bytes of a conversation with its answer that a judge reads at most; longer ones are not judged.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// Tokens that a judge may take for its verdict, which is a short JSON object.
const VERDICT_TOKENS: u32 = 64;

/// An answer to judge.
#[derive(Debug)]
pub struct Case {
    pub request_id: Arc<str>,
    pub messages: Vec<Message>,
    pub answer: String,
    /// Output limit that the client set, for the answer to compare with.
    pub output_limit: Option<u32>,
    /// Nothing of it may leave this machine.
    pub local_only: bool,
    /// Place in the router's models of the most able other model that may answer.
    pub other: Option<usize>,
}

/// An answer as it goes past.
#[derive(Debug)]
pub struct Overheard {
    text: String,
    /// Bytes that may still come.
    room: usize,
    /// It became too long to judge, or holds what is no text.
    lost: bool,
}

impl Overheard {
    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Text(piece) => self.push(piece),
            Event::Upstream(object) => match ask::said(object.get()) {
                Some(piece) => self.push(&piece),
                None => self.lost = true,
            },
            _ => {}
        }
    }

    fn push(&mut self, piece: &str) {
        self.lost |= self.text.len() + piece.len() > self.room;
        if !self.lost {
            self.text.push_str(piece);
        }
    }

    /// The whole answer; none if there is nothing to judge.
    pub fn whole(self) -> Option<String> {
        (!self.lost && !self.text.trim().is_empty()).then_some(self.text)
    }
}

/// The way into the queue.
#[derive(Debug)]
pub struct Judging {
    config: Config,
    /// The judge's place in the router's models.
    judge: usize,
    queue: Sender<Case>,
}

impl Judging {
    /// The queue and its end, which [`run`] empties.
    pub fn new(config: Config, judge: usize) -> (Self, Receiver<Case>) {
        let (queue, cases) = channel(config.queue as usize);
        (Self { config, judge, queue }, cases)
    }

    /// Whether the answer to this request is one of the share: decided by its id, so that it is the same everywhere.
    pub fn samples(&self, request_id: &str) -> bool {
        // 53 bits are what a float holds.
        let unit = (fmix64(fnv1a(request_id.as_bytes())) >> 11) as f64 / (1_u64 << 53) as f64;
        unit < self.config.share
    }

    /// Listens to an answer in this conversation.
    pub fn listen(&self, messages: &[Message]) -> Overheard {
        let content =
            |one: &Message| one.content.as_ref().map_or(0, |content| content.text().len());
        let spent: usize = messages.iter().map(content).sum();
        let room = TEXT_BYTES_MAX.saturating_sub(spent);
        Overheard { text: String::new(), room, lost: room == 0 }
    }
}

/// The most able model of a decision beside the one at `answered`.
pub fn rival(decision: &Decision, answered: usize) -> Option<usize> {
    let p = |place: usize| decision.judged[place].candidate.p;
    let others = decision.ranked.iter().copied().filter(|&place| place != answered);
    others.max_by(|&a, &b| p(a).total_cmp(&p(b)))
}

impl Gateway {
    /// Queues a case if there is room and the judge may see it.
    pub fn offer(&self, case: Case) {
        let Some(judging) = &self.judging else { return };
        let judge = &self.router.models[judging.judge];
        if case.local_only && judge.route() == Route::Cloud {
            self.count_judgement(&judge.name, Failure::LocalOnly.label());
        } else if judging.queue.try_send(case).is_err() {
            self.count_judgement(&judge.name, Failure::QueueFull.label());
        }
    }

    fn count_judgement(&self, model: &Arc<str>, outcome: &'static str) {
        let labels = JudgementLabels { model: Arc::clone(model), outcome };
        self.metrics.judgements_total.get_or_create(&labels).inc();
    }
}

/// Judges case after case until `stop`, each within its deadline.
pub async fn run(gateway: Arc<Gateway>, mut cases: Receiver<Case>, stop: CancellationToken) {
    let work = async {
        while let Some(case) = cases.recv().await {
            let Some(judging) = &gateway.judging else { return };
            let deadline = Instant::now() + Duration::from_millis(judging.config.deadline_ms);
            let judged = tokio::time::timeout_at(deadline, judge(&gateway, judging, &case));
            let judged = judged.await.unwrap_or(Err(Failure::Late));
            let name = &gateway.router.models[judging.judge].name;
            match judged {
                Ok(score) => {
                    gateway.count_judgement(name, "scored");
                    let source = Source::Judge(Arc::clone(name));
                    gateway.books.learn(&case.request_id, source, score, None);
                }
                Err(failure) => {
                    tracing::debug!(request.id = %case.request_id, "not judged: {failure}");
                    gateway.count_judgement(name, failure.label());
                }
            }
        }
    };
    // Dropping the work cancels whatever a model does for it.
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

/// Score of the case's answer, 0 to 1.
async fn judge(gateway: &Gateway, judging: &Judging, case: &Case) -> Result<f64, Failure> {
    let other = case.other.filter(|_| judging.config.mode == Mode::Pairwise);
    // The other answer must not leave this machine either.
    let may =
        |place: &usize| !case.local_only || gateway.router.models[*place].route() == Route::Local;
    let Some(other) = other.filter(may) else {
        let prompt = point_prompt(&case.messages, &case.answer);
        let asked = Asked::for_verdict(&prompt, POINT_SCHEMA, VERDICT_TOKENS);
        return verdict::point(&ask(gateway, judging.judge, asked).await?);
    };
    let rival = Asked::plainly(&case.messages, case.output_limit);
    let rival = ask(gateway, other, rival).await?;
    let verdict = async |first: &str, second: &str| {
        let prompt = pair_prompt(&case.messages, first, second);
        let asked = Asked::for_verdict(&prompt, PAIR_SCHEMA, VERDICT_TOKENS);
        verdict::pair(&ask(gateway, judging.judge, asked).await?)
    };
    let as_a = verdict(&case.answer, &rival).await?;
    let as_b = verdict(&rival, &case.answer).await?;
    Ok(pair_score(as_a, as_b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_decided_by_the_id() {
        let sampled = |share: f64| {
            let config = Config { share, ..Config::default() };
            let (judging, _cases) = Judging::new(config, 0);
            (0..10_000).filter(|id| judging.samples(&format!("request-{id}"))).count()
        };
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 10_000));
        assert!((2_300..2_700).contains(&sampled(0.25)), "{}", sampled(0.25));
        assert_eq!(sampled(0.25), sampled(0.25));
    }
}
