//! An answer that an upstream gave in one piece. Pure.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::chunk::Chunk;
use super::closing::closing;
use super::usage;
use crate::backends::backend::{ErrorKind, Event};
use crate::backends::cloud::failure;
use crate::backends::cloud::json_text;
use crate::openai::FinishReason;

/// The events of an answer that was not streamed.
pub(crate) fn whole(body: &Bytes) -> Result<Vec<Event>, ErrorKind> {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    let json =
        std::str::from_utf8(text).map_err(|_| failure::protocol("the answer is not UTF-8"))?;
    let answer = Chunk::parse(json).ok_or_else(|| not_an_answer(json))?;
    if let Some(error) = answer.error() {
        return Err(failure::reported_json(error));
    }
    if answer.is_error() {
        return Err(failure::reported_json(json));
    }
    let data = answer.member("data").and_then(json_text::items);
    let has_vectors = data.is_some_and(|vectors| !vectors.is_empty());
    if answer.choices.is_empty() && !has_vectors {
        return Err(failure::protocol("the answer has no choices"));
    }
    let reason = answer.choices.iter().find_map(|choice| choice.finish);
    let counted = answer.member("usage").and_then(|json| usage::read(json, !has_vectors));
    let closing = closing(counted, answer.energy(), reason.unwrap_or(FinishReason::Stop));
    let object = match answer.without_receipt() {
        Some(object) => object.into(),
        None => body.slice_ref(text),
    };
    Ok(std::iter::once(Event::UpstreamAnswer(object)).chain(closing).collect())
}

/// The chunks of a stream that say what a whole answer says, where a stream was asked for.
pub(crate) fn as_chunks(body: &[u8]) -> Result<Vec<String>, ErrorKind> {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let mut answer: Value = serde_json::from_slice(text)
        .map_err(|_| failure::protocol("JSON that cannot be read instead of an event stream"))?;
    if let Some(error) = failure::in_answer(&answer) {
        return Err(error);
    }
    let Some(choices) = answer.get_mut("choices").and_then(Value::as_array_mut) else {
        return Err(failure::protocol("JSON without choices instead of an event stream"));
    };
    let (mut said, mut ends) = (Vec::new(), Vec::new());
    for (place, choice) in std::mem::take(choices).into_iter().enumerate() {
        let Value::Object(choice) = choice else { continue };
        let (text, end) = chunk_choices(choice, place);
        said.push(text);
        ends.push(end);
    }
    if said.is_empty() {
        return Err(failure::protocol("JSON without choices instead of an event stream"));
    }
    let usage = answer.get_mut("usage").map(Value::take).filter(|usage| !usage.is_null());
    if answer["object"] == "chat.completion" {
        answer["object"] = json!("chat.completion.chunk");
    }
    let mut chunk = |choices: Vec<Value>, usage: Option<Value>| {
        answer["choices"] = choices.into();
        answer["usage"] = usage.unwrap_or_default();
        answer.to_string()
    };
    let mut chunks = vec![chunk(said, None), chunk(ends, None)];
    chunks.extend(usage.map(|usage| chunk(vec![], Some(usage))));
    Ok(chunks)
}

/// What a whole choice says, and its end, each as a choice of a chunk.
fn chunk_choices(mut choice: Map<String, Value>, place: usize) -> (Value, Value) {
    choice.entry("index").or_insert_with(|| place.into());
    let mut end = Map::new();
    end.insert("index".into(), choice["index"].clone());
    if let Some(mut message) = choice.remove("message") {
        if let Some(calls) = message.get_mut("tool_calls").and_then(Value::as_array_mut) {
            for (index, call) in calls.iter_mut().enumerate() {
                if let Value::Object(call) = call {
                    call.entry("index").or_insert_with(|| index.into());
                }
            }
        }
        choice.insert("delta".into(), message);
        end.insert("delta".into(), json!({}));
    } else {
        end.insert("text".into(), json!(""));
    }
    let finish = choice.insert("finish_reason".into(), Value::Null);
    let finish = finish.filter(|finish| finish.as_str().is_some_and(|word| !word.is_empty()));
    end.insert("finish_reason".into(), finish.unwrap_or_else(|| json!("stop")));
    (choice.into(), end.into())
}

fn not_an_answer(text: &str) -> ErrorKind {
    // Gemini lists its errors.
    if let Ok(listed @ Value::Array(_)) = serde_json::from_str(text)
        && let Some(error) = failure::in_answer(&listed)
    {
        return error;
    }
    failure::protocol(match text.as_bytes() {
        [b'<', ..] => "a page instead of JSON",
        [b'd', b'a', b't', b'a', b':', ..] | [b'e', b'v', b'e', b'n', b't', b':', ..] => {
            "an event stream, which was not asked for"
        }
        _ => "the answer is not of OpenAI's form",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_passed_on_as_written() {
        let body = "{\n \"choices\": [{\"finish_reason\":\"stop\"}], \"usage\": {\"prompt_tokens\":1,\"total_tokens\":3}\n}";
        for around in [format!("{body}\n"), format!("\u{feff} {body}")] {
            let events = whole(&around.into()).unwrap();
            let [Event::UpstreamAnswer(raw), Event::Usage(_), Event::Done(FinishReason::Stop)] =
                &events[..]
            else {
                panic!("{events:?}")
            };
            assert_eq!(raw, body);
        }
        for broken in ["<html>", r#"{"choices":[]}"#, "{}", "\"hi\"", ""] {
            assert_eq!(whole(&broken.into()).unwrap_err().label(), "protocol", "{broken}");
        }
        assert_eq!(whole(&vec![b'"', 0xff, b'"'].into()).unwrap_err().label(), "protocol");
        let listed = r#"[{"error":{"code":429,"message":"m"}}]"#;
        assert_eq!(whole(&listed.into()).unwrap_err().label(), "rate_limited");
    }

    #[test]
    fn odd_members_do_not_break_an_answer() {
        for odd in [
            r#""error":"""#,
            r#""error":{}"#,
            r#""error":false"#,
            r#""error":[]"#,
            r#""error":null"#,
            r#""object":7"#,
            r#""data":7"#,
            r#""choices":[{"finish_reason":3}]"#,
            r#""wattgate":1,"wattgate":2"#,
        ] {
            let body = format!(r#"{{"id":"x","choices":[{{"message":{{}}}}],{odd}}}"#);
            let events = whole(&body.clone().into()).unwrap();
            let Event::UpstreamAnswer(object) = &events[0] else { panic!("{events:?}") };
            assert!(!String::from_utf8_lossy(object).contains("wattgate"), "{body}");
        }
    }

    #[test]
    fn a_whole_answer_becomes_the_chunks_of_a_stream() {
        let body = r#"{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"usage":{"total_tokens":3}}"#;
        let chunks: Vec<Value> = as_chunks(body.as_bytes())
            .unwrap()
            .iter()
            .map(|one| serde_json::from_str(one).unwrap())
            .collect();
        assert_eq!(chunks.len(), 3);
        let delta = &chunks[0]["choices"][0]["delta"];
        assert_eq!(
            (&delta["content"], &delta["tool_calls"][0]["index"]),
            (&json!("hi"), &json!(0))
        );
        assert_eq!(chunks[0]["object"], "chat.completion.chunk");
        assert!(chunks[0]["choices"][0]["finish_reason"].is_null());
        assert_eq!(
            chunks[1]["choices"][0],
            json!({"index":0,"delta":{},"finish_reason":"tool_calls"})
        );
        assert_eq!(
            (&chunks[2]["choices"], &chunks[2]["usage"]["total_tokens"]),
            (&json!([]), &json!(3))
        );

        let raw = as_chunks(br#"{"choices":[{"text":"hi"}]}"#).unwrap();
        let end: Value = serde_json::from_str(&raw[1]).unwrap();
        assert_eq!(end["choices"][0], json!({"index":0,"text":"","finish_reason":"stop"}));
        for broken in [&b"{}"[..], b"{", br#"{"choices":[]}"#, br#"{"choices":5}"#] {
            assert_eq!(as_chunks(broken).unwrap_err().label(), "protocol");
        }
        let error = as_chunks(br#"{"error":{"message":"m","code":429}}"#).unwrap_err();
        assert_eq!(error.label(), "rate_limited");
    }
}
