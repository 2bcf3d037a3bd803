//! Conversations, as requests bring them, in the chat templates of model families. A client's words
//! never become control tokens.

#![no_main]
#![cfg(fuzzing)]

use std::sync::{Arc, OnceLock};

use libfuzzer_sys::fuzz_target;
use wattgate::backends::llama::fuzzing::Template;
use wattgate::backends::llama::host;
use wattgate::backends::llama::wire::protocol::{Prompt, ToEngine};
use wattgate::http::extract::body::parse_chat;

const FAMILIES: [&str; 6] = [
    include_str!("../../tests/data/templates/deepseek-r1-distill.jinja"),
    include_str!("../../tests/data/templates/llama-3.1.jinja"),
    include_str!("../../tests/data/templates/mistral-v11.jinja"),
    include_str!("../../tests/data/templates/mistral-v3.jinja"),
    include_str!("../../tests/data/templates/qwen3-coder.jinja"),
    include_str!("../../tests/data/templates/qwen3.jinja"),
];

static TEMPLATES: OnceLock<Vec<Template>> = OnceLock::new();

fuzz_target!(|body: &[u8]| {
    let Ok(request) = parse_chat(body) else { return };
    let Ok(ToEngine::Submit(submission)) = host::fuzzing::to_engine(Arc::new(request)) else {
        return;
    };
    let Prompt::Chat(conversation) = submission.prompt else { return };
    let templates = TEMPLATES.get_or_init(|| {
        let families = FAMILIES.iter().map(|source| Template::new(source));
        families.collect::<Option<_>>().expect("every template compiles")
    });
    for template in templates {
        let _refusal = template.render(&conversation);
    }
    let mut plain = conversation;
    (plain.tools, plain.variables) = (None, String::new());
    plain.turns.iter_mut().for_each(|turn| turn.calls.clear());
    let prompt = Template::chatml().expect("it compiles").render(&plain);
    let prompt = prompt.expect("it takes every conversation");
    assert!(prompt.matches("<|im_start|>").count() <= plain.turns.len() + 1, "{prompt}");
});
