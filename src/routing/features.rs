//! Features of a request: its structure, never its text. Pure.
//!
//! Small and free of content, so that they are logged with every request and replay can decide
//! again.

use serde::{Deserialize, Serialize};

use super::local_fault::{FieldSet, LocalFault, local_faults};
use super::task::{Form, TaskClass};
use crate::openai::lenient::UNLIMITED;
use crate::openai::tools::{FunctionCall, FunctionDefinition};
use crate::openai::{
    ChatRequest, CompletionRequest, Content, EmbeddingRequest, Input, Inputs, Message, Request,
    Role, Tool,
};

/// Bytes of English text per token, a rule of thumb for byte-pair vocabularies; only used until the
/// chosen engine has counted exactly.
const BYTES_PER_TOKEN: usize = 4;

/// Tokens that a chat template adds per turn (role markers and separators).
const TOKENS_PER_TURN: usize = 4;

/// Output length assumed without a client limit.
const TYPICAL_OUTPUT_TOKENS: u32 = 256;

/// Structure of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// Estimated prompt tokens, template included.
    pub prompt_tokens: u32,
    /// The client's output limit, or a typical length if that is smaller, times the number of
    /// choices.
    pub output_tokens: u32,
    pub turns: u32,
    #[serde(default)]
    pub task: TaskClass,
    /// The client's output limit per choice, if set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_limit: Option<u32>,
    /// Number of answers requested; absent for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<u32>,
    /// Estimated tokens of the longest of several prompts, which are read one by one; absent for a
    /// single prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_prompt_tokens: Option<u32>,
    /// Tokens that the longest prompt has in any vocabulary, whatever the estimate says; absent in
    /// old logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least_prompt_tokens: Option<u32>,
    /// Fields that only upstreams honour, or whose values only upstreams take.
    #[serde(default, skip_serializing_if = "FieldSet::is_empty")]
    pub upstream_only: FieldSet,
    /// Capabilities that the request needs.
    pub needs: Capabilities,
}

impl Features {
    pub fn of(request: &Request) -> Self {
        let mut features = match request {
            Request::Chat(request) => Self::of_chat(request),
            Request::Completion(request) => Self::of_completion(request),
            Request::Embedding(request) => Self::of_embedding(request),
        };
        let faults = local_faults(request);
        features.upstream_only = faults.iter().map(LocalFault::field).collect();
        features.needs.upstream_fields = !features.upstream_only.is_empty();
        features
    }

    /// Estimate of the tokens that must fit into a model's context at once.
    pub fn context_tokens(&self) -> u32 {
        self.longest_prompt_tokens.unwrap_or(self.prompt_tokens)
    }

    /// Tokens that certainly must. Where they are not known: half of the estimate, which is rough.
    pub fn least_context_tokens(&self) -> u32 {
        self.least_prompt_tokens.unwrap_or(self.context_tokens() / 2)
    }

    /// Number of answers requested, at least 1.
    pub fn answers(&self) -> u32 {
        self.choices.unwrap_or(1).max(1)
    }

    fn of_chat(request: &ChatRequest) -> Self {
        let contents = || request.messages.iter().filter_map(|message| message.content.as_ref());
        let bytes: usize = contents().map(|content| content.text().len()).sum::<usize>()
            + request.messages.iter().map(call_bytes).sum::<usize>()
            + request.tools.iter().flatten().map(schema_bytes).sum::<usize>();
        let turns = request.messages.len();
        let prompt_tokens = bytes.div_ceil(BYTES_PER_TOKEN) + turns * TOKENS_PER_TURN;
        let prompt_tokens = u32::try_from(prompt_tokens).unwrap_or(u32::MAX);
        let tools = request.tools.as_ref().is_some_and(|tools| !tools.is_empty());
        let schema = request.constraints().constrain();
        let form =
            Form { tools: tools || waits_for_tool(&request.messages), schema, prompt_tokens };
        Self {
            prompt_tokens,
            task: TaskClass::of(&last_question(&request.messages), form),
            output_limit: request.output_limit(),
            choices: request.n.filter(|n| *n > 1),
            output_tokens: output_tokens(request.output_limit(), request.n.unwrap_or(1)),
            turns: u32::try_from(turns).unwrap_or(u32::MAX),
            longest_prompt_tokens: None,
            least_prompt_tokens: Some(count(
                contents().map(|content| least_tokens(&content.text())).sum::<usize>()
                    + calls(&request.messages).map(least_argument_tokens).sum::<usize>(),
            )),
            needs: Capabilities {
                chat: true,
                tools,
                schema,
                media: has_media(request),
                logprobs: request.logprobs.unwrap_or(false),
                choices: request.n.unwrap_or(1) > 1,
                raw_details: false,
                upstream_fields: false,
                embeddings: false,
            },
            upstream_only: FieldSet::default(),
        }
    }

    fn of_completion(request: &CompletionRequest) -> Self {
        let candidates = request.best_of.unwrap_or(1).max(request.choices());
        let prompts = u32::try_from(request.prompt.0.len()).unwrap_or(u32::MAX);
        let answers = candidates.saturating_mul(prompts);
        let echo = request.echo.unwrap_or(false);
        let question = request.prompt.0.iter().find_map(Input::text).unwrap_or_default();
        let of_prompt = Self::of_inputs(&request.prompt);
        let form = Form { prompt_tokens: of_prompt.prompt_tokens, ..Form::default() };
        Self {
            output_tokens: output_tokens(Some(request.output_limit()), answers),
            task: TaskClass::of(question, form),
            output_limit: Some(request.output_limit()).filter(|limit| *limit != UNLIMITED),
            choices: Some(answers).filter(|answers| *answers > 1),
            needs: Capabilities {
                schema: request.constraints().constrain(),
                logprobs: request.logprobs.is_some(),
                choices: candidates > 1,
                raw_details: request.has_suffix()
                    || request.ranks_candidates()
                    || echo && request.logprobs.is_some(),
                ..Capabilities::default()
            },
            ..of_prompt
        }
    }

    fn of_embedding(request: &EmbeddingRequest) -> Self {
        Self {
            needs: Capabilities { embeddings: true, ..Capabilities::default() },
            output_limit: Some(0),
            ..Self::of_inputs(&request.input)
        }
    }

    fn of_inputs(inputs: &Inputs) -> Self {
        let tokens = |input: &Input| match input {
            Input::Text(text) => text.len().div_ceil(BYTES_PER_TOKEN),
            Input::Tokens(tokens) => tokens.len(),
        };
        let least = |input: &Input| match input {
            Input::Text(text) => least_tokens(text),
            Input::Tokens(tokens) => tokens.len(),
        };
        let longest = inputs.0.iter().map(tokens).max().filter(|_| inputs.0.len() > 1);
        Self {
            prompt_tokens: count(inputs.0.iter().map(tokens).sum()),
            longest_prompt_tokens: longest.map(count),
            least_prompt_tokens: inputs.0.iter().map(least).max().map(count),
            turns: count(inputs.0.len()),
            ..Self::default()
        }
    }
}

fn count(tokens: usize) -> u32 {
    u32::try_from(tokens).unwrap_or(u32::MAX)
}

/// Tokens that a text has at least, in any vocabulary.
///
/// Blanks, rules and indentation take few tokens for their bytes: the longest token of the known
/// vocabularies has 128 bytes. Words do not: a token holds one, or in few vocabularies some of the
/// most frequent pairs.
fn least_tokens(text: &str) -> usize {
    const LONGEST_TOKEN: usize = 256;
    const WORDS_PER_TOKEN: usize = 2;
    let bytes = text.as_bytes();
    let is_letter = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    // Each pair by itself, which the compiler makes vector code of.
    let begin = bytes
        .windows(2)
        .filter(|pair| !pair[0].is_ascii_alphanumeric() && pair[1].is_ascii_alphanumeric());
    let words = usize::from(is_letter(bytes.first())) + begin.count();
    (words / WORDS_PER_TOKEN).max(text.len() / LONGEST_TOKEN)
}

fn calls(messages: &[Message]) -> impl Iterator<Item = &FunctionCall> {
    let calls = messages.iter().flat_map(|message| message.tool_calls.iter().flatten());
    calls.filter_map(|call| call.function.as_ref())
}

/// Bytes of a turn's calls, which templates write out. What they may leave out is not counted:
/// reasoning, names of speakers, variables.
fn call_bytes(message: &Message) -> usize {
    let calls = calls(std::slice::from_ref(message));
    calls.map(|call| call.name.len() + call.arguments.len()).sum()
}

/// Tokens that a call's arguments have at least: JSON that templates write anew, without its
/// whitespace and escapes. An escaped character is six bytes.
fn least_argument_tokens(call: &FunctionCall) -> usize {
    const ESCAPED_BYTES: usize = 6;
    least_tokens(call.arguments.trim()) / ESCAPED_BYTES
}

/// Whether the request or its answer is more than text. The sound of an earlier turn is media, too:
/// its words are only in it.
fn has_media(request: &ChatRequest) -> bool {
    let of_turn = |message: &Message| {
        message.audio.0 || message.content.as_ref().is_some_and(Content::has_media)
    };
    request.messages.iter().any(of_turn) || request.wants_media()
}

/// Whether the conversation waits for a model to continue after a tool: a tool result follows the
/// last assistant turn.
pub fn waits_for_tool(messages: &[Message]) -> bool {
    let since = messages.iter().rev().take_while(|message| message.role != Role::Assistant);
    since.into_iter().any(|message| matches!(message.role, Role::Tool | Role::Function))
}

fn last_question(messages: &[Message]) -> std::borrow::Cow<'_, str> {
    let last = messages.iter().rev().find(|message| message.role == Role::User);
    last.and_then(|message| message.content.as_ref()).map(Content::text).unwrap_or_default()
}

/// Bytes that a tool adds to the prompt, mostly its schema.
fn schema_bytes(tool: &Tool) -> usize {
    let description = |function: &FunctionDefinition| {
        let schema = function.parameters.as_ref().map_or(0, |schema| schema.get().len());
        function.name.len() + function.description.as_ref().map_or(0, String::len) + schema
    };
    tool.function.as_ref().map_or(0, description)
}

/// All choices together.
fn output_tokens(limit: Option<u32>, choices: u32) -> u32 {
    let each = limit.map_or(TYPICAL_OUTPUT_TOKENS, |limit| limit.min(TYPICAL_OUTPUT_TOKENS));
    each.saturating_mul(choices.max(1))
}

/// Capabilities beyond continuing text: needed by a request, or offered by a model.
#[expect(clippy::struct_excessive_bools, reason = "independent yes/no abilities, each named")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Conversations: a model without a chat template only continues raw prompts.
    #[serde(default)]
    pub chat: bool,
    pub tools: bool,
    /// `response_format` other than text.
    pub schema: bool,
    /// Images, audio or files in the messages, or in the answer.
    pub media: bool,
    pub logprobs: bool,
    /// More than one choice (`n`).
    pub choices: bool,
    /// Details of raw prompts that local models do not support: a suffix, the best of several
    /// candidates, log-probabilities of the prompt itself.
    #[serde(default)]
    pub raw_details: bool,
    /// Fields, or values of fields, that only upstreams know.
    #[serde(default)]
    pub upstream_fields: bool,
    /// Vectors instead of text: excludes all other capabilities.
    #[serde(default)]
    pub embeddings: bool,
}

impl Capabilities {
    /// All capabilities for answers in text.
    pub const ALL: Self = Self {
        chat: true,
        tools: true,
        schema: true,
        media: true,
        logprobs: true,
        choices: true,
        raw_details: true,
        upstream_fields: true,
        embeddings: false,
    };
    /// Capabilities of an embedding model.
    pub const EMBEDDINGS: Self = Self {
        chat: false,
        tools: false,
        schema: false,
        media: false,
        logprobs: false,
        choices: false,
        raw_details: false,
        upstream_fields: false,
        embeddings: true,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_and_rules_are_few_tokens_and_words_are_not() {
        let rules = ("-".repeat(78) + "\n").repeat(34);
        let table = format!("| {:<96} |\n", "name of a row").repeat(27);
        for (text, least, most) in [
            (" ".repeat(40_000), 100, 600),
            (rules, 5, 110),
            (table, 10, 230),
            ("=".repeat(3000), 5, 50),
            ("word ".repeat(9000), 4097, 9001),
            ("0".repeat(3_000_000), 4097, 1_500_000),
        ] {
            let counted = least_tokens(&text);
            assert!((least..=most).contains(&counted), "{counted}: {text:.20}");
        }
    }
}
