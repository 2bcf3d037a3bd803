//! Text-generating worker: owns the llama.cpp context; tokens through the model, sampled tokens
//! out.
//!
//! Connects llama.cpp with the pure parts: scheduler, sampler, grammar and output stream.

use std::collections::HashMap;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::session::SeqState;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::vocab::LlamaVocab;

use super::command::{EngineCommand, SequenceState};
use super::error::EngineError;
use super::grammar::matcher::Chosen;
use super::output::stream::Emitted;
use super::sample::token_confidence;
use super::schedule::batch::{Chunk, ChunkKind};
use super::schedule::kv_host_cache::HostCache;
use super::schedule::prefill_budget::PrefillBudget;
use super::schedule::scheduler::{Cancelled, Limits, Scheduler};
use super::schedule::speculative::Drafter;
use super::step_loop::{Outbox, Worker};
use crate::backends::backend::TokenConfidence;
use crate::backends::llama::wire::logprobs::TokenLogprobs;
use crate::backends::llama::wire::outcome::{Counts, Outcome, Refusal};
use crate::backends::llama::wire::piece::Piece;
use crate::backends::llama::wire::protocol::{FrameError, FromEngine};
use crate::backends::llama::wire::settings::EngineSettings;
use crate::backends::llama::wire::step::{Drafted, Reused, StepReport};
use crate::energy::{WorkRow, WorkSpan};
use crate::openai::FinishReason;
use crate::units::{AttemptId, MonotonicNs};

/// Output of one step.
#[derive(Default)]
struct StepOutput {
    pieces: Vec<(AttemptId, Piece)>,
    logprobs: Vec<(AttemptId, Vec<TokenLogprobs>)>,
    confidences: Vec<(AttemptId, TokenConfidence)>,
    finished: Vec<(AttemptId, Outcome)>,
}

/// An attempt in the scheduler.
struct Sequence {
    state: Box<SequenceState>,
    counts: Counts,
    /// Maximum length of the answer in tokens.
    limit: usize,
    drafter: Option<Drafter>,
}

pub(crate) struct Generator<'m> {
    context: LlamaContext<'m>,
    vocab: LlamaVocab<'m>,
    batch: LlamaBatch<'static>,
    scheduler: Scheduler,
    /// Maximum length of prompt plus answer.
    pub(crate) context_tokens: usize,
    sequences: HashMap<AttemptId, Sequence>,
    host: HostCache<SeqState>,
    prefill_budget: PrefillBudget,
    /// Maximum draft tokens per step, over all answers; 0 disables drafts.
    draft_tokens: usize,
    /// Cached prompt tokens since the last report.
    reused: Reused,
    /// Drafts since the last report.
    drafted: Drafted,
    outbox: Outbox,
    /// Bytes of one token; a reused buffer.
    piece: Vec<u8>,
}

impl<'m> Generator<'m> {
    pub(crate) fn new(
        model: &'m LlamaModel,
        context: LlamaContext<'m>,
        limits: Limits,
        settings: &EngineSettings,
    ) -> Self {
        Self {
            context,
            vocab: model.vocab(),
            batch: LlamaBatch::new(limits.batch_tokens, 1),
            scheduler: Scheduler::new(limits).reusing_prefixes(settings.prompt_cache),
            context_tokens: limits.context_tokens,
            sequences: HashMap::new(),
            host: HostCache::new(usize::try_from(settings.host_cache_bytes).unwrap_or(usize::MAX)),
            prefill_budget: PrefillBudget::new(settings.prefill_stretch, limits.slots),
            // Rejected drafts are removed from the KV cache, which these models do not support.
            draft_tokens: if model.is_recurrent() || model.is_hybrid() {
                0
            } else {
                settings.draft_tokens as usize
            },
            reused: Reused::default(),
            drafted: Drafted::default(),
            outbox: Outbox::default(),
            piece: Vec::with_capacity(32),
        }
    }

    /// Adds drafts to the next batch. Each further answer lowers the total: a batch full of answers
    /// has no room for rejected tokens.
    fn propose_drafts(&mut self) {
        if self.draft_tokens == 0 {
            return;
        }
        let answering = self.scheduler.answering();
        let mut left = (self.draft_tokens + 1).saturating_sub(answering.len());
        for (served, &(slot, attempt)) in answering.iter().enumerate() {
            let share = left / (answering.len() - served);
            let sequence = self.sequences.get_mut(&attempt);
            let Some(drafter) = sequence.and_then(|sequence| sequence.drafter.as_mut()) else {
                continue;
            };
            let draft = drafter.draft(self.scheduler.prompt(slot), share);
            left -= draft.len();
            self.scheduler.propose(slot, &draft);
        }
    }

    fn learn(&mut self, chunks: &[Chunk], elapsed_ns: u64) {
        let rows = |phase| {
            let of_phase = chunks.iter().filter(|chunk| chunk.kind == phase);
            of_phase.map(|chunk| chunk.len).sum()
        };
        self.prefill_budget.observe(
            rows(ChunkKind::Decode),
            rows(ChunkKind::Prefill),
            elapsed_ns as f64,
        );
    }

    /// Evaluates the chunks as one batch.
    fn evaluate(&mut self, chunks: &[Chunk]) -> Result<(), EngineError> {
        self.batch.clear();
        for chunk in chunks {
            // Contexts hold fewer than 2³¹ tokens, so positions and slots fit.
            let (slot, last) = (as_index(chunk.slot), chunk.len - 1);
            for (offset, &token) in self.scheduler.tokens(chunk).iter().enumerate() {
                let wants_logits = chunk.completes && offset + chunk.drafts >= last;
                self.batch
                    .add(LlamaToken(token), as_index(chunk.start + offset), &[slot], wants_logits)
                    .map_err(|error| EngineError::Decode(error.to_string()))?;
            }
        }
        self.context.decode(&mut self.batch).map_err(|error| EngineError::Decode(error.to_string()))
    }

    /// Samples the next token of a fully evaluated sequence, whose logits are in batch row `row`,
    /// and accepts the drafts that match.
    fn continue_answer(
        &mut self,
        chunk: &Chunk,
        row: usize,
        output: &mut StepOutput,
    ) -> Result<(), EngineError> {
        let before = self.scheduler.kept(chunk.slot);
        let rows = row..=row + chunk.drafts;
        for row in rows {
            self.add_token(chunk, row, output);
            if !self.scheduler.is_ahead(chunk.slot) {
                break;
            }
        }
        let kept = self.scheduler.kept(chunk.slot);
        let (drafted, held) = (chunk.drafts, kept - before);
        if drafted == 0 {
            return Ok(());
        }
        self.drafted.tokens += count(drafted);
        self.drafted.accepted += count(held);
        let sequence = self.sequences.get_mut(&chunk.attempt);
        if let Some(drafter) = sequence.and_then(|sequence| sequence.drafter.as_mut()) {
            drafter.learn(drafted, held);
        }
        if held < drafted && !self.trim(chunk.slot, kept)? {
            return Err(EngineError::Decode(
                "the model does not support removing tokens from its cache".to_owned(),
            ));
        }
        Ok(())
    }

    /// Samples a token from the logits of batch row `row`.
    fn add_token(&mut self, chunk: &Chunk, row: usize, output: &mut StepOutput) {
        let Some(sequence) = self.sequences.get_mut(&chunk.attempt) else { return };
        let Sequence { state, counts, limit, .. } = sequence;
        let logits = self.context.get_logits_ith(as_index(row));
        let left = limit.saturating_sub(counts.completion_tokens as usize);
        let Chosen { token, end } = match state.choose(logits, left) {
            Ok(chosen) => chosen,
            Err(error) => {
                self.scheduler.release(chunk.slot);
                let refusal = Outcome::Refused(Refusal::Grammar(error));
                return output.finished.push((chunk.attempt, refusal));
            }
        };
        counts.completion_tokens += 1;
        let goes_on = self.scheduler.push(chunk.slot, as_index(token));
        let reasoned = state.output_stream.parser().is_reasoning();
        let mut emitted = Emitted::default();
        let reason = if self.vocab.is_eog(LlamaToken(as_index(token))) {
            Some(FinishReason::Stop)
        } else {
            if counts.completion_tokens <= token_confidence::TOKENS {
                output.confidences.push((chunk.attempt, token_confidence::of(logits, token)));
            }
            let vocab = &self.vocab;
            let spell = |token| vocab.token_to_piece(LlamaToken(token), false, None);
            if let Some(logprobs) = &mut state.logprobs {
                logprobs.note(logits, token, spell);
            }
            self.piece.clear();
            let is_tag = state.tags.contains(&as_index(token));
            vocab.token_to_piece_into(LlamaToken(as_index(token)), &mut self.piece, is_tag, None);
            emitted = state.output_stream.push(&self.piece);
            let is_calling = state.output_stream.parser().is_calling();
            let end = end.filter(|end| *end == FinishReason::Length || !is_calling);
            if emitted.ended {
                Some(FinishReason::Stop)
            } else {
                end.or((!goes_on).then_some(FinishReason::Length))
            }
        };
        let answer = state.output_stream.parser();
        counts.reasoning_tokens += u32::from(reasoned || answer.is_reasoning());
        let reason = reason.map(|reason| state.output_stream.end(reason, &mut emitted));
        if let Some(reason) = reason {
            self.scheduler.release(chunk.slot);
            output.finished.push((chunk.attempt, Outcome::Finished { reason, counts: *counts }));
        }
        if let Some(logprobs) = &mut state.logprobs {
            let released = logprobs.release(emitted.held, reason.is_some());
            if !released.is_empty() {
                output.logprobs.push((chunk.attempt, released));
            }
        }
        output.pieces.extend(emitted.pieces.into_iter().map(|piece| (chunk.attempt, piece)));
    }

    fn close(&mut self, attempt: AttemptId, outcome: Outcome) -> Result<(), FrameError> {
        self.sequences.remove(&attempt);
        self.outbox.close(attempt, outcome)
    }
}

impl Worker for Generator<'_> {
    type Command = EngineCommand;

    fn is_idle(&self) -> bool {
        self.sequences.is_empty()
    }

    fn take(&mut self, command: EngineCommand) -> Result<(), FrameError> {
        match command {
            EngineCommand::Generate { request, state } => {
                let attempt = request.attempt;
                let counts = Counts::default();
                let room = self.context_tokens.saturating_sub(request.prompt.len());
                let limit = request.output_limit.min(room);
                if limit == 0 && self.scheduler.check(&request).is_ok() {
                    return self.outbox.finish_empty(&request, state.dropped_turns);
                }
                match self.scheduler.submit(request) {
                    Ok(()) => {
                        self.outbox.push(&FromEngine::Accepted(attempt))?;
                        let drafter =
                            (self.draft_tokens > 0).then(|| Drafter::new(self.draft_tokens));
                        self.sequences.insert(attempt, Sequence { state, counts, limit, drafter });
                        Ok(())
                    }
                    Err(rejection) => {
                        self.close(attempt, Outcome::Refused(Refusal::Scheduler(rejection)))
                    }
                }
            }
            EngineCommand::Embed(texts) => {
                self.close(texts.attempt, Outcome::Refused(Refusal::OtherTask))
            }
            EngineCommand::Close(attempt, outcome) => self.close(attempt, outcome),
            EngineCommand::Preparing => self.outbox.push(&FromEngine::Preparing),
            EngineCommand::Cancel(attempt) => match self.scheduler.cancel(attempt) {
                // The attempt ended before the cancellation arrived; its end is already sent.
                Cancelled::Unknown => Ok(()),
                Cancelled::Waiting | Cancelled::Running { .. } => {
                    self.close(attempt, Outcome::Cancelled)
                }
            },
        }
    }

    fn step(&mut self, start: MonotonicNs) -> Result<Option<MonotonicNs>, EngineError> {
        for attempt in self.scheduler.expire(start) {
            self.close(attempt, Outcome::Expired)?;
        }
        self.fill_slots()?;
        self.propose_drafts();
        let chunks =
            self.scheduler.next_batch(|decode_rows| self.prefill_budget.prompt_rows(decode_rows));
        if chunks.is_empty() {
            return Ok(None);
        }
        let begun = MonotonicNs::now();
        self.evaluate(&chunks)?;
        self.learn(&chunks, MonotonicNs::now() - begun);
        self.scheduler.evaluated(&chunks);
        let mut output = StepOutput::default();
        let mut row = 0;
        for chunk in &chunks {
            row += chunk.len;
            if chunk.completes {
                self.continue_answer(chunk, row - 1 - chunk.drafts, &mut output)?;
            }
        }
        let end = MonotonicNs::now();
        let rows = chunks.iter().map(work_row).collect();
        let (reused, drafted) =
            (std::mem::take(&mut self.reused), std::mem::take(&mut self.drafted));
        let work = WorkSpan { start, end, rows };
        let report = StepReport { work, reused, drafted };
        let StepOutput { pieces, logprobs, confidences, finished } = output;
        let step = FromEngine::Step { report, pieces, logprobs, confidences };
        self.outbox.push(&step)?;
        for (attempt, outcome) in finished {
            self.close(attempt, outcome)?;
        }
        Ok(Some(end))
    }

    fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }
}

fn work_row(chunk: &Chunk) -> WorkRow {
    let tokens = u32::try_from(chunk.len).unwrap_or(u32::MAX);
    let (prefill_tokens, decode_tokens) = match chunk.kind {
        ChunkKind::Prefill => (tokens, 0),
        ChunkKind::Decode => (0, tokens),
    };
    WorkRow { attempt: chunk.attempt, prefill_tokens, decode_tokens }
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

mod placement;

/// llama.cpp's indices are i32; no count here exceeds that.
fn as_index(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
