//! The few members of a chunk, or of a whole answer, that are read. Pure.
//!
//! Whatever an upstream puts into a member, it is not the end: what cannot be read is taken as
//! absent.

use crate::backends::cloud::json_text::{self, Members, items, member, members};
use crate::energy::EnergyFigure;
use crate::energy::prediction::upstream;
use crate::openai::FinishReason;

/// The member in which a Wattgate adds its receipt.
const RECEIPT: &str = "wattgate";

/// An object with `choices`.
pub(super) struct Chunk<'a> {
    members: Members<'a>,
    pub(super) choices: Vec<Choice<'a>>,
    /// `choices` is there and holds something that is no choice, which no client can read.
    pub(super) is_odd: bool,
}

pub(super) struct Choice<'a> {
    members: Members<'a>,
    pub(super) index: u32,
    pub(super) finish: Option<FinishReason>,
    pub(super) has_output: bool,
}

impl<'a> Chunk<'a> {
    /// `None` if `json` is no object.
    pub(super) fn parse(json: &'a str) -> Option<Self> {
        let members = members(json)?;
        let (mut choices, mut is_odd) = (Vec::new(), false);
        if let Some(list) = member(&members, "choices") {
            match items(list) {
                Some(items) => {
                    let read = items.iter().filter_map(|item| Choice::parse(item));
                    choices = read.collect();
                    is_odd = choices.len() < items.len();
                }
                None => is_odd = true,
            }
        }
        Some(Self { members, choices, is_odd })
    }

    pub(super) fn member(&self, name: &str) -> Option<&'a str> {
        member(&self.members, name)
    }

    pub(super) fn has_output(&self) -> bool {
        self.choices.iter().any(|choice| choice.has_output)
    }

    /// The text, a JSON string, of a chunk with one choice that goes on.
    pub(super) fn only_text(&self) -> Option<&'a str> {
        match &*self.choices {
            [choice] if choice.finish.is_none() => choice.text(),
            _ => None,
        }
    }

    pub(super) fn finishes(&self) -> bool {
        self.choices.iter().any(|choice| choice.finish.is_some())
    }

    /// Whether it carries the usage and no choice.
    pub(super) fn is_usage_only(&self) -> bool {
        self.choices.is_empty() && !self.is_odd && self.member("usage").is_some()
    }

    /// What the upstream reports instead of an answer.
    pub(super) fn error(&self) -> Option<&'a str> {
        // Some servers write an empty value of some kind beside every good answer.
        self.member("error").filter(|error| {
            let error: String = error.split_ascii_whitespace().collect();
            !matches!(&*error, "\"\"" | "{}" | "[]" | "false" | "0")
        })
    }

    /// Whether the object itself is an error, without an envelope.
    pub(super) fn is_error(&self) -> bool {
        let is = |name, value| self.member(name) == Some(value);
        let bare = ["message", "code"].iter().all(|name| self.member(name).is_some());
        self.choices.is_empty()
            && (is("object", "\"error\"")
                || is("type", "\"error\"")
                || (bare && self.member("choices").is_none()))
    }

    /// What the upstream says the answer took.
    pub(super) fn energy(&self) -> Option<EnergyFigure> {
        let fields = ["energy", "energy_joules", RECEIPT];
        let reported = fields.into_iter().filter_map(|name| Some((name, self.member(name)?)));
        let mut reported = reported.peekable();
        // Nearly no upstream reports any.
        reported.peek()?;
        upstream::from_body(&json_text::object(reported))
    }

    /// The object without the receipt of another gateway, which would stand beside ours; `None` if
    /// it has none.
    pub(super) fn without_receipt(&self) -> Option<String> {
        let has_receipt = self.members.iter().any(|(key, _)| key == RECEIPT);
        has_receipt.then(|| replaced(&self.members, |_| None))
    }

    /// Two chunks: all that is said, which has not ended and carries no usage, and the end of it.
    pub(super) fn split(&self) -> (String, String) {
        let said = self
            .choices
            .iter()
            .map(|choice| choice.with(|key| (key == "finish_reason").then_some("null")));
        let said = json_text::list(&said.collect::<Vec<_>>());
        let ends = self.choices.iter().map(|choice| {
            choice.with(|key| match key {
                "delta" => Some("{}"),
                "text" => Some("\"\""),
                "logprobs" => Some("null"),
                _ => None,
            })
        });
        let ends = json_text::list(&ends.collect::<Vec<_>>());
        let text = replaced(&self.members, |key| match key {
            "choices" => Some(&said),
            "usage" => Some("null"),
            _ => None,
        });
        (text, replaced(&self.members, |key| (key == "choices").then_some(&ends)))
    }
}

impl<'a> Choice<'a> {
    fn parse(json: &'a str) -> Option<Self> {
        let members = members(json)?;
        let index = member(&members, "index").and_then(|index| index.parse().ok()).unwrap_or(0);
        let finish = member(&members, "finish_reason").and_then(finish_reason);
        let has_text = member(&members, "text").is_some_and(is_filled);
        let delta = member(&members, "delta").filter(|delta| *delta != "{}");
        let has_output = has_text || delta.is_some_and(adds_output);
        Some(Self { members, index, finish, has_output })
    }

    /// The first text that it adds to the answer, a JSON string.
    fn text(&self) -> Option<&'a str> {
        let is_text = |json: &str| json.starts_with('"') && is_filled(json);
        let raw = member(&self.members, "text").filter(|json| is_text(json));
        raw.or_else(|| {
            let delta = members(member(&self.members, "delta")?)?;
            let mut texts = delta.iter().filter(|(key, json)| key != "role" && is_text(json));
            texts.next().map(|(_, json)| *json)
        })
    }

    fn with<'v>(&'v self, value: impl Fn(&str) -> Option<&'v str>) -> String {
        replaced(&self.members, value)
    }
}

/// The object with other values for some of its members, and without a receipt.
fn replaced<'v>(members: &'v Members<'_>, value: impl Fn(&str) -> Option<&'v str>) -> String {
    let kept = members.iter().filter(|(key, _)| key != RECEIPT);
    let replaced = kept.map(|(key, old)| (&**key, value(key).unwrap_or(old)));
    json_text::object(replaced)
}

/// Some servers write "" or "null" while the answer goes on, and what is no text says nothing;
/// words that OpenAI does not know are read as a plain end.
fn finish_reason(json: &str) -> Option<FinishReason> {
    let word: String = serde_json::from_str(json).ok()?;
    match word.trim().to_ascii_lowercase().as_str() {
        "" | "null" | "none" => None,
        "length" | "max_tokens" => Some(FinishReason::Length),
        "tool_calls" | "function_call" => Some(FinishReason::ToolCalls),
        "content_filter" => Some(FinishReason::ContentFilter),
        _ => Some(FinishReason::Stop),
    }
}

/// Whether a delta holds more of the answer than its role.
fn adds_output(delta: &str) -> bool {
    let Some(members) = members(delta) else { return is_filled(delta) };
    members.iter().any(|(key, value)| key != "role" && is_filled(value))
}

/// Whether a value is a text, a list or an object that is not empty.
fn is_filled(json: &str) -> bool {
    let inner = match json.as_bytes() {
        [b'"', inner @ .., b'"'] => return !inner.is_empty(),
        [b'[', inner @ .., b']'] | [b'{', inner @ .., b'}'] => inner,
        _ => return false,
    };
    !inner.trim_ascii().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_more_than_a_role_is_output() {
        let is_output = |choice: &str| {
            let json = format!("{{\"choices\":[{choice}]}}");
            Chunk::parse(&json).unwrap().has_output()
        };
        for delta in [
            r#"{"content":"a"}"#,
            r#"{"role":"assistant","content":" "}"#,
            r#"{"reasoning_content":"a"}"#,
            r#"{"reasoning":"a"}"#,
            r#"{"reasoning_details":[{"text":"a"}]}"#,
            r#"{"refusal":"no"}"#,
            r#"{"tool_calls":[{"index":0}]}"#,
            r#"{"function_call":{"name":"f"}}"#,
            r#"{"audio":{"data":"x"}}"#,
            r#"{"content":["a"]}"#,
            r#""text""#,
        ] {
            assert!(is_output(&format!("{{\"delta\":{delta}}}")), "{delta}");
        }
        for delta in [
            "{}",
            "null",
            r#"{"role":"assistant"}"#,
            r#"{"role":"assistant","content":"","refusal":null,"tool_calls":[ ],"audio":{ }}"#,
            r#"{"content":null,"reasoning_content":null,"x":0}"#,
        ] {
            assert!(!is_output(&format!("{{\"delta\":{delta}}}")), "{delta}");
        }
        assert!(is_output(r#"{"text":"a"}"#) && !is_output(r#"{"text":""}"#));
    }

    #[test]
    fn a_choice_ends_with_a_word_only() {
        let finish = |json: &str| {
            let json = format!("{{\"choices\":[{{\"finish_reason\":{json}}}]}}");
            Chunk::parse(&json).unwrap().choices[0].finish
        };
        for open in ["null", "\"\"", "\" \"", "\"null\"", "0", "1", "{}", "[]", "true"] {
            assert_eq!(finish(open), None, "{open}");
        }
        assert_eq!(finish("\"length\""), Some(FinishReason::Length));
        assert_eq!(finish("\"tool_calls\""), Some(FinishReason::ToolCalls));
        for word in ["\"stop\"", "\"STOP\"", "\"eos\"", "\"end_turn\""] {
            assert_eq!(finish(word), Some(FinishReason::Stop), "{word}");
        }
    }

    #[test]
    fn an_empty_error_is_none_and_a_bare_one_is_one() {
        fn chunk(json: &str) -> Chunk<'_> {
            Chunk::parse(json).unwrap()
        }
        for none in ["\"\"", "{ }", "false", "[]", "null", "0"] {
            let json = format!("{{\"choices\":[{{}}],\"error\":{none}}}");
            assert!(chunk(&json).error().is_none(), "{none}");
        }
        assert_eq!(chunk(r#"{"error":"no"}"#).error(), Some("\"no\""));
        assert!(chunk(r#"{"object":"error","message":"no"}"#).is_error());
        assert!(chunk(r#"{"message":"no","code":500}"#).is_error());
        assert!(!chunk(r#"{"choices":[],"message":"hi","code":1}"#).is_error());
    }

    #[test]
    fn a_split_chunk_says_all_once() {
        let json = r#"{"id":"x","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop","logprobs":{"a":1}}],"usage":{"total_tokens":3}}"#;
        let (said, end) = Chunk::parse(json).unwrap().split();
        assert_eq!(
            said,
            r#"{"id":"x","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null,"logprobs":{"a":1}}],"usage":null}"#
        );
        assert_eq!(
            end,
            r#"{"id":"x","choices":[{"index":0,"delta":{},"finish_reason":"stop","logprobs":null}],"usage":{"total_tokens":3}}"#
        );
    }

    #[test]
    fn another_gateways_receipt_is_taken_out_with_its_duplicates() {
        let receipt =
            r#"{"wattgate":{"energy":{"joules":1}},"a":1,"wattgate":{"energy":{"joules":2.0}}}"#;
        let chunk = Chunk::parse(receipt).unwrap();
        assert_eq!(chunk.without_receipt().as_deref(), Some(r#"{"a":1}"#));
        assert_eq!(chunk.energy().unwrap().joules, Some(crate::units::Joules(2.0)));
        assert_eq!(Chunk::parse(r#"{"a":1}"#).unwrap().without_receipt(), None);
    }
}
