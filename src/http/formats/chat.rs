//! Chat completions, whole and in chunks.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::choices::Asked;
use super::events::EventWriter;
use super::format::{Answer, Content, ReplyFormat, json};
use super::head::Head;
use crate::backends::{Chunks, Event};
use crate::http::error::ApiError;
use crate::openai::{
    ChatChunk, ChatRequest, ChatResponse, ChoiceLogprobs, ChunkChoice, ChunkUsage, Delta,
    FinishReason, Role, TokenLogprob, ToolCallDelta, Usage,
};
use crate::serving::execution::Execution;
use crate::traffic::Receipt;

pub struct Chat {
    head: Head,
    asked: Asked,
    /// Index of the choice that events belong to just now.
    present: u32,
    /// The choices that have begun: their events come in any order.
    choices: BTreeMap<u32, Written>,
    usage: Option<Usage>,
    finish: Option<FinishReason>,
    /// The last chunk of an upstream.
    last: Option<Chunks>,
}

/// State of one choice.
#[derive(Default)]
struct Written {
    /// Its opening chunk with the role has gone out.
    opened: bool,
    /// Of tokens whose text has not gone out.
    logprobs: Vec<TokenLogprob>,
}

impl Chat {
    pub fn new(execution: &Execution, request: &ChatRequest) -> Self {
        // OpenAI's ids of chat completions begin so.
        Self::with(Head::new(execution, "chatcmpl-"), Asked::of(request))
    }

    fn with(head: Head, asked: Asked) -> Self {
        Self {
            head,
            asked,
            present: 0,
            choices: BTreeMap::new(),
            usage: None,
            finish: None,
            last: None,
        }
    }

    /// A chunk of the present choice: with the role if it is its first, and with what
    /// log-probabilities wait.
    fn choice<'c>(
        &'c mut self,
        delta: Delta<'c>,
        finish_reason: Option<FinishReason>,
    ) -> ChatChunk<'c> {
        let written = self.choices.entry(self.present).or_default();
        let role = (!written.opened).then_some(Role::Assistant);
        written.opened = true;
        let content = std::mem::take(&mut written.logprobs);
        let logprobs = (!content.is_empty()).then_some(ChoiceLogprobs { content, refusal: None });
        let finish_reason = finish_reason.map(|reason| self.asked.named(reason));
        let delta = Delta { role, ..delta };
        let choice = ChunkChoice { index: self.present, delta, logprobs, finish_reason };
        self.chunk(vec![choice], ChunkUsage::before_end(self.head.wants_usage))
    }

    fn chunk<'c>(&'c self, choices: Vec<ChunkChoice<'c>>, usage: ChunkUsage) -> ChatChunk<'c> {
        ChatChunk {
            id: &self.head.id,
            object: "chat.completion.chunk",
            created: self.head.created,
            model: &self.head.model,
            system_fingerprint: self.head.fingerprint.as_deref(),
            choices,
            usage,
        }
    }

    /// More of a call; a client that offered `functions` sees one call only.
    fn call(&mut self, call: ToolCallDelta<'_>, out: &mut EventWriter) {
        let delta = match (self.asked.functions, call.index) {
            (false, _) => Delta::call(call),
            (true, 0) => Delta { function_call: Some(call.function), ..Delta::default() },
            (true, _) => return,
        };
        out.chunk(&self.choice(delta, None));
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
                self.call(ToolCallDelta::begun(index, &id, &name), out);
            }
            Event::ToolArguments { index, piece } => {
                self.call(ToolCallDelta::continued(index, &piece), out);
            }
            Event::ChoiceDone(finish) => out.chunk(&self.choice(Delta::default(), Some(finish))),
            Event::UpstreamChunks(chunks) if chunks.is_last() => self.last = Some(chunks),
            Event::UpstreamChunks(chunks) => out.forward(&chunks),
            Event::Logprobs(tokens) => {
                self.choices.entry(self.present).or_default().logprobs.extend(tokens);
            }
            Event::Choice(index) => self.present = index,
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
        let usage = self.usage.filter(|_| self.head.wants_usage);
        let usage = usage.map(|usage| json(&self.chunk(vec![], ChunkUsage::Counted(usage))));
        out.close(&last, usage.as_deref(), receipt);
    }

    fn whole(&mut self, answer: Answer) -> Result<Bytes, ApiError> {
        match answer.content {
            Content::Upstream(object) => Ok(object),
            Content::Local(choices) => Ok(json(&ChatResponse {
                id: self.head.id.clone(),
                object: "chat.completion",
                created: self.head.created,
                model: self.head.model.to_string(),
                system_fingerprint: self.head.fingerprint.clone(),
                choices: choices.whole(answer.finish, self.asked),
                usage: answer.usage,
            })),
            Content::Vectors(_) => Err(ApiError::INTERNAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::http::formats::interleaved::{Told, stream, told, whole};

    /// What a client puts together from the chunks of choice `index`.
    fn joined(chunks: &[Value], index: usize) -> Told {
        let mut joined = Told::default();
        for chunk in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
            if chunk["index"] != index {
                continue;
            }
            let delta = &chunk["delta"];
            joined.roles += usize::from(delta["role"] == "assistant");
            joined.text += delta["content"].as_str().unwrap_or_default();
            joined.reasoning += delta["reasoning_content"].as_str().unwrap_or_default();
            for call in delta["tool_calls"].as_array().into_iter().flatten() {
                joined.calls.extend(call["function"]["name"].as_str().map(str::to_owned));
                let place = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
                joined.calls[place] += call["function"]["arguments"].as_str().unwrap();
            }
            let tokens = chunk["logprobs"]["content"].as_array().into_iter().flatten();
            joined.tokens.extend(tokens.map(|token| token["token"].as_str().unwrap().to_owned()));
            joined.finish = chunk["finish_reason"].as_str().map(str::to_owned).or(joined.finish);
        }
        joined
    }

    fn of_whole(choice: &Value) -> Told {
        let message = &choice["message"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let calls = message["tool_calls"].as_array().into_iter().flatten();
        let tokens = choice["logprobs"]["content"].as_array().into_iter().flatten();
        Told {
            roles: 1,
            text: text(&message["content"]),
            reasoning: text(&message["reasoning_content"]),
            calls: calls
                .map(|call| text(&call["function"]["name"]) + &text(&call["function"]["arguments"]))
                .collect(),
            tokens: tokens.map(|token| text(&token["token"])).collect(),
            finish: choice["finish_reason"].as_str().map(str::to_owned),
        }
    }

    fn format(functions: bool) -> Chat {
        Chat::with(Head::of_test(), Asked { logprobs: true, functions })
    }

    proptest! {
        #[test]
        fn a_stream_tells_what_the_whole_answer_tells(choices in told(), turns: Vec<u8>) {
            let chunks = stream(&mut format(false), &choices, &turns);
            let answer = whole(&mut format(false), &choices, &turns);
            for (index, wanted) in choices.iter().enumerate() {
                let wanted = wanted.sum();
                prop_assert_eq!(&joined(&chunks, index), &wanted, "streamed");
                prop_assert_eq!(&of_whole(&answer["choices"][index]), &wanted, "whole");
            }
            let (last, others) = chunks.split_last().unwrap();
            prop_assert!(others.iter().all(|chunk| chunk["usage"] == Value::Null
                && chunk.as_object().unwrap().contains_key("usage")));
            prop_assert_eq!(&last["usage"], &answer["usage"]);
            prop_assert!(chunks.iter().all(|chunk| chunk["system_fingerprint"] == "fp_1"));
        }
    }

    #[test]
    fn a_client_that_offered_functions_gets_a_function_call() {
        let events = || {
            [
                Event::ToolCall { index: 0, id: "c".into(), name: "f".into() },
                Event::ToolArguments { index: 0, piece: "{\"a\":".into() },
                Event::ToolArguments { index: 0, piece: "1}".into() },
                Event::Usage(Usage::default()),
                Event::Done(FinishReason::ToolCalls),
            ]
        };
        let chunks = crate::http::formats::interleaved::play(&mut format(true), events());
        let call = |chunk: &Value| chunk["choices"][0]["delta"]["function_call"].clone();
        assert_eq!(call(&chunks[0]), json!({"name": "f", "arguments": ""}));
        assert_eq!(call(&chunks[2]), json!({"arguments": "1}"}));
        assert_eq!(chunks[3]["choices"][0]["finish_reason"], "function_call");
        let whole = crate::http::formats::interleaved::collect(&mut format(true), events());
        let message = &whole["choices"][0]["message"];
        assert_eq!(message["function_call"], json!({"name": "f", "arguments": "{\"a\":1}"}));
        assert_eq!((&message["content"], message.get("tool_calls")), (&Value::Null, None));
        assert_eq!(whole["choices"][0]["finish_reason"], "function_call");
    }
}
