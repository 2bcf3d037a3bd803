//! Answers of `/v1/responses`, whole and as named events. A stream ends with the response object,
//! which carries the receipt, and without `[DONE]`.

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::echo::Echo;
use super::object::{End, Failure, Object, cut_by};
use super::output::{Output, PartKind, Step};
use super::store::Keep;
use super::tools::Names;
use crate::backends::Event;
use crate::http::error::ApiError;
use crate::http::formats::events::EventWriter;
use crate::http::formats::format::{Answer, ReplyFormat, json};
use crate::http::formats::head::Head;
use crate::http::receipt::write_with_receipt;
use crate::http::translation::said::Listener;
use crate::openai::{FinishReason, Usage};
use crate::traffic::Receipt;
use crate::units::unix_ms;

pub struct Responses {
    head: Head,
    echo: Echo,
    output: Output,
    listener: Listener,
    /// `None` if the answer is not to be kept.
    keep: Option<Keep>,
    /// Events so far.
    sequence: u64,
    usage: Option<Usage>,
    finish: FinishReason,
}

/// What of a request shapes its answer.
#[derive(Debug)]
pub struct Asked {
    pub echo: Echo,
    /// What functions stand for.
    pub names: Names,
    pub wants_logprobs: bool,
}

/// Prefix of the ids of responses: OpenAI's begin so.
pub const ID_PREFIX: &str = "resp_";

/// An event of the stream.
#[derive(Serialize)]
struct Named<'a, T> {
    #[serde(rename = "type")]
    kind: &'a str,
    sequence_number: u64,
    #[serde(flatten)]
    rest: T,
}

/// More of a part.
#[derive(Serialize)]
struct Piece<'a> {
    item_id: &'a str,
    output_index: usize,
    /// Absent for the arguments of a call.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_index: Option<usize>,
    delta: &'a str,
    /// Of text only.
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a [Value]>,
}

impl Responses {
    pub fn new(head: Head, asked: Asked, keep: Option<Keep>) -> Self {
        let request_id = head.id.strip_prefix(ID_PREFIX).unwrap_or(&head.id);
        let output = Output::new(request_id, asked.names, asked.wants_logprobs);
        Self {
            head,
            echo: asked.echo,
            output,
            listener: Listener::default(),
            keep,
            sequence: 0,
            usage: None,
            finish: FinishReason::Stop,
        }
    }

    fn begin(&mut self, out: &mut EventWriter) {
        if self.sequence == 0 {
            for kind in ["response.created", "response.in_progress"] {
                let object = json(&self.object());
                self.write_object(kind, &object, out);
            }
        }
    }

    fn object(&self) -> Object<'_> {
        Object::begun(&self.head.id, self.head.created, &self.head.model, &self.echo)
    }

    /// The object of an answer that has ended, and the word for how.
    fn ended(&self, end: End<'_>) -> (Bytes, &'static str) {
        let items = self.output.items().iter().map(super::output::Item::json).collect();
        let object = self.object().ended(end, unix_ms() / 1000, items, self.usage);
        (json(&object), object.status())
    }

    fn keep(&mut self, object: &Bytes) {
        if let Some(keep) = self.keep.take() {
            let items = self.output.items().iter();
            let items = items.filter_map(|item| serde_json::value::to_raw_value(&item.json()).ok());
            keep.keep(&self.head.id, items.collect(), object.clone());
        }
    }

    /// `object` is the text of a JSON object.
    fn write_object(&mut self, kind: &str, object: &[u8], out: &mut EventWriter) {
        let response = std::str::from_utf8(object).ok();
        let response = response.and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
        self.write(kind, json!({}), response, out);
    }

    /// An event with `members`, and with `response`.
    fn write(
        &mut self,
        kind: &str,
        members: impl Serialize,
        response: Option<&RawValue>,
        out: &mut EventWriter,
    ) {
        #[derive(Serialize)]
        struct Rest<'a, T> {
            #[serde(flatten)]
            members: T,
            #[serde(skip_serializing_if = "Option::is_none")]
            response: Option<&'a RawValue>,
        }
        let rest = Rest { members, response };
        out.named(kind, &Named { kind, sequence_number: self.sequence, rest });
        self.sequence += 1;
    }

    fn tell(&mut self, step: Step, out: &mut EventWriter) {
        match step {
            Step::ItemAdded(at) => {
                let item = self.output.items()[at].empty();
                let members = json!({"output_index": at, "item": item});
                self.write("response.output_item.added", members, None, out);
            }
            Step::PartAdded(at, part) => {
                let item = &self.output.items()[at];
                let members = json!({"item_id": item.id, "output_index": at,
                    "content_index": part, "part": item.parts[part].empty()});
                self.write("response.content_part.added", members, None, out);
            }
            Step::Delta { item, part, piece, logprobs } => {
                self.tell_piece((item, part), &piece, &logprobs, out);
            }
            Step::PartDone(at, part) => self.tell_part(at, part, out),
            Step::ItemDone(at) => {
                let members = json!({"output_index": at, "item": self.output.items()[at].json()});
                self.write("response.output_item.done", members, None, out);
            }
        }
    }

    fn tell_piece(
        &mut self,
        (at, part): (usize, usize),
        delta: &str,
        logprobs: &[Value],
        out: &mut EventWriter,
    ) {
        let item = &self.output.items()[at];
        let kind = item.parts[part].kind;
        let (name, in_content) = match kind {
            PartKind::Text => ("response.output_text.delta", true),
            PartKind::Refusal => ("response.refusal.delta", true),
            PartKind::Reasoning => ("response.reasoning_text.delta", true),
            PartKind::Arguments => ("response.function_call_arguments.delta", false),
            PartKind::CustomInput => ("response.custom_tool_call_input.delta", false),
        };
        let rest = Piece {
            item_id: &item.id,
            output_index: at,
            content_index: in_content.then_some(part),
            delta,
            logprobs: (kind == PartKind::Text).then_some(logprobs),
        };
        out.named(name, &Named { kind: name, sequence_number: self.sequence, rest });
        self.sequence += 1;
    }

    fn tell_part(&mut self, at: usize, place: usize, out: &mut EventWriter) {
        let item = &self.output.items()[at];
        let Some(part) = item.parts.get(place) else { return };
        let text = &part.text;
        let (kind, mut members) = match part.kind {
            PartKind::Text => {
                ("response.output_text.done", json!({"text": text, "logprobs": part.logprobs}))
            }
            PartKind::Refusal => ("response.refusal.done", json!({"refusal": text})),
            PartKind::Reasoning => ("response.reasoning_text.done", json!({"text": text})),
            PartKind::Arguments => (
                "response.function_call_arguments.done",
                json!({"name": item.name(), "arguments": text}),
            ),
            PartKind::CustomInput => {
                ("response.custom_tool_call_input.done", json!({"input": text}))
            }
        };
        members["item_id"] = json!(item.id);
        members["output_index"] = json!(at);
        if matches!(part.kind, PartKind::Arguments | PartKind::CustomInput) {
            return self.write(kind, members, None, out);
        }
        members["content_index"] = json!(place);
        let done = json!({"item_id": item.id, "output_index": at, "content_index": place,
            "part": part.json()});
        self.write(kind, members, None, out);
        self.write("response.content_part.done", done, None, out);
    }

    fn close(&mut self, end: End<'_>, receipt: &Receipt, out: &mut EventWriter) {
        let (object, word) = self.ended(end);
        if let End::Finished(_) = end {
            self.keep(&object);
        }
        let mut with_receipt = BytesMut::new();
        write_with_receipt(&mut with_receipt, &object, receipt);
        self.write_object(&format!("response.{word}"), &with_receipt, out);
    }
}

impl ReplyFormat for Responses {
    fn event(&mut self, event: Event, out: &mut EventWriter) {
        self.begin(out);
        match event {
            Event::Usage(usage) => self.usage = Some(usage),
            Event::Done(finish) => self.finish = finish,
            event => {
                for said in self.listener.hear(event) {
                    for step in self.output.hear(said) {
                        self.tell(step, out);
                    }
                }
            }
        }
    }

    fn finish(&mut self, receipt: &Receipt, out: &mut EventWriter) {
        self.begin(out);
        for step in self.output.end(cut_by(self.finish).is_some()) {
            self.tell(step, out);
        }
        self.close(End::Finished(self.finish), receipt, out);
    }

    fn fail(&mut self, error: &ApiError, receipt: &Receipt, out: &mut EventWriter) {
        self.begin(out);
        let error = error.envelope().error;
        let code = error.code.as_deref().unwrap_or("server_error");
        let _ = self.output.end(true);
        let failure = Failure { code, message: &error.message };
        self.close(End::Failed(failure), receipt, out);
    }

    fn done(&self, _out: &mut EventWriter) {}

    fn whole(&mut self, answer: Answer) -> Result<Bytes, ApiError> {
        (self.usage, self.finish) = (Some(answer.usage), answer.finish);
        for said in self.listener.hear_whole(answer)? {
            let _ = self.output.hear(said);
        }
        let _ = self.output.end(cut_by(self.finish).is_some());
        let (object, _) = self.ended(End::Finished(self.finish));
        self.keep(&object);
        Ok(object)
    }
}
