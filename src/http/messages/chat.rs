//! A request of `/v1/messages` as one of chat, in the words that every upstream and every local
//! model knows. Pure.

use serde_json::{Value, json};

use super::blocks::Blocks;
use super::reply::Asked;
use super::request::{ChoiceIn, FormatIn, MessageIn, MessagesRequest, RoleIn, ToolIn};
use super::words;
use crate::http::error::ApiError;
use crate::http::extract::fields::{read, unsupported, wrong};
use crate::http::translation::chat_body::{AnswerForm, ChatBody, think};
use crate::http::translation::turns::{Side, TurnContent, Turns};
use crate::openai::tools::{FUNCTION, FunctionDefinition};
use crate::openai::{ChatRequest, Tool};

/// A line for Anthropic's accounts in a block of the system turn of its coding agent. It differs
/// with every request, and no prefix of the conversation would ever be found in a cache.
const ATTRIBUTION: &str = "x-anthropic-billing-header:";

/// A request that was understood.
#[derive(Debug)]
pub struct Read {
    pub request: ChatRequest,
    /// The request as upstreams get it.
    pub body: Vec<u8>,
    pub asked: Asked,
}

/// Reads a body.
pub fn read_request(body: &[u8]) -> Result<Read, ApiError> {
    let request: MessagesRequest = read(body)?;
    for (field, given) in [("mcp_servers", request.mcp_servers), ("container", request.container)] {
        if given.0 {
            return Err(unsupported(field));
        }
    }
    let thinks = request.thinking.as_ref().is_some_and(|thinking| thinking.kind != "disabled");
    let begun = begins_the_answer(&request.messages);
    let choice = request.tool_choice;
    let parallel = choice.as_ref().and_then(|choice| choice.disable_parallel_tool_use);
    let format = request.output_config.and_then(|config| config.format).or(request.output_format);
    let body = ChatBody {
        model: request.model,
        messages: turns(request.system, request.messages)?,
        stream: request.stream,
        max_completion_tokens: request.max_tokens,
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        stop: request.stop_sequences.unwrap_or_default(),
        tools: offers(request.tools.unwrap_or_default())?,
        tool_choice: choice.map(tool_choice).transpose()?,
        parallel_tool_calls: parallel.filter(|disabled| *disabled).map(|_| false),
        response_format: format.map(response_format).transpose()?,
        ..ChatBody::default()
    };
    let (mut chat, body) = body.parse()?;
    think(&mut chat, thinks);
    chat.continue_final_message = begun.then_some(true);
    chat.wattgate = request.wattgate;
    chat.user = request.metadata.and_then(|metadata| metadata.user_id);
    Ok(Read { request: chat, body, asked: Asked { thinks } })
}

/// Whether the last turn is text of the assistant, which the answer continues.
fn begins_the_answer(messages: &[MessageIn]) -> bool {
    let Some(MessageIn { role: RoleIn::Assistant, content }) = messages.last() else {
        return false;
    };
    match content {
        Blocks::Text(_) => true,
        Blocks::List(blocks) => blocks.iter().all(|block| block.kind == "text"),
    }
}

fn turns(
    system: Option<Blocks>,
    messages: Vec<MessageIn>,
) -> Result<Vec<crate::http::translation::turns::Turn>, ApiError> {
    let mut turns = Turns::default();
    if let Some(text) = system.map(system_text).transpose()?.filter(|text| !text.is_empty()) {
        turns.say(Side::System, TurnContent::Text(text));
    }
    for (place, message) in messages.into_iter().enumerate() {
        let path = format!("messages[{place}].content");
        match message.role {
            RoleIn::User => add_user(&mut turns, message.content, &path)?,
            RoleIn::Assistant => add_assistant(&mut turns, message.content, &path)?,
            RoleIn::System => turns.say(Side::System, message.content.into_content(&path)?),
        }
    }
    match turns.unanswered() {
        Some(id) => Err(words::unanswered(id)),
        None => Ok(turns.finish()),
    }
}

/// The system turn as one text, without what changes with every request.
fn system_text(system: Blocks) -> Result<String, ApiError> {
    let mut texts = Vec::new();
    for (place, block) in system.into_list().into_iter().enumerate() {
        if block.kind != "text" {
            return Err(wrong(&format!("system[{place}].type"), "must be text"));
        }
        texts.extend(block.text.filter(|text| !text.starts_with(ATTRIBUTION)));
    }
    Ok(texts.join("\n\n"))
}

/// Results, which come first wherever they are, and what else the user says.
fn add_user(turns: &mut Turns, content: Blocks, path: &str) -> Result<(), ApiError> {
    let mut parts = Vec::new();
    for (place, block) in content.into_list().into_iter().enumerate() {
        let path = format!("{path}[{place}]");
        if block.kind != "tool_result" {
            parts.append(&mut block.into_parts(&path)?);
            continue;
        }
        let id = block.tool_use_id;
        let id = id.ok_or_else(|| wrong(&format!("{path}.tool_use_id"), "is missing"))?;
        let content = match block.content {
            Some(content) => content.into_content(&format!("{path}.content"))?,
            None => TurnContent::Text(String::new()),
        };
        let orphan = words::without_call(&path, &id);
        turns.answer(id, content).map_err(|_| orphan)?;
    }
    if !parts.is_empty() {
        turns.say(Side::User, TurnContent::of(parts));
    }
    Ok(())
}

fn add_assistant(turns: &mut Turns, content: Blocks, path: &str) -> Result<(), ApiError> {
    let mut parts = Vec::new();
    let mut calls = Vec::new();
    for (place, block) in content.into_list().into_iter().enumerate() {
        let path = format!("{path}[{place}]");
        let missing = |field: &str| wrong(&format!("{path}.{field}"), "is missing");
        match block.kind.as_str() {
            "thinking" => turns.think(&block.thinking.unwrap_or_default()),
            // For the server that wrote it.
            "redacted_thinking" => {}
            "tool_use" => calls.push((
                block.id.ok_or_else(|| missing("id"))?,
                block.name.ok_or_else(|| missing("name"))?,
                block.input.map_or_else(|| "{}".to_owned(), |input| input.get().to_owned()),
            )),
            _ => parts.append(&mut block.into_parts(&path)?),
        }
    }
    if !parts.is_empty() {
        turns.say(Side::Assistant, TurnContent::of(parts));
    }
    for (id, name, arguments) in calls {
        turns.call(id, name, arguments);
    }
    Ok(())
}

fn offers(tools: Vec<ToolIn>) -> Result<Vec<Tool>, ApiError> {
    let offer = |(place, tool): (usize, ToolIn)| match tool.kind.as_deref() {
        None | Some("custom") => Ok(Tool {
            kind: FUNCTION.to_owned(),
            function: Some(FunctionDefinition {
                name: tool.name,
                description: tool.description,
                parameters: tool.input_schema,
                strict: tool.strict,
            }),
        }),
        Some(kind) => Err(words::unsupported_tool(format!("tools[{place}].type"), kind)),
    };
    tools.into_iter().enumerate().map(offer).collect()
}

fn tool_choice(choice: ChoiceIn) -> Result<Value, ApiError> {
    Ok(match (choice.kind.as_str(), choice.name) {
        ("auto", _) => json!("auto"),
        ("any", _) => json!("required"),
        ("none", _) => json!("none"),
        ("tool", Some(name)) => json!({"type": FUNCTION, "function": {"name": name}}),
        ("tool", None) => return Err(wrong("tool_choice.name", "is missing")),
        _ => return Err(wrong("tool_choice.type", "must be auto, any, tool or none")),
    })
}

fn response_format(format: FormatIn) -> Result<AnswerForm, ApiError> {
    match (format.kind.as_str(), format.schema) {
        ("json_schema", Some(schema)) => Ok(AnswerForm::schema(None, schema, Some(true))),
        ("json_schema", None) => Err(wrong("output_config.format.schema", "is missing")),
        _ => Err(wrong("output_config.format.type", "must be json_schema")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: &Value) -> Result<Value, ApiError> {
        let read = read_request(body.to_string().as_bytes())?;
        Ok(serde_json::from_slice(&read.body).unwrap())
    }

    fn messages(messages: &Value) -> Result<Value, ApiError> {
        chat(&json!({"model": "m", "max_tokens": 8, "messages": messages}))
            .map(|body| body["messages"].clone())
    }

    #[test]
    fn a_conversation_with_tools_becomes_chat() {
        let body = json!({
            "model": "m", "max_tokens": 8, "stop_sequences": ["X"], "top_k": 5,
            "system": [
                {"type": "text", "text": "x-anthropic-billing-header: cc_version=2; cch=0f3a;"},
                {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "Use tools."}],
            "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
            "messages": [
                {"role": "user", "content": "go"},
                {"role": "assistant", "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "So."},
                    {"type": "tool_use", "id": "t1", "name": "f", "input": {"z": 1}}]},
                {"role": "user", "content": [
                    {"type": "text", "text": "and?"},
                    {"type": "tool_result", "tool_use_id": "t1", "content": [
                        {"type": "text", "text": "7"},
                        {"type": "image", "source":
                            {"type": "base64", "media_type": "image/png", "data": "AA=="}}]}]},
            ],
        });
        let read = read_request(body.to_string().as_bytes()).unwrap();
        let chat: Value = serde_json::from_slice(&read.body).unwrap();
        let image =
            json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}});
        assert_eq!(
            chat["messages"],
            json!([
                {"role": "system", "content": "Be brief.\n\nUse tools."},
                {"role": "user", "content": "go"},
                {"role": "assistant", "content": "So.", "reasoning_content": "hm", "tool_calls": [
                    {"id": "t1", "type": "function",
                        "function": {"name": "f", "arguments": "{\"z\":1}"}}]},
                {"role": "tool", "tool_call_id": "t1", "content": "7"},
                {"role": "user", "content": [image]},
                {"role": "user", "content": "and?"},
            ])
        );
        assert_eq!(chat["tool_choice"], "required");
        assert_eq!((&chat["parallel_tool_calls"], &chat["stop"]), (&json!(false), &json!(["X"])));
        assert_eq!(chat["tools"][0]["function"]["parameters"], json!({"type": "object"}));
        assert_eq!((&chat["max_completion_tokens"], &chat["top_k"]), (&json!(8), &json!(5)));
        let thinks = read.request.chat_template_kwargs.unwrap();
        assert_eq!(thinks["enable_thinking"], false);
        assert_eq!(read.request.continue_final_message, None);
    }

    #[test]
    fn the_beginning_of_an_answer_is_continued() {
        let body = json!({"model": "m", "messages": [{"role": "user", "content": "x"},
            {"role": "assistant", "content": "Once"}], "thinking": {"type": "adaptive"}});
        let read = read_request(body.to_string().as_bytes()).unwrap();
        assert_eq!(read.request.continue_final_message, Some(true));
        assert_eq!(read.request.chat_template_kwargs.unwrap()["enable_thinking"], true);
        assert!(read.asked.thinks);
    }

    #[test]
    fn faults_name_their_place() {
        let call = json!({"role": "assistant", "content": [
            {"type": "tool_use", "id": "t1", "name": "f", "input": {}}]});
        let result = |id: &str| {
            let block = json!({"type": "tool_result", "tool_use_id": id, "content": "x"});
            json!({"role": "user", "content": [block]})
        };
        for (given, named) in [
            (json!([result("t1")]), "messages[0].content[0]"),
            (json!([call, result("t2")]), "messages[1].content[0]"),
            (json!([call]), "without `tool_result`"),
            (json!([call, {"role": "user", "content": "never mind"}]), "without `tool_result`"),
            (
                json!([{"role": "user", "content": [{"type": "server_tool_use"}]}]),
                "messages[0].content[0].type",
            ),
            (
                json!([{"role": "user", "content": [
                    {"type": "image", "source": {"type": "file", "file_id": "f"}}]}]),
                "messages[0].content[0].source.type",
            ),
            (json!([{"role": "narrator", "content": "x"}]), "messages[0].role"),
            (json!([{"role": "user", "content": 7}]), "messages[0].content"),
            (json!([]), "at least one message"),
        ] {
            let error = messages(&given).unwrap_err().to_string();
            assert!(error.contains(named), "{given}: {error}");
        }
        for (field, value, named) in [
            ("tools", json!([{"type": "web_search_20250305", "name": "w"}]), "tools[0].type"),
            ("tool_choice", json!({"type": "tool"}), "tool_choice.name"),
            ("tool_choice", json!({"type": "x"}), "tool_choice.type"),
            ("mcp_servers", json!([{"url": "x"}]), "mcp_servers"),
            ("output_config", json!({"format": {"type": "x"}}), "output_config.format.type"),
            ("system", json!([{"type": "image"}]), "system[0].type"),
            ("max_tokens", json!("many"), "max_tokens"),
        ] {
            let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "x"}]});
            body[field] = value.clone();
            let error = chat(&body).unwrap_err().to_string();
            assert!(error.contains(named), "{field}: {value}: {error}");
        }
    }
}
