//! Most elements of a request, whatever model it is for: each costs time on threads that all
//! requests share. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::fields::wrong;
use crate::http::error::ApiError;
use crate::openai::{ChatRequest, ConstraintFields, Content, Message, Request, Stop};
use crate::validate::{Diagnostics, Validate};

/// `[server.limits]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestLimits {
    /// Tools or functions. Default 128, as at OpenAI.
    pub tools: u32,
    /// Messages. Default 10 000.
    pub messages: u32,
    /// Parts of content and tool calls, of all messages together. Default 20 000.
    pub parts: u32,
    /// Stop strings. Default 128. Local models take 16, OpenAI 4.
    pub stops: u32,
    /// Tokens in `logit_bias`. Default 65,536.
    pub logit_biases: u32,
    /// Texts to choose an answer from. Default 1000.
    pub choices: u32,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            tools: 128,
            messages: 10_000,
            parts: 20_000,
            stops: 128,
            logit_biases: 65_536,
            choices: 1000,
        }
    }
}

impl Validate for RequestLimits {
    fn validate(&self, out: &mut Diagnostics) {
        out.positive([
            ("tools", u64::from(self.tools)),
            ("messages", u64::from(self.messages)),
            ("parts", u64::from(self.parts)),
            ("stops", u64::from(self.stops)),
            ("logit_biases", u64::from(self.logit_biases)),
            ("choices", u64::from(self.choices)),
        ]);
    }
}

impl RequestLimits {
    /// Refuses a request with more elements than the limits allow, by the field.
    pub fn check(&self, request: &Request) -> Result<(), ApiError> {
        match request {
            Request::Chat(request) => {
                self.check_conversation(request)?;
                self.check_sampling(request.stop.as_ref(), request.sampling().logit_bias)?;
                self.check_choices(&request.constraints())
            }
            Request::Completion(request) => {
                self.check_sampling(request.stop.as_ref(), request.sampling().logit_bias)?;
                self.check_choices(&request.constraints())
            }
            // The number of texts is limited where they are read.
            Request::Embedding(_) => Ok(()),
        }
    }

    fn check_conversation(&self, request: &ChatRequest) -> Result<(), ApiError> {
        let tools = request.tools.as_ref().map_or(0, Vec::len);
        let field = if request.offers_functions { "functions" } else { "tools" };
        within(field, tools, self.tools, "elements")?;
        within("messages", request.messages.len(), self.messages, "elements")?;
        let parts = request.messages.iter().map(parts).sum();
        within("messages", parts, self.parts, "parts and tool calls in all")
    }

    fn check_sampling<T>(
        &self,
        stop: Option<&Stop>,
        bias: Option<&std::collections::BTreeMap<u32, T>>,
    ) -> Result<(), ApiError> {
        within("stop", stop.map_or(0, |stop| stop.0.len()), self.stops, "strings")?;
        within("logit_bias", bias.map_or(0, BTreeMap::len), self.logit_biases, "tokens")
    }

    fn check_choices(&self, fields: &ConstraintFields<'_>) -> Result<(), ApiError> {
        let structured = fields.structured_outputs.and_then(|outputs| outputs.choice.as_ref());
        let given = [
            ("guided_choice", fields.guided_choice.map(<[_]>::len)),
            ("structured_outputs", structured.map(Vec::len)),
        ];
        given.into_iter().try_for_each(|(field, count)| {
            within(field, count.unwrap_or(0), self.choices, "texts to choose from")
        })
    }
}

fn parts(message: &Message) -> usize {
    let of_content = match &message.content {
        Some(Content::Parts(parts)) => parts.len(),
        _ => 0,
    };
    of_content + message.tool_calls.as_ref().map_or(0, Vec::len)
}

fn within(field: &str, count: usize, most: u32, what: &str) -> Result<(), ApiError> {
    if count <= most as usize {
        return Ok(());
    }
    Err(wrong(field, &format!("takes at most {most} {what} here, not {count}")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::http::extract::body::parse_chat;

    #[test]
    fn the_limit_itself_is_allowed_and_one_more_is_refused_by_the_fields_name() {
        let limits = RequestLimits {
            tools: 2,
            messages: 2,
            parts: 2,
            stops: 2,
            logit_biases: 2,
            choices: 2,
        };
        let refused = |more: Value| {
            let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let request = parse_chat(body.to_string().as_bytes()).unwrap();
            match limits.check(&request) {
                Err(ApiError::InvalidField { param, message }) => {
                    assert!(
                        message.contains("at most 2") && message.contains("not 3"),
                        "{message}"
                    );
                    Some(param)
                }
                other => {
                    assert_eq!(other, Ok(()));
                    None
                }
            }
        };
        let tool = || json!({"type": "function", "function": {"name": "f"}});
        let message = || json!({"role": "user", "content": "hi"});
        let part = || json!({"type": "text", "text": "hi"});
        let call =
            || json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}});
        let many = |count: usize, one: &dyn Fn() -> Value| -> Value {
            (0..count).map(|_| one()).collect()
        };
        for (field, of) in [
            (
                "tools",
                Box::new(|count| json!({"tools": many(count, &tool)}))
                    as Box<dyn Fn(usize) -> Value>,
            ),
            (
                "functions",
                Box::new(|count| json!({"functions": many(count, &|| json!({"name": "f"}))})),
            ),
            ("messages", Box::new(|count| json!({"messages": many(count, &message)}))),
            (
                "messages",
                Box::new(
                    |count| json!({"messages": [{"role": "user", "content": many(count, &part)}]}),
                ),
            ),
            (
                "messages",
                Box::new(
                    |count| json!({"messages": [{"role": "assistant", "tool_calls": many(count, &call)}]}),
                ),
            ),
            ("stop", Box::new(|count| json!({"stop": many(count, &|| json!("x"))}))),
            (
                "guided_choice",
                Box::new(|count| json!({"guided_choice": many(count, &|| json!("x"))})),
            ),
            (
                "logit_bias",
                Box::new(
                    |count| json!({"logit_bias": (0..count).map(|at| (at.to_string(), json!(1))).collect::<serde_json::Map<_, _>>()}),
                ),
            ),
        ] {
            assert_eq!(refused(of(2)), None, "{field}");
            assert_eq!(refused(of(3)).as_deref(), Some(field));
        }
    }
}
