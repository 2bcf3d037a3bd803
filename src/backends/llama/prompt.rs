//! From a submission to the tokens the engine evaluates: template, control-token guard, tokeniser.
//!
//! Runs on the reader thread; touches the model's vocabulary, which is immutable, and never the context.

use std::sync::Arc;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use minijinja::Error;

use super::answer::{AnswerParser, ExpectedCalls};
use super::conversation::{Conversation, MustCall, OfferedTool, ToolUse, Turn};
use super::dialect::CallFormat;
use super::engine::{Order, Texts, Work};
use super::fallback;
use super::guard::{Guard, pieces};
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
}

/// A prompt, and how to read what the model answers to it.
struct Question<P> {
    prompt: P,
    answer: AnswerParser,
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
        let has_own_template = own.is_some();
        Ok(Self { model, template, has_own_template, guard, tags, overflow, context_tokens })
    }

    pub(super) fn has_own_template(&self) -> bool {
        self.has_own_template
    }

    /// Whether a conversation with tools can be put to the model. One without a template was trained for no
    /// conversation at all; some templates refuse a system turn, which the fallback needs.
    pub(super) fn takes_tools(&self) -> bool {
        self.has_own_template
            && self.render(&[Turn::new(Role::User, "hi")], Some(&sample())).is_ok()
    }

    /// What the engine is to do about a submission: work on it, or pass the refusal on.
    pub(super) fn order(&self, submission: Submission) -> Order {
        let Submission { attempt, prompt, sampling, output_limit, stop, terms } = submission;
        let output_limit = output_limit as usize;
        let read = match prompt {
            Prompt::Chat(conversation) => self.fitting(&conversation, output_limit),
            Prompt::Raw(input) => self.raw(&input, true).map(|prompt| {
                let answer = AnswerParser::new(None, false, None);
                (Question { prompt, answer }, 0)
            }),
        };
        match read {
            Ok((Question { prompt, answer }, dropped_turns)) => Order::Work {
                request: Request { attempt, prompt, output_limit, terms },
                work: Box::new(Work {
                    sampler: Sampler::new(sampling),
                    text: TextStream::new(stop),
                    answer,
                    tags: Arc::clone(&self.tags),
                    dropped_turns: u32::try_from(dropped_turns).unwrap_or(u32::MAX),
                }),
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
    fn fitting(
        &self,
        conversation: &Conversation,
        output_limit: usize,
    ) -> Result<(Question<Vec<Token>>, usize), Refusal> {
        let Conversation { turns, tools } = conversation;
        let most = match self.overflow {
            Overflow::Refuse => usize::MAX,
            Overflow::DropOldestTurns => roomy_tokens(self.context_tokens, output_limit),
        };
        let ask = |turns: &[Turn]| {
            let Question { prompt, answer } = self.render(turns, tools.as_ref())?;
            Ok::<_, Error>(Question { prompt: self.tokenise(&prompt), answer })
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

    fn render(&self, turns: &[Turn], tools: Option<&ToolUse>) -> Result<Question<String>, Error> {
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
        let opened = dialect.reasoning.filter(|tags| prompt.trim_end().ends_with(tags.open));
        let Some(beginning) = tools.and_then(|used| beginning(used, format)) else {
            let answer = AnswerParser::new(dialect.reasoning, opened.is_some(), expected);
            return Ok(Question { prompt, answer });
        };
        // A call that must be made is begun for the model, which has only to go on; there is no place for reasoning.
        if let Some(tags) = opened {
            prompt.push_str(tags.close);
            prompt.push_str("\n\n");
        }
        prompt.push_str(&beginning);
        let mut answer = AnswerParser::new(None, false, expected);
        answer.prime(&beginning);
        Ok(Question { prompt, answer })
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

/// How the answer begins, if it must be a call: up to the arguments, if only one function may be called.
fn beginning(tools: &ToolUse, format: CallFormat) -> Option<String> {
    let name = match (&tools.must_call, tools.tools.as_slice()) {
        (MustCall::No, _) => return None,
        (MustCall::Named(name), _) | (MustCall::Any, [OfferedTool { name, .. }]) => {
            Some(name.as_str())
        }
        (MustCall::Any, _) => None,
    };
    Some(format.beginning(name))
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
    let json = r#"{"type":"function","function":{"name":"f","description":"","parameters":{"type":"object","properties":{}}}}"#;
    let tools = vec![OfferedTool { name: "f".to_owned(), json: json.to_owned() }];
    ToolUse { tools, must_call: MustCall::No, parallel: false }
}
