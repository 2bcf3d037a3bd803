//! A request of `/v1/responses` as one of chat: with the conversation of the answer that it
//! continues, in the words that every upstream and every local model knows.

use std::sync::Arc;

use serde_json::value::RawValue;

use super::echo::Echo;
use super::items;
use super::reply::Asked;
use super::request::{Input, ResponsesRequest, TextFormat};
use super::store::{Kept, Owner, Store};
use super::tools;
use crate::http::error::ApiError;
use crate::http::extract::fields::{read, unsupported, wrong};
use crate::http::translation::chat_body::{AnswerForm, ChatBody, think};
use crate::http::translation::turns::{Side, TurnContent, Turns};
use crate::openai::{ChatRequest, Tool};
use crate::units::MonotonicNs;

/// Marks answers to be written with log-probabilities.
const LOGPROBS: &str = "message.output_text.logprobs";

/// A request that was understood.
#[derive(Debug)]
pub struct Read {
    pub request: ChatRequest,
    /// The request as upstreams get it.
    pub body: Vec<u8>,
    pub conversation: Conversation,
    pub asked: Asked,
}

/// The items before the answer, and what they inherit.
#[derive(Debug)]
pub struct Conversation {
    pub items: Vec<Box<RawValue>>,
    /// The client wants to continue or fetch the answer.
    pub store: bool,
    /// An earlier answer had to stay on this machine.
    pub local_only: bool,
    /// The name of the conversation that an earlier request gave.
    pub session: Option<String>,
}

/// Where earlier answers are.
#[derive(Clone, Copy, Debug)]
pub struct Earlier<'s> {
    pub store: &'s Store,
    pub owner: Owner,
    pub now: MonotonicNs,
}

impl Earlier<'_> {
    pub fn get(&self, id: &str) -> Option<Arc<Kept>> {
        self.store.get(id, self.owner, self.now)
    }

    /// The item with this id, of an answer or of its input; ids of items hold their answer's.
    fn item(&self, id: &str) -> Option<Box<RawValue>> {
        let (rest, _) = id.rsplit_once('_')?;
        let (_, request_id) = rest.split_once('_')?;
        let kept = self.get(&format!("{}{request_id}", super::reply::ID_PREFIX))?;
        let mut items = kept.output.iter().chain(&kept.input);
        items.find(|item| items::id_of(item).as_deref() == Some(id)).cloned()
    }
}

/// Reads a body. `id` is the request's, of which the ids of new items are made.
pub fn read_request(body: &[u8], id: &str, earlier: Earlier<'_>) -> Result<Read, ApiError> {
    let mut request: ResponsesRequest = read(body)?;
    refuse_services(&request)?;
    let mut echo = Echo::of(body)?;
    let store = request.store.unwrap_or(true);
    let (conversation, first) = conversation(&mut request, id, store, earlier)?;
    if !store {
        echo.forget();
    }
    let wants_logprobs = wants_logprobs(&request);
    let (tools, names) = tools::offers(request.tools.take().unwrap_or_default())?;
    let asked = Asked { echo, names, wants_logprobs };
    let (request, body) = translate(request, tools, &conversation.items, first)?;
    Ok(Read { request, body, conversation, asked })
}

/// What only OpenAI does, and what was meant for another path.
fn refuse_services(request: &ResponsesRequest) -> Result<(), ApiError> {
    if request.messages.0 {
        return Err(wrong("input", "holds here what /v1/chat/completions calls messages"));
    }
    let services = [
        ("background", request.background),
        ("conversation", request.conversation),
        ("prompt", request.prompt),
    ];
    services.into_iter().try_for_each(
        |(field, given)| {
            if given.0 { Err(unsupported(field)) } else { Ok(()) }
        },
    )
}

/// The conversation, and the place in it where this request's own items begin.
fn conversation(
    request: &mut ResponsesRequest,
    id: &str,
    store: bool,
    earlier: Earlier<'_>,
) -> Result<(Conversation, usize), ApiError> {
    let mut conversation = Conversation { items: vec![], store, local_only: false, session: None };
    if let Some(previous) = &request.previous_response_id {
        let kept = earlier.get(previous);
        let kept = kept.ok_or_else(|| ApiError::UnknownPreviousResponse(previous.clone()))?;
        conversation.items.extend(kept.input.iter().chain(&kept.output).cloned());
        conversation.local_only = kept.local_only;
        conversation.session.clone_from(&kept.session);
    }
    let first = conversation.items.len();
    let own = match std::mem::take(&mut request.input) {
        Input::Text(text) => vec![items::user_message(&text)],
        Input::Items(items) => items,
    };
    for (place, item) in own.into_iter().enumerate() {
        conversation.items.push(match items::reference(&item) {
            None => item,
            Some(named) => earlier.item(&named).ok_or_else(|| {
                let rule = format!("refers to an item that is not kept: `{named}`");
                wrong(&format!("input[{place}].id"), &rule)
            })?,
        });
    }
    if conversation.items.is_empty() {
        return Err(wrong("input", "must hold a text or at least one item"));
    }
    if store {
        conversation.items = items::with_ids(conversation.items, &format!("msg_{id}_i"));
    }
    Ok((conversation, first))
}

fn wants_logprobs(request: &ResponsesRequest) -> bool {
    request.top_logprobs.is_some_and(|top| top > 0)
        || request.include.iter().flatten().any(|included| included == LOGPROBS)
}

fn translate(
    request: ResponsesRequest,
    tools: Vec<Tool>,
    items: &[Box<RawValue>],
    first: usize,
) -> Result<(ChatRequest, Vec<u8>), ApiError> {
    let mut turns = Turns::default();
    if let Some(instructions) = request.instructions.as_ref().filter(|text| !text.is_empty()) {
        turns.say(Side::System, TurnContent::Text(instructions.clone()));
    }
    items::add_turns(&mut turns, items, first)?;
    let logprobs = wants_logprobs(&request);
    let effort = request.reasoning.and_then(|reasoning| reasoning.effort);
    let format = request.text.and_then(|text| text.format);
    let body = ChatBody {
        model: request.model,
        messages: turns.finish(),
        stream: request.stream,
        max_completion_tokens: request.max_output_tokens,
        temperature: request.temperature,
        top_p: request.top_p,
        tools,
        tool_choice: request.tool_choice.map(tools::choice).transpose()?,
        parallel_tool_calls: request.parallel_tool_calls,
        response_format: format.map(response_format).transpose()?.flatten(),
        reasoning_effort: effort.clone(),
        logprobs: logprobs.then_some(true),
        top_logprobs: request.top_logprobs.filter(|_| logprobs),
        service_tier: request.service_tier,
        ..ChatBody::default()
    };
    let (mut chat, body) = body.parse()?;
    // Templates of local models know only whether to think.
    if effort.is_some_and(|effort| effort == "none" || effort == "minimal") {
        think(&mut chat, false);
    }
    (chat.wattgate, chat.user, chat.metadata) = (request.wattgate, request.user, request.metadata);
    Ok((chat, body))
}

fn response_format(format: TextFormat) -> Result<Option<AnswerForm>, ApiError> {
    match format.kind.as_str() {
        "text" => Ok(None),
        "json_object" => Ok(Some(AnswerForm::json_object())),
        "json_schema" => {
            let schema = format.schema.ok_or_else(|| wrong("text.format.schema", "is missing"))?;
            Ok(Some(AnswerForm::schema(format.name, schema, format.strict)))
        }
        _ => Err(wrong("text.format.type", "must be text, json_object or json_schema")),
    }
}
