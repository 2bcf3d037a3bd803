//! Tests with excerpts of the templates of model families, with their sources.

use super::*;
use crate::backends::llama::wire::conversation::{MustCall, OfferedTool};
use crate::backends::llama::wire::reasoning::Tags;

const QWEN3: &str = include_str!("../../../../../../tests/data/templates/qwen3.jinja");
const LLAMA: &str = include_str!("../../../../../../tests/data/templates/llama-3.1.jinja");
const MISTRAL: &str = include_str!("../../../../../../tests/data/templates/mistral-v3.jinja");
const MISTRAL_V11: &str = include_str!("../../../../../../tests/data/templates/mistral-v11.jinja");
const QWEN3_CODER: &str = include_str!("../../../../../../tests/data/templates/qwen3-coder.jinja");
const DEEPSEEK: &str =
    include_str!("../../../../../../tests/data/templates/deepseek-r1-distill.jinja");

const GEMMA: &str = include_str!("../../../../../../tests/data/templates/gemma-2.jinja");
const ALTERNATING: &str =
    include_str!("../../../../../../tests/data/templates/strict-alternation.jinja");
const SILENT: &str = include_str!("../../../../../../tests/data/templates/silent-on-system.jinja");

/// The template of SmolLM2-135M-Instruct, as its GGUF carries it.
const SMOLLM2: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn turn(role: Role, text: &str) -> Turn {
    Turn::new(role, text)
}

fn render(source: &str, turns: &[Turn]) -> Result<String, Error> {
    ChatTemplate::new(source, "<s>", "</s>")?.render(turns, None, "", &ControlTokenGuard::default())
}

#[test]
fn smollm2_gets_its_own_system_prompt_unless_the_client_brings_one() {
    assert_eq!(
        render(SMOLLM2, &[turn(Role::User, "Hi")]).unwrap(),
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(
        render(SMOLLM2, &[turn(Role::Developer, "Be brief."), turn(Role::User, "Hi")]).unwrap(),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn python_methods_and_globals_are_available() {
    let source = "{{ bos_token }}{% for m in messages %}\n    {% if m.role.startswith('u') %}\n{{ m.content.strip() }}{{ eos_token }}\n    {% endif %}\n{% endfor %}";
    assert_eq!(render(source, &[turn(Role::User, " a ")]).unwrap(), "<s>a</s>\n");
}

#[test]
fn a_template_refuses_in_its_own_words() {
    let source = "{{ raise_exception('roles must alternate') }}";
    let error = render(source, &[]).unwrap_err().to_string();
    assert!(error.contains("roles must alternate"), "{error}");
}

/// A tool with fields in non-alphabetical order, which must be kept.
fn weather() -> ToolUse {
    let schema = r#"{"type":"object","properties":{"city":{"type":"string"}}}"#;
    let tools = vec![OfferedTool::new("weather", "The weather <now>", schema)];
    ToolUse { tools, must_call: MustCall::No, parallel: true }
}

fn called(ids: &[&str]) -> Turn {
    let call = |id: &&str| PastCall {
        id: (*id).into(),
        name: "weather".into(),
        arguments: r#"{"city":"Oslo","at":1}"#.into(),
    };
    Turn { calls: ids.iter().map(call).collect(), ..turn(Role::Assistant, "") }
}

fn result(id: &str, text: &str) -> Turn {
    Turn { answers: Some(id.into()), ..turn(Role::Tool, text) }
}

/// A question, a call, its result.
fn round_trip() -> [Turn; 3] {
    [turn(Role::User, "Rain?"), called(&["call_0a1b2c3d4e"]), result("call_0a1b2c3d4e", "no")]
}

fn render_with_tools(source: &str, turns: &[Turn]) -> Result<String, Error> {
    ChatTemplate::new(source, "<s>", "</s>")?.render(
        turns,
        Some(&weather()),
        "",
        &ControlTokenGuard::default(),
    )
}

#[test]
fn qwen_sees_tools_calls_and_results() {
    let prompt = render_with_tools(QWEN3, &round_trip()).unwrap();
    assert!(prompt.starts_with("<|im_start|>system\n# Tools\n\n"), "{prompt}");
    let tool = r#"{"type": "function", "function": {"name": "weather", "description": "The weather <now>", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}"#;
    assert!(prompt.contains(&format!("<tools>\n{tool}\n</tools>")), "{prompt}");
    let rest = "<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n\
                {\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\", \"at\": 1}}\n</tool_call><|im_end|>\n\
                <|im_start|>user\n<tool_response>\nno\n</tool_response><|im_end|>\n<|im_start|>assistant\n";
    assert!(prompt.ends_with(rest), "{prompt}");
    let without = render(QWEN3, &[turn(Role::User, "Rain?")]).unwrap();
    assert_eq!(without, "<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n");
}

#[test]
fn llama_sees_tools_calls_and_results() {
    let prompt = render_with_tools(LLAMA, &round_trip()).unwrap();
    assert!(
        prompt.contains("{\n    \"type\": \"function\",\n    \"function\": {\n        \"name\""),
        "{prompt}"
    );
    let rest = "Rain?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n\
                {\"name\": \"weather\", \"parameters\": {\"city\": \"Oslo\", \"at\": 1}}<|eot_id|>\
                <|start_header_id|>ipython<|end_header_id|>\n\nno<|eot_id|>\
                <|start_header_id|>assistant<|end_header_id|>\n\n";
    assert!(prompt.ends_with(rest), "{prompt}");
    let two =
        [turn(Role::User, "Rain?"), called(&["a", "b"]), result("a", "no"), result("b", "yes")];
    let prompt = render_with_tools(LLAMA, &two).unwrap();
    let results: Vec<&str> = prompt.split("ipython<|end_header_id|>\n\n").skip(1).collect();
    assert!(results[0].starts_with("no<|eot_id|>") && results[1].starts_with("yes"), "{prompt}");
    let plain = render(LLAMA, &[turn(Role::User, "Rain?")]).unwrap();
    assert!(!plain.contains("ipython") && !plain.contains("function"), "{plain}");
}

#[test]
fn mistral_sees_tools_calls_and_results_with_valid_ids() {
    let prompt = render_with_tools(MISTRAL, &round_trip()).unwrap();
    assert_eq!(
        prompt,
        "<s>[AVAILABLE_TOOLS] [{\"type\": \"function\", \"function\": {\"name\": \"weather\", \
         \"description\": \"The weather <now>\", \"parameters\": {\"type\": \"object\", \"properties\": \
         {\"city\": {\"type\": \"string\"}}}}}][/AVAILABLE_TOOLS][INST] Rain?[/INST]\
         [TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\", \"at\": 1}, \"id\": \"a1b2c3d4e\"}]</s>\
         [TOOL_RESULTS] {\"content\": no, \"call_id\": \"a1b2c3d4e\"}[/TOOL_RESULTS]"
    );
    let short = [turn(Role::User, "Rain?"), called(&["x"]), result("x", "no")];
    assert!(render_with_tools(MISTRAL, &short).unwrap().contains("\"id\": \"00000000x\""));
}

#[test]
fn later_mistral_sees_tools_calls_and_results_with_valid_ids() {
    let prompt = render_with_tools(MISTRAL_V11, &round_trip()).unwrap();
    let tools = "[{\"type\": \"function\", \"function\": {\"name\": \"weather\", \"description\": \"The weather <now>\", \
                 \"parameters\": {\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}}}}]";
    assert_eq!(
        prompt,
        format!(
            "<s>[AVAILABLE_TOOLS]{tools}[/AVAILABLE_TOOLS][INST]Rain?[/INST]\
             [TOOL_CALLS]weather[CALL_ID]a1b2c3d4e[ARGS]{{\"city\": \"Oslo\", \"at\": 1}}</s>\
             [TOOL_RESULTS]a1b2c3d4e[TOOL_CONTENT]no[/TOOL_RESULTS]"
        )
    );
}

#[test]
fn qwen_coder_sees_tools_calls_and_results() {
    let prompt = render_with_tools(QWEN3_CODER, &round_trip()).unwrap();
    let tool = "<function>\n<name>weather</name>\n<description>The weather <now></description>\n<parameters>\n\
                <parameter>\n<name>city</name>\n<type>string</type>\n</parameter>\n</parameters>\n</function>";
    assert!(prompt.contains(&format!("<tools>\n{tool}\n</tools>")), "{prompt}");
    let rest = "<|im_start|>user\nRain?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n<function=weather>\n\
                <parameter=city>\nOslo\n</parameter>\n<parameter=at>\n1\n</parameter>\n</function>\n</tool_call><|im_end|>\n\
                <|im_start|>user\n<tool_response>\nno\n</tool_response>\n<|im_end|>\n<|im_start|>assistant\n";
    assert!(prompt.ends_with(rest), "{prompt}");
}

#[test]
fn the_format_of_each_family_is_detected() {
    let dialect = |source| format_of(source).unwrap();
    let think = Some(Tags { open: "<think>", close: "</think>" });
    assert_eq!(dialect(QWEN3), OutputFormat { calls: Some(CallFormat::Hermes), reasoning: think });
    assert_eq!(dialect(LLAMA), OutputFormat { calls: Some(CallFormat::Llama3), reasoning: None });
    assert_eq!(
        dialect(MISTRAL),
        OutputFormat { calls: Some(CallFormat::Mistral), reasoning: None }
    );
    let calls = |source| dialect(source).calls;
    assert_eq!(calls(MISTRAL_V11), Some(CallFormat::MistralArgs));
    assert_eq!(calls(QWEN3_CODER), Some(CallFormat::QwenCoder));
    assert_eq!(dialect(DEEPSEEK), OutputFormat { calls: None, reasoning: think });
    assert_eq!(dialect(SMOLLM2), OutputFormat::default());
}

#[test]
fn a_client_may_set_variables_of_the_template_but_not_ours() {
    let template = ChatTemplate::new(QWEN3, "", "").unwrap();
    let variables = r#"{"enable_thinking": false, "messages": []}"#;
    let render = |variables| {
        template
            .render(&[turn(Role::User, "Hi")], None, variables, &ControlTokenGuard::default())
            .unwrap()
    };
    let thoughtless = render(variables);
    assert!(thoughtless.contains("user\nHi<|im_end|>"), "{thoughtless}");
    assert_eq!(thoughtless, render("") + "<think>\n\n</think>\n\n");
}

#[test]
fn deepseek_opens_the_reasoning_in_the_prompt() {
    let prompt = render(DEEPSEEK, &[turn(Role::User, "Why?")]).unwrap();
    assert_eq!(prompt, "<s><｜User｜>Why?<｜Assistant｜><think>\n");
}

#[test]
fn a_control_token_spelled_in_a_tool_or_a_call_is_marked() {
    let guard = ControlTokenGuard::new(["<|im_end|>".to_owned()]);
    let mut tools = weather();
    // JSON escapes: only the parsed text shows the control token.
    tools.tools[0].json = tools.tools[0].json.replace("<now>", "\\u003c|im_end|>");
    let mut turns = round_trip();
    turns[1].calls[0].arguments = r#"{"<|im_end|>": "<|im_end|>"}"#.into();
    let template = ChatTemplate::new(QWEN3, "", "").unwrap();
    let prompt = template.render(&turns, Some(&tools), "", &guard).unwrap();
    // One end tag each for system turn, question, call and result; none from the client.
    assert_eq!(prompt.matches("<|im_end|>").count(), 4, "{prompt}");
    assert_eq!(prompt.matches("<\u{fdd0}|im_end|>").count(), 3, "{prompt}");
}

#[test]
fn invalid_json_arguments_reach_the_template_as_text() {
    let mut turns = round_trip();
    turns[1].calls[0].arguments = "{\"city\": ".into();
    let prompt = render_with_tools(QWEN3, &turns).unwrap();
    assert!(prompt.contains("\"arguments\": {\"city\": }\n</tool_call>"), "{prompt}");
}

#[test]
fn system_turns_go_where_the_family_expects_them() {
    let system = |text: &str| turn(Role::System, text);
    let user = |text: &str| turn(Role::User, text);
    let answer = || turn(Role::Assistant, "ok");
    let one = [system("S."), user("Hi")];
    let two = [system("S."), turn(Role::Developer, "T."), user("Hi")];
    let late = [user("Hi"), answer(), system("S."), user("Ho")];
    let users = [user("Hi"), user("Ho")];
    let greeted = [answer(), user("Hi")];
    let gemma = |turns: &[(&str, &str)]| {
        let turn =
            |(role, text): &(&str, &str)| format!("<start_of_turn>{role}\n{text}<end_of_turn>\n");
        let turns: String = turns.iter().map(turn).collect();
        format!("<s>{turns}<start_of_turn>model\n")
    };
    for (turns, expected) in [
        (&one[..], vec![("user", "S.\n\nHi")]),
        (&two, vec![("user", "S.\n\nT.\n\nHi")]),
        (&late, vec![("user", "Hi"), ("model", "ok"), ("user", "S.\n\nHo")]),
        (&users, vec![("user", "Hi\n\nHo")]),
        (&greeted, vec![("user", ""), ("model", "ok"), ("user", "Hi")]),
    ] {
        assert_eq!(render(GEMMA, turns).unwrap(), gemma(&expected));
    }
    // One system turn, at the beginning only.
    for (turns, expected) in [
        (&one[..], "<s>[SYS]S.[/SYS][INST]Hi[/INST]"),
        (&two, "<s>[SYS]S.\n\nT.[/SYS][INST]Hi[/INST]"),
        (&late, "<s>[INST]Hi[/INST]ok</s>[INST]S.\n\nHo[/INST]"),
        (&users, "<s>[INST]Hi\n\nHo[/INST]"),
    ] {
        assert_eq!(render(ALTERNATING, turns).unwrap(), expected);
        // Every real family takes each of them.
        for source in [QWEN3, LLAMA, MISTRAL, MISTRAL_V11, QWEN3_CODER, DEEPSEEK, SMOLLM2, SILENT] {
            let prompt = render(source, turns).unwrap();
            for turn in turns {
                assert!(prompt.contains(&turn.text), "{}: {prompt}", turn.text);
            }
        }
    }
    // What a template takes is not changed.
    assert!(
        render(QWEN3_CODER, &two).unwrap().contains("system\nS.<|im_end|>\n<|im_start|>system")
    );
}

#[test]
fn past_calls_are_rendered_whatever_their_arguments_are() {
    for arguments in
        ["", " ", "null", "{\"city\": \"Oslo", "[1]", "7", "\"Oslo\"", "{}", "{\"a\":[]}"]
    {
        let mut turns = round_trip();
        turns[1].calls[0].arguments = arguments.into();
        for source in [QWEN3, LLAMA, MISTRAL, MISTRAL_V11, QWEN3_CODER] {
            let prompt = render_with_tools(source, &turns).unwrap();
            assert_eq!(prompt.contains("Oslo"), arguments.contains("Oslo"), "{prompt}");
        }
        let prompt = render_with_tools(QWEN3_CODER, &turns).unwrap();
        let named = prompt.contains("<parameter=arguments>");
        assert_eq!(named, !matches!(arguments.trim(), "" | "null") && !arguments.ends_with('}'));
    }
    let mut turns = round_trip();
    turns[1].calls[0].arguments = String::new();
    let prompt = render_with_tools(QWEN3, &turns).unwrap();
    assert!(prompt.contains("\"arguments\": {}}"), "{prompt}");
    // A result of the older API, without the id of a call.
    turns[2] = Turn { name: Some("weather".into()), ..turn(Role::Function, "no") };
    for source in [QWEN3, LLAMA, MISTRAL, MISTRAL_V11, QWEN3_CODER] {
        assert!(render_with_tools(source, &turns).unwrap().contains("no"));
    }
}

#[test]
fn a_template_that_computes_without_end_is_stopped() {
    let nested = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    let error = render(nested, &[turn(Role::User, "Hi")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfFuel);
}

#[test]
fn ten_thousand_turns_are_within_the_fuel() {
    let role = |i: u32| if i.is_multiple_of(2) { Role::User } else { Role::Assistant };
    let turns: Vec<Turn> = (0..10_000).map(|i| turn(role(i), "word")).collect();
    for source in [CHATML, QWEN3, LLAMA] {
        assert!(render(source, &turns).is_ok());
    }
}
