//! The ranges of the fields that shape sampling, as OpenAI documents them, or their inventors where
//! OpenAI has none.

use crate::openai::{ChatRequest, CompletionRequest, SamplingFields};

/// Most choices of one request, and most tokens told at each place: OpenAI's limits.
const MOST_CHOICES: u32 = 128;
const MOST_TOP_LOGPROBS: u32 = 20;
/// The older API's limit.
const MOST_COMPLETION_LOGPROBS: u32 = 5;

/// A field that is out of its range.
pub struct Fault {
    pub param: &'static str,
    /// What it must be: continues a sentence that begins with its name.
    pub message: String,
}

impl Fault {
    fn new(param: &'static str, message: &str) -> Self {
        Self { param, message: message.to_owned() }
    }
}

/// A field, its value, and the lowest and highest that it may have.
type Range = (&'static str, Option<f32>, f32, f32);

/// The first field of a conversation's request that is out of its range.
pub fn fault(request: &ChatRequest) -> Option<Fault> {
    sampling_fault(&request.sampling()).or_else(|| {
        if request.top_logprobs.is_some_and(|top| top > MOST_TOP_LOGPROBS) {
            Some(Fault::new("top_logprobs", "must be between 0 and 20"))
        } else if request.top_logprobs.is_some() && request.logprobs != Some(true) {
            Some(Fault::new("top_logprobs", "needs `logprobs` to be true"))
        } else {
            None
        }
    })
}

/// The first field of a raw completion's request that is out of its range.
pub fn completion_fault(request: &CompletionRequest) -> Option<Fault> {
    sampling_fault(&request.sampling()).or_else(|| {
        if request.logprobs.is_some_and(|top| top > MOST_COMPLETION_LOGPROBS) {
            Some(Fault::new("logprobs", "must be between 0 and 5"))
        } else if request.best_of.is_some_and(|candidates| candidates < request.choices()) {
            Some(Fault::new("best_of", "must be at least `n`"))
        } else {
            None
        }
    })
}

fn sampling_fault(fields: &SamplingFields<'_>) -> Option<Fault> {
    let ranges = [
        ("temperature", fields.temperature, 0.0, 2.0),
        ("top_p", fields.top_p, 0.0, 1.0),
        ("min_p", fields.min_p, 0.0, 1.0),
        ("frequency_penalty", fields.frequency_penalty, -2.0, 2.0),
        ("presence_penalty", fields.presence_penalty, -2.0, 2.0),
    ];
    outside(&ranges).or_else(|| wrong(fields))
}

fn outside(ranges: &[Range]) -> Option<Fault> {
    let is_outside = |(_, value, low, high): &&Range| {
        value.is_some_and(|value| !(*low..=*high).contains(&value))
    };
    let (param, _, low, high) = ranges.iter().find(is_outside)?;
    Some(Fault { param, message: format!("must be between {low} and {high}") })
}

fn wrong(fields: &SamplingFields<'_>) -> Option<Fault> {
    let mut bias = fields.logit_bias.into_iter().flatten();
    if fields.top_k.is_some_and(|k| k < -1) {
        Some(Fault::new("top_k", "must be at least 1, or 0 or -1 for all tokens"))
    } else if fields.repeat_penalty.is_some_and(|penalty| penalty <= 0.0 || penalty > 10.0) {
        Some(Fault::new("repeat_penalty", "must be more than 0 and at most 10"))
    } else if bias.any(|(_, bias)| !(-100.0..=100.0).contains(bias)) {
        Some(Fault::new("logit_bias", "takes values between -100 and 100"))
    } else if fields.n.is_some_and(|n| n == 0 || n > MOST_CHOICES) {
        Some(Fault::new("n", "must be between 1 and 128"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn fault_of(field: &str, value: &Value) -> Option<&'static str> {
        let mut body = json!({"model": "m", "messages": [], "logprobs": true});
        body[field] = value.clone();
        fault(&serde_json::from_value(body).unwrap()).map(|fault| fault.param)
    }

    #[test]
    fn borders_are_inside_and_beyond_them_is_out() {
        let cases = [
            ("temperature", json!([0, 2]), json!([-0.1, 2.1])),
            ("top_p", json!([0, 1]), json!([-0.1, 1.1])),
            ("min_p", json!([0, 1]), json!([-0.1, 1.1])),
            ("frequency_penalty", json!([-2, 2]), json!([-2.1, 2.1])),
            ("presence_penalty", json!([-2, 2]), json!([-2.1, 2.1])),
            ("repeat_penalty", json!([0.1, 1, 10]), json!([0, -1, 10.5])),
            ("top_k", json!([-1, 0, 1, 100_000]), json!([-2])),
            ("n", json!([1, 128]), json!([0, 129])),
            ("top_logprobs", json!([0, 20]), json!([21])),
            ("logit_bias", json!([{}, {"5": -100, "6": 100}]), json!([{"5": -101}, {"7": 100.5}])),
        ];
        for (field, inside, outside) in cases {
            for value in inside.as_array().unwrap() {
                assert_eq!(fault_of(field, value), None, "{field} = {value}");
            }
            for value in outside.as_array().unwrap() {
                assert_eq!(fault_of(field, value), Some(field), "{field} = {value}");
            }
        }
    }

    #[test]
    fn raw_prompts_have_the_same_ranges_and_two_of_their_own() {
        let fault_of = |field: &str, value: Value| {
            let mut body = json!({"model": "m", "prompt": "hi"});
            body[field] = value;
            completion_fault(&serde_json::from_value(body).unwrap()).map(|fault| fault.param)
        };
        assert_eq!(fault_of("temperature", json!(2.1)), Some("temperature"));
        assert_eq!(fault_of("n", json!(129)), Some("n"));
        assert_eq!(fault_of("logprobs", json!(5)), None);
        assert_eq!(fault_of("logprobs", json!(6)), Some("logprobs"));
        assert_eq!(fault_of("best_of", json!(0)), Some("best_of"));
    }

    #[test]
    fn top_logprobs_alone_are_refused_as_openai_refuses_them() {
        let body = json!({"model": "m", "messages": [], "top_logprobs": 2});
        let fault = fault(&serde_json::from_value(body).unwrap()).unwrap();
        assert_eq!(fault.param, "top_logprobs");
    }

    #[test]
    fn vllms_name_of_the_repeat_penalty_works_too() {
        let body = json!({"model": "m", "messages": [], "repetition_penalty": 1.25});
        let request: ChatRequest = serde_json::from_value(body).unwrap();
        assert_eq!(request.repeat_penalty, Some(1.25));
    }
}
