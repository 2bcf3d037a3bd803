//! Raw completions, whole and in chunks.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::choices::Piece;
use super::events::EventWriter;
use super::format::{Answer, Content, ReplyFormat, json};
use crate::backends::{Chunks, Event};
use crate::http::error::ApiError;
use crate::openai::completion::{Completion, CompletionChoice, CompletionLogprobs};
use crate::openai::{FinishReason, RankedToken, Request, TokenLogprob, Usage};
use crate::serving::execution::Execution;
use crate::traffic::Receipt;

pub struct Completions {
    id: String,
    created: u64,
    model: String,
    request: Arc<Request>,
    /// Characters written of each choice that has begun; the first of them are its prompt, if it is
    /// repeated.
    begun: BTreeMap<u32, usize>,
    /// Index of the choice that events belong to just now.
    choice: u32,
    /// Of the tokens of the next text.
    logprobs: Option<Vec<TokenLogprob>>,
    usage: Option<Usage>,
    finish: Option<FinishReason>,
    /// The last chunk of an upstream.
    last: Option<Chunks>,
}

impl Completions {
    pub fn new(execution: &Execution) -> Self {
        Self {
            // OpenAI's ids of completions begin so, and some clients check it.
            id: format!("cmpl-{}", execution.id()),
            created: execution.created(),
            model: execution.model().name.to_string(),
            request: execution.shared_request(),
            begun: BTreeMap::new(),
            choice: 0,
            logprobs: None,
            usage: None,
            finish: None,
            last: None,
        }
    }

    /// More of the present choice.
    fn chunk(&mut self, text: &str, finish: Option<FinishReason>) -> Bytes {
        let logprobs = self.logprobs.take();
        let piece = Piece { index: self.choice, text, logprobs: logprobs.as_deref(), finish };
        self.write(&[piece], None)
    }

    fn write(&mut self, pieces: &[Piece<'_>], usage: Option<Usage>) -> Bytes {
        let texts: Vec<(String, usize)> = pieces.iter().map(|piece| self.text(piece)).collect();
        let choices = pieces.iter().zip(&texts).map(|(piece, (text, offset))| CompletionChoice {
            index: piece.index,
            text,
            logprobs: piece.logprobs.map(|tokens| logprobs(tokens, *offset, self.tops())),
            finish_reason: piece.finish,
        });
        self.render(choices.collect(), usage)
    }

    /// The text to write, and where what the model added begins in the whole of the choice.
    fn text(&mut self, piece: &Piece<'_>) -> (String, usize) {
        let mut text = String::new();
        let written = self.begun.entry(piece.index).or_insert_with(|| {
            if let Request::Completion(request) = &*self.request {
                text.push_str(request.echoed(piece.index).unwrap_or_default());
            }
            text.chars().count()
        });
        let offset = *written;
        text.push_str(piece.text);
        *written += piece.text.chars().count();
        (text, offset)
    }

    /// Whether the most probable tokens were asked for as well as the chosen ones.
    fn tops(&self) -> bool {
        let Request::Completion(request) = &*self.request else { return false };
        request.logprobs > Some(0)
    }

    fn render(&self, choices: Vec<CompletionChoice<'_>>, usage: Option<Usage>) -> Bytes {
        json(&Completion {
            id: &self.id,
            object: "text_completion",
            created: self.created,
            model: &self.model,
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
            Event::Logprobs(tokens) => self.logprobs = Some(tokens),
            Event::Choice(index) => self.choice = index,
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
        let usage = self.usage.filter(|_| self.request.wants_stream_usage());
        let usage = usage.map(|usage| self.render(vec![], Some(usage)));
        out.close(&last, usage.as_deref(), receipt);
    }

    fn whole(&mut self, answer: Answer) -> Result<Bytes, ApiError> {
        match answer.content {
            Content::Upstream(object) => Ok(object),
            Content::Local(choices) => {
                Ok(self.write(&choices.raw(answer.finish), Some(answer.usage)))
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
        offset += chosen.bytes.iter().filter(|&&byte| begins_character(byte)).count();
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

/// In UTF-8 the other bytes of a character are 10xxxxxx.
fn begins_character(byte: u8) -> bool {
    byte & 0b1100_0000 != 0b1000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

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
