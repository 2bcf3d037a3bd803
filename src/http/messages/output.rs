//! The content blocks of an answer while it is generated. Pure.
//!
//! Text and thinking end when something else begins; calls end with the answer, since some
//! upstreams go back to an earlier one.

use serde_json::{Value, json};

use crate::http::translation::said::Said;

/// Thinking here is not signed; some clients hand it back only with a signature.
const UNSIGNED: &str = "unsigned";

#[derive(Debug, Default)]
pub(super) struct Output {
    /// The client asked for thinking; it would take it for text otherwise.
    thinks: bool,
    blocks: Vec<OutBlock>,
    /// Place of the block of each call.
    calls: Vec<usize>,
    pub(super) refused: bool,
}

#[derive(Debug)]
pub(super) struct OutBlock {
    kind: BlockKind,
    /// Text, or the input of a call as JSON text.
    text: String,
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum BlockKind {
    Text,
    Thinking,
    Call { id: String, name: String },
}

/// Change of an answer, as a stream sends it. Blocks are identified by their places.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Start(usize),
    Delta { block: usize, piece: String },
    Stop(usize),
}

impl Output {
    pub(super) fn new(thinks: bool) -> Self {
        Self { thinks, ..Self::default() }
    }

    pub(super) fn blocks(&self) -> &[OutBlock] {
        &self.blocks
    }

    pub(super) fn calls(&self) -> bool {
        !self.calls.is_empty()
    }

    pub(super) fn hear(&mut self, said: Said) -> Vec<Step> {
        let mut steps = Vec::new();
        match said {
            Said::Text(piece) => self.grow(BlockKind::Text, piece, &mut steps),
            Said::Refusal(piece) => {
                self.refused = true;
                self.grow(BlockKind::Text, piece, &mut steps);
            }
            Said::Reasoning(piece) if self.thinks => {
                self.grow(BlockKind::Thinking, piece, &mut steps);
            }
            Said::Call { id, name } => {
                self.end_text(&mut steps);
                let block = self.start(BlockKind::Call { id, name }, &mut steps);
                self.calls.push(block);
            }
            Said::Arguments { call, piece } => {
                if let Some(&block) = self.calls.get(call) {
                    self.push(block, piece, &mut steps);
                }
            }
            Said::Reasoning(_) | Said::Logprobs(_) => {}
        }
        steps
    }

    /// Ends what is open.
    pub(super) fn end(&mut self) -> Vec<Step> {
        let open = self.blocks.iter_mut().enumerate().filter(|(_, block)| block.open);
        open.map(|(place, block)| {
            block.open = false;
            Step::Stop(place)
        })
        .collect()
    }

    fn grow(&mut self, kind: BlockKind, piece: String, steps: &mut Vec<Step>) {
        let open = self.open_text().filter(|block| self.blocks[*block].kind == kind);
        let block = open.unwrap_or_else(|| {
            self.end_text(steps);
            self.start(kind, steps)
        });
        self.push(block, piece, steps);
    }

    fn start(&mut self, kind: BlockKind, steps: &mut Vec<Step>) -> usize {
        let place = self.blocks.len();
        self.blocks.push(OutBlock { kind, text: String::new(), open: true });
        steps.push(Step::Start(place));
        place
    }

    fn push(&mut self, block: usize, piece: String, steps: &mut Vec<Step>) {
        self.blocks[block].text.push_str(&piece);
        steps.push(Step::Delta { block, piece });
    }

    fn open_text(&self) -> Option<usize> {
        self.blocks
            .iter()
            .rposition(|block| block.open && !matches!(block.kind, BlockKind::Call { .. }))
    }

    fn end_text(&mut self, steps: &mut Vec<Step>) {
        if let Some(place) = self.open_text() {
            self.blocks[place].open = false;
            steps.push(Step::Stop(place));
        }
    }
}

impl OutBlock {
    /// As it begins.
    pub(super) fn empty(&self) -> Value {
        match &self.kind {
            BlockKind::Text => json!({"type": "text", "text": ""}),
            BlockKind::Thinking => json!({"type": "thinking", "thinking": "", "signature": ""}),
            BlockKind::Call { id, name } => {
                json!({"type": "tool_use", "id": id, "name": name, "input": {}})
            }
        }
    }

    pub(super) fn json(&self) -> Value {
        let mut block = self.empty();
        match &self.kind {
            BlockKind::Text => block["text"] = json!(self.text),
            BlockKind::Thinking => {
                block["thinking"] = json!(self.text);
                block["signature"] = json!(UNSIGNED);
            }
            BlockKind::Call { .. } => {
                // What was cut is no JSON: the reason of the stop says so.
                let input = serde_json::from_str::<Value>(&self.text).ok();
                block["input"] = input.filter(Value::is_object).unwrap_or_else(|| json!({}));
            }
        }
        block
    }

    pub(super) fn delta(&self, piece: &str) -> Value {
        match &self.kind {
            BlockKind::Text => json!({"type": "text_delta", "text": piece}),
            BlockKind::Thinking => json!({"type": "thinking_delta", "thinking": piece}),
            BlockKind::Call { .. } => json!({"type": "input_json_delta", "partial_json": piece}),
        }
    }

    /// The delta before its end, if it has one.
    pub(super) fn last_delta(&self) -> Option<Value> {
        (self.kind == BlockKind::Thinking)
            .then(|| json!({"type": "signature_delta", "signature": UNSIGNED}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinking_is_shown_to_those_who_ask_and_cut_calls_have_no_input() {
        let kinds = |thinks| {
            let mut output = Output::new(thinks);
            for said in [
                Said::Reasoning("hm".into()),
                Said::Text("a".into()),
                Said::Call { id: "x".into(), name: "f".into() },
                Said::Arguments { call: 0, piece: "{\"a\":".into() },
            ] {
                output.hear(said);
            }
            assert_eq!(output.end().len(), 1, "text has ended before");
            let blocks: Vec<Value> = output.blocks().iter().map(OutBlock::json).collect();
            assert_eq!(blocks.last().unwrap()["input"], json!({}));
            blocks
                .iter()
                .map(|block| block["type"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(kinds(true), ["thinking", "text", "tool_use"]);
        assert_eq!(kinds(false), ["text", "tool_use"]);
    }
}
