//! Streams as upstreams write them, and what of them reaches a client.

use super::*;
use crate::units::Joules;

const TEXT: &str =
    r#"{"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}],"usage":null}"#;
const STOP: &str = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"length"}]}"#;
const USAGE: &str =
    r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}"#;

const ONE: Asked = Asked { choices: 1, usage: false, raw: false };

/// Everything that leaves, the last chunk included, and what follows.
fn play(events: &[&str]) -> Result<(Vec<String>, Vec<Event>), ErrorKind> {
    play_asked(ONE, events)
}

fn play_choices(choices: usize, events: &[&str]) -> Result<(Vec<String>, Vec<Event>), ErrorKind> {
    play_asked(Asked { choices, ..ONE }, events)
}

fn play_asked(asked: Asked, events: &[&str]) -> Result<(Vec<String>, Vec<Event>), ErrorKind> {
    let mut transcript = Transcript::new(asked);
    let mut forwarded = Vec::new();
    for &event in events {
        forwarded.extend(feed(&mut transcript, event)?);
    }
    let (mut closing, mut has_last) = (Vec::new(), false);
    for event in transcript.finish()? {
        match event {
            Event::UpstreamChunks(chunks) => {
                assert!(!has_last, "nothing follows the last chunk");
                has_last = chunks.is_last();
                forwarded.extend(chunks.objects().map(str::to_owned));
            }
            other => closing.push(other),
        }
    }
    assert!(has_last, "one chunk can carry the receipt");
    Ok((forwarded, closing))
}

/// What leaves at once.
fn feed(transcript: &mut Transcript, event: &str) -> Result<Vec<String>, ErrorKind> {
    transcript.feed(format!("data: {event}\n\n").as_bytes())?;
    let chunks = transcript.forward();
    Ok(chunks.iter().flat_map(Chunks::objects).map(str::to_owned).collect())
}

#[test]
fn chunks_pass_unchanged_and_the_usage_chunk_becomes_an_event() {
    let spaced = r#"{ "choices" : [ {"delta":{"content":"\u00e9"}} ], "x": 1.0e0 }"#;
    let (forwarded, closing) = play(&[TEXT, spaced, STOP, USAGE, "[DONE]"]).unwrap();
    assert_eq!(forwarded, [TEXT, spaced, STOP]);
    let [Event::Usage(usage), Event::Done(FinishReason::Length)] = closing[..] else {
        panic!("{closing:?}")
    };
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (7, 3));
}

#[test]
fn texts_of_one_shape_are_counted_and_pass_unchanged_between_others() {
    let text = |text: &str| TEXT.replacen("hi", text, 1);
    let (a, e, b, empty) = (text("a"), text("é"), text(r"b\n"), text(""));
    let other = r#"{"choices":[{"index":1,"text":"d"}]}"#;
    let mut transcript = Transcript::new(Asked { choices: 2, ..ONE });
    for (event, outputs) in
        [(&*a, 1), (&e, 1), (&b, 1), (&a, 1), (other, 1), (other, 1), (&a, 1), (&empty, 0), (&e, 1)]
    {
        transcript.feed(format!("data: {event}\n\n").as_bytes()).unwrap();
        let chunks = transcript.forward().unwrap();
        assert_eq!(chunks.objects().collect::<Vec<_>>(), [event]);
        assert_eq!(chunks.outputs(), outputs, "{event}");
    }
    // What the event's name says comes first.
    assert!(transcript.feed(format!("event: error\ndata: {a}\n\n").as_bytes()).is_err());
    assert_eq!(transcript.answer.begun, [0, 1]);
}

#[test]
fn a_usage_chunk_that_was_asked_for_comes_last_as_it_was_written() {
    let asked = Asked { usage: true, ..ONE };
    let rich = r#"{"id":"a","choices":[],"usage":{"prompt_tokens":7,"cost":1.0e-5},"x_groq":{}}"#;
    for order in [[TEXT, STOP, USAGE, rich], [TEXT, rich, STOP, rich], [rich, TEXT, STOP, rich]] {
        assert_eq!(play_asked(asked, &order).unwrap().0, [TEXT, STOP, rich], "{order:?}");
    }
    assert_eq!(play_asked(asked, &[TEXT, STOP, "[DONE]"]).unwrap().0, [TEXT, STOP]);
    // One that cannot be read is a usage chunk as well.
    let odd = r#"{"choices":[],"usage":{"completion_tokens":null}}"#;
    assert_eq!(play_asked(asked, &[TEXT, STOP, odd]).unwrap().0, [TEXT, STOP, odd]);
    assert_eq!(play(&[TEXT, STOP, odd]).unwrap().0, [TEXT, STOP]);
    let no_choices = r#"{"usage":{"total_tokens":3}}"#;
    assert_eq!(play(&[no_choices, TEXT, STOP]).unwrap().0, [TEXT, STOP]);
}

#[test]
fn running_usage_counts_once_and_stays_in_its_chunk() {
    let running = |tokens| {
        format!(
            r#"{{"choices":[{{"finish_reason":null}}],"usage":{{"prompt_tokens":1,"completion_tokens":{tokens}}}}}"#
        )
    };
    let (forwarded, closing) = play(&[&running(1), &running(2), STOP]).unwrap();
    assert_eq!(forwarded.len(), 3);
    assert!(
        matches!(closing[..], [Event::Usage(usage), Event::Done(_)] if usage.completion_tokens == 2)
    );
}

#[test]
fn a_stream_is_whole_with_a_finish_reason_or_with_done_after_output() {
    assert!(play(&[TEXT, STOP]).is_ok());
    assert!(play(&[TEXT, "[DONE]"]).is_ok());
    for broken in [&[TEXT][..], &["[DONE]"], &[USAGE, "[DONE]"], &[]] {
        assert_eq!(play(broken).unwrap_err().label(), "protocol", "{broken:?}");
    }
}

#[test]
fn done_without_a_finish_ends_every_open_choice_in_the_upstreams_name() {
    let open = |index| {
        format!(
            r#"{{"id":"a","created":1,"choices":[{{"index":{index},"delta":{{"content":"x"}}}}]}}"#
        )
    };
    let (forwarded, _) = play_choices(2, &[&open(0), &open(1), "[DONE]"]).unwrap();
    assert_eq!(
        forwarded[2],
        r#"{"id":"a","created":1,"choices":[{"index":0,"delta":{},"finish_reason":"stop"},{"index":1,"delta":{},"finish_reason":"stop"}]}"#
    );
    let raw = Asked { raw: true, ..ONE };
    let (forwarded, _) = play_asked(raw, &[r#"{"choices":[{"text":"x"}]}"#, "[DONE]"]).unwrap();
    assert_eq!(forwarded[1], r#"{"choices":[{"index":0,"text":"","finish_reason":"stop"}]}"#);
    // An upstream that knows one choice only has ended what it began.
    let (forwarded, _) = play_choices(2, &[TEXT, STOP, "[DONE]"]).unwrap();
    assert_eq!(forwarded[2], r#"{"choices":[{"index":0,"delta":{},"finish_reason":null}]}"#);
}

#[test]
fn text_leaves_at_once_and_its_finish_with_the_receipt() {
    for output in [
        r#""delta":{"content":" world"}"#,
        r#""delta":{"tool_calls":[{"index":0,"function":{"name":"f"}}]}"#,
        r#""text":" world""#,
    ] {
        let mut transcript = Transcript::new(ONE);
        feed(&mut transcript, TEXT).unwrap();
        let last = format!(r#"{{"choices":[{{{output},"finish_reason":"stop"}}]}}"#);
        let said = format!(r#"{{"choices":[{{{output},"finish_reason":null}}]}}"#);
        assert_eq!(feed(&mut transcript, &last).unwrap(), [said]);
        assert!(transcript.is_complete());
        let events = transcript.finish().unwrap();
        let [Event::UpstreamChunks(end), Event::Done(FinishReason::Stop)] = &events[..] else {
            panic!("{events:?}")
        };
        let end: Vec<&str> = end.objects().collect();
        assert!(end[0].contains(r#""finish_reason":"stop""#) && !end[0].contains("world"));
    }
}

#[test]
fn what_follows_the_finish_is_not_held_if_it_is_output() {
    let mut transcript = Transcript::new(ONE);
    assert!(feed(&mut transcript, STOP).unwrap().is_empty());
    assert_eq!(feed(&mut transcript, TEXT).unwrap(), [TEXT]);
    let empty = r#"{"choices":[],"x":1}"#;
    assert_eq!(feed(&mut transcript, empty).unwrap(), [STOP]);
    assert_eq!(transcript.finish().unwrap().len(), 2);
}

#[test]
fn errors_in_a_stream_end_it() {
    let label = |event: &str| play(&[TEXT, event]).unwrap_err().label();
    assert_eq!(label(r#"{"error":{"message":"m","type":"server_error"}}"#), "upstream_status");
    assert_eq!(label(r#"{"object":"error","message":"m","code":400}"#), "invalid_request");
    assert_eq!(label(r#"{"message":"m","code":500}"#), "upstream_status");
    assert_eq!(label(r#"[{"error":{"code":429,"message":"m"}}]"#), "rate_limited");
    assert_eq!(label("{"), "protocol", "a chunk that is cut");
    let mut transcript = Transcript::new(ONE);
    let named = transcript.feed(b"event: error\ndata: {\"message\":\"m\",\"code\":429}\n\n");
    assert_eq!(named.unwrap_err().label(), "rate_limited");
}

#[test]
fn the_last_event_may_lack_its_blank_line() {
    let ended = |last: &str| {
        let mut transcript = Transcript::new(ONE);
        feed(&mut transcript, TEXT).unwrap();
        transcript.feed(format!("data: {last}").as_bytes()).unwrap();
        transcript.finish().map(|events| match events.first() {
            Some(Event::UpstreamChunks(chunks)) => chunks.objects().collect::<String>(),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(ended(STOP).unwrap(), STOP);
    assert_eq!(ended(&format!("{STOP}\r\n")).unwrap(), STOP);
    assert!(ended("[DONE]").is_ok());
    assert_eq!(
        ended(r#"{"error":{"message":"m","code":429}}"#).unwrap_err().label(),
        "rate_limited"
    );
    let half = ended(&STOP[..STOP.len() - 4]).unwrap_err();
    assert_eq!(half, failure::protocol("the stream ended before the answer did"));
}

#[test]
fn odd_events_are_not_the_end() {
    for odd in [
        "ping",
        "",
        "7",
        "[1]",
        "null",
        "\"text\"",
        r#"{"choices":5}"#,
        r#"{"choices":[5]}"#,
        r#"{"choices":[null]}"#,
    ] {
        assert_eq!(play(&[TEXT, odd, STOP]).unwrap().0, [TEXT, STOP], "{odd}");
    }
    for kept in [
        r#"{"choices":[{"delta":{},"finish_reason":3}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":{"a":1}}]}"#,
        r#"{"choices":[],"choices":[],"data":7,"object":7}"#,
        r#"{"choices":[],"error":""}"#,
        r#"{"choices":[],"prompt_filter_results":[{}]}"#,
        r#"{"type":"ping"}"#,
    ] {
        assert_eq!(play(&[TEXT, kept, STOP]).unwrap().0, [TEXT, kept, STOP], "{kept}");
    }
    let infinite = r#"{"choices":[{"delta":{"content":"NaN"},"logprobs":[-Infinity, NaN]}]}"#;
    let finite = r#"{"choices":[{"delta":{"content":"NaN"},"logprobs":[null, null]}]}"#;
    assert_eq!(play(&[infinite, STOP]).unwrap().0, [finite, STOP]);
}

#[test]
fn a_choice_ends_with_a_reason_that_is_not_empty() {
    let open = r#"{"choices":[{"delta":{"content":"w"},"finish_reason":""}]}"#;
    assert_eq!(play(&[open, open]).unwrap_err().label(), "protocol");
    let (forwarded, closing) = play(&[open, STOP]).unwrap();
    assert_eq!(forwarded, [open, STOP]);
    assert!(matches!(closing[..], [Event::Done(FinishReason::Length)]));
}

#[test]
fn of_several_choices_each_must_end_and_none_waits_for_the_others() {
    let text = r#"{"choices":[{"index":1,"delta":{"content":"half"}}]}"#;
    let end = r#"{"choices":[{"index":1,"delta":{},"finish_reason":"stop"}]}"#;
    let mut transcript = Transcript::new(Asked { choices: 2, ..ONE });
    let mut count = |event: &str| feed(&mut transcript, event).unwrap().len();
    assert_eq!([count(STOP), count(text), count(end), count(text)], [1, 1, 0, 1]);
    for whole in [[STOP, text, end], [text, STOP, end], [text, end, STOP]] {
        assert_eq!(play_choices(2, &whole).unwrap().0, whole);
    }
    for cut in [&[STOP, text][..], &[STOP], &[text, STOP]] {
        assert_eq!(play_choices(2, cut).unwrap_err().label(), "protocol", "{cut:?}");
    }
    assert!(play_choices(2, &[STOP, text, "[DONE]"]).is_ok());
}

#[test]
fn chunks_know_how_many_of_them_carry_output() {
    let role = r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#;
    let mut transcript = Transcript::new(ONE);
    transcript
        .feed(format!("data: {role}\n\ndata: {TEXT}\n\ndata: {TEXT}\n\n").as_bytes())
        .unwrap();
    let chunks = transcript.forward().unwrap();
    assert_eq!((chunks.objects().count(), chunks.outputs()), (3, 2));
    transcript.feed(format!("data: {role}\n\n").as_bytes()).unwrap();
    assert_eq!(transcript.forward().unwrap().outputs(), 0);
}

#[test]
fn another_gateways_receipt_gives_its_energy_and_is_not_passed_on() {
    let end = r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"wattgate":{"energy":{"joules":2.0}},"wattgate":{"energy":{"joules":3.0}}}"#;
    let (forwarded, closing) = play(&[TEXT, end, "[DONE]"]).unwrap();
    assert_eq!(forwarded[1], r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#);
    let joules = closing.iter().find_map(|event| match event {
        Event::Energy(figure) => figure.joules,
        _ => None,
    });
    assert_eq!(joules, Some(Joules(3.0)));
}

#[test]
fn what_is_not_needed_may_be_odd() {
    let odd = r#"{"choices":[{"finish_reason":"eos"}],"usage":"none","energy":[],"x":3}"#;
    let (_, closing) = play(&[odd]).unwrap();
    assert!(matches!(closing[..], [Event::Done(FinishReason::Stop)]));
}

#[test]
fn energy_that_an_upstream_reports_is_an_event() {
    let energy = |field: &str| {
        let body = format!(r#"{{"choices":[{{"finish_reason":"stop"}}],{field}}}"#);
        whole(&body.into()).unwrap().into_iter().find_map(|event| match event {
            Event::Energy(figure) => figure.joules,
            _ => None,
        })
    };
    assert_eq!(energy(r#""energy":{"energy_joules":4.5}"#), Some(Joules(4.5)));
    assert_eq!(energy(r#""energy_joules":3.5"#), Some(Joules(3.5)));
    assert_eq!(energy(r#""wattgate":{"energy":{"joules":2.0}}"#), Some(Joules(2.0)));
    assert_eq!(energy(r#""energy":{"energy_joules":-1}"#), None);
}

#[test]
fn a_whole_answer_is_read_as_a_stream_where_one_was_asked_for() {
    let body = r#"{"id":"a","choices":[{"message":{"content":"hi"},"finish_reason":"length"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
    let mut transcript = Transcript::new(ONE);
    transcript.feed_whole(body.as_bytes()).unwrap();
    let said = transcript.forward().unwrap();
    assert!(said.outputs() == 1 && said.objects().all(|one| one.contains("\"hi\"")));
    let events = transcript.finish().unwrap();
    let [Event::UpstreamChunks(_), Event::Usage(usage), Event::Done(FinishReason::Length)] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(usage.completion_tokens, 2);
}
