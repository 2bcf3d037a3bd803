//! What of a request local models do not do, and what of its values they do not take. Pure.
//!
//! The edge refuses only what no server could understand. The rest is a matter of the model:
//! an upstream gets the request as it is and judges for itself, while local models are excluded,
//! by the name of the field, rather than ignore it.

mod fault;
mod field_set;
mod ranges;
mod tools;
mod turns;
mod upstream_only;

pub use self::fault::LocalFault;
pub use self::field_set::FieldSet;
use crate::openai::Request;

/// Everything about `request` that excludes local models, gravest first.
pub fn local_faults(request: &Request) -> Vec<LocalFault> {
    let mut faults = Vec::new();
    match request {
        Request::Chat(request) => {
            upstream_only::of_chat(request, &mut faults);
            turns::faults(&request.messages, &mut faults);
            tools::faults(request, &mut faults);
            ranges::of_chat(request, &mut faults);
        }
        Request::Completion(request) => {
            upstream_only::of_completion(request, &mut faults);
            ranges::of_completion(request, &mut faults);
        }
        Request::Embedding(_) => {}
    }
    faults
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Paths of the faults of a conversation with more fields.
    fn chat(more: &Value) -> Vec<String> {
        let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let request = serde_json::from_str(&body.to_string()).unwrap();
        local_faults(&Request::Chat(request)).into_iter().map(|fault| fault.param).collect()
    }

    fn raw(more: &Value) -> Vec<String> {
        let mut body = json!({"model": "m", "prompt": "hi"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let request = serde_json::from_str(&body.to_string()).unwrap();
        local_faults(&Request::Completion(request)).into_iter().map(|fault| fault.param).collect()
    }

    #[test]
    fn what_only_upstreams_do_is_named() {
        for (field, value) in [
            ("web_search_options", json!({})),
            ("search_parameters", json!({"mode": "on"})),
            ("enable_search", json!(true)),
            ("plugins", json!([{"id": "web"}])),
            ("grammar", json!("root ::= \"a\"")),
            ("guided_grammar", json!("root ::= \"a\"")),
            ("documents", json!([{"text": "x"}])),
            ("chat_template", json!("{{ messages }}")),
            ("stop_token_ids", json!([2])),
            ("allowed_token_ids", json!([2])),
            ("bad_words", json!(["x"])),
            ("prompt_logprobs", json!(1)),
            ("system", json!("Be brief.")),
            ("instructions", json!("Be brief.")),
            ("stop_sequences", json!(["x"])),
        ] {
            assert_eq!(chat(&json!({field: value})), [field]);
        }
        for (field, value) in [("grammar", json!("x")), ("bad_words", json!(["x"]))] {
            assert_eq!(raw(&json!({field: value})), [field]);
        }
    }

    #[test]
    fn hints_and_empty_values_exclude_no_model() {
        let hints = json!({
            "plugins": [], "grammar": "", "web_search_options": null, "enable_search": false,
            "prediction": {"type": "content", "content": "x"}, "store": true, "service_tier": "auto",
            "reasoning_effort": "low", "verbosity": "low", "prompt_cache_key": "k", "functions": [],
            "top_logprobs": 0, "seed": 18_446_744_073_709_551_615_u64, "logit_bias": [],
        });
        assert_eq!(chat(&hints), [""; 0]);
    }
}
