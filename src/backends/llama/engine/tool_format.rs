//! Formats of tool calls and reasoning by model family, detected from the chat template.
//!
//! Pure. Formats as documented by their makers: Hermes function calling (also Qwen 2.5 and 3),
//! Llama 3.1's JSON tool calling (also without its tag, as in 3.2), Mistral's v3 and v11 instruct
//! formats, Qwen3-Coder's, DeepSeek-R1's and Magistral's reasoning tags.

use crate::backends::llama::wire::reasoning::{REASONING, Tags};

/// The output format of a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OutputFormat {
    /// Format of tool calls; `None` if the template has no tools or an unknown format.
    pub(crate) calls: Option<CallFormat>,
    /// The tags around its reasoning.
    pub(crate) reasoning: Option<Tags>,
}

impl OutputFormat {
    /// `takes_tools` if the template has a variable `tools`; without it, tags in its text are
    /// prose.
    pub(crate) fn of(template: &str, takes_tools: bool) -> Self {
        let calls = CallFormat::ALL.into_iter().find(|format| format.is_spoken_in(template));
        let reasoning = REASONING.into_iter().find(|tags| template.contains(tags.close));
        Self { calls: calls.filter(|_| takes_tools), reasoning }
    }

    /// All tags of the format. The output parser needs their text even if they are control tokens.
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
    /// `{"name": …, "parameters": {…}}` as the whole answer, optionally after `<|python_tag|>`. One
    /// call per answer: the template refuses a history with more.
    Llama3,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`: Mistral to v7.
    Mistral,
    /// `[TOOL_CALLS]name[ARGS]{…}`, any number of them; v11 inserts `[CALL_ID]` and an id before
    /// the arguments.
    MistralArgs,
    /// `<tool_call><function=name><parameter=name>value</parameter></function></tool_call>`, any
    /// number of calls and of parameters: Qwen3-Coder. Texts are verbatim, other values
    /// JSON.
    QwenCoder,
}

/// Tag before the id of a call.
pub(crate) const CALL_ID: &str = "[CALL_ID]";
/// Tag between a call's name and its arguments.
pub(crate) const ARGS: &str = "[ARGS]";

impl CallFormat {
    pub(crate) const ALL: [Self; 5] =
        [Self::Hermes, Self::QwenCoder, Self::MistralArgs, Self::Mistral, Self::Llama3];

    /// Whether the template uses this format. Later models of some families keep the tag and
    /// change the rest.
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

    /// The beginning of a call if the model omits the tag, which some do.
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

    /// Whether calls are elements of one JSON array.
    pub(crate) fn opens_array(self) -> bool {
        self == Self::Mistral
    }

    /// Whether one answer may have several calls.
    pub(crate) fn allows_parallel(self) -> bool {
        self != Self::Llama3
    }

    /// Whether each argument has its own tag, so that its schema decides its type.
    pub(crate) fn spells_each_argument(self) -> bool {
        self == Self::QwenCoder
    }

    /// The arguments' key, in formats with a JSON object.
    pub(crate) fn arguments_key(self) -> &'static str {
        if self == Self::Llama3 { "parameters" } else { "arguments" }
    }
}
