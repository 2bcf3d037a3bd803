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

/// A template that does `harm` if the last turn says so, and is an ordinary one otherwise.
fn hostile(harm: &str) -> String {
    format!(
        "{{% if 'harm' in messages[-1]['content'] %}}{harm}{{% else %}}{{% for message in messages %}}\
         {{{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}}}\
         {{% endfor %}}{{{{ '<|im_start|>assistant\n' }}}}{{% endif %}}"
    )
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_hostile_template_ends_only_the_request_that_it_harms() {
    let harms = [
        (
            "loops",
            "{% for a in range(100000) %}{% for b in range(100000) %}{{ a * b }}{% endfor %}{% endfor %}",
        ),
        (
            "doubling",
            "{% set n = namespace(s='ab') %}{% for i in range(64) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
        ),
        (
            "doubled lists",
            "{% set n = namespace(s=[1]) %}{% for i in range(64) %}{% set n.s = n.s + n.s %}{% endfor %}{{ n.s | length }}",
        ),
        ("indent", "{{ 'a' | indent(99999999999) }}"),
        ("indented JSON", "{{ {'a': 1} | tojson(indent=99999999999) }}"),
        ("width", "{{ '%99999999999d' | format(1) }}"),
        ("centre", "{{ 'a'.center(9999999999) }}"),
        ("join", "{{ range(99999) | join('x' * 99999) }}"),
        ("replace", "{{ ('a' * 99999).replace('a', 'b' * 99999) }}"),
        ("batch", "{{ [1] | batch(99999999999, 0) | list }}"),
        ("slice", "{{ [1] | slice(99999999999, 0) | list }}"),
        (
            "macro",
            "{% macro g(n) %}{% if n > 0 %}{{ g(n - 1) }}{{ g(n - 1) }}{% endif %}{% endmacro %}{{ g(60) }}",
        ),
        ("recursion", "{% macro g(n) %}{{ g(n) }}{% endmacro %}{{ g(1) }}"),
        ("times", "{{ 'a' * 1000000000000 }}"),
        ("long output", "{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, harm) in harms {
        let file = folder.path().join("hostile.jinja");
        std::fs::write(&file, hostile(harm)).unwrap();
        let config = format!(
            "[models.smol.llama]\nsource = \"file:{}\"\nchat_template = \"{}\"\ncontext_tokens = 1024\n",
            model_path().display(),
            file.display()
        );
        let app = TestApp::start(&config).await;
        app.until_loaded("smol").await;
        let request = |text: &str| json!({"model": "smol", "messages": [turn("user", text)], "max_tokens": 24, "temperature": 0});
        let (harming, plain) = (request("harm"), request("Hi"));
        let begun = std::time::Instant::now();
        let (harmed, beside) = futures::join!(app.chat(&harming), app.chat(&plain));
        println!("{name}: {} after {:?}: {}", harmed.status, begun.elapsed(), harmed.text);
        assert_eq!(beside.status, 200, "{name}: {}", beside.text);
        assert!([200, 400].contains(&harmed.status), "{name}: {}", harmed.text);
        assert!(
            begun.elapsed() < std::time::Duration::from_secs(10),
            "{name}: {:?}",
            begun.elapsed()
        );
        assert_eq!(app.chat(&request("Hi")).await.status, 200, "{name}");
        let restarts = crate::rig::local_models::engine_state(&app, "smol").borrow().restarts;
        assert_eq!(restarts, 0, "{name}: the engine lived");
        app.stop().await;
    }
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_template_that_never_ends_is_refused_at_load() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("endless.jinja");
    let endless = "{% set n = namespace(s='ab') %}{% for i in range(64) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}";
    std::fs::write(&file, endless).unwrap();
    let config = format!(
        "[models.smol.llama]\nsource = \"file:{}\"\nchat_template = \"{}\"\n",
        model_path().display(),
        file.display()
    );
    let app = TestApp::start(&config).await;
    let mut state = crate::rig::local_models::engine_state(&app, "smol");
    let down = |state: &wattgate::backends::llama::EngineState| match &state.phase {
        wattgate::backends::llama::Phase::Down(reason) => reason.contains("chat template"),
        _ => false,
    };
    tokio::time::timeout(crate::rig::app::PATIENCE, state.wait_for(down)).await.unwrap().unwrap();
    app.stop().await;
}
