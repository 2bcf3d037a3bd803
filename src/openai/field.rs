//! Names of request fields, for what is said and logged about a request without its text.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! fields {
    ($($field:ident $name:literal)*) => {
        /// A field of a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum RequestField {
            $(#[serde(rename = $name)] $field,)*
            /// Any other, also of logs of a later version.
            #[serde(rename = "other", other)]
            Other,
        }

        impl RequestField {
            pub const ALL: &'static [Self] = &[$(Self::$field,)* Self::Other];

            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$field => $name,)*
                    Self::Other => "other",
                }
            }

            /// The field at the root of a path, such as `tools` of `tools[0].type`.
            pub fn of(path: &str) -> Self {
                let end = path.find(['.', '[']).unwrap_or(path.len());
                match &path[..end] {
                    $($name => Self::$field,)*
                    _ => Self::Other,
                }
            }
        }
    };
}

fields! {
    AllowedTokenIds "allowed_token_ids"
    BadWords "bad_words"
    ChatTemplate "chat_template"
    Documents "documents"
    EnableSearch "enable_search"
    FrequencyPenalty "frequency_penalty"
    FunctionCall "function_call"
    Functions "functions"
    Grammar "grammar"
    GuidedGrammar "guided_grammar"
    Instructions "instructions"
    LogitBias "logit_bias"
    Logprobs "logprobs"
    MaxCompletionTokens "max_completion_tokens"
    MaxTokens "max_tokens"
    Messages "messages"
    N "n"
    Plugins "plugins"
    PresencePenalty "presence_penalty"
    PromptLogprobs "prompt_logprobs"
    RepeatPenalty "repeat_penalty"
    RepetitionPenalty "repetition_penalty"
    SearchParameters "search_parameters"
    Stop "stop"
    StopSequences "stop_sequences"
    StopTokenIds "stop_token_ids"
    System "system"
    Temperature "temperature"
    ToolChoice "tool_choice"
    Tools "tools"
    TopK "top_k"
    TopLogprobs "top_logprobs"
    WebSearchOptions "web_search_options"
}

impl fmt::Display for RequestField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_belongs_to_the_field_at_its_root() {
        assert_eq!(RequestField::of("tools[0].function.name"), RequestField::Tools);
        assert_eq!(RequestField::of("messages"), RequestField::Messages);
        assert_eq!(RequestField::of("x"), RequestField::Other);
        let later: RequestField = serde_json::from_str("\"of_next_year\"").unwrap();
        assert_eq!(later, RequestField::Other);
        assert_eq!(serde_json::to_string(&RequestField::TopK).unwrap(), "\"top_k\"");
    }
}
