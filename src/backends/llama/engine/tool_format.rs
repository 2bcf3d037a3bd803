//! How a family of models spells tool calls and reasoning, recognised from its chat template.
//!
//! Pure. Formats as documented by their makers: Hermes function calling (also Qwen 2.5 and 3), Llama 3.1's JSON tool
//! calling (also without its tag, as in 3.2), Mistral's v3 and v11 instruct formats, Qwen3-Coder's, DeepSeek-R1's and
//! Magistral's reasoning tags.

use crate::backends::llama::wire::reasoning::{REASONING, Tags};

/// What a model's template tells of its answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// How it calls tools; `None` where the template knows no tools, or in a way that is not known here.
    pub(crate) calls: Option<CallFormat>,
    /// The tags around its reasoning.
    pub(crate) reasoning: Option<Tags>,
}

impl Dialect {
    /// `takes_tools`: the template has a variable `tools`. Without it, tags in the text are only prose.
    pub(crate) fn of(template: &str, takes_tools: bool) -> Self {
        let calls = CallFormat::ALL.into_iter().find(|format| format.is_spoken_in(template));
        let reasoning = REASONING.into_iter().find(|tags| template.contains(tags.close));
        Self { calls: calls.filter(|_| takes_tools), reasoning }
    }

    /// Every tag of the dialect: they must reach the parser also where they are control tokens, which are otherwise
    /// not part of an answer's text.
    pub(crate) fn tags(self) -> impl Iterator<Item = &'static str> {
        let calls = self.calls.into_iter().flat_map(CallFormat::tags);
        let reasoning = self.reasoning.into_iter().flat_map(|tags| [tags.open, tags.close]);
        calls.chain(reasoning)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallFormat {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, any number of them.
    Hermes,
    /// `{"name": …, "parameters": {…}}` as the whole answer, perhaps after `<|python_tag|>`. One call an answer: the
    /// template refuses a history with more.
    Llama3,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`: Mistral to v7.
    Mistral,
    /// `[TOOL_CALLS]name[ARGS]{…}`, any number of them; in v11, `[CALL_ID]` and an id stand before the arguments.
    MistralArgs,
    /// `<tool_call><function=name><parameter=name>value</parameter></function></tool_call>`, any number of calls and of
    /// parameters: Qwen3-Coder. Texts stand as they are, all else as JSON.
    QwenCoder,
}

/// Before an id that the model gives a call.
pub(crate) const CALL_ID: &str = "[CALL_ID]";
/// Between a call's name and its arguments.
pub(crate) const ARGS: &str = "[ARGS]";

impl CallFormat {
    pub(crate) const ALL: [Self; 5] =
        [Self::Hermes, Self::QwenCoder, Self::MistralArgs, Self::Mistral, Self::Llama3];

    /// Whether the template spells calls so. Later models of some families keep the tag and spell what follows otherwise.
    fn is_spoken_in(self, template: &str) -> bool {
        let has = |mark| template.contains(mark);
        match self {
            Self::Hermes => has("<tool_call>") && !has("<function=") && !has("<arg_key>"),
            Self::QwenCoder => has("<tool_call>") && has("<function=") && has("<parameter="),
            Self::Llama3 => has("<|python_tag|>") || has("<|start_header_id|>ipython"),
            Self::Mistral => has("[TOOL_CALLS]") && !has(ARGS),
            Self::MistralArgs => has("[TOOL_CALLS]") && has(ARGS),
        }
    }

    /// The tag before a call.
    pub(crate) fn opener(self) -> &'static str {
        match self {
            Self::Hermes | Self::QwenCoder => "<tool_call>",
            Self::Llama3 => "<|python_tag|>",
            Self::Mistral | Self::MistralArgs => "[TOOL_CALLS]",
        }
    }

    /// How a call begins where the model leaves out the tag, which some do.
    pub(crate) fn bare_opener(self) -> Option<&'static str> {
        match self {
            Self::Llama3 => Some("{"),
            Self::QwenCoder => Some("<function="),
            Self::Hermes | Self::Mistral | Self::MistralArgs => None,
        }
    }

    /// The tag after each call.
    pub(crate) fn closer(self) -> Option<&'static str> {
        matches!(self, Self::Hermes | Self::QwenCoder).then_some("</tool_call>")
    }

    fn tags(self) -> impl Iterator<Item = &'static str> {
        let inner: &[&str] = if self == Self::MistralArgs { &[CALL_ID, ARGS] } else { &[] };
        [Some(self.opener()), self.closer()].into_iter().flatten().chain(inner.iter().copied())
    }

    /// Whether the calls stand in one JSON array.
    pub(crate) fn opens_array(self) -> bool {
        self == Self::Mistral
    }

    /// Whether one answer may hold several calls.
    pub(crate) fn allows_parallel(self) -> bool {
        self != Self::Llama3
    }

    /// Whether each argument is spelled for itself, so that its schema decides what is meant.
    pub(crate) fn spells_each_argument(self) -> bool {
        self == Self::QwenCoder
    }

    /// What the arguments are called, where the call is a JSON object.
    pub(crate) fn arguments_key(self) -> &'static str {
        if self == Self::Llama3 { "parameters" } else { "arguments" }
    }
}
