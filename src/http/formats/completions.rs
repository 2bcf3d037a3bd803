//! Raw completions, whole and in chunks.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::choices::Piece;
use super::events::EventWriter;
use super::format::{Answer, Content, ReplyFormat, json};
use super::head::Head;
use crate::backends::{Chunks, Event};
use crate::http::error::ApiError;
use crate::openai::completion::{Completion, CompletionChoice, CompletionLogprobs};
use crate::openai::{ChunkUsage, FinishReason, RankedToken, Request, TokenLogprob, Usage};
use crate::serving::execution::Execution;
use crate::traffic::Receipt;

pub struct Completions {
    head: Head,
    request: Arc<Request>,
    /// Index of the choice that events belong to just now.
    present: u32,
    /// The choices that have begun: their events come in any order.
    choices: BTreeMap<u32, Written>,
    usage: Option<Usage>,
    finish: Option<FinishReason>,
    /// The last chunk of an upstream.
    last: Option<Chunks>,
}

/// State of one choice.
#[derive(Default)]
struct Written {
    /// Its prompt has gone out, if it is repeated.
    begun: bool,
    /// Where the next token begins in the choice's text, in characters.
    offset: usize,
    /// Of tokens whose text has not gone out.
    logprobs: Vec<TokenLogprob>,
}

impl Completions {
    pub fn new(execution: &Execution) -> Self {
        // OpenAI's ids of completions begin so.
        Self::with(Head::new(execution, "cmpl-"), execution.shared_request())
    }

    fn with(head: Head, request: Arc<Request>) -> Self {
        Self {
            head,
            request,
            present: 0,
            choices: BTreeMap::new(),
            usage: None,
            finish: None,
            last: None,
        }
    }

    /// More of the present choice, with what log-probabilities wait.
    fn chunk(&mut self, text: &str, finish: Option<FinishReason>) -> Bytes {
        let written = self.choices.entry(self.present).or_default();
        let logprobs = std::mem::take(&mut written.logprobs);
        let logprobs = (!logprobs.is_empty()).then_some(&*logprobs);
        let piece = Piece { index: self.present, text, logprobs, finish };
        self.write(&[piece], ChunkUsage::before_end(self.head.wants_usage))
    }

    fn write(&mut self, pieces: &[Piece<'_>], usage: ChunkUsage) -> Bytes {
        let written: Vec<_> = pieces.iter().map(|piece| self.piece(piece)).collect();
        let choices = pieces.iter().zip(&written).map(|(piece, (text, offset))| CompletionChoice {
            index: piece.index,
            text,
            logprobs: piece.logprobs.map(|tokens| logprobs(tokens, *offset, self.tops())),
            finish_reason: piece.finish,
        });
        self.render(choices.collect(), usage)
    }

    /// The text to write, and where its first token begins in the whole of the choice.
    fn piece(&mut self, piece: &Piece<'_>) -> (String, usize) {
        let mut text = String::new();
        let written = self.choices.entry(piece.index).or_default();
        if !written.begun {
            written.begun = true;
            if let Request::Completion(request) = &*self.request {
                text.push_str(request.echoed(piece.index).unwrap_or_default());
            }
            written.offset = text.chars().count();
        }
        text.push_str(piece.text);
        let offset = written.offset;
        let tokens = piece.logprobs.into_iter().flatten();
        written.offset += tokens.map(|token| characters(&token.chosen)).sum::<usize>();
        (text, offset)
    }

    /// The number of most probable tokens that were asked for, if any log-probabilities were.
    fn asked(&self) -> Option<u32> {
        let Request::Completion(request) = &*self.request else { return None };
        request.logprobs
    }

    /// Whether the most probable tokens were asked for as well as the chosen ones.
    fn tops(&self) -> bool {
        self.asked() > Some(0)
    }

    fn render(&self, choices: Vec<CompletionChoice<'_>>, usage: ChunkUsage) -> Bytes {
        json(&Completion {
            id: &self.head.id,
            object: "text_completion",
            created: self.head.created,
            model: &self.head.model,
            system_fingerprint: self.head.fingerprint.as_deref(),
            choices,
            usage,
        })
    }
}

impl ReplyFormat for Completions {
    fn event(&mut self, event: Event, out: &mut EventWriter) {
        match event {
            Event::Text(text) => out.object(&self.chunk(&text, None)),
            Event::ChoiceDone(finish) => out.object(&self.chunk("", Some(finish))),
            Event::UpstreamChunks(chunks) if chunks.is_last() => self.last = Some(chunks),
            Event::UpstreamChunks(chunks) => out.forward(&chunks),
            Event::Logprobs(tokens) => {
                self.choices.entry(self.present).or_default().logprobs.extend(tokens);
            }
            Event::Choice(index) => self.present = index,
            Event::Usage(usage) => self.usage = Some(usage),
            Event::Done(finish) => self.finish = Some(finish),
            // A raw prompt is answered with text alone.
            Event::Reasoning(_)
            | Event::ToolCall { .. }
            | Event::ToolArguments { .. }
            | Event::Started
            | Event::Confidence(_)
            | Event::Truncated { .. }
            | Event::Embeddings(_)
            | Event::UpstreamAnswer(_)
            | Event::Energy(_) => {}
        }
    }

    fn finish(&mut self, receipt: &Receipt, out: &mut EventWriter) {
        // An upstream's last chunk is the usage as it wrote it, where that was asked for.
        if let Some(chunks) = self.last.take() {
            return out.object_with_receipt(&chunks.into_object(), receipt);
        }
        let last = self.chunk("", self.finish);
        let usage = self.usage.filter(|_| self.head.wants_usage);
        let usage = usage.map(|usage| self.render(vec![], ChunkUsage::Counted(usage)));
        out.close(&last, usage.as_deref(), receipt);
    }

    fn whole(&mut self, answer: Answer) -> Result<Bytes, ApiError> {
        match answer.content {
            Content::Upstream(object) => Ok(object),
            Content::Local(choices) => {
                let mut pieces = choices.raw(answer.finish);
                if self.asked().is_some() {
                    for piece in &mut pieces {
                        piece.logprobs.get_or_insert_default();
                    }
                }
                Ok(self.write(&pieces, ChunkUsage::Counted(answer.usage)))
            }
            Content::Vectors(_) => Err(ApiError::INTERNAL),
        }
    }
}

/// The older API's lists of tokens whose text begins `offset` characters into the choice.
fn logprobs(tokens: &[TokenLogprob], mut offset: usize, tops: bool) -> CompletionLogprobs {
    let mut lists = CompletionLogprobs::default();
    let mut top_lists = Vec::new();
    for TokenLogprob { chosen, top_logprobs } in tokens {
        lists.tokens.push(spelled(chosen));
        lists.token_logprobs.push(chosen.logprob);
        lists.text_offset.push(offset);
        offset += characters(chosen);
        let ranked = top_logprobs.iter().chain([chosen]);
        top_lists.push(ranked.map(|token| (spelled(token), token.logprob)).collect());
    }
    lists.top_logprobs = tops.then_some(top_lists);
    lists
}

/// Its text, or its bytes where they are only a part of a character: as OpenAI writes them.
fn spelled(token: &RankedToken) -> String {
    if let Ok(text) = std::str::from_utf8(&token.bytes) {
        return text.to_owned();
    }
    let bytes = token.bytes.iter().map(|byte| format!("\\x{byte:02x}"));
    std::iter::once("bytes:".to_owned()).chain(bytes).collect()
}

/// Characters that begin in a token.
fn characters(token: &RankedToken) -> usize {
    token.bytes.iter().filter(|&&byte| begins_character(byte)).count()
}

/// In UTF-8 the other bytes of a character are 10xxxxxx.
fn begins_character(byte: u8) -> bool {
    byte & 0b1100_0000 != 0b1000_0000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::http::formats::interleaved::{stream, told_text, whole};

    /// The format of an answer to two prompts that are repeated.
    fn format() -> Completions {
        let prompts = ["Once ", "The sky "];
        let body = json!({"model": "m", "prompt": prompts, "n": 3, "echo": true, "logprobs": 0});
        let request = Request::Completion(serde_json::from_value(body).unwrap());
        Completions::with(Head::of_test(), Arc::new(request))
    }

    /// Text, tokens, their offsets and the end of a choice.
    fn joined<'v>(chunks: impl IntoIterator<Item = &'v Value>, index: usize) -> Value {
        let (mut text, mut finish) = (String::new(), Value::Null);
        let (mut tokens, mut offsets) = (vec![], vec![]);
        let choices = chunks.into_iter().flat_map(|chunk| chunk["choices"].as_array().unwrap());
        for choice in choices.filter(|choice| choice["index"] == index) {
            text += choice["text"].as_str().unwrap();
            let list = |name: &str| choice["logprobs"][name].as_array().cloned();
            tokens.extend(list("tokens").unwrap_or_default());
            offsets.extend(list("text_offset").unwrap_or_default());
            finish = choice["finish_reason"].clone();
        }
        json!([text, tokens, offsets, finish])
    }

    proptest! {
        #[test]
        fn a_stream_tells_what_the_whole_answer_tells(choices in told_text(), turns: Vec<u8>) {
            let chunks = stream(&mut format(), &choices, &turns);
            let answer = whole(&mut format(), &choices, &turns);
            for (index, script) in choices.iter().enumerate() {
                let wanted = script.sum();
                let prompt = if index < 3 { "Once " } else { "The sky " };
                // Every token of a script has two characters.
                let places = 0..wanted.tokens.len();
                let offsets: Vec<_> = places.map(|place| prompt.len() + 2 * place).collect();
                let text = prompt.to_owned() + &wanted.text;
                let wanted = json!([text, wanted.tokens, offsets, wanted.finish]);
                prop_assert_eq!(&joined(&chunks, index), &wanted, "streamed");
                prop_assert_eq!(&joined([&answer], index), &wanted, "whole");
            }
        }
    }

    fn ranked(bytes: &[u8], logprob: f32) -> RankedToken {
        let token = String::from_utf8_lossy(bytes).into_owned();
        RankedToken { token, logprob, bytes: bytes.to_vec() }
    }

    #[test]
    fn tokens_that_are_half_a_character_keep_their_bytes_and_places() {
        let tokens = [
            TokenLogprob { chosen: ranked(b"ab", -0.5), top_logprobs: vec![ranked(b"c", -0.1)] },
            TokenLogprob { chosen: ranked(b"\xc3", -1.0), top_logprobs: vec![] },
            TokenLogprob { chosen: ranked(b"\xa9", -2.0), top_logprobs: vec![] },
            TokenLogprob { chosen: ranked(b"d", -3.0), top_logprobs: vec![] },
        ];
        let lists = logprobs(&tokens, 4, true);
        assert_eq!(lists.tokens, ["ab", "bytes:\\xc3", "bytes:\\xa9", "d"]);
        assert_eq!(lists.text_offset, [4, 6, 7, 7]);
        let tops = lists.top_logprobs.unwrap();
        assert_eq!(tops[0].keys().collect::<Vec<_>>(), ["ab", "c"]);
        assert_eq!(logprobs(&tokens, 0, false).top_logprobs, None);
    }
}
