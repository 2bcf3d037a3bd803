//! Builder of prompts: from a submission to tokens, by template, control-token guard and tokeniser.
//!
//! Runs on the threads of `intake`; uses the model's vocabulary, which is immutable, and never the
//! context.

use std::sync::Arc;
use std::time::Duration;

use llama_cpp_2::model::LlamaModel;
use minijinja::Error;

use super::answer_start::{AnswerShapes, RenderedPrompt, begin, call_format};
use super::control_tokens::ControlTokenGuard;
use super::overflow::{roomy_tokens, shorten};
use super::schemas::Schemas;
use super::template::{self, CHATML};
use super::tool_fallback;
use super::unprepared::Unprepared;
use super::vocabulary::{Vocabulary, control_tokens, spelling};
use crate::backends::llama::engine::command::{EmbeddingInput, EngineCommand, SequenceState};
use crate::backends::llama::engine::grammar::shape::AnswerShape;
use crate::backends::llama::engine::grammar::trials::Patience;
use crate::backends::llama::engine::helper::{HelperPool, Rendering, Setup};
use crate::backends::llama::engine::intake::interrupt::Interrupt;
use crate::backends::llama::engine::output::parser::OutputParser;
use crate::backends::llama::engine::output::stream::OutputStream;
use crate::backends::llama::engine::sample::logprobs::Logprobs;
use crate::backends::llama::engine::sample::sampler::Sampler;
use crate::backends::llama::engine::schedule::request::Request;
use crate::backends::llama::engine::tool_format::OutputFormat;
use crate::backends::llama::wire::conversation::{
    Conversation, MustCall, OfferedTool, ToolUse, Turn,
};
use crate::backends::llama::wire::outcome::Refusal;
use crate::backends::llama::wire::protocol::{Embed, Prompt, Submission};
use crate::backends::llama::wire::settings::Overflow;
use crate::backends::llama::wire::token::Token;
use crate::openai::Role;

const TEMPLATE_KEY: &str = "tokenizer.chat_template";

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
    vocabulary: Vocabulary,
    format: OutputFormat,
    helpers: HelperPool,
    schemas: Schemas,
    /// Whether the template belongs to this model; if not, conversations are refused.
    has_template: bool,
    guard: ControlTokenGuard,
    /// Control tokens that are tags of the model's format: the output parser needs their text.
    tags: Arc<[Token]>,
    /// The token that opens the reasoning, if it is a single one.
    reasoning_token: Option<u32>,
    overflow: Overflow,
    context_tokens: usize,
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
        let has_template = own.is_some();
        Ok(Self {
            schemas: Schemas::new(Arc::clone(&model)),
            vocabulary: Vocabulary::new(model, context_tokens),
            format,
            helpers,
            has_template,
            guard,
            tags,
            reasoning_token,
            overflow,
            context_tokens,
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

    /// Tries whether the schemas of a submission compile within the patience.
    pub(crate) fn try_out(
        &self,
        submission: &mut Submission,
        patience: Patience,
        interrupt: &Interrupt,
    ) -> Result<(), Unprepared> {
        self.schemas.try_out(&self.helpers, submission, patience, interrupt)
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
                let prompt = self.vocabulary.document(input, interrupt)?;
                (RenderedPrompt { prompt, answer, forms }, 0)
            }
        };
        self.vocabulary.check_bias(&sampling.logit_bias)?;
        let ends = &self.vocabulary.ends;
        // A constrained answer ends where its grammar does.
        if submission.ignore_eos && forms.answer.is_none() {
            sampling.logit_bias.extend(ends.iter().map(|&end| (end, f32::NEG_INFINITY)));
        }
        let mut sampler = Sampler::new(sampling, &prompt);
        // A grammar may leave the model nothing but to end.
        if forms.answer.is_none() && forms.call.is_none() {
            sampler.hold(submission.least_tokens, ends);
        }
        let constraint = self.schemas.constraint(&forms, self.reasoning_token);
        let constraint = constraint.map_err(Refusal::Grammar)?;
        let state = SequenceState {
            sampler,
            output_stream: OutputStream::new(answer, submission.stop.clone()),
            tags: Arc::clone(&self.tags),
            constraint,
            logprobs: submission.logprobs.map(|top| Logprobs::new(top.into())),
            dropped_turns: u32::try_from(dropped_turns).unwrap_or(u32::MAX),
        };
        let request = Request { attempt, prompt, output_limit, terms };
        Ok(EngineCommand::Generate { request, state: Box::new(state) })
    }

    /// The embedder's command for a request.
    pub(crate) fn embedding(
        &self,
        embed: Embed,
        interrupt: &Interrupt,
    ) -> Result<EngineCommand, Unprepared> {
        let Embed { attempt, inputs, dimensions, terms } = embed;
        let inputs = inputs.iter().map(|input| self.vocabulary.raw(input, false, interrupt));
        let inputs = inputs.collect::<Result<_, _>>()?;
        Ok(EngineCommand::Embed(EmbeddingInput { attempt, inputs, dimensions, terms }))
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
        let format = call_format(&self.format);
        let bindable = tools.clone().map(|tools| self.schemas.bindable(tools, format));
        let tools = bindable.transpose()?;
        let most = match self.overflow {
            Overflow::Refuse => usize::MAX,
            Overflow::DropOldestTurns => roomy_tokens(self.context_tokens, output_limit),
        };
        let tokeniser = self.vocabulary.tokeniser(interrupt);
        let ask = |turns: &[Turn]| {
            let (begun, turns) = match turns.split_last() {
                Some((last, before)) if *continues => (Some(last), before),
                _ => (None, turns),
            };
            let prompt = self.rendered(turns, tools.clone(), variables, time, interrupt)?;
            let RenderedPrompt { prompt, answer, forms } =
                begin(prompt, (&self.format, &self.guard), begun, tools.as_ref(), form);
            let prompt = tokeniser.rendered(&prompt)?;
            Ok::<_, Unprepared>(RenderedPrompt { prompt, answer, forms })
        };
        shorten(turns, ask, |question| question.prompt.len() <= most)
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
}

/// A sample tool to test the template with.
fn sample() -> ToolUse {
    let tools = vec![OfferedTool::new("f", "", r#"{"type":"object","properties":{}}"#)];
    ToolUse { tools, must_call: MustCall::No, parallel: false }
}
