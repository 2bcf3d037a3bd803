//! Builder of prompts: from a submission to tokens, by template, control-token guard and tokeniser.
//!
//! Runs on the reader and grammar threads; uses the model's vocabulary, which is immutable, and
//! never the context.

use std::sync::{Arc, OnceLock};

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use minijinja::Error;

use super::control_tokens::{ControlTokenGuard, pieces};
use super::overflow::{roomy_tokens, shorten};
use super::template::{CHATML, ChatTemplate};
use super::tool_fallback;
use crate::backends::llama::engine::command::{EmbeddingInput, EngineCommand, SequenceState};
use crate::backends::llama::engine::grammar::compile::Grammars;
use crate::backends::llama::engine::grammar::constraint_state::ConstraintState;
use crate::backends::llama::engine::grammar::matcher::Grammar;
use crate::backends::llama::engine::grammar::shape::{self, AnswerShape};
use crate::backends::llama::engine::output::call::expected::ExpectedCalls;
use crate::backends::llama::engine::output::parser::OutputParser;
use crate::backends::llama::engine::output::stream::OutputStream;
use crate::backends::llama::engine::sample::logprobs::Logprobs;
use crate::backends::llama::engine::sample::sampler::Sampler;
use crate::backends::llama::engine::schedule::request::Request;
use crate::backends::llama::engine::tool_format::CallFormat;
use crate::backends::llama::wire::constraint::GrammarError;
use crate::backends::llama::wire::conversation::{
    Conversation, MustCall, OfferedTool, ToolUse, Turn,
};
use crate::backends::llama::wire::outcome::Refusal;
use crate::backends::llama::wire::protocol::{Embed, Prompt, Submission};
use crate::backends::llama::wire::settings::Overflow;
use crate::backends::llama::wire::token::Token;
use crate::openai::{Input, Role};

const TEMPLATE_KEY: &str = "tokenizer.chat_template";

/// Schema of a tool whose own cannot be enforced.
const ANY_ARGUMENTS: &str = r#"{"type":"object"}"#;

/// More bytes than ordinary text has per token.
const ORDINARY_BYTES: usize = 8;
/// Bytes that are tokenised at once of a text that may be too long.
const SLICE_BYTES: usize = 8192;

/// Template, tokeniser and grammars of one model.
pub(crate) struct PromptBuilder {
    model: Arc<LlamaModel>,
    template: ChatTemplate,
    /// Whether `template` belongs to this model; if not, conversations are refused.
    has_template: bool,
    guard: ControlTokenGuard,
    /// Control tokens that are tags of the model's format: the output parser needs their text.
    tags: Arc<[Token]>,
    /// The token that opens the reasoning, if it is a single one.
    reasoning_token: Option<u32>,
    overflow: Overflow,
    context_tokens: usize,
    /// Tokens that end the model's turn.
    ends: Vec<Token>,
    /// Built on first use: takes time and memory.
    grammars: OnceLock<Result<Grammars, GrammarError>>,
}

/// A prompt with the parser and the constraints of its answer.
struct RenderedPrompt<P> {
    prompt: P,
    answer: OutputParser,
    forms: AnswerShapes,
}

/// Constraints on an answer and its calls.
#[derive(Default)]
struct AnswerShapes {
    /// The answer after its reasoning.
    answer: Option<AnswerShape>,
    /// A call that the model begins itself.
    call: Option<AnswerShape>,
}

impl PromptBuilder {
    /// `template` replaces the model's own. Prompt and answer together fit into `context_tokens`.
    pub(crate) fn new(
        model: Arc<LlamaModel>,
        template: Option<String>,
        overflow: Overflow,
        context_tokens: usize,
    ) -> Result<Self, Error> {
        let own = template.or_else(|| model.meta_val_str(TEMPLATE_KEY).ok());
        let (bos, eos) =
            (spelling(&model, model.vocab().bos()), spelling(&model, model.vocab().eos()));
        let template = ChatTemplate::new(own.as_deref().unwrap_or(CHATML), &bos, &eos)?;
        let controls = control_tokens(&model);
        let is_tag = |spelling: &str| template.dialect().tags().any(|tag| tag == spelling);
        let tags = controls.iter().filter(|(_, spelling)| is_tag(spelling));
        let tags = tags.map(|(token, _)| token.0).collect();
        let guard = ControlTokenGuard::new(controls.into_iter().map(|(_, spelling)| spelling));
        let vocab = model.vocab();
        let open = template.dialect().reasoning.map(|tags| tags.open);
        let opening = open.map(|tag| vocab.tokenize(tag.as_bytes(), false, true));
        let reasoning_token = opening.as_deref().and_then(|tokens| match tokens {
            [token] => u32::try_from(token.0).ok(),
            _ => None,
        });
        let ends = vocab.tokens().filter(|&token| vocab.is_eog(token)).map(|end| end.0).collect();
        let has_template = own.is_some();
        let grammars = OnceLock::new();
        Ok(Self {
            model,
            template,
            has_template,
            guard,
            tags,
            reasoning_token,
            overflow,
            context_tokens,
            ends,
            grammars,
        })
    }

    pub(crate) fn has_template(&self) -> bool {
        self.has_template
    }

    /// Whether the model accepts conversations with tools. Models without a template were not
    /// trained for conversations; some templates refuse the system turn that the fallback needs.
    pub(crate) fn takes_tools(&self) -> bool {
        self.has_template
            && self.render(&[Turn::new(Role::User, "hi")], Some(&sample()), "", false, None).is_ok()
    }

    /// The engine's command for a submission: a sequence to generate, or a refusal.
    pub(crate) fn command(&self, submission: Submission) -> EngineCommand {
        let attempt = submission.attempt;
        self.accept(submission).unwrap_or_else(|refusal| EngineCommand::Refuse(attempt, refusal))
    }

    fn accept(&self, submission: Submission) -> Result<EngineCommand, Refusal> {
        let Submission { attempt, prompt, mut sampling, output_limit, stop, terms, .. } =
            submission;
        let output_limit = output_limit as usize;
        let form = submission.constraint.as_ref().map(AnswerShape::of);
        let form = form.transpose().map_err(Refusal::Grammar)?;
        let (RenderedPrompt { prompt, answer, forms }, dropped_turns) = match &prompt {
            Prompt::Chat(_) if !self.has_template => return Err(Refusal::NoChatTemplate),
            Prompt::Chat(conversation) => {
                self.fitting(conversation, output_limit, form.as_ref())?
            }
            Prompt::Raw(input) => {
                let answer = OutputParser::new(None, false, None);
                let forms = AnswerShapes { answer: form, call: None };
                (RenderedPrompt { prompt: self.document(input)?, answer, forms }, 0)
            }
        };
        self.check_bias(&sampling.logit_bias)?;
        // A constrained answer ends where its grammar does.
        if submission.ignore_eos && forms.answer.is_none() {
            sampling.logit_bias.extend(self.ends.iter().map(|&end| (end, f32::NEG_INFINITY)));
        }
        let mut sampler = Sampler::new(sampling, &prompt);
        // A grammar may leave the model nothing but to end.
        if forms.answer.is_none() && forms.call.is_none() {
            sampler.hold(submission.least_tokens, &self.ends);
        }
        let state = SequenceState {
            sampler,
            output_stream: OutputStream::new(answer, stop),
            tags: Arc::clone(&self.tags),
            constraint: self.constraint(&forms).map_err(Refusal::Grammar)?,
            logprobs: submission.logprobs.map(|top| Logprobs::new(top.into())),
            dropped_turns: u32::try_from(dropped_turns).unwrap_or(u32::MAX),
        };
        let request = Request { attempt, prompt, output_limit, terms };
        Ok(EngineCommand::Generate { request, state: Box::new(state) })
    }

    fn check_bias(&self, bias: &[(Token, f32)]) -> Result<(), Refusal> {
        let vocabulary = u32::try_from(self.model.n_vocab()).unwrap_or(0);
        let unknown = |&&(token, _): &&(Token, f32)| {
            u32::try_from(token).map_or(true, |token| token >= vocabulary)
        };
        match bias.iter().find(unknown) {
            Some(&(token, _)) => {
                Err(Refusal::UnknownBias { token: token.cast_unsigned(), vocabulary })
            }
            None => Ok(()),
        }
    }

    fn constraint(&self, forms: &AnswerShapes) -> Result<ConstraintState, GrammarError> {
        let grammar =
            |form: &Option<AnswerShape>| form.as_ref().map(|f| self.grammar(f)).transpose();
        Ok(ConstraintState::new(
            grammar(&forms.answer)?,
            grammar(&forms.call)?,
            self.reasoning_token,
        ))
    }

    fn grammar(&self, form: &AnswerShape) -> Result<Grammar, GrammarError> {
        let grammars = self.grammars.get_or_init(|| Grammars::new(&self.model));
        grammars.as_ref().map_err(Clone::clone)?.grammar(form)
    }

    /// The tools with enforceable schemas: one beyond the grammar's limits accepts any arguments,
    /// or is refused if it is strict.
    fn bindable(&self, mut tools: ToolUse) -> Result<ToolUse, Refusal> {
        let format = self.call_format();
        let check = |place: usize, tool: &OfferedTool| {
            shape::check_spelling(tool, format).map_err(|error| Refusal::Tool { place, error })
        };
        for (place, tool) in tools.tools.iter().enumerate() {
            check(place, tool)?;
        }
        if self.grammar(&AnswerShape::call(&tools, format)).is_ok() {
            return Ok(tools);
        }
        for (place, tool) in tools.tools.iter_mut().enumerate() {
            let alone =
                ToolUse { tools: vec![tool.clone()], must_call: MustCall::Any, parallel: false };
            match self.grammar(&AnswerShape::call(&alone, format)) {
                Ok(_) => {}
                Err(error) if tool.strict => return Err(Refusal::Tool { place, error }),
                Err(_) => ANY_ARGUMENTS.clone_into(&mut tool.schema),
            }
        }
        Ok(tools)
    }

    /// The call format of the model's template, or of the fallback.
    fn call_format(&self) -> CallFormat {
        self.template.dialect().calls.unwrap_or(tool_fallback::FORMAT)
    }

    /// The embedder's command for a request.
    pub(crate) fn embedding(&self, embed: Embed) -> EngineCommand {
        let Embed { attempt, inputs, dimensions, deadline } = embed;
        let read = inputs.iter().map(|input| self.raw(input, false)).collect();
        match read {
            Ok(inputs) => {
                EngineCommand::Embed(EmbeddingInput { attempt, inputs, dimensions, deadline })
            }
            Err(refusal) => EngineCommand::Refuse(attempt, refusal),
        }
    }

    /// The conversation's tokens, and the number of turns that were dropped so that it fits.
    fn fitting(
        &self,
        conversation: &Conversation,
        output_limit: usize,
        form: Option<&AnswerShape>,
    ) -> Result<(RenderedPrompt<Vec<Token>>, usize), Refusal> {
        let Conversation { turns, tools, variables, continues } = conversation;
        let tools = tools.clone().map(|tools| self.bindable(tools)).transpose()?;
        let most = match self.overflow {
            Overflow::Refuse => usize::MAX,
            Overflow::DropOldestTurns => roomy_tokens(self.context_tokens, output_limit),
        };
        let ask = |turns: &[Turn]| {
            let RenderedPrompt { prompt, answer, forms } =
                self.render(turns, tools.as_ref(), variables, *continues, form)?;
            Ok::<_, Error>(RenderedPrompt { prompt: self.tokenise(&prompt), answer, forms })
        };
        shorten(turns, ask, |question| question.prompt.len() <= most)
            .map_err(|error| Refusal::Template(error.to_string()))
    }

    /// Tokens of a raw prompt. An empty one begins a document.
    fn document(&self, input: &Input) -> Result<Vec<Token>, Refusal> {
        let tokens = self.raw(input, true)?;
        let begin = self.model.vocab().bos();
        if tokens.is_empty() && begin.0 >= 0 { Ok(vec![begin.0]) } else { Ok(tokens) }
    }

    /// Tokens of a raw prompt, which may contain control tokens (`control`), or of a text to embed,
    /// which may not.
    fn raw(&self, input: &Input, control: bool) -> Result<Vec<Token>, Refusal> {
        let vocab = self.model.vocab();
        match input {
            Input::Text(text) => {
                if let Some(tokens) = self.beyond_context(text, control) {
                    return Ok(tokens);
                }
                let tokens = vocab.tokenize(text.as_bytes(), true, control);
                // A client that spells out the beginning-of-sequence token means one, not two.
                let doubled = tokens.starts_with(&[vocab.bos(), vocab.bos()]);
                Ok(tokens.into_iter().skip(usize::from(doubled)).map(|token| token.0).collect())
            }
            Input::Tokens(tokens) => tokens.iter().map(|&token| self.known(token)).collect(),
        }
    }

    /// Validates a token id: an unknown one would abort the process.
    fn known(&self, token: u32) -> Result<Token, Refusal> {
        let vocabulary = self.model.vocab().n_tokens();
        Token::try_from(token)
            .ok()
            .filter(|&token| token < vocabulary)
            .ok_or(Refusal::UnknownToken { token, vocabulary: vocabulary.unsigned_abs() })
    }

    /// Renders the template and the certain beginning of the answer, which is the last turn if it
    /// `continues`. `form` constrains an answer without calls.
    fn render(
        &self,
        turns: &[Turn],
        tools: Option<&ToolUse>,
        variables: &str,
        continues: bool,
        form: Option<&AnswerShape>,
    ) -> Result<RenderedPrompt<String>, Error> {
        let dialect = self.template.dialect();
        let (begun, turns) = match turns.split_last() {
            Some((last, before)) if continues => (Some(last), before),
            _ => (None, turns),
        };
        let mut prompt = if dialect.calls.is_some() {
            self.template.render(turns, tools, variables, &self.guard)?
        } else {
            let turns = tool_fallback::plain_turns(turns, tools);
            self.template.render(&turns, None, variables, &self.guard)?
        };
        let ends_with = |tag: &str| prompt.trim_end().ends_with(tag);
        // A template may close the reasoning at once, which disables it.
        let mut reasoning = dialect.reasoning.filter(|tags| !ends_with(tags.close));
        let mut opened = reasoning.is_some_and(|tags| ends_with(tags.open));
        if let Some(begun) = begun {
            // An answer that has begun has done its reasoning.
            if let Some(tags) = reasoning.take().filter(|_| opened) {
                prompt.push_str(tags.close);
                prompt.push_str("\n\n");
            }
            opened = false;
            prompt.push_str(&self.guard.mark(&begun.text));
        }
        let Some(used) = tools else {
            let answer = OutputParser::new(reasoning, opened, None);
            let forms = AnswerShapes { answer: form.cloned(), call: None };
            return Ok(RenderedPrompt { prompt, answer, forms });
        };
        let format = self.call_format();
        let mut answer = OutputParser::new(reasoning, opened, Some(expected_calls(used, format)));
        let begins = || AnswerShape::call_begins(used, format);
        let bound = match shape::forced_beginning(used, format) {
            // The beginning of a required call is part of the prompt: fewer tokens to generate.
            Some(beginning) if reasoning.is_none() && !beginning.is_empty() => {
                prompt.push_str(&beginning);
                answer.prime(&beginning);
                None
            }
            Some(_) => Some(begins()),
            None => form.map(|form| form.clone().or(begins())),
        };
        let forms = AnswerShapes { answer: bound, call: Some(AnswerShape::call(used, format)) };
        Ok(RenderedPrompt { prompt, answer, forms })
    }

    /// Stands for the tokens of a text that is far too long: only their number matters, since the
    /// scheduler refuses them. It is estimated from the beginning of the text: llama.cpp takes
    /// seconds for a megabyte, during which no other prompt is read.
    fn beyond_context(&self, text: &str, control: bool) -> Option<Vec<Token>> {
        let limit = self.context_tokens + self.context_tokens / 8 + SLICE_BYTES / 64;
        let slices = if text.len() / ORDINARY_BYTES > limit { slices(text) } else { return None };
        let (mut tokens, mut read) = (0, 0);
        for slice in slices {
            tokens += self.model.vocab().tokenize(slice.as_bytes(), false, control).len();
            read += slice.len();
            if tokens > limit {
                return Some(vec![0; tokens.saturating_mul(text.len()) / read]);
            }
        }
        None
    }

    fn tokenise(&self, rendered: &str) -> Vec<Token> {
        if let Some(tokens) = self.beyond_context(rendered, true) {
            return tokens;
        }
        let vocab = self.model.vocab();
        let mut tokens = Vec::with_capacity(rendered.len() / 3 + 1);
        for piece in pieces(rendered) {
            tokens.extend(vocab.tokenize(piece.as_bytes(), false, true));
        }
        // Most templates write the beginning-of-sequence token themselves; a second one would
        // degrade the answer.
        if vocab.should_add_bos() && tokens.first() != Some(&vocab.bos()) {
            tokens.insert(0, vocab.bos());
        }
        tokens.into_iter().map(|token| token.0).collect()
    }
}

/// The text in parts of about [`SLICE_BYTES`].
fn slices(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (slice, rest) = text.split_at(text.ceil_char_boundary(SLICE_BYTES.min(text.len())));
        text = rest;
        Some(slice).filter(|slice| !slice.is_empty())
    })
}

/// The calls that an answer may have.
pub(crate) fn expected_calls(tools: &ToolUse, format: CallFormat) -> ExpectedCalls {
    let schemas = tools.tools.iter().filter(|_| format.spells_each_argument());
    ExpectedCalls {
        format,
        names: tools.tools.iter().map(|tool| tool.name.clone()).collect(),
        schemas: schemas.map(|tool| shape::schema(tool).json).collect(),
        parallel: tools.parallel
            && format.allows_parallel()
            && !matches!(tools.must_call, MustCall::Named(_)),
    }
}

/// All control tokens and their text.
fn control_tokens(model: &LlamaModel) -> Vec<(LlamaToken, String)> {
    let vocab = model.vocab();
    vocab
        .tokens()
        .filter(|&token| vocab.is_control(token))
        .map(|token| (token, spelling(model, token)))
        .collect()
}

/// A token's text; empty for tokens outside of the vocabulary.
fn spelling(model: &LlamaModel, token: LlamaToken) -> String {
    if token.0 < 0 {
        return String::new();
    }
    model.vocab().text(token).map_or_else(String::new, |text| text.to_string_lossy().into_owned())
}

/// A sample tool to test the template with.
fn sample() -> ToolUse {
    let tools = vec![OfferedTool::new("f", "", r#"{"type":"object","properties":{}}"#)];
    ToolUse { tools, must_call: MustCall::No, parallel: false }
}
