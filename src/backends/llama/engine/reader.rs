//! Reader thread: hands frames on, and ends the process when the socket is closed.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};
use std::thread;

use rustix::process::{Signal, getpid, kill_process};
use tracing::error;

use super::command::EngineCommand;
use super::intake::workers::Intake;
use super::prompt::builder::PromptBuilder;
use crate::backends::llama::wire::protocol::{self, ToEngine};

/// Starts the thread, and those that prepare requests. `most` bounds the commands in flight.
pub(crate) fn start(
    mut socket: UnixStream,
    builder: Arc<OnceLock<PromptBuilder>>,
    commands: SyncSender<EngineCommand>,
    most: usize,
) -> io::Result<()> {
    let intake = Intake::start(&builder, commands, most, kill_self)?;
    let read = move || {
        loop {
            let taken = match protocol::read_frame(&mut socket) {
                Ok(Some(frame)) => take(&intake, &builder, frame),
                Ok(None) => Err("the gateway has closed the socket".to_owned()),
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = taken {
                return kill_self(&reason);
            }
        }
    };
    thread::Builder::new().name("reader".to_owned()).spawn(read)?;
    Ok(())
}

/// An error ends the process.
fn take(intake: &Intake, builder: &OnceLock<PromptBuilder>, frame: ToEngine) -> Result<(), String> {
    if builder.get().is_none() && !matches!(frame, ToEngine::Cancel(_)) {
        return Err("submission before the model was loaded".to_owned());
    }
    let taken = match frame {
        ToEngine::Submit(submission) => intake.submit(submission),
        ToEngine::Embed(embed) => intake.embed(embed),
        ToEngine::Cancel(attempt) => intake.cancel(attempt),
        ToEngine::Load(_) => return Err("second load request".to_owned()),
    };
    taken.map_err(|overflow| overflow.to_string())
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
