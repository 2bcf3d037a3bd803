//! Prompts that a model's context cannot hold, in the words of the servers in use. Pure.

use super::said::Said;
use crate::backends::backend::CONTEXT_LENGTH_EXCEEDED;

/// How a server says that a prompt is too long.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TooLong {
    /// With both counts.
    Counted { prompt_tokens: u32, context_tokens: u32 },
    /// In words alone.
    Said,
}

/// Codes and types that say so.
const NAMES: [&str; 3] =
    [CONTEXT_LENGTH_EXCEEDED, "exceed_context_size_error", "context_window_exceeded"];

/// Parts of sentences; all of a row must be there.
const WORDS: [&[&str]; 26] = [
    &["maximum context length"],
    &["context length", "exceed"],
    &["context length", "longer than"],
    &["context length of only"],
    &["context window", "exceed"],
    &["context size", "exceed"],
    &["context limit", "exceed"],
    &["max context length"],
    &["prompt is too long"],
    &["prompt too long"],
    &["prompt is longer than"],
    &["input is too long"],
    &["input too long"],
    &["input token length", "too long"],
    &["too many input tokens"],
    &["too many tokens"],
    &["maximum model length"],
    &["maximum allowed length"],
    &["maximum prompt length"],
    &["maximum number of tokens allowed"],
    &["input token count", "only supports"],
    &["`inputs` tokens", "must be"],
    &["`inputs` must have less"],
    &["reduce the length of the messages"],
    &["model token limit"],
    &["range of input length"],
];

/// What stands before the number of the prompt's tokens, and before that of the context's; anything
/// may stand in place of an ellipsis.
const COUNTS: [(&str, &str); 20] = [
    ("messages resulted in ", "context length is "),
    ("prompt resulted in ", "context length is "),
    ("you requested … tokens (", "context length is "),
    ("you requested a total of ", "context length of "),
    ("prompt (length ", "maximum model length of "),
    ("input (", "context length ("),
    ("input length (", "maximum allowed length ("),
    ("too long: ", "tokens > "),
    ("too long: ", "maximum context length: "),
    ("input token count (", "tokens allowed ("),
    ("input token count is ", "only supports up to "),
    ("prompt contains ", "too large for model with "),
    ("request (", "context size ("),
    ("given: ", "must be <= "),
    ("given: ", "must have less than "),
    ("request input token count: ", "max input tokens: "),
    ("received ", "cannot exceed "),
    ("request contains ", "maximum prompt length is "),
    ("current length is ", "limit is "),
    ("requested: ", "token limit: "),
];

pub(super) fn too_long(said: &Said) -> Option<TooLong> {
    let counted = |(prompt_tokens, context_tokens)| {
        // Else it is the answer that would not fit.
        (prompt_tokens > context_tokens)
            .then_some(TooLong::Counted { prompt_tokens, context_tokens })
    };
    if let Some(counts) = said.counted {
        return Some(counted(counts).unwrap_or(TooLong::Said));
    }
    let message = said.message.as_deref().unwrap_or_default().to_lowercase();
    let is_named = said.names().any(|name| NAMES.contains(&&*name));
    let is_said = WORDS.iter().any(|row| row.iter().all(|words| message.contains(words)));
    if !is_named && !is_said {
        return None;
    }
    let counts = COUNTS.iter().find_map(|(prompt, context)| {
        Some((number_after(&message, prompt)?, number_after(&message, context)?))
    });
    Some(counts.and_then(counted).unwrap_or(TooLong::Said))
}

/// The number that follows `words`, maybe with separators of thousands.
fn number_after(message: &str, words: &str) -> Option<u32> {
    if let Some((first, then)) = words.split_once('…') {
        let (_, rest) = message.split_once(first)?;
        return number_after(rest, then);
    }
    message.match_indices(words).find_map(|(place, _)| {
        let rest = &message[place + words.len()..];
        let end = rest.find(|c: char| !matches!(c, '0'..='9' | ',' | '_')).unwrap_or(rest.len());
        let digits: String = rest[..end].chars().filter(char::is_ascii_digit).collect();
        digits.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the tokens of the prompt and of the context.
    const SENTENCES: &[(&str, u32, u32)] = &[
        (
            "This model's maximum context length is 4097 tokens. However, your messages resulted in 5000 tokens. Please reduce the length of the messages.",
            5000,
            4097,
        ),
        (
            "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4744 in the messages, 256 in the completion).",
            4744,
            4096,
        ),
        (
            "This endpoint's maximum context length is 32768 tokens. However, you requested about 40256 tokens (40000 of text input, 256 in the output).",
            40000,
            32768,
        ),
        (
            "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure that `max_model_len` is no smaller.",
            5000,
            4096,
        ),
        (
            "The input (9000 tokens) is longer than the model's context length (8192 tokens).",
            9000,
            8192,
        ),
        (
            "Input length (700001 tokens) exceeds the maximum allowed length (699994 tokens).",
            700_001,
            699_994,
        ),
        (
            "Requested token count exceeds the model's maximum context length of 8192 tokens. You requested a total of 9000 tokens.",
            9000,
            8192,
        ),
        ("prompt is too long: 210,000 tokens > 200000 maximum", 210_000, 200_000),
        (
            "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
            1_200_000,
            1_048_576,
        ),
        (
            "Unable to submit request because the input token count is 40000 but model only supports up to 32768.",
            40000,
            32768,
        ),
        (
            "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
            40000,
            32768,
        ),
        (
            "request (9000 tokens) exceeds the available context size (4096 tokens), try increasing it",
            9000,
            4096,
        ),
        (
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` tokens and 100 `max_new_tokens`",
            5000,
            4096,
        ),
        (
            "Input validation error: `inputs` must have less than 1024 tokens. Given: 2000",
            2000,
            1024,
        ),
        (
            "Too many input tokens. Max input tokens: 8192, request input token count: 9000",
            9000,
            8192,
        ),
        (
            "too many tokens: total number of tokens in the prompt cannot exceed 4081 - received 5000.",
            5000,
            4081,
        ),
        (
            "This model's maximum prompt length is 131072 but the request contains 200000 tokens.",
            200_000,
            131_072,
        ),
        ("The prompt is too long: 200000, model maximum context length: 131071", 200_000, 131_071),
        (
            "Please reduce the length of the messages or completion. Current length is 9000 while limit is 8192",
            9000,
            8192,
        ),
        (
            "Invalid request: Your request exceeded model token limit: 8192 (requested: 9000)",
            9000,
            8192,
        ),
    ];

    fn read(message: &str) -> Option<TooLong> {
        too_long(&Said { message: Some(message.to_owned()), ..Said::default() })
    }

    #[test]
    fn each_servers_counts_are_read() {
        for &(message, prompt_tokens, context_tokens) in SENTENCES {
            assert_eq!(
                read(message),
                Some(TooLong::Counted { prompt_tokens, context_tokens }),
                "{message}"
            );
        }
    }

    #[test]
    fn words_alone_are_recognised() {
        for message in [
            "Your input exceeds the context window of this model. Please adjust your input and try again.",
            "Please reduce the length of the messages or completion.",
            "the request exceeds the available context size. try increasing the context size",
            "input length and `max_tokens` exceed context limit: 199000 + 20000 > 200000, decrease input length",
            "'max_tokens' is too large: 10000. This model's maximum context length is 4096 tokens and your request has 100 input tokens (10000 > 4096 - 100).",
            "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4000 in the messages, 1000 in the completion).",
            "The input token count exceeds the maximum number of tokens allowed 30720.",
            "the input length exceeds the context length",
            "prompt too long; exceeded max context length by 123 tokens",
            "Input is too long for requested model.",
            "too many tokens: size limit exceeded by 123 tokens.",
            "However, the model is loaded with context length of only 4096 tokens, which is not enough.",
            "InternalError.Algo.InvalidParameter: Range of input length should be [1, 30720]",
            "Input token length too long",
        ] {
            assert_eq!(read(message), Some(TooLong::Said), "{message}");
        }
        let named = Said { code: Some("context_length_exceeded".into()), ..Said::default() };
        assert_eq!(too_long(&named), Some(TooLong::Said));
        let counted = Said { counted: Some((9000, 4096)), ..Said::default() };
        let exceeded = TooLong::Counted { prompt_tokens: 9000, context_tokens: 4096 };
        assert_eq!(too_long(&counted), Some(exceeded));
    }

    #[test]
    fn other_complaints_are_not() {
        for message in [
            "Invalid value for 'content': expected a string, got null.",
            "max_tokens must be at least 1, got -5.",
            "The model `x` does not exist.",
            "temperature is too high",
            "name is too long",
            "",
        ] {
            assert_eq!(read(message), None, "{message}");
        }
    }
}
