//! Fields that change the meaning of an answer and that local models do not have: the table.

use super::fault::LocalFault;
use crate::openai::{ChatRequest, CompletionRequest};

pub(super) fn of_chat(request: &ChatRequest, faults: &mut Vec<LocalFault>) {
    let table = [
        ("web_search_options", request.web_search_options),
        ("search_parameters", request.search_parameters),
        ("enable_search", request.enable_search),
        ("plugins", request.plugins),
        ("grammar", request.grammar),
        ("guided_grammar", request.guided_grammar),
        ("documents", request.documents),
        ("chat_template", request.chat_template),
        ("stop_token_ids", request.stop_token_ids),
        ("allowed_token_ids", request.allowed_token_ids),
        ("bad_words", request.bad_words),
        ("prompt_logprobs", request.prompt_logprobs),
        ("system", request.system),
        ("instructions", request.instructions),
        ("stop_sequences", request.stop_sequences),
    ];
    let given = table.into_iter().filter(|(_, value)| value.0);
    faults.extend(given.map(|(name, _)| LocalFault::unsupported(name)));
}

pub(super) fn of_completion(request: &CompletionRequest, faults: &mut Vec<LocalFault>) {
    let table = [
        ("grammar", request.grammar),
        ("guided_grammar", request.guided_grammar),
        ("stop_token_ids", request.stop_token_ids),
        ("allowed_token_ids", request.allowed_token_ids),
        ("bad_words", request.bad_words),
        ("prompt_logprobs", request.prompt_logprobs),
    ];
    let given = table.into_iter().filter(|(_, value)| value.0);
    faults.extend(given.map(|(name, _)| LocalFault::unsupported(name)));
}
