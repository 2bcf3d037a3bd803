//! The items of an answer while it is generated. Pure.
//!
//! A message and reasoning end when something else begins; calls end with the answer, since some
//! upstreams go back to an earlier one.

use serde_json::{Value, json};

use super::tools::{Meant, Names, custom_input};
use crate::http::translation::said::Said;

/// The items so far.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Of the request: part of every item's id.
    request_id: String,
    /// What functions stand for.
    names: Names,
    /// Whether log-probabilities were asked for.
    wants_logprobs: bool,
    items: Vec<Item>,
    /// Place of the item of each call.
    calls: Vec<usize>,
    /// Of text that has not come yet.
    logprobs: Vec<Value>,
}

#[derive(Debug)]
pub(super) struct Item {
    pub(super) id: String,
    kind: ItemKind,
    status: Status,
    /// Of a call exactly one: its arguments.
    pub(super) parts: Vec<Part>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    InProgress,
    Completed,
    Incomplete,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ItemKind {
    Reasoning,
    Message,
    Call { call_id: String, meant: Meant },
}

#[derive(Debug)]
pub(super) struct Part {
    pub(super) kind: PartKind,
    pub(super) text: String,
    pub(super) logprobs: Vec<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartKind {
    Text,
    Refusal,
    Reasoning,
    Arguments,
    /// Of a custom tool: known when its call has ended.
    CustomInput,
}

/// Change of an answer, as a stream sends it. Items and parts are identified by their places.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    ItemAdded(usize),
    PartAdded(usize, usize),
    Delta { item: usize, part: usize, piece: String, logprobs: Vec<Value> },
    PartDone(usize, usize),
    ItemDone(usize),
}

impl Output {
    pub(super) fn new(request_id: &str, names: Names, wants_logprobs: bool) -> Self {
        Self { request_id: request_id.to_owned(), names, wants_logprobs, ..Self::default() }
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    pub(super) fn hear(&mut self, said: Said) -> Vec<Step> {
        let mut steps = Vec::new();
        match said {
            Said::Text(piece) => {
                let logprobs = std::mem::take(&mut self.logprobs);
                self.grow(ItemKind::Message, PartKind::Text, (piece, logprobs), &mut steps);
            }
            Said::Refusal(piece) => {
                self.grow(ItemKind::Message, PartKind::Refusal, (piece, vec![]), &mut steps);
            }
            Said::Reasoning(piece) => {
                self.grow(ItemKind::Reasoning, PartKind::Reasoning, (piece, vec![]), &mut steps);
            }
            Said::Call { id, name } => {
                self.end_text(&mut steps);
                let meant = self.names.meant(name);
                let kind = if meant.custom { PartKind::CustomInput } else { PartKind::Arguments };
                let item = self.add(ItemKind::Call { call_id: id, meant }, &mut steps);
                self.items[item].parts.push(Part::new(kind));
                self.calls.push(item);
            }
            Said::Arguments { call, piece } => {
                if let Some(&item) = self.calls.get(call) {
                    self.push(item, 0, (piece, vec![]), &mut steps);
                }
            }
            Said::Logprobs(tokens) if self.wants_logprobs => self.logprobs.extend(tokens),
            Said::Logprobs(_) => {}
        }
        steps
    }

    /// Ends what is open; an answer that was cut is so in its last item.
    pub(super) fn end(&mut self, cut: bool) -> Vec<Step> {
        let mut steps = Vec::new();
        for item in 0..self.items.len() {
            self.end_item(item, &mut steps);
        }
        if cut && let Some(last) = self.items.last_mut() {
            last.status = Status::Incomplete;
        }
        steps
    }

    /// Adds to the open item of this kind, or begins one.
    fn grow(
        &mut self,
        kind: ItemKind,
        part: PartKind,
        piece: (String, Vec<Value>),
        steps: &mut Vec<Step>,
    ) {
        let open = self.open_text().filter(|item| self.items[*item].kind == kind);
        let item = open.unwrap_or_else(|| {
            self.end_text(steps);
            self.add(kind, steps)
        });
        let parts = &mut self.items[item].parts;
        if parts.last().is_none_or(|last| last.kind != part) {
            if let Some(last) = parts.len().checked_sub(1) {
                steps.push(Step::PartDone(item, last));
            }
            steps.push(Step::PartAdded(item, parts.len()));
            parts.push(Part::new(part));
        }
        let last = parts.len() - 1;
        self.push(item, last, piece, steps);
    }

    fn push(
        &mut self,
        item: usize,
        part: usize,
        (piece, logprobs): (String, Vec<Value>),
        steps: &mut Vec<Step>,
    ) {
        let to = &mut self.items[item].parts[part];
        to.text.push_str(&piece);
        to.logprobs.extend_from_slice(&logprobs);
        if to.kind != PartKind::CustomInput {
            steps.push(Step::Delta { item, part, piece, logprobs });
        }
    }

    fn add(&mut self, kind: ItemKind, steps: &mut Vec<Step>) -> usize {
        let place = self.items.len();
        let prefix = kind.id_prefix();
        let id = format!("{prefix}_{}_{place}", self.request_id);
        self.items.push(Item { id, kind, status: Status::InProgress, parts: vec![] });
        steps.push(Step::ItemAdded(place));
        place
    }

    /// The message or the reasoning that has not ended.
    fn open_text(&self) -> Option<usize> {
        self.items.iter().rposition(|item| {
            item.status == Status::InProgress && !matches!(item.kind, ItemKind::Call { .. })
        })
    }

    fn end_text(&mut self, steps: &mut Vec<Step>) {
        if let Some(item) = self.open_text() {
            self.end_item(item, steps);
        }
    }

    fn end_item(&mut self, place: usize, steps: &mut Vec<Step>) {
        let item = &mut self.items[place];
        if item.status != Status::InProgress {
            return;
        }
        item.status = Status::Completed;
        let last = item.parts.len().saturating_sub(1);
        if let Some(part) = item.parts.last_mut().filter(|part| part.kind == PartKind::CustomInput)
        {
            part.text = custom_input(&part.text);
            let piece = part.text.clone();
            steps.push(Step::Delta { item: place, part: last, piece, logprobs: vec![] });
        }
        steps.push(Step::PartDone(place, last));
        steps.push(Step::ItemDone(place));
    }
}

impl ItemKind {
    /// OpenAI's ids of such items begin so.
    fn id_prefix(&self) -> &'static str {
        match self {
            Self::Reasoning => "rs",
            Self::Message => "msg",
            Self::Call { meant: Meant { custom: false, .. }, .. } => "fc",
            Self::Call { meant: Meant { custom: true, .. }, .. } => "ctc",
        }
    }
}

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
        }
    }
}

impl Part {
    fn new(kind: PartKind) -> Self {
        Self { kind, text: String::new(), logprobs: vec![] }
    }

    pub(super) fn json(&self) -> Value {
        let text = &self.text;
        match self.kind {
            PartKind::Refusal => json!({"type": "refusal", "refusal": text}),
            PartKind::Reasoning => json!({"type": "reasoning_text", "text": text}),
            _ => json!({
                "type": "output_text", "text": text, "annotations": [],
                "logprobs": self.logprobs,
            }),
        }
    }

    /// As it begins.
    pub(super) fn empty(&self) -> Value {
        Self::new(self.kind).json()
    }
}

impl Item {
    pub(super) fn json(&self) -> Value {
        let (id, status) = (&self.id, self.status.word());
        let input = || self.parts.first().map_or("", |part| part.text.as_str());
        let content = || self.parts.iter().map(Part::json).collect::<Vec<_>>();
        match &self.kind {
            ItemKind::Reasoning => json!({
                "id": id, "type": "reasoning", "status": status, "summary": [],
                "content": content(),
            }),
            ItemKind::Message => json!({
                "id": id, "type": "message", "role": "assistant", "status": status,
                "content": content(),
            }),
            ItemKind::Call { call_id, meant } => {
                let (kind, member) = if meant.custom {
                    ("custom_tool_call", "input")
                } else {
                    ("function_call", "arguments")
                };
                let mut call = json!({
                    "id": id, "type": kind, "status": status, "call_id": call_id,
                    "name": meant.name, member: input(),
                });
                if let Some(namespace) = &meant.namespace {
                    call["namespace"] = json!(namespace);
                }
                call
            }
        }
    }

    /// As it begins.
    pub(super) fn empty(&self) -> Value {
        let (id, kind) = (self.id.clone(), self.kind.clone());
        Self { id, kind, status: Status::InProgress, parts: vec![] }.json()
    }

    pub(super) fn name(&self) -> &str {
        match &self.kind {
            ItemKind::Call { meant, .. } => &meant.name,
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(id: &str) -> Said {
        Said::Call { id: id.into(), name: "f".into() }
    }

    fn arguments(call: usize, piece: &str) -> Said {
        Said::Arguments { call, piece: piece.into() }
    }

    #[test]
    fn pieces_find_their_items_in_any_order() {
        let mut output = Output::new("r", Names::default(), true);
        let token = json!({"token": "a"});
        let said = [
            Said::Reasoning("hm".into()),
            Said::Logprobs(vec![token.clone()]),
            Said::Text("a".into()),
            Said::Refusal("no".into()),
            call("x"),
            call("y"),
            arguments(1, "{}"),
            arguments(0, "[]"),
            arguments(7, "lost"),
            Said::Text("b".into()),
        ];
        let mut steps: Vec<Step> = said.into_iter().flat_map(|said| output.hear(said)).collect();
        steps.append(&mut output.end(false));
        let items: Vec<Value> = output.items().iter().map(Item::json).collect();
        let kinds: Vec<_> = items.iter().map(|item| item["type"].as_str().unwrap()).collect();
        let calls = ["function_call", "function_call"];
        assert_eq!(kinds, [["reasoning", "message"], calls, ["message", ""]].concat()[..5]);
        assert_eq!(items[1]["content"][0]["logprobs"], json!([token]));
        assert_eq!(items[1]["content"][1]["refusal"], "no");
        assert_eq!((&items[2]["arguments"], &items[3]["arguments"]), (&"[]".into(), &"{}".into()));
        let ids = items.iter().map(|item| item["id"].as_str().unwrap());
        assert_eq!(ids.collect::<Vec<_>>(), ["rs_r_0", "msg_r_1", "fc_r_2", "fc_r_3", "msg_r_4"]);
        for place in 0..5 {
            let at = |step: Step| steps.iter().position(|one| *one == step).unwrap();
            assert!(at(Step::ItemAdded(place)) < at(Step::ItemDone(place)));
        }
        assert!(output.items().iter().all(|item| item.status == Status::Completed));
    }

    #[test]
    fn a_cut_answer_is_incomplete_in_its_last_item() {
        let custom = serde_json::from_str(r#"{"type":"custom","name":"f"}"#).unwrap();
        let (_, names) = super::super::tools::offers(vec![custom]).unwrap();
        let mut output = Output::new("r", names, false);
        for said in [Said::Text("a".into()), call("x"), arguments(0, "{\"inp")] {
            output.hear(said);
        }
        output.end(true);
        let statuses: Vec<Value> =
            output.items().iter().map(|item| item.json()["status"].clone()).collect();
        assert_eq!(statuses, ["completed", "incomplete"]);
        assert_eq!(output.items()[1].json()["input"], "{\"inp", "as it came");
    }
}
