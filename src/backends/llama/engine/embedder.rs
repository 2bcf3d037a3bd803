//! Embedding worker: owns the llama.cpp context of an embedding model; texts in, vectors out.
//!
//! [`super::schedule::embedding_batch`] chooses the texts of each batch.

use std::collections::HashMap;
use std::num::NonZeroU32;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{LlamaContextParams, LlamaPoolingType};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;

use super::command::{EmbeddingInput, EngineCommand};
use super::error::EngineError;
use super::schedule::embedding_batch::{EmbeddingBatcher, Limits, Pick};
use super::step_loop::{Outbox, Worker};
use crate::backends::llama::wire::outcome::{Counts, Outcome, Refusal, Rejection};
use crate::backends::llama::wire::protocol::{FrameError, FromEngine};
use crate::backends::llama::wire::settings::{EngineSettings, Pooling};
use crate::backends::llama::wire::step::{Drafted, Reused, StepReport};
use crate::energy::{WorkRow, WorkSpan};
use crate::openai::FinishReason;
use crate::units::{AttemptId, MonotonicNs};

pub(crate) struct Embedder<'m> {
    context: LlamaContext<'m>,
    batch: LlamaBatch<'static>,
    packing: EmbeddingBatcher,
    /// Maximum length of a text in tokens.
    pub(crate) context_tokens: usize,
    model_dimensions: usize,
    open: HashMap<AttemptId, Open>,
    outbox: Outbox,
}

struct Open {
    prompt_tokens: u32,
    dimensions: usize,
    deadline: Option<MonotonicNs>,
}

impl<'m> Embedder<'m> {
    pub(crate) fn new(
        backend: &LlamaBackend,
        model: &'m LlamaModel,
        settings: &EngineSettings,
        threads: usize,
    ) -> Result<Self, EngineError> {
        let sequences = settings.slots.max(1);
        let context_tokens = settings.context_within(model.n_ctx_train());
        // Bidirectional attention needs each text within one pass.
        let batch_tokens = settings.batch_tokens.max(context_tokens);
        let threads = i32::try_from(threads).unwrap_or(1);
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(context_tokens.saturating_mul(sequences)))
            .with_n_seq_max(sequences)
            // With separate caches, a generator would evaluate texts of different lengths in
            // several passes, each of which overwrites the mean of the previous one.
            .with_kv_unified(true)
            .with_n_batch(batch_tokens)
            .with_n_ubatch(batch_tokens)
            .with_embeddings(true)
            .with_pooling_type(pooling(model, settings.pooling)?)
            .with_n_threads(threads)
            .with_n_threads_batch(threads);
        let context = model.new_context(backend, params).map_err(|error| {
            EngineError::Load(format!(
                "not enough memory for {sequences} texts of {context_tokens} tokens: {error}"
            ))
        })?;
        let limits = Limits {
            sequences: sequences as usize,
            // llama.cpp may lower the value: a larger batch would abort the process.
            batch_tokens: context.n_batch().min(context.n_ubatch()) as usize,
        };
        Ok(Self {
            batch: LlamaBatch::new(limits.batch_tokens, 1),
            context_tokens: limits.batch_tokens.min(context_tokens as usize),
            model_dimensions: usize::try_from(model.n_embd_out()).unwrap_or(0),
            context,
            packing: EmbeddingBatcher::new(limits),
            open: HashMap::new(),
            outbox: Outbox::default(),
        })
    }

    fn admit(&mut self, texts: EmbeddingInput) -> Result<(), FrameError> {
        let attempt = texts.attempt;
        match self.check(&texts) {
            Ok(open) => {
                self.open.insert(attempt, open);
                self.packing.submit(attempt, texts.terms.client, texts.inputs);
                let at = MonotonicNs::now();
                let admitted = FromEngine::Admitted { attempt, at, dropped_turns: 0 };
                self.outbox.push(&admitted)
            }
            Err(refusal) => self.close(attempt, Outcome::Refused(refusal)),
        }
    }

    fn check(&self, texts: &EmbeddingInput) -> Result<Open, Refusal> {
        let EmbeddingInput { inputs, dimensions, terms, .. } = texts;
        let count = |tokens| u32::try_from(tokens).unwrap_or(u32::MAX);
        if inputs.is_empty() || inputs.iter().any(Vec::is_empty) {
            return Err(Refusal::Scheduler(Rejection::EmptyPrompt));
        }
        if let Some(long) = inputs.iter().find(|tokens| tokens.len() > self.context_tokens) {
            return Err(Refusal::Scheduler(Rejection::ContextExceeded {
                prompt_tokens: count(long.len()),
                context_tokens: count(self.context_tokens),
            }));
        }
        let wanted = dimensions.map_or(self.model_dimensions, |wanted| wanted as usize);
        if wanted > self.model_dimensions {
            return Err(Refusal::Dimensions { most: count(self.model_dimensions) });
        }
        let prompt_tokens = count(inputs.iter().map(Vec::len).sum());
        Ok(Open { prompt_tokens, dimensions: wanted, deadline: terms.deadline })
    }

    /// Closes requests past their deadline.
    fn expire(&mut self, now: MonotonicNs) -> Result<(), FrameError> {
        let late = |open: &Open| open.deadline.is_some_and(|deadline| deadline <= now);
        let expired: Vec<AttemptId> =
            self.open.iter().filter(|(_, open)| late(open)).map(|(attempt, _)| *attempt).collect();
        for attempt in expired {
            self.packing.cancel(attempt);
            self.close(attempt, Outcome::Expired)?;
        }
        Ok(())
    }

    /// Evaluates one batch that began at `start`; returns when it ended.
    fn embed_batch(&mut self, start: MonotonicNs) -> Result<MonotonicNs, EngineError> {
        let picks = self.packing.next_batch();
        self.evaluate(&picks)?;
        let end = MonotonicNs::now();
        let (reused, drafted) = (Reused::default(), Drafted::default());
        let work = WorkSpan { start, end, rows: self.rows(&picks) };
        let report = StepReport { work, reused, drafted };
        let step =
            FromEngine::Step { report, pieces: vec![], logprobs: vec![], confidences: vec![] };
        self.outbox.push(&step)?;
        for (sequence, pick) in (0..).zip(&picks) {
            let Some(open) = self.open.get(&pick.attempt) else { continue };
            let vector = self
                .context
                .embeddings_seq_ith(sequence)
                .map_err(|error| EngineError::Decode(error.to_string()))?;
            let vector = unit(&vector[..open.dimensions]);
            let frame = FromEngine::Vector { attempt: pick.attempt, vector };
            self.outbox.push(&frame)?;
        }
        for attempt in self.packing.evaluated(&picks) {
            let prompt_tokens = self.open.get(&attempt).map_or(0, |open| open.prompt_tokens);
            let counts = Counts { prompt_tokens, ..Counts::default() };
            let reason = FinishReason::Stop;
            self.close(attempt, Outcome::Finished { reason, counts })?;
        }
        Ok(end)
    }

    fn evaluate(&mut self, picks: &[Pick]) -> Result<(), EngineError> {
        let failed = |error: &dyn std::error::Error| EngineError::Decode(error.to_string());
        self.batch.clear();
        for (sequence, pick) in (0..).zip(picks) {
            for (position, &token) in (0..).zip(self.packing.tokens(*pick)) {
                self.batch
                    .add(LlamaToken(token), position, &[sequence], true)
                    .map_err(|error| failed(&error))?;
            }
        }
        // Generators keep evaluated tokens in the KV cache; embeddings do not reuse them.
        self.context.clear_kv_cache_seq(None, None, None).map_err(|error| failed(&error))?;
        self.context.decode(&mut self.batch).map_err(|error| failed(&error))
    }

    /// The batch's work: one row per request.
    fn rows(&self, picks: &[Pick]) -> Vec<WorkRow> {
        let mut rows: Vec<WorkRow> = Vec::new();
        for pick in picks {
            let tokens = u32::try_from(self.packing.tokens(*pick).len()).unwrap_or(u32::MAX);
            match rows.iter_mut().find(|row| row.attempt == pick.attempt) {
                Some(row) => row.prefill_tokens += tokens,
                None => rows.push(WorkRow {
                    attempt: pick.attempt,
                    prefill_tokens: tokens,
                    decode_tokens: 0,
                }),
            }
        }
        rows
    }

    fn close(&mut self, attempt: AttemptId, outcome: Outcome) -> Result<(), FrameError> {
        self.open.remove(&attempt);
        self.outbox.close(attempt, outcome)
    }
}

impl Worker for Embedder<'_> {
    type Command = EngineCommand;

    fn is_idle(&self) -> bool {
        self.packing.is_empty()
    }

    fn take(&mut self, command: EngineCommand) -> Result<(), FrameError> {
        match command {
            EngineCommand::Embed(texts) => self.admit(texts),
            EngineCommand::Close(attempt, outcome) => self.close(attempt, outcome),
            EngineCommand::Preparing => self.outbox.push(&FromEngine::Preparing),
            EngineCommand::Cancel(attempt) if self.packing.cancel(attempt) => {
                self.close(attempt, Outcome::Cancelled)
            }
            // The attempt ended before the cancellation arrived; its end is already sent.
            EngineCommand::Cancel(_) => Ok(()),
            EngineCommand::Generate { request, .. } => {
                self.close(request.attempt, Outcome::Refused(Refusal::OtherTask))
            }
        }
    }

    fn step(&mut self, start: MonotonicNs) -> Result<Option<MonotonicNs>, EngineError> {
        self.expire(start)?;
        if self.packing.is_empty() {
            return Ok(None);
        }
        self.embed_batch(start).map(Some)
    }

    fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }
}

/// The pooling from the config, else from the GGUF.
fn pooling(model: &LlamaModel, wanted: Option<Pooling>) -> Result<LlamaPoolingType, EngineError> {
    let Some(wanted) = wanted else {
        let architecture = model.meta_val_str("general.architecture").unwrap_or_default();
        // llama.cpp's values: 0 none, 1 mean, 2 cls, 3 last, 4 rank (scores instead of vectors).
        return match model.meta_val_str(&format!("{architecture}.pooling_type")).as_deref() {
            Ok("1" | "2" | "3") => Ok(LlamaPoolingType::Unspecified),
            _ => Err(EngineError::Load(
                "the model has no pooling type: set `pooling` in its config".to_owned(),
            )),
        };
    };
    Ok(match wanted {
        Pooling::Mean => LlamaPoolingType::Mean,
        Pooling::Cls => LlamaPoolingType::Cls,
        Pooling::Last => LlamaPoolingType::Last,
    })
}

/// The vector scaled to length 1; a zero vector is unchanged.
fn unit(vector: &[f32]) -> Vec<f32> {
    let length = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    let scale = if length > 0.0 { length.recip() } else { 1.0 };
    #[expect(clippy::cast_possible_truncation, reason = "between -1 and 1")]
    vector.iter().map(|&x| (f64::from(x) * scale) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_get_unit_length() {
        assert_eq!(unit(&[3.0, 4.0]), [0.6, 0.8]);
        assert_eq!(unit(&[0.0, 0.0]), [0.0, 0.0]);
    }
}
