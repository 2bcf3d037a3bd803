//! Chat completions, whole and in chunks.

use bytes::Bytes;

use super::events::EventWriter;
use super::format::{Answer, Content, ReplyFormat, json};
use crate::backends::{Chunks, Event};
use crate::http::error::ApiError;
use crate::openai::{
    ChatChunk, ChatResponse, ChoiceLogprobs, ChunkChoice, Delta, FinishReason, Role, ToolCallDelta,
    Usage,
};
use crate::serving::execution::Execution;
use crate::traffic::Receipt;

pub struct Chat {
    id: String,
    created: u64,
    model: String,
    /// The client asked for a usage chunk.
    wants_usage: bool,
    /// Index of the choice that events belong to just now.
    choice: u32,
    /// Choices whose opening chunk with the role has gone out.
    opened: Vec<u32>,
    /// Of the tokens of the next text.
    logprobs: Option<ChoiceLogprobs>,
    usage: Option<Usage>,
    finish: Option<FinishReason>,
    /// The last chunk of an upstream.
    last: Option<Chunks>,
}

impl Chat {
    pub fn new(execution: &Execution) -> Self {
        Self {
            // OpenAI's ids of chat completions begin so, and some clients check it.
            id: format!("chatcmpl-{}", execution.id()),
            created: execution.created(),
            model: execution.model().name.to_string(),
            wants_usage: execution.request().wants_stream_usage(),
            choice: 0,
            opened: Vec::new(),
            logprobs: None,
            usage: None,
            finish: None,
            last: None,
        }
    }

    /// The role, for the first chunk of each choice.
    fn role(&mut self) -> Option<Role> {
        if self.opened.contains(&self.choice) {
            return None;
        }
        self.opened.push(self.choice);
        Some(Role::Assistant)
    }

    /// A chunk of the present choice.
    fn choice<'c>(
        &'c mut self,
        delta: Delta<'c>,
        finish_reason: Option<FinishReason>,
    ) -> ChatChunk<'c> {
        let (role, logprobs) = (self.role(), self.logprobs.take());
        let delta = Delta { role, ..delta };
        let choice = ChunkChoice { index: self.choice, delta, logprobs, finish_reason };
        self.chunk(vec![choice], None)
    }

    fn chunk<'c>(&'c self, choices: Vec<ChunkChoice<'c>>, usage: Option<Usage>) -> ChatChunk<'c> {
        ChatChunk {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            choices,
            usage,
        }
    }
}

impl ReplyFormat for Chat {
    fn event(&mut self, event: Event, out: &mut EventWriter) {
        match event {
            Event::Text(text) => {
                out.chunk(&self.choice(Delta { content: Some(&text), ..Delta::default() }, None));
            }
            Event::Reasoning(text) => {
                let delta = Delta { reasoning_content: Some(&text), ..Delta::default() };
                out.chunk(&self.choice(delta, None));
            }
            Event::ToolCall { index, id, name } => {
                let delta = Delta::call(ToolCallDelta::begun(index, &id, &name));
                out.chunk(&self.choice(delta, None));
            }
            Event::ToolArguments { index, piece } => {
                let delta = Delta::call(ToolCallDelta::continued(index, &piece));
                out.chunk(&self.choice(delta, None));
            }
            Event::ChoiceDone(finish) => out.chunk(&self.choice(Delta::default(), Some(finish))),
            Event::UpstreamChunks(chunks) if chunks.is_last() => self.last = Some(chunks),
            Event::UpstreamChunks(chunks) => out.forward(&chunks),
            Event::Logprobs(content) => {
                self.logprobs = Some(ChoiceLogprobs { content, refusal: None });
            }
            Event::Choice(index) => self.choice = index,
            Event::Usage(usage) => self.usage = Some(usage),
            Event::Done(finish) => self.finish = Some(finish),
            Event::Started
            | Event::Confidence(_)
            | Event::Truncated { .. }
            | Event::Embeddings(_)
            | Event::UpstreamAnswer(_)
            | Event::Energy(_) => {}
        }
    }

    fn finish(&mut self, receipt: &Receipt, out: &mut EventWriter) {
        // An upstream's last chunk is the usage as it wrote it, where that was asked for.
        if let Some(chunks) = self.last.take() {
            return out.object_with_receipt(&chunks.into_object(), receipt);
        }
        let finish = self.finish;
        let last = json(&self.choice(Delta::default(), finish));
        let usage = self.usage.filter(|_| self.wants_usage);
        let usage = usage.map(|usage| json(&self.chunk(vec![], Some(usage))));
        out.close(&last, usage.as_deref(), receipt);
    }

    fn whole(&mut self, answer: Answer) -> Result<Bytes, ApiError> {
        match answer.content {
            Content::Upstream(object) => Ok(object),
            Content::Local(choices) => Ok(json(&ChatResponse {
                id: self.id.clone(),
                object: "chat.completion",
                created: self.created,
                model: self.model.clone(),
                choices: choices.whole(answer.finish),
                usage: answer.usage,
            })),
            Content::Vectors(_) => Err(ApiError::INTERNAL),
        }
    }
}
