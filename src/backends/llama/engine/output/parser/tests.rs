//! Tests of the parser: answers of each model family, divided in every way.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::backends::llama::engine::tool_format::{CallFormat, OutputFormat};

const THINK: Tags = Tags { open: "<think>", close: "</think>" };

fn expected(format: CallFormat, parallel: bool) -> ExpectedCalls {
    let weather = json!({"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}});
    let names = vec!["weather".into(), "time".into()];
    ExpectedCalls { format, names, schemas: vec![weather, json!({})], parallel }
}

fn parser(format: CallFormat) -> OutputParser {
    OutputParser::new(None, false, Some(expected(format, format.allows_parallel())))
}

/// All pieces for `cuts`, joined.
fn parse(mut parser: OutputParser, cuts: &[&str], cut_off: bool) -> Vec<Piece> {
    let mut collected: Vec<Piece> = Vec::new();
    let mut add = |pieces: Vec<Piece>| {
        for piece in pieces {
            let left = match collected.last_mut() {
                Some(last) => last.join(piece),
                None => Some(piece),
            };
            collected.extend(left);
        }
    };
    for text in cuts {
        add(parser.push(text));
    }
    add(parser.finish(cut_off));
    collected
}

fn read(format: CallFormat, answer: &str) -> Vec<Piece> {
    parse(parser(format), &[answer], false)
}

fn text(text: &str) -> Piece {
    Piece::Text(text.into())
}

fn reasoning(text: &str) -> Piece {
    Piece::Reasoning(text.into())
}

fn call(index: u32, name: &str, arguments: &str) -> [Piece; 2] {
    let arguments = Piece::Arguments { index, text: arguments.into() };
    [Piece::Call { index, name: name.into() }, arguments]
}

#[test]
fn hermes_calls_may_follow_text_and_each_other() {
    let answer = "Let me look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Par}is\"}}\n\
                  </tool_call>\n<tool_call>\n{\"arguments\": {\"a\": [1, {}]}, \"name\": \"time\"}\n</tool_call>";
    let mut collected = vec![text("Let me look.")];
    collected.extend(call(0, "weather", "{\"city\": \"Par}is\"}"));
    collected.extend(call(1, "time", "{\"a\": [1, {}]}"));
    assert_eq!(read(CallFormat::Hermes, answer), collected);
}

#[test]
fn llama_calls_are_the_whole_answer() {
    for answer in [
        "{\"name\": \"time\", \"parameters\": {\"zone\": \"UTC\"}}",
        "<|python_tag|>{\"type\": \"function\", \"name\": \"time\", \"parameters\": {\"zone\": \"UTC\"}}",
        "\n\n {\"name\": \"time\", \"parameters\": {\"zone\": \"UTC\"}}; {\"name\": \"time\"}",
    ] {
        assert_eq!(read(CallFormat::Llama3, answer), call(0, "time", "{\"zone\": \"UTC\"}"));
    }
    let later = "Use {\"name\": \"time\", \"parameters\": {}}";
    assert_eq!(read(CallFormat::Llama3, later), [text(later)]);
}

#[test]
fn mistral_calls_are_read_from_an_array() {
    let answer = "[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}, \"id\": \"a{b}c\"}, \
                  {\"name\": \"time\", \"arguments\": {}}]";
    let mut collected = call(0, "weather", "{\"city\": \"Oslo\"}").to_vec();
    collected.extend(call(1, "time", "{}"));
    assert_eq!(read(CallFormat::Mistral, answer), collected);
}

#[test]
fn later_mistral_calls_name_the_tool_before_their_arguments() {
    for answer in [
        "[TOOL_CALLS]weather[ARGS]{\"city\": \"[ARGS]\"}[TOOL_CALLS]time[ARGS]{}",
        "[TOOL_CALLS]weather[CALL_ID]a1b2c3d4e[ARGS]{\"city\": \"[ARGS]\"}\n[TOOL_CALLS] time[CALL_ID]000000000[ARGS] {}",
    ] {
        let mut collected = call(0, "weather", "{\"city\": \"[ARGS]\"}").to_vec();
        collected.extend(call(1, "time", "{}"));
        assert_eq!(read(CallFormat::MistralArgs, answer), collected, "{answer}");
    }
    for answer in ["[TOOL_CALLS]rm[ARGS]{}", "[TOOL_CALLS]time[ARGS]now", "[TOOL_CALLS]time"] {
        assert_eq!(read(CallFormat::MistralArgs, answer), [text(answer)]);
    }
}

#[test]
fn qwen_coders_arguments_become_json_by_their_types() {
    let parameter =
        |name: &str, value: &str| format!("<parameter={name}>\n{value}\n</parameter>\n");
    let city = parameter("city", "say \"Oslo\"\n\n</p>\\é");
    let answer = format!(
        "Well.\n\n<tool_call>\n<function=weather>\n{city}{}{}</function>\n</tool_call>\n<tool_call>\n\
         <function=time>\n</function>\n</tool_call>",
        parameter("days", "3"),
        parameter("more", "[1, {\"a\": true}]"),
    );
    let arguments = r#"{"city": "say \"Oslo\"\n\n</p>\\é", "days": 3, "more": [1,{"a":true}]}"#;
    let mut collected = vec![text("Well.")];
    collected.extend(call(0, "weather", arguments));
    collected.extend(call(1, "time", "{}"));
    assert_eq!(read(CallFormat::QwenCoder, &answer), collected);
    // Without the tag, without line ends, and with an invalid number.
    let bare =
        "<function=weather><parameter=days>soon</parameter><parameter=city></parameter></function>";
    let soon = call(0, "weather", r#"{"days": "soon", "city": ""}"#);
    assert_eq!(read(CallFormat::QwenCoder, bare), soon);
    for answer in [
        "<function=rm>\n</function>",
        "<tool_call>\n<function=weath",
        "<tool_call>{}",
        "a <function",
    ] {
        assert_eq!(read(CallFormat::QwenCoder, answer), [text(answer)]);
    }
}

#[test]
fn a_text_argument_is_streamed() {
    let mut parser = parser(CallFormat::QwenCoder);
    assert_eq!(parser.push("<tool_call>\n<function=weather"), []);
    assert_eq!(parser.push(">\n<parameter=city>\nOs"), call(0, "weather", "{\"city\": \"Os"));
    let more = |text: &str| [Piece::Arguments { index: 0, text: text.into() }];
    assert_eq!(parser.push("lo\n</para"), more("lo"));
    assert_eq!(parser.push("de"), more("\\n</parade"));
    assert_eq!(parser.push("\n</parameter>\n<parameter=days>\n1"), more("\", \"days\": "));
    assert_eq!(parser.push("2\n</parameter>"), more("12"));
}

#[test]
fn arguments_are_streamed() {
    let mut parser = parser(CallFormat::Hermes);
    assert_eq!(parser.push("<tool_call>{\"name\": \"weather\", \"arguments\":"), []);
    assert_eq!(parser.push(" {\"ci"), call(0, "weather", "{\"ci"));
    let more = Piece::Arguments { index: 0, text: "ty\"".into() };
    assert_eq!(parser.push("ty\""), [more]);
}

#[test]
fn an_incomplete_tag_is_held_back_and_never_emitted() {
    let mut parser = parser(CallFormat::Hermes);
    assert_eq!(parser.push("a < b <tool_"), [text("a < b")]);
    assert_eq!(parser.finish(true), []);
    // An answer that ended by itself is complete.
    assert_eq!(read(CallFormat::Hermes, "if a <"), [text("if a <")]);
}

#[test]
fn a_call_of_an_unknown_tool_is_text() {
    for answer in [
        "<tool_call>{\"name\": \"rm\", \"arguments\": {}}</tool_call>",
        "<tool_call>{\"name\": \"time\", \"arguments\": \"now\"}</tool_call>",
        "<tool_call>time()</tool_call>",
        "<tool_call>{\"name\": }</tool_call> and more",
        "<tool_call>{\"name\": \"ti",
    ] {
        assert_eq!(read(CallFormat::Hermes, answer), [text(answer)]);
    }
    let json = "{\"name\": \"Bob\", \"age\": 7}";
    assert_eq!(read(CallFormat::Llama3, json), [text(json)]);
}

#[test]
fn a_broken_beginning_does_not_hide_a_call_after_it() {
    let answer = "<tool_call><tool_call>{\"name\": \"time\", \"arguments\": {}}";
    let mut collected = vec![text("<tool_call>")];
    collected.extend(call(0, "time", "{}"));
    assert_eq!(read(CallFormat::Hermes, answer), collected);
}

#[test]
fn a_call_without_its_last_brace_is_complete() {
    let answer = "<tool_call>{\"name\": \"time\", \"arguments\": {}</tool_call><tool_call>{\"name\": \"time\"}";
    let mut collected = call(0, "time", "{}").to_vec();
    collected.extend(call(1, "time", "{}"));
    assert_eq!(read(CallFormat::Hermes, answer), collected);
}

#[test]
fn after_the_last_call_the_answer_is_over() {
    let answer = "<tool_call>{\"name\": \"time\", \"arguments\": {}}</tool_call>";
    let mut many = parser(CallFormat::Hermes);
    many.push(answer);
    assert!(many.has_called() && !many.is_over());
    assert_eq!(many.push("\nThe time is noon"), []);
    assert!(many.is_over());
    let calls = Some(expected(CallFormat::Hermes, false));
    let mut one = OutputParser::new(None, false, calls);
    one.push(&answer[..answer.len() - "</tool_call>".len()]);
    assert!(one.is_over());
}

#[test]
fn a_call_begun_in_the_prompt_counts_as_generated() {
    for (format, beginning) in [
        (CallFormat::Hermes, "<tool_call>\n{\"name\": \"weather\", \"arguments\":"),
        (CallFormat::Llama3, "{\"name\": \"weather\", \"parameters\":"),
        (CallFormat::Mistral, "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\":"),
        (CallFormat::MistralArgs, "[TOOL_CALLS]weather[ARGS]"),
    ] {
        let mut named = parser(format);
        named.prime(beginning);
        assert_eq!(named.push(" {\"a\": 1}}"), call(0, "weather", "{\"a\": 1}"));
    }
}

#[test]
fn json_that_is_not_a_call_is_emitted_as_soon_as_that_is_certain() {
    let mut other = parser(CallFormat::Llama3);
    assert_eq!(other.push("{\"answer\""), []);
    assert_eq!(other.push(": 4"), [text("{\"answer\": 4")]);
    let mut unknown = parser(CallFormat::Llama3);
    assert_eq!(unknown.push("{\"name\": \"Bob\""), []);
    assert_eq!(unknown.push(", "), [text("{\"name\": \"Bob\",")]);
    // Text that was cut off is kept; an incomplete call after a tag is not.
    assert_eq!(
        parse(parser(CallFormat::Llama3), &["{\"name\": \"we"], true),
        [text("{\"name\": \"we")]
    );
    assert_eq!(parse(parser(CallFormat::Hermes), &["<tool_call>{\"name\": \"we"], true), []);
}

#[test]
fn a_certain_call_is_reported_with_its_text_so_far() {
    let begun = |format, text: &str| {
        let mut parser = parser(format);
        parser.push(text);
        parser.begun_call().map(str::to_owned)
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(begun(CallFormat::Hermes, "Hm <tool_ca"), None);
    assert_eq!(begun(CallFormat::Hermes, "Hm <tool_call>"), some(""));
    assert_eq!(begun(CallFormat::Hermes, "<tool_call>\n{\"na"), some("\n{\"na"));
    assert_eq!(begun(CallFormat::Hermes, "<tool_call>{\"name\": \"time\", \"arguments\": {"), None);
    assert_eq!(begun(CallFormat::Mistral, "[TOOL_CALLS] "), None);
    assert_eq!(begun(CallFormat::Mistral, "[TOOL_CALLS] [{"), some("{"));
    assert_eq!(begun(CallFormat::Llama3, "{\"name\": \"ti"), None);
    assert_eq!(begun(CallFormat::Llama3, "{\"name\": \"time\", "), some("{\"name\": \"time\", "));
    assert_eq!(begun(CallFormat::Llama3, "<|python_tag|>{"), some("{"));
    assert_eq!(begun(CallFormat::MistralArgs, "[TOOL_CALLS]wea"), some("wea"));
    assert_eq!(begun(CallFormat::MistralArgs, "[TOOL_CALLS]time[ARGS]"), None);
    assert_eq!(begun(CallFormat::QwenCoder, "<tool_call>\n<fun"), some("\n<fun"));
    assert_eq!(begun(CallFormat::QwenCoder, "<function="), some("<function="));
    assert_eq!(begun(CallFormat::QwenCoder, "<function=time>"), None);
}

#[test]
fn reasoning_is_separated_if_the_model_opens_it() {
    let parser = || OutputParser::new(Some(THINK), false, None);
    let collected = parse(parser(), &["<think>\nA < B?\n\n</think>\n\nYes. <think>"], false);
    assert_eq!(collected, [reasoning("A < B?"), text("Yes. <think>")]);
    assert_eq!(parse(parser(), &["No thought.\n"], false), [text("No thought.\n")]);
    assert_eq!(parse(parser(), &["<think>\n\n</think>\n\nHi"], false), [text("Hi")]);
    assert_eq!(parse(parser(), &["<think>cut </th"], true), [reasoning("cut")]);
}

#[test]
fn reasoning_opened_by_the_prompt_is_separated_and_calls_follow() {
    let calls = Some(expected(CallFormat::Hermes, true));
    let mut parser = OutputParser::new(Some(THINK), true, calls);
    assert!(parser.is_reasoning());
    assert_eq!(parser.push("\nMaybe <tool_call>?</think>"), [reasoning("Maybe <tool_call>?")]);
    assert!(!parser.is_reasoning());
    let collected = parser.push("\n\n<tool_call>{\"name\": \"time\", \"arguments\": {}}");
    assert_eq!(collected, call(0, "time", "{}"));
}

#[test]
fn formats_are_detected_from_templates() {
    let dialect = |template, tools| OutputFormat::of(template, tools);
    assert_eq!(dialect("… <tool_call> …", true).calls, Some(CallFormat::Hermes));
    assert_eq!(dialect("… [TOOL_CALLS] …", true).calls, Some(CallFormat::Mistral));
    assert_eq!(dialect("… <|python_tag|> …", true).calls, Some(CallFormat::Llama3));
    assert_eq!(dialect("<|start_header_id|>ipython", true).calls, Some(CallFormat::Llama3));
    assert_eq!(dialect("… <tool_call> …", false), OutputFormat::default());
    let coder = dialect("<tool_call><function=…><parameter=…>", true);
    assert_eq!(coder.calls, Some(CallFormat::QwenCoder));
    let later = dialect("[TOOL_CALLS]…[ARGS]", true);
    assert_eq!(later.calls, Some(CallFormat::MistralArgs));
    assert_eq!(later.tags().collect::<Vec<_>>(), ["[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"]);
    for later in ["<tool_call><function=…>", "<tool_call>…<arg_key>"] {
        assert_eq!(dialect(later, true).calls, None, "{later}");
    }
    let thinker = dialect("content.split('</think>') <tool_call>", true);
    assert_eq!(thinker.reasoning, Some(THINK));
    let tags: Vec<&str> = thinker.tags().collect();
    assert_eq!(tags, ["<tool_call>", "</tool_call>", "<think>", "</think>"]);
}

/// Answers composed of the parser's own tags, complete and broken.
fn answers() -> impl Strategy<Value = String> {
    let fragment = prop::sample::select(vec![
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[CALL_ID]",
        "weather",
        "<function=",
        "time>\n",
        "weather>",
        "<parameter=city>\n",
        "<parameter=days>",
        "</parameter>",
        "</function>",
        "[",
        "]",
        ",",
        "{",
        "}",
        "<",
        "\"",
        "\\",
        " ",
        "\n",
        "é",
        "hello",
        "{\"name\": \"time\", \"arguments\": ",
        "{\"name\": \"weather\", \"parameters\": {",
        "{\"arguments\": {\"a\": 1}, \"name\": \"time\"}",
        "{\"name\": \"other\", \"arguments\": {}}",
        "{\"name\": \"time\", \"arguments\": {\"b\": \"}\"}}",
    ]);
    prop::collection::vec(fragment, 0..12).prop_map(|fragments| fragments.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The pieces do not depend on how the answer is divided; nothing is repeated or invented.
    #[test]
    fn cuts_do_not_matter(
        answer in answers(),
        cuts in prop::collection::vec(1..6usize, 1..40),
        format in prop::sample::select(CallFormat::ALL.to_vec()),
        (reasons, opened, calls, parallel, cut_off) in any::<(bool, bool, bool, bool, bool)>(),
    ) {
        let parser = || OutputParser::new(
            reasons.then_some(THINK),
            reasons && opened,
            calls.then(|| expected(format, parallel)),
        );
        let chars: Vec<char> = answer.chars().collect();
        let (mut pieces, mut at) = (Vec::new(), 0);
        for cut in cuts.into_iter().cycle() {
            if at >= chars.len() {
                break;
            }
            let end = (at + cut).min(chars.len());
            pieces.push(chars[at..end].iter().collect::<String>());
            at = end;
        }
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let whole = parse(parser(), &[&answer], cut_off);
        prop_assert_eq!(&parse(parser(), &pieces, cut_off), &whole);
        let collected: usize = whole.iter().map(|piece| match piece {
            // `{}` replaces missing arguments.
            Piece::Arguments { text, .. } if text == "{}" => 0,
            Piece::Text(text) | Piece::Reasoning(text) | Piece::Arguments { text, .. } => text.len(),
            Piece::Call { .. } => 0,
        }).sum();
        // A text argument gains the escapes of a JSON string.
        let most = if format.spells_each_argument() { 2 * answer.len() } else { answer.len() };
        prop_assert!(collected <= most);
        if !calls && !reasons {
            prop_assert_eq!(whole, if answer.is_empty() { vec![] } else { vec![text(&answer)] });
        }
    }

    /// Text without any tag arrives whole.
    #[test]
    fn plain_text_is_untouched(answer in "[a-z {}\\[\\]<>/|\"\n]{0,60}") {
        prop_assume!(!answer.trim_start().starts_with('{'));
        for format in CallFormat::ALL {
            let calls = Some(expected(format, true));
            let collected = parse(OutputParser::new(Some(THINK), false, calls), &[&answer], false);
            prop_assert_eq!(collected, if answer.is_empty() { vec![] } else { vec![text(&answer)] });
        }
    }
}
