//! Reader thread: turns frames into commands, and ends the process when the socket is closed.
//!
//! Tokenises submissions in parallel with evaluation. Those that need a grammar go to a thread of
//! their own, because a complex schema takes time: other submissions overtake them.

use std::collections::HashSet;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use parking_lot::{Mutex, MutexGuard};
use rustix::process::{Signal, getpid, kill_process};
use tracing::error;

use super::command::EngineCommand;
use super::prompt::builder::PromptBuilder;
use crate::backends::llama::wire::protocol::{self, Prompt, Submission, ToEngine};
use crate::units::AttemptId;

/// Compiling recurses as deep as a schema and its references; unused stack is never mapped.
const STACK_BYTES: usize = 32 << 20;

/// Work of the grammar thread, in order of arrival.
enum GrammarJob {
    Prepare(Box<Submission>),
    Cancel(AttemptId),
}

/// Destinations of frames.
struct FrameReader {
    builder: Arc<OnceLock<PromptBuilder>>,
    commands: SyncSender<EngineCommand>,
    grammar_jobs: SyncSender<GrammarJob>,
    /// Attempts on the grammar thread: their cancellations must not overtake them.
    preparing: Arc<Mutex<HashSet<AttemptId>>>,
}

/// Starts both threads. `most` bounds the commands in flight.
pub(crate) fn start(
    mut socket: UnixStream,
    builder: Arc<OnceLock<PromptBuilder>>,
    commands: SyncSender<EngineCommand>,
    most: usize,
) -> io::Result<()> {
    let (grammar_jobs, jobs) = sync_channel(most);
    let preparing = Arc::new(Mutex::default());
    let reader = FrameReader {
        builder: Arc::clone(&builder),
        commands: commands.clone(),
        grammar_jobs,
        preparing: Arc::clone(&preparing),
    };
    let prepare = move || {
        let reason = prepare(&jobs, &builder, &commands, &preparing);
        kill_self(reason);
    };
    thread::Builder::new().name("grammars".to_owned()).stack_size(STACK_BYTES).spawn(prepare)?;
    let read = move || {
        loop {
            let taken = match protocol::read_frame(&mut socket) {
                Ok(Some(frame)) => reader.take(frame),
                Ok(None) => Err("the gateway has closed the socket"),
                Err(error) => return kill_self(&error.to_string()),
            };
            if let Err(reason) = taken {
                return kill_self(reason);
            }
        }
    };
    thread::Builder::new().name("reader".to_owned()).spawn(read)?;
    Ok(())
}

const QUEUE_OVERFLOW: &str = "engine queue overflow";
const NOT_LOADED: &str = "submission before the model was loaded";

impl FrameReader {
    /// An error ends the process.
    fn take(&self, frame: ToEngine) -> Result<(), &'static str> {
        let command = match frame {
            ToEngine::Submit(submission) if needs_grammar(&submission) => {
                self.preparing().insert(submission.attempt);
                return self.enqueue(GrammarJob::Prepare(Box::new(submission)));
            }
            ToEngine::Submit(submission) => {
                self.builder.get().ok_or(NOT_LOADED)?.command(submission)
            }
            ToEngine::Embed(embed) => self.builder.get().ok_or(NOT_LOADED)?.embedding(embed),
            ToEngine::Cancel(attempt) if self.preparing().contains(&attempt) => {
                return self.enqueue(GrammarJob::Cancel(attempt));
            }
            ToEngine::Cancel(attempt) => EngineCommand::Cancel(attempt),
            ToEngine::Load(_) => return Err("second load request"),
        };
        self.commands.try_send(command).map_err(|_| QUEUE_OVERFLOW)
    }

    fn enqueue(&self, job: GrammarJob) -> Result<(), &'static str> {
        self.grammar_jobs.try_send(job).map_err(|_| QUEUE_OVERFLOW)
    }

    fn preparing(&self) -> MutexGuard<'_, HashSet<AttemptId>> {
        self.preparing.lock()
    }
}

fn needs_grammar(submission: &Submission) -> bool {
    let has_tools =
        matches!(&submission.prompt, Prompt::Chat(conversation) if conversation.tools.is_some());
    submission.constraint.is_some() || has_tools
}

/// Runs the grammar thread; returns the reason why the process must end.
fn prepare(
    jobs: &Receiver<GrammarJob>,
    builder: &OnceLock<PromptBuilder>,
    commands: &SyncSender<EngineCommand>,
    preparing: &Mutex<HashSet<AttemptId>>,
) -> &'static str {
    for job in jobs {
        let (attempt, command) = match job {
            GrammarJob::Prepare(submission) => {
                let Some(builder) = builder.get() else { return NOT_LOADED };
                (Some(submission.attempt), builder.command(*submission))
            }
            GrammarJob::Cancel(attempt) => (None, EngineCommand::Cancel(attempt)),
        };
        if commands.try_send(command).is_err() {
            return QUEUE_OVERFLOW;
        }
        // After sending: a later cancellation takes the direct path, behind this command.
        if let Some(attempt) = attempt {
            preparing.lock().remove(&attempt);
        }
    }
    "the reader thread has ended"
}

/// Kills this process, even during an evaluation or a load.
///
/// An ordinary exit would run destructors of C++ statics while computing threads use them. Nothing
/// is lost: the process has no state outside of its memory, and the gateway ignores its exit
/// status.
pub(crate) fn kill_self(reason: &str) {
    tracing::debug!("engine exits: {reason}");
    if let Err(error) = kill_process(getpid(), Signal::KILL) {
        error!("engine could not exit: {error}");
    }
}
