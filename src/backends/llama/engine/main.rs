//! The engine process: loads one model and answers over the socket that is its standard input.
//!
//! Three threads. The reader and its helper take frames, render templates and tokenise (`intake`); the main
//! thread owns the llama.cpp context. Knows nothing of HTTP, energy or other models.

use std::fs;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::model::{LlamaLoraAdapter, LlamaModel};
use llama_cpp_2::{LogOptions, send_logs_to_tracing};
use tracing::{error, warn};

use super::complaints;
use super::config::{FlashAttention, KvType};
use super::embedder::Embedder;
use super::engine::{Engine, Order};
use super::failure::EngineError;
use super::gguf;
use super::intake;
use super::prompt::Prompter;
use super::protocol::{self, EngineFacts, FrameError, FromEngine, HEADER, Settings, ToEngine};
use super::scheduler::Limits;
use super::template::CHATML;

/// Runs the engine process. Does not return while the gateway lives, unless something is wrong.
pub fn run() -> Result<(), EngineError> {
    let socket = gateway_socket()?;
    let mut reading = socket.try_clone().map_err(FrameError::from)?;
    let Some(ToEngine::Load(settings)) = protocol::read_frame(&mut reading)? else {
        return Err(EngineError::NotAChild);
    };
    send_logs_to_tracing(LogOptions::default());
    // The gateway has no more attempts open than its places, each with a submission and a cancellation: a full
    // channel is a broken gateway.
    let most = 4 * (settings.slots + settings.queue) as usize;
    let (orders, ordered) = mpsc::sync_channel(most);
    let prompter = Arc::new(OnceLock::new());
    intake::start(reading, Arc::clone(&prompter), orders, most).map_err(EngineError::Thread)?;
    let mut socket = socket;
    match serve(&settings, &mut socket, &prompter, &ordered) {
        Err(EngineError::Load(reason)) => {
            error!("{reason}");
            tell(&mut socket, &FromEngine::LoadFailed { reason: reason.clone() })?;
            Err(EngineError::Load(reason))
        }
        ended => ended,
    }
}

fn gateway_socket() -> Result<UnixStream, EngineError> {
    let stdin = io::stdin();
    let owned = stdin.as_fd().try_clone_to_owned().map_err(|_| EngineError::NotAChild)?;
    let socket = UnixStream::from(owned);
    // Only a socket has an address; a terminal or a file does not.
    socket.local_addr().map_err(|_| EngineError::NotAChild)?;
    Ok(socket)
}

/// Loads the model, then evaluates until the gateway is gone.
fn serve(
    settings: &Settings,
    socket: &mut UnixStream,
    prompter: &OnceLock<Prompter>,
    orders: &mpsc::Receiver<Order>,
) -> Result<(), EngineError> {
    let backend = LlamaBackend::init().map_err(|error| EngineError::Load(error.to_string()))?;
    #[cfg(target_os = "linux")]
    super::barrier::install();
    #[cfg(target_arch = "x86_64")]
    super::kernels::register();
    let mut model = load_model(&backend, settings, socket)?;
    #[cfg(target_os = "linux")]
    super::mapped::let_go(&settings.gguf);
    let adapter = load_adapter(&mut model, settings)?;
    let model = Arc::new(model);
    let threads = settings.threads.max(1) as usize;
    let worker = Worker::new(&backend, &model, adapter, settings, threads)?;
    let context_tokens = worker.context_tokens();
    let template = chat_template(settings)?;
    let built = Prompter::new(Arc::clone(&model), template, settings.overflow, context_tokens)
        .map_err(|error| EngineError::Load(format!("its chat template is broken: {error}")))?;
    let facts = EngineFacts {
        context_tokens: u32::try_from(context_tokens).unwrap_or(u32::MAX),
        slots: settings.slots,
        has_chat_template: built.has_template(),
        takes_tools: built.takes_tools(),
        description: describe(&model, threads),
    };
    if !facts.has_chat_template && !settings.embedding {
        warn!("the model has no chat template: it continues raw prompts only");
    }
    // Set once, here: no submission comes before `Ready`.
    let _unset = prompter.set(built);
    tell(socket, &FromEngine::Ready(facts))?;
    match worker {
        Worker::Generator(engine) => engine.run(orders, socket),
        Worker::Embedder(embedder) => embedder.run(orders, socket),
    }
}

/// What this process does with its model.
enum Worker<'m> {
    Generator(Engine<'m>),
    Embedder(Embedder<'m>),
}

impl<'m> Worker<'m> {
    fn new(
        backend: &LlamaBackend,
        model: &'m LlamaModel,
        adapter: Option<(LlamaLoraAdapter, f32)>,
        settings: &Settings,
        threads: usize,
    ) -> Result<Self, EngineError> {
        if settings.embedding {
            return Embedder::new(backend, model, settings, threads).map(Self::Embedder);
        }
        let (mut context, limits) = new_context(backend, model, settings, threads)?;
        if let Some((mut adapter, scale)) = adapter {
            context
                .lora_adapter_set(&mut adapter, scale)
                .map_err(|error| EngineError::Load(format!("its adapter does not fit: {error}")))?;
        }
        Ok(Self::Generator(Engine::new(model, context, limits, settings)))
    }

    /// Longest prompt plus answer, or longest text to embed.
    fn context_tokens(&self) -> usize {
        match self {
            Self::Generator(engine) => engine.context_tokens,
            Self::Embedder(embedder) => embedder.context_tokens,
        }
    }
}

fn load_model(
    backend: &LlamaBackend,
    settings: &Settings,
    socket: &UnixStream,
) -> Result<LlamaModel, EngineError> {
    // Before llama.cpp sees it: this reader expects hostile files, and says what is wrong with them.
    let no_model = |reason: &dyn std::fmt::Display| {
        let path = settings.gguf.display();
        EngineError::Load(format!("{path} is not a model that llama.cpp can load: {reason}"))
    };
    gguf::read_shape(&settings.gguf).map_err(|error| no_model(&error))?;
    let mut socket = socket.try_clone().map_err(FrameError::from)?;
    let mut told = 0;
    let params = LlamaModelParams::default()
        .with_n_gpu_layers(settings.gpu_layers)
        .with_use_mmap(settings.mmap)
        .with_use_mlock(settings.mlock)
        .with_progress_callback(move |share| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of 0 to 1"
            )]
            let percent = (share * 100.0) as u8;
            if percent > told {
                told = percent;
                // A gateway that is gone is the reader's to notice.
                let _told = tell(&mut socket, &FromEngine::Loading { percent });
            }
            true
        });
    LlamaModel::load_from_file(backend, &settings.gguf, &params)
        .map_err(|error| no_model(&complaints::first().unwrap_or_else(|| error.to_string())))
}

/// The LoRA adapter, if there is one. It lives in the model and is freed with it.
fn load_adapter(
    model: &mut LlamaModel,
    settings: &Settings,
) -> Result<Option<(LlamaLoraAdapter, f32)>, EngineError> {
    let Some((path, scale)) = &settings.lora else { return Ok(None) };
    let failed = |error: &dyn std::fmt::Display| {
        EngineError::Load(format!("{} is no adapter for it ({error})", path.display()))
    };
    // llama.cpp's binding asserts in debug builds that the file exists.
    path.metadata().map_err(|error| failed(&error))?;
    let adapter = model.lora_adapter_init(path).map_err(|error| failed(&error))?;
    Ok(Some((adapter, *scale)))
}

/// The chat template that the config names, if it does.
fn chat_template(settings: &Settings) -> Result<Option<String>, EngineError> {
    let Some(path) = &settings.chat_template else { return Ok(None) };
    if path.as_os_str() == "chatml" {
        return Ok(Some(CHATML.to_owned()));
    }
    let failed = |error| EngineError::Load(format!("{} cannot be read: {error}", path.display()));
    fs::read_to_string(path).map(Some).map_err(failed)
}

/// A context with a KV cache of its own for each slot: answers then do not depend on what else is in the batch.
fn new_context<'m>(
    backend: &LlamaBackend,
    model: &'m LlamaModel,
    settings: &Settings,
    threads: usize,
) -> Result<(LlamaContext<'m>, Limits), EngineError> {
    let slots = settings.slots.max(1);
    let context_tokens = settings.context_within(model.n_ctx_train());
    let batch_tokens = settings.batch_tokens.max(slots);
    let threads = i32::try_from(threads).unwrap_or(1);
    let params = LlamaContextParams::default()
        // llama.cpp divides this among the slots and rounds each up to a multiple of 256.
        .with_n_ctx(NonZeroU32::new(context_tokens.saturating_mul(slots)))
        .with_n_seq_max(slots)
        .with_kv_unified(false)
        .with_n_batch(batch_tokens)
        .with_n_ubatch(batch_tokens)
        .with_n_threads(threads)
        .with_n_threads_batch(threads)
        .with_flash_attention_policy(match settings.flash_attention {
            FlashAttention::Auto => llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_AUTO,
            FlashAttention::On => llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_ENABLED,
            FlashAttention::Off => llama_cpp_sys_2::LLAMA_FLASH_ATTN_TYPE_DISABLED,
        })
        .with_type_k(kv_type(settings.kv_type))
        .with_type_v(kv_type(settings.kv_type));
    let context = model.new_context(backend, params).map_err(|error| {
        EngineError::Load(format!(
            "no memory for {slots} slots of {context_tokens} tokens ({error})"
        ))
    })?;
    let limits = Limits {
        slots: slots as usize,
        context_tokens: context_tokens as usize,
        // What llama.cpp made of it: a larger batch would abort the process.
        batch_tokens: context.n_batch().max(slots) as usize,
        queue: settings.queue as usize,
    };
    Ok((context, limits))
}

fn kv_type(kv_type: KvType) -> KvCacheType {
    match kv_type {
        KvType::F16 => KvCacheType::F16,
        KvType::Q8_0 => KvCacheType::Q8_0,
        KvType::Q4_0 => KvCacheType::Q4_0,
    }
}

/// Sends one message.
fn tell(socket: &mut UnixStream, message: &FromEngine) -> Result<(), FrameError> {
    let mut frame = Vec::with_capacity(HEADER + 64);
    protocol::append_frame(&mut frame, message)?;
    Ok(socket.write_all(&frame)?)
}

fn describe(model: &LlamaModel, threads: usize) -> String {
    let name = |key| model.meta_val_str(key).unwrap_or_else(|_| "unnamed".to_owned());
    format!(
        "{} ({}), {:.0} M parameters, {:.0} MiB, {threads} threads",
        name("general.name"),
        name("general.architecture"),
        model.n_params() as f64 / 1e6,
        model.size() as f64 / f64::from(1 << 20),
    )
}
