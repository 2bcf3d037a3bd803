//! The turns of a chat, put together from pieces: what an assistant thinks, says and calls in a row
//! is one turn, and results follow their calls. Pure.

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;

use crate::openai::ToolCall;
use crate::openai::tools::FunctionCall;

#[derive(Debug, Serialize, PartialEq)]
pub struct Turn {
    role: &'static str,
    content: Option<TurnContent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<String>,
}

#[derive(Debug, Serialize, PartialEq)]
#[serde(untagged)]
pub enum TurnContent {
    Text(String),
    Parts(Vec<TurnPart>),
}

#[derive(Debug, Serialize, PartialEq)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TurnPart {
    Text { text: String },
    ImageUrl { image_url: Value },
    InputAudio { input_audio: Value },
    File { file: Value },
    Refusal { refusal: String },
}

impl TurnPart {
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }
}

impl TurnContent {
    /// One text stays a text: not every server and template takes parts.
    pub fn of(mut parts: Vec<TurnPart>) -> Self {
        match parts.pop() {
            Some(TurnPart::Text { text }) if parts.is_empty() => Self::Text(text),
            last => {
                parts.extend(last);
                Self::Parts(parts)
            }
        }
    }

    fn into_parts(self) -> Vec<TurnPart> {
        match self {
            Self::Text(text) => vec![TurnPart::Text { text }],
            Self::Parts(parts) => parts,
        }
    }
}

/// The sides of a chat that say something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    System,
    User,
    Assistant,
}

impl Side {
    fn role(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => ASSISTANT,
        }
    }
}

const ASSISTANT: &str = "assistant";

/// The turns so far.
#[derive(Debug, Default)]
pub struct Turns {
    so_far: Vec<Turn>,
    /// Ids of the calls, and whether each has its result.
    calls: IndexMap<String, bool>,
    /// Parts of results that no result of a chat may hold: the user shows them after the results.
    shown: Vec<TurnPart>,
}

/// A result whose call is not in the conversation.
#[derive(Debug, PartialEq, Eq)]
pub struct WithoutCall;

impl Turns {
    pub fn say(&mut self, side: Side, content: TurnContent) {
        if side == Side::Assistant
            && let Some(turn) =
                self.assistant(|turn| turn.content.is_none() || !turn.tool_calls.is_empty())
        {
            turn.content = Some(match turn.content.take() {
                None => content,
                Some(earlier) => {
                    let mut parts = earlier.into_parts();
                    parts.append(&mut content.into_parts());
                    TurnContent::Parts(parts)
                }
            });
            return;
        }
        self.push(side.role(), Some(content));
    }

    /// Adds the assistant's reasoning before what it says next.
    pub fn think(&mut self, text: &str) {
        let open = |turn: &Turn| turn.content.is_none() && turn.tool_calls.is_empty();
        let turn = match self.assistant(open) {
            Some(turn) => turn,
            None => self.push(ASSISTANT, None),
        };
        turn.reasoning_content.get_or_insert_default().push_str(text);
    }

    pub fn call(&mut self, id: String, name: String, arguments: String) {
        self.calls.insert(id.clone(), false);
        let mut call = ToolCall::function(id, String::new());
        call.function = Some(FunctionCall { name, arguments });
        match self.assistant(|_| true) {
            Some(turn) => turn.tool_calls.push(call),
            None => self.push(ASSISTANT, None).tool_calls.push(call),
        }
    }

    /// Adds the result of a call. Parts other than text are shown by the user after the results.
    pub fn answer(&mut self, id: String, content: TurnContent) -> Result<(), WithoutCall> {
        *self.calls.get_mut(&id).ok_or(WithoutCall)? = true;
        let is_text = |part: &TurnPart| matches!(part, TurnPart::Text { .. });
        let (texts, others): (Vec<_>, Vec<_>) = content.into_parts().into_iter().partition(is_text);
        self.shown.extend(others);
        let content = if texts.is_empty() {
            TurnContent::Text(String::new())
        } else {
            TurnContent::of(texts)
        };
        self.so_far.push(Turn { tool_call_id: Some(id), ..turn("tool", Some(content)) });
        Ok(())
    }

    /// The first call without a result.
    pub fn unanswered(&self) -> Option<&str> {
        self.calls.iter().find(|(_, answered)| !**answered).map(|(id, _)| id.as_str())
    }

    pub fn finish(mut self) -> Vec<Turn> {
        self.show();
        self.so_far
    }

    /// The last turn, if it is the assistant's and `open` to more.
    fn assistant(&mut self, open: impl Fn(&Turn) -> bool) -> Option<&mut Turn> {
        self.so_far.last_mut().filter(|turn| turn.role == ASSISTANT && open(turn))
    }

    fn push(&mut self, role: &'static str, content: Option<TurnContent>) -> &mut Turn {
        self.show();
        self.so_far.push_mut(turn(role, content))
    }

    fn show(&mut self) {
        if !self.shown.is_empty() {
            let parts = std::mem::take(&mut self.shown);
            self.so_far.push(turn(Side::User.role(), Some(TurnContent::of(parts))));
        }
    }
}

fn turn(role: &'static str, content: Option<TurnContent>) -> Turn {
    Turn { role, content, reasoning_content: None, tool_calls: vec![], tool_call_id: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(text: &str) -> TurnContent {
        TurnContent::Text(text.to_owned())
    }

    #[test]
    fn what_an_assistant_does_in_a_row_is_one_turn() {
        let mut turns = Turns::default();
        turns.say(Side::User, text("go"));
        turns.think("hm");
        turns.call("a".into(), "f".into(), "{}".into());
        turns.say(Side::Assistant, text("So."));
        turns.call("b".into(), "g".into(), "{}".into());
        assert_eq!(turns.unanswered(), Some("a"));
        let image = TurnPart::ImageUrl { image_url: json!({"url": "x"}) };
        let seen = TurnContent::Parts(vec![image, TurnPart::text("7")]);
        turns.answer("a".into(), seen).unwrap();
        turns.answer("b".into(), text("8")).unwrap();
        assert_eq!(turns.answer("c".into(), text("9")), Err(WithoutCall));
        assert_eq!(turns.unanswered(), None);
        turns.say(Side::Assistant, text("One."));
        turns.say(Side::Assistant, text("Two."));
        let call = |id: &str, name: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": "{}"}});
        assert_eq!(
            serde_json::to_value(turns.finish()).unwrap(),
            json!([
                {"role": "user", "content": "go"},
                {"role": "assistant", "content": "So.", "reasoning_content": "hm",
                    "tool_calls": [call("a", "f"), call("b", "g")]},
                {"role": "tool", "content": "7", "tool_call_id": "a"},
                {"role": "tool", "content": "8", "tool_call_id": "b"},
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
                {"role": "assistant", "content": "One."},
                {"role": "assistant", "content": "Two."},
            ])
        );
    }
}
