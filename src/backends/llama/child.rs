//! The engine process: loads one model and answers over the socket that is its standard input.
//!
//! Two threads. The reader takes frames, renders templates and tokenises; the main thread owns the llama.cpp context.
//! Knows nothing of HTTP, energy or other models.

use std::io::{self, Write};
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, OnceLock};
use std::thread;

use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::LlamaContextParams;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_2::{LogOptions, send_logs_to_tracing};
use rustix::process::{Signal, getpid, kill_process};
use tracing::{error, warn};

use super::engine::{Engine, Order};
use super::prompt::Prompter;
use super::protocol::{self, EngineFacts, FrameError, FromEngine, HEADER, Settings, ToEngine};
use super::scheduler::Limits;

/// Why an engine process ended other than by its gateway's leave.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(
        "standard input is not a gateway's socket: `wattgate serve` starts this command itself"
    )]
    NotAChild,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Load(String),
    #[error("llama.cpp could not evaluate a batch: {0}")]
    Decode(String),
    #[error("a thread could not be started: {0}")]
    Thread(io::Error),
}

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
    let (orders, ordered) = mpsc::sync_channel(4 * (settings.slots + settings.queue) as usize);
    let prompter = Arc::new(OnceLock::new());
    let reader_prompter = Arc::clone(&prompter);
    thread::Builder::new()
        .name("reader".to_owned())
        .spawn(move || read_orders(&mut reading, &reader_prompter, &orders))
        .map_err(EngineError::Thread)?;
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
    let model = Arc::new(load_model(&backend, settings, socket)?);
    let threads = match settings.threads {
        // Follows a container's CPU quota and this process's affinity, unlike llama.cpp's own default.
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => threads as usize,
    };
    let (context, limits) = new_context(&backend, &model, settings, threads)?;
    let built = Prompter::new(Arc::clone(&model))
        .map_err(|error| EngineError::Load(format!("its chat template is broken: {error}")))?;
    let facts = EngineFacts {
        context_tokens: u32::try_from(limits.context_tokens).unwrap_or(u32::MAX),
        slots: settings.slots,
        has_chat_template: built.has_own_template(),
        takes_tools: built.takes_tools(),
        description: describe(&model, threads),
    };
    if !facts.has_chat_template {
        warn!("the model has no chat template of its own: ChatML is used");
    }
    // Set once, here: no submission comes before `Ready`.
    let _unset = prompter.set(built);
    tell(socket, &FromEngine::Ready(facts))?;
    Engine::new(&model, context, limits, settings).run(orders, socket)
}

fn load_model(
    backend: &LlamaBackend,
    settings: &Settings,
    socket: &UnixStream,
) -> Result<LlamaModel, EngineError> {
    let mut socket = socket.try_clone().map_err(FrameError::from)?;
    let mut told = 0;
    let params = LlamaModelParams::default()
        .with_n_gpu_layers(settings.gpu_layers)
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
    LlamaModel::load_from_file(backend, &settings.gguf, &params).map_err(|error| {
        EngineError::Load(format!(
            "{} is not a model that llama.cpp can load ({error})",
            settings.gguf.display()
        ))
    })
}

/// A context with a KV cache of its own for each slot: answers then do not depend on what else is in the batch.
fn new_context<'m>(
    backend: &LlamaBackend,
    model: &'m LlamaModel,
    settings: &Settings,
    threads: usize,
) -> Result<(LlamaContext<'m>, Limits), EngineError> {
    let slots = settings.slots.max(1);
    let context_tokens = settings.context_tokens.clamp(1, model.n_ctx_train());
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
        .with_n_threads_batch(threads);
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

/// Takes frames until the gateway is gone. Submissions become token lists here, beside the evaluating thread.
fn read_orders(socket: &mut UnixStream, prompter: &OnceLock<Prompter>, orders: &SyncSender<Order>) {
    loop {
        let order = match protocol::read_frame(socket) {
            Ok(Some(ToEngine::Submit(submission))) => match prompter.get() {
                Some(prompter) => prompter.order(submission),
                None => return leave("a submission came before the model was loaded"),
            },
            Ok(Some(ToEngine::Cancel(attempt))) => Order::Cancel(attempt),
            Ok(Some(ToEngine::Load(_))) => return leave("the gateway asked for a second model"),
            Ok(None) => return leave("the gateway is gone"),
            Err(error) => return leave(&error.to_string()),
        };
        if orders.try_send(order).is_err() {
            return leave("more was ordered than was agreed");
        }
    }
}

/// Ends this process at once, from the reader thread, even in the middle of an evaluation or a load.
///
/// An ordinary exit would run the destructors of C++ statics under the computing threads' feet. Nothing is lost: this
/// process has no state but its memory, and nobody is left to read an exit status.
fn leave(reason: &str) {
    tracing::debug!("leaving: {reason}");
    if let Err(error) = kill_process(getpid(), Signal::KILL) {
        error!("could not leave: {error}");
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
