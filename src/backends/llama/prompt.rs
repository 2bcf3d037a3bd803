//! From a submission to the tokens the engine evaluates: template, control-token guard, tokeniser.
//!
//! Runs on the reader thread; touches the model's vocabulary, which is immutable, and never the context.

use std::sync::{Arc, OnceLock};

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use minijinja::Error;

use super::constraint::{Constraint, GrammarError};
use super::engine::{Order, Texts, Work};
use super::grammar::{Grammar, Grammars};
use super::guard::{Guard, pieces};
use super::logprobs::Logprobs;
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
    /// Whether `template` is meant for this model; if not, it is asked for no conversation.
    has_template: bool,
    guard: Guard,
    overflow: Overflow,
    context_tokens: usize,
    /// Tokens at which the model ends its turn.
    ends: Vec<Token>,
    /// Made for the first request that needs it: it takes a moment and some memory.
    grammars: OnceLock<Result<Grammars, GrammarError>>,
}

impl Prompter {
    /// `template` goes before the model's own; `context_tokens` is what a prompt and its answer must fit into.
    pub(super) fn new(
        model: Arc<LlamaModel>,
        template: Option<String>,
        overflow: Overflow,
        context_tokens: usize,
    ) -> Result<Self, Error> {
        let own = template.or_else(|| model.meta_val_str(TEMPLATE_KEY).ok());
        let (bos, eos) =
            (spelling(&model, model.vocab().bos()), spelling(&model, model.vocab().eos()));
        let template = ChatTemplate::new(own.as_deref().unwrap_or(CHATML), &bos, &eos)?;
        let guard = Guard::new(control_spellings(&model));
        let vocab = model.vocab();
        let ends = vocab.tokens().filter(|&token| vocab.is_eog(token)).map(|end| end.0).collect();
        let has_template = own.is_some();
        let grammars = OnceLock::new();
        Ok(Self { model, template, has_template, guard, overflow, context_tokens, ends, grammars })
    }

    pub(super) fn has_template(&self) -> bool {
        self.has_template
    }

    /// What the engine is to do about a submission: work on it, or pass the refusal on.
    pub(super) fn order(&self, submission: Submission) -> Order {
        let attempt = submission.attempt;
        self.accept(submission).unwrap_or_else(|refusal| Order::Refuse(attempt, refusal))
    }

    fn accept(&self, submission: Submission) -> Result<Order, Refusal> {
        let Submission { attempt, prompt, mut sampling, output_limit, stop, terms, .. } =
            submission;
        let output_limit = output_limit as usize;
        let (prompt, dropped_turns) = match prompt {
            Prompt::Chat(_) if !self.has_template => return Err(Refusal::NoChatTemplate),
            Prompt::Chat(turns) => self.fitting(&turns, output_limit)?,
            Prompt::Raw(input) => (self.raw(&input, true)?, 0),
        };
        self.check_bias(&sampling.logit_bias)?;
        // An answer with a form ends where the form does.
        if submission.ignore_eos && submission.constraint.is_none() {
            sampling.logit_bias.extend(self.ends.iter().map(|&end| (end, f32::NEG_INFINITY)));
        }
        let grammar = submission.constraint.map(|constraint| self.grammar(&constraint));
        let work = Work {
            sampler: Sampler::new(sampling, &prompt),
            text: TextStream::new(stop),
            grammar: grammar.transpose().map_err(Refusal::Grammar)?,
            logprobs: submission.logprobs.map(|top| Logprobs::new(top.into())),
            dropped_turns: u32::try_from(dropped_turns).unwrap_or(u32::MAX),
        };
        let request = Request { attempt, prompt, output_limit, terms };
        Ok(Order::Work { request, work: Box::new(work) })
    }

    fn check_bias(&self, bias: &[(Token, f32)]) -> Result<(), Refusal> {
        let vocabulary = u32::try_from(self.model.n_vocab()).unwrap_or(0);
        let unknown = |&&(token, _): &&(Token, f32)| {
            u32::try_from(token).map_or(true, |token| token >= vocabulary)
        };
        match bias.iter().find(unknown) {
            Some(&(token, _)) => Err(Refusal::UnknownBias { token, vocabulary }),
            None => Ok(()),
        }
    }

    fn grammar(&self, constraint: &Constraint) -> Result<Grammar, GrammarError> {
        let grammars = self.grammars.get_or_init(|| Grammars::new(&self.model));
        grammars.as_ref().map_err(Clone::clone)?.grammar(constraint)
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
