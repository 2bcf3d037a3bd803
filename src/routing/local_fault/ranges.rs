//! Values that local models do not take: beyond the ranges that OpenAI documents, or their
//! inventors where OpenAI has none.

use super::fault::LocalFault;
use crate::openai::{ChatRequest, CompletionRequest, SamplingFields, Stop};

/// Most choices of one request, and most tokens told at each place: OpenAI's limits.
const MOST_CHOICES: u32 = 128;
const MOST_TOP_LOGPROBS: u32 = 20;
/// More strings than anyone needs; each is compared with every token.
const MOST_STOPS: usize = 16;

pub(super) fn of_chat(request: &ChatRequest, faults: &mut Vec<LocalFault>) {
    of_sampling(&request.sampling(), faults);
    of_stop(request.stop.as_ref(), faults);
    let top = request.top_logprobs.unwrap_or(0);
    if top > MOST_TOP_LOGPROBS {
        faults.push(LocalFault::value("top_logprobs", "must be between 0 and 20"));
    } else if top > 0 && request.logprobs != Some(true) {
        faults.push(LocalFault::value("top_logprobs", "needs `logprobs` to be true"));
    }
    if request.output_limit() == Some(0) {
        let own = request.max_completion_tokens.is_some();
        let param = if own { "max_completion_tokens" } else { "max_tokens" };
        faults.push(LocalFault::value(param, "must be at least 1"));
    }
}

pub(super) fn of_completion(request: &CompletionRequest, faults: &mut Vec<LocalFault>) {
    of_sampling(&request.sampling(), faults);
    of_stop(request.stop.as_ref(), faults);
    if request.logprobs.is_some_and(|top| top > MOST_TOP_LOGPROBS) {
        faults.push(LocalFault::value("logprobs", "must be between 0 and 20"));
    }
}

fn of_stop(stop: Option<&Stop>, faults: &mut Vec<LocalFault>) {
    if stop.is_some_and(|stop| stop.0.len() > MOST_STOPS) {
        faults.push(LocalFault::value("stop", "takes at most 16 strings"));
    }
}

fn of_sampling(fields: &SamplingFields<'_>, faults: &mut Vec<LocalFault>) {
    let within = |value: Option<f32>, low: f32, high: f32| {
        value.is_none_or(|value| (low..=high).contains(&value))
    };
    let mut bias = fields.logit_bias.into_iter().flatten();
    let rules = [
        ("temperature", within(fields.temperature, 0.0, 2.0), "must be between 0 and 2"),
        (
            "frequency_penalty",
            within(fields.frequency_penalty, -2.0, 2.0),
            "must be between -2 and 2",
        ),
        (
            "presence_penalty",
            within(fields.presence_penalty, -2.0, 2.0),
            "must be between -2 and 2",
        ),
        (
            "top_k",
            fields.top_k.is_none_or(|k| k >= -1),
            "must be at least 1, or 0 or -1 for all tokens",
        ),
        (
            "repeat_penalty",
            fields.repeat_penalty.is_none_or(|penalty| penalty > 0.0 && penalty <= 10.0),
            "must be more than 0 and at most 10",
        ),
        (
            "logit_bias",
            bias.all(|(_, bias)| (-100.0..=100.0).contains(bias)),
            "takes values between -100 and 100",
        ),
        ("n", fields.n.is_none_or(|n| n <= MOST_CHOICES), "must be between 1 and 128"),
    ];
    let broken = rules.into_iter().filter(|(_, kept, _)| !kept);
    faults.extend(broken.map(|(param, _, rule)| LocalFault::value(param, rule)));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn fault(field: &str, value: &Value) -> Option<String> {
        let mut body = json!({"model": "m", "messages": [], "logprobs": true});
        body[field] = value.clone();
        let mut faults = Vec::new();
        of_chat(&serde_json::from_value(body).unwrap(), &mut faults);
        faults.into_iter().next().map(|fault| fault.param)
    }

    #[test]
    fn borders_are_inside_and_beyond_them_local_models_are_out() {
        let many: Vec<String> = (0..17).map(|stop| stop.to_string()).collect();
        let cases = [
            ("temperature", json!([0, 2]), json!([2.1, 5])),
            ("frequency_penalty", json!([-2, 2]), json!([-2.1, 2.1])),
            ("presence_penalty", json!([-2, 2]), json!([-2.1, 2.1])),
            ("repeat_penalty", json!([0.1, 1, 10]), json!([0, -1, 10.5])),
            ("top_k", json!([-1, 0, 1, 100_000, 40.0]), json!([-2])),
            ("n", json!([1, 128, 1.0]), json!([129])),
            ("top_logprobs", json!([0, 20, 5.0]), json!([21])),
            ("logit_bias", json!([{}, {"5": -100, "6": 100}]), json!([{"5": -101}, {"7": 100.5}])),
            ("max_tokens", json!([1, -1, 100.0]), json!([0])),
            ("max_completion_tokens", json!([1, -1, null]), json!([0])),
            ("stop", json!(["x", many[..16], []]), json!([many])),
        ];
        for (field, inside, outside) in cases {
            for value in inside.as_array().unwrap() {
                assert_eq!(fault(field, value), None, "{field} = {value}");
            }
            for value in outside.as_array().unwrap() {
                assert_eq!(fault(field, value).as_deref(), Some(field), "{field} = {value}");
            }
        }
    }

    #[test]
    fn top_logprobs_need_logprobs_unless_they_ask_for_none() {
        let mut faults = Vec::new();
        for top in [0, 2] {
            let body = json!({"model": "m", "messages": [], "top_logprobs": top});
            of_chat(&serde_json::from_value(body).unwrap(), &mut faults);
            assert_eq!(faults.len(), usize::from(top > 0));
        }
    }

    #[test]
    fn raw_prompts_have_the_same_ranges() {
        let fault = |field: &str, value: Value| {
            let mut body = json!({"model": "m", "prompt": "hi"});
            body[field] = value;
            let mut faults = Vec::new();
            of_completion(&serde_json::from_value(body).unwrap(), &mut faults);
            faults.into_iter().next().map(|fault| fault.param)
        };
        assert_eq!(fault("temperature", json!(2.1)).as_deref(), Some("temperature"));
        assert_eq!(fault("n", json!(129)).as_deref(), Some("n"));
        assert_eq!(fault("logprobs", json!(20)), None);
        assert_eq!(fault("logprobs", json!(21)).as_deref(), Some("logprobs"));
        assert_eq!(fault("max_tokens", json!(0)), None);
    }

    #[test]
    fn of_two_repeat_penalties_llama_servers_name_goes_first() {
        let penalty = |more: &str| {
            let json = format!(r#"{{"model":"m","messages":[]{more}}}"#);
            serde_json::from_str::<ChatRequest>(&json).unwrap().sampling().repeat_penalty
        };
        assert_eq!(penalty(r#","repetition_penalty":1.25"#), Some(1.25));
        assert_eq!(penalty(r#","repeat_penalty":1.5,"repetition_penalty":1.25"#), Some(1.5));
        assert_eq!(penalty(r#","repeat_penalty":null,"repetition_penalty":1.25"#), Some(1.25));
        assert_eq!(penalty(r#","repeat_penalty":1.5,"repetition_penalty":null"#), Some(1.5));
    }
}
