//! Capture of an answer's text while it is streamed to the client, for a judge.

use serde::Deserialize;

use crate::backends::Event;
use crate::openai::Message;

/// Bytes of a conversation with its answer that a judge reads at most; longer ones are not judged.
pub const TEXT_BYTES_MAX: usize = 64 << 10;

/// Text of an answer so far.
#[derive(Debug)]
pub struct AnswerCapture {
    text: String,
    /// Bytes that the answer may have.
    room: usize,
    /// Too long to judge, or not text.
    lost: bool,
}

impl AnswerCapture {
    /// Captures an answer in this conversation.
    pub fn of(messages: &[Message]) -> Self {
        let content =
            |one: &Message| one.content.as_ref().map_or(0, |content| content.text().len());
        let spent: usize = messages.iter().map(content).sum();
        let room = TEXT_BYTES_MAX.saturating_sub(spent);
        Self { text: String::new(), room, lost: room == 0 }
    }

    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Text(piece) => self.push(piece),
            Event::UpstreamChunks(chunks) => {
                chunks.objects().for_each(|object| self.push_upstream(object.as_bytes()));
            }
            Event::UpstreamAnswer(object) => self.push_upstream(object),
            _ => {}
        }
    }

    fn push_upstream(&mut self, object: &[u8]) {
        match upstream_text(object) {
            Some(piece) => self.push(&piece),
            None => self.lost = true,
        }
    }

    fn push(&mut self, piece: &str) {
        self.lost |= self.text.len() + piece.len() > self.room;
        if !self.lost {
            self.text.push_str(piece);
        }
    }

    /// The whole answer; `None` if it cannot be judged.
    pub fn whole(self) -> Option<String> {
        (!self.lost && !self.text.trim().is_empty()).then_some(self.text)
    }
}

/// The text that an upstream's chunk or whole answer adds; `None` if it has another shape.
pub(super) fn upstream_text(object: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Object {
        #[serde(default)]
        choices: Vec<Choice>,
    }
    #[derive(Deserialize)]
    struct Choice {
        #[serde(default, alias = "delta")]
        message: Content,
    }
    #[derive(Default, Deserialize)]
    struct Content {
        #[serde(default)]
        content: Option<String>,
    }
    let object: Object = serde_json::from_slice(object).ok()?;
    let pieces = object.choices.into_iter().filter_map(|choice| choice.message.content);
    Some(pieces.collect())
}
