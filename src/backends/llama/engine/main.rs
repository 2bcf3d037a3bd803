//! Entry point of the engine process: loads one model and answers over the socket that is its
//! standard input.
//!
//! The main thread owns the llama.cpp context; the reader takes frames, and the threads of `intake`
//! make requests of them.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};

use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::{LlamaLoraAdapter, LlamaModel};
use llama_cpp_2::{LogOptions, send_logs_to_tracing};
use tracing::{error, warn};

use super::command::EngineCommand;
use super::embedder::Embedder;
use super::error::EngineError;
use super::generator::Generator;
use super::load::{load_adapter, load_model, new_context};
use super::prompt::builder::PromptBuilder;
use super::prompt::template::CHATML;
use super::{helper, kernels, reader, step_loop};
use crate::backends::llama::sandbox::{self, Hold, limits};
use crate::backends::llama::wire::cpu::CpuVariant;
use crate::backends::llama::wire::protocol::{self, EngineFacts, FrameError, FromEngine, ToEngine};
use crate::backends::llama::wire::settings::EngineSettings;

/// What the process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Engine,
    /// Answers from a script.
    Fake,
    /// Works for an engine.
    Helper,
}

/// Runs the process. Returns when the other end closes the socket, or on an error.
pub fn run(kind: Kind) -> Result<(), EngineError> {
    let mut socket = gateway_socket()?;
    if kind == Kind::Helper {
        return helper::run(socket);
    }
    limits::of_engine(&socket).map_err(EngineError::Limits)?;
    let mut reading = socket.try_clone().map_err(FrameError::from)?;
    let Some(ToEngine::Load(settings)) = protocol::read_frame(&mut reading)? else {
        return Err(EngineError::NotAChild);
    };
    let ended = confine(&settings).and_then(|hold| match kind {
        Kind::Fake => super::fake::run(&settings, &mut socket, reading),
        _ => run_model(&settings, hold, &mut socket, reading),
    });
    if let Err(EngineError::Load(reason)) = &ended {
        error!("{reason}");
        protocol::write_frame(&mut socket, &FromEngine::LoadFailed { reason: reason.clone() })?;
    }
    ended
}

/// Before any thread is started and any file of the model read: a thread hands the sandbox on to
/// those that it starts.
fn confine(settings: &EngineSettings) -> Result<Hold, EngineError> {
    if let Some(bytes_max) = settings.data_bytes_max {
        limits::bound_data(bytes_max).map_err(EngineError::Limits)?;
    }
    sandbox::enter(settings).map_err(|lacking| EngineError::Load(lacking.to_string()))
}

fn run_model(
    settings: &EngineSettings,
    hold: Hold,
    socket: &mut UnixStream,
    reading: UnixStream,
) -> Result<(), EngineError> {
    send_logs_to_tracing(LogOptions::default());
    let most = settings.commands_max();
    // A request in preparation is reported up to three times.
    let (commands, received) = mpsc::sync_channel(4 * most);
    let builder = Arc::new(OnceLock::new());
    reader::start(reading, Arc::clone(&builder), commands, most).map_err(EngineError::Thread)?;
    serve(settings, hold, socket, &builder, &received)
}

fn gateway_socket() -> Result<UnixStream, EngineError> {
    let stdin = io::stdin();
    let owned = stdin.as_fd().try_clone_to_owned().map_err(|_| EngineError::NotAChild)?;
    let socket = UnixStream::from(owned);
    // Only sockets have an address; terminals and files do not.
    socket.local_addr().map_err(|_| EngineError::NotAChild)?;
    Ok(socket)
}

/// Loads the model, then evaluates until the socket is closed.
fn serve(
    settings: &EngineSettings,
    hold: Hold,
    socket: &mut UnixStream,
    builder: &OnceLock<PromptBuilder>,
    commands: &mpsc::Receiver<EngineCommand>,
) -> Result<(), EngineError> {
    let backend = LlamaBackend::init().map_err(|error| EngineError::Load(error.to_string()))?;
    kernels::install(settings.cpu);
    let mut model = load_model(&backend, settings, socket)?;
    #[cfg(target_os = "linux")]
    super::mmap::release_pages(&settings.gguf);
    let adapter = load_adapter(&mut model, settings)?;
    let model = Arc::new(model);
    let threads = settings.threads.max(1) as usize;
    let worker = Worker::new(&backend, &model, adapter, settings, threads)?;
    let context_tokens = worker.context_tokens();
    let template = chat_template(settings)?;
    let built = PromptBuilder::new(Arc::clone(&model), template, settings.overflow, context_tokens)
        .map_err(|error| EngineError::Load(format!("its chat template is invalid: {error}")))?;
    let facts = EngineFacts {
        context_tokens: u32::try_from(context_tokens).unwrap_or(u32::MAX),
        slots: settings.slots,
        has_chat_template: built.has_template(),
        takes_tools: !settings.embedding && built.takes_tools().map_err(EngineError::Load)?,
        packed_tensors: kernels::packed_tensors(),
        description: format!(
            "{}, sandbox: {hold}",
            describe(&model, settings.cpu.variant, threads)
        ),
    };
    if !facts.has_chat_template && !settings.embedding {
        warn!("no chat template: the model only continues raw prompts (/v1/completions)");
    }
    // The only assignment: no submission arrives before `Ready`.
    let _unset = builder.set(built);
    protocol::write_frame(socket, &FromEngine::Ready(facts))?;
    match worker {
        Worker::Generator(engine) => step_loop::run(*engine, commands, socket),
        Worker::Embedder(embedder) => step_loop::run(*embedder, commands, socket),
    }
}

/// The worker for the kind of model.
enum Worker<'m> {
    Generator(Box<Generator<'m>>),
    Embedder(Box<Embedder<'m>>),
}

impl<'m> Worker<'m> {
    fn new(
        backend: &LlamaBackend,
        model: &'m LlamaModel,
        adapter: Option<(LlamaLoraAdapter, f32)>,
        settings: &EngineSettings,
        threads: usize,
    ) -> Result<Self, EngineError> {
        if settings.embedding {
            let embedder = Embedder::new(backend, model, settings, threads)?;
            return Ok(Self::Embedder(Box::new(embedder)));
        }
        let (mut context, limits) = new_context(backend, model, settings, threads)?;
        if let Some((mut adapter, scale)) = adapter {
            context.lora_adapter_set(&mut adapter, scale).map_err(|error| {
                EngineError::Load(format!("LoRA adapter could not be applied: {error}"))
            })?;
        }
        Ok(Self::Generator(Box::new(Generator::new(model, context, limits, settings))))
    }

    /// Maximum length of prompt plus answer, or of a text to embed.
    fn context_tokens(&self) -> usize {
        match self {
            Self::Generator(engine) => engine.context_tokens,
            Self::Embedder(embedder) => embedder.context_tokens,
        }
    }
}

/// The chat template from the config, if any.
fn chat_template(settings: &EngineSettings) -> Result<Option<String>, EngineError> {
    let Some(path) = &settings.chat_template else { return Ok(None) };
    if path.as_os_str() == "chatml" {
        return Ok(Some(CHATML.to_owned()));
    }
    let failed = |error| {
        EngineError::Load(format!("chat template {} cannot be read: {error}", path.display()))
    };
    fs::read_to_string(path).map(Some).map_err(failed)
}

fn describe(model: &LlamaModel, variant: CpuVariant, threads: usize) -> String {
    let name = |key| model.meta_val_str(key).unwrap_or_else(|_| "unnamed".to_owned());
    format!(
        "{} ({}), {:.0} M parameters, {:.0} MiB, {threads} threads, {variant:?} code, {} tensors packed for own kernels",
        name("general.name"),
        name("general.architecture"),
        model.n_params() as f64 / 1e6,
        model.size() as f64 / f64::from(1 << 20),
        kernels::packed_tensors(),
    )
}
