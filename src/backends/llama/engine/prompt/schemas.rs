//! Schemas of a submission and of its tools: tried out in a helper first, then compiled into
//! grammars.

use std::sync::{Arc, OnceLock};

use llama_cpp_2::model::LlamaModel;

use super::answer_start::AnswerShapes;
use super::unprepared::Unprepared;
use crate::backends::llama::engine::grammar::compile::Grammars;
use crate::backends::llama::engine::grammar::constraint_state::ConstraintState;
use crate::backends::llama::engine::grammar::matcher::Grammar;
use crate::backends::llama::engine::grammar::shape::{self, AnswerShape};
use crate::backends::llama::engine::grammar::trials::{Patience, Trials, Verdict};
use crate::backends::llama::engine::helper::{HelperPool, Trial};
use crate::backends::llama::engine::intake::interrupt::Interrupt;
use crate::backends::llama::engine::tool_format::CallFormat;
use crate::backends::llama::wire::constraint::{Constraint, GrammarError};
use crate::backends::llama::wire::conversation::{Conversation, MustCall, OfferedTool, ToolUse};
use crate::backends::llama::wire::outcome::Refusal;
use crate::backends::llama::wire::protocol::{Prompt, Submission};

/// Schema of a tool whose own cannot be enforced.
const ANY_ARGUMENTS: &str = r#"{"type":"object"}"#;

/// Trials and grammars of one model.
pub(super) struct Schemas {
    model: Arc<LlamaModel>,
    trials: Trials,
    /// Built on first use: takes time and memory.
    grammars: OnceLock<Result<Grammars, GrammarError>>,
}

impl Schemas {
    pub(super) fn new(model: Arc<LlamaModel>) -> Self {
        Self { model, trials: Trials::default(), grammars: OnceLock::new() }
    }

    /// Tries whether the schemas of a submission compile within the patience; a tool's schema that
    /// does not is replaced by any arguments, unless it is strict. Unless the trial is final,
    /// returns [`Unprepared::TooLong`] instead.
    pub(super) fn try_out(
        &self,
        helpers: &HelperPool,
        submission: &mut Submission,
        patience: Patience,
        interrupt: &Interrupt,
    ) -> Result<(), Unprepared> {
        let ends = |trial: &Trial| {
            let verdict = self.trials.verdict(helpers, trial, patience, interrupt);
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

    pub(super) fn constraint(
        &self,
        forms: &AnswerShapes,
        reasoning_token: Option<u32>,
    ) -> Result<ConstraintState, GrammarError> {
        let grammar =
            |form: &Option<AnswerShape>| form.as_ref().map(|f| self.grammar(f)).transpose();
        Ok(ConstraintState::new(grammar(&forms.answer)?, grammar(&forms.call)?, reasoning_token))
    }

    fn grammar(&self, form: &AnswerShape) -> Result<Grammar, GrammarError> {
        let grammars = self.grammars.get_or_init(|| Grammars::new(&self.model));
        grammars.as_ref().map_err(Clone::clone)?.grammar(form)
    }

    /// The tools with enforceable schemas: one beyond the grammar's limits accepts any arguments,
    /// or is refused if it is strict.
    pub(super) fn bindable(
        &self,
        mut tools: ToolUse,
        format: CallFormat,
    ) -> Result<ToolUse, Refusal> {
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
