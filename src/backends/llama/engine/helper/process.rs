//! Main loop of a helper process: one task after the other over the socket that is its standard
//! input. Ends when the socket is closed, or with a task that takes too long: a second thread
//! watches the CPU time.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::Duration;

use llguidance::toktrie::ApproximateTokEnv;
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

use super::wire::{Order, Report, Setup, Task, Trial};
use crate::backends::llama::engine::error::EngineError;
use crate::backends::llama::engine::grammar::compile::Grammars;
use crate::backends::llama::engine::grammar::shape::{AnswerShape, Part, Schema};
use crate::backends::llama::engine::prompt::control_tokens::ControlTokenGuard;
use crate::backends::llama::engine::prompt::template::ChatTemplate;
use crate::backends::llama::sandbox::limits;
use crate::backends::llama::wire::protocol::{self, FrameError};

/// Memory of a helper, its stack included. Grammars that are worth their answer and conversations
/// of the largest body take less than a third.
const DATA_BYTES_MAX: u64 = 384 << 20;

/// Compiling and rendering recurse as deep as their input; unused stack is never mapped.
const STACK_BYTES: usize = 32 << 20;

/// Time between two looks at the CPU time of a task.
const WATCH: Duration = Duration::from_millis(10);

/// The CPU time of this process at which the task at hand is given up; [`NO_TASK`] between tasks.
static CPU_END_NS: AtomicU64 = AtomicU64::new(NO_TASK);
const NO_TASK: u64 = u64::MAX;

/// Runs the helper until the engine closes `socket`.
pub(crate) fn run(socket: UnixStream) -> Result<(), EngineError> {
    limits::of_helper(&socket, DATA_BYTES_MAX).map_err(EngineError::Limits)?;
    let reports = Arc::new(Mutex::new(socket.try_clone().map_err(FrameError::from)?));
    let watch = Arc::new(Watch { watcher: thread::current(), ended: AtomicBool::new(false) });
    let (own, watched) = (Arc::clone(&reports), Ending(Arc::clone(&watch)));
    let work = move || serve(socket, &own, &watched.0.watcher);
    let work = thread::Builder::new().stack_size(STACK_BYTES).spawn(work);
    let work = work.map_err(EngineError::Thread)?;
    while !watch.ended.load(Ordering::Acquire) {
        if CPU_END_NS.load(Ordering::Acquire) == NO_TASK {
            thread::park();
            continue;
        }
        thread::sleep(WATCH);
        if is_too_long() {
            let mut reports = reports.lock();
            // The task may just have ended.
            if is_too_long() {
                return Ok(protocol::write_frame(&mut *reports, &Report::TooLong)?);
            }
        }
    }
    let ended = work.join();
    ended.unwrap_or_else(|_| Err(EngineError::Thread(io::Error::other("it panicked"))))
}

/// What the watching thread sleeps on between tasks.
struct Watch {
    watcher: Thread,
    ended: AtomicBool,
}

/// Wakes the watching thread when the work ends, in whatever way.
struct Ending(Arc<Watch>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.watcher.unpark();
    }
}

fn is_too_long() -> bool {
    cpu_ns() >= CPU_END_NS.load(Ordering::Acquire)
}

/// CPU time of this process.
fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, rest) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(rest.unwrap_or(0))
}

fn serve(
    mut orders: UnixStream,
    reports: &Mutex<UnixStream>,
    watcher: &Thread,
) -> Result<(), EngineError> {
    let Some(setup) = protocol::read_frame::<Setup>(&mut orders)? else { return Ok(()) };
    let guard = ControlTokenGuard::new(setup.controls);
    let template = LazyCell::new(|| {
        let template = ChatTemplate::new(&setup.template, &setup.bos, &setup.eos);
        template.map_err(|error| error.to_string())
    });
    let mut grammars = None;
    while let Some(Order { task, cpu_max }) = protocol::read_frame::<Order>(&mut orders)? {
        let cpu_max_ns = u64::try_from(cpu_max.as_nanos()).unwrap_or(NO_TASK);
        CPU_END_NS.store(cpu_ns().saturating_add(cpu_max_ns), Ordering::Release);
        watcher.unpark();
        let report = match task {
            Task::Render(rendering) => Report::Rendered(match &*template {
                Ok(template) => template
                    .render(
                        &rendering.turns,
                        rendering.tools.as_ref(),
                        &rendering.variables,
                        &guard,
                    )
                    .map_err(|error| error.to_string()),
                Err(error) => Err(error.clone()),
            }),
            Task::Try(trial) => {
                let compiler = grammars.get_or_insert_with(|| {
                    limits::yield_to_others();
                    compiler()
                });
                try_out(compiler, trial);
                Report::Tried
            }
        };
        let mut reports = reports.lock();
        CPU_END_NS.store(NO_TASK, Ordering::Release);
        match protocol::write_frame(&mut *reports, &report) {
            Err(FrameError::TooLong { bytes }) => {
                let error = format!("its output has {bytes} bytes");
                protocol::write_frame(&mut *reports, &Report::Rendered(Err(error)))?;
            }
            written => written?,
        }
    }
    Ok(())
}

/// A compiler over single bytes: what makes a schema expensive does not depend on the vocabulary.
fn compiler() -> Option<Grammars> {
    Grammars::over(&ApproximateTokEnv::single_byte_env(), HashMap::new()).ok()
}

fn try_out(grammars: &mut Option<Grammars>, trial: Trial) {
    let part = match trial {
        Trial::Schema { json, lenient } => match serde_json::from_str(&json) {
            Ok(json) => Part::Json(Schema { json, lenient }),
            // The engine reports it.
            Err(_) => return,
        },
        Trial::Regex(regex) => Part::Regex(regex),
    };
    if let Some(grammars) = grammars {
        // Whether it compiles is for the engine's own compiler to say: here it only ends in time.
        let _ended = grammars.grammar(&AnswerShape(vec![vec![part]]));
    }
}
