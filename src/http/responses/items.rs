//! Items of a conversation: as they are read, with an id for each, and as the turns of a chat.

use std::fmt;

use indexmap::IndexMap;
use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::content::{self, PartIn};
use super::tools::{custom_arguments, function_name};
use super::words::input_fault;
use crate::http::error::ApiError;
use crate::http::extract::fields::{read_at, wrong};
use crate::http::translation::turns::{Side, TurnContent, Turns};

/// An item of any kind.
#[derive(Debug, Deserialize)]
struct ItemIn {
    /// A message if absent.
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    role: Option<Role>,
    #[serde(default)]
    content: Option<ItemContent>,
    #[serde(default)]
    call_id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
    /// Of a call of a custom tool.
    #[serde(default)]
    input: Option<String>,
    #[serde(default)]
    output: Option<ItemContent>,
    /// Of reasoning.
    #[serde(default)]
    summary: Option<Vec<PartIn>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Role {
    User,
    Assistant,
    System,
    Developer,
}

impl Role {
    fn side(self) -> Side {
        match self {
            Self::User => Side::User,
            Self::Assistant => Side::Assistant,
            // Not every template and server knows developers.
            Self::System | Self::Developer => Side::System,
        }
    }
}

#[derive(Debug)]
enum ItemContent {
    Text(String),
    Parts(Vec<PartIn>),
}

impl<'de> Deserialize<'de> for ItemContent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ContentVisitor;
        impl<'de> Visitor<'de> for ContentVisitor {
            type Value = ItemContent;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of content parts")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ItemContent, E> {
                Ok(ItemContent::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<ItemContent, A::Error> {
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(parts))
                    .map(ItemContent::Parts)
            }
        }
        deserializer.deserialize_any(ContentVisitor)
    }
}

impl ItemContent {
    fn into_turn(self, path: &str) -> Result<TurnContent, ApiError> {
        match self {
            Self::Text(text) => Ok(TurnContent::Text(text)),
            Self::Parts(parts) => content::of_parts(parts, path),
        }
    }
}

/// The turns of all items, which begin at `input[first]` after those of earlier answers.
pub(super) fn add_turns(
    turns: &mut Turns,
    items: &[Box<RawValue>],
    first: usize,
) -> Result<(), ApiError> {
    for (place, item) in items.iter().enumerate() {
        // Earlier items were read before: a fault is one of this request's.
        let path = format!("input[{}]", place.saturating_sub(first));
        add_turn(turns, read_at(item, &path)?, &path)?;
    }
    if let Some(id) = turns.unanswered() {
        return Err(input_fault(format!("No tool output found for function call {id}.")));
    }
    Ok(())
}

fn add_turn(turns: &mut Turns, item: ItemIn, path: &str) -> Result<(), ApiError> {
    let missing = |field: &str| wrong(&format!("{path}.{field}"), "is missing");
    match item.kind.as_deref() {
        None | Some("message") => {
            let role = item.role.ok_or_else(|| missing("role"))?;
            let content = item.content.ok_or_else(|| missing("content"))?;
            turns.say(role.side(), content.into_turn(&format!("{path}.content"))?);
        }
        Some("function_call") => turns.call(
            item.call_id.ok_or_else(|| missing("call_id"))?,
            function_name(&item.name.ok_or_else(|| missing("name"))?, item.namespace.as_deref()),
            item.arguments.ok_or_else(|| missing("arguments"))?,
        ),
        Some("custom_tool_call") => turns.call(
            item.call_id.ok_or_else(|| missing("call_id"))?,
            function_name(&item.name.ok_or_else(|| missing("name"))?, item.namespace.as_deref()),
            custom_arguments(&item.input.ok_or_else(|| missing("input"))?),
        ),
        Some("function_call_output" | "custom_tool_call_output") => {
            let id = item.call_id.ok_or_else(|| missing("call_id"))?;
            let output = item.output.ok_or_else(|| missing("output"))?;
            let output = output.into_turn(&format!("{path}.output"))?;
            let message = format!("No tool call found for function call output with call_id {id}.");
            turns.answer(id, output).map_err(|_| input_fault(message))?;
        }
        Some("reasoning") => {
            let own = match item.content {
                Some(ItemContent::Parts(parts)) => content::reasoning(&parts),
                _ => String::new(),
            };
            let summary = || content::reasoning(&item.summary.unwrap_or_default());
            let text = if own.is_empty() { summary() } else { own };
            // Encrypted reasoning is for the server that wrote it.
            if !text.is_empty() {
                turns.think(&text);
            }
        }
        Some(kind) => {
            let rule = format!("is no kind of item that models here read: `{kind}`");
            return Err(wrong(&format!("{path}.type"), &rule));
        }
    }
    Ok(())
}

/// The id that an item refers to, if it only refers to one.
pub(super) fn reference(item: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Reference {
        #[serde(rename = "type", default)]
        kind: Option<String>,
        #[serde(default)]
        id: Option<String>,
        #[serde(default)]
        role: Option<Value>,
    }
    let item: Reference = serde_json::from_str(item.get()).ok()?;
    let refers = match item.kind.as_deref() {
        Some(kind) => kind == "item_reference",
        None => item.role.is_none(),
    };
    item.id.filter(|_| refers)
}

/// Items with an id each, as `input_items` lists them; `prefix` begins the ids of those without.
pub(super) fn with_ids(items: Vec<Box<RawValue>>, prefix: &str) -> Vec<Box<RawValue>> {
    let with_id = |(place, item): (usize, Box<RawValue>)| {
        identified(&item, || format!("{prefix}{place}")).unwrap_or(item)
    };
    items.into_iter().enumerate().map(with_id).collect()
}

/// The item with an id and a kind; `None` if it has both.
fn identified(item: &RawValue, id: impl FnOnce() -> String) -> Option<Box<RawValue>> {
    let mut fields: IndexMap<String, &RawValue> = serde_json::from_str(item.get()).ok()?;
    let is_text = |value: &&RawValue| value.get().starts_with('"');
    let (has_id, has_kind) = (fields.get("id").is_some_and(is_text), fields.contains_key("type"));
    if has_id && has_kind {
        return None;
    }
    let id = to_raw_value(&id()).ok()?;
    let kind = to_raw_value("message").ok()?;
    if !has_id {
        fields.insert("id".to_owned(), &id);
    }
    fields.entry("type".to_owned()).or_insert(&kind);
    to_raw_value(&fields).ok()
}

/// The id of an item.
pub fn id_of(item: &RawValue) -> Option<String> {
    let item: Value = serde_json::from_str(item.get()).ok()?;
    item.get("id")?.as_str().map(str::to_owned)
}

/// The message of a user who says `text`.
pub(super) fn user_message(text: &str) -> Box<RawValue> {
    let parts = [json!({"type": "input_text", "text": text})];
    let message = json!({"type": "message", "role": "user", "content": parts});
    to_raw_value(&message).unwrap_or_default()
}
