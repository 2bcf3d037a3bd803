//! From a submission to the tokens the engine evaluates: template, control-token guard, tokeniser.
//!
//! Runs on the reader thread; touches the model's vocabulary, which is immutable, and never the context.

use std::sync::{Arc, OnceLock};

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use minijinja::Error;

use super::answer::{AnswerParser, ExpectedCalls};
use super::constraint::{Constraint, GrammarError};
use super::conversation::{Conversation, MustCall, OfferedTool, ToolUse, Turn};
use super::engine::{Order, Texts, Work};
use super::fallback;
use super::forced::ForcedCall;
use super::grammar::{Grammar, Grammars};
use super::guard::{Guard, pieces};
use super::logprobs::Logprobs;
use super::overflow::{Overflow, roomy_tokens, shorten};
use super::protocol::{Embed, Prompt, Refusal, Submission};
use super::sampling::Sampler;
use super::scheduler::{Request, Token};
use super::template::{CHATML, ChatTemplate};
use super::text::TextStream;
use crate::openai::{Input, Role};

const TEMPLATE_KEY: &str = "tokenizer.chat_template";

/// A model's template and tokeniser.
pub(super) struct Prompter {
    model: Arc<LlamaModel>,
    template: ChatTemplate,
    has_own_template: bool,
    guard: Guard,
    /// Control tokens that are part of the template's dialect, so the answer's parser must see them.
    tags: Arc<[Token]>,
    overflow: Overflow,
    context_tokens: usize,
    /// Tokens at which the model ends its turn.
    ends: Vec<Token>,
    /// Made for the first request that needs it: it takes a moment and some memory.
    grammars: OnceLock<Result<Grammars, GrammarError>>,
}

/// A prompt, what the answer must be, and how to read what the model answers to it.
struct Question<P> {
    prompt: P,
    answer: AnswerParser,
    /// Forms of which the answer must have one, the first that can be worked with.
    forms: Vec<Constraint>,
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
        let controls = control_tokens(&model);
        let is_tag = |spelling: &str| template.dialect().tags().any(|tag| tag == spelling);
        let tags = controls.iter().filter(|(_, spelling)| is_tag(spelling));
        let tags = tags.map(|(token, _)| token.0).collect();
        let guard = Guard::new(controls.into_iter().map(|(_, spelling)| spelling));
        let vocab = model.vocab();
        let ends = vocab.tokens().filter(|&token| vocab.is_eog(token)).map(|end| end.0).collect();
        let has_own_template = own.is_some();
        let grammars = OnceLock::new();
        Ok(Self {
            model,
            template,
            has_own_template,
            guard,
            tags,
            overflow,
            context_tokens,
            ends,
            grammars,
        })
    }

    pub(super) fn has_own_template(&self) -> bool {
        self.has_own_template
    }

    /// Whether a conversation with tools can be put to the model. One without a template was trained for no
    /// conversation at all; some templates refuse a system turn, which the fallback needs.
    pub(super) fn takes_tools(&self) -> bool {
        self.has_own_template
            && self.render(&[Turn::new(Role::User, "hi")], Some(&sample()), None).is_ok()
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
        let (question, dropped_turns) = match prompt {
            Prompt::Chat(conversation) => {
                self.fitting(&conversation, output_limit, submission.constraint.as_ref())?
            }
            Prompt::Raw(input) => {
                let answer = AnswerParser::new(None, false, None);
                (Question { prompt: self.raw(&input, true)?, answer, forms: Vec::new() }, 0)
            }
        };
        let Question { prompt, answer, forms } = question;
        self.check_bias(&sampling.logit_bias)?;
        // An answer with a form ends where the form does.
        if submission.ignore_eos && forms.is_empty() {
            sampling.logit_bias.extend(self.ends.iter().map(|&end| (end, f32::NEG_INFINITY)));
        }
        let work = Work {
            sampler: Sampler::new(sampling, &prompt),
            text: TextStream::new(stop),
            answer,
            tags: Arc::clone(&self.tags),
            grammar: self.first_grammar(&forms).map_err(Refusal::Grammar)?,
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

    /// That of the first form that can be worked with; none if there are no forms.
    fn first_grammar(&self, forms: &[Constraint]) -> Result<Option<Grammar>, GrammarError> {
        let mut grammars = forms.iter().map(|form| self.grammar(form));
        let Some(first) = grammars.next() else { return Ok(None) };
        first.or_else(|error| grammars.find_map(Result::ok).ok_or(error)).map(Some)
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
    fn fitting(
        &self,
        conversation: &Conversation,
        output_limit: usize,
        form: Option<&Constraint>,
    ) -> Result<(Question<Vec<Token>>, usize), Refusal> {
        let Conversation { turns, tools } = conversation;
        let most = match self.overflow {
            Overflow::Refuse => usize::MAX,
            Overflow::DropOldestTurns => roomy_tokens(self.context_tokens, output_limit),
        };
        let ask = |turns: &[Turn]| {
            let Question { prompt, answer, forms } = self.render(turns, tools.as_ref(), form)?;
            Ok::<_, Error>(Question { prompt: self.tokenise(&prompt), answer, forms })
        };
        shorten(turns, ask, |question| question.prompt.len() <= most)
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

    /// Renders the template and begins the answer as far as it is decided. `form` is that of an answer in words.
    fn render(
        &self,
        turns: &[Turn],
        tools: Option<&ToolUse>,
        form: Option<&Constraint>,
    ) -> Result<Question<String>, Error> {
        let dialect = self.template.dialect();
        let mut prompt = if dialect.calls.is_some() {
            self.template.render(turns, tools, &self.guard)?
        } else {
            self.template.render(&fallback::plain_turns(turns, tools), None, &self.guard)?
        };
        let format = dialect.calls.unwrap_or(fallback::FORMAT);
        let expected = tools.map(|used| ExpectedCalls {
            format,
            names: used.tools.iter().map(|tool| tool.name.clone()).collect(),
            parallel: used.parallel && format.allows_parallel(),
        });
        let forced = tools.and_then(|used| ForcedCall::of(used, format));
        let opened = dialect.reasoning.filter(|tags| prompt.trim_end().ends_with(tags.open));
        if forced.is_none() && form.is_none() {
            let answer = AnswerParser::new(dialect.reasoning, opened.is_some(), expected);
            return Ok(Question { prompt, answer, forms: Vec::new() });
        }
        // An answer with a form has no place for reasoning.
        if let Some(tags) = opened {
            prompt.push_str(tags.close);
            prompt.push_str("\n\n");
        }
        let Some(ForcedCall { beginning, forms }) = forced else {
            let answer = AnswerParser::new(None, false, None);
            return Ok(Question { prompt, answer, forms: form.cloned().into_iter().collect() });
        };
        // A call that must be made is begun for the model, which has only to go on.
        prompt.push_str(&beginning);
        let mut answer = AnswerParser::new(None, false, expected);
        answer.prime(&beginning);
        Ok(Question { prompt, answer, forms: forms.into() })
    }

    fn tokenise(&self, rendered: &str) -> Vec<Token> {
        let vocab = self.model.vocab();
        let mut tokens = Vec::with_capacity(rendered.len() / 3 + 1);
        for piece in pieces(rendered) {
            tokens.extend(vocab.tokenize(piece.as_bytes(), false, true));
        }
        // Most templates write the beginning-of-sequence token themselves; two of them would degrade the answer.
        if vocab.should_add_bos() && tokens.first() != Some(&vocab.bos()) {
            tokens.insert(0, vocab.bos());
        }
        tokens.into_iter().map(|token| token.0).collect()
    }
}

/// How every token that is recognised in text as a control token is spelled.
fn control_tokens(model: &LlamaModel) -> Vec<(LlamaToken, String)> {
    let vocab = model.vocab();
    vocab
        .tokens()
        .filter(|&token| vocab.is_control(token))
        .map(|token| (token, spelling(model, token)))
        .collect()
}

/// A token's text; empty if the vocabulary has no such token.
fn spelling(model: &LlamaModel, token: LlamaToken) -> String {
    if token.0 < 0 {
        return String::new();
    }
    model.vocab().text(token).map_or_else(String::new, |text| text.to_string_lossy().into_owned())
}

/// A tool for a try-out of the template.
fn sample() -> ToolUse {
    let tools = vec![OfferedTool::new("f", "", r#"{"type":"object","properties":{}}"#)];
    ToolUse { tools, must_call: MustCall::No, parallel: false }
}
