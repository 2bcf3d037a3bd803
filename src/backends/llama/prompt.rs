//! From a submission to the tokens the engine evaluates: template, control-token guard, tokeniser.
//!
//! Runs on the reader thread; touches the model's vocabulary, which is immutable, and never the context.

use std::sync::Arc;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use minijinja::Error;

use super::engine::{Order, Texts, Work};
use super::guard::{Guard, pieces};
use super::overflow::{Overflow, roomy_tokens, shorten};
use super::protocol::{Embed, Prompt, Refusal, Submission, Turn};
use super::sampling::Sampler;
use super::scheduler::{Request, Token};
use super::template::{CHATML, ChatTemplate};
use super::text::TextStream;
use crate::openai::Input;

const TEMPLATE_KEY: &str = "tokenizer.chat_template";

/// A model's template and tokeniser.
pub(super) struct Prompter {
    model: Arc<LlamaModel>,
    template: ChatTemplate,
    has_own_template: bool,
    guard: Guard,
    overflow: Overflow,
    context_tokens: usize,
}

impl Prompter {
    /// `context_tokens` is what a prompt and its answer must fit into.
    pub(super) fn new(
        model: Arc<LlamaModel>,
        overflow: Overflow,
        context_tokens: usize,
    ) -> Result<Self, Error> {
        let own = model.meta_val_str(TEMPLATE_KEY).ok();
        let (bos, eos) =
            (spelling(&model, model.vocab().bos()), spelling(&model, model.vocab().eos()));
        let template = ChatTemplate::new(own.as_deref().unwrap_or(CHATML), &bos, &eos)?;
        let guard = Guard::new(control_spellings(&model));
        let has_own_template = own.is_some();
        Ok(Self { model, template, has_own_template, guard, overflow, context_tokens })
    }

    pub(super) fn has_own_template(&self) -> bool {
        self.has_own_template
    }

    /// What the engine is to do about a submission: work on it, or pass the refusal on.
    pub(super) fn order(&self, submission: Submission) -> Order {
        let Submission { attempt, prompt, sampling, output_limit, stop, terms } = submission;
        let output_limit = output_limit as usize;
        let read = match prompt {
            Prompt::Chat(turns) => self.fitting(&turns, output_limit),
            Prompt::Raw(input) => self.raw(&input, true).map(|tokens| (tokens, 0)),
        };
        match read {
            Ok((prompt, dropped_turns)) => Order::Work {
                request: Request { attempt, prompt, output_limit, terms },
                work: Work {
                    sampler: Sampler::new(sampling),
                    text: TextStream::new(stop),
                    dropped_turns: u32::try_from(dropped_turns).unwrap_or(u32::MAX),
                },
            },
            Err(refusal) => Order::Refuse(attempt, refusal),
        }
    }

    /// What the embedder is to do about texts.
    pub(super) fn embedding(&self, embed: Embed) -> Order {
        let Embed { attempt, inputs, dimensions, deadline } = embed;
        let read = inputs.iter().map(|input| self.raw(input, false)).collect();
        match read {
            Ok(inputs) => Order::Embed(Texts { attempt, inputs, dimensions, deadline }),
            Err(refusal) => Order::Refuse(attempt, refusal),
        }
    }

    /// The conversation's tokens, and how many of its turns were left out so that it fits.
    fn fitting(&self, turns: &[Turn], output_limit: usize) -> Result<(Vec<Token>, usize), Refusal> {
        let most = match self.overflow {
            Overflow::Refuse => usize::MAX,
            Overflow::DropOldestTurns => roomy_tokens(self.context_tokens, output_limit),
        };
        shorten(turns, |turns| self.prompt(turns), |prompt| prompt.len() <= most)
            .map_err(|error| Refusal::Template(error.to_string()))
    }

    /// The tokens of a raw prompt, whose author may write control tokens (`control`), or of a text, which has none.
    fn raw(&self, input: &Input, control: bool) -> Result<Vec<Token>, Refusal> {
        let vocab = self.model.vocab();
        match input {
            Input::Text(text) => {
                let tokens = vocab.tokenize(text.as_bytes(), true, control);
                // Who writes the beginning-of-sequence token out wants one of it, not two.
                let doubled = tokens.starts_with(&[vocab.bos(), vocab.bos()]);
                Ok(tokens.into_iter().skip(usize::from(doubled)).map(|token| token.0).collect())
            }
            Input::Tokens(tokens) => tokens.iter().map(|&token| self.known(token)).collect(),
        }
    }

    /// A token llama.cpp may be given: any other would end the process.
    fn known(&self, token: u32) -> Result<Token, Refusal> {
        let vocabulary = self.model.vocab().n_tokens();
        Token::try_from(token)
            .ok()
            .filter(|&token| token < vocabulary)
            .ok_or(Refusal::UnknownToken { token, vocabulary: vocabulary.unsigned_abs() })
    }

    fn prompt(&self, turns: &[Turn]) -> Result<Vec<Token>, Error> {
        let rendered = self.template.render(turns, &self.guard)?;
        let vocab = self.model.vocab();
        let mut tokens = Vec::with_capacity(rendered.len() / 3 + 1);
        for piece in pieces(&rendered) {
            tokens.extend(vocab.tokenize(piece.as_bytes(), false, true));
        }
        // Most templates write the beginning-of-sequence token themselves; two of them would degrade the answer.
        if vocab.should_add_bos() && tokens.first() != Some(&vocab.bos()) {
            tokens.insert(0, vocab.bos());
        }
        Ok(tokens.into_iter().map(|token| token.0).collect())
    }
}

/// How every token that is recognised in text as a control token is spelled.
fn control_spellings(model: &LlamaModel) -> Vec<String> {
    let vocab = model.vocab();
    vocab
        .tokens()
        .filter(|&token| vocab.is_control(token))
        .map(|token| spelling(model, token))
        .collect()
}

/// A token's text; empty if the vocabulary has no such token.
fn spelling(model: &LlamaModel, token: LlamaToken) -> String {
    if token.0 < 0 {
        return String::new();
    }
    model.vocab().text(token).map_or_else(String::new, |text| text.to_string_lossy().into_owned())
}
