//! Constraints on local answers under every server's name, and schemas beyond the grammar, with the
//! real SmolLM2.

use serde_json::{Value, json};

use crate::rig::app::{TestApp, ask};
use crate::rig::local_models;

async fn gateway() -> TestApp {
    let app = TestApp::start(&local_models::smol("")).await;
    app.until_loaded("smol").await;
    app
}

fn with(mut request: Value, more: &Value) -> Value {
    request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    request
}

fn chat(more: &Value) -> Value {
    let request = with(ask("smol", "Name a town."), &json!({"max_tokens": 48, "temperature": 1}));
    with(request, more)
}

fn raw(more: &Value) -> Value {
    let request = json!({"model": "smol", "prompt": "A town:", "max_tokens": 48, "temperature": 1});
    with(request, more)
}

/// Fields of a request, and whether they keep an answer.
type Case<'c> = (Value, &'c dyn Fn(&str) -> bool);

fn formatted(strict: bool, schema: &Value) -> Value {
    json!({"response_format": {"type": "json_schema", "json_schema": {"name": "it", "strict": strict, "schema": schema}}})
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn constraints_of_every_server_shape_the_answer() {
    let app = gateway().await;
    let schema = json!({"type": "object", "properties": {"zip": {"type": "integer", "minimum": 1, "maximum": 99999}}, "required": ["zip"]});
    let is_zip = |text: &str| {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        value["zip"].is_u64() && value.as_object().is_some_and(|fields| fields.len() == 1)
    };
    let is_date = |text: &str| text.len() == 10 && text.matches('-').count() == 2;
    let is_choice = |text: &str| ["Oslo", "Bergen (by the sea)"].contains(&text);
    let regex = "[0-9]{4}-[0-9]{2}-[0-9]{2}";
    let choices = json!(["Oslo", "Bergen (by the sea)"]);
    let cases: [Case<'_>; 11] = [
        (json!({"response_format": {"type": "json_object", "schema": schema}}), &is_zip),
        (formatted(false, &schema), &is_zip),
        (json!({"json_schema": schema}), &is_zip),
        (json!({"guided_json": schema}), &is_zip),
        (json!({"guided_json": schema.to_string()}), &is_zip),
        (json!({"structured_outputs": {"json": schema}}), &is_zip),
        (json!({"guided_regex": regex}), &is_date),
        (
            json!({"structured_outputs": {"regex": "[0-9/]{1,6}(?:\\n)?x/y|[0-9]{4}-[0-9]{2}-[0-9]{2}"}}),
            &|text| is_date(text) || text.ends_with("x/y"),
        ),
        (json!({"guided_choice": choices}), &is_choice),
        (json!({"structured_outputs": {"choice": choices}}), &is_choice),
        (json!({"structured_outputs": {"json_object": true}, "max_tokens": 300}), &|text| {
            text.starts_with('{')
        }),
    ];
    for (more, kept) in cases {
        let reply = app.chat(&chat(&more)).await;
        assert_eq!(reply.status, 200, "{more}: {}", reply.text);
        assert!(kept(reply.content()), "{more}: {}", reply.content());
        let reply = app.post("/v1/completions", &raw(&more)).await;
        assert_eq!(reply.status, 200, "{more}: {}", reply.text);
        let text = reply.json["choices"][0]["text"].as_str().unwrap();
        assert!(kept(text), "{more}: {text}");
    }
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn constraints_that_cannot_be_kept_are_named() {
    let app = gateway().await;
    for (more, param) in [
        (json!({"response_format": {"type": "json_object", "schema": 123}}), "response_format"),
        (json!({"grammar": "root ::= \"a\""}), "grammar"),
        (json!({"guided_grammar": "root ::= \"a\""}), "guided_grammar"),
        (json!({"guided_choice": "Oslo"}), "guided_choice"),
        (json!({"guided_choice": []}), "guided_choice"),
        (json!({"guided_regex": "(?=a)b"}), "guided_regex"),
        (json!({"guided_regex": "(a"}), "guided_regex"),
        (json!({"guided_regex": "((((a{1,99}){1,99}){1,99}){1,99}b)+"}), "guided_regex"),
        (json!({"guided_json": {"type": "strng"}}), "guided_json"),
        (json!({"guided_json": 5}), "guided_json"),
        (json!({"guided_regex": "a", "guided_json": {}}), "guided_regex"),
        (json!({"min_tokens": -1}), "min_tokens"),
        (formatted(true, &json!({"type": "array", "uniqueItems": true})), "response_format"),
        (formatted(false, &json!({"$ref": "#"})), "response_format"),
    ] {
        for (path, request) in
            [("/v1/chat/completions", chat(&more)), ("/v1/completions", raw(&more))]
        {
            let reply = app.post(path, &request).await;
            assert_eq!(reply.status, 400, "{more}: {}", reply.text);
            assert_eq!(reply.json["error"]["param"], param, "{}", reply.text);
            for internal in ["NoExtensionBias", "coerce_one_of", "non-verbose"] {
                assert!(!reply.text.contains(internal), "{}", reply.text);
            }
        }
    }
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_schema_beyond_the_grammar_is_enforced_as_far_as_it_goes() {
    let app = gateway().await;
    let text = |more: &Value| {
        let schema = with(json!({"type": "string", "maxLength": 5}), more);
        json!({"type": "object", "properties": {"a": schema}, "required": ["a"]})
    };
    let tagged = |tag: &str| json!({"type": "object", "properties": {"kind": {"const": tag}}, "required": ["kind"]});
    let list = |more: &Value| {
        with(json!({"type": "array", "items": {"type": "integer"}, "maxItems": 3}), more)
    };
    let oneof = |more: &Value| {
        let schema = json!({"oneOf": [{"$ref": "#/$defs/N"}, {"$ref": "#/$defs/A"}], "$defs": {"N": tagged("n"), "A": tagged("a")}});
        with(schema, more)
    };
    for (schema, strict) in [
        (list(&json!({"uniqueItems": true})), false),
        (list(&json!({"contains": {"const": 1}})), false),
        (text(&json!({"pattern": "^(?=a)a"})), false),
        (text(&json!({"not": {"const": "b"}})), false),
        (text(&json!({"format": "password"})), true),
        (text(&json!({"format": "path"})), true),
        (
            json!({"type": "object", "propertyNames": {"pattern": "^[a-z]+$"}, "maxProperties": 1}),
            false,
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "integer"}}, "if": {}, "then": {"required": ["a"]}}),
            false,
        ),
        (oneof(&json!({})), true),
        (oneof(&json!({"discriminator": {"propertyName": "kind"}})), true),
        (
            json!({"type": "object", "properties": {"e": oneof(&json!({}))},
                "$defs": oneof(&json!({}))["$defs"]}),
            true,
        ),
        (json!({"$ref": "#/$defs/a~1b", "$defs": {"a/b": tagged("x")}}), true),
        (
            json!({"$ref": "#here", "$defs": {"a": with(tagged("x"), &json!({"$anchor": "here"}))}}),
            true,
        ),
        (
            json!({"$id": "https://example.com/s.json", "$ref": "https://example.com/s.json#/$defs/a", "$defs": {"a": tagged("x")}}),
            true,
        ),
    ] {
        let more = with(formatted(strict, &schema), &json!({"max_tokens": 80}));
        let reply = app.chat(&chat(&more)).await;
        assert_eq!(reply.status, 200, "{schema}: {}", reply.text);
        let value: Value = serde_json::from_str(reply.content())
            .unwrap_or_else(|error| panic!("{error}: {schema}: {}", reply.content()));
        assert!(value.is_object() || value.is_array(), "{value}");
    }
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn objects_have_no_invented_members_unless_their_schema_allows_others() {
    let app = gateway().await;
    let parameters = |more: &Value| {
        with(
            json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}),
            more,
        )
    };
    let invented = |more: Value| {
        let app = &app;
        let tool = json!({"type": "function", "function": {"name": "get_weather", "description": "The weather", "parameters": parameters(&more)}});
        async move {
            let mut invented = 0;
            for seed in 0..20 {
                let mut request = ask("smol", "What is the weather in Paris?");
                request["tools"] = json!([tool]);
                request["tool_choice"] = json!("required");
                (request["seed"], request["max_tokens"]) = (json!(seed), json!(64));
                let reply = app.chat(&request).await;
                let call = &reply.json["choices"][0]["message"]["tool_calls"][0];
                let arguments = call["function"]["arguments"].as_str().unwrap_or_default();
                let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
                invented += usize::from(arguments.as_object().is_none_or(|all| all.len() > 1));
            }
            invented
        }
    };
    let open = invented(json!({"additionalProperties": true})).await;
    let closed = invented(json!({})).await;
    println!("invented arguments in 20 calls: {open} open, {closed} by default");
    assert_eq!(closed, 0);
    assert!(open > 0, "an open schema leaves the model free");
    let mut persons = 0;
    for seed in 0..8 {
        let schema = json!({"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}, "required": ["name", "age"]});
        let more =
            with(formatted(seed % 2 == 0, &schema), &json!({"seed": seed, "max_tokens": 80}));
        let reply = app.chat(&chat(&more)).await;
        let value: Value = serde_json::from_str(reply.content()).unwrap_or_default();
        persons += usize::from(value.as_object().is_some_and(|fields| fields.len() == 2));
    }
    assert_eq!(persons, 8);
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn lengths_and_beginnings_of_other_servers_are_honoured() {
    let app = gateway().await;
    let short = with(chat(&json!({"n_predict": 3})), &json!({"max_tokens": null}));
    assert_eq!(app.chat(&short).await.json["usage"]["completion_tokens"], 3);
    let text = |request: Value| {
        let app = &app;
        async move { app.chat(&request).await.content().to_owned() }
    };
    let greedy = json!({"temperature": 0, "max_tokens": 40});
    let question = "What is the capital of France? Answer in one word.";
    let plain = with(ask("smol", question), &greedy);
    let tokens = |reply: &Value| reply["usage"]["completion_tokens"].as_u64().unwrap();
    let least = app.chat(&with(plain.clone(), &json!({"min_tokens": 30}))).await;
    assert!(tokens(&least.json) >= 30, "{}", least.text);
    let begun = json!({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "The capital of France"}]});
    let begun = with(plain, &begun);
    let continued = text(with(
        begun.clone(),
        &json!({"continue_final_message": true, "add_generation_prompt": false}),
    ))
    .await;
    assert!(continued.starts_with(" is"), "{continued}");
    let wrong = with(ask("smol", "Hi"), &json!({"continue_final_message": true}));
    let reply = app.chat(&wrong).await;
    assert_eq!(reply.json["error"]["param"], "continue_final_message", "{}", reply.text);
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn logprobs_end_with_the_text_whole_and_streamed_with_and_without_tools() {
    let app = gateway().await;
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    let bytes = |content: &Value| -> Vec<u8> {
        let tokens = content.as_array().into_iter().flatten();
        let bytes = tokens.flat_map(|token| token["bytes"].as_array().unwrap());
        bytes.map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap()).collect()
    };
    for (stop, tools) in
        [(" is", &Value::Null), (" is", &tool), ("The", &Value::Null), ("The", &tool)]
    {
        let mut request = ask("smol", "What is the capital of France?");
        let more = json!({"temperature": 0, "max_tokens": 24, "logprobs": true, "stop": [stop]});
        request = with(request, &more);
        if !tools.is_null() {
            request["tools"] = tools.clone();
        }
        let whole = app.chat(&request).await;
        let logprobs = &whole.json["choices"][0]["logprobs"]["content"];
        assert!(logprobs.is_array(), "present although the answer may be empty: {}", whole.text);
        assert_eq!(String::from_utf8_lossy(&bytes(logprobs)), whole.content(), "{}", whole.text);
        request["stream"] = json!(true);
        let sse = app.stream(&request).await;
        let streamed: Vec<u8> = sse
            .chunks
            .iter()
            .flat_map(|chunk| bytes(&chunk["choices"][0]["logprobs"]["content"]))
            .collect();
        assert_eq!(String::from_utf8_lossy(&streamed), sse.content());
        assert_eq!(sse.content(), whole.content());
    }
}
