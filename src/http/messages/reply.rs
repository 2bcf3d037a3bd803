//! Answers of `/v1/messages`, whole and as named events. The last event of a stream,
//! `message_stop`, carries the receipt.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::error::envelope;
use super::output::{OutBlock, Output, Step};
use crate::backends::Event;
use crate::http::error::ApiError;
use crate::http::formats::events::EventWriter;
use crate::http::formats::format::{Answer, ReplyFormat, json as to_json};
use crate::http::formats::head::Head;
use crate::http::receipt::write_with_receipt;
use crate::http::translation::said::Listener;
use crate::openai::{FinishReason, Usage};
use crate::traffic::Receipt;

/// What of a request shapes its answer.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub thinks: bool,
}

/// Prefix of the ids of messages: Anthropic's begin so.
pub const ID_PREFIX: &str = "msg_";

pub struct Messages {
    head: Head,
    output: Output,
    listener: Listener,
    begun: bool,
    usage: Usage,
    finish: FinishReason,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "Anthropic's names")]
struct TokenCounts {
    /// Without those from the cache.
    input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
    output_tokens: u64,
}

impl From<Usage> for TokenCounts {
    fn from(usage: Usage) -> Self {
        let cached = usage.cached_tokens().min(usage.prompt_tokens);
        Self {
            input_tokens: usage.prompt_tokens - cached,
            cache_creation_input_tokens: 0,
            cache_read_input_tokens: cached,
            output_tokens: usage.generated_tokens(),
        }
    }
}

#[derive(Serialize)]
struct Message<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    role: &'static str,
    model: &'a str,
    content: Vec<Value>,
    stop_reason: Option<&'static str>,
    /// Which one was met is not known here.
    stop_sequence: Option<()>,
    usage: TokenCounts,
}

/// The first event of a stream.
#[derive(Serialize)]
struct Start<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: Message<'a>,
}

impl Messages {
    pub fn new(head: Head, asked: Asked) -> Self {
        Self {
            head,
            output: Output::new(asked.thinks),
            listener: Listener::default(),
            begun: false,
            usage: Usage::default(),
            finish: FinishReason::Stop,
        }
    }

    fn message(&self, content: Vec<Value>, stop_reason: Option<&'static str>) -> Message<'_> {
        Message {
            id: &self.head.id,
            kind: "message",
            role: "assistant",
            model: &self.head.model,
            content,
            stop_reason,
            stop_sequence: None,
            usage: self.usage.into(),
        }
    }

    fn stop_reason(&self) -> &'static str {
        match self.finish {
            FinishReason::ContentFilter => "refusal",
            _ if self.output.refused => "refusal",
            FinishReason::Length => "max_tokens",
            FinishReason::ToolCalls | FinishReason::FunctionCall => "tool_use",
            // Some upstreams end every answer so.
            FinishReason::Stop if self.output.calls() => "tool_use",
            FinishReason::Stop => "end_turn",
        }
    }

    fn begin(&mut self, out: &mut EventWriter) {
        if !self.begun {
            self.begun = true;
            let kind = "message_start";
            out.named(kind, &Start { kind, message: self.message(vec![], None) });
        }
    }

    fn tell(&self, steps: Vec<Step>, out: &mut EventWriter) {
        let blocks = self.output.blocks();
        let delta = |index: usize, delta: Value, out: &mut EventWriter| {
            let event = json!({"type": "content_block_delta", "index": index, "delta": delta});
            out.named("content_block_delta", &event);
        };
        for step in steps {
            match step {
                Step::Start(index) => {
                    let block = blocks[index].empty();
                    let kind = "content_block_start";
                    let event = json!({"type": kind, "index": index, "content_block": block});
                    out.named(kind, &event);
                }
                Step::Delta { block, piece } => delta(block, blocks[block].delta(&piece), out),
                Step::Stop(index) => {
                    if let Some(last) = blocks[index].last_delta() {
                        delta(index, last, out);
                    }
                    let kind = "content_block_stop";
                    out.named(kind, &json!({"type": kind, "index": index}));
                }
            }
        }
    }
}

impl ReplyFormat for Messages {
    fn event(&mut self, event: Event, out: &mut EventWriter) {
        self.begin(out);
        match event {
            Event::Usage(usage) => self.usage = usage,
            Event::Done(finish) => self.finish = finish,
            event => {
                for said in self.listener.hear(event) {
                    let steps = self.output.hear(said);
                    self.tell(steps, out);
                }
            }
        }
    }

    fn finish(&mut self, receipt: &Receipt, out: &mut EventWriter) {
        self.begin(out);
        let steps = self.output.end();
        self.tell(steps, out);
        let kind = "message_delta";
        let delta = json!({"stop_reason": self.stop_reason(), "stop_sequence": null});
        let usage = TokenCounts::from(self.usage);
        out.named(kind, &json!({"type": kind, "delta": delta, "usage": usage}));
        let mut last = BytesMut::new();
        write_with_receipt(&mut last, br#"{"type":"message_stop"}"#, receipt);
        out.named("message_stop", &raw(&last));
    }

    fn fail(&mut self, error: &ApiError, receipt: &Receipt, out: &mut EventWriter) {
        let mut event = BytesMut::new();
        write_with_receipt(&mut event, &to_json(&envelope(error, None)), receipt);
        out.named("error", &raw(&event));
    }

    fn done(&self, _out: &mut EventWriter) {}

    fn whole(&mut self, answer: Answer) -> Result<Bytes, ApiError> {
        (self.usage, self.finish) = (answer.usage, answer.finish);
        for said in self.listener.hear_whole(answer)? {
            self.output.hear(said);
        }
        let content = self.output.blocks().iter().map(OutBlock::json).collect();
        Ok(to_json(&self.message(content, Some(self.stop_reason()))))
    }
}

fn raw(json: &[u8]) -> Option<&RawValue> {
    serde_json::from_slice(json).ok()
}
