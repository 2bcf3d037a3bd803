//! How a family of models spells tool calls and reasoning, recognised from its chat template.
//!
//! Pure. Formats as documented by their makers: Hermes function calling (also Qwen 2.5 and 3), Llama 3.1's JSON tool
//! calling (also without its tag, as in 3.2), Mistral's v3 instruct format, DeepSeek-R1's and Magistral's reasoning tags.

/// What a model's template tells of its answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// How it calls tools; `None` where the template knows no tools, or in a way that is not known here.
    pub calls: Option<CallFormat>,
    /// The tags around its reasoning.
    pub reasoning: Option<Tags>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFormat {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, any number of them.
    Hermes,
    /// `{"name": …, "parameters": {…}}` as the whole answer, perhaps after `<|python_tag|>`. One call an answer: the
    /// template refuses a history with more.
    Llama3,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`.
    Mistral,
}

/// The tags around a stretch of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags {
    pub open: &'static str,
    pub close: &'static str,
}

const REASONING: [Tags; 2] =
    [Tags { open: "<think>", close: "</think>" }, Tags { open: "[THINK]", close: "[/THINK]" }];

impl Dialect {
    /// `takes_tools`: the template has a variable `tools`. Without it, tags in the text are only prose.
    pub fn of(template: &str, takes_tools: bool) -> Self {
        let calls = [CallFormat::Hermes, CallFormat::Mistral, CallFormat::Llama3]
            .into_iter()
            .find(|format| format.is_spoken_in(template));
        let reasoning = REASONING.into_iter().find(|tags| template.contains(tags.close));
        Self { calls: calls.filter(|_| takes_tools), reasoning }
    }

    /// Every tag of the dialect: they must reach the parser also where they are control tokens, which are otherwise
    /// not part of an answer's text.
    pub fn tags(self) -> impl Iterator<Item = &'static str> {
        let calls = self.calls.into_iter().flat_map(|calls| [Some(calls.opener()), calls.closer()]);
        let reasoning = self.reasoning.into_iter().flat_map(|tags| [tags.open, tags.close]);
        calls.flatten().chain(reasoning)
    }
}

/// An assistant's earlier answer without the reasoning it begins with: what a model thought is not said again.
pub fn without_reasoning(answer: &str) -> &str {
    let reasoned = |tags: &Tags| {
        let (_, said) = answer.trim_start().strip_prefix(tags.open)?.split_once(tags.close)?;
        Some(said.trim_start())
    };
    REASONING.iter().find_map(reasoned).unwrap_or(answer)
}

impl CallFormat {
    /// Whether the template spells calls so. Later models of some families keep the tag and spell what follows otherwise.
    fn is_spoken_in(self, template: &str) -> bool {
        let has = |mark| template.contains(mark);
        match self {
            Self::Hermes => has("<tool_call>") && !has("<function=") && !has("<arg_key>"),
            Self::Llama3 => has("<|python_tag|>") || has("<|start_header_id|>ipython"),
            Self::Mistral => has("[TOOL_CALLS]") && !has("[ARGS]"),
        }
    }

    /// The tag before a call.
    pub fn opener(self) -> &'static str {
        match self {
            Self::Hermes => "<tool_call>",
            Self::Llama3 => "<|python_tag|>",
            Self::Mistral => "[TOOL_CALLS]",
        }
    }

    /// The tag after each call.
    pub fn closer(self) -> Option<&'static str> {
        (self == Self::Hermes).then_some("</tool_call>")
    }

    /// Whether the calls stand in one JSON array.
    pub fn opens_array(self) -> bool {
        self == Self::Mistral
    }

    /// Whether one answer may hold several calls.
    pub fn allows_parallel(self) -> bool {
        self != Self::Llama3
    }

    /// What the arguments are called.
    pub fn arguments_key(self) -> &'static str {
        if self == Self::Llama3 { "parameters" } else { "arguments" }
    }
}
