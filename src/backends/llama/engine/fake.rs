//! Fake engine: answers from a script over the same wire protocol, without a model and without
//! llama.cpp. A test aid for supervisor, lifecycle, metering and routing.
//!
//! A model whose source is a file named `*.fake.toml` runs it: `source =
//! "file:models/x.fake.toml"`. The supervisor then starts `wattgate engine --fake`. [`script`]
//! documents the file's format.
//!
//! Uses the real scheduler, step loop and output stream, so queueing, priorities, deadlines, prefix
//! reuse, stop strings, reasoning and tool calls behave as with a model. One token is one word.

use std::collections::{HashMap, VecDeque};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

use self::script::{Answer, Script};
use self::words::{prompt_text, prompt_tokens, vector, words};
use super::error::EngineError;
use super::output::parser::OutputParser;
use super::output::stream::{Emitted, OutputStream};
use super::prompt::answer_start::expected_calls;
use super::prompt::tool_fallback;
use super::reader::kill_self;
use super::sample::token_confidence;
use super::schedule::batch::{Chunk, ChunkKind};
use super::schedule::request::Request;
use super::schedule::scheduler::{Cancelled, Limits, Scheduler};
use super::step_loop::{self, Outbox, Worker};
use crate::backends::backend::TokenConfidence;
use crate::backends::llama::wire::logprobs::{TokenLogprob, TokenLogprobs};
use crate::backends::llama::wire::outcome::{Counts, Outcome, Refusal};
use crate::backends::llama::wire::piece::Piece;
use crate::backends::llama::wire::protocol::{
    self, Embed, EngineFacts, FrameError, FromEngine, Prompt, Submission, ToEngine,
};
use crate::backends::llama::wire::reasoning::REASONING;
use crate::backends::llama::wire::settings::EngineSettings;
use crate::backends::llama::wire::step::{Drafted, Reused, StepReport};
use crate::energy::{WorkRow, WorkSpan};
use crate::openai::FinishReason;
use crate::units::{AttemptId, MonotonicNs};

mod script;
mod words;

/// Runs the fake engine until the gateway closes the socket.
pub(crate) fn run(
    settings: &EngineSettings,
    socket: &mut UnixStream,
    reading: UnixStream,
) -> Result<(), EngineError> {
    let script = Script::read(&settings.gguf)?;
    let (commands, received) = mpsc::sync_channel(settings.commands_max());
    start_reader(reading, commands)?;
    for percent in (0..=90).step_by(10) {
        protocol::write_frame(socket, &FromEngine::Loading { percent })?;
        thread::sleep(Duration::from_millis(script.load_ms) / 10);
    }
    if let Some(reason) = script.load_error.clone() {
        return Err(EngineError::Load(reason));
    }
    let facts = EngineFacts {
        context_tokens: settings.context_tokens,
        slots: settings.slots,
        has_chat_template: script.has_chat_template,
        takes_tools: script.has_chat_template,
        packed_tensors: 0,
        description: format!("fake engine, script {}", settings.gguf.display()),
    };
    protocol::write_frame(socket, &FromEngine::Ready(facts))?;
    step_loop::run(FakeEngine::new(script, settings), &received, socket)
}

fn start_reader(mut socket: UnixStream, commands: SyncSender<ToEngine>) -> Result<(), EngineError> {
    let read = move || {
        while let Ok(Some(frame)) = protocol::read_frame(&mut socket) {
            if commands.try_send(frame).is_err() {
                return kill_self("engine queue overflow");
            }
        }
        kill_self("the gateway has closed the socket");
    };
    thread::Builder::new().name("reader".to_owned()).spawn(read).map_err(EngineError::Thread)?;
    Ok(())
}

struct FakeEngine {
    script: Script,
    embedding: bool,
    scheduler: Scheduler,
    sequences: HashMap<AttemptId, Sequence>,
    embeds: VecDeque<Embed>,
    reused: Reused,
    outbox: Outbox,
}

/// An attempt in the scheduler.
struct Sequence {
    answer: Answer,
    /// The rest of the answer.
    words: VecDeque<String>,
    output: OutputStream,
    counts: Counts,
    logprobs: bool,
}

/// Output of one step.
#[derive(Default)]
struct StepOutput {
    pieces: Vec<(AttemptId, Piece)>,
    logprobs: Vec<(AttemptId, Vec<TokenLogprobs>)>,
    confidences: Vec<(AttemptId, TokenConfidence)>,
    finished: Vec<(AttemptId, Outcome)>,
}

impl FakeEngine {
    fn new(script: Script, settings: &EngineSettings) -> Self {
        let slots = settings.slots.max(1) as usize;
        let limits = Limits {
            slots,
            context_tokens: settings.context_tokens as usize,
            batch_tokens: (settings.batch_tokens as usize).max(slots),
            queue: settings.queue as usize,
        };
        Self {
            script,
            embedding: settings.embedding,
            scheduler: Scheduler::new(limits).reusing_prefixes(settings.prompt_cache),
            sequences: HashMap::new(),
            embeds: VecDeque::new(),
            reused: Reused::default(),
            outbox: Outbox::default(),
        }
    }

    fn submit(&mut self, submission: Submission) -> Result<(), FrameError> {
        let attempt = submission.attempt;
        let answer = self.script.answer_to(prompt_text(&submission.prompt)).clone();
        if let Some(reason) = answer.refuse.clone() {
            return self.close(attempt, Outcome::Refused(Refusal::Template(reason)));
        }
        let tools = match &submission.prompt {
            Prompt::Chat(conversation) => conversation.tools.as_ref(),
            Prompt::Raw(_) => None,
        };
        let calls = tools.map(|tools| expected_calls(tools, tool_fallback::FORMAT));
        let request = Request {
            attempt,
            prompt: prompt_tokens(&submission.prompt),
            output_limit: submission.output_limit as usize,
            terms: submission.terms,
        };
        if request.output_limit == 0 && self.scheduler.check(&request).is_ok() {
            return self.outbox.finish_empty(&request, 0);
        }
        if let Err(rejection) = self.scheduler.submit(request) {
            return self.close(attempt, Outcome::Refused(Refusal::Scheduler(rejection)));
        }
        self.outbox.push(&FromEngine::Accepted(attempt))?;
        let sequence = Sequence {
            words: words(&answer.text).map(str::to_owned).collect(),
            output: OutputStream::new(
                OutputParser::new(Some(REASONING[0]), false, calls),
                submission.stop,
            ),
            counts: Counts::default(),
            logprobs: submission.logprobs.is_some(),
            answer,
        };
        self.sequences.insert(attempt, sequence);
        Ok(())
    }

    fn close(&mut self, attempt: AttemptId, outcome: Outcome) -> Result<(), FrameError> {
        self.sequences.remove(&attempt);
        self.outbox.close(attempt, outcome)
    }

    fn admit(&mut self) -> Result<(), FrameError> {
        while let Some(admission) = self.scheduler.admit() {
            let (attempt, at) = (admission.attempt, MonotonicNs::now());
            self.found(attempt, admission.prompt_tokens, admission.cached_tokens);
            self.reused.slot += count(admission.cached_tokens);
            self.outbox.push(&FromEngine::Admitted { attempt, at, dropped_turns: 0 })?;
        }
        while let Some(transfer) = self.scheduler.next_transfer() {
            let prompt_tokens = self.scheduler.prompt(transfer.to).len();
            self.found(transfer.attempt, prompt_tokens, transfer.tokens);
            self.reused.shared += count(transfer.tokens);
        }
        Ok(())
    }

    fn found(&mut self, attempt: AttemptId, prompt_tokens: usize, cached_tokens: usize) {
        if let Some(sequence) = self.sequences.get_mut(&attempt) {
            let (prompt_tokens, cached_tokens) = (count(prompt_tokens), count(cached_tokens));
            sequence.counts = Counts { prompt_tokens, cached_tokens, ..Counts::default() };
        }
    }

    /// Sleeps for the scripted duration of a step.
    fn pretend(&self, prefill_tokens: usize) {
        let prefill = Duration::from_micros(self.script.prefill_us) * count(prefill_tokens);
        thread::sleep(Duration::from_millis(self.script.step_ms) + prefill);
    }

    /// Appends the next word of a sequence.
    fn add_token(&mut self, chunk: &Chunk, step: &mut StepOutput) {
        let attempt = chunk.attempt;
        let Some(sequence) = self.sequences.get_mut(&attempt) else { return };
        misbehave(&sequence.answer, sequence.counts.completion_tokens);
        let word = sequence.words.pop_front();
        let counts = &mut sequence.counts;
        counts.completion_tokens += 1;
        let may_continue = self.scheduler.push(chunk.slot, words::token(word.as_deref()));
        let was_reasoning = sequence.output.parser().is_reasoning();
        let mut emitted = Emitted::default();
        let mut end = Some(FinishReason::Stop);
        if let Some(word) = word {
            emitted = sequence.output.push(word.as_bytes());
            end = (!may_continue).then_some(FinishReason::Length);
            end = if emitted.ended { Some(FinishReason::Stop) } else { end };
            if counts.completion_tokens <= token_confidence::TOKENS {
                step.confidences.push((attempt, sequence.answer.confidence()));
            }
            if sequence.logprobs {
                step.logprobs.push((attempt, vec![logprobs(&word, &sequence.answer)]));
            }
        }
        let is_reasoning = was_reasoning || sequence.output.parser().is_reasoning();
        counts.reasoning_tokens += u32::from(is_reasoning);
        if let Some(reason) = end {
            let reason = sequence.output.end(reason, &mut emitted);
            self.scheduler.release(chunk.slot);
            step.finished.push((attempt, Outcome::Finished { reason, counts: *counts }));
        }
        step.pieces.extend(emitted.pieces.into_iter().map(|piece| (attempt, piece)));
    }

    /// Embeds the texts of one request in one step.
    fn embed(&mut self, embed: Embed, start: MonotonicNs) -> Result<MonotonicNs, EngineError> {
        let Embed { attempt, inputs, dimensions, terms } = embed;
        let at = MonotonicNs::now();
        if terms.deadline.is_some_and(|deadline| deadline <= at) {
            self.close(attempt, Outcome::Expired)?;
            return Ok(at);
        }
        self.outbox.push(&FromEngine::Admitted { attempt, at, dropped_turns: 0 })?;
        let tokens: usize = inputs.iter().map(|input| words::input_tokens(input).len()).sum();
        self.pretend(tokens);
        let prompt_tokens = count(tokens);
        let rows = vec![WorkRow { attempt, prefill_tokens: prompt_tokens, decode_tokens: 0 }];
        let end = self.report(start, rows, StepOutput::default())?;
        for input in &inputs {
            let vector = vector(input, dimensions.unwrap_or(words::DIMENSIONS));
            self.outbox.push(&FromEngine::Vector { attempt, vector })?;
        }
        let counts = Counts { prompt_tokens, ..Counts::default() };
        self.close(attempt, Outcome::Finished { reason: FinishReason::Stop, counts })?;
        Ok(end)
    }

    fn report(
        &mut self,
        start: MonotonicNs,
        rows: Vec<WorkRow>,
        output: StepOutput,
    ) -> Result<MonotonicNs, EngineError> {
        let end = MonotonicNs::now();
        let (reused, drafted) = (std::mem::take(&mut self.reused), Drafted::default());
        let work = WorkSpan { start, end, rows };
        let report = StepReport { work, reused, drafted };
        let StepOutput { pieces, logprobs, confidences, finished } = output;
        self.outbox.push(&FromEngine::Step { report, pieces, logprobs, confidences })?;
        for (attempt, outcome) in finished {
            self.close(attempt, outcome)?;
        }
        Ok(end)
    }
}

impl Worker for FakeEngine {
    type Command = ToEngine;

    fn is_idle(&self) -> bool {
        self.sequences.is_empty() && self.embeds.is_empty()
    }

    fn take(&mut self, command: ToEngine) -> Result<(), FrameError> {
        match command {
            ToEngine::Submit(submission) if self.embedding => {
                self.close(submission.attempt, Outcome::Refused(Refusal::OtherTask))
            }
            ToEngine::Submit(submission) => self.submit(submission),
            ToEngine::Embed(embed) if self.embedding => {
                self.embeds.push_back(embed);
                Ok(())
            }
            ToEngine::Embed(embed) => {
                self.close(embed.attempt, Outcome::Refused(Refusal::OtherTask))
            }
            ToEngine::Cancel(attempt) => {
                let waits = self.embeds.iter().any(|embed| embed.attempt == attempt);
                self.embeds.retain(|embed| embed.attempt != attempt);
                if waits || self.scheduler.cancel(attempt) != Cancelled::Unknown {
                    return self.close(attempt, Outcome::Cancelled);
                }
                Ok(())
            }
            ToEngine::Load(_) => Ok(()),
        }
    }

    fn step(&mut self, start: MonotonicNs) -> Result<Option<MonotonicNs>, EngineError> {
        if let Some(embed) = self.embeds.pop_front() {
            return self.embed(embed, start).map(Some);
        }
        for attempt in self.scheduler.expire(start) {
            self.close(attempt, Outcome::Expired)?;
        }
        self.admit()?;
        let chunks = self.scheduler.next_batch(|_| usize::MAX);
        if chunks.is_empty() {
            return Ok(None);
        }
        let prefill = chunks.iter().filter(|chunk| chunk.kind == ChunkKind::Prefill);
        self.pretend(prefill.map(|chunk| chunk.len).sum());
        self.scheduler.evaluated(&chunks);
        let mut output = StepOutput::default();
        for chunk in chunks.iter().filter(|chunk| chunk.completes) {
            self.add_token(chunk, &mut output);
        }
        let rows = chunks.iter().map(work_row).collect();
        self.report(start, rows, output).map(Some)
    }

    fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }
}

/// Dies or hangs at the scripted token.
fn misbehave(answer: &Answer, tokens: u32) {
    if answer.die_after == Some(tokens) {
        // As llama.cpp on a failed assertion.
        std::process::abort();
    }
    if answer.hang_after == Some(tokens) {
        loop {
            thread::park();
        }
    }
}

fn logprobs(word: &str, answer: &Answer) -> TokenLogprobs {
    let chosen = TokenLogprob { bytes: word.as_bytes().to_vec(), logprob: answer.logprob };
    TokenLogprobs { chosen, top: Vec::new() }
}

fn work_row(chunk: &Chunk) -> WorkRow {
    let (prefill_tokens, decode_tokens) = match chunk.kind {
        ChunkKind::Prefill => (count(chunk.len), 0),
        ChunkKind::Decode => (0, count(chunk.len)),
    };
    WorkRow { attempt: chunk.attempt, prefill_tokens, decode_tokens }
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}
