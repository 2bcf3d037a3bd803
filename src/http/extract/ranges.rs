//! Values that make no sense to any server. What some servers take and others do not is a matter of
//! the model (`routing::local_fault`). Pure.

use crate::openai::{CompletionRequest, SamplingFields};

/// A field with such a value.
pub struct Fault {
    pub param: &'static str,
    /// What it must be: continues a sentence that begins with its name.
    pub message: &'static str,
}

/// The first field of a raw completion's request with such a value.
pub fn completion_fault(request: &CompletionRequest) -> Option<Fault> {
    fault(&request.sampling()).or_else(|| {
        let fewer = request.best_of.is_some_and(|candidates| candidates < request.choices());
        fewer.then_some(Fault { param: "best_of", message: "must be at least `n`" })
    })
}

/// The first field that shapes sampling with such a value.
pub fn fault(fields: &SamplingFields<'_>) -> Option<Fault> {
    let share = |value: Option<f32>| value.is_none_or(|value| (0.0..=1.0).contains(&value));
    let rules = [
        (
            "temperature",
            fields.temperature.is_none_or(|value| value >= 0.0),
            "must be between 0 and 2",
        ),
        ("top_p", share(fields.top_p), "must be between 0 and 1"),
        ("min_p", share(fields.min_p), "must be between 0 and 1"),
        ("n", fields.n != Some(0), "must be between 1 and 128"),
    ];
    let broken = rules.into_iter().find(|(_, kept, _)| !kept);
    broken.map(|(param, _, message)| Fault { param, message })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::openai::ChatRequest;

    #[test]
    fn only_what_no_server_takes_is_refused_for_all() {
        let fault_of = |field: &str, value: &Value| {
            let mut body = json!({"model": "m", "messages": []});
            body[field] = value.clone();
            let request: ChatRequest = serde_json::from_value(body).unwrap();
            fault(&request.sampling()).map(|fault| fault.param)
        };
        for (field, inside, outside) in [
            ("temperature", json!([0, 2, 5]), json!([-0.1])),
            ("top_p", json!([0, 1]), json!([-0.1, 1.1])),
            ("min_p", json!([0, 1]), json!([-0.1, 1.1])),
            ("n", json!([1, 500]), json!([0])),
        ] {
            for value in inside.as_array().unwrap() {
                assert_eq!(fault_of(field, value), None, "{field} = {value}");
            }
            for value in outside.as_array().unwrap() {
                assert_eq!(fault_of(field, value), Some(field), "{field} = {value}");
            }
        }
    }

    #[test]
    fn the_best_of_fewer_than_are_returned_is_refused() {
        let body = json!({"model": "m", "prompt": "hi", "best_of": 1, "n": 2});
        let fault = completion_fault(&serde_json::from_value(body).unwrap()).unwrap();
        assert_eq!(fault.param, "best_of");
    }
}
