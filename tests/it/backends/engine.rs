//! The local engine through the `Backend` trait: a real child process with a real model.
#![cfg(test)]

use std::collections::HashSet;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use futures::StreamExt;
use futures::future::join_all;
use rustix::process::{Signal, kill_process};
use serde_json::json;
use tokio::time::timeout;
use wattgate::backends::llama::wire::conversation::{Conversation, Turn};
use wattgate::backends::llama::wire::protocol::{self, FromEngine, ToEngine};
use wattgate::backends::llama::wire::sampling::Sampling;
use wattgate::backends::llama::wire::settings::EngineSettings;
use wattgate::backends::llama::{
    Config, CpuCode, FlashAttention, KvType, Overflow, Phase, Sandbox,
};
use wattgate::backends::{Backend, BackendError, ErrorKind, Event, EventStream, SchedulingOptions};
use wattgate::openai::{FinishReason, Role, Usage};
use wattgate::units::AttemptId;

use crate::rig::engine::{
    Answer, Heard, Local, PATIENCE, PROMPTS, capital, collect, first_text, greedy, model_path,
    small,
};

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_question_is_answered_and_counted() {
    let local = Local::ready(small()).await;
    let answer = local.ask(&capital(40)).await.unwrap();
    assert!(answer.text.contains("Paris"), "{answer:?}");
    assert_eq!(answer.reason, FinishReason::Stop);
    let Usage { prompt_tokens, completion_tokens, total_tokens, .. } = answer.usage;
    assert_eq!(total_tokens, prompt_tokens + completion_tokens);
    assert_eq!(local.recorder.tokens(answer.attempt), (prompt_tokens, completion_tokens - 1));
    let limited = local.ask(&greedy("Write a long story.", 5)).await.unwrap();
    assert_eq!((limited.reason, limited.usage.completion_tokens), (FinishReason::Length, 5));

    let recorder = local.stop().await;
    let heard = recorder.heard();
    let pid = u32::try_from(recorder.pid().as_raw_nonzero().get()).unwrap();
    assert_eq!(
        (heard.first(), heard.last()),
        (Some(&Heard::Started(pid)), Some(&Heard::Stopped(pid)))
    );
    for attempt in [answer.attempt, limited.attempt] {
        let closings = heard.iter().filter(|&h| *h == Heard::Closed(attempt)).count();
        let openings = heard.iter().filter(|&h| *h == Heard::Opened(attempt)).count();
        assert_eq!((openings, closings), (1, 1));
    }
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn eight_staggered_streams_interleave_and_each_equals_itself_alone() {
    let local = Local::ready(small()).await;
    let mut alone = Vec::new();
    for prompt in PROMPTS {
        alone.push(local.ask(&greedy(prompt, 24)).await.unwrap().text);
    }
    local.stop().await;

    // A fresh engine, so that both runs start with an empty cache.
    let local = Local::ready(small()).await;
    let mut streams = Vec::new();
    for prompt in PROMPTS {
        let (attempt, mut events) = local.begin(&greedy(prompt, 24));
        // Each starts once the previous one is admitted.
        assert!(matches!(events.next().await, Some(Ok(Event::Started))));
        let rest = futures::stream::iter([Ok(Event::Started)]).chain(events).boxed();
        streams.push(collect(attempt, rest));
    }
    let together: Vec<Answer> =
        join_all(streams).await.into_iter().collect::<Result<_, _>>().unwrap();
    for (answer, alone) in together.iter().zip(&alone) {
        assert_eq!(&answer.text, alone);
    }
    let steps = local.recorder.steps();
    let widest = steps.iter().map(|step| step.work.rows.len()).max();
    assert!(widest >= Some(4), "the streams ran one after the other");
    assert!(
        steps.is_sorted_by(|a, b| a.work.start <= a.work.end && a.work.end <= b.work.start),
        "steps overlap"
    );
    local.stop().await;
}

#[tokio::test]
async fn a_dropped_stream_frees_its_slot_and_a_full_queue_refuses() {
    let local = Local::fake(Config { slots: 1, queue: 1, ..small() }).await;
    let (abandoned, mut running) = local.begin(&greedy("Count from 1 to 100.", 400));
    first_text(&mut running).await;
    let (attempt, waiting) = local.begin(&capital(12));
    let refused = local.ask(&greedy("One too many.", 1)).await.unwrap_err();
    assert!(matches!(refused.kind, ErrorKind::Overloaded { .. }), "{refused}");
    assert_eq!(local.backend.health().in_flight, 2);
    drop(running);
    let answer = collect(attempt, waiting).await.unwrap();
    assert!(answer.text.contains("Paris"), "{answer:?}");
    let (_, decoded) = local.recorder.tokens(abandoned);
    assert!(decoded < 300, "the abandoned answer went on for {decoded} tokens");
    assert_eq!(
        local.recorder.heard().iter().filter(|&h| *h == Heard::Closed(abandoned)).count(),
        1
    );
    assert_eq!(local.backend.health().in_flight, 0);
    local.stop().await;
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_seed_reproduces_an_answer_and_without_one_answers_vary() {
    let local = Local::ready(small()).await;
    let request = |seed: Option<i64>| {
        let mut request = greedy("Invent a name for a robot and describe it.", 24);
        request["temperature"] = json!(1.2);
        request["top_p"] = json!(0.95);
        request["seed"] = json!(seed);
        request
    };
    let mut texts = Vec::new();
    for seed in [Some(7), Some(7), Some(8), None, None] {
        texts.push(local.ask(&request(seed)).await.unwrap().text);
    }
    assert_eq!(texts[0], texts[1]);
    let distinct: HashSet<&String> = texts.iter().collect();
    assert_eq!(distinct.len(), 4, "{texts:?}");
    local.stop().await;
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_before_itself() {
    let local = Local::fake(small()).await;
    let mut request = capital(40);
    let whole = local.ask(&request).await.unwrap().text;
    // Across a token boundary: the end of one word and the beginning of the next.
    let stop = "l of Fr";
    let expected = &whole[..whole.find(stop).expect("the answer repeats the question")];
    request["stop"] = json!(["never said", stop]);
    let stopped = local.ask(&request).await.unwrap();
    assert_eq!((stopped.text.as_str(), stopped.reason), (expected, FinishReason::Stop));
    local.stop().await;
}

#[tokio::test]
async fn a_conversation_reuses_its_prefix() {
    let local = Local::fake(small()).await;
    let mut request = capital(30);
    let first = local.ask(&request).await.unwrap();
    assert_eq!(first.usage.cached_tokens(), 0);
    let turns = request["messages"].as_array_mut().unwrap();
    turns.push(json!({"role": "assistant", "content": first.text}));
    turns.push(json!({"role": "user", "content": [{"type": "text", "text": "And of Spain?"}]}));
    let second = local.ask(&request).await.unwrap();
    assert!(second.usage.cached_tokens() >= first.usage.prompt_tokens, "{second:?}");
    let prefilled = second.usage.prompt_tokens - second.usage.cached_tokens();
    assert_eq!(local.recorder.tokens(second.attempt).0, prefilled);
    local.stop().await;
}

#[tokio::test]
async fn a_prompt_beyond_the_context_is_refused_with_exact_counts() {
    let long = greedy(&"word ".repeat(300), 4);
    let local = Local::fake(small()).await;
    let counted = local.ask(&long).await.unwrap().usage.prompt_tokens;
    local.stop().await;

    let local = Local::fake(Config { context_tokens: 256, ..small() }).await;
    let refused = local.ask(&long).await.unwrap_err();
    let prompt_tokens = u32::try_from(counted).unwrap();
    assert_eq!(refused.kind, ErrorKind::ContextExceeded { prompt_tokens, context_tokens: 256 });
    // A prompt that fits may fill the context; the answer ends there.
    let filling =
        local.ask(&greedy(&format!("Count {}", "word ".repeat(200)), 1000)).await.unwrap();
    assert_eq!(filling.usage.total_tokens, 256, "{filling:?}");
    local.stop().await;
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_control_token_in_a_message_is_only_text() {
    let local = Local::ready(small()).await;
    let tokens = async |text: &str| local.ask(&greedy(text, 1)).await.unwrap().usage.prompt_tokens;
    let (without, with) = (tokens("ab").await, tokens("a<|im_end|>b").await);
    assert!(with > without + 3, "{with} tokens against {without}: read as one control token");
    local.stop().await;
}

#[tokio::test]
async fn a_killed_engine_fails_its_requests_and_restarts() {
    let local = Local::fake(small()).await;
    let (running, mut events) = local.begin(&greedy("Count from 1 to 100.", 400));
    first_text(&mut events).await;
    kill_process(local.recorder.pid(), Signal::KILL).unwrap();
    let error = collect_error(events).await;
    assert_eq!(error.kind, ErrorKind::EngineDied);
    assert_eq!(local.recorder.heard().iter().filter(|&h| *h == Heard::Closed(running)).count(), 1);

    local.until_restarted(1).await;
    let answer = local.ask(&capital(12)).await.unwrap();
    assert!(answer.text.contains("Paris"), "{answer:?}");
    local.stop().await;
}

async fn collect_error(mut events: EventStream) -> BackendError {
    while let Some(event) = timeout(PATIENCE, events.next()).await.unwrap() {
        if let Err(error) = event {
            return error;
        }
    }
    panic!("the answer ended well");
}

#[tokio::test]
async fn a_hung_engine_is_killed_and_restarted() {
    let local = Local::fake(Config { hang_timeout_ms: 2000, ..small() }).await;
    let hung = local.recorder.pid();
    kill_process(hung, Signal::STOP).unwrap();
    let (_, events) = local.begin(&greedy("Anyone there?", 4));
    assert_eq!(collect_error(events).await.kind, ErrorKind::EngineDied);
    local.until_restarted(1).await;
    assert_ne!(local.recorder.pid(), hung);
    local.stop().await;
}

#[tokio::test]
async fn an_answer_without_a_first_token_times_out() {
    let local = Local::fake(Config { first_token_timeout_ms: 300, ..small() }).await;
    kill_process(local.recorder.pid(), Signal::STOP).unwrap();
    let (_, events) = local.begin(&greedy("Anyone there?", 4));
    assert!(matches!(collect_error(events).await.kind, ErrorKind::Timeout { .. }));
    local.stop().await;
}

#[tokio::test]
#[ignore = "needs a model: `make test` pulls it"]
async fn a_file_without_a_model_makes_the_backend_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let truncated = folder.path().join("truncated.gguf");
    let model = std::fs::read(model_path()).unwrap();
    std::fs::write(&truncated, &model[..model.len() / 2]).unwrap();
    let garbage = folder.path().join("garbage.gguf");
    std::fs::write(&garbage, "not a model").unwrap();
    for gguf in [folder.path().join("missing.gguf"), garbage, truncated] {
        let local = Local::start(small(), gguf);
        let Phase::Down(reason) = local.until(|phase| matches!(phase, Phase::Down(_))).await else {
            unreachable!("waited for it");
        };
        assert!(!local.backend.health().ready);
        let refused = local.ask(&greedy("Hello", 4)).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Unavailable(reason.to_string()));
        assert!(reason.contains(".gguf"), "{reason}");
        local.stop().await;
    }
}

/// An engine process with the test as its gateway.
struct ByHand {
    process: std::process::Child,
    socket: UnixStream,
}

impl ByHand {
    fn start() -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        let process = std::process::Command::new(env!("CARGO_BIN_EXE_wattgate"))
            .args(["engine", "--model", "test"])
            .stdin(std::process::Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .spawn()
            .unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { process, socket }
    }

    fn send(&mut self, message: &ToEngine) {
        let mut frame = Vec::new();
        protocol::append_frame(&mut frame, message).unwrap();
        self.socket.write_all(&frame).unwrap();
    }

    fn until(&mut self, reached: impl Fn(&FromEngine) -> bool) {
        while !reached(&protocol::read_frame(&mut self.socket).unwrap().expect("a frame")) {}
    }
}

#[test]
#[ignore = "needs a model: `make test` pulls it"]
fn an_engine_exits_when_its_gateway_dies_even_while_evaluating() {
    let mut engine = ByHand::start();
    engine.send(&ToEngine::Load(EngineSettings {
        gguf: model_path(),
        context_tokens: 8192,
        slots: 1,
        threads: 1,
        batch_tokens: 8192,
        queue: 1,
        gpu_layers: 0,
        flash_attention: FlashAttention::Auto,
        kv_type: KvType::F16,
        mmap: true,
        mlock: false,
        lora: None,
        chat_template: None,
        overflow: Overflow::Refuse,
        cpu: CpuCode::best(),
        sandbox: Sandbox::Auto,
        data_bytes_max: None,
        embedding: false,
        pooling: None,
        host_cache_bytes: 0,
        prompt_cache: true,
        draft_tokens: 0,
        prefill_stretch: 1.0,
    }));
    engine.until(|frame| matches!(frame, FromEngine::Ready(_)));
    // One step over thousands of tokens takes a minute on one thread and reports nothing before its
    // end.
    engine.send(&ToEngine::Submit(protocol::Submission {
        attempt: AttemptId(1),
        prompt: protocol::Prompt::Chat(Conversation {
            turns: vec![Turn::new(Role::User, "word ".repeat(8000))],
            tools: None,
            variables: String::new(),
            continues: false,
        }),
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        output_limit: 1,
        stop: Vec::new(),
        ignore_eos: false,
        logprobs: None,
        constraint: None,
        least_tokens: 0,
        terms: SchedulingOptions::default(),
    }));
    // Time to enter that step; an exit before it is correct as well.
    std::thread::sleep(Duration::from_secs(1));
    let ByHand { mut process, socket } = engine;
    drop(socket);
    assert_eq!(process.wait().unwrap().signal(), Some(Signal::KILL.as_raw()));
}

#[test]
fn an_engine_exits_on_a_malformed_frame() {
    let mut engine = ByHand::start();
    engine.socket.write_all(&[0, 0, 0, 2, 250, 250]).unwrap();
    assert!(!engine.process.wait().unwrap().success());
}
