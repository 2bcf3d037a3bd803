//! Builder of prompts: from a submission to tokens, by template, control-token guard and tokeniser.
//!
//! Runs on the threads of `intake`; uses the model's vocabulary, which is immutable, and never the
//! context.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use minijinja::Error;

use super::control_tokens::ControlTokenGuard;
use super::overflow::{roomy_tokens, shorten};
use super::template::{self, CHATML};
use super::tokenise::Tokeniser;
use super::tool_fallback;
use super::unprepared::Unprepared;
use crate::backends::llama::engine::command::{EmbeddingInput, EngineCommand, SequenceState};
use crate::backends::llama::engine::grammar::compile::Grammars;
use crate::backends::llama::engine::grammar::constraint_state::ConstraintState;
use crate::backends::llama::engine::grammar::matcher::Grammar;
use crate::backends::llama::engine::grammar::shape::{self, AnswerShape};
use crate::backends::llama::engine::grammar::trials::{Patience, Trials, Verdict};
use crate::backends::llama::engine::helper::{HelperPool, Rendering, Setup, Trial};
use crate::backends::llama::engine::intake::interrupt::Interrupt;
use crate::backends::llama::engine::output::call::expected::ExpectedCalls;
use crate::backends::llama::engine::output::parser::OutputParser;
use crate::backends::llama::engine::output::stream::OutputStream;
use crate::backends::llama::engine::sample::logprobs::Logprobs;
use crate::backends::llama::engine::sample::sampler::Sampler;
use crate::backends::llama::engine::schedule::request::Request;
use crate::backends::llama::engine::tool_format::{CallFormat, OutputFormat};
use crate::backends::llama::wire::constraint::{Constraint, GrammarError};
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

/// Time for the rendering of a sample at load.
const SAMPLE_MAX: Duration = Duration::from_secs(5);

/// Time for a rendering.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RenderTime {
    pub(crate) cpu: Duration,
    /// A request that takes longer is refused.
    pub(crate) is_final: bool,
}

/// Template, tokeniser and grammars of one model.
pub(crate) struct PromptBuilder {
    model: Arc<LlamaModel>,
    format: OutputFormat,
    helpers: HelperPool,
    trials: Trials,
    /// Whether the template belongs to this model; if not, conversations are refused.
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
        let template = own.as_deref().unwrap_or(CHATML);
        let format = template::format_of(template)?;
        let controls = control_tokens(&model);
        let spellings: Vec<String> =
            controls.iter().map(|(_, spelling)| spelling.clone()).collect();
        let helpers = HelperPool::new(Setup {
            template: template.to_owned(),
            bos,
            eos,
            controls: spellings.clone(),
        });
        let is_tag = |spelling: &str| format.tags().any(|tag| tag == spelling);
        let tags = controls.iter().filter(|(_, spelling)| is_tag(spelling));
        let tags = tags.map(|(token, _)| token.0).collect();
        let guard = ControlTokenGuard::new(spellings);
        let vocab = model.vocab();
        let open = format.reasoning.map(|tags| tags.open);
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
            format,
            helpers,
            trials: Trials::default(),
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
    /// Returns an error if the template does not end on a short conversation.
    pub(crate) fn takes_tools(&self) -> Result<bool, String> {
        if !self.has_template {
            return Ok(false);
        }
        let turns = [Turn::new(Role::User, "hi")];
        let interrupt = Interrupt::default();
        let time = RenderTime { cpu: SAMPLE_MAX, is_final: true };
        let rendered = self.rendered(&turns, Some(sample()), "", time, &interrupt);
        match rendered {
            Ok(_) => Ok(true),
            Err(Unprepared::Refused(Refusal::TemplateLimit)) => {
                Err("its chat template takes too much time or memory".to_owned())
            }
            Err(Unprepared::Fault(reason)) => Err(reason),
            Err(_) => Ok(false),
        }
    }

    /// Tries whether the schemas of a submission compile within the patience; a tool's schema that
    /// does not is replaced by any arguments, unless it is strict. Unless the trial is final,
    /// returns [`Unprepared::TooLong`] instead.
    pub(crate) fn try_out(
        &self,
        submission: &mut Submission,
        patience: Patience,
        interrupt: &Interrupt,
    ) -> Result<(), Unprepared> {
        let ends = |trial: &Trial| {
            let verdict = self.trials.verdict(&self.helpers, trial, patience, interrupt);
            verdict
                .map(|verdict| verdict == Verdict::Ends)
                .map_err(|error| Unprepared::of_trial(&error))
        };
        if let Some(trial) = submission.constraint.as_ref().and_then(trial_of)
            && !ends(&trial)?
        {
            return Err(Unprepared::Refused(Refusal::Grammar(too_hard())));
        }
        let Prompt::Chat(Conversation { tools: Some(tools), .. }) = &mut submission.prompt else {
            return Ok(());
        };
        for (place, tool) in tools.tools.iter_mut().enumerate() {
            let trial = Trial::Schema { json: tool.schema.clone(), lenient: !tool.strict };
            if ends(&trial)? {
                continue;
            }
            if tool.strict {
                return Err(Unprepared::Refused(Refusal::Tool { place, error: too_hard() }));
            }
            ANY_ARGUMENTS.clone_into(&mut tool.schema);
        }
        Ok(())
    }

    /// The engine's command for a submission whose schemas have been tried.
    pub(crate) fn command(
        &self,
        submission: &Submission,
        time: RenderTime,
        interrupt: &Interrupt,
    ) -> Result<EngineCommand, Unprepared> {
        let &Submission { attempt, terms, .. } = submission;
        let output_limit = submission.output_limit as usize;
        let mut sampling = submission.sampling.clone();
        let form = submission.constraint.as_ref().map(AnswerShape::of);
        let form = form.transpose().map_err(Refusal::Grammar)?;
        let (RenderedPrompt { prompt, answer, forms }, dropped_turns) = match &submission.prompt {
            Prompt::Chat(_) if !self.has_template => return Err(Refusal::NoChatTemplate.into()),
            Prompt::Chat(conversation) => {
                self.fitting(conversation, output_limit, form.as_ref(), (time, interrupt))?
            }
            Prompt::Raw(input) => {
                let answer = OutputParser::new(None, false, None);
                let forms = AnswerShapes { answer: form, call: None };
                (RenderedPrompt { prompt: self.document(input, interrupt)?, answer, forms }, 0)
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
            output_stream: OutputStream::new(answer, submission.stop.clone()),
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
        self.format.calls.unwrap_or(tool_fallback::FORMAT)
    }

    /// The embedder's command for a request.
    pub(crate) fn embedding(
        &self,
        embed: Embed,
        interrupt: &Interrupt,
    ) -> Result<EngineCommand, Unprepared> {
        let Embed { attempt, inputs, dimensions, deadline } = embed;
        let inputs = inputs.iter().map(|input| self.raw(input, false, interrupt));
        let inputs = inputs.collect::<Result<_, _>>()?;
        Ok(EngineCommand::Embed(EmbeddingInput { attempt, inputs, dimensions, deadline }))
    }

    /// The conversation's tokens, and the number of turns that were dropped so that it fits.
    fn fitting(
        &self,
        conversation: &Conversation,
        output_limit: usize,
        form: Option<&AnswerShape>,
        (time, interrupt): (RenderTime, &Interrupt),
    ) -> Result<(RenderedPrompt<Vec<Token>>, usize), Unprepared> {
        let Conversation { turns, tools, variables, continues } = conversation;
        let tools = tools.clone().map(|tools| self.bindable(tools)).transpose()?;
        let most = match self.overflow {
            Overflow::Refuse => usize::MAX,
            Overflow::DropOldestTurns => roomy_tokens(self.context_tokens, output_limit),
        };
        let tokeniser = self.tokeniser(interrupt);
        let ask = |turns: &[Turn]| {
            let (begun, turns) = match turns.split_last() {
                Some((last, before)) if *continues => (Some(last), before),
                _ => (None, turns),
            };
            let prompt = self.rendered(turns, tools.clone(), variables, time, interrupt)?;
            let RenderedPrompt { prompt, answer, forms } =
                self.begin(prompt, begun, tools.as_ref(), form);
            let prompt = tokeniser.rendered(&prompt)?;
            Ok::<_, Unprepared>(RenderedPrompt { prompt, answer, forms })
        };
        shorten(turns, ask, |question| question.prompt.len() <= most)
    }

    fn tokeniser<'b>(&'b self, interrupt: &'b Interrupt) -> Tokeniser<'b> {
        Tokeniser::new(&self.model, self.context_tokens, interrupt)
    }

    /// Tokens of a raw prompt. An empty one begins a document.
    fn document(&self, input: &Input, interrupt: &Interrupt) -> Result<Vec<Token>, Unprepared> {
        let tokens = self.raw(input, true, interrupt)?;
        let begin = self.model.vocab().bos();
        if tokens.is_empty() && begin.0 >= 0 { Ok(vec![begin.0]) } else { Ok(tokens) }
    }

    /// Tokens of a raw prompt, which may contain control tokens (`control`), or of a text to embed,
    /// which may not.
    fn raw(
        &self,
        input: &Input,
        control: bool,
        interrupt: &Interrupt,
    ) -> Result<Vec<Token>, Unprepared> {
        match input {
            Input::Text(text) => Ok(self.tokeniser(interrupt).raw(text, control)?),
            Input::Tokens(tokens) => {
                Ok(tokens.iter().map(|&token| self.known(token)).collect::<Result<_, _>>()?)
            }
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

    /// The template's prompt up to the answer.
    fn rendered(
        &self,
        turns: &[Turn],
        tools: Option<ToolUse>,
        variables: &str,
        time: RenderTime,
        interrupt: &Interrupt,
    ) -> Result<String, Unprepared> {
        let (turns, tools) = if self.format.calls.is_some() {
            (turns.to_vec(), tools)
        } else {
            (tool_fallback::plain_turns(turns, tools.as_ref()), None)
        };
        let rendering = Rendering { turns, tools, variables: variables.to_owned() };
        let rendered = self.helpers.render(rendering, time.cpu, interrupt);
        let rendered = rendered.map_err(|e| Unprepared::of_rendering(&e, time.is_final))?;
        rendered.map_err(|reason| Refusal::Template(reason).into())
    }

    /// Adds the certain beginning of the answer, which is the turn that it continues if that has
    /// `begun`. `form` constrains an answer without calls.
    fn begin(
        &self,
        mut prompt: String,
        begun: Option<&Turn>,
        tools: Option<&ToolUse>,
        form: Option<&AnswerShape>,
    ) -> RenderedPrompt<String> {
        let ends_with = |tag: &str| prompt.trim_end().ends_with(tag);
        // A template may close the reasoning at once, which disables it.
        let mut reasoning = self.format.reasoning.filter(|tags| !ends_with(tags.close));
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
            return RenderedPrompt { prompt, answer, forms };
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
        RenderedPrompt { prompt, answer, forms }
    }
}

/// The part of a constraint whose cost is not known beforehand.
fn trial_of(constraint: &Constraint) -> Option<Trial> {
    match constraint {
        Constraint::JsonSchema { schema, strict } => {
            Some(Trial::Schema { json: schema.clone(), lenient: !strict })
        }
        Constraint::Regex(regex) => Some(Trial::Regex(regex.clone())),
        Constraint::JsonObject | Constraint::Choice(_) => None,
    }
}

fn too_hard() -> GrammarError {
    GrammarError::TooComplex("compiling it takes too much time or memory".to_owned())
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
