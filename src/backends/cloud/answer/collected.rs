//! A whole answer put together from a stream, where an upstream streams although a whole answer was
//! asked for. Pure.

use serde_json::{Map, Value, json};

use super::{Asked, Transcript};
use crate::backends::Chunks;
use crate::backends::backend::{ErrorKind, Event};

/// Members whose later values replace earlier ones; other texts of a stream continue each other.
const REPLACED: [&str; 7] = ["id", "type", "object", "name", "role", "model", "finish_reason"];

/// The answer that the events of `body` say together.
pub(crate) fn collected(body: &[u8], asked: Asked) -> Result<Vec<u8>, ErrorKind> {
    let mut transcript = Transcript::new(Asked { usage: true, ..asked });
    let read = transcript.feed(body);
    if !transcript.is_complete() {
        read?;
    }
    let mut answer = Map::new();
    let mut add = |chunks: &Chunks| {
        for object in chunks.objects() {
            if let Ok(Value::Object(chunk)) = serde_json::from_str(object) {
                add(&mut answer, chunk);
            }
        }
    };
    if let Some(chunks) = transcript.forward() {
        add(&chunks);
    }
    for event in transcript.finish()? {
        if let Event::UpstreamChunks(chunks) = event {
            add(&chunks);
        }
    }
    if answer.get("object").is_some_and(|object| object == "chat.completion.chunk") {
        answer.insert("object".to_owned(), json!("chat.completion"));
    }
    Ok(Value::Object(answer).to_string().into_bytes())
}

/// Adds a chunk to the answer so far.
fn add(answer: &mut Map<String, Value>, chunk: Map<String, Value>) {
    for (name, value) in chunk {
        if name == "choices" {
            let choices = value.as_array().into_iter().flatten().cloned().map(as_message);
            merge(answer, name, choices.collect());
        } else if !value.is_null() {
            answer.insert(name, value);
        }
    }
}

/// A choice of a chunk as one of a whole answer.
fn as_message(mut choice: Value) -> Value {
    if let Value::Object(members) = &mut choice
        && let Some(delta) = members.remove("delta")
    {
        members.insert("message".to_owned(), delta);
    }
    choice
}

fn merge(members: &mut Map<String, Value>, name: String, more: Value) {
    match (members.get_mut(&name), more) {
        (_, Value::Null) => {}
        (None, Value::Array(items)) => {
            let mut list = vec![];
            for item in items {
                join(&mut list, item);
            }
            members.insert(name, list.into());
        }
        (Some(Value::Array(list)), Value::Array(items)) => {
            for item in items {
                join(list, item);
            }
        }
        (Some(Value::String(text)), Value::String(more)) if !REPLACED.contains(&&*name) => {
            text.push_str(&more);
        }
        (Some(Value::Object(object)), Value::Object(more)) => {
            more.into_iter().for_each(|(name, value)| merge(object, name, value));
        }
        // An empty name or reason says nothing.
        (Some(_), Value::String(more)) if more.is_empty() => {}
        (_, more) => {
            members.insert(name, more);
        }
    }
}

/// Adds an item to a list: more of the item with its index, if it has one.
fn join(list: &mut Vec<Value>, item: Value) {
    let index = item.get("index").and_then(Value::as_u64);
    let same = list.iter_mut().find(|one| index.is_some() && one["index"].as_u64() == index);
    match (same, item) {
        (Some(Value::Object(object)), Value::Object(more)) => {
            more.into_iter().for_each(|(name, value)| merge(object, name, value));
        }
        (_, item) => list.push(item),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(chunks: &[Value]) -> Result<Value, ErrorKind> {
        let body = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect::<Vec<_>>();
        let body = body.concat();
        let asked = Asked { choices: 1, ..Asked::default() };
        collected(body.as_bytes(), asked).map(|answer| serde_json::from_slice(&answer).unwrap())
    }

    fn chunk(index: u32, delta: &Value, finish: Option<&str>) -> Value {
        json!({"id": "c", "object": "chat.completion.chunk", "model": "m",
            "choices": [{"index": index, "delta": delta, "finish_reason": finish}]})
    }

    #[test]
    fn text_calls_and_counts_come_together_by_choice() {
        let call = |more: Value| json!({"tool_calls": [more]});
        let answer = of(&[
            chunk(0, &json!({"role": "assistant", "content": "Hel"}), None),
            chunk(1, &json!({"content": "x"}), None),
            chunk(0, &json!({"content": "lo"}), None),
            chunk(
                1,
                &call(json!({"index": 0, "id": "a", "type": "function",
                "function": {"name": "f", "arguments": "{\"a\""}})),
                None,
            ),
            chunk(1, &call(json!({"index": 0, "function": {"arguments": ":1}"}})), None),
            chunk(1, &json!({}), Some("tool_calls")),
            chunk(0, &json!({}), Some("stop")),
            json!({"id": "c", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}),
        ]);
        let answer = answer.unwrap();
        assert_eq!((&answer["object"], &answer["id"]), (&json!("chat.completion"), &json!("c")));
        let first = json!({"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "Hello"}});
        assert_eq!(answer["choices"][0], first);
        let second = &answer["choices"][1];
        assert_eq!(second["finish_reason"], "tool_calls");
        assert_eq!(second["message"]["content"], "x");
        let function = json!({"name": "f", "arguments": "{\"a\":1}"});
        assert_eq!(second["message"]["tool_calls"][0]["function"], function);
        assert_eq!(answer["usage"]["completion_tokens"], 2);
    }

    #[test]
    fn half_a_stream_or_an_error_is_no_answer() {
        let half = chunk(0, &json!({"content": "Hel"}), None);
        assert_eq!(of(std::slice::from_ref(&half)).unwrap_err().label(), "protocol");
        let error = json!({"error": {"message": "m", "code": 429}});
        assert_eq!(of(&[half, error]).unwrap_err().label(), "rate_limited");
    }
}
