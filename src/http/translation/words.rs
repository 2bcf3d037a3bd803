//! Complaints about a translated request, told with the fields that the client wrote. Pure.

use crate::openai::ErrorBody;

/// Field names of chat and of a surface.
pub type Fields = [(&'static str, &'static str)];

/// The error with the surface's names of the fields.
pub fn in_words_of(fields: &Fields, mut error: ErrorBody) -> ErrorBody {
    if let Some(param) = &error.param {
        let own = renamed(param, fields);
        error.message = error.message.replace(&format!("`{param}`"), &format!("`{own}`"));
        error.param = Some(own);
    }
    error
}

fn renamed(path: &str, fields: &Fields) -> String {
    let path = without_function(path);
    let renamed = fields.iter().find_map(|(chat, own)| {
        let rest = path.strip_prefix(chat)?;
        (rest.is_empty() || rest.starts_with(['.', '['])).then(|| format!("{own}{rest}"))
    });
    renamed.unwrap_or(path)
}

/// Only chat puts what describes a function one level deeper.
fn without_function(path: &str) -> String {
    match path.split_once("].function") {
        Some((place, rest)) if path.starts_with("tools[") => format!("{place}]{rest}"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{messages, responses};

    #[test]
    fn fields_have_the_names_of_the_surface() {
        for (fields, chat, own) in [
            (responses::words::FIELDS, "messages[2].content", "input[2].content"),
            (responses::words::FIELDS, "messages", "input"),
            (responses::words::FIELDS, "max_completion_tokens", "max_output_tokens"),
            (responses::words::FIELDS, "response_format.json_schema.schema", "text.format.schema"),
            (responses::words::FIELDS, "tools[1].function.parameters", "tools[1].parameters"),
            (responses::words::FIELDS, "temperature", "temperature"),
            (messages::words::FIELDS, "max_completion_tokens", "max_tokens"),
            (messages::words::FIELDS, "stop", "stop_sequences"),
            (messages::words::FIELDS, "stop_token_ids", "stop_token_ids"),
        ] {
            assert_eq!(renamed(chat, fields), own);
        }
        let error = ErrorBody {
            message: "`messages` takes at most 2 elements".to_owned(),
            kind: "invalid_request_error".to_owned(),
            param: Some("messages".to_owned()),
            code: None,
            n_prompt_tokens: None,
            n_ctx: None,
        };
        let error = in_words_of(responses::words::FIELDS, error);
        assert_eq!(error.message, "`input` takes at most 2 elements");
        assert_eq!(error.param.as_deref(), Some("input"));
    }
}
