//! Blocks of content: text, pictures, documents, calls and their results. Pure.

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use serde_json::value::RawValue;

use crate::http::error::ApiError;
use crate::http::extract::fields::{read_at, unsupported, wrong};
use crate::http::translation::turns::{TurnContent, TurnPart};

/// One text, or several blocks.
#[derive(Debug)]
pub enum Blocks {
    Text(String),
    List(Vec<Block>),
}

/// A block of any kind.
#[derive(Debug, Deserialize)]
pub struct Block {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) text: Option<String>,
    #[serde(default)]
    pub(super) thinking: Option<String>,
    /// Of a picture or document an object; of a search result an address.
    #[serde(default)]
    source: Option<Box<RawValue>>,
    /// Of a document.
    #[serde(default)]
    title: Option<String>,
    /// Of a call.
    #[serde(default)]
    pub(super) id: Option<String>,
    #[serde(default)]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) input: Option<Box<RawValue>>,
    /// Of a result.
    #[serde(default)]
    pub(super) tool_use_id: Option<String>,
    #[serde(default)]
    pub(super) content: Option<Blocks>,
}

/// Where the bytes of a picture or document are.
#[derive(Debug, Deserialize)]
struct Source {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    content: Option<Blocks>,
}

impl<'de> Deserialize<'de> for Blocks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BlocksVisitor;
        impl<'de> Visitor<'de> for BlocksVisitor {
            type Value = Blocks;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of content blocks")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Blocks, E> {
                Ok(Blocks::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, blocks: A) -> Result<Blocks, A::Error> {
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(blocks))
                    .map(Blocks::List)
            }
        }
        deserializer.deserialize_any(BlocksVisitor)
    }
}

impl Blocks {
    pub(super) fn into_list(self) -> Vec<Block> {
        match self {
            Self::Text(text) => vec![Block::of_text(text)],
            Self::List(blocks) => blocks,
        }
    }

    /// The parts of a turn; `path` is the blocks' own.
    pub(super) fn into_content(self, path: &str) -> Result<TurnContent, ApiError> {
        match self {
            Self::Text(text) => Ok(TurnContent::Text(text)),
            Self::List(blocks) => {
                let mut parts = Vec::with_capacity(blocks.len());
                for (place, block) in blocks.into_iter().enumerate() {
                    parts.append(&mut block.into_parts(&format!("{path}[{place}]"))?);
                }
                Ok(TurnContent::of(parts))
            }
        }
    }
}

impl Block {
    fn of_text(text: String) -> Self {
        Self {
            kind: "text".to_owned(),
            text: Some(text),
            thinking: None,
            source: None,
            title: None,
            id: None,
            name: None,
            input: None,
            tool_use_id: None,
            content: None,
        }
    }

    /// What a block shows, as parts of a turn.
    pub(super) fn into_parts(self, path: &str) -> Result<Vec<TurnPart>, ApiError> {
        let missing = |field: &str| wrong(&format!("{path}.{field}"), "is missing");
        match self.kind.as_str() {
            "text" => {
                let text = self.text.ok_or_else(|| missing("text"))?;
                Ok(if text.is_empty() { vec![] } else { vec![TurnPart::text(text)] })
            }
            "image" | "document" => {
                let source = self.source.ok_or_else(|| missing("source"))?;
                let path = format!("{path}.source");
                let source = read_at(&source, &path)?;
                if self.kind == "image" {
                    Ok(vec![picture(source, &path)?])
                } else {
                    document(source, self.title, &path)
                }
            }
            // What a search of the client's own has found.
            "search_result" => {
                let found = self.content.ok_or_else(|| missing("content"))?;
                let mut parts: Vec<_> = self.title.map(TurnPart::text).into_iter().collect();
                for block in found.into_list() {
                    parts.append(&mut block.into_parts(&format!("{path}.content"))?);
                }
                Ok(parts)
            }
            kind => {
                let rule = format!("is no kind of block that models here read: `{kind}`");
                Err(wrong(&format!("{path}.type"), &rule))
            }
        }
    }
}

fn picture(source: Source, path: &str) -> Result<TurnPart, ApiError> {
    let url = match (source.kind.as_str(), source.url) {
        ("base64", _) => data_url(source.media_type, source.data, path)?,
        ("url", Some(url)) => url,
        ("url", None) => return Err(wrong(&format!("{path}.url"), "is missing")),
        _ => return Err(unsupported(&format!("{path}.type"))),
    };
    Ok(TurnPart::ImageUrl { image_url: json!({ "url": url }) })
}

fn document(source: Source, title: Option<String>, path: &str) -> Result<Vec<TurnPart>, ApiError> {
    let titled = |text: String| match &title {
        Some(title) => vec![TurnPart::text(format!("{title}\n\n{text}"))],
        None => vec![TurnPart::text(text)],
    };
    match (source.kind.as_str(), source.content) {
        ("text", _) => {
            Ok(titled(source.data.ok_or_else(|| wrong(&format!("{path}.data"), "is missing"))?))
        }
        ("content", Some(Blocks::Text(text))) => Ok(titled(text)),
        ("content", Some(blocks)) => {
            let mut parts = Vec::new();
            for block in blocks.into_list() {
                parts.append(&mut block.into_parts(&format!("{path}.content"))?);
            }
            Ok(parts)
        }
        ("base64", _) => {
            let data = data_url(source.media_type, source.data, path)?;
            let name = title.unwrap_or_else(|| "document.pdf".to_owned());
            Ok(vec![TurnPart::File { file: json!({"file_data": data, "filename": name}) }])
        }
        _ => Err(unsupported(&format!("{path}.type"))),
    }
}

fn data_url(
    media_type: Option<String>,
    data: Option<String>,
    path: &str,
) -> Result<String, ApiError> {
    let missing = |field: &str| wrong(&format!("{path}.{field}"), "is missing");
    let media_type = media_type.ok_or_else(|| missing("media_type"))?;
    let data = data.ok_or_else(|| missing("data"))?;
    Ok(format!("data:{media_type};base64,{data}"))
}
