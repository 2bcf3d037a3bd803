//! Text to tokens, in time that grows with the text: llama.cpp's tokenisers take seconds for a
//! megabyte without a blank, or of nothing else, and cannot be interrupted.

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::vocab::LlamaVocab;

use super::control_tokens::pieces;
use crate::backends::llama::engine::intake::interrupt::{Interrupt, Stopped};
use crate::backends::llama::wire::token::Token;

/// More bytes than ordinary text has per token.
const ORDINARY_BYTES: usize = 8;
/// Bytes of one slice of a long text.
const SLICE_BYTES: usize = 8192;
/// Longest text that is tokenised at once.
const WHOLE_BYTES: usize = 8 * SLICE_BYTES;

/// The tokeniser of one model.
pub(super) struct Tokeniser<'m> {
    model: &'m LlamaModel,
    context_tokens: usize,
    interrupt: &'m Interrupt,
}

impl<'m> Tokeniser<'m> {
    pub(super) fn new(
        model: &'m LlamaModel,
        context_tokens: usize,
        interrupt: &'m Interrupt,
    ) -> Self {
        Self { model, context_tokens, interrupt }
    }

    /// Tokens of a rendered prompt.
    pub(super) fn rendered(&self, rendered: &str) -> Result<Vec<Token>, Stopped> {
        if let Some(tokens) = self.beyond_context(rendered, true)? {
            return Ok(tokens);
        }
        let vocab = self.model.vocab();
        let mut tokens = Vec::with_capacity(rendered.len() / 3 + 1);
        for piece in pieces(rendered) {
            self.append(&mut tokens, &vocab, piece, true)?;
        }
        // Most templates write the beginning-of-sequence token themselves; a second one would
        // degrade the answer.
        if vocab.should_add_bos() && tokens.first() != Some(&vocab.bos().0) {
            tokens.insert(0, vocab.bos().0);
        }
        Ok(tokens)
    }

    /// Tokens of a raw text, which may contain control tokens (`control`).
    pub(super) fn raw(&self, text: &str, control: bool) -> Result<Vec<Token>, Stopped> {
        if let Some(tokens) = self.beyond_context(text, control)? {
            return Ok(tokens);
        }
        let vocab = self.model.vocab();
        if text.len() <= WHOLE_BYTES {
            self.interrupt.check()?;
            let tokens = vocab.tokenize(text.as_bytes(), true, control);
            // A client that spells out the beginning-of-sequence token means one, not two.
            let doubled = tokens.starts_with(&[vocab.bos(), vocab.bos()]);
            return Ok(tokens
                .into_iter()
                .skip(usize::from(doubled))
                .map(|token| token.0)
                .collect());
        }
        let mut tokens = Vec::with_capacity(text.len() / 3 + 2);
        self.append(&mut tokens, &vocab, text, control)?;
        if vocab.should_add_bos() && tokens.first() != Some(&vocab.bos().0) {
            tokens.insert(0, vocab.bos().0);
        }
        if vocab.should_add_eos() {
            tokens.push(vocab.eos().0);
        }
        Ok(tokens)
    }

    fn append(
        &self,
        tokens: &mut Vec<Token>,
        vocab: &LlamaVocab<'_>,
        text: &str,
        control: bool,
    ) -> Result<(), Stopped> {
        let slice_bytes = if text.len() > WHOLE_BYTES { SLICE_BYTES } else { WHOLE_BYTES };
        for slice in slices(text, slice_bytes) {
            self.interrupt.check()?;
            let read = vocab.tokenize(slice.as_bytes(), false, control);
            tokens.extend(read.into_iter().map(|token| token.0));
        }
        Ok(())
    }

    /// Stands for the tokens of a text that is far too long: only their number matters, since the
    /// scheduler refuses them. Estimated from the beginning of the text.
    fn beyond_context(&self, text: &str, control: bool) -> Result<Option<Vec<Token>>, Stopped> {
        let limit = self.context_tokens + self.context_tokens / 8 + SLICE_BYTES / 64;
        if text.len() / ORDINARY_BYTES <= limit {
            return Ok(None);
        }
        let vocab = self.model.vocab();
        let (mut tokens, mut read) = (0, 0);
        for slice in slices(text, SLICE_BYTES) {
            self.interrupt.check()?;
            tokens += vocab.tokenize(slice.as_bytes(), false, control).len();
            read += slice.len();
            if tokens > limit {
                return Ok(Some(vec![0; tokens.saturating_mul(text.len()) / read]));
            }
        }
        Ok(None)
    }
}

/// The text in slices of at most about `most` bytes. Cut before a blank between two letters, where
/// the words of byte-pair vocabularies begin; only a longer run without one is cut within.
fn slices(mut text: &str, most: usize) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let (slice, rest) = text.split_at(cut(text, most));
        text = rest;
        Some(slice)
    })
}

fn cut(text: &str, most: usize) -> usize {
    if text.len() <= most {
        return text.len();
    }
    let bytes = text.as_bytes();
    let begins_word = |&at: &usize| {
        bytes[at] == b' '
            && bytes[at - 1].is_ascii_alphabetic()
            && bytes.get(at + 1).is_some_and(u8::is_ascii_alphabetic)
    };
    // A quarter of the slice is enough to look for one.
    let word = (most - most / 4..most).rev().find(begins_word);
    word.unwrap_or_else(|| text.ceil_char_boundary(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_where_words_begin_and_loses_nothing() {
        let prose = "one two three four five six seven ".repeat(9);
        let cuts: Vec<&str> = slices(&prose, 40).collect();
        assert_eq!(cuts.concat(), prose);
        assert!(cuts.iter().all(|slice| slice.len() <= 40), "{cuts:?}");
        assert!(cuts[1..].iter().all(|slice| slice.starts_with(' ')), "{cuts:?}");
    }

    #[test]
    fn a_run_without_words_is_cut_between_characters() {
        for run in [" ".repeat(100), "é".repeat(100), "x".repeat(100)] {
            let cuts: Vec<&str> = slices(&run, 33).collect();
            assert_eq!(cuts.concat(), run);
            assert!(cuts.len() > 2 && cuts.iter().all(|slice| slice.len() <= 34), "{cuts:?}");
        }
    }
}
