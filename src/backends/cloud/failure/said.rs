//! What an upstream says about an error, found in any of the shapes that servers use. Pure.

use serde_json::Value;

/// Longest message that is repeated, in characters.
const MESSAGE_CHARS: usize = 1_000;

/// Longest text without a shape that is taken for a message, in bytes; beyond it is a page.
const TEXT_BYTES: usize = 2_000;

/// How deep envelopes may stand in each other.
const DEPTH: u8 = 8;

/// The words of an error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) message: Option<String>,
    /// The field of the request that is at fault.
    pub(super) param: Option<String>,
    /// Text or number, as text.
    pub(super) code: Option<String>,
    /// Words of other members that stand for a class of errors: `type`, `status`, `reason`.
    pub(super) classes: Vec<String>,
    /// Tokens of the prompt and of the context, as llama-server counts them.
    pub(super) counted: Option<(u32, u32)>,
    /// A page for people came instead.
    pub(super) is_page: bool,
}

impl Said {
    /// Reads a body of any kind.
    pub(super) fn in_body(body: &[u8]) -> Self {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
        if let Ok(value) = serde_json::from_slice(body) {
            return Self::of(&value);
        }
        let text = std::str::from_utf8(body).unwrap_or_default();
        // An error event, where a stream would have been the answer.
        let event = text.lines().find_map(|line| line.strip_prefix("data:"));
        if let Some(Ok(value)) = event.map(serde_json::from_str::<Value>) {
            return Self::of(&value);
        }
        match text.as_bytes() {
            [] => Self::default(),
            [b'<', ..] => Self { is_page: true, ..Self::default() },
            text_bytes if text_bytes.len() > TEXT_BYTES => Self::default(),
            _ => Self { message: Some(shortened(text)), ..Self::default() },
        }
    }

    pub(super) fn of(value: &Value) -> Self {
        let mut said = Self::default();
        said.read(value, DEPTH);
        said
    }

    /// All its words in lower case, to look for others in them.
    pub(super) fn words(&self) -> String {
        let parts = self.message.iter().chain(&self.code).chain(&self.classes);
        parts.map(|part| part.to_lowercase()).collect::<Vec<_>>().join(" ")
    }

    /// Its code and classes in lower case.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.code.iter().chain(&self.classes).map(|name| name.to_ascii_lowercase())
    }

    fn read(&mut self, value: &Value, depth: u8) {
        let Some(depth) = depth.checked_sub(1) else { return };
        match value {
            Value::String(text) => self.read_text(text, depth),
            Value::Array(items) => self.read_list(items, depth),
            Value::Object(_) => self.read_object(value, depth),
            _ => {}
        }
    }

    /// Some servers put the text of another one's error into theirs.
    fn read_text(&mut self, text: &str, depth: u8) {
        let text = text.trim();
        let inner = text.starts_with(['{', '[']).then(|| serde_json::from_str::<Value>(text));
        if let Some(Ok(inner)) = inner {
            self.read(&inner, depth);
        }
        if self.message.is_none() && !text.is_empty() {
            self.message = Some(shortened(text));
        }
    }

    fn read_list(&mut self, items: &[Value], depth: u8) {
        let invalid: Vec<String> = items.iter().filter_map(invalid_field).collect();
        if invalid.is_empty() {
            for item in items {
                self.read(item, depth);
            }
            return;
        }
        self.message.get_or_insert_with(|| shortened(&invalid.join("; ")));
        for item in items {
            self.param = self.param.take().or_else(|| place(item));
            self.classes.extend(item["type"].as_str().map(str::to_owned));
        }
    }

    fn read_object(&mut self, object: &Value, depth: u8) {
        let tokens = |name: &str| object[name].as_u64().and_then(|count| u32::try_from(count).ok());
        self.counted = self.counted.or_else(|| tokens("n_prompt_tokens").zip(tokens("n_ctx")));
        // What stands innermost says most.
        for name in ["error", "errors", "metadata", "message", "detail", "details"] {
            match (name, &object[name]) {
                ("metadata", metadata) => {
                    self.read(&metadata["raw"], depth);
                    let reasons = metadata["reasons"].as_array();
                    let reasons = reasons.into_iter().flatten().filter_map(Value::as_str);
                    self.classes.extend(reasons.map(str::to_owned));
                }
                // Google's lists further facts there.
                ("details", Value::Array(facts)) => {
                    let facts = facts.iter().filter_map(|fact| fact["reason"].as_str());
                    self.classes.extend(facts.map(str::to_owned));
                }
                (_, inner) => self.read(inner, depth),
            }
        }
        for name in ["msg", "error_message", "error_description", "reason", "title"] {
            if let (None, Some(text)) = (&self.message, object[name].as_str()) {
                self.message = Some(shortened(text));
            }
        }
        if self.param.is_none() {
            self.param = object["param"].as_str().map(str::to_owned);
        }
        if self.code.is_none() {
            self.code = match &object["code"] {
                Value::String(code) if !code.trim().is_empty() => Some(code.trim().to_owned()),
                Value::Number(code) => Some(code.to_string()),
                _ => None,
            };
        }
        for name in ["type", "status", "reason", "error_type"] {
            self.classes.extend(match &object[name] {
                Value::String(class) => Some(class.clone()),
                Value::Number(class) => Some(class.to_string()),
                _ => None,
            });
        }
    }
}

/// A field that `FastAPI`, or something like it, found wrong.
fn invalid_field(item: &Value) -> Option<String> {
    let message = item["msg"].as_str()?;
    Some(match place(item) {
        Some(place) => format!("{place}: {message}"),
        None => message.to_owned(),
    })
}

fn place(item: &Value) -> Option<String> {
    let steps = item["loc"].as_array()?.iter().map(|step| match step {
        Value::String(name) => name.clone(),
        other => other.to_string(),
    });
    let steps: Vec<String> = steps.skip_while(|step| step == "body").collect();
    (!steps.is_empty()).then(|| steps.join("."))
}

fn shortened(text: &str) -> String {
    text.trim().chars().take(MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_message_is_found_in_every_shape() {
        for (body, message) in [
            (json!({"error": {"message": "no", "type": "t"}}), "no"),
            (json!({"message": "no"}), "no"),
            (json!({"object": "error", "message": "no"}), "no"),
            (json!({"error": "no"}), "no"),
            (json!({"detail": "no"}), "no"),
            (json!({"error": {"error": {"message": "no"}}}), "no"),
            (json!([{"error": {"message": "no", "status": "INVALID_ARGUMENT"}}]), "no"),
            (json!({"errors": [{"message": "no"}]}), "no"),
            (json!({"errors": ["no"]}), "no"),
            (json!({"error": ["no"]}), "no"),
            (
                json!({"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "wrong"}, {"loc": ["body"], "msg": "bad"}]}),
                "messages.0.role: wrong; bad",
            ),
            (
                json!({"object": "error", "message": {"detail": [{"loc": ["body", "x"], "msg": "extra"}]}}),
                "x: extra",
            ),
            (json!({"message": {"detail": "no"}}), "no"),
            (json!({"detail": {"error": "no"}}), "no"),
            (json!({"error": {"message": {"text": 1}, "msg": "no"}}), "no"),
            (json!({"error": "{\"error\":{\"message\":\"no\"}}"}), "no"),
            (
                json!({"error": {"message": "Provider returned error", "metadata": {"raw": "{\"error\":{\"message\":\"no\"}}"}}}),
                "no",
            ),
            (
                json!({"error": {"message": "Provider returned error", "metadata": {"raw": "no"}}}),
                "no",
            ),
            (json!("no"), "no"),
            (json!({"title": "no", "status": 400}), "no"),
        ] {
            assert_eq!(Said::of(&body).message.as_deref(), Some(message), "{body}");
        }
        for nothing in [json!({}), json!([]), json!(null), json!({"error": {}}), json!(7)] {
            assert_eq!(Said::of(&nothing).message, None, "{nothing}");
        }
    }

    #[test]
    fn param_code_and_classes_are_kept() {
        let said = Said::of(
            &json!({"error": {"message": "no", "type": "t", "param": "n", "code": "bad"}}),
        );
        let owned = |text: &str| Some(text.to_owned());
        assert_eq!(
            (said.param, said.code, said.classes),
            (owned("n"), owned("bad"), vec!["t".into()])
        );
        let gemini = json!([{"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT",
            "details": [{"reason": "API_KEY_INVALID"}]}}]);
        let said = Said::of(&gemini);
        assert_eq!(said.code, owned("400"));
        assert_eq!(said.classes, ["API_KEY_INVALID", "INVALID_ARGUMENT"]);
        let missing = json!({"detail": [{"loc": ["body", "stream_options"], "msg": "x", "type": "extra_forbidden"}]});
        let said = Said::of(&missing);
        assert_eq!(
            (said.param, said.classes),
            (owned("stream_options"), vec!["extra_forbidden".into()])
        );
    }

    #[test]
    fn bodies_that_are_no_json_are_read_as_what_they_are() {
        let message = |body: &str| Said::in_body(body.as_bytes()).message;
        assert_eq!(message("prompt too large\n").as_deref(), Some("prompt too large"));
        assert_eq!(message("data: {\"error\":{\"message\":\"no\"}}\n\n").as_deref(), Some("no"));
        assert_eq!(message("\u{feff}{\"error\":\"no\"}").as_deref(), Some("no"));
        assert_eq!(message(&"x".repeat(5_000)), None);
        assert_eq!(
            Said::of(&json!({"error": "x".repeat(5_000)})).message.unwrap().len(),
            MESSAGE_CHARS
        );
        assert!(Said::in_body(b" <html>Secret</html>").is_page);
        assert_eq!(Said::in_body(b""), Said::default());
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert_eq!(message(&deep), None);
    }
}
