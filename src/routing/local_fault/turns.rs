//! Turns that local models cannot read.

use super::fault::LocalFault;
use crate::openai::{Message, Role};

pub(super) fn faults(messages: &[Message], faults: &mut Vec<LocalFault>) {
    for (place, message) in messages.iter().enumerate() {
        let path = |field: &str| format!("messages[{place}].{field}");
        if message.role == Role::Other {
            faults.push(LocalFault::value(path("role"), "is none that local models know"));
        }
        if message.prefix.0 {
            faults.push(LocalFault::unsupported(path("prefix")));
        }
        if message.role == Role::Tool && message.tool_call_id.is_none() {
            let rule = "must say which call this is the result of";
            faults.push(LocalFault::value(path("tool_call_id"), rule));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn turns_that_only_upstreams_read_are_named() {
        let faults = |message: Value| {
            let messages: Vec<Message> = serde_json::from_value(json!([message])).unwrap();
            let mut found = Vec::new();
            super::faults(&messages, &mut found);
            found.into_iter().map(|fault| fault.param).collect::<Vec<_>>()
        };
        for role in ["control", "latest_reminder", "model"] {
            assert_eq!(faults(json!({"role": role})), ["messages[0].role"], "{role}");
        }
        let prefix = json!({"role": "assistant", "content": "Once", "prefix": true});
        assert_eq!(faults(prefix), ["messages[0].prefix"]);
        assert_eq!(faults(json!({"role": "tool", "content": "7"})), ["messages[0].tool_call_id"]);
        assert_eq!(faults(json!({"role": "user", "content": "hi", "x": 1})), [""; 0]);
    }
}
