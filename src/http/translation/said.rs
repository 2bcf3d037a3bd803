//! What an answer says, piece by piece, whether a local model generated it or an upstream wrote it
//! in chunks of a chat. Pure.
//!
//! Lenient towards upstreams: a member that cannot be read is absent.

use serde_json::Value;

use crate::backends::Event;
use crate::http::error::ApiError;
use crate::http::formats::choices::Asked;
use crate::http::formats::format::{Answer, Content};

/// A piece of an answer.
#[derive(Debug, PartialEq)]
pub enum Said {
    Text(String),
    Reasoning(String),
    Refusal(String),
    /// The next call begins.
    Call {
        id: String,
        name: String,
    },
    /// More of the arguments of a call, counted from 0.
    Arguments {
        call: usize,
        piece: String,
    },
    /// Of the text that follows next, in the form of a chat's `logprobs.content`.
    Logprobs(Vec<Value>),
}

/// Reads the events of one answer.
#[derive(Debug, Default)]
pub struct Listener {
    /// Indices of the calls of an upstream that have begun.
    calls: Vec<u64>,
}

impl Listener {
    pub fn hear(&mut self, event: Event) -> Vec<Said> {
        match event {
            Event::Text(text) => vec![Said::Text(text)],
            Event::Reasoning(text) => vec![Said::Reasoning(text)],
            Event::ToolCall { id, name, .. } => vec![Said::Call { id, name }],
            Event::ToolArguments { index, piece } => {
                vec![Said::Arguments { call: index as usize, piece }]
            }
            Event::Logprobs(tokens) => {
                let tokens = tokens.iter().filter_map(|token| serde_json::to_value(token).ok());
                vec![Said::Logprobs(tokens.collect())]
            }
            Event::UpstreamChunks(chunks) => {
                let objects = chunks.objects().filter_map(|json| serde_json::from_str(json).ok());
                objects.flat_map(|chunk| self.read(chunk, "delta")).collect()
            }
            _ => vec![],
        }
    }

    /// All of a whole answer.
    pub fn hear_whole(&mut self, answer: Answer) -> Result<Vec<Said>, ApiError> {
        match answer.content {
            Content::Local(choices) => {
                let choices = choices.whole(answer.finish, Asked::default());
                let object = serde_json::json!({ "choices": choices });
                Ok(self.read(object, "message"))
            }
            Content::Upstream(object) => {
                let object = serde_json::from_slice(&object).map_err(|_| ApiError::INTERNAL)?;
                Ok(self.read(object, "message"))
            }
            Content::Vectors(_) => Err(ApiError::INTERNAL),
        }
    }

    /// What the first choice of an object says in its member `name`.
    fn read(&mut self, mut object: Value, name: &str) -> Vec<Said> {
        let Some(choices) = object.get_mut("choices").and_then(Value::as_array_mut) else {
            return vec![];
        };
        let first = |choice: &Value| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0;
        choices.retain(first);
        choices.iter_mut().flat_map(|choice| self.read_choice(choice, name)).collect()
    }

    fn read_choice(&mut self, choice: &mut Value, name: &str) -> Vec<Said> {
        let mut said = Vec::new();
        if let Some(Value::Array(tokens)) = choice.pointer_mut("/logprobs/content").map(Value::take)
        {
            said.push(Said::Logprobs(tokens));
        }
        let Some(message) = choice.get_mut(name) else { return said };
        // Names of the same in different servers; some write both.
        let reasoning = ["reasoning_content", "reasoning"];
        let reasoning = reasoning.into_iter().find_map(|name| text_of(message.get(name)));
        said.extend(reasoning.map(Said::Reasoning));
        match message.get_mut("content").map(Value::take) {
            Some(Value::Array(parts)) => said.extend(parts.iter().filter_map(read_part)),
            content => said.extend(text_of(content.as_ref()).map(Said::Text)),
        }
        said.extend(text_of(message.get("refusal")).map(Said::Refusal));
        let calls = message.get("tool_calls").and_then(Value::as_array);
        for (place, call) in calls.into_iter().flatten().enumerate() {
            self.read_call(place, call, &mut said);
        }
        said
    }

    fn read_call(&mut self, place: usize, call: &Value, said: &mut Vec<Said>) {
        let index = call.get("index").and_then(Value::as_u64).unwrap_or(place as u64);
        let begun = self.calls.iter().position(|begun| *begun == index);
        let place = begun.unwrap_or_else(|| {
            let name = text_of(call.pointer("/function/name")).unwrap_or_default();
            let id = text_of(call.get("id")).unwrap_or_else(|| format!("call_{index}"));
            said.push(Said::Call { id, name });
            self.calls.push(index);
            self.calls.len() - 1
        });
        let piece = match call.pointer("/function/arguments") {
            Some(object @ Value::Object(_)) => Some(object.to_string()),
            other => text_of(other),
        };
        said.extend(piece.map(|piece| Said::Arguments { call: place, piece }));
    }
}

/// A part of a content in parts: text, or reasoning in Mistral's form.
fn read_part(part: &Value) -> Option<Said> {
    let thinking = part.get("thinking").and_then(Value::as_array);
    let thinking: Option<String> =
        thinking.map(|parts| parts.iter().filter_map(|part| text_of(part.get("text"))).collect());
    let thinking = thinking.filter(|text| !text.is_empty()).map(Said::Reasoning);
    thinking.or_else(|| text_of(part.get("text")).map(Said::Text))
}

fn text_of(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use serde_json::json;

    use super::*;
    use crate::backends::Chunks;
    use crate::openai::{FinishReason, Usage};

    fn chunks(objects: &[Value]) -> Event {
        let mut events = BytesMut::new();
        for object in objects {
            Chunks::write_event(&mut events, object.to_string().as_bytes());
        }
        Event::UpstreamChunks(Chunks::new(events.freeze(), 1))
    }

    fn delta(delta: &Value) -> Value {
        json!({"choices": [{"index": 0, "delta": delta}]})
    }

    #[test]
    fn an_upstreams_chunks_say_what_a_local_answer_says() {
        let call = |more: Value| json!({"tool_calls": [more]});
        let said = Listener::default().hear(chunks(&[
            delta(&json!({"role": "assistant", "content": ""})),
            delta(&json!({"reasoning": "hm", "reasoning_content": "hm"})),
            delta(&json!({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "ah"}]},
                {"type": "text", "text": "a"}]})),
            delta(&json!({"content": "b", "refusal": null})),
            delta(&json!({"refusal": "no"})),
            json!({"choices": [{"index": 1, "delta": {"content": "another choice"}}]}),
            delta(&call(json!({"index": 0, "id": "x", "function": {"name": "f", "arguments": ""}}))),
            delta(&call(json!({"index": 0, "function": {"arguments": "{\"a\""}}))),
            delta(&call(json!({"index": 2, "function": {"name": "g", "arguments": {"b": 1}}}))),
            delta(&call(json!({"index": 0, "function": {"arguments": ":1}"}}))),
            json!({"choices": [], "usage": {}}),
            json!({"choices": 7}),
        ]));
        let arguments = |call, piece: &str| Said::Arguments { call, piece: piece.to_owned() };
        assert_eq!(
            said,
            [
                Said::Reasoning("hm".into()),
                Said::Reasoning("ah".into()),
                Said::Text("a".into()),
                Said::Text("b".into()),
                Said::Refusal("no".into()),
                Said::Call { id: "x".into(), name: "f".into() },
                arguments(0, "{\"a\""),
                Said::Call { id: "call_2".into(), name: "g".into() },
                arguments(1, "{\"b\":1}"),
                arguments(0, ":1}"),
            ]
        );
    }

    #[test]
    fn a_whole_answer_is_heard_at_once() {
        let object = json!({"choices": [{"message": {"content": "hi", "tool_calls": [
            {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "y", "type": "function", "function": {"name": "g", "arguments": "{}"}}]}}]});
        let content = Content::Upstream(object.to_string().into());
        let (finish, usage) = (FinishReason::ToolCalls, Usage::default());
        let said = Listener::default().hear_whole(Answer { content, finish, usage }).unwrap();
        let call = |id: &str, name: &str| Said::Call { id: id.into(), name: name.into() };
        let arguments = |call| Said::Arguments { call, piece: "{}".into() };
        let wanted =
            [Said::Text("hi".into()), call("x", "f"), arguments(0), call("y", "g"), arguments(1)];
        assert_eq!(said, wanted);
    }
}
