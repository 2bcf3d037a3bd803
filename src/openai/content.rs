//! Fields with two accepted shapes: message content (text or parts) and stop strings (one or many).
//!
//! Hand-written visitors rather than `untagged`, so that an error names the expected type and the
//! position.

use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The content of a message.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// One part of a multi-part message. Only text is read; the kind of other parts is kept for
/// routing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// `text`, `image_url`, `input_audio`, `file`, …; empty if the part does not say.
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Kinds of parts that a model without eyes and ears understands: text under the names of several
/// APIs, what an assistant turn refused with, and its thoughts, which no model reads again.
const TEXT_KINDS: [&str; 9] = [
    "text",
    "input_text",
    "output_text",
    "summary_text",
    "refusal",
    "thinking",
    "redacted_thinking",
    "reasoning",
    "reasoning_text",
];

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A part as it is written.
        #[derive(Deserialize)]
        struct Written {
            #[serde(rename = "type", default)]
            kind: Option<String>,
            #[serde(default)]
            text: Option<String>,
            #[serde(default)]
            refusal: Option<String>,
        }
        struct PartVisitor;
        impl<'de> Visitor<'de> for PartVisitor {
            type Value = Part;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a content part or a string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Part, E> {
                Ok(Part { kind: "text".to_owned(), text: Some(text.to_owned()) })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Part, A::Error> {
                let part = Written::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let kind = part.kind.unwrap_or_default();
                let is_thought = kind.contains("thinking") || kind.starts_with("reasoning");
                let text = part.text.or(part.refusal).filter(|_| !is_thought);
                Ok(Part { kind, text })
            }
        }
        deserializer.deserialize_any(PartVisitor)
    }
}

impl Part {
    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.kind.len() + self.text.as_ref().map_or(0, String::len)
    }
}

impl Content {
    /// All text, parts joined by newlines.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Self::Text(text) => text.into(),
            Self::Parts(parts) => {
                let texts: Vec<&str> =
                    parts.iter().filter_map(|part| part.text.as_deref()).collect();
                texts.join("\n").into()
            }
        }
    }

    /// Memory that it holds besides itself, about.
    pub fn memory_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Parts(parts) => parts.iter().map(Part::memory_bytes).sum(),
        }
    }

    /// Whether any part is not text.
    pub fn has_media(&self) -> bool {
        let is_media = |part: &Part| !TEXT_KINDS.contains(&part.kind.as_str());
        matches!(self, Self::Parts(parts) if parts.iter().any(is_media))
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ContentVisitor;
        impl<'de> Visitor<'de> for ContentVisitor {
            type Value = Content;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of content parts")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Content, E> {
                Ok(Content::Text(text.to_owned()))
            }
            fn visit_string<E: de::Error>(self, text: String) -> Result<Content, E> {
                Ok(Content::Text(text))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, parts: A) -> Result<Content, A::Error> {
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(parts))
                    .map(Content::Parts)
            }
        }
        deserializer.deserialize_any(ContentVisitor)
    }
}

/// Strings at which generation ends; OpenAI allows one string or up to four.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stop(pub Vec<String>);

impl<'de> Deserialize<'de> for Stop {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StopVisitor;
        impl<'de> Visitor<'de> for StopVisitor {
            type Value = Stop;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Stop, E> {
                Ok(Stop(vec![text.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, strings: A) -> Result<Stop, A::Error> {
                Deserialize::deserialize(de::value::SeqAccessDeserializer::new(strings)).map(Stop)
            }
        }
        deserializer.deserialize_any(StopVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_text_or_parts_and_an_error_names_both() {
        let text: Content = serde_json::from_str(r#""hi""#).unwrap();
        assert_eq!(text.text(), "hi");
        let parts: Content = serde_json::from_str(
            r#"[{"type":"text","text":"a"},{"type":"image_url","image_url":{}}]"#,
        )
        .unwrap();
        assert_eq!((parts.text().as_ref(), parts.has_media()), ("a", true));
        let strings: Content =
            serde_json::from_str(r#"["hi",{"type":"text","text":"you"}]"#).unwrap();
        assert_eq!((strings.text().as_ref(), strings.has_media()), ("hi\nyou", false));
        let error = serde_json::from_str::<Content>("7").unwrap_err().to_string();
        assert!(error.contains("a string or an array of content parts"), "{error}");
    }

    #[test]
    fn refusals_and_thoughts_are_no_media_and_thoughts_are_not_read_again() {
        let read = |part: &str| {
            let content: Content = serde_json::from_str(&format!("[{part}]")).unwrap();
            (content.text().into_owned(), content.has_media())
        };
        for (part, text, media) in [
            (r#"{"type":"input_text","text":"a"}"#, "a", false),
            (r#"{"type":"output_text","text":"a","annotations":[]}"#, "a", false),
            (r#"{"type":"refusal","refusal":"no"}"#, "no", false),
            (r#"{"type":"thinking","thinking":"hm","signature":"x"}"#, "", false),
            (r#"{"type":"redacted_thinking","data":"x"}"#, "", false),
            (r#"{"type":"reasoning","text":"hm"}"#, "", false),
            (r#"{"type":"image_url","image_url":{"url":"x"}}"#, "", true),
            (r#"{"type":"input_audio","input_audio":{}}"#, "", true),
            (r#"{"image_url":"x"}"#, "", true),
        ] {
            assert_eq!(read(part), (text.to_owned(), media), "{part}");
        }
    }

    #[test]
    fn stop_takes_one_or_many() {
        assert_eq!(serde_json::from_str::<Stop>(r#""x""#).unwrap(), Stop(vec!["x".into()]));
        assert_eq!(
            serde_json::from_str::<Stop>(r#"["x","y"]"#).unwrap(),
            Stop(vec!["x".into(), "y".into()])
        );
    }
}
