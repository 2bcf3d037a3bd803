//! Conversations that a model's chat template refuses as they are, with the real SmolLM2 and the
//! templates of families that are strict.

use std::path::Path;

use serde_json::{Value, json};

use crate::rig::app::TestApp;
use crate::rig::engine::model_path;

async fn gateway(template: &str) -> TestApp {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/templates");
    let config = format!(
        "[models.smol.llama]\nsource = \"file:{}\"\nchat_template = \"{}\"\ncontext_tokens = 1024\n",
        model_path().display(),
        folder.join(format!("{template}.jinja")).display()
    );
    let app = TestApp::start(&config).await;
    app.until_loaded("smol").await;
    app
}

fn turn(role: &str, content: impl Into<Value>) -> Value {
    json!({"role": role, "content": content.into()})
}

fn called(arguments: &Value) -> Value {
    json!({"role": "assistant", "content": null, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}]})
}

fn result() -> Value {
    json!({"role": "tool", "tool_call_id": "c", "content": "7"})
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn strict_templates_take_every_conversation() {
    let (user, answer) = (|| turn("user", "Hi"), || turn("assistant", "Yes."));
    let parts = json!([{"type": "text", "text": "Hi"}]);
    let conversations = [
        json!([turn("system", "Be brief."), user()]),
        json!([turn("developer", "Be brief."), user()]),
        json!([turn("system", "Be brief."), turn("developer", "Be kind."), user()]),
        json!([user(), answer(), turn("system", "Be brief."), user()]),
        json!([user(), turn("system", "Be brief.")]),
        json!([turn("system", "Be brief.")]),
        json!([user(), user()]),
        json!([answer(), user()]),
        json!([user(), answer(), answer(), user()]),
        json!([turn("user", ""), turn("assistant", null_content()), turn("user", parts)]),
        json!([user(), called(&json!("")), result()]),
        json!([user(), called(&json!(null)), result(), user()]),
        json!([user(), called(&json!("{\"city\": \"Oslo")), result()]),
        json!([user(), called(&json!({"city": "Oslo"})), result(), answer(), user()]),
        json!([user(), result(), user()]),
        json!([user(), {"role": "function", "name": "f", "content": "7"}]),
    ];
    let tool = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]);
    for template in
        ["gemma-2", "strict-alternation", "mistral-v11", "mistral-v3", "qwen3-coder", "llama-3.1"]
    {
        let app = gateway(template).await;
        for messages in &conversations {
            for tools in [&Value::Null, &tool] {
                let mut request = json!({"model": "smol", "messages": messages, "max_tokens": 4});
                if !tools.is_null() {
                    request["tools"] = tools.clone();
                }
                let reply = app.chat(&request).await;
                assert_eq!(reply.status, 200, "{template}: {messages}: {}", reply.text);
            }
        }
        let mut request =
            json!({"model": "smol", "messages": [user()], "max_tokens": 60, "tools": tool});
        request["tool_choice"] = json!("required");
        let reply = app.chat(&request).await;
        let call = &reply.json["choices"][0]["message"]["tool_calls"][0]["function"]["name"];
        assert_eq!(call, "f", "{template}: {}", reply.text);
    }
}

fn null_content() -> Value {
    Value::Null
}
