//! The parts of an item's content as those of a chat's turn. Pure.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::http::error::ApiError;
use crate::http::extract::fields::wrong;
use crate::http::translation::turns::{TurnContent, TurnPart};

/// A part of any kind.
#[derive(Debug, Deserialize)]
pub(super) struct PartIn {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    /// An address; in the form of chat an object with one.
    #[serde(default)]
    image_url: Option<Value>,
    #[serde(default)]
    detail: Option<Value>,
    #[serde(default)]
    input_audio: Option<Value>,
    #[serde(default)]
    file_id: Option<String>,
    #[serde(default)]
    file_data: Option<Value>,
    #[serde(default)]
    filename: Option<Value>,
}

pub(super) fn of_parts(parts: Vec<PartIn>, path: &str) -> Result<TurnContent, ApiError> {
    let parts = parts.into_iter().enumerate();
    let parts = parts.map(|(place, part)| of_part(part, &format!("{path}[{place}]")));
    Ok(TurnContent::of(parts.collect::<Result<_, _>>()?))
}

fn of_part(part: PartIn, path: &str) -> Result<TurnPart, ApiError> {
    let missing = |field: &str| wrong(&format!("{path}.{field}"), "is missing");
    if part.file_id.is_some() {
        return Err(wrong(&format!("{path}.file_id"), "names a file, and none are kept here"));
    }
    Ok(match part.kind.as_str() {
        "input_text" | "output_text" | "text" => {
            TurnPart::text(part.text.ok_or_else(|| missing("text"))?)
        }
        "refusal" => TurnPart::Refusal { refusal: part.refusal.ok_or_else(|| missing("refusal"))? },
        "input_image" | "image_url" => {
            let image_url = match part.image_url.ok_or_else(|| missing("image_url"))? {
                url @ Value::String(_) => with_detail(url, part.detail),
                object => object,
            };
            TurnPart::ImageUrl { image_url }
        }
        "input_audio" => TurnPart::InputAudio {
            input_audio: part.input_audio.ok_or_else(|| missing("input_audio"))?,
        },
        "input_file" => {
            let data = part.file_data.ok_or_else(|| missing("file_data"))?;
            TurnPart::File { file: json!({"file_data": data, "filename": part.filename}) }
        }
        kind => {
            let rule = format!("is no kind of content that models here read: `{kind}`");
            return Err(wrong(&format!("{path}.type"), &rule));
        }
    })
}

fn with_detail(url: Value, detail: Option<Value>) -> Value {
    let mut image = Map::new();
    image.insert("url".to_owned(), url);
    image.extend(detail.filter(|detail| !detail.is_null()).map(|it| ("detail".to_owned(), it)));
    image.into()
}

/// The text of reasoning or of a summary of it.
pub(super) fn reasoning(parts: &[PartIn]) -> String {
    let texts: Vec<&str> = parts.iter().filter_map(|part| part.text.as_deref()).collect();
    texts.join("\n")
}
